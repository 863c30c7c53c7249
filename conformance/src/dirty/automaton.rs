// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! The log as a finite machine: two areas of memory, one page of each is written, and every way there
//! is to use the log rightly and wrongly. Its complete suite is that of [`crate::complete`].

use std::collections::HashMap;
use std::fmt;

use serde::Serialize;
use vfio_fsm_core::{Errno, State};

use super::memory::E2BIG;
use super::{AtReset, Dirty, DirtyError, IovaRange, MIN_PAGE_SIZE, Refused, bitmap};
use crate::complete::{self, Machine, Node, Output, Size, Symbol};

const PAGE: u64 = MIN_PAGE_SIZE;
/// Pages of an area.
const PAGES: u64 = 4;

/// Memory far from the other, so that a device with large pages can tell them apart.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Area {
    /// Its last page is written.
    Low,
    /// Its first page is written.
    High,
}

impl Area {
    const ALL: [Self; 2] = [Self::Low, Self::High];

    const fn range(self) -> IovaRange {
        let iova = match self {
            Self::Low => 1 << 24,
            Self::High => 1 << 32,
        };
        IovaRange { iova, length: PAGES * PAGE }
    }

    /// Which of its pages is written.
    const fn page(self) -> u64 {
        match self {
            Self::Low => PAGES - 1,
            Self::High => 0,
        }
    }
}

/// A START that must be refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum BadStart {
    /// No ranges.
    None,
    /// Ranges that have a page in common.
    Overlap,
    /// A range that goes beyond 64 bits.
    Overflow,
    /// A range that is not made of pages.
    Misaligned,
    /// More ranges than fit into the largest page of any host.
    TooMany,
}

impl BadStart {
    const ALL: [Self; 5] =
        [Self::None, Self::Overlap, Self::Overflow, Self::Misaligned, Self::TooMany];

    fn ranges(self) -> Vec<IovaRange> {
        let range = Area::Low.range();
        match self {
            Self::None => Vec::new(),
            Self::Overlap => vec![range, IovaRange { iova: range.iova + PAGE, length: PAGE }],
            Self::Overflow => vec![IovaRange { iova: u64::MAX - PAGE + 1, length: 2 * PAGE }],
            Self::Misaligned => vec![IovaRange { iova: range.iova, length: PAGE / 2 }],
            Self::TooMany => many(LARGEST_PAGE / RANGE + 1),
        }
    }

    /// What the kernel says before it asks the driver (C39).
    const fn errno(self) -> Errno {
        match self {
            Self::Overflow => Errno::EOVERFLOW,
            Self::TooMany => E2BIG,
            _ => Errno::EINVAL,
        }
    }
}

/// The largest page of any host, and a range in START's list, in bytes.
const LARGEST_PAGE: u64 = 64 << 10;
const RANGE: u64 = 16;
/// What every device takes (R42).
const ENOUGH: u64 = 4096 / RANGE;

/// So many ranges of a page, each a page apart.
fn many(count: u64) -> Vec<IovaRange> {
    (0..count).map(|n| IovaRange { iova: 2 * n * PAGE, length: PAGE }).collect()
}

/// A REPORT that must be refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum BadReport {
    /// A page_size that is none.
    NoPageSize,
    /// A page_size that the kernel does not know.
    SmallPageSize,
    /// A range that goes beyond 64 bits.
    Overflow,
}

impl BadReport {
    const ALL: [Self; 3] = [Self::NoPageSize, Self::SmallPageSize, Self::Overflow];

    const fn call(self) -> (IovaRange, u64) {
        let range = Area::Low.range();
        match self {
            Self::NoPageSize => (range, PAGE + 1),
            Self::SmallPageSize => (range, PAGE / 2),
            Self::Overflow => (IovaRange { iova: u64::MAX - PAGE + 1, length: 2 * PAGE }, PAGE),
        }
    }

    const fn errno(self) -> Errno {
        match self {
            Self::Overflow => Errno::EOVERFLOW,
            _ => Errno::EINVAL,
        }
    }
}

