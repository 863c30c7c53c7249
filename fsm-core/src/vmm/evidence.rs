// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! How a reset shows itself to the VMM, and what can be done about it.

use core::fmt;

use crate::op::Errno;
use crate::state::{RawState, State};

/// How a reset that the session did not order was seen.
///
/// The first three are those of the seed thread, the fourth is not in it (O1 to O4). In each of
/// them what was read of the session is void. No evidence is no proof that there was no reset, with
/// one exception: with the guest frozen, and no reset by the host, an image that was read to its
/// end and whose device was then found in STOP is whole.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Evidence {
    /// A call on the data_fd in use failed as it does when the session is over (O1).
    DeadFd {
        /// Which: `read` or `precopy_info`; at the destination `write`.
        op: &'static str,
        /// `ENODEV`, or what else it said with the device found in RUNNING.
        errno: Errno,
    },
    /// A SET that goes on with a session returned a data_fd, so it began another (O2). The new
    /// data_fd is kept: what it reads is the device after the reset.
    UnexpectedFd {
        /// Which state was asked for.
        to: State,
    },
    /// The device was found in RUNNING already, so that a SET(RUNNING), to cancel or to start it,
    /// would have been the no-op that hides the reset (O3).
    AlreadyRunning {
        /// Where the device should have been.
        believed: State,
    },
    /// A SET succeeded, and GET says RUNNING: the reset was deferred into its tail (O4).
    DeferredIntoSet {
        /// Which state was asked for.
        to: State,
    },
    /// The VMM asked the session for the reset.
    Ordered,
}

/// A reset was seen: how, and what can be done.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Decision {
    /// How it was seen.
    pub evidence: Evidence,
    /// What can be done.
    pub choices: Choices,
}

/// What to do about a reset: the three choices of the seed thread.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Recovery {
    /// Give the migration up.
    Abort,
    /// Let the receiver discard what it has, and begin this device's PRE_COPY anew.
    Restart,
    /// Let the receiver discard what it has, stop the vCPUs and send all in STOP_COPY.
    StopCopy,
}

/// Which of them are open. To abort always is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Choices {
    /// Whether [`Recovery::Restart`] is: the device has PRE_COPY, the guest may run on, and the
    /// plan allows another restart.
    pub restart: bool,
    /// Whether [`Recovery::StopCopy`] is: the plan allows another restart.
    pub stop_copy: bool,
}

impl Evidence {
    /// What a call on the data_fd that failed says, with the state that GET gives behind it (O1).
    ///
    /// `ENODEV` is how the fd of a dead session answers. Any other errno is one as well if the device
    /// is in RUNNING, where no session is, and in any other state a failure of the device.
    pub const fn of_call(op: &'static str, errno: Errno, state: RawState) -> Option<Self> {
        if errno.0 == Errno::ENODEV.0 || is_running(state) {
            Some(Self::DeadFd { op, errno })
        } else {
            None
        }
    }

    /// What the state says in which GET finds a device before it is sent back to where it was (O3).
    pub const fn of_state(believed: State, state: RawState) -> Option<Self> {
        if is_running(state) && !believed.is(State::Running) {
            Some(Self::AlreadyRunning { believed })
        } else {
            None
        }
    }

    /// What the state says in which GET finds a device behind a SET that succeeded (O4).
    pub const fn behind_set(to: State, state: RawState) -> Option<Self> {
        if is_running(state) && !to.is(State::Running) {
            Some(Self::DeferredIntoSet { to })
        } else {
            None
        }
    }
}

const fn is_running(state: RawState) -> bool {
    state.0 == State::Running.number()
}

impl Choices {
    /// What is open to a device that may, or may not, be discarded once more, and of which PRE_COPY
    /// may, or may not, begin anew.
    pub const fn new(discard: bool, pre_copy: bool) -> Self {
        Self { restart: discard && pre_copy, stop_copy: discard }
    }

    /// Whether this one is open.
    pub const fn allow(self, recovery: Recovery) -> bool {
        match recovery {
            Recovery::Abort => true,
            Recovery::Restart => self.restart,
            Recovery::StopCopy => self.stop_copy,
        }
    }
}

impl fmt::Display for Evidence {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::DeadFd { op, errno } => write!(f, "{op} on the data_fd failed with {errno}"),
            Self::UnexpectedFd { to } => write!(f, "SET({to}) began a new session"),
            Self::AlreadyRunning { believed } => {
                write!(f, "in RUNNING already where {believed} was believed")
            }
            Self::DeferredIntoSet { to } => {
                write!(f, "in RUNNING behind a SET({to}) that succeeded")
            }
            Self::Ordered => f.write_str("the VMM ordered it"),
        }
    }
}

impl fmt::Display for Recovery {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Abort => "abort",
            Self::Restart => "restart",
            Self::StopCopy => "stop-copy",
        })
    }
}

impl fmt::Display for Decision {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}; abort", self.evidence)?;
        for recovery in [Recovery::Restart, Recovery::StopCopy] {
            if self.choices.allow(recovery) {
                write!(f, ", {recovery}")?;
            }
        }
        Ok(())
    }
}
