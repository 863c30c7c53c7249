// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! Which structures a command has: how long they are, and which of their bits are reserved.

use crate::layout::*;

/// Input and output of a command.
pub(crate) struct Shape {
    pub(crate) input: usize,
    /// Something of variable length follows the input.
    pub(crate) tail: bool,
    pub(crate) fields: &'static [Field],
    pub(crate) output: usize,
}

macro_rules! shapes {
    ($($In:ident $Out:ident;)*) => {
        /// The structures of a command; `None` if it is not known.
        pub(crate) fn shape_of(opcode: Opcode) -> Option<Shape> {
            Some(match opcode {
                $(
                    code if code == $In::OPCODE => Shape {
                        input: $In::BYTES,
                        tail: has_tail($In::FIELDS),
                        fields: $In::FIELDS,
                        output: $Out::BYTES,
                    },
                )*
                Opcode::CreateGeneralObject | Opcode::ModifyGeneralObject => Shape {
                    input: CreatePageTrackObjIn::BYTES,
                    tail: true,
                    fields: CreatePageTrackObjIn::FIELDS,
                    output: GeneralObjOutCmdHdr::BYTES,
                },
                Opcode::QueryGeneralObject => Shape {
                    input: GeneralObjInCmdHdr::BYTES,
                    tail: false,
                    fields: GeneralObjInCmdHdr::FIELDS,
                    output: QueryPageTrackObjOut::BYTES,
                },
                Opcode::DestroyGeneralObject => Shape {
                    input: GeneralObjInCmdHdr::BYTES,
                    tail: false,
                    fields: GeneralObjInCmdHdr::FIELDS,
                    output: GeneralObjOutCmdHdr::BYTES,
                },
                _ => return None,
            })
        }
    };
}

shapes! {
    EnableHcaIn EnableHcaOut;
    DisableHcaIn DisableHcaOut;
    InitHcaIn InitHcaOut;
    TeardownHcaIn TeardownHcaOut;
    QueryIssiIn QueryIssiOut;
    SetIssiIn SetIssiOut;
    QueryPagesIn QueryPagesOut;
    ManagePagesIn ManagePagesOut;
    AccessRegIn AccessRegOut;
    QueryAdapterIn QueryAdapterOut;
    QueryHcaCapIn QueryHcaCapOut;
    SetHcaCapIn SetHcaCapOut;
    ModifyNicVportContextIn ModifyNicVportContextOut;
    AllocPdIn AllocPdOut;
    DeallocPdIn DeallocPdOut;
    AllocUarIn AllocUarOut;
    DeallocUarIn DeallocUarOut;
    CreateMkeyIn CreateMkeyOut;
    DestroyMkeyIn DestroyMkeyOut;
    CreateEqIn CreateEqOut;
    DestroyEqIn DestroyEqOut;
    CreateCqIn CreateCqOut;
    DestroyCqIn DestroyCqOut;
    CreateQpIn CreateQpOut;
    DestroyQpIn DestroyQpOut;
    Rst2InitQpIn Rst2InitQpOut;
    Init2RtrQpIn Init2RtrQpOut;
    Rtr2RtsQpIn Rtr2RtsQpOut;
    SuspendVhcaIn SuspendVhcaOut;
    ResumeVhcaIn ResumeVhcaOut;
    QueryVhcaMigrationStateIn QueryVhcaMigrationStateOut;
    SaveVhcaStateIn SaveVhcaStateOut;
    LoadVhcaStateIn LoadVhcaStateOut;
}

fn has_tail(fields: &[Field]) -> bool {
    fields.last().is_some_and(|field| matches!(field.kind, FieldKind::Tail))
}

/// Whether every bit is zero that no field has. A structure inside another counts as a field.
pub(crate) fn reserved_clear(fields: &[Field], bytes: &[u8]) -> bool {
    let mut at = 0;
    for field in fields {
        if !clear(bytes, at, field.bit_offset) {
            return false;
        }
        at = match field.kind {
            FieldKind::Array { elements } => field.bit_offset + elements * field.bits,
            FieldKind::Value { .. } | FieldKind::View { .. } => field.bit_offset + field.bits,
            FieldKind::Tail => return true,
        };
    }
    clear(bytes, at, bytes.len() as u32 * 8)
}

fn clear(bytes: &[u8], from: u32, to: u32) -> bool {
    (from..to).all(|bit| {
        let byte = bytes.get(bit as usize / 8).copied().unwrap_or(0);
        byte & 0x80 >> (bit % 8) == 0
    })
}
