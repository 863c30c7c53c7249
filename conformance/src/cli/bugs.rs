// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! `vfio-conform bugs`: the bugs that others had, planted in the reference device and in the core of
//! the mlx5 backend, and what finds each: which suite, by which trace first and at which step; the
//! learner; and races.

use std::collections::BTreeMap;
use std::fmt;
use std::time::Duration;

use clap::Args;
use serde::Serialize;
use vfio_conform::catalogue::{self, Entry};
use vfio_conform::complete::learn::learn;
use vfio_conform::race::{History, Order, Plan, Rules, order, race, shrink};
use vfio_conform::replay::{Options, Replayer, Target, Verdict};
use vfio_conform::suite::{Kind, Specification, Subject, Suite};
#[cfg(feature = "mlx5")]
use vfio_conform::target::{Mlx5Options, Mlx5Target};
use vfio_conform::target::{Reference, SharedReference};
use vfio_conform::trace::Trace;
use vfio_fsm_core::Features;
use vfio_fsm_core::device::Bug;

use super::Result;
use super::matrix::{WIDTH, lines};
use super::output::{self, Output};

#[derive(Debug, Args)]
pub(crate) struct Arguments {
    /// Only these bugs, by their ids (B48) or the names of what is planted (reset-keeps-state).
    bugs: Vec<String>,
}

/// What finds which bug.
#[derive(Debug, Serialize)]
struct Yardstick {
    /// Bugs that are planted in the device, one for each fault that stands for one.
    planted: Vec<Planted>,
    /// Bugs that no suite on one device can show, and why.
    survivors: Vec<Survivor>,
}

#[derive(Debug, Serialize)]
struct Planted {
    /// Of the catalogue; none for a fault that nobody is known to have had.
    bugs: Vec<String>,
    fault: &'static str,
    /// For each suite on the reference, for all of them on mlx5, for the learner and for races: what
    /// finds it first.
    found: BTreeMap<&'static str, Option<Found>>,
}

/// Where a device with the bug is told from one without.
#[derive(Debug, Serialize)]
struct Found {
    /// Its name; of the learner the inputs, of races the round.
    trace: String,
    /// Counted from 1.
    step: usize,
}

#[derive(Debug, Serialize)]
struct Survivor {
    bug: String,
    reason: String,
    tested: String,
}

/// Suites whose traces nobody wrote for a bug: not those that the model found against one.
fn suites() -> impl Iterator<Item = Suite> {
    Suite::ALL.iter().copied().filter(|suite| *suite != Suite::Model)
}

pub(crate) fn run(arguments: &Arguments, output: &mut Output) -> Result {
    let entries = catalogue::entries()?;
    let wanted = |entry: &Entry, fault: Option<Bug>| {
        let named =
            |name: &String| *name == entry.id || fault.is_some_and(|fault| name == fault.slug());
        arguments.bugs.is_empty() || arguments.bugs.iter().any(named)
    };
    let suites: Vec<_> = suites().map(|suite| (suite, suite.generate_all())).collect();
    let bar = output::bar(Bug::ALL.len() as u64, "bugs");
    let mut planted = Vec::new();
    for &fault in Bug::ALL {
        bar.inc(1);
        let named = format!("device:{}", fault.slug());
        let of: Vec<_> = entries.iter().filter(|entry| entry.faults.contains(&named)).collect();
        let alone = of.is_empty()
            && (arguments.bugs.is_empty() || arguments.bugs.iter().any(|it| it == fault.slug()));
        if alone || of.iter().any(|entry| wanted(entry, Some(fault))) {
            planted.push(Planted::find(fault, &of, &suites)?);
        }
    }
    bar.finish_and_clear();
    let survivors = entries.iter().filter(|entry| wanted(entry, None)).filter_map(Survivor::of);
    let yardstick = Yardstick { planted, survivors: survivors.collect() };
    if yardstick.planted.is_empty() && yardstick.survivors.is_empty() {
        let names = arguments.bugs.join(", ");
        return Err(format!("no bug is named {names}; `bugs` without a name has all").into());
    }
    output.say("bugs", &yardstick)?;
    Ok(yardstick.planted.iter().all(Planted::is_found))
}

impl Planted {
    fn find(fault: Bug, of: &[&Entry], suites: &[(Suite, Vec<Trace>)]) -> Result<Self> {
        let mut found = BTreeMap::new();
        for (suite, traces) in suites {
            let (source, destination) = (Reference::with_bug(fault), Reference::with_bug(fault));
            found.insert(suite.name(), first([source, destination], traces));
        }
        #[cfg(feature = "mlx5")]
        found.insert("mlx5", on_mlx5(fault, suites)?);
        found.insert("learner", learned(fault)?);
        found.insert("race", raced(fault));
        let bugs = of.iter().map(|entry| entry.id.clone()).collect();
        Ok(Self { bugs, fault: fault.slug(), found })
    }

    fn is_found(&self) -> bool {
        self.found.values().any(Option::is_some)
    }
}

/// The first trace that fails on these devices.
fn first<T: Target>([mut source, mut destination]: [T; 2], traces: &[Trace]) -> Option<Found> {
    let mut replayer = Replayer::new(vec![&mut source, &mut destination]);
    traces.iter().find_map(|trace| match replayer.replay(trace, Options::default()).verdict {
        Verdict::Fail(mismatch) => {
            Some(Found { trace: trace.header.name.clone(), step: mismatch.step })
        }
        _ => None,
    })
}

