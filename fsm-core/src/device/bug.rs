// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! Bugs to plant, so that a check can be shown to fail.

macro_rules! bugs {
    ($($(#[doc = $doc:literal])+ $name:ident = $slug:literal,)*) => {
        /// A way to get the state machine wrong. Most were shipped by somebody once.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub enum Bug {
            $($(#[doc = $doc])+ $name,)*
        }

        impl Bug {
            /// Every bug that can be planted.
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

bugs! {
    /// A reset forgets the session: its data_fd goes on working.
    ResetKeepsSession = "reset-keeps-session",
    /// A reset forgets the device_state (libvfio-user, B48).
    ResetKeepsState = "reset-keeps-state",
    /// The holder of the state lock lets go without looking for a deferred reset (B32).
    LoseDeferredReset = "lose-deferred-reset",
    /// PRE_COPY to STOP_COPY ends the session and opens another with a data_fd of its own.
    FreshFdInSavingGroup = "fresh-fd-in-saving-group",
    /// An arc out of the saving group or RESUMING leaves the session open.
    EndKeepsSession = "end-keeps-session",
    /// A read does not look at which session the data_fd belongs to.
    StaleFdReads = "stale-fd-reads",
    /// A write does not look at which session the data_fd belongs to.
    StaleFdWrites = "stale-fd-writes",
    /// PRECOPY_INFO does not look at which session the data_fd belongs to.
    StaleFdHasInfo = "stale-fd-has-info",
    /// PRECOPY_INFO does not look at the device_state (R33).
    InfoInAnyState = "info-in-any-state",
    /// The end of the stream is permanent in PRE_COPY (mtty, hisi_acc, qat).
    PreCopyEndsForGood = "pre-copy-ends-for-good",
    /// The end of the stream is temporary in STOP_COPY.
    StopCopyEndsForNow = "stop-copy-ends-for-now",
    /// STOP_COPY to PRE_COPY is walked through STOP (the request of B01).
    WalkBlockedPair = "walk-blocked-pair",
    /// The way from STOP_COPY to PRE_COPY is looked for again and again, with the state lock held:
    /// the SET does not return (B01). What stands for that here is EAGAIN, and a lock never let go.
    SeekBlockedPair = "seek-blocked-pair",
    /// A failed arc is taken for done.
    FailedArcMoves = "failed-arc-moves",
    /// A device in ERROR still has its session.
    ErrorKeepsSession = "error-keeps-session",
    /// A refused SET ends the session (what vfio-ioctls does to its copy of the fd).
    RefusalEndsSession = "refusal-ends-session",
    /// A SET of the state that the device is in starts the session anew.
    SameStateRestarts = "same-state-restarts",
    /// A reset does not bring a device out of ERROR (R14).
    ResetStaysInError = "reset-stays-in-error",
    /// The device reopens in the state in which it was closed (mtty).
    CloseKeepsState = "close-keeps-state",
    /// The device opens in STOP (QEMU believed so, by the number of another protocol, B41).
    OpensInStop = "opens-in-stop",
    /// Closing the device leaves its session open (hisi_acc behind a load that failed, B15).
    CloseKeepsSession = "close-keeps-session",
    /// After a reset the sessions are counted from the start again, so a dead fd comes back to life.
    EpochReused = "epoch-reused",
    /// A reset leaves the registers as they were (mtty).
    ResetKeepsData = "reset-keeps-data",
    /// What was loaded is not what was saved (hisi_acc: of a device that no driver has set up, B16,
    /// and of addresses put together from the wrong words, B17).
    LoadGarbles = "load-garbles",
    /// A session that cannot be opened keeps what it had got so far (B29).
    FailedOpenLeaks = "failed-open-leaks",
    /// It gives the same back twice (B28).
    FailedOpenFreesTwice = "failed-open-frees-twice",
    /// It gives back what it never got (B30).
    FailedOpenFreesNothing = "failed-open-frees-nothing",
    /// It uses what it has given back (B37).
    FailedOpenUsesFreed = "failed-open-uses-freed",
    /// PRE_COPY_P2P is not counted among the pre-copy states (QEMU had a check like that, B45).
    PreCopyP2pForgotten = "pre-copy-p2p-forgotten",
    /// The route is looked up without regard to the flags.
    IgnoreFlags = "ignore-flags",
    /// A long route is given up before its last arc, and SET says that all is well.
    StopsShort = "stops-short",
    /// A SET that fails returns with the state lock held, so a reset is never done.
    LeaksLock = "leaks-lock",
    /// The fd is reserved before the device moves: with no room nothing happens.
    NoRoomNoMove = "no-room-no-move",
    /// A SET leads out of ERROR.
    ErrorLeftBySet = "error-left-by-set",
    /// The end of the stream in STOP_COPY takes the device to STOP.
    EndOfStreamMoves = "end-of-stream-moves",
    /// The user's close of his data_fd cancels: the device goes back to RUNNING.
    CloseFdCancels = "close-fd-cancels",
    /// Who polls a dead data_fd waits for ever (mlx5, B23).
    DeadPollHangs = "dead-poll-hangs",
    /// GET says RUNNING whatever the state is.
    GetSaysRunning = "get-says-running",
}

/// The bug in a device, if any. Without the feature `mutants` there is none, at no cost.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Planted {
    #[cfg(feature = "mutants")]
    bug: Option<Bug>,
}

impl Planted {
    /// A correct device.
    #[cfg(not(feature = "mutants"))]
    pub const NONE: Self = Self {};
    /// A correct device.
    #[cfg(feature = "mutants")]
    pub const NONE: Self = Self { bug: None };

    /// A device with this bug.
    #[cfg(feature = "mutants")]
    pub const fn bug(bug: Bug) -> Self {
        Self { bug: Some(bug) }
    }

    #[cfg(not(feature = "mutants"))]
    pub(super) const fn is(self, _bug: Bug) -> bool {
        false
    }

    #[cfg(feature = "mutants")]
    pub(super) const fn is(self, bug: Bug) -> bool {
        match self.bug {
            Some(planted) => planted as u8 == bug as u8,
            None => false,
        }
    }
}
