// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! The driver's side: a device that behaves as the uAPI says, whatever happens to it.
//!
//! * [`DeviceFsm`] decides: which arc comes next, which session is alive, what an error leaves.
//! * [`ArcActions`] and [`DeviceData`] act: what one particular device does on an arc, a reset, a
//!   read.
//! * [`ResetGate`] hands a reset over to whoever holds the state lock.
//! * [`FdTable`] is the kernel in front of the driver: directions, closed fds, `EBADF`.
//! * [`Device`] puts them together into something that speaks [`Op`] and [`Reply`]. It runs one op
//!   at a time; a driver with threads uses the parts under its own locks.
//! * [`Memory`] is the simplest device that acts: the one to read first.

mod bug;
mod fds;
mod fsm;
mod gate;
mod memory;

pub use bug::{Bug, Planted};
pub use fds::{FdTable, OpenFd};
pub use fsm::{DeviceFsm, Epoch, Failed, SetError};
pub use gate::{Arrival, ResetGate, Unlock};
pub use memory::Memory;

use crate::arc::{Arc, SessionEffect};
use crate::op::{EndOfStream, Errno, Fault, Fd, Leaves, Op, PrecopyInfo, Readiness, Reply};
use crate::state::{Direction, Features, RawState, State};
use crate::vmm::Port;

/// What one particular device does on an arc. The core decides when, in which order, and what
/// follows; calls come strictly one after another, under the state lock.
pub trait ArcActions {
    /// Carry out one arc, completely or not at all (R6).
    ///
    /// On an arc that opens a session, prepare it; on RESUMING to STOP, load and check what was
    /// written (R29). A failed arc must have been undone, unless the failure says
    /// [`Leaves::Error`].
    fn arc(&mut self, arc: Arc) -> Result<(), ArcFailure>;

    /// The session is over: drop its buffers, wake who waits for it.
    ///
    /// The one place for this, whatever ended it: an arc, a reset, ERROR, the device's closing.
    fn end_session(&mut self);

    /// The hardware has been reset; forget what was known of it.
    fn reset(&mut self);
}

/// The bytes of a device: what its data_fds carry, and what they depend on.
///
/// Only what makes sense is called: `read` and `precopy_info` for a saving session that is alive,
/// `write` for a resuming one.
pub trait DeviceData {
    /// Read the next bytes of the saving session; 0 when there are none for now.
    ///
    /// What 0 means to the user, the core knows from the state (R31, R32).
    fn read(&mut self, buf: &mut [u8]) -> Result<usize, Errno>;

    /// Take bytes of a resuming session, in order; may take fewer than offered (R11).
    fn write(&mut self, bytes: &[u8]) -> Result<usize, Errno>;

    /// What is left of the pre-copy data.
    fn precopy_info(&mut self) -> Result<PrecopyInfo, Errno>;

    /// Estimate of the STOP_COPY data, in any state (R39).
    fn data_size(&mut self) -> Result<u64, Errno>;

    /// Whether the saving session has bytes to read now. Asked in the pre-copy states only.
    fn readable(&self) -> bool;

    /// The guest touches the device, so that its state depends on `value`.
    fn touch(&mut self, value: u8);
}

/// An arc that did not happen.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ArcFailure {
    /// What `SET` returns.
    pub errno: Errno,
    /// Where the device is left.
    pub leaves: Leaves,
}

impl From<Errno> for ArcFailure {
    /// The usual failure: undone, so that the device is where the arc began.
    fn from(errno: Errno) -> Self {
        Self { errno, leaves: Leaves::Source }
    }
}

/// A device that speaks the alphabet, one op at a time.
///
/// `FDS` is how many data_fds the process around it can have open at a time.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Device<A, const FDS: usize> {
    fsm: DeviceFsm,
    gate: ResetGate,
    locked: bool,
    fds: FdTable<FDS>,
    open: bool,
    actions: A,
}

impl<A: ArcActions + DeviceData, const FDS: usize> Device<A, FDS> {
    /// A device in RUNNING, opened for the first time.
    pub const fn new(features: Features, actions: A) -> Self {
        Self::with_bug(features, actions, Planted::NONE)
    }

    /// The same with a bug in it: to show that a check can fail.
    pub const fn with_bug(features: Features, actions: A, planted: Planted) -> Self {
        Self {
            fsm: DeviceFsm::with_bug(features, planted),
            gate: ResetGate::new(),
            locked: false,
            fds: FdTable::new(),
            open: true,
            actions,
        }
    }

    /// The state machine.
    pub const fn fsm(&self) -> &DeviceFsm {
        &self.fsm
    }

    /// Whether nobody holds the state lock and no reset waits for it: so it is between two ops.
    pub const fn is_at_rest(&self) -> bool {
        !self.locked && !self.gate.is_waiting()
    }

    /// Whether the device is open.
    pub const fn is_open(&self) -> bool {
        self.open
    }

    /// The process' data_fds.
    pub const fn fds(&self) -> &FdTable<FDS> {
        &self.fds
    }

