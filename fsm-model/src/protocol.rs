// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! Level 1: a VMM that may do anything, a device, and resets at any moment. Operations are atomic.
//!
//! The VMM is chaotic on purpose: what holds for every sequence of ops holds for the sequences of
//! a sane VMM too. Two ghosts ride along that no real party has: what a VMM would believe that sees
//! only its own replies, and which life (between two resets) the device is in.

use std::sync::atomic::{AtomicU64, Ordering};

use stateright::{Model, Property as Always};
use vfio_fsm_core::device::{Bug, Planted};
use vfio_fsm_core::{Fault, Features, Op, Reply};

use crate::property::{Check, PROPERTIES, Property, Step};
use crate::world::{Action, Actor, World};

/// The model, for one set of flags.
#[derive(Debug)]
pub struct Protocol {
    features: Features,
    planted: Planted,
    properties: &'static [Property],
    /// How often each property had something to judge.
    judged: Vec<AtomicU64>,
}

impl Protocol {
    /// The model of a correct device.
    pub fn new(features: Features) -> Self {
        Self::with(features, Planted::NONE, PROPERTIES)
    }

    /// The model of a device with a bug, checked for some properties only.
    pub fn mutant(features: Features, bug: Bug, properties: &'static [Property]) -> Self {
        Self::with(features, Planted::bug(bug), properties)
    }

    pub(crate) fn with(
        features: Features,
        planted: Planted,
        properties: &'static [Property],
    ) -> Self {
        const { assert!(PROPERTIES.len() <= HOLDS.len(), "a bit for each") };
        let judged = properties.iter().map(|_| AtomicU64::new(0)).collect();
        Self { features, planted, properties, judged }
    }

    /// The flags of the device.
    pub const fn features(&self) -> Features {
        self.features
    }

    pub(crate) const fn planted(&self) -> Planted {
        self.planted
    }

    /// How often the n-th property had something to judge.
    pub fn judged(&self, property: usize) -> u64 {
        self.judged[property].load(Ordering::Relaxed)
    }

    fn judge(&self, step: Option<&Step<'_>>, world: &World) -> u32 {
        let mut violated = 0;
        for (index, property) in self.properties.iter().enumerate() {
            let verdict = match property.check {
                Check::World(holds) => Some(holds(world)),
                Check::Step(holds) => step.and_then(holds),
            };
            if let Some(holds) = verdict {
                self.judged[index].fetch_add(1, Ordering::Relaxed);
                violated |= u32::from(!holds) << index;
            }
        }
        violated
    }

    /// The world after an action, and the reply.
    pub(crate) fn step(&self, before: &World, action: Action) -> (World, Reply<Vec<u8>>) {
        let mut after = *before;
        let mut buf = [0; 4];
        let reply = after.device.apply(action.op, &mut buf).map(<[u8]>::to_vec);
        after.belief = before.belief.after(action, &reply);
        after.alive = before.alive_after(action.op, &reply);
        after.odd_life ^= is_reset(action.op) && before.device.is_open();
        let step = Step { before, action, reply: &reply, after: &after };
        after.violated = self.judge(Some(&step), &after);
        (after.renumbered(), reply)
    }
}

fn is_reset(op: Op<&[u8]>) -> bool {
    matches!(op, Op::Reset | Op::SetState { fault: Some(Fault::ResetInside), .. })
}

impl Model for Protocol {
    type State = World;
    type Action = Action;

    fn init_states(&self) -> Vec<World> {
        let mut world = World::initial(self.features, self.planted);
        world.violated = self.judge(None, &world);
        vec![world]
    }

    fn actions(&self, world: &World, actions: &mut Vec<Action>) {
        if world.violated != 0 {
            return;
        }
        actions.extend(world.ops().into_iter().map(|op| Action { actor: Actor::Vmm, op }));
        if world.device.is_open() {
            let guest = [Op::Reset, Op::Touch(world.guest_value())];
            actions.extend(guest.map(|op| Action { actor: Actor::Guest, op }));
        }
    }

    fn next_state(&self, before: &World, action: Action) -> Option<World> {
        Some(self.step(before, action).0)
    }

    fn properties(&self) -> Vec<Always<Self>> {
        let named = self.properties.iter().zip(HOLDS);
        named.map(|(property, holds)| Always::always(property.id, holds)).collect()
    }
}

/// stateright takes plain functions, so there is one for each bit of `violated`.
const HOLDS: [fn(&Protocol, &World) -> bool; 32] = {
    macro_rules! holds {
        ($($bit:literal)*) => { [$(|_, world| world.violated & 1 << $bit == 0,)*] };
    }
    holds!(0 1 2 3 4 5 6 7 8 9 10 11 12 13 14 15 16 17 18 19 20 21 22 23 24 25 26 27 28 29 30 31)
};
