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
///
/// for dirty_bytes in [1 << 20, 1 << 16, 1 << 18, 1 << 18] {
///     progress.looked(&Status { dirty_bytes, ..left });
/// }
/// assert_eq!(progress.stalled_looks(), 2, "it has stopped to converge");
/// ```
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Progress {
    bytes: u64,
    /// Since when, and how many bytes, the current rate is measured over.
    since: Duration,
    recent: u64,
    bytes_per_second: Option<u64>,
    /// The least that was ever left in PRE_COPY.
    least: Option<u64>,
    stalled: u32,
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

    /// The device was asked what is left of PRE_COPY.
    pub fn looked(&mut self, left: &Status) {
        let left = left.initial_bytes.saturating_add(left.dirty_bytes);
        match self.least {
            Some(least) if left >= least => self.stalled = self.stalled.saturating_add(1),
            _ => {
                self.least = Some(left);
                self.stalled = 0;
            }
        }
    }

    /// The stream was discarded and begins anew: what was left before says nothing now.
    pub const fn restarted(&mut self) {
        (self.least, self.stalled) = (None, 0);
    }

    /// How many looks in a row have found no less left than there had been before. While it is 0
    /// the copy converges; a device that changes as fast as it is read makes it grow, and waiting
    /// longer then buys nothing.
    pub const fn stalled_looks(&self) -> u32 {
        self.stalled
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
