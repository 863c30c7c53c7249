// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! Everything that can go wrong once, at every place where it can: what the driver makes of it under
//! the sanitizers.

use std::fmt;

use vfio_fsm_core::{Errno, Fd, Op, Reply, State};

use super::{Arena, Built, DriverError, Failure, LinuxDriver, Meanwhile, Options, Scripted};
use crate::layout::CommandStatus;

/// Pages of each driver: 128 MiB, more than any of the scenes needs.
const PAGES: u64 = 1 << 15;

/// One step of a scene. What fails on the way is left behind: the next step is done all the same.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Step {
    Set(State),
    /// Reads the last data_fd to its end.
    Drain,
    /// Reads a piece of it.
    Read,
    Info,
    /// Writes a stream that an earlier one of the same driver is made like.
    Load,
    Size,
    Reset,
    CloseFd,
    Reopen,
    Detach,
    Attach,
    Log,
    LogStop,
}

use State::{PreCopy, PreCopyP2p, Resuming, Running, RunningP2p, Stop, StopCopy};
use Step::{Attach, CloseFd, Detach, Drain, Info, Load, Log, LogStop, Read, Reopen, Set, Size};

/// Between them they walk all fifteen arcs.
const SCENES: &[(&str, &[Step])] = &[
    ("stop-copy", &[Set(StopCopy), Drain, Set(Running)]),
    ("stop-copy, half read", &[Set(StopCopy), Read, CloseFd, Set(Stop), Size]),
    ("resume", &[Set(Resuming), Load, Set(Running)]),
    ("pre-copy", &[Set(PreCopy), Drain, Info, Drain, Set(StopCopy), Drain, Set(Running)]),
    ("pre-copy, unread", &[Set(PreCopy), Set(StopCopy), Info, Drain, Set(Stop)]),
    ("pre-copy given up", &[Set(PreCopy), Read, Info, Set(Running)]),
    (
        "peer to peer",
        &[Set(RunningP2p), Set(PreCopyP2p), Info, Set(PreCopy), Set(PreCopyP2p), Set(RunningP2p)],
    ),
    ("closed while saving", &[Set(PreCopy), Reopen, Drain, Set(PreCopy), Drain]),
    ("log", &[Log, Set(PreCopy), Drain, LogStop, Set(Running)]),
    ("log, closed", &[Log, Reopen]),
];

/// What is done after each: whoever meets a failure tries what there is.
const AFTERWARDS: &[Step] =
    &[Info, Drain, Size, Set(PreCopyP2p), Set(Running), Info, Set(Stop), Step::Reset, Set(Running)];

/// What goes wrong, once.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Trouble {
    /// The command behind as many others fails.
    Command(usize, Failure),
    /// While that command runs, the VF is reset.
    ResetIn(usize),
    /// Before this step of the scene the PF's driver disables its VFs, and enables them again.
    Detach(usize),
    /// There are no more pages than these.
    Pages(u32),
}

impl fmt::Display for Trouble {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Command(number, failure) => write!(f, "command {number} fails: {failure:?}"),
            Self::ResetIn(number) => write!(f, "a reset within command {number}"),
            Self::Detach(step) => write!(f, "the PF goes and comes back before step {step}"),
            Self::Pages(pages) => write!(f, "{pages} pages of memory"),
        }
    }
}

/// What came of one run.
#[derive(Debug)]
pub struct Outcome {
    /// Which steps.
    pub scene: &'static str,
    /// What went wrong; `None` for nothing.
    pub trouble: Option<Trouble>,
    /// How the driver was run.
    pub options: Options,
    /// What is wrong with the driver; `None` for nothing.
    pub found: Option<DriverError>,
}

impl Outcome {
    /// The page on what was found, if there is one: see [`FINDINGS`](super::FINDINGS).
    pub fn page(&self) -> Option<&'static str> {
        const NO_SESSION: &str = "null pointer of type 'struct mlx5_vf_migration_file'";
        match (self.trouble?, self.found.as_ref()?) {
            (Trouble::Detach(_), DriverError::Ended { said, .. }) if said.contains(NO_SESSION) => {
                Some("mlx5-pf-reload")
            }
            (Trouble::Command(..), DriverError::Ended { said, .. })
                if said.contains(NO_SESSION) =>
            {
                Some("mlx5-clean-up-fails")
            }
            (Trouble::Command(..), DriverError::Found(left)) if left.contains("files: 1") => {
                Some("mlx5-clean-up-fails")
            }
            _ => None,
        }
    }
}

impl fmt::Display for Outcome {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Options { completion, workers_first, .. } = self.options;
        let order = if workers_first { ", workers first" } else { "" };
        write!(f, "{} (SAVEs end {completion:?}{order})", self.scene)?;
        if let Some(trouble) = self.trouble {
            write!(f, ", {trouble}")?;
        }
        match &self.found {
            Some(found) => write!(f, ": {found}"),
            None => f.write_str(": clean"),
        }
    }
}

/// Runs every scene with every trouble that it has room for.
pub fn sweep(
    built: &Built,
    chunk_mode: bool,
    options: Options,
) -> Result<Vec<Outcome>, DriverError> {
    let sweep = Sweep { built, chunk_mode, options, stream: stream(built, chunk_mode)? };
    let mut outcomes = Vec::new();
    for &(scene, steps) in SCENES {
        let mut commands = 0;
        let found = sweep.run(steps, None, &mut commands).err();
        outcomes.push(Outcome { scene, trouble: None, options, found });
        for trouble in troubles(commands, steps.len()) {
            let found = sweep.run(steps, Some(trouble), &mut 0).err();
            outcomes.push(Outcome { scene, trouble: Some(trouble), options, found });
        }
    }
    Ok(outcomes)
}

