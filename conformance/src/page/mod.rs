// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! Results to look at: one page that needs nothing beside it, and its pictures by themselves.
//!
//! Everything that comes from a file goes through the templates' escaping, and the page forbids
//! itself scripts and the network, so that a trace that is named like a program stays a name.

mod claim;
mod heat;
mod machine;
mod sequence;
mod svg;

use std::collections::{BTreeMap, BTreeSet};

use maud::{DOCTYPE, Markup, PreEscaped, html};
use vfio_fsm_core::Features;

use crate::catalogue::{Entry, entries};
use crate::migrate::{self, Matrix};
use crate::replay;
use crate::report::{Counts, Report};
use crate::results::{Claim, Directory, Model, Part, Races, Run, Space, Verdict};

use claim::{assumptions, prose};
use machine::count;

pub use heat::Heat;
pub use machine::Machine;
pub use sequence::Sequence;

const STYLE: &str = include_str!("page.css");

/// Nothing but what is in the page, and no script at all.
const POLICY: &str = "default-src 'none'; style-src 'unsafe-inline'; img-src data:";

/// So many failures without a story are listed by name.
const LISTED: usize = 100;

/// The page of a directory of results.
#[derive(Debug)]
pub struct Page<'a> {
    directory: &'a Directory,
    latest: Latest<'a>,
}

/// Of everything that was found the newest.
#[derive(Debug, Default)]
struct Latest<'a> {
    /// One for each target, those that failed before the others.
    replays: Vec<(&'a Run, &'a Report)>,
    /// The same.
    migrations: Vec<(&'a Run, &'a Matrix)>,
    model: Option<(&'a Run, &'a Model)>,
    races: Option<(&'a Run, &'a Races)>,
}

impl<'a> Latest<'a> {
    fn of(directory: &'a Directory) -> Self {
        let mut latest = Self::default();
        for (run, part) in directory.parts() {
            match part {
                Part::Replay(report) => {
                    if latest.replays.iter().all(|(_, known)| known.target != report.target) {
                        latest.replays.push((run, report));
                    }
                }
                Part::Migrate(matrix) => {
                    if latest.migrations.iter().all(|(_, known)| known.target != matrix.target) {
                        latest.migrations.push((run, matrix));
                    }
                }
                // One with everything counts for more than a model by itself.
                Part::Model(model) => match latest.model {
                    Some((_, known)) if !known.claims.is_empty() || model.claims.is_empty() => {}
                    _ => latest.model = Some((run, model)),
                },
                Part::Race(races) => {
                    latest.races.get_or_insert((run, races));
                }
                Part::Planted(_) | Part::Yardstick(_) | Part::Lab(_) => {}
            }
        }
        latest.replays.sort_by_key(|(_, report)| report.is_good());
        latest.migrations.sort_by_key(|(_, matrix)| matrix.failures().next().is_none());
        latest
    }
}

impl<'a> Page<'a> {
    /// Of these results.
    pub fn new(directory: &'a Directory) -> Self {
        Self { directory, latest: Latest::of(directory) }
    }

    /// The whole page.
    pub fn html(&self) -> String {
        let page = html! {
            (DOCTYPE)
            html lang="en" {
                head {
                    meta charset="utf-8";
                    meta name="viewport" content="width=device-width, initial-scale=1";
                    meta name="color-scheme" content="light dark";
                    meta http-equiv="Content-Security-Policy" content=(POLICY);
                    meta name="generator" content=(concat!("vfio-conform ", env!("CARGO_PKG_VERSION")));
                    title { "vfio-conform: " (self.verdict().1) }
                    link rel="icon" href="data:,";
                    style { (PreEscaped(STYLE)) (PreEscaped(svg::STYLE)) }
                }
                body {
                    (self.header())
                    main {
                        (self.summary())
                        (self.machines())
                        (self.failures())
                        (self.resets())
                        (self.deviations())
                        (self.model())
                        (self.claim())
                        (self.catalogue())
                        (self.history())
                    }
                    footer {
                        "What each part means: " code { "specs/reading-a-report.md" } ". Made by vfio-conform "
                        (env!("CARGO_PKG_VERSION")) "; the page needs no network and runs no script."
                    }
                }
            }
        };
        page.into_string()
    }

