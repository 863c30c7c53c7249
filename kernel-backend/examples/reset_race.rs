// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! The four ways in which a reset shows itself, and the three ways to go on, step by step:
//! `cargo run --example reset_race`.

use vfio_fsm_core::device::{Device, Memory};
use vfio_fsm_core::vmm::frame::{EncodeError, Frame};
use vfio_fsm_core::vmm::{Decision, Event, Hook, Plan, Port, Recovery};
use vfio_fsm_core::{Fault, Fd, Features, Op, Reply, State};
use vfio_fsm_kernel::session::{Interest, Observer, Saving, Session, Standing, Vmm};

/// When the device is reset: once.
#[derive(Clone, Copy, PartialEq)]
enum When {
    /// Before the first read.
    Read,
    /// Before the first GET with a session.
    Get,
    /// Before this SET.
    Before(State),
    /// While this SET is in the driver.
    Inside(State),
    Over,
}

struct Racy {
    device: Device<Memory<3>, 4>,
    when: When,
}

impl Racy {
    fn is_due(&self, op: &Op<&[u8]>) -> bool {
        match self.when {
            When::Read => matches!(op, Op::Read { .. }),
            When::Get => *op == Op::GetState && self.device.fsm().session().is_some(),
            When::Before(state) | When::Inside(state) => *op == Op::set(state),
            When::Over => false,
        }
    }
}

impl Port for Racy {
    type Fd = Fd;

    fn apply<'b>(&mut self, op: Op<&[u8], &Fd>, buf: &'b mut [u8]) -> Reply<&'b [u8]> {
        let mut op = op.map_fd(|fd| *fd);
        if self.is_due(&op) {
            println!("    *** the device is reset");
            match std::mem::replace(&mut self.when, When::Over) {
                When::Inside(to) => {
                    op = Op::SetState { to: to.into(), fault: Some(Fault::ResetInside) };
                }
                _ => drop(self.device.apply(Op::Reset, &mut [])),
            }
        }
        self.device.apply(op, buf)
    }
}

struct Printer;

impl Observer for Printer {
    fn after(&mut self, op: &Op<&[u8]>, reply: &Reply<&[u8]>) {
        println!("    {op}: {}", reply.map(|bytes| bytes.len()));
    }

    fn frame(&mut self, frame: &Frame) {
        println!("    -> {frame}");
    }

    fn pause(&mut self, interest: &Interest, standing: &Standing) {
        match interest {
            Interest::Call(hook) => println!("    call: {hook}"),
            Interest::Decide(decision) => println!("    RESET: {decision}"),
            Interest::Done(verdict) => println!("    {verdict}"),
            _ => {}
        }
        if let (Interest::Done(_), Some(evidence)) = (interest, standing.evidence) {
            println!("    the sign was: {evidence}");
        }
    }
}

struct Chooses {
    recovery: Recovery,
    at_idle: Event,
}

impl Vmm for Chooses {
    fn hook(&mut self, _hook: Hook) -> bool {
        true
    }

    fn decide(&mut self, _decision: &Decision) -> Recovery {
        println!("    the VMM chooses: {}", self.recovery);
        self.recovery
    }

    fn wait(&mut self, _interest: &Interest, _standing: &Standing) -> Option<Event> {
        Some(self.at_idle)
    }
}

fn race(title: &str, when: When, recovery: Recovery, at_idle: Event) -> Result<(), EncodeError> {
    println!("\n{title}");
    let port = Racy { device: Device::new(Features::ALL, Memory::new()), when };
    let mut saving = Saving::new(Plan::LIVE, "", port, std::io::sink())?.observed(Printer);
    let _told = saving.run(&mut Chooses { recovery, at_idle });
    Ok(())
}

fn main() -> Result<(), EncodeError> {
    use Recovery::{Abort, Restart, StopCopy};
    let switchover = Event::Switchover;
    race(
        "1. A read finds the session dead: PRE_COPY begins anew",
        When::Read,
        Restart,
        switchover,
    )?;
    race(
        "2. A SET returns a data_fd where none was due: what it reads is sent, the guest stopped",
        When::Before(State::StopCopy),
        StopCopy,
        switchover,
    )?;
    race("3. To cancel would be a no-op: GET tells, before", When::Get, Abort, Event::Cancel)?;
    race(
        "4. The reset is put off to the tail of a SET that succeeds: GET tells, behind",
        When::Inside(State::Stop),
        Abort,
        switchover,
    )
}
