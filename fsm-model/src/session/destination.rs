// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! The destination: a `Loader`, its device, a host that resets it, and a stream of any frames.

use vfio_fsm_core::device::{Device, Memory, Planted};
use vfio_fsm_core::vmm::frame::{FIRST_EPOCH, Frame};
use vfio_fsm_core::vmm::{Event, Evidence, Guest, Hook, LoadPlan, Loader, Step, Verdict, Wait};
use vfio_fsm_core::{Errno, Fault, Fd, Features, Op, Reply, Route, State};

use crate::counterexample::{Counterexample, Recorder};
use crate::property::{Rule, rules};
use crate::session::around::{Hands, remembered};
use crate::session::slip::Slip;
use crate::session::{
    Asked, Did, Judgement, Play, SmallDevice, Trouble, by_number, reached, record, ticks,
    troubles_of_set,
};

/// The model.
#[derive(Clone, Debug)]
pub(crate) struct Destination {
    pub(crate) features: Features,
    pub(crate) setting: Setting,
    pub(crate) slip: Option<Slip>,
    pub(crate) rules: &'static [Rule<Judgement<World>>],
}

/// What the world around the session is like.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Setting {
    pub(crate) host_resets: HostResets,
    /// How many calls fail.
    pub(crate) faults: u8,
}

/// When the host resets the device.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum HostResets {
    /// Only until the last GET before the start: what V9 assumes.
    UntilTheLastLook,
    Always,
}

/// Everything there is at one moment.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) struct World {
    loader: Loader<Fd>,
    device: SmallDevice,
    /// The bytes of the frame that came last.
    payload: &'static [u8],
    halted: bool,
    faults: u8,
    ghost: Ghost,
}

/// What the session cannot know, and what it has to be held against.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
struct Ghost {
    /// A device that was given the bytes of the current epoch, and nothing else.
    twin: Device<Memory<1>, 1>,
    twin_fd: Option<Fd>,
    /// How many discards have come, and with it the epoch.
    epoch: u32,
    ended: bool,
    /// A frame of another epoch has come.
    mixed: bool,
    config: bool,
    interrupts: bool,
    /// The host has reset the device.
    reset: bool,
    /// The session has asked for the last time whether the device is still in RESUMING.
    looked: bool,
    /// The session's latest reset succeeded, and GET said RUNNING behind it.
    blank: bool,
    /// Its reset failed, or led nowhere.
    reset_failed: bool,
    giving_up: Option<u8>,
    blocked: bool,
}

/// What happens next.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum Action {
    Go(Trouble),
    Refuse,
    Event(Event),
    /// A frame of the epoch, or of the one behind it, with these bytes.
    Frame(Frame, &'static [u8]),
    HostReset,
}

/// A whole image, and parts of one: in any order, as long as the stream is not too long.
const PAYLOADS: [&[u8]; 3] = [b"F\x03", b"F", b"\x03"];

/// Discards, at most.
const LAST_EPOCH: u32 = FIRST_EPOCH + 1;

/// How long a session may take to end that has been told to: see `loader-gives-up`.
const GIVING_UP_TAKES: u8 = 8;

