// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! Which memory a device writes: `VFIO_DEVICE_FEATURE_DMA_LOGGING_*`.
//!
//! Needs the feature `dma-logging`.
//!
//! * [`supported`]: whether a device can tell.
//! * [`DmaLog`]: a log that is being kept, from START to STOP.
//! * [`mark_guest_memory`]: from there into the bitmaps of vm-memory.
//!
//! ```no_run
//! use vfio_fsm_kernel::dma_logging::{DmaLog, IovaRange, mark_guest_memory};
//! use vm_memory::bitmap::AtomicBitmap;
//! use vm_memory::{GuestAddress, GuestMemoryMmap};
//!
//! # fn f(device: vfio_ioctls::VfioDevice, memory: GuestMemoryMmap<AtomicBitmap>)
//! # -> Result<(), Box<dyn std::error::Error>> {
//! let ram = [
//!     IovaRange { iova: 0, length: 3 << 30 },
//!     IovaRange { iova: 4 << 30, length: 13 << 30 },
//! ];
//! let mut log = DmaLog::start(&device, &ram, 4096)?;
//! // In every pass over the memory, and once more when the device is in STOP:
//! log.report_all(|run| mark_guest_memory(&memory, GuestAddress(run.iova), run.length))?;
//! log.stop()?;
//! # Ok(())
//! # }
//! ```
//!
//! # No page is lost
//!
//! A log that tells of too much costs bandwidth; one that tells of too little, the guest. So:
//!
//! * More may be logged than was asked for, see [`DmaLog::logged`], but never less.
//! * A dirty page is dirty in all of the device's page, of [`DmaLog::page_size`] bytes, also where
//!   that reaches out of the range reported: the device may have forgotten about all of it.
//! * When a REPORT fails, no bit of the log can be trusted, those not asked for included (R48).
//!   Everything is then told as dirty, before the error is returned. The log stays
//!   [`Corrupt`](ReportError::Corrupt) until it is [restarted](DmaLog::restart).
//!
//! # What it does not tell
//!
//! Only writes of this device (R40), so each device needs a log of its own, and a VMM marks all
//! into the same bitmaps, with what its hypervisor tells of the vCPUs and what it writes itself. A
//! reset of the device does not end the log. Only what was in the ranges at START is logged; memory
//! that is mapped later is dirty as far as anybody knows.

mod guest_memory;
mod ranges;
#[cfg(feature = "abuse")]
pub mod raw;
mod runs;

use std::collections::BTreeSet;
use std::fmt;
use std::ops::{Deref, Range};
use std::os::fd::{AsRawFd, RawFd};
use std::sync::{Mutex, MutexGuard, PoisonError};

use nix::libc;
use vfio_fsm_core::Errno;

pub use self::guest_memory::mark_guest_memory;
pub use self::ranges::{IovaRange, MIN_PAGE_SIZE, RangesError};

use self::runs::{Bitmap, Runs, WORDS, set_bits};
use crate::sys::dma_logging as sys;

/// So many ranges every device takes (R42): as many as fit into a page of 4 KiB. The kernel lets
/// through what fits into a page of the host's.
pub const MAX_RANGES: usize = 256;

/// The device could not be asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("probing for DMA logging failed with {errno}; is this the fd of a VFIO device?")]
pub struct ProbeError {
    /// What the ioctl said.
    pub errno: Errno,
}

/// The log was not begun.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum StartError {
    /// The ranges are none that could be logged.
    #[error(transparent)]
    Ranges(#[from] RangesError),
    /// There is a [`DmaLog`] of this fd, and a device has only one (R43). Of a duplicate of the fd
    /// nothing is known here: then it is the driver that refuses (R44), with `EINVAL`.
    #[error("this device is being logged already; stop that log, or use it")]
    AlreadyLogging,
    /// The device does not know DMA logging.
    #[error("the device or its driver has no DMA logging; take all memory for dirty in each pass")]
    Unsupported,
    /// START failed.
    #[error("START of a log of {ranges} ranges failed with {errno}; {}", advice(*errno))]
    Refused {
        /// What the ioctl said at the first attempt.
        errno: Errno,
        /// How many ranges it was given.
        ranges: usize,
    },
    /// The log that is on could not be stopped, so it was not started again (R43).
    #[error(transparent)]
    Stop(#[from] StopError),
    /// START succeeded with a page_size that is none. The log has been stopped.
    #[error("the device chose a page_size of {page_size:#x}, no power of two: a driver bug")]
    PageSize {
        /// In bytes.
        page_size: u64,
    },
}

const fn advice(errno: Errno) -> &'static str {
    match errno {
        Errno::EINVAL => "if somebody else has begun one, it has to be stopped first",
        Errno::EOPNOTSUPP => "mlx5 says so of more, or less, address space than it can log",
        _ => "see dmesg",
    }
}

