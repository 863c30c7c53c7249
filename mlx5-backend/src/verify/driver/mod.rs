// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! The shipping Linux driver as an oracle: mlx5-vfio-pci's own files, run in user space.
//!
//! [`Build`] compiles `drivers/vfio/pci/mlx5/{cmd,main}.c`, unchanged, with the state machine of
//! `drivers/vfio/vfio_main.c` and stand-ins of ours for the rest of the kernel. The program runs as
//! a process of its own; [`LinuxDriver`] gives it ops of the alphabet and carries its commands to a
//! [`Firmware`], which reads and writes the driver's pages in an [`Arena`].
//!
//! # What this hides
//!
//! The process has one thread. Where the driver waits, the tests decide what happens meanwhile:
//! another op, a reset, the end of a SAVE. Work items run when an op ends or waits. So every
//! interleaving is one that the tests chose, and never one between two instructions:
//!
//! * two ops that want the same lock at the same time (a lock that is held when it is wanted ends the
//!   process; a reset does not wait for one, and is tried inside of every op);
//! * a worker that runs while an op does, and what memory ordering makes of either;
//! * a completion between any two instructions: there are three [`Completion`]s instead;
//! * a system call on a data_fd that another thread closes.
//!
//! Beyond that the stand-ins take the kernel to be as their comments say: allocations succeed while
//! there is memory, user memory is always there, bus addresses are linear.

mod arena;
mod bench;
mod build;
mod checks;
mod error;
mod exchange;
mod findings;
mod golden;
mod ours;
mod paths;
mod port;
mod scripted;
mod sweep;
mod wire;

use std::collections::VecDeque;
use std::io::{self, Read};
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use vfio_fsm_core::{Errno, Op};

pub use arena::{Arena, FIRST_IOVA};
pub use bench::{Bench, Software};
pub use build::{Build, Built, needed};
pub use checks::{CHECKS, Check, partings};
pub use error::DriverError;
pub use exchange::{Side, Way, exchange};
pub use findings::{FINDINGS, Finding};
pub use golden::transcript;
pub use ours::{Direct, Ours};
pub use paths::{DIFFERENCES, Manner, Parting, part};
pub use scripted::{Failure, Scripted};
pub use sweep::{Outcome, Trouble, sweep};
pub use wire::Stats;

use self::wire::{Frame, Kind};

/// How long the driver's process may take to say something. It waits for nobody but us.
const PATIENCE: Duration = Duration::from_secs(120);

/// What answers the driver's commands, and has the VF whose driver it is.
pub trait Firmware {
    /// Carries a command out. The output is zeroed and has the length that the driver has room for;
    /// an errno is that of a command which could not be delivered.
    fn command(&mut self, input: &[u8], output: &mut [u8]) -> Result<(), Errno>;

    /// The function-level reset of the VF.
    fn reset(&mut self);

    /// The guest touches the VF, so that its state depends on the value.
    fn touch(&mut self, value: u8);
}

/// When an asynchronous command ends. It is carried out at that moment, too.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Completion {
    /// Before the call that starts it has returned.
    Within,
    /// Behind the op in which it was started, or when the driver waits for it in there.
    #[default]
    Behind,
    /// When the driver waits for it, or [`LinuxDriver::complete`] says so.
    Awaited,
}

/// How a driver is run.
#[derive(Clone, Copy, Debug, Default)]
pub struct Options {
    /// When a SAVE ends.
    pub completion: Completion,
    /// When a SAVE fails, a worker tidies up, and an op may wait for the same SAVE: whether the
    /// worker comes first. On a machine with two processors it may be either.
    pub workers_first: bool,
    /// Whether every data_fd gets `O_NONBLOCK`.
    pub non_blocking: bool,
}

/// A command that the driver has given, with its answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Given {
    /// The command's bytes.
    pub input: Vec<u8>,
    /// The answer's. Empty for what was not delivered.
    pub output: Vec<u8>,
    /// Whether the driver went on without the answer.
    pub asynchronous: bool,
}

impl Given {
    /// The opcode: the first two bytes.
    pub fn opcode(&self) -> u16 {
        self.word(0)
    }

    /// The op_mod; the type of the object for general objects.
    pub fn op_mod(&self) -> u16 {
        self.word(6)
    }

    /// The status in the answer.
    pub fn status(&self) -> u8 {
        self.output.first().copied().unwrap_or_default()
    }

