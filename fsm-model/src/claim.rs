// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! Which property catches which fault. Every fault is caught, and every property catches one.

use std::fmt;

use vfio_fsm_core::device::Bug;
use vfio_fsm_core::vmm::Then;
use vfio_fsm_core::{Features, State};

use crate::case::{Case, any_vmm, group, loader, locks, saver, snapshot};
use crate::locks::Design;
use crate::session::destination::HostResets;
use crate::session::group::Role;
use crate::session::slip::Slip;
use crate::system::StreamSlip;
use crate::system::case::{
    BLANKED, ONE, RESET_LATE, RESET_LATE_TEARS, TEARS, TOUCHED_FAILS, TOUCHED_TEARS, TWO, TWO_TEAR,
    UNDISTURBED, WHOLE,
};

/// Something that is wrong in a model.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Fault {
    /// The core's device has a bug.
    Device(Bug),
    /// The VMM around a session makes a slip.
    Vmm(Slip),
    /// The driver takes its locks in another way than the right one.
    Locks(Design),
    /// Two VMMs, each of them good, get something wrong between them.
    System(StreamSlip),
    /// Nothing but what is assumed: the property, or the world around, leaves out this assumption.
    Assumption(&'static str),
}

impl Fault {
    /// Its name in reports, without what it is a fault of.
    pub const fn slug(self) -> &'static str {
        match self {
            Self::Device(bug) => bug.slug(),
            Self::Vmm(slip) => slip.slug(),
            Self::Locks(design) => design.slug(),
            Self::System(slip) => slip.slug(),
            Self::Assumption(assumption) => assumption,
        }
    }

    pub(crate) const fn bug(self) -> Option<Bug> {
        if let Self::Device(bug) = self { Some(bug) } else { None }
    }

    pub(crate) const fn slip(self) -> Option<Slip> {
        if let Self::Vmm(slip) = self { Some(slip) } else { None }
    }

    pub(crate) const fn design(self) -> Option<Design> {
        if let Self::Locks(design) = self { Some(design) } else { None }
    }

    pub(crate) const fn stream_slip(self) -> Option<StreamSlip> {
        if let Self::System(slip) = self { Some(slip) } else { None }
    }
}

/// As specs/bugs.toml names it: `device:reset-keeps-state`.
impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let of = match self {
            Self::Device(_) => "device",
            Self::Vmm(_) => "vmm",
            Self::Locks(_) => "locks",
            Self::System(_) => "system",
            Self::Assumption(_) => "assumption",
        };
        f.pad(&format!("{of}:{}", self.slug()))
    }
}

/// A fault, and a property that must catch it.
#[derive(Clone, Copy, Debug)]
pub struct Claim {
    /// The fault.
    pub fault: Fault,
    /// The id of the property.
    pub property: &'static str,
    pub(crate) case: Case,
}

impl Claim {
    /// At which level: 1, at which ops are atomic, 2, at which they are taken apart, or 3, of two
    /// machines.
    pub const fn level(&self) -> u8 {
        self.case.level()
    }

    /// In which model the fault is made.
    pub const fn model(&self) -> &'static str {
        self.case.name
    }

    /// The flags of its devices.
    pub const fn features(&self) -> Features {
        self.case.features
    }
}

macro_rules! claims {
    ($($fault:expr, $case:ident => $($property:literal)*;)*) => {{
        use Fault::{Assumption, Device, Locks, System, Vmm};
        &[$($(Claim { fault: $fault, property: $property, case: $case },)*)*]
    }};
}

/// Claims are made of models, not of their sizes.
const ANY_VMM: Case = any_vmm(Features::ALL, 0);
const PLAIN_VMM: Case = any_vmm(Features::STOP_COPY, 0);
const SAVER: Case = saver(Features::ALL, 1, 0);
/// In which no call fails: smaller, where it is not needed.
const CALM_SAVER: Case = saver(Features::ALL, 0, 0);
const PLAIN_SAVER: Case = saver(Features::STOP_COPY, 1, 0);
const BACK: Case = snapshot(Features::STOP_COPY, 0);
const LOADER: Case = loader(Features::ALL, HostResets::UntilTheLastLook, 2, 0);
const PLAIN_LOADER: Case = loader(Features::STOP_COPY, HostResets::UntilTheLastLook, 2, 0);
const HOUNDED_LOADER: Case = loader(Features::ALL, HostResets::Always, 0, 0);
const SAVERS: Case = group("2 Savers", Features::P2P, Role::Save(Then::Stop), 0);
const LOADERS: Case = group("2 Loaders", Features::P2P, Role::Load, 0);
const IN_PRE_COPY: Case = locks("from PRE_COPY", State::PreCopy, 0);
const IN_RESUMING: Case = locks("from RESUMING", State::Resuming, 0);
const IN_STOP_COPY: Case = locks("from STOP_COPY", State::StopCopy, 0);

