// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! What can be found in a recording, and what it stands on.

use std::fmt;

use serde::{Serialize, Serializer};

/// How bad a finding is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Severity {
    /// Good to know; nothing is wrong with it.
    Note,
    /// Against a recommendation, or wrong unless something is so that a recording does not show.
    Warning,
    /// Wrong.
    Error,
}

impl fmt::Display for Severity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Note => "note",
            Self::Warning => "warning",
            Self::Error => "error",
        })
    }
}

/// Who is at fault.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Side {
    /// The device, its driver included.
    Device,
    /// The VMM.
    Vmm,
}

macro_rules! rules {
    ($($(#[doc = $doc:literal])* $name:ident = $slug:literal, $side:ident, $severity:ident, [$($id:literal),*], $todo:literal;)*) => {
        /// One thing that can be found.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
        #[non_exhaustive]
        pub enum Rule {
            $($(#[doc = $doc])* $name,)*
        }

        impl Rule {
            /// All of them.
            pub const ALL: &'static [Self] = &[$(Self::$name,)*];

            /// Its id in reports.
            pub const fn id(self) -> &'static str {
                match self { $(Self::$name => $slug,)* }
            }

            /// Whom it is about.
            pub const fn side(self) -> Side {
                match self { $(Self::$name => Side::$side,)* }
            }

            /// How bad it is, where a finding does not say otherwise.
            pub const fn severity(self) -> Severity {
                match self { $(Self::$name => Severity::$severity,)* }
            }

            /// The requirements it stands on, by their ids in `specs/requirements.toml`.
            pub const fn requirements(self) -> &'static [&'static str] {
                match self { $(Self::$name => &[$($id),*],)* }
            }

            /// What to do about it.
            pub const fn todo(self) -> &'static str {
                match self { $(Self::$name => $todo,)* }
            }
        }
    };
}

rules! {
    /// The flags are no legal set, or other flags than before.
    DeviceFeatures = "device-features", Device, Error, ["R1", "R2", "R3"],
        "report it to the driver's authors";
    /// A SET was answered as no device may from where this one was.
    DeviceSet = "device-set", Device, Error, ["R6", "R9", "R24", "R25", "R27", "C5", "C6", "C8"],
        "report it to the driver's authors; `vfio-conform replay --suite arcs` shows more";
    /// A GET of the device_state that nothing before explains.
    DeviceState = "device-state", Device, Error, ["R7", "R12", "C15", "C26"],
        "report it to the driver's authors; `vfio-conform replay --suite resets` shows more";
    /// A call on a data_fd was answered as its session does not allow.
    DeviceStream = "device-stream", Device, Error, ["R30", "C13", "C16", "C22", "C23"],
        "report it to the driver's authors; `vfio-conform replay --suite fds` shows more";
    /// A stream came to the other one of its two ends: ENOMSG in STOP_COPY, or 0 in PRE_COPY.
    DeviceEnd = "device-end", Device, Error, ["R31", "R32"],
        "report it to the driver's authors; a VMM takes 0 in PRE_COPY for `nothing for now`";
    /// PRECOPY_INFO was answered as it must not.
    DeviceInfo = "device-info", Device, Error, ["R33", "R34", "R38", "C19", "C24"],
        "report it to the driver's authors; `vfio-conform replay --suite streams` shows more";
    /// initial_bytes rose without REINIT.
    DeviceInitial = "device-initial", Device, Warning, ["R35", "C47"],
        "report it to the driver's authors";
    /// Another call was answered as it must not.
    DeviceOther = "device-other", Device, Error, ["R39", "R50", "C26", "C45"],
        "report it to the driver's authors";
    /// Only a reset that is not in the recording explains the answer.
    ResetInferred = "reset-inferred", Device, Note, ["C15", "O1", "O2"],
        "nothing, if the guest or the host reset the device; see how the VMM went on";
    /// A SET before a GET of the features.
    FeaturesFirst = "features-first", Vmm, Error, ["R1", "R4"],
        "GET VFIO_DEVICE_FEATURE_MIGRATION first, and SET what it allows only";
    /// A SET that no device can follow from where this one was known to be.
    NoRoute = "no-route", Vmm, Error, ["R4", "R5", "C6", "C8"],
        "look the route up before the SET (`Route::new`), and reset a device in ERROR";
    /// A SET of one of the two pairs that hang an unpatched kernel.
    BlockedArc = "blocked-arc", Vmm, Error, ["R16", "C10"],
        "go through STOP: kernels before the fix of 2026 never return from this SET";
    /// A data_fd was used whose session the VMM had ended, or that it had closed.
    StaleFd = "stale-fd", Vmm, Error, ["R10", "C13", "C16"],
        "forget a data_fd when its session ends";
    /// After a data_fd where none was due the VMM went on with the one of before.
    FreshFdIgnored = "fresh-fd-ignored", Vmm, Error, ["R28", "O2"],
        "take a data_fd that was not due for a reset: let the receiver discard what it has, then \
         restart or abort";
    /// After an errno that ends a session the VMM went on with its data_fd.
    ErrorIgnored = "error-ignored", Vmm, Error, ["C16", "C19", "O1"],
        "close the data_fd, GET the device_state, then restart or abort";
    /// After a SET that failed the VMM went on as if it had not.
    FailureIgnored = "failure-ignored", Vmm, Error, ["R8", "R29", "C9"],
        "after a SET that failed GET the device_state, or reset the device";
    /// RESUMING was left with a write that failed or was cut short, or with nothing written.
    UncheckedLoad = "unchecked-load", Vmm, Error, ["R11", "R15", "R29"],
        "write until all is taken, and abort by a reset";
    /// STOP_COPY was left before its stream was read to the end.
    NotDrained = "not-drained", Vmm, Warning, ["R31"],
        "read until read() returns 0; what was read so far is no image of the device";
    /// PRE_COPY was left for STOP_COPY before the initial bytes were read.
    InitialLeft = "initial-left", Vmm, Warning, ["R35"],
        "wait for initial_bytes to reach 0; the downtime is longer otherwise";
    /// PRECOPY_INFO was asked outside of the pre-copy states.
    InfoOutside = "info-outside", Vmm, Error, ["R33"],
        "ask only in PRE_COPY and PRE_COPY_P2P";
    /// A session was ended with its data_fd open.
    LeftOpen = "left-open", Vmm, Note, ["R10", "R26"],
        "nothing, if it is closed next: nobody may read from it any more";
    /// The device was closed with a data_fd open.
    ClosedFirst = "closed-first", Vmm, Warning, ["R10", "C25"],
        "close the data_fd before the device";
    /// A data_fd was never closed.
    NeverClosed = "never-closed", Vmm, Warning, ["R10"],
        "close every data_fd, also a dead one";
    /// A save was brought to its end, and nobody looked where the device was.
    NeverLooked = "never-looked", Vmm, Note, ["O4"],
        "GET the device_state behind the last SET: a reset that arrived inside it shows only there";
    /// A device was stopped while another one of the VM still started peer-to-peer DMA.
    PeerRunning = "peer-running", Vmm, Warning, ["R21", "R22"],
        "bring every device to a P2P state first, then the first of them to STOP";
    /// The log of DMA was used out of order.
    LogOrder = "log-order", Vmm, Error, ["R43", "R49"],
        "START, REPORT as often as needed, STOP";
    /// A REPORT failed, and with it the whole log.
    LogCorrupt = "log-corrupt", Vmm, Note, ["R48"],
        "take all memory for dirty";
}

impl fmt::Display for Rule {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.id())
    }
}

impl Serialize for Rule {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(self.id())
    }
}

/// What one side has to say about a step, before it is put into a report.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Remark {
    pub(super) rule: Rule,
    pub(super) severity: Severity,
    pub(super) expected: String,
}

impl Remark {
    pub(super) fn new(rule: Rule, expected: impl Into<String>) -> Self {
        Self { rule, severity: rule.severity(), expected: expected.into() }
    }

    pub(super) const fn only(mut self, severity: Severity) -> Self {
        self.severity = severity;
        self
    }
}