fn troubles(commands: usize, steps: usize) -> impl Iterator<Item = Trouble> {
    let failures = [
        Failure::Status(CommandStatus::BadResState),
        Failure::Status(CommandStatus::InternalErr),
        Failure::Delivery(Errno::EIO),
    ];
    let fails = (0..commands)
        .flat_map(move |number| failures.map(|failure| Trouble::Command(number, failure)));
    let resets = (0..commands).map(Trouble::ResetIn);
    let detaches = (1..steps + 1).map(Trouble::Detach);
    let pages = [0, 1, 2, 3, 4, 5, 7, 10, 100, 2048, 4096].map(Trouble::Pages);
    fails.chain(resets).chain(detaches).chain(pages)
}

/// A stream of the driver's own.
fn stream(built: &Built, chunk_mode: bool) -> Result<Vec<u8>, DriverError> {
    let arena = Arena::new(PAGES).map_err(DriverError::Process)?;
    let mut driver = built.start(Scripted::new(chunk_mode), &arena, Options::default())?;
    let mut buf = vec![0; 1 << 20];
    driver.try_apply(Op::set(StopCopy), &mut buf)?;
    let mut stream = Vec::new();
    let read = Op::Read { fd: Fd(1), len: 1 << 20 };
    while let Reply::Bytes(bytes) = driver.try_apply(read, &mut buf)? {
        stream.extend_from_slice(bytes);
    }
    driver.finish(1)?;
    Ok(stream)
}

struct Sweep<'a> {
    built: &'a Built,
    chunk_mode: bool,
    options: Options,
    stream: Vec<u8>,
}

impl Sweep<'_> {
    fn run(
        &self,
        steps: &[Step],
        trouble: Option<Trouble>,
        commands: &mut usize,
    ) -> Result<(), DriverError> {
        let arena = Arena::new(PAGES).map_err(DriverError::Process)?;
        let driver = self.built.start(Scripted::new(self.chunk_mode), &arena, self.options)?;
        let mut run = Run { driver, fds: 0, stream: &self.stream };
        run.driver.take_given();
        match trouble {
            Some(Trouble::Command(number, failure)) => {
                run.driver.firmware_mut().fail_after(number, failure);
            }
            Some(Trouble::ResetIn(number)) => {
                run.driver.meanwhile(Meanwhile::Command(number), Op::Reset);
            }
            Some(Trouble::Pages(pages)) => run.driver.pages_left(Some(pages))?,
            Some(Trouble::Detach(_)) | None => {}
        }
        for (number, &step) in steps.iter().enumerate() {
            if trouble == Some(Trouble::Detach(number)) {
                run.bounce()?;
            }
            run.step(step)?;
        }
        *commands = run.driver.take_given().len();
        if trouble == Some(Trouble::Detach(steps.len())) {
            run.bounce()?;
        }
        for &step in AFTERWARDS {
            run.step(step)?;
        }
        run.driver.pages_left(None)?;
        run.driver.finish(run.fds)
    }
}

struct Run<'a> {
    driver: LinuxDriver<Scripted>,
    fds: u32,
    stream: &'a [u8],
}

impl Run<'_> {
    fn step(&mut self, step: Step) -> Result<(), DriverError> {
        let fd = Fd(self.fds);
        match step {
            Set(state) => {
                if let Reply::Fd(Some(Fd(fd))) = self.apply(Op::set(state))? {
                    self.fds = fd;
                }
            }
            Drain => while let Reply::Bytes(1..) = self.apply(Op::Read { fd, len: 1 << 22 })? {},
            Read => drop(self.apply(Op::Read { fd, len: 100 })?),
            Info => drop(self.apply(Op::PrecopyInfo { fd })?),
            Load => {
                // In pieces that cut records, headers and pages.
                for bytes in self.stream.chunks((self.stream.len() / 7).max(10)) {
                    if !matches!(self.apply(Op::Write { fd, bytes })?, Reply::Written(_)) {
                        break;
                    }
                }
            }
            Size => drop(self.apply(Op::DataSize)?),
            Step::Reset => drop(self.apply(Op::Reset)?),
            CloseFd => drop(self.apply(Op::CloseFd { fd })?),
            Reopen => {
                self.apply(Op::Close)?;
                self.apply(Op::Open)?;
            }
            Detach => self.driver.detach()?,
            Attach => self.driver.attach()?,
            Log => drop(self.driver.log_start(0x1000, &[(0, 1 << 30), (1 << 32, 1 << 30)])?),
            LogStop => drop(self.driver.log_stop()?),
        }
        Ok(())
    }

    fn bounce(&mut self) -> Result<(), DriverError> {
        self.step(Detach)?;
        self.step(Size)?;
        self.step(Attach)
    }

    fn apply(&mut self, op: Op<&[u8]>) -> Result<Reply<usize>, DriverError> {
        let mut buf = vec![0; 1 << 22];
        Ok(self.driver.try_apply(op, &mut buf)?.map(<[u8]>::len))
    }
}
