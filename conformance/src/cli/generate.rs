// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! `vfio-conform generate`: the suites as files.

use std::fmt;
use std::fs;
use std::io::{self, BufWriter, Write};
use std::path::{Path, PathBuf};

use clap::Args;
use indicatif::HumanCount;
use serde::Serialize;
use vfio_conform::tidy::write_whole;
use vfio_conform::trace::{self, Trace};

use super::output::Output;
use super::{Result, Selection};

#[derive(Debug, Args)]
pub(crate) struct Arguments {
    #[command(flatten)]
    selection: Selection,
    /// Where to: a directory (one file a suite), or - for standard output.
    #[arg(long, value_name = "DIR", default_value = "out/traces")]
    out: PathBuf,
}

/// What was written.
#[derive(Debug, Serialize)]
struct Written {
    file: PathBuf,
    traces: usize,
    steps: usize,
}

#[derive(Debug, Serialize)]
#[serde(transparent)]
struct Files(Vec<Written>);

impl fmt::Display for Files {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|Written { file, traces, steps }| {
            let (traces, steps) = (HumanCount(*traces as u64), HumanCount(*steps as u64));
            writeln!(f, "{}: {traces} traces, {steps} steps", file.display())
        })
    }
}

pub(crate) fn run(arguments: &Arguments, output: &mut Output) -> Result {
    let selection = &arguments.selection;
    if arguments.out == Path::new("-") {
        let mut stdout = BufWriter::new(io::stdout().lock());
        trace::write(&selection.generate()?, &mut stdout)?;
        stdout.flush()?;
        return Ok(true);
    }
    fs::create_dir_all(&arguments.out)
        .map_err(|error| format!("{}: {error}", arguments.out.display()))?;
    let mut files = Files(Vec::new());
    for suite in selection.suites() {
        let traces = selection.filter(suite.generate_all())?;
        files.0.push(write_file(&arguments.out.join(format!("{suite}.jsonl")), &traces)?);
    }
    output.say("files", &files)?;
    Ok(true)
}

fn write_file(file: &Path, traces: &[Trace]) -> Result<Written> {
    write_whole(file, |output| trace::write(traces, output))
        .map_err(|error| format!("{}: {error}", file.display()))?;
    let steps = traces.iter().map(|trace| trace.steps.len()).sum();
    Ok(Written { file: file.to_owned(), traces: traces.len(), steps })
}
