// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! Each op, as the one system call it stands for.

use std::time::Duration;

use vfio_fsm_core::{
    EndOfStream, Errno, Fault, Fd, FdFlags, Features, Leaves, Op, PrecopyInfo, RawState, Readiness,
    Reply, State,
};
use vfio_fsm_kernel::{FreshError, KernelDevice, OpenError, TouchError};

use crate::double::{
    self, PRE_COPY_LEN, STOP_COPY_LEN, fd_table_is_mine, fd_table_stays_open, world,
};

pub(crate) fn device(features: Features) -> KernelDevice {
    double::begin(features);
    let fd = world(|world| world.open_device());
    let device = KernelDevice::from_fd(fd).expect("a device that can be migrated");
    device.with_reopen(|| Ok(world(|world| world.open_device())))
}

pub(crate) fn apply(device: &mut KernelDevice, op: Op<&[u8]>) -> Reply<Vec<u8>> {
    device.apply(op, &mut [0; 64]).map(<[u8]>::to_vec)
}

fn info(initial_bytes: u64, reinit: bool) -> Reply<Vec<u8>> {
    Reply::Info(PrecopyInfo { initial_bytes, dirty_bytes: 0, reinit })
}

#[test]
fn data_fds_are_numbered_as_they_come() {
    let _guard = fd_table_stays_open();
    let mut device = device(Features::ALL);
    assert_eq!(device.features(), Features::ALL);
    for (to, fd) in [
        (State::PreCopy, Some(Fd(1))),
        (State::PreCopy, None),
        (State::StopCopy, None),
        (State::Stop, None),
        (State::Resuming, Some(Fd(2))),
    ] {
        assert_eq!(apply(&mut device, Op::set(to)), Reply::Fd(fd), "{to}");
        assert_eq!(apply(&mut device, Op::GetState), Reply::State(to.into()));
    }
    let flags = |read| Reply::FdFlags(FdFlags { read, write: !read, cloexec: true });
    assert_eq!(apply(&mut device, Op::FdFlags { fd: Fd(1) }), flags(true));
    assert_eq!(apply(&mut device, Op::FdFlags { fd: Fd(2) }), flags(false));
    assert_eq!(device.anomalies(), []);
}

#[test]
fn a_refused_set_keeps_its_errno_and_takes_no_number() {
    let _guard = fd_table_stays_open();
    let mut device = device(Features::STOP_COPY);
    for to in [RawState(0), RawState(State::PreCopy.number()), RawState(8), RawState(u32::MAX)] {
        assert_eq!(apply(&mut device, Op::set(to)), Reply::Errno(Errno::EINVAL), "{to}");
    }
    assert_eq!(apply(&mut device, Op::set(State::StopCopy)), Reply::Fd(Some(Fd(1))));
}

#[test]
fn streams_end_for_now_and_for_good() {
    let _guard = fd_table_stays_open();
    let mut device = device(Features::ALL).with_touch(0, 7).unwrap();
    let fd = Fd(1);
    apply(&mut device, Op::Touch(0x5a));
    apply(&mut device, Op::set(State::PreCopy));
    assert_eq!(apply(&mut device, Op::Read { fd, len: 3 }), Reply::Bytes(vec![0x5a; 3]));
    assert_eq!(apply(&mut device, Op::Read { fd, len: 0 }), Reply::Bytes(vec![]));
    assert_eq!(apply(&mut device, Op::Read { fd, len: 3 }), Reply::Bytes(vec![0x5a; 1]));
    let end = |end| Reply::EndOfStream(end);
    assert_eq!(apply(&mut device, Op::Read { fd, len: 1 }), end(EndOfStream::Temporary));
    assert_eq!(apply(&mut device, Op::Read { fd, len: 0 }), Reply::Bytes(vec![]));
    apply(&mut device, Op::set(State::StopCopy));
    let rest = vec![0x5a; STOP_COPY_LEN as usize];
    assert_eq!(apply(&mut device, Op::Read { fd, len: 64 }), Reply::Bytes(rest));
    assert_eq!(apply(&mut device, Op::Read { fd, len: 1 }), end(EndOfStream::Permanent));
    assert_eq!(apply(&mut device, Op::Read { fd, len: 0 }), Reply::Bytes(vec![]));
    assert_eq!(apply(&mut device, Op::Seek { fd }), Reply::Errno(Errno::ESPIPE));
    assert_eq!(apply(&mut device, Op::Pread { fd, len: 1 }), Reply::Errno(Errno::ESPIPE));
}

