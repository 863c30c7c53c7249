// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! The model check as a test: every case, every planted bug, every slip, and the claims that must
//! fall.

use std::collections::BTreeSet;

use vfio_fsm_core::device::Bug;
use vfio_fsm_model::{
    CASES, LOCK_MUTANTS, MUTANTS, SLIPS, Slip, check, check_mutant, check_slip, idle, properties,
    refute, refute_load,
};

/// Every property holds in every world of every case, the worlds are as many as committed, and
/// every property had something to judge.
#[test]
fn every_property_holds() {
    let checks: Vec<_> = CASES.iter().map(check).collect();
    for checked in &checks {
        let failures: Vec<_> = checked.failures.iter().map(ToString::to_string).collect();
        let (name, features) = (checked.case.name, checked.case.features);
        assert!(failures.is_empty(), "{name}, {features}:\n{}", failures.join("\n"));
    }
    let idle = idle(&checks);
    assert!(idle.is_empty(), "nothing to judge for {idle:?}");
}

/// Every bug of the device is caught by every property that claims it.
#[test]
fn every_mutant_is_caught() {
    for mutant in MUTANTS {
        let caught = check_mutant(mutant);
        assert!(caught.is_some(), "{} survives {}", mutant.bug.slug(), mutant.property);
    }
}

/// Every slip of the VMM is caught by every property that claims it.
#[test]
fn every_slip_is_caught() {
    for claim in SLIPS {
        let caught = check_slip(claim);
        let (slip, model) = (claim.slip.slug(), claim.model());
        assert!(caught.is_some(), "{slip} survives {} of {model}", claim.property);
    }
}

/// No bug and no slip without a property that claims it, and no property that has never been seen
/// to fail.
#[test]
fn everything_has_its_counterpart() {
    for bug in Bug::ALL {
        assert!(MUTANTS.iter().any(|mutant| mutant.bug == *bug), "{}", bug.slug());
    }
    for slip in Slip::ALL {
        assert!(SLIPS.iter().any(|claim| claim.slip == *slip), "{}", slip.slug());
    }
    let claims = MUTANTS.iter().map(|mutant| mutant.property);
    let claims = claims.chain(SLIPS.iter().map(|claim| claim.property));
    let claims = claims.chain(LOCK_MUTANTS.iter().map(|claim| claim.property));
    let claims: BTreeSet<_> = claims.collect();
    for property in properties() {
        assert!(claims.contains(property.id), "{} has never failed", property.id);
    }
}

/// O4: without the assumption that no reset is done inside the SET, the claim is false.
#[test]
fn the_claim_needs_its_assumption() {
    let run = refute().run.expect("the claim is refuted");
    println!("{run}");
    assert_eq!(run.steps.len(), 2, "SET(PRE_COPY), then SET(STOP_COPY) with the reset");
}

/// V9: without the assumption that the host leaves the device alone behind the last look at it, a
/// destination starts a blank one.
#[test]
fn the_destination_needs_its_assumption() {
    let run = refute_load().run.expect("the claim is refuted");
    println!("{run}");
    let reset = run.steps.iter().position(|step| step.contains("RESET"));
    let look = run.steps.iter().rposition(|step| step.contains("GET state => RESUMING"));
    assert!(look.is_some() && (reset > look || reset.is_none()), "{run}");
}
