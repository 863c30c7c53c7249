// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! Any device, any memory, any order of writes, reports and errors: no page is lost, and none is
//! told of that nothing near was written to.

use std::collections::BTreeSet;

use nix::libc;
use proptest::collection::vec;
use proptest::prelude::*;
use vfio_fsm_kernel::dma_logging::{DmaLog, IovaRange, ReportError};

use crate::device::{Played, range, told};

const PAGE: u64 = 4096;

#[derive(Clone, Debug)]
enum Step {
    /// At this fraction of this range, in `u16::MAX`ths; or in the gap behind it.
    Write {
        range: usize,
        at: u16,
        gap: bool,
    },
    /// From one fraction of a range to another, not at pages.
    Report {
        range: usize,
        from: u16,
        to: u16,
        page_shift: u32,
    },
    ReportAll,
    /// The device fails a call that comes so much later.
    Fault {
        after: usize,
        errno: i32,
    },
    Restart,
}

fn any_step() -> impl Strategy<Value = Step> {
    let write = (any::<usize>(), any::<u16>(), prop::bool::weighted(0.2))
        .prop_map(|(range, at, gap)| Step::Write { range, at, gap });
    let report = (any::<usize>(), any::<u16>(), any::<u16>(), 12..22_u32)
        .prop_map(|(range, from, to, page_shift)| Step::Report { range, from, to, page_shift });
    let errno = prop::sample::select(&[libc::EIO, libc::EINVAL, libc::ENOMEM, libc::ENOTCONN]);
    let fault = (0..3_usize, errno).prop_map(|(after, errno)| Step::Fault { after, errno });
    prop_oneof![
        20 => write,
        6 => report,
        3 => Just(Step::ReportAll),
        1 => fault,
        1 => Just(Step::Restart),
    ]
}

#[derive(Clone, Debug)]
struct Setup {
    hint: u64,
    least_page_size: u64,
    device_ranges: (usize, i32),
    ram: Vec<IovaRange>,
}

fn any_setup() -> impl Strategy<Value = Setup> {
    // Pages of the hint: a gap and a length; one length in twenty takes more than one piece.
    let length = prop_oneof![19 => 1..300_u64, 1 => 500_000..900_000_u64];
    let ranges = vec((0..70_u64, length), 1..12);
    let errno = prop::sample::select(&[libc::E2BIG, libc::EINVAL, libc::ENOMEM, libc::ENOSPC]);
    let (hint, least) = (12..15_u32, prop_oneof![Just(12_u32), 12..23_u32]);
    (ranges, prop_oneof![Just(12), hint], least, 1..12_usize, errno).prop_map(
        |(ranges, hint, least, most, errno)| {
            let hint = 1 << hint;
            let (mut at, mut ram) = (0, Vec::new());
            for (gap, length) in ranges {
                ram.push(range(at + gap * hint, length * hint));
                at += (gap + length) * hint;
            }
            Setup { hint, least_page_size: 1 << least, device_ranges: (most, errno), ram }
        },
    )
}

fn overlap(a: IovaRange, b: IovaRange) -> bool {
    a.iova < b.iova + b.length && b.iova < a.iova + a.length
}

/// A log under test, and what was written and not yet told.
struct Watched<'d> {
    played: &'d Played,
    log: DmaLog<&'d Played>,
    /// Pages of 4 KiB.
    written: BTreeSet<u64>,
    corrupt: bool,
}

