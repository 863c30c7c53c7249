// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! The command queue: entries and mailboxes in the host's memory, from doorbell to completion.

use std::sync::atomic::{Ordering, fence};

use super::commands::shape::reserved_clear;
use super::fault::Fault;
use super::log::{LOGGED_INPUT, LogEntry};
use super::machine::Machine;
use super::refusal::{Refusal, Syndrome};
use crate::layout::{
    CmdIfBox, CmdQueueEntry, CommandIn, CommandOut, CommandStatus, DeliveryStatus,
};

/// log2 of an entry's bytes.
pub(super) const LOG_STRIDE: u8 = 6;

const ENTRY: usize = CmdQueueEntry::BYTES;
const BLOCK: usize = CmdIfBox::BYTES;
const ENTRY_TYPE: u8 = 7;
/// Bytes that an entry has room for itself.
const INLINE: usize = 16;
/// Bytes of a mailbox block's data.
const DATA: usize = 512;
/// Where the part of a block begins that the control signature covers.
const CONTROL: usize = DATA;

/// The most bytes of input: a memory key over 4 GiB in pages of 4 KiB.
pub const MAX_INPUT: usize = 272 + (8 << 20);
/// The most bytes of output.
pub const MAX_OUTPUT: usize = 1 << 20;

/// What is known of the queue.
#[derive(Default)]
pub(super) struct Queue {
    high: u32,
    low: u32,
    in_flight: Vec<Command>,
    /// Slots whose command will never complete.
    lost: u32,
}

/// A command that was delivered and is not complete.
struct Command {
    slot: u8,
    due: u64,
    came: u64,
    input: Vec<u8>,
    reply: ReplyPlace,
    faults: Vec<Fault>,
    /// The VHCA that a SAVE or LOAD is of, by place and count of resets.
    transfer: Option<(usize, u64)>,
}

/// Where the answer goes.
struct ReplyPlace {
    entry: u64,
    token: u8,
    output_len: usize,
    blocks: Vec<u64>,
}

impl Queue {
    pub(super) fn set_high(&mut self, value: u32) {
        self.moved(value, self.low);
    }

    /// A-QUEUE-ADDRESS: takes effect with the lower half; the bits below the address are ignored.
    pub(super) fn set_low(&mut self, value: u32) {
        self.moved(self.high, value & !0xfff);
    }

    fn moved(&mut self, high: u32, low: u32) {
        if (high, low) != (self.high, self.low) {
            (self.high, self.low, self.lost) = (high, low, 0);
        }
    }

    fn entry(&self, slot: u8) -> u64 {
        (u64::from(self.high) << 32 | u64::from(self.low)) + (u64::from(slot) << LOG_STRIDE)
    }

    pub(super) fn next_due(&self) -> Option<u64> {
        self.in_flight.iter().map(|command| command.due).min()
    }

    pub(super) fn forget(&mut self) {
        self.in_flight.clear();
    }

    fn is_busy(&self, slot: u8) -> bool {
        self.lost & 1 << slot != 0 || self.in_flight.iter().any(|command| command.slot == slot)
    }
}

impl Machine {
    /// The doorbell of these slots.
    pub(super) fn ring(&mut self, slots: u32) {
        for slot in 0..1_u8 << self.config.log_slots {
            if slots & 1 << slot != 0 && !self.is_initializing() && !self.gone {
                self.start(slot);
            }
        }
    }

    /// A-DOORBELL: a slot whose entry is not the hardware's, or that cannot be read, is left alone.
    fn start(&mut self, slot: u8) {
        let mut entry = [0; ENTRY];
        let iova = self.queue.entry(slot);
        if self.queue.is_busy(slot) || self.memory.read(iova, &mut entry).is_err() {
            return;
        }
        let Ok(entry) = CmdQueueEntry::new(entry) else { return };
        if !entry.ownership() {
            return;
        }
        let mut command = Command {
            slot,
            due: self.ticks,
            came: self.ticks,
            input: Vec::new(),
            reply: ReplyPlace { entry: iova, token: entry.token(), output_len: 0, blocks: vec![] },
            faults: Vec::new(),
            transfer: None,
        };
        if let Err(status) = self.deliver(&entry, &mut command) {
            return self.undelivered(command, status);
        }
        self.begin(command);
    }

