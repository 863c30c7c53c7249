// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! The data_fds a kernel handed out, by the numbers the core gives them, and what is done to them.
//!
//! A number that is closed or was never given is `EBADF` before the kernel sees anything: its own
//! numbers are used again, and an op on an old one would reach a stranger's file.

use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd, RawFd};
use std::time::Duration;

use nix::fcntl::{FcntlArg, FdFlag, OFlag, fcntl};
use nix::sys::uio::pread;
use nix::unistd::{Whence, lseek, read, write};
use vfio_fsm_core::{Errno, Fd, FdFlags, Readiness};

use crate::limit::NonBlocking;
use crate::sys::{self, errno};

/// `fds[n]` is [`Fd`]`(n + 1)`; `None` is closed.
#[derive(Debug, Default)]
pub(crate) struct DataFds(Vec<Option<OwnedFd>>);

/// Which call reads.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum ReadCall {
    Read,
    Pread,
    Uring,
}

/// What became of a read that did not fail.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Outcome {
    /// So many bytes are in the buffer, says the kernel.
    Got(usize),
    /// It would have blocked for longer than the limit.
    Stalled,
}

impl DataFds {
    pub(crate) fn get(&self, fd: Fd) -> Result<BorrowedFd<'_>, Errno> {
        let index = fd.0.checked_sub(1).ok_or(Errno::EBADF)? as usize;
        self.0.get(index).and_then(Option::as_ref).map(AsFd::as_fd).ok_or(Errno::EBADF)
    }

    pub(crate) fn owns(&self, number: RawFd) -> bool {
        self.0.iter().flatten().any(|fd| fd.as_raw_fd() == number)
    }

    pub(crate) fn install(&mut self, fd: OwnedFd) -> Result<Fd, Errno> {
        let number = u32::try_from(self.0.len() + 1).map_err(|_too_many| Errno::EMFILE)?;
        self.0.push(Some(fd));
        Ok(Fd(number))
    }

    pub(crate) fn close(&mut self, fd: Fd) -> Result<(), Errno> {
        let index = fd.0.checked_sub(1).ok_or(Errno::EBADF)? as usize;
        let closed = self.0.get_mut(index).and_then(Option::take);
        closed.map(drop).ok_or(Errno::EBADF)
    }

    /// Closes all, and the next one is number 1.
    pub(crate) fn clear(&mut self) {
        self.0.clear();
    }

    /// One `write(2)`.
    pub(crate) fn write(&self, fd: Fd, bytes: &[u8]) -> Result<usize, Errno> {
        write(self.get(fd)?, bytes).map_err(errno)
    }

    /// `poll(2)` without waiting.
    pub(crate) fn poll(&self, fd: Fd) -> Result<Readiness, Errno> {
        let events = sys::poll(self.get(fd)?, 0)?;
        Ok(Readiness {
            readable: events.readable(),
            writable: events.writable(),
            hangup: events.hangup(),
        })
    }

    /// `lseek(2)` back to the start: what a stream must refuse.
    pub(crate) fn seek(&self, fd: Fd) -> Result<(), Errno> {
        lseek(self.get(fd)?, 0, Whence::SeekSet).map(drop).map_err(errno)
    }

    /// `F_GETFL` and `F_GETFD`.
    pub(crate) fn flags(&self, fd: Fd) -> Result<FdFlags, Errno> {
        let fd = self.get(fd)?;
        let status = OFlag::from_bits_retain(fcntl(fd, FcntlArg::F_GETFL).map_err(errno)?);
        let own = FdFlag::from_bits_retain(fcntl(fd, FcntlArg::F_GETFD).map_err(errno)?);
        let access = status & OFlag::O_ACCMODE;
        Ok(FdFlags {
            read: access == OFlag::O_RDONLY || access == OFlag::O_RDWR,
            write: access == OFlag::O_WRONLY || access == OFlag::O_RDWR,
            cloexec: own.contains(FdFlag::FD_CLOEXEC),
        })
    }

    /// One read of any kind, blocking for no longer than `limit`.
    pub(crate) fn read(
        &self,
        call: ReadCall,
        fd: Fd,
        buf: &mut [u8],
        limit: Duration,
    ) -> Result<Outcome, Errno> {
        let file = self.get(fd)?;
        match call {
            ReadCall::Read => within(limit, file, || read(file, &mut *buf).map_err(errno)),
            ReadCall::Pread => within(limit, file, || pread(file, &mut *buf, 0).map_err(errno)),
            ReadCall::Uring => uring_read(file, buf, limit),
        }
    }
}

/// Calls `read` so that it does not block for longer than `limit`, if the file has a poll to tell.
/// One without is always ready, so for it this is `read` and nothing else.
fn within(
    limit: Duration,
    file: BorrowedFd<'_>,
    mut read: impl FnMut() -> Result<usize, Errno>,
) -> Result<Outcome, Errno> {
    if sys::poll_in(file, 0)?.wakes_reader() {
        return read().map(Outcome::Got);
    }
    // Not ready can also mean that a pre-copy stream is at its temporary end.
    let at_once = {
        let _meanwhile = NonBlocking::begin(file)?;
        read()
    };
    if at_once != Err(Errno::EAGAIN) {
        return at_once.map(Outcome::Got);
    }
    let limit = i32::try_from(limit.as_millis()).unwrap_or(i32::MAX);
    match sys::poll_in(file, limit)?.wakes_reader() {
        true => read().map(Outcome::Got),
        false => Ok(Outcome::Stalled),
    }
}

#[cfg(feature = "io-uring")]
fn uring_read(file: BorrowedFd<'_>, buf: &mut [u8], limit: Duration) -> Result<Outcome, Errno> {
    let got = sys::uring::Ring::new()?.read(file, buf, limit)?;
    Ok(got.map_or(Outcome::Stalled, Outcome::Got))
}

#[cfg(not(feature = "io-uring"))]
fn uring_read(_file: BorrowedFd<'_>, _buf: &mut [u8], _limit: Duration) -> Result<Outcome, Errno> {
    Err(Errno::EOPNOTSUPP)
}
