// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! Ranges of IOVA, and how many become few.

use std::cmp::Reverse;
use std::collections::BTreeSet;
use std::fmt;

/// The smallest page_size that can be asked for, in bytes, as of the uAPI (R46).
pub const MIN_PAGE_SIZE: u64 = 4096;

/// Part of what a device addresses.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct IovaRange {
    /// Where it begins.
    pub iova: u64,
    /// How long it is, in bytes.
    pub length: u64,
}

impl IovaRange {
    pub(super) const fn between(start: u64, end: u64) -> Self {
        Self { iova: start, length: end.saturating_sub(start) }
    }

    /// The first IOVA after it. Of all ranges that are checked this is the sum.
    pub(super) const fn end(self) -> u64 {
        self.iova.saturating_add(self.length)
    }

    pub(super) fn intersection(self, other: Self) -> Option<Self> {
        let common = Self::between(self.iova.max(other.iova), self.end().min(other.end()));
        (common.length > 0).then_some(common)
    }

    /// Whether `other` has a byte, and no byte outside.
    pub(super) fn contains(self, other: Self) -> bool {
        let inside = |end| self.iova <= other.iova && end <= self.end();
        other.length > 0 && other.iova.checked_add(other.length).is_some_and(inside)
    }

    /// With all of each page that it touches.
    pub(super) fn whole_pages(self, page_size: u64) -> Self {
        let end = self.end().checked_next_multiple_of(page_size).unwrap_or(u64::MAX);
        Self::between(self.iova - self.iova % page_size, end)
    }
}

impl fmt::Display for IovaRange {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "IOVA {:#x} + {:#x}", self.iova, self.length)
    }
}

/// Ranges that no device can be asked to track, found before it is asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum RangesError {
    /// Nothing to track.
    #[error("no ranges to track; give the guest's RAM as the device addresses it")]
    None,
    /// Not one that means anything.
    #[error("a page_size of {page_size:#x}; give a power of two of at least 4 KiB")]
    PageSize {
        /// In bytes.
        page_size: u64,
    },
    /// A range without a byte.
    #[error("the range at IOVA {iova:#x} has no length; leave it out")]
    Empty {
        /// Where it would begin.
        iova: u64,
    },
    /// It would end after the last IOVA.
    #[error("{range} goes beyond 64 bits")]
    Overflow {
        /// Which.
        range: IovaRange,
    },
    /// It does not begin or end where a page does.
    #[error("{range} is not made of pages of {page_size:#x} bytes; ask for a smaller page_size")]
    Misaligned {
        /// Which.
        range: IovaRange,
        /// In bytes.
        page_size: u64,
    },
    /// Two have a byte in common.
    #[error("{first} and {second} overlap; give every byte once")]
    Overlap {
        /// The lower one.
        first: IovaRange,
        /// The other one.
        second: IovaRange,
    },
}

/// Checked, in order, and neighbours as one.
pub(super) fn joined(ranges: &[IovaRange], page_size: u64) -> Result<Vec<IovaRange>, RangesError> {
    if !page_size.is_power_of_two() || page_size < MIN_PAGE_SIZE {
        return Err(RangesError::PageSize { page_size });
    }
    let mut sorted = ranges.to_vec();
    sorted.sort_unstable();
    let mut joined: Vec<IovaRange> = Vec::new();
    for range in sorted {
        check(range, page_size)?;
        match joined.last_mut() {
            Some(before) if range.iova < before.end() => {
                return Err(RangesError::Overlap { first: *before, second: range });
            }
            Some(before) if range.iova == before.end() => before.length += range.length,
            _ => joined.push(range),
        }
    }
    if joined.is_empty() { Err(RangesError::None) } else { Ok(joined) }
}

fn check(range: IovaRange, page_size: u64) -> Result<(), RangesError> {
    if range.length == 0 {
        return Err(RangesError::Empty { iova: range.iova });
    }
    if range.iova.checked_add(range.length).is_none() {
        return Err(RangesError::Overflow { range });
    }
    if !(range.iova | range.length).is_multiple_of(page_size) {
        return Err(RangesError::Misaligned { range, page_size });
    }
    Ok(())
}

/// At most `most` ranges with everything that is in `ranges`, which are in order and apart: those
/// nearest to each other become one, so that as little as possible is tracked in vain.
pub(super) fn merged(ranges: &[IovaRange], most: usize) -> Vec<IovaRange> {
    let gap = |after: &usize| ranges[*after].iova - ranges[after - 1].end();
    let mut by_gap: Vec<usize> = (1..ranges.len()).collect();
    by_gap.sort_by_key(|after| Reverse(gap(after)));
    let apart: BTreeSet<usize> = by_gap.into_iter().take(most.saturating_sub(1)).collect();
    let mut fewer: Vec<IovaRange> = Vec::new();
    for (index, range) in ranges.iter().enumerate() {
        match fewer.last_mut() {
            Some(before) if !apart.contains(&index) => {
                *before = IovaRange::between(before.iova, range.end());
            }
            _ => fewer.push(*range),
        }
    }
    fewer
}

#[cfg(test)]
mod tests {
    use super::*;

    const fn range(iova: u64, length: u64) -> IovaRange {
        IovaRange { iova, length }
    }

    /// M160: What cannot be tracked is said before the firmware is asked.
    #[test]
    fn what_cannot_be_tracked_is_said() {
        let top = range(u64::MAX - 0xfff, 0x1000);
        let overlap =
            RangesError::Overlap { first: range(0, 0x3000), second: range(0x2000, 0x1000) };
        for (ranges, page_size, error) in [
            (vec![], 4096, RangesError::None),
            (vec![range(0, 4096)], 2048, RangesError::PageSize { page_size: 2048 }),
            (vec![range(0, 12288)], 12288, RangesError::PageSize { page_size: 12288 }),
            (vec![range(0x1000, 0)], 4096, RangesError::Empty { iova: 0x1000 }),
            (vec![top], 4096, RangesError::Overflow { range: top }),
            (
                vec![range(0x800, 0x1000)],
                4096,
                RangesError::Misaligned { range: range(0x800, 0x1000), page_size: 4096 },
            ),
            (
                vec![range(0x1000, 0x1000)],
                8192,
                RangesError::Misaligned { range: range(0x1000, 0x1000), page_size: 8192 },
            ),
            (vec![range(0x2000, 0x1000), range(0, 0x3000)], 4096, overlap),
        ] {
            assert_eq!(joined(&ranges, page_size), Err(error));
        }
        let apart = [range(0x8000, 0x1000), range(0x2000, 0x1000), range(0x1000, 0x1000)];
        assert_eq!(joined(&apart, 4096), Ok(vec![range(0x1000, 0x2000), range(0x8000, 0x1000)]));
    }

    /// M161: Too many ranges become fewer, the nearest first, and none loses a byte.
    #[test]
    fn the_nearest_become_one_first() {
        let ranges = [range(0, 1), range(10, 1), range(12, 1), range(100, 1), range(105, 1)];
        assert_eq!(merged(&ranges, 5), ranges);
        let four = [range(0, 1), range(10, 3), range(100, 1), range(105, 1)];
        assert_eq!(merged(&ranges, 4), four);
        assert_eq!(merged(&ranges, 3), [range(0, 1), range(10, 3), range(100, 6)]);
        assert_eq!(merged(&ranges, 1), [range(0, 106)]);
    }
}
