// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! What VMMs get wrong around a session: each breaks a property, and shows that it can be broken.
//!
//! The sessions stay as they ship. A slip is in what carries their steps out.

macro_rules! slips {
    ($slip:ident: $($(#[doc = $doc:literal])+ $name:ident = $slug:literal,)*) => {
        /// A way to carry out what a session says, and not quite.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub enum $slip {
            $($(#[doc = $doc])+ $name,)*
        }

        impl $slip {
            /// Every slip.
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

pub(crate) use slips;

slips! { Slip:
    /// A data_fd that SET returns where one is held already silently takes its place (vfio-ioctls).
    SwapsFd = "swaps-fd",
    /// A data_fd that SET returns where one is held already is closed at once (QEMU).
    ClosesNewFd = "closes-new-fd",
    /// Reads and writes go on to the data_fd that was there first.
    UsesFirstFd = "uses-first-fd",
    /// A data_fd is not closed.
    LeaksFd = "leaks-fd",
    /// PRECOPY_INFO that fails is nothing left to read (QEMU).
    InfoFailsSilently = "info-fails-silently",
    /// ENODEV from the data_fd is taken for the end of the stream.
    DeadFdIsEnd = "dead-fd-is-end",
    /// A call that succeeded is said to have found the data_fd not ready.
    NeverReady = "never-ready",
    /// A SET that fails is taken for done, and the state is remembered, not asked for.
    RemembersState = "remembers-state",
    /// Who asks for the state is told RUNNING.
    SaysRunning = "says-running",
    /// The device is said to have every feature.
    SaysAllFeatures = "says-all-features",
    /// What a reset answers is not looked at (vfio-ioctls).
    ResetUnchecked = "reset-unchecked",
    /// A reset that succeeded is said to have failed.
    ResetDenied = "reset-denied",
    /// On the way from RESUMING to RUNNING a stop is made in STOP (Cloud Hypervisor, once).
    DwellsInStop = "dwells-in-stop",
    /// The guest runs on when it should be frozen.
    GuestRunsOn = "guest-runs-on",
    /// The guest is let go when the session begins to give up, not when it says so.
    ThawsEarly = "thaws-early",
    /// The guest stays frozen when it should be let go.
    ForgetsThaw = "forgets-thaw",
    /// A discard does not reach the receiver.
    LosesDiscard = "loses-discard",
    /// A chunk of data does not reach the receiver.
    LosesData = "loses-data",
    /// A chunk of data is sent twice.
    DoublesData = "doubles-data",
    /// A frame of another epoch is said to be of the current one.
    IgnoresEpoch = "ignores-epoch",
    /// Configuration space is not restored, and the session is told that it is.
    ForgetsConfig = "forgets-config",
    /// That the VMM gives up does not reach the session.
    DeafToCancel = "deaf-to-cancel",
    /// The order over the devices is not waited for.
    IgnoresGates = "ignores-gates",
}
