// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! The data_fd as an fd: its flags, misuse, closing by the user, the device closed under it, and
//! what happens when it cannot be handed out.

use vfio_fsm_core::{Direction, Fault, Fd, Features, Op, SessionEffect, State, arcs};

use crate::suite::Suite;
use crate::suite::script::{READ, Script};
use crate::suite::ways::{Way, ways};
use crate::trace::{Amount, Data, Expect, Trace};

/// Why going on from a state that a closed device has kept is dangerous.
const KEPT_STATE: &str =
    "a driver that keeps its state while closed may follow a session that is gone";

pub(super) fn generate(features: Features) -> Vec<Trace> {
    let mut traces = Vec::new();
    for way in ways(Suite::Fds, features) {
        traces.extend(same_state(&way));
        traces.push(reopened(&way, None));
        for onward in [State::Running, State::StopCopy] {
            traces.push(reopened(&way, Some(onward)));
        }
        if way.script.state().session().is_some() {
            traces.push(misuse(&way));
            traces.push(closed_by_user(&way));
        }
    }
    for arc in arcs(features) {
        if let SessionEffect::Opens(_) = arc.session() {
            traces.push(not_installed(features, arc.from(), arc.to()));
            traces.push(first_look(features, arc.from(), arc.to()));
        }
    }
    traces.push(two_sessions(features));
    traces.push(two_resuming_sessions(features));
    traces
}

fn same_state(way: &Way) -> Option<Trace> {
    let state = way.script.state();
    let mut script = way.script.named("same-state");
    if state == State::Error {
        return None;
    }
    script.set(state).get();
    if let Some(fd) = script.last_fd() {
        script.op(Op::Poll { fd });
    }
    Some(script.finish())
}

/// Flags, and everything a stream in one direction must refuse.
fn misuse(way: &Way) -> Trace {
    let mut script = way.script.named("misuse");
    if let Some(fd) = script.last_fd() {
        script.op(Op::FdFlags { fd }).op(Op::Seek { fd });
        match script.way(fd) {
            Some(Direction::Saving) => {
                script.write(fd, Data::Fill { byte: 0, len: 1 }).op(Op::Pread { fd, len: 1 });
                script.op(Op::Read { fd, len: READ });
            }
            _ => {
                script.op(Op::Read { fd, len: READ }).op(Op::PrecopyInfo { fd });
                script.op(Op::Pread { fd, len: 1 });
            }
        }
    }
    script.get();
    script.finish()
}

/// The user closes his data_fd: the session goes on without him.
fn closed_by_user(way: &Way) -> Trace {
    let mut script = way.script.named("closed-by-user");
    script.covers(&["C14", "C21"]);
    if let Some(fd) = script.last_fd() {
        script.op(Op::CloseFd { fd }).get().op(Op::Read { fd, len: 1 }).op(Op::CloseFd { fd });
    }
    match script.state() {
        // Within the session: no new fd, so the bytes are out of reach.
        State::PreCopy | State::PreCopyP2p => script.set(State::StopCopy).get(),
        State::StopCopy => script.set(State::StopCopy).get(),
        _ => script.op(Op::Reset),
    };
    script.set(State::Running).get().set(State::StopCopy);
    if let Some(fd) = script.last_fd() {
        script.drain(fd, READ, 1);
    }
    script.set(State::Running).get();
    script.finish()
}

/// The device is closed and opened again: RUNNING, and the old data_fd is dead and harmless.
fn reopened(way: &Way, onward: Option<State>) -> Trace {
    let name = onward.map_or("reopened".to_owned(), |to| format!("reopened-to-{to}"));
    let mut script = way.script.named(&name);
    script.covers(&["C25"]).op(Op::Close);
    if let Some(fd) = script.last_fd() {
        script.op(Op::Poll { fd });
        match script.way(fd) {
            Some(Direction::Saving) => script.op(Op::Read { fd, len: READ }),
            _ => script.write(fd, Data::Fill { byte: 0, len: 1 }),
        };
    }
    script.op(Op::Open).get();
    if let Some(to) = onward {
        script.dangerous(KEPT_STATE).set(to).get();
    }
    script.finish()
}

/// No room in the fd table: the device has moved, and its session is nobody's.
fn not_installed(features: Features, from: State, to: State) -> Trace {
    let name = format!("not-installed-{from}-{to}");
    let mut script = Script::new(Suite::Fds, features, &name, &["C21", "T5"]);
    script.set(from);
    script.op(Op::SetState { to: to.into(), fault: Some(Fault::FdTableFull) }).get().set(to);
    match to.session() {
        Some(Direction::Resuming) => script.op(Op::Reset),
        _ => script.set(State::Running),
    };
    script.get().set(State::StopCopy);
    if let Some(fd) = script.last_fd() {
        script.drain(fd, READ, 0);
    }
    script.set(State::Running).get();
    script.finish()
}

/// A session just opened: what it says of itself before the first byte.
fn first_look(features: Features, from: State, to: State) -> Trace {
    let name = format!("first-look-{from}-{to}");
    let mut script = Script::new(Suite::Fds, features, &name, &[]);
    script.set(from).set(to).op(Op::GetFeatures);
    if let Some(fd) = script.last_fd() {
        script.op(Op::FdFlags { fd }).op(Op::Poll { fd });
        if to.is_pre_copy() {
            let some = Expect::Info { initial: Amount::Some, dirty: Amount::Zero };
            script.covers(&["R35", "R36"]).expect(Op::PrecopyInfo { fd }, some);
            script.drain(fd, READ, 0).op(Op::PrecopyInfo { fd }).op(Op::Poll { fd });
        } else {
            script.op(Op::PrecopyInfo { fd });
        }
    }
    script.get();
    script.finish()
}

/// Two sessions one after the other; the fd of the first is dead all through the second.
fn two_sessions(features: Features) -> Trace {
    let mut script = Script::new(Suite::Fds, features, "two-sessions", &["C13", "C21"]);
    let first = if features.pre_copy() { State::PreCopy } else { State::StopCopy };
    script.set(first);
    let old = Fd(1);
    script.op(Op::Read { fd: old, len: 1 }).set(State::Running);
    script.op(Op::Read { fd: old, len: READ }).op(Op::PrecopyInfo { fd: old });
    script.set(first);
    script.op(Op::Read { fd: old, len: READ }).op(Op::PrecopyInfo { fd: old });
    script.op(Op::UringRead { fd: old, len: READ }).op(Op::Poll { fd: old });
    let new = Fd(2);
    script.drain(new, READ, 0).op(Op::CloseFd { fd: old });
    script.op(Op::PrecopyInfo { fd: new }).set(State::Running).get();
    script.finish()
}

/// What is written to the fd of an aborted RESUMING does not reach the next one.
fn two_resuming_sessions(features: Features) -> Trace {
    let covers = ["C13", "C20", "C21"];
    let mut script = Script::new(Suite::Fds, features, "two-resuming-sessions", &covers);
    script.set(State::StopCopy).drain(Fd(1), READ, 0).set(State::Resuming);
    let (old, new) = (Fd(2), Fd(3));
    script.write(old, Data::Slot { slot: 0, part: 0, of: 2, drop: 0, add: 0 });
    script.op(Op::Reset).set(State::Resuming);
    for part in [0, 1] {
        let half = Data::Slot { slot: 0, part, of: 2, drop: 0, add: 0 };
        script.write(old, half.clone()).write(new, half);
    }
    script.op(Op::Poll { fd: old }).set(State::Running).get();
    script.finish()
}
