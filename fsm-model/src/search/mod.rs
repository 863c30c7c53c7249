// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! Our own explorer of worlds: layer by layer, in parallel, with nothing kept but what was seen.
//!
//! A world is a number ([`Codec`]), and all of it: what has been seen is decided by comparing whole
//! worlds, never by a hash of them. Kept are the numbers seen ([`Seen`]) and those of two layers,
//! the one that is being left and the next. Threads take parts of a layer, and hand what they find
//! to the pieces of the set in batches. All of a layer is done before the next is begun, so that a
//! world is found by a shortest path whatever the threads do; the path itself is found again, by
//! going over the same layers with one thread ([`Search::path`]).
//!
//! [`crate::graph`] keeps every edge instead, and answers other questions of smaller spaces.

mod codec;
mod seen;

use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;

pub(crate) use codec::{ByHalves, Codec, Halves, Whole};
pub(crate) use seen::Marks;

use crate::scene::{Judge, Scene, Tally};
use crate::watch::Watch;
use seen::{PIECES, Seen};

/// What is searched, and how.
pub(crate) struct Search<'a, S> {
    pub(crate) scene: &'a S,
    pub(crate) threads: usize,
    /// Only one of the worlds that stand for each other: [`Scene::representative`].
    pub(crate) symmetric: bool,
    pub(crate) watch: &'a Watch,
}

/// What was found.
#[derive(Debug)]
pub(crate) struct Found<A> {
    pub(crate) states: usize,
    pub(crate) transitions: usize,
    /// Layers, the one with the initial world alone included.
    pub(crate) depth: usize,
    /// How often each property had something to judge.
    pub(crate) judged: Vec<u64>,
    /// The properties that are broken, by number, each with a shortest run, shortest first.
    pub(crate) broken: Vec<(usize, Vec<A>)>,
}

/// How many worlds a thread takes at a time.
const TAKEN: usize = 512;
/// How many codes it collects for one piece of the set.
const BATCH: usize = 256;

/// What one thread has to say of one layer.
struct Part {
    next: Vec<u64>,
    transitions: usize,
    judged: Vec<u64>,
    /// For each property the least world from which a step broke it.
    broken: Vec<Option<u64>>,
}