#[test]
fn no_more_is_read_than_the_buffer_holds() {
    let _guard = fd_table_stays_open();
    let mut device = device(Features::ALL);
    apply(&mut device, Op::set(State::StopCopy));
    let reply = device.apply(Op::Read { fd: Fd(1), len: u32::MAX }, &mut [0; 2]).map(<[u8]>::len);
    assert_eq!(reply, Reply::Bytes(2));
}

#[test]
fn a_short_write_is_a_short_write() {
    let _guard = fd_table_stays_open();
    let mut device = device(Features::ALL);
    apply(&mut device, Op::set(State::Resuming));
    let write = Op::Write { fd: Fd(1), bytes: &[7; 9][..] };
    assert_eq!(apply(&mut device, write), Reply::Written(4));
    assert_eq!(apply(&mut device, Op::set(State::Stop)), Reply::Errno(Errno::EINVAL));
    assert_eq!(apply(&mut device, write), Reply::Written(4));
    assert_eq!(apply(&mut device, write), Reply::Errno(Errno::ENOSPC));
    assert_eq!(apply(&mut device, Op::set(State::Stop)), Reply::Fd(None));
    assert_eq!(apply(&mut device, write), Reply::Errno(Errno::ENODEV));
}

#[test]
fn after_a_reset_the_old_fd_is_dead_in_every_way() {
    let _guard = fd_table_stays_open();
    let mut device = device(Features::ALL);
    let fd = Fd(1);
    apply(&mut device, Op::set(State::PreCopy));
    let ready = Readiness { readable: true, writable: false, hangup: false };
    assert_eq!(apply(&mut device, Op::Poll { fd }), Reply::Ready(ready));
    assert_eq!(apply(&mut device, Op::Reset), Reply::Ok);
    assert_eq!(apply(&mut device, Op::GetState), Reply::State(State::Running.into()));
    assert_eq!(apply(&mut device, Op::Read { fd, len: 1 }), Reply::Errno(Errno::ENODEV));
    let over = Readiness { hangup: true, ..ready };
    assert_eq!(apply(&mut device, Op::Poll { fd }), Reply::Ready(over));
    assert_eq!(apply(&mut device, Op::PrecopyInfo { fd }), Reply::Errno(Errno::EINVAL));
    apply(&mut device, Op::set(State::PreCopy));
    assert_eq!(apply(&mut device, Op::PrecopyInfo { fd }), Reply::Errno(Errno::ENODEV));
}

/// mtty does not set `VFIO_DEVICE_FLAGS_RESET`, and can be reset; nor does the device here.
#[test]
fn a_reset_is_issued_whatever_the_flags_and_its_errno_told() {
    let _guard = fd_table_stays_open();
    let mut device = device(Features::ALL);
    assert_eq!(apply(&mut device, Op::Reset), Reply::Ok);
    assert_eq!(world(|world| world.resets), 1);
    for errno in [nix::libc::EAGAIN, 524] {
        world(|world| world.quirks.reset = Some(errno));
        assert_eq!(apply(&mut device, Op::Reset), Reply::Errno(Errno(errno)));
    }
}

/// C45, C46: REINIT is told of only after an opt-in, which carries no data.
#[test]
fn precopy_info_tells_of_new_initial_data_only_after_opting_in() {
    let _guard = fd_table_stays_open();
    let mut device = device(Features::ALL);
    let fd = Fd(1);
    assert!(device.precopy_v2_available());
    apply(&mut device, Op::set(State::PreCopy));
    assert_eq!(apply(&mut device, Op::PrecopyInfo { fd }), info(PRE_COPY_LEN.into(), false));
    assert_eq!(apply(&mut device, Op::OptInPrecopyV2), Reply::Ok);
    assert_eq!(apply(&mut device, Op::PrecopyInfo { fd }), info(PRE_COPY_LEN.into(), true));
    assert_eq!(device.anomalies(), []);
}

