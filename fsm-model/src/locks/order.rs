// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! The lock-order graph, as lockdep draws it: which lock is waited for while which is held.

use std::collections::{BTreeSet, HashSet};
use std::fmt;

use crate::locks::STARTS;
use crate::locks::design::Design;
use crate::locks::scenario;
use crate::locks::step::{Lock, Step};
use crate::locks::world::{WORKER, World};

/// Which locks are waited for while which are held, in any run of any scenario.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct LockOrder {
    edges: BTreeSet<(Lock, Lock)>,
}

impl LockOrder {
    /// Each `(held, waited for)`.
    pub fn edges(&self) -> impl Iterator<Item = (Lock, Lock)> {
        self.edges.iter().copied()
    }

    /// The locks that, by way of others, are waited for while they are held: empty if the graph has
    /// no cycle.
    pub fn circle(&self) -> BTreeSet<Lock> {
        Lock::ALL.into_iter().filter(|&lock| self.behind(lock).contains(&lock)).collect()
    }

    /// What is waited for, by way of others, while this is held.
    fn behind(&self, lock: Lock) -> BTreeSet<Lock> {
        let mut behind = BTreeSet::new();
        let mut from = vec![lock];
        while let Some(held) = from.pop() {
            let next = self.edges.iter().filter(|&&(first, _)| first == held);
            from.extend(next.map(|&(_, lock)| lock).filter(|&lock| behind.insert(lock)));
        }
        behind
    }
}

impl fmt::Display for LockOrder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for held in Lock::ALL {
            let next = self.edges.iter().filter(|&&(first, _)| first == held);
            let next: Vec<_> = next.map(|(_, lock)| lock.name()).collect();
            if !next.is_empty() {
                writeln!(f, "{held} > {}", next.join(", "))?;
            }
        }
        Ok(())
    }
}

/// The graph of a design, from every two calls that meet.
pub fn lock_order(design: Design) -> LockOrder {
    let mut order = LockOrder::default();
    for start in STARTS {
        let mut seen: HashSet<World> = HashSet::new();
        let mut worlds: Vec<World> = scenario::pairs(start)
            .iter()
            .map(|programs| {
                let mut world = World::new(start);
                world.cast(programs);
                world
            })
            .collect();
        while let Some(world) = worlds.pop() {
            for who in (0..=WORKER).filter(|&who| world.can_go(who)) {
                if let Some(Step::Lock(lock)) = world.next(who) {
                    order.edges.extend(world.held(who).map(|held| (held, lock)));
                }
                let mut after = world;
                after.run(design, who);
                if seen.insert(after) {
                    worlds.push(after);
                }
            }
            // A thread that waits has drawn its edge too, whoever it waits for.
            for (who, lock, _) in world.waiting() {
                order.edges.extend(world.held(who).map(|held| (held, lock)));
            }
        }
    }
    order
}
