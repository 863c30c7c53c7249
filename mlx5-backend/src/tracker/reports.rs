// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! How reports arrive: messages into buffers, and a completion for each.

use std::sync::Arc;
use std::sync::atomic::{Ordering, fence};

use crate::dma::{DmaBuffer, DmaError, PAGE_BYTES};
use crate::layout::{Cqe64, PageTrackReportEntry, PageTrackState, WqeDataSeg};

use super::error::ReportError;
use super::limits::Shape;

/// A message came that carries data with its completion.
const RECEIVED_WITH_IMMEDIATE: u8 = 3;
/// The firmware did not write this one yet.
const INVALID: u8 = 0xf;
const OWNER: usize = Cqe64::BYTES - 1;
/// `syndrome` of a completion that is an error: `mlx5_err_cqe` in `linux/mlx5/device.h`.
const SYNDROME: usize = 0x37;
const DOORBELL_BYTES: usize = 4096;
/// Each doorbell in a cache line of its own.
const COMPLETION_DOORBELL: usize = 64;

/// The queues in memory: completions, receives, doorbells, each from the beginning of a page.
#[derive(Clone, Copy, Debug)]
pub(super) struct Layout {
    pub(super) shape: Shape,
    iova: u64,
}

impl Layout {
    pub(super) const fn new(shape: Shape, iova: u64) -> Self {
        Self { shape, iova }
    }

    pub(super) fn bytes(&self) -> usize {
        self.doorbells_at() + DOORBELL_BYTES
    }

    pub(super) const fn completions(&self) -> u64 {
        self.iova
    }

    pub(super) const fn completion_bytes(&self) -> usize {
        Cqe64::BYTES << self.shape.log_messages
    }

    pub(super) fn receives(&self) -> u64 {
        self.iova + self.receives_at() as u64
    }

    pub(super) const fn receive_bytes(&self) -> usize {
        WqeDataSeg::BYTES << self.shape.log_messages
    }

    pub(super) fn receive_doorbell(&self) -> u64 {
        self.iova + self.doorbells_at() as u64
    }

    pub(super) fn completion_doorbell(&self) -> u64 {
        self.receive_doorbell() + COMPLETION_DOORBELL as u64
    }

    fn receives_at(&self) -> usize {
        self.completion_bytes().next_multiple_of(PAGE_BYTES as usize)
    }

    fn doorbells_at(&self) -> usize {
        self.receives_at() + self.receive_bytes().next_multiple_of(PAGE_BYTES as usize)
    }
}

/// A message: the beginnings of pages, and what the tracker does now.
pub(super) struct Message {
    pub(super) bytes: u32,
    pub(super) state: PageTrackState,
    buffer: usize,
}

/// The host's side of the queues.
pub(super) struct Reports {
    queues: Arc<DmaBuffer>,
    messages: Arc<DmaBuffer>,
    layout: Layout,
    key: u32,
    /// Receives that were posted, and completions that were taken, since the beginning.
    posted: u32,
    taken: u32,
}

impl Reports {
    /// Queues with nothing in them.
    pub(super) fn new(
        queues: Arc<DmaBuffer>,
        messages: Arc<DmaBuffer>,
        layout: Layout,
    ) -> Result<Self, DmaError> {
        for entry in 0..layout.shape.messages() as usize {
            queues.store(entry * Cqe64::BYTES + OWNER, INVALID << 4 | 1)?;
        }
        Ok(Self { queues, messages, layout, key: 0, posted: 0, taken: 0 })
    }

    /// Offers every buffer to the firmware, by this memory key.
    pub(super) fn post_all(&mut self, key: u32) -> Result<(), DmaError> {
        self.key = key;
        (0..self.layout.shape.messages() as usize).try_for_each(|buffer| self.post(buffer))
    }

    fn post(&mut self, buffer: usize) -> Result<(), DmaError> {
        let shape = self.layout.shape;
        let mut receive = WqeDataSeg::zeroed();
        receive
            .set_byte_count(shape.message_bytes() as u32)
            .set_lkey(self.key)
            .set_addr((buffer as u64) << shape.log_message);
        let slot = (self.posted % shape.messages()) as usize;
        let at = self.layout.receives_at() + slot * WqeDataSeg::BYTES;
        self.queues.write(at, receive.as_bytes())?;
        self.posted = self.posted.wrapping_add(1);
        // The device must find in memory what the doorbell tells it of.
        fence(Ordering::SeqCst);
        self.queues.write(self.layout.doorbells_at(), &(self.posted & 0xffff).to_be_bytes())
    }

    /// The next message, if there is one.
    pub(super) fn next(&mut self) -> Result<Option<Message>, ReportError> {
        let shape = self.layout.shape;
        let at = (self.taken % shape.messages()) as usize * Cqe64::BYTES;
        let owner = self.queues.load(at + OWNER)?;
        let round = u8::from(self.taken & shape.messages() != 0);
        if owner >> 4 == INVALID || owner & 1 != round {
            return Ok(None);
        }
        let mut completion = Cqe64::zeroed();
        self.queues.read(at, completion.as_bytes_mut())?;
        self.taken = self.taken.wrapping_add(1);
        let opcode = completion.op_own() >> 4;
        if opcode != RECEIVED_WITH_IMMEDIATE {
            let syndrome = completion.as_bytes()[SYNDROME];
            return Err(ReportError::Completion { opcode, syndrome });
        }
        let buffer = u32::from(completion.wqe_counter()) % shape.messages();
        Ok(Some(Message {
            bytes: completion.byte_cnt(),
            state: PageTrackState::from((completion.immediate() >> 28) as u8),
            buffer: buffer as usize,
        }))
    }

    /// The pages in a message, which is not longer than its buffer.
    pub(super) fn pages(&self, message: &Message) -> Result<Vec<u64>, DmaError> {
        let mut bytes = vec![0; message.bytes as usize];
        self.messages.read(message.buffer << self.layout.shape.log_message, &mut bytes)?;
        let entries = bytes.chunks_exact(PageTrackReportEntry::BYTES);
        let entries = entries.filter_map(|entry| PageTrackReportEntry::new(entry).ok());
        let halves = entries.map(|entry| (entry.dirty_address_high(), entry.dirty_address_low()));
        Ok(halves.map(|(high, low)| u64::from(high) << 32 | u64::from(low)).collect())
    }

    /// Gives a message's buffer back to the firmware.
    pub(super) fn done(&mut self, message: &Message) -> Result<(), DmaError> {
        let at = self.layout.doorbells_at() + COMPLETION_DOORBELL;
        self.queues.write(at, &(self.taken & 0xff_ffff).to_be_bytes())?;
        self.post(message.buffer)
    }
}