/// One thing to do.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Input {
    /// START of both areas.
    StartBoth,
    /// START of as many ranges as every device takes, and STOP.
    StartMany,
    /// START that must be refused.
    BadStart(BadStart),
    /// STOP of a log.
    Stop,
    /// STOP without a log: whatever it says, nothing comes of it.
    StopNone,
    /// REPORT of an area.
    Report(Area),
    /// REPORT that must be refused.
    BadReport(BadReport),
    /// The device writes a page of an area.
    Write(Area),
    /// SET.
    Set(State),
    /// GET.
    Get,
    /// A reset.
    Reset,
    /// A reset and STOP, for a device of which nobody knows what a reset does to its log (C37).
    ResetThenStop,
    /// Close the device, and open it.
    Reopen,
}

impl Input {
    fn all(can_write: bool, at_reset: AtReset) -> Vec<Self> {
        let mut inputs = vec![Self::StartBoth, Self::StartMany, Self::Stop, Self::StopNone];
        inputs.extend(BadStart::ALL.map(Self::BadStart));
        inputs.extend(Area::ALL.map(Self::Report));
        inputs.extend(BadReport::ALL.map(Self::BadReport));
        inputs.extend([State::Stop, State::Running].map(Self::Set));
        inputs.extend([Self::Get, Self::ResetThenStop, Self::Reopen]);
        if at_reset == AtReset::GoesOn {
            inputs.push(Self::Reset);
        }
        if can_write {
            inputs.extend(Area::ALL.map(Self::Write));
        }
        inputs
    }
}

impl fmt::Display for Input {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::StartBoth => f.write_str("START low and high"),
            Self::StartMany => write!(f, "START {ENOUGH} ranges and STOP"),
            Self::BadStart(bad) => write!(f, "bad START ({bad:?})"),
            Self::Stop => f.write_str("STOP"),
            Self::StopNone => f.write_str("STOP without a log"),
            Self::Report(area) => write!(f, "REPORT {area:?}"),
            Self::BadReport(bad) => write!(f, "bad REPORT ({bad:?})"),
            Self::Write(area) => write!(f, "write {area:?}"),
            Self::Set(to) => write!(f, "SET {to}"),
            Self::Get => f.write_str("GET"),
            Self::Reset => f.write_str("reset"),
            Self::ResetThenStop => f.write_str("reset and STOP"),
            Self::Reopen => f.write_str("close and open"),
        }
    }
}

/// What came of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum Answer {
    Done,
    Refused,
    /// Refused with an errno that is not the kernel's.
    RefusedWith(Errno),
    /// Whatever was said.
    Whatever,
    In(State),
    /// A report: whether it has the page that is written.
    Page(bool),
    /// A report with other pages of the area, as bits.
    Pages(u64),
    /// START gave back this.
    PageSize(u64),
}

impl fmt::Display for Answer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Done => f.write_str("ok"),
            Self::Refused => f.write_str("an error"),
            Self::RefusedWith(errno) => write!(f, "{errno}"),
            Self::Whatever => f.write_str("anything"),
            Self::In(state) => state.fmt(f),
            Self::Page(true) => f.write_str("the page"),
            Self::Page(false) => f.write_str("no page"),
            Self::Pages(bits) => write!(f, "the wrong pages ({bits:#b})"),
            Self::PageSize(bytes) => write!(f, "a page_size of {bytes:#x}"),
        }
    }
}

/// What is known of the log.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
struct Spec {
    /// Whether there is a log, of both areas.
    on: bool,
    /// Of each area, whether its page was written since it was reported.
    dirty: [bool; 2],
    running: bool,
}

impl Spec {
    const FRESH: Self = Self { on: false, dirty: [false; 2], running: true };

