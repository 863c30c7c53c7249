// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! The pages of the driver's process, as a device sees them.

use std::fs::File;
use std::io;
use std::ops::Range;
use std::os::unix::fs::FileExt;

use nix::sys::memfd::{MFdFlags, memfd_create};

use crate::dma::DmaError;

const PAGE: u64 = 4096;

/// Where bus addresses begin: `DMA_BASE` in `verify/driver/kernel.h`.
pub const FIRST_IOVA: u64 = 0x40_0000_0000;

/// From this bit on the state of a page counts its mappings for DMA.
const MAPPED: u32 = 2;

/// Memory that the driver's process shares: its pages, and before them what state each is in.
///
/// A device reaches only what the driver has mapped for DMA. Everything else is an error, as it is
/// with an IOMMU.
#[derive(Debug)]
pub struct Arena {
    memory: File,
    pages: u64,
}

impl Arena {
    /// As many pages of 4096 bytes. What is not used takes no memory.
    pub fn new(pages: u64) -> io::Result<Self> {
        let memory = File::from(memfd_create("mlx5-driver", MFdFlags::MFD_CLOEXEC)?);
        let arena = Self { memory, pages };
        arena.memory.set_len(arena.table() + pages * PAGE)?;
        Ok(arena)
    }

    /// Whether an address is in here, mapped or not.
    pub const fn contains(&self, iova: u64) -> bool {
        iova >= FIRST_IOVA && iova - FIRST_IOVA < self.pages * PAGE
    }

    pub(super) const fn pages(&self) -> u64 {
        self.pages
    }

    pub(super) fn file(&self) -> io::Result<File> {
        self.memory.try_clone()
    }

    /// Another handle to the same pages.
    pub fn try_clone(&self) -> io::Result<Self> {
        Ok(Self { memory: self.memory.try_clone()?, pages: self.pages })
    }

    /// The device reads.
    pub fn read(&self, iova: u64, bytes: &mut [u8]) -> Result<(), DmaError> {
        let at = self.reach(iova, bytes.len())?;
        self.memory.read_exact_at(bytes, at).map_err(unmapped(iova, bytes.len()))
    }

    /// The device writes.
    pub fn write(&self, iova: u64, bytes: &[u8]) -> Result<(), DmaError> {
        let at = self.reach(iova, bytes.len())?;
        self.memory.write_all_at(bytes, at).map_err(unmapped(iova, bytes.len()))
    }

    /// Bytes of the table before the pages.
    fn table(&self) -> u64 {
        (self.pages * 4).next_multiple_of(PAGE)
    }

    /// Where in the file this range is, if all of it is mapped.
    fn reach(&self, iova: u64, len: usize) -> Result<u64, DmaError> {
        let unmapped = DmaError::Unmapped { iova, len: len as u64 };
        let first = iova.checked_sub(FIRST_IOVA).ok_or(unmapped)?;
        let end = first.checked_add(len as u64).ok_or(unmapped)?;
        if end > self.pages * PAGE || !self.is_mapped(first / PAGE..end.div_ceil(PAGE)) {
            return Err(unmapped);
        }
        Ok(self.table() + first)
    }

    fn is_mapped(&self, pages: Range<u64>) -> bool {
        let mut states = vec![0; 4 * (pages.end - pages.start) as usize];
        let mapped =
            |state: &[u8]| state.try_into().is_ok_and(|state| u32::from_ne_bytes(state) >= MAPPED);
        self.memory.read_exact_at(&mut states, pages.start * 4).is_ok()
            && states.chunks_exact(4).all(mapped)
    }
}

/// A file that is shorter than it was made, which nobody does.
fn unmapped(iova: u64, len: usize) -> impl FnOnce(io::Error) -> DmaError {
    move |_| DmaError::Unmapped { iova, len: len as u64 }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// M107: a device reaches nothing that the driver has not mapped for DMA.
    #[test]
    fn only_what_is_mapped_is_reached() {
        let arena = Arena::new(4).unwrap();
        let set = |page: u64, state: u32| {
            arena.memory.write_all_at(&state.to_ne_bytes(), page * 4).unwrap();
        };
        let mut bytes = [0; 8];
        assert!(arena.read(FIRST_IOVA, &mut bytes).is_err(), "nobody's");
        set(0, 1);
        assert!(arena.read(FIRST_IOVA, &mut bytes).is_err(), "allocated, and not mapped");
        set(0, 1 + MAPPED);
        arena.write(FIRST_IOVA + 4088, b"the last").unwrap();
        arena.read(FIRST_IOVA + 4088, &mut bytes).unwrap();
        assert_eq!(&bytes, b"the last");
        assert!(arena.write(FIRST_IOVA + 4089, b"too late").is_err(), "into the next page");
        set(1, 1 + 2 * MAPPED);
        arena.write(FIRST_IOVA + 4089, b"in time.").unwrap();
        set(3, 1 + MAPPED);
        for iova in [0, FIRST_IOVA - 1, FIRST_IOVA + 4 * PAGE - 7, u64::MAX] {
            assert!(arena.write(iova, b"anywhere").is_err(), "{iova:#x}");
        }
    }
}
