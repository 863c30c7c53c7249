// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! What is checked of two machines: the cases with their committed sizes, the slips that the
//! properties catch, and what is false without an assumption.

use std::hash::{DefaultHasher, Hash, Hasher};
use std::time::{Duration, Instant};

use stateright::{Checker, Model};
use vfio_fsm_core::Features;

use super::device::{RECORD, Serialisation};
use super::rules::{EVERY_RUN_ENDS, is_progress};
use super::slip::{StreamSlip, Wrong};
use super::{Action, Left, Move, Pace, Setting, System, World};
use crate::case::pick;
use crate::check::{Failure, First, Run, broken};
use crate::graph::{Components, Graph};
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

const NOTHING: Left = Left { touches: 0, guest_resets: 0, host_resets: 0, faults: 0, cancels: 0 };

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

/// One device, of which an image takes two reads.
const fn one(name: &'static str, how: Serialisation, left: Left, states: usize) -> SystemCase {
    case(name, 1, Setting { chunk: 2, how, ..setting(left) }, true, states)
}

/// What is checked of level 3.
pub const SYSTEM_CASES: &[SystemCase] = &[
    one(
        "1 device",
        Serialisation::Atomic,
        Left { touches: 1, guest_resets: 2, host_resets: 1, faults: 1, cancels: 1 },
        300_907,
    ),
    one(
        "1 device, two faults",
        Serialisation::Atomic,
        Left { guest_resets: 1, faults: 2, cancels: 1, ..NOTHING },
        15_360,
    ),
    case(
        "1 device, any order",
        1,
        Setting {
            pace: Pace::Any,
            ..setting(Left { touches: 1, guest_resets: 1, cancels: 1, ..NOTHING })
        },
        true,
        31_954,
    ),
    one(
        "hisi_acc, held back",
        Serialisation::Tears,
        Left { touches: 2, guest_resets: 1, host_resets: 1, faults: 0, cancels: 1 },
        96_091,
    ),
    case(
        "mlx5, host resets",
        1,
        reset_in_two_parts(Serialisation::Fails, Left { touches: 1, guest_resets: 1, ..NOTHING }),
        true,
        15_503,
    ),
    case(
        "2 devices",
        2,
        Setting {
            symmetric: true,
            ..setting(Left { touches: 1, guest_resets: 1, cancels: 1, ..NOTHING })
        },
        true,
        197_245,
    ),
    case(
        "1 device, any order, full",
        1,
        Setting { chunk: 2, pace: Pace::Any, ..setting(SOME) },
        false,
        1_782_539,
    ),
    case(
        "2 hisi_acc, held back",
        2,
        Setting {
            chunk: 2,
            how: Serialisation::Tears,
            symmetric: true,
            ..setting(Left { touches: 1, guest_resets: 1, cancels: 1, ..NOTHING })
        },
        false,
        289_992,
    ),
    case("2 devices, full", 2, Setting { symmetric: true, ..setting(SOME) }, false, 23_700_389),
    case(
        "3 devices",
        3,
        Setting { symmetric: true, ..setting(Left { guest_resets: 1, faults: 1, ..NOTHING }) },
        false,
        1_413_400,
    ),
];

/// A slip between two VMMs, and a property that must catch it.
#[derive(Clone, Copy, Debug)]
pub struct SystemClaim {
    /// The slip.
    pub wrong: Wrong,
    /// The id of the property that claims it.
    pub property: &'static str,
    case: SystemCase,
}

/// Claims are made of models, not of their sizes.
const fn claimed(name: &'static str, devices: usize, setting: Setting) -> SystemCase {
    case(name, devices, setting, true, 0)
}

const SOME: Left = Left { touches: 1, guest_resets: 1, host_resets: 1, faults: 1, cancels: 1 };

