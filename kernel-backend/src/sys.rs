// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! The system calls that need `unsafe`, each behind a function that does not.
//!
//! `ioctl` and `poll` only: the rest comes from nix. `poll` is here because nix gives up its
//! result when a bit is set that it has no name for, and `POLLRDHUP` is how mlx5 tells that a
//! session is over.

#[cfg(feature = "abuse")]
pub(crate) mod brink;
#[cfg(feature = "dma-logging")]
pub(crate) mod dma_logging;
#[cfg(feature = "io-uring")]
pub(crate) mod uring;

use std::io;
use std::mem::size_of;
use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd};

use nix::libc;
use vfio_bindings::bindings::vfio::{
    VFIO_BASE, VFIO_TYPE, vfio_device_bind_iommufd, vfio_device_feature,
    vfio_device_feature_mig_data_size, vfio_device_feature_mig_state,
    vfio_device_feature_migration, vfio_precopy_info, vfio_region_info,
};
use vfio_fsm_core::Errno;

/// `_IO(VFIO_TYPE, VFIO_BASE + n)`: VFIO puts neither size nor direction into its numbers.
pub(crate) const fn request(n: u32) -> u32 {
    (VFIO_TYPE as u32) << 8 | (VFIO_BASE + n)
}

const DEVICE_GET_REGION_INFO: u32 = request(8);
const DEVICE_RESET: u32 = request(11);
pub(crate) const DEVICE_FEATURE: u32 = request(17);
const DEVICE_BIND_IOMMUFD: u32 = request(18);
pub(crate) const MIG_GET_PRECOPY_INFO: u32 = request(21);

/// The errno as the kernel gave it, also where nix has no name for it: drivers do let internal
/// ones through, like 524 (`ENOTSUPP`).
pub(crate) fn errno(error: nix::errno::Errno) -> Errno {
    match error {
        nix::errno::Errno::UnknownErrno => last_errno(),
        known => Errno(known as i32),
    }
}

/// The errno of an error that came from the system; `EIO` for one that did not.
pub(crate) fn io_errno(error: &io::Error) -> Errno {
    error.raw_os_error().map_or(Errno::EIO, Errno)
}

fn last_errno() -> Errno {
    io_errno(&io::Error::last_os_error())
}

/// What may follow the header of `struct vfio_device_feature`.
///
/// # Safety
///
/// `repr(C)`, made of integers only: the kernel writes any bit pattern into it.
pub(crate) unsafe trait Payload {}

// SAFETY: nothing to write to.
unsafe impl Payload for () {}
// SAFETY: one integer.
unsafe impl Payload for vfio_device_feature_migration {}
// SAFETY: two integers.
unsafe impl Payload for vfio_device_feature_mig_state {}
// SAFETY: one integer.
unsafe impl Payload for vfio_device_feature_mig_data_size {}

#[repr(C)]
struct FeatureRequest<T> {
    header: vfio_device_feature,
    payload: T,
}

/// `VFIO_DEVICE_FEATURE`. `flags` is the feature's number and GET, SET or PROBE. What the kernel
/// wrote is in `payload` after a failure, too (C1).
pub(crate) fn device_feature<T: Payload + Copy>(
    device: BorrowedFd<'_>,
    flags: u32,
    payload: &mut T,
) -> Result<(), Errno> {
    let argsz = size_of::<FeatureRequest<T>>() as u32;
    let header = vfio_device_feature { argsz, flags, ..Default::default() };
    let mut request = FeatureRequest { header, payload: *payload };
    // SAFETY: argsz says how much the kernel may read and write, and any bits are a valid Payload.
    let result = unsafe { ioctl(device, DEVICE_FEATURE, &raw mut request) };
    *payload = request.payload;
    result
}

/// `VFIO_DEVICE_RESET`.
pub(crate) fn device_reset(device: BorrowedFd<'_>) -> Result<(), Errno> {
    // SAFETY: takes no argument.
    unsafe { ioctl::<()>(device, DEVICE_RESET, std::ptr::null_mut()) }
}

/// `VFIO_DEVICE_GET_REGION_INFO`, without the capabilities behind it. Fills in `argsz`.
pub(crate) fn region_info(
    device: BorrowedFd<'_>,
    info: &mut vfio_region_info,
) -> Result<(), Errno> {
    info.argsz = size_of::<vfio_region_info>() as u32;
    // SAFETY: argsz is the structure's size; it consists of integers.
    unsafe { ioctl(device, DEVICE_GET_REGION_INFO, &raw mut *info) }
}

