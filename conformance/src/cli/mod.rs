// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! The command line: one module for each command, and what they share.

mod abuse;
#[cfg(feature = "check")]
mod bench;
#[cfg(feature = "check")]
mod bugs;
mod cases;
#[cfg(feature = "check")]
mod check;
mod complete;
#[cfg(feature = "report")]
mod diagram;
mod dirty;
mod events;
mod generate;
#[cfg(feature = "check")]
mod graph;
#[cfg(feature = "lab")]
mod lab;
mod learn;
mod lifetime;
#[cfg(feature = "manual")]
mod manual;
#[cfg(feature = "check")]
mod matrix;
mod migrate;
#[cfg(all(feature = "mlx5", feature = "lab"))]
mod mlx5;
mod observe;
mod output;
mod pace;
#[cfg(all(test, feature = "check", feature = "lab", feature = "mlx5"))]
mod pages;
mod qemu;
mod race;
mod replay;
#[cfg(feature = "report")]
mod report;
#[cfg(feature = "check")]
mod run;
mod serve;
#[cfg(feature = "check")]
mod watched;

use std::error::Error;
use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Args, CommandFactory, FromArgMatches, Parser, Subcommand};
#[cfg(feature = "report")]
use vfio_conform::results::Directory;
use vfio_conform::results::{self, Head, Keeper};
use vfio_conform::suite::Suite;
use vfio_conform::trace::Trace;
use vfio_fsm_core::Features;

use output::{Loudness, Output};

/// Conformance of VFIO migration v2 devices: model check, generated suites, replay, lab.
///
/// Exit status: 0 all good, 1 a verdict failed, 2 wrong use or something is missing, 3 a check was
/// cut short: not failed as far as it went, and not passed.
#[derive(Debug, Parser)]
#[command(version, max_term_width = 100)]
struct Cli {
    #[command(subcommand)]
    command: Option<Command>,
    /// One JSON object on standard output instead of text.
    #[arg(long, global = true)]
    json: bool,
    #[command(flatten)]
    wishes: Wishes,
}

/// What every command heeds.
#[derive(Debug, Args)]
#[command(next_help_heading = "Of every command")]
struct Wishes {
    /// Say nothing, unless it is not good.
    #[arg(long, short, global = true, conflicts_with = "verbose")]
    quiet: bool,
    /// Say all: every failure, and every reason to its end.
    #[arg(long, short, global = true)]
    verbose: bool,
    /// Also keep what was found, as a file of its own in this directory, for `report`.
    #[arg(long, value_name = "DIR", global = true)]
    results: Option<PathBuf>,
    /// Also write a page to look at, with all that is kept in the directory of the results
    /// [default: report.html there, or here].
    #[cfg(feature = "report")]
    #[arg(long, value_name = "FILE", global = true, num_args = 0..=1, require_equals = true)]
    html: Option<Option<PathBuf>>,
}

impl Wishes {
    const fn loudness(&self) -> Loudness {
        match (self.quiet, self.verbose) {
            (true, _) => Loudness::Quiet,
            (_, true) => Loudness::Verbose,
            _ => Loudness::Normal,
        }
    }
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Check the model, generate every suite, replay it on the reference device (the default).
    #[cfg(feature = "check")]
    Run,
    /// Check the model: every property, every fault that one must catch, and the claims that must fall.
    #[cfg(feature = "check")]
    Check(check::Arguments),
    /// Measure: ours beside another's or beside what cannot be done without, and how cost grows.
    #[cfg(feature = "check")]
    Bench(bench::Arguments),
    /// Explore the protocol as a graph: its size, how it ends, and the graph itself.
    #[cfg(feature = "check")]
    Graph(graph::Arguments),
    /// Write the suites as trace files.
    Generate(generate::Arguments),
    /// Run traces on a device.
    Replay(replay::Arguments),
    /// Suites with a guarantee: what they cost, what they catch, and what a pass of one proves.
    Complete(complete::Arguments),
    /// Find out from the outside what machine a device is, and where it differs.
    Learn(learn::Arguments),
    /// Let threads race at a device, and look for an order of their calls that explains every answer.
    Race(race::Arguments),
    /// Hold the log of DMA against an automaton, and against an oracle that knows each page written.
    Dirty(dirty::Arguments),
    /// Plant the bugs that others had, and say which suite finds each, and where.
    #[cfg(feature = "check")]
    Bugs(bugs::Arguments),
    /// Do to a device node what no VMM should and any process can: bad sizes, flags and pointers.
    Abuse(cases::Arguments),
    /// Close, unbind and remove a device, named by its directory in /sys, under its users.
    Lifetime(lifetime::Arguments),
    /// Run whole migrations, with a reset or a cancel at every step.
    Migrate(migrate::Arguments),
    #[command(hide = true)]
    MigratePeer(migrate::PeerArguments),
    #[command(hide = true)]
    DriveQemu(qemu::Arguments),
    /// Serve a device over a vfio-user socket, for a client to be tested with.
    Serve(serve::Arguments),
    /// Hold a recording of a real VMM against the state machine, from both sides.
    Observe(observe::Arguments),
    /// Run a VMM under a recorder, then observe what it did.
    Watch(observe::WatchArguments),
    /// Show what runs have found that were kept with --results: as a table, and with --html as a page.
    #[cfg(feature = "report")]
    Report(report::Arguments),
    /// Draw the machine, the resets of migrations or a failing trace: SVG, Mermaid, Graphviz.
    #[cfg(feature = "report")]
    Diagram(diagram::Arguments),
    /// Write completions for a shell to standard output.
    #[cfg(feature = "manual")]
    Completions(manual::CompletionsArguments),
    /// Write the manual, as `man` reads it.
    #[cfg(feature = "manual")]
    Man(manual::ManArguments),
    /// Boot a distribution's kernel in a virtual machine and run the suites on its sample driver.
    #[cfg(feature = "lab")]
    Lab(lab::Arguments),
    /// Check the mlx5 backend against what others wrote.
    #[cfg(all(feature = "mlx5", feature = "lab"))]
    Mlx5(mlx5::Arguments),
}

