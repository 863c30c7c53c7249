// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! The source: a `Saver`, its device, a guest and a host that reset it, and a receiver.

use vfio_fsm_core::device::{Device, Memory, Planted};
use vfio_fsm_core::vmm::frame::Frame;
use vfio_fsm_core::vmm::{
    Event, Evidence, Guest, Hook, Plan, Recovery, Saver, Step, Then, Verdict, Wait,
};
use vfio_fsm_core::{Errno, Fault, Fd, Features, Op, Reply, Route, State};

use crate::counterexample::{Counterexample, Recorder};
use crate::property::{Rule, rules};
use crate::search::{ByHalves, Codec, Halves};
use crate::session::around::{Hands, remembered};
use crate::session::slip::Slip;
use crate::session::{
    Asked, Did, Judgement, Play, SmallDevice, Trouble, by_number, open_choices, reached, record,
    ticks, troubles_of_set,
};
use crate::world::Actor;

/// The model.
#[derive(Clone, Debug)]
pub(crate) struct Source {
    pub(crate) features: Features,
    pub(crate) setting: Setting,
    pub(crate) slip: Option<Slip>,
    pub(crate) rules: &'static [Rule<Judgement<World>>],
}

/// What the world around the session is like.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Setting {
    pub(crate) then: Then,
    /// The VMM has stopped device and guest before.
    pub(crate) paused: bool,
    /// The host resets the device, whatever the VMM holds back.
    pub(crate) host_resets: bool,
    /// How many calls fail.
    pub(crate) faults: u8,
}

/// Everything there is at one moment.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) struct World {
    saver: Saver<Fd>,
    device: SmallDevice,
    receiver: Receiver,
    /// What was read last.
    read: [u8; CHUNK],
    /// The VMM has stopped device and guest before.
    paused: bool,
    /// The guest is held back.
    halted: bool,
    /// Calls that may still fail.
    faults: u8,
    /// A data_fd that was silently replaced, and by which: [`Slip::SwapsFd`].
    swapped: Option<(Fd, Fd)>,
    /// Where the device was before a SET failed: [`Slip::KeepsFdAfterError`].
    stale: Option<State>,
    ghost: Ghost,
}

/// What the session cannot know.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub(crate) struct Ghost {
    /// There has been a reset that was not the session's own last resort.
    reset: bool,
    /// There has been one since the session last saw a sign of one.
    unseen: bool,
    /// There has been one by the host since the device stopped.
    reset_since_stop: bool,
    /// The session has reset the device as its last resort.
    own_reset: bool,
    /// A reset as the last resort was tried, and it, or a GET behind it, failed.
    revival_failed: bool,
    /// The register when the device last stopped to be copied.
    stopped_with: Option<u8>,
    /// The session's last op was one that it must ask GET behind, for it failed.
    failed: bool,
    /// Steps of the session since it was told to give up.
    giving_up: Option<u8>,
    /// The host has reset the device meanwhile.
    hounded: bool,
    /// A read of the data_fd would have blocked.
    blocked: bool,
    /// The VMM has ordered a reset, which comes next.
    ordered: bool,
}

/// The destination, as far as it matters here: one that does what the frames say.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Receiver {
    device: Device<Memory<1>, 1>,
    fd: Option<Fd>,
    /// Behind the end: what was loaded, or that it could not be.
    loaded: Option<Result<u8, ()>>,
}

/// Half a record: so that a session can end in the middle of one.
const CHUNK: usize = 1;

/// Two sessions can be mixed; a third adds nothing but worlds.
const RESTARTS: u16 = 1;

/// What the guest writes. A reset clears it.
const TOUCH: u8 = 1;

/// What happens next.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum Action {
    /// What the session says is done.
    Go(Trouble),
    /// The VMM cannot do its part.
    Refuse,
    /// The VMM chooses.
    Choose(Recovery),
    /// Something happens outside.
    Event(Event),
    GuestReset,
    GuestTouch,
    HostReset,
}

/// How long a session may take to end that has been told to: see `saver-gives-up`.
const GIVING_UP_TAKES: u8 = 14;

