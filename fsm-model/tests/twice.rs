// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! Our half of what is checked twice: the graphs that `specs/check-twice.sh` compares with those of
//! the specification in `specs/`, and how they end.

use std::collections::{BTreeMap, HashSet};
use std::path::Path;

use vfio_fsm_core::Features;
use vfio_fsm_core::device::Bug;
use vfio_fsm_model::graph::{Graph, Label, Liveness, Seen, liveness, seen};

fn broken(graph: &Graph<Seen, Label>) -> Vec<&'static str> {
    let broken = liveness(graph).into_iter().filter(|statement| statement.trap.is_some());
    broken.map(|Liveness { id, .. }| id).collect()
}

/// X1: the counts on the page, which the independent specification has too, are those of the core.
#[test]
fn the_counts_are_those_of_the_page() {
    let page = Path::new(env!("CARGO_MANIFEST_DIR")).join("specs/checked-twice.md");
    let page = std::fs::read_to_string(page).unwrap();
    for features in Features::SETS {
        let graph = seen(features, None);
        let (states, transitions) = (graph.states(), graph.transitions());
        let row = format!("| `{}` | {states} | {transitions} |", features.slug());
        assert!(page.contains(&row), "the page lacks: {row}");
    }
}

/// X1: what is seen of the device is enough to tell what it does next: one answer and one state.
#[test]
fn what_is_seen_decides() {
    for features in Features::SETS {
        let graph = seen(features, None);
        let mut known = HashSet::new();
        for edge in graph.edges() {
            assert!(known.insert((edge.from, edge.label.input)), "{features}: {}", edge.label);
        }
    }
}

/// X1: every edge has its line, and no two lines are the same.
#[test]
fn every_edge_has_a_line_of_its_own() {
    for features in Features::SETS {
        let graph = seen(features, None);
        let mut lines = graph.edge_list();
        assert!(lines.is_sorted() && !lines.iter().any(|line| line.contains("ODD")));
        lines.dedup();
        assert_eq!(lines.len(), graph.transitions());
    }
}

/// X1: the comparison can fail: every planted bug changes the graph of some set of flags.
#[test]
fn every_bug_changes_a_graph() {
    let good: BTreeMap<_, _> =
        Features::SETS.map(|features| (features, seen(features, None).edge_list())).into();
    for &bug in Bug::ALL {
        let changes =
            |&features: &Features| seen(features, Some(bug)).edge_list() != good[&features];
        assert!(Features::SETS.iter().any(changes), "{} changes nothing", bug.slug());
    }
}

/// X2: whatever happened, it ends well.
#[test]
fn it_ends_well() {
    for features in Features::SETS {
        for Liveness { id, text, trap } in liveness(&seen(features, None)) {
            assert_eq!(trap, None, "{features}: {id}: {text}");
        }
    }
}

/// X2: every statement about the end can fail, each by a bug of its own, and the shortest way to
/// where it does is shown.
#[test]
fn every_ending_can_fail() {
    for (bug, id, steps) in [
        (Bug::ResetStaysInError, "running-by-reset", 1),
        (Bug::ErrorLeftBySet, "running-by-set", 1),
        (Bug::EndKeepsSession, "reads-end", 2),
        (Bug::DeadPollHangs, "reader-woken", 2),
        (Bug::StopCopyEndsForNow, "save-ends", 1),
    ] {
        let graph = seen(Features::ALL, Some(bug));
        let statement = liveness(&graph).into_iter().find(|statement| statement.id == id).unwrap();
        let trap = statement.trap.unwrap_or_else(|| panic!("{} survives {id}", bug.slug()));
        assert_eq!(trap.path.len(), steps, "{id}: {trap:?}");
        // From one place to the next, and there.
        let mut at = 0;
        for step in &trap.path {
            at = graph.edges_of(at).find(|edge| edge.label.to_string() == *step).unwrap().to;
        }
        assert_eq!(graph.node(at).unwrap().to_string(), trap.at);
    }
}

/// X2: no reset is needed where none is said to be, and one is where it is.
#[test]
fn a_bug_that_needs_a_reset_is_seen() {
    for bug in [Bug::RefusalEndsSession, Bug::LeaksLock, Bug::ResetKeepsState] {
        let broken = broken(&seen(Features::ALL, Some(bug)));
        assert!(broken.contains(&"running-by-set"), "{}: {broken:?}", bug.slug());
    }
}
