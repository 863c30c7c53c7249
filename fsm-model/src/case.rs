// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! What is checked: the cases with their committed sizes, and the slips that properties catch.

use vfio_fsm_core::vmm::Then;
use vfio_fsm_core::{Features, State};

use crate::locks::{self, Design, Locks};
use crate::property::{Property, Rule};
use crate::protocol::Protocol;
use crate::scene::OnScene;
use crate::session::destination::{self, Destination, HostResets};
use crate::session::group::{self, Pair, Role};
use crate::session::slip::Slip;
use crate::session::source::{self, Source};

/// A model, in one setting.
#[derive(Clone, Copy, Debug)]
pub struct Case {
    /// What acts: `any VMM`, `Saver`, …
    pub name: &'static str,
    /// The flags of its devices.
    pub features: Features,
    /// The reachable worlds. A change here is a change of meaning.
    pub states: usize,
    actors: Actors,
}

#[derive(Clone, Copy, Debug)]
enum Actors {
    AnyVmm,
    Source(source::Setting),
    Destination(destination::Setting),
    Group(group::Setting),
    Locks(State),
}

const fn any_vmm(features: Features, states: usize) -> Case {
    Case { name: "any VMM", features, states, actors: Actors::AnyVmm }
}

/// A device in RUNNING, a host that resets it too, and calls that fail.
const fn saver(features: Features, faults: u8, states: usize) -> Case {
    let setting = source::Setting { then: Then::Stop, paused: false, host_resets: true, faults };
    Case { name: "Saver", features, states, actors: Actors::Source(setting) }
}

/// A snapshot of a device that runs.
const fn snapshot(features: Features, states: usize) -> Case {
    let setting = source::Setting { then: Then::Back, paused: false, host_resets: true, faults: 1 };
    Case { name: "Saver, back", features, states, actors: Actors::Source(setting) }
}

/// One of a device that the VMM has stopped before.
const fn paused(features: Features, states: usize) -> Case {
    let then = Then::Back;
    let setting = source::Setting { then, paused: true, host_resets: false, faults: 2 };
    Case { name: "Saver, paused", features, states, actors: Actors::Source(setting) }
}

const fn loader(features: Features, states: usize) -> Case {
    let host_resets = HostResets::UntilTheLastLook;
    let setting = destination::Setting { host_resets, faults: 2 };
    Case { name: "Loader", features, states, actors: Actors::Destination(setting) }
}

const fn group(name: &'static str, features: Features, role: Role, states: usize) -> Case {
    let setting = group::Setting { role, faults: 1, resets: 1 };
    Case { name, features, states, actors: Actors::Group(setting) }
}

const fn locks(name: &'static str, start: State, states: usize) -> Case {
    Case { name, features: Features::ALL, states, actors: Actors::Locks(start) }
}

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
    loader(Features::STOP_COPY, 33_000),
    loader(Features::P2P, 34_452),
    loader(Features::PRE_COPY, 33_000),
    loader(Features::ALL, 34_452),
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

/// A slip of the VMM around a session, and a property that must catch it.
#[derive(Clone, Copy, Debug)]
pub struct SlipClaim {
    /// The slip.
    pub slip: Slip,
    /// The id of the property that claims it.
    pub property: &'static str,
    case: Case,
}

macro_rules! slips {
    ($($slip:ident with $case:expr => $($property:literal)*;)*) => {
        &[$($(SlipClaim { slip: Slip::$slip, property: $property, case: $case },)*)*]
    };
}

/// Claims are made of models, not of their sizes.
const SAVER: Case = saver(Features::ALL, 1, 0);
const PLAIN_SAVER: Case = saver(Features::STOP_COPY, 1, 0);
const BACK: Case = snapshot(Features::STOP_COPY, 0);
const LOADER: Case = loader(Features::ALL, 0);
const PLAIN_LOADER: Case = loader(Features::STOP_COPY, 0);
const SAVERS: Case = group("2 Savers", Features::P2P, Role::Save(Then::Stop), 0);
const LOADERS: Case = group("2 Loaders", Features::P2P, Role::Load, 0);

/// Every slip with the properties that claim it.
pub const SLIPS: &[SlipClaim] = slips! {
    SwapsFd with SAVER => "saver-image" "saver-closes";
    ClosesNewFd with SAVER => "saver-sees-unexpected-fd";
    UsesFirstFd with SAVER => "saver-live-fd";
    UsesFirstFd with LOADER => "loader-live-fd";
    LeaksFd with SAVER => "saver-closes";
    LeaksFd with LOADER => "loader-closes";
    InfoFailsSilently with SAVER => "saver-asks-after-error";
    DeadFdIsEnd with SAVER => "saver-asks-after-error" "saver-image";
    NeverReady with SAVER => "saver-waits-for-something";
    NeverReady with LOADER => "loader-waits-for-something";
    RemembersState with SAVER => "saver-legal-set" "saver-asks-after-error";
    RemembersState with LOADER => "loader-legal-set" "loader-one-session";
    SaysRunning with SAVER =>
        "saver-aborts" "saver-guest" "saver-evidence-is-sound" "saver-sees-dead-fd"
        "saver-sees-deferred-reset" "saver-sees-noop-cancel";
    SaysRunning with LOADER =>
        "loader-aborts-by-reset" "loader-evidence-is-sound" "loader-sees-reset-before-start";
    SaysAllFeatures with PLAIN_SAVER => "saver-legal-set";
    SaysAllFeatures with PLAIN_LOADER => "loader-legal-set";
    ResetUnchecked with SAVER => "saver-evidence-is-sound";
    ResetDenied with SAVER => "saver-stuck-by-reset";
    ResetDenied with LOADER => "loader-stuck-by-reset";
    DwellsInStop with LOADER => "loader-does-not-dwell";
    GuestRunsOn with SAVER => "saver-freezes" "saver-holds-resets-back" "saver-image";
    GuestRunsOn with LOADER => "loader-freezes";
    GuestRunsOn with SAVERS => "group-freezes";
    ThawsEarly with SAVER => "saver-freezes";
    ThawsEarly with LOADERS => "group-thaws-together";
    ForgetsThaw with SAVER => "saver-aborts";
    ForgetsThaw with BACK => "saver-complete";
    ForgetsThaw with LOADER => "loader-complete";
    ForgetsThaw with SAVERS => "group-all-or-none";
    LosesDiscard with SAVER => "saver-image";
    LosesData with SAVER => "saver-image";
    DoublesData with SAVER => "saver-image";
    IgnoresEpoch with LOADER => "loader-refuses-mixed";
    ForgetsConfig with LOADER => "loader-hooks-in-order";
    DeafToCancel with SAVER => "saver-gives-up";
    DeafToCancel with LOADER => "loader-gives-up";
    DeafToCancel with SAVERS => "group-ends";
    IgnoresGates with SAVERS => "group-is-quiet";
    IgnoresGates with LOADERS => "group-is-quiet";
};

