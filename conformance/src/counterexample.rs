// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! A counterexample of the model as a trace: what a correct device answers to the same ops.

use vfio_fsm_core::{Direction, Fd, Op, Reply};
use vfio_fsm_model::Counterexample;

use crate::suite::script::{READ, Script};
use crate::trace::{Data, Trace};

/// The trace that a device with the counterexample's bug fails, and a correct one passes.
///
/// The model's device has one register, so a read that met the end of the stream there becomes one
/// until the end here. What the last step broke may not show in its reply: so the state, and every
/// data_fd that is open, are asked for at the end.
pub fn to_trace(counterexample: &Counterexample, name: &str) -> Trace {
    let mut script = Script::new("model", counterexample.features, name, &[]);
    for step in &counterexample.steps {
        let ended = matches!(step.seen, Reply::EndOfStream(_))
            || matches!(step.correct, Reply::EndOfStream(_));
        match step.op {
            Op::Read { fd, .. } if ended => script.drain(fd, READ, 0),
            op => script.op(op.map(|bytes| Data::Hex(bytes.to_vec()))),
        };
    }
    script.op(Op::GetState);
    let last = script.last_fd().map_or(0, |fd| fd.0);
    for fd in (1..=last).map(Fd) {
        match script.way(fd) {
            Some(Direction::Saving) => {
                script.op(Op::PrecopyInfo { fd }).op(Op::Read { fd, len: READ });
            }
            Some(Direction::Resuming) => {
                script.write(fd, Data::Fill { byte: b'F', len: 1 });
            }
            None => {}
        }
    }
    script.finish()
}