pub(crate) const RULES: &[Rule<Judgement<World>>] = rules! {
    "loader-one-session" ["V6" "R28" "R11"]
        "the device that the loader starts has what the bytes of one epoch make of it, in order and \
         to the end"
        |_, _, after| match at_end(after)? {
            Verdict::Complete { .. } => Some(after.is_as_sent()),
            _ => None,
        };
    "loader-refuses-mixed" ["V6" "R28"]
        "a frame of another epoch is never loaded"
        |_, _, after| match at_end(after)? {
            Verdict::Complete { .. } => Some(!after.ghost.mixed),
            _ => None,
        };
    "loader-legal-set" ["V1"]
        "the loader sends no SET for which no route leads from where the device is"
        |before, did, _| match did {
            Did::Op(Op::SetState { to, .. }, _) => {
                let fsm = before.device.fsm();
                Some(to.known().is_some_and(|to| {
                    Route::new(fsm.features(), fsm.state(), to).is_ok()
                }))
            }
            _ => None,
        };
    "loader-live-fd" ["V2"]
        "the loader writes to no data_fd that is dead, unless by a reset of the host"
        |before, did, _| match did {
            Did::Op(Op::Write { fd, .. }, _) => {
                Some(before.device.is_live(*fd) || before.ghost.reset)
            }
            _ => None,
        };
    "loader-closes" ["V2" "R10"]
        "when the loader ends, every data_fd that it was given is closed"
        |_, _, after| at_end(after).map(|_| after.device.fds().open().next().is_none());
    "loader-freezes" ["V4"]
        "whenever the loader's device is in RESUMING or STOP, nobody may touch it"
        |_, _, after| {
            let loading = matches!(after.device.fsm().state(), State::Stop | State::Resuming);
            loading.then_some(after.halted)
        };
    "loader-hooks-in-order" ["V8"]
        "the device leaves RESUMING for good only behind the end, with configuration space and then \
         interrupts restored"
        |_, did, after| match did {
            Did::Op(Op::SetState { to, .. }, Reply::Fd(_)) if *to != State::Resuming.into() => {
                Some(after.ghost.ended && after.ghost.config && after.ghost.interrupts)
            }
            _ => None,
        };
    "loader-does-not-dwell" ["V8"]
        "no SET of the loader asks for STOP"
        |_, did, _| match did {
            Did::Op(Op::SetState { to, .. }, _) => Some(*to != State::Stop.into()),
            _ => None,
        };
    "loader-aborts-by-reset" ["V8" "R15" "R22"]
        "a loader that has frozen its device aborts with a reset that succeeded, seen to lead to \
         RUNNING, and lets the device go"
        |_, _, after| match at_end(after)? {
            Verdict::Aborted { .. } => {
                let touched = after.device.fsm().session().is_some()
                    || after.device.fsm().state() != State::Running;
                let seen = after.ghost.blank || !after.ghost.reset_or_loaded();
                Some(!after.halted && !touched && seen)
            }
            _ => None,
        };
    "loader-stuck-by-reset" ["V8"]
        "a loader is stuck only when its reset failed, or did not lead to RUNNING"
        |_, _, after| match at_end(after)? {
            Verdict::Stuck { .. } => Some(after.ghost.reset_failed),
            _ => None,
        };
    "loader-complete" ["V8"]
        "a loader that is complete has its device in RUNNING, and let go; its guest is intact"
        |_, _, after| match at_end(after)? {
            Verdict::Complete { guest } => {
                let runs = after.device.fsm().state() == State::Running && !after.halted;
                Some(runs && guest == Guest::Intact)
            }
            _ => None,
        };
    "loader-evidence-is-sound" ["V5"]
        "what the loader takes for the sign of a reset is one by the host"
        |_, _, after| after.loader.evidence().map(|_| after.ghost.reset);
    "loader-sees-reset-before-start" ["V9" "O3"]
        "a device found in RUNNING before the start is never started"
        |_, did, after| match (did, after.loader.evidence()) {
            (Did::Op(Op::GetState, _), Some(Evidence::AlreadyRunning { .. })) => {
                Some(after.ghost.reset)
            }
            _ => None,
        };
    "loader-gives-up" ["V10"]
        "a loader that is told to give up ends within 8 steps of its own"
        |_, _, after| after.ghost.giving_up.map(|steps| steps <= GIVING_UP_TAKES);
    "loader-waits-for-something" ["V10"]
        "a loader waits for the data_fd to be writable only if a write would have blocked"
        |_, _, after| {
            let mut loader = after.loader;
            let waits = loader.step() == Step::Wait(Wait::Writable);
            waits.then_some(after.ghost.blocked)
        };
};

