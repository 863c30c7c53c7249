// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! `vfio-conform race`: threads at one device, whose answers must have an explanation.

use std::fmt;
use std::fs;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use clap::Args;
use indicatif::HumanCount;
use serde::Serialize;
use vfio_conform::migrate::Resetter;
use vfio_conform::race::{History, Order, Plan, Rules, Stuck, order, race, shrink};
use vfio_conform::replay::{Mismatch, Verdict};
use vfio_conform::target::SharedReference;
#[cfg(feature = "mlx5")]
use vfio_conform::target::{Mlx5Options, SharedMlx5};
use vfio_fsm_core::device::Bug;
use vfio_fsm_core::vmm::Port;
use vfio_fsm_core::{Errno, Features, Op, Reply};
use vfio_fsm_kernel::{DevicePath, DevicePort, KernelDevice};

use super::Result;
use super::events::{Event, Events};
use super::output::Output;
use super::replay::TargetName;

#[derive(Debug, Args)]
pub(crate) struct Arguments {
    /// `reference`, `mlx5`, either with a planted bug, or `kernel:DEVICE`, each as `replay` has it.
    #[arg(long, default_value = "reference")]
    target: TargetName,
    /// How many threads.
    #[arg(long, value_name = "N", default_value_t = 3, value_parser = clap::value_parser!(u8).range(2..=4))]
    threads: u8,
    /// Calls of each thread in a round.
    #[arg(long, value_name = "N", default_value_t = 8, value_parser = clap::value_parser!(u8).range(1..=16))]
    calls: u8,
    /// Rounds, each from a fresh device and with a seed of its own.
    #[arg(long, value_name = "N", default_value_t = 1000, value_parser = clap::value_parser!(u32).range(1..))]
    rounds: u32,
    /// The seed of the first round.
    #[arg(long, value_name = "N", default_value_t = 0)]
    seed: u64,
    /// Seconds after which a call counts as hanging.
    #[arg(long, value_name = "SECONDS", default_value_t = 10)]
    patience: u64,
    /// Take both ends of a stream for the same, for a driver that is known not to tell them apart.
    #[arg(long)]
    ends_alike: bool,
    /// Begin with the n-th round, counted from 0.
    #[arg(long, value_name = "N", default_value_t = 0)]
    from: usize,
    /// One JSON line when a round begins and one for its verdict, as they happen.
    #[arg(long)]
    events: bool,
}

/// What the races came to.
#[derive(Debug, Default, Serialize)]
pub(super) struct Races {
    /// Rounds that were run.
    pub(super) rounds: u64,
    /// Calls in all of them.
    pub(super) calls: u64,
    /// Seconds it took.
    pub(super) seconds: f64,
    /// How a device of a kernel was reset.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub(super) resets: Vec<String>,
    /// Rounds whose answers have no explanation, or in which a call hangs.
    pub(super) failures: Vec<Unexplained>,
}

/// How the device was reset, before the first round.
#[derive(Serialize)]
#[serde(tag = "event", rename = "resets")]
struct Ways<'a> {
    resets: &'a [String],
}

/// A round that has no explanation.
#[derive(Debug, Serialize)]
pub(super) struct Unexplained {
    /// Its name, with its seed.
    pub(super) round: String,
    /// The smallest part of its history that cannot be explained, or what hangs.
    pub(super) history: String,
}

impl Races {
    pub(super) fn is_good(&self) -> bool {
        self.failures.is_empty() && self.rounds > 0
    }
}

impl fmt::Display for Races {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (rounds, calls) = (HumanCount(self.rounds), HumanCount(self.calls));
        let failed = HumanCount(self.failures.len() as u64);
        writeln!(
            f,
            "races: {rounds} rounds, {failed} without explanation; {calls} calls in {:.2} s",
            self.seconds
        )?;
        if !self.resets.is_empty() {
            writeln!(f, "  resets by {}", self.resets.join(", "))?;
        }
        let shown = self.failures.iter().take(SHOWN);
        shown.into_iter().try_for_each(|Unexplained { round, history }| {
            writeln!(f, "  FAIL: {round}: no order of these calls explains the answers")?;
            history.lines().try_for_each(|line| writeln!(f, "    {}", line.trim_end()))
        })
    }
}

