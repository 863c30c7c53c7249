// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! Traces: what is done to a device, and what it must answer. One file format for generated suites
//! and counterexamples of the model; `specs/trace-format.md` describes it.

use std::borrow::Cow;
use std::collections::HashSet;
use std::fmt;
use std::io::{self, BufRead, Write};

use serde::{Deserialize, Serialize};
use vfio_fsm_core::{EndOfStream, Errno, Fd, FdFlags, Features, Op, PrecopyInfo, RawState, Reply};

use crate::lines::{self, Lines, Next};

/// The version of the format that this crate reads and writes.
pub const VERSION: u32 = 1;

/// A line longer than this is refused before it is read whole.
const LONGEST_LINE: u64 = 16 << 20;

/// A trace with more text than this is refused, so that no file is too large to be replayed.
const LARGEST_TRACE: u64 = 64 << 20;

/// A `fill` longer than this is refused, so that a line of text cannot ask for gigabytes.
const LARGEST_FILL: u32 = 64 << 20;

/// The devices of a trace: a source and a destination.
const DEVICES: u8 = 2;

/// One experiment: from a fresh device in RUNNING, step by step.
#[derive(Clone, Debug, PartialEq)]
pub struct Trace {
    /// What it is and what it needs.
    pub header: Header,
    /// What is done.
    pub steps: Vec<Step>,
}

/// The first line of a trace.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Header {
    /// The version of the format; its presence makes a line the beginning of a trace.
    #[serde(rename = "vfio-fsm-trace")]
    pub version: u32,
    /// Unique, with `/` between the parts: `arcs/full/RUNNING/to-STOP`.
    pub name: String,
    /// The `VFIO_MIGRATION_*` flags of the device that the trace is for.
    pub features: Features,
    /// How many steps follow, so that a file that was cut off is not taken for a whole one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub steps: Option<usize>,
    /// The requirements that a pass is evidence for.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub covers: Vec<Cow<'static, str>>,
    /// Why some kernels hang or crash on this trace. Not run on a kernel unless asked for.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub dangerous: Option<Cow<'static, str>>,
}

/// One step: an op, and what the device must answer.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Step {
    /// Which device: 0, or 1 where a trace has a source and a destination.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub device: u8,
    /// What is done.
    pub op: Op<Data>,
    /// Of a read: again and again, until something else than bytes is answered.
    #[serde(default, skip_serializing_if = "is_false")]
    pub until_end: bool,
    /// Of a read: the slot that keeps what was read.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub into: Option<u8>,
    /// Of a write: at most so many bytes in one call.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub chunk: Option<u32>,
    /// What the (last) reply must be.
    pub expect: Expect,
    /// Of a read: what was read must equal what this slot holds.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub same_as: Option<u8>,
}

fn is_zero(value: &u8) -> bool {
    *value == 0
}

fn is_false(value: &bool) -> bool {
    !value
}

/// Bytes to be written, as far as they are known beforehand.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
pub enum Data {
    /// These bytes.
    Hex(#[serde(with = "hex::serde")] Vec<u8>),
    /// So many bytes of one value.
    Fill {
        /// The value.
        byte: u8,
        /// How many.
        len: u32,
    },
    /// What a read has put into a slot, or a part of it.
    Slot {
        /// Which slot.
        slot: u8,
        /// The slot is cut into `of` parts, and this is number `part`, counted from 0.
        #[serde(default)]
        part: u32,
        /// How many parts.
        #[serde(default = "one")]
        of: u32,
        /// So many bytes fewer at the end.
        #[serde(default)]
        drop: u32,
        /// This is added to every byte (and wraps).
        #[serde(default)]
        add: u8,
    },
    /// What a read has put into a slot, with one bit the other way round.
    Flipped {
        /// Which slot.
        slot: u8,
        /// Which bit: number 0 is the lowest of the first byte. Counted round where the slot ends.
        bit: u32,
    },
}

fn one() -> u32 {
    1
}

impl Data {
    /// The whole of a slot.
    pub const fn slot(slot: u8) -> Self {
        Self::Slot { slot, part: 0, of: 1, drop: 0, add: 0 }
    }

