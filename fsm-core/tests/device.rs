// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! The driver's side: every op in every state, and what proptest makes of it.

use std::fmt::Write;

use expect_test::expect_file;
use proptest::prelude::*;
use vfio_fsm_core::device::{ArcActions, Arrival, DeviceFsm, Memory, ResetGate, SetError, Unlock};
use vfio_fsm_core::{
    EndOfStream, Errno, Fault, Fd, Features, Leaves, Op, RawState, Reply, Route, State,
};

type Device = vfio_fsm_core::device::Device<Memory<4>, 8>;

const BROKEN: Fault = Fault::ArcFails { hop: 0, errno: Errno::EIO, leaves: Leaves::Error };

fn apply(device: &mut Device, op: Op<&[u8]>) -> Reply<Vec<u8>> {
    let mut buf = [0; 64];
    device.apply(op, &mut buf).map(<[u8]>::to_vec)
}

/// A device in this state, reached by one SET from RUNNING; `None` if its flags lack the state.
fn device_in(features: Features, state: State) -> Option<Device> {
    let mut device = Device::new(features, Memory::new());
    if state == State::Error {
        let fault = Some(BROKEN);
        apply(&mut device, Op::SetState { to: State::Stop.into(), fault });
    } else if features.has(state) {
        apply(&mut device, Op::set(state));
    } else {
        return None;
    }
    assert_eq!(device.fsm().state(), state);
    Some(device)
}

fn ops() -> Vec<Op<&'static [u8]>> {
    let fd = Fd(1);
    let mut ops = vec![Op::GetFeatures, Op::GetState, Op::Reset, Op::DataSize, Op::OptInPrecopyV2];
    ops.extend([Op::Read { fd, len: 64 }, Op::Write { fd, bytes: b"F1234".as_slice() }]);
    ops.extend([Op::UringRead { fd, len: 2 }, Op::Pread { fd, len: 1 }, Op::Seek { fd }]);
    ops.extend([Op::Poll { fd }, Op::PrecopyInfo { fd }, Op::FdFlags { fd }, Op::CloseFd { fd }]);
    ops.extend([Op::Touch(7), Op::Open, Op::Close]);
    let raw = (0..9).chain([u32::MAX]).map(RawState);
    for to in raw {
        let faults = [
            None,
            Some(Fault::FdTableFull),
            Some(Fault::ResetInside),
            Some(Fault::ArcFails { hop: 0, errno: Errno::EIO, leaves: Leaves::Source }),
            Some(Fault::ArcFails { hop: 1, errno: Errno::EIO, leaves: Leaves::Source }),
            Some(Fault::ArcFails { hop: 1, errno: Errno::EIO, leaves: Leaves::Error }),
        ];
        ops.extend(faults.map(|fault| Op::SetState { to, fault }));
    }
    ops
}

/// Every op in every state of every flag set: what is answered, where the device is then, and
/// whether the data_fd still lives. To be read as a diff.
#[test]
fn matrix_snapshot() {
    let mut text = String::new();
    for features in Features::SETS {
        for state in State::ALL {
            let Some(device) = device_in(features, state) else { continue };
            writeln!(text, "# {features}, {state}").expect("a string takes it");
            for op in ops() {
                let mut after = device;
                let reply = apply(&mut after, op);
                let at = after.fsm().state();
                let live = (1..=2).filter(|&n| after.is_live(Fd(n))).map(|n| format!(" fd#{n}"));
                let live: String = live.collect();
                writeln!(text, "{op} => {reply}; {at}{live}").expect("a string takes it");
            }
        }
    }
    expect_file!["snapshots/matrix.txt"].assert_eq(&text);
}

