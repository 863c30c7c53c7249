// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! Every run of the directory in a row.

use maud::{Markup, html};

use super::machine::count;
use super::summary::bar;
use super::{Page, mark, when};
use crate::results::{Part, Verdict};

impl Page<'_> {
    pub(super) fn history(&self) -> Markup {
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

const fn said(verdict: Verdict) -> (&'static str, &'static str) {
    match verdict {
        Verdict::Good => ("good", "good"),
        Verdict::Failed => ("failed", "failed"),
        Verdict::NotFinished => ("unfinished", "not finished"),
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