    fn word(&self, at: usize) -> u16 {
        let bytes = self.input.get(at..at + 2).and_then(|bytes| bytes.try_into().ok());
        bytes.map_or(0, u16::from_be_bytes)
    }
}

/// When something is to happen in the middle of an op.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Meanwhile {
    /// While the driver waits for the answer to a command: this many commands from now, 0 is the
    /// next.
    Command(usize),
    /// When the driver waits, before a command in flight ends for its sake.
    Wait,
}

/// A process that runs the driver, bound to one VF and opened once.
#[derive(Debug)]
pub struct LinuxDriver<F> {
    process: Child,
    socket: UnixStream,
    firmware: F,
    options: Options,
    open: bool,
    given: Vec<Given>,
    pending: VecDeque<Pending>,
    meanwhile: Vec<(Meanwhile, Happening)>,
    warnings: Vec<String>,
    failure: Option<DriverError>,
}

/// What happens in the middle of an op.
#[derive(Debug)]
enum Happening {
    Op(Op<Vec<u8>>),
    /// The driver is told of a reset.
    ResetDone,
    ObjectChange(u32),
}

/// A command in flight.
#[derive(Debug)]
struct Pending {
    id: i64,
    input: Vec<u8>,
    output_len: usize,
}

impl Built {
    /// Starts the driver, binds it to the VF of this firmware, and opens the device. Its pages are
    /// these, which nobody else uses.
    pub fn start<F: Firmware>(
        &self,
        firmware: F,
        arena: &Arena,
        options: Options,
    ) -> Result<LinuxDriver<F>, DriverError> {
        let start = || -> io::Result<_> {
            let (socket, theirs) = UnixStream::pair()?;
            socket.set_read_timeout(Some(PATIENCE))?;
            let process = Command::new(&self.program)
                .arg(arena.pages().to_string())
                .stdin(OwnedFd::from(theirs))
                .stdout(arena.file()?)
                .stderr(Stdio::piped())
                .spawn()?;
            Ok((process, socket))
        };
        let (process, socket) = start().map_err(DriverError::Process)?;
        let mut driver = LinuxDriver {
            process,
            socket,
            firmware,
            options,
            open: true,
            given: Vec::new(),
            pending: VecDeque::new(),
            meanwhile: Vec::new(),
            warnings: Vec::new(),
            failure: None,
        };
        driver.must(Kind::Probe, i64::from(options.workers_first))?;
        driver.must(Kind::Open, 0)?;
        Ok(driver)
    }
}

impl<F: Firmware> LinuxDriver<F> {
    /// The firmware.
    pub const fn firmware(&self) -> &F {
        &self.firmware
    }

    /// The firmware, to change it.
    pub const fn firmware_mut(&mut self) -> &mut F {
        &mut self.firmware
    }

    /// The commands since this was last asked, without those by which mlx5_core reads the PF's
    /// capabilities.
    pub fn take_given(&mut self) -> Vec<Given> {
        std::mem::take(&mut self.given)
    }

    /// `WARN_ON`s that fired, by file, line and condition.
    pub fn warnings(&self) -> &[String] {
        &self.warnings
    }

    /// Has this op happen in the middle of one to come. Only a reset does not need the locks that
    /// the driver holds while a command runs.
    pub fn meanwhile(&mut self, when: Meanwhile, op: Op<Vec<u8>>) {
        self.meanwhile.push((when, Happening::Op(op)));
    }

    /// Has the firmware report, when the driver waits the next time, that a general object has
    /// changed: of the page tracker, its state.
    pub fn object_changes(&mut self, object: u32) {
        self.meanwhile.push((Meanwhile::Wait, Happening::ObjectChange(object)));
    }

    /// Lets the oldest command in flight end. False if there is none.
    pub fn complete(&mut self) -> Result<bool, DriverError> {
        let Some(pending) = self.pending.pop_front() else { return Ok(false) };
        let (delivery, output) = self.carry_out(&pending.input, pending.output_len, true, true);
        self.call(&Frame::op(Kind::Complete, [pending.id, delivery, 0], &output))?;
        Ok(true)
    }

    /// The PF's driver is about to disable its VFs: the driver gives everything back and refuses
    /// what needs the firmware.
    pub fn detach(&mut self) -> Result<(), DriverError> {
        self.call(&Frame::op(Kind::Notify, [0, 0, 0], &[])).map(drop)
    }

