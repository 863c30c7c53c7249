// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! How to wait for a firmware: a command takes microseconds, or seconds.

use std::time::{Duration, Instant};

/// About what it costs to give the processor away. Not longer: the firmware may be a thread that waits
/// for this very processor.
const SPIN: Duration = Duration::from_micros(1);
/// Then others may run in between.
const YIELD: Duration = Duration::from_micros(200);
const FIRST_SLEEP: Duration = Duration::from_micros(20);
const LONGEST_SLEEP: Duration = Duration::from_millis(1);

/// One wait, from its beginning.
pub(super) struct Backoff {
    since: Instant,
    sleep: Duration,
}

impl Backoff {
    pub(super) fn new() -> Self {
        Self { since: Instant::now(), sleep: FIRST_SLEEP }
    }

    /// Lets a little time pass, or says how long to sleep before the next look.
    pub(super) fn pause(&mut self) -> Option<Duration> {
        let waited = self.since.elapsed();
        if waited < SPIN {
            std::hint::spin_loop();
            return None;
        }
        if waited < YIELD {
            std::thread::yield_now();
            return None;
        }
        let sleep = self.sleep;
        self.sleep = (sleep * 2).min(LONGEST_SLEEP);
        Some(sleep)
    }
}
