// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! The firmware's side of the socket: what the shim and the client are answered.
//!
//! The numbers and the form of messages are those of `verify/libmlx5/host.h`.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{self, Write};
use std::os::fd::AsRawFd;
use std::os::unix::net::UnixStream;
use std::sync::Arc;

use parking_lot::Mutex;
use vfio_fsm_core::Errno;
use vm_memory::{FileOffset, MmapRegion};
use vmm_sys_util::sock_ctrl_msg::ScmSocket;

use crate::dma::DmaSpace;
use crate::firmware::{Fault, Firmware, Trigger};
use crate::layout::CommandStatus;

const HELLO: u64 = 1;
const MAP: u64 = 2;
const UNMAP: u64 = 3;
const VECTOR: u64 = 4;
const REQUEST_PAGES: u64 = 10;
const PAGES: u64 = 11;
const TOUCH: u64 = 12;
const DIGEST: u64 = 13;
const STATUS: u64 = 14;
const OBJECTS: u64 = 15;
const ROUND: u64 = 16;

/// The end of all IOVAs, and of the file whose offsets they are.
pub(super) const ARENA_BYTES: u64 = 1 << 30;

/// The eventfds of the vectors.
#[derive(Default)]
pub(super) struct Vectors(Mutex<BTreeMap<u16, File>>);

impl Vectors {
    pub(super) fn signal(&self, vector: u16) {
        if let Some(mut eventfd) = self.0.lock().get(&vector) {
            // It fails when it has overflowed, and is readable then.
            let _ = eventfd.write_all(&1_u64.to_ne_bytes());
        }
    }

    fn set(&self, vector: u16, eventfd: Option<File>) {
        let mut vectors = self.0.lock();
        match eventfd {
            Some(eventfd) => drop(vectors.insert(vector, eventfd)),
            None => drop(vectors.remove(&vector)),
        }
    }
}

/// What there is to answer from.
pub(super) struct Host<'a> {
    pub(super) firmware: &'a Firmware,
    pub(super) space: DmaSpace,
    pub(super) arena: Arc<File>,
    pub(super) vectors: Arc<Vectors>,
    /// Told how many nanoseconds a round of commands took, 0 before the first. Whether there is
    /// another one.
    pub(super) round: &'a mut (dyn FnMut(u64) -> bool + Send),
    /// How much is mapped for DMA, in bytes by IOVA.
    pub(super) mapped: BTreeMap<u64, u64>,
}

impl Host<'_> {
    /// Answers until the other side closes the socket, which its end does.
    pub(super) fn serve(&mut self, socket: &UnixStream) -> io::Result<()> {
        let mut say = [0; 24];
        loop {
            let (bytes, file) = socket.recv_with_fd(&mut say)?;
            let &[what, a, b] = say.as_chunks::<8>().0 else { return Ok(()) };
            match bytes {
                0 => return Ok(()),
                24 => {}
                _ => return Err(io::ErrorKind::UnexpectedEof.into()),
            }
            let [what, a, b] = [what, a, b].map(u64::from_ne_bytes);
            let files: &[i32] = match what {
                HELLO => &[self.firmware.bar_file().as_raw_fd(), self.arena.as_raw_fd()],
                _ => &[],
            };
            let (error, value) = match self.answer(what, a, b, file) {
                Ok(value) => (0, value),
                Err(errno) => (errno.0 as u64, 0),
            };
            let reply = [error, value].map(u64::to_ne_bytes);
            socket.send_with_fds(&[reply.as_flattened()], files)?;
        }
    }

    fn answer(&mut self, what: u64, a: u64, b: u64, file: Option<File>) -> Result<u64, Errno> {
        let firmware = self.firmware;
        match what {
            HELLO => {}
            MAP => self.map(a, b)?,
            UNMAP => {
                self.space.detach(a).map_err(|error| error.errno())?;
                self.mapped.remove(&a);
            }
            VECTOR => self.vectors.set(narrow(a)?, file),
            REQUEST_PAGES => firmware.request_pages(narrow(a)?, narrow(b)?),
            PAGES => return Ok(firmware.counts().pages as u64),
            TOUCH => firmware.vhca(narrow(a)?).ok_or(Errno::ENODEV)?.touch(narrow(b)?),
            DIGEST => return Ok(firmware.vhca(narrow(a)?).ok_or(Errno::ENODEV)?.digest()),
            STATUS => {
                let status = CommandStatus::from(narrow::<u8>(a)?);
                firmware.inject(Trigger::Next, Fault::Status(status));
            }
            OBJECTS => {
                let counts = firmware.counts();
                return Ok((counts.pds | counts.mkeys << 8 | counts.eqs << 16) as u64);
            }
            ROUND => return Ok((self.round)(a).into()),
            _ => return Err(Errno::EINVAL),
        }
        Ok(0)
    }

    fn map(&mut self, iova: u64, bytes: u64) -> Result<(), Errno> {
        let size = usize::try_from(bytes).map_err(|_| Errno::EINVAL)?;
        let place = FileOffset::from_arc(self.arena.clone(), iova);
        let memory = MmapRegion::from_file(place, size).map_err(|_| Errno::ENOMEM)?;
        self.space.attach(iova, Arc::new(memory)).map_err(|error| error.errno())?;
        self.mapped.insert(iova, bytes);
        Ok(())
    }
}

fn narrow<T: TryFrom<u64>>(value: u64) -> Result<T, Errno> {
    T::try_from(value).map_err(|_| Errno::EINVAL)
}
