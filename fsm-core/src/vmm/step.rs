// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! What a session says, and what it is told.

use core::fmt;

use crate::op::{Errno, Op, Reply};
use crate::state::{IllegalFeatures, RawState, State};
use crate::vmm::frame::Frame;
use crate::vmm::{Decision, Evidence};

/// What comes next. `B` is how a session carries bytes: it has none, only where they are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Step<'a, B, F> {
    /// Carry this out on the device, once, and hand in the reply.
    Do(Op<B, &'a F>),
    /// Put this on the wire. Of a [`Frame::Data`] the bytes are those of the latest read.
    Send(Frame),
    /// The VMM's own part.
    Call(Hook),
    /// A reset has been seen: choose how to go on.
    Decide(Decision),
    /// Nothing to do until something happens.
    Wait(Wait),
    /// The session is over.
    End(Verdict),
}

/// What only the VMM can do. The session goes on when it is done.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Hook {
    /// From now on no guest touches this device, by vCPU, by reset or in any other way: halt the
    /// vCPUs and hold back what the VMM would do for the guest (R22, V4).
    Freeze,
    /// This device starts no more peer-to-peer DMA. Go on when no device of the VM does (R21).
    Quiesced,
    /// This device answers peer-to-peer DMA again, and starts none. Go on when all of them do.
    Startable,
    /// The device is in RUNNING and may be touched again. At the source the guest runs on; at the
    /// destination the verdict says whether the device is the guest's or blank. There, and there
    /// alone, a VMM that cannot go on may say so, and the device is reset.
    Thaw,
    /// Destination: all initial bytes are loaded. Tell the source, if it waits for it.
    InitialBytesLoaded,
    /// Destination: put back configuration space. The device is in RESUMING, and loaded.
    RestoreConfig,
    /// Destination: put back interrupts (MSI, MSI-X), after configuration space.
    RestoreInterrupts,
}

/// What a session waits for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Wait {
    /// Source: for [`Event::Switchover`]. On [`Event::Tick`] it looks for new data, so give one
    /// when the data_fd is readable or some time has passed.
    Switchover,
    /// Source: for [`Event::Tick`], because a read would have blocked.
    Readable,
    /// Destination: for [`Event::Tick`], because a write would have blocked.
    Writable,
    /// Destination: for a frame.
    Frame,
    /// Destination: for [`Event::Run`]. The device is loaded.
    Run,
}

/// What happens outside a session.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Event {
    /// Time has passed, or the data_fd has become readable.
    Tick,
    /// Source: stop the guest and send the rest.
    Switchover,
    /// Source: the destination has loaded the initial bytes.
    Ack,
    /// Destination: start the device. All of the VM is there, and the source does not run it.
    Run,
    /// Give up. At the source the device goes back to where it was, also when all has been sent.
    Cancel,
    /// Give up, because it takes too long.
    TimedOut,
    /// Give up, because the other side is gone. Only this tells a destination that no more comes.
    PeerLost,
    /// Destination: give up, because what came is not the stream that was sent.
    BadStream,
    /// Source: the VMM wants the device reset, for the guest. Refused while it is frozen.
    Reset,
}

/// How a session ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Verdict {
    /// Source: the whole image of one session is in the stream, the device in STOP or where it was.
    /// Destination: the device runs with it.
    Complete {
        /// What the guest knows of.
        guest: Guest,
    },
    /// No migration. The device works: at the source in its former state, at the destination reset.
    Aborted {
        /// Why.
        cause: Cause,
        /// What the guest knows of.
        guest: Guest,
    },
    /// No migration, and the device did not come back: unplug it. It stays frozen.
    Stuck {
        /// Why there was no migration.
        cause: Cause,
        /// Where the device is, if it says so.
        at: Option<RawState>,
        /// What the reset said, the last resort, or the GET behind it.
        errno: Option<Errno>,
        /// What the guest knows of.
        guest: Guest,
    },
}

