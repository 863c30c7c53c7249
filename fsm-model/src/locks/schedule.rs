// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! A run of threads as a list of turns: to be kept in a file, and taken again.

use serde::{Deserialize, Serialize};

use crate::locks::design::Design;
use crate::locks::rules::{CLAIM_WITHOUT_LICENCE, RULES};
use crate::locks::{Action, CALLERS, Locks, Program, STARTS, WORKER, scenario};
use crate::scene::{Judged, Stage};

/// Whose turn it is, step by step. Threads are counted from 1; behind the last is the kernel's
/// worker.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Schedule {
    /// The design that these turns were found against, by its slug.
    pub design: String,
    /// The property that breaks.
    pub property: String,
    /// The state in which the threads find the device, as the kernel names it.
    pub start: String,
    /// The calls that each thread makes, one after the other.
    pub calls: Vec<Vec<String>>,
    /// One step each.
    pub turns: Vec<u8>,
}

/// A schedule that cannot be taken.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ScheduleError {
    /// There is no such property.
    #[error("no property of the locks is named {0:?}; `check --properties` prints them")]
    Property(String),
    /// Nothing begins there.
    #[error("threads do not begin in {0:?}; they do in RUNNING, PRE_COPY, STOP_COPY and RESUMING")]
    Start(String),
    /// These calls do not meet in the model.
    #[error("{0:?} do not meet in the model; see fsm-model/src/locks/scenario.rs for what does")]
    Calls(Vec<Vec<String>>),
    /// There is no such thread.
    #[error("turn {turn} is of thread {thread}, and there are 1 to {}", WORKER + 1)]
    Thread {
        /// Which turn, counted from 1.
        turn: usize,
        /// Whose it would be.
        thread: u8,
    },
}

impl Schedule {
    /// Take the turns under a design, and say with which of them, counted from 1, the property
    /// breaks; `None` if it does not.
    ///
    /// Under another design a call has other steps. So a thread that cannot go on misses its turn,
    /// and when all turns are taken whoever can goes on, the first thread first, to the end.
    ///
    /// # Errors
    ///
    /// If the schedule names what there is not.
    pub fn replay(&self, design: Design) -> Result<Option<usize>, ScheduleError> {
        let rules = RULES.iter().chain(CLAIM_WITHOUT_LICENCE);
        let rule = rules.clone().find(|rule| rule.property.id == self.property);
        let rule = rule.ok_or_else(|| ScheduleError::Property(self.property.clone()))?;
        let start = STARTS.into_iter().find(|start| start.to_string() == self.start);
        let start = start.ok_or_else(|| ScheduleError::Start(self.start.clone()))?;
        let cast = scenario::from(start).iter().position(|programs| names(programs) == self.calls);
        let cast = cast.ok_or_else(|| ScheduleError::Calls(self.calls.clone()))?;
        let turns = (1..).zip(&self.turns).map(|(turn, &thread)| match thread {
            1.. if usize::from(thread) <= WORKER + 1 => Ok(usize::from(thread) - 1),
            _ => Err(ScheduleError::Thread { turn, thread }),
        });
        let turns: Vec<usize> = turns.collect::<Result<_, _>>()?;
        let scene = Locks::new(start, design, std::slice::from_ref(rule));
        Ok(Replaying::new(scene, cast).take(&turns))
    }
}

struct Replaying {
    stage: Stage<Locks>,
    at: Judged<super::World>,
}

impl Replaying {
    fn new(scene: Locks, cast: usize) -> Self {
        let stage = Stage::new(scene);
        let at = stage.begin();
        let at = stage.go(&at, Action::Cast(cast));
        Self { stage, at }
    }

    fn take(mut self, turns: &[usize]) -> Option<usize> {
        for (turn, &who) in (1..).zip(turns) {
            if self.at.world.can_go(who) {
                self.at = self.stage.go(&self.at, Action::Go(who));
            }
            if self.at.is_broken() {
                return Some(turn);
            }
        }
        let mut turn = turns.len();
        while let Some(who) = (0..=WORKER).find(|&who| self.at.world.can_go(who)) {
            turn += 1;
            self.at = self.stage.go(&self.at, Action::Go(who));
            if self.at.is_broken() {
                return Some(turn);
            }
        }
        None
    }
}

/// The calls of each thread that makes any, by name.
fn names(programs: &[Program; CALLERS]) -> Vec<Vec<String>> {
    let calls = programs.iter().map(|program| program.iter().flatten());
    calls
        .map(|calls| calls.map(ToString::to_string).collect())
        .filter(|calls: &Vec<_>| !calls.is_empty())
        .collect()
}

impl Locks {
    pub(super) fn schedule(&self, property: &str, actions: &[Action]) -> Schedule {
        let mut schedule = Schedule {
            design: self.design.slug().to_owned(),
            property: property.to_owned(),
            start: self.start.to_string(),
            calls: Vec::new(),
            turns: Vec::new(),
        };
        for action in actions {
            match *action {
                Action::Cast(index) => schedule.calls = names(&self.scenarios[index]),
                Action::Go(who) => schedule.turns.push(who as u8 + 1),
            }
        }
        schedule
    }
}
