// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! Any open VFIO device as a [`Port`], without taking it away from its owner.

use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd, RawFd};
use std::sync::{Arc, Weak};

use nix::fcntl::{FcntlArg, OFlag, fcntl};
use nix::unistd::{read, write};
use vfio_fsm_core::vmm::Port;
use vfio_fsm_core::{Errno, Op, RawState, Reply};

use crate::anomaly::Anomaly;
use crate::calls::{self, Calls};
use crate::sys::{self, errno};

/// The ops of a session on an open device, by group or cdev alike, that somebody else owns.
///
/// An unmodified [`vfio_ioctls::VfioDevice`] will do: see [`of`](Self::of). What its own methods do
/// not tell, the data_fd of a SET, the result of a reset, every errno, is here; while a session
/// runs, leave `set_migration_state` and `reset` of that device alone.
///
/// Only the ops that sessions emit are served; the others answer `EOPNOTSUPP`. Blocks as the driver
/// does; a read or write that a signal interrupts answers `EAGAIN`, so that the VMM is asked what to
/// do before it is done again.
#[derive(Debug)]
pub struct DevicePort<D> {
    device: D,
    non_blocking: bool,
    calls: Calls,
    /// Those that a session may still have.
    handed_out: Vec<Weak<OwnedFd>>,
}

impl<'a> DevicePort<BorrowedFd<'a>> {
    /// A port to a device that is borrowed for as long: for one that has only [`AsRawFd`].
    ///
    /// # Errors
    ///
    /// `EBADF` when it has no fd.
    pub fn of(device: &'a impl AsRawFd) -> io::Result<Self> {
        let borrowed = sys::borrow(device);
        borrowed.map(Self::new).map_err(|errno| io::Error::from_raw_os_error(errno.0))
    }
}

impl<D: AsFd> DevicePort<D> {
    /// A port to a device fd, which may be owned, borrowed or shared.
    pub const fn new(device: D) -> Self {
        let calls = Calls { precopy_v2: false, anomalies: Vec::new() };
        Self { device, non_blocking: false, calls, handed_out: Vec::new() }
    }

    /// Sets `O_NONBLOCK` on every data_fd to come, for VMMs that wait in an event loop. A driver
    /// that does not heed it blocks all the same.
    #[must_use]
    pub fn non_blocking(mut self) -> Self {
        self.non_blocking = true;
        self
    }

    /// What the uAPI does not allow and no reply shows, in the order seen.
    pub fn anomalies(&self) -> &[Anomaly] {
        &self.calls.anomalies
    }

    /// The same, and forgets them.
    pub fn take_anomalies(&mut self) -> Vec<Anomaly> {
        std::mem::take(&mut self.calls.anomalies)
    }

    /// Everything but the reads.
    fn answer<'b>(
        &mut self,
        op: Op<&[u8], &Arc<OwnedFd>>,
    ) -> Result<Reply<&'b [u8], Arc<OwnedFd>>, Errno> {
        let device = self.device.as_fd();
        let done = |()| Reply::Ok;
        match op {
            Op::GetFeatures => calls::migration_flags(device).map(Reply::Features),
            Op::GetState => self.calls.state(device).map(Reply::State),
            Op::SetState { to, fault: None } => self.set_state(to).map(Reply::Fd),
            Op::Reset => sys::device_reset(device).map(done),
            Op::DataSize => self.calls.data_size(device).map(Reply::Size),
            Op::OptInPrecopyV2 => self.calls.opt_in_precopy_v2(device).map(done),
            Op::PrecopyInfo { fd } => self.calls.precopy_info(fd.as_fd()).map(Reply::Info),
            Op::Write { fd, bytes } => {
                let taken = write(fd, bytes).map_err(io_errno)?;
                self.calls.have_written(bytes.len(), taken).map(Reply::Written)
            }
            // It closes when the session drops it, which is next.
            Op::CloseFd { .. } => Ok(Reply::Ok),
            _ => Err(Errno::EOPNOTSUPP),
        }
    }

    fn set_state(&mut self, to: RawState) -> Result<Option<Arc<OwnedFd>>, Errno> {
        let set = self.calls.set_state(self.device.as_fd(), to)?;
        set.map(|data_fd| self.install(data_fd)).transpose()
    }

    fn install(&mut self, data_fd: RawFd) -> Result<Arc<OwnedFd>, Errno> {
        self.handed_out.retain(|fd| fd.strong_count() > 0);
        // A number that is in use already would be closed twice.
        let in_use = data_fd == self.device.as_fd().as_raw_fd()
            || self.handed_out.iter().filter_map(Weak::upgrade).any(|fd| fd.as_raw_fd() == data_fd);
        let fresh = if in_use { None } else { sys::adopt(data_fd) };
        let fd = Arc::new(fresh.ok_or_else(|| self.calls.not_a_new_fd(data_fd))?);
        if self.non_blocking {
            let flags = OFlag::from_bits_retain(fcntl(&fd, FcntlArg::F_GETFL).map_err(errno)?);
            fcntl(&fd, FcntlArg::F_SETFL(flags | OFlag::O_NONBLOCK)).map_err(errno)?;
        }
        self.handed_out.push(Arc::downgrade(&fd));
        Ok(fd)
    }
}

impl<D: AsFd> Port for DevicePort<D> {
    /// Closed when the last of them is dropped. A session holds one; clone it only for as long as
    /// an event loop watches it.
    type Fd = Arc<OwnedFd>;

    fn apply<'b>(
        &mut self,
        op: Op<&[u8], &Self::Fd>,
        buf: &'b mut [u8],
    ) -> Reply<&'b [u8], Self::Fd> {
        match op {
            Op::Read { fd, len } => {
                let asked = buf.len().min(len as usize);
                let buf = &mut buf[..asked];
                let got = read(fd, buf).map_err(io_errno);
                self.calls.have_read(got, buf)
            }
            op => self.answer(op).unwrap_or_else(Reply::Errno),
        }
    }
}

fn io_errno(error: nix::errno::Errno) -> Errno {
    match error {
        nix::errno::Errno::EINTR => Errno::EAGAIN,
        error => errno(error),
    }
}
