// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! Migrations between two real devices, in three processes: this one has the source, a second the
//! destination behind a UNIX socket, and a third a copy of the source's device fd, by which it
//! resets the device under the session's hands.

use std::net::Shutdown;
use std::os::fd::OwnedFd;
use std::os::linux::net::SocketAddrExt;
use std::os::unix::net::{SocketAddr, UnixListener, UnixStream};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::time::Duration;

use fastrand::Rng;
use vfio_fsm_core::vmm::Port;
use vfio_fsm_core::{Op, Reply};

use crate::tidy::tie;

use super::Error;
use super::case::{Case, When};
use super::judge::{Fell, Images, Run, Side};
use super::matrix::{Bench, Matrix, Progress};
use super::node::Node;
use super::peer::{Done, Lines, Load, Peer, ResetAt, Start, now, spin_until};
use super::probe::{At, Probe, Subject};
use super::record::Record;
use super::vmm::{self, AtSource, FIRST, PLAN, Scripted};
use super::watchdog::{Hang, Watchdog};

/// So long before its time a reset is ordered, in nanoseconds: the other process has to be awake by
/// then, and spinning.
const LEAD: u64 = 1_000_000;

/// The longest that one thing may take.
const LIMIT: Duration = Duration::from_secs(12);

/// Two devices, and how to go about it.
pub struct Setup<'a> {
    /// The source's device: a PCI address, an mdev UUID, a directory in /sys, or a cdev node.
    pub source: &'a str,
    /// A byte of the devices that a guest could write: region and offset.
    pub touch: (u32, u64),
    /// How often each step is raced against a reset.
    pub rounds: u32,
    /// How another process is started that serves. Its standard input, and the resetter's standard
    /// output, are set here.
    pub peer: &'a dyn Fn(Peer) -> Command,
    /// The first case to run, counted from 0.
    pub from: usize,
}

/// Another process, and the socket to it.
struct Process {
    who: &'static str,
    child: Child,
    control: Lines,
}

impl Process {
    fn start(mut command: Command, who: &'static str) -> Result<Self, Error> {
        let (ours, theirs) = UnixStream::pair()?;
        command.stdin(OwnedFd::from(theirs));
        let child = tie(&mut command).spawn()?;
        Ok(Self { who, child, control: Lines::new(ours) })
    }

    fn hear<T: serde::de::DeserializeOwned>(&mut self) -> Result<T, Error> {
        self.control.hear()?.ok_or(Error::Gone { who: self.who })
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        // Fails only if it has ended. One that hangs in a system call cannot be waited for.
        let _ = self.child.kill();
        let _ = self.child.try_wait();
    }
}

/// The source's device, with another process that resets it.
struct Raced {
    node: Node,
    resetter: Process,
    watchdog: Watchdog,
    aim: Aim,
    fell: Option<Fell>,
    problem: Option<Error>,
}

impl Raced {
    /// Have it reset at this time.
    fn order(&mut self, time: u64) -> Result<(), Error> {
        Ok(self.resetter.control.tell(&ResetAt(time))?)
    }

    fn done(&mut self) -> Result<Done, Error> {
        match self.resetter.hear()? {
            Done { errno: Some(errno), .. } => Err(Error::Reset { errno }),
            done => Ok(done),
        }
    }
}

impl Port for Raced {
    type Fd = Arc<OwnedFd>;

    fn apply<'b>(
        &mut self,
        op: Op<&[u8], &Self::Fd>,
        buf: &'b mut [u8],
    ) -> Reply<&'b [u8], Self::Fd> {
        self.watchdog.op(op.map_fd(|_fd| "data_fd").to_string());
        self.node.apply(op, buf)
    }
}

impl Subject for Raced {
    fn reset(&mut self) {
        self.watchdog.op("a reset by another process".to_owned());
        let done = self.order(0).and_then(|()| self.done());
        self.problem = done.err().or(self.problem.take());
    }

    fn race<'b>(
        &mut self,
        op: Op<&[u8], &Self::Fd>,
        buf: &'b mut [u8],
    ) -> Reply<&'b [u8], Self::Fd> {
        let time = now() + LEAD;
        if let Err(error) = self.order(time) {
            self.problem = Some(error);
            return self.apply(op, buf);
        }
        self.watchdog.op(format!("{} in a race with a reset", op.map_fd(|_fd| "data_fd")));
        spin_until(time.saturating_add_signed(self.aim.shift));
        let begun = now();
        let reply = self.node.apply(op, buf);
        let ended = now();
        match self.done() {
            Ok(done) => {
                let fell = fell(begun, ended, done);
                self.aim.correct(fell);
                self.fell = Some(fell);
            }
            Err(error) => self.problem = Some(error),
        }
        reply
    }

    fn take_anomaly(&mut self) -> Option<String> {
        self.node.take_anomaly()
    }
}

/// When a reset really came, against an op of this side.
const fn fell(begun: u64, ended: u64, reset: Done) -> Fell {
    if reset.ended < begun {
        Fell::Before
    } else if reset.ended <= ended {
        Fell::Into
    } else if reset.begun <= ended {
        Fell::Across
    } else {
        Fell::After
    }
}

/// How much later than a reset the op begins that it is to fall into, in nanoseconds.
struct Aim {
    shift: i64,
    rng: Rng,
}

