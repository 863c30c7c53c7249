// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! `vfio-conform lab`: the suites and the migrations on a real kernel driver, in a virtual machine.

mod watched;

use std::collections::BTreeMap;
use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use clap::Args;
use indicatif::ProgressBar;
use serde::{Deserialize, Serialize};
use vfio_conform::complete::{Complete, Size};
use vfio_conform::deviation::{DeviationError, Deviations};
use vfio_conform::lab::{self, Ended, Event, Incident, Part, Task};
use vfio_conform::lifetime;
use vfio_conform::migrate::Matrix;
use vfio_conform::qemu::SCENARIOS;
use vfio_conform::replay::{Mismatch, Outcome, Verdict};
use vfio_conform::report::Report;
use vfio_conform::suite::{Input, Kind, Specification, Suite};
use vfio_conform::tidy;
use vfio_conform::trace::{self, Trace};
use vfio_fsm_core::Features;
use vfio_fsm_kernel::abuse::CASES;

use super::learn::{Found, MACHINES};
use super::output::{self, Output};
use super::pace::Pace;
use super::{Result, Selection};
use watched::Watched;

#[derive(Debug, Args)]
pub(crate) struct Arguments {
    #[command(flatten)]
    selection: Selection,
    /// Where downloads and builds are kept [default: vfio-fsm/lab in the user's cache directory].
    #[arg(long, value_name = "DIR")]
    cache: Option<PathBuf>,
    /// A statically linked vfio-conform for the guest; built from this source tree if not given.
    #[arg(long, value_name = "FILE")]
    replayer: Option<PathBuf>,
    /// A kernel, by package version or release; the newest that can be had if not given.
    #[arg(long, value_name = "VERSION")]
    kernel: Option<String>,
    /// Only the migrations, with a reset or a cancel at every step. Without `--suite`, `--only` and
    /// a task such as this, all is run.
    #[arg(long, group = "task", conflicts_with_all = ["suite", "only"])]
    migrate: bool,
    /// Only the races of threads.
    #[arg(long, group = "task", conflicts_with_all = ["suite", "only"])]
    race: bool,
    /// Only the calls that no VMM should make.
    #[arg(long, group = "task", conflicts_with_all = ["suite", "only"])]
    abuse: bool,
    /// Only what machine the device is.
    #[arg(long, group = "task", conflicts_with_all = ["suite", "only"])]
    learn: bool,
    /// Only the device closed, unbound and removed under its users.
    #[arg(long, group = "task", conflicts_with_all = ["suite", "only"])]
    lifetime: bool,
    /// Only the migrations of a real QEMU, under the recorder.
    #[arg(long, group = "task", conflicts_with_all = ["suite", "only"])]
    watch: bool,
    /// Write what QEMU did to this file, for `observe`.
    #[arg(long, value_name = "FILE")]
    recordings: Option<PathBuf>,
    /// Also the complete suites for so many states more than the specification has, up to this, of a
    /// device that stays open.
    #[arg(long, value_name = "K", default_value_t = 0, conflicts_with = "task")]
    extra: usize,
    /// Do not begin if these take more inputs than this.
    #[arg(long, value_name = "INPUTS", default_value_t = 100_000)]
    budget: u64,
    /// How often threads race at the device.
    #[arg(long, value_name = "N", default_value_t = 1000, value_parser = clap::value_parser!(u32).range(1..))]
    races: u32,
    /// How often each step of a migration is raced against a reset by another process.
    #[arg(long, value_name = "N", default_value_t = 16, value_parser = clap::value_parser!(u32).range(1..))]
    rounds: u32,
    /// Seconds without a result after which the guest counts as hanging.
    #[arg(long, value_name = "SECONDS", default_value_t = 20)]
    watchdog: u64,
    /// Use the host's processor (KVM); what is found then depends on the host.
    #[arg(long)]
    kvm: bool,
}

impl Arguments {
    /// Whether traces are replayed.
    const fn replays(&self) -> bool {
        let Self { migrate, race, abuse, learn, lifetime, watch, .. } = *self;
        !(migrate || race || abuse || learn || lifetime || watch)
    }
}

