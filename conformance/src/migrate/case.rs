// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! What is done to one migration, and the list of all that is done, made from what an undisturbed
//! one looks like.

use std::fmt;

use serde::{Deserialize, Serialize};
use vfio_fsm_core::vmm::Recovery;

/// When the source's device is reset, seen from one of the session's ops.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum When {
    /// Before it.
    Before,
    /// While it is carried out: on the reference device inside a SET, which is where it matters; on
    /// a kernel by another process at about the same time.
    Within,
    /// Behind it.
    After,
}

/// One of the three recoveries, by its name.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Choice {
    /// [`Recovery::Abort`].
    Abort,
    /// [`Recovery::Restart`].
    Restart,
    /// [`Recovery::StopCopy`].
    StopCopy,
}

impl Choice {
    /// All of them.
    pub const ALL: [Self; 3] = [Self::Abort, Self::Restart, Self::StopCopy];

    /// As the session takes it.
    pub const fn recovery(self) -> Recovery {
        match self {
            Self::Abort => Recovery::Abort,
            Self::Restart => Recovery::Restart,
            Self::StopCopy => Recovery::StopCopy,
        }
    }
}

/// What is done to one migration. Steps are the source's ops, counted from 1.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "case", rename_all = "snake_case")]
pub enum Case {
    /// Nothing: it must succeed.
    Undisturbed,
    /// The VMM cancels.
    Cancel {
        /// Before this step; behind the last one, before the stream is ended, if there is no such
        /// step.
        step: usize,
    },
    /// All is sent and loaded, and then the destination gives up.
    DestinationGivesUp,
    /// The device is reset.
    Reset {
        /// At this step.
        step: usize,
        /// When.
        when: When,
        /// What the VMM chooses, if it is asked.
        choice: Choice,
    },
    /// The VMM cancels, and the device is reset on the way back.
    ResetOnTheWayBack {
        /// Cancelled before this step.
        cancel: usize,
        /// Reset at this step.
        step: usize,
        /// When.
        when: When,
    },
}

impl Case {
    /// Before which step the VMM cancels.
    pub const fn cancel(&self) -> Option<usize> {
        match *self {
            Self::Cancel { step } | Self::ResetOnTheWayBack { cancel: step, .. } => Some(step),
            _ => None,
        }
    }

    /// At which step the device is reset, and when.
    pub const fn reset(&self) -> Option<(usize, When)> {
        match *self {
            Self::Reset { step, when, .. } | Self::ResetOnTheWayBack { step, when, .. } => {
                Some((step, when))
            }
            _ => None,
        }
    }

    /// What the VMM chooses when it is asked.
    pub const fn choice(&self) -> Choice {
        match *self {
            Self::Reset { choice, .. } => choice,
            _ => Choice::Abort,
        }
    }
}

impl fmt::Display for When {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Before => "before",
            Self::Within => "within",
            Self::After => "after",
        })
    }
}

impl fmt::Display for Choice {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.recovery().fmt(f)
    }
}

/// As a name: `migrate/reset/before-07/restart`.
impl fmt::Display for Case {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Undisturbed => f.write_str("migrate/undisturbed"),
            Self::Cancel { step } => write!(f, "migrate/cancel/before-{step:02}"),
            Self::DestinationGivesUp => f.write_str("migrate/cancel/all-sent"),
            Self::Reset { step, when, choice } => {
                write!(f, "migrate/reset/{when}-{step:02}/{choice}")
            }
            Self::ResetOnTheWayBack { step, when, .. } => {
                write!(f, "migrate/cancelled/reset/{when}-{step:02}")
            }
        }
    }
}

/// What a migration looks like that nobody disturbs, and how one goes back that is cancelled when
/// the device has been read to its end.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Sequence {
    /// The source's ops.
    pub ops: Vec<String>,
    /// The first of them with the guest frozen.
    pub frozen: usize,
    /// Before which of them the other one is cancelled.
    pub cancel: usize,
    /// The source's ops of the cancelled one.
    pub cancelled: Vec<String>,
}

impl Sequence {
    /// Everything to be done. `races` is whether there is something within an op, by its text.
    pub fn cases(&self, races: impl Fn(&str) -> bool) -> Vec<Case> {
        let points = |ops: &[String], from: usize| -> Vec<(usize, When)> {
            let whens = |op: &str| match races(op) {
                true => vec![When::Before, When::Within, When::After],
                false => vec![When::Before, When::After],
            };
            let steps = (1..).zip(ops).skip(from - 1);
            steps.flat_map(|(step, op)| whens(op).into_iter().map(move |w| (step, w))).collect()
        };
        let mut cases = vec![Case::Undisturbed];
        cases.extend((1..=self.ops.len() + 1).map(|step| Case::Cancel { step }));
        cases.push(Case::DestinationGivesUp);
        for (step, when) in points(&self.ops, 1) {
            cases.extend(Choice::ALL.map(|choice| Case::Reset { step, when, choice }));
        }
        let back = points(&self.cancelled, self.cancel.max(1)).into_iter();
        cases.extend(back.map(|(step, when)| Case::ResetOnTheWayBack {
            cancel: self.cancel,
            step,
            when,
        }));
        cases
    }
}
