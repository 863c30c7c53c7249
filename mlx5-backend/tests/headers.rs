// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! Making golden rows from a header, here one written from the rows themselves: a C compiler is
//! needed, the kernel's headers are not. With those it is done by the example `verify_headers`.
#![expect(clippy::expect_used, reason = "what cannot be set up fails the test")]

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::PathBuf;

use vfio_fsm_mlx5::verify::golden::{Outcome, Row};
use vfio_fsm_mlx5::verify::headers::{self, Comparison, VerifyError};

/// Sets a field bit by bit, and nothing like the kernel's macros.
const DEVICE_H: &str = "
#define __mlx5_struct(typ) struct mlx5_ifc_##typ##_bits
#define MLX5_SET(typ, p, fld, v) do { \\
	size_t at_ = offsetof(__mlx5_struct(typ), fld); \\
	size_t bits_ = sizeof(((__mlx5_struct(typ) *)0)->fld); \\
	for (size_t i_ = 0; i_ < bits_; i_++) \\
		if ((v) >> i_ & 1) \\
			(p)[(at_ + bits_ - 1 - i_) / 8] |= 1 << (7 - (at_ + bits_ - 1 - i_) % 8); \\
} while (0)
#define MLX5_SET64(typ, p, fld, v) MLX5_SET(typ, p, fld, v)
";

/// A directory of headers, gone with the value.
struct Headers(PathBuf);

impl Headers {
    fn new(test: &str, ifc: &str) -> Self {
        let root = std::env::temp_dir().join(format!("mlx5-{test}-{}", std::process::id()));
        let include = root.join("usr/src/some-headers/include/linux/mlx5");
        fs::create_dir_all(&include).expect("a directory");
        fs::write(include.join("mlx5_ifc.h"), ifc).expect("a header");
        fs::write(include.join("device.h"), DEVICE_H).expect("a header");
        fs::write(include.join("driver.h"), "").expect("a header");
        // One that is in another header than the rest.
        let qp = "\nenum mlx5_qp_st {\n\tMLX5_QP_ST_RC = 0x0,\n};\n";
        fs::write(include.join("qp.h"), qp).expect("a header");
        Self(root)
    }

    fn rebuild(&self) -> Result<Vec<Row>, VerifyError> {
        headers::rebuild(&self.0, "cc", &self.0.join("out"))
    }
}

