// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! The device as a VMM has it: opened by vfio-ioctls, with as much of `/dev/vfio` played as that
//! takes.
#![expect(unsafe_code, reason = "stands in for libc")]

use std::cell::Cell;
use std::ffi::{CStr, c_char, c_int, c_ulong, c_void};
use std::fs;
use std::os::fd::IntoRawFd;
use std::os::unix::fs::symlink;
use std::sync::Arc;

use nix::libc;
use vfio_bindings::bindings::vfio::{
    VFIO_DEVICE_FLAGS_PCI, VFIO_GROUP_FLAGS_VIABLE, vfio_device_info, vfio_group_status,
};
use vfio_fsm_kernel::dma_logging::{DmaLog, supported};
use vfio_ioctls::{VfioContainer, VfioDevice};

use crate::device::{Played, range, told};

thread_local! {
    /// Whether this thread finds a `/dev/vfio`.
    static PLAYED: Cell<bool> = const { Cell::new(false) };
}

/// A container, a group and a device with empty regions and no interrupts; `None` for the kernel.
///
/// # Safety
///
/// `argument` is what the ioctl takes.
pub(crate) unsafe fn ioctl(request: c_ulong, argument: *mut c_void) -> Option<Result<c_int, i32>> {
    if !PLAYED.get() {
        return None;
    }
    match request.checked_sub(0x3b64)? {
        // The container takes what it is given, the group joins and leaves.
        0 | 2 | 4 | 5 => Some(Ok(0)),
        1 => Some(Ok(1)),
        3 => {
            // SAFETY: the caller's word.
            unsafe { (*argument.cast::<vfio_group_status>()).flags = VFIO_GROUP_FLAGS_VIABLE };
            Some(Ok(0))
        }
        6 => Some(Ok(fs::File::open("/dev/null").unwrap().into_raw_fd())),
        7 => {
            // SAFETY: the caller's word.
            let info = unsafe { &mut *argument.cast::<vfio_device_info>() };
            (info.flags, info.num_regions, info.num_irqs) = (VFIO_DEVICE_FLAGS_PCI, 9, 5);
            Some(Ok(0))
        }
        // A region without a byte.
        8 => Some(Ok(0)),
        9 => Some(Err(libc::EINVAL)),
        _ => None,
    }
}

#[unsafe(no_mangle)]
extern "C" fn open64(path: *const c_char, flags: c_int, mode: libc::mode_t) -> c_int {
    // SAFETY: the caller of `open` gives a string.
    let named = unsafe { CStr::from_ptr(path) }.to_bytes();
    let ours = PLAYED.get() && named.starts_with(b"/dev/vfio/");
    let path = if ours { c"/dev/null".as_ptr() } else { path };
    // SAFETY: as the caller says.
    unsafe { libc::syscall(libc::SYS_openat, libc::AT_FDCWD, path, flags, mode) as c_int }
}

#[test]
fn a_vfio_device_is_logged_as_it_is() {
    let name = format!("vfio-fsm-dma-logging-{}", std::process::id());
    let sysfs = std::env::temp_dir().join(name);
    fs::create_dir(&sysfs).unwrap();
    symlink("../../kernel/iommu_groups/7", sysfs.join("iommu_group")).unwrap();
    PLAYED.set(true);
    let container = Arc::new(VfioContainer::new(None).unwrap());
    let device = Arc::new(VfioDevice::new(&sysfs, container, false).unwrap());
    {
        let played = Played::of(&*device);
        assert_eq!(supported(&*device), Ok(true));
        let mut log = DmaLog::start(Arc::clone(&device), &[range(0, 1 << 30)], 4096).unwrap();
        played.write(0x1234_5678);
        let pages = vec![range(0x1234_5000, 4096)];
        assert_eq!(told(|dirty| log.report_all(dirty)), (Ok(()), pages));
        assert_eq!(log.stop(), Ok(()));
    }
    drop(device);
    PLAYED.set(false);
    fs::remove_dir_all(&sysfs).unwrap();
}
