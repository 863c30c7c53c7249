// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! Runs traces on a [`Target`] and gives verdicts. Nothing is skipped in silence: a trace that a
//! target cannot run is *not applicable*, with the reason.

use std::collections::{BTreeMap, HashSet};
use std::error::Error;
use std::fmt;
use std::time::{Duration, Instant};

use serde::{Deserialize, Serialize};
use vfio_fsm_core::{Features, Op, Reply};

use crate::deviation::Deviations;
use crate::trace::{Data, Need, Slots, Step, Trace};

/// A device to be tested. Implement it for your own: `examples/own_device.rs` does in a few lines.
pub trait Target {
    /// Whether the target can be a device with exactly these flags.
    fn offers(&self, features: Features) -> bool;

    /// Whether the target can do what plain ops cannot. A close is a plain op for most.
    fn can(&self, need: Need) -> bool {
        need == Need::Reopen
    }

    /// Whether a hang or a crash of the target would take the host with it.
    fn is_kernel(&self) -> bool {
        false
    }

    /// Become a fresh device with these flags: in RUNNING, no data_fds, numbering from 1.
    fn fresh(&mut self, features: Features) -> Result<(), TargetError>;

    /// Carry out one op. A read puts its bytes into `buf`.
    fn apply<'b>(&mut self, op: Op<&[u8]>, buf: &'b mut [u8]) -> Reply<&'b [u8]>;

    /// Something wrong with the latest op that its reply has no word for; it fails the trace.
    fn take_anomaly(&mut self) -> Option<String> {
        None
    }

    /// Why the latest op was not put to the device, if it was not: one that changes nothing, and for
    /// which the way to this device has no word. Its reply is not the device's, so it is not judged.
    fn take_unsaid(&mut self) -> Option<&'static str> {
        None
    }
}

/// A target that could not be brought to a fresh start: a verdict on it, if a reset does not do it.
#[derive(Debug, thiserror::Error)]
#[error("the device under test is unusable: {0}")]
pub struct TargetError(#[source] pub Box<dyn Error + Send + Sync>);

/// What a trace came to.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "verdict", rename_all = "snake_case")]
pub enum Verdict {
    /// Every reply was as expected.
    Pass,
    /// A reply was not.
    Fail(Mismatch),
    /// Replies differed, all of them in ways that are listed with their reasons.
    Deviation {
        /// The ids of the list.
        ids: Vec<String>,
        /// The steps at which they differed, counted from 1; none if it was no reply that did.
        #[serde(default, skip_serializing_if = "Vec::is_empty")]
        steps: Vec<usize>,
    },
    /// The target cannot run this trace.
    NotApplicable {
        /// Why.
        reason: String,
    },
}

/// Where a device differed.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Mismatch {
    /// Which step, counted from 1.
    pub step: usize,
    /// What was done.
    pub op: String,
    /// What would have been right.
    pub expected: String,
    /// What came.
    pub seen: String,
    /// Every step up to this one, as it went. Told for the first failure of a kind alone: of a
    /// device that fails thousands of traces alike, one of them is enough to look at.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub story: Vec<Exchange>,
}

/// One step as it went: what was done to whom, and the answer beside the right one.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Exchange {
    /// Which device: 0, or 1 for the destination.
    #[serde(default, skip_serializing_if = "is_source")]
    pub device: u8,
    /// The data_fd, if the op was on one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub fd: Option<u32>,
    /// What was done.
    pub op: String,
    /// What would have been right.
    pub expected: String,
    /// What came.
    pub seen: String,
    /// Whether the one is the other.
    #[serde(default, skip_serializing_if = "Judged::is_right")]
    pub judged: Judged,
}

/// What became of one step.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Judged {
    /// As expected.
    #[default]
    Right,
    /// Not as expected, and known.
    Known,
    /// Not asked: the target has no word for it.
    Unasked,
    /// Not as expected: the end of the trace.
    Wrong,
}

