// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! Strongly connected components: where a run can stay for ever.

use super::{Edge, Graph};

/// The strongly connected components of a part of a graph.
///
/// A run that goes on for ever stays in one of them from some point on. One that nothing leaves, a
/// bottom component, is where a run ends up that leaves whatever it can leave: under the fairness
/// that an edge which is possible again and again is taken again and again, exactly its nodes are
/// visited for ever, all of them. So "it happens in the end" is "in every bottom component it
/// happens somewhere".
#[derive(Clone, Debug)]
pub struct Components {
    /// The component of each node.
    of: Vec<usize>,
    nodes: Vec<Vec<usize>>,
    is_bottom: Vec<bool>,
    is_cycle: Vec<bool>,
}

const UNSEEN: usize = usize::MAX;

impl Components {
    /// Of the graph with all its nodes and those edges that are kept (Tarjan, without recursion).
    pub fn new<N, L>(graph: &Graph<N, L>, keep: impl Fn(Edge<'_, L>) -> bool) -> Self {
        let kept: Vec<Vec<usize>> = (0..graph.states())
            .map(|node| graph.edges_of(node).filter(|edge| keep(*edge)).map(|e| e.to).collect())
            .collect();
        let nodes = tarjan(&kept);
        let mut of = vec![0; kept.len()];
        for (component, members) in nodes.iter().enumerate() {
            members.iter().for_each(|&node| of[node] = component);
        }
        let mut is_bottom = vec![true; nodes.len()];
        let mut is_cycle = vec![false; nodes.len()];
        for (from, to) in
            kept.iter().enumerate().flat_map(|(from, to)| to.iter().map(move |&to| (from, to)))
        {
            if of[from] == of[to] {
                is_cycle[of[from]] = true;
            } else {
                is_bottom[of[from]] = false;
            }
        }
        Self { of, nodes, is_bottom, is_cycle }
    }

    /// How many there are.
    pub fn count(&self) -> usize {
        self.nodes.len()
    }

    /// The component of a node, if there is such a node.
    pub fn of(&self, node: usize) -> Option<usize> {
        self.of.get(node).copied()
    }

    /// The nodes of each component that nothing leaves.
    pub fn bottoms(&self) -> impl Iterator<Item = &[usize]> {
        self.those(&self.is_bottom)
    }

    /// The nodes of each component in which a run can go on for ever.
    pub fn cycles(&self) -> impl Iterator<Item = &[usize]> {
        self.those(&self.is_cycle)
    }

    fn those<'a>(&'a self, which: &'a [bool]) -> impl Iterator<Item = &'a [usize]> {
        let marked = self.nodes.iter().zip(which).filter(|&(_, &is)| is);
        marked.map(|(nodes, _)| nodes.as_slice())
    }
}

fn tarjan(edges: &[Vec<usize>]) -> Vec<Vec<usize>> {
    let mut order = vec![UNSEEN; edges.len()];
    let mut low = order.clone();
    let mut on_stack = vec![false; edges.len()];
    let (mut stack, mut components, mut next) = (Vec::new(), Vec::new(), 0);
    // What recursion would keep: the node, and how many of its edges have been followed.
    let mut calls: Vec<(usize, usize)> = Vec::new();
    for root in 0..edges.len() {
        if order[root] == UNSEEN {
            calls.push((root, 0));
        }
        while let Some((node, followed)) = calls.pop() {
            if followed == 0 {
                (order[node], low[node]) = (next, next);
                next += 1;
                stack.push(node);
                on_stack[node] = true;
            } else {
                low[node] = low[node].min(low[edges[node][followed - 1]]);
            }
            let mut followed = followed;
            let mut entered = false;
            while let Some(&to) = edges[node].get(followed) {
                followed += 1;
                if order[to] == UNSEEN {
                    calls.extend([(node, followed), (to, 0)]);
                    entered = true;
                    break;
                }
                if on_stack[to] {
                    low[node] = low[node].min(order[to]);
                }
            }
            if !entered && low[node] == order[node] {
                let begin = stack.iter().rposition(|&member| member == node).unwrap_or(0);
                let members = stack.split_off(begin);
                members.iter().for_each(|&member| on_stack[member] = false);
                components.push(members);
            }
        }
    }
    components
}

#[cfg(test)]
mod tests {
    use super::*;

