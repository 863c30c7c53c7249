// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! Results to look at: one page that needs nothing beside it, and its pictures by themselves.
//!
//! Everything that comes from a file goes through the templates' escaping, and the page forbids
//! itself scripts and the network, so that a trace that is named like a program stays a name.

mod bugs;
mod claim;
mod failures;
mod heat;
mod history;
mod machine;
mod model;
mod sequence;
mod summary;
mod svg;

use maud::{DOCTYPE, Markup, PreEscaped, html};
use vfio_fsm_core::Features;

use crate::migrate::Matrix;
use crate::report::Report;
use crate::results::{Directory, Model, Part, Races, Run, Verdict};

use machine::count;

pub use heat::Heat;
pub use machine::Machine;
pub use sequence::Sequence;

const STYLE: &str = include_str!("page.css");

/// Nothing but what is in the page, and no script at all.
const POLICY: &str = "default-src 'none'; style-src 'unsafe-inline'; img-src data:";

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
                        (self.bugs())
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
}

fn mark(class: &str) -> &'static str {
    match class {
        "good" | "passed" => "✓",
        "failed" => "✗",
        _ => "◐",
    }
}

/// `2026-02-14T09:30:05Z` for a person.
fn when(began: &str) -> String {
    began.replacen('T', " ", 1).replacen('Z', " UTC", 1)
}

fn coverage_line(coverage: &crate::coverage::Coverage) -> String {
    let walked = coverage.arcs.iter().filter(|arc| arc.tally.traces > 0).count();
    let wrong = coverage.arcs.iter().filter(|arc| arc.tally.fail > 0).count();
    let fail = if wrong > 0 { format!(", {wrong} with wrong answers") } else { String::new() };
    format!("{walked} of {} arcs walked{fail}", coverage.arcs.len())
}