    /// Where an input leads, and what it must be answered; `None` where nothing is said.
    fn step(self, input: Input, can_write: bool) -> Option<(Self, Answer)> {
        let on = self.on;
        let [started, stopped] = [true, false].map(|on| Self { on, dirty: [false; 2], ..self });
        Some(match input {
            Input::StartBoth if on => (self, Answer::Refused),
            Input::StartBoth => (started, Answer::Done),
            Input::StartMany if !on => (self, Answer::Done),
            Input::Stop if on => (stopped, Answer::Done),
            Input::StopNone if !on => (self, Answer::Whatever),
            Input::StartMany | Input::Stop | Input::StopNone => return None,
            Input::BadStart(_) | Input::BadReport(_) => (self, Answer::Refused),
            Input::Report(_) if !on => (self, Answer::Refused),
            Input::Report(area) => {
                let at = area as usize;
                let mut cleared = self;
                cleared.dirty[at] = false;
                (cleared, if can_write { Answer::Page(self.dirty[at]) } else { Answer::Done })
            }
            Input::Write(area) => {
                // A device that is stopped writes nothing.
                let at = area as usize;
                let mut written = self;
                written.dirty[at] |= on;
                return self.running.then_some((written, Answer::Done));
            }
            Input::Set(to) => (Self { running: to == State::Running, ..self }, Answer::Done),
            Input::Get => {
                (self, Answer::In(if self.running { State::Running } else { State::Stop }))
            }
            Input::Reset => (Self { running: true, ..self }, Answer::Done),
            Input::ResetThenStop => (Self { running: true, ..stopped }, Answer::Done),
            Input::Reopen => (Self::FRESH, Answer::Done),
        })
    }
}

/// The machine, and what its numbers mean.
struct Specification {
    machine: Machine,
    inputs: Vec<Input>,
    answers: Vec<Answer>,
}

impl Specification {
    fn new(can_write: bool, at_reset: AtReset) -> Self {
        let inputs = Input::all(can_write, at_reset);
        let (mut states, mut answers, mut table) = (vec![Spec::FRESH], Vec::new(), Vec::new());
        let mut known = HashMap::from([(Spec::FRESH, 0)]);
        let mut at = 0;
        while let Some(&state) = states.get(at) {
            for &input in &inputs {
                let entry = state.step(input, can_write).map(|(to, answer)| {
                    let node = *known.entry(to).or_insert_with(|| {
                        states.push(to);
                        states.len() as Node - 1
                    });
                    (node, number(&mut answers, answer))
                });
                table.push(entry);
            }
            at += 1;
        }
        Self { machine: Machine::new(inputs.len(), table), inputs, answers }
    }
}

fn number(answers: &mut Vec<Answer>, answer: Answer) -> Output {
    let known = answers.iter().position(|known| *known == answer);
    known.unwrap_or_else(|| {
        answers.push(answer);
        answers.len() - 1
    }) as Output
}

/// What a complete suite came to.
#[derive(Clone, Debug, Serialize)]
pub struct Complete {
    /// States of the log.
    pub states: usize,
    /// Things to do.
    pub inputs: usize,
    /// How large the suite is.
    pub size: Size,
    /// How many tests failed.
    pub failed: u64,
    /// What a pass proves, if it is one.
    pub theorem: Option<String>,
    /// The first shortest failure.
    pub failure: Option<Failure>,
}

impl Complete {
    /// Whether every test passed.
    pub const fn is_good(&self) -> bool {
        self.failed == 0
    }
}

/// A sequence that was answered wrongly, in the end.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Failure {
    /// What was done.
    pub word: Vec<String>,
    /// What the last of it should have been answered.
    pub expected: String,
    /// What it was answered.
    pub seen: String,
}

