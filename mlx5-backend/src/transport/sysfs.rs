// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! What sysfs says of a virtual function, and who can send its commands.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use super::Transport;

/// NVIDIA's networking devices, formerly Mellanox.
const VENDOR: u16 = 0x15b3;
/// `mlx5_core_pci_table` of the kernel's drivers/net/ethernet/mellanox/mlx5/core/main.c: from
/// Connect-IB to ConnectX-10, and the network controllers of BlueField.
const CONNECTX: std::ops::RangeInclusive<u16> = 0x1011..=0x1027;
const OTHERS: [u16; 6] = [0x2101, 0xa2d2, 0xa2d3, 0xa2d6, 0xa2dc, 0xa2df];
/// The one kind of virtual function that the kernel's mlx5-vfio-pci takes (`mlx5vf_pci_table`):
/// those of ConnectX-6 Dx and later.
const MIGRATABLE: u16 = 0x101e;

const KERNEL_PF: &str = "mlx5_core";
const KERNEL_VF: &str = "mlx5_vfio_pci";
const USER: &str = "vfio_pci";

/// A virtual function, and how its commands get to the firmware.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Found {
    /// Who sends the commands.
    pub transport: Transport,
    /// The virtual function's directory in sysfs.
    pub vf: PathBuf,
    /// The physical function's.
    pub pf: PathBuf,
    /// Its `function_id`, as firmware commands have it: `virtfn0` is 1.
    pub function: u16,
}

/// A device that cannot be driven, or not as was asked.
///
/// Each says what was seen and what to do next. Commands are for a root shell.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum DetectError {
    /// Not a PCI address.
    #[error("{given:?} is no PCI address; give one like 0000:3b:00.2, as `lspci -D` has it")]
    Address {
        /// What was given.
        given: String,
    },
    /// There is no such device.
    #[error("no device at {}: {source}; see `lspci -D -d 15b3:`", .path.display())]
    NoSuchDevice {
        /// Where it was looked for.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// It is no device that mlx5_core or this crate knows.
    #[error(
        "{} is {vendor}:{device}; mlx5 is 15b3:1011 to 1027, and BlueField: see `lspci -D -d 15b3:`",
        .path.display()
    )]
    NotMlx5 {
        /// The device's directory.
        path: PathBuf,
        /// What sysfs says, without 0x.
        vendor: String,
        /// What sysfs says, without 0x.
        device: String,
    },
    /// A physical function without virtual ones.
    #[error(
        "{} is a physical function without virtual ones: make some with \
         `echo 1 > {}/sriov_numvfs`, and name one of them", .pf.display(), .pf.display()
    )]
    NoVirtualFunctions {
        /// Its directory.
        pf: PathBuf,
    },
    /// A physical function.
    #[error(
        "{} is a physical function, and what migrates is a virtual one: name one of {}",
        .pf.display(), .vfs.join(", ")
    )]
    PhysicalFunction {
        /// Its directory.
        pf: PathBuf,
        /// The addresses of its virtual functions.
        vfs: Vec<String>,
    },
    /// The physical function does not have it among its own.
    #[error(
        "{} does not have {} among its virtfn*: is SR-IOV being changed? see \
         `cat {}/sriov_numvfs`", .pf.display(), .vf.display(), .pf.display()
    )]
    NotListed {
        /// The virtual function's directory.
        vf: PathBuf,
        /// The physical function's.
        pf: PathBuf,
    },
    /// Nobody drives the physical function.
    #[error(
        "{} has the driver {}, and commands for its virtual functions go through it: give it \
         mlx5_core (`echo {} > /sys/bus/pci/drivers/mlx5_core/bind`), or vfio-pci to send them from \
         user space", .pf.display(), .driver.as_deref().unwrap_or("none"), name(.pf)
    )]
    PfDriver {
        /// The physical function's directory.
        pf: PathBuf,
        /// The driver that has it, if one has.
        driver: Option<String>,
    },
    /// The kernel owns the physical function, and its driver for migration does not have the
    /// virtual one.
    #[error(
        "{} has the driver {}; only mlx5_vfio_pci migrates: `modprobe mlx5_vfio_pci`{}, then \
         `echo mlx5_vfio_pci > {}/driver_override; echo {} > /sys/bus/pci/drivers_probe`",
        .vf.display(), .driver.as_deref().unwrap_or("none"), unbind(.vf, .driver.as_deref()),
        .vf.display(), name(.vf)
    )]
    VfDriver {
        /// The virtual function's directory.
        vf: PathBuf,
        /// The driver that has it, if one has.
        driver: Option<String>,
    },
    /// The kernel has no migration for this kind of function.
    #[error(
        "{} is 15b3:{device:04x}; mlx5_vfio_pci takes 15b3:101e only, the virtual functions of \
         ConnectX-6 Dx and later: take another card", .vf.display()
    )]
    NotMigratable {
        /// The virtual function's directory.
        vf: PathBuf,
        /// Its device number.
        device: u16,
    },
    /// A VFIO driver needs a group.
    #[error(
        "{} has no iommu_group: boot with the IOMMU on (intel_iommu=on or amd_iommu=on, and in the \
         machine's firmware)", .path.display()
    )]
    NoIommuGroup {
        /// The function's directory.
        path: PathBuf,
    },
    /// The firmware cannot be reached in the way that was asked for.
    #[error(
        "--transport firmware needs a physical function that user space owns, and {} has the \
         driver {}: take `--transport kernel`, or give it to vfio-pci, which takes the host's \
         network interfaces on it away", .pf.display(), .driver.as_deref().unwrap_or("none")
    )]
    PfNotOurs {
        /// The physical function's directory.
        pf: PathBuf,
        /// The driver that has it, if one has.
        driver: Option<String>,
    },
    /// The kernel cannot be asked.
    #[error(
        "--transport kernel needs a physical function that the kernel owns, and {} has the driver \
         {}: take `--transport firmware`, or give it to mlx5_core", .pf.display(),
        .driver.as_deref().unwrap_or("none")
    )]
    PfNotKernels {
        /// The physical function's directory.
        pf: PathBuf,
        /// The driver that has it, if one has.
        driver: Option<String>,
    },
    /// A file of sysfs does not have what it should.
    #[error("cannot read {}: {source}; is this sysfs?", .path.display())]
    Unreadable {
        /// Which.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
}

