// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! A SAVE on its way, and how several threads wait for it.

use std::sync::Arc;

use crate::command::{CommandError, Commands};
use crate::sync::Mutex;

use super::hca::{Saved, finish_save};

/// A SAVE that was started. Kept by its session, and by every reader that waits for it.
///
/// The first who waits asks the firmware, and the others wait for him: at a lock that is taken
/// inside the state lock or without it, and under which no other lock is taken.
pub struct PendingSave<C: Commands> {
    commands: Arc<C>,
    progress: Mutex<Progress<C::Ticket>>,
}

struct Progress<T> {
    /// Until somebody has waited for it.
    ticket: Option<T>,
    result: Result<Saved, CommandError>,
}

impl<C: Commands> PendingSave<C> {
    pub(super) fn new(commands: &Arc<C>, ticket: C::Ticket) -> Self {
        let progress = Progress { ticket: Some(ticket), result: Ok(Saved::default()) };
        Self { commands: commands.clone(), progress: Mutex::new(progress) }
    }

    /// Waits until the SAVE is over, whatever came of it. Bounded by the time a command may take.
    pub fn wait(&self) {
        let _either = self.result();
    }

    /// Whether [`wait`](Self::wait) would return at once.
    pub fn is_over(&self) -> bool {
        // Taken: somebody is waiting, or about to find out that he need not.
        let progress = self.progress.try_lock();
        progress.is_some_and(|progress| match &progress.ticket {
            Some(ticket) => self.commands.is_done(ticket),
            None => true,
        })
    }

    /// Waits, and says what came of it.
    pub(super) fn result(&self) -> Result<Saved, CommandError> {
        let mut progress = self.progress.lock();
        if let Some(ticket) = progress.ticket.take() {
            progress.result = finish_save(&*self.commands, ticket);
        }
        progress.result
    }
}
