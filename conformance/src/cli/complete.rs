// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! `vfio-conform complete`: suites with a guarantee, what they cost and what they catch.

use std::fmt;
use std::path::PathBuf;
use std::time::Instant;

use clap::{Args, Subcommand};
use indicatif::HumanCount;
use serde::Serialize;
use vfio_conform::complete::learn::System;
use vfio_conform::complete::power::Table;
use vfio_conform::complete::{Complete, Size, Symbol, tour};
use vfio_conform::replay::Target;
use vfio_conform::suite::{Input, Kind, Specification, Subject};
use vfio_conform::tidy::write_whole;
use vfio_conform::trace::{self, Need};
use vfio_fsm_core::Features;

use super::Result;
use super::output::{self, Output};
use super::replay::TargetName;

#[derive(Debug, Args)]
pub(crate) struct Arguments {
    #[command(subcommand)]
    what: What,
}

#[derive(Debug, Subcommand)]
enum What {
    /// How large every suite is, beside the proven lower bound of a tour.
    Sizes,
    /// Which wrong machines each suite catches.
    Power {
        #[command(flatten)]
        machine: MachineArguments,
        /// Measure complete suites for up to so many states more.
        #[arg(long, value_name = "K", default_value_t = 2)]
        extra: usize,
        /// So many wrong machines of each kind, drawn where there are more.
        #[arg(long, value_name = "N", default_value_t = 20_000)]
        most: usize,
    },
    /// Run a complete suite on a device, and say what a pass proves.
    Run {
        #[command(flatten)]
        machine: MachineArguments,
        #[command(flatten)]
        device: DeviceArguments,
        /// For implementations with so many states more than the specification.
        #[arg(long, value_name = "K", default_value_t = 0)]
        extra: usize,
        /// Do not begin if it takes more inputs than this.
        #[arg(long, value_name = "INPUTS")]
        budget: Option<u64>,
    },
    /// Write a complete suite as traces, for `replay` with its list of known deviations.
    Traces {
        #[command(flatten)]
        machine: MachineArguments,
        /// For implementations with so many states more than the specification.
        #[arg(long, value_name = "K", default_value_t = 0)]
        extra: usize,
        /// Ask for the state after every step. Finds some faults sooner, and hides those that heal
        /// when looked at.
        #[arg(long)]
        observed: bool,
        /// Also the SET that hangs older kernels.
        #[arg(long)]
        dangerous: bool,
        /// Where to.
        #[arg(long, value_name = "FILE")]
        out: PathBuf,
    },
}

/// Which machine.
#[derive(Clone, Copy, Debug, Args)]
pub(super) struct MachineArguments {
    /// How much of the device is asked.
    #[arg(long, value_enum, default_value = "control")]
    machine: Kind,
    /// The flags of the device: stop-copy, p2p, pre-copy or full.
    #[arg(long, value_name = "FLAGS", value_parser = super::features)]
    features: Option<Features>,
}

impl MachineArguments {
    /// The same device, and another of its machines.
    pub(super) const fn of(self, machine: Kind) -> Self {
        Self { machine, ..self }
    }
}

/// Which device.
#[derive(Clone, Debug, Args)]
pub(super) struct DeviceArguments {
    /// What to test, as `replay` knows it.
    #[arg(long, default_value = "reference")]
    pub(super) target: TargetName,
    /// Also, on a kernel, the SET that hangs older ones.
    #[arg(long)]
    pub(super) dangerous: bool,
    /// Do not close the device and open it again, which some drivers do not survive.
    #[arg(long)]
    pub(super) no_reopen: bool,
}

/// A device and what it is held against.
pub(super) fn subject(
    machine: MachineArguments,
    device: &DeviceArguments,
) -> Result<(Specification, Box<dyn Target>)> {
    let mut targets = device.target.open(None)?;
    let target = targets.swap_remove(0);
    let offered = Features::SETS.into_iter().rev().find(|&features| target.offers(features));
    let features = machine.features.or(offered).ok_or("the device has no legal set of flags")?;
    if !target.offers(features) {
        return Err(format!("the device is none with {features}; leave --features away").into());
    }
    let dangerous = device.dangerous || !target.is_kernel();
    let mut inputs = match device.target {
        TargetName::VfioUser(_) => Input::over_vfio_user(machine.machine)
            .ok_or("vfio-user has no word for an earlier data_fd; take --machine stream")?,
        _ => Input::all(machine.machine, target.can(Need::ArcFails)),
    };
    if device.no_reopen {
        inputs.retain(|input| *input != Input::Reopen);
    }
    Ok((Specification::with_inputs(machine.machine, features, dangerous, inputs), target))
}

