// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! The three calls as they are, with nothing checked beforehand and nothing remembered: for who tests
//! what a driver and its kernel make of them. A VMM takes a [`DmaLog`](super::DmaLog).
//!
//! Needs the feature `abuse`, too.

use std::os::fd::AsRawFd;

use vfio_fsm_core::Errno;

use super::IovaRange;
use crate::device::KernelDevice;
use crate::sys::dma_logging as sys;

/// START of a log of these ranges, whatever they are, with a hint at the page_size. The page_size that
/// the device chose, whatever it is.
///
/// # Errors
///
/// What the ioctl says.
pub fn start(
    device: &(impl AsRawFd + ?Sized),
    page_size: u64,
    ranges: &[IovaRange],
) -> Result<u64, Errno> {
    sys::start(device, page_size, ranges)
}

/// STOP, whether there is a log or not.
///
/// # Errors
///
/// What the ioctl says.
pub fn stop(device: &(impl AsRawFd + ?Sized)) -> Result<(), Errno> {
    sys::stop(device)
}

/// REPORT: sets bit n if one of the `page_size` bytes at `range.iova + n * page_size` was written, and
/// should clear none. The bits are not emptied beforehand. With fewer bits than pages the kernel is
/// given no address.
///
/// # Errors
///
/// What the ioctl says.
pub fn report(
    device: &(impl AsRawFd + ?Sized),
    range: IovaRange,
    page_size: u64,
    bitmap: &mut [u64],
) -> Result<(), Errno> {
    sys::report_as_asked(device, range, page_size, bitmap)
}

/// Does one of them to a device that speaks the alphabet, by its fd.
///
/// # Errors
///
/// What `call` says; `ENODEV` if the device is closed.
pub fn on<T>(
    device: &KernelDevice,
    call: impl FnOnce(&dyn AsRawFd) -> Result<T, Errno>,
) -> Result<T, Errno> {
    call(&device.device_fd()?)
}
