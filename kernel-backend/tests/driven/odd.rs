// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! Kernels that do what they must not: all of it shows, and nothing of it panics.

use vfio_fsm_core::{Errno, Fd, Features, Op, RawState, Reply, State};
use vfio_fsm_kernel::{Anomaly, KernelDevice, OpenError};

use crate::double::{self, fd_table_stays_open, world};
use crate::ops::{apply, device};

#[test]
fn flags_that_are_no_set_are_refused() {
    let _guard = fd_table_stays_open();
    for flags in [0, 2, 4, 6, 8, 9, u64::MAX] {
        double::begin(Features::ALL);
        world(|world| world.quirks.flags = Some(flags));
        let error = KernelDevice::from_fd(world(|world| world.open_device())).unwrap_err();
        assert!(matches!(error, OpenError::IllegalFeatures(illegal) if illegal.flags == flags));
        assert_eq!(error.errno(), Errno::EINVAL);
    }
}

#[test]
fn flags_that_were_not_written_are_refused() {
    let _guard = fd_table_stays_open();
    double::begin(Features::ALL);
    world(|world| world.quirks.nothing_written = true);
    let error = KernelDevice::from_fd(world(|world| world.open_device())).unwrap_err();
    assert!(matches!(error, OpenError::IllegalFeatures(_)), "{error}");
}

#[test]
fn a_device_without_migration_is_told_from_one_that_fails() {
    let _guard = fd_table_stays_open();
    double::begin(Features::ALL);
    let open = |errno| {
        world(|world| world.quirks.feature = Some(errno));
        KernelDevice::from_fd(world(|world| world.open_device())).unwrap_err()
    };
    for errno in [Errno::ENOTTY, Errno::EINVAL] {
        let error = open(errno.0);
        assert!(matches!(error, OpenError::NoMigration { errno: seen } if seen == errno));
        assert!(error.to_string().contains("mlx5_vfio_pci"), "{error}");
    }
    assert!(matches!(open(19), OpenError::Feature { errno: Errno::ENODEV }));
}

/// R12: GET answers no fd.
#[test]
fn a_data_fd_from_get_is_reported_and_left_alone() {
    let _guard = fd_table_stays_open();
    let mut device = device(Features::ALL);
    world(|world| world.quirks.data_fd_of_get = Some(0));
    assert_eq!(apply(&mut device, Op::GetState), Reply::State(State::Running.into()));
    assert_eq!(device.take_anomalies(), [Anomaly::FdFromGet { data_fd: 0 }]);
    world(|world| world.quirks.data_fd_of_get = None);
    assert_eq!(apply(&mut device, Op::GetState), Reply::State(State::Running.into()));
    assert_eq!(device.anomalies(), []);
}

/// C1: after a failure the structure says what was asked for, and no fd.
#[test]
fn a_failed_set_that_answers_more_is_reported() {
    let _guard = fd_table_stays_open();
    let mut device = device(Features::ALL);
    let refused = Op::set(State::Error);
    assert_eq!(apply(&mut device, refused), Reply::Errno(Errno::EINVAL));
    assert_eq!(device.take_anomalies(), [], "the structure as the kernel leaves it");
    for (state, data_fd) in [(State::Error, 0), (State::Running, -1)] {
        world(|world| world.quirks.failed_set = Some((state.into(), data_fd)));
        assert_eq!(apply(&mut device, refused), Reply::Errno(Errno::EINVAL));
        let asked = State::Error.into();
        let seen = Anomaly::FailedSet { asked, device_state: state.into(), data_fd };
        assert_eq!(device.take_anomalies(), [seen]);
    }
}

