// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! Standard output as text or as one JSON object, results as files; standard error for progress and
//! complaints.

use std::error::Error;
use std::fmt::{Display, Write as _};
use std::io::{self, IsTerminal, Write};
use std::sync::atomic::{AtomicBool, Ordering};

use clap::builder::styling::{AnsiColor, Style};
use indicatif::{ProgressBar, ProgressStyle};
use serde::Serialize;
use serde_json::{Map, Value};
use vfio_conform::results::{Head, Keeper, Verdict};

use super::Result;

/// How much a person is told.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum Loudness {
    /// Nothing, unless it is not good.
    Quiet,
    /// What matters.
    #[default]
    Normal,
    /// All of it.
    Verbose,
}

/// Progress is drawn in many places, and a person has one wish for all of them.
static NO_PROGRESS: AtomicBool = AtomicBool::new(false);

/// Where a command says what it found.
#[derive(Debug)]
pub(crate) struct Output {
    json: bool,
    loudness: Loudness,
    /// What was said so far, of a quiet program.
    held: String,
    head: Head,
    keeper: Option<Keeper>,
    found: Map<String, Value>,
    /// Whether somebody wants what was found as JSON.
    collects: bool,
}

impl Output {
    pub(crate) fn new(json: bool, loudness: Loudness, head: Head, keeper: Option<Keeper>) -> Self {
        NO_PROGRESS.store(loudness == Loudness::Quiet, Ordering::Relaxed);
        let collects = json || keeper.is_some();
        Self { json, loudness, held: String::new(), head, keeper, found: Map::new(), collects }
    }

    /// Keep what is found for a page, too.
    #[cfg(feature = "report")]
    pub(crate) const fn collect(&mut self) {
        self.collects = true;
    }

    /// A finding: its text now, and its JSON under `key` at the end.
    pub(crate) fn say(
        &mut self,
        key: &str,
        finding: &(impl Display + Serialize),
    ) -> io::Result<()> {
        if self.collects {
            self.found.insert(key.to_owned(), serde_json::to_value(finding)?);
        }
        match self.loudness {
            _ if self.json => Ok(()),
            Loudness::Verbose => self.tell(&format!("{finding:#}")),
            _ => self.tell(&finding.to_string()),
        }
    }

    /// A line of text that JSON does not have.
    pub(crate) fn line(&mut self, text: impl Display) -> io::Result<()> {
        if self.json { Ok(()) } else { self.tell(&format!("{text}\n")) }
    }

    /// What somebody asked for in a language of its own: it is no finding.
    #[cfg(any(feature = "manual", feature = "report"))]
    pub(crate) fn raw(&mut self, text: &str) -> io::Result<()> {
        unless_gone(io::stdout().write_all(text.as_bytes()))
    }

    fn tell(&mut self, text: &str) -> io::Result<()> {
        if self.loudness == Loudness::Quiet {
            self.held.push_str(text);
            return Ok(());
        }
        show(text)
    }

    /// The end: a quiet program says what it held back if it is not good; JSON is written, results
    /// are kept.
    pub(crate) fn end(&mut self, verdict: Verdict) -> Result<()> {
        self.head.verdict = verdict;
        if self.loudness == Loudness::Quiet && verdict != Verdict::Good {
            let held = std::mem::take(&mut self.held);
            show(&held)?;
        }
        // A command that writes a format of its own to standard output has found nothing to add.
        if self.json && !self.found.is_empty() {
            let text = serde_json::to_string_pretty(&self.head.object(&self.found)?)?;
            unless_gone(writeln!(io::stdout(), "{text}"))?;
        }
        unless_gone(io::stdout().flush())?;
        let Some(keeper) = self.keeper.take() else { return Ok(()) };
        if self.found.is_empty() {
            // Such as `replay --events`, whose lines are somebody else's to keep.
            return Err("nothing was found here that can be kept: leave --results away".into());
        }
        keeper.keep(&self.head, &self.found)?;
        Ok(())
    }

    /// All that was found, as a result that was not kept.
    #[cfg(feature = "report")]
    pub(crate) fn object(&self) -> Result<Map<String, Value>> {
        Ok(self.head.object(&self.found)?)
    }
}

/// Text as a person reads it: in colour and no wider than a terminal, if it is one.
fn show(text: &str) -> io::Result<()> {
    let stdout = io::stdout();
    let size = stdout.is_terminal().then(|| rustix::termios::tcgetwinsize(&stdout).ok()).flatten();
    let width = size.map(|size| usize::from(size.ws_col)).filter(|&width| width >= NARROWEST);
    let text = width.map_or_else(|| text.to_owned(), |width| wrapped(text, width));
    unless_gone(anstream::stdout().write_all(painted(&text).as_bytes()))
}

