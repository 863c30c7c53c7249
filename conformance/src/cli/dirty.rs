// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! `vfio-conform dirty`: the log of DMA, as an automaton and with an oracle.

use std::fmt;
use std::str::FromStr;

use clap::Args;
use indicatif::HumanCount;
use serde::Serialize;
#[cfg(feature = "mlx5")]
use vfio_conform::dirty::Mlx5Log;
use vfio_conform::dirty::{
    Complete, Dirty, Flaw, KernelLog, MemoryLog, STEPS, Slip, complete, random,
};
use vfio_fsm_kernel::DevicePath;

use super::Result;
use super::output::Output;

#[derive(Debug, Args)]
pub(crate) struct Arguments {
    /// What to test: `reference`, `reference:FLAW` (something wrong with it), `mlx5` (the page tracker
    /// on a firmware in software), or `kernel:DEVICE`, as `replay` has it.
    #[arg(long, default_value = "reference")]
    target: TargetName,
    /// The complete suite is for logs with so many states more.
    #[arg(long, value_name = "K", default_value_t = 0)]
    extra: usize,
    /// Rounds of random ranges, writes and reports, each from a fresh device.
    #[arg(long, value_name = "N", default_value_t = 1000)]
    rounds: u64,
    /// The seed of the first round.
    #[arg(long, value_name = "N", default_value_t = 0)]
    seed: u64,
}

/// What to test.
#[derive(Clone, Debug)]
enum TargetName {
    Reference(Option<Flaw>),
    #[cfg(feature = "mlx5")]
    Mlx5,
    Kernel(DevicePath),
}

impl FromStr for TargetName {
    type Err = String;

    fn from_str(name: &str) -> std::result::Result<Self, String> {
        match name.split_once(':') {
            None if name == "reference" => Ok(Self::Reference(None)),
            Some(("reference", slug)) => flaw(slug).map(Some).map(Self::Reference),
            #[cfg(feature = "mlx5")]
            None if name == "mlx5" => Ok(Self::Mlx5),
            Some(("kernel", device)) => {
                device.parse().map(Self::Kernel).map_err(|error| format!("{error}"))
            }
            _ => Err("expected reference[:FLAW], mlx5 or kernel:DEVICE".to_owned()),
        }
    }
}

fn flaw(slug: &str) -> std::result::Result<Flaw, String> {
    let found = Flaw::ALL.iter().find(|flaw| flaw.slug() == slug);
    found.copied().ok_or_else(|| {
        let known: Vec<_> = Flaw::ALL.iter().map(|flaw| flaw.slug()).collect();
        format!("no flaw is named {slug:?}; there are {}", known.join(", "))
    })
}

impl TargetName {
    fn open(&self) -> Result<Box<dyn Dirty>> {
        Ok(match self {
            Self::Reference(None) => Box::new(MemoryLog::new()),
            Self::Reference(Some(flaw)) => Box::new(MemoryLog::with_flaw(*flaw)),
            #[cfg(feature = "mlx5")]
            Self::Mlx5 => Box::new(Mlx5Log::new()?),
            Self::Kernel(path) => Box::new(KernelLog::open(path)?),
        })
    }
}

/// What it came to.
#[derive(Debug, Serialize)]
struct Log {
    automaton: Complete,
    /// Nothing if the device cannot be made to write.
    random: Option<Rounds>,
}

#[derive(Debug, Serialize)]
struct Rounds {
    rounds: u64,
    failures: Vec<Slip>,
}

impl Log {
    fn is_good(&self) -> bool {
        let rounds = self.random.as_ref();
        self.automaton.is_good() && rounds.is_none_or(|rounds| rounds.failures.is_empty())
    }
}

/// A person is shown so many failures; JSON has them all.
const SHOWN: usize = 3;

impl fmt::Display for Log {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Complete { states, inputs, size, failed, theorem, failure } = &self.automaton;
        let (tests, failed) = (HumanCount(size.tests), HumanCount(*failed));
        writeln!(f, "dirty log: {states} states, {inputs} inputs: {tests} tests, {failed} fail")?;
        if let Some(theorem) = theorem {
            writeln!(f, "so: {theorem}")?;
        }
        if let Some(failure) = failure {
            let (word, expected, seen) =
                (failure.word.join(", "), &failure.expected, &failure.seen);
            writeln!(f, "  FAIL: {word}: expected {expected}, saw {seen}")?;
        }
        let Some(Rounds { rounds, failures }) = &self.random else {
            return writeln!(f, "nobody here can make the device write: no pages were judged");
        };
        let (rounds, failed) = (HumanCount(*rounds), HumanCount(failures.len() as u64));
        writeln!(f, "oracle: {rounds} rounds of {STEPS} steps, {failed} fail")?;
        failures.iter().take(SHOWN).try_for_each(|slip| write!(f, "  FAIL: {slip}"))
    }
}

pub(crate) fn run(arguments: &Arguments, output: &mut Output) -> Result {
    let mut device = arguments.target.open()?;
    let automaton = complete(&mut *device, arguments.extra)?;
    let random = match device.can_write() {
        true => Some(rounds(&mut *device, arguments)?),
        false => None,
    };
    let log = Log { automaton, random };
    output.say("dirty", &log)?;
    Ok(log.is_good())
}

fn rounds(device: &mut dyn Dirty, arguments: &Arguments) -> Result<Rounds> {
    let mut failures = Vec::new();
    for round in 0..arguments.rounds {
        failures.extend(random(device, arguments.seed.wrapping_add(round))?);
    }
    Ok(Rounds { rounds: arguments.rounds, failures })
}
