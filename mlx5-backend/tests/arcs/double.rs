// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! A firmware that does what a test tells it, and writes down what it is told.
//!
//! It keeps books of protection domains, memory keys and what is suspended, and notes a violation
//! when it is asked for what a real one must not be asked for.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Condvar, Mutex, MutexGuard};
use std::time::Duration;

use vfio_fsm_mlx5::command::{CommandError, Commands};
use vfio_fsm_mlx5::dma::DmaSpace;
use vfio_fsm_mlx5::layout::{
    AllocPdOut, CapMode, CapType, CommandIn, CommandStatus, CreateMkeyIn, CreateMkeyOut,
    DeallocPdIn, DeliveryStatus, DestroyMkeyIn, LoadVhcaStateIn, MkeyAccessMode, Opcode,
    QueryHcaCapIn, QueryHcaCapOut, QueryVhcaMigrationStateIn, QueryVhcaMigrationStateOut,
    ResumeOpMod, ResumeVhcaIn, SaveVhcaStateIn, SaveVhcaStateOut, SuspendOpMod, SuspendVhcaIn,
};
use vfio_fsm_mlx5::vhca::{Migration, Vhca};

pub(crate) const VHCA_ID: u16 = 0x1234;

/// How a command is made to fail.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Fault {
    Status(CommandStatus),
    Delivery,
    Timeout,
    /// The queue does not take it.
    Start,
    Gone,
}

impl Fault {
    fn error(self, opcode: Opcode) -> CommandError {
        match self {
            Self::Status(status) => CommandError::Status { opcode, status, syndrome: 0x51 },
            Self::Delivery => CommandError::Delivery { opcode, status: DeliveryStatus::Token },
            Self::Timeout => CommandError::Timeout { opcode, after: Duration::from_secs(60) },
            Self::Start => CommandError::Delivery { opcode, status: DeliveryStatus::FirmwareErr },
            Self::Gone => CommandError::Gone,
        }
    }
}

/// One command as it came in.
#[derive(Clone, Debug)]
pub(crate) struct Sent {
    pub(crate) opcode: Opcode,
    pub(crate) input: Vec<u8>,
    /// The number of the domain or key that it made.
    pub(crate) made: Option<u32>,
    pub(crate) error: Option<CommandError>,
}

#[derive(Default)]
pub(crate) struct State {
    pub(crate) log: Vec<Sent>,
    /// The n-th command from now fails, counted from 0.
    pub(crate) faults: BTreeMap<usize, Fault>,
    /// Done before the n-th command from now, with the state free.
    before: BTreeMap<usize, Box<dyn FnOnce() + Send>>,
    pub(crate) pds: BTreeSet<u32>,
    pub(crate) mkeys: BTreeMap<u32, Key>,
    pub(crate) initiator: bool,
    pub(crate) responder: bool,
    pub(crate) tracked: bool,
    /// A SAVE was started and nobody has seen its end.
    pub(crate) saving: bool,
    /// SAVEs do not end before they are let.
    pub(crate) hold: bool,
    /// What QUERY says of the whole state and of what has changed, in bytes. A SAVE writes one less.
    pub(crate) full: u32,
    pub(crate) changed: u32,
    /// In chunk mode: how much is left to be saved.
    pub(crate) left: u32,
    pub(crate) chunk: u32,
    /// The value that images are made of.
    pub(crate) value: u8,
    pub(crate) loaded: Vec<Vec<u8>>,
    pub(crate) resets: u32,
    /// The next reset of the function fails.
    pub(crate) reset_fails: bool,
    pub(crate) violations: Vec<String>,
    last: u32,
    count: usize,
}

/// A memory key.
#[derive(Clone, Debug)]
pub(crate) struct Key {
    pub(crate) pd: u32,
    pub(crate) pages: Vec<u64>,
}

pub(crate) struct Double {
    state: Mutex<State>,
    let_go: Condvar,
    dma: DmaSpace,
    pub(crate) chunks: bool,
}

pub(crate) enum Ticket {
    Over(Result<Vec<u8>, CommandError>),
    Save { input: Vec<u8>, fault: Option<Fault> },
}

