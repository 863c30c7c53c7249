// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! The table against its independent copies: specs/arcs.toml, and the reviewed snapshots.

#![expect(clippy::expect_used, reason = "a helper of tests may fail them")]

use std::collections::BTreeMap;
use std::fmt::Write;

use expect_test::expect_file;
use serde::Deserialize;
use vfio_fsm_core::{
    Arc, Dot, Features, Mermaid, RawState, Route, SessionEffect, State, Why, allowed, arcs,
    next_hop,
};

#[derive(Deserialize)]
struct ArcsToml {
    states: BTreeMap<String, u32>,
    session: BTreeMap<String, Vec<String>>,
    next: BTreeMap<String, BTreeMap<String, String>>,
    flag_set: Vec<FlagSet>,
}

#[derive(Deserialize)]
struct FlagSet {
    bits: u64,
    longest: usize,
    arcs: Vec<String>,
    next: BTreeMap<String, BTreeMap<String, String>>,
}

fn arcs_toml() -> ArcsToml {
    let text = include_str!("../specs/arcs.toml");
    toml::from_str(text).expect("specs/arcs.toml parses")
}

fn pairs() -> impl Iterator<Item = (State, State)> {
    State::ALL.into_iter().flat_map(|from| State::ALL.map(|to| (from, to)))
}

/// R2, R17, T1: the numbers, and the next hop of every pair, are those of specs/arcs.toml.
#[test]
fn next_hops_are_those_of_the_specification() {
    let spec = arcs_toml();
    for state in State::ALL {
        assert_eq!(spec.states[state.name()], state.number());
    }
    assert_eq!(spec.flag_set.len(), 4);
    for set in &spec.flag_set {
        let features = Features::from_flags(set.bits).expect("a legal set");
        for (from, to) in pairs() {
            let want = set.next.get(from.name()).and_then(|row| row.get(to.name()));
            let want = want.map_or("ERROR", String::as_str);
            let got = next_hop(features, from, to).map_or("ERROR", State::name);
            assert_eq!(got, want, "{features}: {from} -> {to}");
        }
    }
    for (from, to) in pairs() {
        let got = next_hop(Features::ALL, from, to).map_or("ERROR", State::name);
        assert_eq!(got, spec.next[from.name()][to.name()], "{from} -> {to}");
    }
}

/// R5, R24, R25, R26, R27: the arcs of every flag set, and what each does to the session.
#[test]
fn arcs_are_those_of_the_specification() {
    let spec = arcs_toml();
    for set in &spec.flag_set {
        let features = Features::from_flags(set.bits).expect("a legal set");
        let mut got: Vec<_> = arcs(features).map(|arc| arc.to_string()).collect();
        let mut want = set.arcs.clone();
        got.sort();
        want.sort();
        assert_eq!(got, want, "{features}");
        for arc in arcs(features) {
            let effect = match arc.session() {
                SessionEffect::None => None,
                SessionEffect::Opens(_) => Some("opens"),
                SessionEffect::Keeps => Some("keeps"),
                SessionEffect::Ends => Some("ends"),
            };
            let name = arc.to_string();
            let listed = spec.session.iter().find(|(_, arcs)| arcs.contains(&name));
            assert_eq!(effect, listed.map(|(effect, _)| effect.as_str()), "{arc}");
        }
    }
}

/// T2, T3, C10: every route ends where it should, over arcs, in at most four; it opens a session
/// with its last arc or not at all.
#[test]
fn routes_end_and_open_at_the_end() {
    for set in arcs_toml().flag_set {
        let features = Features::from_flags(set.bits).expect("a legal set");
        let mut longest = 0;
        for (from, to) in pairs() {
            let Ok(route) = Route::new(features, from, to) else { continue };
            let walked: Vec<Arc> = route.arcs().collect();
            assert_eq!(walked.len(), route.len());
            assert_eq!(route.is_empty(), from == to);
            let mut at = from;
            for (i, arc) in walked.iter().enumerate() {
                assert_eq!(arc.from(), at);
                assert_eq!(Arc::new(features, arc.from(), arc.to()), Some(*arc));
                let opens = matches!(arc.session(), SessionEffect::Opens(_));
                assert!(!opens || i + 1 == walked.len(), "{route}");
                at = arc.to();
            }
            assert_eq!((at, route.to()), (to, to));
            let last = walked.last().map(|arc| arc.session());
            let opens = match last {
                Some(SessionEffect::Opens(direction)) => Some(direction),
                _ => None,
            };
            assert_eq!(route.opens(), opens, "{route}");
            longest = longest.max(route.len());
        }
        assert_eq!(longest, set.longest, "{features}");
    }
}

