// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! A plain explorer: the whole graph in memory, so that one can count it, compare it and walk it.
//!
//! stateright keeps fingerprints and forgets the edges. Here every node is kept as it is, in a hash
//! set, with every labelled edge: what says that something *will* happen (a run ends, a reader is
//! woken) is a statement about the cycles of this graph, see [`Components`], and a checker by
//! somebody else can be held against it edge by edge, see [`Seen`].

mod components;
mod liveness;
mod seen;

pub use components::Components;
pub use liveness::{Liveness, Trap, liveness};
pub use seen::{Answer, Content, Entry, Input, Label, Seen, Stream, Written, seen};

use std::collections::VecDeque;
use std::fmt;
use std::hash::Hash;

use indexmap::IndexSet;

/// A finite graph with labelled edges and one node to start from.
///
/// Nodes are numbered from 0, which is the start. A number takes 32 bits in an edge: more nodes
/// than that fit no memory.
#[derive(Clone, Debug)]
pub struct Graph<N, L> {
    nodes: IndexSet<N>,
    /// Of all nodes, one after the other.
    edges: Vec<(L, u32)>,
    /// Where the edges of a node begin, and at last where all end.
    begin: Vec<usize>,
}

/// An edge, by the numbers of its ends.
#[derive(Debug, PartialEq, Eq)]
pub struct Edge<'a, L> {
    /// Where it begins.
    pub from: usize,
    /// What it says.
    pub label: &'a L,
    /// Where it leads.
    pub to: usize,
}

// Derived, these would ask the label for the same.
impl<L> Clone for Edge<'_, L> {
    fn clone(&self) -> Self {
        *self
    }
}

impl<L> Copy for Edge<'_, L> {}

impl<N: Eq + Hash, L> Graph<N, L> {
    /// Everything that can be reached from `start`, breadth first.
    pub fn explore(start: N, mut successors: impl FnMut(&N, &mut Vec<(L, N)>)) -> Self {
        let mut graph = Self { nodes: IndexSet::from([start]), edges: Vec::new(), begin: vec![0] };
        let mut found = Vec::new();
        while let Some(node) = graph.nodes.get_index(graph.begin.len() - 1) {
            successors(node, &mut found);
            for (label, to) in found.drain(..) {
                let (to, _) = graph.nodes.insert_full(to);
                graph.edges.push((label, to as u32));
            }
            graph.begin.push(graph.edges.len());
        }
        graph
    }

    /// The same of what does not fit into memory as it is: of each node its `key` is kept, and the
    /// node itself only until it has been looked at.
    pub fn explore_by<W>(
        start: W,
        key: impl Fn(&W) -> N,
        mut successors: impl FnMut(&W, &mut Vec<(L, W)>),
    ) -> Self {
        let mut graph =
            Self { nodes: IndexSet::from([key(&start)]), edges: Vec::new(), begin: vec![0] };
        let mut queue = VecDeque::from([start]);
        let mut found = Vec::new();
        while let Some(node) = queue.pop_front() {
            successors(&node, &mut found);
            for (label, to) in found.drain(..) {
                let (number, new) = graph.nodes.insert_full(key(&to));
                graph.edges.push((label, number as u32));
                queue.extend(new.then_some(to));
            }
            graph.begin.push(graph.edges.len());
        }
        graph
    }

    /// What is left of the graph for somebody who does not see all of it: nodes that look alike
    /// become one, and so do edges between them with labels that read alike.
    pub fn image<M: Eq + Hash, K: Clone + Eq + Hash>(
        &self,
        look: impl Fn(&N) -> M,
        read: impl Fn(&N, &L) -> K,
    ) -> Graph<M, K> {
        let mut nodes = IndexSet::new();
        let seen: Vec<usize> =
            self.nodes.iter().map(|node| nodes.insert_full(look(node)).0).collect();
        let mut outgoing: Vec<IndexSet<(K, u32)>> =
            std::iter::repeat_with(IndexSet::new).take(nodes.len()).collect();
        for Edge { from, label, to } in self.edges() {
            outgoing[seen[from]].insert((read(&self.nodes[from], label), seen[to] as u32));
        }
        let (mut edges, mut begin) = (Vec::new(), vec![0]);
        for from in outgoing {
            edges.extend(from);
            begin.push(edges.len());
        }
        Graph { nodes, edges, begin }
    }
}