impl<S: Scene> Search<'_, S> {
    /// Everything that can be reached, until it has all been seen, every property is broken, or
    /// whoever watches has had enough.
    pub(crate) fn run(&self) -> Found<S::Action> {
        let codec = self.scene.codec();
        let seen = Seen::new(codec.marks());
        let properties = self.scene.properties().len();
        let mut judge = Judge::default();
        let initial = self.initial(&codec, &mut judge);
        seen.lock(seen.piece_of(initial)).insert(&mut vec![initial]);
        let mut found = Found {
            states: 1,
            transitions: 0,
            depth: 1,
            judged: (0..properties).map(|property| u64::from(judge.judged(property))).collect(),
            broken: Vec::new(),
        };
        let all = 0..properties;
        found.broken.extend(all.filter(|&p| judge.violated(p)).map(|p| (p, Vec::new())));
        let mut layer = if found.broken.is_empty() { vec![vec![initial]] } else { Vec::new() };
        self.watch.tell(1, 1, 1);
        while !layer.is_empty() && !self.watch.is_over() {
            let parts = self.leave(&codec, &seen, &layer);
            let mut broken = vec![None; properties];
            layer.clear();
            for part in parts {
                found.transitions += part.transitions;
                found.states += part.next.len();
                found.judged.iter_mut().zip(part.judged).for_each(|(sum, more)| *sum += more);
                broken.iter_mut().zip(part.broken).for_each(|(least, from)| merge(least, from));
                layer.extend((!part.next.is_empty()).then_some(part.next));
            }
            for (property, from) in (0..).zip(broken) {
                if let Some(from) = from.filter(|_| !found.breaks(property)) {
                    let path = self.path(&codec, found.depth - 1, from, property);
                    found.broken.push((property, path));
                }
            }
            if found.broken.len() == properties {
                break;
            }
            found.depth += usize::from(!layer.is_empty());
            self.watch.tell(found.states, found.transitions, found.depth);
        }
        found
    }

    fn initial(&self, codec: &impl Codec<S::World>, judge: &mut Judge) -> u64 {
        codec.encode(&self.stands(self.scene.initial(judge)))
    }

    /// The world that this one is kept as.
    fn stands(&self, world: S::World) -> S::World {
        if self.symmetric { self.scene.representative(world) } else { world }
    }

    /// Every step from the worlds of a layer.
    fn leave(&self, codec: &impl Codec<S::World>, seen: &Seen, layer: &[Vec<u64>]) -> Vec<Part> {
        let taken: Vec<&[u64]> = layer.iter().flat_map(|codes| codes.chunks(TAKEN)).collect();
        let next = AtomicUsize::new(0);
        let work = || {
            let mut hand = Hand::new(seen, self.scene.properties().len());
            while let Some(codes) = taken.get(next.fetch_add(1, Ordering::Relaxed)) {
                if self.watch.is_over() {
                    break;
                }
                let (states, transitions) = hand.counts();
                codes.iter().for_each(|&code| self.expand(codec, code, &mut hand));
                let (more_states, more_transitions) = hand.counts();
                self.watch.tell_more(more_states - states, more_transitions - transitions);
            }
            hand.end()
        };
        let threads = self.threads.min(taken.len());
        if threads <= 1 {
            return vec![work()];
        }
        thread::scope(|scope| {
            let workers: Vec<_> = (0..threads).map(|_| scope.spawn(work)).collect();
            let join = |worker: thread::ScopedJoinHandle<'_, Part>| {
                worker.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
            };
            workers.into_iter().map(join).collect()
        })
    }

    fn expand(&self, codec: &impl Codec<S::World>, code: u64, hand: &mut Hand<'_, S::Action>) {
        let world = codec.decode(code);
        let mut actions = std::mem::take(&mut hand.actions);
        self.scene.actions(&world, &mut actions);
        hand.part.transitions += actions.len();
        for action in actions.drain(..) {
            let mut judge = Judge::default();
            let after = self.scene.step(&world, action, &mut judge);
            hand.judged(&judge, code);
            // Nothing goes on from a step that broke something.
            if judge.is_clean() {
                hand.found(codec.encode(&self.stands(after)));
            }
        }
        hand.actions = actions;
    }

    /// A shortest run that ends with a step from this world which breaks the property; `depth`
    /// steps lead there.
    fn path(
        &self,
        codec: &impl Codec<S::World>,
        depth: usize,
        from: u64,
        property: usize,
    ) -> Vec<S::Action> {
        let way = self.way(codec, depth, from);
        let mut world = self.scene.initial(&mut Judge::default());
        let mut run = Vec::new();
        // With symmetry the world itself is followed, not what it is kept as.
        for stop in way.into_iter().skip(1).map(Some).chain([None]) {
            let step = self.steps(&world).find(|(_, after, judge)| match stop {
                Some(stop) => judge.is_clean() && codec.encode(&self.stands(after.clone())) == stop,
                None => judge.violated(property),
            });
            let Some((action, after, _)) = step else { break };
            run.push(action);
            world = after;
        }
        run
    }

    /// The least codes, layer by layer, that lead to this one.
    fn way(&self, codec: &impl Codec<S::World>, depth: usize, to: u64) -> Vec<u64> {
        let layers = self.layers(codec, depth);
        let mut way = vec![to];
        let mut to = to;
        for layer in layers.iter().rev() {
            let leads = |&&code: &&u64| {
                let world = codec.decode(code);
                self.steps(&world).any(|(_, after, judge)| {
                    judge.is_clean() && codec.encode(&self.stands(after)) == to
                })
            };
            to = layer.iter().find(leads).copied().unwrap_or(to);
            way.push(to);
        }
        way.reverse();
        way
    }

    /// The first layers again, each in order.
    fn layers(&self, codec: &impl Codec<S::World>, count: usize) -> Vec<Vec<u64>> {
        let seen = Seen::new(codec.marks());
        let initial = self.initial(codec, &mut Judge::default());
        seen.lock(seen.piece_of(initial)).insert(&mut vec![initial]);
        let mut layer = vec![initial];
        let mut layers = Vec::new();
        for _ in 0..count {
            let mut hand = Hand::new(&seen, self.scene.properties().len());
            layer.iter().for_each(|&code| self.expand(codec, code, &mut hand));
            let mut next = hand.end().next;
            next.sort_unstable();
            layers.push(std::mem::replace(&mut layer, next));
        }
        layers
    }

    fn steps(&self, world: &S::World) -> impl Iterator<Item = (S::Action, S::World, Judge)> {
        let mut actions = Vec::new();
        self.scene.actions(world, &mut actions);
        actions.into_iter().map(move |action| {
            let mut judge = Judge::default();
            let after = self.scene.step(world, action, &mut judge);
            (action, after, judge)
        })
    }
}

impl<A> Found<A> {
    fn breaks(&self, property: usize) -> bool {
        self.broken.iter().any(|&(broken, _)| broken == property)
    }
}

/// What a thread has in its hands.
struct Hand<'a, A> {
    seen: &'a Seen,
    batches: Vec<Vec<u64>>,
    actions: Vec<A>,
    tally: Tally,
    part: Part,
}

impl<'a, A> Hand<'a, A> {
    fn new(seen: &'a Seen, properties: usize) -> Self {
        let part = Part {
            next: Vec::new(),
            transitions: 0,
            judged: Vec::new(),
            broken: vec![None; properties],
        };
        let batches = (0..PIECES).map(|_| Vec::with_capacity(BATCH)).collect();
        Self { seen, batches, actions: Vec::new(), tally: Tally::new(properties), part }
    }

    /// New worlds and steps so far.
    const fn counts(&self) -> (usize, usize) {
        (self.part.next.len(), self.part.transitions)
    }

    fn judged(&mut self, judge: &Judge, from: u64) {
        self.tally.add(judge);
        if !judge.is_clean() {
            for (property, least) in self.part.broken.iter_mut().enumerate() {
                if judge.violated(property) {
                    merge(least, Some(from));
                }
            }
        }
    }

    fn found(&mut self, code: u64) {
        let piece = self.seen.piece_of(code);
        self.batches[piece].push(code);
        if self.batches[piece].len() == BATCH {
            self.hand_in(piece);
        }
    }

    fn hand_in(&mut self, piece: usize) {
        let batch = &mut self.batches[piece];
        self.seen.lock(piece).insert(batch);
        self.part.next.append(batch);
    }

    fn end(mut self) -> Part {
        (0..PIECES).for_each(|piece| self.hand_in(piece));
        self.part.judged = self.tally.counts();
        self.part
    }
}

fn merge(least: &mut Option<u64>, from: Option<u64>) {
    *least = (*least).into_iter().chain(from).min();
}
