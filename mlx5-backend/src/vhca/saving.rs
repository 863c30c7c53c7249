// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! A saving session: from SAVE commands to a stream of records.

use std::collections::VecDeque;
use std::sync::Arc;

use vfio_fsm_core::PrecopyInfo;

use crate::command::{CommandError, Commands};
use crate::dma::PAGE_BYTES;

use super::buffer::{Buffer, Leftovers};
use super::error::VhcaError;
use super::hca::{Hca, SaveMode, Saved, StateSize};
use super::record::Record;
use super::save::PendingSave;

/// In chunk mode, the most that one buffer holds unless the firmware asks for more; and how many
/// buffers there are, so that one is filled while the other is read.
const MAX_CHUNK: u64 = 8 << 20;
const CHUNKS: usize = 2;

/// The stream of one session, from PRE_COPY or STOP_COPY to its end.
pub(super) struct Saving<C: Commands> {
    pd: u32,
    chunked: bool,
    stage: Stage,
    /// Kept ready for STOP_COPY, so that it needs no memory when time is short; in chunk mode,
    /// those of its chunks that are neither filled nor being filled.
    reserved: Vec<Buffer>,
    /// Read out; used again if large enough.
    spare: Vec<Buffer>,
    /// What is to be read, in order.
    records: VecDeque<Record>,
    flight: Option<Flight<C>>,
    /// The firmware wants to write a chunk of this size, as soon as there is a buffer.
    next_chunk: Option<usize>,
    /// Bytes put into the stream, and read from it.
    filled: u64,
    read: u64,
    /// Up to where the stream is `initial_bytes`.
    initial: u64,
}

/// How far the stream has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Stage {
    /// More images follow for as long as the device runs. `whole`: one of them failed, so that the
    /// final one cannot build on them.
    PreCopy { whole: bool },
    /// The final image is being saved.
    Final,
    /// The final image is in the stream.
    Complete,
    /// There will be no final image.
    Broken(VhcaError),
}

/// A SAVE on its way, and where it writes to.
struct Flight<C: Commands> {
    save: Arc<PendingSave<C>>,
    buffer: Buffer,
    purpose: Purpose,
}

/// What a SAVE is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Purpose {
    /// An image while the device runs; only the first is among the initial bytes.
    PreCopy { first: bool },
    /// Makes the firmware stop tracking; nobody reads it.
    CleanUp,
    /// The final image, or a chunk of it.
    Final,
}

impl<C: Commands> Saving<C> {
    /// Opens a session: everything is there that it needs, and the first SAVE is on its way.
    pub(super) fn begin(
        hca: &Hca<C>,
        leftovers: &mut Leftovers,
        track: bool,
    ) -> Result<Self, VhcaError> {
        let pd = hca.alloc_pd()?;
        let mut saving = Self {
            pd,
            chunked: hca.chunked,
            stage: if track { Stage::PreCopy { whole: false } } else { Stage::Final },
            reserved: Vec::new(),
            spare: Vec::new(),
            records: VecDeque::new(),
            flight: None,
            next_chunk: None,
            filled: 0,
            read: 0,
            initial: 0,
        };
        match saving.start_first(hca, track) {
            Ok(()) => Ok(saving),
            Err(error) => {
                saving.end(hca, leftovers);
                Err(error)
            }
        }
    }

    fn start_first(&mut self, hca: &Hca<C>, track: bool) -> Result<(), VhcaError> {
        let size = hca.query(false)?;
        let wanted = stop_copy_buffer(hca.chunked, track, size);
        for _ in 0..if hca.chunked { CHUNKS } else { 1 } {
            self.reserved.push(hca.buffer(self.pd, wanted)?);
        }
        let reserved = self.reserved[0].memory.len();
        self.push(Record::stop_copy_size(reserved as u64));
        let mode = SaveMode { incremental: false, track };
        if track {
            self.initial = self.filled;
            let buffer = hca.buffer(self.pd, reserved)?;
            self.start(hca, mode, buffer, Purpose::PreCopy { first: true })
        } else {
            let buffer = self.reserved.remove(0);
            self.start(hca, mode, buffer, Purpose::Final)
        }
    }

    /// The SAVE on its way, if a reader has to wait for it.
    pub(super) fn awaited(&self) -> Option<&Arc<PendingSave<C>>> {
        let flight = self.flight.as_ref()?;
        let waits = self.records.is_empty() && !matches!(self.stage, Stage::Broken(_));
        (waits && !flight.save.is_over()).then_some(&flight.save)
    }

    /// Whether a read would find bytes.
    pub(super) fn is_readable(&self) -> bool {
        !self.records.is_empty() || self.has_arrived()
    }

    fn has_arrived(&self) -> bool {
        self.flight.as_ref().is_some_and(|flight| flight.save.is_over())
    }

