// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! A reset in every state, its session untouched, begun or drained: the state after, what the dead
//! data_fd says to everybody who asks it, and whether the next session is a good one.

use vfio_fsm_core::{Direction, Fault, Fd, Features, Op, State};

use crate::suite::Suite;
use crate::suite::script::{READ, Script};
use crate::suite::ways::ways;
use crate::trace::{Data, Trace};

/// How far the session has gone when the reset comes.
#[derive(Clone, Copy)]
enum Used {
    Untouched,
    Begun,
    Drained,
}

impl Used {
    const ALL: [Self; 3] = [Self::Untouched, Self::Begun, Self::Drained];

    const fn name(self) -> &'static str {
        match self {
            Self::Untouched => "untouched",
            Self::Begun => "begun",
            Self::Drained => "drained",
        }
    }
}

pub(super) fn generate(features: Features) -> Vec<Trace> {
    let mut traces = Vec::new();
    for way in ways(Suite::Resets, features) {
        let session = way.script.state().session();
        let uses = if session.is_some() && way.name != "RESUMING-loaded" {
            &Used::ALL[..]
        } else {
            &Used::ALL[..1]
        };
        for &used in uses {
            let mut script = way.script.named(used.name());
            use_session(&mut script, session, used);
            traces.push(after_reset(script));
        }
        traces.push(twice(&way.script));
    }
    traces.extend(inside_set(features));
    traces.extend(forgets(features));
    if features.pre_copy() {
        traces.extend(observations(features));
    }
    traces
}

fn use_session(script: &mut Script, session: Option<Direction>, used: Used) {
    let Some(fd) = script.last_fd() else { return };
    match (session, used) {
        (None, _) | (_, Used::Untouched) => {}
        (Some(Direction::Saving), Used::Begun) => {
            script.op(Op::Read { fd, len: 1 });
        }
        (Some(Direction::Saving), Used::Drained) => {
            script.drain(fd, READ, 1);
        }
        // A device may look at the first byte or not.
        (Some(Direction::Resuming), _) => {
            save_on_destination(script);
            let of = if let Used::Begun = used { 2 } else { 1 };
            script.write(fd, Data::Slot { slot: 2, part: 0, of, drop: 0, add: 0 });
        }
    }
}

/// A good stream into slot 2, from the other device.
fn save_on_destination(script: &mut Script) {
    script.on(1).set(State::StopCopy);
    if let Some(fd) = script.last_fd() {
        script.drain(fd, READ, 2);
    }
    script.on(0);
}

fn after_reset(mut script: Script) -> Trace {
    script.op(Op::Reset).get();
    let old = script.last_fd();
    if let Some(fd) = old {
        ask_dead(&mut script, fd);
    }
    second_session(&mut script, old);
    script.finish()
}

/// Everybody who asks a dead data_fd.
fn ask_dead(script: &mut Script, fd: Fd) {
    script.op(Op::Poll { fd });
    match script.way(fd) {
        Some(Direction::Saving) => {
            script.op(Op::Read { fd, len: READ }).op(Op::UringRead { fd, len: READ });
            script.op(Op::PrecopyInfo { fd }).op(Op::Read { fd, len: 1 });
        }
        Some(Direction::Resuming) => {
            script.write(fd, Data::Fill { byte: 0, len: 1 }).op(Op::PrecopyInfo { fd });
            script.write(fd, Data::Fill { byte: 0, len: 1 });
        }
        None => {}
    }
}

/// A session begun after the reset is as good as the first, and the old fd stays dead beside it.
fn second_session(script: &mut Script, old: Option<Fd>) {
    script.covers(&["C13", "C21"]);
    let first = if script.features().pre_copy() { State::PreCopy } else { State::StopCopy };
    script.set(first);
    let fresh = script.last_fd();
    if let Some(old) = old {
        ask_dead(script, old);
    }
    script.set(State::StopCopy);
    if let Some(fd) = fresh {
        script.drain(fd, READ, 3);
    }
    script.set(State::Running).get();
    if let Some(fd) = fresh {
        ask_dead(script, fd);
    }
}

fn twice(way: &Script) -> Trace {
    let mut script = way.named("twice");
    script.op(Op::Reset).op(Op::Reset).get().set(State::Running).get();
    script.finish()
}

/// What the guest and a RESUMING that was aborted have left behind is gone after a reset: the device
/// says of itself what it said when it was fresh.
fn forgets(features: Features) -> Vec<Trace> {
    let states = [State::Running, State::PreCopy, State::StopCopy, State::Resuming];
    let states = states.into_iter().filter(|&state| features.has(state));
    states
        .map(|state| {
            let mut script =
                Script::new(Suite::Resets, features, &format!("forgets-in-{state}"), &["R50"]);
            save(&mut script, 0);
            script.op(Op::Touch(0x5a));
            save(&mut script, 1);
            script.set(state);
            if let (State::Resuming, Some(fd)) = (state, script.last_fd()) {
                script.covers(&["C20"]).write(fd, Data::slot(1));
            }
            script.op(Op::Reset).get().set(State::StopCopy);
            if let Some(fd) = script.last_fd() {
                script.drain_same(fd, 0);
            }
            script.finish()
        })
        .collect()
}

/// What the device says of itself, into a slot.
fn save(script: &mut Script, slot: u8) {
    script.set(State::StopCopy);
    if let Some(fd) = script.last_fd() {
        script.drain(fd, READ, slot).set(State::Running).op(Op::CloseFd { fd });
    }
}

/// A reset that arrives inside a SET: only GET, or the fd, tells (O4).
fn inside_set(features: Features) -> Vec<Trace> {
    let mut traces = Vec::new();
    for way in ways(Suite::Resets, features) {
        for to in State::ALL.into_iter().filter(|&to| features.has(to)) {
            let mut script = way.script.named(&format!("inside-SET-{to}"));
            script.op(Op::SetState { to: to.into(), fault: Some(Fault::ResetInside) }).get();
            for (fd, _) in script.open_fds() {
                ask_dead(&mut script, fd);
            }
            second_session(&mut script, None);
            traces.push(script.finish());
        }
    }
    traces
}

/// The three observations of the seed thread, as a VMM makes them.
fn observations(features: Features) -> Vec<Trace> {
    let begin = |name: &str, covers: &[&'static str]| {
        let mut script = Script::new(Suite::Resets, features, name, covers);
        script.set(State::PreCopy);
        if let Some(fd) = script.last_fd() {
            script.drain(fd, READ, 0);
        }
        script
    };
    let mut using = begin("O1-using-the-fd", &["O1"]);
    using.op(Op::Reset);
    let mut moving_on = begin("O2-moving-on", &["O2", "C13"]);
    moving_on.op(Op::Reset).set(State::StopCopy);
    let mut no_reset = begin("O2-no-reset", &["O2"]);
    no_reset.set(State::StopCopy);
    let mut cancelling = begin("O3-cancelling", &["O3"]);
    cancelling.op(Op::Reset);
    let old = Fd(1);
    using.op(Op::Read { fd: old, len: READ }).op(Op::Poll { fd: old });
    using.op(Op::UringRead { fd: old, len: READ });
    for script in [&mut moving_on, &mut no_reset] {
        script.op(Op::Read { fd: old, len: READ }).get();
        if let Some(fd) = script.last_fd() {
            script.drain(fd, READ, 1);
        }
        script.set(State::Running).get();
    }
    cancelling.op(Op::CloseFd { fd: old }).set(State::Running).get();
    [using, moving_on, no_reset, cancelling].map(Script::finish).into()
}
