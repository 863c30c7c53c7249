// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! What was recorded of a VMM: the calls, and what they were answered. `specs/recording-format.md`
//! describes the file.

use std::collections::HashMap;
use std::io::{self, BufRead, Write};

use serde::{Deserialize, Serialize};
use vfio_fsm_core::{Fd, Op, Reply};

use crate::lines::{self, Lines, Next};

/// The version of the format that this crate reads and writes.
pub const VERSION: u32 = 1;

/// A line longer than this is refused before it is read whole: no call takes so much to tell.
const LONGEST_LINE: u64 = 64 << 10;

/// What one run of a VMM did with its devices.
#[derive(Clone, Debug, PartialEq)]
pub struct Recording {
    /// What it is.
    pub header: Header,
    /// The calls, in the order in which they returned.
    pub steps: Vec<Step>,
}

/// The first line of a recording.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Header {
    /// The version of the format; its presence makes a line the beginning of a recording.
    #[serde(rename = "vfio-fsm-recording")]
    pub version: u32,
    /// Unique in the file.
    pub name: String,
}

impl Header {
    /// Of a recording of this name, in the format of today.
    pub fn new(name: impl Into<String>) -> Self {
        Self { version: VERSION, name: name.into() }
    }
}

/// One call, and what it was answered.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Step {
    /// When the call began, in microseconds of a clock that does not go back.
    #[serde(default)]
    pub at: u64,
    /// How long it took, in microseconds.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub took: u64,
    /// The process.
    #[serde(default)]
    pub pid: u32,
    /// The thread.
    #[serde(default)]
    pub tid: u32,
    /// Which device of the process, counted from 0.
    #[serde(default)]
    pub device: u32,
    /// What was done; a write is told by its length.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub op: Option<Op<u64>>,
    /// Or what was done to the log of DMA.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub dma_logging: Option<DmaLogging>,
    /// What was answered; a read is told by its length.
    pub reply: Reply<u64>,
}

const fn is_zero(value: &u64) -> bool {
    *value == 0
}

/// The three features of DMA logging.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum DmaLogging {
    /// SET of `VFIO_DEVICE_FEATURE_DMA_LOGGING_START`.
    Start,
    /// SET of `VFIO_DEVICE_FEATURE_DMA_LOGGING_STOP`.
    Stop,
    /// GET of `VFIO_DEVICE_FEATURE_DMA_LOGGING_REPORT`.
    Report,
}

impl Step {
    /// An op and its reply, with nothing said of time and thread.
    pub const fn new(device: u32, op: Op<u64>, reply: Reply<u64>) -> Self {
        let op = Some(op);
        Self { at: 0, took: 0, pid: 0, tid: 0, device, op, dma_logging: None, reply }
    }

    /// A call to the log of DMA and its reply, with nothing said of time and thread.
    pub const fn log(device: u32, call: DmaLogging, reply: Reply<u64>) -> Self {
        let dma_logging = Some(call);
        Self { at: 0, took: 0, pid: 0, tid: 0, device, op: None, dma_logging, reply }
    }

    /// Whether the two were under way at the same time, so that their order is not known.
    pub const fn overlaps(&self, other: &Self) -> bool {
        self.at < other.at.saturating_add(other.took)
            && other.at < self.at.saturating_add(self.took)
    }
}

/// A file that is not what it should be.
#[derive(Debug, thiserror::Error)]
#[error("line {line}: {problem}")]
pub struct RecordingError {
    /// Counted from 1.
    pub line: usize,
    /// What is wrong.
    #[source]
    pub problem: Problem,
}