/// A design of the driver, and a property that must refuse it.
#[derive(Clone, Copy, Debug)]
pub struct LockClaim {
    /// The design.
    pub design: Design,
    /// The id of the property that claims it.
    pub property: &'static str,
    start: State,
}

macro_rules! lock_mutants {
    ($($design:ident in $start:ident => $($property:literal)*;)*) => {
        &[$($(LockClaim {
            design: Design::$design,
            property: $property,
            start: State::$start,
        },)*)*]
    };
}

/// Every design but the right one, with the properties that refuse it.
pub const LOCK_MUTANTS: &[LockClaim] = lock_mutants! {
    ResetLocksFile in PreCopy => "locks-no-deadlock" "locks-in-order";
    ResetLocksNothing in PreCopy => "locks-guard-the-session";
    PlainMutex in PreCopy => "locks-no-deadlock" "locks-in-order" "locks-reset-never-waits";
    PlainMutexCopies in PreCopy => "locks-no-deadlock" "locks-in-order";
    WorkQueue in PreCopy => "locks-reset-before-it-returns";
    SharedBits in PreCopy => "locks-no-reset-lost";
    FreesUnderSpinLock in PreCopy => "locks-no-sleep-under-spin-lock";
    CloseUnlocked in PreCopy => "locks-guard-the-state";
    NoWake in StopCopy => "locks-wake-the-reader";
    PositionUnlocked in PreCopy => "locks-calls-in-some-order";
    DeadReadKeepsLock in PreCopy => "locks-are-returned" "locks-no-deadlock";
    WrongUnlock in PreCopy => "locks-are-returned";
    GetSkipsGate in PreCopy => "locks-no-reset-lost" "locks-reset-before-it-returns";
    LooksOnce in PreCopy => "locks-no-reset-lost";
};

impl LockClaim {
    pub(crate) fn with<O: OnScene>(&self, on: O) -> O::Output {
        on.on(Locks::new(self.start, self.design, pick(locks::RULES, Some(self.property))))
    }
}

/// L6 without its licence.
pub(crate) fn l6_without_licence<O: OnScene>(on: O) -> (&'static Property, O::Output) {
    let rules = locks::CLAIM_WITHOUT_LICENCE;
    (&rules[0].property, on.on(Locks::new(State::PreCopy, Design::Deferred, rules)))
}

/// V9 without its assumption.
pub(crate) fn v9_without_assumption<O: OnScene>(on: O) -> (&'static Property, O::Output) {
    let rules = destination::WITHOUT_ASSUMPTION;
    let setting = destination::Setting { host_resets: HostResets::Always, faults: 0 };
    let scene = Destination { features: Features::ALL, setting, slip: None, rules };
    (&rules[0].property, on.on(scene))
}

impl Case {
    pub(crate) fn with<O: OnScene>(&self, on: O) -> O::Output {
        self.scene(None, None, on)
    }

    /// With a slip, and for one property only, if so.
    fn scene<O: OnScene>(&self, slip: Option<Slip>, only: Option<&str>, on: O) -> O::Output {
        let features = self.features;
        match self.actors {
            Actors::AnyVmm => on.on(Protocol::new(features)),
            Actors::Source(setting) => {
                on.on(Source { features, setting, slip, rules: pick(source::RULES, only) })
            }
            Actors::Destination(setting) => on.on(Destination {
                features,
                setting,
                slip,
                rules: pick(destination::RULES, only),
            }),
            Actors::Group(setting) => {
                on.on(Pair { features, setting, slip, rules: pick(group::RULES, only) })
            }
            Actors::Locks(start) => {
                on.on(Locks::new(start, Design::Deferred, pick(locks::RULES, only)))
            }
        }
    }
}

impl SlipClaim {
    /// In which model it is made.
    pub const fn model(&self) -> &'static str {
        self.case.name
    }

    pub(crate) fn with<O: OnScene>(&self, on: O) -> O::Output {
        self.case.scene(Some(self.slip), Some(self.property), on)
    }
}

pub(crate) fn pick<C>(rules: &'static [Rule<C>], only: Option<&str>) -> &'static [Rule<C>] {
    let Some(only) = only else { return rules };
    let picked = rules.iter().find(|rule| rule.property.id == only);
    picked.map_or(&[], std::slice::from_ref)
}
