// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! Runs the checker, and does not believe it on its word.

use std::fmt;
use std::time::{Duration, Instant};

use stateright::{Checker, Model};

use crate::case::Case;
use crate::claim::Claim;
use crate::counterexample::Counterexample;
use crate::locks::Schedule;
use crate::scene::{OnScene, Scene, Stage};
use crate::system::{EVERY_RUN_ENDS, Runs};

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
    /// A property had nothing to judge, and nothing says that this is meant.
    Idle {
        /// Which property.
        property: &'static str,
    },
    /// A property that is said to have nothing to judge had something.
    NotIdle {
        /// Which property.
        property: &'static str,
        /// Why it should have had nothing.
        why: &'static str,
    },
}

/// A run that breaks a property.
#[derive(Clone, Debug)]
pub struct Run {
    /// Which property.
    pub property: &'static str,
    /// What was done, in order, and what came of it.
    pub steps: Vec<String>,
    /// The same, to be run again; `None` at level 3, where the text is all there is.
    pub replay: Option<Replay>,
}

/// A run, to be run again.
#[derive(Clone, Debug)]
pub enum Replay {
    /// At level 1: what the devices are asked. Any device can be asked the same.
    Trace(Counterexample),
    /// At level 2: whose turn it is. Only the model can be made to take these turns.
    Schedule(Schedule),
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
            Self::Idle { property } => write!(
                f,
                "{property} had nothing to judge: let it have something here, or list it with \
                 the reason among the silences of the case"
            ),
            Self::NotIdle { property, why } => write!(
                f,
                "{property} had something to judge and is listed as silent ({why}): take it off \
                 the list"
            ),
        }
    }
}

/// Check every property in every world of a case.
pub fn check(case: &'static Case) -> Checked {
    let mut checked = case.with(Checking(case));
    checked.follow(case.runs(None));
    checked
}

impl Checked {
    /// Takes down how the runs end, on a graph that must have the same worlds.
    fn follow(&mut self, runs: Option<Runs>) {
        let Some(Runs { states: seen, trap }) = runs else { return };
        let committed = self.states;
        self.judged.push((EVERY_RUN_ENDS.id, seen as u64));
        self.failures.extend((seen != committed).then_some(Failure::States { committed, seen }));
        self.failures.extend(trap.map(Failure::Broken));
    }
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
        let judged = checker.model().judged();
        // A space that was cut short by a broken property has another size for that reason, and
        // what was judged in it says nothing.
        if failures.is_empty() {
            failures.extend((seen != committed).then_some(Failure::States { committed, seen }));
            failures.extend(judged.iter().filter_map(|&(id, count)| idle(self.0, id, count)));
        }
        Checked {
            case: self.0,
            states: seen,
            transitions: checker.state_count(),
            depth: checker.max_depth(),
            time: started.elapsed(),
            judged,
            failures,
        }
    }
}

/// Whether a property that was judged so often should have been.
fn idle(case: &Case, property: &'static str, count: u64) -> Option<Failure> {
    match (count, case.silence(property)) {
        (0, None) => Some(Failure::Idle { property }),
        (1.., Some(silence)) => Some(Failure::NotIdle { property, why: silence.why }),
        _ => None,
    }
}

/// The shortest run that breaks the property of a claim; `None` if the fault survives it.
pub fn refute(claim: &Claim) -> Option<Run> {
    if claim.property == EVERY_RUN_ENDS.id {
        return claim.case.runs(Some(claim.fault))?.trap;
    }
    claim.case.scene(Some(claim.fault), Some(claim.property), Refuting)
}

struct Refuting;

impl OnScene for Refuting {
    type Output = Option<Run>;

    fn on<S: Scene>(self, scene: S) -> Option<Run> {
        // One thread: only then is the first path found a shortest one.
        let checker = Stage::new(scene).checker().threads(1).spawn_bfs().join();
        broken(&checker).next()
    }
}

fn broken<S: Scene>(checker: &impl Checker<Stage<S>>) -> impl Iterator<Item = Run> {
    let scene = &checker.model().scene;
    let runs = discoveries(checker).into_iter();
    runs.map(|(property, actions)| {
        let (steps, replay) = (scene.narrate(&actions), scene.replay(property, &actions));
        Run { property, steps, replay }
    })
}

/// The broken properties, each with a run, shortest first.
fn discoveries<S: Scene>(checker: &impl Checker<Stage<S>>) -> Vec<(&'static str, Vec<S::Action>)> {
    let found = checker.discoveries().into_iter();
    let mut found: Vec<_> = found.map(|(id, path)| (id, path.into_actions())).collect();
    found.sort_by_key(|(id, actions)| (actions.len(), *id));
    found
}
