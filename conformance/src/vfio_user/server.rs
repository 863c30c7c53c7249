// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! A server of ours, for any device that speaks the alphabet.

use std::io;
use std::os::unix::net::UnixStream;

use vfio_fsm_core::{Errno, Fd, Features, Op, Reply};

use super::framed::{Broken, Framed};
use super::protocol::{
    Capabilities, Command, DeviceInfo, FeatureHead, Header, MAJOR, MINOR, MOST_DATA, Malformed,
    MigData, MigState, MigrationFlags, RegionAccess, RegionInfo, Version, VersionNumbers, feature,
    flag, info, message,
};
use crate::replay::{Target, TargetError};

/// Regions and kinds of interrupts that a PCI device has.
const REGIONS: u32 = 9;
const IRQS: u32 = 5;

/// The region with the one byte that a guest can write, by which the state of the device changes.
const TOUCHED: u32 = 0;

/// What is missing before any session.
const NO_SESSION: Errno = Errno::EINVAL;

/// A connection that failed, which is the client's loss: the device is as it was.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ServeError {
    /// The client hung up in the middle of a message.
    #[error("the client hung up in the middle of a message")]
    Cut,
    /// The client sent something that is no message.
    #[error("the client sent what is no message: {0}")]
    Malformed(#[from] Malformed),
    /// The socket failed.
    #[error("the socket failed: {0}")]
    Io(#[from] io::Error),
}

/// What becomes of the connection behind a message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Then {
    GoOn,
    HangUp,
}

/// A device at the end of a socket.
///
/// It is served to one client after the other. What a client leaves behind the next one finds: a
/// disconnect is not a reset.
pub struct Server<'t> {
    target: &'t mut dyn Target,
    /// The data_fd that the device handed out last, dead or alive.
    data_fd: Option<Fd>,
    buffer: Vec<u8>,
    outbox: Vec<u8>,
}

impl std::fmt::Debug for Server<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Server").field("data_fd", &self.data_fd).finish_non_exhaustive()
    }
}

impl<'t> Server<'t> {
    /// Of a fresh device with these flags.
    ///
    /// # Errors
    ///
    /// It cannot be had fresh.
    pub fn new(target: &'t mut dyn Target, features: Features) -> Result<Self, TargetError> {
        target.fresh(features)?;
        let buffer = vec![0; MOST_DATA as usize];
        Ok(Self { target, data_fd: None, buffer, outbox: Vec::new() })
    }

    /// Answer one client until it hangs up.
    ///
    /// # Errors
    ///
    /// It sent what is no message, or the socket failed; the next client may do better.
    pub fn serve(&mut self, stream: UnixStream) -> Result<(), ServeError> {
        let mut framed = Framed::new(stream, None)?;
        let mut agreed = false;
        loop {
            let (header, payload) = match framed.receive() {
                Ok(received) => received,
                Err(Broken::Gone { within: false }) => return Ok(()),
                Err(Broken::Gone { within: true } | Broken::Silent) => {
                    return Err(ServeError::Cut);
                }
                Err(Broken::Io(error)) => return Err(error.into()),
                Err(Broken::Malformed(problem)) => return Err(problem.into()),
            };
            if header.is_reply() {
                continue;
            }
            let then = self.answer(header, payload, &mut agreed);
            if header.flags & flag::NO_REPLY == 0 {
                match framed.send(&self.outbox) {
                    Ok(()) => {}
                    Err(Broken::Io(error)) => return Err(error.into()),
                    Err(_) => return Ok(()),
                }
            }
            if then == Then::HangUp {
                return Ok(());
            }
        }
    }

    /// Put the reply to a command into the outbox.
    fn answer(&mut self, header: Header, payload: &[u8], agreed: &mut bool) -> Then {
        let command = Command::from_number(header.command);
        let first = !std::mem::replace(agreed, true);
        let done = match command {
            Some(Command::Version) if first => version(payload),
            // The version is said once, and first.
            _ if first => Err(Errno::EINVAL),
            Some(Command::Version) => Err(Errno::EINVAL),
            Some(command) => self.carry_out(command, payload),
            None => Err(Errno::EOPNOTSUPP),
        };
        let then = if first && done.is_err() { Then::HangUp } else { Then::GoOn };
        let reply = Header { flags: flag::REPLY, error: 0, ..header };
        match done {
            Ok(payload) => message(&mut self.outbox, reply, |to| to.extend_from_slice(&payload)),
            Err(errno) => {
                let error = errno.0.unsigned_abs();
                let failed = Header { flags: flag::REPLY | flag::ERROR, error, ..reply };
                message(&mut self.outbox, failed, |_| ());
            }
        }
        then
    }

