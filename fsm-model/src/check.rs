// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! Runs the checker, and does not believe it on its word.

use std::fmt;
use std::num::NonZeroUsize;
use std::sync::atomic::Ordering;
use std::thread;
use std::time::{Duration, Instant};

use stateright::{Checker, Model};

use crate::case::Case;
use crate::claim::Claim;
use crate::counterexample::Counterexample;
use crate::locks::Schedule;
use crate::scene::{ALL, OnScene, Scene, Stage, Verdicts};
use crate::search::{Found, Search};
use crate::system::EVERY_RUN_ENDS;
use crate::watch::{Cut, Watch};

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
    /// Why it was not finished: then it does not count as passed either, and the numbers are those
    /// of what was done.
    pub cut: Option<Cut>,
}

/// Who goes through the worlds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Engine {
    /// stateright, breadth first: knows a world again by 64 bits of its hash.
    #[default]
    Stateright,
    /// Our own explorer: knows a world again by all of it.
    Own,
}

/// How a check is done.
#[derive(Clone, Copy, Debug)]
pub struct How {
    /// By whom.
    pub engine: Engine,
    /// With how many threads.
    pub threads: NonZeroUsize,
    /// Whether worlds in which like devices have changed places may stand for each other. Only our
    /// own explorer does it; stateright's breadth-first search would ignore it without a word.
    pub symmetric: bool,
}

impl Default for How {
    /// By stateright, with a thread for each processor.
    fn default() -> Self {
        let threads = thread::available_parallelism().unwrap_or(NonZeroUsize::MIN);
        Self { engine: Engine::default(), threads, symmetric: false }
    }
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
    check_watched(case, How::default(), &Watch::new(None))
}

/// The same, done in this way, while somebody looks on who may end it.
pub fn check_watched(case: &'static Case, how: How, watch: &Watch) -> Checked {
    let started = Instant::now();
    let mut checked = case.with(Checking { case, how, watch });
    checked.cut = watch.cut();
    // A space that was cut short, by a broken property or by whoever looks on, has another size for
    // that reason, and what was judged in it says nothing.
    if checked.failures.is_empty() && checked.cut.is_none() {
        checked.follow();
        let committed = if how.symmetric { case.alike } else { case.states };
        checked.compare(committed, checked.states);
        let judged = checked.judged.iter();
        checked.failures.extend(judged.filter_map(|&(id, count)| idle(case, id, count)));
    }
    checked.time = started.elapsed();
    checked
}

impl Checked {
    /// Takes down how the runs end, where that is asked, on a graph that must have the same worlds.
    fn follow(&mut self) {
        if let Some(runs) = self.case.runs(None) {
            self.compare(self.states, runs.states);
            self.judged.push((EVERY_RUN_ENDS.id, runs.states as u64));
            self.failures.extend(runs.trap.map(Failure::Broken));
        }
    }

    fn compare(&mut self, committed: usize, seen: usize) {
        self.failures.extend((seen != committed).then_some(Failure::States { committed, seen }));
    }
}

struct Checking<'a> {
    case: &'static Case,
    how: How,
    watch: &'a Watch,
}

impl OnScene for Checking<'_> {
    type Output = Checked;

    fn on<S: Scene>(self, scene: S) -> Checked {
        match self.how.engine {
            Engine::Stateright => self.by_stateright(scene),
            Engine::Own => {
                let How { threads, symmetric, .. } = self.how;
                let threads = threads.get();
                let found = Search { scene: &scene, threads, symmetric, watch: self.watch }.run();
                self.checked(&scene, found)
            }
        }
    }
}

