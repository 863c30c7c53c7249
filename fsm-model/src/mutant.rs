// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! Which property catches which bug.

use vfio_fsm_core::device::Bug;

/// A bug planted in the core's device, and the property that must catch it.
#[derive(Clone, Copy, Debug)]
pub struct Mutant {
    /// The bug.
    pub bug: Bug,
    /// The id of the property that claims it.
    pub property: &'static str,
}

macro_rules! mutants {
    ($($bug:ident => $property:literal,)*) => {
        &[$(Mutant { bug: Bug::$bug, property: $property },)*]
    };
}

/// Every bug of [`Bug::ALL`] with its property.
pub const MUTANTS: &[Mutant] = mutants! {
    ResetKeepsSession => "reset-runs",
    ResetKeepsState => "reset-runs",
    LoseDeferredReset => "deferred-reset-is-done",
    FreshFdInSavingGroup => "fd-iff-session-opens",
    EndKeepsSession => "arc-ends-session",
    StaleFdReads => "dead-io-fails",
    StaleFdWrites => "dead-io-fails",
    StaleFdHasInfo => "dead-info-fails",
    InfoInAnyState => "dead-info-fails",
    PreCopyEndsForGood => "end-of-stream",
    StopCopyEndsForNow => "end-of-stream",
    WalkBlockedPair => "no-blocked-arc",
    FailedArcMoves => "failed-set-on-route",
    ErrorKeepsSession => "session-iff-state",
    RefusalEndsSession => "refused-changes-nothing",
    SameStateRestarts => "same-state-noop",
    ResetStaysInError => "reset-runs",
    CloseKeepsState => "close-ends",
};
