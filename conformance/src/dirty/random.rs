// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! Any ranges, any writes, any reports, and an oracle that knows which pages are dirty.

use std::collections::BTreeSet;
use std::fmt;

use fastrand::Rng;
use serde::Serialize;
use vfio_fsm_core::State;

use super::{
    AtReset, Dirty, DirtyError, IovaRange, MIN_PAGE_SIZE, bitmap, can_start, is_page_size,
};

const PAGE: u64 = MIN_PAGE_SIZE;

/// Steps of a round.
pub const STEPS: usize = 60;

/// One step of a round.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Step {
    /// START.
    Start {
        /// A hint, in bytes.
        page_size: u64,
        /// Of what.
        ranges: Vec<IovaRange>,
    },
    /// STOP.
    Stop,
    /// REPORT.
    Report {
        /// Of what.
        range: IovaRange,
        /// What a bit stands for, in bytes.
        page_size: u64,
        /// Whether bits are set beforehand, which must stay so (R47).
        set_before: bool,
    },
    /// The device writes, if it runs.
    Write {
        /// From where on.
        iova: u64,
        /// How many bytes.
        bytes: u64,
    },
    /// SET.
    Set(State),
    /// A reset, and STOP where it is not defined what that does to the log.
    Reset,
    /// Close the device, and open it.
    Reopen,
}

impl fmt::Display for Step {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Start { page_size, ranges } => {
                write!(f, "START with pages of {page_size:#x}:")?;
                ranges.iter().try_for_each(|range| write!(f, " [{range}]"))
            }
            Self::Stop => f.write_str("STOP"),
            Self::Report { range, page_size, set_before } => {
                write!(f, "REPORT [{range}] with pages of {page_size:#x}")?;
                if *set_before { f.write_str(" into bits that are set") } else { Ok(()) }
            }
            Self::Write { iova, bytes } => write!(f, "write {bytes:#x} bytes at {iova:#x}"),
            Self::Set(to) => write!(f, "SET {to}"),
            Self::Reset => f.write_str("reset"),
            Self::Reopen => f.write_str("close and open"),
        }
    }
}

/// A round that went wrong, as short as it could be made.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Slip {
    /// What makes the same round again.
    pub seed: u64,
    /// What was done.
    pub steps: Vec<String>,
    /// What is wrong with the last step.
    pub wrong: String,
}

impl fmt::Display for Slip {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "seed {}: {}", self.seed, self.wrong)?;
        self.steps.iter().zip(1..).try_for_each(|(step, n)| writeln!(f, "  {n} {step}"))
    }
}

/// One round; what went wrong, if anything did. Of a device that can be made to write.
///
/// # Errors
///
/// The device cannot be had as it is when it is fresh.
pub fn random(device: &mut dyn Dirty, seed: u64) -> Result<Option<Slip>, DirtyError> {
    let steps = steps(seed);
    let Some((at, mut wrong)) = run(device, &steps)? else { return Ok(None) };
    let mut shortest = steps[..=at].to_vec();
    while let Some((shorter, still)) = shorter(device, &shortest)? {
        (shortest, wrong) = (shorter, still);
    }
    let steps = shortest.iter().map(Step::to_string).collect();
    Ok(Some(Slip { seed, steps, wrong }))
}

/// The steps without one of them, up to where they go wrong all the same. From the back: what comes
/// later depends on what came before.
fn shorter(
    device: &mut dyn Dirty,
    steps: &[Step],
) -> Result<Option<(Vec<Step>, String)>, DirtyError> {
    for index in (0..steps.len()).rev() {
        let mut less = steps.to_vec();
        less.remove(index);
        if let Some((at, wrong)) = run(device, &less)? {
            less.truncate(at + 1);
            return Ok(Some((less, wrong)));
        }
    }
    Ok(None)
}

/// The index of the first step that is wrong, and what is.
fn run(device: &mut dyn Dirty, steps: &[Step]) -> Result<Option<(usize, String)>, DirtyError> {
    device.fresh()?;
    let mut oracle = Oracle::default();
    for (index, step) in steps.iter().enumerate() {
        if let Err(wrong) = oracle.step(device, step)? {
            return Ok(Some((index, wrong)));
        }
    }
    Ok(None)
}

/// What the memory of a VM may be.
const AREAS: [u64; 4] = [0, 1 << 20, 5 << 30, 1 << 40];
/// Pages of an area, each of the page_size.
const MOST_PAGES: u64 = 200;

fn steps(seed: u64) -> Vec<Step> {
    let mut rng = Rng::with_seed(seed);
    let mut ranges = good_ranges(&mut rng, PAGE);
    // Most rounds begin with a log.
    let mut steps = Vec::new();
    if rng.u8(0..4) > 0 {
        steps.push(Step::Start { page_size: PAGE, ranges: ranges.clone() });
    }
    while steps.len() < STEPS {
        steps.push(match rng.u8(0..40) {
            0..=1 => {
                let page_size = PAGE << rng.u32(0..3);
                ranges = good_ranges(&mut rng, page_size);
                Step::Start { page_size, ranges: ranges.clone() }
            }
            2..=3 => bad_start(&mut rng, &ranges),
            4..=5 => Step::Stop,
            6 => Step::Reset,
            7 => Step::Reopen,
            8..=9 => Step::Set(State::Stop),
            10..=12 => Step::Set(State::Running),
            13..=24 => report(&mut rng, &ranges),
            _ => write(&mut rng, &ranges),
        });
    }
    steps
}

