// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! Level 3: two machines, and the devices of a VM that moves from one to the other.
//!
//! ```text
//!   source                       one stream a device             destination
//!   guest, host                                                  host
//!   device 0 - Saver 0 ---\   DATA, DISCARD, END   /--- Loader 0 - device 0
//!     ^ DMA v             Group ==================> Group          ^ DMA v
//!   device 1 - Saver 1 ---/                        \--- Loader 1 - device 1
//!                  VMM  <-------- has failed ---------  VMM
//!                       --------- hand over, gave up ->
//! ```
//!
//! Devices, sessions and groups are the core's own. The two VMMs are what is left to the user of
//! the library, kept as small as it can be: the source hands over when all its sessions are
//! complete, the destination starts when it is loaded and has been handed to, whoever fails says so,
//! and the source goes back to its guest only before it has handed over or when the destination has
//! said that it failed.
//!
//! # What is one step, and why that loses nothing
//!
//! * GET of the features, the opt-in, the size estimate, closing a data_fd, and coming to a gate or
//!   passing one that is open are done with the step before them. They neither change a device nor
//!   depend on what happens to it, and no call of them fails here (at level 1 each does).
//! * A reset inside a SET is one between that SET and the next step: the device does the same, and
//!   level 1 has both.
//! * With [`Pace::Eager`] a destination goes on as long as it can before the source does anything,
//!   and the first of its devices before the next. The two ends share nothing but streams and
//!   messages, which wait for as long as it takes: so a run in which they take turns is one of these
//!   with its steps in another order, and each property speaks of one end, or of the moments at which
//!   one end hears of the other. What is left out is that a loader hears of somebody else's failure
//!   in the middle of what it is doing and not behind it; level 1 tells it at every place, and here
//!   so does a VMM at the destination that gives up. [`Pace::Any`] leaves nothing out, and a test
//!   compares the verdicts.
//! * An end at which all sessions have ended in failure has been judged, and is forgotten.
//! * With [`Setting::symmetric`] the first thing that happens to a device happens to device 0: all
//!   are alike, no property speaks of one by its number, so every other run is one of these with the
//!   devices renamed.
//!
//! # What is bounded
//!
//! Touches and DMA that change a device, resets by the guest and by the host, calls that fail,
//! cancels, and discards: so many in all, see [`Left`]. A call that fails at a SET fails at its first
//! arc, or finds no room for a data_fd. Messages and frames are not lost, only late; a lost
//! connection is what a cancel at both ends is.

pub(crate) mod case;
mod device;
mod play;
mod rules;
mod slip;
mod stream;
mod world;

use vfio_fsm_core::Features;
use vfio_fsm_core::vmm::Recovery;

use crate::property::{Property, Rule};
use crate::scene::{Judge, Scene};
use crate::search::{ByHalves, Codec};
use crate::session::Trouble;
use crate::session::slip::Slip;

pub(crate) use case::{Ends, OnSystem, Runs};
pub use case::{LARGE_SYSTEM_CASES, SYSTEM_CASES};
pub(crate) use device::Serialisation;
pub(crate) use rules::{EVERY_RUN_ENDS, Judgement};
pub use slip::StreamSlip;
pub(crate) use world::World;

/// The model, with `N` devices.
#[derive(Clone, Debug)]
pub(crate) struct System<const N: usize> {
    pub(crate) setting: Setting,
    /// What both VMMs get wrong around their sessions.
    pub(crate) slip: Option<Slip>,
    /// What they get wrong between them.
    pub(crate) between: Option<StreamSlip>,
    pub(crate) rules: &'static [Rule<Judgement<N>>],
    start: World<N>,
}

/// What the two machines are like.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Setting {
    pub(crate) devices: u8,
    pub(crate) features: Features,
    pub(crate) how: Serialisation,
    pub(crate) left: Left,
    /// Discards, at most.
    pub(crate) restarts: u16,
    /// Bytes of one read.
    pub(crate) chunk: u32,
    pub(crate) pace: Pace,
    /// The first thing that happens to a device happens to device 0.
    pub(crate) symmetric: bool,
    /// The host's reset of the hardware comes before the driver hears of it, and a read may come
    /// between.
    pub(crate) in_two_parts: bool,
    /// The destination's host resets a device also behind the last look at it.
    pub(crate) resets_behind_last_look: bool,
    /// The guest runs on, and touches its devices, when it should be held back.
    pub(crate) guest_runs_on: bool,
    /// Whether every run is followed to its end, on a graph of all worlds.
    pub(crate) ends: bool,
}

/// What may still happen.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Left {
    /// Touches by the guest, and DMA of one device to another, that change the device.
    pub(crate) touches: u8,
    pub(crate) guest_resets: u8,
    pub(crate) host_resets: u8,
    /// Calls that fail.
    pub(crate) faults: u8,
    pub(crate) cancels: u8,
}

/// In which orders the two ends go on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Pace {
    /// In any.
    Any,
    /// The destination first.
    Eager,
}

/// What happens next.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum Action {
    Source(usize, Move),
    Destination(usize, Move),
    /// The guest touches a device.
    Touch(usize),
    /// One device writes to another.
    Dma {
        from: usize,
        to: usize,
    },
    GuestReset(usize),
    /// The host resets a device at the source.
    HostReset(usize),
    /// The driver hears of it.
    ResetDone(usize),
    /// The host resets a device at the destination.
    ResetThere(usize),
    /// The VMM at the source, or at the destination, gives up.
    Cancel {
        here: bool,
    },
    /// All is sent: the destination may start.
    HandOver,
    /// The destination starts.
    Start,
    /// The source hears that the destination has failed.
    HearFailure,
    /// The destination hears that the source has given up.
    HearGivenUp,
}

/// One step of a session.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum Move {
    Go(Trouble),
    /// The vCPUs cannot be halted.
    Refuse,
    Choose(Recovery),
    Switchover,
    Tick,
    /// The next frame comes out of the stream.
    Take,
}

impl<const N: usize> Scene for System<N> {
    type World = World<N>;
    type Action = Action;

    fn properties(&self) -> Vec<&'static Property> {
        self.rules.iter().map(|rule| &rule.property).collect()
    }

    fn initial(&self, _judge: &mut Judge) -> World<N> {
        self.start
    }

    fn actions(&self, world: &World<N>, actions: &mut Vec<Action>) {
        self.offer(world, actions);
    }

    fn step(&self, before: &World<N>, action: Action, judge: &mut Judge) -> World<N> {
        let mut after = self.play(before, action, None);
        let step = rules::Step { system: self, before, action, after: &after };
        for (index, rule) in self.rules.iter().enumerate() {
            if let Some(holds) = (rule.check)(&step) {
                judge.judge(index, holds);
            }
        }
        self.forget(&mut after);
        after
    }

    fn narrate(&self, actions: &[Action]) -> Vec<String> {
        let mut lines = Vec::new();
        let mut world = self.start;
        for &action in actions {
            world = self.play(&world, action, Some(&mut lines));
            self.forget(&mut world);
        }
        lines
    }

    fn say(&self, before: &World<N>, action: Action) -> String {
        let mut lines = Vec::new();
        self.play(before, action, Some(&mut lines));
        lines.join("; ")
    }

    fn show(&self, world: &World<N>) -> String {
        world.to_string()
    }

    fn codec(&self) -> impl Codec<World<N>> {
        ByHalves::new()
    }
}
