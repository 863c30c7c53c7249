// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! What came of a reset at every step of a migration: the steps from left to right, when and under
//! which recovery from top to bottom.

use std::collections::BTreeMap;

use maud::{Markup, html};

use super::svg::{self, fit};
use crate::migrate::{Case, CaseReport, Choice, Matrix, Outcome, Seen, When};

const CELL: (i32, i32) = (36, 24);
const LEFT: i32 = 168;
const TOP: i32 = 122;
const WHENS: [When; 3] = [When::Before, When::Within, When::After];
/// The legend has a line for so many pairs.
const LEGEND: [(&str, &str, &str); 6] = [
    ("equal", "=", "the destination is what the source was after the reset"),
    ("whole", "W", "read to its end before the host's reset: what the source was before"),
    ("aborted", "A", "failed and said so, the source runs"),
    ("mixed", "A/=", "either, by where a reset against the clock fell"),
    ("fail", "✗", "did not end as it must"),
    ("none", "", "there is no such case"),
];

/// Which resets.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Way {
    /// Those of a migration that goes on.
    There,
    /// Those of one that was cancelled.
    Back,
}

/// The resets of a matrix of migrations.
#[derive(Clone, Copy, Debug)]
pub struct Heat<'a> {
    matrix: &'a Matrix,
}

impl<'a> Heat<'a> {
    /// Of this matrix.
    pub const fn new(matrix: &'a Matrix) -> Self {
        Self { matrix }
    }

    /// As a picture that stands for itself.
    pub fn svg(&self) -> String {
        svg::alone(&self.draw())
    }

    /// As a part of a page.
    pub(super) fn draw(&self) -> Markup {
        let sequence = &self.matrix.sequence;
        let columns = sequence.ops.len();
        let cancel = sequence.cancel.max(1);
        let way_back = sequence.cancelled.get(cancel - 1..).unwrap_or_default();
        let there = rows(Way::There);
        let back = rows(Way::Back);
        let height = |rows: &[Row]| rows.len() as i32 * CELL.1;
        let second = TOP + height(&there) + 156;
        let legend = second + height(&back) + 26;
        let width = (LEFT + columns as i32 * CELL.0 + 60).max(760);
        let bottom = legend + LEGEND.len() as i32 * 22 + 14;
        let title = format!("Resets in migrations on {}", fit(&self.matrix.target, 60));
        html! {
            svg.diagram.heat xmlns="http://www.w3.org/2000/svg" role="img" viewBox=(format!("0 0 {width} {bottom}")) width=(width) {
                title { (title) }
                desc { (self.describe()) }
                (self.table(&there, TOP, (1, &sequence.ops), sequence.frozen))
                text.head x="8" y=(second - 128) { "cancelled before step " (sequence.cancel) ", and reset on the way back" }
                (self.table(&back, second, (cancel, way_back), usize::MAX))
                (draw_legend(legend))
            }
        }
    }

    fn describe(&self) -> String {
        let cells = self.matrix.cases.iter().filter(|report| report.case.reset().is_some());
        cells.map(|report| format!("{}: {}. ", report.case, outcome(report).1)).collect()
    }

    /// Of these ops, the first of which is step `from`.
    fn table(
        &self,
        rows: &[Row],
        top: i32,
        (from, ops): (usize, &[String]),
        frozen: usize,
    ) -> Markup {
        let (width, height) = CELL;
        let x = |step: usize| LEFT + (step - from) as i32 * width;
        html! {
            @if (1..=ops.len()).contains(&frozen) {
                rect.frozen x=(x(frozen)) y=(top - 22) width=((ops.len() - frozen + 1) as i32 * width) height="20" {
                    title { "the guest is frozen from step " (frozen) " on" }
                }
            }
            @for (step, op) in (from..).zip(ops) {
                @let middle = x(step) + width / 2;
                text.head x=(middle) y=(top - 7) text-anchor="middle" { (step) }
                text.small x=(middle - 4) y=(top - 26) transform=(format!("rotate(-48 {} {})", middle - 4, top - 26)) { (fit(op, 17)) }
            }
            @for (index, row) in (0..).zip(rows) {
                @let y = top + index * height;
                text x="8" y=(y + 16) {
                    @if row.is_first { (row.when) " it" }
                }
                text.small x=(LEFT - 10) y=(y + 16) text-anchor="end" { (row.named()) }
                @for (step, op) in (from..).zip(ops) {
                    (self.cell(row, step, op, (x(step), y)))
                }
                @if row.is_first && index > 0 {
                    line.life x1="8" y1=(y) x2=(x(from + ops.len())) y2=(y) stroke="currentColor" stroke-opacity=".35" {}
                }
            }
        }
    }

