// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! The simplest device there is: `N` registers in memory, and a stream of records.
//!
//! What suites and models run on, and what to read before writing [`ArcActions`] for a driver. The
//! stream is a row of records, each a tag and the `N` registers: `P` for a copy made in a pre-copy
//! state, which a later record makes obsolete, and one `F`, the last, made in STOP_COPY.

use crate::arc::{Arc, SessionEffect};
use crate::device::{ArcActions, ArcFailure, DeviceData};
use crate::op::{Errno, PrecopyInfo};
use crate::state::{Direction, State};

const PRE_COPY_RECORD: u8 = b'P';
const FINAL_RECORD: u8 = b'F';

/// A device of `N` byte registers, all 0 after a reset.
///
/// It keeps to its part of [`ArcActions`] and notices who does not: a session that is opened over
/// another is out of memory (`ENOMEM`), as what the other had is still held. Behind one that is ended
/// twice, or used when it is over, every arc fails (`EFAULT`): a driver would have crashed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Memory<const N: usize> {
    registers: [u8; N],
    stream: Stream<N>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum Stream<const N: usize> {
    None,
    /// Something was done out of turn: see [`Memory`].
    Misused,
    Saving(Saving<N>),
    Resuming(Resuming<N>),
}

/// What is still to be read: the rest of `record`, then a copy if `dirty`, then the final one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
struct Saving<const N: usize> {
    record: Record<N>,
    initial: bool,
    dirty: bool,
    final_due: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
struct Resuming<const N: usize> {
    record: Record<N>,
    /// What the latest whole record said.
    image: [u8; N],
    complete: bool,
    bad: bool,
}

/// A record and how much of it has gone by: the tag is byte 0.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
struct Record<const N: usize> {
    tag: u8,
    body: [u8; N],
    at: usize,
}

impl<const N: usize> Record<N> {
    const LEN: usize = N + 1;

    const fn new(tag: u8, body: [u8; N]) -> Self {
        Self { tag, body, at: 0 }
    }

    const fn left(&self) -> usize {
        Self::LEN - self.at
    }

    fn read(&mut self, buf: &mut [u8]) -> usize {
        let len = self.left().min(buf.len());
        for byte in &mut buf[..len] {
            *byte = if self.at == 0 { self.tag } else { self.body[self.at - 1] };
            self.at += 1;
        }
        len
    }

    fn write(&mut self, bytes: &[u8]) -> usize {
        let len = self.left().min(bytes.len());
        for &byte in &bytes[..len] {
            match self.at {
                0 => self.tag = byte,
                at => self.body[at - 1] = byte,
            }
            self.at += 1;
        }
        len
    }
}

impl<const N: usize> Memory<N> {
    /// Length of a record, and so of the shortest stream: a tag and the registers.
    pub const RECORD: usize = Record::<N>::LEN;

    /// A device whose registers are 0.
    pub const fn new() -> Self {
        Self { registers: [0; N], stream: Stream::None }
    }

    /// The registers.
    pub const fn registers(&self) -> &[u8; N] {
        &self.registers
    }

    fn saving(&mut self) -> Result<&mut Saving<N>, Errno> {
        if !self.holds_session() {
            self.stream = Stream::Misused;
        }
        match &mut self.stream {
            Stream::Saving(saving) => Ok(saving),
            _ => Err(Errno::EIO),
        }
    }

    /// A new saving session: PRE_COPY begins with a copy, STOP_COPY with the final record.
    const fn save(&self, to: State) -> Stream<N> {
        let pre_copy = to.is_pre_copy();
        let tag = if pre_copy { PRE_COPY_RECORD } else { FINAL_RECORD };
        let record = Record::new(tag, self.registers);
        Stream::Saving(Saving { record, initial: pre_copy, dirty: false, final_due: false })
    }

    const fn resume() -> Stream<N> {
        let record = Record::new(0, [0; N]);
        Stream::Resuming(Resuming { record, image: [0; N], complete: false, bad: false })
    }

    /// Whether it holds what a session needs: exactly then there must be one.
    pub const fn holds_session(&self) -> bool {
        !matches!(self.stream, Stream::None | Stream::Misused)
    }

    /// Whether something was done to it out of turn.
    pub const fn is_misused(&self) -> bool {
        matches!(self.stream, Stream::Misused)
    }