/// C7, C9, R8: a refused SET changes nothing; one that fails on the way leaves the device at the
/// beginning of the arc that failed, or in ERROR without a session.
#[test]
fn failed_sets_leave_what_they_say() {
    for features in Features::SETS {
        for from in State::ALL {
            let Some(mut before) = device_in(features, from) else { continue };
            // So that RESUMING -> STOP does not fail of itself.
            apply(&mut before, Op::Write { fd: Fd(1), bytes: b"F1234".as_slice() });
            for to in State::ALL {
                let Ok(route) = Route::new(features, from, to) else {
                    let mut after = before;
                    assert_eq!(apply(&mut after, Op::set(to)), Reply::Errno(Errno::EINVAL));
                    assert_eq!(after, before, "refused, so nothing has changed");
                    continue;
                };
                for (hop, arc) in (0u8..).zip(route.arcs()) {
                    for leaves in [Leaves::Source, Leaves::Error] {
                        let fault = Some(Fault::ArcFails { hop, errno: Errno::EIO, leaves });
                        let mut after = before;
                        let reply = apply(&mut after, Op::SetState { to: to.into(), fault });
                        assert_eq!(reply, Reply::Errno(Errno::EIO));
                        let at = match leaves {
                            Leaves::Source => arc.from(),
                            Leaves::Error => State::Error,
                        };
                        assert_eq!(after.fsm().state(), at, "{route}, {arc}");
                        assert_eq!(after.fsm().session().is_some(), at.session().is_some());
                    }
                }
            }
        }
    }
}

/// C2: with no room in the fd table the device moves all the same, and its session is open.
#[test]
fn no_fd_but_moved() {
    let mut device = device_in(Features::ALL, State::Running).expect("RUNNING exists");
    let to = State::PreCopy.into();
    let reply = apply(&mut device, Op::SetState { to, fault: Some(Fault::FdTableFull) });
    assert_eq!(reply, Reply::Errno(Errno::EMFILE));
    assert_eq!(device.fsm().state(), State::PreCopy);
    assert!(device.fsm().session().is_some());
    assert_eq!(apply(&mut device, Op::Read { fd: Fd(1), len: 1 }), Reply::Errno(Errno::EBADF));
    assert_eq!(apply(&mut device, Op::set(State::StopCopy)), Reply::Fd(None), "same session");
    let more = Op::SetState { to: State::Running.into(), fault: Some(Fault::FdTableFull) };
    assert_eq!(apply(&mut device, more), Reply::Fd(None), "no fd is needed, so none is missing");
}

/// T6, C29, C30: every interleaving of three operations and two resets at the gate: a reset never
/// waits, and each is done before the lock is free again.
#[test]
fn the_gate_loses_no_reset() {
    #[derive(Clone, Copy)]
    struct World {
        gate: ResetGate,
        held: bool,
        ops: u8,
        resets: u8,
        owed: bool,
    }
    fn step(world: World) -> usize {
        let mut seen = 1;
        assert!(world.held || !world.owed, "free, with a reset owed");
        assert_eq!(world.gate.is_waiting(), world.owed);
        if world.ops > 0 && !world.held {
            seen += step(World { ops: world.ops - 1, held: true, ..world });
        }
        if world.resets > 0 {
            let mut next = World { resets: world.resets - 1, owed: true, held: true, ..world };
            let arrival = next.gate.arrive(|| !world.held);
            assert_eq!(arrival == Arrival::Deferred, world.held);
            seen += step(next);
        }
        if world.held {
            let mut next = world;
            match next.gate.unlock(|| next.held = false) {
                Unlock::ResetFirst => next.owed = false,
                Unlock::Released => assert!(!next.held),
            }
            seen += step(next);
        }
        seen
    }
    let world = World { gate: ResetGate::new(), held: false, ops: 3, resets: 2, owed: false };
    assert!(step(world) > 100);
}

/// O4, C29, C32: a reset inside a SET that succeeds: the fd is dead on arrival, the device RUNNING.
#[test]
fn a_reset_inside_a_set_that_succeeds() {
    for to in [State::PreCopy, State::StopCopy, State::Resuming, State::Stop] {
        let mut device = device_in(Features::ALL, State::Running).expect("RUNNING exists");
        let fault = Some(Fault::ResetInside);
        let reply = apply(&mut device, Op::SetState { to: to.into(), fault });
        assert_eq!(device.fsm().state(), State::Running);
        if to == State::Stop {
            assert_eq!(reply, Reply::Fd(None), "nothing but GET shows it");
        } else {
            assert_eq!(reply, Reply::Fd(Some(Fd(1))));
            assert!(!device.is_live(Fd(1)));
        }
    }
}

