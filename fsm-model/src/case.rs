// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! What is checked: the cases, with their committed sizes and with what stays silent in them.

use vfio_fsm_core::device::Planted;
use vfio_fsm_core::vmm::Then;
use vfio_fsm_core::{Features, State};

use crate::claim::Fault;
use crate::devices::Devices;
use crate::locks::{self, Design, Locks};
use crate::property::{self, Rule};
use crate::protocol::Protocol;
use crate::scene::OnScene;
use crate::session::destination::{self, Destination, HostResets};
use crate::session::group::{self, Pair, Role};
use crate::session::source::{self, Source};
use crate::system::{self, OnSystem, Runs, System};

/// A model, in one setting.
#[derive(Clone, Copy, Debug)]
pub struct Case {
    /// What acts: `any VMM`, `Saver`, …
    pub name: &'static str,
    /// The flags of its devices.
    pub features: Features,
    /// The reachable worlds. A change here is a change of meaning.
    pub states: usize,
    /// How many are left if worlds in which like devices have changed places are one.
    pub alike: usize,
    actors: Actors,
}

#[derive(Clone, Copy, Debug)]
enum Actors {
    AnyVmm,
    Source(source::Setting),
    Destination(destination::Setting),
    Group(group::Setting),
    Locks(State),
    System(system::Setting),
    Devices(u8),
}

const fn case(name: &'static str, features: Features, states: usize, actors: Actors) -> Case {
    Case { name, features, states, alike: states, actors }
}

pub(crate) const fn any_vmm(features: Features, states: usize) -> Case {
    case("any VMM", features, states, Actors::AnyVmm)
}

/// A device in RUNNING, a host that resets it too, and calls that fail.
pub(crate) const fn saver(features: Features, faults: u8, states: usize) -> Case {
    let setting = source::Setting { then: Then::Stop, paused: false, host_resets: true, faults };
    case("Saver", features, states, Actors::Source(setting))
}

/// A snapshot of a device that runs.
pub(crate) const fn snapshot(features: Features, states: usize) -> Case {
    let setting = source::Setting { then: Then::Back, paused: false, host_resets: true, faults: 1 };
    case("Saver, back", features, states, Actors::Source(setting))
}

/// One of a device that the VMM has stopped before.
const fn paused(features: Features, states: usize) -> Case {
    let then = Then::Back;
    let setting = source::Setting { then, paused: true, host_resets: false, faults: 2 };
    case("Saver, paused", features, states, Actors::Source(setting))
}

pub(crate) const fn loader(
    features: Features,
    host_resets: HostResets,
    faults: u8,
    states: usize,
) -> Case {
    let setting = destination::Setting { host_resets, faults };
    case("Loader", features, states, Actors::Destination(setting))
}

pub(crate) const fn group(
    name: &'static str,
    features: Features,
    role: Role,
    states: usize,
) -> Case {
    let setting = group::Setting { role, faults: 1, resets: 1 };
    case(name, features, states, Actors::Group(setting))
}

pub(crate) const fn locks(name: &'static str, start: State, states: usize) -> Case {
    case(name, Features::ALL, states, Actors::Locks(start))
}

pub(crate) const fn machines(name: &'static str, setting: system::Setting, states: usize) -> Case {
    case(name, setting.features, states, Actors::System(setting))
}

const fn devices(name: &'static str, count: u8, states: usize, alike: usize) -> Case {
    Case { alike, ..case(name, Features::ALL, states, Actors::Devices(count)) }
}

/// The models by which checkers are measured; nothing is checked by them.
pub const BENCH_CASES: &[Case] = &[
    devices("bench, 1 device", 1, 252, 252),
    devices("bench, 2 devices", 2, 31_752, 16_002),
    devices("bench, 3 devices", 3, 4_000_752, 682_752),
];

