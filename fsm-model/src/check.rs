// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! Runs the checker, and does not believe it on its word.

use std::fmt;
use std::time::{Duration, Instant};

use stateright::{Checker, Model};
use vfio_fsm_core::Features;
use vfio_fsm_core::device::Planted;

use crate::case::{Case, LockClaim, SlipClaim, l6_without_licence, v9_without_assumption};
use crate::counterexample::Counterexample;
use crate::mutant::Mutant;
use crate::property::{CLAIM_WITHOUT_ASSUMPTION, Property, RULES};
use crate::protocol::Protocol;
use crate::scene::{OnScene, Scene, Stage};

/// What a check came to.
#[derive(Debug)]
pub struct Checked {
    /// What was checked.
    pub case: &'static Case,
    /// Distinct worlds.
    pub states: usize,
    /// Steps between them.
    pub transitions: usize,
    /// The longest of the paths to a world that were found first.
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
    Broken(Run),
    /// The space is not the committed one: something was lost, or the meaning has changed.
    States {
        /// The committed number.
        committed: usize,
        /// The number of this run.
        seen: usize,
    },
}

/// A run that breaks a property.
#[derive(Clone, Debug)]
pub struct Run {
    /// Which property.
    pub property: &'static str,
    /// What was done, in order, and what came of it.
    pub steps: Vec<String>,
}

impl fmt::Display for Run {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "{} is broken:", self.property)?;
        (1..).zip(&self.steps).try_for_each(|(number, step)| writeln!(f, "{number:>3}. {step}"))
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Broken(run) => run.fmt(f),
            Self::States { committed, seen } => write!(
                f,
                "{seen} states where {committed} are committed: if the change of meaning is \
                 wanted, commit the new number with it"
            ),
        }
    }
}

/// How a claim that is too strong was refuted.
#[derive(Debug)]
pub struct Refutation<T> {
    /// The claim.
    pub claim: &'static Property,
    /// The run that breaks it; `None` if none was found, and then something is wrong.
    pub run: Option<T>,
}

/// Check every property in every world of a case.
pub fn check(case: &'static Case) -> Checked {
    case.with(Checking(case))
}

struct Checking(&'static Case);

impl OnScene for Checking {
    type Output = Checked;

    fn on<S: Scene>(self, scene: S) -> Checked {
        let started = Instant::now();
        let threads = std::thread::available_parallelism().map_or(1, usize::from);
        let checker = Stage::new(scene).checker().threads(threads).spawn_bfs().join();
        let (seen, committed) = (checker.unique_state_count(), self.0.states);
        let mut failures: Vec<Failure> = broken(&checker).map(Failure::Broken).collect();
        // A space that was cut short by a broken property has another size for that reason.
        if seen != committed && failures.is_empty() {
            failures.push(Failure::States { committed, seen });
        }
        Checked {
            case: self.0,
            states: seen,
            transitions: checker.state_count(),
            depth: checker.max_depth(),
            time: started.elapsed(),
            judged: checker.model().judged(),
            failures,
        }
    }
}

/// Properties of these checks that had nothing to judge in any of them.
pub fn idle(checks: &[Checked]) -> Vec<&'static str> {
    let counts = |id| {
        let all = checks.iter().flat_map(|check| &check.judged);
        all.filter(move |&&(judged, _)| judged == id).map(|&(_, count)| count)
    };
    let ids = crate::properties().map(|property| property.id);
    ids.filter(|&id| counts(id).next().is_some() && counts(id).sum::<u64>() == 0).collect()
}

/// The run by which the property that claims this bug catches it; `None` if the bug survives.
pub fn check_mutant(mutant: &Mutant) -> Option<Counterexample> {
    let rule = RULES.iter().find(|rule| rule.property.id == mutant.property)?;
    let scene = Protocol::mutant(mutant.features, mutant.bug, std::slice::from_ref(rule));
    first_counterexample(scene)
}

/// The run by which the property that claims this slip of a VMM catches it; `None` if it survives.
pub fn check_slip(claim: &SlipClaim) -> Option<Run> {
    claim.with(First)
}

/// The run by which the property that claims this design of the locks refuses it; `None` if it
/// survives.
pub fn check_lock_mutant(claim: &LockClaim) -> Option<Run> {
    claim.with(First)
}

pub(crate) struct First;

impl OnScene for First {
    type Output = Option<Run>;

    fn on<S: Scene>(self, scene: S) -> Option<Run> {
        // One thread: only then is the first path found a shortest one.
        let checker = Stage::new(scene).checker().threads(1).spawn_bfs().join();
        broken(&checker).next()
    }
}

/// Show that the seed thread's claim needs its unspoken assumption: a run in which the reset is
/// done inside the very SET that is meant to reveal it (O4).
pub fn refute() -> Refutation<Counterexample> {
    let claim = &CLAIM_WITHOUT_ASSUMPTION[0].property;
    let scene = Protocol::with(Features::ALL, Planted::NONE, CLAIM_WITHOUT_ASSUMPTION);
    Refutation { claim, run: first_counterexample(scene) }
}

/// Show that a destination needs its host to keep still: a run in which the device is reset behind
/// the last look at it, and started blank (V9).
pub fn refute_load() -> Refutation<Run> {
    let (claim, run) = v9_without_assumption(First);
    Refutation { claim, run }
}

/// Show that a reset is not over for everybody when it returns: a run in which a `read` that begins
/// later still reaches the old session, as the reset was left to a SET under way (L6).
pub fn refute_reset() -> Refutation<Run> {
    let (claim, run) = l6_without_licence(First);
    Refutation { claim, run }
}

fn first_counterexample(scene: Protocol) -> Option<Counterexample> {
    let checker = Stage::new(scene).checker().threads(1).spawn_bfs().join();
    let (id, path) = discoveries(&checker).into_iter().next()?;
    Some(Counterexample::new(&checker.model().scene, id, path))
}

pub(crate) fn broken<S: Scene>(checker: &impl Checker<Stage<S>>) -> impl Iterator<Item = Run> {
    let scene = &checker.model().scene;
    let runs = discoveries(checker).into_iter();
    runs.map(|(property, actions)| Run { property, steps: scene.narrate(&actions) })
}

/// The broken properties, each with a run, shortest first.
fn discoveries<S: Scene>(checker: &impl Checker<Stage<S>>) -> Vec<(&'static str, Vec<S::Action>)> {
    let found = checker.discoveries().into_iter();
    let mut found: Vec<_> = found.map(|(id, path)| (id, path.into_actions())).collect();
    found.sort_by_key(|(id, actions)| (actions.len(), *id));
    found
}
