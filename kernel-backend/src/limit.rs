// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! Things changed for the time of one call, and put back whatever becomes of it.

use std::os::fd::BorrowedFd;

use nix::fcntl::{FcntlArg, OFlag, fcntl};
use nix::sys::resource::{Resource, getrlimit, rlim_t, setrlimit};
use vfio_fsm_core::Errno;

use crate::sys::errno;

/// While this lives, no fd can be installed in this process: every attempt is `EMFILE`.
///
/// The kernel looks for a free number below the soft limit of `RLIMIT_NOFILE`, so a limit of 0
/// leaves none, while fds that are open go on working. The limit is the process', so other threads
/// see it too.
pub(crate) struct FdTableFull {
    soft: rlim_t,
    hard: rlim_t,
}

impl FdTableFull {
    pub(crate) fn begin() -> Result<Self, Errno> {
        let (soft, hard) = getrlimit(Resource::RLIMIT_NOFILE).map_err(errno)?;
        setrlimit(Resource::RLIMIT_NOFILE, 0, hard).map_err(errno)?;
        Ok(Self { soft, hard })
    }
}

impl Drop for FdTableFull {
    fn drop(&mut self) {
        // Up to the hard limit is always allowed, so there is no failure to tell of.
        let _ = setrlimit(Resource::RLIMIT_NOFILE, self.soft, self.hard);
    }
}

/// While this lives, a read from the file that would block is `EAGAIN`.
pub(crate) struct NonBlocking<'fd> {
    file: BorrowedFd<'fd>,
    before: OFlag,
}

impl<'fd> NonBlocking<'fd> {
    pub(crate) fn begin(file: BorrowedFd<'fd>) -> Result<Self, Errno> {
        let before = OFlag::from_bits_retain(fcntl(file, FcntlArg::F_GETFL).map_err(errno)?);
        fcntl(file, FcntlArg::F_SETFL(before | OFlag::O_NONBLOCK)).map_err(errno)?;
        Ok(Self { file, before })
    }
}

impl Drop for NonBlocking<'_> {
    fn drop(&mut self) {
        // The same call succeeded on the way in.
        let _ = fcntl(self.file, FcntlArg::F_SETFL(self.before));
    }
}