#[test]
fn no_opting_in_without_pre_copy() {
    let _guard = fd_table_stays_open();
    let mut device = device(Features::P2P);
    assert!(!device.precopy_v2_available());
    assert_eq!(apply(&mut device, Op::OptInPrecopyV2), Reply::Errno(Errno::ENOTTY));
    assert_eq!(apply(&mut device, Op::DataSize), Reply::Size(STOP_COPY_LEN.into()));
    assert_eq!(apply(&mut device, Op::GetFeatures), Reply::Features(3));
}

#[test]
fn a_full_fd_table_is_a_session_without_an_fd() {
    let _guard = fd_table_is_mine();
    let mut device = device(Features::ALL);
    let before = rlimit();
    let full = Op::SetState { to: State::PreCopy.into(), fault: Some(Fault::FdTableFull) };
    assert_eq!(apply(&mut device, full), Reply::Errno(Errno::EMFILE));
    assert_eq!(rlimit(), before);
    assert_eq!(apply(&mut device, Op::GetState), Reply::State(State::PreCopy.into()));
    assert_eq!(apply(&mut device, Op::set(State::StopCopy)), Reply::Fd(None));
    // Only an fd that was to be installed is missed.
    let full = Op::SetState { to: State::Stop.into(), fault: Some(Fault::FdTableFull) };
    assert_eq!(apply(&mut device, full), Reply::Fd(None));
    // Put back as well when the call fails by itself.
    let full = Op::SetState { to: RawState(9), fault: Some(Fault::FdTableFull) };
    assert_eq!(apply(&mut device, full), Reply::Errno(Errno::EINVAL));
    assert_eq!(rlimit(), before);
    assert_eq!(apply(&mut device, Op::set(State::StopCopy)), Reply::Fd(Some(Fd(1))));
}

fn rlimit() -> (u64, u64) {
    nix::sys::resource::getrlimit(nix::sys::resource::Resource::RLIMIT_NOFILE).unwrap()
}

#[test]
fn faults_of_the_driver_are_not_for_us_to_make() {
    let _guard = fd_table_stays_open();
    let mut device = device(Features::ALL);
    let fails = Fault::ArcFails { hop: 0, errno: Errno::EIO, leaves: Leaves::Source };
    assert!(device.can_fault(Fault::FdTableFull));
    for fault in [Fault::ResetInside, fails] {
        assert!(!device.can_fault(fault));
        let op = Op::SetState { to: State::Stop.into(), fault: Some(fault) };
        assert_eq!(apply(&mut device, op), Reply::Errno(Errno::EOPNOTSUPP));
    }
    assert_eq!(world(|world| world.state()), State::Running);
}

/// The kernel gives the number of a closed fd to the next file; ours must not reach that one.
#[test]
fn a_closed_number_stays_closed() {
    let _guard = fd_table_stays_open();
    let mut device = device(Features::ALL);
    apply(&mut device, Op::set(State::StopCopy));
    assert_eq!(apply(&mut device, Op::CloseFd { fd: Fd(1) }), Reply::Ok);
    assert_eq!(world(|world| world.open_data_fds()), 0);
    apply(&mut device, Op::set(State::Stop));
    assert_eq!(apply(&mut device, Op::set(State::StopCopy)), Reply::Fd(Some(Fd(2))));
    for fd in [Fd(0), Fd(1), Fd(3), Fd(u32::MAX)] {
        for op in [
            Op::Read { fd, len: 1 },
            Op::Pread { fd, len: 1 },
            Op::UringRead { fd, len: 1 },
            Op::Write { fd, bytes: &[1][..] },
            Op::Seek { fd },
            Op::Poll { fd },
            Op::PrecopyInfo { fd },
            Op::FdFlags { fd },
            Op::CloseFd { fd },
        ] {
            assert_eq!(apply(&mut device, op), Reply::Errno(Errno::EBADF), "{op}");
        }
    }
    assert_eq!(world(|world| world.open_data_fds()), 1);
}

