// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! A group: two `Saver`s or two `Loader`s in a `Group`, their devices, and a guest that resets them.

use vfio_fsm_core::device::{Device, Memory, Planted};
use vfio_fsm_core::vmm::frame::{FIRST_EPOCH, Frame};
use vfio_fsm_core::vmm::{
    Event, Gate, Group, Hook, LoadPlan, Loader, OutOfTurn, Plan, Recovery, ResetRefused, Saver,
    Then, Verdict, Wait,
};
use vfio_fsm_core::{Direction, Errno, Fault, Fd, Features, Leaves, Op, Reply, State};

use crate::counterexample::{Counterexample, Recorder};
use crate::property::{Rule, rules};
use crate::search::{ByHalves, Codec, Halves};
use crate::session::around::{self, Hands, Member, Said, Session as _, keep_order, may_pass};
use crate::session::slip::Slip;
use crate::session::{Asked, Did, Judgement, Play, Trouble, open_choices, reached, record};

/// The model.
#[derive(Clone, Debug)]
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
    /// They have no registers: what is asked here is the order, not the bytes.
    members: [Member<Session, Memory<0>>; 2],
    /// Ghost: reset and not used since, so that it starts no DMA.
    blank: [bool; 2],
    group: Group,
    role: Role,
    halted: bool,
    faults: u8,
    resets: u8,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Session {
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

const FAILS: [Trouble; 1] = [Trouble::Errno(Errno::EIO)];

/// Where it fails matters to the member, and not to the group.
const FIRST_ARC_FAILS: [Trouble; 2] = [fails_leaving(Leaves::Source), fails_leaving(Leaves::Error)];

const fn fails_leaving(leaves: Leaves) -> Trouble {
    Trouble::Set(Fault::ArcFails { hop: 0, errno: Errno::EIO, leaves })
}

pub(crate) const RULES: &[Rule<Judgement<World>>] = rules! {
    "group-is-quiet" ["V11" "R21"]
        "while a device of a group is in STOP, STOP_COPY or RESUMING, none of the others can start DMA to it: \
         each is in a P2P state or stopped, or was reset and has no driver that runs"
        |_, _, after| after.any_stopped().then(|| (0..2).all(|index| after.is_quiet(index)));
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

    fn as_either<T>(
        &mut self,
        save: impl FnOnce(&mut Saver<Fd>) -> T,
        load: impl FnOnce(&mut Loader<Fd>) -> T,
    ) -> T {
        match self {
            Self::Save(saver) => save(saver),
            Self::Load(loader) => load(loader),
        }
    }
}

impl around::Session for Session {
    fn ask(&mut self) -> Said {
        self.as_either(Saver::ask, Loader::ask)
    }

    fn reply(&mut self, reply: Reply<u32>) -> Result<(), OutOfTurn> {
        self.as_either(|saver| saver.reply(reply), |loader| loader.reply(reply))
    }

    fn called(&mut self, done: bool) -> Result<(), OutOfTurn> {
        self.as_either(|saver| saver.called(done), |loader| loader.called(done))
    }

    fn event(&mut self, event: Event) -> Result<(), ResetRefused> {
        self.as_either(|saver| saver.event(event), |loader| loader.event(event))
    }

    fn is_aborting(&self) -> bool {
        let mut session = *self;
        session.as_either(|saver| saver.is_aborting(), |loader| loader.is_aborting())
    }
}

impl World {
    fn is_quiet(&self, index: usize) -> bool {
        let member = &self.members[index];
        let quiet = member.is_in(State::RunningP2p) || member.is_in(State::PreCopyP2p);
        quiet || member.is_stopped() || self.blank[index] || member.is_in(State::Error)
    }

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
        let home = |member: &Member<Session, Memory<0>>| {
            member.is_stuck() || member.is_in(if stays { State::Stop } else { State::Running })
        };
        let alike = complete[0] == complete[1] || self.role == Role::Save(Then::Back);
        // With every device stuck nobody is left to let the guest go for.
        let all_stuck = self.members.iter().all(|member| member.is_stuck());
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
        match member.session.ask() {
            Said::Do(op) => {
                let op = op.map(|piece| piece.of(IMAGE));
                world.faults -= u8::from(trouble != Trouble::None);
                let mut hands = Hands { device: &mut member.device, slip: None, held: None };
                let (op, reply) = hands.carry_out(op, trouble, &mut [0]);
                world.blank[index] = match (op, reply) {
                    (Op::Reset, Reply::Ok) => true,
                    // Whatever state a SET has led to is the state that counts.
                    (Op::SetState { .. }, Reply::Fd(_)) => false,
                    _ => world.blank[index],
                };
                let _told = member.session.reply(reply);
                Did::Op(op, reply)
            }
            Said::Send(frame) => {
                if let Session::Save(saver) = &mut member.session {
                    let _told = saver.sent();
                }
                Did::Sent(frame)
            }
            Said::Call(hook) => Did::Called(hook, member.arrive(&mut world.group, index, hook)),
            Said::Decide(_) | Said::Wait(_) | Said::End(_) => Did::Touched,
        }
    }

    fn pass(&self, world: &mut World, index: usize) -> Did {
        let open = world.group.gate(index) == Gate::Open || self.is(Slip::IgnoresGates);
        let hook = world.members[index].pass(open);
        if self.is(Slip::ThawsEarly) && hook == Hook::Thaw {
            world.halted = false;
        }
        Did::Called(hook, open)
    }

    /// What a driver of a group does behind each step.
    fn keep_order(&self, world: &mut World) {
        let World { group, members, halted, .. } = world;
        let stays = self.setting.role == Role::Save(Then::Stop);
        let _told = keep_order(group, members, stays, self.slip, |_, hook| {
            match hook {
                Hook::Freeze => *halted = !self.is(Slip::GuestRunsOn),
                Hook::Thaw => *halted = self.is(Slip::ForgetsThaw),
                _ => {}
            }
            true
        });
    }
}

