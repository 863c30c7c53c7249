// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! The commands, a file a family. Here: which there are, and when each may be given.

mod caps;
mod eq;
mod hca;
mod migration;
mod mkey;
mod page_track;
mod pd;
mod qp;
pub(super) mod shape;
mod table;

pub(super) use self::caps::Caps;
pub(super) use self::eq::CompletionQueue;
pub(super) use self::hca::{Function, Phase};
pub(super) use self::mkey::Mkey;
pub(super) use self::page_track::Tracker;
pub(super) use self::pd::Objects;
pub(super) use self::qp::Qp;
pub(super) use self::table::{PageList, Table};

use self::shape::{Shape, reserved_clear, shape_of};
use super::machine::Machine;
use super::refusal::{Refusal, Syndrome};
use crate::layout::{CommandIn, LayoutError, Opcode};

/// What a command comes to; what it says beyond that, it has written into its output.
pub(super) type Outcome = Result<(), Refusal>;

impl From<LayoutError> for Refusal {
    fn from(_: LayoutError) -> Self {
        Syndrome::InputLength.into()
    }
}

impl Machine {
    /// Carries a command out. `output` is zero, and stays so but for what the command says.
    pub(super) fn carry_out(&mut self, input: &[u8], output: &mut [u8]) -> Outcome {
        let header = CommandIn::new(input)?;
        let shape = shape_of(header.opcode()).ok_or(Syndrome::UnknownCommand)?;
        let padded = self.check_shape(&shape, header.opcode(), input, output.len())?;
        let input = padded.as_deref().unwrap_or(input);
        self.check_phase(header.opcode())?;
        self.dispatch(header.opcode(), header.op_mod(), input, output)
    }

    /// A-LENGTHS: the input as it is, or, where that is not checked, filled up with zeros.
    fn check_shape(
        &self,
        shape: &Shape,
        opcode: Opcode,
        input: &[u8],
        output_len: usize,
    ) -> Result<Option<Vec<u8>>, Refusal> {
        let checks = self.config.checks;
        let short = input.len() < shape.input;
        let long = input.len() > shape.input && !shape.tail;
        if checks.lengths && (short || long) {
            return Err(Syndrome::InputLength.into());
        }
        if output_len < shape.output && (checks.lengths || opcode.has_answer()) {
            return Err(Syndrome::OutputLength.into());
        }
        let fixed = &input[..shape.input.min(input.len())];
        if checks.reserved && !reserved_clear(shape.fields, fixed) {
            return Err(Syndrome::Reserved.into());
        }
        let padded = short.then(|| {
            let mut padded = input.to_vec();
            padded.resize(shape.input, 0);
            padded
        });
        Ok(padded)
    }

    /// A-PHASE: which commands a function takes before ENABLE_HCA and before INIT_HCA.
    fn check_phase(&self, opcode: Opcode) -> Outcome {
        let needed = match opcode {
            Opcode::EnableHca | Opcode::DisableHca | Opcode::TeardownHca => return Ok(()),
            Opcode::QueryIssi
            | Opcode::SetIssi
            | Opcode::QueryPages
            | Opcode::ManagePages
            | Opcode::AccessReg
            | Opcode::QueryHcaCap
            | Opcode::SetHcaCap
            | Opcode::QueryAdapter
            | Opcode::InitHca => Phase::Enabled,
            _ => Phase::Initialised,
        };
        if self.function.phase >= needed { Ok(()) } else { Err(Syndrome::HcaState.into()) }
    }

    fn dispatch(
        &mut self,
        opcode: Opcode,
        op_mod: u16,
        input: &[u8],
        output: &mut [u8],
    ) -> Outcome {
        match opcode {
            Opcode::EnableHca => self.enable_hca(input),
            Opcode::DisableHca => self.disable_hca(input),
            Opcode::InitHca => self.init_hca(),
            Opcode::TeardownHca => self.teardown_hca(input),
            Opcode::QueryIssi => self.query_issi(output),
            Opcode::SetIssi => self.set_issi(input),
            Opcode::QueryPages => self.query_pages(input, output),
            Opcode::ManagePages => self.manage_pages(input, output),
            Opcode::AccessReg => self.access_reg(input, output),
            Opcode::QueryAdapter => Self::query_adapter(output),
            Opcode::QueryHcaCap => self.query_hca_cap(op_mod, input, output),
            Opcode::SetHcaCap => self.set_hca_cap(op_mod, input),
            Opcode::ModifyNicVportContext => Ok(()),
            Opcode::AllocPd => self.alloc_pd(output),
            Opcode::DeallocPd => self.dealloc_pd(input),
            Opcode::AllocUar => self.alloc_uar(output),
            Opcode::DeallocUar => self.dealloc_uar(input),
            Opcode::CreateMkey => self.create_mkey(input, output),
            Opcode::DestroyMkey => self.destroy_mkey(input),
            Opcode::CreateEq => self.create_eq(input, output),
            Opcode::DestroyEq => self.destroy_eq(input),
            Opcode::CreateCq => self.create_cq(input, output),
            Opcode::DestroyCq => self.destroy_cq(input),
            Opcode::CreateQp => self.create_qp(input, output),
            Opcode::DestroyQp => self.destroy_qp(input),
            Opcode::Rst2InitQp => self.rst2init_qp(input),
            Opcode::Init2RtrQp => self.init2rtr_qp(input),
            Opcode::Rtr2RtsQp => self.rtr2rts_qp(input),
            Opcode::CreateGeneralObject => self.create_object(op_mod, input, output),
            Opcode::ModifyGeneralObject => self.modify_object(op_mod, input),
            Opcode::QueryGeneralObject => self.query_object(op_mod, input, output),
            Opcode::DestroyGeneralObject => self.destroy_object(op_mod, input),
            _ => self.migrate(opcode, input, output),
        }
    }
}

/// What the answer consists of, beyond a status: without room for it nothing is carried out, or there
/// would be something that nobody knows the number of.
trait Answer {
    fn has_answer(self) -> bool;
}

impl Answer for Opcode {
    fn has_answer(self) -> bool {
        matches!(
            self,
            Self::QueryIssi
                | Self::QueryPages
                | Self::ManagePages
                | Self::QueryHcaCap
                | Self::QueryAdapter
                | Self::AllocPd
                | Self::AllocUar
                | Self::CreateMkey
                | Self::CreateEq
                | Self::CreateCq
                | Self::CreateQp
                | Self::CreateGeneralObject
                | Self::QueryVhcaMigrationState
                | Self::SaveVhcaState
                | Self::QueryGeneralObject
        )
    }
}