    /// The bytes; `None` if the slot was never filled, the part is no part, or the fill too large.
    pub fn resolve<'a>(&'a self, slots: &'a Slots) -> Option<Cow<'a, [u8]>> {
        match *self {
            Self::Hex(ref bytes) => Some(bytes.into()),
            Self::Fill { len, .. } if len > LARGEST_FILL => None,
            Self::Fill { byte, len } => Some(vec![byte; len as usize].into()),
            Self::Slot { slot, part, of, drop, add } => {
                let whole = slots.get(slot).filter(|_| part < of)?;
                let cut = |n: u32| whole.len() * n as usize / of as usize;
                let bytes = &whole[cut(part)..cut(part + 1)];
                let bytes = &bytes[..bytes.len().saturating_sub(drop as usize)];
                Some(match add {
                    0 => bytes.into(),
                    _ => bytes.iter().map(|byte| byte.wrapping_add(add)).collect(),
                })
            }
            Self::Flipped { slot, bit } => {
                let mut bytes = slots.get(slot)?.to_vec();
                let (byte, bit) = (bit as usize / 8, bit % 8);
                let byte = byte.checked_rem(bytes.len()).and_then(|at| bytes.get_mut(at));
                byte.into_iter().for_each(|byte| *byte ^= 1 << bit);
                Some(bytes.into())
            }
        }
    }
}

/// What reads have kept.
#[derive(Clone, Debug, Default)]
pub struct Slots([Option<Vec<u8>>; Self::COUNT]);

impl Slots {
    /// How many slots there are.
    pub const COUNT: usize = 8;

    /// What a slot holds.
    pub fn get(&self, slot: u8) -> Option<&[u8]> {
        self.0.get(usize::from(slot))?.as_deref()
    }

    /// Keep these bytes.
    pub fn set(&mut self, slot: u8, bytes: Vec<u8>) {
        if let Some(place) = self.0.get_mut(usize::from(slot)) {
            *place = Some(bytes);
        }
    }
}

/// What a device may answer. Wider than one device's reply: the uAPI leaves amounts open.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
pub enum Expect {
    /// Done.
    Ok,
    /// Exactly these flags.
    Features(u64),
    /// One of these states.
    State(Vec<RawState>),
    /// A SET that succeeded, with this data_fd.
    Fd(Fd),
    /// A SET that succeeded, with `data_fd == -1`.
    NoFd,
    /// At least one byte, and no more than this.
    Bytes {
        /// The most that was asked for.
        max: u32,
    },
    /// All of what was offered was taken.
    Written,
    /// This end of the stream.
    EndOfStream(EndOfStream),
    /// Any size.
    Size,
    /// PRECOPY_INFO with these amounts.
    Info {
        /// Of initial_bytes.
        initial: Amount,
        /// Of dirty_bytes.
        dirty: Amount,
    },
    /// `poll` with these answers; what is not named may be anything.
    Ready {
        /// `POLLIN`.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        readable: Option<bool>,
        /// `POLLOUT`.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        writable: Option<bool>,
    },
    /// Exactly these flags of the data_fd.
    FdFlags(FdFlags),
    /// Exactly this errno.
    Errno(Errno),
    /// Any errno.
    Failure,
    /// Any of these.
    AnyOf(Vec<Expect>),
}

/// How much.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Amount {
    /// Anything.
    Any,
    /// Nothing.
    Zero,
    /// Something.
    Some,
}

impl Amount {
    const fn admits(self, amount: u64) -> bool {
        match self {
            Self::Any => true,
            Self::Zero => amount == 0,
            Self::Some => amount > 0,
        }
    }
}

impl Expect {
    /// This state and no other.
    pub fn state(state: impl Into<RawState>) -> Self {
        Self::State(vec![state.into()])
    }

