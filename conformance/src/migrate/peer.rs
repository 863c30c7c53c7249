// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! The two other processes of a migration between real devices, and how they are spoken to: one
//! line of JSON each way, over a socket that is their standard input.

use std::io::{self, BufRead, BufReader, Write};
use std::os::fd::OwnedFd;
use std::os::linux::net::SocketAddrExt;
use std::os::unix::net::{SocketAddr, UnixStream};
use std::process::{Child, Command};

use rustix::time::{ClockId, clock_gettime};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use vfio_fsm_core::vmm::Port;
use vfio_fsm_core::{Errno, Op, Reply};
use vfio_fsm_kernel::DevicePort;

use super::Error;
use super::judge::MARK;
use super::node::Node;
use super::probe::{At, Probe};
use super::record::Record;
use super::vmm;

/// One of the two other processes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Peer {
    /// It has the destination's device, and its own session on it: [`serve_destination`].
    Destination,
    /// It has a copy of the source's device fd, and resets the device when it is told to:
    /// [`serve_resets`]. Its standard output is that fd.
    Resetter,
}

/// Load one stream.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct Load {
    /// Where it comes from: the name of an abstract UNIX socket.
    pub(super) socket: String,
}

/// The source has ended: may the destination run?
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct Start(pub(super) bool);

/// Reset the device at this time.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct ResetAt(pub(super) u64);

/// The device was reset.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
pub(super) struct Done {
    /// When the system call was made and when it returned.
    pub(super) begun: u64,
    pub(super) ended: u64,
    /// What it said, if it failed.
    pub(super) errno: Option<i32>,
}

/// The other process that resets, for whoever does not migrate: it resets at once.
#[derive(Debug)]
pub struct Resetter {
    child: Child,
    control: Lines,
}

impl Resetter {
    /// Start it with this command, which ends in [`serve_resets`], and this fd of the device.
    ///
    /// # Errors
    ///
    /// When it cannot be started.
    pub fn start(mut command: Command, device: OwnedFd) -> io::Result<Self> {
        let (ours, theirs) = UnixStream::pair()?;
        let child = command.stdin(OwnedFd::from(theirs)).stdout(device).spawn()?;
        Ok(Self { child, control: Lines::new(ours) })
    }

    /// Have it reset the device, and wait until it has.
    ///
    /// # Errors
    ///
    /// When it has gone.
    pub fn reset(&mut self) -> io::Result<Result<(), Errno>> {
        self.control.tell(&ResetAt(0))?;
        let done: Option<Done> = self.control.hear()?;
        let done = done.ok_or(io::ErrorKind::UnexpectedEof)?;
        Ok(done.errno.map_or(Ok(()), |errno| Err(Errno(errno))))
    }
}

impl Drop for Resetter {
    fn drop(&mut self) {
        // Fails only if it has ended. One that hangs in a system call cannot be waited for.
        let _ = self.child.kill();
        let _ = self.child.try_wait();
    }
}

/// The monotonic clock, which all processes share, in nanoseconds.
pub(super) fn now() -> u64 {
    let time = clock_gettime(ClockId::Monotonic);
    time.tv_sec as u64 * 1_000_000_000 + time.tv_nsec as u64
}

/// Return at this time, and not a moment later: without giving the processor away.
pub(super) fn spin_until(time: u64) {
    while now() < time {
        std::hint::spin_loop();
    }
}

/// A socket that lines of JSON go over.
#[derive(Debug)]
pub(super) struct Lines(BufReader<UnixStream>);

impl Lines {
    pub(super) fn new(socket: UnixStream) -> Self {
        Self(BufReader::new(socket))
    }

    pub(super) fn tell(&mut self, what: &impl Serialize) -> io::Result<()> {
        let mut line = serde_json::to_vec(what)?;
        line.push(b'\n');
        self.0.get_mut().write_all(&line)
    }

    /// What the other side says next; nothing when it has gone.
    pub(super) fn hear<T: DeserializeOwned>(&mut self) -> io::Result<Option<T>> {
        let mut line = String::new();
        match self.0.read_line(&mut line)? {
            0 => Ok(None),
            _ => Ok(Some(serde_json::from_str(&line)?)),
        }
    }
}

/// Be the destination, until nobody asks any more.
///
/// # Errors
///
/// When the device is of no use, or the other side no longer makes sense.
pub fn serve_destination(
    control: UnixStream,
    device: &str,
    touch: (u32, u64),
) -> Result<(), Error> {
    let mut control = Lines::new(control);
    let mut node = Node::open(device, touch)?;
    // Says that the device is there.
    control.tell(&Start(true))?;
    while let Some(Load { socket }) = control.hear()? {
        node.fresh(MARK.touched)?;
        let record = Record::of_destination();
        let stream = UnixStream::connect_addr(&SocketAddr::from_abstract_name(socket)?)?;
        let probe = Probe { subject: &mut node, schedule: At(None), record: &record };
        let mut answer = None;
        let mut start = || {
            answer = Some(control.hear::<Start>());
            matches!(answer, Some(Ok(Some(Start(true)))))
        };
        let side = vmm::load(probe, stream, &mut start);
        // Each run has one answer, whether or not it came to the question.
        match answer {
            Some(heard) => heard?,
            None => control.hear::<Start>()?,
        };
        control.tell(&side)?;
    }
    Ok(())
}

/// Reset the device when told to, until nobody does any more.
///
/// # Errors
///
/// When the other side no longer makes sense.
pub fn serve_resets(control: UnixStream, device: OwnedFd) -> Result<(), Error> {
    let mut control = Lines::new(control);
    let mut port = DevicePort::new(device);
    while let Some(ResetAt(time)) = control.hear()? {
        spin_until(time);
        let begun = now();
        let reply = port.apply(Op::Reset, &mut []);
        let ended = now();
        let errno = if let Reply::Errno(errno) = reply { Some(errno.0) } else { None };
        control.tell(&Done { begun, ended, errno })?;
    }
    Ok(())
}
