// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! A group: two `Saver`s or two `Loader`s in a `Group`, their devices, and a guest that resets them.

use vfio_fsm_core::device::{Device, Memory};
use vfio_fsm_core::vmm::frame::{FIRST_EPOCH, Frame};
use vfio_fsm_core::vmm::{
    Decision, Event, Gate, Group, Hook, LoadPlan, Loader, OutOfTurn, Plan, Recovery, Saver, Step,
    Then, Verdict, Wait,
};
use vfio_fsm_core::{Direction, Errno, Fault, Fd, Features, Leaves, Op, Reply, State};

use crate::property::{Rule, rules};
use crate::search::{ByHalves, Codec, Halves};
use crate::session::slip::Slip;
use crate::session::{Did, Judgement, Play, by_number, open_choices};

/// The model.
#[derive(Debug)]
pub(crate) struct Pair {
    pub(crate) features: Features,
    pub(crate) setting: Setting,
    pub(crate) slip: Option<Slip>,
    pub(crate) rules: &'static [Rule<Judgement<World>>],
}

/// What the world around the sessions is like.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Setting {
    pub(crate) role: Role,
    /// How many calls fail.
    pub(crate) faults: u8,
    /// How often the guest resets a device.
    pub(crate) resets: u8,
}

/// What the two sessions are.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Role {
    Save(Then),
    Load,
}

/// Everything there is at one moment.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) struct World {
    members: [Member; 2],
    group: Group,
    role: Role,
    halted: bool,
    faults: u8,
    resets: u8,
}

/// A session, its device, and how the group knows it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Member {
    session: Session,
    /// It has no registers: what is asked here is the order, not the bytes.
    device: Device<Memory<0>, 2>,
    /// The gate that it stands at.
    at: Option<Hook>,
    told_to_give_up: bool,
    /// Its end has been told to the group.
    ended: bool,
    /// Ghost: reset and not used since, so that it starts no DMA.
    blank: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum Session {
    Save(Saver<Fd>),
    Load(Loader<Fd>),
}

/// The image of a device without registers.
const IMAGE: &[u8] = b"F";

/// What happens next, and to which of them.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum Action {
    Go(usize, Trouble),
    /// Past the gate, if it is not shut.
    Pass(usize),
    Choose(usize, Recovery),
    Event(usize, Event),
    /// The VMM gives up.
    Cancel,
    GuestReset(usize),
    /// The next frame of the stream.
    Frame(usize, Frame),
}

/// What may go wrong with the one call that a session asks for.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum Trouble {
    None,
    /// An arc of a SET fails.
    Arc(Leaves),
    Errno,
}

pub(crate) const RULES: &[Rule<Judgement<World>>] = rules! {
    "group-is-quiet" ["V11" "R21"]
        "while a device of a group is in STOP, STOP_COPY or RESUMING, none of the others can start DMA to it: \
         each is in a P2P state or stopped, or was reset and has no driver that runs"
        |_, _, after| after.any_stopped().then(|| after.members.iter().all(Member::is_quiet));
    "group-freezes" ["V11" "V4" "R22"]
        "while a device of a group is in STOP, STOP_COPY or RESUMING, the guest is held back"
        |_, _, after| after.any_stopped().then_some(after.halted);
    "group-thaws-together" ["V11"]
        "the guest is let go only when every device that is not stuck is in RUNNING"
        |before, _, after| (before.halted && !after.halted).then(|| {
            after.members.iter().all(|member| member.is_in(State::Running) || member.is_stuck())
        });
    "group-all-or-none" ["V11" "V7"]
        "a group that is to stay stopped ends complete in every member, or in none; and if in none, \
         or if it goes back anyway, no device is left stopped unless it is stuck, and the guest runs"
        |_, _, after| after.verdicts().map(|verdicts| after.is_all_or_none(verdicts));
    "group-ends" ["V10" "V11"]
        "as long as not all members have ended, one of them can go on"
        |_, _, after| Some(after.verdicts().is_some() || (0..2).any(|index| after.can_go_on(index)));
};

impl Session {
    fn new(role: Role) -> Self {
        match role {
            Role::Save(then) => {
                let plan = Plan { group: true, restarts: 1, chunk: 1, then, ..Plan::LIVE };
                Self::Save(Saver::new(plan))
            }
            Role::Load => Self::Load(Loader::new(LoadPlan { group: true })),
        }
    }

    /// What it says, with the bytes in it, and the fd by its number.
    fn say(&mut self, on: impl FnOnce(Step<'_, &'static [u8], Fd>)) {
        match self {
            Self::Save(saver) => on(with_bytes(saver.step(), |never| match never {})),
            Self::Load(loader) => on(with_bytes(loader.step(), |piece| piece.of(IMAGE))),
        }
    }

