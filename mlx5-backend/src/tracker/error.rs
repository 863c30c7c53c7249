// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! What can go wrong with tracking.

use std::time::Duration;

use vfio_fsm_core::Errno;

use crate::command::CommandError;
use crate::dma::DmaError;

use super::ranges::{IovaRange, RangesError};

/// The tracker was not begun. Nothing of it is left in the firmware.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum StartError {
    /// The ranges are none that could be tracked.
    #[error(transparent)]
    Ranges(#[from] RangesError),
    /// The firmware tracks nothing.
    #[error(
        "the device lacks the capability adv_virtualization: take all memory for dirty in each \
         pass, or see to its firmware"
    )]
    Unsupported,
    /// What the firmware says of its limits cannot be.
    #[error("the limits of the page tracker leave no choice: {what}; see to the firmware")]
    Limits {
        /// Which of them.
        what: &'static str,
    },
    /// More, or less, than can be tracked at once. The errno is `EOPNOTSUPP`, as of the kernel's
    /// driver.
    #[error(
        "the ranges have {bytes:#x} bytes in all, gaps between those that had to be joined \
         included; the firmware tracks 2^{min} to 2^{max}"
    )]
    AddressSpace {
        /// Bytes of all ranges.
        bytes: u64,
        /// The least, as a logarithm.
        min: u8,
        /// The most, as a logarithm.
        max: u8,
    },
    /// A firmware command failed.
    #[error(transparent)]
    Command(#[from] CommandError),
    /// There is no memory for the queues and the messages.
    #[error("memory for the reports: {0}")]
    Dma(#[from] DmaError),
    /// The tracker before it could not be taken back, so no other was begun.
    #[error(transparent)]
    Stop(#[from] StopError),
}

impl StartError {
    /// The errno that a driver returns for it.
    pub const fn errno(self) -> Errno {
        match self {
            Self::Ranges(_) => Errno::EINVAL,
            Self::Unsupported => Errno::ENOTTY,
            Self::Limits { .. } | Self::AddressSpace { .. } => Errno::EOPNOTSUPP,
            Self::Command(error) | Self::Stop(StopError { error, .. }) => error.errno(),
            Self::Dma(error) => error.errno(),
        }
    }
}

/// What was written is not known, or not asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ReportError {
    /// Not a part of one of the tracker's ranges. The firmware was not asked; the log is as it was.
    #[error("{range} is not in the ranges the tracker was started with: nobody knows its writes")]
    NotTracked {
        /// What was to be reported.
        range: IovaRange,
    },
    /// A firmware command failed. All memory was told as dirty.
    #[error("{0}; the whole log is corrupt: restart it and send all memory again")]
    Command(#[from] CommandError),
    /// The firmware has given the tracker up. All memory was told as dirty.
    #[error("the tracker is in its error state: restart it and send all memory again")]
    ErrorState,
    /// A queue has failed that messages come by. All memory was told as dirty.
    #[error(
        "a message completed with opcode {opcode:#x}, syndrome {syndrome:#04x}; the log is \
         corrupt: restart it and send all memory again"
    )]
    Completion {
        /// Of the completion: 0xd and 0xe are errors.
        opcode: u8,
        /// Why, if it is an error.
        syndrome: u8,
    },
    /// The firmware said that a queue has failed. All memory was told as dirty.
    #[error("the queues of the tracker have failed: restart it and send all memory again")]
    Queues,
    /// A message cannot be what was asked for. All memory was told as dirty.
    #[error(
        "a message of {bytes} bytes about {range}, state {state}: at most {most} bytes, in entries \
         of 8, can be; the log is corrupt: restart it and send all memory again"
    )]
    Message {
        /// What was asked for.
        range: IovaRange,
        /// How long it says it is.
        bytes: u32,
        /// How long it may be: a message's, and no more than there are pages left.
        most: u64,
        /// What it says the tracker does.
        state: u8,
    },
    /// A message tells of memory that was not asked for. All memory was told as dirty.
    #[error(
        "a message about {range} tells of IOVA {address:#x}, which is no page of it; the log is \
         corrupt: restart it and send all memory again"
    )]
    Address {
        /// What was asked for.
        range: IovaRange,
        /// What it tells of.
        address: u64,
    },
    /// The firmware reports no further. All memory was told as dirty.
    #[error(
        "no report of {range} after {after:?}; the log is corrupt: restart it and send all memory \
         again"
    )]
    Timeout {
        /// What was asked for.
        range: IovaRange,
        /// How long was waited for a message.
        after: Duration,
    },
    /// The memory of the messages could not be read. All memory was told as dirty.
    #[error("memory for the reports: {0}")]
    Dma(#[from] DmaError),
    /// An earlier report failed, or a restart. All memory was told as dirty once more.
    #[error("the log is corrupt since an earlier error: restart it and send all memory again")]
    Corrupt,
}

impl ReportError {
    /// The errno that a driver returns for it.
    pub const fn errno(self) -> Errno {
        match self {
            Self::NotTracked { .. } => Errno::EINVAL,
            Self::Command(error) => error.errno(),
            Self::Dma(error) => error.errno(),
            _ => Errno::EIO,
        }
    }
}

/// The tracker has ended for its owner; not all of it for the firmware.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "{left} objects of the tracker are still with the firmware ({error}); the memory it may write \
     is kept until the process ends"
)]
pub struct StopError {
    /// How many.
    pub left: usize,
    /// Why, of the first.
    pub error: CommandError,
}