    /// Reads what is there, after waiting for a SAVE if nothing else is. 0: an end.
    pub(super) fn read(
        &mut self,
        hca: &Hca<C>,
        leftovers: &mut Leftovers,
        buf: &mut [u8],
    ) -> Result<usize, VhcaError> {
        let mut done = 0;
        while done < buf.len() {
            self.keep_going(hca, leftovers, done == 0);
            if let Stage::Broken(error) = self.stage {
                return Err(error);
            }
            let Some(record) = self.records.front_mut() else { break };
            done += record.read(&mut buf[done..])?;
            if record.is_read() {
                self.read_out();
            }
        }
        if done == 0 && !buf.is_empty() && self.stage == Stage::Final {
            return Err(VhcaError::Unfinished);
        }
        self.read += done as u64;
        Ok(done)
    }

    /// Takes in what a SAVE has written, and starts the next chunk's if there is room for it.
    fn keep_going(&mut self, hca: &Hca<C>, leftovers: &mut Leftovers, may_wait: bool) {
        if self.has_arrived() || may_wait && self.records.is_empty() {
            self.settle();
        }
        if let Some(size) = self.next_chunk
            && self.flight.is_none()
            && let Some(buffer) = self.reserved.pop()
        {
            self.next_chunk = None;
            if let Err(error) = self.start_chunk(hca, leftovers, buffer, size) {
                self.stage = Stage::Broken(error);
            }
        }
    }

    fn start_chunk(
        &mut self,
        hca: &Hca<C>,
        leftovers: &mut Leftovers,
        buffer: Buffer,
        size: usize,
    ) -> Result<(), VhcaError> {
        let buffer = self.at_least(hca, leftovers, buffer, size)?;
        self.start(hca, SaveMode { incremental: true, track: false }, buffer, Purpose::Final)
    }

    /// The first record is of no more use.
    fn read_out(&mut self) {
        let Some(record) = self.records.pop_front() else { return };
        let place = if record.is_chunk() { &mut self.reserved } else { &mut self.spare };
        place.extend(record.into_image());
    }

    /// Waits for the SAVE on its way, and takes in what it wrote. What failed shows in the stage.
    pub(super) fn settle(&mut self) {
        let _shows_in_the_stage = self.land();
    }

    /// The same, and says what came of the SAVE.
    fn land(&mut self) -> Result<(), VhcaError> {
        let Some(Flight { save, buffer, purpose }) = self.flight.take() else { return Ok(()) };
        let room = buffer.memory.len();
        let saved = match save.result() {
            Ok(Saved { image, .. }) if image > room => Err(VhcaError::ImageTooLong { image, room }),
            saved => saved.map_err(VhcaError::from),
        };
        match saved {
            Ok(saved) => {
                self.arrived(saved, buffer, purpose);
                Ok(())
            }
            Err(error) => {
                self.spare.push(buffer);
                self.stage = self.after_failure(error, purpose);
                Err(error)
            }
        }
    }

    fn arrived(&mut self, saved: Saved, buffer: Buffer, purpose: Purpose) {
        let chunk = self.chunked && purpose == Purpose::Final;
        self.push(Record::image(buffer, saved.image, chunk));
        match purpose {
            Purpose::PreCopy { first: true } => self.initial = self.filled,
            Purpose::PreCopy { first: false } | Purpose::CleanUp => {}
            Purpose::Final if chunk && saved.next > 0 => self.next_chunk = Some(saved.next),
            Purpose::Final => self.stage = Stage::Complete,
        }
    }

    /// A pre-copy image that was refused is made up for by a final image that is whole (M63).
    fn after_failure(&self, error: VhcaError, purpose: Purpose) -> Stage {
        let refused = matches!(
            error,
            VhcaError::Command(CommandError::Status { .. } | CommandError::Delivery { .. })
        );
        match (self.stage, purpose) {
            (_, Purpose::PreCopy { .. }) if refused => Stage::PreCopy { whole: true },
            (stage, Purpose::CleanUp) if refused => stage,
            _ => Stage::Broken(error),
        }
    }

    fn push(&mut self, record: Record) {
        self.filled += record.len();
        self.records.push_back(record);
    }

    fn start(
        &mut self,
        hca: &Hca<C>,
        mode: SaveMode,
        buffer: Buffer,
        purpose: Purpose,
    ) -> Result<(), VhcaError> {
        match hca.start_save(mode, buffer.mkey, buffer.memory.len()) {
            Ok(ticket) => {
                let save = Arc::new(PendingSave::new(&hca.commands, ticket));
                self.flight = Some(Flight { save, buffer, purpose });
                Ok(())
            }
            Err(error) => {
                self.spare.push(buffer);
                Err(error.into())
            }
        }
    }