impl Arguments {
    /// What is replayed; of the suites that are not everybody's, the cost is said first.
    fn traces(&self, output: &mut Output) -> Result<Vec<Trace>> {
        let mut traces: Vec<_> =
            self.selection.suites().into_iter().flat_map(Suite::generate_all).collect();
        for extra in 1..=self.extra {
            for kind in [Kind::Control, Kind::Stream] {
                // An arc of a driver cannot be made to fail; and this driver is another one once it was
                // closed and opened, so that every word behind that would say the same of it.
                let mut inputs = Input::all(kind, false);
                inputs.retain(|input| *input != Input::Reopen);
                let specification = Specification::with_inputs(kind, Features::ALL, true, inputs);
                let Size { tests, inputs } = Complete::new(&specification.machine, extra)?.size();
                output.line(format_args!(
                    "{kind}, {extra} states more: {tests} tests, {inputs} inputs, each twice"
                ))?;
                if inputs > self.budget {
                    let budget = self.budget;
                    return Err(format!("{inputs} inputs are more than --budget {budget}").into());
                }
                traces.extend(specification.traces(extra, false)?);
            }
        }
        self.selection.filter(traces)
    }
}

/// The driver that the lab runs on.
const DRIVER: &str = "mtty";

/// What the lab itself has to say, beside the verdicts.
#[derive(Debug, Serialize)]
struct Bench {
    kernel: String,
    boots: u32,
    ended: String,
    /// Seconds each stage took.
    stages: BTreeMap<&'static str, f64>,
    incidents: Vec<Seen>,
    missing: usize,
}

const COMPLETE: &str = "the run was complete";

impl Bench {
    /// Whether all that was asked for was run.
    fn is_complete(&self) -> bool {
        self.missing == 0 && self.ended == COMPLETE
    }
}

/// Something that went wrong in the guest.
#[derive(Debug, Serialize)]
struct Seen {
    trace: String,
    kind: String,
    /// The deviation that explains it.
    known: Option<String>,
    console: String,
}

impl fmt::Display for Bench {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "lab: Linux {}, {} boots;", self.kernel, self.boots)?;
        for (stage, seconds) in &self.stages {
            write!(f, " {stage} {seconds:.1} s")?;
        }
        writeln!(f)?;
        for Seen { trace, kind, known, console } in &self.incidents {
            match known {
                Some(id) => writeln!(f, "  {kind} in {trace}: known deviation {id}")?,
                None => writeln!(f, "  FAIL: {kind} in {trace}:\n{}", indent(console))?,
            }
        }
        if !self.is_complete() {
            writeln!(f, "  FAIL: {} traces have no verdict; {}", self.missing, self.ended)?;
        }
        Ok(())
    }
}

fn indent(text: &str) -> String {
    text.lines().map(|line| format!("    {line}\n")).collect()
}

pub(crate) fn run(arguments: &Arguments, output: &mut Output) -> Result {
    let traces = if arguments.replays() { arguments.traces(output)? } else { Vec::new() };
    let options = options(arguments)?;
    let cancel = Arc::new(AtomicBool::new(false));
    let asked = Arc::clone(&cancel);
    ctrlc::set_handler(move || asked.store(true, Ordering::Relaxed))?;

    std::fs::create_dir_all(&options.cache)
        .map_err(|error| format!("{}: {error}", options.cache.display()))?;
    let file = lab::traces_file(&options.cache);
    let replay = Task::Replay { traces: &file, count: traces.len() };
    let migrate = Task::Migrate { rounds: arguments.rounds };
    let race = Task::Race { rounds: arguments.races };
    let abuse = Task::Abuse { count: CASES.len() };
    let watch = Task::Watch { count: SCENARIOS.len() };
    let learn = Task::Learn { count: MACHINES.len() };
    let lifetime = Task::Lifetime { count: lifetime::CASES.len() };
    let tasks: &[_] = match arguments {
        Arguments { learn: true, .. } => &[learn],
        Arguments { lifetime: true, .. } => &[lifetime],
        Arguments { migrate: true, .. } => &[migrate],
        Arguments { race: true, .. } => &[race],
        Arguments { abuse: true, .. } => &[abuse],
        Arguments { watch: true, .. } => &[watch],
        Arguments { selection, .. } if selection.is_all() => {
            &[replay, migrate, race, abuse, learn, lifetime, watch]
        }
        _ => &[replay],
    };
    let outcome = write_traces(&file, &traces).and_then(|()| {
        let mut progress = Progress::new(traces.len());
        Ok(lab::run(&options, tasks, &cancel, &mut |event| progress.on(event))?)
    });
    // Of no use to anybody once the run is over, however it ended.
    let _ = std::fs::remove_file(&file);
    let outcome = outcome?;

    let mut judged = Judged::default();
    let mut incidents = Vec::new();
    for (task, part) in tasks.iter().zip(&outcome.parts) {
        let took = took(&outcome, task.stage());
        incidents.extend(judged.take(task, part, &traces, arguments, &outcome, took)?);
    }
    let bench = bench(&outcome, incidents, tasks.len());
    output.say("lab", &bench)?;
    judged.say(output)?;
    if let (Some(path), Some(watched)) = (&arguments.recordings, &judged.watched) {
        watched.keep(path)?;
    }
    Ok(judged.is_good() && bench.is_complete())
}