pub(crate) fn run(arguments: &Arguments, output: &mut Output) -> Result {
    match &arguments.what {
        What::Sizes => {
            output.say("sizes", &Sizes::measure()?)?;
            Ok(true)
        }
        What::Power { machine, extra, most } => power(*machine, *extra, *most, output),
        What::Run { machine, device, extra, budget } => {
            let (specification, mut target) = subject(*machine, device)?;
            let run = Run { extra: *extra, budget: *budget };
            let passed = run.on(specification, &mut *target, output)?;
            output.say("complete", &passed)?;
            Ok(passed.failed == 0)
        }
        What::Traces { machine, extra, observed, dangerous, out } => {
            let features = machine.features.unwrap_or(Features::ALL);
            let specification = Specification::new(machine.machine, features, *dangerous, true);
            let traces = specification.traces(*extra, *observed)?;
            write_whole(out, |output| trace::write(&traces, output))
                .map_err(|error| format!("{}: {error}", out.display()))?;
            output.line(format_args!("{}: {} traces", out.display(), traces.len()))?;
            Ok(true)
        }
    }
}

/// How large every suite is.
#[derive(Debug, Serialize)]
#[serde(transparent)]
struct Sizes(Vec<Sized>);

#[derive(Debug, Serialize)]
struct Sized {
    machine: Kind,
    features: String,
    states: usize,
    inputs: usize,
    tour: Tour,
    pairs: Tour,
    complete: Vec<Size>,
}

/// The length of a shortest tour, and what it has to cover.
#[derive(Debug, Serialize)]
struct Tour {
    inputs: usize,
    items: usize,
}

/// The sizes are given for so many states more, and fewer.
const MOST_EXTRA: usize = 4;

impl Sizes {
    fn measure() -> Result<Self> {
        let kinds = Kind::ALL.into_iter();
        let all = kinds.flat_map(|kind| Features::SETS.map(|features| (kind, features)));
        all.map(|(kind, features)| Sized::measure(kind, features)).collect::<Result<_>>().map(Self)
    }
}

impl Sized {
    fn measure(kind: Kind, features: Features) -> Result<Self> {
        let specification = Specification::new(kind, features, true, true);
        let machine = &specification.machine;
        let complete = (0..=MOST_EXTRA).map(|extra| Ok(Complete::new(machine, extra)?.size()));
        let tour = |tour: tour::Tour| Tour { inputs: tour.word.len(), items: tour.items };
        Ok(Self {
            machine: kind,
            features: features.to_string(),
            states: machine.states(),
            inputs: machine.inputs(),
            tour: tour(tour::transitions(machine)),
            pairs: tour(tour::pairs(machine)),
            complete: complete.collect::<Result<_>>()?,
        })
    }
}

impl fmt::Display for Sizes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let count = |number: u64| HumanCount(number).to_string();
        for Sized { machine, features, states, inputs, tour, pairs, complete } in &self.0 {
            writeln!(f, "{machine}, {features}: {states} states, {inputs} inputs")?;
            for (what, tour) in [("transitions", tour), ("pairs of them", pairs)] {
                let (length, items) = (count(tour.inputs as u64), count(tour.items as u64));
                writeln!(f, "  tour of {items} {what}: {length} inputs, and no tour is shorter")?;
            }
            for (extra, size) in complete.iter().enumerate() {
                let (tests, inputs) = (count(size.tests), count(size.inputs));
                writeln!(f, "  complete for {extra} more: {tests:>13} tests, {inputs:>14} inputs")?;
            }
        }
        Ok(())
    }
}