/// A person is shown so many failures; JSON has them all.
const SHOWN: usize = 3;

/// A SAVE of the firmware in software takes fewer ticks than this, which depends on the seed.
#[cfg(feature = "mlx5")]
const LONGEST_SAVE: u64 = 64;

/// What is raced at.
enum Arena {
    /// With this bug, anew for each round.
    Reference(Option<Bug>),
    #[cfg(feature = "mlx5")]
    Mlx5(Mlx5Options, Option<SharedMlx5>),
    /// And how each thread resets it.
    Kernel(KernelDevice, Vec<ResetBy>),
}

/// How a thread resets a device of a kernel: each of them takes another way through it.
#[derive(Clone, Debug)]
enum ResetBy {
    /// By the ioctl, as everybody does.
    Ioctl,
    /// By the ioctl, in another process with the same device fd.
    Process(Arc<Mutex<Resetter>>),
    /// By the file in /sys, as the host's administrator does.
    Sysfs(PathBuf),
}

impl ResetBy {
    /// The ways that there are, in the order in which threads take them.
    fn all(device: &KernelDevice, path: &DevicePath) -> Result<Vec<Self>> {
        let mut peer = Command::new(std::env::current_exe()?);
        peer.arg("migrate-peer");
        let resetter = Resetter::start(peer, device.duplicate()?)?;
        let file = Path::new(&path.to_string()).join("reset");
        let sysfs = file.exists().then_some(Self::Sysfs(file));
        Ok([Self::Process(Arc::new(Mutex::new(resetter))), Self::Ioctl]
            .into_iter()
            .chain(sysfs)
            .collect())
    }
}

impl fmt::Display for ResetBy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Ioctl => f.write_str("ioctl"),
            Self::Process(_) => f.write_str("ioctl of another process"),
            Self::Sysfs(file) => file.display().fmt(f),
        }
    }
}

/// A port whose resets go their own way.
struct RacingPort {
    port: DevicePort<OwnedFd>,
    reset: ResetBy,
}

impl Port for RacingPort {
    type Fd = Arc<OwnedFd>;

    fn apply<'b>(
        &mut self,
        op: Op<&[u8], &Self::Fd>,
        buf: &'b mut [u8],
    ) -> Reply<&'b [u8], Self::Fd> {
        let done = match (&op, &self.reset) {
            (Op::Reset, ResetBy::Process(resetter)) => {
                let mut resetter = resetter.lock().unwrap_or_else(PoisonError::into_inner);
                resetter.reset().unwrap_or(Err(Errno::EIO))
            }
            (Op::Reset, ResetBy::Sysfs(file)) => {
                fs::write(file, "1").map_err(|error| error.raw_os_error().map_or(Errno::EIO, Errno))
            }
            _ => return self.port.apply(op, buf),
        };
        done.map_or_else(Reply::Errno, |()| Reply::Ok)
    }
}

impl Arena {
    fn open(target: &TargetName) -> Result<Self> {
        match target {
            TargetName::Reference(bug) => Ok(Self::Reference(*bug)),
            #[cfg(feature = "mlx5")]
            TargetName::Mlx5(options) => Ok(Self::Mlx5(*options, None)),
            TargetName::Kernel(devices) => {
                let path: DevicePath = devices[0].parse()?;
                let device = KernelDevice::open(&path)?;
                let resets = ResetBy::all(&device, &path)?;
                Ok(Self::Kernel(device, resets))
            }
            TargetName::VfioUser(_) => Err("there is no race over vfio-user: one connection at a \
                time, whose commands the server must take one after the other"
                .into()),
        }
    }

    fn features(&self) -> Features {
        match self {
            Self::Reference(_) => Features::ALL,
            #[cfg(feature = "mlx5")]
            Self::Mlx5(..) => Features::ALL,
            Self::Kernel(device, _) => device.features(),
        }
    }

