// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! What must hold of any bytes: one module, and one `check` in it, for each reader of other people's
//! bytes. The fuzzer runs them on inputs of its own, `conformance/tests/fuzz_corpus.rs` on the
//! committed ones.
//!
//! A `check` panics where a property is broken, so that a fuzzer and a test see the same.

pub mod firmware;
pub mod frame;
pub mod record;
pub mod recording;
pub mod trace;

/// Whether a fault is planted in the properties, to see each target find its own: `run.sh --planted`.
const PLANTED: bool = option_env!("FUZZ_PLANTED").is_some();

/// Bytes that are taken off one choice after another; behind the end all are 0.
struct Choices<'a>(&'a [u8]);

impl<'a> Choices<'a> {
    const fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    fn byte(&mut self) -> u8 {
        self.bytes(1).first().copied().unwrap_or(0)
    }

    fn short(&mut self) -> u16 {
        let bytes = self.bytes(2);
        u16::from_le_bytes([0, 1].map(|at: usize| bytes.get(at).copied().unwrap_or(0)))
    }

    fn bytes(&mut self, most: usize) -> &'a [u8] {
        let (taken, rest) = self.0.split_at(most.min(self.0.len()));
        self.0 = rest;
        taken
    }
}

/// Gives the bytes in pieces, so long as the pattern says.
struct Pieces<'a> {
    left: &'a [u8],
    pattern: u8,
    count: usize,
}

impl<'a> Pieces<'a> {
    const fn new(left: &'a [u8], pattern: u8) -> Self {
        Self { left, pattern, count: 0 }
    }

    fn next(&mut self, most: usize) -> &'a [u8] {
        // One byte, a few, or many: by the bits of the pattern, over and over.
        let long = self.pattern >> (self.count % 8) & 1 == 1;
        let len = if long { 61 } else { 1 + self.count % 3 };
        self.count += 1;
        let (piece, rest) = self.left.split_at(len.min(most).min(self.left.len()));
        self.left = rest;
        piece
    }
}

impl std::io::Read for Pieces<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> std::io::Result<usize> {
        let piece = self.next(buffer.len());
        buffer[..piece.len()].copy_from_slice(piece);
        Ok(piece.len())
    }
}
