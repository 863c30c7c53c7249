// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! What all commands have in common.

use super::macros::structure;
use super::{CommandStatus, Opcode};

structure! {
    /// The beginning of every command's input.
    pub struct CommandIn = "mbox_in", 8 {
        /// Which command it is.
        opcode: field(0, 16, Opcode);
        /// Who issues it; 0 is the kernel, or whoever owns the function.
        uid: field(16, 16, u16);
        /// Which variant of the command; of a general object's command, which type of object.
        op_mod: field(48, 16, u16);
    }

    /// The beginning of every command's output.
    pub struct CommandOut = "mbox_out", 8 {
        /// Whether it was carried out.
        status: field(0, 8, CommandStatus);
        /// If it was not, why: a number that only the vendor can read.
        syndrome: field(32, 32, u32);
    }
}