    /// Whether a reply is one of those expected.
    pub fn admits(&self, reply: &Reply<usize>) -> bool {
        match (self, reply) {
            (Self::AnyOf(many), reply) => many.iter().any(|expect| expect.admits(reply)),
            (Self::Ok, Reply::Ok) | (Self::Size, Reply::Size(_)) => true,
            (Self::Failure, Reply::Errno(_)) | (Self::Written, Reply::Written(_)) => true,
            (Self::Features(want), Reply::Features(flags)) => want == flags,
            (Self::State(want), Reply::State(state)) => want.contains(state),
            (Self::Fd(want), Reply::Fd(Some(fd))) => want == fd,
            (Self::NoFd, Reply::Fd(None)) => true,
            (Self::Bytes { max }, Reply::Bytes(len)) => (1..=*max as usize).contains(len),
            (Self::EndOfStream(want), Reply::EndOfStream(end)) => want == end,
            (Self::Info { initial, dirty }, Reply::Info(info)) => {
                let PrecopyInfo { initial_bytes, dirty_bytes, .. } = *info;
                initial.admits(initial_bytes) && dirty.admits(dirty_bytes)
            }
            (Self::Ready { readable, writable }, Reply::Ready(ready)) => {
                readable.is_none_or(|want| want == ready.readable)
                    && writable.is_none_or(|want| want == ready.writable)
            }
            (Self::FdFlags(want), Reply::FdFlags(flags)) => want == flags,
            (Self::Errno(want), Reply::Errno(errno)) => want == errno,
            _ => false,
        }
    }
}

impl fmt::Display for Expect {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fn list<T: fmt::Display>(f: &mut fmt::Formatter<'_>, items: &[T]) -> fmt::Result {
            for (index, item) in items.iter().enumerate() {
                let or = if index == 0 { "" } else { " or " };
                write!(f, "{or}{item}")?;
            }
            Ok(())
        }
        match self {
            Self::State(states) => list(f, states),
            Self::AnyOf(many) => list(f, many),
            Self::Ok => Reply::<()>::Ok.fmt(f),
            Self::Features(flags) => Reply::<()>::Features(*flags).fmt(f),
            Self::Fd(fd) => Reply::<()>::Fd(Some(*fd)).fmt(f),
            Self::NoFd => Reply::<()>::Fd(None).fmt(f),
            Self::EndOfStream(end) => Reply::<()>::EndOfStream(*end).fmt(f),
            Self::FdFlags(flags) => flags.fmt(f),
            Self::Errno(errno) => errno.fmt(f),
            Self::Bytes { max } => write!(f, "1 to {max} bytes"),
            Self::Written => f.write_str("all written"),
            Self::Size => f.write_str("a size"),
            Self::Failure => f.write_str("any errno"),
            Self::Info { initial, dirty } => {
                write!(f, "initial {initial:?} dirty {dirty:?}")
            }
            Self::Ready { readable, writable } => {
                let says = |want: &Option<bool>, name: &str| match want {
                    Some(true) => format!(" {name}"),
                    Some(false) => format!(" not {name}"),
                    None => String::new(),
                };
                write!(f, "poll:{}{}", says(readable, "readable"), says(writable, "writable"))
            }
        }
    }
}

/// What a trace asks of a target beyond the plain ops.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Need {
    /// A second device of the same kind.
    SecondDevice,
    /// SET with a full fd table.
    FdTableFull,
    /// A reset inside a SET.
    ResetInside,
    /// An arc that fails on demand.
    ArcFails,
    /// Reads through io_uring.
    Uring,
    /// A way to change the device's state as the guest would.
    Touch,
    /// A close of the device that resets it, and an open.
    Reopen,
}

impl fmt::Display for Need {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::SecondDevice => "a second device",
            Self::FdTableFull => "a full fd table",
            Self::ResetInside => "a reset inside a SET",
            Self::ArcFails => "an arc that fails on demand",
            Self::Uring => "io_uring",
            Self::Touch => "a register to touch",
            Self::Reopen => "a close of the device that resets it",
        })
    }
}

impl Trace {
    /// What the trace asks of a target beyond the plain ops.
    pub fn needs(&self) -> impl Iterator<Item = Need> {
        self.steps.iter().flat_map(|step| {
            let second = (step.device > 0).then_some(Need::SecondDevice);
            second.into_iter().chain(need_of(&step.op))
        })
    }
}

