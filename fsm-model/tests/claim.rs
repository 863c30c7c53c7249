// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! Holds specs/settled-claim.md against the models.

#![expect(clippy::expect_used, reason = "helpers of tests may fail them")]

use vfio_fsm_model::{
    CASES, CLAIMS, Claim, Fault, LARGE_SYSTEM_CASES, SYSTEM_CASES, properties, refute,
};

fn rows(heading: &str) -> Vec<Vec<String>> {
    let page = concat!(env!("CARGO_MANIFEST_DIR"), "/specs/settled-claim.md");
    let page = std::fs::read_to_string(page).expect("the page is there");
    let page = page.replace("\n### ", "\n## ");
    let section = page.split("\n## ").find(|section| section.starts_with(heading));
    let lines = section.expect("the section is there").lines();
    let table = lines.filter(|line| line.starts_with('|')).skip(2);
    let cells = |line: &str| -> Vec<String> {
        let line = line.trim_matches('|').replace("\\|", "!");
        line.split('|').map(|cell| cell.trim().replace('!', "|")).collect()
    };
    table.map(cells).collect()
}

fn quoted(cell: &str) -> Vec<&str> {
    cell.split('`').skip(1).step_by(2).collect()
}

/// V5, V6, O2: what the page says holds is a property, and what it says breaks one does.
#[test]
fn every_assumption_is_needed() {
    let rows = rows("The assumptions");
    assert_eq!(rows.len(), 10);
    let is_property = |id: &str| properties().any(|property| property.id == id);
    for row in &rows {
        let [_, with, without, run] = row.as_slice() else { panic!("{row:?}") };
        let holds = quoted(with);
        assert!(holds.iter().all(|id| is_property(id)), "{row:?}");
        let property = |names: &[&str]| names.get(1).or(holds.first()).copied().map(str::to_owned);
        match quoted(without).as_slice() {
            [] => assert!(with.starts_with("not needed") && run.is_empty(), "{row:?}"),
            [refuted] if refuted.ends_with("-without-assumption") => {
                let claim = CLAIMS.iter().find(|claim| claim.property == *refuted);
                let run = claim.and_then(refute).expect("it is refuted");
                assert!(without.ends_with(&format!("in {} steps", run.steps.len())), "{row:?}");
            }
            names => {
                let property = property(names).expect("a property that breaks");
                let fault = CLAIMS.iter().filter(|claim| claim.fault.slug() == names[0]);
                let run = fault.filter(|claim| claim.property == property).find_map(refute);
                assert!(run.is_some(), "nothing breaks {property}: {row:?}");
            }
        }
    }
}

/// The numbers of the page are the committed ones.
#[test]
fn the_worlds_are_as_many() {
    for row in rows("How far it was checked") {
        let [who, flags, worlds] = row.as_slice() else { panic!("{row:?}") };
        let case = CASES.iter().find(|it| it.name == who && it.features.to_string() == *flags);
        let states = case.expect("the case is there").states;
        assert_eq!(worlds.replace(',', ""), states.to_string(), "{row:?}");
    }
}

/// V4, V6, V9, S1: of two machines what the page says holds is a property of a case, and what it
/// says breaks one does, in as many steps.
#[test]
fn every_assumption_of_two_machines_is_needed() {
    let rows = rows("What it stands on");
    assert_eq!(rows.len(), 14);
    let of_two_machines = || CLAIMS.iter().filter(|claim| claim.level() == 3);
    for row in &rows {
        let [_, with, without] = row.as_slice() else { panic!("{row:?}") };
        let case = |name: &&str| SYSTEM_CASES.iter().any(|case| case.name == *name);
        match quoted(with).as_slice() {
            [id, cases @ ..] => {
                let property = properties().any(|property| property.id == *id);
                let named = cases.iter().all(&case);
                assert!(property && named || with.starts_with("not needed") && case(id), "{row:?}");
            }
            [] => panic!("{row:?}"),
        }
        match quoted(without).as_slice() {
            [] => assert!(with.starts_with("not needed"), "{row:?}"),
            [fault, property] => {
                let is_named =
                    |claim: &&Claim| claim.fault.slug() == *fault && claim.property == *property;
                let run = of_two_machines().filter(is_named).find_map(refute);
                let steps = run.expect("it breaks").steps.len();
                let dropped = without.contains("dropped");
                assert!(!dropped || without.ends_with(&format!("in {steps} steps")), "{row:?}");
            }
            names => panic!("{names:?}"),
        }
    }
    let is_there = |claim: &Claim| {
        let named = [claim.fault.slug(), claim.property];
        rows.iter().any(|row| quoted(&row[2]) == named)
    };
    let dropped = |claim: &&Claim| matches!(claim.fault, Fault::Assumption(_));
    assert!(of_two_machines().filter(dropped).all(is_there), "all are on the page");
}

/// The numbers of the page are the committed ones, and every case is there.
#[test]
fn the_worlds_of_two_machines_are_as_many() {
    let rows = rows("How far two machines were checked");
    let small = SYSTEM_CASES.iter().map(|case| (case, true));
    let cases: Vec<_> = small.chain(LARGE_SYSTEM_CASES.iter().map(|case| (case, false))).collect();
    assert_eq!(rows.len(), cases.len());
    for (row, (case, ends)) in rows.iter().zip(cases) {
        let [name, worlds, yes] = row.as_slice() else { panic!("{row:?}") };
        assert_eq!((name.as_str(), yes == "yes"), (case.name, ends), "{row:?}");
        assert_eq!(worlds.replace(',', ""), case.states.to_string(), "{row:?}");
    }
}