/// R11, R31, R32: the stream survives any segmentation, and its ends are what the state says.
#[test]
fn a_stream_is_the_same_in_any_pieces() {
    for (read, write) in [(1, 1), (1, 5), (2, 3), (3, 2), (64, 64)] {
        let mut source = device_in(Features::ALL, State::Running).expect("RUNNING exists");
        let mut stream = Vec::new();
        let mut drain = |device: &mut Device| {
            loop {
                match apply(device, Op::Read { fd: Fd(1), len: read }) {
                    Reply::Bytes(bytes) => stream.extend(bytes),
                    Reply::EndOfStream(end) => return end,
                    other => panic!("{other}"),
                }
            }
        };
        apply(&mut source, Op::Touch(0x11));
        apply(&mut source, Op::set(State::PreCopy));
        assert_eq!(drain(&mut source), EndOfStream::Temporary);
        apply(&mut source, Op::Touch(0x22));
        assert_eq!(drain(&mut source), EndOfStream::Temporary);
        apply(&mut source, Op::Touch(0x33));
        assert_eq!(apply(&mut source, Op::set(State::StopCopy)), Reply::Fd(None));
        assert_eq!(drain(&mut source), EndOfStream::Permanent);
        assert_eq!(drain(&mut source), EndOfStream::Permanent, "and it stays so");
        assert_eq!(stream, b"P\x11\x11\x11\x11P\x22\x22\x22\x22F\x33\x33\x33\x33");

        let mut target = device_in(Features::ALL, State::Resuming).expect("RESUMING exists");
        for bytes in stream.chunks(write) {
            let reply = apply(&mut target, Op::Write { fd: Fd(1), bytes });
            assert_eq!(reply, Reply::Written(bytes.len() as u32));
        }
        assert_eq!(apply(&mut target, Op::set(State::Running)), Reply::Fd(None));
        assert_eq!(target.actions().registers(), &[0x33; 4]);
    }
}

/// R29: what is short, long or no stream at all is refused on RESUMING to STOP.
#[test]
fn bad_streams_are_refused() {
    let good = b"F1234";
    for len in 0..=8 {
        let mut device = device_in(Features::ALL, State::Resuming).expect("RESUMING exists");
        let bytes: Vec<u8> = good.iter().copied().cycle().take(len).collect();
        for piece in bytes.chunks(2) {
            apply(&mut device, Op::Write { fd: Fd(1), bytes: piece });
        }
        let want = if len == 5 { Reply::Fd(None) } else { Reply::Errno(Errno::EINVAL) };
        assert_eq!(apply(&mut device, Op::set(State::Stop)), want, "{len} bytes");
    }
    let mut device = device_in(Features::ALL, State::Resuming).expect("RESUMING exists");
    let garbage = Op::Write { fd: Fd(1), bytes: b"garbage".as_slice() };
    assert_eq!(apply(&mut device, garbage), Reply::Errno(Errno::EINVAL));
    assert_eq!(apply(&mut device, Op::set(State::Stop)), Reply::Errno(Errno::EINVAL));
    assert_eq!(device.fsm().state(), State::Resuming, "only a reset aborts (R15)");
    assert_eq!(apply(&mut device, Op::Reset), Reply::Ok);
    assert_eq!(device.fsm().state(), State::Running);
}

/// Errors say what was asked, where the device was, and what to do.
#[test]
fn errors_carry_the_whole_story() {
    struct Refuses;
    impl ArcActions for Refuses {
        fn arc(
            &mut self,
            arc: vfio_fsm_core::Arc,
        ) -> Result<(), vfio_fsm_core::device::ArcFailure> {
            if arc.to() == State::Stop { Err(Errno::EIO.into()) } else { Ok(()) }
        }
        fn end_session(&mut self) {}
        fn reset(&mut self) {}
    }
    let mut fsm = DeviceFsm::new(Features::ALL);
    let error = fsm.set_state(State::StopCopy.into(), &mut Refuses).unwrap_err();
    assert!(matches!(error, SetError::Failed(failed) if failed.at == State::RunningP2p));
    assert_eq!(
        error.to_string(),
        "SET(STOP_COPY) in RUNNING failed with EIO on RUNNING_P2P -> STOP, the device is in \
         RUNNING_P2P; allowed there: \
         STOP|RUNNING|STOP_COPY|RESUMING|RUNNING_P2P|PRE_COPY|PRE_COPY_P2P (a reset always is)"
    );
    assert_eq!(error.errno(), Errno::EIO);
}

