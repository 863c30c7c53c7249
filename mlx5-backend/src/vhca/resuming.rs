// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! A resuming session: from a stream of records to LOAD commands.

use crate::command::Commands;
use crate::dma::{DmaBuffer, DmaError};
use crate::stream::{Event, Reader};

use super::buffer::{Buffer, Leftovers};
use super::error::VhcaError;
use super::hca::{Hca, Mkey};

/// What is taken for an image before any of it is there. Beyond that, memory is only taken as bytes
/// arrive: what a stream claims of itself costs nothing (M66).
const TAKEN_ON_TRUST: usize = 8 << 20;

/// The stream of one session, record by record.
pub(super) struct Resuming {
    pd: u32,
    reader: Reader,
    /// How large the source's buffer is, in bytes, as far as it is to be believed.
    hint: usize,
    /// The image that is being written, in bytes, and how much of it is there.
    image: usize,
    filled: usize,
    memory: Option<DmaBuffer>,
    /// Bytes of the images that were loaded.
    loaded: u64,
    /// Of all of `memory`; made when the first image in it is complete.
    mkey: Option<Mkey>,
}

impl Resuming {
    pub(super) fn begin<C: Commands>(hca: &Hca<C>) -> Result<Self, VhcaError> {
        let pd = hca.alloc_pd()?;
        let reader = Reader::default();
        Ok(Self { pd, reader, hint: 0, image: 0, filled: 0, loaded: 0, memory: None, mkey: None })
    }

    /// Takes bytes in, and has the firmware load each image that they complete. What fails once,
    /// fails for good: nobody knows what the VHCA has of it.
    pub(super) fn write<C: Commands>(
        &mut self,
        hca: &Hca<C>,
        leftovers: &mut Leftovers,
        bytes: &[u8],
    ) -> Result<usize, VhcaError> {
        let taken = self.take(hca, leftovers, bytes);
        taken.inspect_err(|_| self.reader.refuse())?;
        Ok(bytes.len())
    }

    fn take<C: Commands>(
        &mut self,
        hca: &Hca<C>,
        leftovers: &mut Leftovers,
        mut bytes: &[u8],
    ) -> Result<(), VhcaError> {
        while let Some(event) = self.reader.next(&mut bytes)? {
            match event {
                Event::StopCopySize(bytes) => self.hint = bytes as usize,
                Event::Image { bytes } => {
                    (self.image, self.filled) = (bytes as usize, 0);
                    if self.room() < self.wanted().min(TAKEN_ON_TRUST) {
                        self.discard(hca, leftovers);
                    }
                }
                Event::Data(part) => self.append(hca, leftovers, part)?,
                Event::ImageEnd => self.load(hca)?,
            }
        }
        Ok(())
    }

    /// How large a buffer this image asks for: as large as the source's, so that the later images
    /// find room in it, too.
    fn wanted(&self) -> usize {
        self.image.max(self.hint)
    }

    fn room(&self) -> usize {
        self.memory.as_ref().map_or(0, DmaBuffer::len)
    }

    fn append<C: Commands>(
        &mut self,
        hca: &Hca<C>,
        leftovers: &mut Leftovers,
        part: &[u8],
    ) -> Result<(), VhcaError> {
        let end = self.filled + part.len();
        if end > self.room() {
            self.grow(hca, leftovers, end)?;
        }
        if let Some(memory) = &self.memory {
            memory.write(self.filled, part)?;
        }
        self.filled = end;
        Ok(())
    }

    /// Makes room for at least `needed` bytes, and keeps those that are there.
    fn grow<C: Commands>(
        &mut self,
        hca: &Hca<C>,
        leftovers: &mut Leftovers,
        needed: usize,
    ) -> Result<(), VhcaError> {
        let cautious = needed.max(TAKEN_ON_TRUST).max(2 * self.room());
        let memory = hca.commands.dma().allocate(self.wanted().min(cautious))?;
        if let Some(old) = &self.memory {
            copy(old, &memory, self.filled)?;
        }
        self.discard(hca, leftovers);
        self.memory = Some(memory);
        Ok(())
    }

    fn load<C: Commands>(&mut self, hca: &Hca<C>) -> Result<(), VhcaError> {
        if self.memory.is_none() {
            self.memory = Some(hca.commands.dma().allocate(self.wanted().min(TAKEN_ON_TRUST))?);
        }
        let Some(memory) = &self.memory else { return Err(VhcaError::Unfinished) };
        let mkey = match self.mkey {
            Some(mkey) => mkey,
            None => *self.mkey.insert(hca.create_mkey(self.pd, memory)?),
        };
        hca.load(mkey, self.image)?;
        self.loaded += self.image as u64;
        Ok(())
    }

    fn discard<C: Commands>(&mut self, hca: &Hca<C>, leftovers: &mut Leftovers) {
        let memory = self.memory.take();
        if let (Some(mkey), Some(memory)) = (self.mkey.take(), memory) {
            leftovers.discard(hca, Buffer { memory, mkey });
        }
    }

    /// Whether what was written can be all of a device: no part of a record is missing, and at
    /// least one image is there that is not empty (R29, M65).
    pub(super) fn check(&self) -> Result<(), VhcaError> {
        self.reader.finish()?;
        if self.loaded == 0 { Err(VhcaError::Unfinished) } else { Ok(()) }
    }

    /// The session is over: gives everything back.
    pub(super) fn end<C: Commands>(mut self, hca: &Hca<C>, leftovers: &mut Leftovers) {
        self.discard(hca, leftovers);
        leftovers.release(hca, self.pd);
    }
}

fn copy(from: &DmaBuffer, to: &DmaBuffer, len: usize) -> Result<(), DmaError> {
    from.slice(0, len)?.copy_to_volatile_slice(to.slice(0, len)?);
    Ok(())
}