/// What every command returns: whether all is good, or why it could not be found out.
type Result<T = bool> = std::result::Result<T, Box<dyn Error>>;

/// What the program says by its exit status, unless it could not do what it was asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Verdict {
    Good,
    Failed,
    /// Nothing failed, but not all was done.
    #[cfg(feature = "check")]
    NotFinished,
}

impl From<bool> for Verdict {
    fn from(good: bool) -> Self {
        if good { Self::Good } else { Self::Failed }
    }
}

impl From<Verdict> for results::Verdict {
    fn from(verdict: Verdict) -> Self {
        match verdict {
            Verdict::Good => Self::Good,
            Verdict::Failed => Self::Failed,
            #[cfg(feature = "check")]
            Verdict::NotFinished => Self::NotFinished,
        }
    }
}

/// Run the command line.
pub(crate) fn main() -> ExitCode {
    let matches = Cli::command().get_matches();
    let cli = Cli::from_arg_matches(&matches).unwrap_or_else(|error| error.exit());
    let name = matches.subcommand_name().unwrap_or("run");
    match run(cli, name) {
        Ok(Verdict::Good) => ExitCode::SUCCESS,
        Ok(Verdict::Failed) => ExitCode::from(1),
        #[cfg(feature = "check")]
        Ok(Verdict::NotFinished) => ExitCode::from(3),
        Err(error) if output::is_broken_pipe(&*error) => ExitCode::SUCCESS,
        Err(error) => {
            output::complain(&*error);
            ExitCode::from(2)
        }
    }
}

fn run(cli: Cli, name: &str) -> Result<Verdict> {
    let Cli { command, json, wishes } = cli;
    let arguments = std::env::args_os().skip(1);
    let head = Head::begin(name, arguments.map(|it| it.to_string_lossy().into_owned()));
    let keeper = wishes.results.as_ref().map(|directory| Keeper::new(directory, &head));
    let mut output = Output::new(json, wishes.loudness(), head, keeper.transpose()?);
    #[cfg(feature = "report")]
    let page = Page::asked_for(&wishes, command.as_ref());
    #[cfg(feature = "report")]
    if page.is_some() {
        output.collect();
    }
    let verdict = execute(command, &mut output)?;
    output.end(verdict.into())?;
    #[cfg(feature = "report")]
    if let Some(page) = page {
        page.write(&output)?;
    }
    Ok(verdict)
}

/// A page that somebody wants.
#[cfg(feature = "report")]
struct Page {
    file: PathBuf,
    /// Of these results; of this run alone without.
    directory: Option<PathBuf>,
}

#[cfg(feature = "report")]
impl Page {
    fn asked_for(wishes: &Wishes, command: Option<&Command>) -> Option<Self> {
        let file = wishes.html.as_ref()?;
        let directory = match command {
            Some(Command::Report(arguments)) => Some(arguments.directory.clone()),
            _ => wishes.results.clone(),
        };
        let there = directory.clone().unwrap_or_default().join("report.html");
        Some(Self { file: file.clone().unwrap_or(there), directory })
    }

