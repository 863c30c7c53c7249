// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! The source: from RUNNING to a whole image in a stream, or back.

mod home;

use core::convert::Infallible;

use crate::op::{EndOfStream, Errno, Op, PrecopyInfo, Reply};
use crate::state::{Features, RawState, State};
use crate::vmm::frame::{FIRST_EPOCH, Frame};
use crate::vmm::held::{Held, Moved};
use crate::vmm::step::{Cause, Event, Guest, Hook, OutOfTurn, ResetRefused, Step, Verdict, Wait};
use crate::vmm::{Choices, Decision, Evidence, Recovery};

/// What a VMM wants of a [`Saver`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Plan {
    /// Go through PRE_COPY, if the device has it.
    pub pre_copy: bool,
    /// Ask for `VFIO_PRECOPY_INFO_REINIT`, if the kernel has it (7.1 and later).
    pub reinit: bool,
    /// Call the device ready only when [`Event::Ack`] has come behind the initial bytes.
    pub ack: bool,
    /// The device is one of several with DMA between them: stop and start in two phases, with
    /// [`Hook::Quiesced`] and [`Hook::Startable`] between. Needs P2P, see [`Group`].
    ///
    /// [`Group`]: crate::vmm::Group
    pub group: bool,
    /// The VMM has stopped the device (STOP) and the guest before, and keeps them so: that is where
    /// the session begins and goes back to, it calls neither [`Hook::Freeze`] nor [`Hook::Thaw`],
    /// and there is no PRE_COPY.
    pub paused: bool,
    /// How often the stream may be discarded after a reset: a guest that resets its device for ever
    /// must not migrate for ever.
    pub restarts: u16,
    /// Bytes asked for by one read, and so the most in one [`Frame::Data`].
    pub chunk: u32,
    /// What to do when all has been sent.
    pub then: Then,
}

/// What to do when all has been sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Then {
    /// Stay in STOP: the destination goes on. [`Event::Cancel`] still takes the device back.
    Stop,
    /// Go back to where the device was: the image is a snapshot.
    Back,
}

impl Plan {
    /// A live migration of one device.
    pub const LIVE: Self = Self {
        pre_copy: true,
        reinit: true,
        ack: false,
        group: false,
        paused: false,
        restarts: 3,
        chunk: 1 << 18,
        then: Then::Stop,
    };

    /// A snapshot: the device stops, is read, and goes back to where it was.
    pub const SNAPSHOT: Self = Self { pre_copy: false, then: Then::Back, ..Self::LIVE };
}

/// What is left to send, as the device says.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Status {
    /// Bytes of the initial data; better leave PRE_COPY only at 0 (R35).
    pub initial_bytes: u64,
    /// Bytes that changed since (R36).
    pub dirty_bytes: u64,
    /// Estimate of the STOP_COPY data, in bytes (R39); `None` if the device gives none.
    pub stop_copy_length: Option<u64>,
    /// Whether the destination has what it needs to go over quickly: the initial bytes are sent
    /// and, if the plan says so, acknowledged. Without PRE_COPY from the start.
    pub ready: bool,
}

impl Status {
    /// Nothing known.
    pub const NONE: Self =
        Self { initial_bytes: 0, dirty_bytes: 0, stop_copy_length: None, ready: false };
}

/// Drives the device at the source.
///
/// Wherever it ends, the device is in a known state, no data_fd is open, and the verdict says what
/// the guest has lived through.
///
/// A SET is only ever sent where a route leads, a data_fd only ever used while nothing says that
/// its session is over, and behind an error nothing is believed until GET has told (V1, V2, V3).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Saver<F> {
    plan: Plan,
    held: Held<F>,
    course: Course,
    phase: Phase,
    /// What `step` said has not been answered.
    asked: bool,
    frozen: bool,
    /// In a group: no peer starts DMA any more.
    quiesced: bool,
    epoch: u32,
    restarts: u16,
    /// The kernel has agreed to report REINIT; without, the flag means nothing (C44).
    reinit: bool,
    initial_sent: bool,
    acked: bool,
    /// The latest read found nothing, so another look at sizes is due before another read.
    dry: bool,
    /// Bytes that may be read before the next look: a guest that is faster than the stream would
    /// otherwise keep the VMM from seeing that.
    in_sight: u64,
    initial_bytes: u64,
    dirty_bytes: u64,
    stop_copy_length: Option<u64>,
    guest: Guest,
    evidence: Option<Evidence>,
    switchover: bool,
    reset: bool,
    give_up: Option<Cause>,
}

