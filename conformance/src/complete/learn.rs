// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! Learns a machine from the outside: L# (Vaandrager, Garhewal, Rot and Wißmann, 2022).
//!
//! What was seen is a tree of words. Its *basis* are nodes that are known to be different states;
//! around it is the *frontier*, each node of which becomes a state of its own or is found to be one
//! of the basis. The machine so guessed must say what the tree says; then it is tried by its own
//! complete suite, so that what is learned is right under the theorem of [`Complete`].

use std::collections::VecDeque;

use crate::complete::machine::{Alike, Machine, Node, Output, Symbol};
use crate::complete::{Complete, Size};

/// Something that can be asked.
pub trait System {
    /// Why it could not be.
    type Error;

    /// What it answers to a word, from its initial state: to each of its inputs.
    fn ask(&mut self, word: &[Symbol]) -> Result<Vec<Output>, Self::Error>;
}

/// Why nothing was learned.
#[derive(Debug, thiserror::Error)]
pub enum LearnError<E> {
    /// The system could not be asked.
    #[error(transparent)]
    System(E),
    /// The system answered the same word in two ways.
    #[error(
        "the system is not deterministic, or its reset is not one: the word {word:?} was answered \
         in two ways at its input {at}"
    )]
    TwoAnswers {
        /// The inputs.
        word: Vec<Symbol>,
        /// Which one, counted from 1.
        at: usize,
    },
    /// The system did not answer each input.
    #[error("the system gave {answers} answers to the {} inputs of the word {word:?}", word.len())]
    Answers {
        /// The inputs.
        word: Vec<Symbol>,
        /// How many answers there were.
        answers: usize,
    },
    /// More states than the caller wanted.
    #[error("there are more than {0} states")]
    TooMany(usize),
    /// What it should be is not minimal.
    #[error(transparent)]
    Alike(#[from] Alike),
}

/// What was learned, and at what cost.
#[derive(Clone, Debug)]
pub struct Learned {
    /// The machine.
    pub machine: Machine,
    /// Words asked to find it.
    pub asked: Size,
    /// Words asked to confirm it.
    pub confirmed: Size,
}

/// Learn a machine that has at most `most` states, and confirm it for `extra` more than were found.
///
/// What it `should` be is tried first: a device that is right is then known after one guess, and one
/// that is not rarely hides where it was expected.
pub fn learn<S: System>(
    system: &mut S,
    should: &Machine,
    extra: usize,
    most: usize,
) -> Result<Learned, LearnError<S::Error>> {
    let mut learner = Learner::new(system, should.inputs());
    let (mut basis, mut guessing) = (vec![0], Size::default());
    loop {
        let before = learner.asked;
        let guess = learner.guess(&mut basis, most)?;
        guessing = guessing + (learner.asked - before);
        let Some(word) = learner.refutation(&guess, should, extra)? else {
            let confirmed = learner.asked - guessing;
            return Ok(Learned { machine: guess, asked: guessing, confirmed });
        };
        learner.refine(&basis, &guess, word)?;
    }
}

/// A node of the tree: the word that leads there, the answer to its last input, and by input the
/// node behind.
#[derive(Clone, Debug)]
struct Seen {
    word: Vec<Symbol>,
    answer: Output,
    behind: Vec<Option<usize>>,
}

struct Learner<'s, S> {
    system: &'s mut S,
    inputs: usize,
    tree: Vec<Seen>,
    asked: Size,
}

impl<'s, S: System> Learner<'s, S> {
    fn new(system: &'s mut S, inputs: usize) -> Self {
        let root = Seen { word: Vec::new(), answer: 0, behind: vec![None; inputs] };
        Self { system, inputs, tree: vec![root], asked: Size::default() }
    }