    /// Of the newest run of each kind the worst.
    fn verdict(&self) -> (&'static str, &'static str) {
        let replays = self.latest.replays.iter().map(|(run, _)| *run);
        let migrations = self.latest.migrations.iter().map(|(run, _)| *run);
        let rest = self.latest.model.map(|(run, _)| run).into_iter();
        let races = self.latest.races.map(|(run, _)| run);
        let newest = self.directory.runs.first().into_iter();
        let runs: Vec<_> =
            replays.chain(migrations).chain(rest).chain(races).chain(newest).collect();
        let is = |verdict| runs.iter().any(|run| run.head.verdict == verdict);
        if is(Verdict::Failed) {
            ("failed", "something failed")
        } else if is(Verdict::NotFinished) {
            ("unfinished", "not finished")
        } else {
            ("good", "all good")
        }
    }

    fn header(&self) -> Markup {
        let (class, verdict) = self.verdict();
        let runs = &self.directory.runs;
        html! {
            header {
                h1 { "VFIO migration conformance" }
                p.banner.(class) role="status" {
                    span.mark aria-hidden="true" { (mark(class)) } " " (verdict)
                }
                p.sub {
                    (runs.len()) @if runs.len() == 1 { " run" } @else { " runs" }
                    @if let Some(latest) = runs.first() { ", the latest of " (when(&latest.head.began)) }
                }
                nav aria-label="Parts of this page" {
                    @for (id, title) in [
                        ("summary", "Summary"), ("machine", "Machine"), ("failures", "Failures"),
                        ("resets", "Resets"), ("deviations", "Deviations"), ("model", "Model"),
                        ("claim", "Assumptions"), ("bugs", "Bugs"), ("history", "History"),
                    ] { a href=(format!("#{id}")) { (title) } }
                }
            }
        }
    }

    // -----------------------------------------------------------------------------------------
    // Summary

