// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! From a path to an open device, and the many ways in which that fails.

use std::fs::{File, OpenOptions};
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use nix::libc;
use vfio_fsm_core::{Errno, IllegalFeatures};
use vfio_ioctls::{VfioContainer, VfioDevice, VfioError};

use crate::path::DevicePath;
use crate::sys;

const CONTAINER: &str = "/dev/vfio/vfio";
const IOMMUFD: &str = "/dev/iommu";

/// A device that could not be opened, or that is not one to migrate.
///
/// Each says what was asked for, what was seen, and what to do next.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum OpenError {
    /// The sysfs directory or the cdev node is not there.
    #[error(
        "no device at {}: {source}; see what there is with `ls /sys/bus/pci/devices \
         /sys/bus/mdev/devices /dev/vfio/devices`", .path.display()
    )]
    NoSuchDevice {
        /// What was to be opened.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// The device is there, but in no IOMMU group.
    #[error(
        "{} has no iommu_group: boot with the IOMMU on (intel_iommu=on, or in the firmware), or \
         bind the device to a VFIO driver that needs none", .path.display()
    )]
    NoGroup {
        /// The device's directory.
        path: PathBuf,
    },
    /// The group has no node, or the device is not in it: no VFIO driver has the device.
    #[error(
        "{} is not bound to a VFIO driver, it has {}: write the name of one to driver_override in \
         that directory, and the device's to `unbind` of its driver and to drivers_probe of its \
         bus", .path.display(), .driver.as_deref().unwrap_or("no driver")
    )]
    NotBound {
        /// The device's directory.
        path: PathBuf,
        /// The driver that has it, if one has.
        driver: Option<String>,
    },
    /// A node that belongs to VFIO as such is missing.
    #[error(
        "this kernel offers no {}: {source}; load the module (`modprobe vfio-pci`, `modprobe \
         iommufd`), or use a kernel with CONFIG_VFIO_GROUP for devices by their group, and with \
         CONFIG_VFIO_DEVICE_CDEV for /dev/vfio/devices", .node.display()
    )]
    NoVfio {
        /// The node.
        node: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// A node may not be opened.
    #[error(
        "no permission to open {}: {source}; run as root, or give the node to the user who runs \
         this", .node.display()
    )]
    Permission {
        /// The node.
        node: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// A node is open elsewhere.
    #[error(
        "{} is in use: {source}; end the VMM that has it (`fuser -v {}`)",
        .node.display(), .node.display()
    )]
    Busy {
        /// The node.
        node: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// Another device of the group has a driver that is not VFIO's, or the group has a container.
    #[error(
        "group {} is not viable: bind every device in {}/iommu_group/devices to a VFIO driver, or \
         to none, and see that no other process has the group", .node.display(), .path.display()
    )]
    NotViable {
        /// The device's directory.
        path: PathBuf,
        /// The group's node.
        node: PathBuf,
    },
    /// The container has no type 1 version 2 IOMMU, or refuses the group.
    #[error("the container refuses {}: {source}; `modprobe vfio_iommu_type1`, and see dmesg for \
             \"No interrupt remapping\"", .path.display())]
    NoIommu {
        /// The device's directory.
        path: PathBuf,
        /// What vfio-ioctls said.
        source: VfioError,
    },
    /// The device fd was there, and then something failed that has no name here.
    #[error("VFIO cannot open {}: {source}; see dmesg", .path.display())]
    Vfio {
        /// The device's directory.
        path: PathBuf,
        /// What vfio-ioctls said.
        source: VfioError,
    },
    /// A system call on the way failed that has no name here.
    #[error("cannot {action} {}: {source}; see dmesg", .node.display())]
    System {
        /// What was to be done.
        action: &'static str,
        /// With which node.
        node: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// The device, its driver or the kernel has no migration.
    #[error(
        "the device answers {errno} to VFIO_DEVICE_FEATURE_MIGRATION: it cannot be migrated with \
         this driver; plain vfio-pci never can, take the device's own (such as mlx5_vfio_pci), \
         and Linux 5.18 or later"
    )]
    NoMigration {
        /// `ENOTTY`, or `EINVAL` from a kernel that does not know the feature.
        errno: Errno,
    },
    /// The device could not even be asked.
    #[error("VFIO_DEVICE_FEATURE_MIGRATION failed with {errno}; see dmesg, and try after a reset")]
    Feature {
        /// What the ioctl said.
        errno: Errno,
    },
    /// The device has flags that are not one of the four legal sets (R3).
    #[error(transparent)]
    IllegalFeatures(#[from] IllegalFeatures),
    /// A device given as an fd was closed, and nothing says how to open it again.
    #[error("a device given as an fd cannot be opened again; give `with_reopen` the means")]
    NoReopen,
}

