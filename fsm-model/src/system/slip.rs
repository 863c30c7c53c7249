// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! What two VMMs get wrong between them.

use crate::session::slip::{Slip, slips};

slips! { StreamSlip:
    /// A discard is not heeded, and what follows is taken for more of the same epoch.
    IgnoresDiscard = "ignores-discard",
    /// Behind a discard the latest data of the session that is void is sent again, as of the new.
    ReplaysSession = "replays-session",
    /// The destination takes a whole image for the end of the stream, and starts.
    StartsBeforeEnd = "starts-before-end",
    /// The destination starts when it is loaded, and not when the source has handed over.
    StartsUnasked = "starts-unasked",
    /// The devices of a VM stop each for itself, without the P2P phase (Cloud Hypervisor).
    SkipsP2p = "skips-p2p",
    /// The source may be called back when it has handed over.
    ResumesAfterHandOver = "resumes-after-hand-over",
    /// A destination that has failed does not say so.
    TellsNothing = "tells-nothing",
    /// Where a SET fails the VMM resets the device itself, and tells nobody (QEMU, Cloud Hypervisor).
    ResetsQuietly = "resets-quietly",
    /// A destination that gives up takes its device for reset, whether it is or not: what the reset
    /// answers is lost, and no GET follows (vfio-ioctls, Cloud Hypervisor).
    BelievesInReset = "believes-in-reset",
    /// The VMM never decides for the switchover.
    NeverSwitchesOver = "never-switches-over",
}

/// What is wrong with a VMM, if anything.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Wrong {
    /// Around one session: what a slip of level 1 is at both ends.
    Session(Slip),
    /// Between the two ends.
    Stream(StreamSlip),
}

impl Wrong {
    /// Its name in reports.
    pub const fn slug(self) -> &'static str {
        match self {
            Self::Session(slip) => slip.slug(),
            Self::Stream(slip) => slip.slug(),
        }
    }
}
