// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! Writes a trace by doing it: each op is carried out on the core's device, and its reply, widened
//! by what the uAPI leaves open, is what the trace expects.

use std::borrow::Cow;
use std::fmt;

use vfio_fsm_core::device::Memory;
use vfio_fsm_core::{Direction, Errno, Fault, Fd, Features, Op, RawState, Reply, Route, State};

use crate::suite::evidence::{self, Before};
use crate::suite::tester::Hands;
use crate::target::MemoryDevice;
use crate::trace::{Amount, Data, Expect, Header, Slots, Step, Trace, VERSION};

/// The reads of suites ask for this much unless they are about something else.
pub(super) const READ: u32 = 4096;

/// Why the blocked pair is dangerous.
pub(super) const BLOCKED: &str = "kernels before the fix of June 2026 loop forever on \
     STOP_COPY -> PRE_COPY with the driver's mutex held";

/// A trace in the making, and the devices that it is done on.
#[derive(Clone)]
pub(super) struct Script {
    trace: Trace,
    devices: [MemoryDevice; 2],
    /// After a SET that failed, where the device may be (R8).
    maybe: [Option<Vec<RawState>>; 2],
    slots: Slots,
    at: u8,
    /// The latest op on each device.
    previous: [Option<Op<Data>>; 2],
}

