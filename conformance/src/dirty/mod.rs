// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! The log of DMA, `VFIO_DEVICE_FEATURE_DMA_LOGGING_*`, as an automaton with an oracle.
//!
//! The log is not connected to the device_state (R40), and what it says is pages: so it is no part of
//! the alphabet of [`Op`](vfio_fsm_core::Op)s, and has a suite of its own, on whatever is [`Dirty`].
//!
//! * [`complete`]: every sequence that tells a small wrong automaton from the right one, with the
//!   theorem of [complete suites](crate::complete).
//! * [`random`]: any ranges, writes and reports, with an oracle that knows which pages were written
//!   since they were last told; a failure is shrunk.
//! * [`MemoryLog`]: a log in memory, which can be given a [`Flaw`]. `Mlx5Log` is the page tracker of the
//!   mlx5 backend on a firmware in software, [`KernelLog`] a device node.
//!
//! ```
//! use vfio_conform::dirty::{Flaw, MemoryLog, complete, random};
//!
//! assert!(complete(&mut MemoryLog::new(), 0)?.is_good());
//! assert!(!complete(&mut MemoryLog::with_flaw(Flaw::StopsNothing), 0)?.is_good());
//! assert!(random(&mut MemoryLog::new(), 1)?.is_none());
//! # Ok::<(), vfio_conform::dirty::DirtyError>(())
//! ```

mod automaton;
mod kernel;
mod memory;
#[cfg(feature = "mlx5")]
mod mlx5;
mod random;

use std::error::Error;

use vfio_fsm_core::{Errno, State};
pub use vfio_fsm_kernel::dma_logging::{IovaRange, MIN_PAGE_SIZE};

pub use automaton::{Complete, Failure, Input, complete};
pub use kernel::KernelLog;
pub use memory::{Flaw, MemoryLog};
#[cfg(feature = "mlx5")]
pub use mlx5::Mlx5Log;
pub use random::{STEPS, Slip, Step, random};

/// A call that was not carried out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Refused {
    /// What the kernel said; `None` where there is no kernel.
    pub errno: Option<Errno>,
}

/// A device that could not be tried: this is no verdict.
#[derive(Debug, thiserror::Error)]
#[error("the device cannot be had for a test of its log: {0}")]
pub struct DirtyError(#[source] pub Box<dyn Error + Send + Sync>);

/// What becomes of the log at a reset, if that is known (C37).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AtReset {
    /// Not defined, so it is stopped behind each.
    Undefined,
    /// It goes on, with what is in it.
    GoesOn,
}

/// A device that can log what it writes.
pub trait Dirty {
    /// As just opened: RUNNING, and no log.
    fn fresh(&mut self) -> Result<(), DirtyError>;

    /// START of a log of these ranges, with a hint at the page_size. The page_size that it came to.
    fn start(&mut self, page_size: u64, ranges: &[IovaRange]) -> Result<u64, Refused>;

    /// STOP.
    fn stop(&mut self) -> Result<(), Refused>;

    /// REPORT: sets bit n if one of the `page_size` bytes at `range.iova + n * page_size` was written
    /// since it was last reported, and clears no bit (R47). There is a bit for every page, or, where
    /// that cannot be, none at all.
    fn report(
        &mut self,
        range: IovaRange,
        page_size: u64,
        bitmap: &mut [u64],
    ) -> Result<(), Refused>;

    /// SET of the device_state: RUNNING or STOP.
    fn set(&mut self, to: State) -> Result<(), Refused>;

    /// GET of the device_state.
    fn get(&mut self) -> Result<State, Refused>;

    /// `VFIO_DEVICE_RESET`.
    fn reset(&mut self) -> Result<(), Refused>;

    /// What a reset does to the log.
    fn at_reset(&self) -> AtReset {
        AtReset::Undefined
    }

    /// Whether it can be made to [`write`](Self::write). If not, only the automaton is judged, and of
    /// reports only that they succeed.
    fn can_write(&self) -> bool;

    /// The device writes so many bytes.
    fn write(&mut self, iova: u64, bytes: u64);
}

/// So many words have a bit for each page of a range; none for what is no range of pages.
fn bitmap(range: IovaRange, page_size: u64) -> Vec<u64> {
    /// What the kernel lets be asked for at once is no more than this.
    const MOST_WORDS: u64 = 1 << 15;
    let is_asked = page_size.is_power_of_two() && range.iova.checked_add(range.length).is_some();
    let words = range.length.checked_div(page_size).map_or(0, |pages| pages / 64 + 1);
    if is_asked && words <= MOST_WORDS { vec![0; words as usize] } else { Vec::new() }
}

/// Whether a START like this may succeed (C39).
fn can_start(page_size: u64, ranges: &[IovaRange]) -> bool {
    let is_range = |range: &IovaRange| {
        let aligned = (range.iova | range.length).is_multiple_of(page_size);
        aligned && range.length > 0 && range.iova.checked_add(range.length).is_some()
    };
    let apart = |(index, one): (usize, &IovaRange)| {
        let overlaps = |other: &IovaRange| {
            one.iova < other.iova.saturating_add(other.length)
                && other.iova < one.iova.saturating_add(one.length)
        };
        !ranges[..index].iter().any(overlaps)
    };
    is_page_size(page_size)
        && !ranges.is_empty()
        && ranges.iter().all(is_range)
        && ranges.iter().enumerate().all(apart)
}

const fn is_page_size(page_size: u64) -> bool {
    page_size.is_power_of_two() && page_size >= MIN_PAGE_SIZE
}
