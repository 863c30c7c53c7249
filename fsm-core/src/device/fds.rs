// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! What the kernel answers before a driver's file operations are reached.

use crate::device::Epoch;
use crate::op::{Errno, Fd, FdFlags};
use crate::state::Direction;

/// The data_fds of a process: the latest `N` that were handed out, and which are still open.
///
/// An fd older than that counts as closed. With `N` open fds in view the table is full (`EMFILE`).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct FdTable<const N: usize> {
    /// Number of the latest; 0 before the first.
    last: u32,
    /// Latest first: `entries[0]` is number `last`. `None` is closed.
    entries: [Option<OpenFd>; N],
}

/// An open data_fd.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct OpenFd {
    /// The session that it was opened for.
    pub epoch: Epoch,
    /// Read-only when saving, write-only when resuming.
    pub direction: Direction,
}

impl<const N: usize> FdTable<N> {
    pub(super) const fn new() -> Self {
        Self { last: 0, entries: [None; N] }
    }

    fn slot(&self, fd: Fd) -> Option<usize> {
        let age = self.last.checked_sub(fd.0)? as usize;
        (fd.0 > 0 && age < N).then_some(age)
    }

    /// The open data_fd of this number.
    pub fn get(&self, fd: Fd) -> Option<&OpenFd> {
        self.entries[self.slot(fd)?].as_ref()
    }

    /// The data_fd that was handed out last, if one was; it may be closed.
    pub const fn last(&self) -> Option<Fd> {
        if self.last == 0 { None } else { Some(Fd(self.last)) }
    }

    /// The open fds, latest first.
    pub fn open(&self) -> impl Iterator<Item = Fd> {
        (1..=self.last).rev().take(N).map(Fd).filter(|&fd| self.get(fd).is_some())
    }

    /// The session behind `fd`, if it can be used this way; `wrong_way` if it cannot.
    pub(super) fn session(&self, fd: Fd, way: Direction, wrong_way: Errno) -> Result<Epoch, Errno> {
        let entry = self.get(fd).ok_or(Errno::EBADF)?;
        if entry.direction == way { Ok(entry.epoch) } else { Err(wrong_way) }
    }

    pub(super) fn install(&mut self, epoch: Epoch, direction: Direction) -> Result<Fd, Errno> {
        let oldest = self.entries.last().copied().flatten();
        if oldest.is_some() || self.last == u32::MAX {
            return Err(Errno::EMFILE);
        }
        self.entries.rotate_right(1);
        self.entries[0] = Some(OpenFd { epoch, direction });
        self.last += 1;
        Ok(Fd(self.last))
    }

    pub(super) fn close(&mut self, fd: Fd) -> Result<(), Errno> {
        let slot = self.slot(fd).ok_or(Errno::EBADF)?;
        self.entries[slot].take().map(|_| ()).ok_or(Errno::EBADF)
    }

    pub(super) fn flags(&self, fd: Fd) -> Result<FdFlags, Errno> {
        let entry = self.get(fd).ok_or(Errno::EBADF)?;
        let read = entry.direction == Direction::Saving;
        Ok(FdFlags { read, write: !read, cloexec: true })
    }

    pub(super) fn no_position(&self, fd: Fd) -> Errno {
        if self.get(fd).is_some() { Errno::ESPIPE } else { Errno::EBADF }
    }

    pub(super) fn renumber(&mut self, live: Option<Epoch>) {
        self.last = self.last.min(N as u32);
        for entry in self.entries.iter_mut().flatten() {
            entry.epoch = if live == Some(entry.epoch) { Epoch::LIVE } else { Epoch::DEAD };
        }
    }
}
