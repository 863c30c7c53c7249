// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! Whole migrations between two devices, each disturbed at another step.
//!
//! An undisturbed run shows the sequence of the source's ops. Then, one run for each: the VMM
//! cancels before every step; the device is reset before, within and behind every step, under each
//! of the three recoveries; and it is reset at every step of the way back from a cancel. Every run
//! must end with the destination equal to what the source was when it stopped, what came after the
//! reset included, or in a failure said aloud with the source running. Equal means that a snapshot
//! of each reads the same bytes, and that these are the bytes of what the guest wrote last.
//!
//! A reset with the guest frozen is the host's, since nobody else can do one; all others are the
//! guest's, and its driver sets up the device anew behind each.

mod case;
mod judge;
mod matrix;
mod memory;
mod probe;
mod random;
mod record;
mod vmm;

pub use case::{Case, Choice, Sequence, When};
pub use judge::{Fell, Outcome};
pub use matrix::{CaseReport, Failure, Matrix, Progress, Seen};
pub use random::Seeds;

use vfio_fsm_core::Features;
use vfio_fsm_core::device::Bug;
use vfio_fsm_core::vmm::frame::EncodeError;

use memory::InMemory;

/// The matrix on two devices in memory with these flags, and this bug in both.
pub fn in_memory(
    features: Features,
    bug: Option<Bug>,
    on: &mut dyn FnMut(Progress<'_>),
) -> Result<Matrix, Error> {
    Matrix::run(&mut InMemory::new(features, bug), 0, on)
}

/// Why migrations could not be run at all. None of these is a verdict.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The stream cannot be begun.
    #[error(transparent)]
    Stream(#[from] EncodeError),
}
