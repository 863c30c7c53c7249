// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! What goes wrong around a device: arcs that fail in every way, no room for a data_fd, the device
//! closed under its sessions, streams damaged at every byte and every bit.
//!
//! What must hold is the same each time: the device answers, its state is a legal one, and a session
//! begun afterwards is as good as any. Whether a stream that was damaged is taken for a good one is
//! up to the device where its format has no checksum.

use vfio_fsm_core::{Direction, Errno, Fault, Fd, Features, Leaves, Op, RawState, Route, State};

use crate::suite::Suite;
use crate::suite::script::{READ, Script};
use crate::suite::ways::{Way, ways};
use crate::trace::{Data, Expect, Trace};

/// Bytes of a stream that are damaged one by one: all of the reference device's, the last or first
/// of a longer one.
const BYTES: u32 = 24;

/// Why an arc may fail: no memory, a bad value, three kinds of "not now", the device gone, no sense.
const ERRNOS: [Errno; 7] = [
    Errno::ENOMEM,
    Errno::EINVAL,
    Errno::EBUSY,
    Errno::EAGAIN,
    Errno::ENODEV,
    Errno::ENOTCONN,
    Errno::EPROTO,
];

pub(super) fn generate(features: Features) -> Vec<Trace> {
    let mut traces = Vec::new();
    for way in ways(Suite::Faults, features) {
        traces.push(closed(&way));
        if way.script.state().session().is_some() {
            traces.extend([reset_behind_user(&way), outlives(&way)]);
        }
    }
    for from in State::ALL {
        for to in State::ALL {
            let Ok(route) = Route::new(features, from, to) else { continue };
            traces.push(failing(features, route));
            if route.opens().is_some() {
                traces.push(no_room(features, route));
            }
        }
    }
    traces.push(no_room_needed(features));
    traces.extend([false, true].map(|uring| readers(features, uring)));
    traces.push(lengths(features));
    for first in (1..=BYTES).step_by(8) {
        traces.push(truncated(features, first..first + 8));
    }
    traces.extend((0..BYTES).map(|byte| flipped(features, byte)));
    traces.extend(rearranged(features));
    traces.extend(spliced(features));
    traces
}

/// Closed in this state: nothing can be asked of the device, nothing of its data_fd, and who opens
/// it next and resets it has a device as good as new.
fn closed(way: &Way) -> Trace {
    let mut script = way.script.named("closed");
    script.covers(&["C25", "C21"]).op(Op::Close);
    for op in [Op::GetState, Op::GetFeatures, Op::DataSize, Op::Reset, Op::Close] {
        script.op(op);
    }
    script.set(State::Running).set(State::StopCopy);
    let old = script.last_fd();
    if let Some(fd) = old {
        ask_dead(&mut script, fd);
    }
    script.op(Op::Open).op(Op::Reset).get();
    if let Some(fd) = old {
        ask_dead(&mut script, fd);
        script.op(Op::CloseFd { fd });
    }
    good_session(&mut script);
    script.finish()
}

/// The user closes his data_fd, and then the device is reset: there is nobody to tell.
fn reset_behind_user(way: &Way) -> Trace {
    let mut script = way.script.named("fd-closed-then-reset");
    script.covers(&["C14", "C15", "C21"]);
    if let Some(fd) = script.last_fd() {
        script.op(Op::CloseFd { fd }).op(Op::Reset).get().op(Op::Poll { fd });
    }
    good_session(&mut script);
    script.finish()
}

/// A data_fd is kept for two lives of the device, and a session in each of them.
fn outlives(way: &Way) -> Trace {
    let mut script = way.script.named("fd-outlives-device");
    script.covers(&["C13", "C25", "C21"]);
    if let Some(old) = script.last_fd() {
        for _ in 0..2 {
            script.op(Op::Close).op(Op::Open).op(Op::Reset);
            good_session(&mut script);
            ask_dead(&mut script, old);
        }
        script.op(Op::CloseFd { fd: old }).op(Op::Read { fd: old, len: 1 });
    }
    script.finish()
}

/// Everybody who asks a data_fd whose session is over.
fn ask_dead(script: &mut Script, fd: Fd) {
    match script.way(fd) {
        Some(Direction::Saving) => script.op(Op::Read { fd, len: READ }),
        _ => script.write(fd, Data::Fill { byte: 0, len: 1 }),
    };
    script.op(Op::Poll { fd });
}

/// From RUNNING, a whole session and back.
fn good_session(script: &mut Script) {
    script.set(State::StopCopy);
    if let Some(fd) = script.last_fd() {
        script.drain(fd, READ, 7).set(State::Running).get().op(Op::CloseFd { fd });
    }
}

/// Go there, from RUNNING. RESUMING gets a stream that can be loaded, which slot 0 has.
fn go(script: &mut Script, to: State) {
    if to == State::Error {
        return;
    }
    script.set(to);
    if let (State::Resuming, Some(fd)) = (to, script.last_fd()) {
        script.write(fd, Data::slot(0));
    }
}

