// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! Memory that ends where an argument does, and calls whose arguments are in it, or beyond.

use std::io;
use std::os::fd::{AsRawFd, BorrowedFd};
use std::ptr;

use nix::libc;
use vfio_fsm_core::Errno;

use super::last_errno;

/// One page that may be used, and behind it more than any call takes that may not.
///
/// So whoever touches a byte behind an argument gets a fault, and no call can reach anything else of
/// this process whatever length it is given.
pub(crate) struct Brink {
    page: *mut u8,
}

// SAFETY: the mapping belongs to this value alone, whichever thread has it.
unsafe impl Send for Brink {}

/// What may be done with the page.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Access {
    ReadWrite,
    Read,
    None,
}

impl Brink {
    /// Bytes of the page.
    pub(crate) const PAGE: usize = 4096;

    /// No call takes more, whatever it is asked (`MAX_RW_COUNT` is below it).
    const BEHIND: usize = 1 << 31;

    pub(crate) fn new() -> io::Result<Self> {
        let flags = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS | libc::MAP_NORESERVE;
        let len = Self::PAGE + Self::BEHIND;
        // SAFETY: new memory at an address of the kernel's choice.
        let page = unsafe { libc::mmap(ptr::null_mut(), len, libc::PROT_NONE, flags, -1, 0) };
        if page == libc::MAP_FAILED {
            return Err(io::Error::last_os_error());
        }
        let brink = Self { page: page.cast() };
        brink.allow(Access::ReadWrite)?;
        Ok(brink)
    }

    /// From now on the page can be used like this.
    pub(crate) fn allow(&self, access: Access) -> io::Result<()> {
        let protection = match access {
            Access::ReadWrite => libc::PROT_READ | libc::PROT_WRITE,
            Access::Read => libc::PROT_READ,
            Access::None => libc::PROT_NONE,
        };
        // SAFETY: the page is ours, and nothing refers to its bytes between two calls.
        match unsafe { libc::mprotect(self.page.cast(), Self::PAGE, protection) } {
            0 => Ok(()),
            _ => Err(io::Error::last_os_error()),
        }
    }

    /// Where the last `room` bytes of the page begin.
    fn at(&self, room: usize) -> *mut u8 {
        self.page.wrapping_add(Self::PAGE - room.min(Self::PAGE))
    }

    /// The last bytes of the page become these. It must be [`Access::ReadWrite`].
    pub(crate) fn put(&mut self, bytes: &[u8]) {
        let len = bytes.len().min(Self::PAGE);
        // SAFETY: the page is writable, so long, and nothing else refers to it.
        unsafe { ptr::copy_nonoverlapping(bytes.as_ptr(), self.at(len), len) };
    }

    /// The last `len` bytes of the page. It must be readable.
    pub(crate) fn get(&self, len: usize) -> Vec<u8> {
        let mut bytes = vec![0; len.min(Self::PAGE)];
        // SAFETY: the page is readable, so long, and nobody writes to it meanwhile.
        unsafe { ptr::copy_nonoverlapping(self.at(len), bytes.as_mut_ptr(), bytes.len()) };
        bytes
    }

    /// An ioctl whose argument begins `room` bytes before the end. Says what it returned.
    pub(crate) fn ioctl(
        &self,
        fd: BorrowedFd<'_>,
        request: u32,
        room: usize,
    ) -> Result<usize, Errno> {
        let argument: *mut u8 = self.at(room);
        // SAFETY: what the kernel can reach from there is the page and what faults.
        let done = unsafe { libc::ioctl(fd.as_raw_fd(), request as libc::Ioctl, argument) };
        returned(done as isize)
    }

    /// A read of `len` bytes to where `room` are left.
    pub(crate) fn read(&self, fd: BorrowedFd<'_>, room: usize, len: usize) -> Result<usize, Errno> {
        // SAFETY: as above; a length that leads beyond is refused by the kernel.
        returned(unsafe { libc::read(fd.as_raw_fd(), self.at(room).cast(), len) })
    }

    /// A write of `len` bytes from where `room` are left.
    pub(crate) fn write(
        &self,
        fd: BorrowedFd<'_>,
        room: usize,
        len: usize,
    ) -> Result<usize, Errno> {
        // SAFETY: as above.
        returned(unsafe { libc::write(fd.as_raw_fd(), self.at(room).cast(), len) })
    }

    /// A read of one byte at this position.
    pub(crate) fn pread(&self, fd: BorrowedFd<'_>, position: i64) -> Result<usize, Errno> {
        // SAFETY: as above.
        returned(unsafe { libc::pread(fd.as_raw_fd(), self.at(1).cast(), 1, position) })
    }

    /// A write of one byte at this position.
    pub(crate) fn pwrite(&self, fd: BorrowedFd<'_>, position: i64) -> Result<usize, Errno> {
        // SAFETY: as above.
        returned(unsafe { libc::pwrite(fd.as_raw_fd(), self.at(1).cast(), 1, position) })
    }
}

fn returned(value: isize) -> Result<usize, Errno> {
    usize::try_from(value).map_err(|_negative| last_errno())
}

impl Drop for Brink {
    fn drop(&mut self) {
        // SAFETY: mapped in `new`, and nothing refers to it any more.
        let _ = unsafe { libc::munmap(self.page.cast(), Self::PAGE + Self::BEHIND) };
    }
}
