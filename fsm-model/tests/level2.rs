// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! Level 2 as a test: every three calls at once, every wrong design, the order of the locks, and
//! the claim that must fall.

#![expect(clippy::expect_used, reason = "helpers of tests may fail them")]

use std::collections::BTreeSet;

use vfio_fsm_model::{
    CLAIMS, Claim, Design, Fault, LOCK_CASES, Lock, Run, check, lock_order, refute,
};

/// Every property holds of the right design in every world of every case, the worlds are as many
/// as committed, and every property had something to judge where it is not said why not.
#[test]
fn every_property_holds() {
    for checked in LOCK_CASES.iter().map(check) {
        let failures: Vec<_> = checked.failures.iter().map(ToString::to_string).collect();
        assert!(failures.is_empty(), "{}:\n{}", checked.case.name, failures.join("\n"));
    }
}

/// Every wrong design is refused by every property that claims it.
#[test]
fn every_wrong_design_is_refused() {
    let of_level_2 = |claim: &&Claim| matches!(claim.fault, Fault::Locks(_));
    for claim in CLAIMS.iter().filter(of_level_2) {
        assert!(refute(claim).is_some(), "{} survives {}", claim.fault, claim.property);
    }
}

fn refused(design: Design, property: &str) -> Run {
    let mut claims = CLAIMS.iter();
    let claim =
        claims.find(|claim| claim.fault == Fault::Locks(design) && claim.property == property);
    refute(claim.expect("claimed")).expect("refused")
}

/// L2, C35: the lock-order graph of the right design has no cycle, whatever two calls meet.
#[test]
fn the_locks_have_an_order() {
    let order = lock_order(Design::Deferred);
    assert_eq!(order.circle(), BTreeSet::new(), "{order}");
    // There is an order because there is something to be ordered.
    for edge in [
        (Lock::State, Lock::File),
        (Lock::File, Lock::Mmap),
        (Lock::Mmap, Lock::Memory),
        (Lock::Memory, Lock::Gate),
    ] {
        assert!(order.edges().any(|other| other == edge), "{edge:?} is not in\n{order}");
    }
}

/// L2, C35: a reset handler that waits for state_mutex closes the cycle of four locks, and one that
/// locks the file the cycle of three, deferred or not.
#[test]
fn the_cycles_are_those_that_drivers_have() {
    let three = BTreeSet::from([Lock::File, Lock::Mmap, Lock::Memory]);
    let mut four = three.clone();
    four.insert(Lock::State);
    assert_eq!(lock_order(Design::PlainMutex).circle(), four);
    assert_eq!(lock_order(Design::PlainMutexCopies).circle(), four);
    assert_eq!(lock_order(Design::ResetLocksFile).circle(), three);
}

/// C30, C35: the plain mutex needs a third call for its deadlock, as the four locks are held by
/// three; with the file locked by the reset, two are enough.
#[test]
fn the_deadlocks_are_shortest() {
    let threads = |design| {
        let run = refused(design, "locks-no-deadlock");
        run.steps.iter().filter(|step| step.contains(" waits for ")).count()
    };
    assert_eq!(threads(Design::PlainMutex), 3);
    assert_eq!(threads(Design::PlainMutexCopies), 2);
    assert_eq!(threads(Design::ResetLocksFile), 2);
}

/// C34: the work item leaves a GET that begins after the reset has returned the old state.
#[test]
fn the_work_queue_leaves_a_stale_get() {
    let run = refused(Design::WorkQueue, "locks-reset-before-it-returns");
    let place = |text: &str| run.steps.iter().position(|step| step.contains(text));
    let (reset, get) = (place("reset returns ok"), place("GET begins"));
    assert!(reset.is_some() && reset < get && get < place("GET returns PRE_COPY"), "{run}");
}

/// L6: without the licence the claim is false: a read that begins after a reset has returned still
/// reaches the old session, as long as a call has the reset to do.
#[test]
fn a_read_may_come_before_a_reset_that_has_returned() {
    let claim = CLAIMS.iter().find(|it| it.property == "locks-reset-over-when-it-returns");
    let run = refute(claim.expect("claimed")).expect("refuted");
    let place = |text: &str| run.steps.iter().position(|step| step.contains(text));
    let (reset, read) = (place("reset returns ok"), place("read begins"));
    assert!(reset.is_some() && reset < read && read < place("carries the reset out"), "{run}");
}
