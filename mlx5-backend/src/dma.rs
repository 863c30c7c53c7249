// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! Memory that driver and device share, and the addresses under which the device knows it.
//!
//! A [`DmaSpace`] is one IOVA space. The driver's side takes a [`DmaBuffer`] from it and reads and
//! writes that; the device's side, where it is software, turns an IOVA back into memory through
//! the same handle, as the IOMMU does for hardware. Bytes only: nobody gets a reference to memory
//! that the other side may write at any time.
//!
//! ```
//! use vfio_fsm_mlx5::dma::DmaSpace;
//!
//! let space = DmaSpace::new(1 << 20);
//! let buffer = space.allocate(100)?;
//! buffer.write(96, b"mlx5")?;
//!
//! let mut seen = [0; 4];
//! space.read(buffer.iova() + 96, &mut seen)?;
//! assert_eq!(&seen, b"mlx5");
//! # Ok::<(), vfio_fsm_mlx5::dma::DmaError>(())
//! ```

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::io;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use parking_lot::RwLock;
use vfio_fsm_core::Errno;
use vm_memory::{Bytes, MmapRegion, VolatileMemory, VolatileSlice};

/// Granularity of addresses and lengths, in bytes: mlx5 counts firmware pages and MTTs in it.
pub const PAGE_BYTES: u64 = 4096;

/// Where IOVAs begin: above the 32-bit addresses, among which x86 keeps those of the interrupts.
const FIRST_IOVA: u64 = 1 << 32;
/// Where they end: 39 bits, which is what the smallest IOMMU of a server translates.
const END_IOVA: u64 = 1 << 39;

/// Makes memory known to an IOMMU.
///
/// The memory comes as an `Arc` because the device may reach it for as long as it is mapped: keep
/// it until [`unmap`](Self::unmap) has succeeded.
pub trait MapDma: Send + Sync {
    /// Lets the device read and write `memory` at `iova`.
    fn map(&self, iova: u64, memory: &Arc<MmapRegion>) -> io::Result<()>;

    /// Takes back exactly what one `map` did.
    fn unmap(&self, iova: u64, len: u64) -> io::Result<()>;
}

/// What DMA memory could not do.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum DmaError {
    /// More than the space may have.
    #[error("{asked} bytes of DMA memory on top of {used} pass the limit of {limit}; raise it")]
    Limit {
        /// Bytes that were asked for, in whole pages.
        asked: u64,
        /// Bytes in use.
        used: u64,
        /// The most there may be.
        limit: u64,
    },
    /// The system has none.
    #[error("no {asked} bytes of memory for DMA: {errno}")]
    Memory {
        /// Bytes that were asked for.
        asked: u64,
        /// What mmap said.
        errno: Errno,
    },
    /// No gap in the IOVA space is long enough.
    #[error(
        "no {asked} bytes are left in one piece between IOVA {FIRST_IOVA:#x} and {END_IOVA:#x}"
    )]
    NoIova {
        /// Bytes that were asked for.
        asked: u64,
    },
    /// The IOMMU refused.
    #[error(
        "the IOMMU does not map {len} bytes at IOVA {iova:#x}: {errno}; see the limit on locked \
         memory"
    )]
    Map {
        /// Where.
        iova: u64,
        /// How many bytes.
        len: u64,
        /// What it said.
        errno: Errno,
    },
    /// The device reached for something that is not mapped.
    #[error("{len} bytes at IOVA {iova:#x} are not mapped")]
    Unmapped {
        /// The first address that is not.
        iova: u64,
        /// How many bytes were wanted from there on.
        len: u64,
    },
    /// Two mappings would lie on each other, or one is not of whole pages.
    #[error("{len} bytes at IOVA {iova:#x} do not fit between the mappings, in pages of 4096")]
    Placement {
        /// Where.
        iova: u64,
        /// How many bytes.
        len: u64,
    },
    /// The driver reached out of its own buffer.
    #[error("{len} bytes at offset {offset} of a buffer of {size}")]
    Outside {
        /// Where, in the buffer.
        offset: usize,
        /// How many bytes.
        len: usize,
        /// How many bytes the buffer has.
        size: usize,
    },
}

