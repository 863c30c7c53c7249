// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! Golden rows: one fact each about a structure, made with the macros of the kernel's header.
//!
//! A file of them has one JSON object a line. [`Row::check`] holds the structure of that name in
//! [`layout`](crate::layout) to it, by the very accessors that the rest of the crate uses.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use serde::{Deserialize, Serialize};

use crate::layout::{Field, FieldKind, Structure, codes};

/// One fact about a structure.
#[derive(Clone, Debug, Deserialize, Eq, Ord, PartialEq, PartialOrd, Serialize)]
#[serde(tag = "k", rename_all = "lowercase")]
pub enum Row {
    /// How long it is.
    Size {
        /// The structure.
        s: String,
        /// Bytes, without a tail.
        bytes: usize,
    },
    /// A field, reserved ones included.
    Fld {
        /// The structure.
        s: String,
        /// The field.
        f: String,
        /// Bits from the beginning.
        off: u32,
        /// Width in bits.
        w: u32,
    },
    /// Several elements in a row.
    Arr {
        /// The structure.
        s: String,
        /// The field.
        f: String,
        /// Bits from the beginning.
        off: u32,
        /// Width of an element in bits.
        w: u32,
        /// How many elements.
        n: u32,
    },
    /// A structure inside it.
    Sub {
        /// The structure.
        s: String,
        /// The field.
        f: String,
        /// Which structure is inside.
        t: String,
        /// Bits from the beginning.
        off: u32,
    },
    /// Elements behind the end.
    Var {
        /// The structure.
        s: String,
        /// The field.
        f: String,
        /// Bits from the beginning.
        off: u32,
    },
    /// A number that has a name.
    Num {
        /// What its name begins with.
        s: String,
        /// The rest of its name.
        f: String,
        /// The number.
        n: u64,
    },
    /// The bytes with one field all ones.
    Ones {
        /// The structure.
        s: String,
        /// The field.
        f: String,
        /// All bytes, in hexadecimal.
        hex: String,
    },
    /// The bytes with every field at some value.
    Vec {
        /// The structure.
        s: String,
        /// Each field's value, as `0x` and hexadecimal digits.
        v: BTreeMap<String, String>,
        /// All bytes, in hexadecimal.
        hex: String,
    },
}

/// What a row says of the layout.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum Outcome {
    /// The layout has it so.
    Agrees,
    /// The layout has no such structure.
    NotDefined,
    /// The layout has it otherwise: how.
    Differs(String),
}

/// A line of a golden file that is no row.
#[derive(Debug, thiserror::Error)]
#[error("line {line} of the golden rows is none ({source}): make the file again")]
pub struct ParseError {
    /// Counted from 1.
    pub line: usize,
    /// What is wrong with it.
    pub source: serde_json::Error,
}

/// The rows of a golden file.
///
/// # Errors
///
/// [`ParseError`]: a line is not a row.
pub fn parse(text: &str) -> Result<Vec<Row>, ParseError> {
    let row =
        |(i, line)| serde_json::from_str(line).map_err(|source| ParseError { line: i + 1, source });
    text.lines().enumerate().filter(|(_, line)| !line.is_empty()).map(row).collect()
}

/// As a line of a golden file.
impl std::fmt::Display for Row {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&serde_json::to_string(self).map_err(|_| std::fmt::Error)?)
    }
}

impl Row {
    /// The structure it is about; of a number, what its name begins with.
    pub fn structure(&self) -> &str {
        match self {
            Self::Size { s, .. }
            | Self::Fld { s, .. }
            | Self::Arr { s, .. }
            | Self::Sub { s, .. }
            | Self::Var { s, .. }
            | Self::Num { s, .. }
            | Self::Ones { s, .. }
            | Self::Vec { s, .. } => s,
        }
    }

    /// The field it is about, if it is about one; of a number, the rest of its name.
    pub fn field(&self) -> Option<&str> {
        match self {
            Self::Size { .. } | Self::Vec { .. } => None,
            Self::Fld { f, .. }
            | Self::Arr { f, .. }
            | Self::Sub { f, .. }
            | Self::Var { f, .. }
            | Self::Num { f, .. }
            | Self::Ones { f, .. } => Some(f),
        }
    }

    /// Holds the layout to it.
    pub fn check(&self) -> Outcome {
        if let Self::Num { s, f, n } = self {
            return numbered(s, f, *n);
        }
        let Some(structure) = Structure::named(self.structure()) else {
            return Outcome::NotDefined;
        };
        match self.differs(structure) {
            Ok(()) => Outcome::Agrees,
            Err(how) => Outcome::Differs(format!("{}: {how}", structure.name)),
        }
    }

