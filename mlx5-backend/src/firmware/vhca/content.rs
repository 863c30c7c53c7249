// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! What a VHCA's state is made of: blocks that are computed and not stored.
//!
//! A block's bytes are a function of (seed, index, generation), so a state of many GiB takes as much
//! memory as the blocks that differ from a fresh device's, and still every byte that is loaded can be
//! compared. A block that somebody else made up is kept as it is.

use std::collections::BTreeMap;
use std::hash::{DefaultHasher, Hash, Hasher};

/// Bytes of a block, the unit in which changes are noticed.
pub(crate) const BLOCK: usize = 4096;

/// Bytes of a block's generation, with which it begins.
const GENERATION: usize = 8;

const STEP: u64 = 0x9e37_79b9_7f4a_7c15;

/// The guest-visible state of one function.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Content {
    len: u64,
    seed: u64,
    touch: u8,
    /// The blocks that are not of generation 0.
    blocks: BTreeMap<u64, Block>,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
enum Block {
    Generation(u64),
    Foreign(Box<[u8]>),
}

impl Content {
    /// The state after a reset: `len` bytes of generation 0.
    pub(crate) fn new(len: u64, seed: u64) -> Self {
        Self { len, seed, touch: 0, blocks: BTreeMap::new() }
    }

    pub(crate) fn len(&self) -> u64 {
        self.len
    }

    pub(crate) fn seed(&self) -> u64 {
        self.seed
    }

    pub(crate) fn touch(&self) -> u8 {
        self.touch
    }

    pub(crate) fn set_touch(&mut self, value: u8) {
        self.touch = value;
    }

    /// How many blocks, the last one perhaps short.
    pub(crate) fn blocks(&self) -> u64 {
        self.len.div_ceil(BLOCK as u64)
    }

    /// Bytes of the block, 0 behind the end.
    pub(crate) fn block_len(&self, index: u64) -> usize {
        let start = index.saturating_mul(BLOCK as u64);
        self.len.saturating_sub(start).min(BLOCK as u64) as usize
    }

    /// The bytes of block `index` into `out`, which has [`block_len`](Self::block_len) of them.
    pub(crate) fn fill(&self, index: u64, out: &mut [u8]) {
        match self.blocks.get(&index) {
            None => generate(self.seed, index, 0, out),
            Some(Block::Generation(generation)) => generate(self.seed, index, *generation, out),
            Some(Block::Foreign(bytes)) => out.copy_from_slice(bytes),
        }
    }

    /// The device has changed the block.
    pub(crate) fn change(&mut self, index: u64) {
        let len = self.block_len(index);
        if len < GENERATION {
            return self.change_short(index, len);
        }
        let generation = match self.blocks.get(&index) {
            Some(Block::Generation(generation)) => generation.wrapping_add(1).max(1),
            _ => 1,
        };
        self.blocks.insert(index, Block::Generation(generation));
    }

    /// A block that does not tell its generation is stored as bytes, on both sides alike.
    fn change_short(&mut self, index: u64, len: usize) {
        let mut bytes = [0; GENERATION];
        self.fill(index, &mut bytes[..len]);
        bytes[0] = bytes[0].wrapping_add(1);
        self.store(index, &bytes[..len]);
    }

    /// Takes over bytes for the block. Whether [`fill`](Self::fill) could have made them; a block
    /// too short to tell, it could.
    pub(crate) fn store(&mut self, index: u64, bytes: &[u8]) -> bool {
        match self.generation_of(index, bytes) {
            Some(0) => {
                self.blocks.remove(&index);
            }
            Some(generation) => {
                self.blocks.insert(index, Block::Generation(generation));
            }
            None => {
                self.blocks.insert(index, Block::Foreign(bytes.into()));
                return bytes.len() < GENERATION;
            }
        }
        true
    }

    fn generation_of(&self, index: u64, bytes: &[u8]) -> Option<u64> {
        // A last block too short for its generation is only ever of the first one, or foreign.
        let generation = bytes.first_chunk().map_or(0, |first| u64::from_le_bytes(*first));
        is_generated(self.seed, index, generation, bytes).then_some(generation)
    }

    /// A number that two states have in common if and, but for chance, only if they are equal.
    pub(crate) fn digest(&self) -> u64 {
        let mut hasher = DefaultHasher::new();
        self.hash(&mut hasher);
        hasher.finish()
    }
}

/// The bytes of one generation of a block: the generation, then words in steps from a key. Cheap
/// enough for the memory to be what limits a SAVE.
fn generate(seed: u64, index: u64, generation: u64, out: &mut [u8]) {
    let key = mix(seed ^ mix(index ^ mix(generation)));
    let (words, rest) = out.as_chunks_mut::<8>();
    let mut word = key;
    for place in words.iter_mut() {
        word = word.wrapping_add(STEP);
        *place = word.to_le_bytes();
    }
    if let Some(first) = words.first_mut() {
        *first = generation.to_le_bytes();
    }
    let last = word.wrapping_add(STEP).to_le_bytes();
    rest.copy_from_slice(&last[..rest.len()]);
}

/// Whether these are the bytes that [`generate`] makes, without making them.
fn is_generated(seed: u64, index: u64, generation: u64, bytes: &[u8]) -> bool {
    let mut word = mix(seed ^ mix(index ^ mix(generation)));
    let (words, rest) = bytes.as_chunks::<8>();
    // The first is the generation itself.
    let mut different = 0;
    for (place, bytes) in words.iter().enumerate() {
        word = word.wrapping_add(STEP);
        let expected = if place == 0 { generation } else { word };
        different |= u64::from_le_bytes(*bytes) ^ expected;
    }
    let last = word.wrapping_add(STEP).to_le_bytes();
    different == 0 && rest == &last[..rest.len()]
}

/// The finaliser of splitmix64.
fn mix(mut z: u64) -> u64 {
    z = z.wrapping_add(STEP);
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}