const ONE: SystemCase = claimed("1 device", 1, Setting { chunk: 2, ..setting(SOME) });
/// An image is read at once.
const WHOLE: SystemCase = claimed("1 device", 1, setting(SOME));
const TWO: SystemCase = claimed(
    "2 devices",
    2,
    Setting { symmetric: true, ..setting(Left { touches: 1, cancels: 1, ..NOTHING }) },
);
const TEARS: SystemCase = claimed(
    "1 device that tears",
    1,
    Setting { chunk: 2, how: Serialisation::Tears, ..setting(SOME) },
);
const TWO_TEAR: SystemCase = claimed(
    "2 devices that tear",
    2,
    Setting {
        chunk: 2,
        how: Serialisation::Tears,
        symmetric: true,
        ..setting(Left { touches: 1, ..NOTHING })
    },
);
/// Nobody gives up, so that only the VMM's own decision ends it.
const UNDISTURBED: SystemCase = claimed("1 device", 1, setting(NOTHING));

macro_rules! claims {
    ($($kind:ident $slip:ident with $case:expr => $($property:literal)*;)*) => {
        &[$($(SystemClaim {
            wrong: claims!($kind $slip),
            property: $property,
            case: $case,
        },)*)*]
    };
    (Session $slip:ident) => { Wrong::Session(Slip::$slip) };
    (Stream $slip:ident) => { Wrong::Stream(StreamSlip::$slip) };
}

/// Every slip between two VMMs, and what slips around a session come to there, with the properties
/// that claim them.
pub const SYSTEM_CLAIMS: &[SystemClaim] = claims! {
    Stream IgnoresDiscard with ONE => "system-one-session";
    Stream ReplaysSession with WHOLE => "system-one-session";
    Stream StartsBeforeEnd with ONE => "system-one-session" "system-hands-over-first";
    Stream StartsUnasked with ONE => "system-hands-over-first";
    Stream SkipsP2p with TWO => "system-quiet" "system-nothing-lost";
    Stream SkipsP2p with TWO_TEAR => "system-never-torn";
    Stream ResumesAfterHandOver with ONE => "system-one-guest";
    Stream TellsNothing with ONE => "system-goes-on" "system-every-run-ends";
    Stream ResetsQuietly with ONE => "system-loss-is-said";
    Stream NeverSwitchesOver with UNDISTURBED => "system-every-run-ends";
    Session SwapsFd with ONE => "system-one-session";
    Stream BelievesInReset with ONE => "system-blank-again";
    Session SaysRunning with ONE => "system-source-goes-on";
    Session GuestRunsOn with ONE => "system-frozen" "system-nothing-lost" "system-one-guest";
    Session GuestRunsOn with TEARS => "system-never-torn" "system-as-it-stopped";
    Session ThawsEarly with ONE => "system-frozen";
    Session ForgetsThaw with ONE => "system-source-goes-on";
    Session DeafToCancel with ONE => "system-loud";
    Session IgnoresGates with TWO => "system-quiet";
};

/// What is false without one of the assumptions.
#[derive(Clone, Copy, Debug)]
pub struct SystemRefutation {
    /// Its name in reports.
    pub name: &'static str,
    /// What is assumed no more.
    pub without: &'static str,
    /// The id of the property that does not hold then.
    pub property: &'static str,
    wrong: Option<Wrong>,
    case: SystemCase,
}

const fn on_one(how: Serialisation) -> Setting {
    Setting { chunk: 2, how, ..setting(NOTHING) }
}

/// A guest that is not held back, and touches the device once.
const fn touched(how: Serialisation) -> SystemCase {
    let left = Left { touches: 1, ..NOTHING };
    claimed("1 device", 1, Setting { left, ..on_one(how) })
}

/// A host that resets the hardware while the driver does not know.
const fn reset_in_two_parts(how: Serialisation, others: Left) -> Setting {
    let left = Left { host_resets: 1, ..others };
    Setting { left, in_two_parts: true, ..on_one(how) }
}

