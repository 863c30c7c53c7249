// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! The structures of mlx5's command interface: what is where in which command.
//!
//! Each structure is a view of bytes, of any kind that can be read or written as a slice:
//!
//! ```
//! use vfio_fsm_mlx5::layout::{SuspendOpMod, SuspendVhcaIn};
//!
//! let mut command = SuspendVhcaIn::command();
//! command.set_op_mod(SuspendOpMod::Responder).set_vhca_id(0x1234);
//! assert_eq!(command.as_bytes()[..12], [0x01, 0x15, 0, 0, 0, 0, 0, 1, 0, 0, 0x12, 0x34]);
//!
//! let seen = SuspendVhcaIn::new(command.as_bytes())?;
//! assert_eq!(seen.vhca_id(), 0x1234);
//! # Ok::<(), vfio_fsm_mlx5::layout::LayoutError>(())
//! ```
//!
//! Everything is big endian. Offsets are counted in bits from the most significant bit of the
//! first byte, as the kernel's `mlx5_ifc.h` counts them, and names are that header's. A structure
//! that breaks the rules (a field outside, fields that overlap or are out of order, one that crosses
//! a dword) does not compile. Reserved fields have no accessor.
//!
//! Numbers with names, such as [`Opcode`], are enums that keep an unknown number: nothing the
//! firmware says is lost, and nothing it says is an error here.

pub(crate) mod bits;
mod capability;
pub(crate) mod codes;
mod command;
mod event;
mod function;
mod macros;
mod memory;
mod tracker;
mod transport;
mod vhca;

use std::fmt;

pub use bits::Value;
pub use capability::{
    AdvVirtualizationCap, CmdHcaCap, CmdHcaCap2, HcaCapUnion, QueryHcaCapIn, QueryHcaCapOut,
    SetHcaCapIn, SetHcaCapOut,
};
pub use codes::{
    AccessRegOpMod, CapMode, CapType, CommandStatus, DeliveryStatus, EventType, ManagePagesOpMod,
    MigrationState, MkeyAccessMode, ObjectType, Opcode, PageTrackState, QpServiceType,
    QueryPagesOpMod, RegisterId, ResumeOpMod, SuspendOpMod, TeardownProfile,
};
pub use command::{CommandIn, CommandOut};
pub use event::{
    AffiliatedEventHeader, CmdInterCompEvent, CreateEqIn, CreateEqOut, DestroyEqIn, DestroyEqOut,
    Eqc, Eqe, PagesReqEvent,
};
pub use function::{
    AccessRegIn, AccessRegOut, AllocUarIn, AllocUarOut, DeallocUarIn, DeallocUarOut,
    DefaultTimeout, DisableHcaIn, DisableHcaOut, DtorReg, EnableHcaIn, EnableHcaOut,
    HostEndianness, InitHcaIn, InitHcaOut, MacAddressLayout, ManagePagesIn, ManagePagesOut,
    ModifyNicVportContextIn, ModifyNicVportContextOut, ModifyNicVportFieldSelect, NicVportContext,
    QueryAdapterIn, QueryAdapterOut, QueryAdapterParamBlock, QueryIssiIn, QueryIssiOut,
    QueryPagesIn, QueryPagesOut, SetIssiIn, SetIssiOut, TeardownHcaIn, TeardownHcaOut,
};
pub use memory::{
    AllocPdIn, AllocPdOut, CreateMkeyIn, CreateMkeyOut, DeallocPdIn, DeallocPdOut, DestroyMkeyIn,
    DestroyMkeyOut, Mkc,
};
pub use tracker::{
    Ads, Cqc, Cqe64, CreateCqIn, CreateCqOut, CreatePageTrackObjIn, CreateQpIn, CreateQpOut,
    DestroyCqIn, DestroyCqOut, DestroyQpIn, DestroyQpOut, GeneralObjCreateParam,
    GeneralObjInCmdHdr, GeneralObjOutCmdHdr, Init2RtrQpIn, Init2RtrQpOut, ModifyPageTrackObjIn,
    PageTrack, PageTrackRange, PageTrackReportEntry, Qpc, QueryPageTrackObjOut, Rst2InitQpIn,
    Rst2InitQpOut, Rtr2RtsQpIn, Rtr2RtsQpOut, WqeDataSeg,
};
pub use transport::{CmdIfBox, CmdQueueEntry, HealthBuffer, InitialSeg};
pub use vhca::{
    LoadVhcaStateIn, LoadVhcaStateOut, QueryVhcaMigrationStateIn, QueryVhcaMigrationStateOut,
    ResumeVhcaIn, ResumeVhcaOut, SaveVhcaStateIn, SaveVhcaStateOut, SuspendVhcaIn, SuspendVhcaOut,
};

