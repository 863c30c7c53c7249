// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! Level 1 once more, with a sane VMM in place of the chaotic one: the core's own sessions.
//!
//! * [`source`]: `Saver` x device x guest and host x receiver.
//! * [`destination`]: `Loader` x device x host x any frames.
//! * [`group`]: two `Saver`s in a `Group` x their devices x guest.
//!
//! What a session cannot see rides along as ghosts, and the properties compare: whether a reset
//! that it found has been one, whether the image that it ended is the device's.

pub(crate) mod around;
pub(crate) mod destination;
pub(crate) mod group;
pub(crate) mod slip;
pub(crate) mod source;

use std::fmt;
use std::hash::Hash;

use vfio_fsm_core::device::{ArcActions, Device, DeviceData, Memory};
use vfio_fsm_core::vmm::frame::Frame;
use vfio_fsm_core::vmm::{Decision, Event, Hook, Recovery, Wait};
use vfio_fsm_core::{Errno, Fault, Fd, Leaves, Op, RawState, Reply, Route};

use crate::check::Replay;
use crate::counterexample::{Counterexample, Recorder};
use crate::property::{Property, Rule};
use crate::scene::{Judge, Scene};
use crate::search::{Codec, Whole};
use crate::session::slip::Slip;
use crate::world::Actor;

/// The core's device with one register, and a user with room for two data_fds: one that is dying
/// and one that is new. Who leaks a third is caught.
pub(crate) type SmallDevice = Device<Memory<1>, 2>;

/// A scene in which sessions are at work: each step does something, and the rules judge that.
pub(crate) trait Play: Clone + Send + Sync + 'static {
    type World: Copy + fmt::Debug + Eq + Hash + Send + Sync;
    type Action: Copy + fmt::Debug + PartialEq + Send + Sync;

    fn rules(&self) -> &'static [Rule<Judgement<Self::World>>];

    fn start(&self) -> Self::World;

    /// What can happen in a world.
    fn offer(&self, world: &Self::World, actions: &mut Vec<Self::Action>);

    /// The world after it, and what was done.
    fn play(&self, before: &Self::World, action: Self::Action) -> (Self::World, Did);

    /// What a device was asked in a step, and by whom, if one was: what the session asked for and
    /// what was carried out are not the same, for calls fail and VMMs slip.
    fn asked(&self, before: &Self::World, action: Self::Action, did: &Did) -> Vec<Asked>;

    /// What the devices were asked in a run.
    fn record(&self, property: &'static str, actions: &[Self::Action]) -> Counterexample;

    /// A line of a run: what was done, and where the devices are behind it.
    fn tell(&self, action: Self::Action, did: &Did, after: &Self::World) -> String;

    /// A world, to read.
    fn show(&self, world: &Self::World) -> String;

    /// How worlds are kept by our own explorer.
    fn codec(&self) -> impl Codec<Self::World> {
        Whole::new()
    }
}

/// What a device was asked, and which, and by whom.
pub(crate) type Asked = (u8, Actor, Op<&'static [u8]>);

/// What a rule says of a step; `None` if it has nothing to say.
pub(crate) type Judgement<W> = fn(&W, &Did, &W) -> Option<bool>;

impl<P: Play> Scene for P {
    type World = P::World;
    type Action = P::Action;

    fn properties(&self) -> Vec<&'static Property> {
        self.rules().iter().map(|rule| &rule.property).collect()
    }

    fn initial(&self, _judge: &mut Judge) -> P::World {
        self.start()
    }

    fn actions(&self, world: &P::World, actions: &mut Vec<P::Action>) {
        self.offer(world, actions);
    }

    fn step(&self, before: &P::World, action: P::Action, judge: &mut Judge) -> P::World {
        let (after, did) = self.play(before, action);
        for (index, rule) in self.rules().iter().enumerate() {
            if let Some(holds) = (rule.check)(before, &did, &after) {
                judge.judge(index, holds);
            }
        }
        after
    }

    fn replay(&self, property: &'static str, actions: &[P::Action]) -> Option<Replay> {
        Some(Replay::Trace(self.record(property, actions)))
    }

    fn say(&self, before: &P::World, action: P::Action) -> String {
        let (after, did) = self.play(before, action);
        self.tell(action, &did, &after)
    }

    fn show(&self, world: &P::World) -> String {
        Play::show(self, world)
    }

    fn codec(&self) -> impl Codec<P::World> {
        Play::codec(self)
    }
}

