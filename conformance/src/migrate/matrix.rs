// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! Every case on one pair of devices, and the table of what they came to.

use std::collections::BTreeMap;
use std::fmt;

use serde::{Deserialize, Serialize};
use serde_json::Value;
use vfio_fsm_core::vmm::Evidence;

use super::Error;
use super::case::{Case, Choice, Sequence, When};
use super::judge::{Fell, Images, Outcome, Run, judge};
use super::watchdog::Hang;

/// A person is shown so many failures with their stories; JSON has them all.
const SHOWN_FAILURES: usize = 3;

/// What the words in the table mean.
const LEGEND: &str = "  \
  dead fd: a call on the data_fd failed; new fd: a SET that should go on began a
  session; no-op: in RUNNING, where SET(RUNNING) would have hidden it; in SET:
  GET says RUNNING behind a SET that succeeded
  equal: the destination is what the source was after the reset; whole: its
  image was read to the end before a reset by the host; aborted: the source runs
";

/// Two devices that migrations can be run on, each from a fresh start.
pub(super) trait Bench {
    fn describe(&self) -> String;

    fn images(&self) -> &Images;

    /// Whether there is a within to an op, by its text.
    fn races(&self, op: &str) -> bool;

    /// How often a case is run.
    fn rounds(&self, _case: &Case) -> u32 {
        1
    }

    /// A case begins.
    fn begin(&mut self, _index: usize, _case: &Case) {}

    fn run(&mut self, case: &Case, round: u32) -> Result<Run, Error>;
}

/// What happens while a matrix is run.
#[derive(Debug, Serialize)]
#[serde(tag = "event", rename_all = "snake_case")]
#[non_exhaustive]
pub enum Progress<'a> {
    /// What an undisturbed run looks like is known.
    Planned {
        /// The devices.
        target: &'a str,
        /// The runs that the cases are made from.
        sequence: &'a Sequence,
        /// How many cases there are.
        cases: usize,
    },
    /// A case begins.
    Begin {
        /// The n-th, counted from 0.
        index: usize,
        /// Its name.
        trace: &'a str,
    },
    /// A case has ended.
    Verdict {
        /// The n-th, counted from 0.
        index: usize,
        /// Its name.
        trace: &'a str,
        /// What it came to.
        #[serde(flatten)]
        report: &'a CaseReport,
    },
    /// All cases have ended.
    Done,
}

/// [`Progress::Planned`] as it is read.
#[derive(Deserialize)]
struct Planned {
    target: String,
    sequence: Sequence,
    cases: usize,
}

/// How a reset was seen by the source's session.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Seen {
    /// It was not. There need not be anything to see: before the first session, or behind the last
    /// byte of the image.
    Not,
    /// [`Evidence::DeadFd`] (O1).
    DeadFd,
    /// [`Evidence::UnexpectedFd`] (O2).
    UnexpectedFd,
    /// [`Evidence::AlreadyRunning`] (O3).
    AlreadyRunning,
    /// [`Evidence::DeferredIntoSet`] (O4).
    DeferredIntoSet,
    /// [`Evidence::Ordered`].
    Ordered,
}

impl From<Option<Evidence>> for Seen {
    fn from(evidence: Option<Evidence>) -> Self {
        match evidence {
            None => Self::Not,
            Some(Evidence::DeadFd { .. }) => Self::DeadFd,
            Some(Evidence::UnexpectedFd { .. }) => Self::UnexpectedFd,
            Some(Evidence::AlreadyRunning { .. }) => Self::AlreadyRunning,
            Some(Evidence::DeferredIntoSet { .. }) => Self::DeferredIntoSet,
            Some(Evidence::Ordered) => Self::Ordered,
        }
    }
}

impl fmt::Display for Seen {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Not => "-",
            Self::DeadFd => "dead fd",
            Self::UnexpectedFd => "new fd",
            Self::AlreadyRunning => "no-op",
            Self::DeferredIntoSet => "in SET",
            Self::Ordered => "ordered",
        })
    }
}

/// A run that did not end as it must.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Failure {
    /// What is wrong.
    pub what: String,
    /// What was done and answered, line by line.
    pub story: Vec<String>,
}

