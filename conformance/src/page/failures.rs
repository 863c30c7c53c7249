// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! What failed, each with its story.

use std::collections::{BTreeMap, BTreeSet};

use maud::{Markup, html};

use super::machine::count;
use super::{Page, Sequence};
use crate::migrate::{self, Matrix};
use crate::replay;
use crate::report::Report;

/// So many failures without a story are listed by name.
const LISTED: usize = 100;

impl Page<'_> {
    pub(super) fn failures(&self) -> Markup {
        let failing = self.latest.replays.iter().filter(|(_, report)| report.counts.fail > 0);
        let failing: Vec<_> = failing.collect();
        let migrations =
            self.latest.migrations.iter().filter(|(_, matrix)| matrix.failures().next().is_some());
        let migrations: Vec<_> = migrations.collect();
        let races = self.latest.races.filter(|(_, races)| !races.failures.is_empty());
        html! {
            section id="failures" {
                h2 { "Failures" }
                @if failing.is_empty() && migrations.is_empty() && races.is_none() {
                    p.none { "No trace, no migration and no race failed." }
                }
                @for (_, report) in failing {
                    h3 { (report.target) ": " (count(report.counts.fail)) " of " (count(report.traces.len() as u64)) " traces fail" }
                    (trace_failures(report))
                }
                @for (_, matrix) in migrations {
                    h3 { "Migration on " (matrix.target) }
                    @for (case, failure, alike) in of_each_kind(matrix) {
                        details {
                            summary {
                                code { (case) } ": " (failure.what)
                                @if alike > 1 { " " span.tag { (alike) " alike" } }
                            }
                            pre { @for line in &failure.story { (line) "\n" } }
                        }
                    }
                }
                @if let Some((_, races)) = races {
                    h3 { "Races" }
                    @for failure in races.failures.iter().take(LISTED) {
                        details { summary { code { (failure.round) } } pre { (failure.history) } }
                    }
                }
            }
        }
    }
}

/// With a picture for each kind of failure that was told, and the names of some others.
fn trace_failures(report: &Report) -> Markup {
    let (told, rest): (Vec<_>, Vec<_>) =
        report.failures().partition(|(_, mismatch)| !mismatch.story.is_empty());
    let mut alike: BTreeMap<[&str; 3], u64> = BTreeMap::new();
    let kind = |mismatch: &'_ replay::Mismatch| {
        [mismatch.op.clone(), mismatch.expected.clone(), mismatch.seen.clone()]
    };
    for (_, mismatch) in report.failures() {
        *alike.entry([&mismatch.op, &mismatch.expected, &mismatch.seen]).or_default() += 1;
    }
    let kinds: BTreeSet<_> = told.iter().map(|(_, mismatch)| kind(mismatch)).collect();
    let others: Vec<_> = rest.into_iter().filter(|(_, it)| !kinds.contains(&kind(it))).collect();
    html! {
        @for (index, (trace, mismatch)) in told.iter().enumerate() {
            @let same = alike.get(&[mismatch.op.as_str(), &mismatch.expected, &mismatch.seen]).copied().unwrap_or(1);
            details.failure open[index < 3] {
                summary {
                    code { (trace) } " step " (mismatch.step) ": " (mismatch.op)
                    span.sub { " expected " (mismatch.expected) ", saw " (mismatch.seen) }
                    @if same > 1 { " " span.tag { (count(same)) " alike" } }
                }
                figure.wide { (Sequence::new(trace, &mismatch.story).draw()) }
            }
        }
        @if !others.is_empty() {
            details { summary { (count(others.len() as u64)) " more, not told step by step" }
                ul { @for (trace, mismatch) in others.iter().take(LISTED) { li { code { (trace) } ": " (mismatch) } } }
                @if others.len() > LISTED { p.sub { "and " (count((others.len() - LISTED) as u64)) " more in the JSON" } }
            }
        }
    }
}

/// The first failure of each kind of a matrix, and how many there are of it.
fn of_each_kind(matrix: &Matrix) -> Vec<(&migrate::Case, &migrate::Failure, u64)> {
    let mut kinds: Vec<(&migrate::Case, &migrate::Failure, u64)> = Vec::new();
    for (case, failure) in matrix.failures() {
        match kinds.iter_mut().find(|(_, known, _)| known.what == failure.what) {
            Some((_, _, alike)) => *alike += 1,
            None => kinds.push((case, failure, 1)),
        }
    }
    kinds
}
