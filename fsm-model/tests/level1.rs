// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! The model check as a test: every case, every fault of a device and of a VMM, and the claims that
//! must fall.

#![expect(clippy::expect_used, reason = "helpers of tests may fail them")]

use std::collections::BTreeSet;

use vfio_fsm_core::device::Bug;
use vfio_fsm_model::{
    CASES, CLAIMS, Claim, Design, Fault, Run, Slip, StreamSlip, check, properties, refute,
};

/// Every property holds in every world of every case, the worlds are as many as committed, and
/// every property had something to judge in every case that carries it, but where it is said why not.
#[test]
fn every_property_holds() {
    for checked in CASES.iter().map(check) {
        let failures: Vec<_> = checked.failures.iter().map(ToString::to_string).collect();
        let (name, features) = (checked.case.name, checked.case.features);
        assert!(failures.is_empty(), "{name}, {features}:\n{}", failures.join("\n"));
    }
}

/// Every fault of a device and of a VMM is caught by every property that claims it.
#[test]
fn every_fault_is_caught() {
    for claim in CLAIMS.iter().filter(|claim| claim.level() == 1) {
        let Claim { fault, property, .. } = claim;
        assert!(refute(claim).is_some(), "{fault} survives {property} of {}", claim.model());
    }
}

/// No fault without a property that claims it, and no property that has never been seen to fail.
#[test]
fn everything_has_its_counterpart() {
    let bugs = Bug::ALL.iter().copied().map(Fault::Device);
    let slips = Slip::ALL.iter().copied().map(Fault::Vmm);
    let wrong = Design::ALL.iter().copied().filter(|&design| design != Design::Deferred);
    let between = StreamSlip::ALL.iter().copied().map(Fault::System);
    for fault in bugs.chain(slips).chain(wrong.map(Fault::Locks)).chain(between) {
        assert!(CLAIMS.iter().any(|claim| claim.fault == fault), "{fault}");
    }
    let claims: BTreeSet<_> = CLAIMS.iter().map(|claim| claim.property).collect();
    for property in properties() {
        assert!(claims.contains(property.id), "{} has never failed", property.id);
    }
}

fn refuted(property: &str) -> Run {
    let claim = CLAIMS.iter().find(|claim| claim.property == property);
    refute(claim.expect("it is claimed")).expect("it is refuted")
}

/// O4: without the assumption that no reset is done inside the SET, the claim is false.
#[test]
fn the_claim_needs_its_assumption() {
    let run = refuted("O2-without-assumption");
    println!("{run}");
    assert_eq!(run.steps.len(), 2, "SET(PRE_COPY), then SET(STOP_COPY) with the reset");
}

/// V9: without the assumption that the host leaves the device alone behind the last look at it, a
/// destination starts a blank one.
#[test]
fn the_destination_needs_its_assumption() {
    let run = refuted("V9-without-assumption");
    println!("{run}");
    let reset = run.steps.iter().position(|step| step.contains("RESET"));
    let look = run.steps.iter().rposition(|step| step.contains("GET state => RESUMING"));
    assert!(look.is_some() && (reset > look || reset.is_none()), "{run}");
}