/// What was written is not known, or not asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ReportError {
    /// Not one that the kernel takes. It was not asked; the log is as it was.
    #[error("a page_size of {page_size:#x}; give a power of two of at least 4 KiB")]
    PageSize {
        /// In bytes.
        page_size: u64,
    },
    /// Not a part of one of [`DmaLog::ranges`]. The kernel was not asked; the log is as it was.
    #[error("{range} is not in the ranges the log was started with, so nobody knows its writes")]
    NotLogged {
        /// What was to be reported.
        range: IovaRange,
    },
    /// This kernel keeps a log and cannot report it (`EOPNOTSUPP`). All memory was told as dirty.
    #[error(
        "this kernel keeps a DMA log and cannot report it: it was built without CONFIG_IOMMUFD and \
         CONFIG_IOMMUFD_DRIVER, as some distributions do; boot one that has them, or take all \
         memory for dirty in each pass"
    )]
    NoBitmaps,
    /// REPORT failed. All memory was told as dirty.
    #[error(
        "REPORT of {range} failed with {errno}, so the whole log is corrupt; restart it and send \
         all memory again"
    )]
    Failed {
        /// What the ioctl said.
        errno: Errno,
        /// What it was asked for.
        range: IovaRange,
    },
    /// An earlier REPORT failed, or a restart. All memory was told as dirty once more.
    #[error("the log is corrupt since an earlier error; restart it and send all memory again")]
    Corrupt,
}

/// The log has ended for its owner; whether for the device, too, is not known.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("STOP of the DMA log failed with {errno}; it ends when the device is closed")]
pub struct StopError {
    /// What the ioctl said.
    pub errno: Errno,
}

/// Whether a device has DMA logging, by `VFIO_DEVICE_FEATURE_PROBE` of START, STOP and REPORT.
///
/// Kernels that cannot report a log say yes all the same, see [`ReportError::NoBitmaps`]: to know
/// before the migration begins, report once after the start.
///
/// # Errors
///
/// When the ioctl fails in another way than to say no.
pub fn supported(device: &(impl AsRawFd + ?Sized)) -> Result<bool, ProbeError> {
    sys::probe(device).map_err(|errno| ProbeError { errno })
}

/// A log of the memory that a device writes, from START to STOP. Dropping it stops it, too.
///
/// `D` leads to what keeps the device's fd open: `&VfioDevice` and `Arc<VfioDevice>` of vfio-ioctls
/// will do, and so will `&OwnedFd`, `&BorrowedFd` and `Box<OwnedFd>`.
pub struct DmaLog<D: Deref<Target: AsRawFd>> {
    /// Given up before the fd can be closed and its number given to another device.
    _claim: Claim,
    device: D,
    ranges: Vec<IovaRange>,
    /// The page_size that was asked for.
    hint: u64,
    started: Started,
    /// A STOP is owed.
    on: bool,
    corrupt: bool,
    bitmap: Bitmap,
}

/// What a START came to.
#[derive(Debug)]
struct Started {
    logged: Vec<IovaRange>,
    page_size: u64,
}

impl<D: Deref<Target: AsRawFd>> DmaLog<D> {
    /// Begins to log what the device writes into `ranges`: RAM, as the device addresses it, in any
    /// order. `page_size`, in bytes, is a hint for how much one bit is to stand for.
    ///
    /// Neighbours are given to the device as one range. If there are more than [`MAX_RANGES`],
    /// those with the smallest gaps between them are, too, and the gaps are logged in vain. A
    /// device that says it is too much (`E2BIG`, `EINVAL`, `ENOMEM`, `ENOSPC`: drivers do not agree
    /// on one) is asked again with half as many, down to one. [`logged`](Self::logged) says what it
    /// came to.
    ///
    /// # Errors
    ///
    /// When the ranges cannot be logged, or the device is being logged already, or refuses.
    pub fn start(device: D, ranges: &[IovaRange], page_size: u64) -> Result<Self, StartError> {
        let ranges = ranges::joined(ranges, page_size)?;
        let claim = Claim::of(device.as_raw_fd()).ok_or(StartError::AlreadyLogging)?;
        let started = start(&*device, &ranges, page_size)?;
        let (on, corrupt, bitmap) = (true, false, Bitmap::new());
        Ok(Self { _claim: claim, device, ranges, hint: page_size, started, on, corrupt, bitmap })
    }

