// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! Test your own device: implement `Target`, hand it to a `Replayer`, read the verdicts.
//!
//! The device here knows states and nothing else. The suites find what it lacks.

use vfio_conform::replay::{Options, Replayer, Target, TargetError, Verdict};
use vfio_conform::suite::Suite;
use vfio_fsm_core::{Errno, Features, Op, Reply, Route, State};

struct MyDevice(State);

impl Target for MyDevice {
    fn offers(&self, features: Features) -> bool {
        features == Features::STOP_COPY
    }

    fn fresh(&mut self, _features: Features) -> Result<(), TargetError> {
        self.0 = State::Running;
        Ok(())
    }

    fn apply<'b>(&mut self, op: Op<&[u8]>, _buf: &'b mut [u8]) -> Reply<&'b [u8]> {
        match op {
            Op::DataSize => Reply::Size(4096),
            Op::GetFeatures => Reply::Features(Features::STOP_COPY.flags()),
            Op::GetState => Reply::State(self.0.into()),
            Op::SetState { to, .. } => match to.known() {
                Some(to) if Route::new(Features::STOP_COPY, self.0, to).is_ok() => {
                    self.0 = to;
                    Reply::Fd(None) // a device that never returns its data_fd
                }
                _ => Reply::Errno(Errno::EINVAL),
            },
            Op::Reset => {
                self.0 = State::Running;
                Reply::Ok
            }
            _ => Reply::Errno(Errno::ENOTTY),
        }
    }
}

fn main() {
    let mut device = MyDevice(State::Running);
    let mut replayer = Replayer::new(vec![&mut device]);
    for trace in Suite::Arcs.generate(Features::STOP_COPY) {
        let outcome = replayer.replay(&trace, Options::default());
        match outcome.verdict {
            Verdict::Fail(mismatch) => println!("FAIL {}: {mismatch}", trace.header.name),
            Verdict::Pass => println!("pass {}", trace.header.name),
            other => println!("{other:?} {}", trace.header.name),
        }
    }
}
