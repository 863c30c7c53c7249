// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! `vfio-conform observe`: what a recording says of a device and of its VMM; and `watch`, which makes
//! one first.

use std::ffi::OsString;
use std::fmt;
use std::fs;
use std::path::PathBuf;

use clap::{Args, ValueEnum};
use serde::Serialize;
use vfio_conform::observe::{self, Format, Report};

use super::Result;
use super::output::Output;

#[derive(Debug, Args)]
pub(crate) struct Arguments {
    /// A recording, or a list of calls.
    #[arg(value_name = "FILE")]
    file: PathBuf,
    /// What the file is in. [default: what its beginning looks like]
    #[arg(long, value_enum)]
    format: Option<FormatName>,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
enum FormatName {
    /// A line of JSON a call.
    Recording,
    /// A line of columns a call, as a tracer prints it.
    Calls,
}

#[derive(Debug, Args)]
pub(crate) struct WatchArguments {
    /// Keep the recording in this file.
    #[arg(long, value_name = "FILE")]
    out: Option<PathBuf>,
    /// The VMM, and its arguments.
    #[arg(last = true, required = true, value_name = "CMD")]
    command: Vec<OsString>,
}

/// What was found.
#[derive(Serialize)]
struct Observed {
    /// How the VMM ended, if it was watched.
    #[serde(skip_serializing_if = "Option::is_none")]
    ended: Option<String>,
    recordings: Vec<Report>,
}

impl fmt::Display for Observed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.ended.as_ref().map_or(Ok(()), |ended| writeln!(f, "the VMM ended: {ended}"))?;
        self.recordings.iter().try_for_each(|report| report.fmt(f))
    }
}

pub(crate) fn run(arguments: &Arguments, output: &mut Output) -> Result {
    let path = arguments.file.display();
    let text = fs::read(&arguments.file).map_err(|error| format!("{path}: {error}"))?;
    let format = match arguments.format {
        None => Format::detect(&text),
        Some(FormatName::Recording) => Format::Recording,
        Some(FormatName::Calls) => Format::Calls,
    };
    let recordings = observe::read(text.as_slice(), format);
    let recordings = recordings.map_err(|error| format!("{path}: {error}"))?;
    tell(None, recordings.iter().map(observe::observe).collect(), output)
}

pub(crate) fn watch(arguments: &WatchArguments, output: &mut Output) -> Result {
    let Some((command, rest)) = arguments.command.split_first() else {
        return Err("no command to watch".into());
    };
    let watched = observe::watch(command, rest, arguments.out.as_deref())?;
    let report = observe::observe(&watched.recording);
    tell(Some(watched.status.to_string()), vec![report], output)
}

fn tell(ended: Option<String>, recordings: Vec<Report>, output: &mut Output) -> Result {
    let good = recordings.iter().all(Report::is_good);
    output.say("observe", &Observed { ended, recordings })?;
    Ok(good)
}