    /// How much memory one bit of the device's stands for, in bytes: what it made of the hint
    /// (R41). No report is finer than this.
    pub fn page_size(&self) -> u64 {
        self.started.page_size
    }

    /// What was asked to be logged, in order, neighbours as one.
    pub fn ranges(&self) -> &[IovaRange] {
        &self.ranges
    }

    /// What the device was given: as many ranges as it took, with all of [`ranges`](Self::ranges).
    pub fn logged(&self) -> &[IovaRange] {
        &self.started.logged
    }

    /// Calls `dirty` with all that was written in `range` since it was last reported, or since the
    /// start, in runs; the log of the range is cleared (R45).
    ///
    /// `page_size`, in bytes, is how much one bit is to stand for here; it may be larger than the
    /// device's (R46), and if it is smaller, the device's is taken. `dirty` may be told of memory
    /// next to `range`, see [the module](self), but of none outside of [`ranges`](Self::ranges).
    /// However large the range, no more than 2^19 pages are asked for at once.
    ///
    /// # Errors
    ///
    /// When `range` is not in one of [`ranges`](Self::ranges) or the page_size is none, before the
    /// kernel is asked. When a REPORT fails now or did before, after `dirty` was called with all of
    /// [`ranges`](Self::ranges) (R48).
    pub fn report(
        &mut self,
        range: IovaRange,
        page_size: u64,
        dirty: impl FnMut(IovaRange),
    ) -> Result<(), ReportError> {
        if !ranges::is_page_size(page_size) {
            return Err(ReportError::PageSize { page_size });
        }
        if !self.ranges.iter().any(|whole| whole.contains(range)) {
            return Err(ReportError::NotLogged { range });
        }
        self.report_or_all(&[range], page_size, dirty)
    }

    /// The same for all [`ranges`](Self::ranges), as finely as the device can tell.
    ///
    /// # Errors
    ///
    /// When a REPORT fails now or did before, after `dirty` was called with all of
    /// [`ranges`](Self::ranges) (R48).
    pub fn report_all(&mut self, dirty: impl FnMut(IovaRange)) -> Result<(), ReportError> {
        let ranges = self.ranges.clone();
        self.report_or_all(&ranges, MIN_PAGE_SIZE, dirty)
    }

    fn report_or_all(
        &mut self,
        ranges: &[IovaRange],
        page_size: u64,
        mut dirty: impl FnMut(IovaRange),
    ) -> Result<(), ReportError> {
        let result = match self.corrupt {
            true => Err(ReportError::Corrupt),
            false => self.read_and_clear(ranges, page_size, &mut dirty),
        };
        if result.is_err() {
            self.corrupt = true;
            self.ranges.iter().copied().for_each(dirty);
        }
        result
    }

    fn read_and_clear(
        &mut self,
        ranges: &[IovaRange],
        page_size: u64,
        dirty: impl FnMut(IovaRange),
    ) -> Result<(), ReportError> {
        let Started { ref logged, page_size: granularity } = self.started;
        let mut runs = Runs { page_size: granularity, within: &self.ranges, pending: None, dirty };
        // One bit for less could only be a copy of its neighbour's.
        let page_size = page_size.max(granularity);
        for range in ranges {
            // No driver has to find out what to do with a part of its own page.
            let range = range.whole_pages(granularity);
            for part in logged.iter().filter_map(|logged| logged.intersection(range)) {
                for piece in pieces(part, page_size) {
                    let words = sys::report(&*self.device, piece, page_size, self.bitmap.words())
                        .map_err(|errno| report_error(errno, piece))?;
                    set_bits(words, |bits| runs.add(memory(piece, page_size, bits)));
                }
            }
        }
        runs.tell();
        Ok(())
    }

    /// STOP and START, for a log that is corrupt. Nothing was logged between, so `dirty` is called
    /// with all of [`ranges`](Self::ranges), when the log is on again.
    ///
    /// # Errors
    ///
    /// When STOP or START fails. `dirty` was called, and the log stays corrupt.
    pub fn restart(&mut self, dirty: impl FnMut(IovaRange)) -> Result<(), StartError> {
        self.corrupt = true;
        let stopped = self.stop_once().map_err(StartError::Stop);
        let started = stopped.and_then(|()| start(&*self.device, &self.ranges, self.hint));
        self.ranges.iter().copied().for_each(dirty);
        self.started = started?;
        (self.on, self.corrupt) = (true, false);
        Ok(())
    }