/// What is wrong with a line.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Problem {
    /// The file could not be read.
    #[error("cannot be read: {0}")]
    Io(#[from] io::Error),
    /// Not JSON, or not the JSON of a header or a step.
    #[error(
        "not a header or step of a recording: {}; specs/recording-format.md has the format",
        lines::within(.0)
    )]
    Json(#[from] serde_json::Error),
    /// Another format.
    #[error(
        "format version {0}, but this program reads version {VERSION} and no other; use the \
         program that wrote it, or a newer one"
    )]
    Version(u64),
    /// A step before the first header.
    #[error("a step before the first header line (the one with \"vfio-fsm-recording\")")]
    Headless,
    /// A line without end.
    #[error("longer than {LONGEST_LINE} bytes; no recording has such lines")]
    TooLong,
    /// Two recordings of one name.
    #[error("a second recording of the name {0:?}; names must be unique, reports go by them")]
    Twice(String),
    /// A header and nothing after it.
    #[error("the recording {0:?} has no step; has the VMM used a device that migrates?")]
    Stepless(String),
    /// A step that means nothing.
    #[error("{0}; specs/recording-format.md has the rules")]
    Nonsense(&'static str),
    /// A line of a list of calls that cannot be read.
    #[error("{0}; specs/recording-format.md has the form of a list of calls")]
    Calls(String),
    /// No recording at all.
    #[error("no recording in the file; `vfio-conform watch` makes some")]
    Empty,
}

/// Read the recordings of a file, or say which line is wrong.
///
/// What this returns has a meaning throughout: an op has a reply that it can have, and a data_fd was
/// handed out before it is used, and once.
pub(super) fn read(input: impl BufRead) -> Result<Vec<Recording>, RecordingError> {
    let mut file = Recordings::default();
    let mut lines = Lines::new(input, LONGEST_LINE);
    loop {
        let next = lines.advance();
        let line = lines.number();
        let taken = match next {
            Ok(Next::Line) => parse(lines.text()).and_then(|parsed| file.take(line, parsed)),
            Ok(Next::TooLong) => Err(Problem::TooLong),
            Ok(Next::End) => return file.finish(),
            Err(error) => Err(error.into()),
        };
        taken.map_err(|problem| RecordingError { line, problem })?;
    }
}

enum Line {
    Header(Header),
    Step(Step),
}

fn parse(text: &[u8]) -> Result<Line, Problem> {
    /// Only a header has this, and it is looked at before anything that a version may change.
    #[derive(Deserialize)]
    struct Version {
        #[serde(rename = "vfio-fsm-recording")]
        version: Option<u64>,
    }
    const READ: u64 = VERSION as u64;
    // What follows the JSON is no column of it.
    let text = text.trim_ascii_end();
    match serde_json::from_slice::<Version>(text)?.version {
        None => Ok(Line::Step(serde_json::from_slice(text)?)),
        Some(READ) => Ok(Line::Header(serde_json::from_slice(text)?)),
        Some(other) => Err(Problem::Version(other)),
    }
}

/// The recordings of a file so far.
#[derive(Default)]
pub(super) struct Recordings {
    all: Vec<Recording>,
    header_at: usize,
    /// Of each device of each process the data_fds that it handed out.
    handed_out: HashMap<(u32, u32), u32>,
}

impl Recordings {
    fn take(&mut self, line: usize, parsed: Line) -> Result<(), Problem> {
        match parsed {
            Line::Header(header) => self.header(line, header),
            Line::Step(step) => self.step(step),
        }
    }

    pub(super) fn header(&mut self, line: usize, header: Header) -> Result<(), Problem> {
        self.is_whole()?;
        if self.all.iter().any(|other| other.header.name == header.name) {
            return Err(Problem::Twice(header.name));
        }
        self.all.push(Recording { header, steps: Vec::new() });
        (self.header_at, self.handed_out) = (line, HashMap::new());
        Ok(())
    }

    pub(super) fn step(&mut self, step: Step) -> Result<(), Problem> {
        let recording = self.all.last_mut().ok_or(Problem::Headless)?;
        let handed_out = self.handed_out.entry((step.pid, step.device)).or_default();
        check(&step, handed_out).map_err(Problem::Nonsense)?;
        recording.steps.push(step);
        Ok(())
    }