fn any_op() -> impl Strategy<Value = Op<&'static [u8]>> {
    let fd = (1u32..6).prop_map(Fd);
    prop_oneof![
        6 => (0u32..9, 0u8..10).prop_map(|(to, fault)| Op::SetState {
            to: RawState(to),
            fault: match fault {
                0 => Some(Fault::FdTableFull),
                1 => Some(Fault::ResetInside),
                2 => Some(BROKEN),
                3 => Some(Fault::ArcFails { hop: 1, errno: Errno::EIO, leaves: Leaves::Source }),
                _ => None,
            },
        }),
        1 => Just(Op::Reset),
        1 => (1u8..4).prop_map(Op::Touch),
        2 => (fd.clone(), 0u32..9).prop_map(|(fd, len)| Op::Read { fd, len }),
        2 => fd.clone().prop_map(|fd| Op::Write { fd, bytes: b"F1234".as_slice() }),
        1 => fd.clone().prop_map(|fd| Op::PrecopyInfo { fd }),
        1 => fd.clone().prop_map(|fd| Op::Poll { fd }),
        1 => fd.prop_map(|fd| Op::CloseFd { fd }),
        1 => Just(Op::Close),
        1 => Just(Op::Open),
    ]
}

proptest! {
    /// C12, C13, C15: whatever is done, a session exists exactly in the states that have one, at
    /// most one fd reaches it, and one that was dead stays dead.
    #[test]
    fn sessions_and_fds_agree_with_the_state(
        set in 0usize..4,
        ops in proptest::collection::vec(any_op(), 0..60),
    ) {
        let mut device = Device::new(Features::SETS[set], Memory::new());
        let mut dead = Vec::new();
        for op in ops {
            let reply = apply(&mut device, op);
            let fsm = device.fsm();
            prop_assert_eq!(fsm.session().is_some(), fsm.state().session().is_some());
            prop_assert!(fsm.features().has(fsm.state()));
            let open: Vec<Fd> = device.fds().open().map(|open| open.fd).collect();
            prop_assert!(open.iter().filter(|&&fd| device.is_live(fd)).count() <= 1);
            prop_assert!(!open.iter().any(|&fd| device.is_live(fd) && dead.contains(&fd)));
            dead.extend(open.into_iter().filter(|&fd| !device.is_live(fd)));
            if op == Op::Reset && reply == Reply::Ok {
                prop_assert_eq!(device.fsm().state(), State::Running);
            }
        }
    }

    /// The renumbering that keeps a checker's state space finite changes no answer.
    #[test]
    fn renumbered_devices_answer_alike(ops in proptest::collection::vec(any_op(), 0..200)) {
        let mut plain = Device::new(Features::ALL, Memory::new());
        let mut renumbered = plain;
        for op in ops {
            let (a, b) = (nth_open(op, &plain), nth_open(op, &renumbered));
            match (apply(&mut plain, a), apply(&mut renumbered, b)) {
                (Reply::Fd(a), Reply::Fd(b)) => prop_assert_eq!(a.is_some(), b.is_some()),
                (a, b) => prop_assert_eq!(a, b),
            }
            renumbered = renumbered.renumbered();
            prop_assert_eq!(plain.renumbered(), renumbered);
        }
    }
}

/// The op with its fd n taken as the n-th open one of this device, or as one that is not open.
fn nth_open(op: Op<&'static [u8]>, device: &Device) -> Op<&'static [u8]> {
    let mut open: Vec<Fd> = device.fds().open().map(|open| open.fd).collect();
    open.sort();
    op.map_fd(|fd| open.get(fd.0 as usize - 1).copied().unwrap_or(Fd(0)))
}