/// Where all of it leads.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum Course {
    /// To a whole image.
    Save,
    /// Home, to begin with PRE_COPY again.
    Restart,
    /// Home, with the image sent.
    Back,
    /// Home, without.
    Abort(Cause),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum Phase {
    Features,
    OptIn,
    /// The first GET.
    Begin,
    Info,
    Size,
    Idle,
    Read,
    /// A read would block.
    Blocked,
    Send(Frame),
    Set(State),
    /// GET behind a SET that succeeded.
    Check(State),
    /// GET behind a call on the data_fd that failed.
    Suspect {
        op: &'static str,
        errno: Errno,
    },
    Decide(Evidence),
    Call(Hook),
    Close(Next),
    /// GET before going home, and once more if it fails.
    Locate {
        again: bool,
    },
    /// GET behind a failure on the way home: is the reset really needed?
    LastLook,
    /// The reset that the VMM ordered.
    Ordered,
    /// The reset that is the last resort.
    LastResort,
    /// GET behind it.
    Revived,
    Over(Verdict),
}

/// What comes when the data_fds that are of no more use are closed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum Next {
    AfterDiscard,
    End,
    LeaveHome,
    Over(Verdict),
}

impl<F> Saver<F> {
    /// A session for a device in RUNNING, or, with a plan that is `paused`, in STOP.
    pub const fn new(plan: Plan) -> Self {
        Self {
            plan,
            held: Held::new(),
            course: Course::Save,
            phase: Phase::Features,
            asked: false,
            frozen: false,
            quiesced: false,
            epoch: FIRST_EPOCH,
            restarts: plan.restarts,
            reinit: false,
            initial_sent: false,
            acked: false,
            dry: false,
            in_sight: 0,
            initial_bytes: 0,
            dirty_bytes: 0,
            stop_copy_length: None,
            guest: Guest::Intact,
            evidence: None,
            switchover: false,
            reset: false,
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

    /// The epoch that frames are sent in.
    pub const fn epoch(&self) -> u32 {
        self.epoch
    }

    /// Whether no guest may touch the device (V4).
    pub const fn is_frozen(&self) -> bool {
        self.frozen || self.plan.paused
    }

    /// Whether the session is on its way back, without an image.
    pub const fn is_aborting(&self) -> bool {
        matches!(self.course, Course::Abort(_))
    }

    /// The latest sign of a reset.
    pub const fn evidence(&self) -> Option<Evidence> {
        self.evidence
    }

    /// The data_fd of the session, if it has one that is believed to be alive: for `poll(2)`.
    pub const fn data_fd(&self) -> Option<&F> {
        self.held.live_fd()
    }

    /// What is left to send.
    pub const fn status(&self) -> Status {
        let acked = self.acked || !self.plan.ack;
        Status {
            initial_bytes: self.initial_bytes,
            dirty_bytes: self.dirty_bytes,
            stop_copy_length: self.stop_copy_length,
            ready: !self.has_pre_copy() || (self.initial_sent && acked),
        }
    }

    const fn has_pre_copy(&self) -> bool {
        self.plan.pre_copy && self.held.features.pre_copy() && !self.plan.paused
    }

    /// Where the device begins and goes back to.
    const fn home(&self) -> State {
        if self.plan.paused { State::Stop } else { State::Running }
    }

    /// Whether stopping and starting has two phases.
    const fn in_two_phases(&self) -> bool {
        self.plan.group && self.held.features.p2p() && self.frozen
    }

    /// What comes next.
    pub fn step(&mut self) -> Step<'_, Infallible, F> {
        if !self.asked || matches!(self.phase, Phase::Decide(_)) {
            self.heed_events();
        }
        self.asked = !matches!(self.say(), Step::Wait(_) | Step::End(_));
        self.say()
    }

    fn say(&self) -> Step<'_, Infallible, F> {
        let len = self.plan.chunk;
        match self.phase {
            Phase::Features => Step::Do(Op::GetFeatures),
            Phase::OptIn => Step::Do(Op::OptInPrecopyV2),
            Phase::Begin
            | Phase::Check(_)
            | Phase::Suspect { .. }
            | Phase::Locate { .. }
            | Phase::LastLook
            | Phase::Revived => Step::Do(Op::GetState),
            Phase::Info => on(self.held.live_fd(), |fd| Op::PrecopyInfo { fd }),
            Phase::Size => Step::Do(Op::DataSize),
            Phase::Read => on(self.held.live_fd(), |fd| Op::Read { fd, len }),
            Phase::Set(to) => Step::Do(Op::set(to)),
            Phase::Close(_) => on(self.held.to_close(), |fd| Op::CloseFd { fd }),
            Phase::Ordered | Phase::LastResort => Step::Do(Op::Reset),
            Phase::Send(frame) => Step::Send(frame),
            Phase::Call(hook) => Step::Call(hook),
            Phase::Decide(evidence) => Step::Decide(Decision { evidence, choices: self.choices() }),
            Phase::Idle => Step::Wait(Wait::Switchover),
            Phase::Blocked => Step::Wait(Wait::Readable),
            Phase::Over(verdict) => Step::End(verdict),
        }
    }

