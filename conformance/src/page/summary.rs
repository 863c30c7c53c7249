// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! What came of each kind of run, on a card.

use std::collections::BTreeMap;

use maud::{Markup, html};

use super::machine::count;
use super::{Page, mark, when};
use crate::migrate::Matrix;
use crate::report::{Counts, Report};
use crate::results::{Model, Part, Races, Run};

impl Page<'_> {
    pub(super) fn summary(&self) -> Markup {
        html! {
            section id="summary" {
                h2 { "Summary" }
                @if !self.directory.refused.is_empty() {
                    div.warning role="alert" {
                        strong { "Not in this report:" }
                        ul { @for refused in &self.directory.refused {
                            li { code { (refused.name) } ": " (refused.why) }
                        } }
                    }
                }
                div.cards {
                    @for (run, report) in self.latest.replays.iter() { (replay_card(run, report)) }
                    @for (run, matrix) in self.latest.migrations.iter() { (migration_card(run, matrix)) }
                    @if let Some((run, model)) = self.latest.model { (model_card(run, model)) }
                    @if let Some((run, races)) = self.latest.races { (races_card(run, races)) }
                    @for (run, part) in self.directory.parts() {
                        @if let Part::Lab(lab) = part {
                            (card(run, "Lab", &format!("Linux {}", lab.kernel), lab.missing == 0, &html! {
                                p { (lab.boots) " boots; " (lab.ended)
                                    @if lab.missing > 0 { "; " (count(lab.missing)) " traces have no verdict" } }
                            }))
                        }
                    }
                }
            }
        }
    }
}

fn card(run: &Run, kind: &str, name: &str, good: bool, body: &Markup) -> Markup {
    let class = if good { "good" } else { "failed" };
    html! {
        article.card.(class) {
            h3 { span.mark aria-hidden="true" { (mark(class)) } " " (name) }
            (body)
            p.sub { (kind) ", " (when(&run.head.began)) }
        }
    }
}

fn replay_card(run: &Run, report: &Report) -> Markup {
    let counts = report.counts;
    card(
        run,
        "Replay",
        &report.target,
        report.is_good(),
        &html! {
            (bar(counts))
            p {
                b { (count(counts.pass)) } " pass, " b { (count(counts.fail)) } " fail, "
                b { (count(counts.deviation)) } " known deviation, " b { (count(counts.not_applicable)) } " not applicable"
            }
            @let suites = by_suite(report);
            details { summary { (suites.len()) @if suites.len() == 1 { " suite, " } @else { " suites, " } (count(report.ops)) " ops in " (format!("{:.2}", report.seconds)) " s" }
                table {
                    thead { tr { th { "suite" } th.number { "pass" } th.number { "fail" } th.number { "known" } th.number { "n/a" } } }
                    tbody { @for (suite, counts) in suites { tr {
                        td { (suite) } td.number { (count(counts.pass)) } td.number { (count(counts.fail)) }
                        td.number { (count(counts.deviation)) } td.number { (count(counts.not_applicable)) }
                    } } }
                }
                @for (reason, traces) in report.inapplicable() { p.sub { (count(traces)) " not applicable: " (reason) } }
            }
        },
    )
}

/// The suite stands at the head of a trace's name.
fn by_suite(report: &Report) -> BTreeMap<&str, Counts> {
    let mut suites: BTreeMap<&str, Counts> = BTreeMap::new();
    for trace in &report.traces {
        let suite = trace.trace.split('/').next().unwrap_or_default();
        suites.entry(suite).or_default().add(&trace.verdict);
    }
    suites
}

pub(super) fn bar(counts: Counts) -> Markup {
    let Counts { pass, fail, deviation, not_applicable } = counts;
    let parts =
        [("passed", pass), ("deviated", deviation), ("failed", fail), ("untried", not_applicable)];
    let all = parts.iter().map(|(_, n)| n).sum::<u64>().max(1);
    // What there is can be seen, however little.
    let width = |n: u64| if n == 0 { 0.0 } else { (n as f64 / all as f64 * 100.0).max(1.5) };
    html! {
        div.bar role="img" aria-label=(format!("{pass} pass, {deviation} known deviation, {fail} fail, {not_applicable} not applicable")) {
            @for (class, n) in parts { @if n > 0 { span.(class) style=(format!("flex: {:.2}", width(n))) {} } }
        }
    }
}

fn migration_card(run: &Run, matrix: &Matrix) -> Markup {
    let failures = matrix.failures().count();
    let good = failures == 0 && !matrix.cases.is_empty() && matrix.cases.len() == matrix.planned;
    card(
        run,
        "Migrations",
        &matrix.target,
        good,
        &html! {
            p { b { (matrix.cases.len()) } " of " (matrix.planned) " cases, a reset or a cancel at each step: " b { (failures) } " fail" }
        },
    )
}

fn model_card(run: &Run, model: &Model) -> Markup {
    let spaces = || model.spaces.iter().chain(&model.lock_spaces).chain(&model.system_spaces);
    let states: u64 = spaces().map(|space| space.states).sum();
    let broken = spaces().filter(|space| !space.failures.is_empty()).count();
    let caught = model.claims.iter().filter(|claim| claim.steps.is_some()).count();
    let good = broken == 0 && caught == model.claims.len() && model.not_finished.is_none();
    card(
        run,
        "Model check",
        "Model",
        good,
        &html! {
            p { b { (spaces().count()) } " models, " b { (count(states)) } " worlds: " b { (broken) } " broken" }
            @if !model.claims.is_empty() {
                p { b { (caught) } " of " (model.claims.len()) " claims to catch a fault hold" }
            }
        },
    )
}

fn races_card(run: &Run, races: &Races) -> Markup {
    let good = races.failures.is_empty() && races.rounds > 0;
    card(
        run,
        "Races",
        "Races of threads",
        good,
        &html! {
            p { b { (count(races.rounds)) } " rounds, " (count(races.calls)) " calls: " b { (races.failures.len()) } " without an explanation" }
        },
    )
}
