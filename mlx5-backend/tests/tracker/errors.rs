// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! Whatever goes wrong: everything is told as dirty, once and again, until the log is restarted.

use vfio_fsm_core::Errno;
use vfio_fsm_mlx5::command::CommandError;
use vfio_fsm_mlx5::firmware::{Fault, Trigger};
use vfio_fsm_mlx5::layout::{CommandStatus, Cqe64, EventType, Opcode};
use vfio_fsm_mlx5::queue::Event;
use vfio_fsm_mlx5::tracker::ReportError;

use crate::rig::{MIB, PAGE, Rig, Spoil, Tracker, quick, range, told};

/// The log is corrupt, says so, and is none the worse after a restart.
fn corrupt_until_restarted(rig: &Rig, tracker: &mut Tracker) {
    let all = tracker.ranges().to_vec();
    assert_eq!(told(tracker), (all.clone(), Err(ReportError::Corrupt)));
    let mut again = Vec::new();
    tracker.restart(|run| again.push(run)).unwrap();
    assert_eq!(again, all);
    rig.vhca.dma_written(5 * PAGE, 1);
    assert_eq!(told(tracker), (vec![range(5 * PAGE, PAGE)], Ok(())));
    assert_eq!(rig.firmware.counts().trackers, 1);
}

fn fails(rig: &Rig, tracker: &mut Tracker) -> ReportError {
    rig.vhca.dma_written(0, 3 * PAGE);
    let (told, result) = told(tracker);
    let all = tracker.ranges();
    assert!(told.ends_with(all), "{told:?}");
    let error = result.unwrap_err();
    corrupt_until_restarted(rig, tracker);
    error
}

/// M165: A tracker that the firmware has given up is found out, with its event or without: before
/// the report, at it, and while its message is waited for.
#[test]
fn error_state() {
    for event in [true, false] {
        let rig = Rig::new();
        let mut tracker = rig.tracker();
        rig.firmware.fail_trackers(event);
        assert_eq!(fails(&rig, &mut tracker), ReportError::ErrorState);
        let at = Trigger::AfterOf(Opcode::ModifyGeneralObject, 0);
        rig.firmware.inject(at, Fault::TrackerError { event });
        assert_eq!(fails(&rig, &mut tracker), ReportError::ErrorState);
        rig.spoil(Spoil::SwallowAndFail);
        assert_eq!(fails(&rig, &mut tracker), ReportError::ErrorState);
    }
}

/// M165: A report that never comes has an end.
#[test]
fn no_message() {
    let rig = Rig::new();
    let mut tracker = rig.tracker();
    rig.spoil(Spoil::Swallow);
    let after = quick().message_timeout;
    let timeout = ReportError::Timeout { range: range(0, 64 * MIB), after };
    assert_eq!(fails(&rig, &mut tracker), timeout);
    assert_eq!(timeout.errno(), Errno::EIO);
}

/// M165: OBJECT_CHANGE and the errors of its queues are about a tracker if they name it; its next
/// report fails then.
#[test]
fn events() {
    let rig = Rig::new();
    let mut tracker = rig.tracker();
    // Completions are no news.
    assert_eq!(told(&mut tracker), (vec![], Ok(())));
    rig.between.hca.queue().service();
    assert_eq!(rig.between.hca.next_event(), None);
    rig.firmware.fail_trackers(true);
    let event = loop {
        rig.between.hca.queue().service();
        if let Some(event) = rig.between.hca.next_event() {
            break event;
        }
    };
    assert_eq!(event.event_type, EventType::ObjectChange);
    assert!(tracker.notice(&event));
    assert_eq!(fails(&rig, &mut tracker), ReportError::ErrorState);
    // The restarted tracker is the same number again, or another; of the one after it, it is not.
    let mut other = event;
    other.data[7] = other.data[7].wrapping_add(2);
    assert!(!tracker.notice(&other));
    let mut other = event;
    other.data[3] ^= 1;
    assert!(!tracker.notice(&other));
    assert_eq!(told(&mut tracker), (vec![], Ok(())));

    let numbered = |event_type, at: usize, number: u32| {
        let mut data = [0; 28];
        data[at..at + 4].copy_from_slice(&number.to_be_bytes());
        Event { event_type, sub_type: 0, data }
    };
    for (event_type, at) in [
        (EventType::CqError, 0),
        (EventType::WqCatasError, 24),
        (EventType::WqInvalReqError, 24),
        (EventType::WqAccessError, 24),
    ] {
        let ours: Vec<_> =
            (0..64).filter(|n| tracker.notice(&numbered(event_type, at, *n))).collect();
        let expected = if event_type == EventType::CqError { 1 } else { 2 };
        assert_eq!(ours.len(), expected, "{event_type} {ours:?}");
        assert_eq!(fails(&rig, &mut tracker), ReportError::Queues);
    }
    assert!(!tracker.notice(&numbered(EventType::PortChange, 24, 1)));
}

