// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! Level 1 once more, with a sane VMM in place of the chaotic one: the core's own sessions.
//!
//! * [`source`]: `Saver` x device x guest and host x receiver.
//! * [`destination`]: `Loader` x device x host x any frames.
//! * [`group`]: two `Saver`s in a `Group` x their devices x guest.
//!
//! What a session cannot see rides along as ghosts, and the properties compare: whether a reset
//! that it found has been one, whether the image that it ended is the device's.

pub(crate) mod destination;
pub(crate) mod group;
pub(crate) mod slip;
pub(crate) mod source;

use vfio_fsm_core::device::{Device, Memory};
use vfio_fsm_core::vmm::frame::Frame;
use vfio_fsm_core::vmm::{Decision, Event, Hook, Recovery, Wait};
use vfio_fsm_core::{Errno, Fault, Fd, Op, Reply};

/// The core's device with one register, and a user with room for two data_fds: one that is dying
/// and one that is new. Who leaks a third is caught.
pub(crate) type SmallDevice = Device<Memory<1>, 2>;

/// One step of a session and of what is around it, for the rules to judge.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum Did {
    /// The session's op, and what the device answered.
    Op(Op<&'static [u8]>, Reply<u32>),
    /// The session's frame, on its way.
    Sent(Frame),
    /// A frame handed to the session.
    Came(Frame),
    /// The VMM's part, and whether it could.
    Called(Hook, bool),
    /// The VMM's choice.
    Chose(Decision, Recovery),
    /// What happened outside.
    Event(Event),
    /// The guest or the host reset the device.
    Reset { by_guest: bool },
    /// The guest wrote to the device.
    Touched,
    /// The VMM answered for the device, which was not asked.
    Skipped,
}

/// What may go wrong with the one call that a session asks for.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum Trouble {
    /// Nothing.
    None,
    /// Around a SET.
    Set(Fault),
    /// The call fails like this, and does nothing.
    Errno(Errno),
    /// It takes or gives one byte.
    Short,
}

/// The same text for each kind of step, whichever session takes it.
impl std::fmt::Display for Did {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Op(op, reply) => write!(f, "session  {op} => {reply}"),
            Self::Sent(frame) => write!(f, "session  sends {frame}"),
            Self::Came(frame) => write!(f, "stream   {frame}"),
            Self::Called(hook, true) => write!(f, "VMM      {hook}"),
            Self::Called(hook, false) => write!(f, "VMM      cannot {hook}"),
            Self::Chose(decision, choice) => write!(f, "VMM      {}: {choice}", decision.evidence),
            Self::Event(event) => write!(f, "VMM      {event:?}"),
            Self::Reset { by_guest: true } => f.write_str("guest    RESET"),
            Self::Reset { by_guest: false } => f.write_str("host     RESET"),
            Self::Touched => f.write_str("guest    touch"),
            Self::Skipped => f.write_str("VMM      answers for the device"),
        }
    }
}

/// Whether a session that waits like this could be woken by [`Event::Tick`].
pub(crate) const fn ticks(wait: Wait) -> bool {
    matches!(wait, Wait::Switchover | Wait::Readable | Wait::Writable)
}

pub(crate) fn apply(device: &mut SmallDevice, op: Op<&[u8]>, buf: &mut [u8]) -> Reply<u32> {
    device.apply(op, buf).map(|bytes| bytes.len() as u32)
}

/// The number of the data_fd that a session holds, as an op of a trace has it.
pub(crate) fn by_number<B>(op: Op<B, &Fd>) -> Op<B> {
    op.map_fd(|fd| *fd)
}