    fn is_whole(&self) -> Result<(), Problem> {
        match self.all.last() {
            Some(Recording { header, steps }) if steps.is_empty() => {
                Err(Problem::Stepless(header.name.clone()))
            }
            _ => Ok(()),
        }
    }

    pub(super) fn finish(self) -> Result<Vec<Recording>, RecordingError> {
        let line = self.header_at.max(1);
        self.is_whole().map_err(|problem| RecordingError { line, problem })?;
        if self.all.is_empty() {
            return Err(RecordingError { line, problem: Problem::Empty });
        }
        Ok(self.all)
    }
}

/// Whether a step means something after what was handed out so far.
fn check(step: &Step, handed_out: &mut u32) -> Result<(), &'static str> {
    match (&step.op, step.dma_logging) {
        (Some(op), None) => {
            if matches!(op, Op::SetState { fault: Some(_), .. }) {
                return Err("a fault is for traces: what went wrong shows in the reply");
            }
            if !can_be(op, &step.reply) {
                return Err("the reply is of a kind that this op does not have");
            }
            if fd_of(op).is_some_and(|Fd(n)| n == 0 || n > *handed_out) {
                return Err("the data_fd was not handed out by an earlier SET of this device");
            }
        }
        (None, Some(_)) if matches!(step.reply, Reply::Ok | Reply::Errno(_)) => {}
        (None, Some(_)) => return Err("dma_logging is answered by ok or an errno"),
        _ => return Err("a step has either op or dma_logging"),
    }
    if let Reply::Fd(Some(Fd(n))) = step.reply {
        if Some(n) != handed_out.checked_add(1) {
            return Err("data_fds are numbered from 1 on, in the order in which they come");
        }
        *handed_out = n;
    }
    Ok(())
}

/// Whether this op can be answered so, by any device.
const fn can_be(op: &Op<u64>, reply: &Reply<u64>) -> bool {
    if matches!(reply, Reply::Errno(_)) {
        return true;
    }
    match op {
        Op::Open
        | Op::Close
        | Op::Reset
        | Op::OptInPrecopyV2
        | Op::CloseFd { .. }
        | Op::Touch(_) => {
            matches!(reply, Reply::Ok)
        }
        Op::GetFeatures => matches!(reply, Reply::Features(_)),
        Op::GetState => matches!(reply, Reply::State(_)),
        Op::SetState { .. } => matches!(reply, Reply::Fd(_)),
        Op::DataSize => matches!(reply, Reply::Size(_)),
        Op::Read { .. } | Op::UringRead { .. } | Op::Pread { .. } => {
            matches!(reply, Reply::Bytes(_) | Reply::EndOfStream(_))
        }
        Op::Write { .. } => matches!(reply, Reply::Written(_)),
        Op::Seek { .. } => matches!(reply, Reply::Ok),
        Op::Poll { .. } => matches!(reply, Reply::Ready(_)),
        Op::PrecopyInfo { .. } => matches!(reply, Reply::Info(_)),
        Op::FdFlags { .. } => matches!(reply, Reply::FdFlags(_)),
    }
}

/// The data_fd that an op is on.
pub(super) const fn fd_of(op: &Op<u64>) -> Option<Fd> {
    match op {
        Op::Read { fd, .. }
        | Op::UringRead { fd, .. }
        | Op::Pread { fd, .. }
        | Op::Write { fd, .. }
        | Op::Seek { fd }
        | Op::Poll { fd }
        | Op::PrecopyInfo { fd }
        | Op::FdFlags { fd }
        | Op::CloseFd { fd } => Some(*fd),
        _ => None,
    }
}

/// Write recordings as a file.
pub fn write<'a>(
    recordings: impl IntoIterator<Item = &'a Recording>,
    output: &mut impl Write,
) -> io::Result<()> {
    for recording in recordings {
        lines::write(output, &recording.header)?;
        recording.steps.iter().try_for_each(|step| lines::write(output, step))?;
    }
    Ok(())
}
