// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! Level 3 as a test: two machines, every slip between them, what falls without its assumption, and
//! that every run ends. The large cases are `vfio-conform check --system`.

#![expect(clippy::expect_used, clippy::panic, reason = "helpers of tests may fail them")]

use std::collections::{BTreeMap, BTreeSet};

use vfio_fsm_model::{
    Run, SYSTEM_CASES, SYSTEM_CLAIMS, SYSTEM_REFUTATIONS, StreamSlip, SystemCase, Wrong,
    check_system, check_system_claim, check_system_runs, properties, refute_system,
};

fn small() -> impl Iterator<Item = &'static SystemCase> {
    SYSTEM_CASES.iter().filter(|case| case.small)
}

/// Every property holds in every world of every small case, the worlds are as many as committed,
/// and every property had something to judge.
#[test]
fn every_property_holds() {
    let mut judged = BTreeMap::new();
    for case in small() {
        let checked = check_system(case);
        let failures: Vec<_> = checked.failures.iter().map(ToString::to_string).collect();
        assert!(failures.is_empty(), "{}:\n{}", case.name, failures.join("\n"));
        for (id, count) in checked.judged {
            *judged.entry(id).or_insert(0) += count;
        }
    }
    assert!(judged.values().all(|&count| count > 0), "nothing to judge: {judged:?}");
}

/// V10: in every small case every run comes to its end, and the graph has as many worlds.
#[test]
fn every_run_ends() {
    for case in small() {
        let runs = check_system_runs(case);
        assert!(runs.trap.is_none(), "{}: {}", case.name, runs.trap.unwrap());
        assert_eq!(runs.states, case.states, "{}", case.name);
    }
}

/// Every slip is caught by every property that claims it; no slip between two VMMs goes unclaimed,
/// and no property has never been seen to fail.
#[test]
fn every_slip_is_caught() {
    let mut claimed = BTreeSet::new();
    for claim in SYSTEM_CLAIMS {
        let caught = check_system_claim(claim);
        assert!(caught.is_some(), "{} survives {}", claim.wrong.slug(), claim.property);
        claimed.insert(claim.property);
    }
    for &slip in StreamSlip::ALL {
        let wrong = Wrong::Stream(slip);
        assert!(SYSTEM_CLAIMS.iter().any(|claim| claim.wrong == wrong), "{}", slip.slug());
    }
    for property in properties().filter(|property| property.id.starts_with("system-")) {
        assert!(claimed.contains(property.id), "{} has never failed", property.id);
    }
}

fn refuted(name: &str) -> Run {
    let refutation = SYSTEM_REFUTATIONS.iter().find(|refutation| refutation.name == name);
    refute_system(refutation.expect("it is there")).expect("it is refuted")
}

fn place(run: &Run, text: &str) -> usize {
    run.steps.iter().position(|step| step.contains(text)).unwrap_or_else(|| panic!("{text}: {run}"))
}

/// V4, R22: what is assumed is needed: every claim without its assumption falls.
#[test]
fn every_assumption_is_needed() {
    for refutation in SYSTEM_REFUTATIONS {
        let run = refuted(refutation.name);
        assert_eq!(run.property, refutation.property, "{run}");
    }
}

/// V4, R22: with an image that is read register by register, the touch of a guest that is not held
/// back comes between two of them, and so does the reset of a host.
#[test]
fn an_image_is_torn_between_two_reads() {
    for (name, what) in [
        ("never-torn-with-a-guest-not-held-back", "guest touches"),
        ("never-torn-with-a-host-that-resets", "host RESETs"),
    ] {
        let run = refuted(name);
        let first = place(&run, "\"F\\x01\"   [STOP_COPY]");
        assert!(first < place(&run, what), "{run}");
        assert!(place(&run, what) < place(&run, "end of stream"), "{run}");
    }
}

/// V9: the destination's host resets a device behind the last look at it.
#[test]
fn a_blank_device_is_started() {
    let run = refuted("as-it-stopped-with-a-host-that-resets-there");
    assert!(place(&run, "SET RUNNING") < place(&run, "destination host RESETs"), "{run}");
}

/// The large cases, some minutes and gigabytes of them.
#[test]
#[ignore = "takes minutes: vfio-conform check --system does the same"]
fn every_property_holds_of_more() {
    for case in SYSTEM_CASES.iter().filter(|case| !case.small) {
        let checked = check_system(case);
        let failures: Vec<_> = checked.failures.iter().map(ToString::to_string).collect();
        assert!(failures.is_empty(), "{}:\n{}", case.name, failures.join("\n"));
    }
}
