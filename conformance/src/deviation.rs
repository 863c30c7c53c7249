// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! What a given driver is known to do differently: expected failures, each with its reason.
//!
//! A list is a TOML file in `specs/deviations/`. A mismatch that an entry describes makes the
//! verdict *known deviation*, not *fail*; an entry that nothing matched is itself worth a failure,
//! since either the driver was mended or the entry never was true.

use std::cell::Cell;

use glob::Pattern;
use serde::Deserialize;
use vfio_fsm_core::Reply;

use crate::trace::{Expect, Step};

/// The list of one driver.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Deviations {
    /// The driver.
    pub driver: String,
    /// Which version of it this was seen with, and how.
    pub seen_with: String,
    /// What it does.
    #[serde(rename = "deviation", default)]
    pub list: Vec<Deviation>,
}

/// One thing that a driver does differently.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Deviation {
    /// Its name.
    pub id: String,
    /// The requirements that it breaks.
    pub breaks: Vec<String>,
    /// Why it does so, and what follows.
    pub reason: String,
    /// The traces in which it shows, as globs; all if none is given.
    #[serde(default)]
    traces: Vec<String>,
    /// The ops at which it shows, as the traces name them (`read`, `set_state`); all if none.
    #[serde(default)]
    ops: Vec<String>,
    /// What must have been expected; anything if not given.
    #[serde(default)]
    expected: Option<Expect>,
    /// What is seen instead; anything if not given.
    #[serde(default)]
    seen: Option<Expect>,
    /// Replies are as expected, but the bytes that were read are not.
    #[serde(default)]
    bytes: bool,
    /// It is no reply but a crash or a hang of the kernel, whose console says this.
    #[serde(default)]
    console: Option<String>,
    /// It is no reply of a trace but what `vfio-conform abuse` says of a call: globs of its text.
    #[serde(default)]
    calls: Vec<String>,
    /// It is no reply of a trace but what a VMM was seen to do or to be told, or what a machine was
    /// found to be: globs of the text of a finding.
    #[serde(default)]
    found: Vec<String>,
    #[serde(skip)]
    used: Cell<bool>,
}

/// A list that cannot be used.
#[derive(Debug, thiserror::Error)]
#[error("{name}: {problem}; see specs/deviations/README.md for the format")]
pub struct DeviationError {
    name: String,
    problem: String,
}

/// The lists that come with this program.
const KNOWN: &[(&str, &str)] = &[
    ("mtty", include_str!("../specs/deviations/mtty.toml")),
    ("qemu", include_str!("../specs/deviations/qemu.toml")),
];

impl Deviations {
    /// The list of a driver that comes with this program, or a list from a file.
    pub fn named(name: &str) -> Result<Self, DeviationError> {
        let fail = |problem: String| DeviationError { name: name.to_owned(), problem };
        if let Some((_, text)) = KNOWN.iter().find(|(known, _)| *known == name) {
            return Self::parse(name, text);
        }
        let text = std::fs::read_to_string(name).map_err(|error| {
            let known: Vec<_> = KNOWN.iter().map(|(known, _)| *known).collect();
            fail(format!("neither a known driver ({}) nor a file: {error}", known.join(", ")))
        })?;
        Self::parse(name, &text)
    }

    /// A list from the text of a file.
    pub fn parse(name: &str, text: &str) -> Result<Self, DeviationError> {
        let fail = |problem: String| DeviationError { name: name.to_owned(), problem };
        let parsed: Self = toml::from_str(text).map_err(|error| fail(error.to_string()))?;
        let patterns = |entry: &'_ Deviation| {
            [entry.traces.clone(), entry.calls.clone(), entry.found.clone()].concat()
        };
        for pattern in parsed.list.iter().flat_map(patterns) {
            Pattern::new(&pattern).map_err(|error| fail(format!("{pattern:?}: {error}")))?;
        }
        Ok(parsed)
    }

    /// The entries about replies of traces, and crashes.
    #[must_use]
    pub fn of_traces(mut self) -> Self {
        self.list.retain(|entry| entry.calls.is_empty() && entry.found.is_empty());
        self
    }

    /// The entries about calls that are no ops, in cases whose names begin so.
    #[must_use]
    pub fn of_calls(mut self, beginning: &str) -> Self {
        self.list.retain(|entry| !entry.calls.is_empty() && entry.begins(beginning));
        self
    }

    /// The entries about findings in what begins so.
    #[must_use]
    pub fn of_findings(mut self, beginning: &str) -> Self {
        self.list.retain(|entry| !entry.found.is_empty() && entry.begins(beginning));
        self
    }

    /// These entries and those of another list.
    #[must_use]
    pub fn and(mut self, other: Self) -> Self {
        self.list.extend(other.list);
        self
    }

    /// The entry that describes a finding, by its text.
    pub fn find_finding(&self, trace: &str, text: &str) -> Option<&str> {
        let glob = |glob: &String| Pattern::new(glob).is_ok_and(|glob| glob.matches(text));
        let describes = |entry: &&Deviation| entry.is_in(trace) && entry.found.iter().any(glob);
        self.list.iter().find(describes).map(Deviation::take)
    }

    /// The entry that describes what came of a call that is no op, by its text.
    pub fn find_call(&self, case: &str, text: &str) -> Option<&str> {
        let glob = |glob: &String| Pattern::new(glob).is_ok_and(|glob| glob.matches(text));
        let describes = |entry: &&Deviation| entry.is_in(case) && entry.calls.iter().any(glob);
        self.list.iter().find(describes).map(Deviation::take)
    }

    /// The entry that describes this mismatch.
    pub(crate) fn find(
        &self,
        trace: &str,
        step: &Step,
        seen: &Reply<usize>,
        right_bytes: bool,
    ) -> Option<&str> {
        let describes = |entry: &&Deviation| {
            entry.console.is_none()
                && entry.calls.is_empty()
                && entry.found.is_empty()
                && entry.bytes != right_bytes
                && entry.is_in(trace)
                && (entry.ops.is_empty() || entry.ops.iter().any(|op| op == step.op.name()))
                && entry.expected.as_ref().is_none_or(|expected| *expected == step.expect)
                && entry.seen.as_ref().is_none_or(|expect| expect.admits(seen))
        };
        self.list.iter().find(describes).map(Deviation::take)
    }

    /// The entry that describes a crash or a hang in this trace, of which the kernel said this.
    pub fn find_crash(&self, trace: &str, console: &str) -> Option<&str> {
        let says =
            |entry: &Deviation| entry.console.as_ref().is_some_and(|it| console.contains(it));
        self.list.iter().find(|entry| says(entry) && entry.is_in(trace)).map(Deviation::take)
    }

    /// The entries that described nothing so far.
    pub fn unused(&self) -> impl Iterator<Item = &Deviation> {
        self.list.iter().filter(|entry| !entry.used.get())
    }

    /// Count an entry as used that was matched elsewhere: in the guest of a lab.
    pub fn mark_used(&self, id: &str) {
        for entry in self.list.iter().filter(|entry| entry.id == id) {
            entry.used.set(true);
        }
    }
}

impl Deviation {
    fn is_in(&self, trace: &str) -> bool {
        let matches = |glob: &String| Pattern::new(glob).is_ok_and(|glob| glob.matches(trace));
        self.traces.is_empty() || self.traces.iter().any(matches)
    }

    /// Whether it can show in what begins so.
    fn begins(&self, beginning: &str) -> bool {
        self.traces.is_empty() || self.traces.iter().any(|glob| glob.starts_with(beginning))
    }

    fn take(&self) -> &str {
        self.used.set(true);
        &self.id
    }
}