/// What is checked of level 1.
pub const CASES: &[Case] = &[
    any_vmm(Features::STOP_COPY, 3908),
    any_vmm(Features::P2P, 4408),
    any_vmm(Features::PRE_COPY, 11120),
    any_vmm(Features::ALL, 13948),
    saver(Features::STOP_COPY, 2, 51_843),
    saver(Features::P2P, 2, 55_164),
    saver(Features::PRE_COPY, 1, 1_951_540),
    saver(Features::ALL, 1, 1_986_985),
    snapshot(Features::STOP_COPY, 16_650),
    snapshot(Features::P2P, 17_206),
    paused(Features::STOP_COPY, 2866),
    paused(Features::ALL, 2936),
    loader(Features::STOP_COPY, HostResets::UntilTheLastLook, 2, 33_000),
    loader(Features::P2P, HostResets::UntilTheLastLook, 2, 34_452),
    loader(Features::PRE_COPY, HostResets::UntilTheLastLook, 2, 33_000),
    loader(Features::ALL, HostResets::UntilTheLastLook, 2, 34_452),
    group("2 Savers", Features::P2P, Role::Save(Then::Stop), 25_832),
    group("2 Savers", Features::ALL, Role::Save(Then::Stop), 363_909),
    group("2 Savers, back", Features::P2P, Role::Save(Then::Back), 38_248),
    group("2 Loaders", Features::P2P, Role::Load, 14_275),
    group("2 Loaders", Features::ALL, Role::Load, 14_275),
];

/// What is checked of level 2: every three calls at once, from each of these states.
pub const LOCK_CASES: &[Case] = &[
    locks("from RUNNING", State::Running, 408_721),
    locks("from PRE_COPY", State::PreCopy, 800_300),
    locks("from STOP_COPY", State::StopCopy, 213_393),
    locks("from RESUMING", State::Resuming, 504_809),
];

/// What a property that a case carries has nothing to judge in, and why that is right.
pub(crate) struct Silence {
    cases: &'static [&'static str],
    features: &'static [Features],
    properties: &'static [&'static str],
    /// Why.
    pub(crate) why: &'static str,
}

/// Every silence that is meant. Any other, and any of these that is none, fails the check.
const SILENCES: &[Silence] = &[
    Silence {
        cases: &["any VMM"],
        features: WITHOUT_PRE_COPY,
        properties: &["O2-fd-tells", "O3-cancel-is-noop"],
        why: "without PRE_COPY there is no state to believe in",
    },
    Silence {
        cases: &["Saver"],
        features: WITHOUT_PRE_COPY,
        properties: &["saver-sees-unexpected-fd"],
        why: "without PRE_COPY every session is opened by the one SET that must return a data_fd",
    },
    Silence {
        cases: &["Saver"],
        features: &[Features::PRE_COPY, Features::ALL],
        properties: &["saver-stuck-by-reset"],
        why: "one call may fail in these, and it takes two",
    },
    Silence {
        cases: &["Saver, back"],
        features: WITHOUT_PRE_COPY,
        properties: &["saver-sees-unexpected-fd", "saver-stuck-by-reset"],
        why: "as of Saver: no PRE_COPY, and one call that may fail",
    },
    Silence {
        cases: &["Saver, paused"],
        features: &[Features::STOP_COPY, Features::ALL],
        properties: &[
            "saver-evidence-is-sound",
            "saver-sees-dead-fd",
            "saver-sees-deferred-reset",
            "saver-sees-noop-cancel",
            "saver-sees-unexpected-fd",
        ],
        why: "nobody resets a device that the VMM has stopped, so there is nothing to be seen",
    },
    Silence {
        cases: &["from RUNNING", "from PRE_COPY", "from RESUMING"],
        features: &[Features::ALL],
        properties: &["locks-wake-the-reader"],
        why: "a reader waits for the firmware in STOP_COPY alone",
    },
    Silence {
        cases: &[
            "1 device",
            "1 device, two faults",
            "1 device, any order",
            "1 device, any order, full",
            "hisi_acc, held back",
            "mlx5, host resets",
        ],
        features: &[Features::ALL],
        properties: &["system-quiet"],
        why: "a device alone has no other that could reach it",
    },
];

const WITHOUT_PRE_COPY: &[Features] = &[Features::STOP_COPY, Features::P2P];