impl Aim {
    /// Towards the op from both sides, in steps of different length, so that the moments differ at
    /// which it is hit; and rather late in the reset than early, for a reset is the longer of the
    /// two, and the one that returns first is of interest.
    fn correct(&mut self, fell: Fell) {
        let step = 1 << self.rng.u32(8..15);
        self.shift += match fell {
            Fell::Before => -step,
            Fell::After => step,
            Fell::Across => self.rng.i64(0..=step / 2),
            Fell::Into => self.rng.i64(-step / 4..=step / 4),
        };
        self.shift = self.shift.clamp(-(LEAD as i64) / 2, LEAD as i64 / 2);
    }
}

/// Two real devices.
struct Kernel {
    source: Raced,
    destination: Process,
    images: Images,
    listener: UnixListener,
    /// The name of its socket, which no other process has.
    socket: String,
    target: String,
    rounds: u32,
}

impl Kernel {
    fn start(setup: &Setup<'_>, watchdog: Watchdog) -> Result<Self, Error> {
        let mut node = Node::open(setup.source, setup.touch)?;
        let mut resetter = (setup.peer)(Peer::Resetter);
        resetter.stdout(Stdio::from(node.duplicate()?));
        let resetter = Process::start(resetter, "the process that resets")?;
        let mut destination =
            Process::start((setup.peer)(Peer::Destination), "the destination's process")?;
        let Start(_ready) = destination.hear()?;

        node.fresh(FIRST)?;
        let images = Images::of(&mut node);
        if !images.tell_values_apart() {
            let (region, offset) = setup.touch;
            return Err(Error::NotMigrated { region, offset });
        }
        let socket = format!("vfio-conform-{}", std::process::id());
        let listener = UnixListener::bind_addr(&SocketAddr::from_abstract_name(&socket)?)?;
        let name = Path::new(setup.source).file_name().unwrap_or(setup.source.as_ref());
        let target = format!("kernel {} with {}", name.display(), node.features());
        let aim = Aim { shift: 0, rng: Rng::with_seed(0) };
        let source = Raced { node, resetter, watchdog, aim, fell: None, problem: None };
        let rounds = setup.rounds;
        Ok(Self { source, destination, images, listener, socket, target, rounds })
    }
}

impl Bench for Kernel {
    fn describe(&self) -> String {
        self.target.clone()
    }

    fn images(&self) -> &Images {
        &self.images
    }

    /// There is always another processor.
    fn races(&self, _op: &str) -> bool {
        true
    }

    fn rounds(&self, case: &Case) -> u32 {
        let races = case.reset().is_some_and(|(_, when)| when == When::Within);
        if races { self.rounds } else { 1 }
    }

    fn begin(&mut self, index: usize, case: &Case) {
        self.source.watchdog.case(index, *case);
    }

    fn run(&mut self, case: &Case, _round: u32) -> Result<Run, Error> {
        let Self { source, destination, listener, socket, .. } = self;
        let watchdog = source.watchdog.clone();
        watchdog.op("a fresh device".to_owned());
        source.node.fresh(FIRST)?;
        source.fell = None;
        destination.control.tell(&Load { socket: socket.clone() })?;
        watchdog.op("the destination's connection".to_owned());
        let (stream, _address) = listener.accept()?;

        let record = Record::of_source();
        let probe = Probe { subject: &mut *source, schedule: At(case.reset()), record: &record };
        let vmm = AtSource { record: &record, decisions: Scripted::new(case) };
        let may_start = *case != Case::DestinationGivesUp;
        let mut run = vmm::migrate(PLAN, probe, stream, vmm, |stream, complete| {
            watchdog.op("the destination".to_owned());
            stream.shutdown(Shutdown::Write)?;
            destination.control.tell(&Start(complete && may_start))?;
            destination.hear::<Side>()
        })?;
        watchdog.rest();
        run.fell = source.fell;
        source.problem.take().map_or(Ok(run), Err)
    }
}

/// The matrix on two real devices. `bark` is called when something does not return, from a thread
/// of its own, and there is nothing else to do then but to end the process.
///
/// # Errors
///
/// When the devices, or the other processes, cannot be had.
pub fn on_kernel(
    setup: &Setup<'_>,
    bark: impl Fn(Hang) + Send + 'static,
    on: &mut dyn FnMut(Progress<'_>),
) -> Result<Matrix, Error> {
    let mut kernel = Kernel::start(setup, Watchdog::new(LIMIT, bark))?;
    Matrix::run(&mut kernel, setup.from, on)
}

#[cfg(test)]
mod tests {
    use super::*;

    const fn reset(begun: u64, ended: u64) -> Done {
        Done { begun, ended, errno: None }
    }

    #[test]
    fn the_clock_says_where_a_reset_fell() {
        let cases = [
            (reset(0, 9), Fell::Before),
            (reset(0, 10), Fell::Into),
            (reset(11, 19), Fell::Into),
            (reset(12, 20), Fell::Into),
            (reset(0, 21), Fell::Across),
            (reset(20, 30), Fell::Across),
            (reset(21, 30), Fell::After),
        ];
        for (done, expected) in cases {
            assert_eq!(fell(10, 20, done), expected, "{done:?}");
        }
    }

    /// Wherever the op is, and however far off the first shot, some resets return within it.
    #[test]
    fn the_aim_finds_a_short_op() {
        for off in [-200_000_i64, 0, 200_000] {
            let mut aim = Aim { shift: 0, rng: Rng::with_seed(1) };
            let mut into = 0;
            for _ in 0..200 {
                // A reset of 20 microseconds against an op of 10.
                let begun = 1_000_000_u64.saturating_add_signed(off + aim.shift);
                let fell = fell(begun, begun + 10_000, reset(1_000_000, 1_020_000));
                into += u32::from(fell == Fell::Into);
                aim.correct(fell);
            }
            assert!(into > 20, "{into} of 200 from {off} ns");
        }
    }
}
