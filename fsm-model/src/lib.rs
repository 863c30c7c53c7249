// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! The protocol, checked: every state that a VMM, a device and its resets can get into.
//!
//! The device in the models is [`vfio_fsm_core::device::Device`] itself, and the VMM is either one
//! that may do anything or [`vfio_fsm_core::vmm::Saver`], [`Loader`] and [`Group`] themselves: what
//! is checked is what ships. [`CASES`] are the models, and [`properties`] is what must hold in them.
//! That is level 1, at which an op is one step. At level 2 ops are taken apart and meet each other
//! and the kernel's locks: [`LOCK_CASES`] are its models. Level 3 is two machines and the streams
//! between them: [`SYSTEM_CASES`], and [`LARGE_SYSTEM_CASES`], which take minutes.
//!
//! [`CLAIMS`] show that each property can fail: a [`Fault`] is planted in the device, in a VMM,
//! between two of them or in the way a driver takes its locks, or an assumption is dropped, and
//! [`refute`] finds the shortest [`Run`] that breaks the property. At level 1 it is a
//! [`Counterexample`] too, to be replayed on any device, and at level 2 a [`Schedule`], to be
//! replayed in the model.
//!
//! What stateright does not do by itself is seen to here: a check that explores nothing passes
//! there, so [`check`] compares the number of states with the committed one, and fails where a
//! property had nothing to judge and nobody has said why.
//!
//! [`Loader`]: vfio_fsm_core::vmm::Loader
//! [`Group`]: vfio_fsm_core::vmm::Group

mod case;
mod check;
mod claim;
mod counterexample;
mod devices;
mod exhibit;
pub mod graph;
mod locks;
mod property;
mod protocol;
mod scene;
mod search;
mod session;
mod system;
mod watch;
mod world;

pub use case::{BENCH_CASES, CASES, Case, LOCK_CASES};
pub use check::{Checked, Engine, Failure, How, Replay, Run, check, check_watched, refute};
pub use claim::{CLAIMS, Claim, Fault};
pub use counterexample::{CounterStep, Counterexample};
pub use exhibit::exhibit;
pub use locks::{Design, Lock, LockOrder, Schedule, ScheduleError, lock_order};
pub use property::Property;
pub use session::slip::Slip;
pub use system::{LARGE_SYSTEM_CASES, SYSTEM_CASES, StreamSlip};
pub use watch::{Cut, Progress, Watch};
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

/// The README's code is compiled and run.
#[cfg(doctest)]
#[doc = include_str!("../README.md")]
struct Readme;
