// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! Level 2: the driver taken apart into steps, its locks, and those of the kernel around it.
//!
//! At level 1 a call is one step. Here it is a list of them, and two or three threads make theirs in
//! any order: SET arc by arc, GET, read, write, PRECOPY_INFO, `VFIO_DEVICE_RESET`, a reset through
//! sysfs, close, PF detach, a page fault on the device's memory, the firmware's answer to a SAVE.
//! State, session, bytes and hand-off are the core's own `DeviceFsm`, `Memory` and `ResetGate`; the
//! model adds the threads, the locks and the moments between.
//!
//! # The locks
//!
//! | lock | what is done under it | where it is seen |
//! |---|---|---|
//! | `state_mutex` | SET, GET, PRECOPY_INFO, write (mlx5), close, detach, a reset | mlx5 `main.c` |
//! | `migf->lock` | what a data_fd does, **and its copies from and to the user** | `mlx5vf_save_read()`, `mlx5vf_resume_write()`, `mlx5vf_disable_fd()` |
//! | `mmap_lock` | a page fault, also one inside such a copy | `mm/` |
//! | `memory_lock` | a page fault on the device's memory; `VFIO_DEVICE_RESET` **with the driver's handler** | `vfio_pci_mmap_fault()`, `vfio_pci_ioctl_reset()` |
//! | `device_lock` | every reset of a PCI function; only tried by `VFIO_DEVICE_RESET` | `pci_try_reset_function()`, `pci_reset_function()` |
//! | `reset_lock` | spin lock of the gate: leave a note and try `state_mutex`; look for one and release it | `mlx5vf_pci_aer_reset_done()`, `mlx5vf_state_mutex_unlock()` |
//! | `list_lock` | spin lock of the buffers; here also of the session's end | mlx5 `cmd.c` |
//!
//! So who holds `state_mutex` or `migf->lock` may wait for `memory_lock`, and who resets holds
//! `memory_lock`. A reset that waits for `state_mutex` closes the circle; that is what the gate is
//! for. A reset that waits for `migf->lock` closes one as well, and the gate does not help
//! ([`Design::ResetLocksFile`]): the right design ends the session under a spin lock.
//!
//! # What a reset guarantees when it has returned
//!
//! A reset that found `state_mutex` taken returns before it has been carried out. Then:
//!
//! * A call that takes `state_mutex` and begins later finds the device reset, as the holder carries
//!   the reset out before it lets go. So a SET that met the reset comes before it, however late the
//!   reset came, and may return a data_fd that is already dead (C32).
//! * A `read` that begins later takes `migf->lock` alone. Until the holder lets go, it may still
//!   reach the old session. It comes before the reset, which for it ends when it is carried out:
//!   that is the one licence (L6), and without it the claim falls (the last of [`CLAIMS`]).
//!
//! # How it is checked
//!
//! Orders that explain what the calls returned are looked for by stateright's own
//! `LinearizabilityTester`, with level 1 as the sequential device. No deadlock, and no reader that
//! sleeps for ever, are properties of worlds in which nobody can go on: every run ends in one, as
//! every thread has finitely many steps. That takes for granted that whoever can go on does, as
//! Linux does for a thread that can run and a lock that is free. The order of the locks is checked
//! step by step against one list, which is the same as a graph without cycle; [`lock_order`] draws
//! the graph.
//!
//! # The bound, and what is left out
//!
//! Every two and every three calls, from each of four states ([`STARTS`]); one of the threads may
//! make a second call. Every step is a moment of its own: nothing is merged.
//!
//! * All locks exclude. A shared holder of `mmap_lock` or `memory_lock` makes another wait as soon
//!   as a writer queues, and any thread of the VMM can be that writer. lockdep counts the same way.
//! * Every copy from or to the user faults, and on the device's own memory: the most that a user
//!   can make of it. GET, SET and PRECOPY_INFO copy their arguments with no lock held.
//! * One lock stands for the files of all sessions, and one for their buffers.
//! * Memory is sequentially consistent, interrupts are not modelled, arcs do not fail but for data
//!   that cannot be loaded, and firmware is a buffer that gets filled.
//! * PF detach ends the session as a close does, and leaves the device in RUNNING where mlx5 leaves
//!   `mig_state` alone.
//!
//! [`CLAIMS`]: crate::CLAIMS

