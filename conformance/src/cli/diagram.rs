// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! `vfio-conform diagram`: the pictures of a report by themselves, for a page of your own.

use std::path::PathBuf;

use clap::{Args, Subcommand, ValueEnum};
use vfio_conform::page::{Heat, Machine, Sequence};
use vfio_conform::replay::Mismatch;
use vfio_conform::report::Report;
use vfio_conform::results::{Directory, Part};
use vfio_fsm_core::Features;

use super::Result;
use super::output::Output;

#[derive(Debug, Args)]
pub(crate) struct Arguments {
    #[command(subcommand)]
    what: What,
}

#[derive(Debug, Subcommand)]
enum What {
    /// The machine: its states and arcs, and with results what came of each arc.
    Machine {
        /// The flags of the device: stop-copy, p2p, pre-copy or full.
        #[arg(long, value_name = "FLAGS", value_parser = super::features, default_value = "full")]
        features: Features,
        /// Of the newest replay in this directory that `--results` wrote to.
        #[arg(value_name = "DIR")]
        of: Option<PathBuf>,
        /// Only of a target of this name, as the report calls it.
        #[arg(long, value_name = "NAME", requires = "of")]
        target: Option<String>,
        /// In which language.
        #[arg(long, value_enum, default_value_t = Format::Svg)]
        format: Format,
    },
    /// What came of a reset at every step of a migration (SVG).
    Resets {
        /// Of the newest migrations in this directory that `--results` wrote to.
        #[arg(value_name = "DIR")]
        of: PathBuf,
    },
    /// A failing trace, step by step (SVG or Mermaid).
    Trace {
        /// Of the newest replay with failures in this directory that `--results` wrote to.
        #[arg(value_name = "DIR")]
        of: PathBuf,
        /// Which trace [default: the first that failed].
        #[arg(long, value_name = "TRACE")]
        name: Option<String>,
        /// In which language.
        #[arg(long, value_enum, default_value_t = Format::Svg)]
        format: Format,
    },
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Format {
    /// A picture.
    Svg,
    /// Mermaid, which Markdown renders in many places.
    Mermaid,
    /// Graphviz.
    Dot,
}

pub(crate) fn run(arguments: &Arguments, output: &mut Output) -> Result {
    let text = match &arguments.what {
        What::Machine { features, of, target, format } => {
            let directory = of.as_deref().map(Directory::read).transpose()?;
            let coverage = directory.iter().flat_map(replays).find_map(|report| {
                let wanted = target.as_ref().is_none_or(|name| *name == report.target);
                report.coverage.iter().find(|it| wanted && it.features == *features)
            });
            if directory.is_some() && coverage.is_none() {
                return Err(
                    format!("no replay of a device with {features} is among the results").into()
                );
            }
            let machine = coverage.map_or(Machine::bare(*features), Machine::walked);
            match format {
                Format::Svg => machine.svg(),
                Format::Mermaid => machine.mermaid(),
                Format::Dot => machine.dot(),
            }
        }
        What::Resets { of } => {
            let directory = Directory::read(of)?;
            let matrix = directory.parts().find_map(|(_, part)| match part {
                Part::Migrate(matrix) => Some(matrix),
                _ => None,
            });
            Heat::new(matrix.ok_or("no migrations are among the results; `migrate` runs them")?)
                .svg()
        }
        What::Trace { of, name, format } => {
            let directory = Directory::read(of)?;
            let (name, mismatch) = told(&directory, name.as_deref())?;
            let sequence = Sequence::new(name, &mismatch.story);
            match format {
                Format::Svg => sequence.svg(),
                Format::Mermaid => sequence.mermaid(),
                Format::Dot => {
                    return Err("Graphviz has no sequence diagrams: svg or mermaid".into());
                }
            }
        }
    };
    output.raw(&text)?;
    Ok(true)
}

fn replays(directory: &Directory) -> impl Iterator<Item = &Report> {
    directory.parts().filter_map(|(_, part)| match part {
        Part::Replay(report) => Some(report),
        _ => None,
    })
}

/// A failure that was told step by step.
fn told<'a>(directory: &'a Directory, name: Option<&str>) -> Result<(&'a str, &'a Mismatch)> {
    let failures = || replays(directory).flat_map(Report::failures);
    let wanted = |trace: &str| name.is_none_or(|name| name == trace);
    let found = failures().find(|(trace, it)| wanted(trace) && !it.story.is_empty());
    found.ok_or_else(|| match name {
        Some(name) if failures().any(|(trace, _)| trace == name) => format!(
            "{name} failed, and another trace that failed alike was told in its place; replay it alone: \
             replay --only {name:?}"
        ),
        Some(name) => format!("no trace of the name {name:?} failed"),
        None => "no trace failed: there is nothing to be drawn".to_owned(),
    }.into())
}