pub(crate) const RULES: &[Rule<Judgement<World>>] = rules! {
    "saver-legal-set" ["V1" "R16" "C10"]
        "the saver sends no SET for which no route leads from where the device is"
        |before, did, _| {
            let to = set(did)?;
            let fsm = before.device.fsm();
            Some(Route::new(fsm.features(), fsm.state(), to).is_ok())
        };
    "saver-live-fd" ["V2"]
        "the saver reads from and asks no data_fd that is dead, unless by a reset still unseen"
        |before, did, _| match did {
            Did::Op(Op::Read { fd, .. } | Op::PrecopyInfo { fd }, _) => {
                Some(before.device.is_live(*fd) || before.ghost.unseen)
            }
            _ => None,
        };
    "saver-closes" ["V2" "R10"]
        "when the saver ends, every data_fd that it was given is closed"
        |_, _, after| at_end(after).map(|_| after.device.fds().open().next().is_none());
    "saver-asks-after-error" ["V3" "R8"]
        "behind a SET, a read or a PRECOPY_INFO that failed, the first op of the saver is a GET"
        |before, did, _| match did {
            Did::Op(op, _) if before.ghost.failed => Some(*op == Op::GetState),
            _ => None,
        };
    "saver-freezes" ["V4" "R22"]
        "whenever the saver's device is in STOP or STOP_COPY, the guest is held back"
        |_, _, after| {
            let stopped = matches!(after.device.fsm().state(), State::Stop | State::StopCopy);
            stopped.then_some(after.halted)
        };
    "saver-holds-resets-back" ["V4"]
        "while the guest is frozen the saver resets the device as its last resort alone"
        |before, did, after| match did {
            Did::Op(Op::Reset, _) if before.halted => Some(!before.ghost.ordered),
            Did::Event(Event::Reset) => Some(before.halted != after.ghost.ordered),
            _ => None,
        };
    "saver-evidence-is-sound" ["V5" "O1" "O2" "O3" "O4"]
        "what the saver takes for the sign of a reset is one"
        |before, did, after| {
            let new = after.saver.evidence().is_some()
                && (after.saver.evidence() != before.saver.evidence() || decides(after));
            (new && *did != Did::Event(Event::Tick)).then_some(before.ghost.reset || after.ghost.reset)
        };
    "saver-sees-dead-fd" ["V5" "O1"]
        "a reset is seen by a call on the data_fd that fails"
        |_, _, after| sees(after, |e| matches!(e, Evidence::DeadFd { .. }));
    "saver-sees-unexpected-fd" ["V5" "O2"]
        "a reset is seen by a data_fd where none was due, which is kept and alive"
        |_, did, after| {
            let _to = set(did)?;
            let seen = sees(after, |e| matches!(e, Evidence::UnexpectedFd { .. }))?;
            let kept = after.saver.data_fd().is_some_and(|fd| after.device.is_live(*fd));
            Some(seen && (kept || after.ghost.unseen))
        };
    "saver-sees-noop-cancel" ["V5" "O3"]
        "a reset is seen by a device that is in RUNNING before it was told to go there"
        |before, did, after| match (did, after.saver.evidence()) {
            (Did::Op(Op::GetState, _), Some(Evidence::AlreadyRunning { .. }))
                if after.saver.evidence() != before.saver.evidence() =>
            {
                Some(after.ghost.reset)
            }
            _ => None,
        };
    "saver-sees-deferred-reset" ["V5" "O4"]
        "a reset is seen by a GET that says RUNNING behind a SET that succeeded"
        |_, _, after| sees(after, |e| matches!(e, Evidence::DeferredIntoSet { .. }));
    "saver-image" ["V6" "R28" "R37" "O2"]
        "when the end is sent, the receiver has loaded what the device had when it stopped, read \
         from one data_fd, and no guest has touched it since"
        |_, did, after| match did {
            Did::Sent(Frame::End { .. }) => Some(after.image_is_whole()),
            _ => None,
        };
    "saver-complete" ["V6"]
        "the saver is complete only behind the end, its device in STOP, or back and let go"
        |_, _, after| match at_end(after)? {
            Verdict::Complete { .. } => Some(after.receiver.loaded.is_some() && after.is_where_due()),
            _ => None,
        };
    "saver-aborts" ["V7" "R10" "T5"]
        "a saver that aborts leaves the device where it was, and the guest let go"
        |_, _, after| match at_end(after)? {
            Verdict::Aborted { .. } => Some(after.is_at_home()),
            _ => None,
        };
    "saver-stuck-by-reset" ["V7"]
        "a saver is stuck only when the reset of last resort failed, or did not lead home"
        |_, _, after| match at_end(after)? {
            Verdict::Stuck { .. } => Some(after.ghost.revival_failed || !after.is_at_home()),
            _ => None,
        };
    "saver-guest" ["V7"]
        "the verdict on the guest: lost by us if and only if the session reset the device, reset by \
         itself only if there was a reset"
        |_, _, after| Some(match at_end(after)?.guest() {
            Guest::Intact => !after.ghost.own_reset,
            Guest::ResetByItself => !after.ghost.own_reset && after.ghost.reset,
            Guest::LostByUs => after.ghost.own_reset || after.ghost.revival_failed,
        });
    "saver-gives-up" ["V10"]
        "a saver that is told to give up ends within 14 steps of its own, if no host resets the \
         device again and again"
        |_, _, after| {
            let steps = after.ghost.giving_up.filter(|_| !after.ghost.hounded)?;
            Some(steps <= GIVING_UP_TAKES)
        };
    "saver-waits-for-something" ["V10"]
        "a saver waits for the data_fd to be readable only if a read would have blocked"
        |_, _, after| {
            let mut saver = after.saver;
            let waits = saver.step() == Step::Wait(Wait::Readable);
            waits.then_some(after.ghost.blocked)
        };
};

