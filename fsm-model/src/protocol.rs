// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! Level 1: a VMM that may do anything, a device, and resets at any moment. Operations are atomic.
//!
//! The VMM is chaotic on purpose: what holds for every sequence of ops holds for the sequences of
//! a sane VMM too. Two ghosts ride along that no real party has: what a VMM would believe that sees
//! only its own replies, and which life (between two resets) the device is in.

use vfio_fsm_core::device::Planted;
use vfio_fsm_core::{Fault, Features, Op, Reply};

use crate::check::Replay;
use crate::counterexample::{CounterStep, Counterexample, Recorder};
use crate::property::{Check, Property, Rule, Step};
use crate::scene::{Judge, Scene};
use crate::world::{Action, Actor, World};

/// The model, for one set of flags.
#[derive(Clone, Debug)]
pub(crate) struct Protocol {
    features: Features,
    planted: Planted,
    rules: &'static [Rule<Check>],
}

impl Protocol {
    pub(crate) const fn new(
        features: Features,
        planted: Planted,
        rules: &'static [Rule<Check>],
    ) -> Self {
        Self { features, planted, rules }
    }

    fn record(&self, property: &'static str, actions: &[Action]) -> Counterexample {
        let mut recorder = Recorder::<1>::new(self.features, self.planted);
        for action in actions {
            let op = action.op.map_fd(|fd| recorder.nth_open(fd));
            recorder.ask(0, action.actor, op);
        }
        recorder.finish(property)
    }

    fn judge(&self, step: Option<&Step<'_>>, world: &World, judge: &mut Judge) {
        for (index, rule) in self.rules.iter().enumerate() {
            let verdict = match rule.check {
                Check::World(holds) => Some(holds(world)),
                Check::Step(holds) => step.and_then(holds),
            };
            if let Some(holds) = verdict {
                judge.judge(index, holds);
            }
        }
    }
}

fn is_reset(op: Op<&[u8]>) -> bool {
    matches!(op, Op::Reset | Op::SetState { fault: Some(Fault::ResetInside), .. })
}

impl Scene for Protocol {
    type World = World;
    type Action = Action;

    fn properties(&self) -> Vec<&'static Property> {
        self.rules.iter().map(|rule| &rule.property).collect()
    }

    fn initial(&self, judge: &mut Judge) -> World {
        let world = World::initial(self.features, self.planted);
        self.judge(None, &world, judge);
        world
    }

    fn actions(&self, world: &World, actions: &mut Vec<Action>) {
        actions.extend(world.ops().into_iter().map(|op| Action { actor: Actor::Vmm, op }));
        if world.device.is_open() {
            let guest = [Op::Reset, Op::Touch(world.guest_value())];
            actions.extend(guest.map(|op| Action { actor: Actor::Guest, op }));
        }
    }

    fn step(&self, before: &World, action: Action, judge: &mut Judge) -> World {
        let mut after = *before;
        let mut buf = [0; 4];
        let reply: Reply<Vec<u8>> = after.device.apply(action.op, &mut buf).map(<[u8]>::to_vec);
        after.belief = before.belief.after(action, &reply);
        after.alive = before.alive_after(action.op, &reply);
        after.odd_life ^= is_reset(action.op) && before.device.is_open();
        let step = Step { before, action, reply: &reply, after: &after };
        self.judge(Some(&step), &after, judge);
        after.renumbered()
    }

    fn narrate(&self, actions: &[Action]) -> Vec<String> {
        self.record("", actions).steps.iter().map(ToString::to_string).collect()
    }

    fn replay(&self, property: &'static str, actions: &[Action]) -> Option<Replay> {
        Some(Replay::Trace(self.record(property, actions)))
    }

    fn say(&self, before: &World, Action { actor, op }: Action) -> String {
        let (mut device, mut buf) = (before.device, [0; 4]);
        let seen: Reply<Vec<u8>> = device.apply(op, &mut buf).map(<[u8]>::to_vec);
        let (correct, at) = (seen.clone(), device.fsm().state());
        CounterStep { device: 0, actor, op, seen, correct, at }.to_string()
    }

    fn show(&self, world: &World) -> String {
        let World { device, belief, .. } = world;
        let open = if device.is_open() { "open" } else { "closed" };
        let fds = device.fds().open().map(|open| {
            let live = if device.is_live(open.fd) { "live" } else { "dead" };
            format!("; {} {live}", open.fd)
        });
        let fds: String = fds.collect();
        let believed = belief.state.map_or("unknown".to_owned(), |state| state.to_string());
        format!("device {open} in {}{fds}; the VMM's last news: {believed}", device.fsm().state())
    }
}