    fn said(mut self) -> Said {
        let mut said = Said::Wait(Wait::Readable);
        self.say(|step| {
            said = match step {
                Step::Do(op) => Said::Do(by_number(op)),
                Step::Send(frame) => Said::Send(frame),
                Step::Call(hook) => Said::Call(hook),
                Step::Decide(decision) => Said::Decide(decision),
                Step::Wait(wait) => Said::Wait(wait),
                Step::End(verdict) => Said::End(verdict),
            }
        });
        said
    }

    /// Makes it say what it will be told the answer of.
    fn ask(&mut self) {
        self.say(|_step| {});
    }

    fn reply(&mut self, reply: Reply<u32>) -> Result<(), OutOfTurn> {
        match self {
            Self::Save(saver) => saver.reply(reply),
            Self::Load(loader) => loader.reply(reply),
        }
    }

    fn called(&mut self, done: bool) -> Result<(), OutOfTurn> {
        match self {
            Self::Save(saver) => saver.called(done),
            Self::Load(loader) => loader.called(done),
        }
    }

    fn event(&mut self, event: Event) {
        let _refused = match self {
            Self::Save(saver) => saver.event(event),
            Self::Load(loader) => loader.event(event),
        };
    }

    const fn is_aborting(&self) -> bool {
        match self {
            Self::Save(saver) => saver.is_aborting(),
            Self::Load(loader) => loader.is_aborting(),
        }
    }
}

/// A step that borrows nothing.
enum Said {
    Do(Op<&'static [u8]>),
    Send(Frame),
    Call(Hook),
    Decide(Decision),
    Wait(Wait),
    End(Verdict),
}

fn with_bytes<B, F>(
    step: Step<'_, B, F>,
    carry: impl FnOnce(B) -> &'static [u8],
) -> Step<'_, &'static [u8], F> {
    match step {
        Step::Do(op) => Step::Do(op.map(carry)),
        Step::Send(frame) => Step::Send(frame),
        Step::Call(hook) => Step::Call(hook),
        Step::Decide(decision) => Step::Decide(decision),
        Step::Wait(wait) => Step::Wait(wait),
        Step::End(verdict) => Step::End(verdict),
    }
}

impl Member {
    fn new(features: Features, role: Role) -> Self {
        Self {
            session: Session::new(role),
            device: Device::new(features, Memory::new()),
            at: None,
            told_to_give_up: false,
            ended: false,
            blank: role == Role::Load,
        }
    }

    fn verdict(&self) -> Option<Verdict> {
        match self.session.said() {
            Said::End(verdict) => Some(verdict),
            _ => None,
        }
    }

    fn is_in(&self, state: State) -> bool {
        self.device.fsm().state() == state
    }

    fn is_stopped(&self) -> bool {
        [State::Stop, State::StopCopy, State::Resuming].iter().any(|&state| self.is_in(state))
    }

    fn is_quiet(&self) -> bool {
        let quiet = self.is_in(State::RunningP2p) || self.is_in(State::PreCopyP2p);
        quiet || self.is_stopped() || self.blank || self.is_in(State::Error)
    }

    fn is_stuck(&self) -> bool {
        matches!(self.verdict(), Some(Verdict::Stuck { .. }))
    }
}

impl World {
    fn any_stopped(&self) -> bool {
        // One that is stuck has been given up, and is to be unplugged.
        self.members.iter().any(|member| member.is_stopped() && !member.is_stuck())
    }

    /// The verdicts, when all is over.
    fn verdicts(&self) -> Option<[Verdict; 2]> {
        let [one, two] = &self.members;
        let over = one.ended && two.ended && !self.group.is_broken()
            || self.members.iter().all(|member| member.told_to_give_up);
        Some([one.verdict()?, two.verdict()?]).filter(|_| over)
    }

    fn is_all_or_none(&self, verdicts: [Verdict; 2]) -> bool {
        let complete = verdicts.map(|verdict| verdict.is_complete());
        let stays = complete[0] && self.role == Role::Save(Then::Stop);
        let home = |member: &Member| {
            member.is_stuck() || member.is_in(if stays { State::Stop } else { State::Running })
        };
        let alike = complete[0] == complete[1] || self.role == Role::Save(Then::Back);
        // With every device stuck nobody is left to let the guest go for.
        let all_stuck = self.members.iter().all(Member::is_stuck);
        alike && self.members.iter().all(home) && (self.halted == stays || all_stuck)
    }

    fn can_go_on(&self, index: usize) -> bool {
        let member = &self.members[index];
        match member.session.said() {
            Said::End(_) => false,
            Said::Call(_) => member.at.is_none() || self.group.gate(index) != Gate::Wait,
            _ => true,
        }
    }
}

impl Pair {
    fn is(&self, slip: Slip) -> bool {
        self.slip == Some(slip)
    }

