// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! Sessions driven: a device to a stream, and a stream to a device.
//!
//! The core's [`Saver`] and [`Loader`] say what to do and do nothing; [`Saving`] and [`Loading`] do
//! it, over any [`Port`] and any [`Write`] or [`Read`]. Both can be driven in two ways, by the same
//! steps:
//!
//! * [`run`](Session::run) blocks until the session is over, and asks a [`Vmm`] for its part;
//! * [`step`](Session::step) does one thing and returns: for event loops, with a stream and a device
//!   that do not block. It says what it waits for as an [`Interest`].
//!
//! ```
//! use vfio_fsm_core::device::{Device, Memory};
//! use vfio_fsm_core::vmm::frame::Limits;
//! use vfio_fsm_core::vmm::{Hook, LoadPlan, Plan};
//! use vfio_fsm_core::{Features, Op};
//! use vfio_fsm_kernel::session::{Loading, Saving, Session, Vmm};
//!
//! struct MyVmm;
//!
//! impl Vmm for MyVmm {
//!     fn hook(&mut self, _hook: Hook) -> bool {
//!         true // Here vCPUs are halted and let go, and interrupts put back.
//!     }
//! }
//!
//! // A device in memory; with a real one it is `DevicePort::of(&vfio_device)`.
//! let mut source = Device::<Memory<4>, 2>::new(Features::ALL, Memory::new());
//! source.apply(Op::Touch(7), &mut []);
//! let mut stream = Vec::new(); // or a file, a socket
//! let outcome = Saving::new(Plan::LIVE, "example", source, &mut stream)?.run(&mut MyVmm);
//! assert!(outcome.verdict.is_complete(), "{outcome:?}");
//!
//! let blank = Device::<Memory<4>, 2>::new(Features::ALL, Memory::new());
//! let (plan, limits) = (LoadPlan::default(), Limits { max_data: Plan::LIVE.chunk });
//! let accepts = |compat: &str| compat == "example";
//! let mut loading = Loading::new(plan, limits, accepts, blank, &stream[..]);
//! let outcome = loading.run(&mut MyVmm);
//! assert!(outcome.verdict.is_complete(), "{outcome:?}");
//! assert_eq!(loading.port().actions().registers(), &[7; 4]);
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
//!
//! [`run_group`] runs all devices of a VM side by side, each with a thread and a stream of its own.
//!
//! # Why nothing is spliced
//!
//! A data_fd goes through user space once. No driver's data_fd has a `splice_read`, so the kernel
//! would copy through a pipe of pages of its own; and each byte is looked at anyway, for the
//! checksum. What is saved instead: a chunk is read to the place from which it is sent with its
//! head, in one `write(2)` and without a copy.
//!
//! # Blocking
//!
//! With a blocking source, sink or data_fd, a step takes as long as they do, and no event is heard
//! meanwhile: to cancel a session that hangs there, shut its socket down, or interrupt its thread
//! by a signal.
//!
//! [`Saver`]: vfio_fsm_core::vmm::Saver
//! [`Loader`]: vfio_fsm_core::vmm::Loader
//! [`Port`]: vfio_fsm_core::vmm::Port
//! [`Write`]: std::io::Write
//! [`Read`]: std::io::Read

mod buffer;
mod crc;
mod group;
mod loading;
mod observer;
mod saving;
#[cfg(feature = "tracing")]
mod tracing;
mod work;

use std::io;
use std::time::Duration;

use vfio_fsm_core::State;
use vfio_fsm_core::vmm::frame::{EncodeError, FrameError};
use vfio_fsm_core::vmm::{
    Decision, Event, Evidence, Hook, OutOfTurn, Progress, Recovery, ResetRefused, Status, Verdict,
};

pub use crc::Crc32c;
pub use group::{GroupError, group_of, run_group};
pub use loading::Loading;
pub use observer::Observer;
pub use saving::Saving;
#[cfg(feature = "tracing")]
pub use tracing::Tracing;

/// A session on its way: [`Saving`] at the source, [`Loading`] at the destination.
pub trait Session {
    /// Does one thing, and says what comes next.
    ///
    /// What the stream does not take or give yet is waited for without losing anything, and the
    /// device waits meanwhile.
    fn step(&mut self) -> Interest;

    /// The VMM has done what [`Interest::Call`] asked for, or could not.
    ///
    /// # Errors
    ///
    /// When that is not what the session waits for; nothing changes then.
    fn called(&mut self, done: bool) -> Result<(), OutOfTurn>;

    /// What the VMM chose at [`Interest::Decide`]. One that is not offered is taken for abort.
    ///
    /// # Errors
    ///
    /// When that is not what the session waits for; nothing changes then.
    fn decide(&mut self, choice: Recovery) -> Result<(), OutOfTurn>;

    /// Something happened outside: it shows in the steps that follow.
    ///
    /// # Errors
    ///
    /// When [`Event::Reset`] is not let through.
    fn event(&mut self, event: Event) -> Result<(), ResetRefused>;

    /// How the session stands.
    fn standing(&self) -> Standing;

    /// What was wrong with the stream, if anything was. It is told once.
    fn take_error(&mut self) -> Option<StreamError>;

