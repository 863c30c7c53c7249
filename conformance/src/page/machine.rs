// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! The machine as a picture: its states on a grid on which every arc of every flag set is a straight
//! line, and, if something was walked, what came of each arc, in words, line and colour.

use std::fmt::{self, Write as _};

use maud::{Markup, html};
use vfio_fsm_core::{Arc, Direction, Dot, Features, Mermaid, State, arcs};

use super::svg;
use crate::coverage::{Came, Coverage, Tally};

const WIDTH: i32 = 1070;
const HEIGHT: i32 = 452;
const NODE: (i32, i32) = (146, 58);
/// From the line of one direction to that of the other, halved.
const LANE: i32 = 12;

/// The middle of a state's box. RUNNING and what is before it stand to the left, so that a
/// migration goes from left to right at the source: along the upper row, with PRE_COPY.
const fn place(state: State) -> (i32, i32) {
    match state {
        State::PreCopy => (150, 60),
        State::PreCopyP2p => (427, 60),
        State::StopCopy => (704, 60),
        State::Running => (150, 226),
        State::RunningP2p => (427, 226),
        State::Stop => (704, 226),
        State::Resuming => (981, 226),
        State::Error => (150, 392),
    }
}

/// The machine of a flag set, and what was walked of it, if anything was.
#[derive(Clone, Copy, Debug)]
pub struct Machine<'a> {
    features: Features,
    coverage: Option<&'a Coverage>,
}

impl<'a> Machine<'a> {
    /// The bare machine.
    pub const fn bare(features: Features) -> Self {
        Self { features, coverage: None }
    }

    /// The machine with what was walked of it.
    pub const fn walked(coverage: &'a Coverage) -> Self {
        Self { features: coverage.features, coverage: Some(coverage) }
    }

    fn tally(&self, arc: Arc) -> Option<Tally> {
        let mut all = self.coverage?.arcs.iter();
        all.find(|it| (it.from, it.to) == (arc.from(), arc.to())).map(|it| it.tally)
    }

    fn resets(&self, state: State) -> Option<Tally> {
        self.coverage?.resets.iter().find(|it| it.from == state).map(|it| it.tally)
    }

    /// As a picture that stands for itself.
    pub fn svg(&self) -> String {
        svg::alone(&self.draw())
    }

    /// As a part of a page.
    pub(super) fn draw(&self) -> Markup {
        let title = format!("The machine of {}", self.features);
        html! {
            svg.diagram.machine xmlns="http://www.w3.org/2000/svg" role="img" viewBox=(format!("0 0 {WIDTH} {HEIGHT}")) {
                title { (title) }
                desc { (self.describe()) }
                @for arc in arcs(self.features) { (self.arc(arc)) }
                (self.way_back())
                @for state in State::ALL.into_iter().filter(|&state| self.features.has(state)) {
                    (self.node(state))
                }
                (self.legend())
            }
        }
    }

    /// For who cannot see it.
    fn describe(&self) -> String {
        let arcs = arcs(self.features).map(|arc| format!("{arc}{}. ", said(self.tally(arc))));
        arcs.collect()
    }

    fn node(&self, state: State) -> Markup {
        let (x, y) = place(state);
        let (width, height) = NODE;
        let class = match state.session() {
            Some(Direction::Saving) => "node saving",
            Some(Direction::Resuming) => "node resuming",
            None if state == State::Error => "node error",
            None => "node",
        };
        let resets = self.resets(state);
        let line = resets.map(|tally| match tally.verdict() {
            Came::Untried => "never reset".to_owned(),
            Came::Passed => format!("reset ×{}", count(tally.traces)),
            Came::Deviated => format!("reset ×{} ≈{}", count(tally.traces), count(tally.deviation)),
            Came::Failed => format!("reset ×{} ✗{}", count(tally.traces), count(tally.fail)),
        });
        let came = resets.map_or("", |tally| class_of(tally.verdict()));
        html! {
            g class=(class) {
                title { (state) ", reset here" (said(resets)) }
                rect x=(x - width / 2) y=(y - height / 2) width=(width) height=(height) rx="10" {}
                text.name x=(x) y=(if line.is_some() { y - 2 } else { y + 5 }) { (state) }
                @if let Some(line) = line { text class=(format!("small {came}")) x=(x) y=(y + 17) { (line) } }
            }
        }
    }