    /// Whether RESUMING to STOP would find one whole stream.
    pub const fn is_loadable(&self) -> bool {
        matches!(&self.stream, Stream::Resuming(resuming) if resuming.complete && !resuming.bad)
    }

    fn load(&mut self) -> Result<(), Errno> {
        match &self.stream {
            Stream::Resuming(resuming) if self.is_loadable() => {
                self.registers = resuming.image;
                Ok(())
            }
            _ => Err(Errno::EINVAL),
        }
    }
}

impl<const N: usize> Default for Memory<N> {
    fn default() -> Self {
        Self::new()
    }
}

impl<const N: usize> Resuming<N> {
    fn take(&mut self, mut bytes: &[u8]) -> Result<(), Errno> {
        while !bytes.is_empty() && !self.bad {
            bytes = &bytes[self.record.write(bytes)..];
            let known = matches!(self.record.tag, PRE_COPY_RECORD | FINAL_RECORD);
            self.bad = self.complete || !known;
            if self.record.left() == 0 {
                self.image = self.record.body;
                self.complete = self.record.tag == FINAL_RECORD;
                self.record = Record::new(0, [0; N]);
            }
        }
        if self.bad { Err(Errno::EINVAL) } else { Ok(()) }
    }
}

impl<const N: usize> ArcActions for Memory<N> {
    fn arc(&mut self, arc: Arc) -> Result<(), ArcFailure> {
        if self.is_misused() {
            return Err(Errno::EFAULT.into());
        }
        match (arc.from(), arc.to(), arc.session()) {
            (_, _, SessionEffect::Opens(_)) if self.holds_session() => {
                return Err(Errno::ENOMEM.into());
            }
            (State::Resuming, State::Stop, _) => self.load()?,
            (_, to, SessionEffect::Opens(Direction::Saving)) => self.stream = self.save(to),
            (_, _, SessionEffect::Opens(Direction::Resuming)) => self.stream = Self::resume(),
            (_, State::StopCopy, SessionEffect::Keeps) => self.saving()?.final_due = true,
            _ => {}
        }
        Ok(())
    }

    fn end_session(&mut self) {
        self.stream = if self.holds_session() { Stream::None } else { Stream::Misused };
    }

    fn reset(&mut self) {
        self.registers = [0; N];
    }
}

impl<const N: usize> DeviceData for Memory<N> {
    fn read(&mut self, buf: &mut [u8]) -> Result<usize, Errno> {
        let registers = self.registers;
        let saving = self.saving()?;
        let mut len = 0;
        while len < buf.len() {
            len += saving.record.read(&mut buf[len..]);
            if saving.record.left() > 0 {
                break;
            }
            saving.initial = false;
            let tag = match (saving.dirty && !saving.final_due, saving.final_due) {
                (true, _) => PRE_COPY_RECORD,
                (_, true) => FINAL_RECORD,
                _ => break,
            };
            saving.record = Record::new(tag, registers);
            saving.dirty = false;
            saving.final_due &= tag != FINAL_RECORD;
        }
        Ok(len)
    }

    fn write(&mut self, bytes: &[u8]) -> Result<usize, Errno> {
        match &mut self.stream {
            Stream::Resuming(resuming) => resuming.take(bytes).map(|()| bytes.len()),
            _ => Err(Errno::EIO),
        }
    }

    fn precopy_info(&mut self) -> Result<PrecopyInfo, Errno> {
        let saving = self.saving()?;
        let left = saving.record.left() as u64;
        let (initial_bytes, mut dirty_bytes) = if saving.initial { (left, 0) } else { (0, left) };
        if saving.dirty {
            dirty_bytes += Record::<N>::LEN as u64;
        }
        Ok(PrecopyInfo { initial_bytes, dirty_bytes, reinit: false })
    }

    fn data_size(&mut self) -> Result<u64, Errno> {
        Ok(Record::<N>::LEN as u64)
    }

    fn readable(&self) -> bool {
        match &self.stream {
            Stream::Saving(saving) => saving.record.left() > 0 || saving.dirty || saving.final_due,
            _ => false,
        }
    }

    fn touch(&mut self, value: u8) {
        self.registers.fill(value);
        if let Stream::Saving(saving) = &mut self.stream {
            // The final record ends the stream, so nothing is announced beside it. (Touching a
            // device in STOP_COPY is the user's error, R22.)
            saving.dirty |= saving.record.tag == PRE_COPY_RECORD && !saving.final_due;
        }
    }
}
