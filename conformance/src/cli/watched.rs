// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! Checks that say how far they are, and that a clock or Ctrl-C ends.

use std::fs;
use std::process;
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use indicatif::{BinaryBytes, HumanCount, ProgressBar};
use vfio_fsm_model::{Case, Checked, Cut, How, Watch, check_watched};

use super::Result;
use super::output;

/// How often the bar is drawn.
const DRAWN: Duration = Duration::from_millis(200);
/// How often a line is written where no bar can be drawn.
const WRITTEN: Duration = Duration::from_secs(10);

/// What is being checked, and since when.
type Current = Arc<Mutex<Option<(&'static Case, Instant)>>>;

/// A series of checks, watched.
#[derive(Debug)]
pub(super) struct Watched {
    watch: Arc<Watch>,
    current: Current,
    bar: ProgressBar,
}

impl Watched {
    /// The time begins to run.
    pub(super) fn begin(seconds: Option<u32>) -> Self {
        let limit = seconds.map(|seconds| Duration::from_secs(seconds.into()));
        let watched = Self {
            watch: Arc::new(Watch::new(limit)),
            current: Current::default(),
            bar: output::bar(0, "checking the model"),
        };
        watched.report();
        watched
    }

    /// The first Ctrl-C ends the check, which still says what was done; the second ends the program.
    pub(super) fn heed_interrupts(&self) -> Result<()> {
        let watch = Arc::clone(&self.watch);
        let mut asked = false;
        ctrlc::set_handler(move || {
            if std::mem::replace(&mut asked, true) {
                process::exit(130);
            }
            watch.interrupt();
        })?;
        Ok(())
    }

    /// Check these, one after the other, as long as it may go on.
    pub(super) fn check_all(
        &self,
        cases: impl IntoIterator<Item = &'static Case>,
        how: How,
    ) -> Vec<Checked> {
        let mut checks = Vec::new();
        for case in cases {
            if self.is_over() {
                break;
            }
            self.set(Some((case, Instant::now())));
            checks.push(check_watched(case, how, &self.watch));
            self.set(None);
            self.bar.inc(1);
        }
        checks
    }

    /// So many steps in all.
    pub(super) fn expect(&self, steps: usize) {
        self.bar.set_length(steps as u64);
    }

    pub(super) const fn bar(&self) -> &ProgressBar {
        &self.bar
    }

    /// Whether nothing more is to be begun.
    pub(super) fn is_over(&self) -> bool {
        self.watch.is_over()
    }

    /// Why not all was done.
    pub(super) fn cut(&self) -> Option<Cut> {
        self.watch.cut()
    }

    fn set(&self, case: Option<(&'static Case, Instant)>) {
        *self.current.lock().unwrap_or_else(PoisonError::into_inner) = case;
    }

    /// Say how far it is, as long as there is something that is far.
    fn report(&self) {
        let (watch, bar) = (Arc::clone(&self.watch), self.bar.clone());
        let current = Arc::downgrade(&self.current);
        let each = if bar.is_hidden() { WRITTEN } else { DRAWN };
        thread::spawn(move || {
            loop {
                thread::sleep(each);
                let Some(current) = current.upgrade() else { return };
                let current = *current.lock().unwrap_or_else(PoisonError::into_inner);
                let Some((case, since)) = current else { continue };
                let line = progress(case, &watch, since.elapsed());
                if bar.is_hidden() {
                    output::note(line);
                } else {
                    bar.set_prefix(line);
                }
            }
        });
    }
}

fn progress(case: &Case, watch: &Watch, elapsed: Duration) -> String {
    let progress = watch.progress();
    let count = |number: usize| HumanCount(number as u64);
    let (states, depth) = (count(progress.states), progress.depth);
    let rate = count((progress.states as f64 / elapsed.as_secs_f64()) as usize);
    let memory = resident().map_or(String::new(), |bytes| format!(", {}", BinaryBytes(bytes)));
    format!("{}, {}: {states} states, depth {depth}, {rate}/s{memory}", case.name, case.features)
}

/// How much memory this process has, as the kernel counts it.
fn resident() -> Option<u64> {
    let status = fs::read_to_string("/proc/self/status").ok()?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"))?;
    let kib: u64 = line.trim().strip_suffix(" kB")?.parse().ok()?;
    Some(kib * 1024)
}