/// V9 without its assumption: the last rule above, asked of the outcome, with resets at any time.
pub(crate) const WITHOUT_ASSUMPTION: &[Rule<Judgement<World>>] = rules! {
    "V9-without-assumption" ["V9"]
        "the device that the loader starts has what was sent, whenever the host resets it"
        |_, _, after| match at_end(after)? {
            Verdict::Complete { .. } => Some(after.is_as_sent()),
            _ => None,
        };
};

fn at_end(world: &World) -> Option<Verdict> {
    let mut loader = world.loader;
    match loader.step() {
        Step::End(verdict) => Some(verdict),
        _ => None,
    }
}

impl Ghost {
    fn new() -> Self {
        let mut ghost = Self {
            twin: Device::new(Features::STOP_COPY, Memory::new()),
            twin_fd: None,
            epoch: FIRST_EPOCH,
            ended: false,
            mixed: false,
            config: false,
            interrupts: false,
            reset: false,
            looked: false,
            blank: false,
            reset_failed: false,
            giving_up: None,
            blocked: false,
        };
        ghost.begin();
        ghost
    }

    fn begin(&mut self) {
        self.twin = Device::new(Features::STOP_COPY, Memory::new());
        self.twin_fd = match self.twin.apply(Op::set(State::Resuming), &mut []) {
            Reply::Fd(fd) => fd,
            _ => None,
        };
    }

    /// What a right receiver makes of a frame.
    fn take(&mut self, frame: Frame, bytes: &[u8]) {
        self.mixed |= frame.epoch() != self.epoch;
        match frame {
            Frame::Data { .. } => {
                if let Some(fd) = self.twin_fd {
                    let _taken = self.twin.apply(Op::Write { fd, bytes }, &mut []);
                }
            }
            Frame::InitialBytesSent { .. } => {}
            Frame::Discard { .. } => {
                self.epoch += 1;
                self.begin();
            }
            Frame::End { .. } => self.ended = true,
        }
    }

    /// An op that was carried out.
    fn note(&mut self, op: Op<&[u8]>, reply: Reply<u32>) {
        self.blocked = reply == Reply::Errno(Errno::EAGAIN);
        match (op, reply) {
            (Op::Reset, Reply::Errno(_)) => self.reset_failed = true,
            (Op::Reset, _) => self.blank = false,
            (Op::GetState, Reply::State(state)) => {
                self.looked |= self.interrupts;
                self.blank |= state == State::Running.into();
            }
            // A GET that fails is no look, and behind a reset it makes the device stuck.
            (Op::GetState, _) => self.reset_failed = true,
            _ => {}
        }
    }

    /// Whether anything has been done to the device that a reset has to undo.
    const fn reset_or_loaded(&self) -> bool {
        self.config || self.ended
    }
}

impl World {
    fn new(features: Features, setting: Setting) -> Self {
        Self {
            loader: Loader::new(LoadPlan { group: true }),
            device: SmallDevice::new(features, Memory::new()),
            payload: b"",
            halted: false,
            faults: setting.faults,
            ghost: Ghost::new(),
        }
    }

    fn is_as_sent(&self) -> bool {
        let mut twin = self.ghost.twin;
        let loads = twin.apply(Op::set(State::Stop), &mut []) == Reply::Fd(None);
        loads && twin.actions().registers() == self.device.actions().registers()
    }
}

impl Destination {
    fn is(&self, slip: Slip) -> bool {
        self.slip == Some(slip)
    }

    fn troubles(world: &World, op: &Op<&[u8]>, host_resets: bool) -> Vec<Trouble> {
        let mut troubles = vec![Trouble::None];
        let fails = world.faults > 0;
        match op {
            Op::SetState { to, .. } => {
                troubles.extend(host_resets.then_some(Trouble::Set(Fault::ResetInside)));
                troubles.extend(troubles_of_set(&world.device, *to).filter(|_| fails));
            }
            Op::CloseFd { .. } => {}
            Op::Write { bytes, .. } if fails => {
                troubles.extend([Errno::EIO, Errno::EAGAIN].map(Trouble::Errno));
                troubles.extend((bytes.len() > 1).then_some(Trouble::Short));
            }
            _ => troubles.extend(fails.then_some(Trouble::Errno(Errno::EIO))),
        }
        troubles
    }

