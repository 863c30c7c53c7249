// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! Numbered things, and lists of pages.

use std::collections::BTreeMap;
use std::ops::Range;

use crate::firmware::refusal::Syndrome;

/// How many things of a kind there can be, whatever the numbers leave room for.
const MOST: usize = 1 << 16;

/// Things by number. A number comes back only when all others have been used.
pub(crate) struct Table<T> {
    numbers: Range<u32>,
    next: u32,
    things: BTreeMap<u32, T>,
}

impl<T> Table<T> {
    pub(crate) fn new(numbers: Range<u32>) -> Self {
        Self { next: numbers.start, numbers, things: BTreeMap::new() }
    }

    pub(crate) fn insert(&mut self, thing: T) -> Result<u32, Syndrome> {
        if self.things.len() >= MOST.min(self.numbers.len()) {
            return Err(Syndrome::NoRoom);
        }
        while self.things.contains_key(&self.next) {
            self.step();
        }
        let number = self.next;
        self.things.insert(number, thing);
        self.step();
        Ok(number)
    }

    fn step(&mut self) {
        let next = self.next + 1;
        self.next = if next < self.numbers.end { next } else { self.numbers.start };
    }

    pub(crate) fn get(&self, number: u32) -> Option<&T> {
        self.things.get(&number)
    }

    pub(crate) fn get_mut(&mut self, number: u32) -> Option<&mut T> {
        self.things.get_mut(&number)
    }

    pub(crate) fn remove(&mut self, number: u32) -> Option<T> {
        self.things.remove(&number)
    }

    pub(crate) fn clear(&mut self) {
        self.things.clear();
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = (u32, &T)> {
        self.things.iter().map(|(number, thing)| (*number, thing))
    }

    pub(crate) fn iter_mut(&mut self) -> impl Iterator<Item = (u32, &mut T)> {
        self.things.iter_mut().map(|(number, thing)| (*number, thing))
    }

    pub(crate) fn len(&self) -> usize {
        self.things.len()
    }
}

/// Pages of one size that together are a piece of memory.
#[derive(Clone, Debug)]
pub(crate) struct PageList {
    pages: Vec<u64>,
    shift: u32,
}

impl PageList {
    /// The first `bytes` of pages of `2^shift` bytes each, from a list of big-endian addresses.
    /// `None`: the list is too short, or a page is not aligned.
    pub(crate) fn new(list: &[u8], bytes: u64, shift: u32) -> Option<Self> {
        if !(12..=31).contains(&shift) {
            return None;
        }
        let count = usize::try_from(bytes.div_ceil(1 << shift)).ok()?;
        let list = list.get(..count.checked_mul(8)?)?;
        let pages: Vec<_> =
            list.as_chunks::<8>().0.iter().map(|b| u64::from_be_bytes(*b)).collect();
        let aligned = pages.iter().all(|page| page.is_multiple_of(1 << shift));
        aligned.then_some(Self { pages, shift })
    }

    /// Where a byte is, and how many are in one piece with it: of those wanted, all if they are.
    pub(crate) fn at(&self, offset: u64, wanted: u64) -> Option<(u64, u64)> {
        let index = usize::try_from(offset >> self.shift).ok()?;
        let inside = offset & ((1 << self.shift) - 1);
        let page = *self.pages.get(index)?;
        let mut bytes = (1 << self.shift) - inside;
        let mut expected = page.checked_add(1 << self.shift);
        for next in &self.pages[index + 1..] {
            if Some(*next) != expected || bytes >= wanted {
                break;
            }
            bytes += 1 << self.shift;
            expected = next.checked_add(1 << self.shift);
        }
        Some((page.checked_add(inside)?, bytes))
    }
}
