// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! Frames between the tests and the driver's process; `verify/driver/wire.h` has the same numbers
//! and says what they mean.

use std::io::{self, Read, Write};
use std::os::unix::net::UnixStream;

/// Bytes before each payload.
const HEADER: usize = 32;

/// The most a frame may carry; what is longer is no frame of ours.
const LONGEST: u32 = 1 << 30;

pub(super) const REPLY: u32 = 1;
pub(super) const COMMAND: u32 = 2;
pub(super) const WAIT: u32 = 3;
pub(super) const FATAL: u32 = 4;
pub(super) const WARNING: u32 = 5;
pub(super) const ANSWER: u32 = 16;
pub(super) const RESUME: u32 = 17;

/// What the C side calls `enum frame_command`.
pub(super) const ASYNC: i64 = 1;
pub(super) const OF_CORE: i64 = 2;

/// What `FRAME_RESUME` says of a wait that a signal ends.
pub(super) const ERESTARTSYS: i64 = 512;

/// `OP_PROBE` and the following.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u32)]
pub(super) enum Kind {
    Probe = 32,
    Remove,
    Open,
    Close,
    Feature,
    Reset,
    Read,
    Write,
    Poll,
    Ioctl,
    FdFlags,
    CloseFd,
    Seek,
    NonBlock,
    Complete,
    Notify,
    LogStart,
    LogStop,
    LogReport,
    ObjectChange,
    Stats,
    FailPages,
}

/// One frame.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Frame {
    pub(super) kind: u32,
    pub(super) a: i64,
    pub(super) b: i64,
    pub(super) c: i64,
    pub(super) data: Vec<u8>,
}

impl Frame {
    pub(super) fn new(kind: u32, a: i64, data: &[u8]) -> Self {
        Self { kind, a, data: data.to_owned(), ..Self::default() }
    }

    pub(super) fn op(kind: Kind, [a, b, c]: [i64; 3], data: &[u8]) -> Self {
        Self { kind: kind as u32, a, b, c, data: data.to_owned() }
    }

    pub(super) fn send(&self, to: &mut UnixStream) -> io::Result<()> {
        let mut bytes = Vec::with_capacity(HEADER + self.data.len());
        bytes.extend(self.kind.to_ne_bytes());
        bytes.extend((self.data.len() as u32).to_ne_bytes());
        for number in [self.a, self.b, self.c] {
            bytes.extend(number.to_ne_bytes());
        }
        bytes.extend(&self.data);
        to.write_all(&bytes)
    }

    pub(super) fn receive(from: &mut UnixStream) -> io::Result<Self> {
        let mut words = [[0; 4]; 2];
        let mut numbers = [[0; 8]; 3];
        for word in &mut words {
            from.read_exact(word)?;
        }
        for number in &mut numbers {
            from.read_exact(number)?;
        }
        let [kind, len] = words.map(u32::from_ne_bytes);
        let [a, b, c] = numbers.map(i64::from_ne_bytes);
        if len > LONGEST {
            return Err(io::Error::new(
                io::ErrorKind::InvalidData,
                format!("{len} bytes of frame"),
            ));
        }
        let mut data = vec![0; len as usize];
        from.read_exact(&mut data)?;
        Ok(Self { kind, a, b, c, data })
    }
}

/// What the driver's process has in use.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Stats {
    /// Pages.
    pub pages: u64,
    /// The most pages there ever were at a time.
    pub most_pages: u64,
    /// Blocks of `kzalloc` and its like.
    pub blocks: u64,
    /// Files that are not released.
    pub files: u64,
    /// Pages that are mapped for DMA.
    pub mapped_pages: u64,
    /// `WARN_ON`s that fired.
    pub warnings: u64,
    /// Asynchronous commands in flight.
    pub in_flight: u64,
    /// Work items that wait for a worker.
    pub work: u64,
}

impl Stats {
    pub(super) fn parse(data: &[u8]) -> Option<Self> {
        let mut words = data.chunks_exact(8).map(|word| word.try_into().map(u64::from_ne_bytes));
        let mut next = || words.next()?.ok();
        Some(Self {
            pages: next()?,
            most_pages: next()?,
            blocks: next()?,
            files: next()?,
            mapped_pages: next()?,
            warnings: next()?,
            in_flight: next()?,
            work: next()?,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// M107: a frame arrives as it was sent, and one that cannot be ours is refused.
    #[test]
    fn frames_arrive() {
        let (mut here, mut there) = UnixStream::pair().unwrap();
        let frame = Frame::op(Kind::Complete, [7, -5, i64::MIN], b"payload");
        frame.send(&mut here).unwrap();
        assert_eq!(Frame::receive(&mut there).unwrap(), frame);

        let mut header = [0; HEADER];
        header[4..8].copy_from_slice(&u32::MAX.to_ne_bytes());
        here.write_all(&header).unwrap();
        assert!(Frame::receive(&mut there).is_err());
    }

    /// M107: both sides number the ops alike.
    #[test]
    fn the_numbers_are_those_of_the_header() {
        let header = include_str!("../../../verify/driver/wire.h");
        let ops = header.split("OP_PROBE = FRAME_OP").nth(1).unwrap();
        let ops = ops.split("};").next().unwrap().matches("\tOP_").count();
        assert_eq!(Kind::FailPages as usize - Kind::Probe as usize, ops);
        for (name, number) in [("REPLY", REPLY), ("COMMAND", COMMAND), ("WAIT", WAIT)] {
            assert!(header.contains(&format!("FRAME_{name} = {number}")), "{name}");
        }
        for (name, number) in [("ANSWER", ANSWER), ("RESUME", RESUME), ("OP", Kind::Probe as u32)] {
            assert!(header.contains(&format!("FRAME_{name} = {number}")), "{name}");
        }
    }
}
