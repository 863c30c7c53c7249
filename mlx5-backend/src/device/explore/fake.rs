// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! A firmware whose locks are loom's: it keeps books, and a SAVE ends when somebody ends it.

use std::sync::Arc;

use loom::sync::{Condvar, Mutex};
use vfio_fsm_core::Errno;

use crate::command::{CommandError, Commands};
use crate::device::Function;
use crate::dma::DmaSpace;
use crate::layout::{
    AllocPdOut, CommandIn, CommandStatus, CreateMkeyOut, Opcode, QueryHcaCapIn, QueryHcaCapOut,
    QueryVhcaMigrationStateIn, QueryVhcaMigrationStateOut, ResumeOpMod, ResumeVhcaIn,
    SaveVhcaStateIn, SaveVhcaStateOut, SuspendOpMod, SuspendVhcaIn,
};

/// What QUERY says that a SAVE needs, and what it then writes, in bytes.
const IMAGE: u32 = 1;

pub(super) struct Fake {
    pub(super) books: Mutex<Books>,
    ended: Condvar,
    dma: DmaSpace,
}

#[derive(Default)]
pub(super) struct Books {
    pub(super) initiator: bool,
    pub(super) responder: bool,
    tracked: bool,
    pub(super) pds: i32,
    pub(super) mkeys: i32,
    pub(super) save: Save,
    pub(super) violation: Option<&'static str>,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) enum Save {
    #[default]
    None,
    Running {
        track: bool,
    },
    /// Nobody has seen it yet.
    Ended {
        well: bool,
    },
}

pub(super) enum Ticket {
    Over(Vec<u8>),
    Save,
}

impl Fake {
    pub(super) fn new() -> Arc<Self> {
        let (books, ended) = (Mutex::new(Books::default()), Condvar::new());
        Arc::new(Self { books, ended, dma: DmaSpace::new(1 << 20) })
    }

    /// The firmware is done with the SAVE, if there is one.
    pub(super) fn end_save(&self) {
        self.end(true);
    }

    fn end(&self, well: bool) {
        let mut books = self.books.lock().unwrap();
        if let Save::Running { track } = books.save {
            books.save = Save::Ended { well };
            books.tracked = well && track;
        }
        self.ended.notify_all();
    }
}

impl Books {
    /// Whether it is a command that can be carried out: one to resume what is not suspended cannot.
    fn run(&mut self, opcode: Opcode, input: &[u8], output: &mut [u8]) -> bool {
        let saving = matches!(self.save, Save::Running { .. });
        let mut must_not = |what, when| {
            if when {
                self.violation = Some(what);
            }
        };
        match opcode {
            Opcode::QueryHcaCap => {
                let input = QueryHcaCapIn::new(input).unwrap();
                let mut output = QueryHcaCapOut::new(output).unwrap();
                if u16::from(input.asked().0) != 0 {
                    output.capability_mut().cmd_hca_cap_2_mut().set_migratable(true);
                }
            }
            Opcode::SuspendVhca => {
                must_not("SUSPEND during a SAVE", saving);
                match SuspendVhcaIn::new(input).unwrap().op_mod() {
                    SuspendOpMod::Initiator => self.initiator = true,
                    _ => self.responder = true,
                }
            }
            Opcode::ResumeVhca => {
                let half = match ResumeVhcaIn::new(input).unwrap().op_mod() {
                    ResumeOpMod::Initiator => &mut self.initiator,
                    _ => &mut self.responder,
                };
                return std::mem::take(half);
            }
            Opcode::QueryVhcaMigrationState => {
                let incremental = QueryVhcaMigrationStateIn::new(input).unwrap().incremental();
                must_not("incremental QUERY during a SAVE", incremental && saving);
                let mut output = QueryVhcaMigrationStateOut::new(output).unwrap();
                output.set_required_umem_size(IMAGE);
            }
            Opcode::AllocPd => {
                self.pds += 1;
                AllocPdOut::new(output).unwrap().set_pd(1);
            }
            Opcode::CreateMkey => {
                self.mkeys += 1;
                CreateMkeyOut::new(output).unwrap().set_mkey_index(1);
            }
            Opcode::DestroyMkey => {
                must_not("DESTROY_MKEY during a SAVE", saving);
                self.mkeys -= 1;
            }
            Opcode::DeallocPd => self.pds -= 1,
            other => panic!("{other}"),
        }
        true
    }
}

impl Commands for Fake {
    type Ticket = Ticket;

    fn start(&self, input: &[u8], output_len: usize) -> Result<Ticket, CommandError> {
        let opcode = CommandIn::new(input).unwrap().opcode();
        let mut books = self.books.lock().unwrap();
        if opcode == Opcode::SaveVhcaState {
            if books.save != Save::None {
                books.violation = Some("two SAVEs at once");
            }
            let track = SaveVhcaStateIn::new(input).unwrap().set_track();
            books.save = Save::Running { track };
            return Ok(Ticket::Save);
        }
        let mut output = vec![0; output_len];
        let done = books.run(opcode, input, &mut output);
        if done { Ok(Ticket::Over(output)) } else { Err(refusal(opcode)) }
    }

    fn is_done(&self, ticket: &Ticket) -> bool {
        let save = self.books.lock().unwrap().save;
        matches!(ticket, Ticket::Over(_)) || matches!(save, Save::Ended { .. })
    }

    fn finish(&self, ticket: Ticket, output: &mut [u8]) -> Result<(), CommandError> {
        if let Ticket::Over(answer) = ticket {
            output.copy_from_slice(&answer);
            return Ok(());
        }
        let mut books = self.books.lock().unwrap();
        loop {
            if let Save::Ended { well } = books.save {
                books.save = Save::None;
                SaveVhcaStateOut::new(output).unwrap().set_actual_image_size(IMAGE);
                return if well { Ok(()) } else { Err(refusal(Opcode::SaveVhcaState)) };
            }
            books = self.ended.wait(books).unwrap();
        }
    }

    fn dma(&self) -> &DmaSpace {
        &self.dma
    }
}

fn refusal(opcode: Opcode) -> CommandError {
    CommandError::Status { opcode, status: CommandStatus::BadResState, syndrome: 0 }
}

/// Its function: what a function level reset does.
impl Function for Arc<Fake> {
    fn reset(&self) -> Result<(), Errno> {
        let mut books = self.books.lock().unwrap();
        (books.initiator, books.responder, books.tracked) = (false, false, false);
        drop(books);
        self.end(false);
        Ok(())
    }
}
