// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! From asking whether there is a log to its end.

use std::fs::File;
use std::os::fd::{AsFd, OwnedFd};
use std::sync::Arc;

use nix::libc;
use vfio_fsm_core::Errno;
use vfio_fsm_kernel::dma_logging::{
    DmaLog, IovaRange, MAX_RANGES, ProbeError, RangesError, StartError, StopError, supported,
};
use vfio_ioctls::VfioDevice;

use crate::device::{Call, Played, range};

const RAM: [IovaRange; 2] = [range(0x10_0000, 0x4000), range(0, 0x8000)];

/// `count` ranges of a page, the gap after each a page longer than the one before.
fn many(count: u64) -> Vec<IovaRange> {
    (0..count).map(|n| range((n * n + n) / 2 * 4096 + n * 4096, 4096)).collect()
}

#[test]
fn all_three_are_probed() {
    let played = Played::new();
    assert_eq!(supported(&played), Ok(true));
    let probes = [6, 7, 8].map(Call::Probe);
    assert_eq!(played.device(|device| std::mem::take(&mut device.calls)), probes);
    for fails in 0..3 {
        played.device(|device| device.fault = Some((fails, libc::ENOTTY)));
        assert_eq!(supported(&played), Ok(false));
        played.device(|device| device.fault = Some((fails, libc::ENODEV)));
        assert_eq!(supported(&played), Err(ProbeError { errno: Errno::ENODEV }));
    }
}

#[test]
fn a_device_without_logging_says_so() {
    let played = Played::new();
    played.device(|device| device.no_logging = true);
    assert_eq!(supported(&played), Ok(false));
    assert_eq!(DmaLog::start(&played, &RAM, 4096).unwrap_err(), StartError::Unsupported);
    assert_eq!(supported(&-1), Err(ProbeError { errno: Errno::EBADF }));
    let refused = StartError::Refused { errno: Errno::EBADF, ranges: 2 };
    assert_eq!(DmaLog::start(&-1, &RAM, 4096).unwrap_err(), refused);
}

/// R41: the hint is what the caller said, the page_size what the device made of it.
#[test]
fn the_device_chooses_the_page_size() {
    for (least, hint, chosen) in
        [(4096, 4096, 4096), (4096, 0x4000, 0x4000), (0x1_0000, 4096, 0x1_0000)]
    {
        let played = Played::new();
        played.device(|device| device.least_page_size = least);
        let log = DmaLog::start(&played, &RAM, hint).unwrap();
        assert_eq!(log.page_size(), chosen);
        let start = Call::Start { page_size: hint, ranges: 2 };
        assert_eq!(played.device(|device| device.calls.clone()), [start]);
    }
}

/// R41: nothing can be done with a granularity that is none, and the log is not left on.
#[test]
fn a_page_size_that_is_none_is_refused() {
    for page_size in [0, 4097, u64::MAX] {
        let played = Played::new();
        played.device(|device| device.page_size = Some(page_size));
        let error = DmaLog::start(&played, &RAM, 4096).unwrap_err();
        assert_eq!(error, StartError::PageSize { page_size });
        assert!(!played.device(|device| device.is_logging()));
        played.device(|device| device.page_size = None);
        DmaLog::start(&played, &RAM, 4096).unwrap();
    }
}

#[test]
fn bad_ranges_never_reach_the_kernel() {
    let played = Played::new();
    let error = DmaLog::start(&played, &[range(0, 0x2000), range(0x1000, 0x1000)], 4096);
    let (first, second) = (range(0, 0x2000), range(0x1000, 0x1000));
    let overlap = StartError::Ranges(RangesError::Overlap { first, second });
    assert_eq!(error.unwrap_err(), overlap);
    let misaligned = RangesError::Misaligned { range: range(0, 0x8000), page_size: 0x1_0000 };
    let error = DmaLog::start(&played, &RAM, 0x1_0000).unwrap_err();
    assert_eq!(error, StartError::Ranges(misaligned));
    assert_eq!(played.device(|device| device.calls.len()), 0);
}

/// R42: as many ranges as fit into a page are given as they are; of more, the nearest become one.
#[test]
fn as_many_ranges_as_every_device_takes() {
    let played = Played::new();
    let ranges = many(256);
    let log = DmaLog::start(&played, &ranges, 4096).unwrap();
    assert_eq!((log.ranges(), log.logged()), (&ranges[..], &ranges[..]));
    drop(log);
    let ranges = many(1000);
    let log = DmaLog::start(&played, &ranges, 4096).unwrap();
    assert_eq!((log.ranges().len(), log.logged().len()), (1000, MAX_RANGES));
    assert_eq!(log.logged()[0], range(0, ranges[744].iova + 4096));
    assert_eq!(log.logged()[1..], ranges[745..]);
    assert_eq!(played.device(|device| device.count(|call| matches!(call, Call::Start { .. }))), 2);
}

