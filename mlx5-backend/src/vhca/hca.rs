// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! The commands of the migration path, one function each.

use std::cell::Cell;
use std::sync::Arc;

use crate::command::{CommandError, Commands};
use crate::dma::{DmaBuffer, PAGE_BYTES};
use crate::layout::{
    AllocPdIn, AllocPdOut, CreateMkeyIn, CreateMkeyOut, DeallocPdIn, DeallocPdOut, DestroyMkeyIn,
    DestroyMkeyOut, LoadVhcaStateIn, LoadVhcaStateOut, MkeyAccessMode, QueryVhcaMigrationStateIn,
    QueryVhcaMigrationStateOut, ResumeOpMod, ResumeVhcaIn, ResumeVhcaOut, SaveVhcaStateIn,
    SaveVhcaStateOut, SuspendOpMod, SuspendVhcaIn, SuspendVhcaOut,
};

/// Any queue pair may use the key.
const ANY_QPN: u32 = 0xff_ffff;
/// The logarithm of [`PAGE_BYTES`].
const LOG_PAGE_SIZE: u8 = 12;
const _: () = assert!(PAGE_BYTES == 1 << LOG_PAGE_SIZE);

/// The firmware of the physical function, and which virtual function the commands are about.
pub(super) struct Hca<C> {
    pub(super) commands: Arc<C>,
    pub(super) vhca_id: u16,
    /// Whether states are cut into chunks.
    pub(super) chunked: bool,
    /// How many commands may have changed the VHCA itself.
    pub(super) changes: Cell<u64>,
}

/// What QUERY_VHCA_MIGRATION_STATE says, in bytes.
#[derive(Clone, Copy, Debug)]
pub(super) struct StateSize {
    /// What the next SAVE needs.
    pub(super) required: usize,
    /// In chunk mode, what there is in all.
    pub(super) remaining: u64,
}

/// Which part of the state a SAVE is to write.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct SaveMode {
    /// What has changed since the last SAVE, or in chunk mode the next chunk.
    pub(super) incremental: bool,
    /// Track changes from here on.
    pub(super) track: bool,
}

/// A memory key, by its index.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Mkey(u32);

impl Mkey {
    /// The whole key: the low byte is asked to be 0 when it is made.
    const fn key(self) -> u32 {
        self.0 << 8
    }
}

impl<C: Commands> Hca<C> {
    /// Before each command that may leave the VHCA other than a reset would.
    fn changes_it(&self) {
        self.changes.set(self.changes.get() + 1);
    }

    pub(super) fn suspend(&self, half: SuspendOpMod) -> Result<(), CommandError> {
        self.changes_it();
        let mut input = SuspendVhcaIn::command();
        input.set_op_mod(half).set_vhca_id(self.vhca_id);
        let mut output = SuspendVhcaOut::zeroed();
        self.commands.execute(input.as_bytes(), output.as_bytes_mut())
    }

    pub(super) fn resume(&self, half: ResumeOpMod) -> Result<(), CommandError> {
        self.changes_it();
        let mut input = ResumeVhcaIn::command();
        input.set_op_mod(half).set_vhca_id(self.vhca_id);
        let mut output = ResumeVhcaOut::zeroed();
        self.commands.execute(input.as_bytes(), output.as_bytes_mut())
    }

    /// How large the state is. Incremental only of a VHCA that is tracked.
    pub(super) fn query(&self, incremental: bool) -> Result<StateSize, CommandError> {
        let mut input = QueryVhcaMigrationStateIn::command();
        input.set_incremental(incremental).set_chunk(self.chunked).set_vhca_id(self.vhca_id);
        let mut output = QueryVhcaMigrationStateOut::zeroed();
        self.commands.execute(input.as_bytes(), output.as_bytes_mut())?;
        Ok(StateSize {
            required: output.required_umem_size() as usize,
            remaining: output.remaining_total_size(),
        })
    }