fn set(did: &Did) -> Option<State> {
    match did {
        Did::Op(Op::SetState { to, .. }, _) => to.known(),
        _ => None,
    }
}

fn at_end(world: &World) -> Option<Verdict> {
    let mut saver = world.saver;
    match saver.step() {
        Step::End(verdict) => Some(verdict),
        _ => None,
    }
}

fn decides(world: &World) -> bool {
    let mut saver = world.saver;
    matches!(saver.step(), Step::Decide(_))
}

/// Of a world in which the session has just seen such a sign: whether it was one.
fn sees(world: &World, kind: fn(&Evidence) -> bool) -> Option<bool> {
    let mut saver = world.saver;
    match saver.step() {
        Step::Decide(decision) if kind(&decision.evidence) => Some(world.ghost.reset),
        _ => None,
    }
}

impl World {
    fn new(features: Features, setting: Setting) -> Self {
        let plan = Plan {
            restarts: RESTARTS,
            chunk: CHUNK as u32,
            then: setting.then,
            paused: setting.paused,
            ..Plan::LIVE
        };
        let mut device = SmallDevice::new(features, Memory::new());
        let _reply = device.apply(Op::Touch(TOUCH), &mut []);
        if setting.paused {
            let _reply = device.apply(Op::set(State::Stop), &mut []);
        }
        Self {
            saver: Saver::new(plan),
            device,
            receiver: Receiver::new(),
            read: [0; CHUNK],
            paused: setting.paused,
            halted: setting.paused,
            faults: setting.faults,
            swapped: None,
            stale: None,
            ghost: Ghost::default(),
        }
    }

    const fn register(&self) -> u8 {
        self.device.actions().registers()[0]
    }

    fn image_is_whole(&self) -> bool {
        let image = self.receiver.loaded.and_then(Result::ok);
        let untouched = self.ghost.reset_since_stop || image == Some(self.register());
        image.is_some() && image == self.ghost.stopped_with && untouched
    }

    /// In RUNNING and let go, or, where the VMM had stopped it, in STOP.
    fn is_at_home(&self) -> bool {
        let home = if self.paused { State::Stop } else { State::Running };
        self.halted == self.paused && self.device.fsm().state() == home
    }

    /// In STOP and frozen if the plan is to stay there, else at home.
    fn is_where_due(&self) -> bool {
        let in_stop = self.device.fsm().state() == State::Stop || self.ghost.reset_since_stop;
        in_stop && self.halted || self.is_at_home()
    }
}

impl Receiver {
    fn new() -> Self {
        let mut receiver = Self {
            device: Device::new(Features::STOP_COPY, Memory::new()),
            fd: None,
            loaded: None,
        };
        receiver.begin();
        receiver
    }

    fn begin(&mut self) {
        // A new device, and not a reset of the old: what the destination's own session does with
        // it is the other model's.
        self.device = Device::new(Features::STOP_COPY, Memory::new());
        self.fd = match self.device.apply(Op::set(State::Resuming), &mut []) {
            Reply::Fd(fd) => fd,
            _ => None,
        };
    }

    fn take(&mut self, frame: Frame, bytes: &[u8]) {
        let Some(fd) = self.fd else { return };
        match frame {
            Frame::Data { .. } => {
                let _taken = self.device.apply(Op::Write { fd, bytes }, &mut []);
            }
            Frame::InitialBytesSent { .. } => {}
            Frame::Discard { .. } => self.begin(),
            Frame::End { .. } => {
                let loaded = self.device.apply(Op::set(State::Stop), &mut []) == Reply::Fd(None);
                let register = self.device.actions().registers()[0];
                self.loaded = Some(if loaded { Ok(register) } else { Err(()) });
            }
        }
    }
}

