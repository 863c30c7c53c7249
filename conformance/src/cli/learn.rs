// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! `vfio-conform learn`: what machine a device is, found out from the outside.

use std::collections::BTreeMap;
use std::fmt::{self, Write as _};
use std::path::PathBuf;
use std::time::Instant;

use clap::Args;
use indicatif::HumanCount;
use serde::{Deserialize, Serialize};
use vfio_conform::complete::Machine;
use vfio_conform::complete::Size;
use vfio_conform::complete::learn::learn;
use vfio_conform::deviation::Deviations;
use vfio_conform::replay::{Mismatch, Verdict};
use vfio_conform::suite::{Kind, Specification, Subject};
use vfio_conform::tidy::write_whole;

use super::Result;
use super::complete::{DeviceArguments, MachineArguments, subject};
use super::events::{Event, Events};
use super::output::Output;

#[derive(Debug, Args)]
pub(crate) struct Arguments {
    #[command(flatten)]
    machine: MachineArguments,
    #[command(flatten)]
    device: DeviceArguments,
    /// Confirm the machine for so many states more than were found.
    #[arg(long, value_name = "K", default_value_t = 0)]
    extra: usize,
    /// Give up at more states than this.
    #[arg(long, value_name = "N", default_value_t = 1000)]
    most: usize,
    /// Write the machine to this file, for Graphviz.
    #[arg(long, value_name = "FILE")]
    dot: Option<PathBuf>,
    /// What is known of the device, for --events: the name of a driver (mtty) or a file.
    #[arg(long, value_name = "DRIVER")]
    deviations: Option<String>,
    /// Begin with the n-th machine, counted from 0, with --events.
    #[arg(long, value_name = "N", default_value_t = 0)]
    from: usize,
    /// Learn every machine, first without closing the device and at last with: one JSON line when it
    /// begins, one for what was found, and one for the verdict, as they happen.
    #[arg(long, conflicts_with_all = ["machine", "dot", "no_reopen"])]
    events: bool,
}

/// What was found out.
#[derive(Debug, Deserialize, Serialize)]
pub(super) struct Found {
    states: usize,
    should: usize,
    asked: Size,
    confirmed: Size,
    ops: u64,
    seconds: f64,
    /// Shortest ways to where the device answers otherwise, one for each input that does.
    differences: Vec<Difference>,
}

#[derive(Debug, Deserialize, Serialize)]
struct Difference {
    word: Vec<String>,
    expected: String,
    seen: String,
}

pub(crate) fn run(arguments: &Arguments, output: &mut Output) -> Result {
    if arguments.events {
        return tell_all(arguments);
    }
    let (found, dot) = examine(arguments, arguments.machine, &arguments.device)?;
    if let Some(path) = &arguments.dot {
        write_whole(path, |output| output.write_all(dot.as_bytes()))
            .map_err(|error| format!("{}: {error}", path.display()))?;
    }
    output.say("learned", &found)?;
    Ok(found.differences.is_empty())
}

/// With --events: their names, which they are, and whether the device is closed and opened.
pub(super) const MACHINES: [(&str, Kind, bool); 4] = [
    ("control", Kind::Control, false),
    ("stream", Kind::Stream, false),
    ("epochs", Kind::Epochs, false),
    ("stream-reopened", Kind::Stream, true),
];

/// What was found of a machine, beside the verdict on it.
#[derive(Serialize)]
#[serde(tag = "event", rename = "learned")]
struct Told<'a> {
    index: usize,
    trace: &'a str,
    dot: &'a str,
    #[serde(flatten)]
    found: &'a Found,
}

fn tell_all(arguments: &Arguments) -> Result {
    let known = arguments.deviations.as_deref().map(Deviations::named).transpose()?;
    let known = known.map(|list| list.of_findings("learn/"));
    let mut events = Events::new(true, "learn");
    let mut good = true;
    for (index, (name, kind, reopen)) in MACHINES.into_iter().enumerate().skip(arguments.from) {
        let trace = format!("learn/{name}");
        events.begin(index, &trace)?;
        let device = DeviceArguments { no_reopen: !reopen, ..arguments.device.clone() };
        let (ops, verdict) = match examine(arguments, arguments.machine.of(kind), &device) {
            Ok((found, dot)) => {
                events.line(&Told { index, trace: &trace, dot: &dot, found: &found })?;
                (found.ops, found.verdict(&trace, known.as_ref()))
            }
            // No machine answers like that, which says something of the device.
            Err(error) => (0, Verdict::Fail(nothing_learned(&*error))),
        };
        good &= matches!(verdict, Verdict::Pass | Verdict::Deviation { .. });
        events.tell(&Event::Verdict { index, trace: &trace, ops, verdict: &verdict })?;
    }
    events.done()?;
    Ok(good)
}

