// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! A command queue entry: one command, or where the rest of it is.

use super::checksum;
use crate::layout::CmdQueueEntry;

/// Bytes of input, and of output, that are in the entry itself.
pub(super) const INLINE_BYTES: usize = 16;
/// Where the delivery status `[7:1]` and the owner `[0]` are.
pub(super) const STATUS: usize = 0x3f;
/// Set in the status byte while the entry is the firmware's.
pub(super) const OWNED_BY_FIRMWARE: u8 = 1;
/// What the PCI device's queue has: the only type.
const TYPE_PCI: u8 = 7;

/// What goes into an entry.
pub(super) struct Entry<'a> {
    /// All the input.
    pub(super) input: &'a [u8],
    /// Where the rest of it is.
    pub(super) input_mailbox: u64,
    /// How long the output is, in bytes.
    pub(super) output_len: usize,
    /// Where the rest of that goes.
    pub(super) output_mailbox: u64,
    /// The same in each of its mailbox blocks.
    pub(super) token: u8,
}

impl Entry<'_> {
    /// The entry, signed, and owned by the firmware.
    ///
    /// The firmware looks at the signature only where it was told to, but the kernel's driver
    /// signs each entry, and so this does.
    pub(super) fn encode(&self) -> CmdQueueEntry {
        let mut entry = CmdQueueEntry::zeroed();
        let inline = &self.input[..self.input.len().min(INLINE_BYTES)];
        entry
            .set_type(TYPE_PCI)
            .set_input_length(self.input.len() as u32)
            .set_input_mailbox_pointer_63_32((self.input_mailbox >> 32) as u32)
            .set_input_mailbox_pointer_31_9(self.input_mailbox as u32 >> 9)
            .set_output_mailbox_pointer_63_32((self.output_mailbox >> 32) as u32)
            .set_output_mailbox_pointer_31_9(self.output_mailbox as u32 >> 9)
            .set_output_length(self.output_len as u32)
            .set_token(self.token)
            .set_ownership(true)
            .command_input_inline_data_mut()[..inline.len()]
            .copy_from_slice(inline);
        let signature = checksum(entry.as_bytes());
        entry.set_signature(signature);
        entry
    }
}
