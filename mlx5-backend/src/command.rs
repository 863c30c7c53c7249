// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! A firmware command: how one is given, and how one fails.
//!
//! [`Commands`] is the line between those who know what to say to the firmware and those who know
//! how it is said. A command is bytes, laid out as the kernel header's `*_in` and `*_out`
//! structures; the two first bytes are the opcode.

use std::time::Duration;

use vfio_fsm_core::Errno;

use crate::dma::{DmaError, DmaSpace};
use crate::layout::{CommandStatus, DeliveryStatus, LayoutError, Opcode};

/// Gives commands to the firmware of one physical function.
///
/// Several threads may, and a command that is started leaves the others their way: SAVE_VHCA_STATE
/// takes as long as the image is large, and the commands of other VFs go on meanwhile.
pub trait Commands: Send + Sync {
    /// A command on its way. Dropping it leaves the command to end by itself; what it wrote into
    /// memory, it wrote.
    type Ticket: Send;

    /// Hands a command over, with room for `output_len` bytes of answer, and does not wait for it.
    /// May wait for a free slot, for no longer than a command may take.
    fn start(&self, input: &[u8], output_len: usize) -> Result<Self::Ticket, CommandError>;

    /// Whether [`finish`](Self::finish) would return at once. Once true, always true.
    fn is_done(&self, ticket: &Self::Ticket) -> bool;

    /// Waits for the end, for no longer than a command may take, and copies the answer to
    /// `output`. With [`CommandError::Status`] it is copied, too: some commands say there what
    /// they want.
    fn finish(&self, ticket: Self::Ticket, output: &mut [u8]) -> Result<(), CommandError>;

    /// Hands a command over and waits for its end.
    fn execute(&self, input: &[u8], output: &mut [u8]) -> Result<(), CommandError> {
        let ticket = self.start(input, output.len())?;
        self.finish(ticket, output)
    }

    /// Where the commands' buffers are, and where those go that a command is to work on.
    fn dma(&self) -> &DmaSpace;
}

/// A command that did not succeed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum CommandError {
    /// It did not get as far as being carried out.
    #[error(
        "{opcode} was not delivered: {status}; driver and firmware do not agree on \
         the queue"
    )]
    Delivery {
        /// The command.
        opcode: Opcode,
        /// What the firmware put into the queue entry.
        status: DeliveryStatus,
    },
    /// The answer is not signed as the firmware was told to sign it.
    #[error("the answer to {opcode} has a wrong signature; it was changed on its way")]
    Signature {
        /// The command.
        opcode: Opcode,
    },
    /// The answer is another command's.
    #[error("the answer to {opcode} has the token {seen}, but {sent} was sent; it is another's")]
    Token {
        /// The command.
        opcode: Opcode,
        /// The token it was given with.
        sent: u8,
        /// The one in the answer.
        seen: u8,
    },
    /// The firmware refused it.
    #[error(
        "{opcode} failed: {status}, syndrome {syndrome:#010x}; the vendor knows what \
         the syndrome means"
    )]
    Status {
        /// The command.
        opcode: Opcode,
        /// Why, in one of a few words.
        status: CommandStatus,
        /// Why, in the firmware's own numbers.
        syndrome: u32,
    },
    /// The firmware did not answer in time. It may still, and until then its memory is kept.
    #[error("{opcode} has no answer after {after:?}; the health buffer may tell why")]
    Timeout {
        /// The command.
        opcode: Opcode,
        /// How long was waited.
        after: Duration,
    },
    /// The physical function is gone: unplugged, reset, in a fatal state, or torn down.
    #[error("the physical function is gone; open it anew, or give up its virtual functions")]
    Gone,
    /// There is no memory to give it with.
    #[error("memory for a command: {0}")]
    Dma(#[from] DmaError),
    /// Input or output has not the length of the command's structure.
    #[error(transparent)]
    Layout(#[from] LayoutError),
    /// Input or output is not one that any command can have.
    #[error(
        "{input} bytes of command with {output} of answer; both have 8 at least, and at most {max}"
    )]
    Length {
        /// Bytes of input.
        input: usize,
        /// Bytes of output.
        output: usize,
        /// The most of either.
        max: usize,
    },
}

impl CommandError {
    /// The errno that the kernel's driver gives for it.
    ///
    /// Sources: `deliv_status_to_err`, `cmd_status_to_err` and `wait_func` of the kernel's
    /// drivers/net/ethernet/mellanox/mlx5/core/cmd.c.
    pub const fn errno(self) -> Errno {
        match self {
            Self::Delivery { status, .. } => status.errno(),
            Self::Status { status, .. } => status.errno(),
            Self::Token { .. } => EBADR,
            Self::Signature { .. } => Errno::EINVAL,
            Self::Timeout { .. } => ETIMEDOUT,
            Self::Gone => Errno::ENOTCONN,
            Self::Dma(error) => error.errno(),
            Self::Layout(_) | Self::Length { .. } => Errno::EINVAL,
        }
    }
}

impl CommandError {
    /// Whether the firmware may still carry the command out: what it was told of stays its own.
    pub const fn leaves_open(self) -> bool {
        matches!(self, Self::Timeout { .. } | Self::Gone)
    }
}

const EBADR: Errno = Errno(53);
const ETIMEDOUT: Errno = Errno(110);

impl DeliveryStatus {
    /// The errno that the kernel's driver gives for it. 0 for delivered.
    pub const fn errno(self) -> Errno {
        match self {
            Self::Ok => Errno(0),
            Self::Signature | Self::Token => EBADR,
            Self::BadBlockNumber | Self::BadOutputPointer | Self::BadInputPointer => Errno::EFAULT,
            Self::FirmwareErr => Errno::EIO,
            Self::InputLength
            | Self::OutputLength
            | Self::ReservedNotClear
            | Self::DescriptorType => Errno::ENOMSG,
            Self::Other(_) => Errno::EINVAL,
        }
    }
}

impl CommandStatus {
    /// The errno that the kernel's driver gives for it. 0 for done.
    pub const fn errno(self) -> Errno {
        match self {
            Self::Ok => Errno(0),
            Self::BadOp
            | Self::BadParam
            | Self::BadRes
            | Self::BadResState
            | Self::BadIndex
            | Self::BadQpState
            | Self::BadPacket
            | Self::TooManyCqes => Errno::EINVAL,
            Self::ResBusy => Errno::EBUSY,
            Self::NotReady | Self::NoRes => Errno::EAGAIN,
            Self::Limits => Errno::ENOMEM,
            Self::InternalErr
            | Self::BadSysState
            | Self::BadInputLen
            | Self::BadOutputLen
            | Self::Other(_) => Errno::EIO,
        }
    }
}
