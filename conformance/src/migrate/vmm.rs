// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! The VMMs of a run: what they do when they are asked, and how a side is found when all is over.

use vfio_fsm_core::vmm::frame::Frame;
use vfio_fsm_core::vmm::{
    Decision, Event, LoadPlan, Loader, Plan, Port, Recovery, Saver, Step, Verdict, Wait,
};
use vfio_fsm_core::{Op, RawState, Reply, State};

use super::case::{Case, Choice};
use super::judge::{Image, Side};
use super::probe::{Probe, Schedule, Subject, shown};
use super::record::Record;

/// What the source's guest has written when a run begins; then one more each time.
pub(super) const FIRST: u8 = 0x10;

/// How many values a guest has.
pub(super) const VALUES: u8 = 0x40;

/// A live migration, in pieces that are shorter than the streams.
pub(super) const PLAN: Plan = Plan { chunk: 16, ..Plan::LIVE };

/// No device here has a longer stream.
const LONGEST: usize = 1 << 20;

/// What a VMM does at the source.
pub(super) trait Decisions {
    /// Asked before each step; `wait` is what the session waits for, if it does.
    fn event(&mut self, record: &Record, wait: Option<Wait>) -> Option<Event>;

    /// A reset was seen.
    fn choose(&mut self, decision: Decision) -> Recovery;
}

/// A VMM that does what a case says.
#[derive(Debug)]
pub(super) struct Scripted {
    cancel: Option<usize>,
    choice: Choice,
    /// How often the session was at rest since it began, or began anew.
    rests: u32,
}

impl Scripted {
    pub(super) const fn new(case: &Case) -> Self {
        Self { cancel: case.cancel(), choice: case.choice(), rests: 0 }
    }
}

impl Decisions for Scripted {
    fn event(&mut self, record: &Record, wait: Option<Wait>) -> Option<Event> {
        if self.cancel == Some(record.steps() + 1) {
            self.cancel = None;
            return Some(Event::Cancel);
        }
        match wait? {
            Wait::Switchover if self.rests == 0 => {
                // The guest goes on meanwhile, and the session has something to look for.
                self.rests += 1;
                record.wants_to_touch();
                Some(Event::Tick)
            }
            Wait::Switchover => Some(Event::Switchover),
            _ => Some(Event::Tick),
        }
    }

    fn choose(&mut self, _decision: Decision) -> Recovery {
        self.rests = 0;
        self.choice.recovery()
    }
}

/// A frame and its payload.
pub(super) type Piece = (Frame, Vec<u8>);

/// Drive a session at the source to its end.
pub(super) fn save<P: Port>(
    saver: &mut Saver<P::Fd>,
    port: &mut P,
    record: &Record,
    decisions: &mut impl Decisions,
    wire: &mut dyn FnMut(Piece),
) -> Verdict {
    let mut buf = vec![0; 4096];
    let mut got = 0;
    loop {
        if let Some(event) = decisions.event(record, None) {
            record.event(event);
            let _refused = saver.event(event);
        }
        match saver.step() {
            Step::Do(op) => {
                let reply = port.apply(op.map(|never| match never {}), &mut buf);
                if let Reply::Bytes(bytes) = &reply {
                    got = bytes.len();
                }
                let reply = reply.map(|bytes| bytes.len() as u32);
                let _in_turn = saver.reply(reply);
            }
            Step::Send(frame) => {
                let payload = if let Frame::Data { .. } = frame { &buf[..got] } else { &[] };
                record.say(format!("    send {frame}"));
                wire((frame, payload.to_vec()));
                let _in_turn = saver.sent();
            }
            Step::Call(hook) => {
                record.called(hook);
                let _in_turn = saver.called(true);
            }
            Step::Decide(decision) => {
                let choice = decisions.choose(decision);
                record.decided(decision, choice);
                let _in_turn = saver.decide(choice);
            }
            Step::Wait(wait) => {
                if let Some(event) = decisions.event(record, Some(wait)) {
                    record.event(event);
                    let _refused = saver.event(event);
                }
            }
            Step::End(verdict) => return verdict,
        }
    }
}

/// Drive a session at the destination to its end.
pub(super) fn load<P: Port>(
    port: &mut P,
    record: &Record,
    frames: &mut dyn Iterator<Item = Piece>,
    run: bool,
) -> Verdict {
    let mut loader = Loader::new(LoadPlan::default());
    let mut payload = Vec::new();
    loop {
        match loader.step() {
            Step::Do(op) => {
                let reply = port.apply(op.map(|piece| piece.of(&payload)), &mut []);
                let _in_turn = loader.reply(reply.map(|_none| 0));
            }
            Step::Call(hook) => {
                record.called(hook);
                let _in_turn = loader.called(true);
            }
            Step::Wait(Wait::Frame) => match frames.next() {
                Some((frame, bytes)) => {
                    payload = bytes;
                    let _in_turn = loader.frame(frame);
                }
                None => {
                    let _heard = loader.event(Event::PeerLost);
                }
            },
            Step::Wait(Wait::Run) => {
                let _heard = loader.event(if run { Event::Run } else { Event::Cancel });
            }
            Step::Wait(_) => {
                let _heard = loader.event(Event::Tick);
            }
            Step::End(verdict) => return verdict,
            Step::Send(_) | Step::Decide(_) => {}
        }
    }
}

/// What a session left behind, found by direct calls.
pub(super) fn find<S: Subject, O: Schedule>(mut probe: Probe<'_, S, O>, verdict: Verdict) -> Side {
    probe.settle();
    let facts = probe.record.facts();
    let state = match probe.subject.apply(Op::GetState, &mut []) {
        Reply::State(state) => Ok(state),
        other => Err(format!("GET of the device_state gives {}", other.map_fd(|_fd| "a data_fd"))),
    };
    let image = state.clone().and_then(|state| snapshot(&mut probe.subject, state));
    let verdict_text = verdict.to_string();
    Side { ended: verdict.into(), verdict: verdict_text, frozen: facts.frozen, state, image, log: facts.log }
}

/// A snapshot, by direct calls, and back to where the device was.
pub(super) fn snapshot<P: Port>(port: &mut P, home: RawState) -> Result<Image, String> {
    let mut buf = vec![0; 4096];
    let (mut image, mut none) = (Vec::new(), []);
    let failed = |what: &str, seen: String| Err(format!("a snapshot from {home}: {what}: {seen}"));
    let fd = match port.apply(Op::set(State::StopCopy), &mut none) {
        Reply::Fd(Some(fd)) => fd,
        other => return failed("SET STOP_COPY", shown(&other).to_string()),
    };
    let end = loop {
        match port.apply(Op::Read { fd: &fd, len: 4096 }, &mut buf) {
            Reply::Bytes(bytes) if !bytes.is_empty() && image.len() < LONGEST => {
                image.extend_from_slice(bytes);
            }
            other => break shown(&other),
        }
    };
    let back = shown(&port.apply(Op::set(home), &mut none));
    let closed = shown(&port.apply(Op::CloseFd { fd: &fd }, &mut none));
    match (end, back, closed) {
        (Reply::EndOfStream(_), Reply::Fd(None), Reply::Ok) => Ok(Image(image)),
        (end, back, closed) => failed("read, SET back, close", format!("{end}, {back}, {closed}")),
    }
}