    fn go(&self, world: &mut World, index: usize, trouble: Trouble) -> Did {
        let member = &mut world.members[index];
        let session = &mut member.session;
        session.ask();
        match session.said() {
            Said::Do(op) => {
                world.faults -= u8::from(trouble != Trouble::None);
                let reply = carry_out(&mut member.device, op, trouble);
                member.blank = match (op, reply) {
                    (Op::Reset, Reply::Ok) => true,
                    // Whatever state a SET has led to is the state that counts.
                    (Op::SetState { .. }, Reply::Fd(_)) => false,
                    _ => member.blank,
                };
                let _told = session.reply(reply);
                Did::Op(op, reply)
            }
            Said::Send(frame) => {
                if let Session::Save(saver) = session {
                    let _told = saver.sent();
                }
                Did::Sent(frame)
            }
            Said::Call(hook) => {
                let arrived = world.group.arrive(index, hook, session.is_aborting());
                // What the group does not keep, the VMM does at once.
                let own = matches!(
                    hook,
                    Hook::InitialBytesLoaded | Hook::RestoreConfig | Hook::RestoreInterrupts
                );
                if own {
                    let _told = session.called(true);
                }
                member.at = arrived.is_ok().then_some(hook);
                Did::Called(hook, own || arrived.is_ok())
            }
            Said::Decide(_) | Said::Wait(_) | Said::End(_) => Did::Touched,
        }
    }

    fn pass(&self, world: &mut World, index: usize) -> Did {
        let open = world.group.gate(index) == Gate::Open || self.is(Slip::IgnoresGates);
        let member = &mut world.members[index];
        let hook = member.at.take().unwrap_or(Hook::Freeze);
        member.session.ask();
        let _told = member.session.called(open);
        if self.is(Slip::ThawsEarly) && hook == Hook::Thaw {
            world.halted = false;
        }
        Did::Called(hook, open)
    }

    /// What a driver of a group does behind each step.
    fn keep_order(&self, world: &mut World) {
        for index in 0..world.members.len() {
            let member = &mut world.members[index];
            if let Some(verdict) = member.verdict().filter(|_| !member.ended) {
                member.ended = true;
                let stays = self.setting.role == Role::Save(Then::Stop);
                world.group.end(index, &verdict, stays);
            }
        }
        while let Some(hook) = world.group.due() {
            match hook {
                Hook::Freeze => world.halted = !self.is(Slip::GuestRunsOn),
                Hook::Thaw => world.halted = self.is(Slip::ForgetsThaw),
                _ => {}
            }
            world.group.done(hook, true);
        }
        if world.group.is_broken() && !self.is(Slip::DeafToCancel) {
            for member in &mut world.members {
                if !core::mem::replace(&mut member.told_to_give_up, true) {
                    member.session.event(Event::Cancel);
                    // One that was complete goes on, and ends once more.
                    member.ended &= member.verdict().is_some();
                }
            }
        }
    }
}

fn choose(session: &mut Session, choice: Recovery) -> Did {
    session.ask();
    match (session.said(), session) {
        (Said::Decide(decision), Session::Save(saver)) => {
            let _told = saver.decide(choice);
            Did::Chose(decision, choice)
        }
        _ => Did::Touched,
    }
}

fn carry_out(
    device: &mut Device<Memory<0>, 2>,
    op: Op<&'static [u8]>,
    trouble: Trouble,
) -> Reply<u32> {
    let op = match (op, trouble) {
        (_, Trouble::Errno) => return Reply::Errno(Errno::EIO),
        (Op::SetState { to, .. }, Trouble::Arc(leaves)) => {
            Op::SetState { to, fault: Some(Fault::ArcFails { hop: 0, errno: Errno::EIO, leaves }) }
        }
        (op, _) => op,
    };
    device.apply(op, &mut [0]).map(|bytes| bytes.len() as u32)
}

impl Play for Pair {
    type World = World;
    type Action = Action;

    fn rules(&self) -> &'static [Rule<Judgement<World>>] {
        self.rules
    }

    fn start(&self) -> World {
        // What cannot be a group is not asked for here.
        let direction = match self.setting.role {
            Role::Save(_) => Direction::Saving,
            Role::Load => Direction::Resuming,
        };
        let group = Group::new(direction, &[self.features; 2], true);
        let group = group.unwrap_or_else(|refused| unreachable!("{refused}"));
        World {
            members: [Member::new(self.features, self.setting.role); 2],
            group,
            role: self.setting.role,
            halted: false,
            faults: self.setting.faults,
            resets: self.setting.resets,
        }
    }