/// What became of the device in the eyes of the guest. At the destination there is none yet, so a
/// [`Loader`](crate::vmm::Loader) always says [`Guest::Intact`].
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Guest {
    /// It has the device that it had.
    #[default]
    Intact,
    /// The device was reset by the guest, or by the host, and not by the session.
    ResetByItself,
    /// The session had to reset the device, and the guest does not know: unplug it or raise an
    /// error, do not let a driver run on.
    LostByUs,
}

/// Why a session gave up.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, thiserror::Error)]
#[non_exhaustive]
pub enum Cause {
    /// The device has no migration.
    #[error("VFIO_DEVICE_FEATURE_MIGRATION gives {errno}: this device cannot be migrated")]
    NoMigration {
        /// What it said.
        errno: Errno,
    },
    /// Its flags are no legal set.
    #[error(transparent)]
    Features(#[from] IllegalFeatures),
    /// It was not where a session can begin.
    #[error("the device is in {state}: this session begins in {expected}")]
    Elsewhere {
        /// Where it was.
        state: RawState,
        /// Where it should have been.
        expected: State,
    },
    /// A SET failed. What it left behind was asked for.
    #[error("SET({to}) failed with {errno}; see the driver's messages")]
    Set {
        /// Which state was asked for.
        to: State,
        /// What it said.
        errno: Errno,
    },
    /// A SET succeeded, and the device is somewhere else, and not by a reset.
    #[error("SET({to}) succeeded and the device is in {state}: its driver is at fault")]
    Wandered {
        /// Which state was asked for.
        to: State,
        /// Where it is.
        state: RawState,
    },
    /// A SET to a state with a session left no data_fd that could be alive.
    #[error("SET({to}) leaves no data_fd that is alive: the driver is at fault")]
    NoDataFd {
        /// Which state was asked for.
        to: State,
    },
    /// No SET leads there from where the device is.
    #[error("no SET leads from {from} to {to}")]
    NoRoute {
        /// Where the device is.
        from: State,
        /// Where it should go.
        to: State,
    },
    /// The device does not say where it is.
    #[error("GET of the device_state failed with {errno}")]
    Get {
        /// What it said.
        errno: Errno,
    },
    /// A call on the data_fd failed, and not because of a reset.
    #[error("{op} on the data_fd failed with {errno}; see the driver's messages")]
    Io {
        /// Which: `read`, `write` or `precopy_info`.
        op: &'static str,
        /// What it said.
        errno: Errno,
    },
    /// A call succeeded without doing anything, and would go on like that for ever.
    #[error("{op} on the data_fd moves nothing")]
    NoProgress {
        /// Which: `read` or `write`.
        op: &'static str,
    },
    /// The stream ended for now in STOP_COPY, where it can only end for good (R31).
    #[error("the data_fd says ENOMSG in STOP_COPY: the driver is at fault, the image incomplete")]
    TemporaryEnd,
    /// A reply that does not belong to the op.
    #[error("{op} was answered by something that is no reply to it")]
    Nonsense {
        /// The op.
        op: &'static str,
    },
    /// The device was reset.
    #[error("the device was reset: {0}")]
    Reset(Evidence),
    /// The VMM could not do its part.
    #[error("the VMM could not do its part: {0}")]
    Hook(Hook),
    /// A frame that cannot come here.
    #[error("{frame} came in epoch {epoch}: two sessions are mixed in the stream")]
    Frame {
        /// What came.
        frame: Frame,
        /// The epoch that it came in.
        epoch: u32,
    },
    /// The source discarded what it had sent, and the device did not come back to take the rest.
    #[error("the stream was discarded, and the device could not be reset to begin anew")]
    Discarded,
    /// The stream was not what had been sent, said the decoder.
    #[error("the stream is corrupt")]
    BadStream,
    /// The VMM gave up.
    #[error("cancelled")]
    Cancelled,
    /// It took too long.
    #[error("timed out")]
    TimedOut,
    /// The other side is gone.
    #[error("the other side is gone, and the stream was not complete")]
    PeerLost,
}

/// An answer to something that was not asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the session is told {got} and has asked for {asked}: answer what step() says, once")]
pub struct OutOfTurn {
    /// What it was told.
    pub got: &'static str,
    /// What it has asked for.
    pub asked: &'static str,
}

/// A reset by the VMM that the session does not let through.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ResetRefused {
    /// The device is frozen.
    #[error(
        "the device is frozen{}, and a reset would spoil its image: hold the reset back until Thaw, \
         or cancel the migration first", At(*.at)
    )]
    Frozen {
        /// Where the device is, as far as is known.
        at: Option<State>,
    },
    /// The session has ended.
    #[error("the session is over: the device is the VMM's own again, reset it without the session")]
    Over,
}