    /// Reads the input, and finds where the output goes.
    fn deliver(
        &self,
        entry: &CmdQueueEntry<[u8; ENTRY]>,
        command: &mut Command,
    ) -> Result<(), DeliveryStatus> {
        let checks = self.config.checks;
        let bytes = entry.as_bytes();
        if entry.r#type() != ENTRY_TYPE {
            return Err(DeliveryStatus::DescriptorType);
        }
        if checks.entry_signature && xor(bytes) != 0xff {
            return Err(DeliveryStatus::Signature);
        }
        let (input, output) = (entry.input_length() as usize, entry.output_length() as usize);
        if !(CommandIn::BYTES..=MAX_INPUT).contains(&input) {
            return Err(DeliveryStatus::InputLength);
        }
        if !(CommandOut::BYTES..=MAX_OUTPUT).contains(&output) {
            return Err(DeliveryStatus::OutputLength);
        }
        if bytes[15] != 0 || bytes[14] & 1 != 0 {
            return Err(DeliveryStatus::BadInputPointer);
        }
        if bytes[0x37] != 0 || bytes[0x36] & 1 != 0 {
            return Err(DeliveryStatus::BadOutputPointer);
        }
        if checks.reserved && !reserved_clear(CmdQueueEntry::FIELDS, bytes) {
            return Err(DeliveryStatus::ReservedNotClear);
        }
        let pointer = |high: u32, low: u32| u64::from(high) << 32 | u64::from(low) << 9;
        let first =
            pointer(entry.input_mailbox_pointer_63_32(), entry.input_mailbox_pointer_31_9());
        command.input.extend_from_slice(&entry.command_input_inline_data()[..input.min(INLINE)]);
        self.walk(first, input, entry.token(), checks.block_signatures, |_, data| {
            command.input.extend_from_slice(data);
        })?;
        let first =
            pointer(entry.output_mailbox_pointer_63_32(), entry.output_mailbox_pointer_31_9());
        command.reply.output_len = output;
        self.walk(first, output, entry.token(), false, |iova, _| command.reply.blocks.push(iova))
    }

    /// Goes through the mailbox blocks of `len` bytes, with what of their data counts.
    fn walk(
        &self,
        first: u64,
        len: usize,
        token: u8,
        signed: bool,
        mut block_seen: impl FnMut(u64, &[u8]),
    ) -> Result<(), DeliveryStatus> {
        let mut left = len.saturating_sub(INLINE);
        let mut iova = first;
        let mut number = 0;
        while left > 0 {
            let mut bytes = [0; BLOCK];
            // A-MAILBOX-UNMAPPED
            self.memory.read(iova, &mut bytes).map_err(|_| DeliveryStatus::FirmwareErr)?;
            if signed && (xor(&bytes[CONTROL..BLOCK - 1]) != 0xff || xor(&bytes) != 0xff) {
                return Err(DeliveryStatus::Signature);
            }
            let block = CmdIfBox::new(bytes).map_err(|_| DeliveryStatus::FirmwareErr)?;
            if block.token() != token {
                return Err(DeliveryStatus::Token);
            }
            if block.block_number() != number {
                return Err(DeliveryStatus::BadBlockNumber);
            }
            block_seen(iova, &block.mailbox_data()[..left.min(DATA)]);
            left = left.saturating_sub(DATA);
            iova = u64::from(block.next_pointer_63_32()) << 32
                | u64::from(block.next_pointer_31_10()) << 10;
            number += 1;
        }
        Ok(())
    }

    /// A delivered command: what is to go wrong before it does, then its time.
    fn begin(&mut self, mut command: Command) {
        let Ok(header) = CommandIn::new(&command.input[..]) else { return };
        let opcode = header.opcode();
        command.faults = self.faults.at(opcode);
        for fault in command.faults.clone() {
            match fault {
                Fault::Reset { vhca_id } => self.flr(vhca_id),
                Fault::PageRequests(count) => self.request_pages(count, 1),
                Fault::TrackerError { event } => self.fail_trackers(event),
                Fault::PfDetach => return self.detach(),
                Fault::Delivery(status) => return self.undelivered(command, status),
                _ => {}
            }
        }
        let latency = self.config.latency.get(&u16::from(opcode)).copied().unwrap_or(0);
        let (transfer, ticks) = self.transfer_of(&command.input);
        command.due = self.ticks.saturating_add(latency).saturating_add(ticks);
        if command.due > self.ticks {
            if let Some((place, _)) = transfer {
                self.vhcas[place].transfers += 1;
            }
            command.transfer = transfer;
            self.queue.in_flight.push(command);
        } else {
            self.finish(command);
        }
    }

    pub(super) fn complete_due(&mut self) {
        let now = self.ticks;
        let due: Vec<_> =
            self.queue.in_flight.extract_if(.., |command| command.due <= now).collect();
        for mut command in due {
            if !self.gone {
                let transfer = command.transfer.take();
                let reset =
                    transfer.is_some_and(|(place, resets)| self.end_transfer(place, resets));
                self.finish_with(command, reset);
            }
        }
    }

    /// Completes whatever is in flight, however long it would still take.
    pub(super) fn complete_all(&mut self) {
        while let Some(due) = self.queue.next_due() {
            self.advance(due.saturating_sub(self.ticks));
            if self.gone {
                return;
            }
        }
    }

    /// Whether the VHCA was reset since.
    fn end_transfer(&mut self, place: usize, resets: u64) -> bool {
        let vhca = &mut self.vhcas[place];
        vhca.transfers -= 1;
        vhca.resets != resets
    }

    fn finish(&mut self, command: Command) {
        self.finish_with(command, false);
    }

    fn finish_with(&mut self, command: Command, reset: bool) {
        let had_events = self.has_command_events();
        let planted = command.faults.iter().find_map(|fault| match fault {
            Fault::Status(status) => Some(Refusal { status: *status, syndrome: 0 }),
            _ => None,
        });
        let mut output = vec![0; command.reply.output_len];
        let result = match planted {
            Some(refusal) => Err(refusal),
            // A-FLR-IN-FLIGHT
            None if reset => Err(Syndrome::WasReset.into()),
            None => self.carry_out(&command.input, &mut output),
        };
        for fault in &command.faults {
            if let (Fault::CorruptImage { bit }, Ok(())) = (fault, result) {
                self.corrupt(&command.input, &output, *bit);
            }
        }
        let (status, syndrome) = match result {
            Ok(()) => (CommandStatus::Ok, 0),
            Err(refusal) => {
                output.fill(0);
                (refusal.status, refusal.syndrome)
            }
        };
        if let Ok(mut header) = CommandOut::new(&mut output[..]) {
            header.set_status(status).set_syndrome(syndrome);
        }
        self.note(&command, DeliveryStatus::Ok, status, syndrome);
        if command.faults.contains(&Fault::NoCompletion) {
            self.queue.lost |= 1 << command.slot;
            return;
        }
        let wrong_token = command.faults.contains(&Fault::WrongToken);
        self.answer(&command.reply, &output, DeliveryStatus::Ok, wrong_token);
        // A-EVENT-OF-CREATE-EQ
        if had_events {
            self.raise_command(command.slot);
        }
    }

    fn undelivered(&mut self, command: Command, status: DeliveryStatus) {
        self.note(&command, status, CommandStatus::Ok, 0);
        self.answer(&command.reply, &[], status, false);
        if self.has_command_events() {
            self.raise_command(command.slot);
        }
    }

    fn note(
        &mut self,
        command: &Command,
        delivery: DeliveryStatus,
        status: CommandStatus,
        syndrome: u32,
    ) {
        let header = command.input.first_chunk::<8>().copied().unwrap_or_default();
        let Ok(header) = CommandIn::new(header) else { return };
        let kept = command.input.len().min(LOGGED_INPUT);
        self.log.push(LogEntry {
            tick: command.came,
            slot: command.slot,
            opcode: header.opcode(),
            op_mod: header.op_mod(),
            input: command.input[..kept].to_vec(),
            input_len: command.input.len(),
            delivery,
            status,
            syndrome,
            faults: command.faults.clone(),
        });
    }

    /// Writes the answer, the owner last. Memory that is gone meanwhile is the driver's loss.
    fn answer(&self, place: &ReplyPlace, output: &[u8], status: DeliveryStatus, wrong: bool) {
        let token = if wrong { !place.token } else { place.token };
        let (inline, rest) = output.split_at(output.len().min(INLINE));
        for (data, iova) in rest.chunks(DATA).zip(&place.blocks) {
            self.answer_block(*iova, data, token);
        }
        let mut bytes = [0; ENTRY];
        if self.memory.read(place.entry, &mut bytes).is_err() {
            return;
        }
        let Ok(mut entry) = CmdQueueEntry::new(bytes) else { return };
        entry.command_output_inline_data_mut()[..inline.len()].copy_from_slice(inline);
        entry.set_token(token).set_status(status).set_ownership(false).set_signature(0);
        let signature = !xor(entry.as_bytes());
        entry.set_signature(signature);
        let (body, last) = entry.as_bytes().split_at(ENTRY - 1);
        let written = self.memory.write(place.entry, body);
        // The driver sees the owner change after everything else.
        fence(Ordering::Release);
        if written.is_ok() {
            let _ = self.memory.write(place.entry + (ENTRY - 1) as u64, last);
        }
    }

    fn answer_block(&self, iova: u64, data: &[u8], token: u8) {
        let mut bytes = [0; BLOCK];
        if self.memory.read(iova, &mut bytes).is_err() {
            return;
        }
        let Ok(mut block) = CmdIfBox::new(bytes) else { return };
        block.mailbox_data_mut()[..data.len()].copy_from_slice(data);
        block.set_token(token).set_ctrl_signature(0).set_signature(0);
        let control = !xor(&block.as_bytes()[CONTROL..BLOCK - 1]);
        block.set_ctrl_signature(control);
        let signature = !xor(block.as_bytes());
        block.set_signature(signature);
        let _ = self.memory.write(iova, block.as_bytes());
    }
}

/// All bytes, folded into one.
pub(super) fn xor(bytes: &[u8]) -> u8 {
    bytes.iter().fold(0, |sum, byte| sum ^ byte)
}
