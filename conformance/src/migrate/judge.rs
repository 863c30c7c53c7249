// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! Whether a run ended as it must: with the destination equal to what the source was, or with a
//! failure said aloud, the source running and good for the next attempt.

use std::collections::BTreeMap;
use std::fmt;

use serde::{Deserialize, Serialize};
use vfio_fsm_core::vmm::{Evidence, Guest, Verdict};
use vfio_fsm_core::{Op, RawState, State};

use super::probe::{MOST_OPS, Subject};
use super::record::{Content, Facts};
use super::vmm::{FIRST, VALUES, snapshot};

/// How a session ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum Ended {
    Complete,
    Aborted,
    Stuck,
}

impl From<Verdict> for Ended {
    fn from(verdict: Verdict) -> Self {
        match verdict {
            Verdict::Complete { .. } => Self::Complete,
            Verdict::Aborted { .. } => Self::Aborted,
            Verdict::Stuck { .. } => Self::Stuck,
        }
    }
}

/// One side when all is over, as it was found by direct calls.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Side {
    pub(super) ended: Ended,
    /// The verdict in words.
    pub(super) verdict: String,
    /// Whether the guest may not touch it.
    pub(super) frozen: bool,
    /// The device was made to fail the last resort, a reset, or the look behind it.
    pub(super) refused_at_last: bool,
    pub(super) state: Result<RawState, String>,
    /// What a snapshot taken afterwards reads, or why none could be taken.
    pub(super) image: Result<Image, String>,
    /// What the device did that no reply has a word for.
    pub(super) anomaly: Option<String>,
    /// All that happened.
    pub(super) log: Vec<String>,
}

/// What a STOP_COPY stream reads, from a fresh session.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub(super) struct Image(#[serde(with = "hex::serde")] pub(super) Vec<u8>);

/// One run.
#[derive(Clone, Debug)]
pub(super) struct Run {
    pub(super) source: Side,
    pub(super) guest: Guest,
    pub(super) evidence: Option<Evidence>,
    pub(super) facts: Facts,
    pub(super) destination: Side,
    /// When a reset by another process really came.
    pub(super) fell: Option<Fell>,
}

/// When a reset by another process really came, by the clock of both.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Fell {
    /// It had returned before the op was begun.
    Before,
    /// It returned while the op was under way.
    Into,
    /// It was called before the op returned, and returned later.
    Across,
    /// It was called when the op had returned.
    After,
}

/// How a run ended, if it ended well.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Outcome {
    /// The destination is what the source was when it stopped, resets and all that came after them
    /// included.
    Equal,
    /// The same, and the host reset the source when its image had been read to the end: the
    /// destination is what it was before.
    Whole,
    /// A failure said aloud: source in RUNNING with all that its guest did, and saved once more;
    /// destination blank.
    Aborted,
    /// The device does not come back, and did refuse.
    Stuck,
}

impl fmt::Display for Fell {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Before => "before",
            Self::Into => "into it",
            Self::Across => "across its end",
            Self::After => "after",
        })
    }
}

impl fmt::Display for Outcome {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Equal => "equal",
            Self::Whole => "whole",
            Self::Aborted => "aborted",
            Self::Stuck => "stuck",
        })
    }
}

/// What a device with known content reads, found out on one that nobody disturbs.
#[derive(Debug, Default)]
pub(super) struct Images(BTreeMap<Content, Result<Image, String>>);

impl Images {
    /// Ask a device that is in RUNNING, of all that a guest here writes.
    pub(super) fn of(device: &mut impl Subject) -> Self {
        let mut images = BTreeMap::new();
        for touched in (FIRST..FIRST + VALUES).chain([MARK.touched]) {
            let _ok = device.apply(Op::Touch(touched), &mut []);
            for reset in [false, true] {
                if reset {
                    device.reset();
                }
                let image = snapshot(device, State::Running.into());
                images.insert(Content { touched, reset }, image);
            }
        }
        Self(images)
    }

    /// Two values have two images, or equality would prove nothing.
    pub(super) fn tell_values_apart(&self) -> bool {
        let fresh = || self.0.iter().filter(|(content, _)| !content.reset);
        fresh().all(|(a, one)| fresh().all(|(b, other)| a == b || one != other))
    }

    fn is(&self, side: &Side, content: Content, what: &str) -> Result<(), String> {
        let seen = side.image.as_ref().map_err(|error| format!("{what}: {error}"))?;
        match self.0.get(&content) {
            Some(Ok(known)) if known == seen => Ok(()),
            Some(Ok(known)) => Err(format!(
                "{what} should hold {content}, {}, and reads {}",
                hex::encode(&known.0),
                hex::encode(&seen.0)
            )),
            Some(Err(error)) => Err(format!("no image is known of {content}: {error}")),
            None => Err(format!("no image is known of {content}")),
        }
    }
}