impl Judged {
    const fn is_right(&self) -> bool {
        matches!(self, Self::Right)
    }
}

const fn is_source(device: &u8) -> bool {
    *device == 0
}

impl fmt::Display for Mismatch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { step, op, expected, seen, .. } = self;
        write!(f, "step {step}: {op}: expected {expected}, saw {seen}")
    }
}

/// How to replay.
#[derive(Clone, Copy, Debug, Default)]
pub struct Options<'a> {
    /// Run traces that hang or crash some kernels, on a kernel.
    pub dangerous: bool,
    /// What is known of this target.
    pub deviations: Option<&'a Deviations>,
}

/// A verdict, and how many ops it took.
#[derive(Clone, Debug)]
pub struct Outcome {
    /// The verdict.
    pub verdict: Verdict,
    /// Ops that were carried out.
    pub ops: u64,
}

/// No device has to deliver more than this before its stream is taken for endless.
const LONGEST_STREAM: u64 = 4 << 30;

/// So many kinds of failure are told step by step.
const STORIES: usize = 64;

/// One call never reads more.
const BUFFER: usize = 1 << 20;

/// Replays traces one after another, on one set of targets.
pub struct Replayer<'t> {
    targets: Vec<&'t mut dyn Target>,
    buffer: Vec<u8>,
    slots: Slots,
    ops: u64,
    took: Duration,
    unsaid: BTreeMap<String, u64>,
    /// The answers of this trace so far.
    answers: Vec<(Seen, Judged)>,
    /// The kinds of failure that were told: the op, what was expected and what came.
    told: HashSet<[String; 3]>,
}

impl fmt::Debug for Replayer<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Replayer").field("targets", &self.targets.len()).finish_non_exhaustive()
    }
}

/// What a step saw: its last reply with the bytes counted, and whether the bytes were right.
struct Seen {
    reply: Reply<usize>,
    same: bool,
}

impl<'t> Replayer<'t> {
    /// A replayer for one target, or for two of a kind: the source and the destination.
    pub fn new(targets: Vec<&'t mut dyn Target>) -> Self {
        Self {
            targets,
            buffer: vec![0; BUFFER],
            slots: Slots::default(),
            ops: 0,
            took: Duration::ZERO,
            unsaid: BTreeMap::new(),
            answers: Vec::new(),
            told: HashSet::new(),
        }
    }

    /// Run one trace from a fresh start. A device that cannot be had fresh fails it.
    pub fn replay(&mut self, trace: &Trace, options: Options<'_>) -> Outcome {
        if let Some(reason) = self.inapplicable(trace, options) {
            return Outcome { verdict: Verdict::NotApplicable { reason }, ops: 0 };
        }
        let began = Instant::now();
        let outcome = self.afresh(trace, options);
        self.took += began.elapsed();
        outcome
    }

    /// How long all traces so far have taken, without what is made of their verdicts.
    pub const fn took(&self) -> Duration {
        self.took
    }

    fn afresh(&mut self, trace: &Trace, options: Options<'_>) -> Outcome {
        for target in self.targets.iter_mut().take(devices(trace)) {
            if let Err(error) = target.fresh(trace.header.features) {
                return Outcome { verdict: Verdict::Fail(not_fresh(&error)), ops: 0 };
            }
        }
        self.slots = Slots::default();
        self.ops = 0;
        let verdict = self.run(trace, options);
        Outcome { verdict, ops: self.ops }
    }

    /// Steps of all traces so far that could not be put to a target and were not judged, by the reason.
    pub fn unsaid(&self) -> &BTreeMap<String, u64> {
        &self.unsaid
    }

