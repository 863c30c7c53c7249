// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! How sharp suites are: which wrong machines each of them catches.

use std::fmt;

use serde::Serialize;

use crate::complete::machine::{Alike, Machine, Node, Output, Symbol};
use crate::complete::{Complete, tour};

/// A kind of wrong machine.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Wrong {
    /// One transition answers something else.
    Output,
    /// One transition leads somewhere else.
    Transfer,
    /// Two transitions lead somewhere else.
    TwoTransfers,
    /// One transition leads into a hidden copy of its state, and one or two steps on, in hidden
    /// copies all the way, one transition is wrong.
    Hidden {
        /// How many states there are more.
        more: usize,
        /// Whether a step that changes nothing leads out of hiding: such a fault heals when it is
        /// looked at.
        heals: bool,
    },
}

impl Wrong {
    /// The kinds that the table has columns for.
    pub const ALL: [Self; 7] = [
        Self::Output,
        Self::Transfer,
        Self::TwoTransfers,
        Self::Hidden { more: 1, heals: false },
        Self::Hidden { more: 1, heals: true },
        Self::Hidden { more: 2, heals: false },
        Self::Hidden { more: 2, heals: true },
    ];

    /// How many states more than the specification such a machine can have.
    pub const fn extra(self) -> usize {
        match self {
            Self::Hidden { more, .. } => more,
            _ => 0,
        }
    }
}

impl fmt::Display for Wrong {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Output => f.pad("output"),
            Self::Transfer => f.pad("transfer"),
            Self::TwoTransfers => f.pad("2 transfers"),
            Self::Hidden { more, heals: false } => f.pad(&format!("+{more} sticky")),
            Self::Hidden { more, heals: true } => f.pad(&format!("+{more} healing")),
        }
    }
}

/// Words that are run, each from the initial state.
#[derive(Clone, Debug)]
pub struct Words {
    /// What they are.
    pub name: String,
    inputs: Vec<Symbol>,
    ends: Vec<usize>,
}

impl Words {
    /// A suite of one word.
    pub fn one(name: impl Into<String>, word: Vec<Symbol>) -> Self {
        Self { name: name.into(), ends: vec![word.len()], inputs: word }
    }

    /// A complete suite.
    pub fn complete(suite: &Complete<'_>, name: impl Into<String>) -> Self {
        let mut words = Self { name: name.into(), inputs: Vec::new(), ends: Vec::new() };
        suite.for_each(|_, test| {
            words.inputs.extend_from_slice(test);
            words.ends.push(words.inputs.len());
        });
        words
    }

    /// The same with `look` after every input.
    #[must_use]
    pub fn observed(&self, look: Symbol) -> Self {
        let name = format!("{} + GET", self.name);
        let inputs = self.inputs.iter().flat_map(|&input| [input, look]).collect();
        Self { name, inputs, ends: self.ends.iter().map(|end| 2 * end).collect() }
    }

    /// How many words.
    pub fn tests(&self) -> usize {
        self.ends.len()
    }

    /// How many inputs in all of them.
    pub fn inputs(&self) -> usize {
        self.inputs.len()
    }

    /// Each word.
    pub fn iter(&self) -> impl Iterator<Item = &[Symbol]> {
        let begins = std::iter::once(0).chain(self.ends.iter().copied());
        begins.zip(&self.ends).map(|(begin, &end)| &self.inputs[begin..end])
    }

    /// Whether some word is answered otherwise than the specification does.
    pub fn catches(&self, specification: &Machine, wrong: &Machine) -> bool {
        self.iter().any(|word| {
            let (mut right, mut at) = (0, 0);
            word.iter().any(|&input| {
                match (specification.step(right, input), wrong.step(at, input)) {
                    (Some((to, says)), Some((goes, answers))) if says == answers => {
                        (right, at) = (to, goes);
                        false
                    }
                    _ => true,
                }
            })
        })
    }
}