/// Taken for a new one, it would be closed twice: the device's own fd, for the worst of all.
#[test]
fn a_data_fd_that_is_ours_already_is_not_taken() {
    let _guard = fd_table_stays_open();
    let mut device = device(Features::ALL);
    apply(&mut device, Op::set(State::StopCopy));
    let ours: Vec<i32> = (0..256).filter(|fd| is_played(*fd)).collect();
    assert_eq!(ours.len(), 2, "the device and its data_fd");
    for data_fd in ours.into_iter().chain([-7, 4000]) {
        world(|world| world.quirks.data_fd_of_set = Some(data_fd));
        assert_eq!(apply(&mut device, Op::set(State::Stop)), Reply::Errno(Errno::EBADF));
        assert_eq!(device.take_anomalies(), [Anomaly::NotANewFd { data_fd }]);
        assert!(world(|world| world.is_open()), "{data_fd} was closed");
        assert_eq!(world(|world| world.open_data_fds()), 1, "{data_fd} was closed");
    }
    world(|world| world.quirks.data_fd_of_set = Some(-1));
    assert_eq!(apply(&mut device, Op::set(State::Stop)), Reply::Fd(None));
}

fn is_played(number: i32) -> bool {
    world(|world| world.is_the_users(number))
}

#[test]
fn fields_that_are_not_written_show() {
    let _guard = fd_table_stays_open();
    let mut device = device(Features::ALL);
    apply(&mut device, Op::set(State::PreCopy));
    apply(&mut device, Op::OptInPrecopyV2);
    world(|world| world.quirks.nothing_written = true);
    let fields = |device: &mut KernelDevice| -> Vec<String> {
        device.take_anomalies().iter().map(ToString::to_string).collect()
    };
    let state = apply(&mut device, Op::GetState);
    assert!(matches!(state, Reply::State(RawState(number)) if number > 7), "{state}");
    assert_eq!(
        fields(&mut device),
        [
            "success, but vfio_device_feature_mig_state.data_fd was not written",
            "success, but vfio_device_feature_mig_state.device_state was not written",
        ]
    );
    assert_eq!(apply(&mut device, Op::set(State::Stop)), Reply::Errno(Errno::EBADF));
    apply(&mut device, Op::DataSize);
    apply(&mut device, Op::PrecopyInfo { fd: Fd(1) });
    assert_eq!(
        fields(&mut device),
        [
            "success, but vfio_device_feature_mig_state.data_fd was not written",
            "success, but vfio_device_feature_mig_data_size.stop_copy_length was not written",
            "success, but vfio_precopy_info.initial_bytes was not written",
            "success, but vfio_precopy_info.dirty_bytes was not written",
            "success, but vfio_precopy_info.flags was not written",
        ]
    );
}

#[test]
fn more_bytes_than_asked_for_are_cut() {
    let _guard = fd_table_stays_open();
    let mut device = device(Features::ALL);
    apply(&mut device, Op::set(State::StopCopy));
    world(|world| world.quirks.more = 1000);
    let read = Op::Read { fd: Fd(1), len: 4 };
    assert_eq!(apply(&mut device, read), Reply::Bytes(vec![0; 4]));
    assert_eq!(device.take_anomalies(), [Anomaly::MoreThanAsked { asked: 4, got: 1004 }]);
    apply(&mut device, Op::set(State::Resuming));
    let write = Op::Write { fd: Fd(2), bytes: &[1, 2][..] };
    assert_eq!(apply(&mut device, write), Reply::Written(2));
    assert_eq!(device.take_anomalies(), [Anomaly::MoreThanAsked { asked: 2, got: 1002 }]);
}

/// A driver that lets an errno through which is not for user space, and for which nix has no name.
#[test]
fn an_errno_without_a_name_keeps_its_number() {
    let _guard = fd_table_stays_open();
    let mut device = device(Features::ALL);
    apply(&mut device, Op::set(State::StopCopy));
    world(|world| world.quirks.read = Some(524));
    assert_eq!(apply(&mut device, Op::Read { fd: Fd(1), len: 4 }), Reply::Errno(Errno(524)));
    // An answer at once, not a wait: no stall.
    world(|world| world.quirks.read = Some(11));
    assert_eq!(apply(&mut device, Op::Read { fd: Fd(1), len: 4 }), Reply::Errno(Errno::EAGAIN));
    assert_eq!(device.anomalies(), []);
}
