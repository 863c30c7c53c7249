// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! BAR0: the registers through which a driver and the firmware meet.

use std::sync::Arc;

/// The registers of BAR0, as dwords.
///
/// The device is big-endian. What goes through here is in the CPU's order: an implementation over
/// a mapping swaps, and the bits of a dword are then numbered as in the kernel header, 31 first.
pub trait Registers: Send + Sync {
    /// The dword at this offset in bytes. All ones where there is none, as PCI reads.
    fn read32(&self, offset: usize) -> u32;

    /// Writes the dword at this offset in bytes. Nothing happens where there is none.
    fn write32(&self, offset: usize, value: u32);
}

impl<R: Registers + ?Sized> Registers for Arc<R> {
    fn read32(&self, offset: usize) -> u32 {
        (**self).read32(offset)
    }

    fn write32(&self, offset: usize, value: u32) {
        (**self).write32(offset, value);
    }
}

/// Firmware revision: minor `[31:16]`, major `[15:0]`. All ones says that the function is gone.
pub const FW_REV: usize = 0x0;
/// Command interface revision `[31:16]`, firmware subminor `[15:0]`.
pub const CMDIF_REV: usize = 0x4;
/// Address of the command queue, upper half.
pub const CMDQ_ADDRESS_HIGH: usize = 0x10;
/// Read: log_cmdq_size `[7:4]`, log_cmdq_stride `[3:0]`, nic_interface `[10:8]`. Written: address `[31:12]`.
pub const CMDQ_ADDRESS_LOW: usize = 0x14;
/// Command doorbell: one bit a slot.
pub const COMMAND_DOORBELL: usize = 0x18;
/// initializing `[31]`, nic_interface_supported `[26:24]`.
pub const INITIALIZING: usize = 0x1fc;
/// First dword of the health buffer, 0x40 bytes long.
pub const HEALTH_BUFFER: usize = 0x200;
/// irisc_index `[31:24]`, synd `[23:16]`, ext_synd `[15:0]`.
pub const HEALTH_SYNDROME: usize = 0x23c;
/// The longest that a command may take, in milliseconds. 0: the driver's own default.
pub const COMMAND_TIMEOUT: usize = 0xff8;
/// health_counter `[23:0]`, which a live firmware keeps moving; health_syndrome `[31:24]`.
pub const HEALTH_COUNTER: usize = 0x1010;
