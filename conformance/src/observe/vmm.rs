// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! The VMM's side: it may do what it has reason to believe is legal, and must look at what it is told.
//!
//! Judged by what the VMM could know: what it asked for and what it was answered. A reset that it
//! cannot have seen yet is no fault of its own.

use std::collections::BTreeMap;

use vfio_fsm_core::{
    Direction, EndOfStream, Errno, Fd, Features, Op, RawState, Reply, Route, State,
};

use super::recording::{DmaLogging, fd_of};
use super::rules::{Remark, Rule, Severity};

/// `EINTR`, which is no answer.
const INTERRUPTED: Errno = Errno(4);

/// What a VMM knows of one device.
pub(super) struct VmmSide {
    features: Features,
    asked_features: bool,
    open: bool,
    /// The device_state, where the VMM can know it.
    at: Option<State>,
    fds: BTreeMap<Fd, DataFd>,
    session: Option<Session>,
    /// A SET failed, and nobody has looked since.
    failed: bool,
    /// What was loaded has been refused, and the device was not reset since.
    refused: bool,
    /// A stream was read to its end, and nobody has looked since where the device is.
    unseen: bool,
    /// Whether the log of DMA is on, where the VMM can know it.
    logging: Option<bool>,
}

/// A data_fd in the hands of the VMM.
#[derive(Default)]
struct DataFd {
    closed: bool,
    life: Life,
}

/// What the VMM has been told of a data_fd.
#[derive(Clone, Copy, Default, PartialEq, Eq)]
enum Life {
    /// Its session goes on.
    #[default]
    Alive,
    /// The VMM ended its session.
    Ended,
    /// A SET returned another one although none was due.
    Replaced,
    /// A call on it failed for good.
    Dead,
}

/// The session that goes on.
struct Session {
    fd: Fd,
    direction: Direction,
    /// Read to its permanent end.
    drained: bool,
    /// initial_bytes as PRECOPY_INFO said, less what was read since.
    initial: Option<u64>,
    /// Bytes that were written.
    written: u64,
    load: Load,
}

/// How the latest write went.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Load {
    Whole,
    Short,
    Failed,
}

impl VmmSide {
    pub(super) fn new(features: Features) -> Self {
        Self {
            features,
            asked_features: false,
            open: true,
            at: Some(State::Running),
            fds: BTreeMap::new(),
            session: None,
            failed: false,
            refused: false,
            unseen: false,
            logging: Some(false),
        }
    }

    /// Whether the VMM has to take it that this device starts peer-to-peer DMA.
    pub(super) fn starts_dma(&self) -> bool {
        matches!(self.at, Some(State::Running | State::PreCopy)) && self.open
    }

    /// Whether this op takes a device that runs to where it must not be reached by others.
    pub(super) fn stops(&self, op: &Op<u64>) -> bool {
        let Op::SetState { to, .. } = op else { return false };
        let stopped = |state| matches!(state, State::Stop | State::StopCopy | State::Resuming);
        to.known().is_some_and(stopped) && self.at.is_some_and(|at| !stopped(at))
    }

    /// Take in a call and its answer, and say what is wrong with the call.
    pub(super) fn call(&mut self, op: &Op<u64>, reply: &Reply<u64>) -> Vec<Remark> {
        let mut remarks = Vec::new();
        match op {
            Op::GetFeatures => self.asked_features = true,
            Op::GetState => self.looked(reply),
            Op::SetState { to, .. } => {
                remarks = self.set(*to);
                remarks.extend(self.was_set(*to, reply));
            }
            Op::Reset if matches!(reply, Reply::Ok) => self.was_reset(),
            Op::Open => self.open = true,
            Op::Close => remarks = self.close(),
            Op::CloseFd { fd } => remarks.extend(self.close_fd(*fd)),
            _ => remarks.extend(self.stream(op, reply)),
        }
        remarks
    }

