// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! Level 2: the driver taken apart into steps, its locks, and the locks of the kernel around it.
mod call;
mod design;
mod history;
mod order;
mod rules;
mod scenario;
mod step;
mod world;

use vfio_fsm_core::State;

use crate::property::{Property, Rule};
use crate::scene::{Judge, Scene};

pub use design::Design;
pub use order::{LockOrder, lock_order};
pub(crate) use rules::{CLAIM_WITHOUT_LICENCE, Judgement, RULES};
use rules::Stepped;
pub use step::Lock;
use world::{CALLERS, Program, WORKER, World};

/// From which the threads begin: in each, other calls and other sessions are possible.
pub(crate) const STARTS: [State; 4] =
    [State::Running, State::PreCopy, State::StopCopy, State::Resuming];

/// The model, from one state of the device.
#[derive(Debug)]
pub(crate) struct Locks {
    start: State,
    design: Design,
    scenarios: Vec<[Program; CALLERS]>,
    rules: &'static [Rule<Judgement>],
}

/// What happens next.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum Action {
    /// Which calls the threads will make.
    Cast(usize),
    /// One step of one thread.
    Go(usize),
}

impl Locks {
    pub(crate) fn new(start: State, design: Design, rules: &'static [Rule<Judgement>]) -> Self {
        Self { start, design, scenarios: scenario::from(start), rules }
    }

    /// The world after an action; `on` is told of each step on the way.
    fn play(&self, before: &World, action: Action, mut on: impl FnMut(&Stepped<'_>)) -> World {
        let mut world = *before;
        match action {
            Action::Cast(index) => world.cast(&self.scenarios[index]),
            Action::Go(who) => loop {
                let (before, step) = (world, world.next(who));
                world.run(self.design, who);
                on(&Stepped { start: self.start, before: &before, who, step, after: &world });
                if !world.goes_on(who, step) {
                    break;
                }
            },
        }
        world
    }
}

impl Scene for Locks {
    type World = World;
    type Action = Action;

    fn properties(&self) -> Vec<&'static Property> {
        self.rules.iter().map(|rule| &rule.property).collect()
    }

    fn initial(&self, _judge: &mut Judge<'_>) -> World {
        World::new(self.start)
    }

    fn actions(&self, world: &World, actions: &mut Vec<Action>) {
        if world.is_cast() {
            actions.extend((0..=WORKER).filter(|&who| world.can_go(who)).map(Action::Go));
        } else {
            actions.extend((0..self.scenarios.len()).map(Action::Cast));
        }
    }

    fn step(&self, before: &World, action: Action, judge: &mut Judge<'_>) -> World {
        self.play(before, action, |stepped| {
            for (index, rule) in self.rules.iter().enumerate() {
                if let Some(holds) = (rule.check)(stepped) {
                    judge.judge(index, holds);
                }
            }
        })
    }

    fn narrate(&self, actions: &[Action]) -> Vec<String> {
        let mut world = World::new(self.start);
        let mut lines = Vec::new();
        for &action in actions {
            if let Action::Cast(index) = action {
                lines.push(scenario::describe(self.start, &self.scenarios[index]));
            }
            world = self.play(&world, action, |stepped| lines.push(stepped.to_string()));
        }
        let waits = world.waiting().filter(|_| world.is_still());
        lines.extend(waits.map(|(who, lock, owner)| {
            format!("{} waits for {lock}, held by {}", world.name(who), world.name(owner))
        }));
        lines
    }
}
