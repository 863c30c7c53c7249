// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! Level 1: a VMM that may do anything, a device, and resets at any moment. Operations are atomic.
//!
//! The VMM is chaotic on purpose: what holds for every sequence of ops holds for the sequences of
//! a sane VMM too. Two ghosts ride along that no real party has: what a VMM would believe that sees
//! only its own replies, and which life (between two resets) the device is in.

use std::sync::atomic::{AtomicU64, Ordering};

use stateright::{Model, Property as Always};
use vfio_fsm_core::device::{Bug, Device, Memory, Planted};
use vfio_fsm_core::{Errno, Fault, Fd, Features, Leaves, Op, RawState, Reply, Route, State};

use crate::property::{Check, PROPERTIES, Property, Step};

/// The core's device with one register, and the latest two data_fds of its user.
pub(crate) type ModelDevice = Device<Memory<1>, 2>;

/// What the VMM writes into RESUMING: a whole stream, its tag, its register. The last alone, or
/// anything behind a whole stream, is garbage.
const WRITES: [&[u8]; 3] = [&[b'F', LOADED], b"F", &[LOADED]];

/// The register after a load; the guest writes 1 or 2, a reset 0.
const LOADED: u8 = 3;

/// Everything there is at one moment.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct World {
    /// The core's device, with sessions and fds renumbered so that the space is finite.
    pub device: ModelDevice,
    /// Ghost: what a VMM knows that sees nothing but the replies to its own ops.
    pub belief: Belief,
    /// Ghost: flips with every reset, and with it what the guest writes.
    pub odd_life: bool,
    /// Which properties the step to here broke, a bit each. Nothing goes on from such a world.
    pub(crate) violated: u32,
}

/// What a VMM knows that sees nothing but the replies to its own ops.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Belief {
    /// The state it would assume; `None` after a SET that failed.
    pub state: Option<State>,
    /// Whether that is wrong by now, because the guest reset the device.
    pub reset_since: bool,
}

/// Who does it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Actor {
    /// The VMM: it sees the reply.
    Vmm,
    /// The guest, by a function-level reset or a touch: the VMM sees nothing.
    Guest,
}

/// One thing that can happen.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Action {
    /// Who does it.
    pub actor: Actor,
    /// What is done.
    pub op: Op<&'static [u8]>,
}

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

    /// What is checked.
    pub const fn checked_properties(&self) -> &'static [Property] {
        self.properties
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
        after.odd_life ^= is_reset(action.op) && before.device.is_open();
        let step = Step { before, action, reply: &reply, after: &after };
        after.violated = self.judge(Some(&step), &after);
        after.device = after.device.renumbered();
        (after, reply)
    }
}

fn is_reset(op: Op<&[u8]>) -> bool {
    matches!(op, Op::Reset | Op::SetState { fault: Some(Fault::ResetInside), .. })
}

impl Belief {
    const RUNNING: Self = Self { state: Some(State::Running), reset_since: false };

    fn after(self, action: Action, reply: &Reply<Vec<u8>>) -> Self {
        match (action.actor, action.op, reply) {
            (Actor::Guest, Op::Reset, _) => Self { reset_since: true, ..self },
            (Actor::Vmm, Op::Reset | Op::Open, Reply::Ok) => Self::RUNNING,
            (Actor::Vmm, Op::SetState { to, fault }, Reply::Fd(_)) => {
                Self { state: to.known(), reset_since: fault == Some(Fault::ResetInside) }
            }
            (Actor::Vmm, Op::SetState { .. }, _) => Self { state: None, reset_since: false },
            (Actor::Vmm, Op::GetState, Reply::State(state)) => {
                Self { state: state.known(), reset_since: false }
            }
            _ => self,
        }
    }
}

impl World {
    fn initial(features: Features, planted: Planted) -> Self {
        let device = Device::with_bug(features, Memory::new(), planted);
        Self { device, belief: Belief::RUNNING, odd_life: false, violated: 0 }
    }

    /// What the guest writes in this life.
    const fn guest_value(&self) -> u8 {
        1 + self.odd_life as u8
    }

    /// Whether a byte may stand in a stream of this life: a tag, a register after reset or load,
    /// or what the guest wrote since.
    pub(crate) const fn is_of_this_life(&self, byte: u8) -> bool {
        matches!(byte, b'P' | b'F' | 0 | LOADED) || byte == self.guest_value()
    }

    fn sets(&self, ops: &mut Vec<Op<&'static [u8]>>) {
        let fsm = self.device.fsm();
        for number in 0..=State::ALL.len() as u32 {
            let to = RawState(number);
            let mut push = |fault| ops.push(Op::SetState { to, fault });
            push(None);
            push(Some(Fault::FdTableFull));
            push(Some(Fault::ResetInside));
            let route = to.known().and_then(|to| Route::new(fsm.features(), fsm.state(), to).ok());
            for hop in 0..route.map_or(0, |route| route.len() as u8) {
                for leaves in [Leaves::Source, Leaves::Error] {
                    push(Some(Fault::ArcFails { hop, errno: Errno::EIO, leaves }));
                }
            }
        }
    }

    fn on_fd(fd: Fd, ops: &mut Vec<Op<&'static [u8]>>) {
        ops.extend([Op::Read { fd, len: 1 }, Op::PrecopyInfo { fd }, Op::Poll { fd }]);
        ops.extend(WRITES.map(|bytes| Op::Write { fd, bytes }));
        ops.push(Op::CloseFd { fd });
    }

    fn ops(&self) -> Vec<Op<&'static [u8]>> {
        let mut ops = vec![Op::Open, Op::Close, Op::GetState, Op::Reset];
        self.sets(&mut ops);
        for fd in self.device.fds().open() {
            Self::on_fd(fd, &mut ops);
        }
        ops
    }
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
