// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! Complete suites: what passes one is right, if it has no more states than promised.
//!
//! The method is HSI, for *harmonised state identifiers* (Petrenko, Yevtushenko and others, 1993;
//! with partially defined machines: Luo, Petrenko and v. Bochmann, 1994). From every state, reached
//! by a shortest word, every word of `k + 1` inputs, and behind it what identifies the state it ends
//! in. The theorem ([`Complete::theorem`]) is theirs.

use std::ops::{Add, Sub};

use crate::complete::machine::{Alike, Machine, Node, Symbol};

/// The complete suite of a machine for implementations with so many states more.
#[derive(Clone, Debug)]
pub struct Complete<'m> {
    machine: &'m Machine,
    extra: usize,
    cover: Vec<(Node, Vec<Symbol>)>,
    identifiers: Vec<Vec<Vec<Symbol>>>,
}

/// How large a suite is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, serde::Deserialize, serde::Serialize)]
pub struct Size {
    /// Words, each from a fresh device.
    pub tests: u64,
    /// Inputs in all of them.
    pub inputs: u64,
}

impl Add for Size {
    type Output = Self;

    fn add(self, other: Self) -> Self {
        Self { tests: self.tests + other.tests, inputs: self.inputs + other.inputs }
    }
}

impl Sub for Size {
    type Output = Self;

    fn sub(self, other: Self) -> Self {
        Self { tests: self.tests - other.tests, inputs: self.inputs - other.inputs }
    }
}

impl<'m> Complete<'m> {
    /// For a machine that is minimal; `extra` is how many states more an implementation may have.
    pub fn new(machine: &'m Machine, extra: usize) -> Result<Self, Alike> {
        let separators = machine.separators()?;
        let words = machine.state_cover().into_iter();
        let cover = machine.nodes().zip(words).filter_map(|(node, word)| Some((node, word?)));
        let identifiers = machine.nodes().map(|node| separators.identifier(node)).collect();
        Ok(Self { machine, extra, cover: cover.collect(), identifiers })
    }

    /// What a pass proves, in one sentence.
    pub fn theorem(&self) -> String {
        let states = self.machine.states();
        format!(
            "given a reliable reset and deterministic answers, every implementation with at most \
             {} states ({states} + {}) that passes answers as the specification does to every \
             sequence of these inputs",
            states + self.extra,
            self.extra,
        )
    }

    /// Each test in turn, from the initial state: how long the word of the cover is that it begins
    /// with, and the test. Those with the same beginning and the same next input come together.
    pub fn for_each(&self, mut visit: impl FnMut(usize, &[Symbol])) {
        for (node, word) in &self.cover {
            let mut test = word.clone();
            self.extend(*node, 0, &mut test, &mut |test| visit(word.len(), test));
        }
    }

    /// All words of up to `extra + 1` inputs behind `test`, which is at `node`, and identifiers.
    fn extend(
        &self,
        node: Node,
        depth: usize,
        test: &mut Vec<Symbol>,
        visit: &mut impl FnMut(&[Symbol]),
    ) {
        let left = self.extra + 1 - depth;
        for identifier in &self.identifiers[usize::from(node)] {
            // A shorter one is the beginning of some word that follows.
            if identifier.len() > left || left == 0 {
                test.extend_from_slice(identifier);
                visit(test);
                test.truncate(test.len() - identifier.len());
            }
        }
        if left == 0 {
            return;
        }
        for (input, to, _) in self.machine.from(node) {
            test.push(input);
            // What is behind a word of the cover begins there, and goes further.
            if depth > 0 || !self.is_cover(test) {
                self.extend(to, depth + 1, test, visit);
            }
            test.pop();
        }
    }

    fn is_cover(&self, word: &[Symbol]) -> bool {
        self.cover.iter().any(|(_, known)| known == word)
    }

    /// How large it is, without going through it.
    pub fn size(&self) -> Size {
        let states = self.machine.states();
        // Words that begin at a transition which is not of the cover, by where they are and the
        // sum of the lengths so far.
        let mut total = Size::default();
        let mut at = vec![(0_u64, 0_u64); states];
        for (node, word) in &self.cover {
            self.count(&mut total, *node, 1, word.len() as u64, self.extra + 1);
            for (input, to, _) in self.machine.from(*node) {
                let longer = [word.as_slice(), &[input]].concat();
                if !self.is_cover(&longer) {
                    let place = &mut at[usize::from(to)];
                    *place = (place.0 + 1, place.1 + longer.len() as u64);
                }
            }
        }
        for left in (0..=self.extra).rev() {
            let mut next = vec![(0, 0); states];
            for (node, &(words, inputs)) in self.machine.nodes().zip(&at) {
                self.count(&mut total, node, words, inputs, left);
                for (_, to, _) in self.machine.from(node) {
                    let place: &mut (u64, u64) = &mut next[usize::from(to)];
                    *place = (place.0 + words, place.1 + inputs + words);
                }
            }
            at = next;
        }
        total
    }

    fn count(&self, total: &mut Size, node: Node, words: u64, inputs: u64, left: usize) {
        for identifier in &self.identifiers[usize::from(node)] {
            if identifier.len() > left || left == 0 {
                total.tests += words;
                total.inputs += inputs + words * identifier.len() as u64;
            }
        }
    }
}
