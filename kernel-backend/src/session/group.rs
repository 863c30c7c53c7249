// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! The devices of one VM, each session in a thread of its own.

use std::thread;

use parking_lot::{Condvar, Mutex};
use vfio_fsm_core::vmm::{
    Cause, Decision, Event, Gate, Group, GroupRefused, Guest, Hook, Port, Recovery, ResetRefused,
    Verdict,
};
use vfio_fsm_core::{Direction, Errno, Features, IllegalFeatures, Op, Reply, State};

use super::{Interest, Outcome, Session, Standing, Vmm};

/// Devices that cannot be migrated together.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum GroupError {
    /// One has no migration, or does not say.
    #[error(
        "device {index} answers {errno} when asked for its features: leave it out, or unplug it"
    )]
    Features {
        /// Which, counted from 0.
        index: usize,
        /// What it said; `EPROTO` for what is no answer to that.
        errno: Errno,
    },
    /// The flags of one are no legal set.
    #[error("device {index}: {illegal}")]
    Illegal {
        /// Which, counted from 0.
        index: usize,
        /// What it has.
        illegal: IllegalFeatures,
    },
    /// They do not go together.
    #[error(transparent)]
    Refused(#[from] GroupRefused),
}

/// Asks these devices what they can do, and whether they can be migrated together; see
/// [`Group::new`]. Their plans' `group` is [`Group::in_two_phases`].
///
/// # Errors
///
/// When one has no migration, or they cannot.
pub fn group_of<P: Port>(
    direction: Direction,
    ports: &mut [P],
    peer_dma: bool,
) -> Result<Group, GroupError> {
    let features = ports.iter_mut().enumerate().map(|(index, port)| features(index, port));
    Ok(Group::new(direction, &features.collect::<Result<Vec<_>, _>>()?, peer_dma)?)
}

fn features(index: usize, port: &mut impl Port) -> Result<Features, GroupError> {
    match port.apply(Op::GetFeatures, &mut []) {
        Reply::Features(flags) => {
            Features::from_flags(flags).map_err(|illegal| GroupError::Illegal { index, illegal })
        }
        Reply::Errno(errno) => Err(GroupError::Features { index, errno }),
        _ => Err(GroupError::Features { index, errno: Errno::EPROTO }),
    }
}

/// Runs the sessions of one VM side by side, all at the source or all at the destination.
///
/// Each has a thread, a port, a stream and a VMM's side of its own, which answers for that device
/// alone. What concerns all of them, [`Hook::Freeze`], [`Hook::Quiesced`], [`Hook::Startable`] and
/// [`Hook::Thaw`], goes to `all`, once, when the last has arrived; and none goes on before.
///
/// One that fails takes the others with it: they are cancelled, those that are complete in STOP
/// included, and the way back has two phases like the way there. So in the end all are complete, or
/// none is.
///
/// When all are complete in STOP and the destination fails, [`Group::fail`] and the same call again
/// take all devices back.
///
/// A thread that sits in a read or write of its stream hears nothing: shut the stream down, too.
///
/// # Panics
///
/// When the VMM's side does: behind it, the others are cancelled and brought home first.
pub fn run_group<S, V>(
    group: &mut Group,
    members: &mut [(S, V)],
    all: impl FnMut(Hook) -> bool + Send,
) -> Vec<Outcome>
where
    S: Session + Send,
    V: Vmm + Send,
{
    let count = members.len();
    let state = Mutex::new(Inner { group: *group, all, count, ended: 0 });
    let shared = Shared { state, changed: Condvar::new() };
    let outcomes = thread::scope(|scope| {
        let run = |(index, (session, vmm))| {
            let shared = &shared;
            scope.spawn(move || shared.run(index, session, vmm))
        };
        let threads: Vec<_> =
            members.iter_mut().map(|(s, v)| (s, v)).enumerate().map(run).collect();
        let outcome = |thread: thread::ScopedJoinHandle<'_, Outcome>| match thread.join() {
            Ok(outcome) => outcome,
            Err(panicked) => std::panic::resume_unwind(panicked),
        };
        threads.into_iter().map(outcome).collect()
    });
    *group = shared.state.into_inner().group;
    outcomes
}

struct Shared<H> {
    state: Mutex<Inner<H>>,
    changed: Condvar,
}

impl<H> Shared<H> {
    fn end(&self, index: usize, verdict: &Verdict, stopped: bool) {
        self.state.lock().group.end(index, verdict, stopped);
        self.changed.notify_all();
    }
}