/// The last part of a path, which in sysfs is the device's address.
fn name(path: &Path) -> String {
    path.file_name().unwrap_or_default().to_string_lossy().into_owned()
}

/// What takes a function from its driver, if it has one.
fn unbind(vf: &Path, driver: Option<&str>) -> String {
    driver.map_or_else(String::new, |_| {
        format!(", `echo {} > {}/driver/unbind`", name(vf), vf.display())
    })
}

/// Where devices are described.
#[derive(Clone, Debug)]
pub struct Sysfs {
    root: PathBuf,
}

impl Default for Sysfs {
    fn default() -> Self {
        Self::at("/sys")
    }
}

impl Sysfs {
    /// A tree like that at `/sys`.
    pub fn at(root: impl Into<PathBuf>) -> Self {
        Self { root: root.into() }
    }

    /// Looks who can send the commands of a virtual function, by its PCI address. `wanted`: whoever
    /// it is, it must be this.
    ///
    /// # Errors
    ///
    /// [`DetectError`], as its variants say.
    pub fn find(&self, address: &str, wanted: Option<Transport>) -> Result<Found, DetectError> {
        if !is_pci_address(address) {
            return Err(DetectError::Address { given: address.into() });
        }
        let path = self.root.join("bus/pci/devices").join(address.to_ascii_lowercase());
        // The links under bus/ vanish when a device's removal begins, the directory when it ends.
        let vf = resolve(&path)?;
        let device = mlx5_device(&vf)?;
        if !exists(&vf.join("physfn")) {
            return Err(physical(vf));
        }
        let pf = resolve(&vf.join("physfn"))?;
        let function = function_of(&pf, &vf)?;
        let driver = driver_of(&pf);
        let transport = match (driver.as_deref(), wanted) {
            (Some(KERNEL_PF), None | Some(Transport::Kernel)) => {
                check_kernel_vf(&vf, device)?;
                Transport::Kernel
            }
            (Some(USER), None | Some(Transport::Firmware)) => {
                check_group(&pf)?;
                Transport::Firmware
            }
            (_, Some(Transport::Firmware)) => return Err(DetectError::PfNotOurs { pf, driver }),
            (_, Some(Transport::Kernel)) => return Err(DetectError::PfNotKernels { pf, driver }),
            _ => return Err(DetectError::PfDriver { pf, driver }),
        };
        Ok(Found { transport, vf, pf, function })
    }
}

