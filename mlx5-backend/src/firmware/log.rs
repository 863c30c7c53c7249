// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! What the firmware was told, and what it answered.

use std::collections::VecDeque;

use super::Fault;
use crate::layout::{CommandStatus, DeliveryStatus, Opcode};

/// So many bytes of an input are kept.
pub const LOGGED_INPUT: usize = 1024;

/// A command that came to its end.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct LogEntry {
    /// When it came, in ticks.
    pub tick: u64,
    /// In which slot.
    pub slot: u8,
    /// Which command.
    pub opcode: Opcode,
    /// Which variant of it, or type of general object.
    pub op_mod: u16,
    /// The first [`LOGGED_INPUT`] bytes of the input.
    pub input: Vec<u8>,
    /// How long the input was.
    pub input_len: usize,
    /// Whether it was delivered.
    pub delivery: DeliveryStatus,
    /// How it ended.
    pub status: CommandStatus,
    /// With which syndrome; see [`Syndrome`](super::Syndrome).
    pub syndrome: u32,
    /// What was made to go wrong at it.
    pub faults: Vec<Fault>,
}

/// The last commands, in the order in which they ended.
#[derive(Debug)]
pub(super) struct Log {
    entries: VecDeque<LogEntry>,
    capacity: usize,
}

impl Log {
    pub(super) fn new(capacity: usize) -> Self {
        Self { entries: VecDeque::new(), capacity }
    }

    pub(super) fn push(&mut self, entry: LogEntry) {
        if self.entries.len() >= self.capacity {
            self.entries.pop_front();
        }
        if self.capacity > 0 {
            self.entries.push_back(entry);
        }
    }

    pub(super) fn entries(&self) -> Vec<LogEntry> {
        self.entries.iter().cloned().collect()
    }

    pub(super) fn drain(&mut self) -> Vec<LogEntry> {
        self.entries.drain(..).collect()
    }
}