impl Double {
    pub(crate) fn new(chunks: bool) -> Arc<Self> {
        let state = State { full: 10_000, changed: 5_000, ..State::default() };
        let dma = DmaSpace::new(1 << 30);
        Arc::new(Self { state: Mutex::new(state), let_go: Condvar::new(), dma, chunks })
    }

    pub(crate) fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap()
    }

    /// A VHCA of its own, and what has been sent so far forgotten.
    pub(crate) fn vhca(self: &Arc<Self>) -> Vhca<Self> {
        let pf = Migration::of(&**self).unwrap();
        self.state().log.clear();
        Vhca::new(self.clone(), pf, 1).unwrap()
    }

    /// Bytes of memory that the device can reach.
    pub(crate) fn dma_used(&self) -> u64 {
        self.dma.used()
    }

    /// Lets the SAVEs end that are held.
    pub(crate) fn let_go(&self) {
        self.state().hold = false;
        self.let_go.notify_all();
    }

    /// The n-th command from now fails.
    pub(crate) fn fail(&self, nth: usize, fault: Fault) {
        let mut state = self.state();
        let nth = state.count + nth;
        state.faults.insert(nth, fault);
    }

    /// Something happens before the n-th command from now.
    pub(crate) fn before(&self, nth: usize, happens: impl FnOnce() + Send + 'static) {
        let mut state = self.state();
        let nth = state.count + nth;
        state.before.insert(nth, Box::new(happens));
    }

    /// What has not happened yet will not.
    pub(crate) fn forget_before(&self) {
        self.state().before.clear();
    }

    /// Whether a fault is still waiting for its command; none is afterwards.
    pub(crate) fn take_unused_fault(&self) -> bool {
        !std::mem::take(&mut self.state().faults).is_empty()
    }

    pub(crate) fn names(&self) -> Vec<String> {
        self.state().log.iter().map(|sent| sent.opcode.to_string()).collect()
    }

    fn write(&self, mkey: u32, bytes: &[u8]) {
        let key = self.state().mkeys.get(&(mkey >> 8)).cloned();
        let Some(key) = key else {
            self.state().violations.push(format!("SAVE through mkey {mkey:#x}, which is gone"));
            return;
        };
        for (page, part) in key.pages.iter().zip(bytes.chunks(4096)) {
            if let Err(error) = self.dma.write(*page, part) {
                self.state().violations.push(format!("SAVE: {error}"));
            }
        }
    }

    fn read(&self, mkey: u32, len: usize) -> Option<Vec<u8>> {
        let key = self.state().mkeys.get(&(mkey >> 8)).cloned()?;
        let mut bytes = vec![0; len];
        for (page, part) in key.pages.iter().zip(bytes.chunks_mut(4096)) {
            self.dma.read(*page, part).ok()?;
        }
        Some(bytes)
    }

    fn save(&self, input: &[u8]) -> Vec<u8> {
        let command = SaveVhcaStateIn::new(input).unwrap();
        let mut output = SaveVhcaStateOut::zeroed();
        let (len, next, value) = {
            let mut state = self.state();
            let tracked = std::mem::replace(&mut state.tracked, command.set_track());
            let chunked = self.chunks && !command.set_track() && state.chunk > 0;
            let image = match (chunked, command.incremental()) {
                (true, _) => {
                    let now = state.left.min(state.chunk);
                    state.left -= now;
                    now
                }
                (false, false) if !tracked || state.responder => state.full - 1,
                // Also what ends the tracking of a device that runs: nobody reads it.
                (false, _) => state.changed - 1,
            };
            let next = if chunked { state.left.min(state.chunk) } else { 0 };
            if image > command.size() {
                state.violations.push(format!("SAVE of {image} into {}", command.size()));
            }
            (image, next, state.value)
        };
        self.write(command.mkey(), &vec![value; len as usize]);
        output.set_actual_image_size(len).set_next_required_umem_size(next);
        output.as_bytes().to_vec()
    }

    /// Carries a command out, with the books open.
    fn run(
        &self,
        opcode: Opcode,
        input: &[u8],
        output_len: usize,
    ) -> Result<(Vec<u8>, Option<u32>), CommandError> {
        let mut output = vec![0; output_len];
        let mut guard = self.state();
        let state = &mut *guard;
        let mut violation = |text: &str| state.violations.push(text.to_owned());
        match opcode {
            Opcode::QueryHcaCap => capabilities(input, &mut output, self.chunks),
            Opcode::SuspendVhca => {
                if state.saving {
                    violation("SUSPEND during a SAVE");
                }
                let half = match SuspendVhcaIn::new(input).unwrap().op_mod() {
                    SuspendOpMod::Initiator => &mut state.initiator,
                    _ => &mut state.responder,
                };
                if std::mem::replace(half, true) {
                    state.violations.push("SUSPEND of what is suspended".to_owned());
                }
            }
            Opcode::ResumeVhca => {
                let half = match ResumeVhcaIn::new(input).unwrap().op_mod() {
                    ResumeOpMod::Initiator => &mut state.initiator,
                    _ => &mut state.responder,
                };
                if !std::mem::replace(half, false) {
                    state.violations.push("RESUME of what runs".to_owned());
                }
            }
            Opcode::QueryVhcaMigrationState => {
                let command = QueryVhcaMigrationStateIn::new(input).unwrap();
                if command.incremental() && state.saving {
                    violation("incremental QUERY during a SAVE");
                }
                if command.incremental() && !state.tracked {
                    state.violations.push("incremental QUERY, untracked".to_owned());
                }
                let mut answer = QueryVhcaMigrationStateOut::new(&mut output[..]).unwrap();
                let size = if command.incremental() { state.changed } else { state.full };
                let required = if state.chunk > 0 { state.chunk.min(size) } else { size };
                answer.set_required_umem_size(required).set_remaining_total_size(size.into());
                if self.chunks {
                    state.left = size;
                }
            }
            Opcode::LoadVhcaState => {
                let command = LoadVhcaStateIn::new(input).unwrap();
                let (mkey, size) = (command.mkey(), command.size());
                drop(guard);
                let image = self.read(mkey, size as usize);
                let mut state = self.state();
                match image {
                    Some(image) => state.loaded.push(image),
                    None => state.violations.push("LOAD through no mkey".to_owned()),
                }
            }
            Opcode::AllocPd => {
                state.last += 1;
                state.pds.insert(state.last);
                AllocPdOut::new(&mut output[..]).unwrap().set_pd(state.last);
                return Ok((output, Some(state.last)));
            }
            Opcode::DeallocPd => {
                let pd = DeallocPdIn::new(input).unwrap().pd();
                if state.mkeys.values().any(|key| key.pd == pd) {
                    return Err(Fault::Status(CommandStatus::ResBusy).error(opcode));
                }
                if !state.pds.remove(&pd) {
                    violation("DEALLOC_PD of none");
                }
            }
            Opcode::CreateMkey => {
                state.last += 1;
                let key = key(input);
                if !state.pds.contains(&key.pd) {
                    state.violations.push("CREATE_MKEY in no domain".to_owned());
                }
                state.mkeys.insert(state.last, key);
                CreateMkeyOut::new(&mut output[..]).unwrap().set_mkey_index(state.last);
                return Ok((output, Some(state.last)));
            }
            Opcode::DestroyMkey => {
                let index = DestroyMkeyIn::new(input).unwrap().mkey_index();
                if state.mkeys.remove(&index).is_none() {
                    violation("DESTROY_MKEY of none");
                }
                if state.saving {
                    state.violations.push("DESTROY_MKEY during a SAVE".to_owned());
                }
            }
            other => violation(&format!("{other}")),
        }
        Ok((output, None))
    }
}