/// `VFIO_DEVICE_BIND_IOMMUFD`.
pub(crate) fn bind_iommufd(cdev: BorrowedFd<'_>, iommufd: BorrowedFd<'_>) -> Result<(), Errno> {
    let mut bind = vfio_device_bind_iommufd {
        argsz: size_of::<vfio_device_bind_iommufd>() as u32,
        iommufd: iommufd.as_raw_fd(),
        ..Default::default()
    };
    // SAFETY: argsz is the structure's size; it consists of integers.
    unsafe { ioctl(cdev, DEVICE_BIND_IOMMUFD, &raw mut bind) }
}

/// `VFIO_MIG_GET_PRECOPY_INFO`. Fills in `argsz`.
pub(crate) fn precopy_info(
    data_fd: BorrowedFd<'_>,
    info: &mut vfio_precopy_info,
) -> Result<(), Errno> {
    info.argsz = size_of::<vfio_precopy_info>() as u32;
    // SAFETY: argsz is the structure's size; it consists of integers.
    unsafe { ioctl(data_fd, MIG_GET_PRECOPY_INFO, &raw mut *info) }
}

/// # Safety
///
/// `argument` points to what `request` takes, or is null if that is nothing.
unsafe fn ioctl<T>(fd: BorrowedFd<'_>, request: u32, argument: *mut T) -> Result<(), Errno> {
    // SAFETY: the fd is open for as long as it is borrowed; the argument is the caller's word.
    let done = unsafe { libc::ioctl(fd.as_raw_fd(), request as libc::Ioctl, argument) };
    if done < 0 { Err(last_errno()) } else { Ok(()) }
}

/// What `poll(2)` reports of a file.
#[derive(Clone, Copy)]
pub(crate) struct Events(i16);

impl Events {
    pub(crate) fn readable(self) -> bool {
        self.0 & libc::POLLIN != 0
    }

    pub(crate) fn writable(self) -> bool {
        self.0 & libc::POLLOUT != 0
    }

    /// Whether a read returns at once: with bytes, an end or an error.
    pub(crate) fn wakes_reader(self) -> bool {
        self.readable() || self.hangup()
    }

    pub(crate) fn hangup(self) -> bool {
        self.0 & (libc::POLLHUP | libc::POLLRDHUP | libc::POLLERR) != 0
    }
}

/// `poll(2)` of one file, for reading and writing; `timeout` in milliseconds.
pub(crate) fn poll(fd: BorrowedFd<'_>, timeout: i32) -> Result<Events, Errno> {
    poll_for(fd, libc::POLLIN | libc::POLLOUT | libc::POLLRDHUP, timeout)
}

/// `poll(2)` of one file, for reading only; `timeout` in milliseconds.
pub(crate) fn poll_in(fd: BorrowedFd<'_>, timeout: i32) -> Result<Events, Errno> {
    poll_for(fd, libc::POLLIN | libc::POLLRDHUP, timeout)
}

fn poll_for(fd: BorrowedFd<'_>, events: i16, timeout: i32) -> Result<Events, Errno> {
    let mut entry = libc::pollfd { fd: fd.as_raw_fd(), events, revents: 0 };
    // SAFETY: one entry is given and one is said to be there.
    match unsafe { libc::poll(&raw mut entry, 1, timeout) } {
        ..0 => Err(last_errno()),
        _ if entry.revents & libc::POLLNVAL != 0 => Err(Errno::EBADF),
        _ => Ok(Events(entry.revents)),
    }
}

/// Takes over an fd that the kernel returned; `None` if there is no such fd.
///
/// The caller makes sure that it is not the number of one it owns already.
pub(crate) fn adopt(number: RawFd) -> Option<OwnedFd> {
    // SAFETY: F_GETFD takes no argument and only looks.
    let there = number >= 0 && unsafe { libc::fcntl(number, libc::F_GETFD) } >= 0;
    // SAFETY: it is open, and the kernel installed it for the caller of the ioctl alone.
    there.then(|| unsafe { OwnedFd::from_raw_fd(number) })
}

/// A second fd for the same open file.
pub(crate) fn duplicate(of: &impl AsRawFd) -> io::Result<OwnedFd> {
    let fd = borrow(of).map_err(|errno| io::Error::from_raw_os_error(errno.0))?;
    fd.try_clone_to_owned()
}

/// The fd of something that has no `AsFd`, like a `VfioDevice`.
pub(crate) fn borrow(of: &(impl AsRawFd + ?Sized)) -> Result<BorrowedFd<'_>, Errno> {
    match of.as_raw_fd() {
        ..0 => Err(Errno::EBADF),
        // SAFETY: `of` keeps its fd open while it is borrowed here.
        number => Ok(unsafe { BorrowedFd::borrow_raw(number) }),
    }
}

#[cfg(test)]
mod tests {
    use std::mem::offset_of;

