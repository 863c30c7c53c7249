// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! The shortest runs, found by the model checker, that break a property where something is wrong: in
//! the device, in the VMM, or in the property, which leaves an assumption out.
//!
//! A bug in a device fails its own trace. A slip of a VMM is no fault of the device: its trace is
//! what a device has to bear from such a VMM, and what a correct one answers.

use std::sync::{LazyLock, OnceLock};

use vfio_fsm_core::{Direction, Errno, Fault, Fd, Features, Op, Reply, State};
use vfio_fsm_model::{CLAIMS, Claim, CounterStep, Counterexample, Replay, Run, properties, refute};

use crate::suite::Suite;
use crate::suite::script::{READ, Script};
use crate::trace::{Data, Trace};

/// A claim, and the shortest run that shows its fault: found when it is asked for, and once, as it
/// takes a while.
#[derive(Debug)]
pub struct Refuted {
    /// The claim.
    pub claim: Claim,
    run: OnceLock<Option<Run>>,
}

impl Refuted {
    /// Every claim of [`CLAIMS`].
    pub fn all() -> &'static [Self] {
        static ALL: LazyLock<Vec<Refuted>> = LazyLock::new(|| {
            CLAIMS.iter().map(|&claim| Refuted { claim, run: OnceLock::new() }).collect()
        });
        &ALL
    }

    /// The run; `None` if the fault survives.
    pub fn run(&self) -> Option<&Run> {
        self.run.get_or_init(|| refute(&self.claim)).as_ref()
    }

    /// The run as a trace that a correct device passes; `None` if it is none that a device sees.
    pub fn trace(&self) -> Option<Trace> {
        if self.claim.level() != 1 {
            return None;
        }
        match self.run()?.replay.as_ref()? {
            Replay::Trace(run) => Some(to_trace(run, &self.name())),
            Replay::Schedule(_) => None,
        }
    }

    fn name(&self) -> String {
        let model = self.claim.model().to_lowercase().replace(", ", "-").replace(' ', "-");
        format!("{model}/{}/{}", self.claim.fault.slug(), self.claim.property)
    }
}

pub(super) fn generate(features: Features) -> Vec<Trace> {
    with_flags(features).filter_map(Refuted::trace).collect()
}

pub(super) fn named(features: Features, name: &str) -> Option<Trace> {
    let name = name.strip_prefix(&format!("{}/{}/", Suite::Model, features.slug()))?;
    with_flags(features).find(|refuted| refuted.name() == name)?.trace()
}

fn with_flags(features: Features) -> impl Iterator<Item = &'static Refuted> {
    Refuted::all().iter().filter(move |refuted| refuted.claim.features() == features)
}

fn ends_in_wrong_bytes(run: &Counterexample) -> bool {
    let last = run.steps.last();
    last.is_some_and(|last| {
        matches!((&last.seen, &last.correct), (Reply::Bytes(_), Reply::Bytes(_)))
    })
}

/// Whether the last step loads what was written.
fn ends_in_load(run: &Counterexample) -> bool {
    let [.., before, last] = run.steps.as_slice() else { return false };
    before.at == State::Resuming && last.at == State::Stop
}

/// The slot of a whole image of the device at the beginning.
const IMAGE: u8 = 6;
/// The slot of what the device is like when fresh.
const FRESH: u8 = 7;

/// The trace that a correct device passes, and one with the counterexample's bug does not.
///
/// The model's device has one register, or none, so a read that met the end of the stream there
/// becomes one until the end here, and what is written is cut from an image that the device itself
/// has made before. What the last step broke may not show in its reply: so the state, and every
/// data_fd that is open, are asked for at the end, and whether a session can be opened behind a
/// reset, and lasts. If it read wrong bytes, the device says of itself
/// before and after what it is like when fresh, and behind a load it says what it has loaded: which
/// bytes are right a trace cannot know.
fn to_trace(counterexample: &Counterexample, name: &str) -> Trace {
    let property = properties().find(|property| property.id == counterexample.property);
    let covers = property.map_or(&[][..], |property| property.covers);
    let mut script = Script::new(Suite::Model, counterexample.features, name, covers);
    let wrong_bytes = ends_in_wrong_bytes(counterexample);
    if wrong_bytes {
        save(&mut script, FRESH);
    }
    let writes = |step: &CounterStep| matches!(step.op, Op::Write { .. });
    if counterexample.steps.iter().any(writes) {
        save(&mut script, IMAGE);
    }
    let taken = script.last_fd().map_or(0, |fd| fd.0);
    for step in &counterexample.steps {
        script.on(step.device);
        replay(&mut script, step, counterexample.image, if step.device == 0 { taken } else { 0 });
    }
    script.on(0);
    if wrong_bytes {
        script.op(Op::Reset).set(State::StopCopy);
        let last = script.last_fd().unwrap_or(Fd(1));
        script.drain_same(last, FRESH);
    }
    if ends_in_load(counterexample) {
        script.set(State::StopCopy);
        let last = script.last_fd().unwrap_or(Fd(1));
        script.drain_same(last, IMAGE);
    }
    let devices = counterexample.steps.iter().map(|step| step.device).max().unwrap_or(0);
    for device in 0..=devices {
        look(script.on(device));
        script.op(Op::Reset).get().set(State::StopCopy).get();
    }
    script.finish()
}

/// A whole image, with the device in RUNNING before and after.
fn save(script: &mut Script, into: u8) {
    script.set(State::StopCopy);
    let fd = script.last_fd().unwrap_or(Fd(1));
    script.drain(fd, READ, into).set(State::Running).op(Op::CloseFd { fd });
}

fn replay(script: &mut Script, step: &CounterStep, image: usize, taken: u32) {
    let ended =
        matches!(step.seen, Reply::EndOfStream(_)) || matches!(step.correct, Reply::EndOfStream(_));
    match step.op.map_fd(|fd| Fd(fd.0 + taken)) {
        // The model's process has room for two fds, a real one for many.
        Op::SetState { to, fault: None } if step.seen == Reply::Errno(Errno::EMFILE) => {
            script.op(Op::SetState { to, fault: Some(Fault::FdTableFull) })
        }
        Op::Read { fd, .. } if ended => script.drain(fd, READ, 0),
        // What a reset should have done, a later step may do.
        Op::Reset if script.is_open() => script.op(Op::Reset).get(),
        Op::SetState { to, fault: Some(Fault::ResetInside) } if script.is_open() => {
            script.op(Op::SetState { to, fault: Some(Fault::ResetInside) }).get()
        }
        op => script.op(op.map(|bytes| piece(bytes, image))),
    };
}

/// What the model writes is an image, or its first bytes, or its last.
fn piece(bytes: &[u8], image: usize) -> Data {
    if bytes.len() == image {
        return Data::slot(IMAGE);
    }
    let of = image as u32;
    let part = if bytes.starts_with(b"F") { 0 } else { of - 1 };
    Data::Slot { slot: IMAGE, part, of, drop: 0, add: 0 }
}

/// What there is to be seen of a device without moving it.
fn look(script: &mut Script) {
    if !script.is_open() {
        script.op(Op::Open);
    }
    script.op(Op::GetState);
    for (fd, way) in script.open_fds() {
        match way {
            Direction::Saving => script.op(Op::PrecopyInfo { fd }).op(Op::Read { fd, len: READ }),
            Direction::Resuming => script.write(fd, Data::Fill { byte: b'F', len: 1 }),
        };
    }
}