fn power(machine: MachineArguments, extra: usize, most: usize, output: &mut Output) -> Result {
    let features = machine.features.unwrap_or(Features::ALL);
    let specification = Specification::new(machine.machine, features, true, true);
    let look = specification.symbol(Input::Get).ok_or("the machine cannot be looked at")?;
    let table = Table::measure(&specification.machine, look, extra, most)?;
    output.say("power", &table)?;
    let mut good = true;
    for (row, wrong) in table.broken() {
        good = false;
        output.line(format_args!("FAIL: {} let one with {wrong} pass", row.suite))?;
    }
    Ok(good)
}

/// What a complete suite came to.
#[derive(Debug, Serialize)]
struct Passed {
    tests: u64,
    failed: u64,
    ops: u64,
    seconds: f64,
    /// What a pass proves; nothing if there was none.
    theorem: Option<String>,
    /// The first shortest failure.
    failure: Option<Failure>,
}

#[derive(Debug, Serialize)]
struct Failure {
    word: Vec<String>,
    expected: String,
    seen: String,
}

struct Run {
    extra: usize,
    budget: Option<u64>,
}

impl Run {
    fn on(
        &self,
        mut specification: Specification,
        target: &mut dyn Target,
        output: &mut Output,
    ) -> Result<Passed> {
        let machine = specification.machine.clone();
        let suite = Complete::new(&machine, self.extra)?;
        let Size { tests, inputs } = suite.size();
        let (n, k) = (machine.states(), self.extra);
        output.line(format_args!(
            "{}, {}: {n} states and {k} more: {} tests, {} inputs",
            specification.kind,
            specification.features,
            HumanCount(tests),
            HumanCount(inputs)
        ))?;
        if let Some(budget) = self.budget.filter(|&budget| inputs > budget) {
            return Err(format!("{inputs} inputs are more than the budget of {budget}").into());
        }
        let bar = output::bar(tests, "complete");
        let mut subject = Subject::new(&mut specification, target)?;
        let (mut failed, mut shortest): (u64, Option<Vec<Symbol>>) = (0, None);
        let mut unusable = None;
        let started = Instant::now();
        suite.for_each(|_, test| {
            if unusable.is_some() {
                return;
            }
            bar.inc(1);
            match subject.ask(test) {
                Ok(answers) => {
                    if let Some(at) = machine.refuted(test, &answers) {
                        failed += 1;
                        if shortest.as_ref().is_none_or(|known| known.len() > at) {
                            shortest = Some(test[..at].to_vec());
                        }
                    }
                }
                Err(error) => unusable = Some(error),
            }
        });
        bar.finish_and_clear();
        if let Some(error) = unusable {
            return Err(error.into());
        }
        let failure = match shortest {
            Some(word) => Some(explain(&mut subject, &word)?),
            None => None,
        };
        Ok(Passed {
            tests,
            failed,
            ops: subject.ops(),
            seconds: started.elapsed().as_secs_f64(),
            theorem: (failed == 0).then(|| suite.theorem()),
            failure,
        })
    }
}

fn explain(subject: &mut Subject<'_, '_>, word: &[Symbol]) -> Result<Failure> {
    let seen = subject.ask(word)?.last().copied();
    let specification = subject.specification();
    let before = specification.machine.run(0, &word[..word.len().saturating_sub(1)]);
    let step = before.zip(word.last()).and_then(|(at, &last)| specification.machine.step(at, last));
    let output = |output: Option<u16>| match output {
        Some(output) => specification.output(output),
        None => "nothing".to_owned(),
    };
    Ok(Failure {
        word: word.iter().map(|&symbol| specification.input(symbol)).collect(),
        expected: output(step.map(|(_, says)| says)),
        seen: output(seen),
    })
}

impl fmt::Display for Passed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (tests, ops) = (HumanCount(self.tests), HumanCount(self.ops));
        let rate = HumanCount((self.ops as f64 / self.seconds.max(1e-9)) as u64);
        let failed = HumanCount(self.failed);
        writeln!(
            f,
            "{tests} tests, {failed} fail; {ops} ops in {:.2} s, {rate} a second",
            self.seconds
        )?;
        if let Some(theorem) = &self.theorem {
            writeln!(f, "so: {theorem}")?;
        }
        if let Some(Failure { word, expected, seen }) = &self.failure {
            writeln!(f, "  FAIL: {}: expected {expected}, saw {seen}", word.join(", "))?;
        }
        Ok(())
    }
}
