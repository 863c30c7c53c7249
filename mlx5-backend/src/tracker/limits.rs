// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! What the firmware can track, and what is chosen of it.

use std::ops::RangeInclusive;

use crate::command::Commands;
use crate::layout::{CapMode, CapType, PageTrackReportEntry};
use crate::vhca::capability::query;

use super::error::StartError;
use super::ranges::IovaRange;

/// The longest message that is asked for, the logarithm of bytes: more only costs memory.
const LONGEST_MESSAGE: u8 = 20;
/// Memory for messages, in bytes, unless [`LEAST_MESSAGES`] need more.
const MESSAGE_MEMORY: u64 = 2 << 20;
/// A receive queue of fewer is refused.
const LEAST_MESSAGES: u64 = 4;
/// A receive queue of more gains nothing.
const MOST_MESSAGES: u64 = 1 << 10;
/// An entry of a report has to fit.
const LOG_ENTRY: u8 = PageTrackReportEntry::BYTES.ilog2() as u8;

/// What the firmware can track: `adv_virtualization_cap`.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Limits {
    /// How many trackers there may be, as a logarithm.
    pub log_trackers: u8,
    /// How many ranges a tracker may have.
    pub ranges: u8,
    /// What the ranges may have in all, the logarithm of bytes.
    pub log_address_space: RangeInclusive<u8>,
    /// How long a message of reports may be, the logarithm of bytes.
    pub log_message: RangeInclusive<u8>,
    /// How large a page may be, the logarithm of bytes.
    pub log_page: RangeInclusive<u8>,
    /// The longest message of a queue pair, the logarithm of bytes.
    pub(super) log_max_msg: u8,
    /// Completions have room for a queue pair's `user_index`.
    pub(super) user_index: bool,
}

impl Limits {
    /// Asks the physical function.
    ///
    /// # Errors
    ///
    /// [`StartError::Unsupported`] when it tracks nothing, [`StartError::Limits`] when what it says
    /// leaves nothing to choose from.
    pub fn of(commands: &impl Commands) -> Result<Self, StartError> {
        let general = query(commands, None, CapType::General, CapMode::Current)?;
        let general = general.capability();
        let general = general.cmd_hca_cap();
        if !general.adv_virtualization() {
            return Err(StartError::Unsupported);
        }
        let limits = query(commands, None, CapType::AdvVirtualization, CapMode::Current)?;
        let limits = limits.capability();
        let cap = limits.adv_virtualization_cap();
        let limits = Self {
            log_trackers: cap.pg_track_log_max_num(),
            ranges: cap.pg_track_max_num_range(),
            log_address_space: cap.pg_track_log_min_addr_space()
                ..=cap.pg_track_log_max_addr_space(),
            log_message: cap.pg_track_log_min_msg_size()..=cap.pg_track_log_max_msg_size(),
            log_page: cap.pg_track_log_min_page_size()..=cap.pg_track_log_max_page_size(),
            log_max_msg: general.log_max_msg(),
            user_index: general.cqe_version() == 1,
        };
        limits.check()?;
        Ok(limits)
    }

    fn check(&self) -> Result<(), StartError> {
        let refused = |what| Err(StartError::Limits { what });
        match self {
            _ if self.ranges == 0 => refused("pg_track_max_num_range is 0"),
            _ if self.log_address_space.is_empty() => refused("pg_track_log_max_addr_space < min"),
            _ if self.log_page.is_empty() => refused("pg_track_log_max_page_size < min"),
            _ if self.log_message.is_empty() => refused("pg_track_log_max_msg_size < min"),
            _ if *self.log_message.end() < LOG_ENTRY => refused("no report fits into a message"),
            _ => Ok(()),
        }
    }

