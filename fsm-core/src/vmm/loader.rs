// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! The destination: from a stream to a device in RUNNING, or back to a blank one.

use crate::op::{Errno, Op, Reply};
use crate::state::{Features, RawState, State};
use crate::vmm::Evidence;
use crate::vmm::frame::{FIRST_EPOCH, Frame};
use crate::vmm::held::{Held, Moved};
use crate::vmm::step::{Cause, Event, Guest, Hook, OutOfTurn, ResetRefused, Step, Verdict, Wait};

/// What a VMM wants of a [`Loader`].
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct LoadPlan {
    /// The device is one of several with DMA between them: start in two phases, with
    /// [`Hook::Startable`] between. Needs P2P, see [`Group`](crate::vmm::Group).
    pub group: bool,
}

/// Bytes of the frame handed in last: what a [`Loader`] writes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Piece {
    /// The first of them, counted from the beginning of the frame's payload.
    pub from: u32,
    /// How many.
    pub len: u32,
}

impl Piece {
    /// The piece of the payload.
    pub fn of(self, payload: &[u8]) -> &[u8] {
        let from = (self.from as usize).min(payload.len());
        let to = from.saturating_add(self.len as usize).min(payload.len());
        &payload[from..to]
    }
}

/// Drives the device at the destination.
///
/// Begins in RUNNING and goes to RESUMING, writes what comes in the order in which it comes, and
/// when the end has come and the VMM says so, to RUNNING in one go: a stay in STOP makes drivers
/// set up anew what was just loaded. Whatever goes wrong, the way back is a reset, and only a reset
/// that has been seen to lead to RUNNING counts (V8, R15).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Loader<F> {
    plan: LoadPlan,
    held: Held<F>,
    phase: Phase,
    /// Why the device is on its way back to blank, if it is.
    aborted: Option<Cause>,
    asked: bool,
    frozen: bool,
    /// A SET has been sent: there may be something to undo.
    begun: bool,
    epoch: u32,
    evidence: Option<Evidence>,
    run: bool,
    /// The end has come: the way to RUNNING is the good one.
    ended: bool,
    give_up: Option<Cause>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum Phase {
    Features,
    /// The first GET.
    Begin,
    Call(Hook),
    Set(State),
    /// GET behind a SET that succeeded.
    Check(State),
    Frame,
    Write(Piece),
    /// A write would block.
    Blocked(Piece),
    /// GET behind a write that failed.
    Suspect {
        errno: Errno,
    },
    /// Loaded, but for the last check, which is the device's own.
    Loaded,
    /// GET before the device starts: is it still the one that was loaded?
    Locate,
    Reset,
    /// GET behind it.
    Revived,
    /// And then: end like this, if at all.
    Close(Option<Verdict>),
    Over(Verdict),
}

impl<F> Loader<F> {
    /// A session for a device in RUNNING, whose guest does not run yet.
    pub const fn new(plan: LoadPlan) -> Self {
        Self {
            plan,
            held: Held::new(),
            phase: Phase::Features,
            aborted: None,
            asked: false,
            frozen: false,
            begun: false,
            epoch: FIRST_EPOCH,
            evidence: None,
            run: false,
            ended: false,
            give_up: None,
        }
    }

    /// What the device can do; `STOP_COPY` alone until it has been asked.
    pub const fn features(&self) -> Features {
        self.held.features
    }

    /// Where the device is believed to be; `None` while only GET can tell.
    pub const fn at(&self) -> Option<State> {
        self.held.at
    }

    /// The epoch that frames must have.
    pub const fn epoch(&self) -> u32 {
        self.epoch
    }

    /// Whether nobody may touch the device (V4).
    pub const fn is_frozen(&self) -> bool {
        self.frozen
    }

    /// Whether the session is on its way back, to a blank device.
    pub const fn is_aborting(&self) -> bool {
        self.aborted.is_some()
    }

    /// The latest sign of a reset that the session did not order.
    pub const fn evidence(&self) -> Option<Evidence> {
        self.evidence
    }

    /// The data_fd of the session, if it has one that is believed to be alive: for `poll(2)`.
    pub const fn data_fd(&self) -> Option<&F> {
        self.held.live_fd()
    }