    fn summary(&self) -> Markup {
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

    // -----------------------------------------------------------------------------------------
    // Machine

    fn machines(&self) -> Markup {
        let walked = self.latest.replays.iter().filter(|(_, report)| !report.coverage.is_empty());
        let walked: Vec<_> = walked.collect();
        html! {
            section id="machine" {
                h2 { "The machine, and what was walked of it" }
                p.lead {
                    "Every arc with what came of the traces that walked it. A wrong answer is put down to "
                    "the latest arc or reset before it, of the same device: an answer says most of what was "
                    "done last."
                }
                @if walked.is_empty() {
                    p.none { "No replay is among the results: this is the bare machine." }
                    figure { (Machine::bare(Features::ALL).draw()) }
                }
                @for (index, (_, report)) in walked.iter().enumerate() {
                    @let mut all: Vec<_> = report.coverage.iter().collect();
                    @let () = all.sort_by_key(|coverage| std::cmp::Reverse(coverage.features.flags()));
                    h3 { (report.target) }
                    @for (number, coverage) in all.iter().enumerate() {
                        details open[index == 0 && number == 0] {
                            summary { (coverage.features) span.sub { " " (coverage_line(coverage)) } }
                            figure { (Machine::walked(coverage).draw()) }
                        }
                    }
                }
            }
        }
    }

    // -----------------------------------------------------------------------------------------
    // Failures

    fn failures(&self) -> Markup {
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

    // -----------------------------------------------------------------------------------------
    // Resets

    fn resets(&self) -> Markup {
        html! {
            section id="resets" {
                h2 { "A reset at every step" }
                @if self.latest.migrations.is_empty() {
                    p.none { "No migrations are among the results: " code { "vfio-conform migrate --results DIR" } " runs them." }
                }
                @for (_, matrix) in self.latest.migrations.iter() {
                    h3 { (matrix.target) ": " (matrix.cases.len()) " of " (matrix.planned) " cases" }
                    figure.wide { (Heat::new(matrix).draw()) }
                }
            }
        }
    }

    // -----------------------------------------------------------------------------------------
    // Deviations

    fn deviations(&self) -> Markup {
        let known: Vec<_> = self
            .latest
            .replays
            .iter()
            .map(|(_, report)| (report, report.deviations()))
            .filter(|(report, seen)| !seen.is_empty() || !report.unused_deviations.is_empty())
            .collect();
        html! {
            section id="deviations" {
                h2 { "Known deviations" }
                @if known.is_empty() { p.none { "None was met, and none was listed in vain." } }
                @for (report, seen) in known {
                    h3 { (report.target) }
                    table {
                        thead { tr { th { "deviation" } th.number { "traces" } th { "breaks" } th { "why" } } }
                        tbody { @for (id, traces) in seen {
                            @let known = report.known.get(id);
                            tr {
                                td { code { (id) } }
                                td.number { (count(traces)) }
                                td { @if let Some(known) = known { (known.breaks.join(", ")) } }
                                td { @if let Some(known) = known { (known.reason.trim()) } }
                            }
                        } }
                    }
                    @for id in &report.unused_deviations {
                        p.warning { code { (id) } " did not show: drop it from the list, or find out why." }
                    }
                }
            }
        }
    }

    // -----------------------------------------------------------------------------------------
    // Model

    fn model(&self) -> Markup {
        let Some((run, model)) = self.latest.model else {
            return html! { section id="model" {
                h2 { "Model" }
                p.none { "No model check is among the results: " code { "vfio-conform check --results DIR" } " does one." }
            } };
        };
        let levels = [
            ("Level 1: any VMM, and the sessions that ship", &model.spaces),
            ("Level 2: the locks of a driver", &model.lock_spaces),
            ("Level 3: two machines", &model.system_spaces),
        ];
        html! {
            section id="model" {
                h2 { "Model" }
                p.lead { "Of " (when(&run.head.began)) ". Every property is true in every world that was reached, unless it says so." }
                @if let Some(why) = &model.not_finished { p.warning { "Not finished: " (why) } }
                @for (title, spaces) in levels.iter().filter(|(_, spaces)| !spaces.is_empty()) {
                    h3 { (title) }
                    (spaces_table(spaces))
                }
                @if !model.properties.is_empty() { (properties(model)) }
            }
        }
    }

    fn claim(&self) -> Markup {
        let claims =
            self.latest.model.map(|(_, model)| model.claims.as_slice()).unwrap_or_default();
        let dropped: Vec<_> =
            claims.iter().filter(|claim| claim.fault.starts_with("assumption:")).collect();
        html! {
            section id="claim" {
                h2 { "What it stands on" }
                p.lead { "The assumptions of the settled claim, from " code { "specs/settled-claim.md" } "." }
                table {
                    thead { tr { th { "assumption" } th { "with it" } th { "without it" } } }
                    tbody { @for row in assumptions() { tr {
                        td { (prose(&row.text)) } td { (prose(&row.with)) } td { (prose(&row.without)) }
                    } } }
                }
                h3 { "Dropped assumptions" }
                @if dropped.is_empty() { p.none { "No model check with its claims is among the results." } }
                @else {
                    p { "A model without the assumption must break the property: in so many steps it does." }
                    (claims_table(&dropped))
                }
            }
        }
    }

    // -----------------------------------------------------------------------------------------
    // Bugs

    fn catalogue(&self) -> Markup {
        let entries = entries().unwrap_or_default();
        let claims =
            self.latest.model.map(|(_, model)| model.claims.as_slice()).unwrap_or_default();
        let traces = self.first_traces();
        html! {
            section id="bugs" {
                h2 { "Bugs that others had" }
                p.lead { (entries.len()) " bugs of drivers, the kernel and VMMs, and what catches each here." }
                table.bugs {
                    thead { tr { th { "bug" } th { "whose" } th { "what" } th { "caught by" } } }
                    tbody { @for entry in &entries { (bug(entry, claims, &traces)) } }
                }
            }
        }
    }

    /// For each planted bug, where the suites find it.
    fn first_traces(&self) -> BTreeMap<&str, &str> {
        let mut traces = BTreeMap::new();
        for (_, part) in self.directory.parts() {
            match part {
                Part::Planted(planted) => {
                    for (bug, trace) in planted {
                        if let Some(trace) = trace {
                            traces.entry(bug.as_str()).or_insert(trace.as_str());
                        }
                    }
                }
                Part::Yardstick(yardstick) => {
                    for planted in &yardstick.planted {
                        if let Some(found) =
                            planted.found.values().flatten().min_by_key(|it| it.step)
                        {
                            traces.entry(planted.fault.as_str()).or_insert(found.trace.as_str());
                        }
                    }
                }
                _ => {}
            }
        }
        traces
    }

    // -----------------------------------------------------------------------------------------
    // History

    fn history(&self) -> Markup {
        html! {
            section id="history" {
                h2 { "History" }
                table {
                    thead { tr { th { "when" } th { "command" } th { "verdict" } th { "found" } } }
                    tbody { @for run in &self.directory.runs {
                        @let (class, verdict) = said(run.head.verdict);
                        tr {
                            td { time datetime=(run.head.began) { (when(&run.head.began)) } br; span.sub { (run.name) } }
                            td { code { (run.head.command) } br; span.sub { (run.head.arguments.join(" ")) } }
                            td { span.(format!("tag {class}")) { (mark(class)) " " (verdict) } }
                            td { @for part in &run.parts { div { (found(part)) } }
                                @if !run.others.is_empty() { div.sub { "and: " (run.others.join(", ")) } } }
                        }
                    } }
                }
            }
        }
    }
}

fn mark(class: &str) -> &'static str {
    match class {
        "good" | "passed" => "✓",
        "failed" => "✗",
        _ => "◐",
    }
}

const fn said(verdict: Verdict) -> (&'static str, &'static str) {
    match verdict {
        Verdict::Good => ("good", "good"),
        Verdict::Failed => ("failed", "failed"),
        Verdict::NotFinished => ("unfinished", "not finished"),
    }
}

/// `2026-02-14T09:30:05Z` for a person.
fn when(began: &str) -> String {
    began.replacen('T', " ", 1).replacen('Z', " UTC", 1)
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

fn bar(counts: Counts) -> Markup {
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

fn coverage_line(coverage: &crate::coverage::Coverage) -> String {
    let walked = coverage.arcs.iter().filter(|arc| arc.tally.traces > 0).count();
    let wrong = coverage.arcs.iter().filter(|arc| arc.tally.fail > 0).count();
    let fail = if wrong > 0 { format!(", {wrong} with wrong answers") } else { String::new() };
    format!("{walked} of {} arcs walked{fail}", coverage.arcs.len())
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

fn spaces_table(spaces: &[Space]) -> Markup {
    html! {
        table {
            thead { tr {
                th { "model" } th { "flags" } th { "verdict" } th.number { "worlds" } th.number { "steps" }
                th.number { "depth" } th.number { "seconds" } th.number { "properties" }
            } }
            tbody { @for space in spaces {
                @let (class, verdict) = match (space.failures.is_empty(), &space.not_finished) {
                    (false, _) => ("failed", "broken"),
                    (true, Some(_)) => ("unfinished", "not finished"),
                    (true, None) => ("good", "hold"),
                };
                tr {
                    td { (space.model) } td.flags { (space.features) }
                    td { span.(format!("tag {class}")) { (mark(class)) " " (verdict) }
                        @for failure in &space.failures { pre { (failure) } } }
                    td.number { (count(space.states)) } td.number { (count(space.transitions)) }
                    td.number { (space.depth) } td.number { (format!("{:.1}", space.seconds)) }
                    td.number { (space.judged.len()) }
                }
            } }
        }
    }
}

fn properties(model: &Model) -> Markup {
    let spaces = || model.spaces.iter().chain(&model.lock_spaces).chain(&model.system_spaces);
    let judged = |id: &str| spaces().filter_map(|space| space.judged.get(id)).sum::<u64>();
    let catches = |id: &str| {
        let claims =
            model.claims.iter().filter(|claim| claim.property == id && claim.steps.is_some());
        claims.map(|claim| claim.fault.as_str()).collect::<BTreeSet<_>>().len()
    };
    html! {
        details {
            summary { (model.properties.len()) " properties" span.sub { " what each says, how often it judged, and how many faults it catches" } }
            table {
                thead { tr { th { "property" } th { "what it says" } th.number { "judged" } th.number { "catches" } } }
                tbody { @for property in &model.properties { tr {
                    td { code { (property.id) } }
                    td { (property.text) " " span.sub { (property.covers.join(", ")) } }
                    td.number { (count(judged(&property.id))) } td.number { (catches(&property.id)) }
                } } }
            }
        }
    }
}

fn claims_table(claims: &[&Claim]) -> Markup {
    html! {
        table {
            thead { tr { th { "dropped" } th { "breaks" } th { "in the model" } th.number { "steps" } } }
            tbody { @for claim in claims { tr {
                td { code { (claim.fault.trim_start_matches("assumption:")) } }
                td { code { (claim.property) } }
                td { (claim.model) ", " span.flags { (claim.features) }
                    @if let Some(run) = &claim.run { details { summary { "the run" } pre { (run) } } } }
                td.number { @match claim.steps {
                    Some(steps) => { (steps) }
                    None => { span."tag failed" { "✗ not broken" } }
                } }
            } } }
        }
    }
}

fn bug(entry: &Entry, claims: &[Claim], traces: &BTreeMap<&str, &str>) -> Markup {
    html! {
        tr id=(entry.id) {
            td { code { (entry.id) } }
            td { (entry.subsystem) }
            td { (entry.what) br; span.sub { (entry.source) } }
            td {
                @for fault in &entry.faults {
                    div {
                        code { (fault) }
                        @for claim in claims.iter().filter(|claim| claim.fault == *fault) {
                            div.sub { @match claim.steps {
                                Some(steps) => { "✓ " (claim.property) ", " (steps) " steps" }
                                None => { span."tag failed" { "✗ survives " (claim.property) } }
                            } }
                        }
                        @if let Some(trace) = fault.strip_prefix("device:").and_then(|slug| traces.get(slug)) {
                            div.sub { "✓ trace " (trace) }
                        }
                    }
                }
                @if let Some(reason) = &entry.not_here {
                    span.sub { "Not in the model: " (reason) " " @if let Some(tested) = &entry.tested { "Tested: " (tested) } }
                }
            }
        }
    }
}

/// A part of a run in a line.
fn found(part: &Part) -> Markup {
    match part {
        Part::Replay(report) => html! {
            (report.target) ": " (count(report.counts.pass)) " pass, " (count(report.counts.fail)) " fail, "
            (count(report.counts.deviation)) " known" (bar(report.counts))
        },
        Part::Model(model) => {
            html! { (model.spaces.len() + model.lock_spaces.len() + model.system_spaces.len()) " models" }
        }
        Part::Migrate(matrix) => {
            html! { "migration on " (matrix.target) ": " (matrix.cases.len()) " cases, " (matrix.failures().count()) " fail" }
        }
        Part::Race(races) => {
            html! { (count(races.rounds)) " races, " (races.failures.len()) " unexplained" }
        }
        Part::Planted(planted) => {
            html! { (planted.values().flatten().count()) " of " (planted.len()) " planted bugs found" }
        }
        Part::Yardstick(yardstick) => {
            html! { (yardstick.planted.len()) " planted bugs, suite by suite" }
        }
        Part::Lab(lab) => html! { "Linux " (lab.kernel) ", " (lab.boots) " boots" },
    }
}