/// Wrong machines of one kind. All of them up to `most`, and beyond that as many, drawn with a seed.
pub fn wrongs(machine: &Machine, wrong: Wrong, most: usize, seed: u64) -> Vec<Machine> {
    let mut random = fastrand::Rng::with_seed(seed);
    let changed = |(from, input, entry)| machine.with(from, input, entry);
    let mut changed: Vec<Machine> = match wrong {
        Wrong::Output => wrong_outputs(machine).into_iter().map(changed).collect(),
        Wrong::Transfer => wrong_transfers(machine).into_iter().map(changed).collect(),
        Wrong::TwoTransfers => {
            let all = wrong_transfers(machine);
            let mut two = || {
                let (one, other) = (random.choice(&all)?, random.choice(&all)?);
                Some(machine.with(one.0, one.1, one.2).with(other.0, other.1, other.2))
            };
            (0..most).filter_map(|_| two()).collect()
        }
        Wrong::Hidden { more, heals } => {
            (0..most).filter_map(|_| hidden(machine, more, heals, &mut random)).collect()
        }
    };
    random.shuffle(&mut changed);
    changed.truncate(most);
    changed.retain(|wrong| machine.difference(wrong).is_some());
    changed
}

type Change = (Node, Symbol, (Node, Output));

fn wrong_outputs(machine: &Machine) -> Vec<Change> {
    let outputs = machine.outputs();
    changes(machine, |(to, says)| {
        let others = outputs.iter().filter(move |&&other| other != says);
        others.map(|&other| (to, other)).collect()
    })
}

fn wrong_transfers(machine: &Machine) -> Vec<Change> {
    let nodes: Vec<_> = machine.nodes().collect();
    changes(machine, |(to, says)| {
        nodes.iter().filter(|&&other| other != to).map(|&other| (other, says)).collect()
    })
}

fn changes(
    machine: &Machine,
    entries: impl Fn((Node, Output)) -> Vec<(Node, Output)>,
) -> Vec<Change> {
    let all = machine.nodes().flat_map(|from| {
        let of = machine.from(from).map(move |(input, to, says)| (from, input, (to, says)));
        of.collect::<Vec<_>>()
    });
    all.flat_map(|(from, input, right)| {
        entries(right).into_iter().map(move |wrong| (from, input, wrong)).collect::<Vec<_>>()
    })
    .collect()
}

/// A machine with hidden copies in a row, the last of which has a wrong transition.
fn hidden(
    machine: &Machine,
    more: usize,
    heals: bool,
    random: &mut fastrand::Rng,
) -> Option<Machine> {
    let mut changed = machine.clone();
    let mut at = random.u16(0..machine.states() as Node);
    let mut real = at;
    for _ in 0..more {
        let ways: Vec<_> = machine.from(real).collect();
        let &(input, to, says) = random.choice(&ways)?;
        let (bigger, twin) = changed.with_twin(to);
        changed = bigger.with(at, input, (twin, says));
        if !heals {
            // What changes nothing leaves it hidden.
            for (input, back, says) in machine.from(to) {
                if back == to {
                    changed = changed.with(twin, input, (twin, says));
                }
            }
        }
        (at, real) = (twin, to);
    }
    let ways: Vec<_> = machine.from(real).collect();
    let &(input, to, says) = random.choice(&ways)?;
    let wrong = if random.bool() {
        let outputs = machine.outputs();
        let others: Vec<_> = outputs.into_iter().filter(|&other| other != says).collect();
        (to, *random.choice(&others)?)
    } else {
        let others: Vec<_> = machine.nodes().filter(|&other| other != to).collect();
        (*random.choice(&others)?, says)
    };
    Some(changed.with(at, input, wrong))
}

/// Which share of the wrong machines each suite catches.
#[derive(Clone, Debug, Serialize)]
pub struct Table {
    /// By kind: how many machines, all of them different from the specification.
    pub machines: Vec<(Wrong, usize)>,
    /// By suite.
    pub rows: Vec<Row>,
}

/// One suite.
#[derive(Clone, Debug, Serialize)]
pub struct Row {
    /// What it is.
    pub suite: String,
    /// How many words.
    pub tests: usize,
    /// How many inputs.
    pub inputs: usize,
    /// Of a complete suite, for how many states more.
    pub promises: Option<usize>,
    /// By kind, as in [`Table::machines`]: how many are caught.
    pub caught: Vec<usize>,
}

