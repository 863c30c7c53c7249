// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! The model check as a test: every flag set, every mutant, and the claim that must fall.

use vfio_fsm_core::Features;
use vfio_fsm_core::device::Bug;
use vfio_fsm_model::{MUTANTS, PROPERTIES, check, check_mutant, refute};

/// Every property holds in every world of every flag set, and the worlds are as many as committed.
#[test]
fn every_property_holds() {
    for features in Features::SETS {
        let checked = check(features);
        println!(
            "{features}: {} states, {} transitions, depth {}, {:?}",
            checked.states, checked.transitions, checked.depth, checked.time
        );
        let failures: Vec<_> = checked.failures.iter().map(ToString::to_string).collect();
        assert!(failures.is_empty(), "{features}:\n{}", failures.join("\n"));
    }
}

/// Every bug is caught by every property that claims it.
#[test]
fn every_mutant_is_caught() {
    for mutant in MUTANTS {
        let caught = check_mutant(mutant);
        assert!(caught.is_some(), "{} survives {}", mutant.bug.slug(), mutant.property);
    }
}

/// No bug without a property that claims it, and no property that has never been seen to fail.
#[test]
fn every_bug_and_every_property_has_its_mutant() {
    for bug in Bug::ALL {
        assert!(MUTANTS.iter().any(|mutant| mutant.bug == *bug), "{}", bug.slug());
    }
    for property in PROPERTIES {
        assert!(MUTANTS.iter().any(|mutant| mutant.property == property.id), "{}", property.id);
    }
}

/// O4: without the assumption that no reset is done inside the SET, the claim is false.
#[test]
fn the_claim_needs_its_assumption() {
    let refutation = refute();
    let counterexample = refutation.counterexample.expect("the claim is refuted");
    println!("{counterexample}");
    assert_eq!(counterexample.steps.len(), 2, "SET(PRE_COPY), then SET(STOP_COPY) with the reset");
}
