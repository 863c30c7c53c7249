// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! Where the part of a command goes that its queue entry has no room for.
//!
//! Input and output each have a chain of blocks. A block has 512 bytes of data, then where the next
//! one is, which one it is, and the token of its command, so that the firmware can tell a chain that
//! was mixed up.

use std::sync::Arc;

use parking_lot::Mutex;

use super::{checksum, is_signed};
use crate::dma::{DmaBuffer, DmaError, DmaSpace};
use crate::layout::CmdIfBox;

/// Bytes of data in one block.
pub(super) const DATA_BYTES: usize = 512;
/// From one block to the next in a page. The entry and the block have pointers with 9 and 10 low
/// bits left out.
const PITCH: usize = 1024;
/// How many blocks are made at once, and the longest chain that is kept for another command.
const POOL: usize = 16;
/// How many blocks at most wait for a command.
const KEPT: usize = 256;

/// Where the token of a block is.
const TOKEN: usize = CmdIfBox::BYTES - 3;
/// What the two signatures of a block are of: all behind the data, and all.
const CONTROL_SIGNATURE: usize = CmdIfBox::BYTES - 2;
const SIGNATURE: usize = CmdIfBox::BYTES - 1;

/// One block. The memory is shared with other blocks, and freed with the last of them.
struct Block {
    memory: Arc<DmaBuffer>,
    offset: usize,
}

impl Block {
    fn iova(&self) -> u64 {
        self.memory.iova() + self.offset as u64
    }
}

/// The blocks of one input or one output, in order.
#[derive(Default)]
pub(super) struct Chain {
    blocks: Vec<Block>,
}

impl Chain {
    /// Where the first block is, 0 if there is none.
    pub(super) fn iova(&self) -> u64 {
        self.blocks.first().map_or(0, Block::iova)
    }

    /// Copies the data out.
    pub(super) fn read(&self, data: &mut [u8]) -> Result<(), DmaError> {
        for (block, part) in self.blocks.iter().zip(data.chunks_mut(DATA_BYTES)) {
            block.memory.read(block.offset, part)?;
        }
        Ok(())
    }

    /// Whether the firmware signed each block that it wrote.
    pub(super) fn is_signed(&self) -> Result<bool, DmaError> {
        let mut bytes = [0; CmdIfBox::BYTES];
        for block in &self.blocks {
            block.memory.read(block.offset, &mut bytes)?;
            if !is_signed(&bytes[DATA_BYTES..SIGNATURE]) || !is_signed(&bytes) {
                return Ok(false);
            }
        }
        Ok(true)
    }

    /// A token in one of the blocks that is not this one.
    pub(super) fn strange_token(&self, token: u8) -> Result<Option<u8>, DmaError> {
        for block in &self.blocks {
            let seen = block.memory.load(block.offset + TOKEN)?;
            if seen != token {
                return Ok(Some(seen));
            }
        }
        Ok(None)
    }

    /// Fills the blocks with what is to be in them: all of each, so that nothing of an earlier
    /// command is left. Behind the end of `data` there are zeros.
    fn write(&self, data: &[u8], token: u8, signed: bool) -> Result<(), DmaError> {
        let mut parts = data.chunks(DATA_BYTES);
        for (number, block) in self.blocks.iter().enumerate() {
            let mut bytes = CmdIfBox::zeroed();
            let part = parts.next().unwrap_or_default();
            let next = self.blocks.get(number + 1).map_or(0, Block::iova);
            bytes
                .set_next_pointer_63_32((next >> 32) as u32)
                .set_next_pointer_31_10(next as u32 >> 10)
                .set_block_number(number as u32)
                .set_token(token)
                .mailbox_data_mut()[..part.len()]
                .copy_from_slice(part);
            if signed {
                let control = checksum(&bytes.as_bytes()[DATA_BYTES..CONTROL_SIGNATURE]);
                bytes.set_ctrl_signature(control);
                let all = checksum(&bytes.as_bytes()[..SIGNATURE]);
                bytes.set_signature(all);
            }
            block.memory.write(block.offset, bytes.as_bytes())?;
        }
        Ok(())
    }
}

/// Blocks that no command has.
pub(super) struct Mailboxes {
    dma: DmaSpace,
    free: Mutex<Vec<Block>>,
}

impl Mailboxes {
    pub(super) fn new(dma: DmaSpace) -> Self {
        Self { dma, free: Mutex::default() }
    }

    /// A chain with this input in it.
    pub(super) fn input(&self, data: &[u8], token: u8, signed: bool) -> Result<Chain, DmaError> {
        self.chain(data.len(), data, token, signed)
    }

    /// A chain with room for so many bytes of output.
    pub(super) fn output(&self, len: usize, token: u8, signed: bool) -> Result<Chain, DmaError> {
        self.chain(len, &[], token, signed)
    }

    fn chain(&self, len: usize, data: &[u8], token: u8, signed: bool) -> Result<Chain, DmaError> {
        let chain = Chain { blocks: self.take(len.div_ceil(DATA_BYTES))? };
        match chain.write(data, token, signed) {
            Ok(()) => Ok(chain),
            Err(error) => {
                self.recycle(chain);
                Err(error)
            }
        }
    }

    fn take(&self, blocks: usize) -> Result<Vec<Block>, DmaError> {
        if blocks > POOL {
            return self.make(blocks);
        }
        let mut free = self.free.lock();
        if free.len() < blocks {
            free.append(&mut self.make(POOL)?);
        }
        let kept = free.len() - blocks;
        Ok(free.split_off(kept))
    }

    fn make(&self, blocks: usize) -> Result<Vec<Block>, DmaError> {
        let memory = Arc::new(self.dma.allocate(blocks * PITCH)?);
        let block = |number| Block { memory: memory.clone(), offset: number * PITCH };
        Ok((0..blocks).map(block).collect())
    }

    /// Takes the blocks of a command back that the firmware is done with.
    pub(super) fn recycle(&self, mut chain: Chain) {
        if chain.blocks.len() <= POOL {
            let mut free = self.free.lock();
            free.append(&mut chain.blocks);
            free.truncate(KEPT);
        }
    }
}
