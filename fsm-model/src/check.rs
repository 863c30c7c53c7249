// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! Runs the checker, and does not believe it on its word.

use std::fmt;
use std::time::{Duration, Instant};

use stateright::{Checker, Model};
use vfio_fsm_core::Features;
use vfio_fsm_core::device::Planted;

use crate::counterexample::Counterexample;
use crate::mutant::Mutant;
use crate::property::{CLAIM_WITHOUT_ASSUMPTION, PROPERTIES, Property};
use crate::protocol::Protocol;

/// The reachable worlds of each of [`Features::SETS`]. A change here is a change of meaning.
const STATES: [usize; 4] = [3908, 4408, 11120, 13948];

/// What a check came to.
#[derive(Debug)]
pub struct Checked {
    /// The flags of the device.
    pub features: Features,
    /// Distinct worlds.
    pub states: usize,
    /// Steps between them.
    pub transitions: usize,
    /// The longest of the shortest paths to a world.
    pub depth: usize,
    /// How long it took.
    pub time: Duration,
    /// Each property, and how often it had something to judge.
    pub judged: Vec<(&'static str, u64)>,
    /// Why it does not count as passed.
    pub failures: Vec<Failure>,
}

/// Why a check does not count as passed.
#[derive(Debug)]
pub enum Failure {
    /// A property is broken.
    Broken(Counterexample),
    /// The space is not the committed one: something was lost, or the meaning has changed.
    States {
        /// The committed number.
        committed: usize,
        /// The number of this run.
        seen: usize,
    },
    /// A property never had anything to judge.
    Idle(&'static str),
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Broken(counterexample) => counterexample.fmt(f),
            Self::States { committed, seen } => write!(
                f,
                "{seen} states where {committed} are committed: if the change of meaning is \
                 wanted, commit the new number with it"
            ),
            Self::Idle(property) => write!(f, "{property} had nothing to judge"),
        }
    }
}

/// How a claim that is too strong was refuted.
#[derive(Debug)]
pub struct Refutation {
    /// The claim.
    pub claim: &'static Property,
    /// The run that breaks it; `None` if none was found, and then something is wrong.
    pub counterexample: Option<Counterexample>,
}

/// Check every property in every world that a device with these flags can get into.
pub fn check(features: Features) -> Checked {
    let started = Instant::now();
    let checker = Protocol::new(features).checker().spawn_bfs().join();
    let model = checker.model();
    let numbered = PROPERTIES.iter().enumerate();
    let judged: Vec<_> = numbered.map(|(index, it)| (it.id, model.judged(index))).collect();
    let seen = checker.unique_state_count();
    let mut failures: Vec<Failure> = broken(&checker).map(Failure::Broken).collect();
    let committed = Features::SETS.iter().position(|&set| set == features).map(|i| STATES[i]);
    if let Some(committed) = committed.filter(|&committed| committed != seen) {
        failures.push(Failure::States { committed, seen });
    }
    let idle = judged.iter().filter(|(id, count)| *count == 0 && applies(id, features));
    failures.extend(idle.map(|(id, _)| Failure::Idle(id)));
    Checked {
        features,
        states: seen,
        transitions: checker.state_count(),
        depth: checker.max_depth(),
        time: started.elapsed(),
        judged,
        failures,
    }
}

/// Without PRE_COPY nobody believes in a pre-copy state.
fn applies(property: &str, features: Features) -> bool {
    let pre_copy_only = ["O2-fd-tells", "O3-cancel-is-noop"].contains(&property);
    features.pre_copy() || !pre_copy_only
}

/// The run by which the property that claims this bug catches it; `None` if the bug survives.
pub fn check_mutant(mutant: &Mutant) -> Option<Counterexample> {
    let property = PROPERTIES.iter().find(|property| property.id == mutant.property)?;
    first_broken(Protocol::mutant(mutant.features, mutant.bug, std::slice::from_ref(property)))
}

/// Show that the seed thread's claim needs its unspoken assumption: a run in which the reset is
/// done inside the very SET that is meant to reveal it (O4).
pub fn refute() -> Refutation {
    let claim = &CLAIM_WITHOUT_ASSUMPTION[0];
    let model = Protocol::with(Features::ALL, Planted::NONE, CLAIM_WITHOUT_ASSUMPTION);
    Refutation { claim, counterexample: first_broken(model) }
}

fn first_broken(model: Protocol) -> Option<Counterexample> {
    // One thread: only then is the first path found a shortest one.
    let checker = model.checker().threads(1).spawn_bfs().join();
    broken(&checker).next()
}

fn broken(checker: &impl Checker<Protocol>) -> impl Iterator<Item = Counterexample> {
    let model = checker.model();
    let mut found: Vec<_> = checker.discoveries().into_iter().collect();
    found.sort_by_key(|(id, path)| (path.clone().into_actions().len(), *id));
    found.into_iter().map(|(id, path)| Counterexample::new(model, id, path.into_actions()))
}