    /// Why the targets cannot run a trace, if they cannot.
    pub fn inapplicable(&self, trace: &Trace, options: Options<'_>) -> Option<String> {
        let Some(first) = self.targets.first() else { return Some("there is no target".into()) };
        let features = trace.header.features;
        if !first.offers(features) {
            return Some(format!("the target is no device with {features}"));
        }
        if let Some(why) = trace.header.dangerous.as_ref()
            && first.is_kernel()
            && !options.dangerous
        {
            return Some(format!("{why}; --dangerous runs it"));
        }
        let missing = trace.needs().find(|&need| match need {
            Need::SecondDevice => self.targets.len() < devices(trace),
            need => !first.can(need),
        });
        missing.map(|need| format!("the target lacks {need}"))
    }

    fn run(&mut self, trace: &Trace, options: Options<'_>) -> Verdict {
        let (mut ids, mut steps): (Vec<String>, Vec<usize>) = (Vec::new(), Vec::new());
        let mut judged = false;
        self.answers.clear();
        for (number, step) in (1..).zip(&trace.steps) {
            let seen = match self.step(step).and_then(|seen| self.unless_odd(step, seen)) {
                Ok(seen) => seen,
                Err(problem) => return self.fail(trace, number, problem),
            };
            if let Some(why) = self.targets[usize::from(step.device)].take_unsaid() {
                *self.unsaid.entry(why.to_owned()).or_default() += 1;
                self.answers.push((seen, Judged::Unasked));
                continue;
            }
            judged = true;
            if step.expect.admits(&seen.reply) && seen.same {
                self.answers.push((seen, Judged::Right));
                continue;
            }
            let known = options
                .deviations
                .and_then(|list| list.find(&trace.header.name, step, &seen.reply, seen.same));
            let Some(id) = known else { return self.fail(trace, number, seen.to_string()) };
            if !ids.iter().any(|known| known == id) {
                ids.push(id.to_owned());
            }
            steps.push(number);
            self.answers.push((seen, Judged::Known));
        }
        match (judged || trace.steps.is_empty(), ids.is_empty()) {
            (false, _) => {
                Verdict::NotApplicable { reason: "no step can be put to the target".into() }
            }
            (true, true) => Verdict::Pass,
            (true, false) => Verdict::Deviation { ids, steps },
        }
    }

    /// What was seen, unless something was wrong that a reply has no word for.
    fn unless_odd(&mut self, step: &Step, seen: Seen) -> Result<Seen, String> {
        self.targets[usize::from(step.device)].take_anomaly().map_or(Ok(seen), Err)
    }

    fn fail(&mut self, trace: &Trace, number: usize, seen: String) -> Verdict {
        let mut mismatch = mismatch(number, &trace.steps[number - 1], seen);
        let Mismatch { op, expected, seen, .. } = &mismatch;
        let kind = [op.clone(), expected.clone(), seen.clone()];
        if self.told.len() < STORIES && self.told.insert(kind) {
            mismatch.story = self.story(trace, &mismatch);
        }
        Verdict::Fail(mismatch)
    }

    fn story(&self, trace: &Trace, last: &Mismatch) -> Vec<Exchange> {
        let before = trace.steps.iter().zip(&self.answers).map(|(step, (seen, judged))| Exchange {
            judged: *judged,
            ..Exchange::of(step, seen.to_string())
        });
        let wrong = trace.steps.get(last.step - 1).map(|step| Exchange {
            judged: Judged::Wrong,
            ..Exchange::of(step, last.seen.clone())
        });
        before.chain(wrong).collect()
    }

    fn step(&mut self, step: &Step) -> Result<Seen, String> {
        match &step.op {
            Op::Write { fd, bytes } => self.write(step, *fd, bytes),
            Op::Read { .. } | Op::UringRead { .. } => self.read(step),
            other => {
                // Only a write carries data, and it is dealt with above.
                let op = other.clone().map(|_| [].as_slice());
                Ok(Seen { reply: self.apply(step.device, op).map(<[u8]>::len), same: true })
            }
        }
    }

    fn apply(&mut self, device: u8, op: Op<&[u8]>) -> Reply<&[u8]> {
        self.ops += 1;
        self.targets[usize::from(device)].apply(op, &mut self.buffer)
    }

