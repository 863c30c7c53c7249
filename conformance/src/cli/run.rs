// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! `vfio-conform run`: the main job. Check the model, generate the suites, replay them on the
//! reference device, on the mlx5 backend, and on every bug that can be planted.

use std::collections::BTreeMap;
use std::fmt;

use indicatif::HumanCount;
use serde::Serialize;
use vfio_conform::replay::{Options, Replayer, Target, Verdict};
use vfio_conform::report::Report;
use vfio_conform::suite::Suite;
#[cfg(feature = "mlx5")]
use vfio_conform::target::Mlx5Options;
use vfio_conform::target::Reference;
use vfio_conform::trace::Trace;
use vfio_fsm_core::device::Bug;
use vfio_fsm_model::How;

use super::Result;
use super::check::Findings;
use super::output::{self, Output};
use super::replay::TargetName;
use super::watched::Watched;

/// How large the suites are.
#[derive(Debug, Serialize)]
#[serde(transparent)]
struct Sizes(BTreeMap<&'static str, Size>);

#[derive(Debug, Serialize)]
struct Size {
    traces: usize,
    steps: usize,
}

impl fmt::Display for Sizes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "suites")?;
        self.0.iter().try_for_each(|(name, Size { traces, steps })| {
            let (traces, steps) = (HumanCount(*traces as u64), HumanCount(*steps as u64));
            writeln!(f, "  {name:<8} {traces:>6} traces, {steps:>7} steps")
        })
    }
}

/// What the suites make of each planted bug: the first trace that fails.
#[derive(Debug, Serialize)]
#[serde(transparent)]
struct Sharpness(BTreeMap<&'static str, Option<String>>);

impl fmt::Display for Sharpness {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let caught = self.0.values().flatten().count();
        writeln!(f, "planted bugs: {caught} of {} fail a trace", self.0.len())?;
        let survivors = self.0.iter().filter(|(_, trace)| trace.is_none());
        survivors.map(|(bug, _)| bug).try_for_each(|bug| writeln!(f, "  FAIL: {bug} passes"))
    }
}

pub(crate) fn run(output: &mut Output) -> Result {
    let findings = Findings::find(How::default(), false, &Watched::begin(None));
    output.say("model", &findings)?;

    let suites = Suite::ALL.iter().map(|&suite| (suite, suite.generate_all()));
    let suites: Vec<_> = suites.collect();
    let size = |(suite, traces): &(Suite, Vec<Trace>)| {
        let steps = traces.iter().map(|trace| trace.steps.len()).sum();
        (suite.name(), Size { traces: traces.len(), steps })
    };
    output.say("suites", &Sizes(suites.iter().map(size).collect()))?;

    let traces: Vec<_> = suites.into_iter().flat_map(|(_, traces)| traces).collect();
    let report = replay(&TargetName::Reference(None), &traces)?;
    output.say("replay", &report)?;
    #[cfg(feature = "mlx5")]
    let good_mlx5 = on_mlx5(&traces, output)?;
    #[cfg(not(feature = "mlx5"))]
    let good_mlx5 = true;
    let sharpness = sharpness(&traces);
    output.say("planted_bugs", &sharpness)?;

    let good = findings.is_good()
        && report.is_good()
        && good_mlx5
        && sharpness.0.values().all(Option::is_some);
    output.line(if good { "all good" } else { "NOT good: see FAIL above" })?;
    Ok(good)
}

fn replay(name: &TargetName, traces: &[Trace]) -> Result<Report> {
    let mut targets = name.open(None)?;
    let targets = targets.iter_mut().map(|target| &mut **target as &mut dyn Target).collect();
    let mut replayer = Replayer::new(targets);
    let mut report = Report::new(name.describe());
    for trace in traces {
        report.record_trace(trace, replayer.replay(trace, Options::default()));
    }
    report.finish(replayer.took(), None, true);
    Ok(report)
}

/// With whole images and with chunks.
#[cfg(feature = "mlx5")]
fn on_mlx5(traces: &[Trace], output: &mut Output) -> Result {
    let mut good = true;
    for (key, chunks) in [("replay_mlx5", false), ("replay_mlx5_chunks", true)] {
        let options = Mlx5Options { chunks, ..Mlx5Options::default() };
        let report = replay(&TargetName::Mlx5(options), traces)?;
        output.say(key, &report)?;
        good &= report.is_good();
    }
    Ok(good)
}

/// The suites alone: the model's own runs against the bugs would catch them of course.
fn sharpness(traces: &[Trace]) -> Sharpness {
    let own = format!("{}/", Suite::Model);
    let traces: Vec<_> =
        traces.iter().filter(|trace| !trace.header.name.starts_with(&own)).collect();
    let bar = output::bar(Bug::ALL.len() as u64, "planted bugs");
    let mut caught = BTreeMap::new();
    for &bug in Bug::ALL {
        caught.insert(bug.slug(), first_failure(&traces, bug));
        bar.inc(1);
    }
    bar.finish_and_clear();
    Sharpness(caught)
}

fn first_failure(traces: &[&Trace], bug: Bug) -> Option<String> {
    let (mut source, mut destination) = (Reference::with_bug(bug), Reference::with_bug(bug));
    let mut replayer = Replayer::new(vec![&mut source, &mut destination]);
    let fails = |trace: &&&Trace| {
        matches!(replayer.replay(trace, Options::default()).verdict, Verdict::Fail(_))
    };
    traces.iter().find(fails).map(|trace| trace.header.name.clone())
}