/// R4, R13, R14, R16, C6, C11, T4: who is refused, why, and what the refusal offers instead.
#[test]
fn refusals_say_why() {
    for features in Features::SETS {
        for (from, to) in pairs() {
            let why = match Route::new(features, from, to) {
                Ok(_) => None,
                Err(refused) => {
                    assert_eq!(refused.allowed(), allowed(features, from));
                    assert!(!refused.allowed().contains(to));
                    Some(refused.why())
                }
            };
            let want = if from == State::Error {
                Some(Why::InError)
            } else if to == State::Error {
                Some(Why::ErrorAsked)
            } else if !features.has(from) {
                Some(Why::Impossible)
            } else if !features.has(to) {
                Some(Why::Unsupported)
            } else if from == State::StopCopy && to.is_pre_copy() {
                Some(Why::Blocked)
            } else {
                None
            };
            assert_eq!(why, want, "{features}: {from} -> {to}");
        }
    }
    let refused = Route::new(Features::ALL, State::StopCopy, State::PreCopy).unwrap_err();
    assert_eq!(
        refused.to_string(),
        "SET(PRE_COPY) in STOP_COPY: this pair is blocked, and an unpatched kernel never returns \
         from it; go through STOP; allowed here: STOP|RUNNING|STOP_COPY|RESUMING|RUNNING_P2P"
    );
}

/// R1, R3: four sets of flags are legal, and no other can be built.
#[test]
fn only_four_flag_sets_are_legal() {
    let legal: Vec<u64> = (0..64).filter(|&flags| Features::from_flags(flags).is_ok()).collect();
    assert_eq!(legal, [1, 3, 5, 7]);
    assert!(Features::from_flags(1 << 63 | 1).is_err());
    for features in Features::SETS {
        assert_eq!(Features::from_flags(features.flags()), Ok(features));
        assert!(features.has(State::Running) && features.has(State::Error));
    }
}

/// R8: a number that is no state is kept and shown.
#[test]
fn unknown_states_are_shown() {
    assert_eq!(RawState(7).to_string(), "PRE_COPY_P2P");
    assert_eq!(RawState(99).to_string(), "0x63");
    assert_eq!(
        [0, 7, 8, u32::MAX].map(|n| RawState(n).known().is_some()),
        [true, true, false, false]
    );
}

/// R8: a number that is no state comes back from JSON unchanged.
#[cfg(feature = "serde")]
#[test]
fn unknown_states_survive_json() {
    for number in [0, 7, 8, u32::MAX] {
        let raw = RawState(number);
        let json = serde_json::to_string(&raw).expect("serialises");
        assert_eq!(serde_json::from_str::<RawState>(&json).expect("parses"), raw);
    }
    assert!(serde_json::from_str::<RawState>("\"PRECOPY\"").is_err());
    assert!(serde_json::from_str::<RawState>("4294967296").is_err());
}

/// Every pair of every flag set, with its route or its refusal: the meaning of this crate, to be
/// read as a diff. `UPDATE_EXPECT=1 cargo test` rewrites it.
#[test]
fn routes_snapshot() {
    let mut text = String::new();
    for features in Features::SETS {
        writeln!(text, "# {features}").expect("a string takes it");
        for (from, to) in pairs() {
            let line = match Route::new(features, from, to) {
                Ok(route) if route.is_empty() => format!("{from}, nothing to do"),
                Ok(route) => match route.opens() {
                    Some(direction) => format!("{route}, opens {direction:?}"),
                    None => route.to_string(),
                },
                Err(refused) => refused.to_string(),
            };
            writeln!(text, "{from:>12} to {to:<12} : {line}").expect("a string takes it");
        }
    }
    expect_file!["snapshots/routes.txt"].assert_eq(&text);
}

/// The diagrams, as they are drawn from the table.
#[test]
fn diagram_snapshots() {
    for features in Features::SETS {
        let name = features.slug();
        expect_file![format!("{}/tests/snapshots/{name}.dot", env!("CARGO_MANIFEST_DIR"))]
            .assert_eq(&Dot(features).to_string());
        expect_file![format!("{}/tests/snapshots/{name}.mmd", env!("CARGO_MANIFEST_DIR"))]
            .assert_eq(&Mermaid(features).to_string());
    }
}
