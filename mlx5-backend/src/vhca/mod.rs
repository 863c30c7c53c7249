// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! The fifteen arcs as firmware commands: what an mlx5 virtual function does when its device_state
//! changes.
//!
//! | arc | commands |
//! |---|---|
//! | RUNNING to RUNNING_P2P, PRE_COPY to PRE_COPY_P2P | SUSPEND(initiator) |
//! | RUNNING_P2P to STOP | SUSPEND(responder) |
//! | STOP to RUNNING_P2P | RESUME(responder) |
//! | RUNNING_P2P to RUNNING, PRE_COPY_P2P to PRE_COPY | RESUME(initiator) |
//! | STOP to STOP_COPY | ALLOC_PD, QUERY, CREATE_MKEY, SAVE |
//! | RUNNING to PRE_COPY, RUNNING_P2P to PRE_COPY_P2P | ALLOC_PD, QUERY, CREATE_MKEY twice or more, SAVE(track) |
//! | PRE_COPY_P2P to STOP_COPY | SUSPEND(responder), QUERY(incremental), SAVE(incremental) |
//! | PRE_COPY to RUNNING, PRE_COPY_P2P to RUNNING_P2P | QUERY(incremental), CREATE_MKEY, SAVE; then as below |
//! | STOP_COPY to STOP, RESUMING to STOP | DESTROY_MKEY of each key, DEALLOC_PD |
//! | STOP to RESUMING | ALLOC_PD |
//!
//! Beside the arcs, PRECOPY_INFO asks what has changed (QUERY) and has it saved when everything
//! before has been read (SAVE); a write to the data_fd that completes an image has it loaded
//! (CREATE_MKEY, LOAD).
//!
//! SAVE does not keep its arc waiting. It is the only command of which one may be on its way, and
//! the firmware can neither suspend nor be asked for changes meanwhile: who wants that waits.
//! Whoever reads, asks or sets finds that a SAVE is over, and in chunk mode starts the next, so one
//! chunk is filled while the other is read and no thread of ours is needed.
//!
//! Sources: the kernel's drivers/vfio/pci/mlx5/main.c and cmd.c (6.12) for which command when;
//! `tests/arcs/commands.rs` holds what is sent here against what that driver sends. Where this does
//! something else, that test says what and why.

mod buffer;
pub(crate) mod capability;
mod error;
pub(crate) mod hca;
mod record;
mod resuming;
mod save;
mod saving;

use std::cell::Cell;
use std::sync::Arc;

use vfio_fsm_core::device::{ArcActions, ArcFailure, DeviceData};
use vfio_fsm_core::{Direction, Errno, Leaves, PrecopyInfo, SessionEffect, State};

use crate::command::Commands;
use crate::layout::{ResumeOpMod, SuspendOpMod};

use buffer::Leftovers;
use hca::Hca;
use resuming::Resuming;
use saving::Saving;

pub use capability::{Migration, make_migratable};
pub use error::VhcaError;
pub use save::PendingSave;

/// A virtual function that migrates, seen from the physical function that commands it.
///
/// One thing at a time: for threads, see [`Mlx5Device`](crate::device::Mlx5Device).
pub struct Vhca<C: Commands> {
    hca: Hca<C>,
    leftovers: Leftovers,
    session: Session<C>,
    halt: Halt,
    detached: Cell<bool>,
    error: Option<VhcaError>,
    failures: u64,
}

enum Session<C: Commands> {
    None,
    Saving(Saving<C>),
    Resuming(Resuming),
}

/// How much of a VHCA is suspended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Halt {
    Nothing,
    Initiator,
    Both,
}

impl Halt {
    /// What a state asks for.
    const fn of(state: State) -> Self {
        match state {
            State::Running | State::PreCopy => Self::Nothing,
            State::RunningP2p | State::PreCopyP2p => Self::Initiator,
            State::Stop | State::StopCopy | State::Resuming | State::Error => Self::Both,
        }
    }
}

/// An arc that was not walked.
struct NotWalked {
    error: VhcaError,
    leaves: Leaves,
}

impl<E: Into<VhcaError>> From<E> for NotWalked {
    /// Nothing was done, unless nobody knows what was (M61).
    fn from(error: E) -> Self {
        let error = error.into();
        let leaves = if error.leaves_doubt() { Leaves::Error } else { Leaves::Source };
        Self { error, leaves }
    }
}