impl<N, L> Graph<N, L> {
    /// How many nodes there are.
    pub fn states(&self) -> usize {
        self.nodes.len()
    }

    /// How many edges there are.
    pub fn transitions(&self) -> usize {
        self.edges.len()
    }

    /// A node by its number.
    pub fn node(&self, number: usize) -> Option<&N> {
        self.nodes.get_index(number)
    }

    /// The nodes in the order of their numbers.
    pub fn nodes(&self) -> impl ExactSizeIterator<Item = &N> {
        self.nodes.iter()
    }

    /// Every edge.
    pub fn edges(&self) -> impl Iterator<Item = Edge<'_, L>> {
        (0..self.states()).flat_map(|from| self.edges_of(from))
    }

    /// The edges of one node; none if there is no such node.
    pub fn edges_of(&self, from: usize) -> impl Iterator<Item = Edge<'_, L>> {
        let range = match (self.begin.get(from), self.begin.get(from + 1)) {
            (Some(&begin), Some(&end)) => begin..end,
            _ => 0..0,
        };
        self.edges[range].iter().map(move |(label, to)| Edge { from, label, to: *to as usize })
    }

    /// A shortest way from the start to a node that is wanted, edge by edge.
    pub fn shortest_path(&self, wanted: impl Fn(usize) -> bool) -> Option<Vec<Edge<'_, L>>> {
        let mut by: Vec<Option<Edge<'_, L>>> = vec![None; self.states()];
        let mut queue = VecDeque::from([0]);
        while let Some(node) = queue.pop_front() {
            if wanted(node) {
                let mut path = Vec::new();
                let mut at = node;
                while let Some(edge) = by[at] {
                    path.push(edge);
                    at = edge.from;
                }
                path.reverse();
                return Some(path);
            }
            for edge in self.edges_of(node) {
                if edge.to != 0 && by[edge.to].is_none() {
                    by[edge.to] = Some(edge);
                    queue.push_back(edge.to);
                }
            }
        }
        None
    }

    /// The nodes from which a wanted one can be reached over the edges that are kept.
    pub fn can_reach(
        &self,
        wanted: impl Fn(&N) -> bool,
        keep: impl Fn(Edge<'_, L>) -> bool,
    ) -> Vec<bool> {
        let mut backwards = vec![Vec::new(); self.states()];
        for edge in self.edges().filter(|edge| keep(*edge)) {
            backwards[edge.to].push(edge.from);
        }
        let mut reaches: Vec<bool> = self.nodes().map(wanted).collect();
        let mut todo: Vec<usize> = (0..self.states()).filter(|&node| reaches[node]).collect();
        while let Some(node) = todo.pop() {
            for &from in &backwards[node] {
                if !std::mem::replace(&mut reaches[from], true) {
                    todo.push(from);
                }
            }
        }
        reaches
    }
}

impl<N: fmt::Display, L: fmt::Display> Graph<N, L> {
    /// Each edge as `from | label | to`, in the order of the alphabet.
    pub fn edge_list(&self) -> Vec<String> {
        let line = |Edge { from, label, to }: Edge<'_, L>| {
            format!("{} | {label} | {}", self.nodes[from], self.nodes[to])
        };
        let mut lines: Vec<String> = self.edges().map(line).collect();
        lines.sort_unstable();
        lines
    }

    /// The graph in Graphviz' DOT language.
    pub const fn dot(&self) -> Dot<'_, N, L> {
        Dot(self)
    }
}

/// A graph in Graphviz' DOT language.
#[derive(Clone, Copy, Debug)]
pub struct Dot<'a, N, L>(&'a Graph<N, L>);

