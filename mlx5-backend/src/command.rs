// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! A firmware command: how one is given, and how one fails.
//!
//! [`Commands`] is the line between those who know what to say to the firmware and those who know
//! how it is said. A command is bytes, laid out as the kernel header's `*_in` and `*_out`
//! structures; the two first bytes are the opcode.

use std::time::Duration;

use vfio_fsm_core::Errno;

use crate::dma::{DmaError, DmaSpace};

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
        "command {opcode:#06x} was not delivered: {status}; driver and firmware do not agree on \
         the queue"
    )]
    Delivery {
        /// The command.
        opcode: u16,
        /// What the firmware put into the queue entry.
        status: DeliveryStatus,
    },
    /// The firmware refused it.
    #[error(
        "command {opcode:#06x} failed: {status}, syndrome {syndrome:#010x}; the vendor knows what \
         the syndrome means"
    )]
    Status {
        /// The command.
        opcode: u16,
        /// Why, in one of a few words.
        status: CommandStatus,
        /// Why, in the firmware's own numbers.
        syndrome: u32,
    },
    /// The firmware did not answer in time. It may still, and until then its memory is kept.
    #[error("command {opcode:#06x} has no answer after {after:?}; the health buffer may tell why")]
    Timeout {
        /// The command.
        opcode: u16,
        /// How long was waited.
        after: Duration,
    },
    /// The physical function is gone: unplugged, reset, in a fatal state, or torn down.
    #[error("the physical function is gone; open it anew, or give up its virtual functions")]
    Gone,
    /// There is no memory to give it with.
    #[error("memory for a command: {0}")]
    Dma(#[from] DmaError),
    /// Input or output is not one that a command can have.
    #[error(
        "a command of {input} bytes with {output} of answer; both are of at least 16, and of at \
         most {max}"
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
            Self::Timeout { .. } => ETIMEDOUT,
            Self::Gone => Errno::ENOTCONN,
            Self::Dma(error) => error.errno(),
            Self::Length { .. } => Errno::EINVAL,
        }
    }
}

const EBADR: Errno = Errno(53);
const ETIMEDOUT: Errno = Errno(110);

macro_rules! statuses {
    ($(#[$doc:meta])* $name:ident $($variant:ident = $value:literal, $errno:expr, $text:literal;)*) => {
        $(#[$doc])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
        #[non_exhaustive]
        pub enum $name {
            $(#[doc = concat!("`", stringify!($value), "`: ", $text, ".")] $variant,)*
            /// One that is not known here.
            Other(u8),
        }

        impl $name {
            /// All that have a name, in the order of their numbers.
            pub const ALL: &'static [Self] = &[$(Self::$variant,)*];

            /// The errno that the kernel's driver gives for it.
            pub const fn errno(self) -> Errno {
                match self {
                    $(Self::$variant => $errno,)*
                    Self::Other(_) => Self::OTHER_ERRNO,
                }
            }

            /// Its number.
            pub const fn value(self) -> u8 {
                match self {
                    $(Self::$variant => $value,)*
                    Self::Other(value) => value,
                }
            }
        }

        impl From<u8> for $name {
            fn from(value: u8) -> Self {
                match value {
                    $($value => Self::$variant,)*
                    _ => Self::Other(value),
                }
            }
        }

        impl std::fmt::Display for $name {
            fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                let text = match self {
                    $(Self::$variant => $text,)*
                    Self::Other(_) => "unknown status",
                };
                write!(f, "{text} ({:#x})", self.value())
            }
        }
    };
}

statuses! {
    /// What became of a queue entry: bits [7:1] of its last byte. Zero, delivered, is not one.
    DeliveryStatus
    Signature = 0x1, EBADR, "wrong signature";
    Token = 0x2, EBADR, "wrong token";
    BadBlock = 0x3, Errno::EFAULT, "wrong mailbox block number";
    OutputAlignment = 0x4, Errno::EFAULT, "the answer's mailbox is not aligned";
    InputAlignment = 0x5, Errno::EFAULT, "the input's mailbox is not aligned";
    Firmware = 0x6, Errno::EIO, "the firmware failed";
    InputLength = 0x7, Errno::ENOMSG, "wrong input length";
    OutputLength = 0x8, Errno::ENOMSG, "wrong output length";
    ReservedNotClear = 0x9, Errno::ENOMSG, "a reserved field is not zero";
    DescriptorType = 0x10, Errno::ENOMSG, "unknown entry type";
}

impl DeliveryStatus {
    const OTHER_ERRNO: Errno = Errno::EINVAL;
}

statuses! {
    /// What became of a command: the first byte of its output. Zero, done, is not one.
    CommandStatus
    Internal = 0x1, Errno::EIO, "internal error";
    BadOperation = 0x2, Errno::EINVAL, "bad operation";
    BadParameter = 0x3, Errno::EINVAL, "bad parameter";
    BadSystemState = 0x4, Errno::EIO, "bad system state";
    BadResource = 0x5, Errno::EINVAL, "bad resource";
    ResourceBusy = 0x6, Errno::EBUSY, "resource busy";
    NotReady = 0x7, Errno::EAGAIN, "not ready";
    ExceededLimit = 0x8, Errno::ENOMEM, "a limit is exceeded";
    BadResourceState = 0x9, Errno::EINVAL, "bad resource state";
    BadIndex = 0xa, Errno::EINVAL, "bad index";
    NoResources = 0xf, Errno::EAGAIN, "no resources";
    BadQpState = 0x10, Errno::EINVAL, "bad QP state";
    BadPacket = 0x30, Errno::EINVAL, "bad packet";
    TooManyCqes = 0x40, Errno::EINVAL, "too many outstanding CQEs";
    BadInputLength = 0x50, Errno::EIO, "bad input length";
    BadOutputLength = 0x51, Errno::EIO, "bad output length";
}

impl CommandStatus {
    const OTHER_ERRNO: Errno = Errno::EIO;
}