fn choose(session: &mut Session, choice: Recovery) -> Did {
    match (session.ask(), session) {
        (Said::Decide(decision), Session::Save(saver)) => {
            let _told = saver.decide(choice);
            Did::Chose(decision, choice)
        }
        _ => Did::Touched,
    }
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
            members: [Member::new(
                Session::new(self.setting.role),
                Device::new(self.features, Memory::new()),
            ); 2],
            blank: [self.setting.role == Role::Load; 2],
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
                    let troubles = if set { &FIRST_ARC_FAILS[..] } else { &FAILS };
                    if world.faults > 0 && !matches!(op, Op::CloseFd { .. }) {
                        actions.extend(troubles.iter().map(|&trouble| Action::Go(index, trouble)));
                    }
                }
                Said::Send(_) => actions.push(Action::Go(index, Trouble::None)),
                Said::Call(_) if member.at.is_none() => {
                    actions.push(Action::Go(index, Trouble::None));
                }
                Said::Call(_) => {
                    let open = may_pass(&world.group, index, self.slip);
                    actions.extend(open.then_some(Action::Pass(index)));
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
                let _refused = world.members[index].session.event(event);
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

    fn asked(&self, _before: &World, action: Action, did: &Did) -> Vec<Asked> {
        let (index, trouble) = match action {
            Action::Go(index, trouble) => (index, trouble),
            Action::GuestReset(index) => (index, Trouble::None),
            _ => return vec![],
        };
        let reached = reached(did, trouble, None).into_iter();
        reached.map(|(actor, op)| (index as u8, actor, op)).collect()
    }

    fn record(&self, property: &'static str, actions: &[Action]) -> Counterexample {
        let recorder = Recorder::<0>::new(self.features, Planted::NONE);
        record(self, recorder, actions).finish(property)
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
    type Left = Member<Session, Memory<0>>;
    type Right = (Self::Left, Group, Role, [bool; 3], [u8; 2]);

    fn halves(&self) -> (Self::Left, Self::Right) {
        let Self { members: [first, second], blank, group, role, halted, faults, resets } = *self;
        (first, (second, group, role, [blank[0], blank[1], halted], [faults, resets]))
    }

    fn whole(first: Self::Left, right: Self::Right) -> Self {
        let (second, group, role, [one, two, halted], [faults, resets]) = right;
        Self { members: [first, second], blank: [one, two], group, role, halted, faults, resets }
    }
}