/// What a case came to.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct CaseReport {
    /// What was done.
    #[serde(flatten)]
    pub case: Case,
    /// How the runs ended that ended well.
    pub outcomes: BTreeMap<Outcome, u32>,
    /// How the reset was seen.
    pub seen: BTreeMap<Seen, u32>,
    /// Where a reset by another process fell, and how it was seen then.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub fell: BTreeMap<Fell, BTreeMap<Seen, u32>>,
    /// The runs that did not.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub failures: Vec<Failure>,
}

impl CaseReport {
    /// A case of which nothing is known.
    const fn new(case: Case) -> Self {
        Self {
            case,
            outcomes: BTreeMap::new(),
            seen: BTreeMap::new(),
            fell: BTreeMap::new(),
            failures: Vec::new(),
        }
    }

    fn record(&mut self, run: &Run, images: &Images) {
        let seen = Seen::from(run.evidence);
        *self.seen.entry(seen).or_default() += 1;
        if let Some(fell) = run.fell {
            *self.fell.entry(fell).or_default().entry(seen).or_default() += 1;
        }
        let outcome = judge(run, images).and_then(|outcome| match (self.case, outcome) {
            (Case::Undisturbed, Outcome::Equal) => Ok(outcome),
            (Case::Undisturbed, other) => Err(format!("nobody disturbed it, and it is {other}")),
            (Case::Cancel { .. } | Case::DestinationGivesUp, Outcome::Aborted) => Ok(outcome),
            (Case::Cancel { .. } | Case::DestinationGivesUp, other) => {
                Err(format!("it was cancelled, and it is {other}"))
            }
            _ => Ok(outcome),
        });
        match outcome {
            Ok(outcome) => *self.outcomes.entry(outcome).or_default() += 1,
            Err(what) => self.failures.push(Failure { what, story: run.story() }),
        }
    }

    /// A case in which something did not return.
    pub fn hung(hang: &Hang) -> Self {
        let what = format!("{} does not return", hang.op);
        let failures = vec![Failure { what, story: Vec::new() }];
        Self { failures, ..Self::new(hang.case) }
    }

    fn cell(&self) -> String {
        if !self.failures.is_empty() {
            return "FAIL".to_owned();
        }
        let outcomes: Vec<_> = self.outcomes.keys().map(ToString::to_string).collect();
        outcomes.join("/")
    }
}

/// What all cases came to.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Matrix {
    /// The devices.
    pub target: String,
    /// The undisturbed run, and the cancelled one.
    pub sequence: Sequence,
    /// How many cases there are.
    pub planned: usize,
    /// Those that were run.
    pub cases: Vec<CaseReport>,
}

impl Matrix {
    /// Run all cases from the n-th on, counted from 0.
    pub(super) fn run<B: Bench>(
        bench: &mut B,
        from: usize,
        on: &mut dyn FnMut(Progress<'_>),
    ) -> Result<Self, Error> {
        let sequence = sequence(bench)?;
        let cases = sequence.cases(|op| bench.races(op));
        let target = bench.describe();
        let mut matrix = Self { target, sequence, planned: cases.len(), cases: Vec::new() };
        on(Progress::Planned {
            target: &matrix.target,
            sequence: &matrix.sequence,
            cases: matrix.planned,
        });
        for (index, case) in cases.into_iter().enumerate().skip(from) {
            let name = case.to_string();
            on(Progress::Begin { index, trace: &name });
            bench.begin(index, &case);
            let mut report = CaseReport::new(case);
            for round in 0..bench.rounds(&case) {
                let run = bench.run(&case, round)?;
                report.record(&run, bench.images());
            }
            on(Progress::Verdict { index, trace: &name, report: &report });
            matrix.cases.push(report);
        }
        on(Progress::Done);
        Ok(matrix)
    }

    /// A matrix that was run elsewhere, from its [`Progress`] as JSON.
    ///
    /// # Errors
    ///
    /// When a line is not of this version.
    pub fn collect<'a>(lines: impl IntoIterator<Item = &'a Value>) -> serde_json::Result<Self> {
        let mut matrix = Self::default();
        for line in lines {
            match line["event"].as_str() {
                Some("planned") => {
                    let Planned { target, sequence, cases } = Planned::deserialize(line)?;
                    (matrix.target, matrix.sequence, matrix.planned) = (target, sequence, cases);
                }
                Some("verdict") => matrix.cases.push(CaseReport::deserialize(line)?),
                _ => {}
            }
        }
        Ok(matrix)
    }