fn need_of<B>(op: &Op<B>) -> Option<Need> {
    use vfio_fsm_core::Fault;
    match op {
        Op::SetState { fault, .. } => fault.map(|fault| match fault {
            Fault::FdTableFull => Need::FdTableFull,
            Fault::ResetInside => Need::ResetInside,
            Fault::ArcFails { .. } => Need::ArcFails,
        }),
        Op::UringRead { .. } => Some(Need::Uring),
        Op::Touch(_) => Some(Need::Touch),
        Op::Close | Op::Open => Some(Need::Reopen),
        _ => None,
    }
}

/// A file that is not what it should be.
#[derive(Debug, thiserror::Error)]
#[error("line {line}: {problem}")]
pub struct TraceError {
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
    #[error("not a header or step of a trace: {}; specs/trace-format.md has the format", lines::within(.0))]
    Json(#[from] serde_json::Error),
    /// Another format.
    #[error(
        "format version {0}, but this program reads version {VERSION} and no other; use the \
         program that wrote it, or a newer one"
    )]
    Version(u64),
    /// A step that means nothing.
    #[error("{0}; specs/trace-format.md has the rules")]
    Nonsense(&'static str),
    /// A step before the first header.
    #[error("a step before the first header line (the one with \"vfio-fsm-trace\")")]
    Headless,
    /// A line without end.
    #[error("longer than {LONGEST_LINE} bytes; no trace has such lines")]
    TooLong,
    /// A trace without end.
    #[error("the trace {0:?} has more than {LARGEST_TRACE} bytes; make several of it")]
    TooLarge(String),
    /// Two traces of one name.
    #[error("a second trace of the name {0:?}; names must be unique, reports go by them")]
    Twice(String),
    /// A header and nothing after it.
    #[error("the trace {0:?} has no step; has the file been cut off?")]
    Stepless(String),
    /// Fewer steps, or more, than the header says.
    #[error(
        "the trace {name:?} has {seen} steps and should have {said}; has the file been cut off?"
    )]
    Cut {
        /// The trace.
        name: String,
        /// What its header says.
        said: usize,
        /// What there is.
        seen: usize,
    },
    /// No trace at all.
    #[error("no trace in the file; `vfio-conform generate` writes some")]
    Empty,
}

/// Read the traces of a file.
///
/// What this returns has a meaning throughout: a replayer never finds a slot that no read has
/// filled, a third device or a part that is none.
pub fn read(input: impl BufRead) -> Result<Vec<Trace>, TraceError> {
    Reader::new(input).collect()
}

/// The traces of a file one after the other, as [`read`] gives them, for files that are larger than
/// memory. After the first error there is nothing more.
#[derive(Debug)]
pub struct Reader<R> {
    lines: Lines<R>,
    names: HashSet<String>,
    /// The trace whose steps are being read.
    current: Option<Current>,
    ended: bool,
}

/// A trace that may go on.
#[derive(Debug)]
struct Current {
    trace: Trace,
    /// The line of its header.
    line: usize,
    /// How long its lines are together.
    bytes: u64,
    filled: Filled,
}

impl<R: BufRead> Reader<R> {
    /// The traces of a file.
    pub fn new(input: R) -> Self {
        let lines = Lines::new(input, LONGEST_LINE);
        Self { lines, names: HashSet::new(), current: None, ended: false }
    }

    /// The next trace; nothing behind the last one.
    fn advance(&mut self) -> Result<Option<Trace>, TraceError> {
        while let Some(line) = self.line().map_err(|problem| self.fail(problem))? {
            match line {
                Line::Header(header) => {
                    if let Some(before) = self.begin(header)? {
                        return before.finish().map(Some);
                    }
                }
                Line::Step(step) => self.step(step).map_err(|problem| self.fail(problem))?,
            }
        }
        match self.current.take() {
            Some(last) => last.finish().map(Some),
            None if self.names.is_empty() => Err(TraceError { line: 1, problem: Problem::Empty }),
            None => Ok(None),
        }
    }

    /// The next line; nothing at the end of the file.
    fn line(&mut self) -> Result<Option<Line>, Problem> {
        match self.lines.advance()? {
            Next::Line => parse(self.lines.text()).map(Some),
            Next::TooLong => Err(Problem::TooLong),
            Next::End => Ok(None),
        }
    }

