// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! QUERY_VHCA_MIGRATION_STATE and SAVE_VHCA_STATE: what is still to be saved, and the next image.

use std::collections::BTreeSet;

use super::content::BLOCK;
use super::image::{Body, HEADER, Header, INDEX, run_bytes};
use super::{Refusal, Syndrome, Vhca};

/// Bytes of one image in chunk mode, at most (A-CHUNK-BYTES).
pub(crate) const CHUNK: u64 = 8 << 20;

/// Bytes of a block and its index.
const SINGLE: u64 = (INDEX + BLOCK) as u64;

/// How much is moved at once: much enough to be worth it, and little enough to stay in the cache.
pub(super) const STAGE: usize = 16 * BLOCK;

/// What the SAVEs since the last one that began anew have left.
#[derive(Clone, Debug, Default)]
pub(crate) struct Unsent {
    /// Blocks from here on were never sent.
    pub(super) next: u64,
    /// Blocks before `next` that have changed since.
    pub(super) changed: BTreeSet<u64>,
    /// What the header carries has changed since.
    pub(super) header: bool,
}

impl Unsent {
    pub(super) fn change(&mut self, index: u64) {
        if index < self.next {
            self.changed.insert(index);
        }
    }

    pub(super) fn is_dirty(&self) -> bool {
        self.header || !self.changed.is_empty()
    }
}

/// Where an image goes: in order, never more than the buffer takes.
pub(crate) trait Sink {
    fn put(&mut self, bytes: &[u8]) -> Result<(), Refusal>;
}

/// What SAVE answers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Saved {
    pub(crate) image_bytes: u32,
    pub(crate) next_bytes: u32,
}

/// What QUERY answers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Sizes {
    pub(crate) required: u64,
    pub(crate) remaining: u64,
}

impl Vhca {
    /// What a SAVE of this kind would need.
    pub(crate) fn query(&mut self, incremental: bool, chunk: bool) -> Result<Sizes, Refusal> {
        if incremental {
            self.quiet()?;
        }
        let remaining = if incremental {
            self.going_on()?;
            self.unsaved_bytes()
        } else {
            HEADER as u64 + self.content.len()
        };
        self.chunked = chunk;
        let required = if chunk { remaining.min(CHUNK) } else { round_up(remaining) };
        Ok(Sizes { required, remaining })
    }

    /// Writes the next image.
    pub(crate) fn save(
        &mut self,
        incremental: bool,
        track: bool,
        size: u64,
        sink: &mut dyn Sink,
    ) -> Result<Saved, Refusal> {
        let cleanup = self.may_save(incremental, track)?;
        let mut unsent = match self.unsent.take() {
            Some(unsent) if incremental || cleanup => unsent,
            _ => Unsent { header: true, ..Unsent::default() },
        };
        let result = self.write(&mut unsent, size, sink);
        match result {
            Ok(image_bytes) => {
                self.tracked = track;
                self.unsent = (!cleanup).then_some(unsent);
                let next = if self.chunked { self.unsaved_bytes().min(CHUNK) } else { 0 };
                let next_bytes = if cleanup { 0 } else { next as u32 };
                Ok(Saved { image_bytes: image_bytes as u32, next_bytes })
            }
            // A-SAVE-FAILED: what a failed SAVE left behind, no later one can go on from.
            Err(refusal) => {
                self.tracked = false;
                Err(refusal)
            }
        }
    }

    /// How long a SAVE or LOAD moves bytes, in virtual time.
    pub(crate) fn transfer_bytes(&self, incremental: bool, size: u64) -> u64 {
        let all = HEADER as u64 + self.content.len();
        let bytes = if incremental { self.unsaved_bytes() } else { all };
        bytes.min(size)
    }

    /// Whether this SAVE is the one that ends tracking on a running VHCA (A-CLEANUP-SAVE), if it
    /// may be at all.
    fn may_save(&self, incremental: bool, track: bool) -> Result<bool, Refusal> {
        let cleanup = !incremental && !track && self.tracked && !self.responder_suspended;
        let refused = if self.loading.is_some_and(|next| next < self.content.blocks()) {
            // A-SAVE-HALF
            Some(Syndrome::StateMissing)
        } else if track && self.responder_suspended {
            // A-TRACK-SUSPENDED
            Some(Syndrome::TrackSuspended)
        } else if !track && !cleanup && !self.responder_suspended {
            // A-SAVE-RUNNING
            Some(Syndrome::NotSuspended)
        } else {
            None
        };
        match refused {
            Some(syndrome) => Err(syndrome.into()),
            None if incremental => self.going_on().map(|()| false),
            None => Ok(cleanup),
        }
    }

