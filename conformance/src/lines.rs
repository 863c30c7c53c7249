// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! Files of lines, each of which is JSON: the traces and the recordings.

use std::io::{self, BufRead, Read, Write};

use serde::Serialize;

/// A file that is read a line at a time, and no line of it further than it may be long.
#[derive(Debug)]
pub(crate) struct Lines<R> {
    input: R,
    longest: u64,
    number: usize,
    text: Vec<u8>,
}

/// What was found.
pub(crate) enum Next {
    /// A line that is not blank.
    Line,
    /// One that is longer than may be.
    TooLong,
    /// The end of the file.
    End,
}

impl<R: BufRead> Lines<R> {
    pub(crate) const fn new(input: R, longest: u64) -> Self {
        Self { input, longest, number: 0, text: Vec::new() }
    }

    pub(crate) fn advance(&mut self) -> io::Result<Next> {
        loop {
            self.text.clear();
            self.number += 1;
            let mut limited = (&mut self.input).take(self.longest + 1);
            let len = limited.read_until(b'\n', &mut self.text)?;
            if len as u64 > self.longest {
                return Ok(Next::TooLong);
            }
            if len == 0 {
                return Ok(Next::End);
            }
            if !self.text.trim_ascii().is_empty() {
                return Ok(Next::Line);
            }
        }
    }

    /// Of the last line, counted from 1.
    pub(crate) const fn number(&self) -> usize {
        self.number
    }

    /// The last line, with the end of it.
    pub(crate) fn text(&self) -> &[u8] {
        &self.text
    }
}

/// The error without its line, which is always 1: we know better.
pub(crate) fn within(error: &serde_json::Error) -> String {
    let text = error.to_string();
    match text.rsplit_once(" at line ") {
        Some((what, _)) => format!("{what}, at column {}", error.column()),
        None => text,
    }
}

/// Write one line.
pub(crate) fn write(output: &mut (impl Write + ?Sized), line: &impl Serialize) -> io::Result<()> {
    serde_json::to_writer(&mut *output, line)?;
    output.write_all(b"\n")
}