    fn graph(edges: &'static [(u8, u8)]) -> Graph<u8, ()> {
        Graph::explore(0, |&at, found| {
            found.extend(edges.iter().filter(|edge| edge.0 == at).map(|edge| ((), edge.1)));
        })
    }

    fn sorted<'a>(graph: &Graph<u8, ()>, found: impl Iterator<Item = &'a [usize]>) -> Vec<Vec<u8>> {
        let names = |nodes: &[usize]| {
            let mut names: Vec<u8> = nodes.iter().map(|&n| *graph.node(n).unwrap()).collect();
            names.sort_unstable();
            names
        };
        let mut all: Vec<_> = found.map(names).collect();
        all.sort_unstable();
        all
    }

    /// By the definition: step by step until nothing is new.
    fn reached_from(graph: &Graph<u32, ()>, from: usize) -> Vec<bool> {
        let mut reached: Vec<bool> = (0..graph.states()).map(|node| node == from).collect();
        for _ in 0..graph.states() {
            for edge in graph.edges() {
                reached[edge.to] |= reached[edge.from];
            }
        }
        reached
    }

    /// X2: components, those that nothing leaves, and those that a run can stay in.
    #[test]
    fn components_of_a_known_graph() {
        // 0 -> {1 2 3} -> 4 -> 5 with a loop; {1 2 3} -> {6 7}; two ways back inside of {1 2 3}.
        let graph = graph(&[
            (0, 1),
            (1, 2),
            (2, 3),
            (3, 1),
            (3, 2),
            (2, 4),
            (4, 5),
            (5, 5),
            (3, 6),
            (6, 7),
            (7, 6),
        ]);
        let components = Components::new(&graph, |_| true);
        assert_eq!(components.count(), 5);
        assert_eq!(sorted(&graph, components.bottoms()), [vec![5], vec![6, 7]]);
        assert_eq!(sorted(&graph, components.cycles()), [vec![1, 2, 3], vec![5], vec![6, 7]]);
        assert_eq!(components.of(99), None);
    }

    /// X2: only the edges that are kept count.
    #[test]
    fn edges_that_are_not_kept_do_not_count() {
        let graph = graph(&[(0, 1), (1, 0), (1, 2)]);
        let components = Components::new(&graph, |edge| edge.to != 0);
        assert_eq!(components.count(), 3);
        assert_eq!(components.cycles().count(), 0);
        assert_eq!(sorted(&graph, components.bottoms()), [vec![2]]);
    }

    /// X2: against the definition, on a few thousand graphs: two nodes are in one component exactly
    /// if each can be reached from the other.
    #[test]
    fn components_are_what_they_are_defined_to_be() {
        let mut random = 1_u32;
        for _ in 0..3000 {
            let graph = Graph::explore(0_u32, |&at, found| {
                let mut next = |n| {
                    random = random.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
                    (random >> 16) % n
                };
                let degree = next(3);
                found.extend((0..degree).map(|_| ((), (at + next(8)) % 8)));
            });
            let components = Components::new(&graph, |_| true);
            for a in 0..graph.states() {
                let reaches_a = graph.can_reach(|node| Some(node) == graph.node(a), |_| true);
                for (b, b_reached) in reached_from(&graph, a).into_iter().enumerate() {
                    let together = reaches_a[b] && b_reached;
                    assert_eq!(components.of(a) == components.of(b), together, "{graph:?}");
                }
            }
        }
    }

    /// X2: a chain of a million nodes needs no stack.
    #[test]
    fn depth_is_no_limit() {
        let chain = Graph::explore(0_u32, |&at, found| {
            found.extend((at < 1_000_000).then_some(((), at + 1)));
        });
        let components = Components::new(&chain, |_| true);
        assert_eq!(components.count(), 1_000_001);
        assert_eq!(components.bottoms().count(), 1);
    }
}