    /// A word that the system answers otherwise than the guess does.
    fn refutation(
        &mut self,
        guess: &Machine,
        should: &Machine,
        extra: usize,
    ) -> Result<Option<Vec<Symbol>>, LearnError<S::Error>> {
        // Two states of a guess that agrees with the tree answer differently, as they do there: so
        // it is minimal, and has a suite.
        if let Some(word) = self.contradiction(guess) {
            return Ok(Some(word));
        }
        for machine in [should, guess] {
            if let Some(word) = self.failure(guess, &Complete::new(machine, extra)?)? {
                return Ok(Some(word));
            }
        }
        Ok(None)
    }

    /// A shortest word that was answered otherwise than the guess does.
    fn contradiction(&self, guess: &Machine) -> Option<Vec<Symbol>> {
        let mut queue = VecDeque::from([(0, 0)]);
        while let Some((node, at)) = queue.pop_front() {
            for (input, next) in guess.symbols().zip(&self.tree[node].behind) {
                let Some(next) = *next else { continue };
                match guess.step(at, input) {
                    Some((to, says)) if says == self.tree[next].answer => {
                        queue.push_back((next, to));
                    }
                    _ => return Some(self.tree[next].word.clone()),
                }
            }
        }
        None
    }

    /// The beginning of a test that the system answers otherwise than the guess does.
    fn failure(
        &mut self,
        guess: &Machine,
        suite: &Complete<'_>,
    ) -> Result<Option<Vec<Symbol>>, LearnError<S::Error>> {
        let mut outcome = Ok(None);
        suite.for_each(|_, test| {
            if let Ok(None) = outcome {
                let found = self.disagreement(guess, test);
                outcome = found.map(|at| at.map(|at| test[..at].to_vec()));
            }
        });
        outcome
    }

    /// Ask a word, unless all of it is known, and keep what is answered. The node it leads to.
    fn ask(&mut self, word: &[Symbol]) -> Result<usize, LearnError<S::Error>> {
        if let Some(node) = self.node(word) {
            return Ok(node);
        }
        let answers = self.system.ask(word).map_err(LearnError::System)?;
        self.asked.tests += 1;
        self.asked.inputs += word.len() as u64;
        if answers.len() != word.len() {
            return Err(LearnError::Answers { word: word.to_vec(), answers: answers.len() });
        }
        let mut at = 0;
        for (number, (&input, &answer)) in word.iter().zip(&answers).enumerate() {
            let input = usize::from(input);
            at = match self.tree[at].behind[input] {
                Some(node) if self.tree[node].answer == answer => node,
                Some(_) => {
                    return Err(LearnError::TwoAnswers { word: word.to_vec(), at: number + 1 });
                }
                None => {
                    let new = self.tree.len();
                    let word = word[..=number].to_vec();
                    self.tree.push(Seen { word, answer, behind: vec![None; self.inputs] });
                    self.tree[at].behind[input] = Some(new);
                    new
                }
            };
        }
        Ok(at)
    }

    fn node(&self, word: &[Symbol]) -> Option<usize> {
        word.iter().try_fold(0, |at: usize, &input| self.tree[at].behind[usize::from(input)])
    }

    /// A word to which two nodes are known to answer differently.
    fn apart(&self, one: usize, other: usize) -> Option<Vec<Symbol>> {
        let both = self.tree[one].behind.iter().zip(&self.tree[other].behind).enumerate();
        let known = both.filter_map(|(input, pair)| match pair {
            (Some(left), Some(right)) => Some((input as Symbol, *left, *right)),
            _ => None,
        });
        for (input, left, right) in known {
            if self.tree[left].answer != self.tree[right].answer {
                return Some(vec![input]);
            }
            if let Some(tail) = self.apart(left, right) {
                return Some([&[input], tail.as_slice()].concat());
            }
        }
        None
    }

    /// The places of the basis that a node may be the same as.
    fn candidates(&self, basis: &[usize], node: usize) -> Vec<usize> {
        let same = |&place: &usize| self.apart(basis[place], node).is_none();
        (0..basis.len()).filter(same).collect()
    }