/// Bytes that are not the structure they are to be read as.
#[derive(Clone, Copy, Debug, Eq, PartialEq, thiserror::Error)]
pub enum LayoutError {
    /// There are fewer bytes than the structure has.
    #[error("{name} has {wanted} bytes, but there are only {got}: give the whole structure")]
    TooShort {
        /// The kernel header's name of the structure.
        name: &'static str,
        /// Its length in bytes.
        wanted: usize,
        /// How many bytes were given.
        got: usize,
    },
}

/// A structure by what is in it, for checks and for showing.
#[derive(Clone, Copy, Debug)]
pub struct Structure {
    /// The kernel header's name.
    pub name: &'static str,
    /// Its length in bytes, without a tail.
    pub bytes: usize,
    /// What is in it, in the order of the offsets.
    pub fields: &'static [Field],
}

impl Structure {
    /// All there are.
    pub fn all() -> impl Iterator<Item = &'static Self> {
        let modules = [
            capability::STRUCTURES,
            command::STRUCTURES,
            event::STRUCTURES,
            function::STRUCTURES,
            memory::STRUCTURES,
            tracker::STRUCTURES,
            transport::STRUCTURES,
            vhca::STRUCTURES,
        ];
        modules.into_iter().flatten()
    }

    /// The one with this name in the kernel's header.
    pub fn named(name: &str) -> Option<&'static Self> {
        Self::all().find(|structure| structure.name == name)
    }

    /// The entry with this name.
    pub fn field(&self, name: &str) -> Option<&'static Field> {
        self.fields.iter().find(|field| field.name == name)
    }
}

/// One entry of a structure.
#[derive(Clone, Copy, Debug)]
pub struct Field {
    /// The kernel header's name.
    pub name: &'static str,
    /// In bits from the most significant bit of the structure's first byte.
    pub bit_offset: u32,
    /// The width in bits; of an array or a tail, that of one element.
    pub bits: u32,
    /// Whether only a kernel later than the golden file's (6.12) has it.
    pub newer: bool,
    /// What it is.
    pub kind: FieldKind,
}

/// What an entry of a structure is.
#[derive(Clone, Copy, Debug)]
pub enum FieldKind {
    /// A number, read and written through the structure's accessors.
    Value {
        /// Reads it from the structure's bytes.
        get: fn(&[u8]) -> u64,
        /// Writes it into the structure's bytes.
        set: fn(&mut [u8], u64),
    },
    /// Several numbers in a row.
    Array {
        /// How many.
        elements: u32,
    },
    /// A structure inside this one.
    View {
        /// The kernel header's name of it.
        name: &'static str,
    },
    /// As many elements as there are bytes for, behind the structure.
    Tail,
}

impl Field {
    const fn new(name: &'static str, bit_offset: u32, bits: u32, kind: FieldKind) -> Self {
        Self { name, bit_offset, bits, newer: false, kind }
    }

    /// The first bit behind it; a tail has no length of its own.
    pub const fn end(&self) -> u32 {
        match self.kind {
            FieldKind::Array { elements } => self.bit_offset + elements * self.bits,
            FieldKind::Tail => self.bit_offset,
            FieldKind::Value { .. } | FieldKind::View { .. } => self.bit_offset + self.bits,
        }
    }