/// Every fault with the properties that claim it.
pub const CLAIMS: &[Claim] = claims! {
    Device(Bug::ResetKeepsSession), ANY_VMM => "reset-runs" "O1-io-sees-it";
    Device(Bug::ResetKeepsState), ANY_VMM => "reset-runs" "running-reachable" "O2-fd-tells" "O3-cancel-is-noop";
    Device(Bug::LoseDeferredReset), ANY_VMM => "deferred-reset-is-done";
    Device(Bug::FreshFdInSavingGroup), ANY_VMM => "fd-iff-session-opens";
    Device(Bug::EndKeepsSession), ANY_VMM => "arc-ends-session";
    Device(Bug::StaleFdReads), ANY_VMM => "dead-io-fails";
    Device(Bug::StaleFdWrites), ANY_VMM => "dead-io-fails";
    Device(Bug::StaleFdHasInfo), ANY_VMM => "dead-info-fails";
    Device(Bug::InfoInAnyState), ANY_VMM => "dead-info-fails";
    Device(Bug::PreCopyEndsForGood), ANY_VMM => "end-of-stream";
    Device(Bug::StopCopyEndsForNow), ANY_VMM => "end-of-stream";
    Device(Bug::WalkBlockedPair), ANY_VMM => "no-blocked-arc";
    Device(Bug::SeekBlockedPair), ANY_VMM => "set-ends" "lock-released" "no-blocked-arc";
    Device(Bug::FailedArcMoves), ANY_VMM => "failed-set-on-route";
    Device(Bug::ErrorKeepsSession), ANY_VMM => "session-iff-state";
    Device(Bug::RefusalEndsSession), ANY_VMM => "refused-changes-nothing" "live-io-works";
    Device(Bug::SameStateRestarts), ANY_VMM => "same-state-noop";
    Device(Bug::ResetStaysInError), ANY_VMM => "reset-runs";
    Device(Bug::CloseKeepsState), ANY_VMM => "close-ends";
    Device(Bug::OpensInStop), ANY_VMM => "close-ends";
    Device(Bug::CloseKeepsSession), ANY_VMM => "close-ends" "session-iff-state";
    Device(Bug::LoadGarbles), ANY_VMM => "load-restores";
    Device(Bug::FailedOpenLeaks), ANY_VMM => "session-holds-its-own";
    Device(Bug::FailedOpenFreesTwice), ANY_VMM => "session-holds-its-own";
    Device(Bug::FailedOpenFreesNothing), ANY_VMM => "session-holds-its-own";
    Device(Bug::FailedOpenUsesFreed), ANY_VMM => "session-holds-its-own";
    Device(Bug::PreCopyP2pForgotten), ANY_VMM => "dead-info-fails";
    Device(Bug::EpochReused), ANY_VMM => "one-live-fd" "dead-io-fails";
    Device(Bug::ResetKeepsData), ANY_VMM => "bytes-of-this-life";
    Device(Bug::IgnoreFlags), PLAIN_VMM => "state-has-flags";
    Device(Bug::StopsShort), ANY_VMM => "set-arrives";
    Device(Bug::LeaksLock), ANY_VMM => "reset-runs" "lock-released";
    Device(Bug::NoRoomNoMove), ANY_VMM => "moved-without-fd";
    Device(Bug::ErrorLeftBySet), ANY_VMM => "error-until-reset";
    Device(Bug::EndOfStreamMoves), ANY_VMM => "only-set-and-reset-move";
    Device(Bug::CloseFdCancels), ANY_VMM => "closing-fd-keeps-session";
    Device(Bug::DeadPollHangs), ANY_VMM => "dead-poll-returns";
    Device(Bug::GetSaysRunning), ANY_VMM => "get-tells";
    Vmm(Slip::SwapsFd), CALM_SAVER => "saver-image" "saver-closes";
    Vmm(Slip::ClosesNewFd), SAVER => "saver-sees-unexpected-fd";
    Vmm(Slip::UsesFirstFd), SAVER => "saver-live-fd";
    Vmm(Slip::UsesFirstFd), LOADER => "loader-live-fd";
    Vmm(Slip::LeaksFd), SAVER => "saver-closes";
    Vmm(Slip::LeaksFd), LOADER => "loader-closes";
    Vmm(Slip::InfoFailsSilently), SAVER => "saver-asks-after-error";
    Vmm(Slip::DeadFdIsEnd), SAVER => "saver-asks-after-error" "saver-image";
    Vmm(Slip::NeverReady), SAVER => "saver-waits-for-something";
    Vmm(Slip::NeverReady), LOADER => "loader-waits-for-something";
    Vmm(Slip::RemembersState), SAVER => "saver-legal-set" "saver-asks-after-error";
    Vmm(Slip::RemembersState), LOADER => "loader-legal-set" "loader-one-session";
    Vmm(Slip::SaysRunning), SAVER =>
        "saver-aborts" "saver-guest" "saver-evidence-is-sound" "saver-sees-dead-fd"
        "saver-sees-deferred-reset" "saver-sees-noop-cancel";
    Vmm(Slip::SaysRunning), LOADER =>
        "loader-aborts-by-reset" "loader-evidence-is-sound" "loader-sees-reset-before-start";
    Vmm(Slip::KeepsFdAfterError), SAVER => "saver-aborts" "saver-legal-set";
    Vmm(Slip::SaysAllFeatures), PLAIN_SAVER => "saver-legal-set";
    Vmm(Slip::SaysAllFeatures), PLAIN_LOADER => "loader-legal-set";
    Vmm(Slip::ResetUnchecked), SAVER => "saver-evidence-is-sound";
    Vmm(Slip::ResetDenied), SAVER => "saver-stuck-by-reset";
    Vmm(Slip::ResetDenied), LOADER => "loader-stuck-by-reset";
    Vmm(Slip::DwellsInStop), LOADER => "loader-does-not-dwell";
    Vmm(Slip::GuestRunsOn), CALM_SAVER => "saver-freezes" "saver-image";
    Vmm(Slip::GuestRunsOn), SAVER => "saver-holds-resets-back";
    Vmm(Slip::GuestRunsOn), LOADER => "loader-freezes";
    Vmm(Slip::GuestRunsOn), SAVERS => "group-freezes";
    Vmm(Slip::ThawsEarly), SAVER => "saver-freezes";
    Vmm(Slip::ThawsEarly), LOADERS => "group-thaws-together";
    Vmm(Slip::ForgetsThaw), SAVER => "saver-aborts";
    Vmm(Slip::ForgetsThaw), BACK => "saver-complete";
    Vmm(Slip::ForgetsThaw), LOADER => "loader-complete";
    Vmm(Slip::ForgetsThaw), SAVERS => "group-all-or-none";
    Vmm(Slip::LosesDiscard), CALM_SAVER => "saver-image";
    Vmm(Slip::LosesData), CALM_SAVER => "saver-image";
    Vmm(Slip::DoublesData), CALM_SAVER => "saver-image";
    Vmm(Slip::IgnoresEpoch), LOADER => "loader-refuses-mixed";
    Vmm(Slip::ForgetsConfig), LOADER => "loader-hooks-in-order";
    Vmm(Slip::DeafToCancel), SAVER => "saver-gives-up";
    Vmm(Slip::DeafToCancel), LOADER => "loader-gives-up";
    Vmm(Slip::DeafToCancel), SAVERS => "group-ends";
    Vmm(Slip::IgnoresGates), SAVERS => "group-is-quiet";
    Vmm(Slip::IgnoresGates), LOADERS => "group-is-quiet";
    Locks(Design::ResetLocksFile), IN_PRE_COPY => "locks-no-deadlock" "locks-in-order";
    Locks(Design::ResetLocksNothing), IN_PRE_COPY => "locks-guard-the-session";
    Locks(Design::PlainMutex), IN_PRE_COPY => "locks-no-deadlock" "locks-in-order" "locks-reset-never-waits";
    Locks(Design::PlainMutexCopies), IN_PRE_COPY => "locks-no-deadlock" "locks-in-order";
    Locks(Design::PlainMutexLocksFile), IN_PRE_COPY =>
        "locks-no-deadlock" "locks-in-order" "locks-reset-never-waits";
    Locks(Design::MutexOfOpenFile), IN_PRE_COPY => "locks-are-there";
    Locks(Design::ResetsOverlap), IN_PRE_COPY => "locks-one-reset-at-a-time";
    Locks(Design::WritesUnchecked), IN_RESUMING => "locks-calls-in-some-order";
    Locks(Design::WorkQueue), IN_PRE_COPY => "locks-reset-before-it-returns";
    Locks(Design::SharedBits), IN_PRE_COPY => "locks-no-reset-lost";
    Locks(Design::FreesUnderSpinLock), IN_PRE_COPY => "locks-no-sleep-under-spin-lock";
    Locks(Design::CloseUnlocked), IN_PRE_COPY => "locks-guard-the-state";
    Locks(Design::NoWake), IN_STOP_COPY => "locks-wake-the-reader";
    Locks(Design::PositionUnlocked), IN_PRE_COPY => "locks-calls-in-some-order";
    Locks(Design::DeadReadKeepsLock), IN_PRE_COPY => "locks-are-returned" "locks-no-deadlock";
    Locks(Design::WrongUnlock), IN_PRE_COPY => "locks-are-returned";
    Locks(Design::GetSkipsGate), IN_PRE_COPY => "locks-no-reset-lost" "locks-reset-before-it-returns";
    Locks(Design::LooksOnce), IN_PRE_COPY => "locks-no-reset-lost";
    Vmm(Slip::SwapsFd), ONE => "system-one-session";
    Vmm(Slip::SaysRunning), ONE => "system-source-goes-on";
    Vmm(Slip::GuestRunsOn), ONE => "system-frozen" "system-nothing-lost" "system-one-guest";
    Vmm(Slip::GuestRunsOn), TEARS => "system-never-torn" "system-as-it-stopped";
    Vmm(Slip::ThawsEarly), ONE => "system-frozen";
    Vmm(Slip::ForgetsThaw), ONE => "system-source-goes-on";
    Vmm(Slip::DeafToCancel), ONE => "system-loud";
    Vmm(Slip::IgnoresGates), TWO => "system-quiet";
    System(StreamSlip::IgnoresDiscard), ONE => "system-one-session";
    System(StreamSlip::ReplaysSession), WHOLE => "system-one-session";
    System(StreamSlip::StartsBeforeEnd), ONE => "system-one-session" "system-hands-over-first";
    System(StreamSlip::StartsUnasked), ONE => "system-hands-over-first";
    System(StreamSlip::SkipsP2p), TWO => "system-quiet" "system-nothing-lost";
    System(StreamSlip::SkipsP2p), TWO_TEAR => "system-never-torn";
    System(StreamSlip::ResumesAfterHandOver), ONE => "system-one-guest";
    System(StreamSlip::TellsNothing), ONE => "system-goes-on" "system-every-run-ends";
    System(StreamSlip::ResetsQuietly), ONE => "system-loss-is-said";
    System(StreamSlip::NeverSwitchesOver), UNDISTURBED => "system-every-run-ends";
    System(StreamSlip::BelievesInReset), ONE => "system-blank-again";
    Assumption("no-reset-inside-set"), ANY_VMM => "O2-without-assumption";
    Assumption("host-keeps-still"), HOUNDED_LOADER => "V9-without-assumption";
    Assumption("reset-may-be-under-way"), IN_PRE_COPY => "locks-reset-over-when-it-returns";
    Assumption("host-keeps-still"), BLANKED => "system-as-it-stopped";
    Assumption("guest-held-back"), TOUCHED_TEARS => "system-never-torn";
    Assumption("guest-held-back"), TOUCHED_FAILS => "system-nothing-lost";
    Assumption("driver-hears-of-resets"), RESET_LATE_TEARS => "system-never-torn";
    Assumption("driver-hears-of-resets"), RESET_LATE => "system-as-it-stopped";
};
