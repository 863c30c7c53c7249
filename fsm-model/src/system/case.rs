// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! What is checked of two machines: the cases with their committed sizes, the slips that the
//! properties catch, and what is false without an assumption.

use std::time::{Duration, Instant};

use stateright::{Checker, Model};
use vfio_fsm_core::Features;

use super::device::{RECORD, Serialisation};
use super::rules::{EVERY_RUN_ENDS, is_progress};
use super::slip::{StreamSlip, Wrong};
use super::{Action, Left, Pace, Setting, System};
use crate::case::pick;
use crate::check::{Failure, First, Run, broken};
use crate::graph::{Components, Graph};
use crate::property::Property;
use crate::scene::{OnScene, Scene, Stage};
use crate::session::slip::Slip;

/// A model of two machines, in one setting.
#[derive(Clone, Copy, Debug)]
pub struct SystemCase {
    /// What there is of devices and of what happens to them.
    pub name: &'static str,
    /// How many devices.
    pub devices: usize,
    /// The reachable worlds. A change here is a change of meaning.
    pub states: usize,
    /// Whether it is small enough for every check.
    pub small: bool,
    setting: Setting,
}

/// What a check came to.
#[derive(Debug)]
pub struct SystemChecked {
    /// What was checked.
    pub case: &'static SystemCase,
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

const NOTHING: Left =
    Left { touches: 0, guest_resets: 0, host_resets: 0, faults: 0, cancels: 0 };

const fn setting(left: Left) -> Setting {
    Setting {
        features: Features::ALL,
        how: Serialisation::Atomic,
        left,
        restarts: 1,
        chunk: RECORD as u32,
        pace: Pace::Eager,
        symmetric: false,
        in_two_parts: false,
        resets_behind_last_look: false,
    }
}

const fn case(
    name: &'static str,
    devices: usize,
    setting: Setting,
    small: bool,
    states: usize,
) -> SystemCase {
    SystemCase { name, devices, states, small, setting }
}

/// What is checked of level 3.
pub const SYSTEM_CASES: &[SystemCase] = &[
    case(
        "1 device",
        1,
        Setting {
            chunk: 2,
            ..setting(Left { touches: 2, guest_resets: 2, host_resets: 1, faults: 1, cancels: 1 })
        },
        true,
        0,
    ),
    case(
        "1 device, any order",
        1,
        Setting {
            chunk: 2,
            pace: Pace::Any,
            ..setting(Left { touches: 1, guest_resets: 1, host_resets: 1, faults: 1, cancels: 1 })
        },
        true,
        0,
    ),
    case(
        "2 devices",
        2,
        Setting {
            symmetric: true,
            ..setting(Left { touches: 1, guest_resets: 1, host_resets: 0, faults: 0, cancels: 1 })
        },
        true,
        0,
    ),
];

impl SystemCase {
    fn with<O: OnScene>(&self, wrong: Option<Wrong>, only: Option<&str>, on: O) -> O::Output {
        let setting = self.setting;
        match self.devices {
            1 => on.on(System::<1>::new(setting, wrong, pick(System::<1>::RULES, only))),
            2 => on.on(System::<2>::new(setting, wrong, pick(System::<2>::RULES, only))),
            _ => on.on(System::<3>::new(setting, wrong, pick(System::<3>::RULES, only))),
        }
    }
}

/// Check every property in every world of a case.
pub fn check_system(case: &'static SystemCase) -> SystemChecked {
    case.with(None, None, Checking(case))
}

struct Checking(&'static SystemCase);

impl OnScene for Checking {
    type Output = SystemChecked;

    fn on<S: Scene>(self, scene: S) -> SystemChecked {
        let started = Instant::now();
        let threads = std::thread::available_parallelism().map_or(1, usize::from);
        let checker = Stage::new(scene).checker().threads(threads).spawn_bfs().join();
        let (seen, committed) = (checker.unique_state_count(), self.0.states);
        let mut failures: Vec<Failure> = broken(&checker).map(Failure::Broken).collect();
        // A space that was cut short by a broken property has another size for that reason.
        if seen != committed && failures.is_empty() {
            failures.push(Failure::States { committed, seen });
        }
        SystemChecked {
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