fn key(input: &[u8]) -> Key {
    let command = CreateMkeyIn::new(input).unwrap();
    let mkc = command.memory_key_mkey_entry();
    assert_eq!(mkc.access_mode(), MkeyAccessMode::Mtt);
    let pages = mkc.len() / 4096;
    let list: Vec<u64> = command
        .klm_pas_mtt()
        .chunks_exact(8)
        .map(|entry| u64::from_be_bytes(entry.try_into().unwrap()))
        .collect();
    let units = command.translations_octword_actual_size();
    assert_eq!(list.len(), units as usize * 2, "two entries to a unit");
    assert_eq!(units, mkc.translations_octword_size());
    assert!(list[pages as usize..].iter().all(|entry| *entry == 0));
    Key { pd: mkc.pd(), pages: list[..pages as usize].to_vec() }
}

fn capabilities(input: &[u8], output: &mut [u8], chunks: bool) {
    let command = QueryHcaCapIn::new(input).unwrap();
    let mut answer = QueryHcaCapOut::new(output).unwrap();
    let mut union = answer.capability_mut();
    match (command.asked(), command.other_function()) {
        ((CapType::General, CapMode::Current), false) => {
            let mut general = union.cmd_hca_cap_mut();
            general.set_migration(true).set_hca_cap_2(true).set_adv_virtualization(true);
        }
        ((CapType::General2, CapMode::Current), false) => {
            let mut more = union.cmd_hca_cap_2_mut();
            more.set_migration_multi_load(true).set_migration_tracking_state(true);
            more.set_migration_in_chunks(chunks);
        }
        ((CapType::General, CapMode::Current), true) => {
            union.cmd_hca_cap_mut().set_vhca_id(VHCA_ID);
        }
        ((CapType::General2, CapMode::Max), true) => {
            union.cmd_hca_cap_2_mut().set_migratable(true);
        }
        other => panic!("{other:?}"),
    }
}