    fn cell(&self, row: &Row, step: usize, op: &str, (x, y): (i32, i32)) -> Markup {
        let reports: Vec<_> =
            self.matrix.cases.iter().filter(|report| row.has(&report.case, step)).collect();
        let (class, short, long) = match (row.what, reports.first()) {
            (_, None) => ("none", String::new(), "no such case".to_owned()),
            (What::SeenBy, Some(_)) => seen(&reports),
            (_, Some(report)) => {
                let (class, long) = outcome(report);
                (class, short(report), long)
            }
        };
        let (width, height) = CELL;
        html! {
            g class=(format!("cell {class}")) data-cell=(format!("{}-{step}-{}", row.when, row.named())) {
                title { "reset " (row.when) " step " (step) ", " (op) ", " (row.named()) ": " (long) }
                rect x=(x) y=(y) width=(width) height=(height) {}
                text x=(x + width / 2) y=(y + 16) { (short) }
            }
        }
    }
}

/// One line of cells.
struct Row {
    way: Way,
    when: When,
    what: What,
    is_first: bool,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum What {
    SeenBy,
    Chosen(Choice),
}

fn rows(way: Way) -> Vec<Row> {
    let whats = match way {
        Way::There => {
            let [abort, restart, stop_copy] = Choice::ALL.map(What::Chosen);
            vec![What::SeenBy, abort, restart, stop_copy]
        }
        Way::Back => vec![What::SeenBy, What::Chosen(Choice::Abort)],
    };
    let row = |when| {
        let whats = whats.clone().into_iter().enumerate();
        whats.map(move |(index, what)| Row { way, when, what, is_first: index == 0 })
    };
    WHENS.into_iter().flat_map(row).collect()
}

impl Row {
    fn named(&self) -> String {
        match self.what {
            What::SeenBy => "seen by".to_owned(),
            What::Chosen(_) if self.way == Way::Back => "ended".to_owned(),
            What::Chosen(choice) => choice.to_string(),
        }
    }

    fn has(&self, case: &Case, step: usize) -> bool {
        let way = match case {
            Case::Reset { .. } => Way::There,
            Case::ResetOnTheWayBack { .. } => Way::Back,
            _ => return false,
        };
        let chosen = match self.what {
            What::SeenBy => true,
            What::Chosen(choice) => case.choice() == choice,
        };
        way == self.way && case.reset() == Some((step, self.when)) && chosen
    }
}

/// The class of a case, and what it came to in words.
fn outcome(report: &CaseReport) -> (&'static str, String) {
    if let Some(failure) = report.failures.first() {
        return ("fail", failure.what.clone());
    }
    let all: Vec<_> = report.outcomes.keys().map(ToString::to_string).collect();
    let class = match report.outcomes.keys().collect::<Vec<_>>().as_slice() {
        [Outcome::Equal] => "equal",
        [Outcome::Whole] => "whole",
        [Outcome::Aborted] => "aborted",
        [Outcome::Stuck] => "stuck",
        _ => "mixed",
    };
    (class, all.join(" or "))
}

fn short(report: &CaseReport) -> String {
    if !report.failures.is_empty() {
        return "✗".to_owned();
    }
    let short = |outcome: &Outcome| match outcome {
        Outcome::Equal => "=",
        Outcome::Whole => "W",
        Outcome::Aborted => "A",
        Outcome::Stuck => "S",
    };
    report.outcomes.keys().map(short).collect::<Vec<_>>().join("/")
}

/// How a reset at one point was seen, whatever was chosen then.
fn seen(reports: &[&CaseReport]) -> (&'static str, String, String) {
    let mut all: BTreeMap<Seen, u32> = BTreeMap::new();
    for (seen, count) in reports.iter().flat_map(|report| &report.seen) {
        *all.entry(*seen).or_default() += count;
    }
    let short = |seen: &Seen| match seen {
        Seen::Not => "–",
        Seen::DeadFd => "dead",
        Seen::UnexpectedFd => "new",
        Seen::AlreadyRunning => "noop",
        Seen::DeferredIntoSet => "SET",
        Seen::Ordered => "own",
    };
    let shown = match all.keys().collect::<Vec<_>>().as_slice() {
        [one] => short(one).to_owned(),
        many => format!("{}+", many.len()),
    };
    let long: Vec<_> = all.iter().map(|(seen, count)| format!("{seen} ×{count}")).collect();
    ("seen", shown, long.join(", "))
}

fn draw_legend(top: i32) -> Markup {
    html! {
        @for (index, (class, short, long)) in (0..).zip(LEGEND) {
            @let y = top + index * 22;
            g class=(format!("cell {class}")) {
                rect x="8" y=(y) width="36" height="18" {}
                text x="26" y=(y + 13) { (short) }
            }
            text.small x="54" y=(y + 13) { (long) }
        }
        @for (index, line) in (0..).zip([
            "seen by: – not at all; dead: a call on the data_fd failed;",
            "new: a SET that should go on began a session; noop: in RUNNING,",
            "where SET(RUNNING) hides it; SET: GET says RUNNING behind a SET",
            "that succeeded; own: the VMM's own reset. The tinted steps have",
            "the guest frozen. A cell's title has it in full.",
        ]) {
            text.small x="452" y=(top + 13 + index * 22) { (line) }
        }
    }
}
