// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! How commands reach the firmware: the beginning of BAR 0, the command queue and its mailboxes.

use super::DeliveryStatus;
use super::macros::structure;

structure! {
    /// What the firmware says of itself when it has failed.
    pub struct HealthBuffer = "health_buffer", 64 {
        /// What the assertion that failed has to say.
        assert_var: array(0, 32, 6, u32);
        /// Where the assertion that failed is.
        assert_existptr: field(256, 32, u32);
        /// Where it was called from.
        assert_callra: field(288, 32, u32);
        /// When it failed.
        time: field(352, 32, u32);
        /// The firmware's version.
        fw_version: field(384, 32, u32);
        /// The hardware's.
        hw_id: field(416, 32, u32);
        /// Only a reset helps.
        rfr: field(448, 1, bool);
        /// `severity` is valid.
        valid: field(452, 1, bool);
        /// 0 to 7, the lower the worse.
        severity: field(453, 3, u8);
        /// Which processor failed.
        irisc_index: field(480, 8, u8);
        /// What failed.
        synd: field(488, 8, u8);
        /// What failed, in more detail.
        ext_synd: field(496, 16, u16);
    }

    /// The beginning of BAR 0.
    pub struct InitialSeg = "initial_seg", 16396 {
        /// The firmware's version, its second part.
        fw_rev_minor: field(0, 16, u16);
        /// The first.
        fw_rev_major: field(16, 16, u16);
        /// The version of the command interface: 5.
        cmd_interface_rev: field(32, 16, u16);
        /// The third part of the firmware's version.
        fw_rev_subminor: field(48, 16, u16);
        /// Where the command queue is; the upper half.
        cmdq_phy_addr_63_32: field(128, 32, u32);
        /// The lower half, without the 12 bits that are zero.
        cmdq_phy_addr_31_12: field(160, 20, u32);
        /// What the interface is: 0 full, 1 disabled. The kernel reads the bit before it, too: see
        /// [`nic_interface_mode`](InitialSeg::nic_interface_mode).
        nic_interface: field(182, 2, u8);
        /// How many entries the command queue has, as a logarithm.
        log_cmdq_size: field(184, 4, u8);
        /// How far apart they are, the logarithm of bytes.
        log_cmdq_stride: field(188, 4, u8);
        /// One bit for each entry that the firmware is to look at.
        command_doorbell_vector: field(192, 32, u32);
        /// Wait.
        initializing: field(4064, 1, bool);
        /// One bit for each mode of the interface that is there.
        nic_interface_supported: field(4069, 3, u8);
        /// This is an embedded CPU's function.
        embedded_cpu: field(4072, 1, bool);
        /// What the firmware says of itself when it has failed.
        health_buffer: view(4096, HealthBuffer);
        /// Where a small memory on the device is.
        no_dram_nic_offset: field(4608, 32, u32);
        /// How long a command may take, in milliseconds; 0: as the driver likes.
        cmd_exec_to: field(32704, 32, u32);
        /// How long the firmware may take to begin, in milliseconds; 0: as the driver likes.
        cmd_q_init_to: field(32736, 32, u32);
        /// The device's clock; the upper half.
        internal_timer_h: field(32768, 32, u32);
        /// The lower half.
        internal_timer_l: field(32800, 32, u32);
        /// Clears a legacy interrupt.
        clear_int: field(32895, 1, bool);
        /// Why the counter stands still.
        health_syndrome: field(32896, 8, u8);
        /// Counts as long as the firmware lives.
        health_counter: field(32904, 24, u32);
    }

    /// An entry of the command queue: one command.
    pub struct CmdQueueEntry = "cmd_queue_entry", 64 {
        /// 7: it goes over PCI.
        r#type: field(0, 8, u8);
        /// How long the input is, in bytes, of which the first 16 are in here.
        input_length: field(32, 32, u32);
        /// Where the rest of the input is; the upper half.
        input_mailbox_pointer_63_32: field(64, 32, u32);
        /// The lower half, without the 9 bits that are zero.
        input_mailbox_pointer_31_9: field(96, 23, u32);
        /// The first 16 bytes of the input.
        command_input_inline_data: bytes(128, 16);
        /// The first 16 bytes of the output.
        command_output_inline_data: bytes(256, 16);
        /// Where the rest of the output goes; the upper half.
        output_mailbox_pointer_63_32: field(384, 32, u32);
        /// The lower half, without the 9 bits that are zero.
        output_mailbox_pointer_31_9: field(416, 23, u32);
        /// How long the output is, in bytes.
        output_length: field(448, 32, u32);
        /// The same in all mailbox blocks of the command.
        token: field(480, 8, u8);
        /// All 64 bytes, this one included, give 0xff by exclusive or.
        signature: field(488, 8, u8);
        /// Whether the command reached the firmware.
        status: field(504, 7, DeliveryStatus);
        /// The firmware has it.
        ownership: field(511, 1, bool);
    }

    /// A mailbox block: up to 512 bytes of an input or output.
    pub struct CmdIfBox = "cmd_if_box", 576 {
        /// The bytes.
        mailbox_data: bytes(0, 512);
        /// Where the next block is; the upper half.
        next_pointer_63_32: field(4480, 32, u32);
        /// The lower half, without the 10 bits that are zero.
        next_pointer_31_10: field(4512, 22, u32);
        /// 0 for the first block of an input or output, 1 for the next one.
        block_number: field(4544, 32, u32);
        /// That of the entry.
        token: field(4584, 8, u8);
        /// All bytes behind the data, but for the signatures, and this one give 0xff by exclusive
        /// or.
        ctrl_signature: field(4592, 8, u8);
        /// All bytes, this one included, give 0xff by exclusive or.
        signature: field(4600, 8, u8);
    }
}

impl<B: AsRef<[u8]>> InitialSeg<B> {
    /// What the interface is, by all three bits: 0 full, 1 disabled, 7 software resets.
    pub fn nic_interface_mode(&self) -> u8 {
        super::Value::from_bits(super::bits::read(self.0.as_ref(), 181, 3))
    }
}