impl Table {
    /// Measure tours, random words and complete suites for up to `extra` states more. `look` is the
    /// input that asks for the state.
    pub fn measure(
        machine: &Machine,
        look: Symbol,
        extra: usize,
        most: usize,
    ) -> Result<Self, Alike> {
        let tour = Words::one("tour", tour::transitions(machine).word);
        let pairs = Words::one("pairs", tour::pairs(machine).word);
        let random = Words::one("random 100k", random_word(machine, 100_000));
        let tours = [tour, pairs].into_iter().flat_map(|words| {
            let observed = words.observed(look);
            [words, observed]
        });
        let mut suites: Vec<_> = tours.chain([random]).map(|words| (words, None)).collect();
        for extra in 0..=extra {
            let suite = Complete::new(machine, extra)?;
            suites.push((Words::complete(&suite, format!("HSI({extra})")), Some(extra)));
        }
        let kinds = Wrong::ALL.map(|wrong| (wrong, wrongs(machine, wrong, most, SEED)));
        let row = |(words, promises): &(Words, Option<usize>)| Row {
            suite: words.name.clone(),
            tests: words.tests(),
            inputs: words.inputs(),
            promises: *promises,
            caught: kinds.iter().map(|(_, wrongs)| caught(machine, words, wrongs)).collect(),
        };
        let rows = suites.iter().map(row).collect();
        let machines = kinds.iter().map(|(wrong, machines)| (*wrong, machines.len())).collect();
        Ok(Self { machines, rows })
    }

    /// The promises that were broken: a complete suite that let a machine of its domain pass.
    pub fn broken(&self) -> impl Iterator<Item = (&Row, Wrong)> {
        self.rows.iter().flat_map(|row| {
            let cells = self.machines.iter().zip(&row.caught);
            let within = move |wrong: Wrong| row.promises.is_some_and(|k| k >= wrong.extra());
            cells
                .filter(move |((wrong, all), caught)| within(*wrong) && **caught < *all)
                .map(move |((wrong, _), _)| (row, *wrong))
        })
    }
}

/// For what is drawn.
const SEED: u64 = 0x5eed;

fn random_word(machine: &Machine, len: usize) -> Vec<Symbol> {
    let mut random = fastrand::Rng::with_seed(SEED);
    let mut at = 0;
    let mut next = || {
        let ways: Vec<_> = machine.from(at).collect();
        let &(input, to, _) = random.choice(&ways)?;
        at = to;
        Some(input)
    };
    (0..len).map_while(|_| next()).collect()
}

fn caught(machine: &Machine, words: &Words, wrongs: &[Machine]) -> usize {
    wrongs.iter().filter(|wrong| words.catches(machine, wrong)).count()
}

impl fmt::Display for Table {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // A name of two words stands in two lines, so that all columns fit a terminal.
        let names = || self.machines.iter().map(|(wrong, _)| wrong.to_string());
        let second = |name: &str| name.split_once(' ').map_or(name, |(_, word)| word).to_owned();
        let first = |name: &str| name.split_once(' ').map_or("", |(word, _)| word).to_owned();
        write!(f, "{:<12}{:>7}", "", "")?;
        names().try_for_each(|name| write!(f, "{:>8}", first(&name)))?;
        write!(f, "\n{:<12}{:>7}", "per cent", "inputs")?;
        names().try_for_each(|name| write!(f, "{:>8}", second(&name).trim_end_matches('s')))?;
        write!(f, "\n{:<19}", "machines")?;
        self.machines.iter().try_for_each(|(_, count)| write!(f, "{count:>8}"))?;
        for row in &self.rows {
            write!(f, "\n{:<12}{:>7}", row.suite, row.inputs)?;
            for ((_, all), caught) in self.machines.iter().zip(&row.caught) {
                let share = 100.0 * *caught as f64 / (*all).max(1) as f64;
                // Never rounded up to all of them.
                let share = if caught < all { share.min(99.99) } else { share };
                write!(f, "{share:>8.2}")?;
            }
        }
        writeln!(f)
    }
}