    /// Steps until the session is over, waits included.
    ///
    /// Called again behind [`Event::Cancel`], a session that was complete with its device in STOP
    /// takes it back.
    fn run(&mut self, vmm: &mut impl Vmm) -> Outcome
    where
        Self: Sized,
    {
        loop {
            let interest = self.step();
            if !matches!(interest, Interest::Done(_)) {
                let event = vmm.event(&self.standing());
                tell(self, event, vmm);
            }
            match interest {
                Interest::Now => {}
                Interest::Call(hook) => work::in_turn(self.called(vmm.hook(hook))),
                Interest::Decide(decision) => work::in_turn(self.decide(vmm.decide(&decision))),
                Interest::Done(verdict) => {
                    let (error, standing) = (self.take_error(), self.standing());
                    return Outcome { verdict, error, standing };
                }
                interest => {
                    let event = vmm.wait(&interest, &self.standing());
                    tell(self, event, vmm);
                }
            }
        }
    }
}

fn tell(session: &mut impl Session, event: Option<Event>, vmm: &mut impl Vmm) {
    if let Some(Err(refused)) = event.map(|event| session.event(event)) {
        vmm.reset_refused(refused);
    }
}

/// What a VMM does in a session that is [run](Session::run).
///
/// With the hooks alone, the device is taken over as soon as it is ready, a reset ends the
/// migration, and the destination starts the device when it is loaded.
pub trait Vmm {
    /// Do the VMM's own part; `false` if that cannot be done.
    fn hook(&mut self, hook: Hook) -> bool;

    /// A reset was seen: how to go on.
    fn decide(&mut self, decision: &Decision) -> Recovery {
        let _ = decision;
        Recovery::Abort
    }

    /// What has happened? Asked between any two things that the session does, and before each hook;
    /// must not block.
    fn event(&mut self, standing: &Standing) -> Option<Event> {
        let _ = standing;
        None
    }

    /// The session has nothing to do: wait, and say what has happened, if anything has. The session
    /// looks again after at most this call, so it must return after some time.
    fn wait(&mut self, interest: &Interest, standing: &Standing) -> Option<Event> {
        match interest {
            Interest::Switchover if standing.left.ready => Some(Event::Switchover),
            Interest::Run => Some(Event::Run),
            _ => {
                std::thread::sleep(Duration::from_millis(1));
                None
            }
        }
    }

    /// The reset that [`Event::Reset`] asked for is not let through: hold it back until the guest
    /// runs again, or cancel.
    fn reset_refused(&mut self, refused: ResetRefused) {
        let _ = refused;
    }
}

/// What a session waits for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Interest {
    /// Nothing: step again. Returned so that other things can be seen to in between.
    Now,
    /// The sink takes no more, or the source has no more, for now: step again when it does.
    Stream,
    /// A read from the data_fd, or at the destination a write to it, would have blocked: step again
    /// when it is ready, or some time has passed.
    DataFd,
    /// Source: nothing is left to send, until [`Event::Switchover`]. Step again when the data_fd
    /// becomes readable or some time has passed, to see whether something is.
    Switchover,
    /// Destination: loaded, and waits for [`Event::Run`].
    Run,
    /// The VMM's part, to be answered by `called`.
    Call(Hook),
    /// A reset was seen, to be answered by `decide`.
    Decide(Decision),
    /// The session is over. At the source, one that is complete with its device in STOP can still
    /// be taken back: by [`Event::Cancel`], and further steps.
    Done(Verdict),
}

/// How a session stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Standing {
    /// Where the device is believed to be; `None` while only GET can tell.
    pub at: Option<State>,
    /// Whether no guest may touch the device.
    pub frozen: bool,
    /// Nothing comes of this migration any more: the session is on its way back.
    pub aborting: bool,
    /// The epoch of the stream.
    pub epoch: u32,
    /// The latest sign of a reset.
    pub evidence: Option<Evidence>,
    /// Source: what is left to send. [`Status::NONE`] at the destination.
    pub left: Status,
    /// What has been sent, or written to the device.
    pub progress: Progress,
}

impl Standing {
    /// How long the device would keep the guest stopped if the switchover were now.
    pub fn downtime(&self) -> Option<Duration> {
        self.progress.downtime(&self.left)
    }
}

/// How a session ended.
#[derive(Debug)]
#[must_use = "says whether the device was migrated, and what to do if it was not"]
pub struct Outcome {
    /// What became of the device.
    pub verdict: Verdict,
    /// What was wrong with the stream, if that ended the session.
    pub error: Option<StreamError>,
    /// How it stood in the end.
    pub standing: Standing,
}

/// A stream that cannot be written, or is not what it should be.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum StreamError {
    /// Sink or source failed.
    #[error("the stream failed: {0}; see the connection and the other side's messages")]
    Io(#[from] io::Error),
    /// What came is not what had been sent.
    #[error("the stream is refused: {0}")]
    Frame(#[from] FrameError),
    /// What the session wanted to send is no stream.
    #[error("the stream cannot be written: {0}")]
    Encode(#[from] EncodeError),
    /// It is for something else.
    #[error("the stream is for {compat:?}, which this VMM does not take for this device")]
    Incompatible {
        /// What its header says.
        compat: String,
    },
}
