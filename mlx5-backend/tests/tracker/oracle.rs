// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! Any ranges, any writes, any reports: no page is lost, and none is told that nothing near was
//! written to.

use std::collections::BTreeSet;

use proptest::collection::vec;
use proptest::prelude::*;
use vfio_fsm_mlx5::layout::Opcode;
use vfio_fsm_mlx5::tracker::{IovaRange, Options, ReportError, StartError, mark_guest_memory};
use vm_memory::bitmap::{AtomicBitmap, Bitmap};
use vm_memory::{GuestAddress, GuestMemoryBackend, GuestMemoryMmap, GuestMemoryRegion};

use crate::rig::{MIB, PAGE, Rig, Tracker, opcode_of, quick, range, told};

#[derive(Clone, Debug)]
enum Step {
    Write {
        at: u64,
        bytes: u64,
    },
    /// From one byte of a range to another, not at pages.
    Report {
        range: usize,
        from: u64,
        to: u64,
    },
    ReportAll,
    Restart,
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        8 => (0..24 * MIB, prop_oneof![1..64_u64, 1..200_000_u64])
            .prop_map(|(at, bytes)| Step::Write { at, bytes }),
        3 => (0..32_usize, any::<u64>(), any::<u64>())
            .prop_map(|(range, from, to)| Step::Report { range, from, to }),
        1 => Just(Step::ReportAll),
        1 => Just(Step::Restart),
    ]
}

/// Written pages of 4096 bytes, each with how much of it may be told: a plain set.
struct Model {
    ranges: Vec<IovaRange>,
    page_size: u64,
    written: BTreeSet<u64>,
    /// Pages of the tracker that were written, also where nobody asked.
    touched: BTreeSet<u64>,
}

impl Model {
    fn is_tracked(&self, page: u64) -> bool {
        self.ranges.iter().any(|r| (r.iova..r.iova + r.length).contains(&(page * PAGE)))
    }

    fn write(&mut self, at: u64, bytes: u64) {
        for page in at / PAGE..=(at + bytes - 1) / PAGE {
            self.touched.insert(page * PAGE / self.page_size);
            if self.is_tracked(page) {
                self.written.insert(page);
            }
        }
    }

    fn told(&mut self, asked: IovaRange, told: &[IovaRange]) {
        let mut pages = BTreeSet::new();
        for run in told {
            assert!((run.iova | run.length).is_multiple_of(PAGE), "{run}");
            pages.extend(run.iova / PAGE..(run.iova + run.length) / PAGE);
        }
        let inside = asked.iova / PAGE..=(asked.iova + asked.length - 1) / PAGE;
        let lost: Vec<_> = self.written.range(inside).filter(|p| !pages.contains(p)).collect();
        assert!(lost.is_empty(), "{asked} loses {lost:x?}");
        for page in &pages {
            assert!(self.is_tracked(*page), "page {page:#x} was never asked for");
            let near = page * PAGE / self.page_size;
            assert!(self.touched.contains(&near), "page {page:#x} was not written");
        }
        for page in pages {
            self.written.remove(&page);
        }
        let touched = &mut self.touched;
        let written: BTreeSet<_> =
            self.written.iter().map(|page| page * PAGE / self.page_size).collect();
        for run in told {
            let whole = run.iova / self.page_size..(run.iova + run.length) / self.page_size;
            whole.filter(|page| !written.contains(page)).for_each(|page| {
                touched.remove(&page);
            });
        }
    }
}

fn run(ranges: &[IovaRange], options: Options, min_page: u8, steps: Vec<Step>) {
    let rig = Rig::new();
    *rig.between.min_page.lock().unwrap() = Some(min_page);
    let mut tracker = rig.start(ranges, options).unwrap();
    let mut model = Model {
        ranges: tracker.ranges().to_vec(),
        page_size: tracker.page_size(),
        written: BTreeSet::new(),
        touched: BTreeSet::new(),
    };
    assert!(tracker.logged().len() <= 8);
    for step in steps {
        match step {
            Step::Write { at, bytes } => {
                rig.vhca.dma_written(at, bytes);
                model.write(at, bytes);
            }
            Step::Report { range: index, from, to } => {
                let whole = model.ranges[index % model.ranges.len()];
                let (from, to) = (from % whole.length, to % whole.length);
                let asked = range(whole.iova + from.min(to), from.abs_diff(to) + 1);
                let mut told = Vec::new();
                tracker.report(asked, |run| told.push(run)).unwrap();
                model.told(asked, &told);
            }
            Step::ReportAll => report_all(&mut tracker, &mut model),
            Step::Restart => {
                let mut told = Vec::new();
                tracker.restart(|run| told.push(run)).unwrap();
                assert_eq!(told, model.ranges);
                model.written.clear();
                model.touched.clear();
            }
        }
    }
    report_all(&mut tracker, &mut model);
    assert!(model.written.is_empty());
    let before = rig.held();
    tracker.stop().unwrap();
    assert_eq!(before.0.trackers - rig.held().0.trackers, 1);
}

fn report_all(tracker: &mut Tracker, model: &mut Model) {
    let (told, result) = told(tracker);
    assert_eq!(result, Ok(()));
    model.told(range(0, 1 << 40), &told);
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 96, failure_persistence: None, ..Default::default() })]

    /// M163, R45, R47, R48: What a function writes in the ranges is told once, whatever is asked for
    /// in which order; what is told was written, or lies in a page that was.
    #[test]
    fn no_page_is_lost(
        gaps in vec((0..40_u64, 1..300_u64), 1..20),
        page_shift in 12..15_u32,
        min_page in 12..16_u8,
        message_shift in 12..15_u32,
        steps in vec(step(), 1..40),
    ) {
        let page_size = 1 << page_shift;
        let mut ranges = Vec::new();
        let mut at = 0;
        for (gap, pages) in gaps {
            let iova: u64 = at + gap * page_size;
            ranges.push(range(iova, pages * page_size));
            at = iova + pages * page_size;
        }
        let message_bytes = Some(1 << message_shift);
        run(&ranges, Options { page_size, message_bytes, ..Options::default() }, min_page, steps);
    }
}

