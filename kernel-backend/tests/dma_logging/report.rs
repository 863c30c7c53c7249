// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! What is told of, and what becomes of it when something fails.

use nix::libc;
use vfio_fsm_core::Errno;
use vfio_fsm_kernel::dma_logging::{DmaLog, IovaRange, ReportError, StartError, StopError};

use crate::device::{Call, Played, range, told};

const LOW: IovaRange = range(0, 0x10_0000);
const HIGH: IovaRange = range(0x1_0000_0000, 0x20_0000);
const RAM: [IovaRange; 2] = [LOW, HIGH];

/// R45: what was written is told once, in runs, for the range that was asked for.
#[test]
fn a_report_reads_and_clears() {
    let played = Played::new();
    let mut log = DmaLog::start(&played, &RAM, 4096).unwrap();
    for iova in [0x1000, 0x1fff, 0x2000, 0x5008, 0x1_0000_0000] {
        played.write(iova);
    }
    let (result, runs) = told(|dirty| log.report(LOW, 4096, dirty));
    assert_eq!((result, runs), (Ok(()), vec![range(0x1000, 0x2000), range(0x5000, 0x1000)]));
    let nothing = vec![];
    assert_eq!(told(|dirty| log.report(LOW, 4096, dirty)), (Ok(()), nothing.clone()));
    played.write(0x2000);
    let both = vec![range(0x2000, 0x1000), range(0x1_0000_0000, 0x1000)];
    assert_eq!(told(|dirty| log.report_all(dirty)), (Ok(()), both));
    assert_eq!(told(|dirty| log.report_all(dirty)), (Ok(()), nothing));
}

/// R45: a part is read and cleared, and the rest stays.
#[test]
fn a_part_leaves_the_rest() {
    let played = Played::new();
    let mut log = DmaLog::start(&played, &RAM, 4096).unwrap();
    (0..100).for_each(|page| played.write(page * 4096));
    let (_, runs) = told(|dirty| log.report(range(3 * 4096, 70 * 4096), 4096, dirty));
    assert_eq!(runs, [range(3 * 4096, 70 * 4096)]);
    let (_, runs) = told(|dirty| log.report_all(dirty));
    assert_eq!(runs, [range(0, 3 * 4096), range(73 * 4096, 27 * 4096)]);
}

/// R46: a bit for more than the device's page, and never for less.
#[test]
fn the_page_size_of_a_report_is_its_own() {
    let played = Played::new();
    played.device(|device| device.least_page_size = 0x4000);
    let mut log = DmaLog::start(&played, &RAM, 4096).unwrap();
    for (asked, used) in [(4096, 0x4000), (0x4000, 0x4000), (0x2_0000, 0x2_0000)] {
        played.write(0x4_5000);
        let (_, runs) = told(|dirty| log.report(LOW, asked, dirty));
        assert_eq!(runs, [range(0x4_5000 / used * used, used)]);
        let call = played.device(|device| device.calls.last().cloned());
        assert_eq!(call, Some(Call::Report { iova: 0, length: LOW.length, page_size: used }));
    }
    // Larger than all there is, and the last page of all.
    for page_size in [1 << 40, 1 << 63] {
        played.write(0xf_ffff);
        let (_, runs) = told(|dirty| log.report(LOW, page_size, dirty));
        assert_eq!(runs, [LOW]);
    }
}

/// The device forgets about all of its page by telling of a part, so all of it is told of: in the
/// other range as well, and not in the gap.
#[test]
fn a_page_of_the_device_is_dirty_as_a_whole() {
    let played = Played::new();
    played.device(|device| device.least_page_size = 0x20_0000);
    let ram = [range(0, 0xa_0000), range(0x10_0000, 0xf0_0000)];
    let mut log = DmaLog::start(&played, &ram, 4096).unwrap();
    played.write(0x1000);
    played.write(0x12_3000);
    let (_, runs) = told(|dirty| log.report(range(0x2000, 0x1000), 4096, dirty));
    assert_eq!(runs, [range(0, 0xa_0000), range(0x10_0000, 0x10_0000)]);
    played.write(0x15_0000);
    played.write(0xff_ffff);
    let (_, runs) = told(|dirty| log.report_all(dirty));
    // Two, since the range does not begin where a page does, and the bits begin with the range.
    let last = range(0xc0_0000, 0x40_0000);
    assert_eq!(runs, [range(0, 0xa_0000), range(0x10_0000, 0x10_0000), last]);
}