struct At(Option<State>);

impl fmt::Display for At {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.map_or(Ok(()), |state| write!(f, " in {state}"))
    }
}

/// A device that ops can be carried out on, with whatever stands for a data_fd there.
///
/// What drivers of sessions need: a real device node, a device in memory, one in user space.
pub trait Port {
    /// What a data_fd is. Dropping it closes it, or [`Op::CloseFd`] does.
    type Fd;

    /// Carry out one op. A read puts its bytes into `buf`, and asks for no more than fit.
    fn apply<'b>(
        &mut self,
        op: Op<&[u8], &Self::Fd>,
        buf: &'b mut [u8],
    ) -> Reply<&'b [u8], Self::Fd>;
}

impl Verdict {
    /// Whether the migration succeeded.
    pub const fn is_complete(&self) -> bool {
        matches!(self, Self::Complete { .. })
    }

    /// What became of the device in the eyes of the guest.
    pub const fn guest(&self) -> Guest {
        match *self {
            Self::Complete { guest } | Self::Aborted { guest, .. } | Self::Stuck { guest, .. } => {
                guest
            }
        }
    }
}

impl<B, F> Step<'_, B, F> {
    pub(super) const fn asks_for(&self) -> &'static str {
        match self {
            Self::Do(_) => "a reply",
            Self::Send(_) => "a frame to be sent",
            Self::Call(_) => "a hook to be called",
            Self::Decide(_) => "a decision",
            Self::Wait(Wait::Frame) => "a frame",
            Self::Wait(_) => "an event",
            Self::End(_) => "nothing more",
        }
    }
}

impl<B, F: fmt::Display> fmt::Display for Step<'_, B, F> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Do(op) => op.fmt(f),
            Self::Send(frame) => write!(f, "send {frame}"),
            Self::Call(hook) => write!(f, "call {hook}"),
            Self::Decide(decision) => write!(f, "decide: {decision}"),
            Self::Wait(wait) => write!(f, "wait: {wait}"),
            Self::End(verdict) => write!(f, "end: {verdict}"),
        }
    }
}

impl fmt::Display for Hook {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Freeze => "freeze",
            Self::Quiesced => "quiesced",
            Self::Startable => "startable",
            Self::Thaw => "thaw",
            Self::InitialBytesLoaded => "initial bytes loaded",
            Self::RestoreConfig => "restore configuration space",
            Self::RestoreInterrupts => "restore interrupts",
        })
    }
}

impl fmt::Display for Wait {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Switchover => "for the switchover",
            Self::Readable => "until the data_fd is readable",
            Self::Writable => "until the data_fd is writable",
            Self::Frame => "for a frame",
            Self::Run => "for the start",
        })
    }
}

impl fmt::Display for Guest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Intact => "intact",
            Self::ResetByItself => "reset by itself",
            Self::LostByUs => "lost by us",
        })
    }
}

impl fmt::Display for Verdict {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Complete { guest } => write!(f, "complete, guest {guest}"),
            Self::Aborted { cause, guest } => write!(f, "aborted, guest {guest}: {cause}"),
            Self::Stuck { cause, at, errno, guest } => {
                write!(f, "stuck, guest {guest}")?;
                at.map_or(Ok(()), |at| write!(f, " in {at}"))?;
                errno.map_or(Ok(()), |errno| write!(f, ", the reset gave {errno}"))?;
                write!(f, ": {cause}")
            }
        }
    }
}
