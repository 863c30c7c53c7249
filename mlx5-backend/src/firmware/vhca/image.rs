// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! The images that SAVE writes and LOAD takes (assumption A-IMAGE-FORMAT).
//!
//! One image is a header of [`HEADER`] bytes and the blocks it carries: a run of neighbours, or
//! single ones with their index before them. Each stands for itself, so that a state may come in any
//! number of LOADs, and one LOAD may hold several images.

use super::content::{BLOCK, Content};

/// Bytes of an image's header.
pub(crate) const HEADER: usize = 64;

/// Bytes of a single block's index before it.
pub(crate) const INDEX: usize = 8;

const MAGIC: [u8; 8] = *b"VHCAimg1";

/// What an image carries.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Body {
    /// `count` blocks from `first` on, one after the other.
    Run { first: u64, count: u64 },
    /// `count` blocks in whatever order, each behind its index.
    Singles { count: u64 },
}

/// The first [`HEADER`] bytes of an image.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Header {
    /// Bytes of the whole state, the same on both sides (A-SAME-SHAPE).
    pub(crate) state_len: u64,
    pub(crate) seed: u64,
    pub(crate) touch: u8,
    pub(crate) body: Body,
}

impl Header {
    pub(crate) fn of(content: &Content, body: Body) -> Self {
        let (state_len, seed, touch) = (content.len(), content.seed(), content.touch());
        Self { state_len, seed, touch, body }
    }

    pub(crate) fn to_bytes(self) -> [u8; HEADER] {
        let (kind, first, count) = match self.body {
            Body::Run { first, count } => (0, first, count),
            Body::Singles { count } => (1, 0, count),
        };
        let mut bytes = [0; HEADER];
        bytes[..8].copy_from_slice(&MAGIC);
        bytes[8] = kind;
        bytes[9] = self.touch;
        for (at, value) in [(16, self.state_len), (24, self.seed), (32, first), (40, count)] {
            bytes[at..at + 8].copy_from_slice(&value.to_be_bytes());
        }
        let sum = checksum(&bytes);
        bytes[56..].copy_from_slice(&sum.to_be_bytes());
        bytes
    }

    /// `None` if these are not the bytes of a header.
    pub(crate) fn from_bytes(bytes: &[u8; HEADER]) -> Option<Self> {
        let word =
            |at: usize| bytes[at..].first_chunk().map_or(0, |eight| u64::from_be_bytes(*eight));
        let body = match bytes[8] {
            0 => Body::Run { first: word(32), count: word(40) },
            1 => Body::Singles { count: word(40) },
            _ => return None,
        };
        let header = Self { state_len: word(16), seed: word(24), touch: bytes[9], body };
        (header.to_bytes() == *bytes).then_some(header)
    }
}

/// FNV-1a of all but the sum itself.
fn checksum(header: &[u8; HEADER]) -> u64 {
    header[..56].iter().fold(0xcbf2_9ce4_8422_2325, |sum, &byte| {
        (sum ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3)
    })
}

/// Bytes of an image with a run of blocks.
pub(crate) fn run_bytes(content: &Content, first: u64, count: u64) -> u64 {
    let end = first.saturating_add(count).saturating_mul(BLOCK as u64).min(content.len());
    HEADER as u64 + end.saturating_sub(first.saturating_mul(BLOCK as u64))
}
