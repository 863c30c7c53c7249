// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! `vfio-conform bench`: ours beside another's, or beside what cannot be done without, in one run on
//! one machine; and how cost grows.
//!
//! Nothing is asserted of time. What is compared takes turns, and the ratio is the median of those of
//! neighbours, so that what else the machine does weighs on both.

mod check;
mod growth;
mod lookup;
#[cfg(all(feature = "mlx5", feature = "lab"))]
mod mlx5;
#[cfg(feature = "bench")]
mod plot;
mod replay;
mod stream;
mod suites;

use std::fmt;
use std::fs;
#[cfg(feature = "bench")]
use std::path::PathBuf;
use std::process;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use clap::{Args, Subcommand};
use indicatif::{HumanCount, ProgressBar};
use serde::Serialize;

use super::output::{self, Output};
use super::{Result, Verdict};

#[derive(Debug, Args)]
pub(crate) struct Arguments {
    #[command(subcommand)]
    what: Option<What>,
    /// Draw how cost grows, as SVG files in this directory.
    #[cfg(feature = "bench")]
    #[arg(long, value_name = "DIR", global = true)]
    svg: Option<PathBuf>,
}

#[derive(Debug, Subcommand)]
enum What {
    /// All of the others, `check` on one model only (the default).
    All,
    /// stateright, our own explorer and Spin: states/s, bytes/state, and whether they count alike.
    ///
    /// Each measurement is a process of its own, and the best of the rounds counts. Only the counts
    /// are judged: on a busy machine take the ratios, and take them again.
    Check(check::Arguments),
    /// Suites: inputs beside the least there can be, and how fast they are made.
    Suites,
    /// Replay of every suite, beside a bare loop over the same calls of the device.
    Replay,
    /// Whole sessions, from Saver over frames to Loader, beside a bare loop that copies.
    Stream,
    /// The model: how it grows with devices and flags.
    Model,
    /// Instructions of the core's lookup, beside the kernel's C.
    Lookup,
    /// The mlx5 command queue, beside the distribution's libmlx5.
    Mlx5,
}

