// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! Up to three devices beside each other: the model by which checkers are measured.
//!
//! A device is its state, the state that a SET under way leads to, its data_fd and how much went
//! through that, 0 to 2. A SET begins, and goes on arc by arc, or fails into ERROR; bytes go through
//! the data_fd and it is closed, meanwhile or not; one reset happens in all, to one of the devices.
//! Routes and sessions are those of [`vfio_fsm_core`]. Alone a device has 126 states and 448 steps
//! beside the reset, so there are 2 * 126^3 = 4,000,752 worlds of three and 48,675,816 steps: the
//! numbers that five other engines found. `specs/promela/three_devices.pml` is the same for Spin.
//!
//! The devices are alike, so worlds that differ in their order alone may stand for each other:
//! 682,752 of them are left ([`Scene::representative`]).

use std::fmt;

use vfio_fsm_core::{Arc, Direction, Features, SessionEffect, State, next_hop};

use crate::property::Property;
use crate::scene::{Judge, Scene};
use crate::search::{Codec, Marks};

/// The model.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Devices {
    /// How many, 1 to [`MOST`].
    pub(crate) count: u8,
    pub(crate) fault: Option<Fault>,
}

/// The most devices that a world has room for.
pub(crate) const MOST: u8 = 3;

/// What every device of a model gets wrong, so that its properties can be seen to fail.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// An arc that ends the session leaves the data_fd.
    EndKeepsFd,
    /// So does a failure into ERROR.
    FailureKeepsFd,
    /// A failure into ERROR leaves the SET under way.
    FailureKeepsTarget,
    /// A SET that no route answers begins.
    TakesBlockedSet,
    /// A session begins with what went through the last one.
    OpensUsed,
    /// A reset leaves the SET under way.
    ResetKeepsTarget,
    /// A reset leaves the device in its state.
    ResetKeepsState,
    /// Whoever resets one device resets all.
    ResetsAll,
    /// A data_fd carries the bytes of all devices in the same state.
    SharesFd,
    /// A second reset happens.
    ResetsTwice,
}

impl Fault {
    /// All of them.
    pub const ALL: [Self; 10] = [
        Self::EndKeepsFd,
        Self::FailureKeepsFd,
        Self::FailureKeepsTarget,
        Self::TakesBlockedSet,
        Self::OpensUsed,
        Self::ResetKeepsTarget,
        Self::ResetKeepsState,
        Self::ResetsAll,
        Self::SharesFd,
        Self::ResetsTwice,
    ];
}

/// Nine bits for each device, the last first, and one for whether the reset has been.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) struct World(u32);

const BITS: u32 = 9;
const MASK: u32 = (1 << BITS) - 1;

/// One device.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Device {
    state: State,
    /// Where the SET under way leads; the state itself if there is none.
    target: State,
    /// The data_fd, and how much went through it.
    fd: Option<(Direction, u8)>,
}

/// What happens to one device.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Action {
    device: u8,
    what: What,
}

#[derive(Clone, Copy, Debug, PartialEq)]
enum What {
    Set(State),
    Arc,
    Fail,
    Transfer,
    Close,
    Reset,
}

/// As much as can go through a data_fd.
const ALL: u8 = 2;

impl Device {
    const RUNNING: Self = Self { state: State::Running, target: State::Running, fd: None };

    const fn pack(self) -> u32 {
        let fd = match self.fd {
            None => 0,
            Some((Direction::Saving, data)) => 1 + data,
            Some((Direction::Resuming, data)) => 1 + ALL + 1 + data,
        };
        self.state as u32 | (self.target as u32) << 3 | (fd as u32) << 6
    }

    const fn unpack(bits: u32) -> Self {
        let fd = match (bits >> 6) as u8 {
            0 => None,
            fd @ 1..=3 => Some((Direction::Saving, fd - 1)),
            fd => Some((Direction::Resuming, fd - 1 - ALL - 1)),
        };
        let [state, target] =
            [State::ALL[(bits & 7) as usize], State::ALL[(bits >> 3 & 7) as usize]];
        Self { state, target, fd }
    }

    fn is_at_rest(self) -> bool {
        self.state == self.target
    }
}

impl World {
    const fn device(self, index: u8) -> Device {
        Device::unpack(self.0 >> (BITS * index as u32) & MASK)
    }

    const fn with(self, index: u8, device: Device) -> Self {
        let shift = BITS * index as u32;
        Self(self.0 & !(MASK << shift) | device.pack() << shift)
    }

    const fn was_reset(self) -> bool {
        self.0 >> (BITS * MOST as u32) != 0
    }

    const fn reset(self) -> Self {
        Self(self.0 | 1 << (BITS * MOST as u32))
    }

