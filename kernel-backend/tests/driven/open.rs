// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! Opening by path, through vfio-ioctls as it is, with everything under `/dev` played.

use std::fs;
use std::os::unix::fs::symlink;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

use nix::libc;
use vfio_fsm_core::{Errno, Fd, Features, Op, Reply, State};
use vfio_fsm_kernel::{DevicePath, KernelDevice, OpenError};
use vfio_ioctls::{VfioContainer, VfioDevice};

use crate::double::{self, Quirks, fd_table_stays_open, world};
use crate::ops::apply;

/// A directory as sysfs has one for a device in group 7, gone when this is dropped.
pub(crate) struct Sysfs(PathBuf);

impl Sysfs {
    pub(crate) fn new() -> Self {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        let number = COUNT.fetch_add(1, Ordering::Relaxed);
        let name = format!("vfio-fsm-kernel-{}-{number}", std::process::id());
        let path = std::env::temp_dir().canonicalize().unwrap().join(name);
        fs::create_dir(&path).unwrap();
        symlink("../../kernel/iommu_groups/7", path.join("iommu_group")).unwrap();
        symlink("../../bus/pci/drivers/mlx5_core", path.join("driver")).unwrap();
        Self(path)
    }

    fn path(&self) -> DevicePath {
        DevicePath::Sysfs(self.0.clone())
    }

    /// As a VMM opens it.
    pub(crate) fn vfio_device(&self) -> VfioDevice {
        let container = Arc::new(VfioContainer::new(None).unwrap());
        VfioDevice::new(&self.0, container, false).unwrap()
    }

    fn without(self, name: &str) -> Self {
        fs::remove_file(self.0.join(name)).unwrap();
        self
    }
}

impl Drop for Sysfs {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

fn cdev() -> DevicePath {
    DevicePath::Cdev("/dev/vfio/devices/vfio3".into())
}

fn refused(path: &DevicePath, quirks: Quirks) -> OpenError {
    double::begin(Features::ALL);
    world(|world| world.quirks = quirks);
    let error = KernelDevice::open(path).unwrap_err();
    assert!(!world(|world| world.is_open()), "left open after {error}");
    error
}

fn node(name: &'static str, errno: i32) -> Quirks {
    Quirks { node: Some((name, errno)), ..Quirks::default() }
}

#[test]
fn by_its_group_and_again_after_closing() {
    let _guard = fd_table_stays_open();
    let sysfs = Sysfs::new();
    double::begin(Features::P2P);
    let mut device = KernelDevice::open(&sysfs.path()).unwrap();
    assert_eq!(device.features(), Features::P2P);
    assert_eq!(apply(&mut device, Op::set(State::StopCopy)), Reply::Fd(Some(Fd(1))));
    for _ in 0..3 {
        assert_eq!(apply(&mut device, Op::Close), Reply::Ok);
        assert!(!world(|world| world.is_open()));
        assert_eq!(apply(&mut device, Op::Open), Reply::Ok);
        assert_eq!(apply(&mut device, Op::GetState), Reply::State(State::Running.into()));
    }
    assert_eq!(world(|world| world.group_opened), 1, "the group stays in its container");
    assert_eq!(apply(&mut device, Op::set(State::Resuming)), Reply::Fd(Some(Fd(2))));
    drop(device);
    assert!(!world(|world| world.is_open()));
    assert_eq!(world(|world| world.open_data_fds()), 0);
}

#[test]
fn by_its_cdev_and_again_after_closing() {
    let _guard = fd_table_stays_open();
    double::begin(Features::ALL);
    let mut device = KernelDevice::open(&cdev()).unwrap();
    assert_eq!(apply(&mut device, Op::Close), Reply::Ok);
    assert_eq!(apply(&mut device, Op::Open), Reply::Ok);
    assert_eq!(apply(&mut device, Op::GetState), Reply::State(State::Running.into()));
    assert!(device.fresh().is_ok());
}

/// When the removal of a device begins, its link under `/sys/bus` goes first, and then the kernel
/// asks whoever has the device open to close it.
#[test]
fn closing_a_device_that_is_being_removed() {
    let _guard = fd_table_stays_open();
    let sysfs = Sysfs::new();
    double::begin(Features::ALL);
    let mut device = KernelDevice::open(&sysfs.path()).unwrap();
    drop(sysfs);
    assert_eq!(apply(&mut device, Op::Close), Reply::Ok);
    assert!(matches!(
        device.fresh(),
        Err(vfio_fsm_kernel::FreshError::Reopen(OpenError::NoGroup { .. }))
    ));
}

/// Why `KernelDevice` keeps no `VfioDevice`. When this fails, upstream has mended it.
#[test]
fn a_vfio_device_panics_there() {
    let _guard = fd_table_stays_open();
    let sysfs = Sysfs::new();
    double::begin(Features::ALL);
    let device = sysfs.vfio_device();
    drop(sysfs);
    assert!(catch_unwind(AssertUnwindSafe(|| drop(device))).is_err());
}

#[test]
fn a_vmms_own_vfio_device_can_be_used_beside() {
    let _guard = fd_table_stays_open();
    let sysfs = Sysfs::new();
    double::begin(Features::ALL);
    let theirs = sysfs.vfio_device();
    let mut device = KernelDevice::from_fd(nix::unistd::dup(borrow(&theirs)).unwrap()).unwrap();
    apply(&mut device, Op::set(State::PreCopy));
    assert_eq!(theirs.get_migration_state().unwrap(), State::PreCopy.number());
    // As mtty: not said to be able to, so vfio-ioctls does nothing, and does not say so.
    theirs.reset();
    assert_eq!(world(|world| world.resets), 0);
    apply(&mut device, Op::Close);
    assert!(world(|world| world.is_open()), "theirs is still open");
}

#[expect(unsafe_code, reason = "VfioDevice has no AsFd")]
fn borrow(device: &VfioDevice) -> std::os::fd::BorrowedFd<'_> {
    // SAFETY: open for as long as the device is borrowed.
    unsafe { std::os::fd::BorrowedFd::borrow_raw(std::os::fd::AsRawFd::as_raw_fd(device)) }
}

