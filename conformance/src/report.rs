// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! What a replay came to: for a person, and as JSON.

use std::collections::BTreeMap;
use std::fmt;
use std::time::Duration;

use indicatif::HumanCount;
use serde::{Deserialize, Serialize};

use crate::coverage::Coverage;
use crate::deviation::{Deviation, Deviations};
use crate::replay::{Mismatch, Outcome, Verdict};
use crate::trace::Trace;

/// A person is shown so many failures; JSON has them all.
const SHOWN_FAILURES: usize = 10;

/// What a replay came to.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct Report {
    /// What was tested.
    pub target: String,
    /// How many traces got each verdict.
    pub counts: Counts,
    /// Ops carried out.
    pub ops: u64,
    /// Seconds it took.
    pub seconds: f64,
    /// Every trace with its verdict.
    pub traces: Vec<TraceReport>,
    /// Steps that could not be put to the target and were not judged, by the reason.
    #[serde(default)]
    pub unsaid: BTreeMap<String, u64>,
    /// Entries of the list of deviations that described nothing: mended, or never true.
    #[serde(default)]
    pub unused_deviations: Vec<String>,
    /// The list of deviations that it was held against.
    #[serde(default)]
    pub known: BTreeMap<String, Known>,
    /// What was walked of each machine, of the traces that are known step by step.
    #[serde(default)]
    pub coverage: Vec<Coverage>,
}

/// What a list says of a deviation.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Known {
    /// The requirements that it breaks.
    pub breaks: Vec<String>,
    /// Why, and what follows.
    pub reason: String,
}

/// How many traces got each verdict.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Counts {
    /// As expected.
    pub pass: u64,
    /// Not as expected.
    pub fail: u64,
    /// Not as expected, and known.
    pub deviation: u64,
    /// Not run, for a reason.
    pub not_applicable: u64,
}

impl Counts {
    /// One more.
    pub const fn add(&mut self, verdict: &Verdict) {
        *match verdict {
            Verdict::Pass => &mut self.pass,
            Verdict::Fail(_) => &mut self.fail,
            Verdict::Deviation { .. } => &mut self.deviation,
            Verdict::NotApplicable { .. } => &mut self.not_applicable,
        } += 1;
    }
}

/// A trace and its verdict.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct TraceReport {
    /// Its name.
    pub trace: String,
    /// Its verdict.
    #[serde(flatten)]
    pub verdict: Verdict,
}

impl Report {
    /// An empty report on this target.
    pub fn new(target: impl Into<String>) -> Self {
        Self { target: target.into(), ..Self::default() }
    }

    /// Add what a trace came to.
    pub fn record(&mut self, trace: &str, outcome: Outcome) {
        self.counts.add(&outcome.verdict);
        self.ops += outcome.ops;
        self.traces.push(TraceReport { trace: trace.to_owned(), verdict: outcome.verdict });
    }

    /// Add what a trace came to whose steps are at hand, and so what it walked.
    pub fn record_trace(&mut self, trace: &Trace, outcome: Outcome) {
        let features = trace.header.features;
        let place = self.coverage.iter().position(|coverage| coverage.features == features);
        let place = place.unwrap_or_else(|| {
            self.coverage.push(Coverage::new(features));
            self.coverage.len() - 1
        });
        self.coverage[place].add(trace, &outcome.verdict);
        self.record(&trace.header.name, outcome);
    }

    /// Close the report: how long it took, and what the list of deviations has to say.
    ///
    /// With `complete`, every trace of every suite was run, so an entry that described nothing is
    /// worth a failure.
    pub fn finish(&mut self, took: Duration, deviations: Option<&Deviations>, complete: bool) {
        self.seconds = took.as_secs_f64();
        let Some(deviations) = deviations else { return };
        let known = |known: &Deviation| {
            let (breaks, reason) = (known.breaks.clone(), known.reason.clone());
            (known.id.clone(), Known { breaks, reason })
        };
        self.known = deviations.list.iter().map(known).collect();
        if complete {
            self.unused_deviations = deviations.unused().map(|known| known.id.clone()).collect();
        }
    }

    /// Whether nothing failed, and something was tested.
    pub fn is_good(&self) -> bool {
        let tested = self.counts.pass + self.counts.deviation;
        self.counts.fail == 0 && self.unused_deviations.is_empty() && tested > 0
    }

    /// The failures.
    pub fn failures(&self) -> impl Iterator<Item = (&str, &Mismatch)> {
        self.traces.iter().filter_map(|report| match &report.verdict {
            Verdict::Fail(mismatch) => Some((report.trace.as_str(), mismatch)),
            _ => None,
        })
    }

    /// Every deviation that was seen, with how many traces.
    pub fn deviations(&self) -> BTreeMap<&str, u64> {
        let mut seen = BTreeMap::new();
        for report in &self.traces {
            if let Verdict::Deviation { ids, .. } = &report.verdict {
                for id in ids {
                    *seen.entry(id.as_str()).or_default() += 1;
                }
            }
        }
        seen
    }

    /// Why traces were not run, with how many.
    pub fn inapplicable(&self) -> BTreeMap<&str, u64> {
        let mut seen = BTreeMap::new();
        for report in &self.traces {
            if let Verdict::NotApplicable { reason } = &report.verdict {
                *seen.entry(reason.as_str()).or_default() += 1;
            }
        }
        seen
    }
}

fn one_line(text: &str) -> String {
    text.split_whitespace().collect::<Vec<_>>().join(" ")
}

/// The whole reason is for the list; here it is enough to know which one it is.
fn first_sentence(reason: &str) -> String {
    let text = one_line(reason);
    match text.split_once(". ") {
        Some((first, _)) => format!("{first}."),
        None => text,
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Counts { pass, fail, deviation, not_applicable } = self.counts;
        writeln!(
            f,
            "{}: {} traces: {} pass, {} fail, {} known deviation, {} not applicable",
            self.target,
            HumanCount(self.traces.len() as u64),
            HumanCount(pass),
            HumanCount(fail),
            HumanCount(deviation),
            HumanCount(not_applicable),
        )?;
        let rate = self.ops as f64 / self.seconds.max(1e-9);
        let (ops, rate) = (HumanCount(self.ops), HumanCount(rate as u64));
        writeln!(f, "  {ops} ops in {:.2} s, {rate} a second", self.seconds)?;
        for (reason, count) in self.inapplicable() {
            writeln!(f, "  not applicable x{count}: {reason}")?;
        }
        for (reason, &count) in &self.unsaid {
            writeln!(f, "  {} steps left out: {reason}", HumanCount(count))?;
        }
        for (id, count) in self.deviations() {
            let reason = self.known.get(id).map_or("", |known| known.reason.as_str());
            let reason = if f.alternate() { one_line(reason) } else { first_sentence(reason) };
            writeln!(f, "  deviation x{count}: {id}: {reason}")?;
        }
        for id in &self.unused_deviations {
            writeln!(f, "  FAIL: the known deviation {id} did not show: drop it from the list")?;
        }
        if fail + pass + deviation == 0 {
            writeln!(f, "  FAIL: nothing was tested")?;
        }
        let shown = if f.alternate() { usize::MAX } else { SHOWN_FAILURES };
        for (trace, mismatch) in self.failures().take(shown) {
            writeln!(f, "  FAIL: {trace}: {mismatch}")?;
        }
        let more = self.counts.fail.saturating_sub(shown as u64);
        if more > 0 {
            writeln!(f, "  … and {} failures more; --json has them all", HumanCount(more))?;
        }
        Ok(())
    }
}
