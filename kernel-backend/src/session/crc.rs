// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! CRC-32C as fast as the processor has it.
//!
//! By crc-fast, which folds with carry-less multiplication over 128 and 512 bits beside the
//! processor's own CRC instruction. The crate crc32c has the instruction alone, a smaller tree (one
//! crate, and two to build it, instead of nine), and half the speed: 17 GB/s against 35 on the
//! machine of the benchmark, where copying a chunk from one file to another goes at 5 to 10. The
//! difference is what a checksum costs at all: see `benches/throughput.rs`. crc32fast has another
//! polynomial. From 1.10 on, crc-fast needs Rust 1.89, hence 1.9. All are under MIT or Apache-2.0.

use crc_fast::{CrcAlgorithm, Digest};
use vfio_fsm_core::vmm::frame::Crc;

/// The checksum of a framed stream.
#[derive(Clone, Debug)]
pub struct Crc32c(Digest);

impl Crc for Crc32c {
    fn new() -> Self {
        Self(Digest::new(CrcAlgorithm::Crc32Iscsi))
    }

    fn update(&mut self, bytes: &[u8]) {
        self.0.update(bytes);
    }

    fn value(&self) -> u32 {
        // As wide as the algorithm: 32 bits.
        self.0.finalize() as u32
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Whatever the length, and so whichever of the crate's ways, it is one and the same sum.
    #[test]
    fn is_crc_32c_in_one_piece_and_in_many() {
        let mut crc = Crc32c::new();
        assert_eq!(crc.value(), 0);
        crc.update(b"123456789");
        assert_eq!(crc.value(), 0xe306_9283);

        let bytes: Vec<u8> = (0..5000_u32).map(|n| (n * n / 8) as u8).collect();
        let (mut whole, mut bitwise) = (Crc32c::new(), !0_u32);
        whole.update(&bytes);
        for &byte in &bytes {
            bitwise ^= u32::from(byte);
            for _ in 0..8 {
                bitwise = (bitwise >> 1) ^ if bitwise & 1 == 1 { 0x82f6_3b78 } else { 0 };
            }
        }
        assert_eq!(whole.value(), !bitwise);
        for piece in [1, 3, 16, 255, 1024, 4999] {
            let mut pieces = Crc32c::new();
            bytes.chunks(piece).for_each(|piece| pieces.update(piece));
            assert_eq!(pieces.value(), whole.value(), "in pieces of {piece}");
        }
    }
}