impl DmaError {
    /// The errno a kernel driver would give.
    pub const fn errno(self) -> Errno {
        match self {
            Self::Limit { .. } | Self::NoIova { .. } => Errno::ENOMEM,
            Self::Memory { errno, .. } | Self::Map { errno, .. } => errno,
            Self::Unmapped { .. } | Self::Outside { .. } => Errno::EFAULT,
            Self::Placement { .. } => Errno::EINVAL,
        }
    }
}

/// The errno in an error of the system, EIO if it has none.
fn errno(error: &io::Error) -> Errno {
    error.raw_os_error().map_or(Errno::EIO, Errno)
}

/// One IOVA space, and the memory in it. Cloning gives another handle to the same.
#[derive(Clone)]
pub struct DmaSpace {
    space: Arc<Space>,
}

struct Space {
    limit: u64,
    iommu: Option<Box<dyn MapDma>>,
    mappings: RwLock<Mappings>,
}

/// What is mapped where. Everything not in `free` is in `regions`, or outside the window.
struct Mappings {
    regions: BTreeMap<u64, Arc<MmapRegion>>,
    /// Which of the regions are somebody else's.
    attached: BTreeSet<u64>,
    /// Start and length of each gap. No two touch.
    free: BTreeMap<u64, u64>,
    used: u64,
}

impl DmaSpace {
    /// A space without an IOMMU, for a device that is software, of at most `limit` bytes.
    pub fn new(limit: u64) -> Self {
        Self::build(limit, None)
    }

    /// A space whose memory is made known to an IOMMU, of at most `limit` bytes.
    pub fn with_iommu(limit: u64, iommu: Box<dyn MapDma>) -> Self {
        Self::build(limit, Some(iommu))
    }

    fn build(limit: u64, iommu: Option<Box<dyn MapDma>>) -> Self {
        let mappings = Mappings {
            regions: BTreeMap::new(),
            attached: BTreeSet::new(),
            free: BTreeMap::from([(FIRST_IOVA, END_IOVA - FIRST_IOVA)]),
            used: 0,
        };
        Self { space: Arc::new(Space { limit, iommu, mappings: RwLock::new(mappings) }) }
    }

    /// Zeroed memory of as many whole pages as hold `bytes`, one at least, in one piece for the
    /// device. It is unmapped and freed when the buffer is dropped.
    pub fn allocate(&self, bytes: usize) -> Result<DmaBuffer, DmaError> {
        let pages = (bytes as u64).max(1).checked_next_multiple_of(PAGE_BYTES);
        let len = pages.unwrap_or(u64::MAX);
        let iova = self.space.mappings.write().reserve(len, self.space.limit)?;
        match self.space.fill(iova, len) {
            Ok(memory) => Ok(DmaBuffer { space: self.clone(), iova, memory }),
            Err(error) => {
                self.space.mappings.write().release(iova, len);
                Err(error)
            }
        }
    }

    /// Puts memory of somebody else's into the space: what a driver in another process, or an
    /// unmodified library, maps for a software device. Not counted against the limit, and not
    /// made known to an IOMMU.
    pub fn attach(&self, iova: u64, memory: Arc<MmapRegion>) -> Result<(), DmaError> {
        self.space.mappings.write().attach(iova, memory)
    }

    /// Takes memory out again that was attached at this address, and gives it back.
    pub fn detach(&self, iova: u64) -> Result<Arc<MmapRegion>, DmaError> {
        self.space.mappings.write().detach(iova)
    }

    /// The device reads.
    pub fn read(&self, iova: u64, bytes: &mut [u8]) -> Result<(), DmaError> {
        let mut done = 0;
        while done < bytes.len() {
            let window = self.window_up_to(iova.wrapping_add(done as u64), bytes.len() - done)?;
            done += window.as_volatile_slice()?.copy_to(&mut bytes[done..]);
        }
        Ok(())
    }

    /// The device writes.
    pub fn write(&self, iova: u64, bytes: &[u8]) -> Result<(), DmaError> {
        let mut done = 0;
        while done < bytes.len() {
            let window = self.window_up_to(iova.wrapping_add(done as u64), bytes.len() - done)?;
            let part = &bytes[done..done + window.len];
            window.as_volatile_slice()?.copy_from(part);
            done += part.len();
        }
        Ok(())
    }