    /// What the device answered to [`Step::Do`]; of what was read, only how much.
    pub fn reply(&mut self, reply: Reply<u32, F>) -> Result<(), OutOfTurn> {
        self.answered("a reply", matches!(self.say(), Step::Do(_)))?;
        match self.phase {
            Phase::Features => self.know_features(&reply),
            Phase::OptIn => {
                self.reinit = matches!(reply, Reply::Ok);
                self.phase = Phase::Begin;
            }
            Phase::Begin => self.begin(reply),
            Phase::Info => self.informed(&reply),
            Phase::Size => {
                self.stop_copy_length = if let Reply::Size(len) = reply { Some(len) } else { None };
                self.phase = Phase::Idle;
            }
            Phase::Read => self.have_read(&reply),
            Phase::Set(to) => self.have_set(to, reply),
            Phase::Check(to) => self.have_checked(to, reply),
            Phase::Suspect { op, errno } => self.suspect(op, errno, reply),
            Phase::Close(next) => {
                self.held.closed();
                self.close(next);
            }
            Phase::Locate { again } => self.locate(again, reply),
            Phase::LastLook => self.last_look(reply),
            Phase::Ordered => self.have_reset_for_guest(&reply),
            Phase::LastResort => self.have_reset(&reply),
            Phase::Revived => self.revived(reply),
            Phase::Send(_)
            | Phase::Call(_)
            | Phase::Decide(_)
            | Phase::Idle
            | Phase::Blocked
            | Phase::Over(_) => {}
        }
        Ok(())
    }

    /// The frame of [`Step::Send`] is on the wire.
    pub fn sent(&mut self) -> Result<(), OutOfTurn> {
        let Phase::Send(frame) = self.phase else { return Err(self.out_of_turn("a sent frame")) };
        self.answered("a sent frame", true)?;
        match frame {
            Frame::Data { .. } if self.in_sight > 0 || self.is_at(State::StopCopy) => {
                self.on_session(Phase::Read);
            }
            Frame::Data { .. } => self.on_session(Phase::Info),
            Frame::InitialBytesSent { .. } => {
                self.initial_sent = true;
                self.read_or_rest();
            }
            Frame::Discard { .. } => {
                self.epoch += 1;
                self.restarts -= 1;
                (self.initial_sent, self.acked, self.dry) = (false, false, false);
                (self.initial_bytes, self.dirty_bytes) = (0, 0);
                self.close(Next::AfterDiscard);
            }
            Frame::End { .. } if self.plan.then == Then::Back => {
                self.course = Course::Back;
                self.homeward();
            }
            Frame::End { .. } => self.phase = Phase::Over(Verdict::Complete { guest: self.guest }),
        }
        Ok(())
    }

    /// The VMM has done what [`Step::Call`] asked for, or could not.
    pub fn called(&mut self, done: bool) -> Result<(), OutOfTurn> {
        let Phase::Call(hook) = self.phase else { return Err(self.out_of_turn("a called hook")) };
        self.answered("a called hook", true)?;
        match hook {
            Hook::Thaw => self.thawed(),
            // Going home is not stopped by anything, least of all halfway.
            Hook::Startable => self.set(self.home()),
            hook if !done => self.abort(Cause::Hook(hook)),
            Hook::Freeze => {
                self.frozen = true;
                self.stop();
            }
            Hook::Quiesced => {
                self.quiesced = true;
                self.stop();
            }
            Hook::InitialBytesLoaded | Hook::RestoreConfig | Hook::RestoreInterrupts => {}
        }
        Ok(())
    }

