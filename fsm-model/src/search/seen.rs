// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! The set of the worlds seen, by their codes: exact, in pieces that threads lock one at a time.

use std::sync::{Mutex, MutexGuard, PoisonError};

/// How the worlds seen are kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Marks {
    /// A bit for each code that there can be.
    Bitmap {
        /// Codes are below two to this.
        bits: u32,
    },
    /// A hash set of the codes.
    Table,
}

/// Two to this many pieces: enough that threads seldom want the same, and that a piece which grows
/// is a small part of the whole.
const PIECE_BITS: u32 = 6;
pub(super) const PIECES: usize = 1 << PIECE_BITS;

/// What has been seen.
pub(super) struct Seen {
    marks: Marks,
    pieces: Vec<Mutex<Piece>>,
}

/// A part of it, which knows all codes that belong there.
pub(super) enum Piece {
    Bitmap { words: Vec<u64>, mask: u64 },
    Table(Table),
}

impl Seen {
    pub(super) fn new(marks: Marks) -> Self {
        let piece = || match marks {
            // Zeroed memory takes no room before it is written to.
            Marks::Bitmap { bits } => {
                let each = bits.saturating_sub(PIECE_BITS);
                let words = vec![0; (1_usize << each).div_ceil(64)];
                Piece::Bitmap { words, mask: (1 << each) - 1 }
            }
            Marks::Table => Piece::Table(Table::default()),
        };
        Self { marks, pieces: (0..PIECES).map(|_| Mutex::new(piece())).collect() }
    }

    /// The piece that a code belongs to.
    pub(super) const fn piece_of(&self, code: u64) -> usize {
        match self.marks {
            Marks::Bitmap { bits } => (code >> bits.saturating_sub(PIECE_BITS)) as usize,
            Marks::Table => (mixed(code) >> (64 - PIECE_BITS)) as usize,
        }
    }

    pub(super) fn lock(&self, piece: usize) -> MutexGuard<'_, Piece> {
        // Whoever panics with the lock held takes the search down with it.
        self.pieces[piece].lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Piece {
    /// Put codes in, and keep those that are new.
    pub(super) fn insert(&mut self, codes: &mut Vec<u64>) {
        match self {
            Self::Bitmap { words, mask } => keep(codes, |code| {
                let at = code & *mask;
                let (word, bit) = (&mut words[(at / 64) as usize], 1 << (at % 64));
                let is_new = *word & bit == 0;
                *word |= bit;
                is_new
            }),
            Self::Table(table) => keep(codes, |code| table.insert(code)),
        }
    }
}

/// Like `Vec::retain`, without a branch on what cannot be foreseen.
fn keep(codes: &mut Vec<u64>, mut wanted: impl FnMut(u64) -> bool) {
    let mut kept = 0;
    for index in 0..codes.len() {
        let code = codes[index];
        codes[kept] = code;
        kept += usize::from(wanted(code));
    }
    codes.truncate(kept);
}

/// A hash set with open addressing and linear probing. It is four fifths full at most, and grows by
/// a quarter, so that a code takes 10 to 12.5 bytes.
#[derive(Default)]
pub(super) struct Table {
    /// A code and one; 0 where there is none.
    slots: Vec<u64>,
    len: usize,
}

impl Table {
    fn insert(&mut self, code: u64) -> bool {
        if self.len * 5 >= self.slots.len() * 4 {
            self.grow();
        }
        let is_new = place(&mut self.slots, code + 1);
        self.len += usize::from(is_new);
        is_new
    }

    fn grow(&mut self) {
        let mut slots = vec![0; (self.slots.len() * 5 / 4).max(64)];
        for &full in self.slots.iter().filter(|&&slot| slot != 0) {
            place(&mut slots, full);
        }
        self.slots = slots;
    }
}

/// Put it where it belongs, unless it is there.
fn place(slots: &mut [u64], full: u64) -> bool {
    // The upper bits have chosen the piece.
    let spread = mixed(full - 1) << PIECE_BITS;
    let mut at = ((u128::from(spread) * slots.len() as u128) >> 64) as usize;
    loop {
        match slots[at] {
            0 => {
                slots[at] = full;
                return true;
            }
            slot if slot == full => return false,
            _ => at = if at + 1 == slots.len() { 0 } else { at + 1 },
        }
    }
}

/// Spreads codes that are close over all of the numbers (the end of splitmix64).
const fn mixed(code: u64) -> u64 {
    let code = (code ^ (code >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let code = (code ^ (code >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    code ^ (code >> 31)
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    fn insert(seen: &Seen, code: u64) -> bool {
        let mut codes = vec![code];
        seen.lock(seen.piece_of(code)).insert(&mut codes);
        !codes.is_empty()
    }

    /// X3: both kinds of marks say what a set of the standard library says, whatever comes.
    #[test]
    fn what_is_new_is_new_once() {
        let mut random = 1_u64;
        let mut next = || {
            random = random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
            random >> 33
        };
        for bits in [3, 6, 7, 14, 20] {
            let mut plain = BTreeSet::new();
            let seen = [Seen::new(Marks::Bitmap { bits }), Seen::new(Marks::Table)];
            for _ in 0..200_000 {
                let code = next() & ((1 << bits) - 1);
                let is_new = plain.insert(code);
                for seen in &seen {
                    assert_eq!(insert(seen, code), is_new, "{code}");
                }
            }
        }
    }

    /// X3: codes that only differ far up, and the largest ones, are told apart.
    #[test]
    fn no_two_codes_are_one() {
        let seen = Seen::new(Marks::Table);
        let insert = |code| insert(&seen, code);
        for shift in 0..64 {
            assert!(insert(1 << shift), "{shift}");
        }
        assert!(insert(0) && insert(u64::MAX - 1) && insert((1 << 63) + 1));
        assert!(!insert(0) && !insert(u64::MAX - 1) && !insert(1 << 63));
    }
}