    /// The kernel cried out, or died, while the n-th case was run, counted from 0: whatever the
    /// case came to, that is a failure of it.
    pub fn crashed(&mut self, index: usize, kind: &str, console: &str) {
        let cases = self.sequence.cases(|_op| true);
        let Some(case) = cases.get(index).or(cases.first()) else { return };
        let what = format!("the kernel: {kind}");
        let failure = Failure { what, story: console.lines().map(str::to_owned).collect() };
        match self.cases.iter_mut().find(|report| report.case == *case) {
            Some(report) => report.failures.push(failure),
            None => {
                let failures = vec![failure];
                self.cases.push(CaseReport { failures, ..CaseReport::new(*case) });
            }
        }
    }

    /// Whether every case from the n-th on was run, and every run ended as it must.
    pub fn is_good(&self, from: usize) -> bool {
        let complete = !self.cases.is_empty() && self.cases.len() + from == self.planned;
        complete && self.failures().next().is_none()
    }

    /// What did not end as it must, by the case.
    pub fn failures(&self) -> impl Iterator<Item = (&Case, &Failure)> {
        let cases = self.cases.iter();
        cases.flat_map(|report| report.failures.iter().map(|failure| (&report.case, failure)))
    }

    /// How often each way of seeing a reset was met.
    pub fn seen(&self) -> BTreeMap<Seen, u32> {
        let mut all = BTreeMap::new();
        for (seen, count) in self.cases.iter().flat_map(|report| &report.seen) {
            *all.entry(*seen).or_default() += count;
        }
        all
    }

    /// Where the resets by another process fell.
    fn fell(&self) -> BTreeMap<Fell, u32> {
        let mut all = BTreeMap::new();
        for (fell, seen) in self.cases.iter().flat_map(|report| &report.fell) {
            *all.entry(*fell).or_default() += seen.values().sum::<u32>();
        }
        all
    }

    /// How many SETs succeeded with the reset returned before they did, and GET says RUNNING: the
    /// fourth way in which a reset shows itself, met for real (O4).
    pub fn deferred(&self) -> u32 {
        let is_set = |report: &&CaseReport| {
            let step = report.case.reset().map_or(0, |(step, _)| step);
            let op = step.checked_sub(1).and_then(|index| self.sequence.ops.get(index));
            op.is_some_and(|op| op.starts_with("SET "))
        };
        let fell =
            self.cases.iter().filter(is_set).filter_map(|report| report.fell.get(&Fell::Into));
        fell.filter_map(|seen| seen.get(&Seen::DeferredIntoSet)).sum()
    }
}

/// Learn from two runs what there is to disturb.
fn sequence<B: Bench>(bench: &mut B) -> Result<Sequence, Error> {
    let plain = bench.run(&Case::Undisturbed, 0)?.facts;
    let frozen = plain.frozen_from.unwrap_or(plain.ops.len());
    // The last read is the one that finds the end.
    let last_read = plain.ops.iter().rposition(|op| op.starts_with("read "));
    let cancel = last_read.map_or(1, |index| index + 1);
    let cancelled = bench.run(&Case::Cancel { step: cancel }, 0)?.facts.ops;
    Ok(Sequence { ops: plain.ops, frozen, cancel, cancelled })
}

/// Some of the cases.
type Which = fn(&Case) -> bool;

/// Resets at points that follow each other and came to the same.
struct Row {
    from: (When, usize),
    to: (When, usize),
    seen: String,
    cells: Vec<String>,
}

