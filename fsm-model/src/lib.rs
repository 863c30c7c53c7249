// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! The protocol, checked: every state that a VMM, a device and its resets can get into.
//!
//! The device in the model is [`vfio_fsm_core::device::Device`] itself, so what is checked is what
//! ships. [`Protocol`] is the model, [`PROPERTIES`] is what must hold in it, [`MUTANTS`] are the
//! bugs that show each property can fail, and a [`Counterexample`] is a run that breaks one.
//!
//! What stateright does not do by itself is seen to here: a check that explores nothing passes
//! there, so [`check`] compares the number of states with the committed one and counts how often
//! each property had anything to judge.

mod check;
mod counterexample;
mod mutant;
mod property;
mod protocol;
mod world;

pub use check::{Checked, Failure, Refutation, check, check_mutant, refute};
pub use counterexample::{CounterStep, Counterexample};
pub use mutant::{MUTANTS, Mutant};
pub use property::{CLAIM_WITHOUT_ASSUMPTION, PROPERTIES, Property};
pub use protocol::Protocol;
pub use world::{Action, Actor, Belief, World};