    /// This buffer if it is large enough, else another.
    fn at_least(
        &mut self,
        hca: &Hca<C>,
        leftovers: &mut Leftovers,
        buffer: Buffer,
        bytes: usize,
    ) -> Result<Buffer, VhcaError> {
        if buffer.memory.len() >= bytes {
            return Ok(buffer);
        }
        self.spare.push(buffer);
        self.take_buffer(hca, leftovers, bytes)
    }

    /// The first spare buffer that is large enough, or a new one in place of those that are not.
    fn take_buffer(
        &mut self,
        hca: &Hca<C>,
        leftovers: &mut Leftovers,
        bytes: usize,
    ) -> Result<Buffer, VhcaError> {
        let fits = self.spare.iter().position(|buffer| buffer.memory.len() >= bytes);
        let buffer = match fits {
            Some(index) => return Ok(self.spare.remove(index)),
            None => hca.buffer(self.pd, bytes)?,
        };
        for small in self.spare.drain(..) {
            leftovers.discard(hca, small);
        }
        Ok(buffer)
    }

    /// PRECOPY_INFO. Once everything has been read and the device has changed since, it also has
    /// the changes saved; `running` says that it can (M62).
    pub(super) fn precopy_info(
        &mut self,
        hca: &Hca<C>,
        leftovers: &mut Leftovers,
        running: bool,
    ) -> Result<PrecopyInfo, VhcaError> {
        self.settle();
        let tracked = match self.stage {
            Stage::Broken(error) => return Err(error),
            stage => stage == Stage::PreCopy { whole: false },
        };
        let changed = if running && tracked { hca.query(true)?.required } else { 0 };
        let unread = self.filled - self.read;
        if self.initial > self.read {
            return Ok(PrecopyInfo {
                initial_bytes: self.initial - self.read,
                ..Default::default()
            });
        }
        if unread == 0 && changed > 0 {
            let buffer = self.take_buffer(hca, leftovers, changed)?;
            let mode = SaveMode { incremental: true, track: true };
            self.start(hca, mode, buffer, Purpose::PreCopy { first: false })?;
        }
        Ok(PrecopyInfo { dirty_bytes: unread + changed as u64, ..Default::default() })
    }

    /// Starts the final SAVE of a device that has just been stopped.
    pub(super) fn start_final(
        &mut self,
        hca: &Hca<C>,
        leftovers: &mut Leftovers,
    ) -> Result<(), VhcaError> {
        let incremental = self.stage == Stage::PreCopy { whole: false };
        let size = hca.query(incremental)?.required;
        let buffer = match self.reserved.is_empty() {
            true => self.take_buffer(hca, leftovers, size)?,
            false => {
                let reserved = self.reserved.remove(0);
                self.at_least(hca, leftovers, reserved, size)?
            }
        };
        self.start(hca, SaveMode { incremental, track: false }, buffer, Purpose::Final)?;
        self.stage = Stage::Final;
        Ok(())
    }

    /// Makes the firmware stop tracking, by a SAVE that nobody reads.
    pub(super) fn stop_tracking(
        &mut self,
        hca: &Hca<C>,
        leftovers: &mut Leftovers,
    ) -> Result<(), VhcaError> {
        // A VHCA that refused to be tracked cannot say what has changed.
        let incremental = self.stage == Stage::PreCopy { whole: false };
        let size = hca.query(incremental)?.required;
        let buffer = self.take_buffer(hca, leftovers, size)?;
        self.start(hca, SaveMode { incremental: false, track: false }, buffer, Purpose::CleanUp)?;
        self.land()
    }

    /// Why there will be no final image, if that is so.
    pub(super) fn broken(&self) -> Option<VhcaError> {
        match self.stage {
            Stage::Broken(error) => Some(error),
            _ => None,
        }
    }

    /// The session is over: waits for the SAVE on its way, and gives everything back.
    pub(super) fn end(mut self, hca: &Hca<C>, leftovers: &mut Leftovers) {
        self.settle();
        let unread = self.records.drain(..).filter_map(Record::into_image);
        for buffer in self.reserved.drain(..).chain(self.spare.drain(..)).chain(unread) {
            leftovers.discard(hca, buffer);
        }
        leftovers.release(hca, self.pd);
    }
}

/// How large the buffers for STOP_COPY are, in bytes.
fn stop_copy_buffer(chunked: bool, track: bool, size: StateSize) -> usize {
    if chunked {
        return size.required.max(size.remaining.min(MAX_CHUNK) as usize);
    }
    // A device that runs on may come to have more state: a tenth is kept in reserve.
    let reserve = if track { size.required / 10 } else { 0 };
    (size.required + reserve).min(MOST)
}

/// The most that a SAVE can be given, in whole pages.
const MOST: usize = (u32::MAX as u64 / PAGE_BYTES * PAGE_BYTES) as usize;