impl OpenError {
    /// The nearest errno: what the kernel said where it did.
    pub fn errno(&self) -> Errno {
        match self {
            Self::NoSuchDevice { source, .. }
            | Self::NoVfio { source, .. }
            | Self::Permission { source, .. }
            | Self::Busy { source, .. }
            | Self::System { source, .. } => sys::io_errno(source),
            Self::NoIommu { source, .. } | Self::Vfio { source, .. } => vfio_errno(source),
            Self::NoMigration { errno } | Self::Feature { errno } => *errno,
            Self::NoGroup { .. } | Self::NotBound { .. } => Errno::ENODEV,
            Self::NotViable { .. } => Errno(libc::EPERM),
            Self::IllegalFeatures(_) => Errno::EINVAL,
            Self::NoReopen => Errno::EOPNOTSUPP,
        }
    }
}

/// Not every variant keeps the errno; `EIO` stands for those that do not.
fn vfio_errno(error: &VfioError) -> Errno {
    match error {
        VfioError::ContainerSetIOMMU(error)
        | VfioError::GroupGetDeviceFD(error)
        | VfioError::VfioDeviceGetInfo(error) => Errno(error.errno()),
        _ => Errno::EIO,
    }
}

/// How a device is opened, as often as needed, and the device while it is open.
pub(crate) struct Node {
    way: Way,
    open: Option<OwnedFd>,
}

enum Way {
    Group { sysfs: PathBuf, container: Arc<VfioContainer> },
    Cdev { path: PathBuf },
    Given { reopen: Option<Box<Reopen>> },
}

pub(crate) type Reopen = dyn FnMut() -> io::Result<OwnedFd> + Send;

impl Node {
    pub(crate) fn open(path: &DevicePath) -> Result<Self, OpenError> {
        let mut way = match path {
            DevicePath::Sysfs(path) => Way::group(path)?,
            DevicePath::Cdev(path) => Way::Cdev { path: path.clone() },
        };
        let open = Some(way.open()?);
        Ok(Self { way, open })
    }

    pub(crate) fn given(fd: OwnedFd) -> Self {
        Self { way: Way::Given { reopen: None }, open: Some(fd) }
    }

    /// Says how to open a device again that was given as an fd. One opened by path knows.
    pub(crate) fn set_reopen(&mut self, reopen: Box<Reopen>) {
        if let Way::Given { reopen: way } = &mut self.way {
            *way = Some(reopen);
        }
    }

    /// The open device, or what the kernel says of a closed one.
    pub(crate) fn fd(&self) -> Result<BorrowedFd<'_>, Errno> {
        self.open.as_ref().map(AsFd::as_fd).ok_or(Errno::EBADF)
    }

    pub(crate) const fn is_open(&self) -> bool {
        self.open.is_some()
    }

    /// Whether [`Self::reopen`] has a way to try.
    pub(crate) fn can_reopen(&self) -> Result<(), OpenError> {
        match self.way {
            Way::Given { reopen: None } => Err(OpenError::NoReopen),
            _ => Ok(()),
        }
    }

    pub(crate) fn reopen(&mut self) -> Result<(), OpenError> {
        self.open = Some(self.way.open()?);
        Ok(())
    }

    pub(crate) fn close(&mut self) {
        self.open = None;
    }
}

impl Way {
    fn group(path: &Path) -> Result<Self, OpenError> {
        // The links under /sys/bus vanish when the removal of a device begins, the directory only
        // when it ends; and what opens and closes the device below reads the directory.
        let sysfs = path
            .canonicalize()
            .map_err(|source| OpenError::NoSuchDevice { path: path.into(), source })?;
        let container = VfioContainer::new(None).map_err(|error| match error {
            VfioError::OpenContainer(error) => vfio_node(CONTAINER, error),
            source => OpenError::NoIommu { path: sysfs.clone(), source },
        })?;
        Ok(Self::Group { sysfs, container: Arc::new(container) })
    }

    fn open(&mut self) -> Result<OwnedFd, OpenError> {
        match self {
            Self::Group { sysfs, container } => open_in_group(sysfs, container),
            Self::Cdev { path } => open_cdev(path),
            Self::Given { reopen: None } => Err(OpenError::NoReopen),
            Self::Given { reopen: Some(reopen) } => {
                reopen().map_err(|source| system("open again", "the given device", source))
            }
        }
    }
}

