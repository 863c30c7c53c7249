// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! Bytes and time, and what follows from them.

use core::time::Duration;

use crate::vmm::Status;

/// How far a transfer has come, and how fast it goes.
///
/// Kept beside a session and not in it: the time comes from the caller, as the time since he began.
///
/// ```
/// use core::time::Duration;
/// use vfio_fsm_core::vmm::{Progress, Status};
///
/// let mut progress = Progress::default();
/// progress.moved(50_000_000, Duration::from_millis(100));
/// assert_eq!(progress.bytes_per_second(), Some(500_000_000));
///
/// let left = Status { dirty_bytes: 1 << 20, stop_copy_length: Some(99_000_000), ..Status::NONE };
/// assert_eq!(progress.downtime(&left), Some(Duration::from_micros(200_098)));
/// ```
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Progress {
    bytes: u64,
    /// Since when, and how many bytes, the current rate is measured over.
    since: Duration,
    recent: u64,
    bytes_per_second: Option<u64>,
}

impl Progress {
    /// Over this long at least a rate is measured: what one chunk takes says nothing.
    const WINDOW: Duration = Duration::from_millis(100);

    /// So many bytes went by, and it is this long since the beginning.
    pub fn moved(&mut self, bytes: u64, now: Duration) {
        self.bytes = self.bytes.saturating_add(bytes);
        self.recent = self.recent.saturating_add(bytes);
        let took = now.saturating_sub(self.since);
        if took < Self::WINDOW {
            return;
        }
        let rate = u128::from(self.recent) * 1_000_000 / took.as_micros();
        let rate = u64::try_from(rate).unwrap_or(u64::MAX);
        // Half old, half new: a burst neither rules nor vanishes.
        self.bytes_per_second = Some(self.bytes_per_second.map_or(rate, |old| old / 2 + rate / 2));
        (self.since, self.recent) = (now, 0);
    }

    /// Bytes in all, those of discarded epochs too.
    pub const fn bytes(&self) -> u64 {
        self.bytes
    }

    /// The latest rate; none before a tenth of a second has passed with the first bytes.
    pub const fn bytes_per_second(&self) -> Option<u64> {
        self.bytes_per_second
    }

    /// How long this device would keep the guest stopped, if the switchover were now: what is left
    /// of PRE_COPY and all of STOP_COPY, at the latest rate.
    ///
    /// `None` without a rate or without an estimate by the device (R39). The two sizes are not
    /// promised to be disjoint (R37), so this is on the safe side.
    pub fn downtime(&self, left: &Status) -> Option<Duration> {
        let rate = u128::from(self.bytes_per_second.filter(|&rate| rate > 0)?);
        let bytes = u128::from(left.stop_copy_length?)
            + u128::from(left.initial_bytes)
            + u128::from(left.dirty_bytes);
        let micros = (bytes * 1_000_000).div_ceil(rate);
        Some(Duration::from_micros(u64::try_from(micros).unwrap_or(u64::MAX)))
    }
}
