// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! `VFIO_DEVICE_FEATURE_DMA_LOGGING_START`, `_STOP` and `_REPORT`.

use std::os::fd::AsRawFd;

use vfio_bindings::bindings::vfio::{
    VFIO_DEVICE_FEATURE_DMA_LOGGING_REPORT as REPORT,
    VFIO_DEVICE_FEATURE_DMA_LOGGING_START as START, VFIO_DEVICE_FEATURE_DMA_LOGGING_STOP as STOP,
    VFIO_DEVICE_FEATURE_GET as GET, VFIO_DEVICE_FEATURE_PROBE as PROBE,
    VFIO_DEVICE_FEATURE_SET as SET, vfio_device_feature_dma_logging_control,
    vfio_device_feature_dma_logging_range, vfio_device_feature_dma_logging_report,
};
use vfio_fsm_core::Errno;

use super::{Payload, borrow, device_feature};
use crate::dma_logging::IovaRange;

/// Made here only, since the kernel goes where the address in it points to.
#[derive(Clone, Copy)]
#[repr(transparent)]
struct Control(vfio_device_feature_dma_logging_control);
// SAFETY: four integers.
unsafe impl Payload for Control {}

/// Made here only, for the same reason.
#[derive(Clone, Copy)]
#[repr(transparent)]
struct Report(vfio_device_feature_dma_logging_report);
// SAFETY: four integers.
unsafe impl Payload for Report {}

/// Whether the device has all three.
pub(crate) fn probe(device: &(impl AsRawFd + ?Sized)) -> Result<bool, Errno> {
    for feature in [SET | START, SET | STOP, GET | REPORT] {
        match device_feature(borrow(device)?, PROBE | feature, &mut ()) {
            Ok(()) => {}
            Err(Errno::ENOTTY) => return Ok(false),
            Err(errno) => return Err(errno),
        }
    }
    Ok(true)
}

/// Starts with `page_size` as a hint; what the device made of it.
pub(crate) fn start(
    device: &(impl AsRawFd + ?Sized),
    page_size: u64,
    ranges: &[IovaRange],
) -> Result<u64, Errno> {
    let ranges: Vec<_> = ranges
        .iter()
        .map(|range| vfio_device_feature_dma_logging_range {
            iova: range.iova,
            length: range.length,
        })
        .collect();
    let mut control = Control(vfio_device_feature_dma_logging_control {
        page_size,
        num_ranges: u32::try_from(ranges.len()).map_err(|_too_many| Errno::EINVAL)?,
        ranges: ranges.as_ptr() as u64,
        ..Default::default()
    });
    device_feature(borrow(device)?, SET | START, &mut control)?;
    Ok(control.0.page_size)
}

pub(crate) fn stop(device: &(impl AsRawFd + ?Sized)) -> Result<(), Errno> {
    device_feature(borrow(device)?, SET | STOP, &mut ())
}

/// Bit n of the words is set if one of the `page_size` bytes at `range.iova + n * page_size` was
/// written; the log of the range is cleared. There must be a bit in `bitmap` for every page.
pub(crate) fn report<'b>(
    device: &(impl AsRawFd + ?Sized),
    range: IovaRange,
    page_size: u64,
    bitmap: &'b mut [u64],
) -> Result<&'b [u64], Errno> {
    let words = range.length.div_ceil(page_size).div_ceil(u64::BITS.into());
    // The kernel must not write past the end, so a bitmap that is too short stops here.
    let bitmap = &mut bitmap[..words as usize];
    bitmap.fill(0);
    report_to(device, range, page_size, bitmap.as_mut_ptr() as u64)?;
    Ok(bitmap)
}

/// The same with nothing checked: into the bits as they are, or, where there are fewer than pages, to
/// no address at all, so that a kernel which goes on gets a fault.
#[cfg(feature = "abuse")]
pub(crate) fn report_as_asked(
    device: &(impl AsRawFd + ?Sized),
    range: IovaRange,
    page_size: u64,
    bitmap: &mut [u64],
) -> Result<(), Errno> {
    let words = range.length.checked_div(page_size).map(|pages| pages / u64::from(u64::BITS));
    let fits = words.is_some_and(|words| words < bitmap.len() as u64);
    let address = if fits { bitmap.as_mut_ptr() as u64 } else { 0 };
    report_to(device, range, page_size, address)
}

/// At the address there is a bit for every page, or nothing.
fn report_to(
    device: &(impl AsRawFd + ?Sized),
    range: IovaRange,
    page_size: u64,
    bitmap: u64,
) -> Result<(), Errno> {
    let IovaRange { iova, length } = range;
    let asked = vfio_device_feature_dma_logging_report { iova, length, page_size, bitmap };
    device_feature(borrow(device)?, GET | REPORT, &mut Report(asked))
}

#[cfg(test)]
mod tests {
    use std::fs::File;
    use std::mem::size_of;

    use super::super::FeatureRequest;
    use super::*;

    #[test]
    fn the_layout_is_that_of_the_header() {
        assert_eq!(size_of::<FeatureRequest<Control>>(), 8 + 24);
        assert_eq!(size_of::<FeatureRequest<Report>>(), 8 + 32);
        assert_eq!((START, STOP, REPORT), (6, 7, 8));
    }

    #[test]
    #[should_panic(expected = "out of range")]
    fn a_bitmap_that_is_too_short_never_reaches_the_kernel() {
        let file = File::open("/dev/null").unwrap();
        let range = IovaRange { iova: 0, length: 65 * 4096 };
        let _ = report(&file, range, 4096, &mut [0; 1]);
    }
}
