// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! What is checked of two machines: the cases with their committed sizes, and those that claims are
//! made of.

use std::hash::{DefaultHasher, Hash, Hasher};

use vfio_fsm_core::Features;

use super::device::{RECORD, Serialisation};
use super::rules::{EVERY_RUN_ENDS, is_progress};
use super::{Action, Left, Move, Pace, Setting, System, World};
use crate::case::{Case, machines};
use crate::check::Run;
use crate::graph::{Components, Graph};
use crate::scene::Scene;

const NOTHING: Left = Left { touches: 0, guest_resets: 0, host_resets: 0, faults: 0, cancels: 0 };
const SOME: Left = Left { touches: 1, guest_resets: 1, host_resets: 1, faults: 1, cancels: 1 };

/// One device, of which an image takes two reads.
const fn one(how: Serialisation, left: Left) -> Setting {
    Setting {
        devices: 1,
        features: Features::ALL,
        how,
        left,
        restarts: 1,
        chunk: 2,
        pace: Pace::Eager,
        symmetric: false,
        in_two_parts: false,
        resets_behind_last_look: false,
        guest_runs_on: false,
        ends: true,
    }
}

/// Its image is read at once.
const fn whole(left: Left) -> Setting {
    Setting { chunk: RECORD as u32, ..one(Serialisation::Atomic, left) }
}

/// Some devices that are alike.
const fn alike(devices: u8, left: Left) -> Setting {
    Setting { devices, symmetric: true, ..whole(left) }
}

const fn in_any_order(setting: Setting) -> Setting {
    Setting { pace: Pace::Any, ..setting }
}

/// A host that resets the hardware while the driver does not know.
const fn reset_late(how: Serialisation, others: Left) -> Setting {
    Setting { in_two_parts: true, ..one(how, Left { host_resets: 1, ..others }) }
}

/// A guest that is not held back, and touches the device once.
const fn touched(how: Serialisation) -> Setting {
    Setting { guest_runs_on: true, ..one(how, Left { touches: 1, ..NOTHING }) }
}

/// What is checked of level 3, also that every run ends.
pub const SYSTEM_CASES: &[Case] = &[
    machines(
        "1 device",
        one(
            Serialisation::Atomic,
            Left { touches: 1, guest_resets: 2, host_resets: 1, faults: 1, cancels: 1 },
        ),
        300_907,
    ),
    machines(
        "1 device, two faults",
        one(Serialisation::Atomic, Left { guest_resets: 1, faults: 2, cancels: 1, ..NOTHING }),
        15_360,
    ),
    machines(
        "1 device, any order",
        in_any_order(whole(Left { touches: 1, guest_resets: 1, cancels: 1, ..NOTHING })),
        31_954,
    ),
    machines(
        "hisi_acc, held back",
        one(
            Serialisation::Tears,
            Left { touches: 2, guest_resets: 1, host_resets: 1, faults: 0, cancels: 1 },
        ),
        96_091,
    ),
    machines(
        "mlx5, host resets",
        reset_late(Serialisation::Fails, Left { touches: 1, guest_resets: 1, ..NOTHING }),
        15_503,
    ),
    machines(
        "2 devices",
        alike(2, Left { touches: 1, guest_resets: 1, cancels: 1, ..NOTHING }),
        197_245,
    ),
];

const fn large(name: &'static str, setting: Setting, states: usize) -> Case {
    machines(name, Setting { ends: false, ..setting }, states)
}

/// More of level 3, in minutes and gigabytes, without how the runs end.
pub const LARGE_SYSTEM_CASES: &[Case] = &[
    large("1 device, any order, full", in_any_order(one(Serialisation::Atomic, SOME)), 1_782_539),
    large(
        "2 hisi_acc, held back",
        Setting {
            chunk: 2,
            how: Serialisation::Tears,
            ..alike(2, Left { touches: 1, guest_resets: 1, cancels: 1, ..NOTHING })
        },
        289_992,
    ),
    large("2 devices, full", alike(2, SOME), 23_700_389),
    large("3 devices", alike(3, Left { guest_resets: 1, faults: 1, ..NOTHING }), 1_413_400),
];

/// Claims are made of models, not of their sizes.
pub(crate) const ONE: Case = machines("1 device", one(Serialisation::Atomic, SOME), 0);
pub(crate) const WHOLE: Case = machines("1 device", whole(SOME), 0);
pub(crate) const TWO: Case =
    machines("2 devices", alike(2, Left { touches: 1, cancels: 1, ..NOTHING }), 0);