fn check_kernel_vf(vf: &Path, device: u16) -> Result<(), DetectError> {
    // What the driver would never take must not be told to be bound to it.
    if device != MIGRATABLE {
        return Err(DetectError::NotMigratable { vf: vf.into(), device });
    }
    let driver = driver_of(vf);
    if driver.as_deref() != Some(KERNEL_VF) {
        return Err(DetectError::VfDriver { vf: vf.into(), driver });
    }
    check_group(vf)
}

fn check_group(path: &Path) -> Result<(), DetectError> {
    match path.join("iommu_group").exists() {
        true => Ok(()),
        false => Err(DetectError::NoIommuGroup { path: path.into() }),
    }
}

fn resolve(path: &Path) -> Result<PathBuf, DetectError> {
    path.canonicalize().map_err(|source| DetectError::NoSuchDevice { path: path.into(), source })
}

/// Also if it leads nowhere.
fn exists(link: &Path) -> bool {
    link.symlink_metadata().is_ok()
}

/// The device number of one that mlx5_core knows.
fn mlx5_device(path: &Path) -> Result<u16, DetectError> {
    let (vendor, device) = (attribute(path, "vendor")?, attribute(path, "device")?);
    let number = |hex: &str| u16::from_str_radix(hex, 16).ok();
    match (number(&vendor), number(&device)) {
        (Some(VENDOR), Some(id)) if CONNECTX.contains(&id) || OTHERS.contains(&id) => Ok(id),
        _ => Err(DetectError::NotMlx5 { path: path.into(), vendor, device }),
    }
}

fn attribute(path: &Path, name: &str) -> Result<String, DetectError> {
    let path = path.join(name);
    let read = fs::read_to_string(&path);
    let text = read.map_err(|source| DetectError::Unreadable { path, source })?;
    let text = text.trim();
    Ok(text.strip_prefix("0x").unwrap_or(text).to_owned())
}

/// A driver's name with underscores, as the kernel builds it.
fn driver_of(path: &Path) -> Option<String> {
    let link = path.join("driver").read_link().ok()?;
    Some(link.file_name()?.to_string_lossy().replace('-', "_"))
}

fn physical(pf: PathBuf) -> DetectError {
    let vfs = virtual_functions(&pf).unwrap_or_default();
    if vfs.is_empty() {
        return DetectError::NoVirtualFunctions { pf };
    }
    let vfs = vfs.into_iter().map(|(_, vf)| name(&vf)).collect();
    DetectError::PhysicalFunction { pf, vfs }
}

/// `function_id` of one of the physical function's.
fn function_of(pf: &Path, vf: &Path) -> Result<u16, DetectError> {
    let all = virtual_functions(pf)
        .map_err(|source| DetectError::Unreadable { path: pf.into(), source })?;
    let found = all.into_iter().find(|(_, path)| path.file_name() == vf.file_name());
    let number = found.and_then(|(number, _)| number.checked_add(1));
    number.ok_or_else(|| DetectError::NotListed { vf: vf.into(), pf: pf.into() })
}

/// Where `virtfnN` lead to, in the order of N.
fn virtual_functions(pf: &Path) -> io::Result<Vec<(u16, PathBuf)>> {
    let mut found = Vec::new();
    for entry in fs::read_dir(pf)? {
        let entry = entry?;
        let name = entry.file_name();
        let number = name.to_str().and_then(|name| name.strip_prefix("virtfn")?.parse().ok());
        if let Some(number) = number
            && let Ok(target) = entry.path().read_link()
        {
            found.push((number, target));
        }
    }
    found.sort_unstable();
    Ok(found)
}

/// `domain:bus:device.function`.
fn is_pci_address(name: &str) -> bool {
    let Some((front, function)) = name.rsplit_once('.') else { return false };
    let [domain, bus, device] = front.split(':').collect::<Vec<_>>()[..] else { return false };
    let hex = |part: &str, digits: std::ops::RangeInclusive<usize>| {
        digits.contains(&part.len()) && part.bytes().all(|b| b.is_ascii_hexdigit())
    };
    hex(domain, 4..=8) && hex(bus, 2..=2) && hex(device, 2..=2) && hex(function, 1..=1)
}