impl Source {
    fn is(&self, slip: Slip) -> bool {
        self.slip == Some(slip)
    }

    /// What may go wrong with this op.
    fn troubles(&self, world: &World, op: &Op<&[u8]>) -> Vec<Trouble> {
        let mut troubles = vec![Trouble::None];
        let fails = world.faults > 0;
        match op {
            Op::SetState { to, .. } => {
                let reset = !world.halted || self.setting.host_resets;
                troubles.extend(reset.then_some(Trouble::Set(Fault::ResetInside)));
                troubles.extend(troubles_of_set(&world.device, *to).filter(|_| fails));
            }
            Op::CloseFd { .. } => {}
            Op::Read { .. } if fails => {
                troubles.extend([Errno::EIO, Errno::EAGAIN].map(Trouble::Errno));
            }
            _ => troubles.extend(fails.then_some(Trouble::Errno(Errno::EIO))),
        }
        troubles
    }

    fn reset(&self, world: &mut World, by_guest: bool) {
        let _reply = world.device.apply(Op::Reset, &mut []);
        self.note_reset(world, by_guest);
    }

    fn note_reset(&self, world: &mut World, by_guest: bool) {
        let ghost = &mut world.ghost;
        (ghost.reset, ghost.unseen) = (true, true);
        ghost.reset_since_stop |= !by_guest;
        ghost.hounded |= ghost.giving_up.is_some();
    }

    /// Carries an op out, as the VMM with the slip does.
    fn carry_out(&self, world: &mut World, op: Op<&'static [u8]>, trouble: Trouble) -> Did {
        if remembered(self.slip, &op, world.saver.at()).is_some() {
            return Did::Skipped;
        }
        let own_reset = op == Op::Reset && !world.ghost.ordered;
        let op = self.redirect(world, op);
        let costs = !matches!(trouble, Trouble::None | Trouble::Set(Fault::ResetInside));
        world.faults -= u8::from(costs);
        let mut buf = [0; CHUNK];
        let (op, reply) = self.hands(world).carry_out(op, trouble, &mut buf);
        if !matches!(trouble, Trouble::Errno(_)) {
            world.read = buf;
        }
        self.note(world, op, trouble, &reply, own_reset);
        Did::Op(op, reply)
    }

    fn redirect(&self, world: &World, op: Op<&'static [u8]>) -> Op<&'static [u8]> {
        let closes = matches!(op, Op::CloseFd { .. });
        op.map_fd(|fd| match world.swapped {
            Some((old, new)) if old == fd => new,
            _ if self.is(Slip::UsesFirstFd) && !closes => Fd(1),
            _ => fd,
        })
    }

    /// The ghosts of an op that was carried out.
    fn note(
        &self,
        world: &mut World,
        op: Op<&[u8]>,
        trouble: Trouble,
        reply: &Reply<u32>,
        own_reset: bool,
    ) {
        let halted = world.halted;
        match (op, reply) {
            (Op::SetState { to, .. }, Reply::Fd(_)) if to == State::StopCopy.into() => {
                world.ghost.stopped_with = Some(world.register());
                world.ghost.reset_since_stop = false;
            }
            (Op::Reset, Reply::Ok) if own_reset => {
                world.ghost.own_reset = true;
                world.ghost.reset_since_stop = true;
            }
            (Op::Reset, Reply::Ok) => self.note_reset(world, true),
            (Op::Reset, Reply::Errno(_)) => world.ghost.revival_failed |= own_reset,
            (Op::GetState, Reply::Errno(_)) => world.ghost.revival_failed |= world.ghost.own_reset,
            _ => {}
        }
        if trouble == Trouble::Set(Fault::ResetInside) {
            self.note_reset(world, !halted);
        }
        world.ghost.ordered &= op != Op::Reset;
        world.ghost.blocked = *reply == Reply::Errno(Errno::EAGAIN);
        let asks = matches!(op, Op::SetState { .. } | Op::Read { .. } | Op::PrecopyInfo { .. });
        let failed = matches!(reply, Reply::Errno(_));
        world.ghost.failed = asks && failed && !world.ghost.blocked;
    }

    /// What the VMM with the slip makes of what was done: its answer to the session.
    fn report(&self, world: &mut World, did: &Did) -> Reply<u32> {
        let Did::Op(op, reply) = *did else {
            return remembered(self.slip, &Op::<()>::GetState, world.saver.at())
                .unwrap_or(Reply::Ok);
        };
        let believed = world.saver.at();
        let mut hands = self.hands(world);
        let (held, told) = (hands.held, hands.report(&op, reply));
        match (self.slip, reply, told) {
            (Some(Slip::SwapsFd), Reply::Fd(Some(new)), Reply::Fd(None)) => {
                world.swapped = held.map(|old| (old, new));
            }
            (Some(Slip::KeepsFdAfterError), Reply::Errno(_), _)
                if matches!(op, Op::SetState { .. }) =>
            {
                world.stale = believed;
            }
            (Some(Slip::KeepsFdAfterError), Reply::State(state), _) => {
                return Reply::State(world.stale.take().map_or(state, Into::into));
            }
            _ => {}
        }
        told
    }

    fn hands<'a>(&self, world: &'a mut World) -> Hands<'a, Memory<1>, 2> {
        let held = world.saver.data_fd().copied();
        Hands { device: &mut world.device, slip: self.slip, held }
    }
}