    fn arc(&self, arc: Arc) -> Markup {
        let line = Line::of(arc);
        let tally = self.tally(arc);
        let class = tally.map_or("plain", |tally| class_of(tally.verdict()));
        let effect = arc.session().label();
        let words = match tally {
            None => effect.to_owned(),
            Some(tally) => in_short(tally),
        };
        let means = if effect.is_empty() { String::new() } else { format!(" ({effect})") };
        html! {
            g class=(format!("arc {class}")) data-arc=(format!("{}-{}", arc.from(), arc.to())) {
                title { (arc) (means) (said(tally)) }
                (line.draw())
                @let (x, y, anchor) = line.label();
                text x=(x) y=(y) text-anchor=(anchor) { (words) }
            }
        }
    }

    /// Out of ERROR, which is no arc.
    fn way_back(&self) -> Markup {
        let line = Line::between(State::Error, State::Running, 0);
        let class = self.resets(State::Error).map_or("plain", |tally| class_of(tally.verdict()));
        html! {
            g class=(format!("arc back {class}")) {
                title { "ERROR -> RUNNING, by a reset alone" (said(self.resets(State::Error))) }
                (line.draw())
                text x=(place(State::Error).0 + 12) y="314" text-anchor="start" { "reset" }
            }
        }
    }

    fn legend(&self) -> Markup {
        let all = [Came::Passed, Came::Deviated, Came::Failed, Came::Untried];
        let shown: &[Came] = if self.coverage.is_some() { &all } else { &[] };
        html! {
            g.legend {
                @for (index, came) in (0..).zip(shown) {
                    @let (x, y) = (354 + index % 2 * 356, 358 + index / 2 * 30);
                    g class=(format!("arc {}", class_of(*came))) {
                        line x1=(x) y1=(y) x2=(x + 52) y2=(y) {}
                        text x=(x + 64) y=(y + 4) text-anchor="start" { (meaning(*came)) }
                    }
                }
                @let y = if shown.is_empty() { 372 } else { 420 };
                text.small x="354" y=(y) text-anchor="start" {
                    "Thick box: the state has a session and a data_fd. Any arc may fail into ERROR; "
                }
                text.small x="354" y=(y + 16) text-anchor="start" {
                    "a reset leads to RUNNING from everywhere."
                    @if !shown.is_empty() { " n and m are traces." }
                }
            }
        }
    }

    /// For Graphviz.
    pub fn dot(&self) -> String {
        let bare = Dot(self.features).to_string();
        if self.coverage.is_none() {
            return bare;
        }
        let mut text = String::new();
        for line in bare.lines() {
            let arc = arcs(self.features).find(|arc| line.trim().starts_with(&format!("{arc} [")));
            match arc.and_then(|arc| Some((arc, self.tally(arc)?))) {
                None => text.push_str(line),
                Some((arc, tally)) => {
                    let (color, style, width) = match tally.verdict() {
                        Came::Untried => ("gray50", "dotted", 1),
                        Came::Passed => ("#0f766e", "solid", 2),
                        Came::Deviated => ("#a16207", "dashed", 2),
                        Came::Failed => ("#c81e1e", "bold", 4),
                    };
                    // Writing to a string does not fail.
                    let _ = write!(
                        text,
                        "    {arc} [label=\"{}\", color=\"{color}\", fontcolor=\"{color}\", style={style}, penwidth={width}];",
                        in_short(tally)
                    );
                }
            }
            text.push('\n');
        }
        text
    }

    /// As a Mermaid state diagram, whose arcs have words and no colours.
    pub fn mermaid(&self) -> String {
        let bare = Mermaid(self.features).to_string();
        let mut text = String::new();
        for line in bare.lines() {
            let arc = arcs(self.features).find(|arc| {
                let line = line.trim().split(": ").next().unwrap_or_default();
                line == format!("{} --> {}", arc.from(), arc.to())
            });
            text.push_str(line);
            if let Some(tally) = arc.and_then(|arc| self.tally(arc)) {
                let colon = if line.contains(": ") { ", " } else { ": " };
                let _ = write!(text, "{colon}{}", in_short(tally));
            }
            text.push('\n');
        }
        text
    }
}