/// The device fd by way of container and group, which stay with `container`.
fn open_in_group(sysfs: &Path, container: &Arc<VfioContainer>) -> Result<OwnedFd, OpenError> {
    let device = VfioDevice::new(sysfs, container.clone(), false)
        .map_err(|error| group_error(sysfs, error))?;
    // A VfioDevice panics on drop if `iommu_group` cannot be read by then (vfio_device.rs:2246 of
    // 0.10.0), which is so once a removal has begun, the moment at which a VMM is asked to let go.
    // A duplicate of its fd is all that is needed. While it is open the kernel keeps the device, so
    // the drop is safe here; it also leaves the group in the container, which it tries to undo.
    let fd = sys::duplicate(&device).map_err(|source| system("duplicate the fd of", sysfs, source));
    drop(device);
    fd
}

/// Raw, and not through vfio-ioctls' `vfio_cdev`: that needs KVM's crates, and unwraps the result
/// of an ioctl when the device is dropped (vfio_device.rs:2259 of 0.10.0).
fn open_cdev(path: &Path) -> Result<OwnedFd, OpenError> {
    let fd = open_node(path).map_err(|source| match source.raw_os_error() {
        Some(libc::ENOENT) => OpenError::NoSuchDevice { path: path.into(), source },
        _ => node_error(path, "open", source),
    })?;
    let iommufd = open_node(Path::new(IOMMUFD)).map_err(|source| vfio_node(IOMMUFD, source))?;
    sys::bind_iommufd(fd.as_fd(), iommufd.as_fd()).map_err(|errno| {
        node_error(path, "bind to an iommufd", io::Error::from_raw_os_error(errno.0))
    })?;
    // The binding keeps the iommufd for as long as the device is open.
    Ok(fd.into())
}

fn open_node(path: &Path) -> io::Result<File> {
    OpenOptions::new().read(true).write(true).open(path)
}

fn group_error(sysfs: &Path, error: VfioError) -> OpenError {
    let path = sysfs.to_path_buf();
    match error {
        VfioError::OpenGroup(error, _) if error.raw_os_error() == Some(libc::ENOENT) => {
            not_bound(sysfs)
        }
        VfioError::OpenGroup(error, id) => {
            node_error(&Path::new("/dev/vfio").join(id), "open", error)
        }
        VfioError::GroupGetDeviceFD(error) if error.errno() == libc::ENODEV => not_bound(sysfs),
        VfioError::GroupGetDeviceFD(error) => {
            node_error(sysfs, "open", io::Error::from_raw_os_error(error.errno()))
        }
        VfioError::GroupViable => OpenError::NotViable { path, node: group_node(sysfs) },
        VfioError::InvalidPath => OpenError::NoGroup { path },
        source @ (VfioError::GroupSetContainer | VfioError::ContainerSetIOMMU(_)) => {
            OpenError::NoIommu { path, source }
        }
        source => OpenError::Vfio { path, source },
    }
}

fn group_node(sysfs: &Path) -> PathBuf {
    let group = sysfs.join("iommu_group").read_link().unwrap_or_default();
    Path::new("/dev/vfio").join(group.file_name().unwrap_or_default())
}

fn not_bound(sysfs: &Path) -> OpenError {
    let driver = sysfs.join("driver").read_link().ok();
    let name = driver.as_deref().and_then(Path::file_name);
    OpenError::NotBound {
        path: sysfs.into(),
        driver: name.map(|name| name.to_string_lossy().into_owned()),
    }
}

/// A node that is there whenever VFIO is.
fn vfio_node(node: &str, source: io::Error) -> OpenError {
    match source.raw_os_error() {
        // ENODEV and ENXIO: the node is there, and no module behind it.
        Some(libc::ENOENT | libc::ENODEV | libc::ENXIO) => {
            OpenError::NoVfio { node: node.into(), source }
        }
        _ => node_error(Path::new(node), "open", source),
    }
}

fn node_error(node: &Path, action: &'static str, source: io::Error) -> OpenError {
    match source.raw_os_error() {
        Some(libc::EACCES | libc::EPERM) => OpenError::Permission { node: node.into(), source },
        Some(libc::EBUSY) => OpenError::Busy { node: node.into(), source },
        _ => system(action, node, source),
    }
}

fn system(action: &'static str, node: impl Into<PathBuf>, source: io::Error) -> OpenError {
    OpenError::System { action, node: node.into(), source }
}