/// Each arc of a route fails, with each errno, undone and into ERROR; a reset mends it each time.
fn failing(features: Features, route: Route) -> Trace {
    let (from, to) = (route.from(), route.to());
    let name = format!("failing-{from}-to-{to}");
    let mut script = Script::new(Suite::Faults, features, &name, &["C21"]);
    save(&mut script, 0);
    for hop in 0..route.len() as u8 {
        for errno in ERRNOS {
            for leaves in [Leaves::Source, Leaves::Error] {
                go(&mut script, from);
                let fault = Some(Fault::ArcFails { hop, errno, leaves });
                script.op(Op::SetState { to: to.into(), fault }).get();
                script.op(Op::Reset).get();
                for (fd, _) in script.open_fds() {
                    script.op(Op::CloseFd { fd });
                }
            }
        }
    }
    good_session(&mut script);
    script.finish()
}

/// A long way to a new session with no room for its data_fd: the device has arrived all the same,
/// the session is nobody's, and the way out is open.
fn no_room(features: Features, route: Route) -> Trace {
    let (from, to) = (route.from(), route.to());
    let name = format!("no-room-{from}-to-{to}");
    let mut script = Script::new(Suite::Faults, features, &name, &["C21"]);
    save(&mut script, 0);
    go(&mut script, from);
    let full = Some(Fault::FdTableFull);
    script.op(Op::SetState { to: to.into(), fault: full }).get().set(to).get();
    match to.session() {
        Some(Direction::Resuming) => script.op(Op::Reset),
        _ => script.set(State::Running),
    };
    script.get();
    good_session(&mut script);
    script.finish()
}

/// A full fd table is nothing to a SET that opens no session.
fn no_room_needed(features: Features) -> Trace {
    let mut script = Script::new(Suite::Faults, features, "no-room-needed", &["C2"]);
    for to in [State::Stop, State::Stop, State::RunningP2p, State::Running, State::Error] {
        let fault = Some(Fault::FdTableFull);
        script.op(Op::SetState { to: to.into(), fault }).get();
    }
    good_session(&mut script);
    script.finish()
}

/// Three who read one data_fd one after the other, each in his own way: together they have it all.
fn readers(features: Features, uring: bool) -> Trace {
    let name = if uring { "readers-uring" } else { "readers" };
    let mut script = Script::new(Suite::Faults, features, name, &["R11", "C21", "T5"]);
    script.on(1).op(Op::Touch(0x33)).on(0).op(Op::Touch(0x5a));
    save(&mut script, 0);
    script.set(State::StopCopy);
    if let Some(fd) = script.last_fd() {
        script.keep(Op::Read { fd, len: 1 }, 1);
        let second = if uring { Op::UringRead { fd, len: 7 } } else { Op::Read { fd, len: 7 } };
        script.keep(second, 2).drain(fd, READ, 3).set(State::Running).op(Op::CloseFd { fd });
    }
    script.on(1).set(State::Resuming);
    if let Some(fd) = script.last_fd() {
        script.write(fd, Data::slot(1)).write(fd, Data::slot(2)).write(fd, Data::slot(3));
    }
    script.set(State::Running).get();
    compare(&mut script);
    script.finish()
}

/// Writes of two bytes, of nothing, around the size of a page, and of far more than any stream has.
fn lengths(features: Features) -> Trace {
    let mut script = Script::new(Suite::Faults, features, "lengths", &["R29", "C20", "C21"]);
    script.op(Op::Touch(0x5a));
    save(&mut script, 0);
    load(&mut script, vec![Data::Hex(vec![0x46, 0x03])], Expect::Failure);
    for len in [0, 1, 4095, 4096, 4097, 65536, 1 << 20, 16 << 20] {
        load(&mut script, vec![Data::Fill { byte: 0xa5, len }], Expect::Failure);
    }
    let behind = vec![Data::slot(0), Data::Fill { byte: 0xa5, len: 16 << 20 }];
    load(&mut script, behind, either());
    good_load(&mut script);
    script.finish()
}

/// So many bytes short.
fn truncated(features: Features, short: std::ops::Range<u32>) -> Trace {
    let name = format!("truncated-from-{}", short.start);
    let mut script = Script::new(Suite::Faults, features, &name, &["R29", "C20", "C21"]);
    script.op(Op::Touch(0x5a));
    save(&mut script, 0);
    for drop in short {
        let bytes = Data::Slot { slot: 0, part: 0, of: 1, drop, add: 0 };
        load(&mut script, vec![bytes], Expect::Failure);
    }
    good_load(&mut script);
    script.finish()
}

/// Each bit of a byte the other way round.
fn flipped(features: Features, byte: u32) -> Trace {
    let name = format!("flipped-byte-{byte}");
    let mut script = Script::new(Suite::Faults, features, &name, &["R29", "C20", "C21"]);
    script.op(Op::Touch(0x5a));
    save(&mut script, 0);
    for bit in byte * 8..byte * 8 + 8 {
        load(&mut script, vec![Data::Flipped { slot: 0, bit }], either());
    }
    good_load(&mut script);
    script.finish()
}

