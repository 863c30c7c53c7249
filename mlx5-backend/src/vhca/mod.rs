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
//! `tests/arc_commands.rs` holds what is sent here against what that driver sends. Where this does
//! something else, that test says what and why.

mod buffer;
mod error;
mod hca;
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
    /// How many commands have changed the VHCA's state, or may have.
    changes: u64,
    detached: Cell<bool>,
    error: Option<VhcaError>,
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
