// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! `vfio-conform lab`: the suites and the migrations on a real kernel driver, in a virtual machine.

use std::collections::BTreeMap;
use std::fmt;
use std::io::{BufWriter, Write};
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use clap::Args;
use indicatif::ProgressBar;
use serde::Serialize;
use vfio_conform::deviation::Deviations;
use vfio_conform::lab::{self, Ended, Event, Incident, Part, Task};
use vfio_conform::migrate::Matrix;
use vfio_conform::replay::{Mismatch, Outcome, Verdict};
use vfio_conform::report::Report;
use vfio_conform::trace::{self, Trace};
use vfio_fsm_kernel::abuse::CASES;

use super::output::{self, Output};
use super::{Result, Selection};

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
    /// this, all is run.
    #[arg(long, conflicts_with_all = ["suite", "only"])]
    migrate: bool,
    /// Only the races of threads.
    #[arg(long, conflicts_with_all = ["suite", "only", "migrate"])]
    race: bool,
    /// Only the calls that no VMM should make.
    #[arg(long, conflicts_with_all = ["suite", "only", "migrate", "race"])]
    abuse: bool,
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
    let replays = !(arguments.migrate || arguments.race || arguments.abuse);
    let traces = if replays { arguments.selection.generate()? } else { Vec::new() };
    let deviations = Deviations::named(DRIVER)?.of_traces();
    let of_calls = Deviations::named(DRIVER)?.of_calls();
    let options = options(arguments)?;
    let cancel = Arc::new(AtomicBool::new(false));
    let asked = Arc::clone(&cancel);
    ctrlc::set_handler(move || asked.store(true, Ordering::Relaxed))?;

    std::fs::create_dir_all(&options.cache)
        .map_err(|error| format!("{}: {error}", options.cache.display()))?;
    let file = options.cache.join(format!("traces-{}.jsonl", std::process::id()));
    let replay = Task::Replay { traces: &file, count: traces.len() };
    let migrate = Task::Migrate { rounds: arguments.rounds };
    let race = Task::Race { rounds: arguments.races };
    let abuse = Task::Abuse { count: CASES.len() };
    let tasks: &[_] = match arguments {
        Arguments { migrate: true, .. } => &[migrate],
        Arguments { race: true, .. } => &[race],
        Arguments { abuse: true, .. } => &[abuse],
        Arguments { selection, .. } if selection.is_all() => &[replay, migrate, race, abuse],
        _ => &[replay],
    };
    let outcome = write_traces(&file, &traces).and_then(|()| {
        let mut progress = Progress::new(traces.len());
        Ok(lab::run(&options, tasks, &cancel, &mut |event| progress.on(event))?)
    });
    // Of no use to anybody once the run is over, however it ended.
    let _ = std::fs::remove_file(&file);
    let outcome = outcome?;

    let (mut report, mut matrix, mut races, mut abuses) = (None, None, None, None);
    let mut incidents = Vec::new();
    for (task, part) in tasks.iter().zip(&outcome.parts) {
        match task {
            Task::Replay { .. } => {
                let mut replayed = Report::new(format!("{DRIVER} of Linux {}", outcome.kernel));
                incidents.extend(judge(part, &traces, &deviations, &mut replayed)?);
                let took = took(&outcome, "replay");
                replayed.finish(took, Some(&deviations), arguments.selection.is_all());
                report = Some(replayed);
            }
            Task::Migrate { .. } => {
                let mut migrated = Matrix::collect(&part.lines)?;
                incidents.extend(crashes(part, &mut migrated));
                matrix = Some(migrated);
            }
            Task::Race { .. } => {
                let mut raced = Report::new(format!("races at {DRIVER}"));
                incidents.extend(judge(part, &[], &deviations, &mut raced)?);
                raced.finish(took(&outcome, "race"), None, false);
                races = Some(raced);
            }
            Task::Abuse { .. } => {
                let mut abused = Report::new(format!("abuse of {DRIVER}"));
                incidents.extend(judge(part, &[], &of_calls, &mut abused)?);
                abused.finish(took(&outcome, "abuse"), Some(&of_calls), true);
                abuses = Some(abused);
            }
        }
    }
    let bench = bench(&outcome, incidents, tasks.len());
    output.say("lab", &bench)?;
    if let Some(report) = &report {
        output.say("replay", report)?;
    }
    if let Some(matrix) = &matrix {
        output.say("migrate", matrix)?;
    }
    if let Some(races) = &races {
        output.say("races", races)?;
    }
    if let Some(abuses) = &abuses {
        output.say("abuse", abuses)?;
    }
    let replayed = report.into_iter().chain(races).chain(abuses).all(|report| report.is_good());
    let migrated = matrix.is_none_or(|matrix| matrix.is_good(0));
    Ok(replayed && migrated && bench.is_complete())
}

/// What went wrong in the guest's kernel, whatever its verdict was, is a failure of that case.
fn crashes(part: &Part, matrix: &mut Matrix) -> Vec<Seen> {
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

fn write_traces(file: &PathBuf, traces: &[Trace]) -> Result<()> {
    let fail = |error: std::io::Error| format!("{}: {error}", file.display());
    let mut writer = BufWriter::new(std::fs::File::create(file).map_err(fail)?);
    trace::write(traces, &mut writer).and_then(|()| writer.flush()).map_err(fail)?;
    Ok(())
}

/// The verdicts of the guest, overruled where its kernel cried out.
fn judge(
    part: &Part,
    traces: &[Trace],
    deviations: &Deviations,
    report: &mut Report,
) -> Result<Vec<Seen>> {
    let mut seen = Vec::new();
    let mut verdicts: BTreeMap<&str, Verdict> = BTreeMap::new();
    for incident in &part.incidents {
        let trace = incident.trace.as_deref().unwrap_or("no trace");
        let known = deviations.find_crash(trace, &incident.excerpt).map(str::to_owned);
        verdicts.insert(trace, verdict_of(incident, known.as_deref()));
        let (kind, console) = (incident.kind.name().to_owned(), incident.excerpt.clone());
        seen.push(Seen { trace: trace.to_owned(), kind, known, console });
    }
    let lines = part.lines.iter().filter(|line| line["event"] == "verdict");
    for line in lines {
        let Some(trace) = line["trace"].as_str() else { continue };
        let verdict: Verdict = serde_json::from_value(line.clone())?;
        if let Verdict::Deviation { ids, .. } = &verdict {
            ids.iter().for_each(|id| deviations.mark_used(id));
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
