// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! The VMMs of a run: what they do when they are asked, and how a side is found when all is over.

use std::io::{Read, Write};

use vfio_fsm_core::vmm::frame::{Frame, Limits};
use vfio_fsm_core::vmm::{
    Cause, Decision, Event, Guest, Hook, LoadPlan, Plan, Port, Recovery, ResetRefused, Verdict,
};
use vfio_fsm_core::{Op, RawState, Reply, State};
use vfio_fsm_kernel::session::{
    Interest, Loading, Observer, Outcome, Saving, Session, Standing, Vmm,
};

use super::Error;
use super::case::{Case, Choice};
use super::judge::{Ended, Image, Run, Side};
use super::probe::{Probe, Schedule, Subject, shown};
use super::record::Record;

/// What the source's guest has written when a run begins; then one more each time.
pub(super) const FIRST: u8 = 0x10;

/// How many values a guest has.
pub(super) const VALUES: u8 = 0x40;

/// A live migration, in pieces that are shorter than the streams.
pub(super) const PLAN: Plan = Plan { chunk: 16, ..Plan::LIVE };

/// What both sides call the devices.
const COMPAT: &str = "vfio-conform migrate";

/// What a session is taken for that waits for ever; its record says so, too.
const GIVEN_UP: Verdict =
    Verdict::Stuck { cause: Cause::TimedOut, at: None, errno: None, guest: Guest::LostByUs };

/// No device here has a longer stream.
const LONGEST: usize = 1 << 20;

/// What a VMM does at the source.
pub(super) trait Decisions {
    /// Asked before each step; the interest is what the session waits for, if it does.
    fn event(&mut self, record: &Record, interest: Option<&Interest>) -> Option<Event>;

    /// A reset was seen.
    fn choose(&mut self, decision: &Decision) -> Recovery;
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
    fn event(&mut self, record: &Record, interest: Option<&Interest>) -> Option<Event> {
        if self.cancel == Some(record.steps() + 1) {
            self.cancel = None;
            return Some(Event::Cancel);
        }
        match interest? {
            Interest::Switchover if self.rests == 0 => {
                // The guest goes on meanwhile, and the session has something to look for.
                self.rests += 1;
                record.wants_to_touch();
                None
            }
            Interest::Switchover => Some(Event::Switchover),
            _ => None,
        }
    }

    fn choose(&mut self, _decision: &Decision) -> Recovery {
        self.rests = 0;
        self.choice.recovery()
    }
}

/// The VMM at the source.
pub(super) struct AtSource<'a, D> {
    pub(super) record: &'a Record,
    pub(super) decisions: D,
}

impl<D: Decisions> AtSource<'_, D> {
    fn tell(&mut self, interest: Option<&Interest>) -> Option<Event> {
        let event = self.decisions.event(self.record, interest);
        event.inspect(|event| self.record.event(*event))
    }
}

impl<D: Decisions> Vmm for AtSource<'_, D> {
    fn hook(&mut self, hook: Hook) -> bool {
        self.record.called(hook);
        true
    }

    fn decide(&mut self, decision: &Decision) -> Recovery {
        let choice = self.decisions.choose(decision);
        self.record.say(format!("    {decision}: {choice}"));
        choice
    }

    fn event(&mut self, _standing: &Standing) -> Option<Event> {
        self.tell(None)
    }

    fn wait(&mut self, interest: &Interest, _standing: &Standing) -> Option<Event> {
        self.tell(Some(interest))
    }

    fn reset_refused(&mut self, refused: ResetRefused) {
        self.record.say(format!("    {refused}"));
    }
}

/// The VMM at the destination.
pub(super) struct AtDestination<'a> {
    pub(super) record: &'a Record,
    /// Asked when the device is loaded: whether it is started, or all is given up.
    pub(super) start: &'a mut dyn FnMut() -> bool,
}

impl Vmm for AtDestination<'_> {
    fn hook(&mut self, hook: Hook) -> bool {
        self.record.called(hook);
        true
    }

    fn wait(&mut self, interest: &Interest, _standing: &Standing) -> Option<Event> {
        match interest {
            Interest::Run => Some(if (self.start)() { Event::Run } else { Event::Cancel }),
            _ => None,
        }
    }
}