/// Runs the complete suite for logs with so many states more than there are.
///
/// # Errors
///
/// The device cannot be had as it is when it is fresh.
pub fn complete(device: &mut dyn Dirty, extra: usize) -> Result<Complete, DirtyError> {
    let Specification { machine, inputs, mut answers } =
        Specification::new(device.can_write(), device.at_reset());
    let suite =
        complete::Complete::new(&machine, extra).map_err(|error| DirtyError(error.into()))?;
    let (mut failed, mut shortest, mut unusable) = (0, None::<(Vec<Symbol>, Output)>, None);
    suite.for_each(|_, word| {
        if unusable.is_some() {
            return;
        }
        let mut ask = || {
            device.fresh()?;
            let does = |&symbol: &Symbol| {
                let answer = act(device, inputs[usize::from(symbol)]);
                number(&mut answers, answer)
            };
            Ok(word.iter().map(does).collect::<Vec<_>>())
        };
        match ask() {
            Ok(seen) => {
                if let Some(at) = machine.refuted(word, &seen) {
                    failed += 1;
                    if shortest.as_ref().is_none_or(|(known, _)| known.len() > at) {
                        shortest = Some((word[..at].to_vec(), seen[at - 1]));
                    }
                }
            }
            Err(error) => unusable = Some(error),
        }
    });
    if let Some(error) = unusable {
        return Err(error);
    }
    let failure = shortest.map(|(word, seen)| {
        let before = machine.run(0, &word[..word.len() - 1]);
        let last = word.last().copied().unwrap_or_default();
        let step = before.and_then(|before| machine.step(before, last));
        let answer = |output: Output| answers[usize::from(output)].to_string();
        Failure {
            word: word.iter().map(|&symbol| inputs[usize::from(symbol)].to_string()).collect(),
            expected: step.map_or_else(String::new, |(_, expected)| answer(expected)),
            seen: answer(seen),
        }
    });
    Ok(Complete {
        states: machine.states(),
        inputs: inputs.len(),
        size: suite.size(),
        failed,
        theorem: (failed == 0).then(|| suite.theorem()),
        failure,
    })
}

fn act(device: &mut dyn Dirty, input: Input) -> Answer {
    let done = |result: Result<(), Refused>| match result {
        Ok(()) => Answer::Done,
        Err(_) => Answer::Refused,
    };
    match input {
        Input::StartBoth => start(device, &Area::ALL.map(Area::range)),
        Input::StartMany => match start(device, &many(ENOUGH)) {
            Answer::Done => done(device.stop()),
            refused => refused,
        },
        Input::BadStart(bad) => match device.start(PAGE, &bad.ranges()) {
            Ok(_) => Answer::Done,
            Err(refused) => refusal(refused, bad.errno()),
        },
        Input::Stop => done(device.stop()),
        Input::StopNone => {
            let _whatever = device.stop();
            Answer::Whatever
        }
        Input::Report(area) => report(device, area),
        Input::BadReport(bad) => {
            let (range, page_size) = bad.call();
            match device.report(range, page_size, &mut bitmap(range, page_size)) {
                Ok(()) => Answer::Done,
                Err(refused) => refusal(refused, bad.errno()),
            }
        }
        Input::Write(area) => {
            device.write(area.range().iova + area.page() * PAGE, 1);
            Answer::Done
        }
        Input::Set(to) => done(device.set(to)),
        Input::Get => device.get().map_or(Answer::Refused, Answer::In),
        Input::Reset => done(device.reset()),
        Input::ResetThenStop => {
            let reset = done(device.reset());
            let _whatever = device.stop();
            reset
        }
        Input::Reopen => match device.fresh() {
            Ok(()) => Answer::Done,
            Err(_) => Answer::Refused,
        },
    }
}

fn start(device: &mut dyn Dirty, ranges: &[IovaRange]) -> Answer {
    match device.start(PAGE, ranges) {
        Ok(page_size) if page_size.is_power_of_two() => Answer::Done,
        Ok(page_size) => Answer::PageSize(page_size),
        Err(_) => Answer::Refused,
    }
}

/// The kernel's own checks have errnos of their own (C39).
fn refusal(refused: Refused, due: Errno) -> Answer {
    match refused.errno {
        Some(errno) if errno != due => Answer::RefusedWith(errno),
        _ => Answer::Refused,
    }
}

/// Of a device with larger pages, all of the area is told where any is.
fn report(device: &mut dyn Dirty, area: Area) -> Answer {
    let range = area.range();
    let mut bits = bitmap(range, PAGE);
    if device.report(range, PAGE, &mut bits).is_err() {
        return Answer::Refused;
    }
    if !device.can_write() {
        return Answer::Done;
    }
    let seen = bits.first().copied().unwrap_or_default();
    let all = (1 << PAGES) - 1;
    match seen {
        0 => Answer::Page(false),
        _ if seen == 1 << area.page() || seen == all => Answer::Page(true),
        _ => Answer::Pages(seen),
    }
}
