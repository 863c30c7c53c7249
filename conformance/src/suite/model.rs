// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! The shortest runs that tell a bug from a correct device, found by the model checker: every
//! planted bug's, and the one that refutes the seed thread's claim without its assumption.

use vfio_fsm_core::device::Bug;
use vfio_fsm_core::{Direction, Errno, Fault, Fd, Features, Op, Reply, State};
use vfio_fsm_model::{Counterexample, MUTANTS, check_mutant, properties, refute};

use crate::suite::Suite;
use crate::suite::script::{READ, Script};
use crate::trace::{Data, Trace};

pub(super) fn generate(features: Features) -> Vec<Trace> {
    let bugs = Bug::ALL.iter().filter_map(|bug| {
        MUTANTS.iter().find(|mutant| mutant.bug == *bug && mutant.features == features)
    });
    let mut runs: Vec<_> = bugs.map(|mutant| (mutant.bug.slug(), check_mutant(mutant))).collect();
    let refuted = refute();
    runs.push((refuted.claim.id, refuted.run.filter(|run| run.features == features)));
    runs.into_iter().filter_map(|(name, run)| Some(to_trace(&run?, name))).collect()
}

fn ends_in_wrong_bytes(run: &Counterexample) -> bool {
    let last = run.steps.last();
    last.is_some_and(|last| {
        matches!((&last.seen, &last.correct), (Reply::Bytes(_), Reply::Bytes(_)))
    })
}

/// The trace that a device with the counterexample's bug fails, and a correct one passes.
///
/// The model's device has one register, so a read that met the end of the stream there becomes one
/// until the end here. What the last step broke may not show in its reply: so the state, and every
/// data_fd that is open, are asked for at the end. If it read wrong bytes, the device says of itself
/// before and after what it is like when fresh: which bytes are right a trace cannot know.
pub(crate) fn to_trace(counterexample: &Counterexample, name: &str) -> Trace {
    let property = properties().find(|property| property.id == counterexample.property);
    let covers = property.map_or(&[][..], |property| property.covers);
    let mut script = Script::new(Suite::Model, counterexample.features, name, covers);
    let wrong_bytes = ends_in_wrong_bytes(counterexample);
    if wrong_bytes {
        script.set(State::StopCopy).drain(Fd(1), READ, 7).set(State::Running);
        script.op(Op::CloseFd { fd: Fd(1) });
    }
    let taken = script.last_fd().map_or(0, |fd| fd.0);
    for step in &counterexample.steps {
        let ended = matches!(step.seen, Reply::EndOfStream(_))
            || matches!(step.correct, Reply::EndOfStream(_));
        match step.op.map_fd(|fd| Fd(fd.0 + taken)) {
            // The model's process has room for two fds, a real one for many.
            Op::SetState { to, fault: None } if step.seen == Reply::Errno(Errno::EMFILE) => {
                script.op(Op::SetState { to, fault: Some(Fault::FdTableFull) })
            }
            Op::Read { fd, .. } if ended => script.drain(fd, READ, 0),
            op => script.op(op.map(|bytes| Data::Hex(bytes.to_vec()))),
        };
    }
    if wrong_bytes {
        script.op(Op::Reset).set(State::StopCopy);
        let last = script.last_fd().unwrap_or(Fd(1));
        script.drain_same(last, 7);
    }
    if !script.is_open() {
        script.op(Op::Open);
    }
    script.op(Op::GetState);
    for (fd, way) in script.open_fds() {
        match way {
            Direction::Saving => script.op(Op::PrecopyInfo { fd }).op(Op::Read { fd, len: READ }),
            Direction::Resuming => script.write(fd, Data::Fill { byte: b'F', len: 1 }),
        };
    }
    script.finish()
}
