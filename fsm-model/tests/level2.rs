// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! Level 2 as a test: every three calls at once, every wrong design, and the order of the locks.

use vfio_fsm_model::{
    Design, LOCK_CASES, LOCK_MUTANTS, Lock, check, check_lock_mutant, lock_order, refute_reset,
};

/// Every property holds of the right design in every world of every case, and the worlds are as
/// many as committed.
#[test]
fn every_property_holds() {
    for checked in LOCK_CASES.iter().map(check) {
        let failures: Vec<_> = checked.failures.iter().map(ToString::to_string).collect();
        println!("{} {} states {} steps depth {} {:?} {:?}", checked.case.name, checked.states, checked.transitions, checked.depth, checked.time, checked.judged);
        assert!(failures.is_empty(), "{}:\n{}", checked.case.name, failures.join("\n"));
    }
}

/// Every wrong design is refused by every property that claims it.
#[test]
fn every_wrong_design_is_refused() {
    for claim in LOCK_MUTANTS {
        let caught = check_lock_mutant(claim);
        println!("{} {:?}", claim.design.slug(), caught.as_ref().map(|run| run.steps.len()));
        if let Some(run) = &caught {println!("{run}");}
        assert!(caught.is_some(), "{} survives {}", claim.design.slug(), claim.property);
    }
}

#[test]
fn order() {
    for &d in Design::ALL { let o = lock_order(d); println!("{} circle {:?}\n{o}", d.slug(), o.circle()); }
}

#[test]
fn refu() {
    let r = refute_reset(); println!("{}", r.run.unwrap());
    let _ = Lock::ALL;
}
