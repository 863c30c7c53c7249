// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! The ways in which drivers have done it, and those in which they have got it wrong.

macro_rules! designs {
    ($($(#[doc = $doc:literal])+ $name:ident = $slug:literal,)*) => {
        /// How a driver takes its locks and hands a reset over.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub enum Design {
            $($(#[doc = $doc])+ $name,)*
        }

        impl Design {
            /// Every design, the right one first.
            pub const ALL: &'static [Self] = &[$(Self::$name,)*];

            /// Its name in reports.
            pub const fn slug(self) -> &'static str {
                match self {
                    $(Self::$name => $slug,)*
                }
            }
        }
    };
}

designs! {
    /// The right one: a reset that finds state_mutex taken leaves a note in the
    /// [`ResetGate`](vfio_fsm_core::device::ResetGate), whoever holds the mutex carries it out, and
    /// a reset ends the session without the mutex of its file.
    Deferred = "deferred",
    /// The same, but a reset ends the session under the mutex of its file, as it is in mlx5, virtio
    /// and xe: under memory_lock, if it finds state_mutex free.
    ResetLocksFile = "reset-locks-file",
    /// The same, but a reset ends the session in the middle of whatever its readers do.
    ResetLocksNothing = "reset-locks-nothing",
    /// The reset handler waits for state_mutex (hisi, pds, qat; patch
    /// 20251120123647.3522082-2-michal.winiarski@intel.com, B02).
    PlainMutex = "plain-mutex",
    /// It waits for it, and then for the mutex of the file that it ends (xe before it deferred, B03).
    PlainMutexLocksFile = "plain-mutex-locks-file",
    /// It waits for it, and PRECOPY_INFO is copied to the user under it (hisi until
    /// fd94213e1417, B04).
    PlainMutexCopies = "plain-mutex-copies",
    /// state_mutex is made when the device is opened and destroyed when it is closed, and a reset
    /// through sysfs needs no open device (pds until 91aeb563bd43, B06).
    MutexOfOpenFile = "mutex-of-open-file",
    /// One source of resets does not hold another off: here the one through sysfs does without
    /// device_lock (hisi, whose PF resets its VFs by itself, until a22099ed7936, B14).
    ResetsOverlap = "resets-overlap",
    /// `write` looks whether there is room before it has the mutex of the file, and not again (qat
    /// until 4ec5e932e636, B21).
    WritesUnchecked = "writes-unchecked",
    /// The reset is left to a work item (V2 of the mlx5 patch,
    /// 20211019105838.227569-15-yishaih@nvidia.com, B05).
    WorkQueue = "work-queue",
    /// The note shares a word with a flag that is written under another lock (mlx5 until
    /// f2365a63b02d, B32).
    SharedBits = "shared-bits",
    /// Who finds a note frees the session's files before letting go of the spin lock (pds until
    /// ae2667cd8a47, B07).
    FreesUnderSpinLock = "frees-under-spin-lock",
    /// Closing the device ends its session without state_mutex (mlx5 until change
    /// 20220628131213.165730-2-yishaih@nvidia.com, B22).
    CloseUnlocked = "close-unlocked",
    /// Who ends a session does not wake its readers (mlx5 until 82470eba9df9, B23).
    NoWake = "no-wake",
    /// `read` looks at the position before it has the mutex of the file, as qat's `write` did.
    PositionUnlocked = "position-unlocked",
    /// `read` of a dead data_fd returns with the mutex of the file held.
    DeadReadKeepsLock = "dead-read-keeps-lock",
    /// `read` gives another lock back than the one it took (virtio mixed two
    /// ways of it until 20260413140815.3ada32eb@shazbot.org, B36).
    WrongUnlock = "wrong-unlock",
    /// GET lets go of state_mutex without looking for a note.
    GetSkipsGate = "get-skips-gate",
    /// After a reset carried out on unlock, state_mutex is let go without looking for another note.
    LooksOnce = "looks-once",
}

/// How a reset gets to be carried out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum HandOff {
    /// Through the gate.
    Gate,
    /// The handler waits for state_mutex.
    Wait,
    /// A work item does.
    Work,
}

impl Design {
    pub(crate) const fn hand_off(self) -> HandOff {
        match self {
            Self::PlainMutex | Self::PlainMutexLocksFile | Self::PlainMutexCopies => HandOff::Wait,
            Self::WorkQueue => HandOff::Work,
            _ => HandOff::Gate,
        }
    }
}
