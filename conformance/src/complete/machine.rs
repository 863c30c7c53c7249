// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! A finite state machine with outputs, and what test theory asks of one.

use std::cmp::Reverse;
use std::collections::VecDeque;

/// Number of a state; 0 is the initial one.
pub type Node = u16;
/// Number of an input.
pub type Symbol = u8;
/// Number of an output.
pub type Output = u16;

/// A deterministic machine. A transition that is not there is one of which the specification says
/// nothing, so no test takes it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Machine {
    inputs: usize,
    /// By state, then by input: where it leads and what it answers.
    table: Vec<Option<(Node, Output)>>,
}

/// Two states that no test can tell apart: the machine is not minimal, and no theorem is about it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("states {0} and {1} of the machine answer alike to everything")]
pub struct Alike(pub Node, pub Node);

impl Machine {
    /// From its table: `inputs` entries for each state.
    ///
    /// # Panics
    ///
    /// If the table is not a whole number of rows, or leads to a state that has no row.
    pub fn new(inputs: usize, table: Vec<Option<(Node, Output)>>) -> Self {
        assert!(inputs > 0 && table.len().is_multiple_of(inputs), "whole rows");
        let states = table.len() / inputs;
        let inside = |&(to, _): &(Node, Output)| usize::from(to) < states;
        assert!(table.iter().flatten().all(inside), "every transition leads to a state");
        Self { inputs, table }
    }

    /// How many states it has.
    pub fn states(&self) -> usize {
        self.table.len() / self.inputs
    }

    /// How many inputs it has.
    pub fn inputs(&self) -> usize {
        self.inputs
    }

    /// How many transitions are defined.
    pub fn transitions(&self) -> usize {
        self.table.iter().flatten().count()
    }

    /// The outputs that occur, in order.
    pub fn outputs(&self) -> Vec<Output> {
        let mut outputs: Vec<_> = self.table.iter().flatten().map(|&(_, output)| output).collect();
        outputs.sort_unstable();
        outputs.dedup();
        outputs
    }

    /// Where an input leads, and what it answers.
    #[inline]
    pub fn step(&self, from: Node, input: Symbol) -> Option<(Node, Output)> {
        self.table[usize::from(from) * self.inputs + usize::from(input)]
    }

    /// The same machine with one transition changed, or added.
    #[must_use]
    pub fn with(&self, from: Node, input: Symbol, entry: (Node, Output)) -> Self {
        let mut table = self.table.clone();
        table[usize::from(from) * self.inputs + usize::from(input)] = Some(entry);
        Self::new(self.inputs, table)
    }

    /// The same machine with one state more, which behaves like `like`.
    #[must_use]
    pub fn with_twin(&self, like: Node) -> (Self, Node) {
        let row = usize::from(like) * self.inputs;
        let twin = self.states() as Node;
        let mut table = self.table.clone();
        table.extend_from_within(row..row + self.inputs);
        (Self::new(self.inputs, table), twin)
    }

    /// Every state.
    pub fn nodes(&self) -> impl Iterator<Item = Node> + use<> {
        0..self.states() as Node
    }

    /// Every input.
    pub fn symbols(&self) -> impl Iterator<Item = Symbol> + use<> {
        0..self.inputs as Symbol
    }