/// M164, M162: As many pages as a message holds, one less and one more; and more than all buffers
/// hold, so that the firmware waits for them: each of several rounds tells exactly what was written.
#[test]
fn messages_that_are_full() {
    for (message_bytes, most) in [(Some(4096), 512), (None, 1 << 17)] {
        let rig = Rig::new();
        let ranges = [range(1 << 32, 4 << 30)];
        let options = Options { message_bytes, ..Options::default() };
        let mut tracker = rig.start(&ranges, options).unwrap();
        assert_eq!(tracker.message_bytes() as u64, most * 8);
        let buffers = (2 * MIB / (most * 8)).max(4);
        for pages in [most - 1, most, most + 1, 1, most * (buffers + 1) + 1] {
            rig.vhca.dma_written(1 << 32, pages * PAGE);
            let (told, result) = told(&mut tracker);
            assert_eq!(result, Ok(()));
            let total: u64 = told.iter().map(|run| run.length).sum();
            assert_eq!((told[0].iova, total), (1 << 32, pages * PAGE));
        }
        assert_eq!(told(&mut tracker), (vec![], Ok(())));
    }
}

/// M163: What is asked for and not tracked is refused, and the log stays what it was.
#[test]
fn not_tracked() {
    let rig = Rig::new();
    let mut tracker = rig.start(&[range(MIB, MIB), range(4 * MIB, MIB)], quick()).unwrap();
    rig.vhca.dma_written(MIB, 1);
    for asked in [
        range(MIB - 1, 2),
        range(MIB, MIB + 1),
        range(MIB, 0),
        range(2 * MIB, MIB),
        range(u64::MAX, 2),
    ] {
        let refused = tracker.report(asked, |run| assert!(run.length == 0, "{run}"));
        assert_eq!(refused, Err(ReportError::NotTracked { range: asked }));
    }
    assert_eq!(told(&mut tracker), (vec![range(MIB, PAGE)], Ok(())));
}

/// M161: Of more ranges than the firmware takes, those with the smallest gaps become one, and what is
/// written in the gaps is told to nobody.
#[test]
fn too_many_ranges() {
    let rig = Rig::new();
    let ranges: Vec<_> = (0..20).map(|n| range(n * MIB + (n / 10) * 64 * MIB, MIB / 2)).collect();
    let mut tracker = rig.start(&ranges, Options::default()).unwrap();
    assert_eq!(tracker.logged().len(), 8);
    assert_eq!(tracker.ranges(), ranges);
    rig.vhca.dma_written(0, 100 * MIB);
    let (told, result) = told(&mut tracker);
    assert_eq!(result, Ok(()));
    assert_eq!(told.iter().map(|run| run.length).sum::<u64>(), 20 * MIB / 2);
}

/// M162: What the firmware cannot track is said with what it can, and nothing is made for it.
#[test]
fn out_of_limits() {
    let rig = Rig::new();
    let before = rig.held();
    let bytes = (1 << 52) + PAGE;
    let refused = rig.start(&[range(0, bytes)], Options::default()).err();
    assert_eq!(refused, Some(StartError::AddressSpace { bytes, min: 12, max: 52 }));
    let huge = Options { page_size: 1 << 30, ..Options::default() };
    let tracker = rig.start(&[range(0, 1 << 30)], huge).unwrap();
    assert_eq!(tracker.page_size(), 1 << 21);
    drop(tracker);
    assert_eq!(rig.held(), before);

    let config = vfio_fsm_mlx5::firmware::Config { page_tracking: false, ..Default::default() };
    let rig = Rig::with(config, None);
    let refused = rig.start(&[range(0, MIB)], Options::default()).err();
    assert_eq!(refused, Some(StartError::Unsupported));
    let log = rig.between.log.lock().unwrap();
    assert!(log.iter().all(|input| opcode_of(input) == Opcode::QueryHcaCap));
}

/// M163: Reports go into the bitmaps of guest memory, each region's in its own.
#[test]
fn into_bitmaps() {
    let regions = [(GuestAddress(0), 1 << 20), (GuestAddress(4 << 20), 1 << 20)];
    let memory = GuestMemoryMmap::<AtomicBitmap>::from_ranges(&regions).unwrap();
    let rig = Rig::new();
    let mut tracker = rig.start(&[range(0, 8 * MIB)], quick()).unwrap();
    rig.vhca.dma_written(0x3000, 0x1001);
    rig.vhca.dma_written(MIB - 1, 2);
    rig.vhca.dma_written(4 * MIB + 0x5000, 1);
    tracker.report_all(|run| mark_guest_memory(&memory, run)).unwrap();
    let marked: Vec<u64> = memory
        .iter()
        .flat_map(|region| {
            let pages = (0..region.len()).step_by(4096);
            let dirty = pages.filter(|at| region.bitmap().dirty_at(*at as usize));
            dirty.map(|at| region.start_addr().0 + at).collect::<Vec<_>>()
        })
        .collect();
    assert_eq!(marked, [0x3000, 0x4000, MIB - PAGE, 4 * MIB + 0x5000]);
}