impl fmt::Display for Content {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let reset = if self.reset { " and then a reset" } else { "" };
        write!(f, "the guest's {:#04x}{reset}", self.touched)
    }
}

/// What the destination's guest would have written before, so that a load shows.
pub(super) const MARK: Content = Content { touched: 0xd5, reset: false };

/// The verdict on a run, or what is wrong with it.
pub(super) fn judge(run: &Run, images: &Images) -> Result<Outcome, String> {
    require(run.facts.ops.len() <= MOST_OPS, format!("no end after {MOST_OPS} ops"))?;
    for side in [&run.source, &run.destination] {
        side.anomaly.as_ref().map_or(Ok(()), |anomaly| Err(anomaly.clone()))?;
    }
    let outcome = match run.source.ended {
        Ended::Complete => complete(run, images),
        Ended::Aborted => aborted(run, images),
        Ended::Stuck if run.source.refused_at_last => Ok(Outcome::Stuck),
        Ended::Stuck => Err("stuck, and the device refused nothing".to_owned()),
    }?;
    destination_gone(run, images)?;
    guest(run)?;
    Ok(outcome)
}

fn require(holds: bool, otherwise: impl Into<String>) -> Result<(), String> {
    if holds { Ok(()) } else { Err(otherwise.into()) }
}

fn in_state(side: &Side, state: State, what: &str) -> Result<(), String> {
    let seen = side.state.as_ref().map_err(|error| format!("{what}: {error}"))?;
    require(*seen == state.into(), format!("{what} is in {seen}, not {state}"))
}

/// The destination runs with what the source was when it stopped.
fn complete(run: &Run, images: &Images) -> Result<Outcome, String> {
    let Run { source, destination, facts, .. } = run;
    require(destination.ended == Ended::Complete, "the source is complete, the destination not")?;
    in_state(destination, State::Running, "the destination")?;
    require(!destination.frozen, "the destination is complete and still frozen")?;
    require(source.frozen, "both guests run")?;
    let whole = facts.whole.ok_or("complete, and the device was not read to its end")?;
    images.is(destination, whole, "the destination")?;
    if facts.reset_when_whole {
        return Ok(Outcome::Whole);
    }
    in_state(source, State::Stop, "the source")?;
    images.is(source, whole, "the source")?;
    Ok(Outcome::Equal)
}

/// The source runs, with all that its guest did.
fn aborted(run: &Run, images: &Images) -> Result<Outcome, String> {
    let Run { source, destination, facts, .. } = run;
    require(destination.ended != Ended::Complete, "aborted, and the destination runs")?;
    in_state(source, State::Running, "the source")?;
    require(!source.frozen, "aborted, and the source's guest is still frozen")?;
    images.is(source, facts.content, "the source")?;
    Ok(Outcome::Aborted)
}

/// A destination that has no guest is as good as new, and can be used again (V8).
fn destination_gone(run: &Run, images: &Images) -> Result<(), String> {
    let Run { destination, .. } = run;
    match destination.ended {
        Ended::Complete => return Ok(()),
        Ended::Stuck if destination.refused_at_last => return Ok(()),
        Ended::Stuck => return Err("the destination is stuck, and nobody refused it".to_owned()),
        Ended::Aborted => {}
    }
    in_state(destination, State::Running, "the destination")?;
    require(!destination.frozen, "the destination is aborted and still frozen")?;
    let what = "the destination, given up,";
    let untouched = images.is(destination, MARK, what);
    untouched.or_else(|_wrong| images.is(destination, Content { reset: true, ..MARK }, what))
}

/// What the VMM is told of the guest's device is what happened to it (V7).
fn guest(run: &Run) -> Result<(), String> {
    let Run { facts, guest, source, .. } = run;
    let lost = facts.lost || source.ended == Ended::Stuck;
    let says_lost = *guest == Guest::LostByUs;
    require(!lost || says_lost, format!("we reset the device, and the guest is {guest}"))?;
    require(lost || !says_lost, "nobody but guest or host reset the device, and it is lost by us")?;
    let says_reset = *guest == Guest::ResetByItself;
    require(!says_reset || facts.resets > 0, "there was no reset, and one was found")?;
    let seen = run.evidence.is_some();
    require(!seen || facts.resets > 0, "there was no reset, and there is evidence of one")?;
    require(!seen || *guest != Guest::Intact, "a reset was seen, and the guest is intact")
}

impl fmt::Display for Side {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.state {
            Ok(state) => write!(f, "{}; found in {state}", self.verdict),
            Err(error) => write!(f, "{}; {error}", self.verdict),
        }
    }
}

impl Run {
    /// All of it, for a person.
    pub(super) fn story(&self) -> Vec<String> {
        let mut story = vec!["source:".to_owned()];
        story.extend(self.source.log.iter().cloned());
        story.push(format!("    {}", self.source));
        story.push("destination:".to_owned());
        story.extend(self.destination.log.iter().cloned());
        story.push(format!("    {}", self.destination));
        story
    }
}
