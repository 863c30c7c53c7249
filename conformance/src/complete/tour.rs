// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! Tours: the shortest single word that takes every transition, or every two in a row.
//!
//! The Chinese postman's problem, for a directed graph and a walk that need not return: transitions
//! are taken twice where they must be, as few as possible (a flow of minimal cost), and then the walk
//! is Euler's. So the length is the lower bound, not only near it.

use std::collections::VecDeque;

use crate::complete::machine::{Machine, Symbol};

/// A word that covers, and that no shorter one does.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Tour {
    /// The inputs, from the initial state.
    pub word: Vec<Symbol>,
    /// What had to be covered: no word is shorter than this.
    pub items: usize,
}

/// Every transition once, or as often as it takes.
pub fn transitions(machine: &Machine) -> Tour {
    let edges = machine.nodes().flat_map(|from| {
        let leads = machine.from(from);
        leads.map(move |(input, to, _)| Edge { from: from.into(), to: to.into(), input, due: true })
    });
    Graph { nodes: machine.states(), edges: edges.collect() }.tour()
}

/// Every two transitions that can follow each other.
pub fn pairs(machine: &Machine) -> Tour {
    // A transition is a node here and a pair of them an edge; node 0 is before the first.
    let steps: Vec<_> = machine
        .nodes()
        .flat_map(|from| machine.from(from).map(move |(input, to, _)| (from, input, to)))
        .collect();
    let enter = |from: usize, state, due| {
        let steps = steps.iter().zip(1..).filter(move |(step, _)| step.0 == state);
        steps.map(move |(&(_, input, _), to)| Edge { from, to, input, due })
    };
    let behind = steps.iter().zip(1..).flat_map(|(step, node)| enter(node, step.2, true));
    Graph { nodes: steps.len() + 1, edges: enter(0, 0, false).chain(behind).collect() }.tour()
}

#[derive(Clone, Copy)]
struct Edge {
    from: usize,
    to: usize,
    input: Symbol,
    /// Whether the tour has to take it.
    due: bool,
}

/// A directed graph; tours begin at node 0.
struct Graph {
    nodes: usize,
    edges: Vec<Edge>,
}

impl Graph {
    fn tour(&self) -> Tour {
        Tour { items: self.edges.iter().filter(|edge| edge.due).count(), word: self.walk() }
    }

    /// A shortest walk over every edge that is due, by Hierholzer: on until stuck, then back to where
    /// something is left.
    fn walk(&self) -> Vec<Symbol> {
        let mut left = self.times();
        let mut out: Vec<Vec<usize>> = vec![Vec::new(); self.nodes];
        for (number, edge) in self.edges.iter().enumerate() {
            out[edge.from].push(number);
        }
        let (mut stack, mut walk) = (vec![(0, None)], Vec::new());
        while let Some(&(at, by)) = stack.last() {
            while out[at].last().is_some_and(|&edge| left[edge] == 0) {
                out[at].pop();
            }
            match out[at].last() {
                Some(&edge) => {
                    left[edge] -= 1;
                    stack.push((self.edges[edge].to, Some(self.edges[edge].input)));
                }
                None => {
                    walk.extend(by);
                    stack.pop();
                }
            }
        }
        walk.reverse();
        walk
    }

    /// How often each edge is taken, so that a walk exists and is as short as can be.
    fn times(&self) -> Vec<u32> {
        let mut flow = Flow::new(self.nodes + 1);
        let end = self.nodes;
        let mut excess = vec![0_i64; self.nodes + 1];
        for edge in &self.edges {
            flow.edge(edge.from, edge.to, 1);
            excess[edge.to] += i64::from(edge.due);
            excess[edge.from] -= i64::from(edge.due);
        }
        // The walk comes to node 0 from nowhere, and ends anywhere that it has to come to.
        excess[0] += 1;
        excess[end] -= 1;
        let mut due: Vec<_> = self.edges.iter().filter(|edge| edge.due).map(|it| it.to).collect();
        due.sort_unstable();
        due.dedup();
        for node in due {
            flow.edge(node, end, 0);
        }
        flow.settle(&mut excess);
        let numbered = self.edges.iter().enumerate();
        numbered.map(|(number, edge)| u32::from(edge.due) + flow.through(number)).collect()
    }
}

/// A flow of minimal cost: successive shortest paths.
struct Flow {
    /// Two arcs for each edge: there, and back what has gone there.
    arcs: Vec<ArcOfFlow>,
    out: Vec<Vec<usize>>,
}

struct ArcOfFlow {
    to: usize,
    room: i64,
    cost: i64,
}

impl Flow {
    fn new(nodes: usize) -> Self {
        Self { arcs: Vec::new(), out: vec![Vec::new(); nodes] }
    }

    fn edge(&mut self, from: usize, to: usize, cost: i64) {
        for (from, to, room, cost) in [(from, to, i64::MAX / 4, cost), (to, from, 0, -cost)] {
            self.out[from].push(self.arcs.len());
            self.arcs.push(ArcOfFlow { to, room, cost });
        }
    }

    fn through(&self, edge: usize) -> u32 {
        self.arcs[2 * edge + 1].room as u32
    }

    /// Send every excess to where it is wanted, as cheaply as can be.
    fn settle(&mut self, excess: &mut [i64]) {
        for node in 0..excess.len() {
            while excess[node] > 0 {
                let Some(path) = self.cheapest(node, excess) else { return };
                let Some(&last) = path.last() else { return };
                let want = -excess[self.arcs[last].to];
                let room = path.iter().map(|&arc| self.arcs[arc].room).min().unwrap_or_default();
                let sent = excess[node].min(want).min(room);
                for &arc in &path {
                    self.arcs[arc].room -= sent;
                    self.arcs[arc ^ 1].room += sent;
                }
                excess[node] -= sent;
                excess[self.arcs[last].to] += sent;
            }
        }
    }

    /// The arcs of a cheapest way from a node to one that wants something.
    fn cheapest(&self, from: usize, excess: &[i64]) -> Option<Vec<usize>> {
        let mut cost = vec![i64::MAX; excess.len()];
        let mut by: Vec<Option<usize>> = vec![None; excess.len()];
        let mut waiting = vec![false; excess.len()];
        let mut queue = VecDeque::from([from]);
        cost[from] = 0;
        while let Some(at) = queue.pop_front() {
            waiting[at] = false;
            for &arc in &self.out[at] {
                let ArcOfFlow { to, room, cost: more } = self.arcs[arc];
                if room > 0 && cost[at] + more < cost[to] {
                    cost[to] = cost[at] + more;
                    by[to] = Some(arc);
                    if !std::mem::replace(&mut waiting[to], true) {
                        queue.push_back(to);
                    }
                }
            }
        }
        let wanting = (0..excess.len()).filter(|&node| excess[node] < 0);
        let mut at =
            wanting.filter(|&node| cost[node] < i64::MAX).min_by_key(|&node| cost[node])?;
        let mut path = Vec::new();
        while let Some(arc) = by[at].filter(|_| at != from) {
            path.push(arc);
            at = self.arcs[arc ^ 1].to;
        }
        path.reverse();
        Some(path)
    }
}