/// What the tasks came to.
#[derive(Default)]
struct Judged {
    /// By the name that the report has in the JSON.
    reports: Vec<(&'static str, Report)>,
    matrix: Option<Matrix>,
    pace: Option<Pace>,
    resets: Option<Resets>,
    learned: Option<Learned>,
    watched: Option<Watched>,
}

impl Judged {
    /// Take in what a task has brought; what went wrong in its guests.
    fn take(
        &mut self,
        task: &Task<'_>,
        part: &Part,
        traces: &[Trace],
        arguments: &Arguments,
        outcome: &lab::Outcome,
        took: Duration,
    ) -> Result<Vec<Seen>> {
        let crashes = Deviations::named(DRIVER)?;
        let kernel = &outcome.kernel;
        let mut judge = |name, about: String, known: Option<Deviations>| {
            let mut report = Report::new(about);
            let seen = judge(part, traces, &crashes, known.as_ref(), &mut report)?;
            report.finish(took, known.as_ref(), arguments.selection.is_all());
            self.reports.push((name, report));
            Ok::<_, Box<dyn std::error::Error>>(seen)
        };
        match task {
            Task::Replay { .. } => {
                let known = Deviations::named(DRIVER)?.of_traces();
                let seen = judge("replay", format!("{DRIVER} of Linux {kernel}"), Some(known))?;
                self.pace = told(part, "pace")?;
                Ok(seen)
            }
            Task::Migrate { .. } => {
                let mut migrated = Matrix::collect(&part.lines)?;
                let seen = overrule(part, &mut migrated);
                self.matrix = Some(migrated);
                Ok(seen)
            }
            Task::Race { .. } => {
                let seen = judge("races", format!("races at {DRIVER}"), None)?;
                self.resets = told(part, "resets")?;
                Ok(seen)
            }
            Task::Abuse { .. } => {
                let known = Deviations::named(DRIVER)?.of_calls("abuse/");
                judge("abuse", format!("abuse of {DRIVER}"), Some(known))
            }
            Task::Learn { .. } => {
                let known = Deviations::named(DRIVER)?.of_findings("learn/");
                let seen = judge("learn", format!("{DRIVER} as a machine"), Some(known))?;
                self.learned = Some(Learned::collect(part)?);
                Ok(seen)
            }
            Task::Lifetime { .. } => {
                let known = Deviations::named(DRIVER)?.of_calls("lifetime/");
                judge("lifetime", format!("lifetime of {DRIVER}"), Some(known))
            }
            Task::Watch { .. } => {
                let of =
                    |name| Ok::<_, DeviationError>(Deviations::named(name)?.of_findings("watch/"));
                let known = of("qemu")?.and(of(DRIVER)?);
                let seen = judge("watch", format!("QEMU at {DRIVER}"), Some(known))?;
                let qemu = outcome.qemu.clone().unwrap_or_default();
                self.watched = Some(Watched::collect(qemu, part)?);
                Ok(seen)
            }
        }
    }

