// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! Every trace as a test of its own, for cargo-nextest to run, retry, partition and archive:
//!
//! ```sh
//! cargo nextest run --release -p vfio-conform --features cells --test cells --partition hash:1/4
//! ```
//!
//! On the reference device, or on what `VFIO_CONFORM_TARGET` names (`kernel:DEVICE[,DEVICE]`), with
//! the known deviations that `VFIO_CONFORM_DEVIATIONS` names. A trace that the target cannot run is
//! reported as ignored, with the reason.
//!
//! A trace of the suite `complete` is a state and an input: all words that begin there loop inside it,
//! as a process for each word would cost more than the word. With `VFIO_CONFORM_EXTRA=K` those for K
//! states more of the stream's machine are tests, too.

use std::process::ExitCode;
use std::sync::{Arc, Mutex, PoisonError};

use libtest_mimic::{Arguments, Failed, Trial};
use vfio_conform::deviation::Deviations;
use vfio_conform::replay::{Options, Replayer, Target, Verdict};
use vfio_conform::suite::{Kind, Specification, Suite};
use vfio_conform::target::{KernelTarget, Reference};
use vfio_conform::trace::Trace;
use vfio_fsm_core::Features;

/// The devices, one test at a time.
struct Bench {
    targets: Vec<Box<dyn Target + Send>>,
    deviations: Option<Deviations>,
}

impl Bench {
    fn open() -> Result<Self, Box<dyn std::error::Error>> {
        let name = std::env::var("VFIO_CONFORM_TARGET").unwrap_or_else(|_| "reference".to_owned());
        let targets: Vec<Box<dyn Target + Send>> = match name.split_once(':') {
            None if name == "reference" => {
                vec![Box::new(Reference::new()), Box::new(Reference::new())]
            }
            Some(("kernel", devices)) => {
                let open = |device| Ok(Box::new(KernelTarget::open(device, None)?) as Box<_>);
                devices.split(',').map(open).collect::<Result<_, Box<dyn std::error::Error>>>()?
            }
            _ => {
                return Err(format!(
                    "VFIO_CONFORM_TARGET={name}: expected reference or kernel:DEVICE[,DEVICE]"
                )
                .into());
            }
        };
        let deviations = std::env::var("VFIO_CONFORM_DEVIATIONS").ok();
        let deviations = deviations.map(|name| Deviations::named(&name)).transpose()?;
        Ok(Self { targets, deviations })
    }

    fn with<T>(&mut self, act: impl FnOnce(&mut Replayer<'_>, Options<'_>) -> T) -> T {
        let options = Options { dangerous: false, deviations: self.deviations.as_ref() };
        let targets = self.targets.iter_mut().map(|target| &mut **target as &mut dyn Target);
        act(&mut Replayer::new(targets.collect()), options)
    }

    fn run(&mut self, trace: &Trace) -> Result<(), Failed> {
        match self.with(|replayer, options| replayer.replay(trace, options).verdict) {
            Verdict::Pass | Verdict::Deviation { .. } => Ok(()),
            Verdict::Fail(mismatch) => Err(mismatch.to_string().into()),
            // Those that cannot be run were left out beforehand.
            Verdict::NotApplicable { reason } => Err(reason.into()),
        }
    }

    /// Why each trace cannot be run here, if it cannot.
    fn obstacles(&mut self, traces: &[Trace]) -> Vec<Option<String>> {
        self.with(|replayer, options| {
            traces.iter().map(|trace| replayer.inapplicable(trace, options)).collect()
        })
    }
}

/// The suites and flags that a test named so may be of: a process for each test must not generate
/// them all.
fn wanted(arguments: &Arguments) -> impl Iterator<Item = (Suite, Features)> + use<> {
    let exact = arguments.filter.clone().filter(|_| arguments.exact);
    let is_wanted = move |suite: Suite, features: Features| {
        let begins = format!("{suite}/{}/", features.slug());
        exact.as_ref().is_none_or(|name| name.starts_with(&begins))
    };
    let all = Suite::ALL.iter().flat_map(|&suite| Features::SETS.map(|features| (suite, features)));
    all.filter(move |&(suite, features)| is_wanted(suite, features))
}

/// The traces that are wanted.
fn traces(arguments: &Arguments) -> Vec<Trace> {
    let exact = arguments.filter.as_deref().filter(|_| arguments.exact);
    let of = |(suite, features): (Suite, Features)| match exact {
        None => [suite.generate(features), with_more_states(suite, features)].concat(),
        Some(name) => {
            let more = || with_more_states(suite, features).into_iter();
            let named = suite.named(features, name);
            named.or_else(|| more().find(|trace| trace.header.name == name)).into_iter().collect()
        }
    };
    wanted(arguments).flat_map(of).collect()
}

/// The tests for so many states more as are asked for.
fn with_more_states(suite: Suite, features: Features) -> Vec<Trace> {
    let Some(extra) = extra().filter(|_| suite == Suite::Complete) else { return Vec::new() };
    // The machines are minimal, as a test holds.
    let specification = Specification::new(Kind::Stream, features, true, true);
    specification.traces(extra, false).unwrap_or_default()
}

/// For how many states more there are tests; none if nobody says, or as many as there are anyway.
fn extra() -> Option<usize> {
    let extra = std::env::var("VFIO_CONFORM_EXTRA").ok()?.parse().ok()?;
    (extra > 0).then_some(extra)
}

fn main() -> ExitCode {
    let arguments = Arguments::from_args();
    let mut bench = match Bench::open() {
        Ok(bench) => bench,
        Err(error) => {
            eprintln!("cells: {error}");
            return ExitCode::from(2);
        }
    };
    let traces = traces(&arguments);
    let obstacles = bench.obstacles(&traces);
    let bench = Arc::new(Mutex::new(bench));
    let trial = |(trace, obstacle): (Trace, Option<String>)| {
        let bench = Arc::clone(&bench);
        let name = trace.header.name.clone();
        let run = move || bench.lock().unwrap_or_else(PoisonError::into_inner).run(&trace);
        let trial = Trial::test(name, run);
        match obstacle {
            Some(why) => trial.with_kind(why).with_ignored_flag(true),
            None => trial,
        }
    };
    let trials = traces.into_iter().zip(obstacles).map(trial).collect();
    libtest_mimic::run(&arguments, trials).exit_code()
}