    /// Whether the accessors can read it: within one dword, or 64 bits from the start of one.
    const fn readable(&self) -> bool {
        let whole = self.bit_offset.is_multiple_of(32) && self.bits == 64;
        match self.kind {
            FieldKind::Value { .. } => {
                self.bits > 0 && self.bit_offset % 32 + self.bits <= 32 || whole
            }
            FieldKind::Array { .. } => {
                matches!(self.bits, 8 | 16 | 32) && self.bit_offset.is_multiple_of(self.bits)
                    || whole
            }
            FieldKind::View { .. } => self.bit_offset.is_multiple_of(32),
            FieldKind::Tail => matches!(self.bits, 8 | 32 | 64 | 128),
        }
    }
}

/// Holds a structure to the rules; run for each when it is compiled.
const fn check(bytes: usize, fields: &[Field]) {
    let mut end = 0;
    let mut i = 0;
    while i < fields.len() {
        let field = &fields[i];
        assert!(field.bit_offset >= end, "a field overlaps the one before, or is out of order");
        assert!(field.readable(), "a field crosses what can be read at once");
        end = field.end();
        assert!(end as usize <= bytes * 8, "a field ends behind the structure");
        i += 1;
    }
}

/// A field's name without what Rust puts before a keyword.
const fn unraw(name: &'static str) -> &'static str {
    match name.as_bytes() {
        [b'r', b'#', ..] => name.split_at(2).1,
        _ => name,
    }
}

const fn long_enough(name: &'static str, wanted: usize, got: usize) -> Result<(), LayoutError> {
    if got < wanted { Err(LayoutError::TooShort { name, wanted, got }) } else { Ok(()) }
}

/// Shows what is not zero.
fn debug(f: &mut fmt::Formatter<'_>, name: &str, fields: &[Field], bytes: &[u8]) -> fmt::Result {
    let mut shown = f.debug_struct(name);
    for field in fields {
        if let FieldKind::Value { get, .. } = field.kind {
            let value = get(bytes);
            if value != 0 {
                shown.field(field.name, &format_args!("{value:#x}"));
            }
        }
    }
    shown.finish_non_exhaustive()
}

#[cfg(test)]
mod tests {
    use super::{Field, FieldKind, check};

    fn field(bit_offset: u32, bits: u32, kind: FieldKind) -> Field {
        Field::new("field", bit_offset, bits, kind)
    }

    fn value(bit_offset: u32, bits: u32) -> Field {
        field(bit_offset, bits, FieldKind::Value { get: |_| 0, set: |_, _| {} })
    }

    /// M3: What a structure may be; the same function is run for each when it is compiled.
    #[test]
    fn a_structure_within_the_rules_passes() {
        let array = field(192, 8, FieldKind::Array { elements: 4 });
        let inside = field(224, 32, FieldKind::View { name: "inside" });
        let tail = field(256, 64, FieldKind::Tail);
        check(32, &[value(0, 1), value(1, 31), value(32, 64), value(160, 32), array, inside, tail]);
        check(0, &[]);
    }

    /// M3: Fields that overlap, are out of order, outside, or across dwords make no structure.
    #[test]
    fn a_structure_against_the_rules_does_not_pass() {
        let array = |at, bits| field(at, bits, FieldKind::Array { elements: 2 });
        let inside = field(16, 32, FieldKind::View { name: "inside" });
        let wrong: [&[Field]; 11] = [
            &[value(0, 8), value(7, 8)],
            &[value(8, 8), value(0, 8)],
            &[value(0, 64), value(32, 8)],
            &[array(0, 8), value(8, 8)],
            &[value(31, 2)],
            &[value(16, 64)],
            &[value(0, 33)],
            &[value(0, 0)],
            &[value(96, 32)],
            &[array(4, 8)],
            &[inside],
        ];
        for fields in wrong {
            let refused = std::panic::catch_unwind(|| check(12, fields));
            assert!(refused.is_err(), "{fields:?}");
        }
        assert!(std::panic::catch_unwind(|| check(12, &[array(64, 32)])).is_err());
    }
}