    fn say(&self, output: &mut Output) -> Result<()> {
        for (name, report) in &self.reports {
            output.say(name, report)?;
            match *name {
                "replay" => self.pace.as_ref().map_or(Ok(()), |it| output.say("pace", it))?,
                "races" => self.resets.as_ref().map_or(Ok(()), |it| output.say("resets", it))?,
                "learn" => self.learned.as_ref().map_or(Ok(()), |it| output.say("learned", it))?,
                "watch" => self.watched.as_ref().map_or(Ok(()), |it| output.say("watched", it))?,
                _ => {}
            }
        }
        self.matrix.as_ref().map_or(Ok(()), |it| output.say("migrate", it))?;
        Ok(())
    }

    fn is_good(&self) -> bool {
        let migrated = self.matrix.as_ref().is_none_or(|matrix| matrix.is_good(0));
        migrated && self.reports.iter().all(|(_, report)| report.is_good())
    }
}

/// What a guest says of a whole task, in a line of its own.
fn told<T: serde::de::DeserializeOwned>(part: &Part, event: &str) -> Result<Option<T>> {
    let line = part.lines.iter().rfind(|line| line["event"] == event);
    Ok(line.map(|line| serde_json::from_value(line.clone())).transpose()?)
}

/// How threads reset the device that they race at.
#[derive(Debug, Deserialize, Serialize)]
struct Resets {
    resets: Vec<String>,
}

impl fmt::Display for Resets {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "  resets by {}", self.resets.join(", "))?;
        if !self.resets.iter().any(|way| way.starts_with('/')) {
            writeln!(f, "  not by /sys: the device has no `reset` there")?;
        }
        Ok(())
    }
}

/// The machines that a device was found to be.
#[derive(Debug, Serialize)]
#[serde(transparent)]
struct Learned(BTreeMap<String, Machine>);

/// One of them.
#[derive(Debug, Deserialize, Serialize)]
struct Machine {
    #[serde(flatten)]
    found: Found,
    /// For Graphviz.
    dot: String,
}

impl Learned {
    fn collect(part: &Part) -> Result<Self> {
        let lines = part.lines.iter().filter(|line| line["event"] == "learned");
        let machine = |line: &serde_json::Value| {
            let name = line["trace"].as_str().unwrap_or_default().to_owned();
            Ok((name, serde_json::from_value(line.clone())?))
        };
        lines.map(machine).collect::<Result<_>>().map(Self)
    }
}

impl fmt::Display for Learned {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|(name, machine)| write!(f, "{name}: {}", machine.found))
    }
}

/// What went wrong in the guest's kernel, whatever its verdict was, is a failure of that case.
fn overrule(part: &Part, matrix: &mut Matrix) -> Vec<Seen> {
    let seen = |incident: &Incident| {
        let (kind, console) = (incident.kind.name().to_owned(), incident.excerpt.clone());
        matrix.crashed(incident.index.unwrap_or(0), &kind, &console);
        let trace = incident.trace.clone().unwrap_or_else(|| "no trace".to_owned());
        Seen { trace, kind, known: None, console }
    };
    part.incidents.iter().map(seen).collect()
}

fn took(outcome: &lab::Outcome, stage: &str) -> Duration {
    let timing = outcome.timings.iter().find(|timing| timing.stage == stage);
    timing.map_or(Duration::ZERO, |timing| timing.took)
}

fn options(arguments: &Arguments) -> Result<lab::Options> {
    let cache = arguments.cache.clone().or_else(lab::default_cache);
    let cache = cache.ok_or("neither HOME nor XDG_CACHE_HOME is set: pass --cache DIR")?;
    Ok(lab::Options {
        replayer: arguments.replayer.clone(),
        kernel: arguments.kernel.clone(),
        watchdog: Duration::from_secs(arguments.watchdog),
        kvm: arguments.kvm,
        ..lab::Options::new(cache)
    })
}

fn write_traces(file: &Path, traces: &[Trace]) -> Result<()> {
    tidy::write_whole(file, |output| trace::write(traces, output))
        .map_err(|error| format!("{}: {error}", file.display()).into())
}

