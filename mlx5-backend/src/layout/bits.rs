// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! Fields of big-endian dwords, by bit offset and width.
//!
//! A field is in one dword, or it is 64 bits wide and begins with one: `super::check` holds every
//! structure to that when it is compiled. Bytes that are not there read as zero and are not
//! written; a view is never made of too few.

/// What a field may be read as.
pub trait Value: Copy {
    /// How wide a field of this type may be.
    const BITS: u32;

    /// The value of a field's bits, which are the lowest ones.
    fn from_bits(bits: u64) -> Self;

    /// The bits of a value; what the field is too narrow for is cut off later.
    fn to_bits(self) -> u64;
}

macro_rules! value {
    ($($t:ident as $unsigned:ident;)*) => { $(
        impl Value for $t {
            const BITS: u32 = Self::BITS;

            #[inline]
            fn from_bits(bits: u64) -> Self {
                bits as Self
            }

            #[inline]
            fn to_bits(self) -> u64 {
                u64::from(self as $unsigned)
            }
        }
    )* };
}

value! { u8 as u8; u16 as u16; u32 as u32; u64 as u64; i32 as u32; }

impl Value for bool {
    const BITS: u32 = 1;

    #[inline]
    fn from_bits(bits: u64) -> Self {
        bits != 0
    }

    #[inline]
    fn to_bits(self) -> u64 {
        u64::from(self)
    }
}

#[inline]
pub(crate) fn read(bytes: &[u8], offset: u32, bits: u32) -> u64 {
    let at = offset as usize / 32 * 4;
    if bits == 64 {
        return bytes.get(at..).and_then(<[u8]>::first_chunk).map_or(0, |b| u64::from_be_bytes(*b));
    }
    let (shift, mask) = place(offset, bits);
    let dword = bytes.get(at..).and_then(<[u8]>::first_chunk).map_or(0, |b| u32::from_be_bytes(*b));
    u64::from(dword >> shift & mask)
}

#[inline]
pub(crate) fn write(bytes: &mut [u8], offset: u32, bits: u32, value: u64) {
    let at = offset as usize / 32 * 4;
    let Some(bytes) = bytes.get_mut(at..) else { return };
    if bits == 64 {
        if let Some(place) = bytes.first_chunk_mut() {
            *place = value.to_be_bytes();
        }
        return;
    }
    let (shift, mask) = place(offset, bits);
    if let Some(place) = bytes.first_chunk_mut() {
        let others = u32::from_be_bytes(*place) & !(mask << shift);
        *place = (others | (value as u32 & mask) << shift).to_be_bytes();
    }
}

/// How far to shift a dword so that the field is at its end, and the field's mask there.
const fn place(offset: u32, bits: u32) -> (u32, u32) {
    (32 - offset % 32 - bits, u32::MAX >> (32 - bits))
}
