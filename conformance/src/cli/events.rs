// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! Tells what happens as it happens: a bar for a person, lines of JSON for a program.

use std::fs::File;
use std::io::{self, Write};

use serde::Serialize;
use vfio_conform::replay::Verdict;

use super::Result;
use super::output;

/// Where it is told.
pub(super) struct Events {
    bar: Option<indicatif::ProgressBar>,
    /// The kernel's own log, so that what a trace provokes there stands behind its name.
    kernel_log: Option<File>,
}

#[derive(Serialize)]
#[serde(tag = "event", rename_all = "snake_case")]
pub(super) enum Event<'a> {
    Begin {
        index: usize,
        trace: &'a str,
    },
    Verdict {
        index: usize,
        trace: &'a str,
        ops: u64,
        #[serde(flatten)]
        verdict: &'a Verdict,
    },
    Done,
}

impl Events {
    /// Lines of JSON on standard output, if wanted, else a bar with this name.
    pub(super) fn new(lines: bool, what: &'static str) -> Self {
        let bar = (!lines).then(|| output::bar(0, what));
        let log = || File::options().write(true).open("/dev/kmsg").ok();
        Self { bar, kernel_log: if lines { log() } else { None } }
    }

    /// So many verdicts will come.
    pub(super) fn expect(&self, verdicts: usize) {
        if let Some(bar) = &self.bar {
            bar.set_length(verdicts as u64);
        }
    }

    pub(super) fn begin(&mut self, index: usize, trace: &str) -> Result<()> {
        if let Some(log) = &mut self.kernel_log {
            // Best effort: without it a crash is put down to the trace that began last.
            let _ = log.write_all(format!("<5>vfio-conform: begin {index} {trace}\n").as_bytes());
        }
        self.line(&Event::Begin { index, trace })
    }

    /// A verdict, or something beside it.
    pub(super) fn tell(&self, event: &impl Serialize) -> Result<()> {
        if let Some(bar) = &self.bar {
            bar.inc(1);
        }
        self.line(event)
    }

    pub(super) fn done(&self) -> Result<()> {
        if let Some(bar) = &self.bar {
            bar.finish_and_clear();
        }
        self.line(&Event::Done)
    }

    pub(super) fn line(&self, event: &impl Serialize) -> Result<()> {
        if self.bar.is_none() {
            let mut line = serde_json::to_vec(event)?;
            line.push(b'\n');
            io::stdout().write_all(&line)?;
            io::stdout().flush()?;
            // On a serial port the line must be out before the next trace can crash the kernel.
            // Elsewhere there is nothing to drain, and that is an error nobody cares for.
            let _ = rustix::termios::tcdrain(io::stdout());
        }
        Ok(())
    }
}