/// The parts of a stream in another order, or one of them twice. A device whose format has parts
/// that stand for themselves may take it.
fn rearranged(features: Features) -> Vec<Trace> {
    let part = |part, of| Data::Slot { slot: 0, part, of, drop: 0, add: 0 };
    let cases = [
        ("twice", vec![Data::slot(0), Data::slot(0)]),
        ("first-half-twice", vec![part(0, 2), part(0, 2), part(1, 2)]),
        ("second-half-twice", vec![part(0, 2), part(1, 2), part(1, 2)]),
        ("backwards", vec![part(3, 4), part(2, 4), part(1, 4), part(0, 4)]),
        ("middle-swapped", vec![part(0, 4), part(2, 4), part(1, 4), part(3, 4)]),
        ("middle-missing", vec![part(0, 4), part(1, 4), part(3, 4)]),
        ("begun-again", vec![part(0, 2), Data::slot(0)]),
    ];
    let trace = |(name, pieces)| {
        let covers = ["R28", "R29", "C20", "C21"];
        let mut script = Script::new(Suite::Faults, features, name, &covers);
        script.op(Op::Touch(0x5a));
        save(&mut script, 0);
        load(&mut script, pieces, either());
        good_load(&mut script);
        script.finish()
    };
    cases.into_iter().map(trace).collect()
}

/// Pieces of two sessions in one (R28): of two images, and of what two sessions said in PRE_COPY and
/// in STOP_COPY.
fn spliced(features: Features) -> Vec<Trace> {
    let covers = ["R28", "R29", "C20", "C21"];
    let half = |slot, part| Data::Slot { slot, part, of: 2, drop: 0, add: 0 };
    let mut images = Script::new(Suite::Faults, features, "spliced-images", &covers);
    images.op(Op::Touch(0xa5));
    save(&mut images, 1);
    images.op(Op::Touch(0x5a));
    save(&mut images, 0);
    for pieces in [[half(0, 0), half(1, 1)], [half(1, 0), half(0, 1)], [half(0, 1), half(1, 0)]] {
        load(&mut images, pieces.into(), either());
    }
    good_load(&mut images);
    let mut traces = vec![images.finish()];
    if features.pre_copy() {
        let mut phases = Script::new(Suite::Faults, features, "spliced-phases", &covers);
        for (value, slot) in [(0xa5, 1), (0x5a, 3)] {
            phases.op(Op::Touch(value)).set(State::PreCopy);
            if let Some(fd) = phases.last_fd() {
                phases.drain(fd, READ, slot).set(State::StopCopy).drain(fd, READ, slot + 1);
                phases.set(State::Running).op(Op::CloseFd { fd });
            }
        }
        save(&mut phases, 0);
        for [first, second] in [[1, 4], [3, 2], [2, 1], [1, 3]] {
            load(&mut phases, vec![Data::slot(first), Data::slot(second)], either());
        }
        good_load(&mut phases);
        traces.push(phases.finish());
    }
    traces
}

/// A load that a device may refuse or not.
fn either() -> Expect {
    Expect::AnyOf(vec![Expect::NoFd, Expect::Failure])
}

/// What device 0 says of itself, into a slot.
fn save(script: &mut Script, slot: u8) {
    script.on(0).set(State::StopCopy);
    if let Some(fd) = script.last_fd() {
        script.drain(fd, READ, slot).set(State::Running).op(Op::CloseFd { fd });
    }
}

/// Load this into device 1, which may refuse any of it; then reset it.
fn load(script: &mut Script, pieces: Vec<Data>, loaded: Expect) {
    script.on(1).set(State::Resuming);
    let Some(fd) = script.last_fd() else { return };
    for bytes in pieces {
        let taken = Expect::AnyOf(vec![Expect::Written, Expect::Failure]);
        script.expect(Op::Write { fd, bytes }, taken);
    }
    let mut states = vec![State::Resuming, State::Error];
    if loaded != Expect::Failure {
        states.push(State::Stop);
    }
    let states = states.into_iter().map(RawState::from).collect();
    script.expect(Op::set(State::Stop), loaded);
    script.expect(Op::GetState, Expect::State(states));
    script.op(Op::Reset).get().write(fd, Data::Fill { byte: 0, len: 1 }).op(Op::CloseFd { fd });
}

/// Load slot 0 into device 1, which then says of itself what device 0 said.
fn good_load(script: &mut Script) {
    script.on(1).set(State::Resuming);
    if let Some(fd) = script.last_fd() {
        script.write(fd, Data::slot(0)).set(State::Running).get().op(Op::CloseFd { fd });
    }
    compare(script);
}

/// Device 1 says of itself what is in slot 0.
fn compare(script: &mut Script) {
    script.on(1).set(State::StopCopy);
    if let Some(fd) = script.last_fd() {
        script.drain_same(fd, 0).set(State::Running).op(Op::CloseFd { fd });
    }
}
