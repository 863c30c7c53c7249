// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! Test your own device: a dozen lines of `Target` between it and the suites, and a loop.
//!
//! `cargo run --example own_device` tells what the device below lacks: it knows the device_state,
//! but it never returns a data_fd, and it forgets to refuse what it cannot do.

use vfio_conform::replay::{Options, Replayer, Target, TargetError, Verdict};
use vfio_conform::suite::Suite;
use vfio_fsm_core::{Errno, Features, Op, RawState, Reply};

/// Your device, as you have it.
struct Serial {
    state: u32,
}

impl Serial {
    fn set_state(&mut self, to: u32) -> Result<(), i32> {
        match to {
            1..=4 => {
                self.state = to;
                Ok(())
            }
            _ => Err(22),
        }
    }

    fn reset(&mut self) {
        self.state = 2;
    }
}

impl Target for Serial {
    fn offers(&self, features: Features) -> bool {
        features == Features::STOP_COPY
    }

    fn fresh(&mut self, _features: Features) -> Result<(), TargetError> {
        self.reset();
        Ok(())
    }

    fn apply<'b>(&mut self, op: Op<&[u8]>, _buf: &'b mut [u8]) -> Reply<&'b [u8]> {
        match op {
            Op::GetFeatures => Reply::Features(1),
            Op::GetState => Reply::State(RawState(self.state)),
            Op::SetState { to, .. } => match self.set_state(to.0) {
                Ok(()) => Reply::Fd(None),
                Err(errno) => Reply::Errno(Errno(errno)),
            },
            Op::Reset => {
                self.reset();
                Reply::Ok
            }
            Op::DataSize => Reply::Size(64),
            _ => Reply::Errno(Errno::ENOTTY),
        }
    }
}

fn main() {
    let mut device = Serial { state: 2 };
    let mut replayer = Replayer::new(vec![&mut device]);
    for trace in Suite::Arcs.generate(Features::STOP_COPY) {
        match replayer.replay(&trace, Options::default()).verdict {
            Verdict::Fail(mismatch) => println!("FAIL {}: {mismatch}", trace.header.name),
            verdict => println!("{verdict:?} {}", trace.header.name),
        }
    }
}