#[test]
fn closing_the_device_leaves_the_data_fds_open() {
    let _guard = fd_table_stays_open();
    let mut device = device(Features::ALL);
    apply(&mut device, Op::set(State::StopCopy));
    assert_eq!(apply(&mut device, Op::Open), Reply::Errno(Errno::EBUSY));
    assert_eq!(apply(&mut device, Op::Close), Reply::Ok);
    assert!(!world(|world| world.is_open()));
    assert_eq!(world(|world| world.open_data_fds()), 1);
    let read = Op::Read { fd: Fd(1), len: 1 };
    assert_eq!(apply(&mut device, read), Reply::Errno(Errno::ENODEV));
    for op in [Op::Close, Op::GetState, Op::Reset, Op::set(State::Stop), Op::Touch(1)] {
        assert_eq!(apply(&mut device, op), Reply::Errno(Errno::EBADF), "{op}");
    }
    assert_eq!(apply(&mut device, Op::Open), Reply::Ok);
    assert_eq!(apply(&mut device, Op::GetState), Reply::State(State::Running.into()));
    assert_eq!(apply(&mut device, read), Reply::Errno(Errno::ENODEV));
}

#[test]
fn a_given_fd_is_not_opened_again_by_itself() {
    let _guard = fd_table_stays_open();
    double::begin(Features::ALL);
    let mut device = KernelDevice::from_fd(world(|world| world.open_device())).unwrap();
    apply(&mut device, Op::OptInPrecopyV2);
    // That would need it opened again, so it is not even closed.
    assert!(matches!(device.fresh(), Err(FreshError::Reopen(OpenError::NoReopen))));
    assert!(world(|world| world.is_open()));
    assert_eq!(apply(&mut device, Op::Close), Reply::Ok);
    assert_eq!(apply(&mut device, Op::Open), Reply::Errno(Errno::EOPNOTSUPP));
    assert!(matches!(device.fresh(), Err(FreshError::Reopen(OpenError::NoReopen))));
}

#[test]
fn a_touch_is_one_byte_in_its_region() {
    let _guard = fd_table_stays_open();
    let mut device = device(Features::ALL);
    assert!(!device.touch_configured());
    assert_eq!(apply(&mut device, Op::Touch(1)), Reply::Errno(Errno::EOPNOTSUPP));
    let mut device = device.with_touch(0, 7).unwrap();
    assert!(device.touch_configured());
    assert_eq!(apply(&mut device, Op::Touch(9)), Reply::Ok);
    apply(&mut device, Op::set(State::StopCopy));
    assert_eq!(apply(&mut device, Op::Read { fd: Fd(1), len: 1 }), Reply::Bytes(vec![9]));
}

#[test]
fn a_touch_has_to_have_a_place() {
    let _guard = fd_table_stays_open();
    for (region, offset, error) in [
        (0, 8, TouchError::Outside { region: 0, offset: 8, size: 8 }),
        (1, 0, TouchError::ReadOnly { region: 1 }),
        (2, u64::MAX - 1, TouchError::Outside { region: 2, offset: u64::MAX - 1, size: u64::MAX }),
        (8, 0, TouchError::NoRegion { region: 8, errno: Errno::EINVAL }),
    ] {
        assert_eq!(device(Features::ALL).with_touch(region, offset).unwrap_err(), error);
    }
}