fn good_ranges(rng: &mut Rng, page_size: u64) -> Vec<IovaRange> {
    let areas = AREAS.iter().filter(|_| rng.bool()).copied().collect::<Vec<_>>();
    let areas = if areas.is_empty() { vec![AREAS[0]] } else { areas };
    areas
        .into_iter()
        .map(|area| {
            let skipped = rng.u64(0..3);
            IovaRange {
                iova: area + skipped * page_size,
                length: rng.u64(1..=MOST_PAGES / (page_size / PAGE)) * page_size,
            }
        })
        .collect()
}

fn bad_start(rng: &mut Rng, ranges: &[IovaRange]) -> Step {
    let (mut ranges, mut page_size) = (ranges.to_vec(), PAGE);
    match rng.u8(0..5) {
        0 => ranges.clear(),
        1 => ranges.push(ranges[0]),
        2 => ranges.push(IovaRange { iova: u64::MAX - PAGE + 1, length: 2 * PAGE }),
        3 => ranges[0].length += PAGE / 2,
        // Whatever a range is aligned to: it is larger than any.
        _ => page_size = 1 << 50,
    }
    Step::Start { page_size, ranges }
}

fn report(rng: &mut Rng, ranges: &[IovaRange]) -> Step {
    let of = ranges[rng.usize(0..ranges.len())];
    let pages = of.length / PAGE;
    let (first, count) = match rng.u8(0..3) {
        0 => (0, pages),
        _ => {
            let first = rng.u64(0..pages);
            (first, rng.u64(1..=pages - first))
        }
    };
    let page_size = match rng.u8(0..12) {
        0 => PAGE / 2,
        1 => PAGE * 3,
        2..=4 => PAGE << rng.u32(1..5),
        _ => PAGE,
    };
    let range = IovaRange { iova: of.iova + first * PAGE, length: count * PAGE };
    Step::Report { range, page_size, set_before: rng.u8(0..4) == 0 }
}

fn write(rng: &mut Rng, ranges: &[IovaRange]) -> Step {
    let of = ranges[rng.usize(0..ranges.len())];
    // Sometimes at an end of it, and beyond.
    let iova = match rng.u8(0..6) {
        0 => of.iova,
        1 => of.iova + of.length - 1,
        2 => of.iova + of.length,
        _ => of.iova + rng.u64(0..of.length),
    };
    let bytes = match rng.u8(0..4) {
        0 => rng.u64(1..8 * PAGE),
        _ => rng.u64(1..64),
    };
    Step::Write { iova, bytes }
}

/// What is known of a log that is on.
struct Log {
    ranges: Vec<IovaRange>,
    /// The device's, in bytes.
    page_size: u64,
    /// Numbers of pages of 4 KiB that were written and are not reported: no report may lack one.
    dirty: BTreeSet<u64>,
    /// The same, with those beside the ranges: a report may have what shares a device's page with one.
    touched: BTreeSet<u64>,
}

impl Log {
    /// The range of the log that a range lies in.
    fn around(&self, range: IovaRange) -> Option<IovaRange> {
        let inside = |of: &&IovaRange| {
            of.iova <= range.iova && range.iova + range.length <= of.iova + of.length
        };
        self.ranges.iter().find(inside).copied()
    }

    /// All of the device's pages that a range has a part of: no driver has to find out what to do
    /// with a part of its own page.
    fn whole_pages(&self, range: IovaRange) -> Option<IovaRange> {
        let of = self.around(range)?;
        let start = (range.iova - range.iova % self.page_size).max(of.iova);
        let end = (range.iova + range.length).next_multiple_of(self.page_size);
        Some(IovaRange { iova: start, length: end.min(of.iova + of.length) - start })
    }
}

#[derive(Default)]
struct Oracle {
    log: Option<Log>,
    stopped: bool,
}

/// Whether a step was right, or what is wrong with it.
type Judged = Result<(), String>;

impl Oracle {
    fn step(&mut self, device: &mut dyn Dirty, step: &Step) -> Result<Judged, DirtyError> {
        Ok(match step {
            Step::Start { page_size, ranges } => self.start(device, *page_size, ranges),
            Step::Stop => {
                let stopped = device.stop();
                let was_on = self.log.take().is_some();
                if was_on { stopped.map_err(|_| "it does not stop".to_owned()) } else { Ok(()) }
            }
            Step::Report { range, page_size, set_before } => {
                self.report(device, *range, *page_size, *set_before)
            }
            Step::Write { iova, bytes } => {
                self.write(device, *iova, *bytes);
                Ok(())
            }
            Step::Set(to) => {
                self.stopped = *to != State::Running;
                device.set(*to).map_err(|_| format!("SET of {to} is refused"))
            }
            Step::Reset => {
                let reset = device.reset();
                self.stopped = false;
                if device.at_reset() == AtReset::Undefined {
                    let _whatever = device.stop();
                    self.log = None;
                }
                reset.map_err(|_| "the reset is refused".to_owned())
            }
            Step::Reopen => {
                device.fresh()?;
                (self.log, self.stopped) = (None, false);
                Ok(())
            }
        })
    }