impl Commands for Double {
    type Ticket = Ticket;

    fn start(&self, input: &[u8], output_len: usize) -> Result<Ticket, CommandError> {
        let opcode = CommandIn::new(input).unwrap().opcode();
        let mut state = self.state();
        let nth = state.count;
        state.count += 1;
        if let Some(happens) = state.before.remove(&nth) {
            drop(state);
            happens();
            state = self.state();
        }
        let fault = state.faults.remove(&nth);
        let entry = Sent { opcode, input: input.to_vec(), made: None, error: None };
        state.log.push(entry);
        let index = state.log.len() - 1;
        if opcode == Opcode::SaveVhcaState && fault != Some(Fault::Start) {
            if std::mem::replace(&mut state.saving, true) {
                state.violations.push("two SAVEs at once".to_owned());
            }
            state.log[index].error = fault.map(|fault| fault.error(opcode));
            return Ok(Ticket::Save { input: input.to_vec(), fault });
        }
        if let Some(fault) = fault {
            let error = fault.error(opcode);
            state.log[index].error = Some(error);
            return if fault == Fault::Start { Err(error) } else { Ok(Ticket::Over(Err(error))) };
        }
        drop(state);
        let run = self.run(opcode, input, output_len);
        let mut state = self.state();
        let entry = &mut state.log[index];
        (entry.made, entry.error) =
            (run.as_ref().map_or(None, |run| run.1), run.as_ref().err().copied());
        Ok(Ticket::Over(run.map(|(output, _)| output)))
    }

    fn is_done(&self, ticket: &Ticket) -> bool {
        matches!(ticket, Ticket::Over(_)) || !self.state().hold
    }

    fn finish(&self, ticket: Ticket, output: &mut [u8]) -> Result<(), CommandError> {
        let answer = match ticket {
            Ticket::Over(answer) => answer?,
            Ticket::Save { input, fault } => {
                let mut state = self.state();
                while state.hold {
                    state = self.let_go.wait(state).unwrap();
                }
                drop(state);
                let answer = match fault {
                    Some(fault) => Err(fault.error(Opcode::SaveVhcaState)),
                    None => Ok(self.save(&input)),
                };
                self.state().saving = false;
                answer?
            }
        };
        output.copy_from_slice(&answer);
        Ok(())
    }

    fn dma(&self) -> &DmaSpace {
        &self.dma
    }
}