    /// Take in a call to the log of DMA.
    pub(super) fn log(&mut self, call: DmaLogging, reply: &Reply<u64>) -> Option<Remark> {
        let failed = matches!(reply, Reply::Errno(_));
        let was = self.logging;
        match call {
            DmaLogging::Start if !failed => self.logging = Some(true),
            DmaLogging::Stop if !failed => self.logging = Some(false),
            _ => {}
        }
        match (call, was) {
            (DmaLogging::Start, Some(true)) => {
                Some(Remark::new(Rule::LogOrder, "a STOP before the next START"))
            }
            (DmaLogging::Report, Some(false)) => {
                Some(Remark::new(Rule::LogOrder, "a START before a REPORT"))
            }
            (DmaLogging::Stop, Some(false)) => {
                Some(Remark::new(Rule::LogOrder, "a START before a STOP").only(Severity::Note))
            }
            (DmaLogging::Report, _) if failed => {
                Some(Remark::new(Rule::LogCorrupt, "all memory to be taken for dirty"))
            }
            _ => None,
        }
    }

    /// At the end of a recording: what was never done.
    pub(super) fn end(&self) -> Vec<Remark> {
        let open = self.fds.iter().filter(|(_, fd)| !fd.closed);
        let mut remarks: Vec<_> = open
            .map(|(fd, _)| Remark::new(Rule::NeverClosed, format!("a close of {fd}")))
            .collect();
        if self.failed {
            let expected = "a GET of the device_state or a reset behind the SET that failed";
            remarks.push(Remark::new(Rule::FailureIgnored, expected).only(Severity::Warning));
        }
        let expected = "a GET of the device_state behind the end of the stream";
        remarks.extend(self.unseen.then(|| Remark::new(Rule::NeverLooked, expected)));
        remarks
    }

    /// A SET, before its answer.
    fn set(&self, to: RawState) -> Vec<Remark> {
        let mut remarks = Vec::new();
        if !self.asked_features {
            remarks.push(Remark::new(Rule::FeaturesFirst, "a GET of the features before it"));
        }
        let refused = self.route(to);
        let leaves = refused.is_none();
        remarks.extend(refused);
        if self.failed {
            let expected = "a GET of the device_state before another SET";
            remarks.push(Remark::new(Rule::FailureIgnored, expected).only(Severity::Note));
        }
        if let (Some(at), Some(session), true) = (self.at, &self.session, leaves) {
            remarks.extend(self.leave(at, to, session));
        }
        remarks
    }

    fn route(&self, to: RawState) -> Option<Remark> {
        // Where the device may be anywhere, what no state allows is still wrong.
        let from = self.at.unwrap_or(State::Stop);
        let known = to.known();
        let refused = match known.map(|to| Route::new(self.features, from, to)) {
            Some(Ok(_)) => return None,
            Some(Err(refused)) => refused,
            None => vfio_fsm_core::Refused { asked: to.0, from, features: self.features },
        };
        let rule = if refused.is_blocked() { Rule::BlockedArc } else { Rule::NoRoute };
        let expected =
            format!("another SET ({}); allowed here: {}", refused.why(), refused.allowed());
        Some(Remark::new(rule, expected))
    }

    /// What is wrong with leaving a session like this.
    fn leave(&self, at: State, to: RawState, session: &Session) -> Vec<Remark> {
        let mut remarks = Vec::new();
        if to == at.into() || self.fds.get(&session.fd).is_some_and(|fd| fd.life == Life::Dead) {
            return remarks;
        }
        match at {
            State::StopCopy if !session.drained => {
                let remark = Remark::new(Rule::NotDrained, "a read that returns 0 before it");
                // One who cancels goes back to RUNNING, and needs no image.
                let back = to != State::Stop.into() && to != State::Resuming.into();
                remarks.push(if back { remark.only(Severity::Note) } else { remark });
            }
            State::Resuming => remarks.extend(unchecked(session)),
            State::PreCopy | State::PreCopyP2p if to == State::StopCopy.into() => {
                let left = session.initial.unwrap_or(0);
                let expected = format!("reads of the {left} initial bytes that are left");
                remarks.extend((left > 0).then(|| Remark::new(Rule::InitialLeft, expected)));
            }
            _ => {}
        }
        remarks
    }