    /// STOP. What was not reported is lost, so the last report comes before.
    ///
    /// # Errors
    ///
    /// When the ioctl fails.
    pub fn stop(mut self) -> Result<(), StopError> {
        let stopped = self.stop_once();
        // Once is enough.
        self.on = false;
        stopped
    }

    fn stop_once(&mut self) -> Result<(), StopError> {
        if self.on {
            sys::stop(&*self.device).map_err(|errno| StopError { errno })?;
            self.on = false;
        }
        Ok(())
    }
}

impl<D: Deref<Target: AsRawFd>> Drop for DmaLog<D> {
    fn drop(&mut self) {
        // `stop` is for who wants to know.
        let _ = self.stop_once();
    }
}

impl<D: Deref<Target: AsRawFd>> fmt::Debug for DmaLog<D> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("DmaLog")
            .field("device", &self.device.as_raw_fd())
            .field("ranges", &self.ranges)
            .field("started", &self.started)
            .field("on", &self.on)
            .field("corrupt", &self.corrupt)
            .finish_non_exhaustive()
    }
}

/// START, with fewer ranges if so many are refused.
fn start(
    device: &(impl AsRawFd + ?Sized),
    ranges: &[IovaRange],
    hint: u64,
) -> Result<Started, StartError> {
    let mut logged = ranges::merged(ranges, MAX_RANGES);
    let first = logged.len();
    let mut refused = None;
    loop {
        match sys::start(device, hint, &logged) {
            Ok(page_size) if page_size.is_power_of_two() => {
                return Ok(Started { logged, page_size });
            }
            Ok(page_size) => {
                // The other error is the one to tell of.
                let _ = sys::stop(device);
                return Err(StartError::PageSize { page_size });
            }
            Err(Errno::ENOTTY) => return Err(StartError::Unsupported),
            Err(errno) => {
                let first_errno = *refused.get_or_insert(errno);
                if !can_mean_too_many(errno) || logged.len() == 1 {
                    return Err(StartError::Refused { errno: first_errno, ranges: first });
                }
                logged = ranges::merged(ranges, logged.len() / 2);
            }
        }
    }
}

fn can_mean_too_many(errno: Errno) -> bool {
    [Errno(libc::E2BIG), Errno::EINVAL, Errno::ENOMEM, Errno::ENOSPC].contains(&errno)
}

/// No longer than the bitmap has bits for.
fn pieces(range: IovaRange, page_size: u64) -> impl Iterator<Item = IovaRange> {
    let most = page_size.saturating_mul(WORDS as u64 * 64);
    let mut rest = range;
    std::iter::from_fn(move || {
        let piece = IovaRange { length: most.min(rest.length), ..rest };
        rest = IovaRange::between(piece.end(), rest.end());
        (piece.length > 0).then_some(piece)
    })
}

/// What the bits of a piece stand for. Bit n is for the page at `iova + n * page_size`: the formula
/// in the uAPI header cannot be meant (R46).
fn memory(piece: IovaRange, page_size: u64, bits: Range<u64>) -> IovaRange {
    let at = |bit: u64| piece.iova.saturating_add(bit.saturating_mul(page_size)).min(piece.end());
    IovaRange::between(at(bits.start), at(bits.end))
}

fn report_error(errno: Errno, range: IovaRange) -> ReportError {
    match errno {
        Errno::EOPNOTSUPP => ReportError::NoBitmaps,
        errno => ReportError::Failed { errno, range },
    }
}

/// The fds that are being logged. An fd is not given to another file while a log keeps it open.
static CLAIMED: Mutex<BTreeSet<RawFd>> = Mutex::new(BTreeSet::new());

fn claimed() -> MutexGuard<'static, BTreeSet<RawFd>> {
    CLAIMED.lock().unwrap_or_else(PoisonError::into_inner)
}

/// That no other log of this fd is begun.
struct Claim(RawFd);

impl Claim {
    fn of(fd: RawFd) -> Option<Self> {
        claimed().insert(fd).then(|| Self(fd))
    }
}

impl Drop for Claim {
    fn drop(&mut self) {
        claimed().remove(&self.0);
    }
}