/// The verdicts of the guest, overruled where its kernel cried out.
fn judge(
    part: &Part,
    traces: &[Trace],
    crashes: &Deviations,
    known: Option<&Deviations>,
    report: &mut Report,
) -> Result<Vec<Seen>> {
    let mut seen = Vec::new();
    let mut verdicts: BTreeMap<&str, Verdict> = BTreeMap::new();
    for incident in &part.incidents {
        let trace = incident.trace.as_deref().unwrap_or("no trace");
        let id = crashes.find_crash(trace, &incident.excerpt).map(str::to_owned);
        id.iter().zip(known).for_each(|(id, known)| known.mark_used(id));
        verdicts.insert(trace, verdict_of(incident, id.as_deref()));
        let (kind, console) = (incident.kind.name().to_owned(), incident.excerpt.clone());
        seen.push(Seen { trace: trace.to_owned(), kind, known: id, console });
    }
    let lines = part.lines.iter().filter(|line| line["event"] == "verdict");
    for line in lines {
        let Some(trace) = line["trace"].as_str() else { continue };
        let verdict: Verdict = serde_json::from_value(line.clone())?;
        if let (Verdict::Deviation { ids, .. }, Some(known)) = (&verdict, known) {
            ids.iter().for_each(|id| known.mark_used(id));
        }
        verdicts.entry(trace).or_insert(verdict);
    }
    let ops = part.lines.iter().filter_map(|line| line["ops"].as_u64()).sum::<u64>();
    for trace in traces {
        let name = trace.header.name.as_str();
        if let Some(verdict) = verdicts.remove(name) {
            report.record_trace(trace, Outcome { verdict, ops: 0 });
        }
    }
    // What is left belongs to no trace of ours: the guest failed by itself.
    for (name, verdict) in verdicts {
        report.record(name, Outcome { verdict, ops: 0 });
    }
    report.ops = ops;
    Ok(seen)
}

fn verdict_of(incident: &Incident, known: Option<&str>) -> Verdict {
    match known {
        Some(id) => Verdict::Deviation { ids: vec![id.to_owned()], steps: Vec::new() },
        None => Verdict::Fail(Mismatch {
            step: 0,
            op: "the kernel".to_owned(),
            expected: "to live on in silence".to_owned(),
            seen: incident.kind.name().to_owned(),
            story: Vec::new(),
        }),
    }
}

fn bench(outcome: &lab::Outcome, incidents: Vec<Seen>, tasks: usize) -> Bench {
    let mut stages = BTreeMap::new();
    for timing in outcome.timings.iter().filter(|timing| timing.stage != "boot") {
        *stages.entry(timing.stage).or_insert(0.0) += timing.took.as_secs_f64();
    }
    let ended = match outcome.parts.last().map(|part| part.ended) {
        Some(Ended::Complete) if outcome.parts.len() == tasks => Ended::Complete,
        Some(Ended::TooManyBoots) => Ended::TooManyBoots,
        _ => Ended::Cancelled,
    };
    Bench {
        kernel: outcome.kernel.clone(),
        boots: outcome.parts.iter().map(|part| part.boots).sum(),
        ended: match ended {
            Ended::Complete => COMPLETE.to_owned(),
            Ended::Cancelled => "the run was interrupted".to_owned(),
            Ended::TooManyBoots => "the guest crashed too often".to_owned(),
        },
        stages,
        incidents,
        missing: outcome.parts.iter().map(|part| part.missing.len()).sum(),
    }
}

/// What a person sees while it lasts.
struct Progress {
    bar: ProgressBar,
}

impl Progress {
    fn new(traces: usize) -> Self {
        Self { bar: output::bar(traces as u64, "lab") }
    }

    fn on(&mut self, event: Event) {
        match event {
            Event::Stage(stage) => self.bar.println(stage),
            Event::Boot { number, from } => {
                self.bar.println(format!("boot {number}, trace {from}"));
            }
            Event::Line(_) => self.bar.inc(1),
            Event::Incident(incident) => {
                let trace = incident.trace.as_deref().unwrap_or("no trace");
                self.bar.println(format!("{} in {trace}", incident.kind.name()));
            }
            _ => {}
        }
    }
}

impl Drop for Progress {
    fn drop(&mut self) {
        self.bar.finish_and_clear();
    }
}