/// What the devices, of `N` registers each, are asked in a run, from how they are prepared on.
pub(crate) fn record<P: Play, const N: usize>(
    play: &P,
    mut recorder: Recorder<N>,
    actions: &[P::Action],
) -> Recorder<N> {
    let mut world = play.start();
    for &action in actions {
        let (after, did) = play.play(&world, action);
        for (device, actor, op) in play.asked(&world, action, &did) {
            recorder.ask(device, actor, op);
        }
        world = after;
    }
    recorder
}

/// One step of a session and of what is around it, for the rules to judge.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum Did {
    /// The session's op, and what the device answered.
    Op(Op<&'static [u8]>, Reply<u32>),
    /// The session's frame, on its way.
    Sent(Frame),
    /// A frame handed to the session.
    Came(Frame),
    /// The VMM's part, and whether it could.
    Called(Hook, bool),
    /// The VMM's choice.
    Chose(Decision, Recovery),
    /// What happened outside.
    Event(Event),
    /// The guest or the host reset the device.
    Reset { by_guest: bool },
    /// The guest wrote to the device.
    Touched,
    /// The VMM answered for the device, which was not asked.
    Skipped,
}

/// What may go wrong with the one call that a session asks for.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum Trouble {
    /// Nothing.
    None,
    /// Around a SET.
    Set(Fault),
    /// The call fails like this, and does nothing.
    Errno(Errno),
    /// It takes or gives one byte.
    Short,
}

/// The same text for each kind of step, whichever session takes it.
impl fmt::Display for Did {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Op(op, reply) => write!(f, "session  {op} => {reply}"),
            Self::Sent(frame) => write!(f, "session  sends {frame}"),
            Self::Came(frame) => write!(f, "stream   {frame}"),
            Self::Called(hook, true) => write!(f, "VMM      {hook}"),
            Self::Called(hook, false) => write!(f, "VMM      cannot {hook}"),
            Self::Chose(decision, choice) => write!(f, "VMM      {}: {choice}", decision.evidence),
            Self::Event(event) => write!(f, "VMM      {event:?}"),
            Self::Reset { by_guest: true } => f.write_str("guest    RESET"),
            Self::Reset { by_guest: false } => f.write_str("host     RESET"),
            Self::Touched => f.write_str("guest    touch"),
            Self::Skipped => f.write_str("VMM      answers for the device"),
        }
    }
}

/// What of a step reached the device, and from whom: not a call that failed on the way, nor one that
/// the VMM with the slip never made.
pub(crate) fn reached(
    did: &Did,
    trouble: Trouble,
    slip: Option<Slip>,
) -> Option<(Actor, Op<&'static [u8]>)> {
    match *did {
        Did::Reset { by_guest: true } => Some((Actor::Guest, Op::Reset)),
        Did::Reset { by_guest: false } => Some((Actor::Host, Op::Reset)),
        Did::Op(..) if matches!(trouble, Trouble::Errno(_)) => None,
        Did::Op(Op::CloseFd { .. }, _) if slip == Some(Slip::LeaksFd) => None,
        Did::Op(op, _) => Some((Actor::Vmm, op)),
        _ => None,
    }
}

/// Whether a session that waits like this could be woken by [`Event::Tick`].
pub(crate) const fn ticks(wait: Wait) -> bool {
    matches!(wait, Wait::Switchover | Wait::Readable | Wait::Writable)
}

/// The number of the data_fd that a session holds, as an op of a trace has it.
pub(crate) fn by_number<B>(op: Op<B, &Fd>) -> Op<B> {
    op.map_fd(|fd| *fd)
}

/// What may go wrong around a SET, resets aside: a full fd table, and each arc of the route.
pub(crate) fn troubles_of_set<A: ArcActions + DeviceData, const FDS: usize>(
    device: &Device<A, FDS>,
    to: RawState,
) -> impl Iterator<Item = Trouble> + use<A, FDS> {
    let fsm = device.fsm();
    let route = to.known().and_then(|to| Route::new(fsm.features(), fsm.state(), to).ok());
    let hops = 0..route.map_or(0, |route| route.len() as u8);
    let fails = |hop| {
        [Leaves::Source, Leaves::Error].map(|leaves| Fault::ArcFails {
            hop,
            errno: Errno::EIO,
            leaves,
        })
    };
    [Fault::FdTableFull].into_iter().chain(hops.flat_map(fails)).map(Trouble::Set)
}

/// The choices that are open.
pub(crate) fn open_choices(decision: Decision) -> impl Iterator<Item = Recovery> {
    let all = [Recovery::Abort, Recovery::Restart, Recovery::StopCopy];
    all.into_iter().filter(move |&choice| decision.choices.allow(choice))
}