/// Each of these must be refuted.
pub const SYSTEM_REFUTATIONS: &[SystemRefutation] = &[
    SystemRefutation {
        name: "never-torn-with-a-guest-not-held-back",
        without: "guest touches are held back in STOP_COPY",
        property: "system-never-torn",
        wrong: Some(Wrong::Session(Slip::GuestRunsOn)),
        case: touched(Serialisation::Tears),
    },
    SystemRefutation {
        name: "never-torn-with-a-host-that-resets",
        without: "the host resets no hardware whose image is being read",
        property: "system-never-torn",
        wrong: None,
        case: claimed("1 device", 1, reset_in_two_parts(Serialisation::Tears, NOTHING)),
    },
    SystemRefutation {
        name: "as-it-stopped-with-a-host-that-resets",
        without: "the host resets no hardware whose image is still to be made, where it tears nothing",
        property: "system-as-it-stopped",
        wrong: None,
        case: claimed("1 device", 1, reset_in_two_parts(Serialisation::Atomic, NOTHING)),
    },
    SystemRefutation {
        name: "nothing-lost-with-a-guest-not-held-back",
        without: "guest touches are held back in STOP_COPY, where they tear nothing",
        property: "system-nothing-lost",
        wrong: Some(Wrong::Session(Slip::GuestRunsOn)),
        case: touched(Serialisation::Fails),
    },
    SystemRefutation {
        name: "as-it-stopped-with-a-host-that-resets-there",
        without: "the destination's host resets nothing behind the last look",
        property: "system-as-it-stopped",
        wrong: None,
        case: claimed(
            "1 device",
            1,
            Setting {
                resets_behind_last_look: true,
                ..setting(Left { host_resets: 1, ..NOTHING })
            },
        ),
    },
];

trait OnSystem {
    type Output;

    fn on<const N: usize>(self, system: System<N>) -> Self::Output;
}

/// A system is a scene like any other.
struct AsScene<O>(O);

impl<O: OnScene> OnSystem for AsScene<O> {
    type Output = O::Output;

    fn on<const N: usize>(self, system: System<N>) -> O::Output {
        self.0.on(system)
    }
}

impl SystemCase {
    /// The flags of its devices.
    pub const fn features(&self) -> Features {
        self.setting.features
    }

    fn with<O: OnSystem>(&self, wrong: Option<Wrong>, only: Option<&str>, on: O) -> O::Output {
        let setting = self.setting;
        match self.devices {
            1 => on.on(System::<1>::new(setting, wrong, pick(System::<1>::RULES, only))),
            2 => on.on(System::<2>::new(setting, wrong, pick(System::<2>::RULES, only))),
            _ => on.on(System::<3>::new(setting, wrong, pick(System::<3>::RULES, only))),
        }
    }
}

/// The run by which the property that claims this slip catches it; `None` if it survives.
pub fn check_system_claim(claim: &SystemClaim) -> Option<Run> {
    if claim.property == EVERY_RUN_ENDS.id {
        return claim.case.with(Some(claim.wrong), Some(""), Ends).trap;
    }
    claim.case.with(Some(claim.wrong), Some(claim.property), AsScene(First))
}

/// The run that breaks the property without the assumption; `None` if none was found, and then
/// something is wrong.
pub fn refute_system(refutation: &SystemRefutation) -> Option<Run> {
    refutation.case.with(refutation.wrong, Some(refutation.property), AsScene(First))
}

/// How the runs of a case end.
#[derive(Debug)]
pub struct SystemRuns {
    /// Distinct worlds.
    pub states: usize,
    /// Steps between them.
    pub transitions: usize,
    /// A shortest run to where one need not end, or can go on for ever with more than waiting for
    /// the switchover; `None` if there is no such place.
    pub trap: Option<Run>,
}

/// Whether every run of a case ends: on the whole graph, see
/// [`Components`](crate::graph::Components).
pub fn check_system_runs(case: &SystemCase) -> SystemRuns {
    case.with(None, Some(""), Ends)
}

struct Ends;

impl OnSystem for Ends {
    type Output = SystemRuns;