    /// What acts.
    pub const fn actions(&self) -> &A {
        &self.actions
    }

    /// Whether a read from `fd` would reach a session that is alive.
    pub fn is_live(&self, fd: Fd) -> bool {
        self.fds.get(fd).is_some_and(|entry| self.fsm.session() == Some(entry.epoch))
    }

    /// The same device with sessions and data_fds numbered as low as their order allows.
    ///
    /// Behaves the same but for the numbers of fds: sessions that differ still differ, and the next
    /// one is as new as it was. A checker calls this after every step, so that a device that has
    /// seen a thousand sessions is the same world as one that has seen two.
    #[must_use]
    pub fn renumbered(&self) -> Self
    where
        A: Clone,
    {
        let epochs = || {
            let open = self.fds.open().map(|open| open.epoch);
            open.chain(self.fsm.session()).chain([self.fsm.latest()])
        };
        let is_first = |index: usize, epoch| !epochs().take(index).any(|other| other == epoch);
        let rank = |epoch: Epoch| {
            let lower = epochs().enumerate().filter(|&(i, e)| e.is_before(epoch) && is_first(i, e));
            Epoch::nth(lower.count())
        };
        let mut renumbered = self.clone();
        renumbered.fds.renumber(rank);
        renumbered.fsm.rename(rank);
        renumbered
    }

    /// Do one thing to the device. `buf` is where a read puts its bytes.
    pub fn apply<'b>(&mut self, op: Op<&[u8]>, buf: &'b mut [u8]) -> Reply<&'b [u8]> {
        match self.answer(op, buf) {
            Ok(reply) => reply,
            Err(errno) => Reply::Errno(errno),
        }
    }

    fn answer<'b>(&mut self, op: Op<&[u8]>, buf: &'b mut [u8]) -> Result<Reply<&'b [u8]>, Errno> {
        match op {
            Op::Read { fd, len } | Op::UringRead { fd, len } => self.read(fd, len, buf),
            Op::Write { fd, bytes } => {
                let epoch = self.fds.session(fd, Direction::Resuming, Errno::EBADF)?;
                self.fsm.write(epoch, bytes, &mut self.actions).map(Reply::Written)
            }
            Op::PrecopyInfo { fd } => {
                let epoch = self.fds.session(fd, Direction::Saving, Errno::ENOTTY)?;
                self.fsm.precopy_info(epoch, &mut self.actions).map(Reply::Info)
            }
            Op::Poll { fd } => self.poll(fd).map(Reply::Ready),
            Op::Pread { fd, .. } | Op::Seek { fd } => Err(self.fds.no_position(fd)),
            Op::FdFlags { fd } => self.fds.flags(fd).map(Reply::FdFlags),
            Op::CloseFd { fd } => {
                if self.fsm.planted().is(Bug::CloseFdCancels) && self.is_live(fd) {
                    let _moved = self.fsm.set_state(State::Running.into(), &mut self.actions);
                }
                self.fds.close(fd).map(|()| Reply::Ok)
            }
            Op::Open if self.open => Err(Errno::EBUSY),
            Op::Open => {
                self.open = true;
                Ok(Reply::Ok)
            }
            _ if !self.open => Err(Errno::EBADF),
            Op::Close => {
                self.open = false;
                self.fsm.close(&mut self.actions);
                Ok(Reply::Ok)
            }
            Op::GetFeatures => Ok(Reply::Features(self.fsm.features().flags())),
            Op::GetState if self.fsm.planted().is(Bug::GetSaysRunning) => {
                Ok(Reply::State(State::Running.into()))
            }
            Op::GetState => Ok(Reply::State(self.fsm.state().into())),
            Op::SetState { to, fault } => self.set_state(to, fault).map(Reply::Fd),
            Op::Reset => {
                self.reset();
                Ok(Reply::Ok)
            }
            Op::DataSize => self.actions.data_size().map(Reply::Size),
            Op::OptInPrecopyV2 => self.fsm.opt_in_precopy_v2().map(|()| Reply::Ok),
            Op::Touch(value) => {
                self.actions.touch(value);
                Ok(Reply::Ok)
            }
        }
    }

    fn read<'b>(&mut self, fd: Fd, len: u32, buf: &'b mut [u8]) -> Result<Reply<&'b [u8]>, Errno> {
        let epoch = self.fds.session(fd, Direction::Saving, Errno::EBADF)?;
        let room = buf.len().min(len as usize);
        match self.fsm.read(epoch, &mut buf[..room], &mut self.actions)? {
            0 if room == 0 => Ok(Reply::Bytes(&[])),
            0 if self.fsm.at_permanent_end() => {
                if self.fsm.planted().is(Bug::EndOfStreamMoves) {
                    let _moved = self.fsm.set_state(State::Stop.into(), &mut self.actions);
                }
                Ok(Reply::EndOfStream(EndOfStream::Permanent))
            }
            0 => Ok(Reply::EndOfStream(EndOfStream::Temporary)),
            len => Ok(Reply::Bytes(&buf[..len.min(room)])),
        }
    }

    fn poll(&self, fd: Fd) -> Result<Readiness, Errno> {
        let entry = self.fds.get(fd).ok_or(Errno::EBADF)?;
        Ok(self.fsm.poll(entry.epoch, entry.direction, &self.actions))
    }

    /// `SET`, and behind it what the kernel does with the file that the driver returned.
    fn set_state(&mut self, to: RawState, fault: Option<Fault>) -> Result<Option<Fd>, Errno> {
        let full = fault == Some(Fault::FdTableFull);
        if full && self.fsm.planted().is(Bug::NoRoomNoMove) && self.fsm.would_open(to) {
            return Err(Errno::ENFILE);
        }
        // Nobody else runs in this device, so the lock is free.
        self.locked = true;
        if self.fsm.would_not_return(to) {
            return Err(Errno::EAGAIN);
        }
        let loads = self.fsm.state() == State::Resuming;
        let outcome = match fault {
            Some(Fault::ArcFails { hop, errno, leaves }) => {
                let (failure, planted) = (ArcFailure { errno, leaves }, self.fsm.planted());
                let mut failing = FailingArc { inner: &mut self.actions, hop, failure, planted };
                self.fsm.set_state(to, &mut failing)
            }
            _ => self.fsm.set_state(to, &mut self.actions),
        };
        if self.fsm.planted().is(Bug::LoadGarbles) && loads && outcome.is_ok() {
            self.actions.touch(GARBLED);
        }
        // The session as the driver returned it: the deferred reset below may end it at once.
        let opened = self.fsm.session();
        if fault == Some(Fault::ResetInside) {
            self.reset();
        }
        if !(outcome.is_err() && self.fsm.planted().is(Bug::LeaksLock)) {
            self.unlock();
        }
        match (outcome.map_err(SetError::errno)?, opened) {
            (Some(_), _) if full => Err(Errno::EMFILE),
            (Some(direction), Some(epoch)) => self.fds.install(epoch, direction).map(Some),
            _ => Ok(None),
        }
    }

    /// `VFIO_DEVICE_RESET`: never waits for the state lock (C30).
    fn reset(&mut self) {
        let was_locked = core::mem::replace(&mut self.locked, true);
        if was_locked && self.fsm.planted().is(Bug::LoseDeferredReset) {
            return;
        }
        match self.gate.arrive(|| !was_locked) {
            Arrival::Deferred => {}
            Arrival::Locked => self.unlock(),
        }
    }

    fn unlock(&mut self) {
        while self.gate.unlock(|| self.locked = false) == Unlock::ResetFirst {
            self.fsm.reset(&mut self.actions);
        }
    }
}

