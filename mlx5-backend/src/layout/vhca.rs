// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! The five commands that migrate a VHCA. They go to the physical function and name the virtual
//! one by its `vhca_id`.

use super::macros::structure;
use super::{CommandStatus, MigrationState, Opcode, ResumeOpMod, SuspendOpMod};

structure! {
    /// Stops one half of a VHCA.
    pub struct SuspendVhcaIn = "suspend_vhca_in", 16, opcode SuspendVhca {
        /// [`Opcode::SuspendVhca`].
        opcode: field(0, 16, Opcode);
        /// Who issues the command.
        uid: field(16, 16, u16);
        /// Which half.
        op_mod: field(48, 16, SuspendOpMod);
        /// Of which VHCA.
        vhca_id: field(80, 16, u16);
    }

    /// The answer to `SUSPEND_VHCA`.
    pub struct SuspendVhcaOut = "suspend_vhca_out", 16 {
        /// Whether it was carried out.
        status: field(0, 8, CommandStatus);
        /// If it was not, why.
        syndrome: field(32, 32, u32);
    }

    /// Starts one half of a VHCA.
    pub struct ResumeVhcaIn = "resume_vhca_in", 16, opcode ResumeVhca {
        /// [`Opcode::ResumeVhca`].
        opcode: field(0, 16, Opcode);
        /// Who issues the command.
        uid: field(16, 16, u16);
        /// Which half.
        op_mod: field(48, 16, ResumeOpMod);
        /// Of which VHCA.
        vhca_id: field(80, 16, u16);
    }

    /// The answer to `RESUME_VHCA`.
    pub struct ResumeVhcaOut = "resume_vhca_out", 16 {
        /// Whether it was carried out.
        status: field(0, 8, CommandStatus);
        /// If it was not, why.
        syndrome: field(32, 32, u32);
    }

    /// Asks how large a VHCA's state is.
    pub struct QueryVhcaMigrationStateIn =
        "query_vhca_migration_state_in", 16, opcode QueryVhcaMigrationState
    {
        /// [`Opcode::QueryVhcaMigrationState`].
        opcode: field(0, 16, Opcode);
        /// Who issues the command.
        uid: field(16, 16, u16);
        /// 0.
        op_mod: field(48, 16, u16);
        /// Only what has changed since the last save. The VHCA must be tracked.
        incremental: field(64, 1, bool);
        /// The state is to be saved in chunks. Where `SAVE_VHCA_STATE` has `set_track`.
        chunk: field(65, 1, bool);
        /// Of which VHCA.
        vhca_id: field(80, 16, u16);
    }

    /// The answer to `QUERY_VHCA_MIGRATION_STATE`.
    pub struct QueryVhcaMigrationStateOut = "query_vhca_migration_state_out", 64 {
        /// Whether it was carried out.
        status: field(0, 8, CommandStatus);
        /// If it was not, why.
        syndrome: field(32, 32, u32);
        /// What the VHCA's migration is at. Zero from firmware without the capability
        /// `migration_state`.
        migration_state: newer(96, 4, MigrationState);
        /// How large a buffer the next save needs, in bytes.
        required_umem_size: field(128, 32, u32);
        /// With `chunk`, how much there is to save in all, in bytes.
        remaining_total_size: field(192, 64, u64);
    }

    /// Writes a VHCA's state into memory.
    pub struct SaveVhcaStateIn = "save_vhca_state_in", 32, opcode SaveVhcaState {
        /// [`Opcode::SaveVhcaState`].
        opcode: field(0, 16, Opcode);
        /// Who issues the command.
        uid: field(16, 16, u16);
        /// 0.
        op_mod: field(48, 16, u16);
        /// Only what has changed since the last save; in chunk mode, the next chunk.
        incremental: field(64, 1, bool);
        /// Track changes from here on. Where `QUERY_VHCA_MIGRATION_STATE` has `chunk`.
        set_track: field(65, 1, bool);
        /// Of which VHCA.
        vhca_id: field(80, 16, u16);
        /// Where in the memory key's address space the buffer begins, in bytes.
        va: field(128, 64, u64);
        /// The buffer's memory key: the whole key, not its index.
        mkey: field(192, 32, u32);
        /// How much the buffer can take, in bytes.
        size: field(224, 32, u32);
    }

    /// The answer to `SAVE_VHCA_STATE`.
    pub struct SaveVhcaStateOut = "save_vhca_state_out", 16 {
        /// Whether it was carried out.
        status: field(0, 8, CommandStatus);
        /// If it was not, why.
        syndrome: field(32, 32, u32);
        /// How much was written, in bytes.
        actual_image_size: field(64, 32, u32);
        /// In chunk mode, how large a buffer the next chunk needs, in bytes; 0: this was the last.
        next_required_umem_size: field(96, 32, u32);
    }

    /// Reads a VHCA's state from memory.
    pub struct LoadVhcaStateIn = "load_vhca_state_in", 32, opcode LoadVhcaState {
        /// [`Opcode::LoadVhcaState`].
        opcode: field(0, 16, Opcode);
        /// Who issues the command.
        uid: field(16, 16, u16);
        /// 0.
        op_mod: field(48, 16, u16);
        /// Of which VHCA.
        vhca_id: field(80, 16, u16);
        /// Where in the memory key's address space the image begins, in bytes.
        va: field(128, 64, u64);
        /// The buffer's memory key: the whole key, not its index.
        mkey: field(192, 32, u32);
        /// The image's length in bytes.
        size: field(224, 32, u32);
    }

    /// The answer to `LOAD_VHCA_STATE`.
    pub struct LoadVhcaStateOut = "load_vhca_state_out", 16 {
        /// Whether it was carried out.
        status: field(0, 8, CommandStatus);
        /// If it was not, why.
        syndrome: field(32, 32, u32);
    }
}
