// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! Which property catches which bug. Every bug is caught, and every property catches something.

use vfio_fsm_core::Features;
use vfio_fsm_core::device::Bug;

/// A bug planted in the core's device, and a property that must catch it.
#[derive(Clone, Copy, Debug)]
pub struct Mutant {
    /// The bug.
    pub bug: Bug,
    /// The flags of the device that has it.
    pub features: Features,
    /// The id of the property that claims it.
    pub property: &'static str,
}

macro_rules! mutants {
    ($($bug:ident in $features:ident => $($property:literal)*,)*) => {
        &[$($(Mutant {
            bug: Bug::$bug,
            features: Features::$features,
            property: $property,
        },)*)*]
    };
}

/// Every bug of [`Bug::ALL`] with the properties that claim it.
pub const MUTANTS: &[Mutant] = mutants! {
    ResetKeepsSession in ALL => "reset-runs" "O1-io-sees-it",
    ResetKeepsState in ALL => "reset-runs" "running-reachable" "O2-fd-tells" "O3-cancel-is-noop",
    LoseDeferredReset in ALL => "deferred-reset-is-done",
    FreshFdInSavingGroup in ALL => "fd-iff-session-opens",
    EndKeepsSession in ALL => "arc-ends-session",
    StaleFdReads in ALL => "dead-io-fails",
    StaleFdWrites in ALL => "dead-io-fails",
    StaleFdHasInfo in ALL => "dead-info-fails",
    InfoInAnyState in ALL => "dead-info-fails",
    PreCopyEndsForGood in ALL => "end-of-stream",
    StopCopyEndsForNow in ALL => "end-of-stream",
    WalkBlockedPair in ALL => "no-blocked-arc",
    FailedArcMoves in ALL => "failed-set-on-route",
    ErrorKeepsSession in ALL => "session-iff-state",
    RefusalEndsSession in ALL => "refused-changes-nothing" "live-io-works",
    SameStateRestarts in ALL => "same-state-noop",
    ResetStaysInError in ALL => "reset-runs",
    CloseKeepsState in ALL => "close-ends",
    EpochReused in ALL => "one-live-fd" "dead-io-fails",
    ResetKeepsData in ALL => "bytes-of-this-life",
    IgnoreFlags in STOP_COPY => "state-has-flags",
    StopsShort in ALL => "set-arrives",
    LeaksLock in ALL => "reset-runs" "lock-released",
    NoRoomNoMove in ALL => "moved-without-fd",
    ErrorLeftBySet in ALL => "error-until-reset",
    EndOfStreamMoves in ALL => "only-set-and-reset-move",
    CloseFdCancels in ALL => "closing-fd-keeps-session",
    DeadPollHangs in ALL => "dead-poll-returns",
    GetSaysRunning in ALL => "get-tells",
};
