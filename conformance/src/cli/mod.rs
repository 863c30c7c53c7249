// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! The command line: one module for each command, and what they share.

mod abuse;
#[cfg(feature = "check")]
mod bench;
#[cfg(feature = "check")]
mod bugs;
#[cfg(feature = "check")]
mod check;
mod complete;
mod events;
mod generate;
#[cfg(feature = "check")]
mod graph;
#[cfg(feature = "lab")]
mod lab;
mod learn;
#[cfg(feature = "check")]
mod matrix;
mod migrate;
#[cfg(all(feature = "mlx5", feature = "lab"))]
mod mlx5;
mod observe;
mod output;
#[cfg(all(test, feature = "check", feature = "lab", feature = "mlx5"))]
mod pages;
mod race;
mod replay;
#[cfg(feature = "check")]
mod run;
#[cfg(feature = "check")]
mod watched;

use std::error::Error;
use std::process::ExitCode;

use clap::{Args, Parser, Subcommand};
use vfio_conform::suite::Suite;
use vfio_conform::trace::Trace;
use vfio_fsm_core::Features;

use output::Output;

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
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Check the model, generate every suite, replay it on the reference device (the default).
    #[cfg(feature = "check")]
    Run,
    /// Check the model: every property, every fault that one must catch, and the claims that must fall.
    #[cfg(feature = "check")]
    Check(check::Arguments),
    /// Measure the checkers, ours and others, on the same models.
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
    /// Plant the bugs that others had, and say which suite finds each, and where.
    #[cfg(feature = "check")]
    Bugs(bugs::Arguments),
    /// Do to a device node what no VMM should and any process can: bad sizes, flags and pointers.
    Abuse(abuse::Arguments),
    /// Run whole migrations, with a reset or a cancel at every step.
    Migrate(migrate::Arguments),
    #[command(hide = true)]
    MigratePeer(migrate::PeerArguments),
    /// Hold a recording of a real VMM against the state machine, from both sides.
    Observe(observe::Arguments),
    /// Run a VMM under a recorder, then observe what it did.
    Watch(observe::WatchArguments),
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

/// Run the command line.
pub(crate) fn main() -> ExitCode {
    let cli = Cli::parse();
    let mut output = Output::new(cli.json);
    let result = execute(cli.command, &mut output).and_then(|verdict| {
        output.flush()?;
        Ok(verdict)
    });
    match result {
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
        Some(Command::Bench(arguments)) => bench::run(&arguments, output),
        #[cfg(feature = "check")]
        Some(Command::Graph(arguments)) => graph::run(&arguments, output),
        Some(Command::Generate(arguments)) => generate::run(&arguments, output),
        Some(Command::Replay(arguments)) => replay::run(&arguments, output),
        Some(Command::Complete(arguments)) => complete::run(&arguments, output),
        Some(Command::Learn(arguments)) => learn::run(&arguments, output),
        Some(Command::Race(arguments)) => race::run(&arguments, output),
        #[cfg(feature = "check")]
        Some(Command::Bugs(arguments)) => bugs::run(&arguments, output),
        Some(Command::Abuse(arguments)) => abuse::run(&arguments, output),
        Some(Command::Migrate(arguments)) => migrate::run(&arguments, output),
        Some(Command::MigratePeer(arguments)) => migrate::serve(&arguments),
        Some(Command::Observe(arguments)) => observe::run(&arguments, output),
        Some(Command::Watch(arguments)) => observe::watch(&arguments, output),
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
            return Err("no trace is selected; `generate --out -` lists what there is".into());
        }
        Ok(traces)
    }
}