pub(crate) const TEARS: Case = machines("1 device that tears", one(Serialisation::Tears, SOME), 0);
pub(crate) const TWO_TEAR: Case = machines(
    "2 devices that tear",
    Setting { chunk: 2, how: Serialisation::Tears, ..alike(2, Left { touches: 1, ..NOTHING }) },
    0,
);
/// Nobody gives up, so that only the VMM's own decision ends it.
pub(crate) const UNDISTURBED: Case = machines("1 device", whole(NOTHING), 0);
pub(crate) const TOUCHED_TEARS: Case =
    machines("1 device that tears", touched(Serialisation::Tears), 0);
pub(crate) const TOUCHED_FAILS: Case = machines("1 device", touched(Serialisation::Fails), 0);
pub(crate) const RESET_LATE_TEARS: Case =
    machines("1 device that tears", reset_late(Serialisation::Tears, NOTHING), 0);
pub(crate) const RESET_LATE: Case =
    machines("1 device", reset_late(Serialisation::Atomic, NOTHING), 0);
/// The destination's host resets a device behind the last look at it.
pub(crate) const BLANKED: Case = machines(
    "1 device",
    Setting { resets_behind_last_look: true, ..whole(Left { host_resets: 1, ..NOTHING }) },
    0,
);

/// What is done with a system, of however many devices.
pub(crate) trait OnSystem {
    type Output;

    fn on<const N: usize>(self, system: System<N>) -> Self::Output;
}

/// How the runs of a case end.
#[derive(Debug)]
pub(crate) struct Runs {
    /// Distinct worlds.
    pub(crate) states: usize,
    /// A shortest run to where one need not end, or can go on for ever with more than waiting for
    /// the switchover; `None` if there is no such place.
    pub(crate) trap: Option<Run>,
}

/// Finds out, on the whole graph: see [`Components`].
pub(crate) struct Ends;

impl OnSystem for Ends {
    type Output = Runs;

    fn on<const N: usize>(self, system: System<N>) -> Runs {
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
            let steps = system.narrate(&actions);
            Run { property: EVERY_RUN_ENDS.id, steps, replay: None }
        });
        Runs { states: graph.states(), trap }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::check::{Failure, check, refute};
    use crate::claim::{CLAIMS, Claim, Fault};

    /// The same with another setting.
    fn with(case: Case, change: impl FnOnce(Setting) -> Setting) -> Case {
        machines(case.name, change(case.setting().expect("of two machines")), case.states)
    }

    fn claims() -> impl Iterator<Item = (&'static Claim, Setting)> {
        CLAIMS.iter().filter_map(|claim| Some((claim, claim.case.setting()?)))
    }

    fn is_caught(claim: &Claim, setting: Setting) -> bool {
        let case = with(claim.case, |_| setting);
        refute(&Claim { case, ..*claim }).is_some()
    }

    /// X2: that devices are alike changes no verdict, and saves at most the worlds in which they are
    /// named the other way round.
    #[test]
    fn symmetry_changes_no_verdict() {
        for (claim, setting) in claims().filter(|(_, setting)| setting.symmetric) {
            for symmetric in [true, false] {
                let caught = is_caught(claim, Setting { symmetric, ..setting });
                assert!(caught, "{} {}", claim.fault, claim.property);
            }
        }
        for case in SYSTEM_CASES.iter().filter(|case| case.setting().is_some_and(|it| it.symmetric))
        {
            let named = with(*case, |setting| Setting { symmetric: false, ..setting });
            let checked = check(Box::leak(Box::new(named)));
            let [Failure::States { seen: all, .. }] = *checked.failures else {
                panic!("{}: {:?}", case.name, checked.failures)
            };
            assert!(case.states < all && all <= 2 * case.states, "{}: {all}", case.name);
        }
    }

    /// X2: that the destination goes first changes no verdict: what is caught in one is caught in
    /// the other, and what holds, holds.
    #[test]
    fn the_order_of_the_ends_changes_no_verdict() {
        let few = Left { touches: 1, guest_resets: 1, cancels: 1, ..NOTHING };
        for (claim, setting) in claims().filter(|(_, setting)| setting.devices == 1) {
            let dropped = matches!(claim.fault, Fault::Assumption(_));
            let left = if dropped { setting.left } else { few };
            let [eager, any] = [Pace::Eager, Pace::Any]
                .map(|pace| is_caught(claim, Setting { pace, left, ..setting }));
            assert_eq!(eager, any, "{} {}", claim.fault, claim.property);
            assert!(any || !dropped, "{} {}", claim.fault, claim.property);
        }
    }
}