impl Matrix {
    /// The reports of one table, one row for each point.
    fn rows(&self, of: Which) -> Vec<Row> {
        let mut rows: Vec<Row> = Vec::new();
        let mut points: BTreeMap<(usize, When), Vec<&CaseReport>> = BTreeMap::new();
        for report in self.cases.iter().filter(|report| of(&report.case)) {
            if let Some(point) = report.case.reset() {
                points.entry(point).or_default().push(report);
            }
        }
        for ((step, when), reports) in points {
            let seen: BTreeMap<_, _> = reports.iter().flat_map(|report| &report.seen).collect();
            let seen: Vec<_> = seen.into_keys().map(ToString::to_string).collect();
            let (seen, to) = (seen.join("/"), (when, step));
            let cells: Vec<_> = reports.iter().map(|report| report.cell()).collect();
            match rows.last_mut() {
                Some(row) if row.seen == seen && row.cells == cells => row.to = to,
                _ => rows.push(Row { from: to, to, seen, cells }),
            }
        }
        rows
    }

    fn steps(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let ops = &self.sequence.ops;
        let lines = ops.len().div_ceil(3);
        for line in 0..lines {
            let steps = (line..ops.len()).step_by(lines);
            let line: String =
                steps.map(|index| format!("{:>4} {:<21}", index + 1, ops[index])).collect();
            writeln!(f, "{}", line.trim_end())?;
        }
        Ok(())
    }

    fn races(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let fell = self.fell();
        if fell.is_empty() {
            return Ok(());
        }
        let counts: Vec<_> = fell.iter().map(|(fell, count)| format!("{count} {fell}")).collect();
        writeln!(f, "  resets against a step, by the clock: {}", counts.join(", "))?;
        let deferred = self.deferred();
        writeln!(f, "  SETs that succeeded, with the device in RUNNING at once (O4): {deferred}")
    }

    fn plain(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let cells = |of: Which| -> BTreeMap<String, u32> {
            let mut counts = BTreeMap::new();
            for report in self.cases.iter().filter(|report| of(&report.case)) {
                *counts.entry(report.cell()).or_default() += 1;
            }
            counts
        };
        let lines: [(_, Which); 3] = [
            ("undisturbed", |case| matches!(case, Case::Undisturbed)),
            ("cancelled before each step", |case| matches!(case, Case::Cancel { .. })),
            ("given up by the destination", |case| matches!(case, Case::DestinationGivesUp)),
        ];
        for (what, of) in lines {
            let cells: Vec<_> =
                cells(of).into_iter().map(|(cell, count)| format!("{cell} x{count}")).collect();
            writeln!(f, "  {what}: {}", cells.join(", "))?;
        }
        Ok(())
    }
}

impl fmt::Display for Row {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { from, to, seen, cells } = self;
        let mut point = format!("{} {}", from.0, from.1);
        if from != to {
            point = format!("{point} - {} {}", to.0, to.1);
        }
        let cells: String = cells.iter().map(|cell| format!(" {cell:<13}")).collect();
        write!(f, "  {point:<21} {seen:<15}{}", cells.trim_end())
    }
}

impl fmt::Display for Matrix {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { target, sequence, planned, cases } = self;
        writeln!(f, "migration on {target}: {} of {planned} cases", cases.len())?;
        if cases.is_empty() {
            return writeln!(f, "  FAIL: no case was run");
        }
        writeln!(f, "  the source's steps, its guest frozen from {} on:", sequence.frozen)?;
        self.steps(f)?;
        self.plain(f)?;
        let [abort, restart, stop_copy] = Choice::ALL;
        writeln!(f, "  {:<21} {:<15} {abort:<13} {restart:<13} {stop_copy}", "reset", "seen by")?;
        for row in self.rows(|case| matches!(case, Case::Reset { .. })) {
            writeln!(f, "{row}")?;
        }
        writeln!(f, "  reset when cancelled before {}", sequence.cancel)?;
        for row in self.rows(|case| matches!(case, Case::ResetOnTheWayBack { .. })) {
            writeln!(f, "{row}")?;
        }
        self.races(f)?;
        f.write_str(LEGEND)?;
        let shown = if f.alternate() { usize::MAX } else { SHOWN_FAILURES };
        for (case, Failure { what, story }) in self.failures().take(shown) {
            writeln!(f, "  FAIL: {case}: {what}")?;
            story.iter().try_for_each(|line| writeln!(f, "    {line}"))?;
        }
        let more = self.failures().count().saturating_sub(shown);
        if more > 0 {
            writeln!(f, "  … and {more} failures more; --json has them all")?;
        }
        Ok(())
    }
}