    fn start(&mut self, device: &mut dyn Dirty, page_size: u64, ranges: &[IovaRange]) -> Judged {
        let is_due = self.log.is_none() && can_start(page_size, ranges);
        match (device.start(page_size, ranges), is_due) {
            (Ok(page_size), true) => {
                if !page_size.is_power_of_two() {
                    return Err(format!("a page_size of {page_size:#x} is none"));
                }
                let ranges = ranges.to_vec();
                let (dirty, touched) = (BTreeSet::new(), BTreeSet::new());
                self.log = Some(Log { ranges, page_size, dirty, touched });
                Ok(())
            }
            (Err(_), false) => Ok(()),
            (Ok(_), false) if self.log.is_some() => Err("a second START succeeds".to_owned()),
            (Ok(_), false) => Err("START of what cannot be logged succeeds".to_owned()),
            (Err(refused), true) => Err(format!("START is refused ({:?})", refused.errno)),
        }
    }

    fn write(&mut self, device: &mut dyn Dirty, iova: u64, bytes: u64) {
        if self.stopped {
            // A device that is stopped writes nothing.
            return;
        }
        device.write(iova, bytes);
        if let Some(log) = &mut self.log {
            let pages = (iova / PAGE)..=(iova + bytes - 1) / PAGE;
            let is_logged = |page: &u64| {
                let inside =
                    |of: &IovaRange| (of.iova..of.iova + of.length).contains(&(page * PAGE));
                log.ranges.iter().any(inside)
            };
            log.touched.extend(pages.clone());
            log.dirty.extend(pages.filter(is_logged));
        }
    }

    fn report(
        &mut self,
        device: &mut dyn Dirty,
        range: IovaRange,
        page_size: u64,
        set_before: bool,
    ) -> Judged {
        let asked = match &self.log {
            Some(log) => match log.whole_pages(range) {
                Some(asked) => asked,
                // It is not said what a report of something else comes to.
                None => return Ok(()),
            },
            None => range,
        };
        let mut bits = bitmap(asked, page_size);
        let before: u64 = if set_before { 0x8000_4002_0000_1001 } else { 0 };
        bits.fill(before);
        let reported = device.report(asked, page_size, &mut bits);
        match (reported, &mut self.log) {
            (Ok(()), Some(log)) if is_page_size(page_size) => {
                log.told(asked, page_size, &bits, before)
            }
            (Ok(()), Some(_)) => Err("a REPORT with no page_size succeeds".to_owned()),
            (Ok(()), None) => Err("a REPORT without a log succeeds".to_owned()),
            (Err(_), Some(_)) if is_page_size(page_size) => Err("REPORT is refused".to_owned()),
            (Err(_), _) => Ok(()),
        }
    }
}

impl Log {
    /// Every page that is dirty, no page that is not near one, and nothing else.
    fn told(&mut self, asked: IovaRange, page_size: u64, bits: &[u64], before: u64) -> Judged {
        let is_set = |bit: u64| bits[(bit / 64) as usize] >> (bit % 64) & 1 == 1;
        let was_set = |bit: u64| before >> (bit % 64) & 1 == 1;
        let count = asked.length.div_ceil(page_size);
        for bit in 0..bits.len() as u64 * 64 {
            if was_set(bit) && !is_set(bit) {
                return Err(format!("bit {bit} was cleared (R47)"));
            }
            if bit >= count && is_set(bit) && !was_set(bit) {
                return Err(format!("bit {bit} is set, and there are {count} pages"));
            }
        }
        let inside = asked.iova / PAGE..(asked.iova + asked.length) / PAGE;
        for &page in self.dirty.range(inside.clone()) {
            if !is_set((page * PAGE - asked.iova) / page_size) {
                return Err(format!("the page at {:#x} was written, and is lost", page * PAGE));
            }
        }
        for bit in (0..count).filter(|&bit| is_set(bit) && !was_set(bit)) {
            let start = asked.iova + bit * page_size;
            let end = (start + page_size).min(asked.iova + asked.length);
            // The device knows its own pages only.
            let near = start - start % self.page_size..end.next_multiple_of(self.page_size);
            let mut written = self.touched.range(near.start / PAGE..near.end / PAGE);
            if written.next().is_none() {
                return Err(format!("{start:#x} was not written since it was last reported"));
            }
        }
        for pages in [&mut self.dirty, &mut self.touched] {
            pages.retain(|page| !inside.contains(page));
        }
        Ok(())
    }
}