    /// What the VMM chose at [`Step::Decide`]. One that is not offered is taken for abort.
    pub fn decide(&mut self, choice: Recovery) -> Result<(), OutOfTurn> {
        let Phase::Decide(evidence) = self.phase else { return Err(self.out_of_turn("a choice")) };
        self.answered("a choice", true)?;
        let choices = self.choices();
        match choice {
            Recovery::Restart if choices.restart => self.discard(Course::Restart),
            Recovery::StopCopy if choices.stop_copy => self.discard(Course::Save),
            _ => self.abort(Cause::Reset(evidence)),
        }
        Ok(())
    }

    /// Something happened outside. Taken note of; what it changes shows in the next steps.
    pub fn event(&mut self, event: Event) -> Result<(), ResetRefused> {
        match event {
            Event::Tick => self.tick(),
            Event::Switchover => self.switchover = true,
            Event::Ack => self.acked = self.initial_sent,
            Event::Cancel => self.give_up(Cause::Cancelled),
            Event::TimedOut => self.give_up(Cause::TimedOut),
            Event::PeerLost => self.give_up(Cause::PeerLost),
            Event::Reset => return self.order_reset(),
            // Of the destination.
            Event::Run | Event::BadStream => {}
        }
        Ok(())
    }

    fn order_reset(&mut self) -> Result<(), ResetRefused> {
        let at = self.held.at;
        let freezing = self.is_frozen() || self.phase == Phase::Call(Hook::Freeze);
        if freezing || self.course == Course::Restart {
            return Err(ResetRefused::Frozen { at });
        }
        if self.course != Course::Save || matches!(self.phase, Phase::Over(_)) {
            return Err(ResetRefused::Over);
        }
        self.reset = true;
        Ok(())
    }

    fn tick(&mut self) {
        match self.phase {
            Phase::Idle if self.held.live_fd().is_some() => {
                self.dry = false;
                self.phase = Phase::Info;
            }
            Phase::Idle => self.phase = Phase::Size,
            Phase::Blocked => self.on_session(Phase::Read),
            _ => {}
        }
    }

    fn give_up(&mut self, cause: Cause) {
        self.give_up = self.give_up.or(Some(cause));
    }

    /// Between two ops: what happened meanwhile takes effect.
    fn heed_events(&mut self) {
        if let Some(cause) = self.give_up.take() {
            return self.heed_giving_up(cause);
        }
        let between = matches!(
            self.phase,
            Phase::Info | Phase::Size | Phase::Idle | Phase::Read | Phase::Blocked
        );
        if !between || self.course != Course::Save || self.is_stopping() {
            return;
        }
        if core::mem::take(&mut self.reset) {
            self.phase = Phase::Ordered;
        } else if core::mem::take(&mut self.switchover) {
            self.stop();
        }
    }

    fn heed_giving_up(&mut self, cause: Cause) {
        match (self.phase, self.course) {
            // Nothing has been done yet.
            (Phase::Features | Phase::OptIn | Phase::Begin, _) => self.over(cause),
            // All has been sent, and the destination has failed.
            (Phase::Over(Verdict::Complete { .. }), Course::Save) => self.abort(cause),
            (Phase::Over(_), _) | (_, Course::Back | Course::Abort(_)) => {}
            (_, Course::Save | Course::Restart) => self.abort(cause),
        }
    }

    /// Whether the guest has been, or is about to be, stopped for the last part.
    const fn is_stopping(&self) -> bool {
        self.frozen || self.is_at(State::StopCopy)
    }

    const fn is_at(&self, state: State) -> bool {
        match self.held.at {
            Some(at) => at.is(state),
            None => false,
        }
    }

    // ---- the beginning

