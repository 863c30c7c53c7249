// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! The alphabet, spoken to the driver's process.

use vfio_fsm_core::vmm::Port;
use vfio_fsm_core::{
    EndOfStream, Errno, Fault, Fd, FdFlags, Op, PrecopyInfo, RawState, Readiness, Reply,
};

use super::wire::{ERESTARTSYS, Frame, Kind};
use super::{Completion, DriverError, Firmware, Happening, LinuxDriver, Meanwhile};

/// `VFIO_DEVICE_FEATURE_*`.
const GET: i64 = 1 << 16;
const SET: i64 = 1 << 17;
const MIGRATION: i64 = 1;
const MIG_DEVICE_STATE: i64 = 2;
const MIG_DATA_SIZE: i64 = 9;
const MIG_PRECOPY_INFO_V2: i64 = 12;

/// `VFIO_MIG_GET_PRECOPY_INFO`.
const GET_PRECOPY_INFO: i64 = 0x3b79;

/// `POLL*`.
const POLLIN: i64 = 0x001;
const POLLOUT: i64 = 0x004;
const HANGUP: i64 = 0x008 | 0x010 | 0x2000;

impl<F: Firmware> LinuxDriver<F> {
    /// Carries out one op, and ends the commands in flight that are to end behind it.
    ///
    /// data_fds are numbered as the alphabet numbers them. `Fault::ArcFails` is a matter of the
    /// firmware, and answers `EOPNOTSUPP`. `Fault::ResetInside` comes with the last command of the
    /// SET; for others see [`meanwhile`](Self::meanwhile).
    pub fn try_apply<'b>(
        &mut self,
        op: Op<&[u8]>,
        buf: &'b mut [u8],
    ) -> Result<Reply<&'b [u8]>, DriverError> {
        let reply = self.within(op, buf)?;
        if self.options.completion == Completion::Behind {
            while self.complete()? {}
        }
        Ok(reply)
    }

    /// Why the last [`Port::apply`] answered `EIO` without having asked the driver.
    pub fn take_failure(&mut self) -> Option<DriverError> {
        self.failure.take()
    }

    /// One op alone, possibly within another.
    pub(super) fn within<'b>(
        &mut self,
        op: Op<&[u8]>,
        buf: &'b mut [u8],
    ) -> Result<Reply<&'b [u8]>, DriverError> {
        match op {
            Op::Read { fd, len } | Op::UringRead { fd, len } => self.read(fd, len, false, buf),
            Op::Pread { fd, len } => self.read(fd, len, true, buf),
            op => self.other(op).map(|answer| answer.unwrap_or_else(Reply::Errno)),
        }
    }

    fn read<'b>(
        &mut self,
        fd: Fd,
        len: u32,
        at_position: bool,
        buf: &'b mut [u8],
    ) -> Result<Reply<&'b [u8]>, DriverError> {
        let len = buf.len().min(len as usize);
        let op = [i64::from(fd.0), len as i64, i64::from(at_position)];
        let reply = self.call(&Frame::op(Kind::Read, op, &[]))?;
        Ok(match errno(reply.a) {
            Err(Errno::ENOMSG) => Reply::EndOfStream(EndOfStream::Temporary),
            Err(errno) => Reply::Errno(errno),
            Ok(0) if len > 0 => Reply::EndOfStream(EndOfStream::Permanent),
            Ok(_) => {
                let bytes = &mut buf[..reply.data.len()];
                bytes.copy_from_slice(&reply.data);
                Reply::Bytes(bytes)
            }
        })
    }

    /// Everything but the reads.
    fn other<'b>(&mut self, op: Op<&[u8]>) -> Result<Result<Reply<&'b [u8]>, Errno>, DriverError> {
        let plain = |kind| Frame::op(kind, [0; 3], &[]);
        let on = |kind, fd: Fd| Frame::op(kind, [i64::from(fd.0), 0, 0], &[]);
        let of_device = matches!(
            op,
            Op::Close
                | Op::GetFeatures
                | Op::GetState
                | Op::SetState { .. }
                | Op::Reset
                | Op::DataSize
                | Op::OptInPrecopyV2
        );
        if of_device && !self.open {
            return Ok(Err(Errno::EBADF));
        }
        Ok(match op {
            Op::Open if self.open => Err(Errno::EBUSY),
            Op::Open => {
                let opened = self.call(&plain(Kind::Open))?;
                self.open = opened.a == 0;
                errno(opened.a).map(|_| Reply::Ok)
            }
            Op::Close => {
                let closed = self.call(&plain(Kind::Close))?;
                self.open = false;
                // The last close of a VFIO device resets the function.
                self.firmware.reset();
                errno(closed.a).map(|_| Reply::Ok)
            }
            Op::Reset => {
                self.firmware.reset();
                errno(self.call(&plain(Kind::Reset))?.a).map(|_| Reply::Ok)
            }
            Op::Touch(value) => {
                self.firmware.touch(value);
                Ok(Reply::Ok)
            }
            Op::GetFeatures => self
                .feature(GET | MIGRATION, &[0; 8])?
                .map(|data| Reply::Features(number(&data, 0))),
            Op::GetState => self
                .feature(GET | MIG_DEVICE_STATE, &[0; 8])?
                .map(|data| Reply::State(RawState(word(&data, 0)))),
            Op::SetState { to, fault } => self.set_state(to, fault)?,
            Op::DataSize => self
                .feature(GET | MIG_DATA_SIZE, &[0; 8])?
                .map(|data| Reply::Size(number(&data, 0))),
            Op::OptInPrecopyV2 => self.feature(SET | MIG_PRECOPY_INFO_V2, &[])?.map(|_| Reply::Ok),
            Op::PrecopyInfo { fd } => self.precopy_info(fd)?,
            Op::Write { fd, bytes } => {
                let op = Frame::op(Kind::Write, [i64::from(fd.0), 0, 0], bytes);
                errno(self.call(&op)?.a).map(|taken| Reply::Written(taken as u32))
            }
            Op::Poll { fd } => errno(self.call(&on(Kind::Poll, fd))?.a).map(|mask| {
                Reply::Ready(Readiness {
                    readable: mask & POLLIN != 0,
                    writable: mask & POLLOUT != 0,
                    hangup: mask & HANGUP != 0,
                })
            }),
            Op::FdFlags { fd } => {
                let reply = self.call(&on(Kind::FdFlags, fd))?;
                errno(reply.a).map(|_| {
                    let (read, write) = (reply.b != 1, reply.b != 0);
                    Reply::FdFlags(FdFlags { read, write, cloexec: reply.c == 1 })
                })
            }
            Op::Seek { fd } => errno(self.call(&on(Kind::Seek, fd))?.a).map(|_| Reply::Ok),
            Op::CloseFd { fd } => errno(self.call(&on(Kind::CloseFd, fd))?.a).map(|_| Reply::Ok),
            Op::Read { .. } | Op::UringRead { .. } | Op::Pread { .. } => Err(Errno::EOPNOTSUPP),
        })
    }

    fn set_state<'b>(
        &mut self,
        to: RawState,
        fault: Option<Fault>,
    ) -> Result<Result<Reply<&'b [u8]>, Errno>, DriverError> {
        match fault {
            Some(Fault::ArcFails { .. }) => return Ok(Err(Errno::EOPNOTSUPP)),
            Some(Fault::ResetInside) => {
                self.meanwhile.push((Meanwhile::Command(0), Happening::ResetDone));
            }
            Some(Fault::FdTableFull) | None => {}
        }
        let mut data = to.0.to_ne_bytes().to_vec();
        data.extend((-1i32).to_ne_bytes());
        let full = i64::from(fault == Some(Fault::FdTableFull));
        let reply =
            self.call(&Frame::op(Kind::Feature, [SET | MIG_DEVICE_STATE, full, 0], &data))?;
        if fault == Some(Fault::ResetInside) {
            // The driver acts on it when the last command is done, which is when it came.
            self.firmware.reset();
        }
        // A SET without a command had no moment for it.
        for happening in self.due(Meanwhile::Command(0)) {
            self.happens(happening)?;
        }
        if let Err(errno) = errno(reply.a) {
            return Ok(Err(errno));
        }
        let fd = match word(&reply.data, 4) {
            u32::MAX => None,
            fd => Some(Fd(fd)),
        };
        if let (Some(Fd(fd)), true) = (fd, self.options.non_blocking) {
            self.call(&Frame::op(Kind::NonBlock, [i64::from(fd), 0, 0], &[]))?;
        }
        Ok(Ok(Reply::Fd(fd)))
    }

    fn precopy_info<'b>(&mut self, fd: Fd) -> Result<Result<Reply<&'b [u8]>, Errno>, DriverError> {
        /// `struct vfio_precopy_info`: argsz, flags, initial_bytes, dirty_bytes.
        const ARGSZ: u32 = 24;
        let mut data = ARGSZ.to_ne_bytes().to_vec();
        data.resize(ARGSZ as usize, 0);
        let op = Frame::op(Kind::Ioctl, [i64::from(fd.0), GET_PRECOPY_INFO, 0], &data);
        let reply = self.call(&op)?;
        Ok(errno(reply.a).map(|_| {
            Reply::Info(PrecopyInfo {
                initial_bytes: number(&reply.data, 8),
                dirty_bytes: number(&reply.data, 16),
                reinit: word(&reply.data, 4) & 1 != 0,
            })
        }))
    }

    fn feature(&mut self, flags: i64, data: &[u8]) -> Result<Result<Vec<u8>, Errno>, DriverError> {
        let reply = self.call(&Frame::op(Kind::Feature, [flags, 0, 0], data))?;
        Ok(errno(reply.a).map(|_| reply.data))
    }
}

/// A failure of the harness answers `EIO` and is kept: [`LinuxDriver::take_failure`].
impl<F: Firmware> Port for LinuxDriver<F> {
    type Fd = Fd;

    fn apply<'b>(&mut self, op: Op<&[u8], &Fd>, buf: &'b mut [u8]) -> Reply<&'b [u8]> {
        self.try_apply(op.map_fd(|fd| *fd), buf).unwrap_or_else(|error| {
            self.failure = Some(error);
            Reply::Errno(Errno::EIO)
        })
    }
}

/// A result as system calls have it. A wait that a signal ends is to be tried again.
fn errno(result: i64) -> Result<i64, Errno> {
    match result {
        0.. => Ok(result),
        _ if result == -ERESTARTSYS => Err(Errno::EAGAIN),
        _ => Err(Errno(i32::try_from(-result).unwrap_or(i32::MAX))),
    }
}

fn word(data: &[u8], at: usize) -> u32 {
    data.get(at..at + 4).and_then(|bytes| bytes.try_into().ok()).map_or(0, u32::from_ne_bytes)
}

fn number(data: &[u8], at: usize) -> u64 {
    data.get(at..at + 8).and_then(|bytes| bytes.try_into().ok()).map_or(0, u64::from_ne_bytes)
}
