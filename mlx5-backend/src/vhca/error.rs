// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! What can go wrong with a VHCA's migration.

use vfio_fsm_core::Errno;

use crate::command::CommandError;
use crate::dma::DmaError;
use crate::stream::StreamError;

/// Why a virtual function cannot be migrated, or not now.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum VhcaError {
    /// A firmware command failed.
    #[error(transparent)]
    Command(#[from] CommandError),
    /// The physical function lacks a capability, or the virtual one does.
    #[error(
        "the device lacks the capability {capability}: see to its firmware, to VF_MIGRATION_MODE, \
         and for migratable to `devlink port function set`"
    )]
    Lacks {
        /// The kernel header's name for it.
        capability: &'static str,
    },
    /// There is no memory for the state.
    #[error("memory for the state: {0}")]
    Dma(#[from] DmaError),
    /// The physical function has been taken away from its virtual functions.
    #[error("the physical function is detached; attach it again, or give the device up")]
    Detached,
    /// The firmware says that it wrote more than there was room for.
    #[error("SAVE says it wrote {image} bytes into a buffer of {room}; the image is thrown away")]
    ImageTooLong {
        /// What it says.
        image: usize,
        /// What it was given.
        room: usize,
    },
    /// Memory keys or protection domains of an earlier session could not be given back.
    #[error(
        "{left} memory keys and protection domains of an earlier session are still with the \
         firmware, which may write through them; each new session tries again to give them back"
    )]
    Leftovers {
        /// How many.
        left: usize,
    },
    /// What was written is not what a device writes.
    #[error("the stream is refused: {0}")]
    Stream(#[from] StreamError),
    /// A stream without its final image, or with no image at all.
    #[error("the stream ends before there is an image of the device in it; begin anew")]
    Unfinished,
    /// There is no session for this.
    #[error("no {wanted} session is open; SET a state that has one")]
    NoSession {
        /// Which kind is needed.
        wanted: &'static str,
    },
}

impl VhcaError {
    /// The errno that a driver returns for it.
    pub fn errno(self) -> Errno {
        match self {
            Self::Command(error) => error.errno(),
            Self::Dma(error) => error.errno(),
            Self::Lacks { .. } => Errno::EOPNOTSUPP,
            Self::Detached => Errno::ENOTCONN,
            Self::ImageTooLong { .. } => Errno::EIO,
            Self::Leftovers { .. } => Errno::EBUSY,
            Self::Stream(error) => error.errno(),
            Self::Unfinished => Errno::EINVAL,
            Self::NoSession { .. } => Errno::ENODEV,
        }
    }

    /// Whether it is not known what the firmware has done, or is still doing.
    pub(super) const fn leaves_doubt(self) -> bool {
        matches!(self, Self::Command(CommandError::Timeout { .. }))
    }
}
