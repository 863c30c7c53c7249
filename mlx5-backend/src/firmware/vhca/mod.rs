// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! One virtual function as its migration commands see it.

mod content;
mod image;
mod load;
mod save;

use self::content::{BLOCK, Content};
use self::save::Unsent;
use super::config::VhcaConfig;
use super::refusal::{Refusal, Syndrome};
use crate::layout::MigrationState;

use self::image::HEADER;
pub(crate) use self::load::Source;
pub(crate) use self::save::Sink;

/// Bytes of every image that are not state.
pub const IMAGE_HEADER: usize = HEADER;

/// What is known of a VHCA, for tests and reports.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct VhcaStatus {
    /// `SUSPEND_VHCA` of the initiator was last.
    pub initiator_suspended: bool,
    /// `SUSPEND_VHCA` of the responder was last.
    pub responder_suspended: bool,
    /// Changes are tracked: the last SAVE said `set_track`.
    pub tracked: bool,
    /// A SAVE is in flight.
    pub saving: bool,
    /// The PF has enabled it.
    pub enabled: bool,
    /// A SAVE would write so many bytes now, if it went on from the last one.
    pub unsaved_bytes: u64,
}

/// One virtual function.
pub(crate) struct Vhca {
    pub(crate) config: VhcaConfig,
    pub(crate) enabled: bool,
    pub(crate) migratable: bool,
    /// So many SAVEs and LOADs are in flight.
    pub(crate) transfers: u32,
    /// Counts resets, so that what was in flight at one is known afterwards.
    pub(crate) resets: u64,
    content: Content,
    initiator_suspended: bool,
    responder_suspended: bool,
    /// What the last SAVE left, if there was one since the reset.
    unsent: Option<Unsent>,
    tracked: bool,
    /// The last QUERY asked for chunks.
    chunked: bool,
    /// Fewer blocks than these are loaded, if a LOAD has begun.
    loading: Option<u64>,
    /// Bytes of the dirty rate that do not make a block yet.
    remainder: u64,
    /// The block that is changed next.
    cursor: u64,
}

/// A side of a VHCA, as both SUSPEND and RESUME have it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Side {
    Initiator,
    Responder,
}

impl Vhca {
    pub(crate) fn new(config: VhcaConfig) -> Self {
        let content = Content::new(config.state_bytes(), config.seed);
        Self {
            enabled: config.enabled,
            migratable: config.migratable,
            transfers: 0,
            resets: 0,
            content,
            initiator_suspended: false,
            responder_suspended: false,
            unsent: None,
            tracked: false,
            chunked: false,
            loading: None,
            remainder: 0,
            cursor: 0,
            config,
        }
    }

    /// A function-level reset: running, untracked, with the state of a fresh device (A-FLR).
    pub(crate) fn flr(&mut self) {
        let fresh = Self::new(self.config.clone());
        let (enabled, migratable) = (self.enabled, self.migratable);
        let (transfers, resets) = (self.transfers, self.resets + 1);
        *self = Self { enabled, migratable, transfers, resets, ..fresh };
    }

    pub(crate) fn status(&self) -> VhcaStatus {
        VhcaStatus {
            initiator_suspended: self.initiator_suspended,
            responder_suspended: self.responder_suspended,
            tracked: self.tracked,
            saving: self.transfers > 0,
            enabled: self.enabled,
            unsaved_bytes: self.unsaved_bytes(),
        }
    }

    /// A-SUSPEND-ORDER: the initiator first, and each side once.
    pub(crate) fn suspend(&mut self, side: Side) -> Result<(), Refusal> {
        self.quiet()?;
        let in_turn = match side {
            Side::Initiator => !self.initiator_suspended,
            Side::Responder => self.initiator_suspended && !self.responder_suspended,
        };
        if !in_turn {
            return Err(Syndrome::SuspendState.into());
        }
        *self.side(side) = true;
        Ok(())
    }

    /// A-RESUME-ORDER: the responder first. A-RESUME-INCOMPLETE: not with half a state.
    pub(crate) fn resume(&mut self, side: Side) -> Result<(), Refusal> {
        self.quiet()?;
        let in_turn = match side {
            Side::Responder => self.responder_suspended,
            Side::Initiator => self.initiator_suspended && !self.responder_suspended,
        };
        if !in_turn {
            return Err(Syndrome::ResumeState.into());
        }
        if self.loading.is_some_and(|next| next < self.content.blocks()) {
            return Err(Syndrome::StateMissing.into());
        }
        self.loading = None;
        *self.side(side) = false;
        Ok(())
    }

    fn side(&mut self, side: Side) -> &mut bool {
        match side {
            Side::Initiator => &mut self.initiator_suspended,
            Side::Responder => &mut self.responder_suspended,
        }
    }

    /// A-SAVE-EXCLUSIVE: nothing else happens to a VHCA while a SAVE or LOAD of it is in flight.
    pub(crate) fn quiet(&self) -> Result<(), Refusal> {
        if self.transfers > 0 { Err(Syndrome::SaveRunning.into()) } else { Ok(()) }
    }

    /// The device works for so long, and dirties what its rate says (A-DIRTY-RUNNING).
    pub(crate) fn run(&mut self, ticks: u64) {
        if self.initiator_suspended || self.content.len() == 0 {
            return;
        }
        let bytes = self.remainder.saturating_add(self.config.dirty_rate.saturating_mul(ticks));
        self.remainder = bytes % BLOCK as u64;
        self.dirty(bytes - self.remainder);
    }

    /// The device changes so many bytes, in whole blocks, going round and round.
    pub(crate) fn dirty(&mut self, bytes: u64) {
        let blocks = self.content.blocks();
        for _ in 0..bytes.div_ceil(BLOCK as u64).min(blocks) {
            let index = self.cursor % blocks;
            self.cursor = index + 1;
            self.content.change(index);
            if let Some(unsent) = self.tracked.then_some(self.unsent.as_mut()).flatten() {
                unsent.change(index);
            }
        }
    }

    /// Changes the one byte that the guest can see.
    pub(crate) fn touch(&mut self, value: u8) {
        self.content.set_touch(value);
        if let Some(unsent) = self.tracked.then_some(self.unsent.as_mut()).flatten() {
            unsent.header = true;
        }
    }

    pub(crate) fn touched(&self) -> u8 {
        self.content.touch()
    }

    pub(crate) fn digest(&self) -> u64 {
        self.content.digest()
    }

    /// Bytes of the state from `offset` on, as many as there are.
    pub(crate) fn read_state(&self, offset: u64, out: &mut [u8]) -> usize {
        let mut done = 0;
        let mut block = [0; BLOCK];
        while done < out.len() {
            let at = offset.saturating_add(done as u64);
            let (index, skip) = (at / BLOCK as u64, (at % BLOCK as u64) as usize);
            let len = self.content.block_len(index);
            if skip >= len {
                break;
            }
            self.content.fill(index, &mut block[..len]);
            let count = (len - skip).min(out.len() - done);
            out[done..done + count].copy_from_slice(&block[skip..skip + count]);
            done += count;
        }
        done
    }

    /// What QUERY says a migration is at (A-MIGRATION-STATE).
    pub(crate) fn migration_state(&self) -> MigrationState {
        match &self.unsent {
            _ if !self.enabled => MigrationState::Uninitialized,
            Some(unsent) if self.tracked && unsent.is_dirty() => MigrationState::Dirty,
            Some(_) if self.tracked => MigrationState::Ready,
            _ => MigrationState::Idle,
        }
    }
}
