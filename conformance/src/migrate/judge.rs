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
pub(super) struct Images {
    known: Known,
    /// What a destination reads that has loaded nothing.
    blank: Known,
}

type Known = BTreeMap<Content, Result<Image, String>>;

impl Images {
    /// Ask a device that is in RUNNING, of all that a guest here writes.
    pub(super) fn of(device: &mut impl Subject) -> Self {
        let known: Known = (FIRST..FIRST + VALUES).flat_map(|value| read(device, value)).collect();
        Self { known, blank: read(device, MARK.touched).into() }
    }

    /// And a destination, which does not read the same before it has loaded.
    pub(super) fn blank(self, device: &mut impl Subject) -> Self {
        Self { blank: read(device, MARK.touched).into(), ..self }
    }

    /// Two values have two images, or equality would prove nothing.
    pub(super) fn tell_values_apart(&self) -> bool {
        let all = || self.known.iter().chain(&self.blank);
        let fresh = || all().filter(|(content, _)| !content.reset);
        fresh().all(|(a, one)| fresh().all(|(b, other)| a == b || one != other))
    }

    fn is(&self, side: &Side, content: Content, what: &str) -> Result<(), String> {
        let seen = side.image.as_ref().map_err(|error| format!("{what}: {error}"))?;
        match self.known.get(&content).or_else(|| self.blank.get(&content)) {
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

/// What it reads when its guest has written this, and when it was reset then.
fn read(device: &mut impl Subject, touched: u8) -> [(Content, Result<Image, String>); 2] {
    let _ok = device.apply(Op::Touch(touched), &mut []);
    [false, true].map(|reset| {
        if reset {
            device.reset();
        }
        (Content { touched, reset }, snapshot(device, State::Running.into()))
    })
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

#[cfg(test)]
mod tests {
    use vfio_fsm_core::Features;

    use super::*;
    use crate::migrate::case::{Case, Choice, When};
    use crate::migrate::matrix::Bench;
    use crate::migrate::memory::{InMemory, InMemoryDevice};

    fn bench() -> InMemory {
        InMemory::new(Features::ALL, None.into()).expect("it can be made")
    }

    fn run(case: Case) -> Run {
        bench().run(&case, 0).expect("it can be run")
    }

    type Lie = (&'static str, fn(&mut Run));

    /// Each lie told about a good run is found out.
    #[track_caller]
    fn found_out(good: &Run, lies: &[Lie]) {
        let bench = bench();
        judge(good, bench.images()).expect("the truth is fine");
        for (name, lie) in lies {
            let mut run = good.clone();
            lie(&mut run);
            assert!(judge(&run, bench.images()).is_err(), "nobody noticed: {name}");
        }
    }

    fn blank() -> Result<Image, String> {
        Ok(Image(b"F".to_vec()))
    }

    /// V6, V7: what a complete migration must be.
    #[test]
    fn lies_about_a_complete_migration_are_found_out() {
        found_out(
            &run(Case::Undisturbed),
            &[
                ("the destination gave up", |run| run.destination.ended = Ended::Aborted),
                ("the destination holds something else", |run| run.destination.image = blank()),
                ("the destination holds what was before", |run| {
                    let before = Content { touched: FIRST, reset: false };
                    run.facts.whole = Some(before);
                }),
                ("the destination has no image", |run| {
                    run.destination.image = Err("none".to_owned());
                }),
                ("the destination is in STOP", |run| {
                    run.destination.state = Ok(State::Stop.into());
                }),
                ("the destination is frozen", |run| run.destination.frozen = true),
                ("both guests run", |run| run.source.frozen = false),
                ("the source is in RUNNING", |run| run.source.state = Ok(State::Running.into())),
                ("the source does not say where it is", |run| {
                    run.source.state = Err("EIO".to_owned());
                }),
                ("the source holds something else", |run| run.source.image = blank()),
                ("it was not read to its end", |run| run.facts.whole = None),
                ("a reset that was none", |run| run.guest = Guest::ResetByItself),
                ("a device that was not lost", |run| run.guest = Guest::LostByUs),
                ("evidence of nothing", |run| run.evidence = Some(Evidence::Ordered)),
                ("an anomaly", |run| run.source.anomaly = Some("odd".to_owned())),
                ("an anomaly there", |run| run.destination.anomaly = Some("odd".to_owned())),
                ("the session reset the device", |run| run.facts.lost = true),
                ("no end", |run| run.facts.ops.resize(MOST_OPS + 1, String::new())),
                ("stuck without a reason", |run| run.source.ended = Ended::Stuck),
                ("the source gave up", |run| run.source.ended = Ended::Aborted),
            ],
        );
    }

    /// V7, V8: what a migration that was given up must be.
    #[test]
    fn lies_about_a_migration_that_was_given_up_are_found_out() {
        found_out(
            &run(Case::DestinationGivesUp),
            &[
                ("the destination runs", |run| run.destination.ended = Ended::Complete),
                ("the destination is stuck", |run| run.destination.ended = Ended::Stuck),
                ("the destination is in RESUMING", |run| {
                    run.destination.state = Ok(State::Resuming.into());
                }),
                ("the destination is frozen", |run| run.destination.frozen = true),
                ("the destination kept what it was sent", |run| {
                    run.destination.image = run.source.image.clone();
                }),
                ("the source is in STOP", |run| run.source.state = Ok(State::Stop.into())),
                ("the source is frozen", |run| run.source.frozen = true),
                ("the source has forgotten", |run| run.source.image = blank()),
                ("the source cannot be saved again", |run| {
                    run.source.image = Err("EINVAL".to_owned());
                }),
                ("the source is complete", |run| run.source.ended = Ended::Complete),
            ],
        );
    }

    /// V7: a reset that was seen is told to the VMM.
    #[test]
    fn lies_about_a_reset_are_found_out() {
        let case = Case::Reset { step: 12, when: When::Before, choice: Choice::Restart };
        found_out(
            &run(case),
            &[
                ("the guest is intact", |run| run.guest = Guest::Intact),
                ("nobody reset it", |run| run.facts.resets = 0),
                ("it was reset once more", |run| {
                    run.facts.whole = run.facts.whole.map(|whole| Content { reset: true, ..whole });
                }),
            ],
        );
    }

    /// Where two values look alike, equality proves nothing, and that is noticed.
    #[test]
    fn a_device_that_does_not_keep_what_is_written_is_no_use() {
        let device = crate::target::MemoryDevice::new(Features::ALL, Default::default());
        let mut images = Images::of(&mut InMemoryDevice::Reference(device));
        assert!(images.tell_values_apart());
        let one = images.blank[&MARK].clone();
        images.known.insert(Content { touched: FIRST, reset: false }, one);
        assert!(!images.tell_values_apart());
    }
}
