// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! From bits to the runs of memory that they stand for.

use std::ops::Range;

use super::ranges::IovaRange;

/// Words of the bitmap that the kernel fills: 64 KiB, the largest page of any host. A bit for each
/// 4 KiB makes that 2 GiB a call.
pub(super) const WORDS: usize = 8192;

/// [`WORDS`] that begin where a page does: kernels before f38044e5ef58 lose bits of a bitmap that
/// does not, when it goes on into another page.
#[derive(Debug)]
pub(super) struct Bitmap {
    words: Vec<u64>,
    skipped: usize,
}

impl Bitmap {
    pub(super) fn new() -> Self {
        let words = vec![0; 2 * WORDS];
        let skipped = words.as_ptr().align_offset(WORDS * size_of::<u64>()).min(WORDS);
        Self { words, skipped }
    }

    pub(super) fn words(&mut self) -> &mut [u64] {
        &mut self.words[self.skipped..][..WORDS]
    }
}

/// Calls `each` with every run of set bits, a run being no longer than a word.
pub(super) fn set_bits(words: &[u64], mut each: impl FnMut(Range<u64>)) {
    for (index, word) in (0_u64..).zip(words) {
        let mut rest = *word;
        while rest != 0 {
            let first = rest.trailing_zeros();
            let count = (rest >> first).trailing_ones();
            let start = index * 64 + u64::from(first);
            each(start..start + u64::from(count));
            // The carry clears the run.
            rest &= rest.wrapping_add(1 << first);
        }
    }
}

/// Dirty memory, given in ascending order, told in runs as long as can be.
///
/// What is dirty is dirty in whole pages of the device: it cannot tell which part of one was
/// written, and may have forgotten about all of it by telling of a part.
pub(super) struct Runs<'r, F: FnMut(IovaRange)> {
    pub(super) page_size: u64,
    /// All that may be told of; in order and apart.
    pub(super) within: &'r [IovaRange],
    pub(super) pending: Option<IovaRange>,
    pub(super) dirty: F,
}

impl<F: FnMut(IovaRange)> Runs<'_, F> {
    pub(super) fn add(&mut self, run: IovaRange) {
        let run = run.whole_pages(self.page_size);
        self.pending = Some(match self.pending {
            Some(before) if run.iova <= before.end() => {
                IovaRange::between(before.iova.min(run.iova), before.end().max(run.end()))
            }
            _ => {
                self.tell();
                run
            }
        });
    }

    /// Tells of what is left.
    pub(super) fn tell(&mut self) {
        let Some(run) = self.pending.take() else { return };
        let first = self.within.partition_point(|range| range.end() <= run.iova);
        let parts = self.within[first..].iter().map_while(|range| range.intersection(run));
        parts.for_each(&mut self.dirty);
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const fn range(iova: u64, length: u64) -> IovaRange {
        IovaRange { iova, length }
    }

    #[test]
    fn the_bitmap_begins_where_a_page_does_and_is_as_long() {
        let mut bitmap = Bitmap::new();
        assert_eq!(bitmap.words().as_ptr().addr() % 65536, 0);
        assert_eq!(size_of_val(bitmap.words()), 65536);
    }

    #[test]
    fn runs_are_told_joined_rounded_and_only_within() {
        let within = [range(0x1000, 0x3000), range(0x5000, 0x1000), range(0x9000, 0x1000)];
        let mut told = Vec::new();
        let dirty = |run| told.push(run);
        let mut runs = Runs { page_size: 0x2000, within: &within, pending: None, dirty };
        runs.add(range(0x1000, 0x1000));
        runs.add(range(0x3000, 0x1000));
        runs.add(range(0x3800, 0x2000));
        runs.add(range(0x9000, 1));
        runs.tell();
        assert_eq!(told, within);
    }

    proptest! {
        #![proptest_config(ProptestConfig { failure_persistence: None, ..Default::default() })]

        #[test]
        fn every_bit_once(words in prop::collection::vec(prop_oneof![
            Just(0), Just(u64::MAX), any::<u64>(), (0..64_u32).prop_map(|n| u64::MAX << n),
        ], 0..5)) {
            let mut seen = Vec::new();
            set_bits(&words, |bits| seen.extend(bits));
            let bit = |n: &u64| words[(*n / 64) as usize] >> (n % 64) & 1 == 1;
            let expected: Vec<u64> = (0..64 * words.len() as u64).filter(bit).collect();
            prop_assert_eq!(seen, expected);
        }
    }
}
