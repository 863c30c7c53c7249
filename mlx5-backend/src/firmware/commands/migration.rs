// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! The five commands that migrate a VHCA.

use super::mkey::{Access, Window};
use super::{Outcome, Refusal};
use crate::firmware::machine::Machine;
use crate::firmware::refusal::Syndrome;
use crate::firmware::vhca::{Side, Sink, Source, Vhca};
use crate::layout::{
    CommandIn, LoadVhcaStateIn, Opcode, QueryVhcaMigrationStateIn, QueryVhcaMigrationStateOut,
    ResumeOpMod, ResumeVhcaIn, SaveVhcaStateIn, SaveVhcaStateOut, SuspendOpMod, SuspendVhcaIn,
};

const MIB: u64 = 1 << 20;

impl Machine {
    pub(super) fn migrate(&mut self, opcode: Opcode, input: &[u8], output: &mut [u8]) -> Outcome {
        match opcode {
            Opcode::SuspendVhca => self.suspend(input),
            Opcode::ResumeVhca => self.resume(input),
            Opcode::QueryVhcaMigrationState => self.query_state(input, output),
            Opcode::SaveVhcaState => self.save_state(input, output),
            Opcode::LoadVhcaState => self.load_state(input),
            _ => Err(Syndrome::UnknownCommand.into()),
        }
    }

    fn place_of(&self, vhca_id: u16) -> Option<usize> {
        self.vhcas.iter().position(|vhca| vhca.config.vhca_id == vhca_id)
    }

    /// A-NOT-MIGRATABLE: only one that the PF has set so.
    fn migratable(&mut self, vhca_id: u16) -> Result<&mut Vhca, Refusal> {
        let place = self.place_of(vhca_id).ok_or(Syndrome::NoVhca)?;
        let vhca = &mut self.vhcas[place];
        if vhca.migratable { Ok(vhca) } else { Err(Syndrome::NotMigratable.into()) }
    }

    fn suspend(&mut self, input: &[u8]) -> Outcome {
        let input = SuspendVhcaIn::new(input)?;
        let side = match input.op_mod() {
            SuspendOpMod::Initiator => Side::Initiator,
            SuspendOpMod::Responder => Side::Responder,
            SuspendOpMod::Other(_) => return Err(Syndrome::OpMod.into()),
        };
        self.migratable(input.vhca_id())?.suspend(side)
    }

    fn resume(&mut self, input: &[u8]) -> Outcome {
        let input = ResumeVhcaIn::new(input)?;
        let side = match input.op_mod() {
            ResumeOpMod::Responder => Side::Responder,
            ResumeOpMod::Initiator => Side::Initiator,
            ResumeOpMod::Other(_) => return Err(Syndrome::OpMod.into()),
        };
        self.migratable(input.vhca_id())?.resume(side)
    }

    fn query_state(&mut self, input: &[u8], output: &mut [u8]) -> Outcome {
        let input = QueryVhcaMigrationStateIn::new(input)?;
        let (chunks, states) = (self.config.chunks, self.config.migration_state);
        if input.chunk() && !chunks {
            return Err(Syndrome::OpMod.into());
        }
        let vhca = self.migratable(input.vhca_id())?;
        let sizes = vhca.query(input.incremental(), input.chunk())?;
        let mut out = QueryVhcaMigrationStateOut::new(output)?;
        if states {
            out.set_migration_state(vhca.migration_state());
        }
        // A-SIZE-32: what 32 bits cannot say can only be saved in chunks.
        out.set_required_umem_size(u32::try_from(sizes.required).unwrap_or(u32::MAX));
        if input.chunk() {
            out.set_remaining_total_size(sizes.remaining);
        }
        Ok(())
    }

    fn save_state(&mut self, input: &[u8], output: &mut [u8]) -> Outcome {
        let input = SaveVhcaStateIn::new(input)?;
        self.migratable(input.vhca_id())?.quiet()?;
        let place = self.place_of(input.vhca_id()).ok_or(Syndrome::NoVhca)?;
        let size = u64::from(input.size());
        let range = (input.va(), size);
        let Self { mkeys, memory, vhcas, .. } = self;
        let mut sink = Window::new(mkeys, &**memory, input.mkey(), range, Access::Write)?;
        let saved = vhcas[place].save(input.incremental(), input.set_track(), size, &mut sink)?;
        SaveVhcaStateOut::new(output)?
            .set_actual_image_size(saved.image_bytes)
            .set_next_required_umem_size(saved.next_bytes);
        Ok(())
    }

    fn load_state(&mut self, input: &[u8]) -> Outcome {
        let input = LoadVhcaStateIn::new(input)?;
        self.migratable(input.vhca_id())?.quiet()?;
        let place = self.place_of(input.vhca_id()).ok_or(Syndrome::NoVhca)?;
        let range = (input.va(), u64::from(input.size()));
        let Self { mkeys, memory, vhcas, .. } = self;
        let mut source = Window::new(mkeys, &**memory, input.mkey(), range, Access::Read)?;
        vhcas[place].load(&mut source)
    }

    /// If the command moves an image, of which VHCA and for how many ticks.
    pub(crate) fn transfer_of(&self, input: &[u8]) -> (Option<(usize, u64)>, u64) {
        let opcode = CommandIn::new(input).map(|header| header.opcode());
        let (vhca_id, bytes) = match opcode {
            Ok(Opcode::SaveVhcaState) => match SaveVhcaStateIn::new(input) {
                Ok(save) => (save.vhca_id(), (save.incremental(), u64::from(save.size()))),
                Err(_) => return (None, 0),
            },
            Ok(Opcode::LoadVhcaState) => match LoadVhcaStateIn::new(input) {
                Ok(load) => (load.vhca_id(), (false, u64::from(load.size()))),
                Err(_) => return (None, 0),
            },
            _ => return (None, 0),
        };
        let Some(place) = self.place_of(vhca_id) else { return (None, 0) };
        let vhca = &self.vhcas[place];
        let bytes = vhca.transfer_bytes(bytes.0, bytes.1);
        let ticks = bytes.saturating_mul(vhca.config.ticks_per_mib).div_ceil(MIB);
        (Some((place, vhca.resets)), ticks)
    }

    pub(crate) fn flr(&mut self, vhca_id: u16) {
        if let Some(place) = self.place_of(vhca_id) {
            self.vhcas[place].flr();
        }
    }

    /// Flips a bit of the image that a SAVE has just written.
    pub(crate) fn corrupt(&self, input: &[u8], output: &[u8], bit: u64) {
        let (Ok(save), Ok(saved)) = (SaveVhcaStateIn::new(input), SaveVhcaStateOut::new(output))
        else {
            return;
        };
        let bytes = u64::from(saved.actual_image_size());
        if save.opcode() != Opcode::SaveVhcaState || bytes == 0 {
            return;
        }
        let window = |at| (save.va().wrapping_add(at), bytes - at);
        let at = bit / 8 % bytes;
        let mut byte = [0];
        let reading =
            Window::new(&self.mkeys, &*self.memory, save.mkey(), window(at), Access::Write);
        if reading
            .and_then(|mut reading| reading.get(&mut byte).map_err(|_| Syndrome::Unmapped))
            .is_ok()
        {
            byte[0] ^= 1 << (bit % 8);
            let writing =
                Window::new(&self.mkeys, &*self.memory, save.mkey(), window(at), Access::Write);
            if let Ok(mut writing) = writing {
                let _ = writing.put(&byte);
            }
        }
    }
}