struct Inner<H> {
    group: Group,
    all: H,
    count: usize,
    /// So many have a verdict.
    ended: usize,
}

impl<H: FnMut(Hook) -> bool> Shared<H> {
    fn run(&self, index: usize, session: &mut impl Session, vmm: &mut impl Vmm) -> Outcome {
        let mut member =
            Member { index, vmm, shared: self, aborting: false, frozen: false, cancelled: false };
        let outcome = session.run(&mut member);
        if !self.is_to_be_undone(index, &outcome) {
            return outcome;
        }
        member.cancelled = true;
        let refused = session.event(Event::Cancel);
        debug_assert_eq!(refused, Ok(()));
        let outcome = session.run(&mut member);
        self.end(index, &outcome.verdict, false);
        outcome
    }

    /// Whether a session that is over must go on, to take its device back: another has failed.
    /// Waits until that is clear.
    fn is_to_be_undone(&self, index: usize, outcome: &Outcome) -> bool {
        let Outcome { verdict, standing, .. } = outcome;
        let stopped = verdict.is_complete() && standing.at == Some(State::Stop);
        self.end(index, verdict, stopped);
        let mut state = self.state.lock();
        state.ended += 1;
        self.changed.notify_all();
        while stopped && !state.group.is_broken() {
            if state.ended == state.count {
                return false;
            }
            self.changed.wait(&mut state);
        }
        stopped
    }

    /// Comes to a gate, and goes on when all have; `false` if it is to turn back there.
    fn pass(&self, index: usize, hook: Hook, aborting: bool) -> bool {
        let mut state = self.state.lock();
        if state.group.arrive(index, hook, aborting).is_err() {
            state.group.fail();
            self.changed.notify_all();
            return false;
        }
        loop {
            while let Some(hook) = state.group.due() {
                let done = (state.all)(hook);
                state.group.done(hook, done);
                self.changed.notify_all();
            }
            match state.group.gate(index) {
                Gate::Open => return true,
                Gate::Broken => return false,
                Gate::Wait => self.changed.wait(&mut state),
            }
        }
    }
}

/// One session's VMM's side, with the gates before it.
struct Member<'a, V, H> {
    index: usize,
    vmm: &'a mut V,
    shared: &'a Shared<H>,
    /// As the session has last said.
    aborting: bool,
    frozen: bool,
    cancelled: bool,
}

impl<V, H> Member<'_, V, H> {
    /// Whether another has failed, or this one has just now: then the others are not to wait.
    fn is_broken(&self) -> bool {
        let mut state = self.shared.state.lock();
        if self.aborting && !state.group.is_broken() {
            state.group.fail();
            self.shared.changed.notify_all();
        }
        state.group.is_broken()
    }
}

impl<V: Vmm, H: FnMut(Hook) -> bool> Vmm for Member<'_, V, H> {
    fn hook(&mut self, hook: Hook) -> bool {
        match hook {
            Hook::Freeze | Hook::Quiesced | Hook::Startable | Hook::Thaw => {
                self.frozen = hook != Hook::Thaw;
                self.shared.pass(self.index, hook, self.aborting)
            }
            _ => self.vmm.hook(hook),
        }
    }

    fn decide(&mut self, decision: &Decision) -> Recovery {
        let mut decision = *decision;
        // To begin anew the guest would have to run, and the others have stopped for good.
        decision.choices.restart &= !self.frozen;
        let choice = self.vmm.decide(&decision);
        if decision.choices.allow(choice) { choice } else { Recovery::Abort }
    }

    fn event(&mut self, standing: &Standing) -> Option<Event> {
        self.aborting = standing.aborting;
        if self.is_broken() && !self.cancelled {
            self.cancelled = true;
            return Some(Event::Cancel);
        }
        self.vmm.event(standing)
    }

    fn wait(&mut self, interest: &Interest, standing: &Standing) -> Option<Event> {
        self.vmm.wait(interest, standing)
    }

    fn reset_refused(&mut self, refused: ResetRefused) {
        self.vmm.reset_refused(refused);
    }
}

/// A VMM's side that panics leaves its device where it is; the others must not wait for it.
impl<V, H> Drop for Member<'_, V, H> {
    fn drop(&mut self) {
        if thread::panicking() {
            let verdict = Verdict::Aborted { cause: Cause::Cancelled, guest: Guest::Intact };
            self.shared.state.lock().ended += 1;
            self.shared.end(self.index, &verdict, false);
        }
    }
}