    fn write(&self, output: &Output) -> Result<()> {
        let directory = match &self.directory {
            Some(directory) => Directory::read(directory)?,
            None => Directory::of_one(output.object()?)?,
        };
        report::write_page(&directory, &self.file)
    }
}

fn execute(command: Option<Command>, output: &mut Output) -> Result<Verdict> {
    let good = match command {
        #[cfg(feature = "check")]
        None | Some(Command::Run) => run::run(output),
        #[cfg(not(feature = "check"))]
        None => {
            Err("this is the small replayer: it has `generate`, `replay` and `migrate` only".into())
        }
        #[cfg(feature = "check")]
        Some(Command::Check(arguments)) => return check::run(&arguments, output),
        #[cfg(feature = "check")]
        Some(Command::Bench(arguments)) => return bench::run(&arguments, output),
        #[cfg(feature = "check")]
        Some(Command::Graph(arguments)) => graph::run(&arguments, output),
        Some(Command::Generate(arguments)) => generate::run(&arguments, output),
        Some(Command::Replay(arguments)) => replay::run(&arguments, output),
        Some(Command::Complete(arguments)) => complete::run(&arguments, output),
        Some(Command::Learn(arguments)) => learn::run(&arguments, output),
        Some(Command::Race(arguments)) => race::run(&arguments, output),
        Some(Command::Dirty(arguments)) => dirty::run(&arguments, output),
        #[cfg(feature = "check")]
        Some(Command::Bugs(arguments)) => bugs::run(&arguments, output),
        Some(Command::Abuse(arguments)) => abuse::run(&arguments, output),
        Some(Command::Lifetime(arguments)) => lifetime::run(&arguments, output),
        Some(Command::Migrate(arguments)) => migrate::run(&arguments, output),
        Some(Command::MigratePeer(arguments)) => migrate::serve(&arguments),
        Some(Command::DriveQemu(arguments)) => qemu::run(&arguments),
        Some(Command::Serve(arguments)) => serve::run(&arguments, output),
        Some(Command::Observe(arguments)) => observe::run(&arguments, output),
        Some(Command::Watch(arguments)) => observe::watch(&arguments, output),
        #[cfg(feature = "report")]
        Some(Command::Report(arguments)) => report::run(&arguments, output),
        #[cfg(feature = "report")]
        Some(Command::Diagram(arguments)) => diagram::run(&arguments, output),
        #[cfg(feature = "manual")]
        Some(Command::Completions(arguments)) => manual::completions(&arguments, output),
        #[cfg(feature = "manual")]
        Some(Command::Man(arguments)) => manual::man(&arguments, output),
        #[cfg(feature = "lab")]
        Some(Command::Lab(arguments)) => lab::run(&arguments, output),
        #[cfg(all(feature = "mlx5", feature = "lab"))]
        Some(Command::Mlx5(arguments)) => mlx5::run(&arguments, output),
    };
    good.map(Verdict::from)
}

/// Flags by their name: `stop-copy`, `p2p`, `pre-copy` or `full`.
fn features(name: &str) -> std::result::Result<Features, String> {
    let names = Features::SETS.map(|set| set.slug());
    let found = Features::SETS.into_iter().find(|set| set.slug() == name);
    found.ok_or_else(|| format!("there are no such flags; there are {}", names.join(", ")))
}

const NONE_SELECTED: &str = "no trace is selected; `generate --out -` lists what there is";

/// Which of the generated traces.
#[derive(Debug, Args)]
struct Selection {
    /// Only these suites; all if none is named.
    #[arg(long, value_enum)]
    suite: Vec<Suite>,
    /// Only traces whose name matches this glob, such as 'arcs/full/*'.
    #[arg(long, value_name = "GLOB")]
    only: Option<glob::Pattern>,
}

impl Selection {
    /// Whether nothing is left out.
    fn is_all(&self) -> bool {
        self.suite.is_empty() && self.only.is_none()
    }

    fn suites(&self) -> Vec<Suite> {
        if self.suite.is_empty() { Suite::ALL.to_vec() } else { self.suite.clone() }
    }

    fn generate(&self) -> Result<Vec<Trace>> {
        self.filter(self.suites().into_iter().flat_map(Suite::generate_all).collect())
    }

    /// The traces that are wanted; none at all is wrong use.
    fn filter(&self, mut traces: Vec<Trace>) -> Result<Vec<Trace>> {
        if let Some(only) = &self.only {
            traces.retain(|trace| only.matches(&trace.header.name));
        }
        if traces.is_empty() {
            return Err(NONE_SELECTED.into());
        }
        Ok(traces)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What clap holds of its commands only when one of them is asked for, held of all.
    #[test]
    fn the_commands_are_sound() {
        Cli::command().debug_assert();
    }
}
