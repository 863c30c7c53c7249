// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! Bounds every run: a system call that does not return is a failure that names it.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use super::case::Case;

/// How often it is looked after.
const EACH: Duration = Duration::from_millis(100);

/// What does not return.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Hang {
    /// Which case, counted from 0.
    pub index: usize,
    /// What it is.
    pub case: Case,
    /// What was being done.
    pub op: String,
}

/// What is being done, and since when.
#[derive(Clone, Debug)]
pub(super) struct Watchdog(Arc<Mutex<Watched>>);

#[derive(Debug)]
struct Watched {
    hang: Hang,
    /// None between two cases.
    since: Option<Instant>,
}

impl Watchdog {
    /// Barks, once, when one thing takes longer than this.
    pub(super) fn new(limit: Duration, bark: impl Fn(Hang) + Send + 'static) -> Self {
        // What is done before the first case is done for all of them.
        let hang = Hang { index: 0, case: Case::Undisturbed, op: String::new() };
        let watchdog = Self(Arc::new(Mutex::new(Watched { hang, since: None })));
        let watched = Arc::downgrade(&watchdog.0);
        thread::spawn(move || {
            // Ends with what it watches.
            while let Some(watched) = watched.upgrade() {
                let overdue = {
                    let watched = lock(&watched);
                    let long = watched.since.is_some_and(|since| since.elapsed() > limit);
                    long.then(|| watched.hang.clone())
                };
                drop(watched);
                if let Some(hang) = overdue {
                    return bark(hang);
                }
                thread::sleep(EACH);
            }
        });
        watchdog
    }

    /// A case begins.
    pub(super) fn case(&self, index: usize, case: Case) {
        let mut watched = lock(&self.0);
        watched.hang = Hang { index, case, op: String::new() };
    }

    /// Something begins.
    pub(super) fn op(&self, op: String) {
        let mut watched = lock(&self.0);
        watched.hang.op = op;
        watched.since = Some(Instant::now());
    }

    /// It has ended, and nothing is done.
    pub(super) fn rest(&self) {
        lock(&self.0).since = None;
    }
}

/// Nobody panics with the lock held, and what is watched is right at any moment.
fn lock(watched: &Mutex<Watched>) -> MutexGuard<'_, Watched> {
    watched.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc;

    use super::*;

    #[test]
    fn what_does_not_return_is_named_and_what_rests_is_not() {
        let (tell, barked) = mpsc::channel();
        let watchdog = Watchdog::new(Duration::from_millis(1), move |hang| {
            let _ = tell.send(hang);
        });
        watchdog.case(7, Case::Undisturbed);
        watchdog.op("SET STOP".to_owned());
        watchdog.rest();
        // Two looks of the dog at a thing at rest.
        assert!(barked.recv_timeout(3 * EACH).is_err());
        watchdog.op("read data_fd".to_owned());
        let hang = barked.recv().expect("it barks in the end");
        assert_eq!((hang.index, hang.op.as_str()), (7, "read data_fd"));
    }
}
