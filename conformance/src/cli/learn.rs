// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! `vfio-conform learn`: what machine a device is, found out from the outside.

use std::collections::BTreeMap;
use std::fmt::{self, Write as _};
use std::path::PathBuf;

use clap::Args;
use indicatif::HumanCount;
use serde::Serialize;
use vfio_conform::complete::Machine;
use vfio_conform::complete::Size;
use vfio_conform::complete::learn::learn;
use vfio_conform::suite::{Specification, Subject};
use vfio_conform::system::write_whole;

use super::Result;
use super::complete::{DeviceArguments, MachineArguments, subject};
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
}

/// What was found out.
#[derive(Debug, Serialize)]
struct Found {
    states: usize,
    should: usize,
    asked: Size,
    confirmed: Size,
    ops: u64,
    /// Shortest ways to where the device answers otherwise, one for each input that does.
    differences: Vec<Difference>,
}

#[derive(Debug, Serialize)]
struct Difference {
    word: Vec<String>,
    expected: String,
    seen: String,
}

pub(crate) fn run(arguments: &Arguments, output: &mut Output) -> Result {
    let (mut specification, mut target) = subject(arguments.machine, &arguments.device)?;
    let should = specification.machine.clone();
    let mut subject = Subject::new(&mut specification, &mut *target)?;
    let learned = learn(&mut subject, &should, arguments.extra, arguments.most)?;
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
        differences: differences.iter().map(difference).collect(),
    };
    if let Some(path) = &arguments.dot {
        let text = dot(&specification, &learned.machine);
        write_whole(path, |output| output.write_all(text.as_bytes()))
            .map_err(|error| format!("{}: {error}", path.display()))?;
    }
    output.say("learned", &found)?;
    Ok(found.differences.is_empty())
}

impl fmt::Display for Found {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let size = |size: Size| {
            format!("{} words, {} inputs", HumanCount(size.tests), HumanCount(size.inputs))
        };
        let Self { states, should, asked, confirmed, .. } = self;
        writeln!(f, "{states} states, the specification has {should}")?;
        writeln!(f, "  to find them: {}; to confirm: {}", size(*asked), size(*confirmed))?;
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
