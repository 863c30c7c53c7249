// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! `vfio-conform migrate`: whole migrations, with a reset or a cancel at every step.

use std::fmt;
use std::io;
use std::os::fd::AsFd;
use std::os::unix::net::UnixStream;
use std::process::Command;

use clap::Args;
use serde::Serialize;
use vfio_conform::migrate::{
    self, CaseReport, Devices, Hang, Matrix, Peer, Progress, Seeds, Setup, Told,
};
use vfio_fsm_core::Features;

use super::Result;
use super::events::Events;
use super::output::{self, Output};
use super::replay::{TargetName, Touch};

/// Runs at random, if no other number is given: about a second of them.
const SEEDS: u64 = 10_000;

#[derive(Debug, Args)]
pub(crate) struct Arguments {
    /// The devices: `reference`, `mlx5`, either with a planted bug, or `kernel:SOURCE,DESTINATION`,
    /// each as `replay` has it.
    #[arg(long, default_value = "reference")]
    target: TargetName,
    /// So many migrations more with everything going wrong at random, not on a kernel.
    /// [default: 10000]
    #[arg(long, value_name = "N")]
    seeds: Option<u64>,
    /// Only the one of these with this number, step by step.
    #[arg(long, value_name = "N", conflicts_with = "seeds")]
    seed: Option<u64>,
    /// On a kernel: how often each step is raced against a reset by another process.
    #[arg(long, value_name = "N", default_value_t = 16, value_parser = clap::value_parser!(u32).range(1..))]
    rounds: u32,
    /// On a kernel: a byte of the devices that a guest could write, as REGION:OFFSET (mtty: 0:7).
    #[arg(long, value_name = "REGION:OFFSET")]
    touch: Option<Touch>,
    /// Begin with the n-th case, counted from 0.
    #[arg(long, value_name = "N", default_value_t = 0)]
    from: usize,
    /// One JSON line when a case begins and one for its verdict, as they happen.
    #[arg(long)]
    events: bool,
}

/// What it came to.
#[derive(Serialize)]
struct Migrations {
    matrix: Matrix,
    #[serde(skip_serializing_if = "Option::is_none")]
    at_random: Option<Seeds>,
}

impl fmt::Display for Migrations {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.matrix.fmt(f)?;
        self.at_random.as_ref().map_or(Ok(()), |seeds| seeds.fmt(f))
    }
}

pub(crate) fn run(arguments: &Arguments, output: &mut Output) -> Result {
    let devices = match &arguments.target {
        TargetName::Reference(bug) => Devices::Reference(*bug),
        #[cfg(feature = "mlx5")]
        TargetName::Mlx5(options) => Devices::Mlx5(*options),
        TargetName::Kernel(_) if arguments.seed.or(arguments.seeds).is_some() => {
            return Err("--seeds and --seed are for devices in memory".into());
        }
        TargetName::Kernel(devices) => return on_kernel(arguments, devices, output),
        TargetName::VfioUser(_) => {
            let why = "`migrate` works with data_fds, which vfio-user has not; `replay` has the";
            return Err(format!("{why} round trips between two servers").into());
        }
    };
    match arguments.seed {
        Some(seed) => {
            let told = Told::run(seed, devices)?;
            output.say("migrate", &told)?;
            Ok(told.outcome.is_some())
        }
        None => in_memory(arguments, devices, output),
    }
}

fn in_memory(arguments: &Arguments, devices: Devices, output: &mut Output) -> Result {
    let mut listener = Listener::new(arguments.events);
    let from = arguments.from;
    let matrix =
        migrate::in_memory(Features::ALL, devices, from, &mut |progress| listener.on(&progress))?;
    listener.heard?;
    check(&matrix, from)?;
    let seeds = Seeds::run(0..arguments.seeds.unwrap_or(SEEDS), devices)?;
    let good = matrix.is_good(from) && (seeds.is_good() || arguments.seeds == Some(0));
    if !arguments.events {
        output.say("migrate", &Migrations { matrix, at_random: Some(seeds) })?;
    }
    Ok(good)
}

fn on_kernel(arguments: &Arguments, devices: &[String], output: &mut Output) -> Result {
    let [source, destination] = devices else {
        return Err("a migration has two devices: kernel:SOURCE,DESTINATION".into());
    };
    let touch = arguments
        .touch
        .ok_or("a guest has to write something that migrates: --touch REGION:OFFSET (mtty: 0:7)")?;
    let program = std::env::current_exe()?;
    let peer = |peer| {
        let mut command = Command::new(&program);
        command.arg("migrate-peer");
        if peer == Peer::Destination {
            command.arg(destination).arg(touch.to_string());
        }
        command
    };
    let mut listener = Listener::new(arguments.events);
    let touch = (touch.region, touch.offset);
    let (rounds, from) = (arguments.rounds, arguments.from);
    let setup = Setup { source, touch, rounds, peer: &peer, from };
    let events = arguments.events;
    let bark = move |hang| end_with(&hang, events);
    let matrix = migrate::on_kernel(&setup, bark, &mut |progress| listener.on(&progress))?;
    listener.heard?;
    check(&matrix, from)?;
    let good = matrix.is_good(from);
    if !events {
        output.say("migrate", &Migrations { matrix, at_random: None })?;
    }
    Ok(good)
}

/// A first case that there is not is wrong use.
fn check(matrix: &Matrix, from: usize) -> Result<()> {
    let cases = matrix.planned;
    if from < cases {
        return Ok(());
    }
    Err(format!("--from {from}: there are {cases} cases, counted from 0").into())
}

/// Something does not return, and never will: say so and end. What hangs in the kernel cannot be
/// waited for.
fn end_with(hang: &Hang, events: bool) {
    let Hang { index, case, op } = hang;
    if events {
        let (report, name) = (CaseReport::hung(hang), case.to_string());
        let event = Progress::Verdict { index: *index, trace: &name, report: &report };
        let told = Events::new(true, "").tell(&event);
        // Whoever listened is gone, and so are we.
        drop(told);
    } else {
        output::note(format_args!("vfio-conform: FAIL: {case}: {op} does not return"));
    }
    std::process::exit(1);
}

/// Hands on what happens; keeps the first thing that could not be told.
struct Listener {
    events: Events,
    heard: Result<()>,
}

impl Listener {
    fn new(events: bool) -> Self {
        Self { events: Events::new(events, "migrate"), heard: Ok(()) }
    }

    fn on(&mut self, progress: &Progress<'_>) {
        let told = match progress {
            Progress::Planned { cases, .. } => {
                self.events.expect(*cases);
                self.events.line(progress)
            }
            Progress::Begin { index, trace } => self.events.begin(*index, trace),
            Progress::Verdict { .. } => self.events.tell(progress),
            _ => self.events.done(),
        };
        if self.heard.is_ok() {
            self.heard = told;
        }
    }
}

/// The other processes of a migration between real devices. They are started by `migrate`.
#[derive(Debug, Args)]
pub(crate) struct PeerArguments {
    /// The destination's device, and its byte; without, the peer resets.
    #[arg(num_args = 2, value_names = ["DEVICE", "REGION:OFFSET"])]
    destination: Vec<String>,
}

pub(crate) fn serve(arguments: &PeerArguments) -> Result {
    let control = UnixStream::from(io::stdin().as_fd().try_clone_to_owned()?);
    match arguments.destination.as_slice() {
        [device, touch] => {
            let touch: Touch = touch.parse()?;
            migrate::serve_destination(control, device, (touch.region, touch.offset))?;
        }
        _ => migrate::serve_resets(control, io::stdout().as_fd().try_clone_to_owned()?)?,
    }
    Ok(true)
}
