// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! LOAD_VHCA_STATE: images into a state, block by block, with no copy of the image.

use super::content::{BLOCK, Content};
use super::image::{Body, HEADER, Header, INDEX};
use super::save::STAGE;
use super::{Refusal, Syndrome, Vhca};

/// Where images come from: in order.
pub(crate) trait Source {
    fn get(&mut self, bytes: &mut [u8]) -> Result<(), Refusal>;
    /// Bytes that are left.
    fn left(&self) -> u64;
}

impl Vhca {
    /// Takes all the images there are in `source`.
    pub(crate) fn load(&mut self, source: &mut dyn Source) -> Result<(), Refusal> {
        if !self.enabled {
            // A-LOAD-DISABLED
            return Ok(());
        }
        if !self.responder_suspended {
            // A-LOAD-RUNNING
            return Err(Syndrome::NotSuspended.into());
        }
        while source.left() > 0 {
            self.load_image(source)?;
        }
        // What was saved from here before has nothing to do with the state that is here now.
        (self.unsent, self.tracked) = (None, false);
        Ok(())
    }

    fn load_image(&mut self, source: &mut dyn Source) -> Result<(), Refusal> {
        let mut bytes = [0; HEADER];
        if source.left() < HEADER as u64 {
            return Err(Syndrome::BadImage.into());
        }
        source.get(&mut bytes)?;
        let header = Header::from_bytes(&bytes).ok_or(Syndrome::BadImage)?;
        self.accept(&header, source.left())?;
        self.content.set_touch(header.touch);
        match header.body {
            Body::Run { first, count } => {
                // Not whole until the last block has come, whatever happens before.
                self.loading = Some(first);
                self.load_run(first, count, source)?;
                self.loading = Some(first + count);
            }
            Body::Singles { count } => {
                for _ in 0..count {
                    let mut index = [0; INDEX];
                    take(source, &mut index)?;
                    self.load_single(u64::from_be_bytes(index), source)?;
                }
            }
        }
        Ok(())
    }

    /// A-SAME-SHAPE, A-IMAGE-ORDER: of the same size, and with nothing missing before it.
    fn accept(&mut self, header: &Header, left: u64) -> Result<(), Refusal> {
        let blocks = self.content.blocks();
        let (first, count) = match header.body {
            Body::Run { first, count } => (first, count),
            Body::Singles { count } => (blocks, count),
        };
        let fits = match header.body {
            Body::Run { .. } => first.checked_add(count).is_some_and(|end| end <= blocks),
            Body::Singles { .. } => count <= blocks,
        };
        if header.state_len != self.content.len() || !fits {
            return Err(Syndrome::BadImage.into());
        }
        if first == 0 {
            self.content = Content::new(header.state_len, header.seed);
        } else if self.loading != Some(first) || header.seed != self.content.seed() {
            return Err(Syndrome::ImageOrder.into());
        }
        // Longer than what is there: before anything is taken over.
        let least = match header.body {
            Body::Run { .. } if count == 0 => 0,
            Body::Run { .. } => (count - 1) * BLOCK as u64 + 1,
            Body::Singles { .. } => count * (INDEX as u64 + 1),
        };
        if least > left { Err(Syndrome::BadImage.into()) } else { Ok(()) }
    }

    /// Neighbours are read together.
    fn load_run(&mut self, first: u64, count: u64, source: &mut dyn Source) -> Result<(), Refusal> {
        let mut stage = vec![0; STAGE];
        let end = first + count;
        let mut index = first;
        while index < end {
            let blocks = (end - index).min((STAGE / BLOCK) as u64);
            let last = self.content.block_len(index + blocks - 1);
            let bytes = &mut stage[..(blocks as usize - 1) * BLOCK + last];
            take(source, bytes)?;
            for block in bytes.chunks(BLOCK) {
                self.load_block(index, block)?;
                index += 1;
            }
        }
        Ok(())
    }

    fn load_single(&mut self, index: u64, source: &mut dyn Source) -> Result<(), Refusal> {
        if index >= self.content.blocks() {
            return Err(Syndrome::BadImage.into());
        }
        let mut block = [0; BLOCK];
        let bytes = &mut block[..self.content.block_len(index)];
        take(source, bytes)?;
        self.load_block(index, bytes)
    }

    fn load_block(&mut self, index: u64, bytes: &[u8]) -> Result<(), Refusal> {
        // A-IMAGE-CHECK
        if !self.content.store(index, bytes) && self.config.checks_images {
            self.loading = Some(0);
            return Err(Syndrome::CorruptImage.into());
        }
        Ok(())
    }
}

/// Reads so many bytes, which an image must have.
fn take(source: &mut dyn Source, bytes: &mut [u8]) -> Result<(), Refusal> {
    if source.left() < bytes.len() as u64 {
        return Err(Syndrome::BadImage.into());
    }
    source.get(bytes)
}
