// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! Standard output as text or as one JSON object; standard error for progress and complaints.

use std::error::Error;
use std::fmt::Display;
use std::io::{self, Write};

use indicatif::{ProgressBar, ProgressStyle};
use serde::Serialize;
use serde_json::{Map, Value};

/// Where a command says what it found.
#[derive(Debug)]
pub(crate) struct Output {
    json: Option<Map<String, Value>>,
}

impl Output {
    pub(crate) fn new(json: bool) -> Self {
        Self { json: json.then(Map::new) }
    }

    /// A finding: its text now, or its JSON under `key` at the end.
    pub(crate) fn say(
        &mut self,
        key: &str,
        finding: &(impl Display + Serialize),
    ) -> io::Result<()> {
        match &mut self.json {
            Some(json) => {
                json.insert(key.to_owned(), serde_json::to_value(finding)?);
                Ok(())
            }
            None => unless_gone(write!(io::stdout(), "{finding}")),
        }
    }

    /// A line of text that JSON does not have.
    pub(crate) fn line(&self, text: impl Display) -> io::Result<()> {
        if self.json.is_some() { Ok(()) } else { unless_gone(writeln!(io::stdout(), "{text}")) }
    }

    pub(crate) fn flush(&mut self) -> io::Result<()> {
        // A command that writes a format of its own to standard output has found nothing to add.
        if let Some(json) = self.json.as_ref().filter(|json| !json.is_empty()) {
            let mut stdout = io::stdout();
            let text = serde_json::to_string_pretty(json)?;
            unless_gone(writeln!(stdout, "{text}"))?;
        }
        unless_gone(io::stdout().flush())
    }
}

/// Whoever reads our output may have gone, as `head` does. The verdict is still due.
fn unless_gone(result: io::Result<()>) -> io::Result<()> {
    result.or_else(|error| match error.kind() {
        io::ErrorKind::BrokenPipe => Ok(()),
        _ => Err(error),
    })
}

/// A bar on standard error, drawn only on a terminal and only when it takes a while.
pub(crate) fn bar(len: u64, what: &'static str) -> ProgressBar {
    let style = ProgressStyle::with_template("{prefix} {wide_bar} {human_pos}/{human_len} {eta}");
    let bar = ProgressBar::new(len).with_prefix(what);
    match style {
        Ok(style) => bar.with_style(style),
        Err(_) => bar,
    }
}

/// An error with everything behind it.
pub(crate) fn complain(error: &dyn Error) {
    let mut text = format!("vfio-conform: {error}");
    let mut source = error.source();
    while let Some(cause) = source {
        // Many an error already says what caused it.
        let cause_text = cause.to_string();
        if !text.contains(&cause_text) {
            text = format!("{text}: {cause_text}");
        }
        source = cause.source();
    }
    note(text);
}

/// A line on standard error. `eprintln!` panics where nothing can be written.
pub(crate) fn note(text: impl Display) {
    // Nowhere is left to complain to when this fails.
    let _ = writeln!(io::stderr(), "{text}");
}

/// Whether whoever reads the traces or events that we write has gone: no error of ours.
pub(crate) fn is_broken_pipe(error: &(dyn Error + 'static)) -> bool {
    let kind = error.downcast_ref::<io::Error>().map(io::Error::kind);
    kind == Some(io::ErrorKind::BrokenPipe)
}
