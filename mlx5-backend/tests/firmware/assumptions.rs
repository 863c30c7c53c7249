// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! The table of assumptions and the code name the same ones.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;

use vfio_fsm_mlx5::firmware::assumptions::ASSUMPTIONS;

fn named(dir: &Path, names: &mut BTreeSet<String>) {
    for entry in fs::read_dir(dir).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            named(&path, names);
        } else if !path.ends_with("assumptions.rs") {
            let text = fs::read_to_string(path).unwrap();
            let words = text.split(|c: char| !(c.is_ascii_alphanumeric() || c == '-'));
            let shouts = |word: &&str| {
                let rest = |c: char| c.is_ascii_uppercase() || c.is_ascii_digit() || c == '-';
                word.strip_prefix("A-").is_some_and(|rest_of| rest_of.chars().all(rest))
            };
            names.extend(words.filter(shouts).map(str::to_owned));
        }
    }
}

/// M46: each assumption is named where the code makes it, and each that is named is explained.
#[test]
fn named_where_made() {
    let mut code = BTreeSet::new();
    named(&Path::new(env!("CARGO_MANIFEST_DIR")).join("src/firmware"), &mut code);
    let table: BTreeSet<_> = ASSUMPTIONS.iter().map(|it| it.id.to_owned()).collect();
    assert_eq!(table.len(), ASSUMPTIONS.len(), "two of one name");
    assert_eq!(code, table);
}