/// A measurement: what it is called, and how it is made.
type Part = (&'static str, fn(&Bench) -> Result<Findings>);

const PARTS: [Part; 7] = [
    ("suites", suites::measure),
    ("replay", replay::measure),
    ("stream", stream::measure),
    ("model", growth::measure),
    ("check", check::beside),
    ("lookup", lookup::measure),
    ("mlx5", mlx5_or_not),
];

#[cfg(all(feature = "mlx5", feature = "lab"))]
fn mlx5_or_not(bench: &Bench) -> Result<Findings> {
    mlx5::measure(bench)
}

#[cfg(not(all(feature = "mlx5", feature = "lab")))]
fn mlx5_or_not(_bench: &Bench) -> Result<Findings> {
    let missing = "this program was built without the features `mlx5` and `lab`".to_owned();
    Ok(Findings::table(Table::missing("mlx5 queue", missing)))
}

/// What is found out on the way, and whether to go on.
struct Bench {
    bar: ProgressBar,
    asked: Arc<AtomicBool>,
}

/// How often what is compared takes turns, after once to warm up.
const ROUNDS: usize = 5;

impl Bench {
    /// The first Ctrl-C ends the measurement, and what was measured is told; the second ends the
    /// program.
    fn begin(parts: u64) -> Result<Self> {
        let asked = Arc::new(AtomicBool::new(false));
        let ask = Arc::clone(&asked);
        ctrlc::set_handler(move || {
            if ask.swap(true, Ordering::Relaxed) {
                process::exit(130);
            }
        })?;
        Ok(Self { bar: output::bar(parts, "measuring"), asked })
    }

    fn is_over(&self) -> bool {
        self.asked.load(Ordering::Relaxed)
    }

    /// What is measured now.
    fn now(&self, what: &str) {
        if self.bar.is_hidden() {
            output::note(format_args!("measuring {what}"));
        } else {
            self.bar.set_prefix(what.to_owned());
        }
    }

    /// The two in turns; nothing if it was cut short.
    fn compare(
        &self,
        mut ours: impl FnMut() -> Result<()>,
        mut other: impl FnMut() -> Result<()>,
    ) -> Result<Option<Compared>> {
        let mut rounds = Vec::new();
        for round in 0..=ROUNDS {
            if self.is_over() {
                return Ok(None);
            }
            let times = (timed(&mut ours)?, timed(&mut other)?);
            if round > 0 {
                rounds.push(times);
            }
        }
        Ok(Compared::of(rounds))
    }
}

fn timed(mut run: impl FnMut() -> Result<()>) -> Result<Duration> {
    let began = Instant::now();
    run()?;
    Ok(began.elapsed())
}

/// Medians.
#[derive(Clone, Copy, Debug)]
struct Compared {
    ours: Duration,
    other: Duration,
    /// Time of ours for each of the other's.
    ratio: f64,
}

impl Compared {
    fn of(rounds: Vec<(Duration, Duration)>) -> Option<Self> {
        let ratio = |(ours, other): &(Duration, Duration)| ours.div_duration_f64(*other);
        let mut ratios: Vec<_> = rounds.iter().map(ratio).collect();
        ratios.sort_by(f64::total_cmp);
        let (mut ours, mut other): (Vec<_>, Vec<_>) = rounds.into_iter().unzip();
        ours.sort_unstable();
        other.sort_unstable();
        let middle = ratios.len() / 2;
        let (ours, other) = (*ours.get(middle)?, *other.get(middle)?);
        Some(Self { ours, other, ratio: *ratios.get(middle)? })
    }
}

/// What one part has found.
#[derive(Debug, Default, Serialize)]
struct Findings {
    tables: Vec<Table>,
    curves: Vec<Curve>,
}

impl Findings {
    fn table(table: Table) -> Self {
        Self { tables: vec![table], curves: Vec::new() }
    }
}

/// Figures side by side.
#[derive(Debug, Serialize)]
struct Table {
    what: &'static str,
    /// What the two columns and the third, which relates them, are.
    columns: [&'static str; 3],
    rows: Vec<Row>,
    /// Why there is nothing.
    missing: Option<String>,
}

impl Table {
    const fn new(what: &'static str, columns: [&'static str; 3]) -> Self {
        Self { what, columns, rows: Vec::new(), missing: None }
    }

    const fn missing(what: &'static str, why: String) -> Self {
        Self { what, columns: ["", "", ""], rows: Vec::new(), missing: Some(why) }
    }

    fn row(&mut self, what: impl Into<String>, figures: [Option<f64>; 3]) {
        self.rows.push(Row { what: what.into(), figures });
    }
}

#[derive(Debug, Serialize)]
struct Row {
    what: String,
    figures: [Option<f64>; 3],
}

/// How one thing grows with another.
#[derive(Debug, Serialize)]
struct Curve {
    /// Of its file.
    name: &'static str,
    title: &'static str,
    x: &'static str,
    y: &'static str,
    lines: Vec<Line>,
}

#[derive(Debug, Serialize)]
struct Line {
    name: String,
    points: Vec<(f64, f64)>,
}

/// All that was measured.
#[derive(Debug, Serialize)]
struct Measured {
    machine: String,
    load: String,
    rounds: usize,
    #[serde(flatten)]
    findings: Findings,
    /// It was cut short.
    not_finished: bool,
}

pub(crate) fn run(arguments: &Arguments, output: &mut Output) -> Result<Verdict> {
    let wanted = match &arguments.what {
        Some(What::Check(arguments)) => return check::run(arguments, output).map(Verdict::from),
        None | Some(What::All) => None,
        Some(What::Suites) => Some("suites"),
        Some(What::Replay) => Some("replay"),
        Some(What::Stream) => Some("stream"),
        Some(What::Model) => Some("model"),
        Some(What::Lookup) => Some("lookup"),
        Some(What::Mlx5) => Some("mlx5"),
    };
    let parts = PARTS.iter().filter(|(name, _)| wanted.is_none_or(|wanted| wanted == *name));
    let bench = Bench::begin(parts.clone().count() as u64)?;
    let mut findings = Findings::default();
    for (name, measure) in parts {
        if bench.is_over() {
            break;
        }
        bench.now(name);
        let found = measure(&bench)?;
        findings.tables.extend(found.tables);
        findings.curves.extend(found.curves);
        bench.bar.inc(1);
    }
    bench.bar.finish_and_clear();
    let not_finished = bench.is_over();
    let measured =
        Measured { machine: machine(), load: load(), rounds: ROUNDS, findings, not_finished };
    output.say("bench", &measured)?;
    #[cfg(feature = "bench")]
    if let Some(directory) = &arguments.svg {
        plot::draw(directory, &measured.findings.curves)?;
    }
    Ok(if not_finished { Verdict::NotFinished } else { Verdict::Good })
}

fn machine() -> String {
    let cpus = fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let model = cpus.lines().find_map(|line| line.strip_prefix("model name")?.split_once(": "));
    let cores = thread::available_parallelism().map_or(1, usize::from);
    format!("{}, {cores} processors", model.map_or("unknown processor", |(_, name)| name))
}

fn load() -> String {
    let load = fs::read_to_string("/proc/loadavg").unwrap_or_default();
    load.split(' ').take(3).collect::<Vec<_>>().join(" ")
}

impl fmt::Display for Measured {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { machine, load, rounds, findings, not_finished } = self;
        writeln!(f, "{machine}; load {load} in the end")?;
        writeln!(f, "medians of {rounds} rounds in turns; ratios are those of neighbours")?;
        findings.tables.iter().try_for_each(|table| table.fmt(f))?;
        if *not_finished { writeln!(f, "\ncut short") } else { Ok(()) }
    }
}

impl fmt::Display for Table {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { what, columns: [ours, other, third], rows, missing } = self;
        if let Some(missing) = missing {
            writeln!(f, "\n{what}: not measured:")?;
            return wrapped(missing, f);
        }
        writeln!(f, "\n{what:<38} {ours:>13} {other:>13} {third:>10}")?;
        for Row { what, figures: [ours, other, third] } in rows {
            let [ours, other, third] = [ours, other, third].map(|figure| figure.map(number));
            let [ours, other, third] =
                [&ours, &other, &third].map(|figure| figure.as_deref().unwrap_or("-"));
            writeln!(f, "  {what:<36} {ours:>13} {other:>13} {third:>10}")?;
        }
        Ok(())
    }
}

/// With three digits at least, and thousands apart.
fn number(figure: f64) -> String {
    if figure.abs() < 1000.0 && figure.fract() != 0.0 {
        format!("{figure:.2}")
    } else {
        HumanCount(figure as u64).to_string()
    }
}

/// Within 80 columns, word by word.
fn wrapped(text: &str, f: &mut fmt::Formatter<'_>) -> fmt::Result {
    let mut line = String::new();
    for word in text.split_whitespace() {
        if !line.is_empty() && line.len() + word.len() > 76 {
            writeln!(f, "  {line}")?;
            line.clear();
        }
        line.push_str(if line.is_empty() { "" } else { " " });
        line.push_str(word);
    }
    writeln!(f, "  {line}")
}
