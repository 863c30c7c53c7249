// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! Which device: what a person writes, taken apart before anything is opened.

use std::fmt;
use std::path::{Component, Path, PathBuf};
use std::str::FromStr;

/// A device, by the way it is opened.
///
/// Parses from
/// * a sysfs directory: `/sys/bus/pci/devices/0000:01:00.0`, `/sys/bus/mdev/devices/<uuid>`, or
///   the directory under `/sys/devices` that these link to;
/// * the last part of it alone: a PCI address or an mdev UUID;
/// * a cdev node: `/dev/vfio/devices/vfio0`.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum DevicePath {
    /// A device directory in sysfs, opened through its group and a container.
    Sysfs(PathBuf),
    /// A `/dev/vfio/devices/vfioN`, opened directly and bound to an iommufd.
    Cdev(PathBuf),
}

/// Not a name of a device. Says what is accepted.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ParsePathError {
    /// Nothing was given.
    #[error("no device was named; give {ACCEPTED}")]
    Empty,
    /// `/dev/vfio/N` or `/dev/vfio/vfio`.
    #[error("{given:?} is a whole VFIO group or container, not one device; give {ACCEPTED}")]
    NotOneDevice {
        /// What was given.
        given: String,
    },
    /// A PCI address as `lspci` shortens it.
    #[error("PCI address {given:?} has no domain; did you mean \"0000:{given}\"?")]
    NoDomain {
        /// What was given.
        given: String,
    },
    /// Something else.
    #[error("{given:?} names no device; give {ACCEPTED}")]
    Unknown {
        /// What was given.
        given: String,
    },
}

const ACCEPTED: &str = "a PCI address (0000:01:00.0), an mdev UUID, a device directory in sysfs \
                        (/sys/bus/pci/devices/..., /sys/bus/mdev/devices/...) or a device node \
                        (/dev/vfio/devices/vfio0)";

const PCI: &str = "/sys/bus/pci/devices";
const MDEV: &str = "/sys/bus/mdev/devices";
const CDEV: &str = "/dev/vfio/devices";

impl FromStr for DevicePath {
    type Err = ParsePathError;

    fn from_str(given: &str) -> Result<Self, ParsePathError> {
        let unknown = || ParsePathError::Unknown { given: given.into() };
        if given.is_empty() {
            return Err(ParsePathError::Empty);
        }
        if given.starts_with('/') {
            return absolute(Path::new(given)).ok_or_else(|| refused(given));
        }
        // The kernel names its directories in lower case.
        let name = given.to_ascii_lowercase();
        if is_pci_address(&name) {
            return Ok(Self::Sysfs(Path::new(PCI).join(name)));
        }
        if is_uuid(&name) {
            return Ok(Self::Sysfs(Path::new(MDEV).join(name)));
        }
        if is_pci_address(&format!("0000:{name}")) {
            return Err(ParsePathError::NoDomain { given: given.into() });
        }
        Err(unknown())
    }
}

fn absolute(path: &Path) -> Option<DevicePath> {
    // `..` would make the last component mean something else than it says.
    if path.components().any(|part| part == Component::ParentDir) {
        return None;
    }
    let name = path.file_name()?.to_str()?;
    if path.parent()? == Path::new(CDEV) {
        return numbered(name, "vfio").then(|| DevicePath::Cdev(path.into()));
    }
    let lower = name.to_ascii_lowercase();
    let named = is_pci_address(&lower) || is_uuid(&lower);
    (path.starts_with("/sys") && named).then(|| DevicePath::Sysfs(path.into()))
}

fn refused(given: &str) -> ParsePathError {
    let group = given
        .strip_prefix("/dev/vfio/")
        .is_some_and(|name| name == "vfio" || numbered(name, "") || numbered(name, "noiommu-"));
    match group {
        true => ParsePathError::NotOneDevice { given: given.into() },
        false => ParsePathError::Unknown { given: given.into() },
    }
}

fn numbered(name: &str, prefix: &str) -> bool {
    name.strip_prefix(prefix)
        .is_some_and(|rest| !rest.is_empty() && rest.bytes().all(|b| b.is_ascii_digit()))
}