    /// Ask until every transition of the basis leads to one state only.
    fn guess(
        &mut self,
        basis: &mut Vec<usize>,
        most: usize,
    ) -> Result<Machine, LearnError<S::Error>> {
        loop {
            let Some(table) = self.table(basis)? else {
                if basis.len() > most {
                    return Err(LearnError::TooMany(most));
                }
                continue;
            };
            return Ok(Machine::new(self.inputs, table));
        }
    }

    /// The transitions of the basis; `None` if it grew on the way.
    #[expect(clippy::type_complexity, reason = "a table is what a machine is made of")]
    fn table(
        &mut self,
        basis: &mut Vec<usize>,
    ) -> Result<Option<Vec<Option<(Node, Output)>>>, LearnError<S::Error>> {
        let mut table = Vec::new();
        for place in 0..basis.len() {
            for input in 0..self.inputs as Symbol {
                let word = [self.tree[basis[place]].word.as_slice(), &[input]].concat();
                let node = self.ask(&word)?;
                let same = match basis.iter().position(|&known| known == node) {
                    None => self.identify(basis, node)?,
                    known => known,
                };
                let Some(same) = same else {
                    basis.push(node);
                    return Ok(None);
                };
                table.push(Some((same as Node, self.tree[node].answer)));
            }
        }
        Ok(Some(table))
    }

    /// Which of the basis a node is; `None` if it is none of them.
    fn identify(
        &mut self,
        basis: &[usize],
        node: usize,
    ) -> Result<Option<usize>, LearnError<S::Error>> {
        loop {
            match self.candidates(basis, node).as_slice() {
                [] => return Ok(None),
                &[one] => return Ok(Some(one)),
                &[one, other, ..] => {
                    let witness = self.apart(basis[one], basis[other]).unwrap_or_default();
                    let word = [self.tree[node].word.as_slice(), &witness].concat();
                    self.ask(&word)?;
                }
            }
        }
    }

    /// After how many inputs of a word the system answers otherwise than the guess.
    fn disagreement(
        &mut self,
        guess: &Machine,
        word: &[Symbol],
    ) -> Result<Option<usize>, LearnError<S::Error>> {
        self.ask(word)?;
        let (mut node, mut at) = (0, 0);
        for (number, &input) in word.iter().enumerate() {
            let seen = self.tree[node].behind[usize::from(input)];
            match (seen, guess.step(at, input)) {
                (Some(next), Some((to, says))) if self.tree[next].answer == says => {
                    (node, at) = (next, to);
                }
                _ => return Ok(Some(number + 1)),
            }
        }
        Ok(None)
    }

    /// Find, by halving, a transition of the guess that the word refutes: so that the next guess is
    /// another.
    fn refine(
        &mut self,
        basis: &[usize],
        guess: &Machine,
        word: Vec<Symbol>,
    ) -> Result<(), LearnError<S::Error>> {
        // Before its last input, the guess is in a state that is known to be another.
        let mut word = word[..word.len().saturating_sub(1)].to_vec();
        loop {
            let frontier = (1..=word.len())
                .find(|&len| self.node(&word[..len]).is_none_or(|node| !basis.contains(&node)));
            let Some(frontier) = frontier.filter(|&len| len < word.len()) else { return Ok(()) };
            let half = frontier.midpoint(word.len());
            let state = |word: &[Symbol]| usize::from(guess.run(0, word).unwrap_or_default());
            let (Some(end), Some(middle)) = (self.node(&word), self.node(&word[..half])) else {
                return Ok(());
            };
            let witness = self.apart(basis[state(&word)], end).unwrap_or_default();
            let there = basis[state(&word[..half])];
            let access = self.tree[there].word.clone();
            let shorter = [access.as_slice(), &word[half..]].concat();
            self.ask(&[shorter.as_slice(), &witness].concat())?;
            if self.apart(there, middle).is_some() {
                word.truncate(half);
            } else {
                word = shorter;
            }
        }
    }
}