    fn resets_now(&self, world: &World) -> bool {
        match self.setting.host_resets {
            HostResets::UntilTheLastLook => !world.ghost.looked,
            HostResets::Always => true,
        }
    }

    /// Frames that could come: right ones, and ones of the next epoch.
    fn frames(&self, world: &World, actions: &mut Vec<Action>) {
        for epoch in [world.ghost.epoch, world.ghost.epoch + 1] {
            let data = PAYLOADS
                .map(|bytes| Action::Frame(Frame::Data { epoch, len: bytes.len() as u32 }, bytes));
            actions.extend(data);
            actions.push(Action::Frame(Frame::End { epoch }, b""));
            actions.push(Action::Frame(Frame::InitialBytesSent { epoch }, b""));
            if epoch < LAST_EPOCH {
                actions.push(Action::Frame(Frame::Discard { epoch }, b""));
            }
        }
    }

    fn carry_out(&self, world: &mut World, op: Op<&'static [u8]>, trouble: Trouble) -> Did {
        if remembered(self.slip, &op, world.loader.at()).is_some() {
            return Did::Skipped;
        }
        let op = self.redirect(op);
        let inside = trouble == Trouble::Set(Fault::ResetInside);
        world.faults -= u8::from(trouble != Trouble::None && !inside);
        let (op, reply) = self.hands(world).carry_out(op, trouble, &mut []);
        world.ghost.reset |= inside;
        world.ghost.note(op, reply);
        Did::Op(op, reply)
    }

    fn hands<'a>(&self, world: &'a mut World) -> Hands<'a, Memory<1>, 2> {
        let held = world.loader.data_fd().copied();
        Hands { device: &mut world.device, slip: self.slip, held }
    }

    fn redirect(&self, op: Op<&'static [u8]>) -> Op<&'static [u8]> {
        match op {
            Op::SetState { to, fault } if self.is(Slip::DwellsInStop) => {
                let running = to == State::Running.into();
                Op::SetState { to: if running { State::Stop.into() } else { to }, fault }
            }
            Op::Write { bytes, .. } if self.is(Slip::UsesFirstFd) => Op::Write { fd: Fd(1), bytes },
            op => op,
        }
    }

    /// What the VMM with the slip makes of what was done: its answer to the session.
    fn report(&self, world: &mut World, did: &Did) -> Reply<u32> {
        let Did::Op(op, reply) = *did else {
            return remembered(self.slip, &Op::<()>::GetState, world.loader.at())
                .unwrap_or(Reply::Ok);
        };
        self.hands(world).report(&op, reply)
    }

    fn hand_over(&self, world: &mut World, frame: Frame) {
        let epoch = world.loader.epoch();
        let told = match (self.slip, frame) {
            (Some(Slip::IgnoresEpoch), Frame::Data { len, .. }) => Frame::Data { epoch, len },
            (Some(Slip::LosesDiscard), Frame::Discard { .. }) => return,
            (Some(Slip::LosesData), Frame::Data { .. }) => return,
            (_, frame) => frame,
        };
        let mut loader = world.loader;
        let _asked = loader.step();
        if loader.frame(told).is_ok() {
            world.loader = loader;
        }
    }

    fn go(&self, world: &mut World, action: Action) -> Did {
        if let Some(steps) = &mut world.ghost.giving_up {
            *steps = steps.saturating_add(1).min(GIVING_UP_TAKES + 1);
            world.halted &= !self.is(Slip::ThawsEarly);
        }
        let payload = world.payload;
        let mut loader = world.loader;
        let (did, told) = match (loader.step(), action) {
            (Step::Do(op), Action::Go(trouble)) => {
                let op = by_number(op.map(|piece| piece.of(payload)));
                let did = self.carry_out(world, op, trouble);
                (did, loader.reply(self.report(world, &did)))
            }
            (Step::Call(hook), action) => {
                let done = action != Action::Refuse;
                self.call(world, hook, done);
                (Did::Called(hook, done), loader.called(done))
            }
            // No other action is offered.
            _ => (Did::Event(Event::Tick), Ok(())),
        };
        world.loader = if told.is_ok() { loader } else { world.loader };
        did
    }

    fn call(&self, world: &mut World, hook: Hook, done: bool) {
        match hook {
            Hook::Freeze => world.halted = done && !self.is(Slip::GuestRunsOn),
            Hook::Thaw => world.halted = self.is(Slip::ForgetsThaw),
            Hook::RestoreConfig => world.ghost.config = done && !self.is(Slip::ForgetsConfig),
            Hook::RestoreInterrupts => world.ghost.interrupts = done && world.ghost.config,
            _ => {}
        }
    }
}

