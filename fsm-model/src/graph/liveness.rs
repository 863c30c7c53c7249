// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! What must happen in the end: statements about the cycles of the graph.
//!
//! stateright looks at an `eventually` only where a run stops and so misses every cycle; here each
//! statement is decided on the whole graph. Where a run can go on for ever, "in the end" is meant
//! under strong fairness: what is possible again and again is done once (see [`Components`]).

use vfio_fsm_core::{EndOfStream, Op, Readiness, Reply, State};

use super::{Components, Edge, Graph, Label, Seen, Stream};

/// One statement, and what breaks it.
#[derive(Clone, Debug)]
pub struct Liveness {
    /// Its name in reports.
    pub id: &'static str,
    /// What it says.
    pub text: &'static str,
    /// How to get where it is broken; `None` if it holds.
    pub trap: Option<Trap>,
}

/// A place from which what must happen will not, or where it must not and can.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Trap {
    /// A shortest way there: what happens, and what comes of it.
    pub path: Vec<String>,
    /// The place.
    pub at: String,
}

type Space = Graph<Seen, Label>;
type Step<'a> = Edge<'a, Label>;

struct Rule {
    id: &'static str,
    text: &'static str,
    /// The nodes where it is broken.
    broken: fn(&Space) -> Vec<usize>,
}

const RULES: &[Rule] = &[
    Rule {
        id: "running-by-reset",
        text: "from every state the user alone, with faults absent and the device kept open, comes \
               to RUNNING in the end: no component that he cannot leave is without it",
        broken: running_by_reset,
    },
    Rule {
        id: "running-by-set",
        text: "the same without RESET, except exactly in ERROR and in RESUMING where what was \
               written is bad, or not whole and no live data_fd is left to write the rest to",
        broken: running_by_set,
    },
    Rule {
        id: "reads-end",
        text: "who only reads comes to an end: no cycle of reads that return bytes",
        broken: reads_end,
    },
    Rule {
        id: "reader-woken",
        text: "no component that all others together cannot leave, as long as a data_fd is not \
               closed, keeps poll of it from returning in all of its states",
        broken: reader_woken,
    },
    Rule {
        id: "save-ends",
        text: "who reads to the temporary end, asks for STOP_COPY, reads to the permanent end and \
               asks for STOP, while the guest touches the device as it likes, has no session in \
               the end",
        broken: save_ends,
    },
];

/// Every statement about how it ends, judged.
pub fn liveness(graph: &Space) -> Vec<Liveness> {
    let judge = |&Rule { id, text, broken }: &Rule| {
        let mut bad = vec![false; graph.states()];
        broken(graph).into_iter().for_each(|node| bad[node] = true);
        Liveness { id, text, trap: trap(graph, &bad) }
    };
    RULES.iter().map(judge).collect()
}

fn trap(graph: &Space, bad: &[bool]) -> Option<Trap> {
    let path = graph.shortest_path(|node| bad[node])?;
    let at = path.last().map_or(0, |edge| edge.to);
    Some(Trap {
        path: path.iter().map(|edge| edge.label.to_string()).collect(),
        at: graph.node(at).map(Seen::to_string).unwrap_or_default(),
    })
}

/// The nodes of each of these components in which nothing is wanted.
fn without<'a>(
    graph: &Space,
    components: impl Iterator<Item = &'a [usize]>,
    wanted: impl Fn(&Seen) -> bool,
) -> Vec<usize> {
    let is_wanted = |&node: &usize| graph.node(node).is_some_and(&wanted);
    components.filter(|nodes| !nodes.iter().any(is_wanted)).flatten().copied().collect()
}

fn is_running(seen: &Seen) -> bool {
    seen.open && seen.state == State::Running
}

/// What the user can do by himself, without giving the device up.
fn by_user(step: Step<'_>) -> bool {
    !matches!(step.label.input, Op::Touch(_) | Op::Close | Op::SetState { fault: Some(_), .. })
}