/// What is logged only because ranges were merged is nobody's memory.
#[test]
fn gaps_are_not_told_of() {
    let played = Played::new();
    played.device(|device| device.ranges = (1, libc::ENOSPC));
    let mut log = DmaLog::start(&played, &RAM, 4096).unwrap();
    assert_eq!(log.logged(), [range(0, 0x1_0020_0000)]);
    [0x1000, 0x10_0000, 0x20_0000, 0x1_0000_1000].into_iter().for_each(|iova| played.write(iova));
    let (_, runs) = told(|dirty| log.report_all(dirty));
    assert_eq!(runs, [range(0x1000, 0x1000), range(0x1_0000_1000, 0x1000)]);
    let range = range(0x20_0000, 0x1000);
    let (result, runs) = told(|dirty| log.report(range, 4096, dirty));
    assert_eq!((result, runs), (Err(ReportError::NotLogged { range }), vec![]));
}

#[test]
fn a_large_range_is_reported_in_pieces() {
    const GIB: u64 = 1 << 30;
    let played = Played::new();
    let mut log = DmaLog::start(&played, &[range(GIB, 5 * GIB)], 4096).unwrap();
    // The last and first pages of two pieces, so that a run goes on from one to the next.
    for iova in [GIB, 3 * GIB - 1, 3 * GIB, 5 * GIB - 4096, 6 * GIB - 1] {
        played.write(iova);
    }
    let (_, runs) = told(|dirty| log.report_all(dirty));
    let pages = [
        range(GIB, 4096),
        range(3 * GIB - 4096, 2 * 4096),
        range(5 * GIB - 4096, 4096),
        range(6 * GIB - 4096, 4096),
    ];
    assert_eq!(runs, pages);
    let calls = played.device(|device| device.calls.split_off(1));
    let piece = |iova, length| Call::Report { iova, length, page_size: 4096 };
    assert_eq!(calls, [piece(GIB, 2 * GIB), piece(3 * GIB, 2 * GIB), piece(5 * GIB, GIB)]);
}

/// An argument that is wrong costs nothing: the kernel is not asked.
#[test]
fn a_wrong_argument_leaves_the_log_as_it_is() {
    let played = Played::new();
    let mut log = DmaLog::start(&played, &RAM, 4096).unwrap();
    played.write(0x1000);
    for page_size in [0, 1, 2048, 4097, u64::MAX] {
        let (result, runs) = told(|dirty| log.report(LOW, page_size, dirty));
        assert_eq!((result, runs), (Err(ReportError::PageSize { page_size }), vec![]));
    }
    for range in [
        range(0, 0),
        range(0, LOW.length + 1),
        range(LOW.length, 4096),
        range(LOW.length - 4096, 8192),
        range(0, HIGH.iova + HIGH.length),
        range(HIGH.iova, u64::MAX),
    ] {
        let (result, runs) = told(|dirty| log.report(range, 4096, dirty));
        assert_eq!((result, runs), (Err(ReportError::NotLogged { range }), vec![]));
    }
    assert_eq!(told(|dirty| log.report_all(dirty)).1, [range(0x1000, 0x1000)]);
}