impl<C: Commands> Vhca<C> {
    /// Virtual function `function` (counted from 1, as `function_id` is) of the physical one that
    /// takes `commands`, if it can be migrated.
    ///
    /// # Errors
    ///
    /// [`VhcaError::Lacks`] when it is not migratable.
    pub fn new(commands: Arc<C>, pf: Migration, function: u16) -> Result<Self, VhcaError> {
        let vhca_id = capability::migratable(&*commands, function)?;
        let hca = Hca { commands, vhca_id, chunked: pf.chunks, changes: Cell::new(0) };
        Ok(Self {
            hca,
            leftovers: Leftovers::default(),
            session: Session::None,
            halt: Halt::Nothing,
            detached: Cell::new(false),
            error: None,
            failures: 0,
        })
    }

    /// The number by which firmware commands name it.
    pub const fn vhca_id(&self) -> u16 {
        self.hca.vhca_id
    }

    /// What went wrong last, in more words than an errno has.
    pub const fn last_error(&self) -> Option<&VhcaError> {
        self.error.as_ref()
    }

    /// How often something failed because the firmware did not carry out a command.
    pub const fn failures(&self) -> u64 {
        self.failures
    }

    /// The SAVE that a read from the data_fd would have to wait for. Wait for it without a lock, so
    /// that everything else can go on meanwhile, and then read.
    pub fn awaited(&self) -> Option<Arc<PendingSave<C>>> {
        match &self.session {
            Session::Saving(saving) => saving.awaited().cloned(),
            _ => None,
        }
    }

    /// How many commands may have changed the VHCA since the beginning: one that is sent while a
    /// reset is under way can outlast it, see [`crate::device`].
    pub const fn changes(&self) -> u64 {
        self.hca.changes.get()
    }

    /// The physical function is about to leave its virtual functions, or has come back. While it is
    /// gone, whatever needs the firmware is ENOTCONN. End the session first.
    pub fn set_detached(&self, detached: bool) {
        self.detached.set(detached);
    }

    fn attached(&self) -> Result<(), VhcaError> {
        if self.detached.get() { Err(VhcaError::Detached) } else { Ok(()) }
    }

    fn note(&mut self, error: VhcaError) -> Errno {
        self.error = Some(error);
        self.failures += u64::from(matches!(error, VhcaError::Command(_)));
        error.errno()
    }

    fn walk(&mut self, arc: vfio_fsm_core::Arc) -> Result<(), NotWalked> {
        self.attached()?;
        match arc.session() {
            SessionEffect::None => self.halt(Halt::of(arc.to())),
            SessionEffect::Opens(Direction::Saving) => self.open_saving(arc.to().is_pre_copy()),
            SessionEffect::Opens(Direction::Resuming) => self.open_resuming(),
            SessionEffect::Keeps if arc.to() == State::StopCopy => self.stop_and_copy(),
            SessionEffect::Keeps => {
                self.wait_for_save()?;
                self.halt(Halt::of(arc.to()))
            }
            SessionEffect::Ends => self.conclude(arc.from()),
        }
    }

    fn open_saving(&mut self, track: bool) -> Result<(), NotWalked> {
        self.leftovers.clear(&self.hca)?;
        self.session = Session::Saving(Saving::begin(&self.hca, &mut self.leftovers, track)?);
        Ok(())
    }

    fn open_resuming(&mut self) -> Result<(), NotWalked> {
        self.leftovers.clear(&self.hca)?;
        self.session = Session::Resuming(Resuming::begin(&self.hca)?);
        Ok(())
    }

    /// From a pre-copy state to STOP_COPY: the one arc that both halts and saves, and so the one
    /// that has something to undo when the second fails (M62).
    fn stop_and_copy(&mut self) -> Result<(), NotWalked> {
        self.wait_for_save()?;
        if let Some(error) = saving(&mut self.session)?.broken() {
            return Err(error.into());
        }
        let before = self.halt;
        self.halt(Halt::Both)?;
        let Self { hca, leftovers, session, .. } = self;
        let started = saving(session).and_then(|saving| saving.start_final(hca, leftovers));
        started.map_err(|error| self.undo(error, before))
    }

    /// What an arc does before the core ends its session.
    fn conclude(&mut self, from: State) -> Result<(), NotWalked> {
        let Self { hca, leftovers, session, .. } = self;
        match session {
            Session::Saving(saving) if from.is_pre_copy() => {
                saving.settle();
                if let Some(error) = saving.broken().filter(|error| error.leaves_doubt()) {
                    return Err(error.into());
                }
                Ok(saving.stop_tracking(hca, leftovers)?)
            }
            Session::Resuming(resuming) => Ok(resuming.check()?),
            _ => Ok(()),
        }
    }

