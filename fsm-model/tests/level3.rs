// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! Level 3 as a test: two machines, every slip between them, what falls without its assumption, and
//! that every run ends.

#![expect(clippy::expect_used, clippy::panic, reason = "helpers of tests may fail them")]

use vfio_fsm_model::{
    CLAIMS, Case, Claim, Fault, LARGE_SYSTEM_CASES, Run, SYSTEM_CASES, check, refute,
};

fn holds(cases: &'static [Case]) {
    for checked in cases.iter().map(check) {
        let failures: Vec<_> = checked.failures.iter().map(ToString::to_string).collect();
        assert!(failures.is_empty(), "{}:\n{}", checked.case.name, failures.join("\n"));
    }
}

/// V10: every property holds in every world of every small case, every run comes to its end, the
/// worlds are as many as committed, and every property had something to judge where it is not said
/// why not.
#[test]
fn every_property_holds() {
    holds(SYSTEM_CASES);
}

/// V4, V9, R22: every slip is caught by every property that claims it, and every property that is
/// said to need an assumption falls without it.
#[test]
fn every_fault_is_caught() {
    for claim in CLAIMS.iter().filter(|claim| claim.level() == 3) {
        let Claim { fault, property, .. } = claim;
        let run = refute(claim).unwrap_or_else(|| panic!("{fault} survives {property}"));
        assert_eq!(run.property, *property, "{run}");
    }
}

fn refuted(assumption: &'static str, property: &str) -> Run {
    let fault = Fault::Assumption(assumption);
    let claim = CLAIMS.iter().find(|claim| claim.fault == fault && claim.property == property);
    refute(claim.expect("it is claimed")).expect("it is refuted")
}

fn place(run: &Run, text: &str) -> usize {
    run.steps.iter().position(|step| step.contains(text)).unwrap_or_else(|| panic!("{text}: {run}"))
}

/// V4, R22: with an image that is read register by register, the touch of a guest that is not held
/// back comes between two of them, and so does the reset of a host.
#[test]
fn an_image_is_torn_between_two_reads() {
    for (assumption, what) in
        [("guest-held-back", "guest touches"), ("driver-hears-of-resets", "host RESETs")]
    {
        let run = refuted(assumption, "system-never-torn");
        let first = place(&run, "\"F\\x01\"   [STOP_COPY]");
        assert!(first < place(&run, what), "{run}");
        assert!(place(&run, what) < place(&run, "end of stream"), "{run}");
    }
}

/// V9: the destination's host resets a device behind the last look at it.
#[test]
fn a_blank_device_is_started() {
    let run = refuted("host-keeps-still", "system-as-it-stopped");
    assert!(place(&run, "SET RUNNING") < place(&run, "destination host RESETs"), "{run}");
}

/// The large cases, some minutes and gigabytes of them.
#[test]
#[ignore = "takes minutes: vfio-conform check --system does the same"]
fn every_property_holds_of_more() {
    holds(LARGE_SYSTEM_CASES);
}
