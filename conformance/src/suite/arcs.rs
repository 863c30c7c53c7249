// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! From every state, however reached, a SET of every state and of numbers that are none: the
//! answer, the state after, and what became of the data_fds.

use vfio_fsm_core::{Direction, Errno, Fault, Features, Leaves, Op, RawState, Route, State};

use crate::suite::Suite;
use crate::suite::script::{READ, Script};
use crate::suite::ways::ways;
use crate::trace::Trace;

pub(super) fn generate(features: Features) -> Vec<Trace> {
    let targets =
        State::ALL.map(RawState::from).into_iter().chain([RawState(8), RawState(u32::MAX)]);
    let targets: Vec<_> = targets.collect();
    let mut traces = Vec::new();
    for way in ways(Suite::Arcs, features) {
        for &to in &targets {
            let mut script = way.script.named(&format!("to-{to}"));
            script.op(Op::GetFeatures).get().op(Op::DataSize);
            script.op(Op::SetState { to, fault: None }).get();
            probe_fds(&mut script);
            traces.push(script.finish());
        }
        traces.extend(failing_arcs(&way.script));
    }
    traces
}

/// Which of the data_fds still work, in a way that fits each.
fn probe_fds(script: &mut Script) {
    for (fd, way) in script.open_fds() {
        match way {
            Direction::Saving => script.op(Op::PrecopyInfo { fd }).op(Op::Read { fd, len: READ }),
            // What is written here is no stream yet, and nothing comes after it.
            Direction::Resuming => script.op(Op::Poll { fd }),
        };
    }
}

/// Every arc of every route fails, undone or into ERROR; then a SET back, or a reset (R8). Behind it
/// a session can be opened, whatever was left of the one that failed.
fn failing_arcs(way: &Script) -> Vec<Trace> {
    let mut traces = Vec::new();
    for to in State::ALL {
        let features = way.features();
        let Ok(route) = Route::new(features, way.state(), to) else { continue };
        for hop in 0..route.len() as u8 {
            for (leaves, suffix) in [(Leaves::Source, "undone"), (Leaves::Error, "into-ERROR")] {
                let mut script = way.named(&format!("to-{to}-arc-{hop}-{suffix}"));
                let fault = Some(Fault::ArcFails { hop, errno: Errno::EIO, leaves });
                script.op(Op::SetState { to: to.into(), fault }).get();
                probe_fds(&mut script);
                script.op(Op::set(State::Running)).op(Op::Reset).get().set(State::StopCopy);
                traces.push(script.finish());
            }
        }
    }
    traces
}