    /// A-INCREMENTAL: only after a SAVE that is tracked, or, in chunk mode, not at its end.
    fn going_on(&self) -> Result<(), Refusal> {
        let goes_on = self.unsent.as_ref().is_some_and(|unsent| {
            let left = unsent.next < self.content.blocks() || !unsent.changed.is_empty();
            self.tracked || self.chunked && left
        });
        if goes_on { Ok(()) } else { Err(Syndrome::NotTracked.into()) }
    }

    /// Bytes of all images that are still to come after the last SAVE. A-INCREMENTAL-SIZE: at
    /// least a header once nothing can change any more.
    pub(super) fn unsaved_bytes(&self) -> u64 {
        let Some(unsent) = &self.unsent else { return HEADER as u64 + self.content.len() };
        let left = self.content.blocks().saturating_sub(unsent.next);
        let run = if left > 0 { run_bytes(&self.content, unsent.next, left) } else { 0 };
        let changed = unsent.changed.len() as u64 * SINGLE;
        let last = self.tracked && self.responder_suspended;
        let header =
            if changed > 0 || run == 0 && (unsent.header || last) { HEADER as u64 } else { 0 };
        run + changed + header
    }

    /// One image, and what is in it no longer unsent.
    fn write(&self, unsent: &mut Unsent, size: u64, sink: &mut dyn Sink) -> Result<u64, Refusal> {
        let left = self.content.blocks().saturating_sub(unsent.next);
        let room = size.min(if self.chunked { CHUNK } else { u64::MAX });
        let Some(space) = room.checked_sub(HEADER as u64) else {
            return self.nothing_to_write(unsent, left);
        };
        let body = if left > 0 {
            let whole = run_bytes(&self.content, unsent.next, left) <= room;
            let count = if whole { left } else { space / BLOCK as u64 };
            Body::Run { first: unsent.next, count }
        } else {
            Body::Singles { count: (space / SINGLE).min(unsent.changed.len() as u64) }
        };
        let all = match body {
            Body::Run { count, .. } => count == left,
            Body::Singles { count } => count == unsent.changed.len() as u64,
        };
        let stuck = matches!(body, Body::Run { count: 0, .. })
            || matches!(body, Body::Singles { count: 0 }) && !all;
        // A-SHORT-BUFFER: only in chunk mode may an image stop before the end.
        if !all && (!self.chunked || stuck) {
            return Err(Syndrome::ShortBuffer.into());
        }
        let written = self.write_image(unsent, body, sink)?;
        unsent.header = false;
        Ok(written)
    }

    /// A buffer without room for a header is enough for nothing.
    fn nothing_to_write(&self, unsent: &Unsent, left: u64) -> Result<u64, Refusal> {
        let nothing = left == 0 && !unsent.is_dirty() && !self.responder_suspended;
        if nothing { Ok(0) } else { Err(Syndrome::ShortBuffer.into()) }
    }

    fn write_image(
        &self,
        unsent: &mut Unsent,
        body: Body,
        sink: &mut dyn Sink,
    ) -> Result<u64, Refusal> {
        let mut stage = Stage { sink, bytes: Vec::with_capacity(STAGE), written: 0 };
        stage.put(&Header::of(&self.content, body).to_bytes())?;
        match body {
            Body::Run { first, count } => {
                for index in first..first + count {
                    stage
                        .fill(self.content.block_len(index), |out| self.content.fill(index, out))?;
                }
                unsent.next = first + count;
            }
            Body::Singles { count } => {
                for _ in 0..count {
                    let Some(index) = unsent.changed.pop_first() else { break };
                    stage.put(&index.to_be_bytes())?;
                    stage
                        .fill(self.content.block_len(index), |out| self.content.fill(index, out))?;
                }
            }
        }
        stage.flush()?;
        Ok(stage.written)
    }
}

/// A-REQUIRED-SIZE: QUERY answers in whole pages.
fn round_up(bytes: u64) -> u64 {
    bytes.next_multiple_of(BLOCK as u64)
}

/// Puts small pieces together.
struct Stage<'a> {
    sink: &'a mut dyn Sink,
    bytes: Vec<u8>,
    written: u64,
}

impl Stage<'_> {
    fn put(&mut self, bytes: &[u8]) -> Result<(), Refusal> {
        self.fill(bytes.len(), |out| out.copy_from_slice(bytes))
    }

    fn fill(&mut self, len: usize, fill: impl FnOnce(&mut [u8])) -> Result<(), Refusal> {
        if self.bytes.len() + len > STAGE {
            self.flush()?;
        }
        let at = self.bytes.len();
        self.bytes.resize(at + len, 0);
        fill(&mut self.bytes[at..]);
        Ok(())
    }

    fn flush(&mut self) -> Result<(), Refusal> {
        self.sink.put(&self.bytes)?;
        self.written += self.bytes.len() as u64;
        self.bytes.clear();
        Ok(())
    }
}
