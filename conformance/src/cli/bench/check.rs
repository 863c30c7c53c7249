// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! `vfio-conform bench check`: checkers beside each other on the same models and the same machine.

use std::ffi::OsStr;
use std::fmt;
use std::fs;
use std::io::ErrorKind;
use std::num::NonZeroU32;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use clap::Args;
use indicatif::HumanCount;
use serde::Serialize;
use serde_json::Value;
use vfio_conform::tidy::{Family, Scratch, tie};
use vfio_fsm_model::Case;

use super::super::Result;
use super::super::check::Cases;
use super::super::output::{self, Output};
use super::{Bench as Progress, Findings, Table as Beside, load, machine};

#[derive(Debug, Args)]
pub(super) struct Arguments {
    #[command(flatten)]
    cases: Cases,
    /// How often everything is measured.
    #[arg(long, value_name = "N", default_value = "3")]
    rounds: NonZeroU32,
}

/// What is measured if nothing else is asked for: the model that five other engines were measured
/// with, and the largest ones of levels 1 and 2.
const MODELS: [&str; 5] = ["bench, 3 devices", "any VMM", "Saver", "from PRE_COPY", "2 devices"];

/// The one that Spin has, too.
const SPINS: &str = "bench, 3 devices";
const PROMELA: &str = include_str!("../../../specs/promela/three_devices.pml");

/// How Spin is called by who installs it.
const SPIN_MISSING: &str = "not installed (apt-get install spin gcc)";

/// A checker, and how it is run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Checker {
    Ours { engine: &'static str, threads: u8 },
    Spin { search: &'static str },
}

const CHECKERS: [Checker; 6] = [
    Checker::Spin { search: "DFS" },
    Checker::Spin { search: "BFS" },
    Checker::Ours { engine: "stateright", threads: 1 },
    Checker::Ours { engine: "stateright", threads: 2 },
    Checker::Ours { engine: "own", threads: 1 },
    Checker::Ours { engine: "own", threads: 2 },
];

/// What one run took.
#[derive(Clone, Copy, Debug, Serialize)]
struct Measured {
    states: u64,
    transitions: u64,
    seconds: f64,
    /// Time of all processors together.
    cpu_seconds: f64,
    peak_bytes: u64,
}

impl Measured {
    fn rate(&self) -> f64 {
        self.states as f64 / self.seconds
    }

    fn bytes_per_state(&self) -> f64 {
        self.peak_bytes as f64 / self.states as f64
    }
}

#[derive(Debug, Serialize)]
struct Row {
    checker: String,
    threads: u8,
    measured: Option<Measured>,
    /// Why there is nothing.
    missing: Option<String>,
}

#[derive(Debug, Serialize)]
struct Table {
    model: &'static str,
    features: String,
    rows: Vec<Row>,
    /// Whether all count as many states and steps as are committed.
    alike: bool,
}

#[derive(Debug, Serialize)]
struct Bench {
    machine: String,
    load: String,
    rounds: u32,
    tables: Vec<Table>,
}

pub(super) fn run(arguments: &Arguments, output: &mut Output) -> Result {
    let cases = arguments.chosen()?;
    let directory = Scratch::new()?;
    let pans = Spin::build(directory.path())?;
    let rounds = arguments.rounds.get();
    let runs = cases.len() * CHECKERS.len() * rounds as usize;
    let bar = output::bar(runs as u64, "measuring");
    let tables: Result<Vec<_>> =
        cases.into_iter().map(|case| Table::measure(case, &pans, rounds, || bar.inc(1))).collect();
    bar.finish_and_clear();
    let bench = Bench { machine: machine(), load: load(), rounds, tables: tables? };
    output.say("bench", &bench)?;
    Ok(bench.tables.iter().all(|table| table.alike))
}

/// The one model that Spin has, once: our explorer and stateright beside it.
pub(super) fn beside(bench: &Progress) -> Result<Findings> {
    const WHAT: &str = "a model of three devices: states a second";
    let directory = Scratch::new()?;
    let spin = Spin::build(directory.path())?;
    let mut table = Beside::new(WHAT, ["it", "Spin DFS", "ratio"]);
    let mut spins = None;
    for case in Cases::named(&[SPINS]) {
        for checker in CHECKERS {
            if bench.is_over() {
                break;
            }
            let Row { checker: name, threads, missing, .. } = checker.row(case, &spin);
            bench.now(&format!("{name}, threads: {threads}"));
            if let Some(missing) = missing {
                return Ok(Findings::table(Beside::missing(WHAT, format!("Spin is {missing}"))));
            }
            let rate = checker.measure(case, &spin)?.rate();
            let spin = *spins.get_or_insert(rate);
            table.row(
                format!("{name}, threads: {threads}"),
                [Some(rate), Some(spin), Some(rate / spin)],
            );
        }
    }
    Ok(Findings::table(table))
}

impl Arguments {
    fn chosen(&self) -> Result<Vec<&'static Case>> {
        let mut cases = self.cases.chosen()?;
        if self.cases.is_all() {
            cases = Cases::named(&MODELS);
        }
        Ok(cases)
    }
}

