// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! What can be made to go wrong, and when.

use crate::layout::{CommandStatus, DeliveryStatus, Opcode};

/// What happens to a command, or at it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Fault {
    /// It is not carried out, and answers this status.
    Status(CommandStatus),
    /// It is not carried out, and its entry says so.
    Delivery(DeliveryStatus),
    /// It is carried out, and never completes.
    NoCompletion,
    /// It is carried out, and the answer has another command's token.
    WrongToken,
    /// Before it, so many page requests of one page each come as events.
    PageRequests(u32),
    /// Before it, the physical function goes away.
    PfDetach,
    /// It is carried out; a SAVE's image then has a bit flipped, counted from its beginning and
    /// round and round. Nothing happens to other commands.
    CorruptImage {
        /// Which bit.
        bit: u64,
    },
    /// Before it, the virtual function with this vhca_id is reset.
    Reset {
        /// Which one.
        vhca_id: u16,
    },
    /// Before it, every page tracker goes into its error state.
    TrackerError {
        /// With the event that says so.
        event: bool,
    },
}

/// At which command a fault happens, counted from when it was planted. Once.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Trigger {
    /// The next one.
    Next,
    /// The one after so many others.
    After(u64),
    /// The one of this kind after so many others of it.
    AfterOf(Opcode, u64),
}

/// The faults that are still to happen.
#[derive(Debug, Default)]
pub(super) struct Faults {
    planted: Vec<(Trigger, Fault)>,
}

impl Faults {
    pub(super) fn plant(&mut self, trigger: Trigger, fault: Fault) {
        let trigger = if trigger == Trigger::Next { Trigger::After(0) } else { trigger };
        self.planted.push((trigger, fault));
    }

    pub(super) fn is_empty(&self) -> bool {
        self.planted.is_empty()
    }

    pub(super) fn clear(&mut self) {
        self.planted.clear();
    }

    /// Those that happen at this command, in the order they were planted.
    pub(super) fn at(&mut self, opcode: Opcode) -> Vec<Fault> {
        let mut due = Vec::new();
        self.planted.retain_mut(|(trigger, fault)| {
            let left = match trigger {
                Trigger::Next => return true,
                Trigger::AfterOf(of, _) if *of != opcode => return true,
                Trigger::After(left) | Trigger::AfterOf(_, left) => left,
            };
            if *left == 0 {
                due.push(*fault);
                return false;
            }
            *left -= 1;
            true
        });
        due
    }
}