impl Play for Source {
    type World = World;
    type Action = Action;

    fn rules(&self) -> &'static [Rule<Judgement<World>>] {
        self.rules
    }

    fn start(&self) -> World {
        World::new(self.features, self.setting)
    }

    fn offer(&self, world: &World, actions: &mut Vec<Action>) {
        let mut saver = world.saver;
        match saver.step() {
            Step::Do(op) => {
                let op = by_number(op.map(|never| match never {}));
                actions.extend(self.troubles(world, &op).into_iter().map(Action::Go));
            }
            Step::Send(_) => actions.push(Action::Go(Trouble::None)),
            Step::Call(_) => actions.extend([Action::Go(Trouble::None), Action::Refuse]),
            Step::Decide(decision) => {
                actions.extend(open_choices(decision).map(Action::Choose));
            }
            Step::Wait(wait) if ticks(wait) => {
                actions.extend([Event::Tick, Event::Reset].map(Action::Event));
            }
            Step::Wait(_) => {}
            Step::End(verdict) => {
                let may_cancel = verdict.is_complete() && world.ghost.giving_up.is_none();
                actions.extend(may_cancel.then_some(Action::Event(Event::Cancel)));
                return;
            }
        }
        if world.ghost.giving_up.is_none() {
            actions.push(Action::Event(Event::Cancel));
            let between = matches!(
                saver.step(),
                Step::Wait(_) | Step::Do(Op::Read { .. } | Op::PrecopyInfo { .. })
            );
            actions.extend(
                (between && world.halted == world.paused)
                    .then_some(Action::Event(Event::Switchover)),
            );
        }
        if !world.halted {
            actions.extend([Action::GuestReset, Action::GuestTouch]);
        }
        if self.setting.host_resets {
            actions.push(Action::HostReset);
        }
    }

    fn play(&self, before: &World, action: Action) -> (World, Did) {
        let mut world = *before;
        let did = match action {
            Action::GuestReset | Action::HostReset => {
                let by_guest = action == Action::GuestReset;
                self.reset(&mut world, by_guest);
                Did::Reset { by_guest }
            }
            Action::GuestTouch => {
                let _reply = world.device.apply(Op::Touch(TOUCH), &mut []);
                Did::Touched
            }
            Action::Event(event) => self.happen(&mut world, event),
            Action::Go(_) | Action::Refuse | Action::Choose(_) => self.go(&mut world, action),
        };
        // One that comes inside a SET is not what this SET has shown.
        let inside = action == Action::Go(Trouble::Set(Fault::ResetInside));
        let found = decides(&world) && !decides(before);
        if !inside && (found || world.saver.evidence() != before.saver.evidence()) {
            world.ghost.unseen = false;
        }
        (world, did)
    }

    fn asked(&self, before: &World, action: Action, did: &Did) -> Vec<Asked> {
        let trouble = if let Action::Go(trouble) = action { trouble } else { Trouble::None };
        let closes = self.is(Slip::ClosesNewFd) && before.saver.data_fd().is_some();
        let then = match *did {
            Did::Touched => Some((Actor::Guest, Op::Touch(TOUCH))),
            Did::Op(Op::SetState { .. }, Reply::Fd(Some(fd))) if closes => {
                Some((Actor::Vmm, Op::CloseFd { fd }))
            }
            _ => None,
        };
        let asked = reached(did, trouble, self.slip).into_iter().chain(then);
        asked.map(|(actor, op)| (0, actor, op)).collect()
    }

    fn record(&self, property: &'static str, actions: &[Action]) -> Counterexample {
        let mut recorder = Recorder::<1>::new(self.features, Planted::NONE);
        recorder.ask(0, Actor::Guest, Op::Touch(TOUCH));
        if self.setting.paused {
            recorder.ask(0, Actor::Vmm, Op::set(State::Stop));
        }
        record(self, recorder, actions).finish(property)
    }

    fn tell(&self, _action: Action, did: &Did, after: &World) -> String {
        format!("{did}   [{}]", after.device.fsm().state())
    }

    fn show(&self, world: &World) -> String {
        let mut saver = world.saver;
        let guest = if world.halted { "held back" } else { "running" };
        format!("device in {}; guest {guest}; saver: {}", world.device.fsm().state(), saver.step())
    }

    fn codec(&self) -> impl Codec<World> {
        ByHalves::new()
    }
}