impl<N: fmt::Display, L: fmt::Display> fmt::Display for Dot<'_, N, L> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "digraph {{\n    node [shape=box];")?;
        for (number, node) in self.0.nodes().enumerate() {
            writeln!(f, "    {number} [label=\"{node}\"];")?;
        }
        for Edge { from, label, to } in self.0.edges() {
            writeln!(f, "    {from} -> {to} [label=\"{label}\"];")?;
        }
        writeln!(f, "}}")
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::CASES;
    use crate::scene::{OnScene, Scene, Stage};
    use stateright::{Checker, Model};

    /// The numbers below `n` under doubling and adding one.
    fn numbers(n: u32) -> Graph<u32, char> {
        Graph::explore(0, |&at, found| {
            found.extend([('d', at * 2 % n), ('i', (at + 1) % n)]);
        })
    }

    struct Counting;

    impl OnScene for Counting {
        type Output = ();

        fn on<S: Scene>(self, scene: S) {
            let stage = Stage::new(scene);
            let start = stage.init_states().remove(0);
            let graph = Graph::explore(start, |node, found| {
                found.extend(stage.next_steps(node));
            });
            let checker = stage.checker().spawn_bfs().join();
            assert_eq!(graph.states(), checker.unique_state_count());
            // stateright counts the start as generated, too.
            assert_eq!(graph.transitions() + 1, checker.state_count());
        }
    }

    /// X3: the explorer and stateright find as many worlds and steps in the same model.
    #[test]
    fn stateright_counts_as_many() {
        for case in CASES.iter().filter(|case| case.states < 20_000) {
            case.with(Counting);
        }
    }

    /// X3: nothing is lost, nothing is found twice, and every edge is there.
    #[test]
    fn a_known_graph_is_found() {
        let graph = numbers(7);
        assert_eq!((graph.states(), graph.transitions()), (7, 14));
        assert!(graph.edges().all(|Edge { from, label, to }| {
            let (from, to) = (graph.nodes[from], graph.nodes[to]);
            to == if *label == 'd' { from * 2 % 7 } else { (from + 1) % 7 }
        }));
        assert_eq!(graph.edges_of(7).count(), 0);
    }

    /// X3: with keys that differ where nodes do, it is the same graph.
    #[test]
    fn a_graph_by_its_keys_is_the_same() {
        let by_key = Graph::explore_by(
            0,
            |&at: &u32| u64::from(at) * 3,
            |&at, found| found.extend([('d', at * 2 % 7), ('i', (at + 1) % 7)]),
        );
        let as_it_is = numbers(7).image(|&node| u64::from(node) * 3, |_, label| *label);
        assert_eq!(by_key.edge_list(), as_it_is.edge_list());
    }

    /// X3: the path that is shown is one, and none is shorter.
    #[test]
    fn paths_are_shortest() {
        let graph = numbers(100);
        let to = |number| graph.shortest_path(|node| graph.nodes[node] == number).unwrap();
        for (number, length) in [(0, 0), (1, 1), (2, 2), (3, 3), (6, 4), (7, 5), (64, 7)] {
            let path = to(number);
            assert_eq!(path.len(), length, "{number}");
            let ends = path.windows(2).all(|edges| edges[0].to == edges[1].from);
            assert!(ends && path.first().is_none_or(|edge| edge.from == 0), "{number}");
        }
        assert_eq!(graph.shortest_path(|_| false), None);
    }

    /// X3: an image merges what looks alike, and nothing else.
    #[test]
    fn an_image_merges_what_looks_alike() {
        let parity = numbers(8).image(|node| node % 2, |_, label| *label);
        let mut lines = parity.edge_list();
        assert_eq!((parity.states(), parity.transitions()), (2, 4));
        assert_eq!(lines.len(), 4);
        lines.dedup();
        assert_eq!(lines, ["0 | d | 0", "0 | i | 1", "1 | d | 0", "1 | i | 0"]);
        let alike = numbers(8).image(|_| (), |_, _| ());
        assert_eq!((alike.states(), alike.transitions()), (1, 1));
    }

    /// X3: DOT names every node and every edge.
    #[test]
    fn dot_has_it_all() {
        let dot = numbers(3).dot().to_string();
        assert_eq!(dot.matches("->").count(), 6);
        assert!(
            dot.contains("    2 [label=\"2\"];\n") && dot.contains("    2 -> 1 [label=\"d\"];")
        );
    }
}
