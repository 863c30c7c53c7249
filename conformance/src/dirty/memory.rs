// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! A log in memory: what a device and the kernel before it do, and what they could do wrong.

use std::collections::BTreeSet;

use vfio_fsm_core::{Errno, State};

use super::{
    AtReset, Dirty, DirtyError, IovaRange, MIN_PAGE_SIZE, Refused, can_start, is_page_size,
};

/// As many ranges as fit into a page of 4 KiB.
const MOST_RANGES: usize = 256;

macro_rules! flaws {
    ($($(#[$meta:meta])* $flaw:ident = $slug:literal;)*) => {
        /// Something that a log does wrong.
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        pub enum Flaw {
            $($(#[$meta])* $flaw,)*
        }

        impl Flaw {
            /// Every one.
            pub const ALL: &'static [Self] = &[$(Self::$flaw,)*];

            /// Its name on the command line.
            pub const fn slug(self) -> &'static str {
                match self {
                    $(Self::$flaw => $slug,)*
                }
            }
        }
    };
}

flaws! {
    /// The last page of each range is not logged.
    RangeTooShort = "range-too-short";
    /// A page behind each range is logged, too, and reported with the last one.
    RangeTooLong = "range-too-long";
    /// Only the first range is logged.
    FirstRangeOnly = "first-range-only";
    /// A write over several pages is one of its first.
    FirstPageOnly = "first-page-only";
    /// A page that is written again while it is dirty is taken for clean.
    TogglesPages = "toggles-pages";
    /// A report clears nothing.
    KeepsReported = "keeps-reported";
    /// A report clears the whole log, and not what it was asked for.
    ClearsAll = "clears-all";
    /// A report clears the page behind its range, too (B10).
    ClearsBehind = "clears-behind";
    /// The log is cleared before the report can fail: what is refused is lost.
    ClearsRefused = "clears-refused";
    /// A report begins by emptying the user's bitmap.
    ClearsBitmap = "clears-bitmap";
    /// A report leaves its last page out.
    ReportsTooLittle = "reports-too-little";
    /// A report's bits are of the page_size of START, whatever it was asked for.
    ReportsStartsPages = "reports-starts-pages";
    /// Bits of the second word and beyond are lost (B39).
    FirstWordOnly = "first-word-only";
    /// A report without a log succeeds, and says that nothing was written.
    ReportsWithoutLog = "reports-without-log";
    /// A report of no page_size is taken for one of 4 KiB.
    ReportsAnyPageSize = "reports-any-page-size";
    /// STOP says that it did, and the log goes on.
    StopsNothing = "stops-nothing";
    /// A second START is taken for a new one.
    StartsTwice = "starts-twice";
    /// A second START is refused, and the log that is on is empty then.
    SecondStartEmpties = "second-start-empties";
    /// A START that is refused leaves a log on (B11).
    RefusedStartLogs = "refused-start-logs";
    /// Pages of the log before are still in a new one.
    StartsDirty = "starts-dirty";
    /// START takes ranges that overlap.
    TakesOverlap = "takes-overlap";
    /// START takes ranges that go beyond 64 bits.
    TakesOverflow = "takes-overflow";
    /// START takes ranges that are not made of pages.
    TakesMisaligned = "takes-misaligned";
    /// START takes no ranges.
    TakesNone = "takes-none";
    /// START has room for 255 ranges.
    TooFewRanges = "too-few-ranges";
    /// Leaving RUNNING stops the log (as pds does on its way out of STOP_COPY).
    StateStops = "state-stops";
    /// Entering RUNNING empties the log.
    StateEmpties = "state-empties";
    /// The log is stopped at a reset of a device that says it goes on.
    ResetStops = "reset-stops";
    /// The log is emptied at a reset of a device that says it goes on.
    ResetEmpties = "reset-empties";
    /// The log outlives the close of the device.
    CloseKeeps = "close-keeps";
    /// The third report of a log is empty, and no other.
    ThirdReportEmpty = "third-report-empty";
}

#[derive(Clone, Debug)]
struct Log {
    page_size: u64,
    /// Beginning and end of each.
    ranges: Vec<(u64, u64)>,
    /// Where each page begins that was written.
    dirty: BTreeSet<u64>,
    reports: u32,
}

/// A log in memory, as fine as it is asked for.
#[derive(Clone, Debug)]
pub struct MemoryLog {
    flaw: Option<Flaw>,
    state: State,
    log: Option<Log>,
    least_page_size: u64,
    at_reset: AtReset,
    /// What was left in the last log, for [`Flaw::StartsDirty`].
    left: BTreeSet<u64>,
}

impl Default for MemoryLog {
    fn default() -> Self {
        Self::new()
    }
}

impl MemoryLog {
    /// One that does what it should. A reset of it does not end the log.
    pub const fn new() -> Self {
        Self {
            flaw: None,
            state: State::Running,
            log: None,
            least_page_size: MIN_PAGE_SIZE,
            at_reset: AtReset::GoesOn,
            left: BTreeSet::new(),
        }
    }

    /// One with something wrong.
    pub fn with_flaw(flaw: Flaw) -> Self {
        Self { flaw: Some(flaw), ..Self::new() }
    }

    /// One whose pages are never smaller than this, in bytes: a power of two.
    #[must_use]
    pub fn coarse(mut self, page_size: u64) -> Self {
        self.least_page_size = page_size;
        self
    }

    /// One of which nobody knows what a reset does to the log: it ends it.
    #[must_use]
    pub const fn undefined_at_reset(mut self) -> Self {
        self.at_reset = AtReset::Undefined;
        self
    }

    fn has(&self, flaw: Flaw) -> bool {
        self.flaw == Some(flaw)
    }

    fn begin(&mut self, page_size: u64, ranges: &[IovaRange]) -> u64 {
        let page_size = page_size.max(self.least_page_size);
        let count = if self.has(Flaw::FirstRangeOnly) { 1 } else { ranges.len() };
        let ranges = ranges[..count].iter().map(|range| {
            let end = range.iova.saturating_add(range.length);
            let end = match self.flaw {
                Some(Flaw::RangeTooShort) => end - page_size,
                Some(Flaw::RangeTooLong) => end.saturating_add(page_size),
                _ => end,
            };
            (range.iova, end)
        });
        let ranges = ranges.collect();
        let left = std::mem::take(&mut self.left);
        let dirty = if self.has(Flaw::StartsDirty) { left } else { BTreeSet::new() };
        self.log = Some(Log { page_size, ranges, dirty, reports: 0 });
        page_size
    }

    fn takes(&self, page_size: u64, ranges: &[IovaRange]) -> Result<(), Refused> {
        let most = if self.has(Flaw::TooFewRanges) { MOST_RANGES - 1 } else { MOST_RANGES };
        if ranges.len() > most {
            return Err(refused(E2BIG));
        }
        let overflows = ranges.iter().any(|range| range.iova.checked_add(range.length).is_none());
        if overflows && !self.has(Flaw::TakesOverflow) {
            return Err(refused(Errno::EOVERFLOW));
        }
        let forgiven = match self.flaw {
            Some(Flaw::TakesNone) => ranges.is_empty(),
            Some(Flaw::TakesOverflow) => overflows,
            Some(Flaw::TakesMisaligned) => {
                let bytes = |range: &IovaRange| IovaRange {
                    iova: range.iova - range.iova % page_size.max(1),
                    length: range.length.next_multiple_of(page_size.max(1)),
                };
                is_page_size(page_size)
                    && can_start(page_size, &ranges.iter().map(bytes).collect::<Vec<_>>())
            }
            Some(Flaw::TakesOverlap) => {
                ranges.iter().all(|range| can_start(page_size, std::slice::from_ref(range)))
            }
            _ => false,
        };
        if can_start(page_size, ranges) || forgiven { Ok(()) } else { Err(refused(Errno::EINVAL)) }
    }
}

/// Which the core has no name for.
pub(super) const E2BIG: Errno = Errno(7);

const fn refused(errno: Errno) -> Refused {
    Refused { errno: Some(errno) }
}

impl Dirty for MemoryLog {
    fn fresh(&mut self) -> Result<(), DirtyError> {
        self.state = State::Running;
        if !self.has(Flaw::CloseKeeps) {
            self.log = None;
        }
        Ok(())
    }

    fn start(&mut self, page_size: u64, ranges: &[IovaRange]) -> Result<u64, Refused> {
        if let Err(refused) = self.takes(page_size, ranges) {
            if self.has(Flaw::RefusedStartLogs) && self.log.is_none() {
                self.begin(MIN_PAGE_SIZE, &[IovaRange { iova: 0, length: MIN_PAGE_SIZE }]);
            }
            return Err(refused);
        }
        if let Some(log) = &mut self.log {
            if self.flaw == Some(Flaw::SecondStartEmpties) {
                log.dirty.clear();
            }
            if self.flaw != Some(Flaw::StartsTwice) {
                return Err(refused(Errno::EINVAL));
            }
        }
        if ranges.is_empty() {
            // What takes no ranges has nothing to log.
            return Ok(page_size);
        }
        Ok(self.begin(page_size, ranges))
    }

    fn stop(&mut self) -> Result<(), Refused> {
        if !self.has(Flaw::StopsNothing)
            && let Some(log) = self.log.take()
        {
            self.left = log.dirty;
        }
        Ok(())
    }

    fn report(
        &mut self,
        range: IovaRange,
        page_size: u64,
        bitmap: &mut [u64],
    ) -> Result<(), Refused> {
        let flaw = self.flaw;
        let has = |other| flaw == Some(other);
        let page_size = match page_size {
            _ if is_page_size(page_size) => page_size,
            _ if has(Flaw::ReportsAnyPageSize) => return Ok(()),
            _ => {
                if let Some(log) = self.log.as_mut().filter(|_| has(Flaw::ClearsRefused)) {
                    log.dirty.clear();
                }
                return Err(refused(Errno::EINVAL));
            }
        };
        let end = range.iova.checked_add(range.length).ok_or(refused(Errno::EOVERFLOW))?;
        let Some(log) = &mut self.log else {
            let fine = has(Flaw::ReportsWithoutLog);
            return if fine { Ok(()) } else { Err(refused(Errno::EINVAL)) };
        };
        log.report((range.iova, end), page_size, bitmap, flaw);
        Ok(())
    }

    fn set(&mut self, to: State) -> Result<(), Refused> {
        if self.has(Flaw::StateStops) && to != State::Running {
            self.log = None;
        }
        let entered = self.state != State::Running && to == State::Running;
        if let Some(log) = self.log.as_mut().filter(|_| self.flaw == Some(Flaw::StateEmpties)) {
            log.dirty.retain(|_| !entered);
        }
        self.state = to;
        Ok(())
    }

    fn get(&mut self) -> Result<State, Refused> {
        Ok(self.state)
    }

    fn reset(&mut self) -> Result<(), Refused> {
        self.state = State::Running;
        if self.at_reset == AtReset::Undefined || self.has(Flaw::ResetStops) {
            self.log = None;
        } else if let Some(log) =
            self.log.as_mut().filter(|_| self.flaw == Some(Flaw::ResetEmpties))
        {
            log.dirty.clear();
        }
        Ok(())
    }

    fn at_reset(&self) -> AtReset {
        self.at_reset
    }

    fn can_write(&self) -> bool {
        true
    }

    fn write(&mut self, iova: u64, bytes: u64) {
        let flaw = self.flaw;
        if let Some(log) = &mut self.log {
            let bytes = if flaw == Some(Flaw::FirstPageOnly) { 1 } else { bytes };
            log.written((iova, iova.saturating_add(bytes)), flaw);
        }
    }
}

impl Log {
    fn written(&mut self, (start, end): (u64, u64), flaw: Option<Flaw>) {
        let Self { page_size, ranges, dirty, .. } = self;
        for (from, to) in ranges.iter() {
            let (first, last) = (start.max(*from), end.min(*to));
            let pages = (first - first % *page_size..last).step_by(*page_size as usize);
            for page in pages.filter(|_| first < last) {
                if !dirty.insert(page) && flaw == Some(Flaw::TogglesPages) {
                    dirty.remove(&page);
                }
            }
        }
    }

    fn report(
        &mut self,
        (start, end): (u64, u64),
        page_size: u64,
        bitmap: &mut [u64],
        flaw: Option<Flaw>,
    ) {
        let has = |other| flaw == Some(other);
        self.reports += 1;
        let of = self.page_size;
        let bit_size = if has(Flaw::ReportsStartsPages) { of } else { page_size };
        if has(Flaw::ClearsBitmap) {
            bitmap.fill(0);
        }
        let last = match flaw {
            Some(Flaw::ReportsTooLittle) => end.saturating_sub(of).max(start),
            Some(Flaw::RangeTooLong) => end.saturating_add(of),
            _ => end,
        };
        let told: Vec<u64> = self.dirty.range(start - start % of..last).copied().collect();
        let cleared = match flaw {
            Some(Flaw::KeepsReported) => 0..0,
            Some(Flaw::ClearsAll) => 0..u64::MAX,
            Some(Flaw::ClearsBehind) => start - start % of..end.saturating_add(of),
            _ => start - start % of..end,
        };
        self.dirty.retain(|page| !cleared.contains(page));
        if has(Flaw::ThirdReportEmpty) && self.reports == 3 {
            return;
        }
        for page in told {
            let (first, last) = (page.max(start), (page + of).min(end.max(page + 1)) - 1);
            for bit in (first - start) / bit_size..=(last - start) / bit_size {
                let word = (bit / 64) as usize;
                let lost = has(Flaw::FirstWordOnly) && word > 0;
                if let Some(word) = bitmap.get_mut(word).filter(|_| !lost) {
                    *word |= 1 << (bit % 64);
                }
            }
        }
    }
}