impl Checking<'_> {
    fn by_stateright<S: Scene>(&self, scene: S) -> Checked {
        let mut found = self.explored(Stage::at_once(scene.clone()));
        if !found.broken.is_empty() {
            // What else is, and how soon? Nothing, if it is cut short meanwhile.
            let each = self.explored(Stage::new(scene.clone()));
            found = if each.broken.is_empty() { found } else { each };
        }
        self.checked(&scene, found)
    }

    fn explored<S: Scene>(&self, stage: Stage<S>) -> Found<S::Action> {
        let stop = stage.stop();
        let checker = stage.checker().threads(self.how.threads.get()).spawn_bfs();
        while !checker.is_done() {
            // stateright has no other way to be ended from outside and still say what it found.
            stop.store(self.watch.is_over(), Ordering::Relaxed);
            let generated = checker.state_count();
            self.watch.tell(checker.unique_state_count(), generated, checker.max_depth());
            thread::sleep(Duration::from_micros(200 + generated as u64 / 100).min(LOOK));
        }
        let checker = checker.join();
        Found {
            states: checker.unique_state_count(),
            // It counts the initial world as generated, too.
            transitions: checker.state_count() - 1,
            depth: checker.max_depth(),
            judged: checker.model().judged(),
            broken: broken(&checker),
        }
    }

    fn checked<S: Scene>(&self, scene: &S, found: Found<S::Action>) -> Checked {
        let Found { states, transitions, depth, judged, broken } = found;
        let ids = scene.properties().into_iter().map(|property| property.id);
        let broken = broken.into_iter().map(|found| Failure::Broken(Run::new(scene, found)));
        Checked {
            case: self.case,
            states,
            transitions,
            depth,
            time: Duration::ZERO,
            judged: ids.zip(judged).collect(),
            failures: broken.collect(),
            cut: None,
        }
    }
}

/// How often a check by stateright is looked after, at the least.
const LOOK: Duration = Duration::from_millis(20);

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
        let first = broken(&checker).into_iter().next()?;
        Some(Run::new(&checker.model().scene, first))
    }
}

impl Run {
    fn new<S: Scene>(scene: &S, (property, actions): (usize, Vec<S::Action>)) -> Self {
        let property = scene.properties()[property].id;
        let (steps, replay) = (scene.narrate(&actions), scene.replay(property, &actions));
        Self { property, steps, replay }
    }
}

/// The broken properties, by number, each with a run, shortest first.
fn broken<S: Scene>(checker: &impl Checker<Stage<S>>) -> Vec<(usize, Vec<S::Action>)> {
    let properties = checker.model().scene.properties();
    let mut broken = Vec::new();
    for (asked, path) in checker.discoveries() {
        let violated = path.last_state().violated();
        let actions = path.into_actions();
        let meant = |&number: &usize| match asked {
            ALL => violated & 1 << number != 0,
            asked => properties[number].id == asked,
        };
        broken.extend((0..properties.len()).filter(meant).map(|number| (number, actions.clone())));
    }
    broken.sort_by_key(|(number, actions)| (actions.len(), *number));
    broken
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::case::BENCH_CASES;
    use crate::devices::{Devices, Fault};

    /// X3: a check that is asked for all properties at once says of each whether it is broken, with
    /// a run as short as those of a check that is asked for one after the other.
    #[test]
    fn what_is_broken_is_said_of_each() {
        let scene = Devices { count: 2, fault: Some(Fault::ResetsAll) };
        let how = How { threads: NonZeroUsize::MIN, ..How::default() };
        let checking = Checking { case: &BENCH_CASES[1], how, watch: &Watch::new(None) };
        let runs = |checked: Checked| -> Vec<(&'static str, usize)> {
            let run = |failure: Failure| match failure {
                Failure::Broken(run) => (run.property, run.steps.len()),
                other => panic!("{other}"),
            };
            checked.failures.into_iter().map(run).collect()
        };
        let stateright = runs(checking.by_stateright(scene));
        let own = runs(Checking { how: How { engine: Engine::Own, ..how }, ..checking }.on(scene));
        assert_eq!(stateright, own);
        assert!(!own.is_empty());
        // The first of them is all that the first question finds.
        let first = checking.explored(Stage::at_once(scene)).broken;
        assert_eq!(first.first().map(|(_, actions)| actions.len()), own.first().map(|run| run.1));
    }

    /// X3: what holds is judged as often however it is asked.
    #[test]
    fn what_holds_is_judged_as_often() {
        let scene = Devices { count: 2, fault: None };
        let checking =
            Checking { case: &BENCH_CASES[1], how: How::default(), watch: &Watch::new(None) };
        let at_once = checking.explored(Stage::at_once(scene));
        let each = checking.explored(Stage::new(scene));
        assert!(at_once.broken.is_empty() && each.broken.is_empty());
        assert_eq!(at_once.judged, each.judged);
        assert_eq!((at_once.states, at_once.transitions), (each.states, each.transitions));
        assert!(at_once.judged.iter().all(|&judged| judged > 0));
    }
}