    /// The transitions out of a state.
    pub fn from(&self, from: Node) -> impl Iterator<Item = (Symbol, Node, Output)> + '_ {
        self.symbols()
            .filter_map(move |input| self.step(from, input).map(|(to, output)| (input, to, output)))
    }

    /// Where a word leads; `None` if some step of it is not defined.
    pub fn run(&self, from: Node, word: &[Symbol]) -> Option<Node> {
        word.iter().try_fold(from, |at, &input| self.step(at, input).map(|(to, _)| to))
    }

    /// Whether two states answer differently to a word that both define.
    pub fn separates(&self, one: Node, other: Node, word: &[Symbol]) -> bool {
        let (mut one, mut other) = (one, other);
        for &input in word {
            match (self.step(one, input), self.step(other, input)) {
                (Some((_, says)), Some((_, also))) if says != also => return true,
                (Some((to, _)), Some((also, _))) => (one, other) = (to, also),
                _ => return false,
            }
        }
        false
    }

    /// A shortest word into every state, and `None` for one that cannot be reached. A word without
    /// its last input is the word of another state.
    pub fn state_cover(&self) -> Vec<Option<Vec<Symbol>>> {
        let mut words: Vec<Option<Vec<Symbol>>> = vec![None; self.states()];
        words[0] = Some(Vec::new());
        let mut queue = VecDeque::from([0]);
        while let Some(at) = queue.pop_front() {
            let word = words[usize::from(at)].clone().unwrap_or_default();
            for (input, to, _) in self.from(at) {
                let place = &mut words[usize::from(to)];
                if place.is_none() {
                    *place = Some([word.as_slice(), &[input]].concat());
                    queue.push_back(to);
                }
            }
        }
        words
    }

    /// The machine with states that behave alike merged, and those that cannot be reached dropped.
    #[must_use]
    pub fn minimal(&self) -> Self {
        let classes = self.classes();
        let mut order: Vec<usize> = Vec::new();
        let mut queue = VecDeque::from([0]);
        let mut members = Vec::new();
        while let Some(at) = queue.pop_front() {
            let class = classes[usize::from(at)];
            if !order.contains(&class) {
                order.push(class);
                members.push(at);
                queue.extend(self.from(at).map(|(_, to, _)| to));
            }
        }
        let number = |node: Node| {
            let class = classes[usize::from(node)];
            order.iter().position(|&known| known == class).unwrap_or_default() as Node
        };
        let rows = members
            .iter()
            .flat_map(|&member| self.symbols().map(move |input| self.step(member, input)));
        let table = rows.map(|entry| entry.map(|(to, output)| (number(to), output))).collect();
        Self::new(self.inputs, table)
    }

    /// For each state the number of its class: states of one class define and answer the same, for
    /// ever.
    fn classes(&self) -> Vec<usize> {
        let mut classes = vec![0; self.states()];
        loop {
            let signature = |node: Node| -> Vec<Option<(usize, Output)>> {
                let entries = self.symbols().map(|input| self.step(node, input));
                let entry = |(to, output)| (classes[usize::from(to)], output);
                let own = Some((classes[usize::from(node)], 0));
                entries.map(|known| known.map(entry)).chain([own]).collect()
            };
            let signatures: Vec<_> = self.nodes().map(signature).collect();
            let mut distinct = signatures.clone();
            distinct.sort_unstable();
            distinct.dedup();
            let finer: Vec<usize> = signatures
                .iter()
                .map(|own| distinct.binary_search(own).unwrap_or_default())
                .collect();
            let count = |of: &[usize]| of.iter().max().map_or(0, |most| most + 1);
            if count(&finer) == count(&classes) {
                return finer;
            }
            classes = finer;
        }
    }

    /// For every two states a shortest word that both define and answer differently. Among those of
    /// one length it is made of inputs that separate many, so that identifiers are small.
    pub fn separators(&self) -> Result<Separators, Alike> {
        let states = self.states();
        let mut words: Vec<Option<Vec<Symbol>>> = vec![None; states * states];
        let at = |one: Node, other: Node| usize::from(one) * states + usize::from(other);
        let pairs = || {
            self.nodes()
                .flat_map(move |one| (one + 1..states as Node).map(move |other| (one, other)))
        };
        let separated = |input: Symbol| {
            let apart = pairs().filter(|&(one, other)| self.separates(one, other, &[input]));
            apart.count()
        };
        let mut symbols: Vec<_> = self.symbols().collect();
        symbols.sort_by_cached_key(|&input| Reverse(separated(input)));
        loop {
            let mut found = Vec::new();
            for (one, other) in pairs().filter(|&(one, other)| words[at(one, other)].is_none()) {
                let tail = |input: Symbol| {
                    let (left, right) = (self.step(one, input)?, self.step(other, input)?);
                    if left.1 != right.1 {
                        return Some(vec![input]);
                    }
                    let tail = words[at(left.0, right.0)].as_ref()?;
                    Some([&[input], tail.as_slice()].concat())
                };
                let word = symbols.iter().copied().filter_map(tail).min_by_key(Vec::len);
                found.extend(word.map(|word| (one, other, word)));
            }
            if found.is_empty() {
                break;
            }
            let shortest = found.iter().map(|(.., word)| word.len()).min().unwrap_or_default();
            for (one, other, word) in found.into_iter().filter(|(.., w)| w.len() == shortest) {
                words[at(other, one)] = Some(word.clone());
                words[at(one, other)] = Some(word);
            }
        }
        match pairs().find(|&(one, other)| words[at(one, other)].is_none()) {
            Some((one, other)) => Err(Alike(one, other)),
            None => Ok(Separators { states, words }),
        }
    }

    /// A shortest word to which the two machines answer differently; `None` if they are equivalent
    /// wherever this one is defined.
    pub fn difference(&self, other: &Self) -> Option<Vec<Symbol>> {
        self.search(other, |word, _, _| Some(word.to_vec()))
    }

    /// For every transition of this machine that the other answers otherwise, if it can be come to
    /// without meeting such a one before: a shortest word, and the two answers.
    pub fn differences(&self, other: &Self) -> Vec<(Vec<Symbol>, Output, Output)> {
        let mut all = Vec::new();
        let _all_seen: Option<()> = self.search(other, |word, says, also| {
            all.push((word.to_vec(), says, also));
            None
        });
        all
    }

    /// Both machines together, breadth first, up to where they differ. The other has the transitions
    /// of this one.
    fn search<T>(
        &self,
        other: &Self,
        mut differ: impl FnMut(&[Symbol], Output, Output) -> Option<T>,
    ) -> Option<T> {
        let width = other.states();
        let place = |pair: (Node, Node)| usize::from(pair.0) * width + usize::from(pair.1);
        let mut seen = vec![false; self.states() * width];
        let mut queue = VecDeque::from([((0, 0), Vec::new())]);
        seen[0] = true;
        while let Some((pair, word)) = queue.pop_front() {
            for (input, to, output) in self.from(pair.0) {
                let Some((also, says)) = other.step(pair.1, input) else { continue };
                let longer = [word.as_slice(), &[input]].concat();
                if says != output {
                    if let Some(found) = differ(&longer, output, says) {
                        return Some(found);
                    }
                } else if !std::mem::replace(&mut seen[place((to, also))], true) {
                    queue.push_back(((to, also), longer));
                }
            }
        }
        None
    }

    /// After how many inputs of a word these answers are not those of the machine.
    pub fn refuted(&self, word: &[Symbol], answers: &[Output]) -> Option<usize> {
        let mut at = 0;
        let wrong = |(&input, &answer): (&Symbol, &Output)| match self.step(at, input) {
            Some((to, says)) if says == answer => {
                at = to;
                false
            }
            _ => true,
        };
        word.iter().zip(answers).position(wrong).map(|before| before + 1)
    }
}

/// For every two states a word that tells them apart; the same word from both sides.
#[derive(Clone, Debug)]
pub struct Separators {
    states: usize,
    words: Vec<Option<Vec<Symbol>>>,
}

impl Separators {
    /// The word for two states; empty for a state and itself.
    pub fn word(&self, one: Node, other: Node) -> &[Symbol] {
        let word = self.words[usize::from(one) * self.states + usize::from(other)].as_ref();
        word.map_or(&[], Vec::as_slice)
    }

    /// The harmonised identifier of a state: words that tell it from every other state, none the
    /// beginning of another. Where there is no other, the empty word.
    pub fn identifier(&self, of: Node) -> Vec<Vec<Symbol>> {
        let others = (0..self.states as Node).filter(|&other| other != of);
        let mut words: Vec<_> = others.map(|other| self.word(of, other).to_vec()).collect();
        words.sort_unstable();
        words.dedup();
        let is_beginning = |word: &Vec<Symbol>| {
            words.iter().any(|other| other.len() > word.len() && other.starts_with(word))
        };
        if words.is_empty() {
            return vec![Vec::new()];
        }
        words.iter().filter(|word| !is_beginning(word)).cloned().collect()
    }
}