impl Play for Destination {
    type World = World;
    type Action = Action;

    fn rules(&self) -> &'static [Rule<Judgement<World>>] {
        self.rules
    }

    fn start(&self) -> World {
        World::new(self.features, self.setting)
    }

    fn offer(&self, world: &World, actions: &mut Vec<Action>) {
        let mut loader = world.loader;
        let resets = self.resets_now(world);
        match loader.step() {
            Step::Do(op) => {
                let op = by_number(op.map(|piece| piece.of(world.payload)));
                actions.extend(Self::troubles(world, &op, resets).into_iter().map(Action::Go));
            }
            Step::Call(_) => actions.extend([Action::Go(Trouble::None), Action::Refuse]),
            Step::Wait(Wait::Frame) => self.frames(world, actions),
            Step::Wait(wait) if ticks(wait) => actions.push(Action::Event(Event::Tick)),
            Step::Wait(_) => actions.push(Action::Event(Event::Run)),
            Step::End(_) | Step::Send(_) | Step::Decide(_) => return,
        }
        if world.ghost.giving_up.is_none() {
            actions.push(Action::Event(Event::Cancel));
        }
        if resets {
            actions.push(Action::HostReset);
        }
    }

    fn play(&self, before: &World, action: Action) -> (World, Did) {
        let mut world = *before;
        let did = match action {
            Action::HostReset => {
                let _reply = world.device.apply(Op::Reset, &mut []);
                world.ghost.reset = true;
                Did::Reset { by_guest: false }
            }
            Action::Event(event) => {
                if event == Event::Cancel {
                    world.ghost.giving_up = Some(0);
                }
                if !(event == Event::Cancel && self.is(Slip::DeafToCancel)) {
                    let _refused = world.loader.event(event);
                }
                Did::Event(event)
            }
            Action::Frame(frame, bytes) => {
                world.payload = bytes;
                world.ghost.take(frame, bytes);
                self.hand_over(&mut world, frame);
                Did::Came(frame)
            }
            Action::Go(_) | Action::Refuse => self.go(&mut world, action),
        };
        (world, did)
    }

    fn asked(&self, _before: &World, action: Action, did: &Did) -> Vec<Asked> {
        let trouble = if let Action::Go(trouble) = action { trouble } else { Trouble::None };
        let reached = reached(did, trouble, self.slip).into_iter();
        reached.map(|(actor, op)| (0, actor, op)).collect()
    }

    fn record(&self, property: &'static str, actions: &[Action]) -> Counterexample {
        let recorder = Recorder::<1>::new(self.features, Planted::NONE);
        record(self, recorder, actions).finish(property)
    }

    fn tell(&self, _action: Action, did: &Did, after: &World) -> String {
        format!("{did}   [{}]", after.device.fsm().state())
    }

    fn show(&self, world: &World) -> String {
        let mut loader = world.loader;
        let guest = if world.halted { "held back" } else { "running" };
        format!(
            "device in {}; guest {guest}; loader: {}",
            world.device.fsm().state(),
            loader.step()
        )
    }
}
