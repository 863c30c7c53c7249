// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! Into the bitmaps of vm-memory.

use vm_memory::bitmap::Bitmap;
use vm_memory::{Address, GuestMemoryBackend, GuestMemoryRegion};

use super::ranges::IovaRange;

/// Marks a run as dirty in the bitmap of each region of guest memory that has some of it, an IOVA
/// being a guest address. What no region has is passed over.
///
/// A region without a bitmap (`GuestMemoryMmap<()>`) remembers nothing, and cannot say so.
pub fn mark_guest_memory<M: GuestMemoryBackend>(memory: &M, run: IovaRange) {
    for region in memory.iter() {
        let whole = IovaRange { iova: region.start_addr().raw_value(), length: region.len() };
        if let Some(part) = run.intersection(whole) {
            // vm-memory is for 64 bits only.
            let (offset, length) = ((part.iova - whole.iova) as usize, part.length as usize);
            region.bitmap().mark_dirty(offset, length);
        }
    }
}