impl Script {
    pub(super) fn new(
        suite: impl fmt::Display,
        features: Features,
        name: &str,
        covers: &[&'static str],
    ) -> Self {
        let device = MemoryDevice::new(features, Memory::new());
        let header = Header {
            version: VERSION,
            name: format!("{suite}/{}/{name}", features.slug()),
            features,
            steps: None,
            covers: covers.iter().map(|id| Cow::Borrowed(*id)).collect(),
            dangerous: None,
        };
        Self {
            trace: Trace { header, steps: Vec::new() },
            devices: [device; 2],
            maybe: [None, None],
            slots: Slots::default(),
            at: 0,
            previous: [None, None],
        }
    }

    /// The same beginning under another name.
    pub(super) fn named(&self, name: &str) -> Self {
        let mut script = self.clone();
        script.trace.header.name = format!("{}/{name}", self.trace.header.name);
        script
    }

    /// Name requirements that more than one step together are evidence for.
    pub(super) fn covers(&mut self, ids: &[&'static str]) -> &mut Self {
        for &id in ids {
            if !self.trace.header.covers.iter().any(|known| known == id) {
                self.trace.header.covers.push(id.into());
            }
        }
        self
    }

    pub(super) fn dangerous(&mut self, why: &'static str) -> &mut Self {
        self.trace.header.dangerous.get_or_insert(why.into());
        self
    }

    pub(super) fn finish(mut self) -> Trace {
        self.trace.header.steps = Some(self.trace.steps.len());
        self.trace.header.covers.sort();
        self.trace
    }

    /// Go on with the source (0) or the destination (1).
    pub(super) fn on(&mut self, device: u8) -> &mut Self {
        self.at = device;
        self
    }

    /// The source.
    pub(super) const fn first(&self) -> &MemoryDevice {
        &self.devices[0]
    }

    pub(super) fn is_dangerous(&self) -> bool {
        self.trace.header.dangerous.is_some()
    }

    fn device(&mut self) -> &mut MemoryDevice {
        &mut self.devices[usize::from(self.at)]
    }

    pub(super) fn features(&self) -> Features {
        self.devices[0].fsm().features()
    }

    pub(super) fn state(&self) -> State {
        self.devices[usize::from(self.at)].fsm().state()
    }

    #[cfg(feature = "check")]
    pub(super) fn is_open(&self) -> bool {
        self.devices[usize::from(self.at)].is_open()
    }

    /// The data_fd handed out last.
    pub(super) fn last_fd(&self) -> Option<Fd> {
        self.devices[usize::from(self.at)].fds().last()
    }

    /// The open data_fds in the order of opening, and which way each goes.
    pub(super) fn open_fds(&self) -> Vec<(Fd, Direction)> {
        let open = self.devices[usize::from(self.at)].fds().open();
        let mut open: Vec<_> = open.map(|open| (open.fd, open.direction)).collect();
        open.sort_unstable();
        open
    }

    /// Which way the data_fd goes, if it is open.
    pub(super) fn way(&self, fd: Fd) -> Option<Direction> {
        self.devices[usize::from(self.at)].fds().get(fd).map(|open| open.direction)
    }

    /// Do it, and expect what the core's device answers.
    pub(super) fn op(&mut self, op: Op<Data>) -> &mut Self {
        self.step(self.plain(op))
    }

    /// Do it, and expect this, which must admit what the core's device answers.
    pub(super) fn expect(&mut self, op: Op<Data>, expect: Expect) -> &mut Self {
        self.step(self.plain(op));
        if let Some(step) = self.trace.steps.last_mut() {
            step.expect = expect;
        }
        self
    }

    pub(super) fn set(&mut self, to: State) -> &mut Self {
        self.op(Op::set(to))
    }

    pub(super) fn get(&mut self) -> &mut Self {
        self.op(Op::GetState)
    }

    /// Read in pieces of `len` until the end, and keep it.
    pub(super) fn drain(&mut self, fd: Fd, len: u32, into: u8) -> &mut Self {
        let read = self.plain(Op::Read { fd, len });
        self.step(Step { until_end: true, into: Some(into), ..read })
    }

    /// Do a read once, and keep what it brings.
    pub(super) fn keep(&mut self, read: Op<Data>, into: u8) -> &mut Self {
        let read = self.plain(read);
        self.step(Step { into: Some(into), ..read })
    }

    /// Read until the end; the bytes must be those of a slot.
    pub(super) fn drain_same(&mut self, fd: Fd, same_as: u8) -> &mut Self {
        let read = self.plain(Op::Read { fd, len: READ });
        self.step(Step { until_end: true, same_as: Some(same_as), ..read })
    }

    /// Write in pieces of `chunk`.
    pub(super) fn write_in(&mut self, fd: Fd, bytes: Data, chunk: u32) -> &mut Self {
        let write = self.plain(Op::Write { fd, bytes });
        self.step(Step { chunk: Some(chunk), ..write })
    }

    pub(super) fn write(&mut self, fd: Fd, bytes: Data) -> &mut Self {
        self.op(Op::Write { fd, bytes })
    }

    fn plain(&self, op: Op<Data>) -> Step {
        Step {
            device: self.at,
            op,
            until_end: false,
            into: None,
            chunk: None,
            expect: Expect::Ok,
            same_as: None,
        }
    }

    fn step(&mut self, step: Step) -> &mut Self {
        let _reply = self.perform(step);
        self
    }

    /// Do it and expect it, and say what the core's device answered.
    fn perform(&mut self, mut step: Step) -> Reply<usize> {
        let known = self.known(&step.op);
        let before = known.state;
        let had_all = self.devices[usize::from(self.at)].actions().is_loadable();
        let reply = self.carry_out(&step);
        self.covers(evidence::of(&known, &step.op, &reply));
        self.previous[usize::from(self.at)] = Some(step.op.clone());
        step.expect = match (&step.op, reply) {
            // More than a whole stream: a device may take it, and find out when it loads.
            (Op::Write { .. }, Reply::Errno(Errno::EINVAL)) if had_all => {
                Expect::AnyOf(vec![Expect::Written, Expect::Failure])
            }
            _ => self.widen(&step, before, reply),
        };
        if before == State::StopCopy && asks_pre_copy(&step.op) {
            self.dangerous(BLOCKED);
        }
        self.trace.steps.push(step);
        reply
    }

    fn known(&self, op: &Op<Data>) -> Before {
        let device = &self.devices[usize::from(self.at)];
        let mut fd = None;
        let _same = op.clone().map_fd(|of_op| {
            fd = device.fds().get(of_op).map(|open| (open.direction, device.is_live(of_op)));
            of_op
        });
        Before {
            state: device.fsm().state(),
            features: device.fsm().features(),
            previous: self.previous[usize::from(self.at)].clone(),
            fd,
        }
    }

    fn carry_out(&mut self, step: &Step) -> Reply<usize> {
        let mut buf = [0; READ as usize];
        let mut kept = Vec::new();
        let reply = match &step.op {
            Op::Write { fd, bytes } => {
                let bytes = bytes.resolve(&self.slots).unwrap_or_default().into_owned();
                self.device().apply(Op::Write { fd: *fd, bytes: &bytes }, &mut buf).map(<[u8]>::len)
            }
            op => loop {
                let op = op.clone().map(|_| [].as_slice());
                match self.device().apply(op, &mut buf) {
                    Reply::Bytes(bytes) => {
                        kept.extend_from_slice(bytes);
                        if !step.until_end {
                            break Reply::Bytes(kept.len());
                        }
                    }
                    other => break other.map(<[u8]>::len),
                }
            },
        };
        if let Some(slot) = step.into {
            self.slots.set(slot, kept);
        }
        reply
    }

    /// What any device may answer where the core's answered this.
    fn widen(&mut self, step: &Step, before: State, reply: Reply<usize>) -> Expect {
        let at = usize::from(self.at);
        if let Op::SetState { .. } | Op::Reset | Op::Close = step.op {
            self.maybe[at] = None;
        }
        match (&step.op, reply) {
            (Op::SetState { to, fault }, Reply::Errno(errno)) => {
                self.widen_failed_set(before, *to, *fault, errno)
            }
            (Op::Read { len, .. } | Op::UringRead { len, .. }, Reply::Bytes(_)) => {
                Expect::Bytes { max: *len }
            }
            (Op::Write { .. }, Reply::Errno(Errno::EINVAL)) => Expect::Failure,
            // Kernels before 7.1 do not know it.
            (Op::OptInPrecopyV2, Reply::Ok) => {
                Expect::AnyOf(vec![Expect::Ok, Expect::Errno(Errno::ENOTTY)])
            }
            (_, Reply::Ok) => Expect::Ok,
            (_, Reply::Features(flags)) => Expect::Features(flags),
            (_, Reply::State(state)) => match &self.maybe[at] {
                Some(states) => Expect::State(states.clone()),
                None => Expect::state(state),
            },
            (_, Reply::Fd(Some(fd))) => Expect::Fd(fd),
            (_, Reply::Fd(None)) => Expect::NoFd,
            (_, Reply::Bytes(len)) => Expect::Bytes { max: len as u32 },
            (_, Reply::Written(_)) => Expect::Written,
            (_, Reply::EndOfStream(end)) => Expect::EndOfStream(end),
            (_, Reply::Size(_)) => Expect::Size,
            (_, Reply::Info(info)) => {
                let amount = match (info.initial_bytes, info.dirty_bytes) {
                    (0, 0) => Amount::Zero,
                    _ => Amount::Any,
                };
                Expect::Info { initial: amount, dirty: amount }
            }
            (_, Reply::Ready(ready)) => Expect::Ready {
                readable: (!ready.writable).then_some(ready.readable),
                writable: ready.writable.then_some(true),
            },
            (_, Reply::FdFlags(flags)) => Expect::FdFlags(flags),
            (_, Reply::Errno(errno)) => Expect::Errno(errno),
        }
    }

    /// EINVAL if no route answers. If one does, what was written to RESUMING is no stream: any errno,
    /// and the device stays there or goes to ERROR (R29).
    fn widen_failed_set(
        &mut self,
        before: State,
        to: RawState,
        fault: Option<Fault>,
        errno: Errno,
    ) -> Expect {
        let features = self.features();
        let route = to.known().and_then(|to| Route::new(features, before, to).ok());
        match (route, fault) {
            // The usual driver loop takes ERROR for where it is already, and succeeds.
            (None, _) if before == State::Error && to == State::Error.into() => {
                Expect::AnyOf(vec![Expect::NoFd, Expect::Failure])
            }
            (None, _) if before == State::Error => Expect::Failure,
            (None, _) | (_, Some(_)) => Expect::Errno(errno),
            (Some(_), None) => {
                let states = [before, State::Error].map(RawState::from).to_vec();
                self.maybe[usize::from(self.at)] = Some(states);
                Expect::Failure
            }
        }
    }
}

/// For a tester of the machines.
impl Hands for Script {
    fn op(&mut self, op: Op<Data>) -> Reply<usize> {
        let step = self.plain(op);
        self.perform(step)
    }

    fn drain(&mut self, fd: Fd) -> Reply<usize> {
        let read = self.plain(Op::Read { fd, len: READ });
        self.perform(Step { until_end: true, ..read })
    }
}

fn asks_pre_copy(op: &Op<Data>) -> bool {
    matches!(op, Op::SetState { to, .. } if to.known().is_some_and(State::is_pre_copy))
}