    const fn in_two_phases(&self) -> bool {
        self.plan.group && self.held.features.p2p()
    }

    /// What comes next.
    pub fn step(&mut self) -> Step<'_, Piece, F> {
        if !self.asked || self.phase == Phase::Frame {
            self.heed_events();
        }
        let waits = matches!(self.say(), Step::Wait(_) | Step::End(_));
        self.asked = !waits || self.phase == Phase::Frame;
        self.say()
    }

    fn say(&self) -> Step<'_, Piece, F> {
        match self.phase {
            Phase::Features => Step::Do(Op::GetFeatures),
            Phase::Begin
            | Phase::Check(_)
            | Phase::Suspect { .. }
            | Phase::Locate
            | Phase::Revived => Step::Do(Op::GetState),
            Phase::Call(hook) => Step::Call(hook),
            Phase::Set(to) => Step::Do(Op::set(to)),
            Phase::Frame => Step::Wait(Wait::Frame),
            Phase::Write(bytes) => match self.held.live_fd() {
                Some(fd) => Step::Do(Op::Write { fd, bytes }),
                None => Step::Wait(Wait::Writable),
            },
            Phase::Blocked(_) => Step::Wait(Wait::Writable),
            Phase::Loaded => Step::Wait(Wait::Run),
            Phase::Reset => Step::Do(Op::Reset),
            Phase::Close(_) => match self.held.to_close() {
                Some(fd) => Step::Do(Op::CloseFd { fd }),
                None => Step::Wait(Wait::Run),
            },
            Phase::Over(verdict) => Step::End(verdict),
        }
    }

    /// What the device answered to [`Step::Do`].
    pub fn reply(&mut self, reply: Reply<u32, F>) -> Result<(), OutOfTurn> {
        self.answered("a reply", matches!(self.say(), Step::Do(_)))?;
        match self.phase {
            Phase::Features => self.know_features(&reply),
            Phase::Begin => self.begin(reply),
            Phase::Set(to) => self.have_set(to, reply),
            Phase::Check(to) => self.have_checked(to, reply),
            Phase::Write(piece) => self.have_written(piece, &reply),
            Phase::Suspect { errno } => self.suspect(errno, reply),
            Phase::Locate => self.locate(reply),
            Phase::Reset => self.have_reset(&reply),
            Phase::Revived => self.revived(reply),
            Phase::Close(stuck) => {
                self.held.closed();
                self.close(stuck);
            }
            Phase::Call(_) | Phase::Frame | Phase::Blocked(_) | Phase::Loaded | Phase::Over(_) => {}
        }
        Ok(())
    }

    /// The next frame of the stream, at [`Wait::Frame`]. The bytes of a [`Frame::Data`] have to be
    /// at hand until the next [`Wait`].
    pub fn frame(&mut self, frame: Frame) -> Result<(), OutOfTurn> {
        self.answered("a frame", matches!(self.phase, Phase::Frame))?;
        if frame.epoch() != self.epoch {
            self.abort(Cause::Frame { frame, epoch: self.epoch });
            return Ok(());
        }
        self.phase = match frame {
            Frame::Data { len: 0, .. } => Phase::Frame,
            Frame::Data { len, .. } => Phase::Write(Piece { from: 0, len }),
            Frame::InitialBytesSent { .. } => Phase::Call(Hook::InitialBytesLoaded),
            Frame::Discard { .. } => Phase::Reset,
            Frame::End { .. } => Phase::Call(Hook::RestoreConfig),
        };
        Ok(())
    }

    /// The VMM has done what [`Step::Call`] asked for, or could not.
    pub fn called(&mut self, done: bool) -> Result<(), OutOfTurn> {
        let Phase::Call(hook) = self.phase else { return Err(self.out_of_turn("a called hook")) };
        self.answered("a called hook", true)?;
        match hook {
            Hook::Thaw if done || self.is_aborting() => {
                self.frozen = false;
                self.phase = Phase::Over(self.verdict());
            }
            hook if !done => self.abort(Cause::Hook(hook)),
            Hook::Freeze => {
                self.frozen = true;
                self.set(State::Resuming);
            }
            Hook::InitialBytesLoaded => self.phase = Phase::Frame,
            Hook::RestoreConfig => self.phase = Phase::Call(Hook::RestoreInterrupts),
            Hook::RestoreInterrupts => {
                self.ended = true;
                self.phase = Phase::Loaded;
            }
            Hook::Startable => self.set(State::Running),
            Hook::Thaw | Hook::Quiesced => {}
        }
        Ok(())
    }

    /// Something happened outside. Taken note of; what it changes shows in the next steps.
    pub fn event(&mut self, event: Event) -> Result<(), ResetRefused> {
        match event {
            Event::Tick => {
                if let Phase::Blocked(piece) = self.phase {
                    self.phase = Phase::Write(piece);
                }
            }
            Event::Run => self.run = true,
            Event::Cancel => self.give_up(Cause::Cancelled),
            Event::TimedOut => self.give_up(Cause::TimedOut),
            Event::PeerLost => self.give_up(Cause::PeerLost),
            Event::BadStream => self.give_up(Cause::BadStream),
            Event::Reset if matches!(self.phase, Phase::Over(_)) && !self.frozen => {
                return Err(ResetRefused::Over);
            }
            Event::Reset => return Err(ResetRefused::Frozen { at: self.held.at }),
            // Of the source.
            Event::Switchover | Event::Ack => {}
        }
        Ok(())
    }

    fn give_up(&mut self, cause: Cause) {
        self.give_up = self.give_up.or(Some(cause));
    }

    /// Between two ops: what happened meanwhile takes effect.
    fn heed_events(&mut self) {
        let over = matches!(self.phase, Phase::Over(_)) || self.aborted.is_some();
        if let Some(cause) = self.give_up.take().filter(|_cause| !over) {
            self.abort(cause);
        } else if self.phase == Phase::Loaded && self.run {
            self.phase = Phase::Locate;
        }
    }

    fn know_features(&mut self, reply: &Reply<u32, F>) {
        match *reply {
            Reply::Features(flags) => match Features::from_flags(flags) {
                Ok(features) => {
                    self.held.features = features;
                    self.phase = Phase::Begin;
                }
                Err(illegal) => self.abort(illegal.into()),
            },
            Reply::Errno(errno) => self.abort(Cause::NoMigration { errno }),
            _ => self.abort(Cause::Nonsense { op: "get_features" }),
        }
    }

    fn begin(&mut self, reply: Reply<u32, F>) {
        match self.held.get(reply) {
            Ok(state) if state == State::Running.into() => self.phase = Phase::Call(Hook::Freeze),
            Ok(state) => {
                self.abort(Cause::Elsewhere { state, expected: State::Running });
            }
            Err(cause) => self.abort(cause),
        }
    }

    fn set(&mut self, to: State) {
        match self.held.may_set(to) {
            Ok(()) => self.phase = Phase::Set(to),
            Err(cause) => self.abort(cause),
        }
    }

    fn have_set(&mut self, to: State, reply: Reply<u32, F>) {
        self.begun = true;
        match self.held.set(to, reply) {
            Moved::Opened => self.phase = Phase::Frame,
            Moved::Check => self.phase = Phase::Check(to),
            Moved::Unexpected => self.found_reset(Evidence::UnexpectedFd { to }),
            Moved::Failed(cause) => self.abort(cause),
        }
    }

    fn have_checked(&mut self, to: State, reply: Reply<u32, F>) {
        match self.held.get(reply) {
            Ok(state) if state == to.into() && to.is(State::Running) => self.close(None),
            Ok(state) if state == to.into() => self.phase = Phase::Call(Hook::Startable),
            Ok(state) => match Evidence::behind_set(to, state) {
                Some(evidence) => self.found_reset(evidence),
                None => self.abort(Cause::Wandered { to, state }),
            },
            Err(cause) => self.abort(cause),
        }
    }

    fn have_written(&mut self, Piece { from, len }: Piece, reply: &Reply<u32, F>) {
        match *reply {
            Reply::Written(0) => self.abort(Cause::NoProgress { op: "write" }),
            Reply::Written(taken) if taken == len => self.phase = Phase::Frame,
            Reply::Written(taken) if taken < len => {
                self.phase = Phase::Write(Piece { from: from + taken, len: len - taken });
            }
            Reply::Errno(Errno::EAGAIN) => self.phase = Phase::Blocked(Piece { from, len }),
            Reply::Errno(errno) => self.phase = Phase::Suspect { errno },
            _ => self.abort(Cause::Nonsense { op: "write" }),
        }
    }

    fn suspect(&mut self, errno: Errno, reply: Reply<u32, F>) {
        let state = match self.held.get(reply) {
            Ok(state) => state,
            Err(cause) => return self.abort(cause),
        };
        match Evidence::of_call("write", errno, state) {
            Some(evidence) => self.found_reset(evidence),
            None => self.abort(Cause::Io { op: "write", errno }),
        }
    }

    /// The last moment at which a reset in RESUMING can be seen: behind a SET there is no telling a
    /// device that was loaded from one that was blank (V9).
    fn locate(&mut self, reply: Reply<u32, F>) {
        let believed = State::Resuming;
        match self.held.get(reply) {
            Ok(state) if state == believed.into() && self.in_two_phases() => {
                self.set(State::RunningP2p);
            }
            Ok(state) if state == believed.into() => self.set(State::Running),
            Ok(state) => match Evidence::of_state(believed, state) {
                Some(evidence) => self.found_reset(evidence),
                None => self.abort(Cause::Wandered { to: believed, state }),
            },
            Err(cause) => self.abort(cause),
        }
    }

    fn found_reset(&mut self, evidence: Evidence) {
        self.evidence = Some(evidence);
        self.abort(Cause::Reset(evidence));
    }

    // ---- the way back

    fn abort(&mut self, cause: Cause) {
        self.aborted = Some(cause);
        self.phase = match (self.begun, self.frozen) {
            (true, _) => Phase::Reset,
            (false, true) => Phase::Call(Hook::Thaw),
            (false, false) => Phase::Over(self.verdict()),
        };
    }

    fn have_reset(&mut self, reply: &Reply<u32, F>) {
        match *reply {
            Reply::Ok => {
                self.held.reset();
                self.phase = Phase::Revived;
            }
            Reply::Errno(errno) => self.stuck(self.held.at.map(RawState::from), Some(errno)),
            _ => self.stuck(self.held.at.map(RawState::from), None),
        }
    }

    fn revived(&mut self, reply: Reply<u32, F>) {
        match self.held.get(reply) {
            Ok(state) if state == State::Running.into() => self.close(None),
            Ok(state) => self.stuck(Some(state), None),
            Err(Cause::Get { errno }) => self.stuck(None, Some(errno)),
            Err(_) => self.stuck(None, None),
        }
    }

    /// Close what is left, and then end stuck, or, in RUNNING by whichever way, go on or end.
    fn close(&mut self, stuck: Option<Verdict>) {
        self.held.end_session();
        if self.held.to_close().is_some() {
            self.phase = Phase::Close(stuck);
        } else if let Some(verdict) = stuck {
            self.phase = Phase::Over(verdict);
        } else if self.aborted.is_some() || self.ended {
            self.phase = Phase::Call(Hook::Thaw);
        } else {
            self.epoch += 1;
            self.set(State::Resuming);
        }
    }

    const fn verdict(&self) -> Verdict {
        let guest = Guest::Intact;
        match self.aborted {
            Some(cause) => Verdict::Aborted { cause, guest },
            None => Verdict::Complete { guest },
        }
    }

    fn stuck(&mut self, at: Option<RawState>, errno: Option<Errno>) {
        let cause = self.aborted.unwrap_or(Cause::Discarded);
        self.close(Some(Verdict::Stuck { cause, at, errno, guest: Guest::Intact }));
    }

    // ---- turns

    fn answered(&mut self, got: &'static str, fits: bool) -> Result<(), OutOfTurn> {
        if !fits || !self.asked {
            return Err(self.out_of_turn(got));
        }
        self.asked = false;
        Ok(())
    }

    fn out_of_turn(&self, got: &'static str) -> OutOfTurn {
        let asked = if self.asked { self.say().asks_for() } else { "step() to be called" };
        OutOfTurn { got, asked }
    }
}