    /// Begins a SAVE of at most `size` bytes; what it wrote, [`saved`] reads from the answer.
    pub(super) fn start_save(
        &self,
        mode: SaveMode,
        mkey: Mkey,
        size: usize,
    ) -> Result<C::Ticket, CommandError> {
        self.changes_it();
        let mut input = SaveVhcaStateIn::command();
        input
            .set_incremental(mode.incremental)
            .set_set_track(mode.track)
            .set_vhca_id(self.vhca_id)
            .set_mkey(mkey.key())
            .set_size(size_field(size));
        self.commands.start(input.as_bytes(), SaveVhcaStateOut::BYTES)
    }

    pub(super) fn load(&self, mkey: Mkey, size: usize) -> Result<(), CommandError> {
        self.changes_it();
        let mut input = LoadVhcaStateIn::command();
        input.set_vhca_id(self.vhca_id).set_mkey(mkey.key()).set_size(size_field(size));
        let mut output = LoadVhcaStateOut::zeroed();
        self.commands.execute(input.as_bytes(), output.as_bytes_mut())
    }

    pub(super) fn alloc_pd(&self) -> Result<u32, CommandError> {
        let mut output = AllocPdOut::zeroed();
        self.commands.execute(AllocPdIn::command().as_bytes(), output.as_bytes_mut())?;
        Ok(output.pd())
    }

    pub(super) fn dealloc_pd(&self, pd: u32) -> Result<(), CommandError> {
        let mut input = DeallocPdIn::command();
        input.set_pd(pd);
        self.commands.execute(input.as_bytes(), DeallocPdOut::zeroed().as_bytes_mut())
    }

    /// A key for all of `memory`, addressed from 0, through a list of its pages.
    pub(super) fn create_mkey(&self, pd: u32, memory: &DmaBuffer) -> Result<Mkey, CommandError> {
        let input = create_mkey(pd, memory.iova(), memory.len());
        let mut output = CreateMkeyOut::zeroed();
        self.commands.execute(&input, output.as_bytes_mut())?;
        Ok(Mkey(output.mkey_index()))
    }

    pub(super) fn destroy_mkey(&self, mkey: Mkey) -> Result<(), CommandError> {
        let mut input = DestroyMkeyIn::command();
        input.set_mkey_index(mkey.0);
        self.commands.execute(input.as_bytes(), DestroyMkeyOut::zeroed().as_bytes_mut())
    }
}

/// What a SAVE has written, and in chunk mode what the next needs, in bytes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Saved {
    pub(super) image: usize,
    pub(super) next: usize,
}

/// Waits for the end of a SAVE.
pub(super) fn finish_save<C: Commands>(
    commands: &C,
    ticket: C::Ticket,
) -> Result<Saved, CommandError> {
    let mut output = SaveVhcaStateOut::zeroed();
    commands.finish(ticket, output.as_bytes_mut())?;
    Ok(Saved {
        image: output.actual_image_size() as usize,
        next: output.next_required_umem_size() as usize,
    })
}

/// Buffers are never longer than the field can say.
fn size_field(size: usize) -> u32 {
    u32::try_from(size).unwrap_or(u32::MAX)
}

/// CREATE_MKEY for memory that is addressed from 0, through a list of its pages.
pub(crate) fn create_mkey(pd: u32, iova: u64, len: usize) -> Vec<u8> {
    let pages = len.div_ceil(PAGE_BYTES as usize);
    // Two page addresses to a unit, and the last one may be empty.
    let units = pages.div_ceil(2);
    let mut input = CreateMkeyIn::command();
    input.set_translations_octword_actual_size(units as u32);
    input
        .memory_key_mkey_entry_mut()
        .set_rw(true)
        .set_rr(true)
        .set_lw(true)
        .set_lr(true)
        .set_access_mode(MkeyAccessMode::Mtt)
        .set_qpn(ANY_QPN)
        .set_pd(pd)
        .set_len(len as u64)
        .set_translations_octword_size(units as u32)
        .set_log_page_size(LOG_PAGE_SIZE);
    let mut bytes = Vec::with_capacity(CreateMkeyIn::BYTES + units * 16);
    bytes.extend_from_slice(input.as_bytes());
    let addresses = (0..pages as u64).map(|page| iova + page * PAGE_BYTES);
    bytes.extend(addresses.flat_map(u64::to_be_bytes));
    bytes.resize(CreateMkeyIn::BYTES + units * 16, 0);
    bytes
}