/// A terminal that is narrower, or does not know, gets the lines as they are.
const NARROWEST: usize = 40;

/// Lines that are too long are broken between words, and go on behind a deeper indent.
fn wrapped(text: &str, width: usize) -> String {
    let mut out = String::with_capacity(text.len());
    for line in text.split_inclusive('\n') {
        let (body, end) = line.strip_suffix('\n').map_or((line, ""), |body| (body, "\n"));
        let indent = (body.len() - body.trim_start().len() + 4).min(width / 2);
        let mut rest = body;
        let mut first = true;
        loop {
            let room = if first { width } else { width.saturating_sub(indent) };
            if !first {
                out.push_str(&" ".repeat(indent));
            }
            match breaks_at(rest, room) {
                None => break,
                Some(at) => {
                    out.push_str(rest[..at].trim_end());
                    out.push('\n');
                    rest = rest[at..].trim_start();
                    first = false;
                }
            }
        }
        out.push_str(rest);
        out.push_str(end);
    }
    out
}

/// Where a line that has more than so many characters is to be broken.
fn breaks_at(line: &str, room: usize) -> Option<usize> {
    let (limit, _) = line.char_indices().nth(room)?;
    // A space right behind what fits is a place, too.
    let until = line[limit..].chars().next().map_or(limit, |c| limit + c.len_utf8());
    let begins = line.len() - line.trim_start().len();
    let space = line[..until].rfind(' ').filter(|&at| at > begins);
    let joint = || line[..limit].rfind(['/', ':', '|']).map(|at| at + 1);
    Some(space.or_else(|| joint().filter(|&at| at > begins)).unwrap_or(limit.max(1)))
}

/// Words that a person looks for, and their colours. What is no terminal gets none: the stream
/// takes them out, as it does with NO_COLOR.
const COLOURS: [(&str, Style); 7] = [
    ("FAILED", AnsiColor::Red.on_default().bold()),
    ("FAIL", AnsiColor::Red.on_default().bold()),
    ("NOT FINISHED", AnsiColor::Yellow.on_default().bold()),
    ("not finished", AnsiColor::Yellow.on_default()),
    ("NOT good", AnsiColor::Red.on_default().bold()),
    ("all good", AnsiColor::Green.on_default().bold()),
    (" hold ", AnsiColor::Green.on_default()),
];

/// The first of them in each line.
fn painted(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for line in text.split_inclusive('\n') {
        let first =
            COLOURS.iter().find_map(|(word, style)| Some((line.split_once(word)?, word, style)));
        match first {
            // Writing to a string does not fail.
            Some(((before, after), word, style)) => {
                let _ = write!(out, "{before}{style}{word}{style:#}{after}");
            }
            None => out.push_str(line),
        }
    }
    out
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
    if NO_PROGRESS.load(Ordering::Relaxed) {
        return ProgressBar::hidden();
    }
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

#[cfg(test)]
mod tests {
    use super::*;

    /// H10: whatever is said fits the terminal, loses no word, and goes on behind an indent.
    #[test]
    fn long_lines_are_broken_between_words() {
        let text = "  FAIL: one two three four\nshort\n\n    a/very/long/path/without/spaces.rs::test x\näöü äöü äöü äöü äöü äöü\n";
        for width in 12..60 {
            let wrapped = wrapped(text, width);
            assert!(
                wrapped.lines().all(|line| line.chars().count() <= width),
                "{width}:\n{wrapped}"
            );
            let bare = |text: &str| text.chars().filter(|c| !c.is_whitespace()).collect::<String>();
            assert_eq!(bare(&wrapped), bare(text), "{width}");
        }
        assert_eq!(wrapped("  one two three\n", 12), "  one two\n      three\n");
        assert_eq!(wrapped(text, 100), text);
    }

    /// H11: the words that count have a colour, the first in each line, and others have none.
    #[test]
    fn verdicts_are_painted() {
        assert_eq!(painted("quiet\n"), "quiet\n");
        let painted = painted("  FAIL: FAIL\nall good\n");
        assert_eq!(painted.matches("\u{1b}[1m\u{1b}[31m").count(), 1, "{painted:?}");
        assert!(painted.contains("\u{1b}[32mall good\u{1b}[0m"), "{painted:?}");
    }
}