    /// The other devices alone.
    const fn without(self, index: u8) -> u32 {
        self.0 & !(MASK << (BITS * index as u32)) & ((1 << (BITS * MOST as u32)) - 1)
    }

    /// The same with two devices in each other's place.
    #[cfg(test)]
    const fn swapped(self, a: u8, b: u8) -> Self {
        let (first, second) = (self.device(a), self.device(b));
        self.with(a, second).with(b, first)
    }
}

impl Devices {
    fn has(self, fault: Fault) -> bool {
        self.fault == Some(fault)
    }

    fn all(self) -> impl Iterator<Item = u8> {
        0..self.count
    }

    /// The device behind one arc of the SET under way.
    fn walked(self, device: Device) -> Device {
        let Device { state, target, fd } = device;
        let Ok(next) = next_hop(Features::ALL, state, target) else { return device };
        let effect = Arc::new(Features::ALL, state, next).map(Arc::session);
        let fd = match effect {
            Some(SessionEffect::Opens(direction)) => {
                let used = if self.has(Fault::OpensUsed) { ALL } else { 0 };
                Some((direction, used))
            }
            Some(SessionEffect::Ends) if !self.has(Fault::EndKeepsFd) => None,
            _ => fd,
        };
        Device { state: next, target, fd }
    }

    fn failed(self, device: Device) -> Device {
        let target =
            if self.has(Fault::FailureKeepsTarget) { device.target } else { State::Error };
        let fd = device.fd.filter(|_| self.has(Fault::FailureKeepsFd));
        Device { state: State::Error, target, fd }
    }

    fn reset(self, before: World, index: u8) -> World {
        if self.has(Fault::ResetsAll) {
            let all = self.all().fold(before, |world, index| world.with(index, Device::RUNNING));
            return all.reset();
        }
        let Device { state, target, .. } = before.device(index);
        let mut device = Device::RUNNING;
        if self.has(Fault::ResetKeepsTarget) && state != State::Error {
            device.target = target;
        }
        if self.has(Fault::ResetKeepsState) {
            (device.state, device.target) = (state, state);
        }
        before.with(index, device).reset()
    }

    fn transferred(self, before: World, index: u8) -> World {
        let device = before.device(index);
        let moves = |other: Device| other.fd == device.fd && other.state == device.state;
        let shared = self.all().filter(|_| self.has(Fault::SharesFd));
        let those = shared.filter(|&other| moves(before.device(other))).chain([index]);
        those.fold(before, |world, index| {
            let device = before.device(index);
            let fd = device.fd.map(|(direction, data)| (direction, data + 1));
            world.with(index, Device { fd, ..device })
        })
    }

    fn play(self, before: World, Action { device: index, what }: Action) -> World {
        let device = before.device(index);
        match what {
            What::Set(target) => before.with(index, Device { target, ..device }),
            What::Arc => before.with(index, self.walked(device)),
            What::Fail => before.with(index, self.failed(device)),
            What::Transfer => self.transferred(before, index),
            What::Close => before.with(index, Device { fd: None, ..device }),
            What::Reset => self.reset(before, index),
        }
    }
}

/// What must hold, in the order in which [`judged`] says it.
const PROPERTIES: [Property; 6] = [
    of_devices("devices-fd-is-the-sessions", "a data_fd is there only in the states of its session"),
    of_devices("devices-set-has-a-route", "a SET under way has a route"),
    of_devices(
        "devices-session-begins-fresh",
        "nothing has gone through a data_fd when its session begins",
    ),
    of_devices(
        "devices-reset-ends-all",
        "after a reset a device is in RUNNING, at rest and without a data_fd",
    ),
    of_devices("devices-one-reset", "there is one reset in all"),
    of_devices("devices-are-apart", "what happens to one device leaves the others alone"),
];

const fn of_devices(id: &'static str, text: &'static str) -> Property {
    Property { id, covers: &[], text }
}

fn judged(before: World, Action { device: index, what }: Action, after: World) -> Judge {
    let mut judge = Judge::default();
    let (was, is) = (before.device(index), after.device(index));
    if let Some((direction, _)) = is.fd {
        judge.judge(0, is.state.session() == Some(direction));
    }
    if !is.is_at_rest() {
        judge.judge(1, next_hop(Features::ALL, is.state, is.target).is_ok());
    }
    if let (None, Some(direction)) = (was.state.session(), is.state.session()) {
        judge.judge(2, is.fd == Some((direction, 0)));
    }
    if what == What::Reset {
        judge.judge(3, is == Device::RUNNING);
        judge.judge(4, !before.was_reset());
    }
    judge.judge(5, before.without(index) == after.without(index));
    judge
}

impl Scene for Devices {
    type World = World;
    type Action = Action;