    /// The answer of a SET.
    fn was_set(&mut self, to: RawState, reply: &Reply<u64>) -> Vec<Remark> {
        let mut remarks = Vec::new();
        let Reply::Fd(returned) = reply else {
            let unmoved = self.route(to).is_some() && self.at.is_some();
            self.refused |= self.at == Some(State::Resuming) && !unmoved;
            if !unmoved {
                (self.failed, self.at) = (true, None);
            }
            return remarks;
        };
        self.failed = false;
        let to = to.known();
        let from = std::mem::replace(&mut self.at, to);
        if to == Some(State::Resuming) {
            self.refused = false;
        } else if self.refused && to.is_some_and(|to| !matches!(to, State::Stop | State::StopCopy))
        {
            let expected = "a reset, since what was loaded was refused";
            remarks.push(Remark::new(Rule::FailureIgnored, expected));
        }
        let goes_on = from.is_none_or(State::is_saving) && to.is_some_and(State::is_saving);
        if returned.is_none() && (goes_on || from == to) {
            return remarks;
        }
        let life = if goes_on { Life::Replaced } else { Life::Ended };
        remarks.extend(self.end_session(life));
        if let (Some(fd), Some(direction)) = (*returned, to.and_then(State::session)) {
            self.fds.insert(fd, DataFd::default());
            let (drained, load) = (false, Load::Whole);
            let session = Session { fd, direction, drained, initial: None, written: 0, load };
            self.session = Some(session);
        }
        remarks
    }

    fn end_session(&mut self, life: Life) -> Option<Remark> {
        let session = self.session.take()?;
        let fd = self.fds.get_mut(&session.fd)?;
        if fd.life == Life::Alive {
            fd.life = life;
        }
        let expected = format!("a close of {} around here", session.fd);
        let open = !fd.closed && life == Life::Ended;
        open.then(|| Remark::new(Rule::LeftOpen, expected))
    }

    /// The answer of a GET.
    fn looked(&mut self, reply: &Reply<u64>) {
        let Reply::State(state) = reply else { return };
        self.unseen = false;
        (self.failed, self.at) = (false, state.known());
        let direction = state.known().and_then(State::session);
        if self.session.as_ref().is_some_and(|session| Some(session.direction) != direction) {
            self.end_session(Life::Ended);
        }
    }

    fn was_reset(&mut self) {
        self.end_session(Life::Ended);
        (self.failed, self.refused) = (false, false);
        self.at = Some(State::Running);
        // Whether a reset stops the log is not defined (C37).
        self.logging = self.logging.filter(|on| !on);
    }

    fn close(&mut self) -> Vec<Remark> {
        let open = self.fds.iter().filter(|(_, fd)| !fd.closed);
        let closed = |(fd, _): (&Fd, _)| {
            Remark::new(Rule::ClosedFirst, format!("a close of {fd} before it"))
        };
        let remarks = open.map(closed).collect();
        self.was_reset();
        (self.open, self.logging) = (false, Some(false));
        remarks
    }

    fn close_fd(&mut self, fd: Fd) -> Option<Remark> {
        let known = self.fds.get_mut(&fd)?;
        let again = std::mem::replace(&mut known.closed, true);
        again.then(|| Remark::new(Rule::StaleFd, format!("no second close of {fd}")))
    }

    /// A call on a data_fd.
    fn stream(&mut self, op: &Op<u64>, reply: &Reply<u64>) -> Option<Remark> {
        let fd = fd_of(op)?;
        let moves = matches!(
            op,
            Op::Read { .. } | Op::UringRead { .. } | Op::Write { .. } | Op::PrecopyInfo { .. }
        );
        let remark = if moves { self.misuse(fd, op) } else { None };
        self.take_in(fd, op, reply);
        remark
    }