/// `domain:bus:device.function`. The domain has more than four digits behind some bridges.
fn is_pci_address(name: &str) -> bool {
    let Some((bus_device, function)) = name.rsplit_once('.') else { return false };
    let [domain, bus, device] = bus_device.split(':').collect::<Vec<_>>()[..] else { return false };
    let number = |part: &str| u32::from_str_radix(part, 16).unwrap_or(u32::MAX);
    (4..=8).contains(&domain.len())
        && all_hex(domain)
        && (bus.len() == 2 && all_hex(bus))
        && (device.len() == 2 && all_hex(device) && number(device) < 32)
        && (function.len() == 1 && all_hex(function) && number(function) < 8)
}

fn is_uuid(name: &str) -> bool {
    let parts: Vec<_> = name.split('-').collect();
    parts.iter().map(|part| part.len()).eq([8, 4, 4, 4, 12]) && parts.into_iter().all(all_hex)
}

/// `from_str_radix` alone would let a sign through.
fn all_hex(part: &str) -> bool {
    part.bytes().all(|b| b.is_ascii_hexdigit())
}

impl fmt::Display for DevicePath {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Sysfs(path) | Self::Cdev(path) => path.display().fmt(f),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const UUID: &str = "83b8f4f2-509f-382f-3c1e-e6bfe0fa1001";

    fn parse(given: &str) -> Result<DevicePath, ParsePathError> {
        given.parse()
    }

    fn sysfs(path: &str) -> Result<DevicePath, ParsePathError> {
        Ok(DevicePath::Sysfs(path.into()))
    }

    #[test]
    fn bare_names_become_sysfs_directories() {
        assert_eq!(parse("0000:01:00.0"), sysfs("/sys/bus/pci/devices/0000:01:00.0"));
        assert_eq!(parse("0000:AF:1f.7"), sysfs("/sys/bus/pci/devices/0000:af:1f.7"));
        assert_eq!(parse("10000:01:00.0"), sysfs("/sys/bus/pci/devices/10000:01:00.0"));
        assert_eq!(parse(UUID), sysfs(&format!("/sys/bus/mdev/devices/{UUID}")));
        assert_eq!(parse(&UUID.to_uppercase()), parse(UUID));
    }

    #[test]
    fn paths_are_taken_as_they_are() {
        for path in [
            "/sys/bus/pci/devices/0000:01:00.0",
            "/sys/devices/pci0000:00/0000:00:01.0/0000:01:00.2",
            &format!("/sys/devices/virtual/mtty/mtty/{UUID}"),
        ] {
            assert_eq!(parse(path), sysfs(path));
            assert_eq!(parse(path).unwrap().to_string(), path);
        }
        let cdev = "/dev/vfio/devices/vfio12";
        assert_eq!(parse(cdev), Ok(DevicePath::Cdev(cdev.into())));
    }

    #[test]
    fn refusals_say_why() {
        assert_eq!(parse(""), Err(ParsePathError::Empty));
        for group in ["/dev/vfio/12", "/dev/vfio/vfio", "/dev/vfio/noiommu-0"] {
            assert_eq!(parse(group), Err(ParsePathError::NotOneDevice { given: group.into() }));
        }
        assert_eq!(
            parse("01:00.0").unwrap_err().to_string(),
            "PCI address \"01:00.0\" has no domain; did you mean \"0000:01:00.0\"?"
        );
        for unknown in [
            "0000:01:00",
            "0000:01:20.0",
            "0000:01:00.8",
            "0000:01:+0.0",
            "000:01:00.0",
            "eth0",
            "83b8f4f2-509f-382f-3c1e-e6bfe0fa100g",
            "83b8f4f2509f382f3c1ee6bfe0fa1001",
            "/dev/vfio/devices/vfio",
            "/dev/vfio/devices/null",
            "/dev/null",
            "/sys",
            "/sys/bus/pci/devices",
            "/sys/bus/pci/devices/0000:01:00.0/..",
            "/tmp/0000:01:00.0",
            "/sys/../tmp/0000:01:00.0",
            "sys/bus/pci/devices/0000:01:00.0",
        ] {
            let error = parse(unknown).unwrap_err();
            assert_eq!(error, ParsePathError::Unknown { given: unknown.into() });
            assert!(error.to_string().contains("/dev/vfio/devices/vfio0"), "{error}");
        }
    }
}