/// What a load that garbles makes of the device.
const GARBLED: u8 = 0xa5;

/// For sessions of the VMM's side: data_fds by their numbers.
impl<A: ArcActions + DeviceData, const FDS: usize> Port for Device<A, FDS> {
    type Fd = Fd;

    fn apply<'b>(&mut self, op: Op<&[u8], &Fd>, buf: &'b mut [u8]) -> Reply<&'b [u8]> {
        Self::apply(self, op.map_fd(|fd| *fd), buf)
    }
}

/// Lets one arc of the route fail; everything else goes through.
struct FailingArc<'a, A> {
    inner: &'a mut A,
    hop: u8,
    failure: ArcFailure,
    planted: Planted,
}

impl<A: ArcActions + DeviceData> FailingArc<'_, A> {
    /// What drivers get wrong when a session that they have begun to open must be undone. Done right
    /// nothing is left to be seen, so that nothing is what the right device does.
    fn undo_wrongly(&mut self, arc: Arc) {
        let opens = matches!(arc.session(), SessionEffect::Opens(_));
        let has = |bug| opens && self.planted.is(bug);
        let (leaks, twice) = (has(Bug::FailedOpenLeaks), has(Bug::FailedOpenFreesTwice));
        let (nothing, freed) = (has(Bug::FailedOpenFreesNothing), has(Bug::FailedOpenUsesFreed));
        if leaks || twice || freed {
            let _begun = self.inner.arc(arc);
        }
        if twice || freed || nothing {
            self.inner.end_session();
        }
        if twice {
            self.inner.end_session();
        }
        if freed {
            let _used = self.inner.precopy_info();
        }
    }
}

impl<A: ArcActions + DeviceData> ArcActions for FailingArc<'_, A> {
    fn arc(&mut self, arc: Arc) -> Result<(), ArcFailure> {
        match self.hop.checked_sub(1) {
            None => {
                self.undo_wrongly(arc);
                Err(self.failure)
            }
            Some(left) => {
                self.hop = left;
                self.inner.arc(arc)
            }
        }
    }

    fn end_session(&mut self) {
        self.inner.end_session();
    }

    fn reset(&mut self) {
        self.inner.reset();
    }
}