    fn carry_out(&mut self, command: Command, payload: &[u8]) -> Result<Vec<u8>, Errno> {
        match command {
            Command::GetInfo => get_info(payload),
            Command::GetRegionInfo => get_region_info(payload),
            Command::RegionWrite => self.region_write(payload),
            Command::Reset => self.reset(payload),
            Command::Feature => self.feature(payload),
            Command::MigDataRead => self.read(payload),
            Command::MigDataWrite => self.write(payload),
            Command::Version => Err(Errno::EINVAL),
        }
    }

    fn apply(&mut self, op: Op<&[u8]>) -> Result<Reply<&[u8]>, Errno> {
        match self.target.apply(op, &mut self.buffer) {
            Reply::Errno(errno) => Err(errno),
            reply => Ok(reply),
        }
    }

    fn reset(&mut self, payload: &[u8]) -> Result<Vec<u8>, Errno> {
        if !payload.is_empty() {
            return Err(Errno::EINVAL);
        }
        self.apply(Op::Reset)?;
        Ok(Vec::new())
    }

    fn region_write(&mut self, payload: &[u8]) -> Result<Vec<u8>, Errno> {
        let (access, data) = RegionAccess::decode(payload).map_err(|_| Errno::EINVAL)?;
        match (access.region, access.offset, access.count, data) {
            (TOUCHED, 0, 1, &[byte]) => self.apply(Op::Touch(byte))?,
            _ => return Err(Errno::EINVAL),
        };
        let mut reply = Vec::new();
        access.encode(&mut reply);
        Ok(reply)
    }

    fn feature(&mut self, payload: &[u8]) -> Result<Vec<u8>, Errno> {
        let (head, data) = FeatureHead::decode(payload).map_err(|_| Errno::EINVAL)?;
        let (index, ask) = (head.flags & feature::INDEX, head.flags & !feature::INDEX);
        let knows = match index {
            feature::MIGRATION => feature::GET,
            feature::MIG_DEVICE_STATE => feature::GET | feature::SET,
            _ => return Err(Errno::ENOTTY),
        };
        match ask {
            _ if ask & !(knows | feature::PROBE) != 0 => Err(Errno::EINVAL),
            _ if ask & feature::PROBE != 0 => Ok(payload.to_vec()),
            feature::GET => self.get(index, head),
            feature::SET => {
                let (state, behind) = MigState::decode(data).map_err(|_| Errno::EINVAL)?;
                if !behind.is_empty() || (head.argsz as usize) < payload.len() {
                    return Err(Errno::EINVAL);
                }
                self.set_state(state.device_state)?;
                Ok(payload.to_vec())
            }
            _ => Err(Errno::EINVAL),
        }
    }

    fn get(&mut self, index: u32, head: FeatureHead) -> Result<Vec<u8>, Errno> {
        let mut data = Vec::new();
        let op = if index == feature::MIGRATION { Op::GetFeatures } else { Op::GetState };
        match self.apply(op)? {
            Reply::Features(flags) => MigrationFlags { flags }.encode(&mut data),
            Reply::State(state) => {
                MigState { device_state: state.0, data_fd: -1 }.encode(&mut data);
            }
            _ => return Err(Errno::EIO),
        }
        let argsz = (FeatureHead::LEN + data.len()) as u32;
        if head.argsz < argsz {
            return Err(Errno::EINVAL);
        }
        let mut reply = Vec::new();
        FeatureHead { argsz, ..head }.encode(&mut reply);
        reply.extend_from_slice(&data);
        Ok(reply)
    }

    /// The data_fd that the device hands out stays here, and the one before it is closed: nobody could
    /// name it any more.
    fn set_state(&mut self, to: u32) -> Result<(), Errno> {
        let Reply::Fd(opened) = self.apply(Op::set(vfio_fsm_core::RawState(to)))? else {
            return Err(Errno::EIO);
        };
        if let Some(fd) = opened
            && let Some(before) = self.data_fd.replace(fd)
        {
            self.apply(Op::CloseFd { fd: before })?;
        }
        Ok(())
    }

