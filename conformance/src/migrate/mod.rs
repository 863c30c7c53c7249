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
mod kernel;
mod matrix;
mod memory;
#[cfg(feature = "mlx5")]
mod mlx5;
mod node;
mod peer;
mod probe;
mod random;
mod record;
mod vmm;
mod watchdog;

pub use case::{Case, Choice, Sequence, When};
pub use judge::{Fell, Outcome};
pub use kernel::{Setup, on_kernel};
pub use matrix::{CaseReport, Failure, Matrix, Progress, Seen};
pub use memory::Devices;
pub use peer::{Peer, Resetter, serve_destination, serve_resets};
pub use random::{Seeds, Told};
pub use watchdog::Hang;

use std::io;

use vfio_fsm_core::vmm::frame::EncodeError;
use vfio_fsm_core::{Errno, Features};
use vfio_fsm_kernel::{FreshError, OpenError, ParsePathError, TouchError};

use memory::InMemory;

/// The matrix on two devices in memory with these flags, from the n-th case on, counted from 0.
///
/// # Errors
///
/// None that depends on what the devices do.
pub fn in_memory(
    features: Features,
    devices: impl Into<Devices>,
    from: usize,
    on: &mut dyn FnMut(Progress<'_>),
) -> Result<Matrix, Error> {
    Matrix::run(&mut InMemory::new(features, devices.into())?, from, on)
}

/// Why migrations could not be run at all. None of these is a verdict.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The stream cannot be begun.
    #[error(transparent)]
    Stream(#[from] EncodeError),
    /// The name of a device is none.
    #[error(transparent)]
    Path(#[from] ParsePathError),
    /// A device cannot be opened.
    #[error(transparent)]
    Open(#[from] OpenError),
    /// The byte to touch is none of the device's.
    #[error(transparent)]
    NoTouch(#[from] TouchError),
    /// A device cannot be had fresh.
    #[error(transparent)]
    Fresh(#[from] FreshError),
    /// A device on a software firmware cannot be had.
    #[cfg(feature = "mlx5")]
    #[error(transparent)]
    Software(#[from] vfio_fsm_mlx5::software::SoftwareError),
    /// The byte cannot be written.
    #[error("the device's byte cannot be written, {errno}: name another one with --touch")]
    Touch {
        /// What the write said.
        errno: Errno,
    },
    /// A snapshot does not depend on the byte, so that equality would prove nothing.
    #[error(
        "two values of byte {offset} of region {region} give the same snapshot, or none could be \
         taken: name a byte with --touch that the device keeps and migrates (mtty: 0:7)"
    )]
    NotMigrated {
        /// The region.
        region: u32,
        /// The byte.
        offset: u64,
    },
    /// A reset by the other process failed.
    #[error("VFIO_DEVICE_RESET by the other process failed with errno {errno}")]
    Reset {
        /// What it said.
        errno: i32,
    },
    /// Another process has gone.
    #[error("{who} has ended; see what it said on standard error")]
    Gone {
        /// Which.
        who: &'static str,
    },
    /// A process could not be started, or not be spoken to.
    #[error("the other processes of a migration: {0}")]
    Io(#[from] io::Error),
}
