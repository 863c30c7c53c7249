// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! A failing trace as a sequence diagram: the VMM, the devices and their data_fds, what was done to
//! whom, and the answer that was wrong beside the one that would have been right.

use std::collections::BTreeSet;
use std::fmt::Write as _;

use maud::{Markup, html};

use super::svg::{self, fit};
use crate::replay::{Exchange, Judged};

const STEP: i32 = 50;
const TOP: i32 = 58;
const FIRST: i32 = 110;
const APART: i32 = 300;
const WORDS: usize = 38;

/// Who takes part, from left to right behind the VMM.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Party {
    device: u8,
    /// The device itself is without.
    fd: Option<u32>,
}

/// A trace as it went.
#[derive(Clone, Copy, Debug)]
pub struct Sequence<'a> {
    name: &'a str,
    story: &'a [Exchange],
}

impl<'a> Sequence<'a> {
    /// Of the trace of this name.
    pub const fn new(name: &'a str, story: &'a [Exchange]) -> Self {
        Self { name, story }
    }

    fn parties(&self) -> Vec<Party> {
        let mut parties: BTreeSet<_> =
            self.story.iter().map(|it| Party { device: it.device, fd: it.fd }).collect();
        // Whoever has a data_fd is a device.
        let devices: Vec<_> = parties.iter().map(|it| Party { fd: None, ..*it }).collect();
        parties.extend(devices);
        parties.into_iter().collect()
    }

    fn called(&self, party: Party) -> String {
        let both = self.story.iter().any(|it| it.device > 0);
        let whose = match (both, party.device) {
            (false, _) => "device",
            (true, 0) => "source",
            (true, _) => "destination",
        };
        match party.fd {
            None => whose.to_owned(),
            Some(fd) if both => format!("data_fd #{fd} ({whose})"),
            Some(fd) => format!("data_fd #{fd}"),
        }
    }

    /// As a picture that stands for itself.
    pub fn svg(&self) -> String {
        svg::alone(&self.draw())
    }

    /// As a part of a page.
    pub(super) fn draw(&self) -> Markup {
        let parties = self.parties();
        let x = |index: usize| FIRST + APART * (index as i32 + 1);
        let wrong = self.story.iter().filter(|it| it.judged == Judged::Wrong).count() as i32;
        let bottom = TOP + STEP * (self.story.len() as i32 + wrong) + 14;
        let width = x(parties.len().saturating_sub(1)) + 130;
        let mut y = TOP;
        let rows: Vec<_> = (1..)
            .zip(self.story)
            .map(|(number, exchange)| {
                let at = y;
                y += STEP * if exchange.judged == Judged::Wrong { 2 } else { 1 };
                let party = Party { device: exchange.device, fd: exchange.fd };
                let index = parties.iter().position(|it| *it == party).unwrap_or(0);
                row(number, exchange, at, x(index), width)
            })
            .collect();
        html! {
            svg.diagram.sequence xmlns="http://www.w3.org/2000/svg" role="img" width=(width) height=(bottom) viewBox=(format!("0 0 {width} {bottom}")) {
                title { "Trace " (fit(self.name, 200)) ", as it went" }
                @for at in std::iter::once(FIRST).chain((0..parties.len()).map(x)) {
                    line.life x1=(at) y1="36" x2=(at) y2=(bottom) {}
                }
                (head(FIRST, "VMM"))
                @for (index, party) in parties.iter().enumerate() {
                    (head(x(index), &self.called(*party)))
                }
                @for row in rows { (row) }
            }
        }
    }

    /// As a Mermaid sequence diagram.
    pub fn mermaid(&self) -> String {
        let parties = self.parties();
        let id = |party: Party| match party.fd {
            None => format!("D{}", party.device),
            Some(fd) => format!("D{}F{fd}", party.device),
        };
        let mut text = String::from("sequenceDiagram\n    participant V as VMM\n");
        for party in parties {
            let called = self.called(party);
            // Writing to a string does not fail.
            let _ = writeln!(text, "    participant {} as {}", id(party), entities(&called));
        }
        for exchange in self.story {
            let to = id(Party { device: exchange.device, fd: exchange.fd });
            let _ = writeln!(text, "    V->>{to}: {}", entities(&exchange.op));
            let seen = entities(&exchange.seen);
            let _ = match exchange.judged {
                Judged::Right => writeln!(text, "    {to}-->>V: {seen}"),
                Judged::Known => writeln!(text, "    {to}-->>V: {seen} (a known deviation)"),
                Judged::Unasked => writeln!(text, "    {to}-->>V: (not asked)"),
                Judged::Wrong => {
                    let expected = entities(&exchange.expected);
                    writeln!(
                        text,
                        "    {to}--xV: {seen}\n    Note over V,{to}: expected {expected}"
                    )
                }
            };
        }
        text
    }
}

/// Text that means nothing to Mermaid.
fn entities(text: &str) -> String {
    let mut out = String::new();
    for c in text.chars() {
        match c {
            c if c.is_alphanumeric() || " _.,()|+-:".contains(c) => out.push(c),
            c if c.is_control() => out.push(' '),
            c => {
                let _ = write!(out, "#{};", u32::from(c));
            }
        }
    }
    out
}

fn head(x: i32, called: &str) -> Markup {
    html! {
        g.party {
            rect x=(x - 82) y="6" width="164" height="30" rx="6" {}
            text x=(x) y="26" { (fit(called, 24)) }
        }
    }
}

fn arrow(from: i32, to: i32, y: i32) -> Markup {
    let back = (from - to).signum() * 9;
    html! {
        line x1=(from) y1=(y) x2=(to + back) y2=(y) {}
        polygon points=(format!("{to},{y} {},{} {},{}", to + back, y - 4, to + back, y + 4)) {}
    }
}

fn row(number: usize, exchange: &Exchange, y: i32, x: i32, width: i32) -> Markup {
    let Exchange { op, expected, seen, judged, .. } = exchange;
    let wrong = *judged == Judged::Wrong;
    let class = match judged {
        Judged::Right => "reply",
        Judged::Known => "reply known",
        Judged::Unasked => "reply unasked",
        Judged::Wrong => "reply wrong",
    };
    let mark = match judged {
        Judged::Right => "",
        Judged::Known => "≈ ",
        Judged::Unasked => "not asked: ",
        Judged::Wrong => "✗ seen: ",
    };
    let (left, call) = (FIRST + 14, y + 18);
    html! {
        g data-step=(number) {
            title { "step " (number) ": " (op) ": expected " (expected) ", saw " (seen) }
            @if wrong { rect.band x="6" y=(y + 2) width=(width - 12) height=(STEP * 2 - 6) rx="6" {} }
            text.number x=(FIRST - 16) y=(call + 4) { (number) }
            g.call {
                (arrow(FIRST, x, call))
                text x=(left) y=(call - 5) { (fit(op, WORDS)) }
            }
            @if wrong {
                g.reply {
                    (arrow(x, FIRST, y + 44))
                    text x=(left) y=(y + 39) { (fit(&format!("expected: {expected}"), WORDS)) }
                }
                g class=(class) {
                    (arrow(x, FIRST, y + 76))
                    text x=(left) y=(y + 70) { (mark) (fit(seen, WORDS)) }
                }
            } @else {
                g class=(class) {
                    (arrow(x, FIRST, y + 40))
                    text x=(left) y=(y + 35) { (mark) (fit(seen, WORDS)) }
                }
            }
        }
    }
}
