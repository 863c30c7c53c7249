// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! What the kernel answers before a driver's file operations are reached.

use crate::device::Epoch;
use crate::op::{Errno, Fd, FdFlags};
use crate::state::Direction;

/// The data_fds of a process: at most `N` open at a time, numbered in the order of opening.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct FdTable<const N: usize> {
    /// Number of the latest; 0 before the first.
    last: u32,
    slots: [Option<OpenFd>; N],
}

/// An open data_fd.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct OpenFd {
    /// Its number.
    pub fd: Fd,
    /// The session that it was opened for.
    pub epoch: Epoch,
    /// Read-only when saving, write-only when resuming.
    pub direction: Direction,
}

impl<const N: usize> FdTable<N> {
    pub(super) const fn new() -> Self {
        Self { last: 0, slots: [None; N] }
    }

    /// The open data_fd of this number.
    pub fn get(&self, fd: Fd) -> Option<&OpenFd> {
        self.open().find(|open| open.fd == fd)
    }

    /// The data_fd that was handed out last, if one was; it may be closed.
    pub const fn last(&self) -> Option<Fd> {
        if self.last == 0 { None } else { Some(Fd(self.last)) }
    }

    /// The open data_fds, in no order.
    pub fn open(&self) -> impl Iterator<Item = &OpenFd> {
        self.slots.iter().flatten()
    }

    /// The session behind `fd`, if it can be used this way; `wrong_way` if it cannot.
    pub(super) fn session(&self, fd: Fd, way: Direction, wrong_way: Errno) -> Result<Epoch, Errno> {
        let open = self.get(fd).ok_or(Errno::EBADF)?;
        if open.direction == way { Ok(open.epoch) } else { Err(wrong_way) }
    }

    pub(super) fn install(&mut self, epoch: Epoch, direction: Direction) -> Result<Fd, Errno> {
        let free = self.slots.iter_mut().find(|slot| slot.is_none()).ok_or(Errno::EMFILE)?;
        self.last = self.last.checked_add(1).ok_or(Errno::EMFILE)?;
        let fd = Fd(self.last);
        *free = Some(OpenFd { fd, epoch, direction });
        Ok(fd)
    }

    pub(super) fn close(&mut self, fd: Fd) -> Result<(), Errno> {
        let is_it = |slot: &&mut Option<OpenFd>| slot.is_some_and(|open| open.fd == fd);
        let slot = self.slots.iter_mut().find(is_it).ok_or(Errno::EBADF)?;
        *slot = None;
        Ok(())
    }

    pub(super) fn flags(&self, fd: Fd) -> Result<FdFlags, Errno> {
        let open = self.get(fd).ok_or(Errno::EBADF)?;
        let read = open.direction == Direction::Saving;
        Ok(FdFlags { read, write: !read, cloexec: true })
    }

    pub(super) fn no_position(&self, fd: Fd) -> Errno {
        if self.get(fd).is_some() { Errno::ESPIPE } else { Errno::EBADF }
    }

    /// Numbers the open fds from 1 in their order, and renames their sessions.
    pub(super) fn renumber(&mut self, rename: impl Fn(Epoch) -> Epoch) {
        self.slots.sort_unstable_by_key(|slot| slot.map_or(u32::MAX, |open| open.fd.0));
        let latest_is_open = self.last().is_some_and(|last| self.get(last).is_some());
        let mut count = 0;
        for open in self.slots.iter_mut().flatten() {
            count += 1;
            *open = OpenFd { fd: Fd(count), epoch: rename(open.epoch), ..*open };
        }
        self.last = if latest_is_open { count } else { self.last.min(count + 1) };
    }
}
