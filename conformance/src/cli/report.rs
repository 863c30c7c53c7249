// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! `vfio-conform report`: results of runs, read again: as a table, and as a page to look at.

use std::fmt;
use std::fs;
use std::io::Write as _;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use clap::Args;
use indicatif::HumanCount;
use serde::Serialize;
use vfio_conform::page::Page;
use vfio_conform::results::{Directory, Part, Run, Verdict};

use super::Result;
use super::output::Output;

#[derive(Debug, Args)]
pub(crate) struct Arguments {
    /// A directory that `--results` of other commands wrote to.
    #[arg(value_name = "DIR")]
    pub(crate) directory: PathBuf,
}

/// The runs of a directory, as a table.
#[derive(Debug, Serialize)]
struct History {
    runs: Vec<Line>,
    /// Files that look like results and are none, and why.
    refused: Vec<String>,
}

#[derive(Debug, Serialize)]
struct Line {
    began: String,
    command: String,
    verdict: Verdict,
    found: Vec<String>,
}

pub(crate) fn run(arguments: &Arguments, output: &mut Output) -> Result {
    let directory = Directory::read(&arguments.directory)?;
    let line = |run: &Run| Line {
        began: run.head.began.clone(),
        command: run.head.command.clone(),
        verdict: run.head.verdict,
        found: run.parts.iter().map(found).collect(),
    };
    let history = History {
        runs: directory.runs.iter().map(line).collect(),
        refused: directory.refused.iter().map(ToString::to_string).collect(),
    };
    output.say("report", &history)?;
    // What failed then is told, and is no failure of the telling.
    Ok(true)
}

fn found(part: &Part) -> String {
    let count = |number: u64| HumanCount(number);
    match part {
        Part::Replay(report) => {
            let counts = report.counts;
            let (pass, fail) = (count(counts.pass), count(counts.fail));
            let (known, not) = (count(counts.deviation), count(counts.not_applicable));
            format!("{}: {pass} pass, {fail} fail, {known} known, {not} n/a", report.target)
        }
        Part::Model(model) => {
            let spaces = [&model.spaces, &model.lock_spaces, &model.system_spaces];
            let spaces = || spaces.into_iter().flatten();
            let broken = spaces().filter(|space| !space.failures.is_empty()).count();
            format!("model: {} spaces, {broken} broken", spaces().count())
        }
        Part::Migrate(matrix) => {
            let (cases, fail) = (matrix.cases.len(), matrix.failures().count());
            format!("migration on {}: {cases} cases, {fail} fail", matrix.target)
        }
        Part::Race(races) => {
            let (rounds, wrong) = (count(races.rounds), races.failures.len());
            format!("races: {rounds} rounds, {wrong} unexplained")
        }
        Part::Planted(planted) => {
            let found = planted.values().flatten().count();
            format!("planted bugs: {found} of {} found", planted.len())
        }
        Part::Yardstick(yardstick) => {
            let all = yardstick.planted.len();
            let found =
                |bug: &&vfio_conform::results::Planted| bug.found.values().any(Option::is_some);
            let found = yardstick.planted.iter().filter(found).count();
            format!("planted bugs, by suite: {found} of {all} found")
        }
        Part::Lab(lab) => format!("lab: Linux {}, {} boots", lab.kernel, lab.boots),
        _ => String::new(),
    }
}

impl fmt::Display for History {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for Line { began, command, verdict, found } in &self.runs {
            let verdict = match verdict {
                Verdict::Good => "good",
                Verdict::Failed => "FAILED",
                Verdict::NotFinished => "not finished",
            };
            writeln!(f, "{began}  {command:<9} {verdict}")?;
            found.iter().try_for_each(|found| writeln!(f, "  {found}"))?;
        }
        self.refused.iter().try_for_each(|refused| writeln!(f, "refused {refused}"))
    }
}

/// Write the page of a directory, under another name first.
pub(super) fn write_page(directory: &Directory, path: &Path) -> Result<()> {
    let fail = |error: std::io::Error| format!("{}: {error}", path.display());
    let parent = match path.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => parent,
        _ => Path::new("."),
    };
    fs::create_dir_all(parent).map_err(fail)?;
    let rights = fs::Permissions::from_mode(0o666);
    let mut builder = tempfile::Builder::new();
    let mut file =
        builder.suffix(".html.tmp").permissions(rights).tempfile_in(parent).map_err(fail)?;
    file.write_all(Page::new(directory).html().as_bytes()).map_err(fail)?;
    file.persist(path).map_err(|error| fail(error.error))?;
    Ok(())
}