mod call;
mod design;
mod history;
mod order;
mod rules;
mod scenario;
mod schedule;
mod step;
mod world;

use vfio_fsm_core::State;

use crate::check::Replay;
use crate::property::{Property, Rule};
use crate::scene::{Judge, Scene};
use crate::search::{ByHalves, Codec};

use rules::Stepped;
use world::{CALLERS, Program, WORKER, World};

pub use design::Design;
pub use order::{LockOrder, lock_order};
pub(crate) use rules::{CLAIM_WITHOUT_LICENCE, Judgement, RULES};
pub use schedule::{Schedule, ScheduleError};
pub use step::Lock;

/// From which the threads begin: in each, other calls and other sessions are possible.
pub(crate) const STARTS: [State; 4] =
    [State::Running, State::PreCopy, State::StopCopy, State::Resuming];

/// The model, from one state of the device.
#[derive(Clone, Debug)]
pub(crate) struct Locks {
    start: State,
    design: Design,
    scenarios: Vec<[Program; CALLERS]>,
    rules: &'static [Rule<Judgement>],
}

/// What happens next.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum Action {
    /// Which calls the threads will make.
    Cast(usize),
    /// One step of one thread.
    Go(usize),
}

impl Locks {
    pub(crate) fn new(start: State, design: Design, rules: &'static [Rule<Judgement>]) -> Self {
        Self { start, design, scenarios: scenario::from(start), rules }
    }

    fn play(&self, before: &World, action: Action) -> World {
        let mut world = *before;
        match action {
            Action::Cast(index) => world.cast(&self.scenarios[index]),
            Action::Go(who) => world.run(self.design, who),
        }
        world
    }
}

impl Scene for Locks {
    type World = World;
    type Action = Action;

    fn properties(&self) -> Vec<&'static Property> {
        self.rules.iter().map(|rule| &rule.property).collect()
    }

    fn initial(&self, _judge: &mut Judge) -> World {
        World::new(self.start)
    }

    fn actions(&self, world: &World, actions: &mut Vec<Action>) {
        if world.is_cast() {
            actions.extend((0..=WORKER).filter(|&who| world.can_go(who)).map(Action::Go));
        } else {
            actions.extend((0..self.scenarios.len()).map(Action::Cast));
        }
    }

    fn step(&self, before: &World, action: Action, judge: &mut Judge) -> World {
        let after = self.play(before, action);
        if let Action::Go(who) = action {
            let stepped = Stepped::new(self.start, before, who, &after);
            for (index, rule) in self.rules.iter().enumerate() {
                if let Some(holds) = (rule.check)(&stepped) {
                    judge.judge(index, holds);
                }
            }
        }
        after
    }

    fn narrate(&self, actions: &[Action]) -> Vec<String> {
        let mut world = World::new(self.start);
        let mut lines = Vec::new();
        for &action in actions {
            let after = self.play(&world, action);
            lines.push(self.say(&world, action));
            world = after;
        }
        let waits = world.waiting().filter(|_| world.is_still());
        lines.extend(waits.map(|(who, lock, owner)| {
            format!("{} waits for {lock}, held by {}", world.name(who), world.name(owner))
        }));
        lines
    }

    fn replay(&self, property: &'static str, actions: &[Action]) -> Option<Replay> {
        Some(Replay::Schedule(self.schedule(property, actions)))
    }

    fn say(&self, before: &World, action: Action) -> String {
        let after = self.play(before, action);
        match action {
            Action::Cast(index) => scenario::describe(self.start, &self.scenarios[index]),
            Action::Go(who) => Stepped::new(self.start, before, who, &after).to_string(),
        }
    }

    fn show(&self, world: &World) -> String {
        let threads = (0..=WORKER).filter_map(|who| {
            let step = world.next(who)?;
            let locks: String = world.held(who).map(|lock| format!(" with {lock}")).collect();
            Some(format!("{}{locks} is to {step}", world.name(who)))
        });
        let device = format!("device in {}", world.fsm.state());
        std::iter::once(device).chain(threads).collect::<Vec<_>>().join("; ")
    }

    fn codec(&self) -> impl Codec<World> {
        ByHalves::new()
    }
}
