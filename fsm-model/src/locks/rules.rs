// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! What must hold of the locks.

use std::fmt;

use vfio_fsm_core::State;

use crate::locks::history::{View, is_linearisable};
use crate::locks::step::{Lock, Step};
use crate::locks::world::World;
use crate::property::{Rule, rules};

/// One step of one thread, to be judged.
#[derive(Debug)]
pub(crate) struct Stepped<'a> {
    start: State,
    before: &'a World,
    who: usize,
    /// `None` when the worker takes up its work.
    step: Option<Step>,
    after: &'a World,
}

pub(crate) type Judgement = fn(&Stepped<'_>) -> Option<bool>;

/// The properties of level 2.
pub(crate) const RULES: &[Rule<Judgement>] = rules! {
    "locks-no-deadlock" ["L1" "C35"]
        "as long as a thread waits for a lock, some thread can go on"
        |s| Some(!s.after.is_still() || s.after.waiting().next().is_none());
    "locks-in-order" ["L2" "C35"]
        "who waits for a lock holds only locks that come before it in the one order: state_mutex, \
         migf->lock, mmap_lock, memory_lock, device_lock, reset_lock, list_lock"
        |s| match s.step {
            Some(Step::Lock(lock)) => Some(s.before.held(s.who).all(|held| held < lock)),
            _ => None,
        };
    "locks-no-sleep-under-spin-lock" ["L3"]
        "who holds a spin lock waits for no mutex, sleeps for no data and frees no file"
        |s| s.sleeps().then(|| !s.before.held(s.who).any(Lock::is_spin));
    "locks-guard-the-state" ["L4"]
        "device_state and session change only in the hands of who holds state_mutex"
        |s| (s.after.fsm != s.before.fsm).then(|| s.before.owner(Lock::State) == Some(s.who));
    "locks-guard-the-session" ["L7"]
        "who reads or writes a session holds the mutex of its file and the spin lock of its \
         buffers, and who ends one holds one of them"
        |s| {
            let holds = |lock| s.before.owner(lock) == Some(s.who);
            match s.step {
                Some(Step::Take | Step::Put) => Some(holds(Lock::File) && holds(Lock::Buffers)),
                _ => s.ends_session().then(|| holds(Lock::File) || holds(Lock::Buffers)),
            }
        };
    "locks-are-there" ["L5"]
        "who takes state_mutex, or tries to, takes one that has not been destroyed"
        |s| {
            let takes = matches!(s.step, Some(Step::Lock(Lock::State) | Step::Arrive));
            takes.then_some(!s.before.destroyed)
        };
    "locks-one-reset-at-a-time" ["C31"]
        "a reset handler is called with device_lock held, so that no other is under way"
        |s| {
            let handler = matches!(s.step, Some(Step::Arrive | Step::Schedule));
            handler.then(|| s.before.owner(Lock::Pci) == Some(s.who))
        };
    "locks-are-returned" ["L5"]
        "a thread releases only what it holds, and holds nothing when its call returns"
        |s| match s.step? {
            Step::Unlock(lock) => Some(s.before.owner(lock) == Some(s.who)),
            Step::Return => Some(s.before.held(s.who).next().is_none()),
            _ => None,
        };
    "locks-wake-the-reader" ["C18"]
        "when nobody can go on, no reader sleeps whose session is over or whose data is there"
        |s| (s.after.is_still() && s.after.sleepers().next().is_some())
            .then(|| s.after.sleepers().all(|who| s.after.must_wait(who)));
    "locks-reset-never-waits" ["C30"]
        "a reset does not wait for state_mutex"
        |s| s.after.resets().next().is_some().then(|| {
            s.after.resets().all(|who| s.after.next(who) != Some(Step::Lock(Lock::State)))
        });
    "locks-no-reset-lost" ["T6" "C29"]
        "when state_mutex is free, every reset that has arrived has been carried out"
        |s| s.after.owner(Lock::State).is_none().then(|| s.after.owed().is_empty());
    "locks-calls-in-some-order" ["C31" "C32" "C33" "L6"]
        "all calls return what the device of level 1 returns in some order that real time allows, \
         where a reset ends when it has been carried out"
        |s| s.over().then(|| is_linearisable(s.after, s.start, View::Device));
    "locks-reset-before-it-returns" ["C31" "C34" "L6"]
        "all calls but read return what the device of level 1 returns in some order that \
         real time allows, where a reset ends when it returns"
        |s| s.over().then(|| is_linearisable(s.after, s.start, View::Mutex));
};

impl fmt::Display for Stepped<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let name = self.before.name(self.who);
        match self.step {
            Some(step) => write!(f, "{name} {step}")?,
            None => write!(f, "{name} begins")?,
        }
        f.write_str(&self.after.came_of(self.before, self.who).unwrap_or_default())
    }
}

impl<'a> Stepped<'a> {
    pub(crate) fn new(start: State, before: &'a World, who: usize, after: &'a World) -> Self {
        Self { start, before, who, step: before.next(who), after }
    }

    /// Whether this is a step in which a thread may have to sleep.
    fn sleeps(&self) -> bool {
        match self.step {
            Some(Step::Lock(lock)) => !lock.is_spin(),
            step => matches!(step, Some(Step::AwaitData | Step::Free)),
        }
    }

    fn ends_session(&self) -> bool {
        let session = self.before.fsm.session();
        session.is_some() && session != self.after.fsm.session()
    }

    /// Whether all calls have returned, but those of readers that sleep.
    fn over(&self) -> bool {
        self.after.is_still() && self.after.waiting().next().is_none()
    }
}

/// That a reset is over for everybody when it has returned. It is not, for a `read`.
pub(crate) const CLAIM_WITHOUT_LICENCE: &[Rule<Judgement>] = rules! {
    "locks-reset-over-when-it-returns" ["L6"]
        "all calls return what the device of level 1 returns in some order that real time allows, \
         where a reset ends when it returns"
        |s| s.over().then(|| is_linearisable(s.after, s.start, View::Return));
};