impl Case {
    /// At which level.
    pub(crate) const fn level(&self) -> u8 {
        match self.actors {
            Actors::Locks(_) => 2,
            Actors::System(_) => 3,
            _ => 1,
        }
    }

    /// How two machines are set, if it is a case of them.
    #[cfg(test)]
    pub(crate) const fn setting(&self) -> Option<system::Setting> {
        if let Actors::System(setting) = self.actors { Some(setting) } else { None }
    }

    /// Why this property has nothing to judge here, if that is meant.
    pub(crate) fn silence(&self, property: &str) -> Option<&'static Silence> {
        SILENCES.iter().find(|silence| {
            silence.cases.contains(&self.name)
                && silence.features.contains(&self.features)
                && silence.properties.contains(&property)
        })
    }

    pub(crate) fn with<O: OnScene>(&self, on: O) -> O::Output {
        self.scene(None, None, on)
    }

    /// With a fault, and for one property only, if so.
    pub(crate) fn scene<O: OnScene>(
        &self,
        fault: Option<Fault>,
        only: Option<&str>,
        on: O,
    ) -> O::Output {
        let features = self.features;
        let slip = fault.and_then(Fault::slip);
        match self.actors {
            Actors::AnyVmm => {
                let planted = fault.and_then(Fault::bug).map_or(Planted::NONE, Planted::bug);
                let without = property::CLAIM_WITHOUT_ASSUMPTION;
                on.on(Protocol::new(features, planted, pick(property::RULES, without, only)))
            }
            Actors::Source(setting) => {
                on.on(Source { features, setting, slip, rules: pick(source::RULES, &[], only) })
            }
            Actors::Destination(setting) => {
                let without = destination::WITHOUT_ASSUMPTION;
                let rules = pick(destination::RULES, without, only);
                on.on(Destination { features, setting, slip, rules })
            }
            Actors::Group(setting) => {
                on.on(Pair { features, setting, slip, rules: pick(group::RULES, &[], only) })
            }
            Actors::Devices(count) => on.on(Devices { count, fault: None }),
            Actors::Locks(start) => {
                let design = fault.and_then(Fault::design).unwrap_or(Design::Deferred);
                let without = locks::CLAIM_WITHOUT_LICENCE;
                on.on(Locks::new(start, design, pick(locks::RULES, without, only)))
            }
            Actors::System(setting) => with_system(setting, fault, only, AsScene(on)),
        }
    }

    /// How the runs end, where that is asked.
    pub(crate) fn runs(&self, fault: Option<Fault>) -> Option<Runs> {
        match self.actors {
            Actors::System(setting) if setting.ends => {
                Some(with_system(setting, fault, Some(""), system::Ends))
            }
            _ => None,
        }
    }
}

/// A system is a scene like any other.
struct AsScene<O>(O);

impl<O: OnScene> OnSystem for AsScene<O> {
    type Output = O::Output;

    fn on<const N: usize>(self, system: System<N>) -> O::Output {
        self.0.on(system)
    }
}

fn with_system<O: OnSystem>(
    setting: system::Setting,
    fault: Option<Fault>,
    only: Option<&str>,
    on: O,
) -> O::Output {
    let slip = fault.and_then(Fault::slip);
    let between = fault.and_then(Fault::stream_slip);
    macro_rules! on {
        ($devices:literal) => {{
            let rules = pick(System::<$devices>::RULES, &[], only);
            on.on(System::<$devices>::new(setting, slip, between, rules))
        }};
    }
    match setting.devices {
        1 => on!(1),
        2 => on!(2),
        _ => on!(3),
    }
}

/// All rules that must hold; or the one of this id, be it one that holds only with an assumption.
fn pick<C>(
    rules: &'static [Rule<C>],
    without: &'static [Rule<C>],
    only: Option<&str>,
) -> &'static [Rule<C>] {
    let Some(only) = only else { return rules };
    let picked = rules.iter().chain(without).find(|rule| rule.property.id == only);
    picked.map_or(&[], std::slice::from_ref)
}