impl Watched<'_> {
    fn write(&mut self, iova: u64) {
        self.played.write(iova);
        self.written.insert(iova - iova % PAGE);
    }

    /// Holds what was told of a report of `ranges` against what was written.
    fn judge(
        &mut self,
        ranges: &[IovaRange],
        page_size: u64,
        (result, runs): (Result<(), ReportError>, Vec<IovaRange>),
    ) -> Result<(), TestCaseError> {
        let ram = self.log.ranges().to_vec();
        self.corrupt |= result.is_err();
        if self.corrupt {
            prop_assert!(result.is_err(), "a corrupt log was believed");
            prop_assert!(runs.ends_with(&ram), "{:?} and not all told", result);
            self.written.clear();
            return Ok(());
        }
        let is_told = |page: &u64| runs.iter().any(|run| overlap(*run, range(*page, PAGE)));
        let is_of = |ranges: &[IovaRange], page: u64| {
            ranges.iter().any(|range| overlap(*range, self::range(page, PAGE)))
        };
        for page in &self.written {
            let lost = is_of(ranges, *page) && is_of(&ram, *page) && !is_told(page);
            prop_assert!(!lost, "{page:#x} is lost");
        }
        let finest = page_size.max(self.log.page_size());
        for run in &runs {
            let inside = |of: &IovaRange| {
                of.iova <= run.iova && run.iova + run.length <= of.iova + of.length
            };
            prop_assert!(ram.iter().any(inside), "{run} is nobody's memory");
            for page in (run.iova..run.iova + run.length).step_by(PAGE as usize) {
                let (low, high) = (page.saturating_sub(2 * finest), page + 2 * finest);
                let near = self.written.range(low..high).next().is_some();
                prop_assert!(near, "{page:#x} is told without a write");
                let exact = finest > PAGE || self.written.contains(&page) && is_of(ranges, page);
                prop_assert!(exact, "{page:#x} was not written or not asked for");
            }
        }
        self.written.retain(|page| !is_told(page));
        Ok(())
    }

    fn step(&mut self, step: &Step) -> Result<(), TestCaseError> {
        let ram = self.log.ranges().to_vec();
        let at = |of: IovaRange, fraction: u16| {
            of.iova + ((u128::from(of.length) * u128::from(fraction)) >> 16) as u64
        };
        match *step {
            Step::Write { range, at: fraction, gap: false } => {
                self.write(at(ram[range % ram.len()], fraction));
            }
            Step::Write { range, at: fraction, gap: true } => {
                let of = ram[range % ram.len()];
                let iova = of.iova + of.length + u64::from(fraction);
                if !ram.iter().any(|range| overlap(*range, self::range(iova, 1))) {
                    self.write(iova);
                }
            }
            Step::Report { range, from, to, page_shift } => {
                let of = ram[range % ram.len()];
                let (from, to) = (at(of, from.min(to)), at(of, from.max(to)) + 1);
                let (asked, page_size) = (self::range(from, to - from), 1 << page_shift);
                let outcome = told(|dirty| self.log.report(asked, page_size, dirty));
                self.judge(&[asked], page_size, outcome)?;
            }
            Step::ReportAll => {
                let outcome = told(|dirty| self.log.report_all(dirty));
                self.judge(&ram, PAGE, outcome)?;
            }
            Step::Fault { after, errno } => {
                self.played.device(|device| device.fault = Some((after, errno)));
            }
            Step::Restart => {
                let (result, runs) = told(|dirty| self.log.restart(dirty));
                prop_assert_eq!(runs, ram);
                self.corrupt = result.is_err();
                self.written.clear();
            }
        }
        Ok(())
    }
}

proptest! {
    #![proptest_config(ProptestConfig {
        cases: 512, failure_persistence: None, ..ProptestConfig::default()
    })]

    /// R45, R48: all that was written is told, and with a page for a bit nothing else is.
    #[test]
    fn no_page_is_lost(setup in any_setup(), steps in vec(any_step(), 1..60)) {
        let played = Played::new();
        played.device(|device| {
            device.least_page_size = setup.least_page_size;
            device.ranges = setup.device_ranges;
        });
        let log = DmaLog::start(&played, &setup.ram, setup.hint).unwrap();
        prop_assert!(log.logged().len() <= setup.device_ranges.0);
        let mut watched =
            Watched { played: &played, log, written: BTreeSet::new(), corrupt: false };
        for step in &steps {
            watched.step(step)?;
        }
        played.device(|device| device.fault = None);
        watched.step(&Step::ReportAll)?;
        let ram = watched.log.ranges();
        let left = watched.written.iter().find(|page| {
            ram.iter().any(|range| overlap(*range, self::range(**page, PAGE)))
        });
        prop_assert_eq!(left, None);
        watched.log.stop().unwrap();
    }
}

/// R48: whichever call fails, with whatever errno, no page is lost and the log is off at the end.
#[test]
fn every_call_may_fail() {
    const RAM: [IovaRange; 3] =
        [range(0, 0x8000), range(0x1_0000, 0x8000), range(8 << 30, 5 << 30)];
    for errno in
        [libc::EIO, libc::EINVAL, libc::ENOMEM, libc::EFAULT, libc::EOPNOTSUPP, libc::EINTR]
    {
        let mut failed = 0;
        for fails in 0.. {
            let played = Played::new();
            played.device(|device| device.fault = Some((fails, errno)));
            if whole_life(&played, &RAM).is_err() {
                failed += 1;
            }
            if played.device(|device| device.fault.is_some()) {
                break;
            }
        }
        // START, two reports of five pieces each, STOP; a START may be tried again.
        let retried = [libc::EINVAL, libc::ENOMEM].contains(&errno);
        assert_eq!(failed, if retried { 11 } else { 12 }, "errno {errno}");
    }
}

/// Start, writes and reports of all memory, to the stop; whether all of it worked.
fn whole_life(played: &Played, ram: &[IovaRange]) -> Result<(), ()> {
    let log = DmaLog::start(played, ram, PAGE).map_err(|_refused| ())?;
    let mut watched = Watched { played, log, written: BTreeSet::new(), corrupt: false };
    for round in 0..2 {
        for range in ram {
            watched.write(range.iova + round * PAGE);
            watched.write(range.iova + range.length - 1);
        }
        watched.step(&Step::ReportAll).unwrap();
        assert!(watched.written.is_empty());
    }
    let corrupt = watched.corrupt;
    let stopped = watched.log.stop().is_ok();
    assert_eq!(played.device(|device| device.is_logging()), !stopped);
    if stopped && !corrupt { Ok(()) } else { Err(()) }
}
