// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! The layouts against rows made with the kernel header's own macros.

use std::collections::BTreeSet;

use vfio_fsm_mlx5::verify::golden::{self, Outcome, Row};

/// Structures with golden rows that the layout does not have, each with the reason.
const NOT_DEFINED: &[(&str, &str)] = &[];

fn rows() -> Vec<Row> {
    golden::parse(include_str!("golden/mlx5_ifc_6.12.jsonl")).expect("golden rows")
}

/// M1: Every golden row of a structure that is defined holds, and each that is not is listed.
#[test]
fn every_golden_row_holds() {
    let mut not_defined = BTreeSet::new();
    let mut differs = Vec::new();
    let mut agrees = 0;
    let rows = rows();
    for row in &rows {
        match row.check() {
            Outcome::Agrees => agrees += 1,
            Outcome::NotDefined => drop(not_defined.insert(row.structure())),
            Outcome::Differs(how) => differs.push(how),
        }
    }
    assert!(differs.is_empty(), "{} rows differ:\n{}", differs.len(), differs.join("\n"));
    let listed: BTreeSet<&str> = NOT_DEFINED.iter().map(|(name, _)| *name).collect();
    assert_eq!(not_defined, listed, "the list of structures not defined has drifted");
    println!("{agrees} of {} rows", rows.len());
}