    /// The firmware cannot suspend while it saves.
    fn wait_for_save(&mut self) -> Result<(), NotWalked> {
        let saving = saving(&mut self.session)?;
        saving.settle();
        match saving.broken() {
            Some(error) if error.leaves_doubt() => Err(error.into()),
            _ => Ok(()),
        }
    }

    /// Suspends or resumes, half by half, until exactly this is suspended; or nothing at all.
    fn halt(&mut self, wanted: Halt) -> Result<(), NotWalked> {
        let before = self.halt;
        while self.halt != wanted {
            if let Err(error) = self.halt_step(wanted) {
                return Err(self.undo(error, before));
            }
        }
        Ok(())
    }

    fn halt_step(&mut self, wanted: Halt) -> Result<(), VhcaError> {
        self.halt = match (self.halt, wanted) {
            (Halt::Nothing, _) => {
                self.hca.suspend(SuspendOpMod::Initiator)?;
                Halt::Initiator
            }
            (Halt::Initiator, Halt::Both) => {
                self.hca.suspend(SuspendOpMod::Responder)?;
                Halt::Both
            }
            (Halt::Initiator, _) => {
                self.hca.resume(ResumeOpMod::Initiator)?;
                Halt::Nothing
            }
            (Halt::Both, _) => {
                self.hca.resume(ResumeOpMod::Responder)?;
                Halt::Initiator
            }
        };
        Ok(())
    }

    /// Goes back to where the arc began; what it could not be done for stays the error.
    fn undo(&mut self, error: VhcaError, before: Halt) -> NotWalked {
        let mut not_walked = NotWalked::from(error);
        while not_walked.leaves == Leaves::Source && self.halt != before {
            if self.halt_step(before).is_err() {
                not_walked.leaves = Leaves::Error;
            }
        }
        not_walked
    }

    fn end(&mut self) {
        match std::mem::replace(&mut self.session, Session::None) {
            Session::Saving(saving) => saving.end(&self.hca, &mut self.leftovers),
            Session::Resuming(resuming) => resuming.end(&self.hca, &mut self.leftovers),
            Session::None => {}
        }
    }
}

/// The saving session. A function of its own so that the rest of a VHCA stays free to use.
fn saving<C: Commands>(session: &mut Session<C>) -> Result<&mut Saving<C>, VhcaError> {
    match session {
        Session::Saving(saving) => Ok(saving),
        _ => Err(VhcaError::NoSession { wanted: "saving" }),
    }
}

impl<C: Commands> ArcActions for Vhca<C> {
    fn arc(&mut self, arc: vfio_fsm_core::Arc) -> Result<(), ArcFailure> {
        let walked = self.walk(arc);
        walked.map_err(|NotWalked { error, leaves }| ArcFailure { errno: self.note(error), leaves })
    }

    fn end_session(&mut self) {
        self.end();
    }

    fn reset(&mut self) {
        self.halt = Halt::Nothing;
    }
}

impl<C: Commands> DeviceData for Vhca<C> {
    fn read(&mut self, buf: &mut [u8]) -> Result<usize, Errno> {
        let Self { hca, leftovers, session, .. } = self;
        let read = saving(session).and_then(|saving| saving.read(hca, leftovers, buf));
        read.map_err(|error| self.note(error))
    }

    fn write(&mut self, bytes: &[u8]) -> Result<usize, Errno> {
        let written = match &mut self.session {
            Session::Resuming(resuming) => resuming.write(&self.hca, &mut self.leftovers, bytes),
            _ => Err(VhcaError::NoSession { wanted: "resuming" }),
        };
        written.map_err(|error| self.note(error))
    }

    fn precopy_info(&mut self) -> Result<PrecopyInfo, Errno> {
        let running = self.halt == Halt::Nothing;
        let Self { hca, leftovers, session, .. } = self;
        let info = saving(session).and_then(|saving| saving.precopy_info(hca, leftovers, running));
        info.map_err(|error| self.note(error))
    }

    fn data_size(&mut self) -> Result<u64, Errno> {
        let size = self.attached().and_then(|()| Ok(self.hca.query(false)?));
        let size = size.map_err(|error| self.note(error))?;
        Ok(if self.hca.chunked { size.remaining } else { size.required as u64 })
    }

    fn readable(&self) -> bool {
        matches!(&self.session, Session::Saving(saving) if saving.is_readable())
    }

    /// Nothing: the guest reaches its device by other ways than the firmware's commands.
    fn touch(&mut self, _value: u8) {}
}

impl<C: Commands> Drop for Vhca<C> {
    fn drop(&mut self) {
        self.end();
    }
}