    /// What the device sees of one buffer at this address: `len` bytes which stay valid, though
    /// perhaps no longer mapped, for as long as the window is kept.
    pub fn window(&self, iova: u64, len: usize) -> Result<DmaWindow, DmaError> {
        let window = self.window_up_to(iova, len)?;
        let missing = (len - window.len) as u64;
        match missing {
            0 => Ok(window),
            _ => Err(DmaError::Unmapped { iova: iova + window.len as u64, len: missing }),
        }
    }

    /// Bytes in use, of those counted against the limit.
    pub fn used(&self) -> u64 {
        self.space.mappings.read().used
    }

    fn window_up_to(&self, iova: u64, len: usize) -> Result<DmaWindow, DmaError> {
        let unmapped = DmaError::Unmapped { iova, len: len as u64 };
        let mappings = self.space.mappings.read();
        let (start, memory) = mappings.regions.range(..=iova).next_back().ok_or(unmapped)?;
        let offset = usize::try_from(iova - start).map_err(|_| unmapped)?;
        let left = memory.size().checked_sub(offset).filter(|left| *left > 0).ok_or(unmapped)?;
        Ok(DmaWindow { memory: memory.clone(), offset, len: left.min(len) })
    }
}

impl fmt::Debug for DmaSpace {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mappings = self.space.mappings.read();
        f.debug_struct("DmaSpace")
            .field("limit", &self.space.limit)
            .field("used", &mappings.used)
            .field("mappings", &mappings.regions.len())
            .finish_non_exhaustive()
    }
}

impl Space {
    /// Memory for a range that is reserved.
    fn fill(&self, iova: u64, len: u64) -> Result<Arc<MmapRegion>, DmaError> {
        let no_memory = |errno| DmaError::Memory { asked: len, errno };
        let size = usize::try_from(len).map_err(|_| no_memory(Errno::ENOMEM))?;
        let memory = MmapRegion::new(size).map_err(|error| match error {
            vm_memory::mmap::MmapRegionError::Mmap(error) => no_memory(errno(&error)),
            _ => no_memory(Errno::ENOMEM),
        })?;
        let memory = Arc::new(memory);
        if let Some(iommu) = &self.iommu {
            iommu.map(iova, &memory).map_err(|error| DmaError::Map {
                iova,
                len,
                errno: errno(&error),
            })?;
        }
        self.mappings.write().regions.insert(iova, memory.clone());
        Ok(memory)
    }

    /// Takes a buffer's memory out. What the IOMMU does not let go stays reserved, so that the
    /// address is not given to something else that the device then still writes to.
    fn free(&self, iova: u64, len: u64) {
        self.mappings.write().regions.remove(&iova);
        if self.iommu.as_ref().is_none_or(|iommu| iommu.unmap(iova, len).is_ok()) {
            self.mappings.write().release(iova, len);
        }
    }
}

impl Mappings {
    fn reserve(&mut self, len: u64, limit: u64) -> Result<u64, DmaError> {
        if len > limit.saturating_sub(self.used) {
            return Err(DmaError::Limit { asked: len, used: self.used, limit });
        }
        let gap = self.free.iter().find(|(_, gap)| **gap >= len).map(|(start, _)| *start);
        let iova = gap.ok_or(DmaError::NoIova { asked: len })?;
        self.carve(iova, iova, len);
        self.used += len;
        Ok(iova)
    }

    fn release(&mut self, iova: u64, len: u64) {
        self.used -= len;
        self.give_back(iova, len);
    }

    /// Cuts a range out of the gap that begins at `gap` and has it whole.
    fn carve(&mut self, gap: u64, iova: u64, len: u64) {
        let size = self.free.remove(&gap).unwrap_or(0);
        let (end, gap_end) = (iova + len, gap + size);
        if iova > gap {
            self.free.insert(gap, iova - gap);
        }
        if gap_end > end {
            self.free.insert(end, gap_end - end);
        }
    }

    fn give_back(&mut self, iova: u64, len: u64) {
        let (mut start, mut end) = (iova, iova + len);
        if let Some((before, size)) = self.free.range(..start).next_back().map(|(a, b)| (*a, *b))
            && before + size == start
        {
            self.free.remove(&before);
            start = before;
        }
        if let Some(size) = self.free.remove(&end) {
            end += size;
        }
        self.free.insert(start, end - start);
    }

