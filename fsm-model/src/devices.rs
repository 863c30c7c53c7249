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
pub(crate) enum Fault {
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

#[cfg(test)]
impl Fault {
    /// All of them.
    const ALL: [Self; 10] = [
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

    /// The same with a device and the next in each other's place.
    #[cfg(test)]
    const fn swapped(self, first: u8) -> Self {
        let (one, other) = (self.device(first), self.device(first + 1));
        self.with(first, other).with(first + 1, one)
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
        let target = if self.has(Fault::FailureKeepsTarget) { device.target } else { State::Error };
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
    of_devices(
        "devices-fd-is-the-sessions",
        "a data_fd is there only in the states of its session",
    ),
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
    use crate::search::{Found, Search};
    use crate::watch::Watch;

    fn search(scene: Devices, threads: usize, symmetric: bool) -> Found<Action> {
        Search { scene: &scene, threads, symmetric, watch: &Watch::new(None) }.run()
    }

    /// Every world of one device, the reset still to come.
    fn alone() -> Vec<Device> {
        let scene = Devices { count: 1, fault: None };
        let mut worlds = vec![scene.initial(&mut Judge::default())];
        let mut next = 0;
        while let Some(&world) = worlds.get(next) {
            let mut actions = Vec::new();
            scene.actions(&world, &mut actions);
            for action in actions.into_iter().filter(|action| action.what != What::Reset) {
                let after = scene.play(world, action);
                if !worlds.contains(&after) {
                    worlds.push(after);
                }
            }
            next += 1;
        }
        worlds.into_iter().map(|world| world.device(0)).collect()
    }

    /// X3: the model is the one that was measured before: 126 states of a device, 448 steps beside
    /// the reset.
    #[test]
    fn one_device_is_the_known_one() {
        assert_eq!(alone().len(), 126);
        let found = search(Devices { count: 1, fault: None }, 1, false);
        assert_eq!((found.states, found.transitions), (2 * 126, 2 * 448 + 126));
    }

    /// X3: three devices are the 4,000,752 worlds and 48,675,816 steps that other engines found,
    /// whatever the number of threads, and 682,752 worlds with the devices in order.
    #[test]
    fn three_devices_are_as_many_as_known() {
        let scene = Devices { count: 3, fault: None };
        let one = search(scene, 1, false);
        assert_eq!((one.states, one.transitions, one.depth), (4_000_752, 48_675_816, 23));
        assert_eq!(one.states, 2 * 126 * 126 * 126);
        assert!(one.broken.is_empty() && one.judged.iter().all(|&judged| judged > 0));
        let two = search(scene, 2, false);
        assert_eq!((two.states, two.transitions, two.depth), (4_000_752, 48_675_816, 23));
        assert_eq!(two.judged, one.judged);
        let alike = search(scene, 2, true);
        assert_eq!((alike.states, alike.depth), (682_752, 23));
        assert_eq!(alike.states, 2 * (126 * 127 * 128) / 6);
    }

    /// X3: what makes symmetry sound, in every world of three devices: with two devices in each
    /// other's place the same happens, with the same verdict, and leads to the same with them in
    /// each other's place.
    #[test]
    fn no_step_tells_like_devices_apart() {
        let scene = Devices { count: 3, fault: None };
        let devices = alone();
        let swap = |first: u8, index: u8| match index {
            index if index == first => first + 1,
            index if index == first + 1 => first,
            index => index,
        };
        let (mut here, mut there) = (Vec::new(), Vec::new());
        let mut check = |world: World| {
            for first in [0, 1] {
                let swapped = world.swapped(first);
                assert_eq!(scene.representative(world), scene.representative(swapped));
                here.clear();
                there.clear();
                scene.actions(&world, &mut here);
                scene.actions(&swapped, &mut there);
                assert_eq!(here.len(), there.len());
                for &Action { device, what } in &here {
                    let (mut said, mut also) = (Judge::default(), Judge::default());
                    let action = Action { device: swap(first, device), what };
                    assert!(there.contains(&action));
                    let after = scene.step(&world, Action { device, what }, &mut said);
                    let other = scene.step(&swapped, action, &mut also);
                    assert_eq!((after.swapped(first), said), (other, also));
                }
            }
        };
        for &a in &devices {
            for &b in &devices {
                for &c in &devices {
                    let world = World(0).with(0, a).with(1, b).with(2, c);
                    check(world);
                    check(world.reset());
                }
            }
        }
    }

    /// X3: symmetry changes no verdict and no length of a shortest run, whatever is wrong, and every
    /// fault is caught.
    #[test]
    fn symmetry_changes_no_verdict() {
        let mut caught = [false; PROPERTIES.len()];
        for fault in Fault::ALL {
            let scene = Devices { count: 3, fault: Some(fault) };
            let verdicts = |symmetric| -> Vec<(usize, usize)> {
                let found = search(scene, 2, symmetric);
                for (property, run) in &found.broken {
                    breaks(scene, *property, run);
                }
                found.broken.into_iter().map(|(property, run)| (property, run.len())).collect()
            };
            let all = verdicts(false);
            assert!(!all.is_empty(), "{fault:?} survives");
            assert_eq!(verdicts(true), all, "{fault:?}");
            all.iter().for_each(|&(property, _)| caught[property] = true);
        }
        assert_eq!(caught, [true; PROPERTIES.len()], "a property has never failed");
    }

    /// The run is one, from the beginning, and its last step alone breaks the property.
    fn breaks(scene: Devices, property: usize, run: &[Action]) {
        let mut world = scene.initial(&mut Judge::default());
        for (left, &action) in (0..run.len()).rev().zip(run) {
            let mut actions = Vec::new();
            scene.actions(&world, &mut actions);
            assert!(actions.contains(&action), "{action} cannot happen");
            let mut judge = Judge::default();
            world = scene.step(&world, action, &mut judge);
            assert_eq!(judge.violated(property), left == 0, "{action}");
        }
    }

    /// X3: our explorer gives runs as short as stateright's.
    #[test]
    fn runs_are_as_short_as_staterights() {
        use stateright::{Checker, Model};
        for fault in Fault::ALL {
            let scene = Devices { count: 2, fault: Some(fault) };
            let stage = crate::scene::Stage::new(scene);
            let checker = stage.checker().threads(1).spawn_bfs().join();
            let theirs = checker.discoveries().into_iter();
            let mut theirs: Vec<_> =
                theirs.map(|(id, path)| (id, path.into_actions().len())).collect();
            let ours = search(scene, 1, false).broken.into_iter();
            let mut ours: Vec<_> =
                ours.map(|(property, run)| (PROPERTIES[property].id, run.len())).collect();
            theirs.sort_unstable();
            ours.sort_unstable();
            assert_eq!(ours, theirs, "{fault:?}");
        }
    }
}