    /// How it is reset, where there is more than one way.
    fn resets(&self) -> Vec<String> {
        match self {
            Self::Kernel(_, resets) => resets.iter().map(ToString::to_string).collect(),
            _ => Vec::new(),
        }
    }

    /// What of the device is not as its device_state says, when nobody does anything to it.
    fn disagreement(&self) -> Option<String> {
        match self {
            #[cfg(feature = "mlx5")]
            Self::Mlx5(_, Some(device)) => device.disagreement(),
            _ => None,
        }
    }

    fn round(&mut self, threads: u8, plan: Plan) -> Result<std::result::Result<History, Stuck>> {
        Ok(match self {
            Self::Reference(bug) => {
                let device = SharedReference::new(Features::ALL, *bug);
                race((0..threads).map(|_| device.clone()).collect(), plan)
            }
            #[cfg(feature = "mlx5")]
            Self::Mlx5(options, latest) => {
                let save_ticks = plan.seed % LONGEST_SAVE;
                let device = SharedMlx5::new(Mlx5Options { save_ticks, ..*options })?;
                let device = latest.insert(device);
                race((0..threads).map(|_| device.port()).collect(), plan)
            }
            Self::Kernel(device, resets) => {
                device.fresh()?;
                let ways = resets.iter().cycle().take(usize::from(threads));
                let port = |reset: &ResetBy| {
                    let port = DevicePort::new(device.duplicate()?).non_blocking();
                    Ok(RacingPort { port, reset: reset.clone() })
                };
                race(ways.map(port).collect::<Result<_>>()?, plan)
            }
        })
    }
}

pub(crate) fn run(arguments: &Arguments, output: &mut Output) -> Result {
    let mut arena = Arena::open(&arguments.target)?;
    let rules = Rules { features: arena.features(), ends_alike: arguments.ends_alike };
    let mut events = Events::new(arguments.events, "races");
    events.expect(arguments.rounds as usize);
    let mut races = Races { resets: arena.resets(), ..Races::default() };
    if !races.resets.is_empty() {
        events.line(&Ways { resets: &races.resets })?;
    }
    let started = Instant::now();
    let rounds = (arguments.seed..).take(arguments.rounds as usize).enumerate();
    for (index, seed) in rounds.skip(arguments.from) {
        let name = format!("race/{}/seed-{seed}", rules.features.slug());
        events.begin(index, &name)?;
        let plan = Plan {
            calls: usize::from(arguments.calls),
            seed,
            patience: Duration::from_secs(arguments.patience),
        };
        let outcome = arena.round(arguments.threads, plan)?;
        let (ops, unexplained, stuck) = judge(outcome, rules);
        let unexplained = unexplained.or_else(|| arena.disagreement());
        races.rounds += 1;
        races.calls += ops;
        let verdict = unexplained.as_ref().map_or(Verdict::Pass, |seen| fail(seen));
        events.tell(&Event::Verdict { index, trace: &name, ops, verdict: &verdict })?;
        races.failures.extend(unexplained.map(|history| Unexplained { round: name, history }));
        if stuck {
            // Its threads are left behind, and the device with them.
            break;
        }
    }
    races.seconds = started.elapsed().as_secs_f64();
    events.done()?;
    if !arguments.events {
        output.say("races", &races)?;
    }
    Ok(races.is_good())
}

/// The calls of a round, what of it has no explanation, and whether one hangs.
fn judge(
    outcome: std::result::Result<History, Stuck>,
    rules: Rules,
) -> (u64, Option<String>, bool) {
    match outcome {
        Err(stuck) => {
            (stuck.history.0.len() as u64, Some(format!("{stuck}\n{}", stuck.history)), true)
        }
        Ok(history) => {
            let wrong = order(&history, rules) == Order::None;
            let small = wrong.then(|| shrink(&history, rules).to_string());
            (history.0.len() as u64, small, false)
        }
    }
}

fn fail(history: &str) -> Verdict {
    Verdict::Fail(Mismatch {
        step: 0,
        op: "calls at the same time".to_owned(),
        expected: "answers that some order of them explains".to_owned(),
        seen: history.to_owned(),
        story: Vec::new(),
    })
}
