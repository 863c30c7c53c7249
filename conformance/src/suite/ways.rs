// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! Every way into every state: by each arc that leads there, and by what is no arc.

use vfio_fsm_core::{Errno, Fault, Features, Leaves, Op, State, arcs};

use crate::suite::Suite;
use crate::suite::script::{READ, Script};
use crate::trace::Data;

/// A script that has reached a state in one particular way.
pub(super) struct Way {
    /// `STOP_COPY`, `STOP_COPY-from-PRE_COPY_P2P`, `RESUMING-loaded`, …
    pub(super) name: String,
    pub(super) script: Script,
}

/// The ways into every state that the flags have.
pub(super) fn ways(suite: Suite, features: Features) -> Vec<Way> {
    let begin =
        |name: &str| Way { name: name.to_owned(), script: Script::new(suite, features, name, &[]) };
    let mut ways = vec![begin("RUNNING")];
    for arc in arcs(features).filter(|arc| arc.from() != State::Resuming) {
        let mut way = begin(&format!("{}-from-{}", arc.to(), arc.from()));
        way.script.set(arc.from()).set(arc.to());
        ways.push(way);
    }
    let mut loaded = begin("RESUMING-loaded");
    load(&mut loaded.script);
    let mut from_resuming = Way {
        name: "STOP-from-RESUMING".to_owned(),
        script: Script::new(suite, features, "STOP-from-RESUMING", &[]),
    };
    load(&mut from_resuming.script);
    from_resuming.script.set(State::Stop);
    let mut error = begin("ERROR");
    let fault = Fault::ArcFails { hop: 0, errno: Errno::EIO, leaves: Leaves::Error };
    error.script.op(Op::SetState { to: State::Stop.into(), fault: Some(fault) });
    ways.extend([loaded, from_resuming, error]);
    ways
}

/// Save the device, and write what it said back into RESUMING.
fn load(script: &mut Script) {
    script.set(State::StopCopy);
    if let Some(fd) = script.last_fd() {
        script.drain(fd, READ, 0).op(Op::CloseFd { fd });
    }
    script.set(State::Resuming);
    if let Some(fd) = script.last_fd() {
        script.write(fd, Data::slot(0));
    }
}