/// The first trace that fails on mlx5 with this bug in its core; of any suite but the complete ones,
/// which take longer there than all others together.
#[cfg(feature = "mlx5")]
fn on_mlx5(fault: Bug, suites: &[(Suite, Vec<Trace>)]) -> Result<Option<Found>> {
    for (_, traces) in suites.iter().filter(|(suite, _)| *suite != Suite::Complete) {
        let device = |seed| {
            Mlx5Target::new(Mlx5Options { bug: Some(fault), seed, ..Mlx5Options::default() })
        };
        let found = first([device(1)?, device(2)?], traces);
        if found.is_some() {
            return Ok(found);
        }
    }
    Ok(None)
}

/// A shortest sequence to which the machine that is learned answers otherwise than it should.
fn learned(fault: Bug) -> Result<Option<Found>> {
    /// No device of one bug has so many states.
    const MOST: usize = 1000;
    let mut target = Reference::with_bug(fault);
    let mut specification = Specification::new(Kind::Stream, Features::ALL, true, true);
    let should = specification.machine.clone();
    let mut subject = Subject::new(&mut specification, &mut target)?;
    let learned = match learn(&mut subject, &should, 0, MOST) {
        Ok(learned) => learned,
        // It says that no machine is behind these answers.
        Err(error) => return Ok(Some(Found { trace: error.to_string(), step: 1 })),
    };
    let differences = should.differences(&learned.machine);
    let shortest = differences.iter().min_by_key(|(word, ..)| word.len());
    Ok(shortest.map(|(word, ..)| {
        let inputs: Vec<_> = word.iter().map(|&symbol| specification.input(symbol)).collect();
        Found { trace: inputs.join(", "), step: word.len() }
    }))
}

/// The first race whose answers have no explanation, and after how many calls. Threads are not the same
/// twice: a race that finds nothing here may find it elsewhere.
fn raced(fault: Bug) -> Option<Found> {
    const ROUNDS: u64 = 100;
    const THREADS: usize = 3;
    let rules = Rules::new(Features::ALL);
    (0..ROUNDS).find_map(|seed| {
        let device = SharedReference::new(Features::ALL, Some(fault));
        let plan = Plan { calls: 8, seed, patience: Duration::from_secs(10) };
        let calls = match race((0..THREADS).map(|_| device.clone()).collect(), plan) {
            Ok(history) if order(&history, rules) == Order::None => shrink(&history, rules),
            Ok(_) => return None,
            Err(stuck) => stuck.history,
        };
        let History(calls) = calls;
        Some(Found { trace: format!("seed-{seed}"), step: calls.len() })
    })
}

impl Survivor {
    /// A bug that no fault of a device stands for.
    fn of(entry: &Entry) -> Option<Self> {
        if entry.faults.iter().any(|fault| fault.starts_with("device:")) {
            return None;
        }
        let of_model = "conformance/src/cli/check.rs, `vfio-conform check --mutants`";
        let (reason, tested) = match (&entry.not_here, entry.faults.first()) {
            (Some(reason), _) => (reason.clone(), None),
            (None, Some(fault)) if fault.starts_with("vmm:") => {
                ("The VMM is wrong, whatever the device is.".to_owned(), Some(of_model))
            }
            (None, _) => {
                let reason = "How a driver takes its locks: no call shows it that waits for the \
                              one before, and the reference has no threads. `vfio-conform race` \
                              looks for it in a driver.";
                (reason.to_owned(), Some(of_model))
            }
        };
        let tested = entry.tested.as_deref().or(tested).unwrap_or("nowhere").to_owned();
        Some(Self { bug: entry.id.clone(), reason, tested })
    }
}

impl fmt::Display for Planted {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let bugs = if self.bugs.is_empty() { "-".to_owned() } else { self.bugs.join(", ") };
        let fail = if self.is_found() { "" } else { "  FAIL: no suite finds it" };
        writeln!(f, "{bugs}  {}{fail}", self.fault)?;
        for (suite, found) in &self.found {
            match found {
                Some(Found { trace, step }) => {
                    // The suite may stand in front already.
                    let rest = trace.split_once('/').filter(|(of, _)| of == suite);
                    let name = rest.map_or(trace.as_str(), |(_, name)| name);
                    writeln!(f, "  {suite:<9} {step:>3}  {}", cut(name, WIDTH - 17))?;
                }
                None => writeln!(f, "  {suite:<9}   -")?,
            }
        }
        Ok(())
    }
}

/// As much of a name as there is room for.
fn cut(name: &str, width: usize) -> String {
    match name.char_indices().nth(width) {
        None => name.to_owned(),
        Some(_) => name.chars().take(width - 1).chain(['…']).collect(),
    }
}

impl fmt::Display for Survivor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let text = format!("{} Tested: {}.", self.reason, self.tested);
        (0..).zip(lines(&text, WIDTH - 5)).try_for_each(|(number, line)| {
            let bug = if number == 0 { self.bug.as_str() } else { "" };
            writeln!(f, "{bug:<4} {line}")
        })
    }
}

impl fmt::Display for Yardstick {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let found = self.planted.iter().filter(|planted| planted.is_found()).count();
        writeln!(f, "planted in the device: {found} of {} found", self.planted.len())?;
        let mut by: BTreeMap<_, usize> = BTreeMap::new();
        for (of, found) in self.planted.iter().flat_map(|planted| &planted.found) {
            *by.entry(of).or_default() += usize::from(found.is_some());
        }
        let by: Vec<_> = by.into_iter().map(|(of, count)| format!("{of} {count}")).collect();
        lines(&format!("found by: {}", by.join(", ")), WIDTH)
            .iter()
            .try_for_each(|line| writeln!(f, "{line}"))?;
        writeln!(f, "suite, first step that is answered wrongly, and of which trace")?;
        self.planted.iter().try_for_each(|planted| planted.fmt(f))?;
        writeln!(f, "survivors: {} that no suite on one device can show", self.survivors.len())?;
        self.survivors.iter().try_for_each(|survivor| survivor.fmt(f))
    }
}