    /// And has enabled them again.
    pub fn attach(&mut self) -> Result<(), DriverError> {
        self.call(&Frame::op(Kind::Notify, [1, 0, 0], &[])).map(drop)
    }

    /// Starts to log DMA, over ranges of address and length; the errno if the driver refuses.
    pub fn log_start(&mut self, page_size: u64, ranges: &[(u64, u64)]) -> Result<i64, DriverError> {
        let bytes: Vec<u8> = ranges
            .iter()
            .flat_map(|(iova, len)| [iova.to_ne_bytes(), len.to_ne_bytes()])
            .flatten()
            .collect();
        Ok(self.call(&Frame::op(Kind::LogStart, [page_size as i64, 0, 0], &bytes))?.a)
    }

    /// Stops to.
    pub fn log_stop(&mut self) -> Result<i64, DriverError> {
        Ok(self.call(&Frame::op(Kind::LogStop, [0; 3], &[]))?.a)
    }

    /// The bitmap over a range, one bit a page, or the errno.
    pub fn log_report(
        &mut self,
        iova: u64,
        len: u64,
        page_size: u64,
    ) -> Result<Result<Vec<u8>, i64>, DriverError> {
        let numbers = [iova, len, page_size].map(|number| number as i64);
        let reply = self.call(&Frame::op(Kind::LogReport, numbers, &[]))?;
        Ok(if reply.a == 0 { Ok(reply.data) } else { Err(reply.a) })
    }

    /// How many more pages the kernel can find; `None` as many as there are.
    pub fn pages_left(&mut self, left: Option<u32>) -> Result<(), DriverError> {
        let left = left.map_or(-1, i64::from);
        self.call(&Frame::op(Kind::FailPages, [left, 0, 0], &[])).map(drop)
    }

    /// What the process has in use.
    pub fn stats(&mut self) -> Result<Stats, DriverError> {
        let reply = self.call(&Frame::op(Kind::Stats, [0; 3], &[]))?;
        Stats::parse(&reply.data).ok_or(DriverError::Frame { kind: reply.kind, due: "statistics" })
    }

    /// Closes the device and its data_fds up to `fds`, unbinds the driver and ends the process.
    ///
    /// Fails if anything is left in use, if a `WARN_ON` has fired, or with what a sanitizer says.
    pub fn finish(mut self, fds: u32) -> Result<(), DriverError> {
        if let Some(failure) = self.failure.take() {
            return Err(failure);
        }
        if self.open {
            self.must(Kind::Close, 0)?;
        }
        for fd in 1..=fds {
            self.call(&Frame::op(Kind::CloseFd, [i64::from(fd), 0, 0], &[]))?;
        }
        self.must(Kind::Remove, 0)?;
        let stats = self.stats()?;
        let left = Stats { most_pages: 0, ..stats };
        if left != Stats::default() {
            return Err(DriverError::Found(format!(
                "the driver is gone and has left {left:?}; warnings: {:?}",
                self.warnings
            )));
        }
        Frame::new(wire::RESUME, 0, &[]).send(&mut self.socket).map_err(DriverError::Process)?;
        let status = self.process.wait().map_err(DriverError::Process)?;
        if status.success() { Ok(()) } else { Err(self.ended()) }
    }

    fn must(&mut self, kind: Kind, a: i64) -> Result<(), DriverError> {
        let reply = self.call(&Frame::op(kind, [a, 0, 0], &[]))?;
        match reply.a {
            0 => Ok(()),
            error => Err(DriverError::Found(format!("{kind:?} fails with {error}"))),
        }
    }

    /// Has one op carried out, and everything that happens meanwhile.
    fn call(&mut self, op: &Frame) -> Result<Frame, DriverError> {
        self.send(op)?;
        loop {
            let frame = match Frame::receive(&mut self.socket) {
                Ok(frame) => frame,
                Err(_) => return Err(self.ended()),
            };
            match frame.kind {
                wire::REPLY => return Ok(frame),
                wire::COMMAND => self.command(frame)?,
                wire::WAIT => self.wait(&frame)?,
                wire::WARNING => {
                    self.warnings.push(String::from_utf8_lossy(&frame.data).into_owned());
                }
                wire::FATAL => {
                    return Err(DriverError::Fatal(
                        String::from_utf8_lossy(&frame.data).into_owned(),
                    ));
                }
                kind => return Err(DriverError::Frame { kind, due: "a reply or a command" }),
            }
        }
    }