#[test]
fn fresh_is_as_new() {
    let _guard = fd_table_stays_open();
    let mut device = device(Features::ALL);
    apply(&mut device, Op::set(State::StopCopy));
    device.fresh().unwrap();
    assert_eq!(world(|world| world.open_data_fds()), 0);
    assert_eq!(apply(&mut device, Op::set(State::PreCopy)), Reply::Fd(Some(Fd(1))));
    // What was opted in to lasts until the device is closed.
    apply(&mut device, Op::OptInPrecopyV2);
    device.fresh().unwrap();
    apply(&mut device, Op::set(State::PreCopy));
    let fd = Fd(1);
    assert_eq!(apply(&mut device, Op::PrecopyInfo { fd }), info(PRE_COPY_LEN.into(), false));
    apply(&mut device, Op::Close);
    device.fresh().unwrap();
    assert_eq!(apply(&mut device, Op::GetState), Reply::State(State::Running.into()));
}

#[test]
fn fresh_tells_what_went_wrong() {
    let _guard = fd_table_stays_open();
    let mut device = device(Features::ALL);
    apply(&mut device, Op::set(State::Stop));
    world(|world| world.quirks.reset_does_nothing = true);
    let error = device.fresh().unwrap_err();
    assert!(matches!(error, FreshError::NotRunning { state } if state == State::Stop.into()));
    world(|world| world.quirks.reset = Some(nix::libc::EINVAL));
    let error = device.fresh().unwrap_err().to_string();
    assert!(error.starts_with("VFIO_DEVICE_RESET failed with EINVAL"), "{error}");
}

#[test]
fn a_read_that_would_block_waits_for_its_limit_and_no_longer() {
    let _guard = fd_table_stays_open();
    let mut device = device(Features::ALL).with_read_limit(Duration::from_millis(20));
    let fd = Fd(1);
    apply(&mut device, Op::set(State::StopCopy));
    world(|world| world.quirks.real_io = true);
    let read = Op::Read { fd, len: 8 };
    assert_eq!(apply(&mut device, read), Reply::Errno(Errno::EAGAIN));
    let [anomaly] = device.take_anomalies()[..] else { panic!("one anomaly") };
    assert_eq!(anomaly.to_string(), "a read from fd#1 was given up after 20 ms");
    assert_eq!(world(|world| world.non_blocking()), 0, "left as it was");
    world(|world| world.feed(b"abc"));
    assert_eq!(apply(&mut device, read), Reply::Bytes(b"abc".to_vec()));
    assert_eq!(device.anomalies(), []);
}

#[cfg(feature = "io-uring")]
#[test]
fn a_ring_reads_from_the_position_and_reports_as_read_does() {
    let _guard = fd_table_stays_open();
    let mut device = device(Features::ALL).with_read_limit(Duration::from_millis(20));
    if let Err(reason) = device.uring() {
        eprintln!("not tested: {reason}");
        return;
    }
    let fd = Fd(1);
    apply(&mut device, Op::set(State::StopCopy));
    world(|world| {
        world.quirks.real_io = true;
        world.feed(b"abcde");
    });
    let read = |len| Op::UringRead { fd, len };
    assert_eq!(apply(&mut device, read(3)), Reply::Bytes(b"abc".to_vec()));
    assert_eq!(apply(&mut device, read(8)), Reply::Bytes(b"de".to_vec()));
    assert_eq!(apply(&mut device, read(8)), Reply::Errno(Errno::EAGAIN));
    assert_eq!(device.take_anomalies().len(), 1, "the read had to be stopped");
    world(|world| world.feed(b"f"));
    assert_eq!(apply(&mut device, read(8)), Reply::Bytes(b"f".to_vec()), "stopped for good");
    apply(&mut device, Op::set(State::Stop));
    apply(&mut device, Op::set(State::Resuming));
    let wrong_way = Op::UringRead { fd: Fd(2), len: 1 };
    assert_eq!(apply(&mut device, wrong_way), Reply::Errno(Errno::EBADF));
}

#[cfg(not(feature = "io-uring"))]
#[test]
fn without_a_ring_that_is_said() {
    let _guard = fd_table_stays_open();
    let mut device = device(Features::ALL);
    assert!(!device.uring_available());
    apply(&mut device, Op::set(State::StopCopy));
    let read = Op::UringRead { fd: Fd(1), len: 1 };
    assert_eq!(apply(&mut device, read), Reply::Errno(Errno::EOPNOTSUPP));
}