    fn properties(&self) -> Vec<&'static Property> {
        PROPERTIES.iter().collect()
    }

    fn initial(&self, _judge: &mut Judge) -> World {
        self.all().fold(World(0), |world, index| world.with(index, Device::RUNNING))
    }

    fn actions(&self, world: &World, actions: &mut Vec<Action>) {
        for index in self.all() {
            let device = world.device(index);
            let mut push = |what| actions.push(Action { device: index, what });
            if !device.is_at_rest() {
                push(What::Arc);
                push(What::Fail);
            } else if device.state != State::Error {
                for target in State::ALL {
                    let blocked = self.has(Fault::TakesBlockedSet) && target != State::Error;
                    let route = next_hop(Features::ALL, device.state, target).is_ok();
                    if target != device.state && (route || blocked) {
                        push(What::Set(target));
                    }
                }
            }
            if let Some((_, data)) = device.fd {
                if data < ALL {
                    push(What::Transfer);
                }
                push(What::Close);
            }
            if !world.was_reset() || self.has(Fault::ResetsTwice) {
                push(What::Reset);
            }
        }
    }

    fn step(&self, before: &World, action: Action, judge: &mut Judge) -> World {
        let after = self.play(*before, action);
        *judge = judged(*before, action, after);
        after
    }

    fn narrate(&self, actions: &[Action]) -> Vec<String> {
        let mut world = self.initial(&mut Judge::default());
        let line = |&action: &Action| {
            let line = self.say(&world, action);
            world = self.play(world, action);
            line
        };
        actions.iter().map(line).collect()
    }

    fn say(&self, before: &World, action: Action) -> String {
        format!("{action} => {}", self.play(*before, action).device(action.device))
    }

    fn show(&self, world: &World) -> String {
        let devices = self.all().map(|index| format!("device {index}: {}", world.device(index)));
        let reset = world.was_reset().then(|| "the reset has been".to_owned());
        devices.chain(reset).collect::<Vec<_>>().join("; ")
    }

    fn codec(&self) -> impl Codec<World> {
        Packed
    }

    /// The devices in order: they are alike, and nothing that is judged tells which is which.
    fn representative(&self, world: World) -> World {
        let part = |index: u32| world.0 >> (BITS * index) & MASK;
        let mut parts = [part(0), part(1), part(2)];
        parts[..usize::from(self.count)].sort_unstable();
        let reset = world.0 >> (BITS * u32::from(MOST)) << (BITS * u32::from(MOST));
        World(parts[0] | parts[1] << BITS | parts[2] << (2 * BITS) | reset)
    }
}

/// A world is a number as it is.
struct Packed;

impl Codec<World> for Packed {
    fn encode(&self, world: &World) -> u64 {
        world.0.into()
    }

    fn decode(&self, code: u64) -> World {
        World(code as u32)
    }

    fn marks(&self) -> Marks {
        Marks::Bitmap { bits: BITS * u32::from(MOST) + 1 }
    }
}

impl fmt::Debug for World {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let devices: Vec<Device> = (0..MOST).map(|index| self.device(index)).collect();
        f.debug_struct("World")
            .field("devices", &devices)
            .field("was_reset", &self.was_reset())
            .finish()
    }
}

impl fmt::Display for Action {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "device {} ", self.device)?;
        match self.what {
            What::Set(target) => write!(f, "SET {target}"),
            What::Arc => f.write_str("arc"),
            What::Fail => f.write_str("arc fails"),
            What::Transfer => f.write_str("bytes"),
            What::Close => f.write_str("close data_fd"),
            What::Reset => f.write_str("RESET"),
        }
    }
}

impl fmt::Display for Device {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.state)?;
        if !self.is_at_rest() {
            write!(f, " on the way to {}", self.target)?;
        }
        match self.fd {
            Some((Direction::Saving, data)) => write!(f, ", {data} read"),
            Some((Direction::Resuming, data)) => write!(f, ", {data} written"),
            None => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::search::Search;
    use crate::watch::Watch;

    #[test]
    fn time_it() {
        for threads in [1, 2] {
            for symmetric in [false, true] {
                let cpu = || std::fs::read_to_string("/proc/thread-self/schedstat").unwrap().split(' ').next().unwrap().parse::<u64>().unwrap();
                let t = std::time::Instant::now(); let c = cpu();
                let scene = Devices { count: 3, fault: None };
                let watch = Watch::new(None);
                let found = Search { scene: &scene, threads, symmetric, watch: &watch }.run();
                println!("{threads} {symmetric} {:?} cpu {} ms {} {} {} {:?}", t.elapsed(), (cpu() - c) / 1_000_000, found.states, found.transitions, found.depth, found.judged);
            }
        }
    }
}