    fn send(&mut self, frame: &Frame) -> Result<(), DriverError> {
        frame.send(&mut self.socket).map_err(|_| self.ended())
    }

    /// How a process has ended, and what it has left on its standard error.
    fn ended(&mut self) -> DriverError {
        // One that hangs is ended here; of one that is gone neither fails in a way that matters.
        let _ = self.process.kill();
        let status = self.process.wait().map_or_else(|error| error.to_string(), |s| s.to_string());
        let mut said = Vec::new();
        if let Some(stderr) = &mut self.process.stderr {
            let _ = stderr.read_to_end(&mut said);
        }
        let said = build::first_lines(&String::from_utf8_lossy(&said), 40);
        DriverError::Ended { status, said }
    }

    fn command(&mut self, frame: Frame) -> Result<(), DriverError> {
        let now = self.due(Meanwhile::Command(0));
        for (when, _) in &mut self.meanwhile {
            if let Meanwhile::Command(left) = when {
                *left = left.saturating_sub(1);
            }
        }
        for op in now {
            self.happens(op)?;
        }
        let output_len = usize::try_from(frame.b).unwrap_or(0);
        if frame.c == wire::ASYNC {
            self.pending.push_back(Pending { id: frame.a, input: frame.data, output_len });
            if self.options.completion == Completion::Within {
                self.complete()?;
            }
            return self.send(&Frame::new(wire::ANSWER, 0, &[]));
        }
        let known = frame.c != wire::OF_CORE;
        let (delivery, output) = self.carry_out(&frame.data, output_len, false, known);
        self.send(&Frame::new(wire::ANSWER, delivery, &output))
    }

    /// The errno of the delivery, negative, and the output.
    fn carry_out(
        &mut self,
        input: &[u8],
        output_len: usize,
        asynchronous: bool,
        known: bool,
    ) -> (i64, Vec<u8>) {
        let mut output = vec![0; output_len];
        let delivery = match self.firmware.command(input, &mut output) {
            Ok(()) => 0,
            Err(errno) => {
                output.clear();
                -i64::from(errno.0)
            }
        };
        if known {
            let (input, output) = (input.to_owned(), output.clone());
            self.given.push(Given { input, output, asynchronous });
        }
        (delivery, output)
    }

    fn wait(&mut self, frame: &Frame) -> Result<(), DriverError> {
        let happening = self.due(Meanwhile::Wait).into_iter().next();
        let look_again = match happening {
            Some(happening) => {
                self.happens(happening)?;
                true
            }
            None => self.complete()?,
        };
        let verdict = if look_again { 0 } else { -wire::ERESTARTSYS };
        if !look_again && frame.a == 0 {
            return Err(DriverError::Fatal(format!(
                "{} never comes, and no signal ends the wait",
                String::from_utf8_lossy(&frame.data)
            )));
        }
        self.send(&Frame::new(wire::RESUME, verdict, &[]))
    }

    /// What is to happen now. Of waits, one at a time.
    fn due(&mut self, now: Meanwhile) -> Vec<Happening> {
        let (due, later) = std::mem::take(&mut self.meanwhile)
            .into_iter()
            .partition::<Vec<_>, _>(|(when, _)| *when == now);
        self.meanwhile = later;
        let mut due: VecDeque<_> = due.into();
        if now == Meanwhile::Wait {
            let first = due.pop_front();
            self.meanwhile.extend(due);
            return first.into_iter().map(|(_, op)| op).collect();
        }
        due.into_iter().map(|(_, op)| op).collect()
    }

    fn happens(&mut self, what: Happening) -> Result<(), DriverError> {
        let op = match what {
            Happening::Op(op) => op,
            Happening::ResetDone => {
                return self.call(&Frame::op(Kind::Reset, [0; 3], &[])).map(drop);
            }
            Happening::ObjectChange(object) => {
                let event = Frame::op(Kind::ObjectChange, [i64::from(object), 0, 0], &[]);
                return self.call(&event).map(drop);
            }
        };
        let mut buf = vec![0; 1 << 16];
        let mut bytes = Vec::new();
        let op = op.map(|data| bytes = data);
        let op = op.map(|()| bytes.as_slice());
        self.within(op, &mut buf).map(drop)
    }
}

impl<F> Drop for LinuxDriver<F> {
    fn drop(&mut self) {
        // Nothing can be done about a process that cannot be ended.
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}