/// R48: after an error everything is dirty, also outside of what was asked for, and stays so.
#[test]
fn an_error_makes_everything_dirty_until_the_restart() {
    for errno in [Errno::EIO, Errno::EFAULT, Errno::EINVAL, Errno(libc::EINTR), Errno::ENOTCONN] {
        let played = Played::new();
        let mut log = DmaLog::start(&played, &RAM, 4096).unwrap();
        played.write(0x1_0000_1000);
        played.device(|device| device.fault = Some((0, errno.0)));
        let part = range(0x1000, 0x2000);
        let (result, runs) = told(|dirty| log.report(part, 4096, dirty));
        assert_eq!(result, Err(ReportError::Failed { errno, range: part }));
        assert_eq!(runs, RAM);
        let calls = played.device(|device| device.calls.len());
        assert_eq!(told(|dirty| log.report_all(dirty)), (Err(ReportError::Corrupt), RAM.to_vec()));
        let (result, runs) = told(|dirty| log.report(part, 4096, dirty));
        assert_eq!((result, runs), (Err(ReportError::Corrupt), RAM.to_vec()));
        assert_eq!(played.device(|device| device.calls.len()), calls, "it is not asked any more");
        assert_eq!(told(|dirty| log.restart(dirty)), (Ok(()), RAM.to_vec()));
        played.write(0x3000);
        let clean = (Ok(()), vec![range(0x3000, 0x1000)]);
        assert_eq!(told(|dirty| log.report_all(dirty)), clean);
    }
}

/// R48: the error of one piece spoils what the pieces before it said.
#[test]
fn an_error_in_the_middle_makes_everything_dirty() {
    let played = Played::new();
    let ram = [range(0, 5 << 30), range(8 << 30, 1 << 30)];
    for fails in 0..4 {
        let mut log = DmaLog::start(&played, &ram, 4096).unwrap();
        played.write(fails << 31);
        played.device(|device| device.fault = Some((fails as usize, libc::EIO)));
        let (result, runs) = told(|dirty| log.report_all(dirty));
        let Err(ReportError::Failed { errno: Errno::EIO, .. }) = result else {
            panic!("{result:?}")
        };
        assert!(runs.ends_with(&ram), "{runs:?}");
    }
}

/// A kernel that keeps a log and cannot tell (R48 holds for it as well).
#[test]
fn a_kernel_without_bitmaps_says_what_to_do() {
    let played = Played::new();
    played.device(|device| device.no_bitmaps = true);
    let mut log = DmaLog::start(&played, &RAM, 4096).unwrap();
    assert_eq!(told(|dirty| log.report_all(dirty)), (Err(ReportError::NoBitmaps), RAM.to_vec()));
    assert!(ReportError::NoBitmaps.to_string().contains("CONFIG_IOMMUFD"));
}

/// R43, R48: the log is stopped before it is started again, and if it cannot be, it stays corrupt.
#[test]
fn a_restart_may_fail() {
    let played = Played::new();
    let mut log = DmaLog::start(&played, &RAM, 4096).unwrap();
    played.device(|device| device.fault = Some((1, libc::EIO)));
    let refused = Err(StartError::Refused { errno: Errno::EIO, ranges: 2 });
    assert_eq!(told(|dirty| log.restart(dirty)), (refused, RAM.to_vec()));
    assert!(!played.device(|device| device.is_logging()));
    assert_eq!(told(|dirty| log.report_all(dirty)), (Err(ReportError::Corrupt), RAM.to_vec()));
    assert_eq!(told(|dirty| log.restart(dirty)), (Ok(()), RAM.to_vec()));
    played.device(|device| device.fault = Some((0, libc::EIO)));
    let still_on = Err(StartError::Stop(StopError { errno: Errno::EIO }));
    assert_eq!(told(|dirty| log.restart(dirty)), (still_on, RAM.to_vec()));
    assert_eq!(told(|dirty| log.report_all(dirty)), (Err(ReportError::Corrupt), RAM.to_vec()));
    assert_eq!(told(|dirty| log.restart(dirty)), (Ok(()), RAM.to_vec()));
    played.write(0x1000);
    assert_eq!(told(|dirty| log.report_all(dirty)), (Ok(()), vec![range(0x1000, 0x1000)]));
    assert_eq!(log.stop(), Ok(()));
}

/// The memory is told as dirty when the log is on again: what is written from then on is logged.
#[test]
fn a_restart_tells_after_the_start() {
    let played = Played::new();
    let mut log = DmaLog::start(&played, &RAM, 4096).unwrap();
    let mut starts = Vec::new();
    let start = |call: &Call| matches!(call, Call::Start { .. });
    log.restart(|_run| starts.push(played.device(|device| device.count(start)))).unwrap();
    assert_eq!(starts, [2, 2]);
}