/// M166: A completion that is an error, and a message that cannot be, are not believed: longer than
/// its buffer or than there are pages, not of whole entries, without an end, of an unknown state.
#[test]
fn messages_that_cannot_be() {
    let whole = range(0, 64 * MIB);
    let refused = |bytes, most, state| ReportError::Message { range: whole, bytes, most, state };
    let completion = |opcode, syndrome| ReportError::Completion { opcode, syndrome };
    type Change = fn(&mut Cqe64);
    let spoilt: [(Change, ReportError); 7] = [
        (|c| _ = c.set_op_own(0xe0).set_sop_drop_qpn(0), completion(0xe, 0)),
        (|c| c.set_op_own(0xd0).as_bytes_mut()[0x37] = 0x12, completion(0xd, 0x12)),
        (|c| _ = c.set_byte_cnt(4104), refused(4104, 4096, 0)),
        (|c| _ = c.set_byte_cnt(u32::MAX), refused(u32::MAX, 4096, 0)),
        (|c| _ = c.set_byte_cnt(12), refused(12, 4096, 0)),
        (|c| _ = c.set_byte_cnt(0).set_immediate(1 << 28), refused(0, 4096, 1)),
        (|c| _ = c.set_immediate(7 << 28), refused(24, 4096, 7)),
    ];
    for (spoil, error) in spoilt {
        let rig = Rig::new();
        let mut tracker = rig.tracker();
        rig.spoil(Spoil::Completion(0, spoil));
        assert_eq!(fails(&rig, &mut tracker), error);
    }
    let rig = Rig::new();
    let mut tracker = rig.tracker();
    rig.spoil(Spoil::Completion(0, |c| _ = c.set_immediate(2 << 28)));
    assert_eq!(fails(&rig, &mut tracker), ReportError::ErrorState);

    // Three pages are asked for, so four cannot be.
    let mut tracker = rig.tracker();
    rig.spoil(Spoil::Completion(0, |c| _ = c.set_byte_cnt(32)));
    let asked = range(0, 3 * PAGE);
    let error = ReportError::Message { range: asked, bytes: 32, most: 24, state: 0 };
    assert_eq!(tracker.report(asked, drop), Err(error));
}

/// M166: A message tells of pages, and of those that were asked for.
#[test]
fn pages_that_cannot_be() {
    for address in [64 * MIB, PAGE + 1, u64::MAX - 4095] {
        let rig = Rig::new();
        let mut tracker = rig.tracker();
        rig.spoil(Spoil::Message(vec![0, address, PAGE]));
        let error = ReportError::Address { range: range(0, 64 * MIB), address };
        assert_eq!(fails(&rig, &mut tracker), error);
    }
}

/// M165, M166: A command that fails makes the log corrupt, and what it said comes out.
#[test]
fn commands_that_fail() {
    let rig = Rig::new();
    let mut tracker = rig.tracker();
    let opcode = Opcode::ModifyGeneralObject;
    rig.firmware.inject(Trigger::AfterOf(opcode, 0), Fault::Status(CommandStatus::NoRes));
    let error = fails(&rig, &mut tracker);
    let ReportError::Command(CommandError::Status { opcode: of, status, .. }) = error else {
        unreachable!("{error}")
    };
    assert_eq!((of, status, error.errno()), (opcode, CommandStatus::NoRes, Errno::EAGAIN));
    let query = Trigger::AfterOf(Opcode::QueryGeneralObject, 0);
    rig.firmware.inject(query, Fault::Status(CommandStatus::BadSysState));
    rig.spoil(Spoil::Swallow);
    let error = fails(&rig, &mut tracker);
    assert!(matches!(error, ReportError::Command(CommandError::Status { .. })), "{error}");
    rig.firmware.detach();
    let gone = ReportError::Command(CommandError::Gone);
    assert_eq!(told(&mut tracker), (tracker.ranges().to_vec(), Err(gone)));
    assert_eq!(gone.errno(), Errno::ENOTCONN);
}