    fn misuse(&self, fd: Fd, op: &Op<u64>) -> Option<Remark> {
        let known = self.fds.get(&fd)?;
        if known.closed {
            return Some(Remark::new(Rule::StaleFd, format!("no use of {fd}: it is closed")));
        }
        match known.life {
            Life::Ended => {
                let expected = format!("no use of {fd}: its session is over");
                return Some(Remark::new(Rule::StaleFd, expected));
            }
            Life::Replaced => {
                let expected = format!("no use of {fd}: another data_fd came where none was due");
                return Some(Remark::new(Rule::FreshFdIgnored, expected));
            }
            Life::Dead => {
                let expected = format!("no use of {fd}: it has failed before");
                return Some(Remark::new(Rule::ErrorIgnored, expected));
            }
            Life::Alive => {}
        }
        if self.failed {
            let expected = "a GET of the device_state or a reset behind the SET that failed";
            return Some(Remark::new(Rule::FailureIgnored, expected));
        }
        let outside = self.at.filter(|at| !at.is_pre_copy());
        match (op, outside) {
            (Op::PrecopyInfo { .. }, Some(at)) => {
                Some(Remark::new(Rule::InfoOutside, format!("no PRECOPY_INFO in {at}")))
            }
            _ => None,
        }
    }

    /// What the answer of a call on a data_fd tells.
    fn take_in(&mut self, fd: Fd, op: &Op<u64>, reply: &Reply<u64>) {
        let retry = [Errno::EAGAIN, INTERRUPTED];
        let known = self.fds.get_mut(&fd).filter(|fd| fd.life == Life::Alive && !fd.closed);
        if let (Reply::Errno(errno), Some(known)) = (reply, known)
            && !retry.contains(errno)
        {
            let asks = matches!(op, Op::PrecopyInfo { .. });
            let expected_refusal = asks && !self.at.is_none_or(State::is_pre_copy);
            if !expected_refusal {
                known.life = Life::Dead;
            }
            if *errno == Errno::ENODEV {
                self.at = None;
            }
        }
        let Some(session) = self.session.as_mut().filter(|session| session.fd == fd) else {
            return;
        };
        match (op, reply) {
            (_, Reply::Bytes(len)) => {
                session.initial = session.initial.map(|left| left.saturating_sub(*len));
            }
            // A device that says 0 in PRE_COPY means: nothing for now.
            (_, Reply::EndOfStream(EndOfStream::Permanent)) => {
                session.drained |= !self.at.is_some_and(State::is_pre_copy);
                self.unseen |= session.drained;
            }
            (_, Reply::Info(info)) => session.initial = Some(info.initial_bytes),
            (Op::Write { bytes, .. }, Reply::Written(taken)) => {
                session.written += u64::from(*taken);
                session.load = if u64::from(*taken) < *bytes { Load::Short } else { Load::Whole };
            }
            (Op::Write { .. }, Reply::Errno(errno)) => {
                session.load = if retry.contains(errno) { Load::Short } else { Load::Failed };
            }
            _ => {}
        }
    }
}

/// What is wrong with leaving RESUMING after such writes.
fn unchecked(session: &Session) -> Option<Remark> {
    match session.load {
        Load::Failed => {
            Some(Remark::new(Rule::UncheckedLoad, "a reset, since the latest write failed"))
        }
        Load::Short => Some(Remark::new(
            Rule::UncheckedLoad,
            "a write of the rest, since the latest was short",
        )),
        Load::Whole if session.written == 0 => {
            let expected = "a write before it, or a reset: nothing was loaded";
            Some(Remark::new(Rule::UncheckedLoad, expected).only(Severity::Warning))
        }
        Load::Whole => None,
    }
}
