// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! Into the bitmaps of vm-memory.

use vm_memory::bitmap::Bitmap;
use vm_memory::{Address, GuestAddress, GuestMemoryBackend, GuestMemoryRegion};

use super::ranges::IovaRange;

/// Marks `length` bytes of guest memory from `start` on as dirty, in the bitmap of each region that
/// has some of them. What no region has is passed over.
///
/// For a device that has no IOMMU of the guest's in front of it, IOVA and guest address are the
/// same, and this is what a report is to do with each run:
///
/// ```
/// # use vfio_fsm_kernel::dma_logging::{IovaRange, mark_guest_memory};
/// # use vm_memory::{GuestAddress, GuestMemoryMmap, bitmap::AtomicBitmap};
/// # fn f(memory: &GuestMemoryMmap<AtomicBitmap>) {
/// let dirty = |run: IovaRange| mark_guest_memory(memory, GuestAddress(run.iova), run.length);
/// # let _ = dirty;
/// # }
/// ```
///
/// A region without a bitmap (`GuestMemoryMmap<()>`) remembers nothing, and cannot say so.
pub fn mark_guest_memory<M: GuestMemoryBackend>(memory: &M, start: GuestAddress, length: u64) {
    let run = IovaRange { iova: start.raw_value(), length };
    for region in memory.iter() {
        let whole = IovaRange { iova: region.start_addr().raw_value(), length: region.len() };
        if let Some(part) = run.intersection(whole) {
            // vm-memory is for 64 bits only.
            let (offset, length) = ((part.iova - whole.iova) as usize, part.length as usize);
            region.bitmap().mark_dirty(offset, length);
        }
    }
}