impl Observer for &Record {
    fn frame(&mut self, frame: &Frame) {
        self.say(format!("    {frame}"));
    }
}

/// As [`Session::run`], but a session that waits for what cannot come is given up: a verdict on it is
/// wanted, too.
fn drive(session: &mut impl Session, vmm: &mut impl Vmm, record: &Record) -> Outcome {
    let verdict = loop {
        if let Some(event) = vmm.event(&session.standing()) {
            tell(session, event, vmm);
        }
        // It waits for just that answer, so none is out of turn.
        let answered = match session.step() {
            Interest::Now => Ok(()),
            Interest::Call(hook) => session.called(vmm.hook(hook)),
            Interest::Decide(decision) => session.decide(vmm.decide(&decision)),
            Interest::Done(verdict) => break verdict,
            _ if record.waits_in_vain() => break GIVEN_UP,
            interest => {
                if let Some(event) = vmm.wait(&interest, &session.standing()) {
                    tell(session, event, vmm);
                }
                Ok(())
            }
        };
        debug_assert_eq!(answered, Ok(()));
    };
    Outcome { verdict, error: session.take_error(), standing: session.standing() }
}

fn tell(session: &mut impl Session, event: Event, vmm: &mut impl Vmm) {
    if let Err(refused) = session.event(event) {
        vmm.reset_refused(refused);
    }
}

/// Drive the source, then see what became of the `destination`, which may run only if the source is
/// complete, and take the source back if it does not.
pub(super) fn migrate<S, O, W, D>(
    plan: Plan,
    probe: Probe<'_, S, O>,
    sink: W,
    mut vmm: AtSource<'_, D>,
    destination: impl FnOnce(&W, bool) -> Result<Side, Error>,
) -> Result<Run, Error>
where
    S: Subject<Fd: Clone>,
    O: Schedule,
    W: Write,
    D: Decisions,
{
    let record = vmm.record;
    let mut saving = Saving::new(plan, COMPAT, probe, sink)?.observed(record);
    let mut outcome = drive(&mut saving, &mut vmm, record);
    let destination = destination(saving.sink(), outcome.verdict.is_complete())?;
    if outcome.verdict.is_complete() && destination.ended != Ended::Complete {
        record.event(Event::Cancel);
        // Only a reset is ever refused.
        let _ = saving.event(Event::Cancel);
        outcome = drive(&mut saving, &mut vmm, record);
    }
    let source = find(saving.port(), &outcome);
    let (guest, evidence) = (outcome.verdict.guest(), outcome.standing.evidence);
    Ok(Run { source, guest, evidence, facts: record.facts(), destination, fell: None })
}

/// Drive the destination.
pub(super) fn load<S, O>(
    probe: Probe<'_, S, O>,
    stream: impl Read,
    start: &mut dyn FnMut() -> bool,
) -> Side
where
    S: Subject<Fd: Clone>,
    O: Schedule,
{
    let record = probe.record;
    let (plan, limits) = (LoadPlan::default(), Limits { max_data: Plan::LIVE.chunk });
    let accepts = |compat: &str| compat == COMPAT;
    let mut loading = Loading::new(plan, limits, accepts, probe, stream).observed(record);
    let outcome = drive(&mut loading, &mut AtDestination { record, start }, record);
    find(loading.port(), &outcome)
}

/// What a session left behind, found by direct calls.
fn find<S: Subject, O>(probe: &mut Probe<'_, S, O>, outcome: &Outcome) -> Side {
    probe.settle();
    let facts = probe.record.facts();
    let state = match probe.subject.apply(Op::GetState, &mut []) {
        Reply::State(state) => Ok(state),
        other => Err(format!("GET of the device_state gives {}", other.map_fd(|_fd| "a data_fd"))),
    };
    let image = state.clone().and_then(|state| snapshot(probe.subject, state));
    let stalled = facts.stalled.then(|| "the session waits for what cannot come".to_owned());
    let verdict = match &outcome.error {
        Some(error) => format!("{}: {error}", outcome.verdict),
        None => outcome.verdict.to_string(),
    };
    Side {
        ended: outcome.verdict.into(),
        verdict,
        frozen: facts.frozen,
        refused_at_last: facts.refused_at_last,
        state,
        image,
        anomaly: probe.subject.take_anomaly().or(stalled),
        log: facts.log,
    }
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
