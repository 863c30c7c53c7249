// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! specs/bugs.toml against the code: what it names is there, and what the code cites stands in it.

#![expect(clippy::expect_used, reason = "helpers of tests may fail them")]

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

use regex::Regex;
use vfio_conform::catalogue::{Class, Entry, entries};
use vfio_fsm_core::device::Bug;
use vfio_fsm_model::{CLAIMS, Design, Fault, Slip};

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..")
}

fn catalogue() -> Vec<Entry> {
    entries().expect("specs/bugs.toml is a catalogue")
}

/// No id twice, every field said, and either faults or a reason.
#[test]
fn the_catalogue_is_well_formed() {
    let entries = catalogue();
    let id = Regex::new(r"^B\d\d$").expect("a good expression");
    let ids: BTreeSet<_> = entries.iter().map(|entry| &entry.id).collect();
    assert_eq!(ids.len(), entries.len(), "an id stands twice");
    for entry in &entries {
        assert!(id.is_match(&entry.id), "{}", entry.id);
        assert!(entry.what.ends_with('.') && entry.what.len() > 20, "{}", entry.id);
        assert!(!entry.source.is_empty() && !entry.subsystem.is_empty(), "{}", entry.id);
        let reason = entry.not_here.as_ref();
        assert_eq!(entry.faults.is_empty(), reason.is_some_and(|text| text.ends_with('.')));
        if let Some(tested) = &entry.tested {
            let file = tested.split([' ', ',']).next().expect("a first word");
            assert!(root().join(file).exists(), "{}: {file}", entry.id);
        }
    }
}

/// What is wrong with sessions and locks can always be said in the model.
#[test]
fn sessions_and_locks_are_expressed() {
    let must = |entry: &&Entry| matches!(entry.class, Class::Session | Class::Lock);
    for entry in catalogue().iter().filter(must) {
        assert!(!entry.faults.is_empty(), "{}", entry.id);
    }
}

/// Every fault that the file names exists, and a property claims it.
#[test]
fn every_fault_named_is_claimed() {
    let bugs = Bug::ALL.iter().copied().map(Fault::Device);
    let slips = Slip::ALL.iter().copied().map(Fault::Vmm);
    let designs = Design::ALL.iter().copied().map(Fault::Locks);
    let there: BTreeSet<_> =
        bugs.chain(slips).chain(designs).map(|fault| fault.to_string()).collect();
    let claimed: BTreeSet<_> = CLAIMS.iter().map(|claim| claim.fault.to_string()).collect();
    for entry in catalogue() {
        for fault in &entry.faults {
            assert!(there.contains(fault), "{}: there is no {fault}", entry.id);
            assert!(claimed.contains(fault), "{}: nothing claims {fault}", entry.id);
        }
    }
}

/// Every fault whose description cites a bug stands in the bug's row.
#[test]
fn every_bug_cited_is_in_the_file() {
    let entries = catalogue();
    let cites = Regex::new(r"\bB\d\d\b").expect("a good expression");
    let named = Regex::new(r#"^\s*\w+ = "([\w-]+)",$"#).expect("a good expression");
    let files = [
        ("device", "fsm-core/src/device/bug.rs"),
        ("vmm", "fsm-model/src/session/slip.rs"),
        ("locks", "fsm-model/src/locks/design.rs"),
    ];
    let mut count = 0;
    for (of, path) in files {
        let mut cited: Vec<String> = Vec::new();
        for line in fs::read_to_string(root().join(path)).expect("the file is there").lines() {
            if line.trim_start().starts_with("///") {
                cited.extend(cites.find_iter(line).map(|found| found.as_str().to_owned()));
            } else if let Some(name) = named.captures(line) {
                let fault = format!("{of}:{}", &name[1]);
                for id in cited.drain(..) {
                    let entry = entries.iter().find(|entry| entry.id == id);
                    let faults = &entry.unwrap_or_else(|| panic!("{id} is not in the file")).faults;
                    assert!(faults.contains(&fault), "{id} does not name {fault}");
                    count += 1;
                }
            } else {
                cited.clear();
            }
        }
    }
    assert!(count > 20, "{count} citations were found");
}