impl Table {
    fn measure(
        case: &'static Case,
        spin: &std::result::Result<Spin, String>,
        rounds: u32,
        done: impl Fn(),
    ) -> Result<Self> {
        let mut rows: Vec<Row> = CHECKERS.iter().map(|checker| checker.row(case, spin)).collect();
        // Round by round, so that what else the machine does falls on all of them.
        for _ in 0..rounds {
            for (checker, row) in CHECKERS.iter().zip(&mut rows) {
                if row.missing.is_none() {
                    let measured = checker.measure(case, spin)?;
                    let best = row.measured.filter(|best| best.seconds <= measured.seconds);
                    row.measured = Some(best.unwrap_or(measured));
                }
                done();
            }
        }
        let counts = |row: &Row| row.measured.map(|m| (m.states, m.transitions));
        let mut all = rows.iter().filter_map(counts);
        let first = all.next();
        let alike = first.is_some_and(|(states, _)| states == case.states as u64)
            && all.all(|counts| Some(counts) == first);
        Ok(Self { model: case.name, features: case.features.to_string(), rows, alike })
    }

    /// The rate of the faster of Spin's searches.
    fn spin(&self) -> Option<f64> {
        let spins = self.rows.iter().filter(|row| row.checker.starts_with("Spin"));
        spins.filter_map(|row| row.measured).map(|measured| measured.rate()).reduce(f64::max)
    }

    fn rate(&self, checker: &str, threads: u8) -> Option<f64> {
        let row = self.rows.iter().find(|row| row.checker == checker && row.threads == threads)?;
        Some(row.measured?.rate())
    }
}

impl Checker {
    fn row(self, case: &Case, spin: &std::result::Result<Spin, String>) -> Row {
        let (checker, threads, missing) = match self {
            Self::Ours { engine, threads } => (engine.to_owned(), threads, None),
            Self::Spin { search } => {
                let missing = match spin {
                    _ if case.name != SPINS => Some("not in Promela".to_owned()),
                    Err(missing) => Some(missing.clone()),
                    Ok(_) => None,
                };
                (format!("Spin {search}"), 1, missing)
            }
        };
        Row { checker, threads, measured: None, missing }
    }

    fn measure(self, case: &Case, spin: &std::result::Result<Spin, String>) -> Result<Measured> {
        match self {
            Self::Ours { engine, threads } => {
                let mut command = Command::new(std::env::current_exe()?);
                command.args(["--json", "check", "--model", case.name, "--features"]);
                command.args([case.features.slug(), "--engine", engine, "--threads"]);
                let (cost, text) = Cost::of(command.arg(threads.to_string()))?;
                let json: Value = serde_json::from_str(&text)?;
                let count = |what: &str| json["model"]["spaces"][0][what].as_u64();
                cost.measured(count("states"), count("transitions"))
            }
            Self::Spin { search } => {
                let spin = spin.as_ref().map_err(String::clone)?;
                let (cost, text) = Cost::of(&mut spin.pan(search))?;
                let count = |what: &str| {
                    let line = text.lines().find(|line| line.contains(what))?;
                    line.split_whitespace().next()?.parse::<u64>().ok()
                };
                // Spin counts the root as a step.
                let transitions = count(" transitions (=").map(|count| count - 1);
                cost.measured(count(" states, stored"), transitions)
            }
        }
    }
}

/// The verifiers that Spin has made of the model.
#[derive(Debug)]
struct Spin {
    directory: std::path::PathBuf,
}

impl Spin {
    /// The reason, if there is no Spin or no compiler.
    fn build(directory: &Path) -> Result<std::result::Result<Self, String>> {
        let model = directory.join("model.pml");
        fs::write(&model, PROMELA)?;
        // Every state in full, in memory: no reduction, no compaction.
        let all = ["-w", "-DSAFETY", "-DNOREDUCE", "-o"];
        let steps = [
            ("spin", [&["-a"][..], &["model.pml"]].concat()),
            ("gcc", [&["-O2"][..], &all, &["DFS", "pan.c"]].concat()),
            ("gcc", [&["-O3", "-DBFS"][..], &all, &["BFS", "pan.c"]].concat()),
        ];
        for (tool, arguments) in steps {
            let mut command = Command::new(tool);
            match tie(command.args(&arguments).current_dir(directory)).output() {
                Err(error) if error.kind() == ErrorKind::NotFound => {
                    return Ok(Err(SPIN_MISSING.to_owned()));
                }
                Err(error) => return Err(format!("{tool}: {error}").into()),
                Ok(output) if !output.status.success() => {
                    let said = [output.stdout, output.stderr].concat();
                    let said = String::from_utf8_lossy(&said).into_owned();
                    return Err(format!("{tool} {}: {said}", arguments.join(" ")).into());
                }
                Ok(_) => {}
            }
        }
        Ok(Ok(Self { directory: directory.to_owned() }))
    }