    /// A trace begins, and so the one before it has ended.
    fn begin(&mut self, header: Header) -> Result<Option<Current>, TraceError> {
        if !self.names.insert(header.name.clone()) {
            return Err(self.fail(Problem::Twice(header.name)));
        }
        let trace = Trace { header, steps: Vec::new() };
        let (line, bytes) = (self.lines.number(), self.lines.text().len() as u64);
        let current = Current { trace, line, bytes, filled: Filled::default() };
        Ok(self.current.replace(current))
    }

    fn step(&mut self, step: Step) -> Result<(), Problem> {
        let current = self.current.as_mut().ok_or(Problem::Headless)?;
        current.bytes += self.lines.text().len() as u64;
        if current.bytes > LARGEST_TRACE {
            return Err(Problem::TooLarge(current.trace.header.name.clone()));
        }
        current.filled.check(&step).map_err(Problem::Nonsense)?;
        current.trace.steps.push(step);
        Ok(())
    }

    const fn fail(&self, problem: Problem) -> TraceError {
        TraceError { line: self.lines.number(), problem }
    }
}

impl<R: BufRead> Iterator for Reader<R> {
    type Item = Result<Trace, TraceError>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.ended {
            return None;
        }
        let next = self.advance();
        self.ended = !matches!(next, Ok(Some(_)));
        next.transpose()
    }
}

impl Current {
    /// The trace, if it has all its steps.
    fn finish(self) -> Result<Trace, TraceError> {
        let Self { trace, line, .. } = self;
        let seen = trace.steps.len();
        let name = || trace.header.name.clone();
        let problem = match trace.header.steps {
            Some(said) if said != seen => Problem::Cut { name: name(), said, seen },
            _ if seen == 0 => Problem::Stepless(name()),
            _ => return Ok(trace),
        };
        Err(TraceError { line, problem })
    }
}

/// Which slots the steps so far have filled.
#[derive(Debug, Default)]
struct Filled([bool; Slots::COUNT]);

impl Filled {
    fn has(&self, slot: u8) -> bool {
        self.0.get(usize::from(slot)).is_some_and(|filled| *filled)
    }

    /// Whether a step means something here; then what it fills is filled.
    fn check(&mut self, step: &Step) -> Result<(), &'static str> {
        let reads = matches!(step.op, Op::Read { .. } | Op::UringRead { .. });
        let data = if let Op::Write { bytes, .. } = &step.op { Some(bytes) } else { None };
        if step.device >= DEVICES {
            return Err("device is 0 or 1");
        }
        if !reads && (step.until_end || step.into.is_some() || step.same_as.is_some()) {
            return Err("until_end, into and same_as go with read and uring_read only");
        }
        if step.chunk.is_some() && (data.is_none() || step.chunk == Some(0)) {
            return Err("chunk goes with write only, and is at least 1");
        }
        if step.same_as.is_some_and(|slot| !self.has(slot)) {
            return Err("same_as names a slot that no earlier step of the trace fills");
        }
        match *data.unwrap_or(&Data::Hex(Vec::new())) {
            Data::Fill { len, .. } if len > LARGEST_FILL => {
                return Err("a fill is at most 67108864 bytes (64 MiB) long");
            }
            Data::Slot { part, of, .. } if part >= of => {
                return Err("part counts from 0 and is less than of");
            }
            Data::Slot { slot, .. } | Data::Flipped { slot, .. } if !self.has(slot) => {
                return Err("the write is of a slot that no earlier step of the trace fills");
            }
            _ => {}
        }
        if let Some(slot) = step.into {
            let place = self.0.get_mut(usize::from(slot)).ok_or("slots are numbered 0 to 7")?;
            *place = true;
        }
        Ok(())
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
        #[serde(rename = "vfio-fsm-trace")]
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

/// Write traces as a file.
pub fn write<'a>(
    traces: impl IntoIterator<Item = &'a Trace>,
    output: &mut (impl Write + ?Sized),
) -> io::Result<()> {
    for trace in traces {
        lines::write(output, &trace.header)?;
        trace.steps.iter().try_for_each(|step| lines::write(output, step))?;
    }
    Ok(())
}