    fn on<const N: usize>(self, system: System<N>) -> SystemRuns {
        // A world is known by 64 bits, as in stateright.
        let key = |world: &World<N>| {
            let mut hasher = DefaultHasher::new();
            world.hash(&mut hasher);
            (hasher.finish(), system.is_over(world))
        };
        let mut actions = Vec::new();
        let graph = Graph::explore_by(system.start(), key, |world, found| {
            system.offer(world, &mut actions);
            found.extend(actions.drain(..).map(|action| (action, system.next(world, action))));
        });
        let mut bad = vec![false; graph.states()];
        let leads_on = Components::new(&graph, |edge| is_progress(*edge.label));
        let ends = |&node: &usize| graph.node(node).is_some_and(|&(_, over)| over);
        let endless = leads_on.bottoms().filter(|nodes| !nodes.iter().any(ends));
        // To look again, and to find nothing, is the one thing that can be done for ever.
        let moves = Components::new(&graph, |edge| {
            !matches!(
                edge.label,
                Action::Source(_, Move::Tick) | Action::Destination(_, Move::Tick)
            )
        });
        endless.chain(moves.cycles()).flatten().for_each(|&node| bad[node] = true);
        let trap = graph.shortest_path(|node| bad[node]).map(|path| {
            let actions: Vec<Action> = path.iter().map(|edge| *edge.label).collect();
            Run { property: EVERY_RUN_ENDS.id, steps: system.narrate(&actions) }
        });
        SystemRuns { states: graph.states(), transitions: graph.transitions(), trap }
    }
}

/// Check every property in every world of a case.
pub fn check_system(case: &'static SystemCase) -> SystemChecked {
    case.with(None, None, AsScene(Checking(case)))
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

#[cfg(test)]
mod tests {
    use super::*;

    fn with(case: &SystemCase, setting: Setting) -> SystemCase {
        SystemCase { setting, ..*case }
    }

    struct Count;

    impl OnScene for Count {
        type Output = (usize, usize);

        fn on<S: Scene>(self, scene: S) -> (usize, usize) {
            let checker = Stage::new(scene).checker().threads(2).spawn_bfs().join();
            (checker.unique_state_count(), broken(&checker).count())
        }
    }

    fn count(case: &SystemCase) -> (usize, usize) {
        case.with(None, None, AsScene(Count))
    }

    /// X2: that devices are alike changes no verdict, and saves at most the worlds in which they are
    /// named the other way round.
    #[test]
    fn symmetry_changes_no_verdict() {
        for claim in SYSTEM_CLAIMS.iter().filter(|claim| claim.case.setting.symmetric) {
            let setting = Setting { symmetric: false, ..claim.case.setting };
            let named = SystemClaim { case: with(&claim.case, setting), ..*claim };
            let caught = |claim| check_system_claim(claim).is_some();
            assert!(caught(claim) && caught(&named), "{} {}", claim.wrong.slug(), claim.property);
        }
        for case in SYSTEM_CASES.iter().filter(|case| case.small && case.setting.symmetric) {
            let named = with(case, Setting { symmetric: false, ..case.setting });
            let ((alike, broken), (all, broken_then)) = (count(case), count(&named));
            assert_eq!((broken, broken_then), (0, 0), "{}", case.name);
            assert!(alike < all && all <= 2 * alike, "{}: {alike} of {all}", case.name);
        }
    }

    /// X2: that the destination goes first changes no verdict: what is caught in one is caught in
    /// the other, and what holds, holds.
    #[test]
    fn the_order_of_the_ends_changes_no_verdict() {
        let left = Left { touches: 1, guest_resets: 1, cancels: 1, ..NOTHING };
        for claim in SYSTEM_CLAIMS.iter().filter(|claim| claim.case.devices == 1) {
            let caught = |pace| {
                let setting = Setting { pace, left, ..claim.case.setting };
                let claim = SystemClaim { case: with(&claim.case, setting), ..*claim };
                check_system_claim(&claim).is_some()
            };
            let (eager, any) = (caught(Pace::Eager), caught(Pace::Any));
            assert_eq!(eager, any, "{} {}", claim.wrong.slug(), claim.property);
        }
        for refutation in SYSTEM_REFUTATIONS {
            let setting = Setting { pace: Pace::Any, ..refutation.case.setting };
            let any = SystemRefutation { case: with(&refutation.case, setting), ..*refutation };
            assert!(refute_system(&any).is_some(), "{}", refutation.name);
        }
    }

    /// X3: the explorer and stateright find as many worlds.
    #[test]
    fn both_explorers_count_as_many() {
        for case in SYSTEM_CASES.iter().filter(|case| case.small && case.states < 40_000) {
            assert_eq!(check_system_runs(case).states, count(case).0, "{}", case.name);
        }
    }
}