#[test]
fn a_device_with_fewer_ranges_is_given_fewer() {
    for errno in [libc::E2BIG, libc::EINVAL, libc::ENOMEM, libc::ENOSPC] {
        for (has, used) in [(256, 256), (255, 128), (64, 64), (63, 32), (1, 1)] {
            let played = Played::new();
            played.device(|device| device.ranges = (has, errno));
            let log = DmaLog::start(&played, &many(256), 4096).unwrap();
            assert_eq!(log.logged().len(), used);
            assert_eq!(log.ranges().len(), 256, "what was asked for stays");
        }
    }
}

/// The errno is that of all the ranges: what it says of fewer would mislead.
#[test]
fn a_device_that_refuses_any_number_is_believed() {
    let played = Played::new();
    played.device(|device| device.ranges = (0, libc::ENOSPC));
    let error = DmaLog::start(&played, &many(256), 4096).unwrap_err();
    assert_eq!(error, StartError::Refused { errno: Errno::ENOSPC, ranges: 256 });
    assert_eq!(played.device(|device| device.calls.len()), 9, "256, 128, 64, 32, 16, 8, 4, 2, 1");
    for errno in [Errno::EOPNOTSUPP, Errno::EIO, Errno::EFAULT, Errno::EOVERFLOW] {
        let played = Played::new();
        played.device(|device| device.ranges = (0, errno.0));
        let error = DmaLog::start(&played, &many(256), 4096).unwrap_err();
        assert_eq!(error, StartError::Refused { errno, ranges: 256 });
        assert_eq!(played.device(|device| device.calls.len()), 1, "{errno} is not about ranges");
    }
    // mlx5 combines ranges by itself, and then has more address space to log than it can.
    let played = Played::new();
    played.device(|device| {
        device.ranges = (0, libc::EOPNOTSUPP);
        device.fault = Some((0, libc::EINVAL));
    });
    let error = DmaLog::start(&played, &many(256), 4096).unwrap_err();
    assert_eq!(error, StartError::Refused { errno: Errno::EINVAL, ranges: 256 });
}

/// R43: the kernel is not even asked for a second log; it is for one after the first.
#[test]
fn one_log_at_a_time() {
    let played = Played::new();
    let other = Played::new();
    let log = DmaLog::start(&played, &RAM, 4096).unwrap();
    assert_eq!(DmaLog::start(&played, &RAM, 4096).unwrap_err(), StartError::AlreadyLogging);
    let elsewhere = DmaLog::start(&other, &RAM, 4096).unwrap();
    assert_eq!(played.device(|device| device.calls.len()), 1);
    assert!(played.device(|device| device.is_logging()), "the first one is as it was");
    assert_eq!(log.stop(), Ok(()));
    drop(DmaLog::start(&played, &RAM, 4096).unwrap());
    // One that could not be begun is in nobody's way.
    played.device(|device| device.fault = Some((0, libc::EIO)));
    DmaLog::start(&played, &RAM, 4096).unwrap_err();
    DmaLog::start(&played, &RAM, 4096).unwrap();
    drop(elsewhere);
}

#[test]
fn it_is_stopped_once() {
    let stops = |played: &Played| {
        assert!(!played.device(|device| device.is_logging()));
        played.device(|device| device.count(|call| *call == Call::Stop))
    };
    let played = Played::new();
    drop(DmaLog::start(&played, &RAM, 4096).unwrap());
    assert_eq!(stops(&played), 1);
    assert_eq!(DmaLog::start(&played, &RAM, 4096).unwrap().stop(), Ok(()));
    assert_eq!(stops(&played), 2);
    let log = DmaLog::start(&played, &RAM, 4096).unwrap();
    played.device(|device| device.fault = Some((0, libc::ENOTCONN)));
    assert_eq!(log.stop(), Err(StopError { errno: Errno::ENOTCONN }));
    assert_eq!(played.device(|device| device.count(|call| *call == Call::Stop)), 3);
}

#[test]
fn whatever_keeps_the_fd_open_will_do() {
    let file = File::open("/dev/null").unwrap();
    let played = Played::of(&file);
    DmaLog::start(&played, &RAM, 4096).unwrap();
    let borrowed = file.as_fd();
    DmaLog::start(&borrowed, &RAM, 4096).unwrap();
    DmaLog::start(Arc::new(borrowed), &RAM, 4096).unwrap();
    DmaLog::start(Box::new(borrowed), &RAM, 4096).unwrap();
    // For a VMM that keeps it beside its device, and reports from another thread.
    fn sent<T: Send + Sync + 'static>() {}
    sent::<DmaLog<Arc<VfioDevice>>>();
    sent::<DmaLog<Box<OwnedFd>>>();
}
