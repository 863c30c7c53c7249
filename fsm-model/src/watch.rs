// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! A check while it runs: how far it is, and whether it is to go on.

use std::fmt;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

/// Looks at checks from another thread, and ends them.
#[derive(Debug)]
pub struct Watch {
    began: Instant,
    limit: Option<Duration>,
    interrupted: AtomicBool,
    cut: OnceLock<Cut>,
    states: AtomicUsize,
    transitions: AtomicUsize,
    depth: AtomicUsize,
}

/// Why a check was not finished.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Cut {
    /// Its time was over.
    TimeLimit(Duration),
    /// Somebody asked for it.
    Interrupted,
}

/// How far a check is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Progress {
    /// Distinct worlds.
    pub states: usize,
    /// Steps between them.
    pub transitions: usize,
    /// Layers of worlds begun.
    pub depth: usize,
}

impl Watch {
    /// The time begins to run now.
    pub fn new(limit: Option<Duration>) -> Self {
        Self {
            began: Instant::now(),
            limit,
            interrupted: AtomicBool::new(false),
            cut: OnceLock::new(),
            states: AtomicUsize::new(0),
            transitions: AtomicUsize::new(0),
            depth: AtomicUsize::new(0),
        }
    }

    /// End the check that runs, and do not begin another.
    pub fn interrupt(&self) {
        self.interrupted.store(true, Ordering::Relaxed);
    }

    /// How far the check is that runs.
    pub fn progress(&self) -> Progress {
        Progress {
            states: self.states.load(Ordering::Relaxed),
            transitions: self.transitions.load(Ordering::Relaxed),
            depth: self.depth.load(Ordering::Relaxed),
        }
    }

    /// Why a check was ended, or is about to be.
    pub fn cut(&self) -> Option<Cut> {
        self.cut.get().copied()
    }

    /// Whether whoever checks is to stop, and leave something undone.
    pub fn is_over(&self) -> bool {
        let late = |limit: &Duration| self.began.elapsed() >= *limit;
        let cut = if self.interrupted.load(Ordering::Relaxed) {
            Some(Cut::Interrupted)
        } else {
            self.limit.filter(late).map(Cut::TimeLimit)
        };
        cut.map(|cut| self.cut.get_or_init(|| cut)).is_some()
    }

    /// So many more, found meanwhile.
    pub(crate) fn tell_more(&self, states: usize, transitions: usize) {
        self.states.fetch_add(states, Ordering::Relaxed);
        self.transitions.fetch_add(transitions, Ordering::Relaxed);
    }

    pub(crate) fn tell(&self, states: usize, transitions: usize, depth: usize) {
        self.states.store(states, Ordering::Relaxed);
        self.transitions.store(transitions, Ordering::Relaxed);
        self.depth.store(depth, Ordering::Relaxed);
    }
}

impl fmt::Display for Cut {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::TimeLimit(limit) => {
                write!(f, "the time limit of {} s was over", limit.as_secs_f64())
            }
            Self::Interrupted => f.write_str("it was interrupted"),
        }
    }
}