/// A line from the side of one box to the side of another, in a lane of its own.
struct Line {
    from: (i32, i32),
    to: (i32, i32),
}

impl Line {
    fn of(arc: Arc) -> Self {
        Self::between(arc.from(), arc.to(), LANE)
    }

    /// On the right of the way, as traffic goes.
    fn between(from: State, to: State, lane: i32) -> Self {
        let ((x1, y1), (x2, y2)) = (place(from), place(to));
        let (width, height) = NODE;
        let (dx, dy) = ((x2 - x1).signum(), (y2 - y1).signum());
        Self {
            from: (x1 + dx * width / 2 - dy * lane * 2, y1 + dy * height / 2 - dx * lane),
            to: (x2 - dx * (width / 2 + 2) - dy * lane * 2, y2 - dy * (height / 2 + 2) - dx * lane),
        }
    }

    const fn is_upright(&self) -> bool {
        self.from.0 == self.to.0
    }

    fn draw(&self) -> Markup {
        let ((x1, y1), (x2, y2)) = (self.from, self.to);
        let (dx, dy) = ((x2 - x1).signum(), (y2 - y1).signum());
        let base = (x2 - dx * 10, y2 - dy * 10);
        let head =
            [(x2, y2), (base.0 - dy * 5, base.1 - dx * 5), (base.0 + dy * 5, base.1 + dx * 5)];
        let head: Vec<_> = head.iter().map(|(x, y)| format!("{x},{y}")).collect();
        html! {
            line x1=(x1) y1=(y1) x2=(base.0) y2=(base.1) {}
            polygon points=(head.join(" ")) {}
        }
    }

    /// Where the words stand, outside of the pair of lines.
    fn label(&self) -> (i32, i32, &'static str) {
        let (x, y) = ((self.from.0 + self.to.0) / 2, (self.from.1 + self.to.1) / 2);
        match (self.is_upright(), self.to.1 > self.from.1, self.to.0 > self.from.0) {
            // Downwards is on the left.
            (true, true, _) => (x - 8, y + 4, "end"),
            (true, false, _) => (x + 8, y + 4, "start"),
            (false, _, true) => (x, y - 8, "middle"),
            (false, _, false) => (x, y + 17, "middle"),
        }
    }
}

pub(super) const fn class_of(came: Came) -> &'static str {
    match came {
        Came::Untried => "untried",
        Came::Passed => "passed",
        Came::Deviated => "deviated",
        Came::Failed => "failed",
    }
}

const fn meaning(came: Came) -> &'static str {
    match came {
        Came::Untried => "– no trace walked it",
        Came::Passed => "✓ n traces walked it, and all was right",
        Came::Deviated => "≈ m of n differed in a way that is known",
        Came::Failed => "✗ m of n were answered wrongly",
    }
}

fn in_short(tally: Tally) -> String {
    let Tally { traces, fail, deviation } = tally;
    match tally.verdict() {
        Came::Untried => "– not walked".to_owned(),
        Came::Passed => format!("✓ {}", count(traces)),
        Came::Deviated => format!("≈ {} of {}", count(deviation), count(traces)),
        Came::Failed => format!("✗ {} of {}", count(fail), count(traces)),
    }
}

fn said(tally: Option<Tally>) -> String {
    tally.map_or_else(String::new, |tally| format!(": {}", Said(tally)))
}

/// A tally in a sentence.
struct Said(Tally);

impl fmt::Display for Said {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Tally { traces, fail, deviation } = self.0;
        write!(f, "{} traces, {} fail here", count(traces), count(fail))?;
        if deviation > 0 { write!(f, ", {} deviate", count(deviation)) } else { Ok(()) }
    }
}

pub(super) fn count(number: u64) -> indicatif::HumanCount {
    indicatif::HumanCount(number)
}
