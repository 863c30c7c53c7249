// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! Which command is in which entry of the queue.
//!
//! An entry, and the mailboxes of its command, are the firmware's from the doorbell until it clears
//! the ownership bit, whatever happens to whoever waits. So a command that nobody waits for any
//! more, because it timed out or its ticket was dropped, keeps both; they come back with the bit.

use std::sync::{Arc, OnceLock};

use super::mailbox::Chain;
use crate::command::CommandError;
use crate::layout::Opcode;

/// How a command ended, for whoever gave it.
pub(super) struct Outcome {
    pub(super) result: Result<(), CommandError>,
    /// What the firmware wrote, as long as was asked for. Empty if it is not to be trusted.
    pub(super) output: Vec<u8>,
}

/// Set once: by the firmware's answer, or by whoever gives up waiting for it.
pub(super) type Flight = Arc<OnceLock<Outcome>>;

/// Ends a command that the firmware did not answer.
pub(super) fn fail(flight: &Flight, error: CommandError) {
    // One that has its answer by now keeps it.
    let _ = flight.set(Outcome { result: Err(error), output: Vec::new() });
}

/// A command in an entry.
pub(super) struct InFlight {
    pub(super) flight: Flight,
    pub(super) opcode: Opcode,
    /// Not looked at again, but the firmware's.
    pub(super) input: Chain,
    pub(super) output: Chain,
    pub(super) output_len: usize,
    pub(super) token: u8,
}

/// Who may have which entry.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Lane {
    /// All but the last.
    Regular,
    /// The last one, for MANAGE_PAGES alone: a command that needs pages to go on can hold up all
    /// the others, but never the pages.
    Pages,
}

impl Lane {
    pub(super) fn of(opcode: Opcode) -> Self {
        if opcode == Opcode::ManagePages { Self::Pages } else { Self::Regular }
    }
}

/// The entries, by number.
pub(super) struct Slots {
    table: Vec<Option<InFlight>>,
    token: u8,
}

impl Slots {
    pub(super) fn new(entries: usize) -> Self {
        Self { table: (0..entries).map(|_| None).collect(), token: 0 }
    }

    /// 1 to 255, each in its turn: 0 is what a block has that was never written.
    pub(super) fn next_token(&mut self) -> u8 {
        self.token = self.token % u8::MAX + 1;
        self.token
    }

    /// An entry that nothing is in.
    pub(super) fn vacant(&self, lane: Lane) -> Option<usize> {
        let last = self.table.len() - 1;
        match lane {
            Lane::Regular => self.table[..last].iter().position(Option::is_none),
            Lane::Pages => self.table[last].is_none().then_some(last),
        }
    }

    pub(super) fn occupy(&mut self, slot: usize, command: InFlight) {
        self.table[slot] = Some(command);
    }

    /// The entries with a command in them.
    pub(super) fn occupied(&self) -> impl Iterator<Item = usize> + '_ {
        (0..self.table.len()).filter(|slot| self.table[*slot].is_some())
    }

    /// The first of them from this one on.
    pub(super) fn occupied_from(&self, slot: usize) -> Option<usize> {
        (slot..self.table.len()).find(|slot| self.table[*slot].is_some())
    }

    pub(super) fn vacate(&mut self, slot: usize) -> Option<InFlight> {
        self.table.get_mut(slot).and_then(Option::take)
    }

    /// Ends all commands for those who wait. The entries stay taken.
    pub(super) fn fail_all(&self, error: CommandError) {
        self.table.iter().flatten().for_each(|command| fail(&command.flight, error));
    }
}
