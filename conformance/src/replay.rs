// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! Runs traces on a [`Target`] and gives verdicts. Nothing is skipped in silence: a trace that a
//! target cannot run is *not applicable*, with the reason.

use std::collections::BTreeMap;
use std::error::Error;
use std::fmt;

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
}

impl fmt::Display for Mismatch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { step, op, expected, seen } = self;
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

/// One call never reads more.
const BUFFER: usize = 1 << 20;

/// Replays traces one after another, on one set of targets.
pub struct Replayer<'t> {
    targets: Vec<&'t mut dyn Target>,
    buffer: Vec<u8>,
    slots: Slots,
    ops: u64,
    unsaid: BTreeMap<&'static str, u64>,
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
        let (slots, unsaid) = (Slots::default(), BTreeMap::new());
        Self { targets, buffer: vec![0; BUFFER], slots, ops: 0, unsaid }
    }

    /// Run one trace from a fresh start. A device that cannot be had fresh fails it.
    pub fn replay(&mut self, trace: &Trace, options: Options<'_>) -> Outcome {
        if let Some(reason) = self.inapplicable(trace, options) {
            return Outcome { verdict: Verdict::NotApplicable { reason }, ops: 0 };
        }
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
    pub fn unsaid(&self) -> &BTreeMap<&'static str, u64> {
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
        let mut ids: Vec<String> = Vec::new();
        let mut judged = false;
        for (number, step) in (1..).zip(&trace.steps) {
            let seen = match self.step(step) {
                Ok(seen) => seen,
                Err(problem) => return Verdict::Fail(mismatch(number, step, problem)),
            };
            let target = &mut self.targets[usize::from(step.device)];
            if let Some(anomaly) = target.take_anomaly() {
                return Verdict::Fail(mismatch(number, step, anomaly));
            }
            if let Some(why) = target.take_unsaid() {
                *self.unsaid.entry(why).or_default() += 1;
                continue;
            }
            judged = true;
            if step.expect.admits(&seen.reply) && seen.same {
                continue;
            }
            let known = options
                .deviations
                .and_then(|list| list.find(&trace.header.name, step, &seen.reply, seen.same));
            match known {
                Some(id) if ids.iter().any(|known| known == id) => {}
                Some(id) => ids.push(id.to_owned()),
                None => {
                    let other = if seen.same { "" } else { ", and other bytes than expected" };
                    return Verdict::Fail(mismatch(
                        number,
                        step,
                        format!("{}{other}", Shown(&seen.reply)),
                    ));
                }
            }
        }
        match (judged || trace.steps.is_empty(), ids.is_empty()) {
            (false, _) => {
                Verdict::NotApplicable { reason: "no step can be put to the target".into() }
            }
            (true, true) => Verdict::Pass,
            (true, false) => Verdict::Deviation { ids },
        }
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
    Mismatch { step: 0, op: "the start".to_owned(), expected, seen: error.0.to_string() }
}

fn mismatch(step: usize, at: &Step, seen: String) -> Mismatch {
    let on = if at.device > 0 { " on the destination" } else { "" };
    let until = if at.until_end { " until the end" } else { "" };
    let op = format!("{}{until}{on}", at.op);
    let same = if at.same_as.is_some() { " and the same bytes" } else { "" };
    Mismatch { step, op, expected: format!("{}{same}", at.expect), seen }
}

/// A reply whose bytes are counted.
struct Shown<'a>(&'a Reply<usize>);

impl fmt::Display for Shown<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            Reply::Bytes(len) => write!(f, "{len} bytes"),
            other => other.fmt(f),
        }
    }
}