fn nothing_learned(error: &dyn std::error::Error) -> Mismatch {
    Mismatch {
        step: 0,
        op: "learning".to_owned(),
        expected: "a machine".to_owned(),
        seen: error.to_string(),
        story: Vec::new(),
    }
}

/// Learn a machine; and its picture, for Graphviz.
fn examine(
    arguments: &Arguments,
    machine: MachineArguments,
    device: &DeviceArguments,
) -> Result<(Found, String)> {
    let (mut specification, mut target) = subject(machine, device)?;
    let should = specification.machine.clone();
    let mut subject = Subject::new(&mut specification, &mut *target)?;
    let began = Instant::now();
    let learned = learn(&mut subject, &should, arguments.extra, arguments.most)?;
    let seconds = began.elapsed().as_secs_f64();
    let ops = subject.ops();
    let differences = should.differences(&learned.machine);
    let difference = |(word, says, seen): &(Vec<u8>, u16, u16)| Difference {
        word: word.iter().map(|&symbol| specification.input(symbol)).collect(),
        expected: specification.output(*says),
        seen: specification.output(*seen),
    };
    let found = Found {
        states: learned.machine.states(),
        should: should.states(),
        asked: learned.asked,
        confirmed: learned.confirmed,
        ops,
        seconds,
        differences: differences.iter().map(difference).collect(),
    };
    Ok((found, dot(&specification, &learned.machine)))
}

impl Found {
    /// Whether it is the right machine but for what is known.
    fn verdict(&self, trace: &str, known: Option<&Deviations>) -> Verdict {
        let mut ids: Vec<String> = Vec::new();
        for Difference { word, expected, seen } in &self.differences {
            let last = word.last().map_or("nothing", String::as_str);
            let text = format!("{last}: expected {expected}, saw {seen}");
            match known.and_then(|known| known.find_finding(trace, &text)) {
                Some(id) if ids.iter().any(|known| known == id) => {}
                Some(id) => ids.push(id.to_owned()),
                None => {
                    return Verdict::Fail(Mismatch {
                        step: word.len(),
                        op: word.join(", "),
                        expected: expected.clone(),
                        seen: seen.clone(),
                        story: Vec::new(),
                    });
                }
            }
        }
        if ids.is_empty() { Verdict::Pass } else { Verdict::Deviation { ids, steps: Vec::new() } }
    }
}

impl fmt::Display for Found {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let size = |size: Size| {
            format!("{} words, {} inputs", HumanCount(size.tests), HumanCount(size.inputs))
        };
        let Self { states, should, asked, confirmed, .. } = self;
        writeln!(f, "{states} states, the specification has {should}")?;
        let rate = HumanCount((self.ops as f64 / self.seconds.max(1e-9)) as u64);
        writeln!(
            f,
            "  to find them: {}; to confirm: {}; {rate} ops a second",
            size(*asked),
            size(*confirmed)
        )?;
        for Difference { word, expected, seen } in &self.differences {
            writeln!(f, "  differs: {}: expected {expected}, is {seen}", word.join(", "))?;
        }
        if self.differences.is_empty() { writeln!(f, "  no difference") } else { Ok(()) }
    }
}

/// For Graphviz: an edge for each two states, with all that leads from one to the other.
fn dot(specification: &Specification, machine: &Machine) -> String {
    let mut edges: BTreeMap<(u16, u16), Vec<String>> = BTreeMap::new();
    for from in machine.nodes() {
        for (input, to, says) in machine.from(from) {
            let label = format!("{} / {}", specification.input(input), specification.output(says));
            edges.entry((from, to)).or_default().push(label);
        }
    }
    let mut text = String::from("digraph learned {\n  node [shape=box];\n");
    for ((from, to), labels) in edges {
        let label = labels.join("\\n").replace('"', "'");
        // Writing to a string does not fail.
        let _ = writeln!(text, "  {from} -> {to} [label=\"{label}\"];");
    }
    text.push_str("}\n");
    text
}