    fn attach(&mut self, iova: u64, memory: Arc<MmapRegion>) -> Result<(), DmaError> {
        let len = memory.size() as u64;
        let refused = DmaError::Placement { iova, len };
        let end = iova.checked_add(len).ok_or(refused)?;
        if len == 0 || !iova.is_multiple_of(PAGE_BYTES) || !len.is_multiple_of(PAGE_BYTES) {
            return Err(refused);
        }
        let below = self.regions.range(..end).next_back();
        if below.is_some_and(|(start, region)| start + region.size() as u64 > iova) {
            return Err(refused);
        }
        if iova < END_IOVA && end > FIRST_IOVA {
            let gap = self.free.range(..=iova).next_back().map(|(start, size)| (*start, *size));
            let gap = gap.filter(|(start, size)| start + size >= end).ok_or(refused)?;
            self.carve(gap.0, iova, len);
        }
        self.regions.insert(iova, memory);
        self.attached.insert(iova);
        Ok(())
    }

    fn detach(&mut self, iova: u64) -> Result<Arc<MmapRegion>, DmaError> {
        // A buffer leaves when it is dropped, and not otherwise.
        let attached = self.attached.remove(&iova);
        let memory = if attached { self.regions.remove(&iova) } else { None };
        let memory = memory.ok_or(DmaError::Unmapped { iova, len: 0 })?;
        if (FIRST_IOVA..END_IOVA).contains(&iova) {
            self.give_back(iova, memory.size() as u64);
        }
        Ok(memory)
    }
}

/// Memory of the driver that the device reaches at [`iova`](Self::iova).
pub struct DmaBuffer {
    space: DmaSpace,
    iova: u64,
    memory: Arc<MmapRegion>,
}

impl DmaBuffer {
    /// Where the device finds it. A multiple of [`PAGE_BYTES`].
    pub fn iova(&self) -> u64 {
        self.iova
    }

    /// Its length in bytes. A multiple of [`PAGE_BYTES`].
    #[expect(clippy::len_without_is_empty, reason = "it has at least a page")]
    pub fn len(&self) -> usize {
        self.memory.size()
    }

    /// Copies bytes out of it.
    pub fn read(&self, offset: usize, bytes: &mut [u8]) -> Result<(), DmaError> {
        self.slice(offset, bytes.len())?.copy_to(bytes);
        Ok(())
    }

    /// Copies bytes into it.
    pub fn write(&self, offset: usize, bytes: &[u8]) -> Result<(), DmaError> {
        self.slice(offset, bytes.len())?.copy_from(bytes);
        Ok(())
    }

    /// Reads one byte that the device may be writing. What the device wrote before it, is seen
    /// by what is read after it.
    pub fn load(&self, offset: usize) -> Result<u8, DmaError> {
        let outside = DmaError::Outside { offset, len: 1, size: self.len() };
        let slice = self.memory.as_volatile_slice();
        slice.load(offset, Ordering::Acquire).map_err(|_| outside)
    }

    /// Writes one byte that the device may be waiting for. It sees whatever was written before.
    pub fn store(&self, offset: usize, byte: u8) -> Result<(), DmaError> {
        let outside = DmaError::Outside { offset, len: 1, size: self.len() };
        let slice = self.memory.as_volatile_slice();
        slice.store(byte, offset, Ordering::Release).map_err(|_| outside)
    }

    /// A part of it, for the rest of what vm-memory can do.
    pub fn slice(&self, offset: usize, len: usize) -> Result<VolatileSlice<'_>, DmaError> {
        let outside = DmaError::Outside { offset, len, size: self.len() };
        self.memory.get_slice(offset, len).map_err(|_| outside)
    }
}

impl fmt::Debug for DmaBuffer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "DmaBuffer({:#x}, {} bytes)", self.iova, self.len())
    }
}

impl Drop for DmaBuffer {
    fn drop(&mut self) {
        self.space.space.free(self.iova, self.memory.size() as u64);
    }
}

/// A piece of memory as the device sees it. See [`DmaSpace::window`].
pub struct DmaWindow {
    memory: Arc<MmapRegion>,
    offset: usize,
    len: usize,
}

impl DmaWindow {
    /// The bytes.
    pub fn as_volatile_slice(&self) -> Result<VolatileSlice<'_>, DmaError> {
        let size = self.memory.size();
        let outside = DmaError::Outside { offset: self.offset, len: self.len, size };
        self.memory.get_slice(self.offset, self.len).map_err(|_| outside)
    }
}