    fn pan(&self, search: &str) -> Command {
        let mut pan = Command::new(self.directory.join(search));
        // Room for the deepest path, a hash table of 2^24 slots, and no complaint about states in
        // which nothing can happen: there is no such thing as a deadlock here.
        pan.args(["-E", "-m2000000", "-w24"]).current_dir(&self.directory);
        pan
    }
}

/// What a process cost.
struct Cost {
    seconds: f64,
    cpu_seconds: f64,
    peak_bytes: u64,
}

/// How often a process is looked at. Its peak can only be missed by what it grows after that.
const LOOK: Duration = Duration::from_millis(2);

impl Cost {
    /// Run it to its end, and what it said.
    fn of(command: &mut Command) -> Result<(Self, String)> {
        let name = Path::new(command.get_program()).file_name().map(OsStr::to_owned);
        let name = name.unwrap_or_default().to_string_lossy().into_owned();
        let began = Instant::now();
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::null());
        let mut family = Family::start(command)?;
        let child = family.child();
        let mut cost = Self { seconds: 0.0, cpu_seconds: 0.0, peak_bytes: 0 };
        // What is said in all fits a pipe.
        let status = loop {
            cost.look(child);
            if let Some(status) = child.try_wait()? {
                break status;
            }
            thread::sleep(LOOK);
        };
        cost.seconds = began.elapsed().as_secs_f64();
        let text = std::io::read_to_string(child.stdout.take().ok_or("no standard output")?)?;
        if status.success() {
            Ok((cost, text))
        } else {
            Err(format!("{name} ended with {status}: {text}").into())
        }
    }

    /// As long as the process is there to be looked at.
    fn look(&mut self, child: &Child) {
        let read = |name| fs::read_to_string(format!("/proc/{}/{name}", child.id()));
        if let Some(kib) = read("status").ok().and_then(|status| {
            let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"))?;
            line.trim().strip_suffix(" kB")?.parse::<u64>().ok()
        }) {
            self.peak_bytes = kib * 1024;
        }
        if let Some(ticks) = read("stat").ok().and_then(|stat| {
            // Behind the name, which may have spaces: fields 14 and 15 of proc(5).
            let fields: Vec<&str> = stat.rsplit_once(") ")?.1.split(' ').collect();
            Some(fields.get(11)?.parse::<u64>().ok()? + fields.get(12)?.parse::<u64>().ok()?)
        }) {
            self.cpu_seconds = ticks as f64 / TICKS_PER_SECOND;
        }
    }

    fn measured(self, states: Option<u64>, transitions: Option<u64>) -> Result<Measured> {
        let Self { seconds, cpu_seconds, peak_bytes } = self;
        match (states, transitions) {
            (Some(states), Some(transitions)) => {
                Ok(Measured { states, transitions, seconds, cpu_seconds, peak_bytes })
            }
            _ => Err("a checker did not say how many states it found".into()),
        }
    }
}

/// `USER_HZ`, the same on every Linux that Rust runs on.
const TICKS_PER_SECOND: f64 = 100.0;

impl fmt::Display for Bench {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { machine, load, rounds, tables } = self;
        writeln!(f, "{machine}; load {load} in the end; best of {rounds}")?;
        tables.iter().try_for_each(|table| table.fmt(f))
    }
}

impl fmt::Display for Table {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "\n{}, {}", self.model, self.features)?;
        writeln!(
            f,
            "  {:<10} th {:>10} {:>11} {:>7} {:>7} {:>10} {:>7} x Spin",
            "checker", "states", "steps", "seconds", "CPU s", "states/s", "B/state"
        )?;
        let spin = self.spin();
        for Row { checker, threads, measured, missing } in &self.rows {
            write!(f, "  {checker:<10} {threads:>2}")?;
            match (measured, missing) {
                (Some(m), _) => {
                    let ratio = spin.map_or("-".to_owned(), |s| format!("{:.1}", m.rate() / s));
                    writeln!(
                        f,
                        " {:>10} {:>11} {:>7.2} {:>7.2} {:>10} {:>7.1} {ratio:>6}",
                        HumanCount(m.states).to_string(),
                        HumanCount(m.transitions).to_string(),
                        m.seconds,
                        m.cpu_seconds,
                        HumanCount(m.rate() as u64).to_string(),
                        m.bytes_per_state(),
                    )?;
                }
                (None, missing) => writeln!(f, " {}", missing.as_deref().unwrap_or("-"))?,
            }
        }
        for engine in ["stateright", "own"] {
            if let (Some(one), Some(two)) = (self.rate(engine, 1), self.rate(engine, 2)) {
                writeln!(f, "  {engine}: two threads are {:.2} times as fast as one", two / one)?;
            }
        }
        if self.alike {
            writeln!(f, "  all count alike")
        } else {
            writeln!(f, "  FAIL: they do not count alike, or not what is committed")
        }
    }
}