impl Drop for Headers {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

/// Where a member begins, its declaration, and where it ends, in bits.
type Declared = (u32, String, u32);

/// Writes the header that has these rows.
fn header(rows: &[Row]) -> String {
    let mut structures: BTreeMap<&str, Vec<&Row>> = BTreeMap::new();
    for row in rows.iter().filter(|row| !matches!(row, Row::Num { .. })) {
        structures.entry(row.structure()).or_default().push(row);
    }
    let mut text = "\nunion mlx5_ifc_event_auto_bits {\n\tu8 reserved_at_0[0xe0];\n};\n".to_owned();
    text += "enum {\n";
    for row in rows {
        if let Row::Num { s, f, n } = row
            && (s.as_str(), f.as_str()) != ("MLX5_QP_ST_", "RC")
        {
            text += &format!("\t{s}{f} = {n},\n");
        }
    }
    text += "};\n";
    let mut done = BTreeSet::from(["event_auto"]);
    while done.len() <= structures.len() {
        for (name, rows) in &structures {
            let inner = rows.iter().filter_map(|row| match row {
                Row::Sub { t, .. } => Some(t.as_str()),
                _ => None,
            });
            if !done.contains(name) && inner.clone().all(|t| done.contains(t)) {
                text += &structure(name, rows, &structures);
                done.insert(name);
            }
        }
    }
    text
}

fn structure(name: &str, rows: &[&Row], all: &BTreeMap<&str, Vec<&Row>>) -> String {
    let end = size(rows);
    let mut members: Vec<Declared> =
        rows.iter().filter_map(|row| declared(row, end, all)).collect();
    members.sort();
    let kind = if name == "hca_cap_union" { "union" } else { "struct" };
    let mut text = format!("{kind} mlx5_ifc_{name}_bits {{\n");
    let mut at = 0;
    for (off, declaration, behind) in members {
        text += &gap(at, off);
        text += &declaration;
        at = behind;
    }
    text + &gap(at, end) + "};\n"
}

/// What no row tells of: something declared in place.
fn gap(from: u32, to: u32) -> String {
    match to - from {
        0 => String::new(),
        bits => format!("\tunion {{\n\t\tu8 inside_{from}[{bits}];\n\t}} in_place_{from};\n"),
    }
}

fn size(rows: &[&Row]) -> u32 {
    let size = |row: &&Row| match row {
        Row::Size { bytes, .. } => Some(*bytes as u32 * 8),
        _ => None,
    };
    rows.iter().find_map(size).expect("a size")
}

fn declared(row: &Row, end: u32, all: &BTreeMap<&str, Vec<&Row>>) -> Option<Declared> {
    Some(match row {
        Row::Fld { f, off, w, .. } => (*off, format!("\tu8         {f}[{w:#x}];\n"), off + w),
        Row::Arr { f, off, w, n, .. } => {
            (*off, format!("\tu8         {f}[{n}][{w:#x}];\n"), off + n * w)
        }
        Row::Sub { f, t, off, .. } if *off == end => {
            (*off, format!("\tstruct     mlx5_ifc_{t}_bits {f}[0];\n"), *off)
        }
        Row::Sub { f, t, off, .. } => {
            let (kind, bits) = match all.get(t.as_str()) {
                Some(rows) => (if t == "hca_cap_union" { "union" } else { "struct" }, size(rows)),
                None => ("union", 0xe0),
            };
            (*off, format!("\t{kind} mlx5_ifc_{t}_bits {f};\n"), off + bits)
        }
        Row::Var { f, off, .. } => (*off, format!("\tu8         {f}[][0x40];\n"), *off),
        Row::Num { .. } | Row::Size { .. } | Row::Ones { .. } | Row::Vec { .. } => return None,
    })
}

fn committed() -> Vec<Row> {
    headers::committed().expect("golden rows")
}

/// M4: From a header that has the committed rows the same rows are made.
#[test]
fn rows_are_made_anew() {
    let committed = committed();
    let made = Headers::new("same", &header(&committed)).rebuild().expect("rows");
    let compared = Comparison::of(&committed, &made);
    assert!(compared.agrees(), "{compared:?}");
    assert_eq!(compared.same, committed.len());
    assert_eq!(made.len(), committed.len());
}

/// M4: From a header with one field at another place other rows are made, and the layout differs.
#[test]
fn a_header_that_has_changed_is_seen() {
    let committed = committed();
    let text = header(&committed);
    let (id, other) = ("\tu8         vhca_id[0x10];\n", "\tu8         reserved_at_42[0xe];\n");
    let at = text.find("struct mlx5_ifc_save_vhca_state_in_bits {").expect("it is there");
    let (before, from) = text.split_at(at);
    let changed = from.replacen(&format!("{other}{id}"), &format!("{id}{other}"), 1);
    let changed = format!("{before}{changed}");
    assert_ne!(changed, text);
    let made = Headers::new("changed", &changed).rebuild().expect("rows");
    let compared = Comparison::of(&committed, &made);
    assert!(!compared.agrees());
    let about: BTreeSet<_> =
        compared.missing.iter().map(|row| (row.structure(), row.field())).collect();
    let expected = [None, Some("reserved_at_42"), Some("vhca_id")];
    assert_eq!(about, expected.map(|field| ("save_vhca_state_in", field)).into());
    assert_eq!(compared.missing.len(), compared.extra.len());
    let differs = made.iter().filter(|row| matches!(row.check(), Outcome::Differs(_))).count();
    assert_eq!(differs, compared.extra.len());
}

/// M4: Without headers, with other headers and without a compiler there are no rows but an error.
#[test]
fn what_is_missing_is_an_error() {
    let text = header(&committed());
    let fine = Headers::new("fine", &text);
    let error = headers::rebuild(&fine.0.join("usr"), "cc", &fine.0.join("out"));
    assert!(matches!(error, Err(VerifyError::NoHeaders(_))), "{error:?}");
    let error = headers::rebuild(&fine.0, "no-such-compiler", &fine.0.join("out"));
    assert!(matches!(error, Err(VerifyError::Start { .. })), "{error:?}");
    let older = Headers::new("older", &text.replace("mlx5_ifc_page_track_bits", "mlx5_ifc_x_bits"));
    let error = older.rebuild();
    assert!(matches!(error, Err(VerifyError::NoStructure(_))), "{error:?}");
    let broken = Headers::new("broken", &format!("{text}\n#error broken\n"));
    let error = broken.rebuild();
    let Err(VerifyError::Failed { said, .. }) = error else { panic!("{error:?}") };
    assert!(said.contains("broken"), "{said}");
    fs::remove_file(broken.0.join("usr/src/some-headers/include/linux/mlx5/device.h"))
        .expect("it was there");
    assert!(matches!(broken.rebuild(), Err(VerifyError::File { .. })));
}