    fn know_features(&mut self, reply: &Reply<u32, F>) {
        match *reply {
            Reply::Features(flags) => match Features::from_flags(flags) {
                Ok(features) => {
                    self.held.features = features;
                    let opt_in = self.has_pre_copy() && self.plan.reinit;
                    self.phase = if opt_in { Phase::OptIn } else { Phase::Begin };
                }
                Err(illegal) => self.over(illegal.into()),
            },
            Reply::Errno(errno) => self.over(Cause::NoMigration { errno }),
            _ => self.over(Cause::Nonsense { op: "get_features" }),
        }
    }

    fn begin(&mut self, reply: Reply<u32, F>) {
        match self.held.get(reply) {
            Ok(state) if state != self.home().into() => {
                self.over(Cause::Elsewhere { state, expected: self.home() });
            }
            Ok(_) if self.has_pre_copy() => self.set(State::PreCopy),
            Ok(_) => self.phase = Phase::Size,
            Err(cause) => self.over(cause),
        }
    }

    // ---- PRE_COPY and STOP_COPY: reading

    fn informed(&mut self, reply: &Reply<u32, F>) {
        match *reply {
            Reply::Info(PrecopyInfo { initial_bytes, dirty_bytes, reinit }) => {
                (self.initial_bytes, self.dirty_bytes) = (initial_bytes, dirty_bytes);
                self.in_sight = initial_bytes.saturating_add(dirty_bytes);
                if reinit && self.reinit {
                    (self.initial_sent, self.acked) = (false, false);
                }
                if initial_bytes == 0 && !self.initial_sent {
                    self.phase = Phase::Send(Frame::InitialBytesSent { epoch: self.epoch });
                } else {
                    self.read_or_rest();
                }
            }
            Reply::Errno(errno) => self.phase = Phase::Suspect { op: "precopy_info", errno },
            _ => self.abort(Cause::Nonsense { op: "precopy_info" }),
        }
    }

    fn read_or_rest(&mut self) {
        if self.in_sight > 0 && !self.dry {
            self.on_session(Phase::Read);
        } else {
            self.phase = Phase::Size;
        }
    }

    fn have_read(&mut self, reply: &Reply<u32, F>) {
        let stopped = self.is_at(State::StopCopy);
        match *reply {
            Reply::Bytes(0) => self.abort(Cause::NoProgress { op: "read" }),
            Reply::Bytes(len) => {
                self.dry = false;
                self.in_sight = self.in_sight.saturating_sub(len.into());
                self.phase = Phase::Send(Frame::Data { epoch: self.epoch, len });
            }
            // Some drivers say 0 for the temporary end; what counts is the state (R32).
            Reply::EndOfStream(_) if !stopped => {
                self.dry = true;
                self.on_session(Phase::Info);
            }
            Reply::EndOfStream(EndOfStream::Permanent) => self.set(State::Stop),
            Reply::EndOfStream(EndOfStream::Temporary) => self.abort(Cause::TemporaryEnd),
            Reply::Errno(Errno::EAGAIN) => self.phase = Phase::Blocked,
            Reply::Errno(errno) => self.phase = Phase::Suspect { op: "read", errno },
            _ => self.abort(Cause::Nonsense { op: "read" }),
        }
    }

    /// A call on the data_fd failed, and now GET says where the device is.
    fn suspect(&mut self, op: &'static str, errno: Errno, reply: Reply<u32, F>) {
        let state = match self.held.get(reply) {
            Ok(state) => state,
            Err(cause) => return self.abort(cause),
        };
        match Evidence::of_call(op, errno, state) {
            Some(evidence) => self.found_reset(evidence),
            None => self.abort(Cause::Io { op, errno }),
        }
    }

    // ---- moving

    fn set(&mut self, to: State) {
        match self.held.may_set(to) {
            Ok(()) => self.phase = Phase::Set(to),
            Err(_) if self.is_aborting() => self.phase = Phase::LastResort,
            Err(cause) => self.abort(cause),
        }
    }

    fn have_set(&mut self, to: State, reply: Reply<u32, F>) {
        match self.held.set(to, reply) {
            Moved::Opened => self.arrived(to),
            Moved::Check => self.phase = Phase::Check(to),
            Moved::Unexpected if self.course == Course::Save => {
                self.found_reset(Evidence::UnexpectedFd { to });
            }
            Moved::Unexpected => self.phase = Phase::Check(to),
            Moved::Failed(_) if self.is_aborting() => self.phase = Phase::LastLook,
            Moved::Failed(cause) => self.abort(cause),
        }
    }