    use vfio_bindings::bindings::vfio as uapi;
    use vfio_fsm_core::{Features, State};

    use super::*;

    /// As `strace` prints them, and as `<linux/vfio.h>` spells them out.
    #[test]
    fn ioctl_numbers() {
        assert_eq!(DEVICE_GET_REGION_INFO, 0x3b6c);
        assert_eq!(DEVICE_RESET, 0x3b6f);
        assert_eq!(DEVICE_FEATURE, 0x3b75);
        assert_eq!(DEVICE_BIND_IOMMUFD, 0x3b76);
        assert_eq!(MIG_GET_PRECOPY_INFO, 0x3b79);
    }

    /// The payload begins where `data[]` does, and argsz covers no padding: a kernel that knows a
    /// longer structure would read it.
    #[test]
    fn feature_requests_have_the_layout_of_the_header() {
        fn check<T>(size: usize) {
            assert_eq!(
                offset_of!(FeatureRequest<T>, payload),
                offset_of!(vfio_device_feature, data)
            );
            assert_eq!(size_of::<FeatureRequest<T>>(), size);
        }
        check::<()>(8);
        check::<vfio_device_feature_migration>(16);
        check::<vfio_device_feature_mig_state>(16);
        check::<vfio_device_feature_mig_data_size>(16);
        assert_eq!(size_of::<vfio_precopy_info>(), 24);
        assert_eq!(size_of::<vfio_region_info>(), 32);
        assert_eq!(size_of::<vfio_device_bind_iommufd>(), 24);
    }

    /// The core has numbers of its own, so that it needs no bindings. They must be these.
    #[test]
    fn the_core_numbers_as_the_uapi_does() {
        let states = [
            uapi::vfio_device_mig_state_VFIO_DEVICE_STATE_ERROR,
            uapi::vfio_device_mig_state_VFIO_DEVICE_STATE_STOP,
            uapi::vfio_device_mig_state_VFIO_DEVICE_STATE_RUNNING,
            uapi::vfio_device_mig_state_VFIO_DEVICE_STATE_STOP_COPY,
            uapi::vfio_device_mig_state_VFIO_DEVICE_STATE_RESUMING,
            uapi::vfio_device_mig_state_VFIO_DEVICE_STATE_RUNNING_P2P,
            uapi::vfio_device_mig_state_VFIO_DEVICE_STATE_PRE_COPY,
            uapi::vfio_device_mig_state_VFIO_DEVICE_STATE_PRE_COPY_P2P,
        ];
        assert_eq!(State::ALL.map(State::number), states);
        assert_eq!(states.len(), uapi::vfio_device_mig_state_VFIO_DEVICE_STATE_NR as usize);

        let flags = |flags: u32| Features::from_flags(flags.into());
        let stop_copy = uapi::VFIO_MIGRATION_STOP_COPY;
        assert_eq!(flags(stop_copy), Ok(Features::STOP_COPY));
        assert_eq!(flags(stop_copy | uapi::VFIO_MIGRATION_P2P), Ok(Features::P2P));
        assert_eq!(flags(stop_copy | uapi::VFIO_MIGRATION_PRE_COPY), Ok(Features::PRE_COPY));
    }

    #[test]
    fn the_core_numbers_errors_as_this_target_does() {
        let pairs = [
            (Errno::EIO, libc::EIO),
            (Errno::EBADF, libc::EBADF),
            (Errno::EAGAIN, libc::EAGAIN),
            (Errno::ENOMEM, libc::ENOMEM),
            (Errno::EFAULT, libc::EFAULT),
            (Errno::EBUSY, libc::EBUSY),
            (Errno::ENODEV, libc::ENODEV),
            (Errno::EINVAL, libc::EINVAL),
            (Errno::ENFILE, libc::ENFILE),
            (Errno::EMFILE, libc::EMFILE),
            (Errno::ENOTTY, libc::ENOTTY),
            (Errno::EFBIG, libc::EFBIG),
            (Errno::ENOSPC, libc::ENOSPC),
            (Errno::ESPIPE, libc::ESPIPE),
            (Errno::ENOMSG, libc::ENOMSG),
            (Errno::EPROTO, libc::EPROTO),
            (Errno::EOVERFLOW, libc::EOVERFLOW),
            (Errno::EOPNOTSUPP, libc::EOPNOTSUPP),
            (Errno::ENOTCONN, libc::ENOTCONN),
        ];
        for (core, target) in pairs {
            assert_eq!(core.0, target, "{core}");
        }
    }

    #[test]
    fn a_number_that_is_no_fd_is_not_adopted() {
        assert!(adopt(-1).is_none());
        assert!(adopt(RawFd::MAX).is_none());
    }
}