/// The session, and what it works on.
impl Halves for World {
    type Left = (Saver<Fd>, [u8; CHUNK], Option<(Fd, Fd)>, Option<State>, Ghost);
    type Right = (SmallDevice, Receiver, [bool; 2], u8);

    fn halves(&self) -> (Self::Left, Self::Right) {
        let Self { saver, device, receiver, read, paused, halted, faults, swapped, stale, ghost } =
            *self;
        ((saver, read, swapped, stale, ghost), (device, receiver, [paused, halted], faults))
    }

    fn whole(left: Self::Left, right: Self::Right) -> Self {
        let (saver, read, swapped, stale, ghost) = left;
        let (device, receiver, [paused, halted], faults) = right;
        Self { saver, device, receiver, read, paused, halted, faults, swapped, stale, ghost }
    }
}

impl Source {
    fn happen(&self, world: &mut World, event: Event) -> Did {
        if event == Event::Cancel {
            world.ghost.giving_up = Some(0);
            world.ghost.ordered = false;
        }
        if !(event == Event::Cancel && self.is(Slip::DeafToCancel)) {
            let accepted = world.saver.event(event).is_ok();
            world.ghost.ordered |= event == Event::Reset && accepted;
        }
        Did::Event(event)
    }

    /// What the session says is done, and it is told.
    fn go(&self, world: &mut World, action: Action) -> Did {
        if let Some(steps) = &mut world.ghost.giving_up {
            *steps = steps.saturating_add(1).min(GIVING_UP_TAKES + 1);
            world.halted &= !self.is(Slip::ThawsEarly);
        }
        let mut saver = world.saver;
        let (did, told) = match (saver.step(), action) {
            (Step::Do(op), Action::Go(trouble)) => {
                let op = by_number(op.map(|never| match never {}));
                let did = self.carry_out(world, op, trouble);
                (did, saver.reply(self.report(world, &did)))
            }
            (Step::Send(frame), _) => {
                self.send(world, frame);
                (Did::Sent(frame), saver.sent())
            }
            (Step::Call(hook), action) => {
                let done = action != Action::Refuse;
                self.call(world, hook, done);
                (Did::Called(hook, done), saver.called(done))
            }
            (Step::Decide(decision), Action::Choose(choice)) => {
                (Did::Chose(decision, choice), saver.decide(choice))
            }
            // No other action is offered.
            _ => (Did::Event(Event::Tick), Ok(())),
        };
        // A session that is told what it did not ask for would stay where it is, for all to see.
        world.saver = if told.is_ok() { saver } else { world.saver };
        did
    }

    fn send(&self, world: &mut World, frame: Frame) {
        let bytes = world.read;
        let data = matches!(frame, Frame::Data { .. });
        let lost = self.is(Slip::LosesData) && data
            || self.is(Slip::LosesDiscard) && matches!(frame, Frame::Discard { .. });
        if !lost {
            world.receiver.take(frame, &bytes);
        }
        if self.is(Slip::DoublesData) && data {
            world.receiver.take(frame, &bytes);
        }
        world.read = [0; CHUNK];
    }

    fn call(&self, world: &mut World, hook: Hook, done: bool) {
        match hook {
            Hook::Freeze => world.halted = done && !self.is(Slip::GuestRunsOn),
            Hook::Thaw => world.halted = self.is(Slip::ForgetsThaw),
            _ => {}
        }
    }
}
