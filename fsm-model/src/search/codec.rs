// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! How whole worlds become numbers, and worlds again.

use std::hash::Hash;
use std::sync::{Mutex, MutexGuard, PoisonError};

use ahash::RandomState;
use indexmap::IndexSet;

use super::seen::Marks;

/// A number for each world, and its world for each number: what is remembered of a world is all of
/// it, and no two are taken for one.
pub(crate) trait Codec<W>: Sync {
    /// Less than `u64::MAX`.
    fn encode(&self, world: &W) -> u64;

    fn decode(&self, code: u64) -> W;

    /// How the numbers are best kept.
    fn marks(&self) -> Marks {
        Marks::Table
    }
}

/// Worlds as they are, numbered as they come.
pub(crate) struct Whole<W>(Numbers<W>);

impl<W: Clone + Eq + Hash> Whole<W> {
    pub(crate) fn new() -> Self {
        Self(Numbers::new())
    }
}

impl<W: Clone + Eq + Hash + Send> Codec<W> for Whole<W> {
    fn encode(&self, world: &W) -> u64 {
        self.0.number(world)
    }

    fn decode(&self, code: u64) -> W {
        self.0.value(code)
    }
}

/// A world in two parts that change at different times, so that there are few of each.
pub(crate) trait Halves: Sized {
    type Left: Clone + Eq + Hash + Send;
    type Right: Clone + Eq + Hash + Send;

    fn halves(&self) -> (Self::Left, Self::Right);

    fn whole(left: Self::Left, right: Self::Right) -> Self;
}

/// Worlds by the numbers of their halves: each half is kept once.
pub(crate) struct ByHalves<W: Halves> {
    left: Numbers<W::Left>,
    right: Numbers<W::Right>,
}

impl<W: Halves> ByHalves<W> {
    pub(crate) fn new() -> Self {
        Self { left: Numbers::new(), right: Numbers::new() }
    }
}

impl<W: Halves> Codec<W> for ByHalves<W> {
    fn encode(&self, world: &W) -> u64 {
        let (left, right) = world.halves();
        self.left.number(&left) << 32 | self.right.number(&right)
    }

    fn decode(&self, code: u64) -> W {
        W::whole(self.left.value(code >> 32), self.right.value(code & u64::from(u32::MAX)))
    }
}

/// Values numbered as they come, in pieces that threads lock one at a time.
struct Numbers<T> {
    hasher: RandomState,
    pieces: Vec<Mutex<IndexSet<T, RandomState>>>,
}

const PIECES: u64 = 32;

impl<T: Clone + Eq + Hash> Numbers<T> {
    fn new() -> Self {
        // The same numbers in each run, if one thread gives them.
        let hasher = RandomState::with_seeds(1, 2, 3, 4);
        let piece = || Mutex::new(IndexSet::with_hasher(hasher.clone()));
        Self { pieces: (0..PIECES).map(|_| piece()).collect(), hasher }
    }

    fn piece(&self, number: u64) -> MutexGuard<'_, IndexSet<T, RandomState>> {
        self.pieces[number as usize].lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn number(&self, value: &T) -> u64 {
        // Not the bits by which the sets choose their buckets.
        let piece = self.hasher.hash_one(value) >> 40 & (PIECES - 1);
        let mut values = self.piece(piece);
        let index = match values.get_index_of(value) {
            Some(index) => index,
            None => values.insert_full(value.clone()).0,
        };
        index as u64 * PIECES + piece
    }

    fn value(&self, number: u64) -> T {
        self.piece(number % PIECES)[(number / PIECES) as usize].clone()
    }
}