    fn differs(&self, structure: &Structure) -> Result<(), String> {
        match self {
            Self::Size { bytes, .. } => same("bytes", &structure.bytes, bytes),
            // It is about no structure.
            Self::Num { .. } => Ok(()),
            Self::Fld { f, off, w, .. } if reserved(f) => unused(structure, f, *off, *w),
            Self::Fld { f, off, w, .. } => {
                let field = find(structure, f)?;
                same(f, &(field.bit_offset, field.bits), &(*off, *w))?;
                accessors(field).map(drop)
            }
            Self::Arr { f, off, w, n, .. } if reserved(f) => unused(structure, f, *off, w * n),
            Self::Arr { f, off, w, n, .. } => {
                let field = find(structure, f)?;
                let FieldKind::Array { elements } = field.kind else {
                    return Err(format!("{f} is {:?}, not an array", field.kind));
                };
                same(f, &(field.bit_offset, field.bits, elements), &(*off, *w, *n))
            }
            Self::Sub { f, t, off, .. } => {
                let field = find(structure, f)?;
                same(f, &field.bit_offset, off)?;
                match field.kind {
                    FieldKind::View { name } => same(f, &name, &t.as_str()),
                    FieldKind::Tail => element(field, t),
                    // A union of which the layout has no view.
                    FieldKind::Array { .. } if Structure::named(t).is_none() => Ok(()),
                    other => Err(format!("{f} is {other:?}, not a {t}")),
                }
            }
            Self::Var { f, off, .. } => {
                let field = find(structure, f)?;
                same(f, &field.bit_offset, off)?;
                match field.kind {
                    FieldKind::Tail => Ok(()),
                    other => Err(format!("{f} is {other:?}, not a tail")),
                }
            }
            Self::Ones { f, hex, .. } => {
                let field = find(structure, f)?;
                let all = u64::MAX >> (64 - field.bits);
                encodes(structure, &[(f.as_str(), all)], hex)
            }
            Self::Vec { v, hex, .. } => {
                let values: Result<Vec<_>, _> = v
                    .iter()
                    .map(|(f, value)| Ok::<_, String>((f.as_str(), number(value)?)))
                    .collect();
                encodes(structure, &values?, hex)
            }
        }
    }
}

/// Holds the layout's number of this name to the golden one.
fn numbered(prefix: &str, name: &str, golden: u64) -> Outcome {
    let Some((_, numbers)) = codes::NUMBERS.iter().find(|(p, _)| *p == prefix) else {
        return Outcome::NotDefined;
    };
    match numbers.iter().find(|(n, _)| *n == name) {
        None => Outcome::NotDefined,
        Some((_, ours)) if *ours == golden => Outcome::Agrees,
        Some((_, ours)) => Outcome::Differs(format!("{prefix}{name} is {ours}, golden {golden}")),
    }
}

/// Whether the header gives the field no meaning.
pub(super) fn reserved(field: &str) -> bool {
    field.starts_with("reserved_at_")
}

fn same<T: PartialEq + std::fmt::Debug>(what: &str, ours: &T, golden: &T) -> Result<(), String> {
    if ours == golden { Ok(()) } else { Err(format!("{what} is {ours:?}, golden {golden:?}")) }
}

fn find(structure: &Structure, name: &str) -> Result<&'static Field, String> {
    structure.field(name).ok_or_else(|| format!("no field {name}"))
}

/// Nothing of ours is in a reserved range but what the header leaves out.
fn unused(structure: &Structure, name: &str, from: u32, bits: u32) -> Result<(), String> {
    let inside = |field: &&Field| field.bit_offset < from + bits && field.end() > from;
    match structure.fields.iter().filter(inside).find(|field| !unnamed(structure, field)) {
        None => Ok(()),
        Some(field) => Err(format!("{} is in {name}", field.name)),
    }
}

/// Fields that are in none of the rows, and why; `newer` ones are not listed again.
pub const UNNAMED: &[(&str, &str, &str)] = &[
    ("general_obj_in_cmd_hdr", "op_param_create", "a member of a union without a name"),
    ("health_buffer", "assert_var", "the header's bits leave it out, the driver's struct has it"),
    ("initial_seg", "cmd_exec_to", "the header's bits leave it out, the driver's struct has it"),
    ("initial_seg", "cmd_q_init_to", "the header's bits leave it out, the driver's struct has it"),
    (
        "initial_seg",
        "internal_timer_h",
        "the header's bits leave it out, the driver's struct has it",
    ),
    (
        "initial_seg",
        "internal_timer_l",
        "the header's bits leave it out, the driver's struct has it",
    ),
    (
        "pages_req_event",
        "ec_function",
        "the header's bits leave it out, the driver's struct has it",
    ),
];

/// Whether a field cannot be in any row.
pub fn unnamed(structure: &Structure, field: &Field) -> bool {
    let listed = |(s, f, _): &(&str, &str, &str)| *s == structure.name && *f == field.name;
    field.newer || UNNAMED.iter().any(listed)
}

/// A tail of structures has elements of their size.
fn element(field: &Field, name: &str) -> Result<(), String> {
    let inner = Structure::named(name).ok_or_else(|| format!("no structure {name}"))?;
    same(field.name, &(field.bits as usize), &(inner.bytes * 8))
}

type Accessors = (fn(&[u8]) -> u64, fn(&mut [u8], u64));

fn accessors(field: &Field) -> Result<Accessors, String> {
    match field.kind {
        FieldKind::Value { get, set } => Ok((get, set)),
        other => Err(format!("{} is {other:?}, not a number", field.name)),
    }
}

/// Sets the values in bytes of zero and in bytes of ones, and gets them, and zero for all others,
/// from the golden bytes.
fn encodes(structure: &Structure, values: &[(&str, u64)], golden: &str) -> Result<(), String> {
    let mut bytes = vec![0; structure.bytes];
    for (name, value) in values {
        let (_, set) = accessors(find(structure, name)?)?;
        set(&mut bytes, u64::MAX);
        set(&mut bytes, *value);
    }
    same("encoded", &hex(&bytes).as_str(), &golden)?;
    for field in structure.fields {
        let FieldKind::Value { get, .. } = field.kind else { continue };
        let value = values.iter().find(|(name, _)| *name == field.name).map_or(0, |(_, v)| *v);
        same(field.name, &get(&bytes), &value)?;
    }
    Ok(())
}

fn number(text: &str) -> Result<u64, String> {
    let digits = text.strip_prefix("0x").unwrap_or(text);
    u64::from_str_radix(digits, 16).map_err(|error| format!("{text}: {error}"))
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().fold(String::new(), |mut text, byte| {
        // Writing to a string cannot fail.
        let _ = write!(text, "{byte:02x}");
        text
    })
}
