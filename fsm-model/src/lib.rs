// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! The protocol, checked: every state that a VMM, a device and its resets can get into.
//!
//! The device in the models is [`vfio_fsm_core::device::Device`] itself, and the VMM is either one
//! that may do anything or [`vfio_fsm_core::vmm::Saver`], [`Loader`] and [`Group`] themselves: what
//! is checked is what ships. [`CASES`] are the models, [`properties`] is what must hold in them,
//! [`MUTANTS`] are the bugs in a device and [`SLIPS`] those of a VMM that show each property can
//! fail, and a [`Counterexample`] is a run that breaks one.
//!
//! That is level 1, at which an op is one step. At level 2 ops are taken apart and meet each other and
//! the kernel's locks: [`LOCK_CASES`] are its models, and [`LOCK_MUTANTS`] the designs of a driver
//! that its properties refuse. Level 3 is two machines and the streams between them:
//! [`SYSTEM_CASES`], [`SYSTEM_CLAIMS`] and [`SYSTEM_REFUTATIONS`].
//!
//! What stateright does not do by itself is seen to here: a check that explores nothing passes
//! there, so [`check`] compares the number of states with the committed one, and [`idle`] names the
//! properties that never had anything to judge.
//!
//! [`Loader`]: vfio_fsm_core::vmm::Loader
//! [`Group`]: vfio_fsm_core::vmm::Group

mod case;
mod check;
mod counterexample;
pub mod graph;
mod locks;
mod mutant;
mod property;
mod protocol;
mod scene;
mod session;
mod system;
mod world;

pub use case::{CASES, Case, LOCK_CASES, LOCK_MUTANTS, LockClaim, SLIPS, SlipClaim};
pub use check::{
    Checked, Failure, Refutation, Run, check, check_lock_mutant, check_mutant, check_slip, idle,
    refute, refute_load, refute_reset,
};
pub use counterexample::{CounterStep, Counterexample};
pub use locks::{Design, Lock, LockOrder, lock_order};
pub use mutant::{MUTANTS, Mutant};
pub use property::Property;
pub use session::slip::Slip;
pub use system::{
    SYSTEM_CASES, SYSTEM_CLAIMS, SYSTEM_REFUTATIONS, Serialisation, StreamSlip, SystemCase,
    SystemChecked, SystemClaim, SystemRefutation, SystemRuns, Wrong, check_system,
    check_system_claim, check_system_runs, refute_system,
};
pub use world::Actor;

/// What must hold, of all models.
pub fn properties() -> impl Iterator<Item = &'static Property> {
    fn of<C>(rules: &'static [property::Rule<C>]) -> impl Iterator<Item = &'static Property> {
        rules.iter().map(|rule| &rule.property)
    }
    let sessions = of(session::source::RULES).chain(of(session::destination::RULES));
    let level1 = of(property::RULES).chain(sessions).chain(of(session::group::RULES));
    let system = of(system::System::<1>::RULES).chain([&system::EVERY_RUN_ENDS]);
    level1.chain(of(locks::RULES)).chain(system)
}