    /// What is asked for, for these ranges: `page_size` and `message_bytes` are hints.
    pub(super) fn choose(
        &self,
        ranges: &[IovaRange],
        page_size: u64,
        message_bytes: Option<u64>,
    ) -> Result<Shape, StartError> {
        let total: u64 = ranges.iter().map(|range| range.length).sum();
        let log_address_space = log2_up(total);
        let (min, max) = (*self.log_address_space.start(), *self.log_address_space.end());
        if !self.log_address_space.contains(&log_address_space) {
            return Err(StartError::AddressSpace { bytes: total, min, max });
        }
        let message = message_bytes.map_or(LONGEST_MESSAGE, log2_up);
        let log_message = clamp(message, &self.log_message).max(LOG_ENTRY);
        // In 64 bits: four of the longest that the field can say are more than 32 hold (B35).
        let messages = (MESSAGE_MEMORY >> log_message).clamp(LEAST_MESSAGES, MOST_MESSAGES);
        Ok(Shape {
            log_address_space,
            log_page: clamp(log2_up(page_size), &self.log_page),
            log_message,
            log_messages: log2_up(messages),
        })
    }
}

/// What a tracker is asked to be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Shape {
    pub(super) log_address_space: u8,
    pub(super) log_page: u8,
    pub(super) log_message: u8,
    /// How many messages there is room for, as a logarithm.
    pub(super) log_messages: u8,
}

impl Shape {
    pub(super) const fn page_size(self) -> u64 {
        1 << self.log_page
    }

    pub(super) const fn message_bytes(self) -> usize {
        1 << self.log_message
    }

    pub(super) const fn messages(self) -> u32 {
        1 << self.log_messages
    }
}

fn clamp(log: u8, to: &RangeInclusive<u8>) -> u8 {
    log.clamp(*to.start(), *to.end())
}

/// The logarithm, rounded up. Of 0 and 1 it is 0.
const fn log2_up(number: u64) -> u8 {
    (u64::BITS - number.saturating_sub(1).leading_zeros()) as u8
}

#[cfg(test)]
mod tests {
    use super::*;

    fn limits() -> Limits {
        Limits {
            log_trackers: 3,
            ranges: 8,
            log_address_space: 20..=40,
            log_message: 12..=16,
            log_page: 14..=21,
            log_max_msg: 30,
            user_index: false,
        }
    }

    fn shape(limits: &Limits, bytes: u64, page: u64, message: Option<u64>) -> Option<Shape> {
        limits.choose(&[IovaRange { iova: 0, length: bytes }], page, message).ok()
    }

    /// M162: What is chosen lies within what the firmware says, also at its ends, and is not
    /// computed in 32 bits.
    #[test]
    fn what_is_chosen_is_possible() {
        let mut limits = limits();
        let small = shape(&limits, 1 << 20, 4096, Some(1)).unwrap();
        assert_eq!((small.log_page, small.log_message, small.log_messages), (14, 12, 9));
        assert_eq!(small.log_address_space, 20);
        let large = shape(&limits, (1 << 40) - 4096, 1 << 30, None).unwrap();
        assert_eq!((large.log_page, large.log_message, large.log_messages), (21, 16, 5));
        assert_eq!(large.log_address_space, 40);
        let error = |bytes| limits.choose(&[IovaRange { iova: 0, length: bytes }], 4096, None);
        for bytes in [(1 << 40) + 4096, 1 << 19, u64::MAX - 4095] {
            let refused = StartError::AddressSpace { bytes, min: 20, max: 40 };
            assert_eq!(error(bytes), Err(refused));
        }
        limits.log_message = 31..=31;
        let longest = shape(&limits, 1 << 30, 4096, None).unwrap();
        assert_eq!((longest.message_bytes(), longest.messages()), (1 << 31, 4));
        limits.log_message = 0..=3;
        let shortest = shape(&limits, 1 << 30, 4096, Some(0)).unwrap();
        assert_eq!((shortest.message_bytes(), shortest.messages()), (8, 1 << 10));
    }

    /// M162: Limits between which there is nothing are no limits.
    #[test]
    fn limits_that_leave_nothing() {
        assert_eq!(limits().check(), Ok(()));
        let empty = RangeInclusive::new(13, 12);
        for (spoilt, what) in [
            (Limits { ranges: 0, ..limits() }, "num_range"),
            (Limits { log_address_space: empty.clone(), ..limits() }, "addr_space"),
            (Limits { log_page: empty.clone(), ..limits() }, "page_size"),
            (Limits { log_message: empty, ..limits() }, "msg_size"),
            (Limits { log_message: 0..=2, ..limits() }, "fits"),
        ] {
            let error = spoilt.check().unwrap_err();
            assert!(error.to_string().contains(what), "{error}");
        }
    }
}
