// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! Into the bitmaps of vm-memory.

use vfio_fsm_kernel::dma_logging::{DmaLog, IovaRange, mark_guest_memory};
use vm_memory::bitmap::{AtomicBitmap, Bitmap};
use vm_memory::{GuestAddress, GuestMemoryBackend, GuestMemoryMmap, GuestMemoryRegion};

use crate::device::{Played, range};

const REGIONS: [(u64, usize); 3] = [(0, 0xa_0000), (0x10_0000, 0x10_0000), (0x20_0000, 0x8000)];

fn memory() -> GuestMemoryMmap<AtomicBitmap> {
    let regions = REGIONS.map(|(start, length)| (GuestAddress(start), length));
    GuestMemoryMmap::from_ranges(&regions).unwrap()
}

/// Where each page begins that is marked.
fn marked(memory: &GuestMemoryMmap<AtomicBitmap>) -> Vec<u64> {
    let pages = |region: &<GuestMemoryMmap<AtomicBitmap> as GuestMemoryBackend>::R| {
        let (start, bitmap) = (region.start_addr().0, region.bitmap());
        let dirty = |offset: &u64| bitmap.dirty_at(*offset as usize);
        (0..region.len()).step_by(4096).filter(dirty).map(|at| start + at).collect::<Vec<_>>()
    };
    memory.iter().flat_map(pages).collect()
}

#[test]
fn each_region_gets_its_part() {
    for (start, length, expected) in [
        (0x1000, 0x2000, vec![0x1000, 0x2000]),
        (0x1800, 0x1000, vec![0x1000, 0x2000]),
        (0x9_f000, 0x6_1001, vec![0x9_f000, 0x10_0000]),
        (0x1f_f000, 0x2000, vec![0x1f_f000, 0x20_0000]),
        (0x20_7000, u64::MAX, vec![0x20_7000]),
        (0xa_0000, 0x6_0000, vec![]),
        (0x1000, 0, vec![]),
        (u64::MAX, 1, vec![]),
    ] {
        let memory = memory();
        mark_guest_memory(&memory, GuestAddress(start), length);
        assert_eq!(marked(&memory), expected, "{start:#x} + {length:#x}");
    }
    let memory = memory();
    mark_guest_memory(&memory, GuestAddress(0), u64::MAX);
    assert_eq!(marked(&memory).len(), (0xa_0000 + 0x10_0000 + 0x8000) / 4096);
}

/// R45, R48: what a report tells, and what an error makes of it, as guest memory.
#[test]
fn a_report_goes_into_the_bitmaps() {
    let (played, memory) = (Played::new(), memory());
    let ram = REGIONS.map(|(start, length)| range(start, length as u64));
    let mut log = DmaLog::start(&played, &ram, 4096).unwrap();
    assert_eq!(log.ranges().len(), 2, "two of them are neighbours");
    let mut dirty = |run: IovaRange| mark_guest_memory(&memory, GuestAddress(run.iova), run.length);
    let written = [0, 0x9_f000, 0x1f_f000, 0x20_0000];
    written.into_iter().for_each(|iova| played.write(iova));
    log.report_all(&mut dirty).unwrap();
    assert_eq!(marked(&memory), written);
    played.device(|device| device.fault = Some((1, nix::libc::EIO)));
    log.report_all(&mut dirty).unwrap_err();
    assert_eq!(marked(&memory).len(), (0xa_0000 + 0x10_0000 + 0x8000) / 4096);
}

/// A map that is not the identity: IOVA and guest address differ by an offset.
#[test]
fn the_map_is_the_callers() {
    const AT: u64 = 0x7000_0000;
    let (played, memory) = (Played::new(), memory());
    let mut log = DmaLog::start(&played, &[range(AT, 0xa_0000)], 4096).unwrap();
    played.write(AT + 0x5000);
    log.report_all(|run| mark_guest_memory(&memory, GuestAddress(run.iova - AT), run.length))
        .unwrap();
    assert_eq!(marked(&memory), [0x5000]);
}