fn running_by_reset(graph: &Space) -> Vec<usize> {
    without(graph, Components::new(graph, by_user).bottoms(), is_running)
}

fn running_by_set(graph: &Space) -> Vec<usize> {
    let keep = |step: Step<'_>| by_user(step) && step.label.input != Op::Reset;
    let reaches = graph.can_reach(is_running, keep);
    let nodes = graph.nodes().zip(reaches).enumerate();
    nodes.filter(|(_, (seen, reaches))| *reaches == needs_reset(seen)).map(|(n, _)| n).collect()
}

fn needs_reset(seen: &Seen) -> bool {
    use super::seen::Written::{Bad, Whole};
    let has_fd = seen.fds.iter().flatten().any(|entry| entry.live);
    match seen.stream {
        Stream::Resuming(Bad) => true,
        Stream::Resuming(written) => written != Whole && !has_fd,
        _ => seen.state == State::Error,
    }
}

fn reads_end(graph: &Space) -> Vec<usize> {
    let gets_bytes = |step: Step<'_>| {
        matches!(step.label.input, Op::Read { .. })
            && matches!(step.label.answer.0, Reply::Bytes(()))
    };
    Components::new(graph, gets_bytes).cycles().flatten().copied().collect()
}

fn reader_woken(graph: &Space) -> Vec<usize> {
    // Whoever waits is a process that does not close the fd; another fd before it would change its
    // number, so none is closed.
    let others = |step: Step<'_>| !matches!(step.label.input, Op::CloseFd { .. });
    let components = Components::new(graph, others);
    let waits = |number: u32, node: usize| {
        graph.edges_of(node).any(|step| {
            let nothing = Reply::Ready(Readiness::default());
            matches!(step.label.input, Op::Poll { fd } if fd.0 == number)
                && step.label.answer.0 == nothing
        })
    };
    let stuck = |number| {
        let bottoms = components.bottoms();
        bottoms.filter(move |nodes| nodes.iter().all(|&node| waits(number, node))).flatten()
    };
    stuck(1).chain(stuck(2)).copied().collect()
}

fn save_ends(graph: &Space) -> Vec<usize> {
    let keep = |step: Step<'_>| match step.label.input {
        Op::Touch(_) => true,
        Op::Read { .. } => matches!(step.label.answer.0, Reply::Bytes(())),
        Op::SetState { to, fault: None } => {
            let end = read_end(graph, step.from);
            end == Some(EndOfStream::Temporary) && to == State::StopCopy.into()
                || end == Some(EndOfStream::Permanent) && to == State::Stop.into()
        }
        _ => false,
    };
    let reads =
        |seen: &Seen| seen.state.is_saving() && seen.fds.iter().flatten().any(|entry| entry.live);
    let components = Components::new(graph, keep);
    let stays = without(graph, components.bottoms(), |seen| seen.stream == Stream::None);
    // Nobody saves from where no live data_fd is.
    let mut is_end = vec![false; graph.states()];
    stays.iter().for_each(|&node| is_end[node] = true);
    let begins = (0..graph.states()).filter(|&node| graph.node(node).is_some_and(reads));
    begins.filter(|&node| leads_to(graph, node, &is_end, keep)).collect()
}

/// Which end a read of a data_fd of this node comes to, if it does.
fn read_end(graph: &Space, node: usize) -> Option<EndOfStream> {
    graph.edges_of(node).find_map(|step| match (step.label.input, step.label.answer.0) {
        (Op::Read { .. }, Reply::EndOfStream(end)) => Some(end),
        _ => None,
    })
}

fn leads_to(graph: &Space, from: usize, wanted: &[bool], keep: impl Fn(Step<'_>) -> bool) -> bool {
    let mut seen = vec![false; graph.states()];
    let mut todo = vec![from];
    while let Some(node) = todo.pop() {
        if wanted[node] {
            return true;
        }
        if !std::mem::replace(&mut seen[node], true) {
            todo.extend(graph.edges_of(node).filter(|step| keep(*step)).map(|step| step.to));
        }
    }
    false
}
