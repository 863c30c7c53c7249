// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! One read through io_uring.

use std::mem::ManuallyDrop;
use std::os::fd::{AsRawFd, BorrowedFd};
use std::time::Duration;

use io_uring::{IoUring, opcode, squeue, types};
use nix::libc;
use vfio_fsm_core::Errno;

use crate::sys::io_errno;

/// The current position: what `read(2)` uses, and all that a stream has.
const CURRENT_POSITION: u64 = u64::MAX;

const READ: u64 = 1;
const CANCEL: u64 = 2;

/// How long a read that is cancelled may take to end.
const CANCEL_LIMIT: Duration = Duration::from_secs(1);

/// A ring with room for a read and its cancellation. Used once, so that nothing of one read
/// reaches the next.
pub(crate) struct Ring(IoUring);

impl Ring {
    pub(crate) fn new() -> Result<Self, Errno> {
        IoUring::new(2).map(Self).map_err(|error| io_errno(&error))
    }

    /// `IORING_OP_READ`, waited for until `limit`; `None` is a read that was not done by then.
    ///
    /// A data_fd knows no `IOCB_NOWAIT`, so the driver is called by a worker of the ring and may
    /// block there. It is not polled before, and not made non-blocking: then the ring would answer
    /// `EAGAIN` by itself, and the driver would not be asked.
    pub(crate) fn read(
        mut self,
        fd: BorrowedFd<'_>,
        buf: &mut [u8],
        limit: Duration,
    ) -> Result<Option<usize>, Errno> {
        // The kernel writes into memory of the heap, which is given up unless the read is known to
        // be over; the caller's could not be.
        let mut bounce = ManuallyDrop::new(vec![0; buf.len()]);
        let len = u32::try_from(bounce.len()).unwrap_or(u32::MAX);
        let read = opcode::Read::new(types::Fd(fd.as_raw_fd()), bounce.as_mut_ptr(), len)
            .offset(CURRENT_POSITION)
            .build();
        self.push(&read.user_data(READ))?;
        let (result, cancelled) = match self.result(limit)? {
            Some(result) => (result, false),
            None => match self.cancel()? {
                Some(result) => (result, true),
                None => return Ok(None),
            },
        };
        let bounce = ManuallyDrop::into_inner(bounce);
        if cancelled && (result == -libc::ECANCELED || result == -libc::EINTR) {
            return Ok(None);
        }
        let got = usize::try_from(result).map_err(|_negative| Errno(-result))?;
        let most = got.min(buf.len());
        buf[..most].copy_from_slice(&bounce[..most]);
        Ok(Some(got))
    }

    /// Stops the read. Its result, if it ends.
    fn cancel(&mut self) -> Result<Option<i32>, Errno> {
        let cancel = opcode::AsyncCancel::new(READ).build();
        self.push(&cancel.user_data(CANCEL))?;
        self.result(CANCEL_LIMIT)
    }

    fn push(&mut self, entry: &squeue::Entry) -> Result<(), Errno> {
        // SAFETY: the fd of the only entry that has one is borrowed, and its memory is not freed,
        // until its result is there.
        unsafe { self.0.submission().push(entry) }.map_err(|_full| Errno::EBUSY)
    }

    /// The read's result, if it has one within `limit`.
    fn result(&mut self, limit: Duration) -> Result<Option<i32>, Errno> {
        let limit = types::Timespec::from(limit);
        let until = types::SubmitArgs::new().timespec(&limit);
        loop {
            let waited = self.0.submitter().submit_with_args(1, &until);
            let mut done = self.0.completion();
            if let Some(entry) = done.find(|entry| entry.user_data() == READ) {
                return Ok(Some(entry.result()));
            }
            match waited.map_err(|error| io_errno(&error)) {
                // A signal, or the completion of the cancellation: wait for the read's.
                Ok(_) | Err(Errno(libc::EINTR)) => {}
                Err(Errno(libc::ETIME)) => return Ok(None),
                Err(errno) => return Err(errno),
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::fs::{self, File};
    use std::os::fd::AsFd;

    use super::*;

    const LIMIT: Duration = Duration::from_secs(5);

    #[test]
    fn a_read_goes_on_where_the_one_before_ended() {
        // Without io_uring there is nothing to try, and `uring_available` says so.
        let Ok(probe) = Ring::new() else { return };
        drop(probe);
        // Some file that is there and has a few different bytes.
        let path = std::env::current_exe().unwrap();
        let (text, file) = (fs::read(&path).unwrap(), File::open(&path).unwrap());
        for part in text.chunks(50).take(3) {
            let mut buf = [0; 50];
            let got = Ring::new().unwrap().read(file.as_fd(), &mut buf, LIMIT);
            assert_eq!(got, Ok(Some(part.len())));
            assert_eq!(&buf[..part.len()], part);
        }
    }

    #[test]
    fn a_read_that_is_stopped_says_so() {
        let Ok(mut ring) = Ring::new() else { return };
        let (reader, _writer) = std::io::pipe().unwrap();
        let mut byte = 0_u8;
        let read = opcode::Read::new(types::Fd(reader.as_raw_fd()), &raw mut byte, 1).build();
        ring.push(&read.user_data(READ)).unwrap();
        assert_eq!(ring.result(Duration::from_millis(5)), Ok(None));
        assert_eq!(ring.cancel(), Ok(Some(-libc::ECANCELED)));
    }
}
