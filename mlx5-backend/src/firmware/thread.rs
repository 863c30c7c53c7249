// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! A firmware that is driven by memory alone: a thread looks at BAR0.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use super::Firmware;

/// So many polls find nothing before the thread begins to sleep between them.
const EAGER: u32 = 2_000;
/// The longest sleep between two polls.
const LONGEST_SLEEP: Duration = Duration::from_micros(200);

/// A firmware's thread. It ends when this is dropped.
#[derive(Debug)]
pub struct Running {
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl Firmware {
    /// Starts a thread that looks for what a driver writes into BAR0, one tick a microsecond.
    ///
    /// While it runs, leave the registers to it: [`Registers`](crate::bar::Registers) would do the
    /// same again.
    ///
    /// # Errors
    ///
    /// The system gives no thread.
    pub fn spawn(&self) -> std::io::Result<Running> {
        let stop = Arc::new(AtomicBool::new(false));
        let (firmware, stopped) = (self.clone(), stop.clone());
        let thread = thread::Builder::new()
            .name("mlx5-firmware".to_owned())
            .spawn(move || firmware.poll_until(&stopped))?;
        Ok(Running { stop, thread: Some(thread) })
    }

    fn poll_until(&self, stopped: &AtomicBool) {
        let mut last = Instant::now();
        let mut idle = 0_u32;
        while !stopped.load(Ordering::Acquire) {
            let passed = last.elapsed().as_micros() as u64;
            last += Duration::from_micros(passed);
            let busy = self.with(|machine| {
                machine.advance(passed);
                machine.poll()
            });
            idle = if busy { 0_u32 } else { idle.saturating_add(1) };
            match idle {
                0..EAGER => thread::yield_now(),
                _ => {
                    thread::sleep(
                        LONGEST_SLEEP.min(Duration::from_micros(u64::from(idle / EAGER))),
                    );
                }
            }
        }
    }
}

impl Running {
    /// Stops the thread and waits for its end.
    pub fn stop(mut self) {
        self.end();
    }

    fn end(&mut self) {
        self.stop.store(true, Ordering::Release);
        if let Some(thread) = self.thread.take() {
            // It has no way to panic; and if it had, whoever stops it is not to.
            let _ = thread.join();
        }
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        self.end();
    }
}