#[test]
fn no_such_device() {
    let _guard = fd_table_stays_open();
    let path = "/sys/bus/pci/devices/ffff:ff:1f.7".parse().unwrap();
    assert!(matches!(refused(&path, Quirks::default()), OpenError::NoSuchDevice { .. }));
    let path = DevicePath::Cdev("/dev/vfio/devices/vfio4".into());
    let error = refused(&path, Quirks::default());
    assert!(matches!(error, OpenError::NoSuchDevice { .. }));
    assert_eq!(error.errno(), Errno(libc::ENOENT));
}

#[test]
fn no_group() {
    let _guard = fd_table_stays_open();
    let sysfs = Sysfs::new().without("iommu_group");
    let error = refused(&sysfs.path(), Quirks::default());
    assert!(matches!(error, OpenError::NoGroup { .. }), "{error}");
}

#[test]
fn no_vfio_in_this_kernel() {
    let _guard = fd_table_stays_open();
    let sysfs = Sysfs::new();
    for errno in [libc::ENOENT, libc::ENODEV] {
        let error = refused(&sysfs.path(), node("/dev/vfio/vfio", errno));
        let seen =
            matches!(&error, OpenError::NoVfio { node, .. } if node == Path::new("/dev/vfio/vfio"));
        assert!(seen, "{error}");
        let error = refused(&cdev(), node("/dev/iommu", errno));
        assert!(matches!(error, OpenError::NoVfio { .. }), "{error}");
    }
}

#[test]
fn no_permission() {
    let _guard = fd_table_stays_open();
    let sysfs = Sysfs::new();
    for name in ["/dev/vfio/vfio", "/dev/vfio/7"] {
        let error = refused(&sysfs.path(), node(name, libc::EACCES));
        let seen = matches!(&error, OpenError::Permission { node, .. } if node == Path::new(name));
        assert!(seen, "{error}");
        assert_eq!(error.errno(), Errno(libc::EACCES));
    }
    for name in ["/dev/vfio/devices/vfio3", "/dev/iommu"] {
        let error = refused(&cdev(), node(name, libc::EPERM));
        assert!(matches!(error, OpenError::Permission { .. }), "{error}");
    }
}

#[test]
fn in_use() {
    let _guard = fd_table_stays_open();
    let sysfs = Sysfs::new();
    let error = refused(&sysfs.path(), node("/dev/vfio/7", libc::EBUSY));
    assert!(matches!(error, OpenError::Busy { .. }), "{error}");
    assert!(error.to_string().contains("fuser -v /dev/vfio/7"), "{error}");
    let error = refused(&cdev(), node("/dev/vfio/devices/vfio3", libc::EBUSY));
    assert_eq!(error.errno(), Errno::EBUSY);
}

#[test]
fn not_bound_to_a_vfio_driver() {
    let _guard = fd_table_stays_open();
    let sysfs = Sysfs::new();
    let error = refused(&sysfs.path(), node("/dev/vfio/7", libc::ENOENT));
    assert!(error.to_string().contains("it has mlx5_core"), "{error}");
    let sysfs = sysfs.without("driver");
    let quirks = Quirks { group_device: Some(libc::ENODEV), ..Quirks::default() };
    let error = refused(&sysfs.path(), quirks);
    assert!(error.to_string().contains("it has no driver"), "{error}");
}

#[test]
fn a_group_that_is_not_viable() {
    let _guard = fd_table_stays_open();
    let sysfs = Sysfs::new();
    let quirks = Quirks { group_flags: Some(0), ..Quirks::default() };
    let error = refused(&sysfs.path(), quirks);
    assert!(error.to_string().starts_with("group /dev/vfio/7 is not viable"), "{error}");
}

#[test]
fn illegal_flags_close_the_device_again() {
    let _guard = fd_table_stays_open();
    let sysfs = Sysfs::new();
    let quirks = Quirks { flags: Some(0x11), ..Quirks::default() };
    assert!(matches!(refused(&sysfs.path(), quirks), OpenError::IllegalFeatures(_)));
}