    /// As much as was asked for, or all there is: less means the end.
    fn read(&mut self, payload: &[u8]) -> Result<Vec<u8>, Errno> {
        let size = size(payload, false)?;
        let fd = self.data_fd.ok_or(NO_SESSION)?;
        let mut reply = vec![0; MigData::LEN];
        let mut left = size;
        loop {
            match self.apply(Op::Read { fd, len: left }) {
                Ok(Reply::Bytes(bytes)) => {
                    reply.extend_from_slice(bytes);
                    left = left.saturating_sub(bytes.len() as u32);
                    if bytes.is_empty() || left == 0 {
                        break;
                    }
                }
                Ok(Reply::EndOfStream(_)) => break,
                // What was read is not lost: the error comes again.
                Err(_) if reply.len() > MigData::LEN => break,
                Err(errno) => return Err(errno),
                Ok(_) => return Err(Errno::EIO),
            }
        }
        let mut head = Vec::new();
        let argsz = reply.len() as u32;
        MigData { argsz, size: argsz - MigData::LEN as u32 }.encode(&mut head);
        reply[..MigData::LEN].copy_from_slice(&head);
        Ok(reply)
    }

    fn write(&mut self, payload: &[u8]) -> Result<Vec<u8>, Errno> {
        size(payload, true)?;
        let fd = self.data_fd.ok_or(NO_SESSION)?;
        let mut bytes = &payload[MigData::LEN..];
        loop {
            match self.apply(Op::Write { fd, bytes })? {
                Reply::Written(taken) if taken > 0 || bytes.is_empty() => {
                    bytes = bytes.get(taken as usize..).ok_or(Errno::EIO)?;
                }
                _ => return Err(Errno::EIO),
            }
            if bytes.is_empty() {
                return Ok(Vec::new());
            }
        }
    }
}

fn version(payload: &[u8]) -> Result<Vec<u8>, Errno> {
    let asked = Version::decode(payload).map_err(|_| Errno::EINVAL)?;
    if asked.numbers.major != MAJOR {
        return Err(Errno::EOPNOTSUPP);
    }
    let minor = asked.numbers.minor.min(MINOR);
    // Nothing that was not proposed.
    let most = asked.capabilities.max_data_xfer_size.map(|_| MOST_DATA.into());
    let reply = Version {
        numbers: VersionNumbers { major: MAJOR, minor },
        capabilities: Capabilities { max_msg_fds: None, max_data_xfer_size: most },
    };
    let mut bytes = Vec::new();
    reply.encode(&mut bytes).map_err(|_| Errno::EIO)?;
    Ok(bytes)
}

fn get_info(payload: &[u8]) -> Result<Vec<u8>, Errno> {
    let (asked, _) = DeviceInfo::decode(payload).map_err(|_| Errno::EINVAL)?;
    let argsz = DeviceInfo::LEN as u32;
    if asked.argsz < argsz {
        return Err(Errno::EINVAL);
    }
    let flags = info::RESET | info::PCI;
    let mut reply = Vec::new();
    DeviceInfo { argsz, flags, num_regions: REGIONS, num_irqs: IRQS }.encode(&mut reply);
    Ok(reply)
}

fn get_region_info(payload: &[u8]) -> Result<Vec<u8>, Errno> {
    let (asked, _) = RegionInfo::decode(payload).map_err(|_| Errno::EINVAL)?;
    let argsz = RegionInfo::LEN as u32;
    if asked.argsz < argsz || asked.index >= REGIONS {
        return Err(Errno::EINVAL);
    }
    let (flags, size) = if asked.index == TOUCHED { (info::REGION_WRITE, 1) } else { (0, 0) };
    let mut reply = Vec::new();
    let index = asked.index;
    RegionInfo { argsz, flags, index, size, ..RegionInfo::default() }.encode(&mut reply);
    Ok(reply)
}

/// How many bytes of the stream a message asks for, or brings.
fn size(payload: &[u8], brings: bool) -> Result<u32, Errno> {
    let (asked, data) = MigData::decode(payload).map_err(|_| Errno::EINVAL)?;
    let len = if brings { asked.size as usize } else { 0 };
    let room = brings || asked.argsz.checked_sub(MigData::LEN as u32) >= Some(asked.size);
    if asked.size > MOST_DATA || data.len() != len || !room {
        return Err(Errno::EINVAL);
    }
    Ok(asked.size)
}