    fn read(&mut self, step: &Step) -> Result<Seen, String> {
        let keeps = step.into.is_some() || step.same_as.is_some();
        let mut kept = Vec::new();
        let mut total = 0;
        let reply = loop {
            let op = step.op.clone().map(|_| [].as_slice());
            let reply = self.apply(step.device, op);
            let Reply::Bytes(bytes) = reply else { break reply.map(<[u8]>::len) };
            total += bytes.len();
            if keeps {
                kept.extend_from_slice(bytes);
            }
            if !step.until_end {
                break Reply::Bytes(total);
            }
            if bytes.is_empty() || total as u64 > LONGEST_STREAM {
                return Err(format!("no end after {total} bytes"));
            }
        };
        let same = match step.same_as {
            Some(slot) => self.slots.get(slot) == Some(&kept),
            None => true,
        };
        if let Some(slot) = step.into {
            self.slots.set(slot, kept);
        }
        Ok(Seen { reply, same })
    }

    /// Write all of it, in pieces of `chunk`; a device may take less than it is offered (R11).
    fn write(&mut self, step: &Step, fd: vfio_fsm_core::Fd, data: &Data) -> Result<Seen, String> {
        let Some(all) = data.resolve(&self.slots) else {
            return Err("the trace writes a slot that it never filled, or too much".to_owned());
        };
        let all = all.into_owned();
        let mut done = 0;
        loop {
            let piece =
                (all.len() - done).min(step.chunk.map_or(usize::MAX, |n| n.max(1) as usize));
            let op = Op::Write { fd, bytes: &all[done..done + piece] };
            match self.apply(step.device, op) {
                Reply::Written(0) if piece > 0 => {
                    return Err(format!("0 of {piece} bytes taken, after {done}"));
                }
                Reply::Written(taken) if taken as usize > piece => {
                    return Err(format!("{taken} of {piece} bytes taken, after {done}"));
                }
                Reply::Written(taken) => done += taken as usize,
                other => return Ok(Seen { reply: other.map(<[u8]>::len), same: true }),
            }
            if done >= all.len() {
                return Ok(Seen { reply: Reply::Written(done as u32), same: true });
            }
        }
    }
}

/// How many devices a trace speaks to.
fn devices(trace: &Trace) -> usize {
    trace.steps.iter().map(|step| usize::from(step.device) + 1).max().unwrap_or(1)
}

fn not_fresh(error: &TargetError) -> Mismatch {
    let expected = "a fresh device in RUNNING".to_owned();
    let (op, seen) = ("the start".to_owned(), error.0.to_string());
    Mismatch { step: 0, op, expected, seen, story: Vec::new() }
}

fn mismatch(step: usize, at: &Step, seen: String) -> Mismatch {
    let on = if at.device > 0 { " on the destination" } else { "" };
    let Exchange { op, expected, seen, .. } = Exchange::of(at, seen);
    Mismatch { step, op: format!("{op}{on}"), expected, seen, story: Vec::new() }
}

impl Exchange {
    fn of(step: &Step, seen: String) -> Self {
        let until = if step.until_end { " until the end" } else { "" };
        let same = if step.same_as.is_some() { " and the same bytes" } else { "" };
        let mut fd = None;
        // Only what an op is on is asked for; it is made anew for that.
        let _ = step.op.clone().map_fd(|on| fd = Some(on.0));
        Self {
            device: step.device,
            fd,
            op: format!("{}{until}", step.op),
            expected: format!("{}{same}", step.expect),
            seen,
            judged: Judged::Right,
        }
    }
}

/// A reply whose bytes are counted.
impl fmt::Display for Seen {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.reply {
            Reply::Bytes(len) => write!(f, "{len} bytes")?,
            other => other.fmt(f)?,
        }
        if self.same { Ok(()) } else { f.write_str(", and other bytes than expected") }
    }
}