    fn have_checked(&mut self, to: State, reply: Reply<u32, F>) {
        match self.held.get(reply) {
            Ok(state) if state == to.into() => self.arrived(to),
            Ok(state) => self.have_strayed(to, state),
            // A reset costs the guest its device: ask once more before.
            Err(_) if self.is_aborting() => self.phase = Phase::LastLook,
            Err(cause) => self.abort(cause),
        }
    }

    /// A SET succeeded, and the device is somewhere else.
    fn have_strayed(&mut self, to: State, state: RawState) {
        match Evidence::behind_set(to, state) {
            Some(evidence) if self.course == Course::Save => self.found_reset(evidence),
            Some(evidence) => {
                self.note_reset(evidence);
                self.homeward();
            }
            None if self.is_aborting() => self.phase = Phase::LastResort,
            None => self.abort(Cause::Wandered { to, state }),
        }
    }

    fn arrived(&mut self, at: State) {
        match at {
            State::PreCopy => self.on_session(Phase::Info),
            State::PreCopyP2p => self.phase = Phase::Call(Hook::Quiesced),
            State::StopCopy => self.on_session(Phase::Read),
            _ if self.course != Course::Save => self.homeward(),
            State::RunningP2p => self.phase = Phase::Call(Hook::Quiesced),
            // The device has stopped behind its last byte: only now may the receiver go on (V6).
            State::Stop => self.close(Next::End),
            State::Running | State::Resuming | State::Error => {}
        }
    }

    /// Something to do with the data_fd. A driver that ends a session without leaving its state has
    /// left none to do it with.
    fn on_session(&mut self, phase: Phase) {
        match (self.held.live_fd(), self.held.at) {
            (None, Some(to)) => self.abort(Cause::NoDataFd { to }),
            _ => self.phase = phase,
        }
    }

    /// Towards STOP_COPY, one step.
    fn stop(&mut self) {
        // What comes now is read to its end.
        self.in_sight = 0;
        if !self.is_frozen() {
            self.phase = Phase::Call(Hook::Freeze);
        } else if self.in_two_phases() && !self.quiesced {
            match self.held.at {
                Some(State::PreCopy) => self.set(State::PreCopyP2p),
                Some(State::Running) => self.set(State::RunningP2p),
                _ => self.phase = Phase::Call(Hook::Quiesced),
            }
        } else if self.is_at(State::StopCopy) && self.held.live_fd().is_some() {
            self.phase = Phase::Read;
        } else {
            self.set(State::StopCopy);
        }
    }

    // ---- a reset

    fn note_reset(&mut self, evidence: Evidence) {
        self.evidence = Some(evidence);
        if self.guest == Guest::Intact {
            self.guest = Guest::ResetByItself;
        }
    }

    fn found_reset(&mut self, evidence: Evidence) {
        self.note_reset(evidence);
        if !matches!(evidence, Evidence::UnexpectedFd { .. }) {
            self.held.end_session();
        }
        self.phase = Phase::Decide(evidence);
    }

    fn choices(&self) -> Choices {
        // While the guest is stopped, a device of a group cannot go on without the others.
        let alone = !(self.plan.group && self.frozen);
        Choices::new(self.restarts > 0, self.has_pre_copy() && alone)
    }

    fn discard(&mut self, course: Course) {
        self.course = course;
        (self.reset, self.switchover) = (false, false);
        self.phase = Phase::Send(Frame::Discard { epoch: self.epoch });
    }

    fn have_reset_for_guest(&mut self, reply: &Reply<u32, F>) {
        let had_session = self.held.live_fd().is_some();
        match reply {
            Reply::Ok => {
                self.held.reset();
                self.note_reset(Evidence::Ordered);
                let decide = Phase::Decide(Evidence::Ordered);
                self.phase = if had_session { decide } else { Phase::Size };
            }
            _ => self.phase = if had_session { Phase::Info } else { Phase::Size },
        }
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

/// An op on a data_fd. There is one whenever a phase wants one; were there none, a session that waits
/// can still be told to give up.
fn on<'a, B, F>(fd: Option<&'a F>, op: impl FnOnce(&'a F) -> Op<B, &'a F>) -> Step<'a, B, F> {
    match fd {
        Some(fd) => Step::Do(op(fd)),
        None => Step::Wait(Wait::Readable),
    }
}