    fn offer(&self, world: &World, actions: &mut Vec<Action>) {
        for (index, member) in world.members.iter().enumerate() {
            match member.session.said() {
                Said::Do(op) => {
                    actions.push(Action::Go(index, Trouble::None));
                    let set = matches!(op, Op::SetState { .. });
                    let fails = [Trouble::Arc(Leaves::Source), Trouble::Arc(Leaves::Error)];
                    let troubles = if set { &fails[..] } else { &[Trouble::Errno] };
                    if world.faults > 0 && !matches!(op, Op::CloseFd { .. }) {
                        actions.extend(troubles.iter().map(|&trouble| Action::Go(index, trouble)));
                    }
                }
                Said::Send(_) => actions.push(Action::Go(index, Trouble::None)),
                Said::Call(_) if member.at.is_none() => {
                    actions.push(Action::Go(index, Trouble::None));
                }
                Said::Call(_) => {
                    let shut =
                        world.group.gate(index) == Gate::Wait && !self.is(Slip::IgnoresGates);
                    actions.extend((!shut).then_some(Action::Pass(index)));
                }
                Said::Decide(decision) => {
                    let open = open_choices(decision);
                    actions.extend(open.map(|choice| Action::Choose(index, choice)));
                }
                Said::Wait(Wait::Switchover) => {
                    actions.push(Action::Event(index, Event::Switchover));
                }
                Said::Wait(Wait::Frame) => {
                    let data = Frame::Data { epoch: FIRST_EPOCH, len: IMAGE.len() as u32 };
                    let end = Frame::End { epoch: FIRST_EPOCH };
                    let loaded = member.device.actions().is_loadable();
                    actions.push(Action::Frame(index, if loaded { end } else { data }));
                }
                Said::Wait(Wait::Run) => actions.push(Action::Event(index, Event::Run)),
                Said::Wait(_) | Said::End(_) => {}
            }
            if world.resets > 0 && !world.halted {
                actions.push(Action::GuestReset(index));
            }
        }
        if !world.group.is_broken() {
            actions.push(Action::Cancel);
        }
    }

    fn play(&self, before: &World, action: Action) -> (World, Did) {
        let mut world = *before;
        let did = match action {
            Action::Go(index, trouble) => self.go(&mut world, index, trouble),
            Action::Pass(index) => self.pass(&mut world, index),
            Action::Choose(index, choice) => choose(&mut world.members[index].session, choice),
            Action::Event(index, event) => {
                world.members[index].session.event(event);
                Did::Event(event)
            }
            Action::Frame(index, frame) => {
                let session = &mut world.members[index].session;
                session.ask();
                if let Session::Load(loader) = session {
                    let _told = loader.frame(frame);
                }
                Did::Came(frame)
            }
            Action::Cancel => {
                world.group.fail();
                Did::Event(Event::Cancel)
            }
            Action::GuestReset(index) => {
                let _reply = world.members[index].device.apply(Op::Reset, &mut []);
                world.resets -= 1;
                Did::Reset { by_guest: true }
            }
        };
        self.keep_order(&mut world);
        (world, did)
    }

    fn tell(&self, action: Action, did: &Did, after: &World) -> String {
        let states = after.members.map(|member| member.device.fsm().state());
        let which = match action {
            Action::Go(index, _)
            | Action::Pass(index)
            | Action::Choose(index, _)
            | Action::Event(index, _)
            | Action::Frame(index, _)
            | Action::GuestReset(index) => index.to_string(),
            Action::Cancel => "all".to_owned(),
        };
        format!("{which}: {did}   [{}, {}]", states[0], states[1])
    }

    fn show(&self, world: &World) -> String {
        let guest = if world.halted { "held back" } else { "running" };
        let members = world.members.map(|member| {
            let at = member.at.map(|hook| format!(" at {hook}")).unwrap_or_default();
            format!("device in {}{at}", member.device.fsm().state())
        });
        format!("{}; {}; guest {guest}", members[0], members[1])
    }

    fn codec(&self) -> impl Codec<World> {
        ByHalves::new()
    }
}

/// A member, and the other with the rest.
impl Halves for World {
    type Left = Member;
    type Right = (Member, Group, Role, bool, [u8; 2]);

    fn halves(&self) -> (Self::Left, Self::Right) {
        let Self { members: [first, second], group, role, halted, faults, resets } = *self;
        (first, (second, group, role, halted, [faults, resets]))
    }

    fn whole(first: Self::Left, right: Self::Right) -> Self {
        let (second, group, role, halted, [faults, resets]) = right;
        Self { members: [first, second], group, role, halted, faults, resets }
    }
}
