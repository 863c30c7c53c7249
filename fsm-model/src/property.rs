// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! What must hold, each with an id, the requirements it covers, and one line of meaning.

use vfio_fsm_core::{EndOfStream, Errno, Fault, Fd, Leaves, Op, Reply, Route, State};

use crate::world::{Action, Actor, LOADED, World};

/// One step of the model, to be judged.
#[derive(Debug)]
pub(crate) struct Step<'a> {
    pub(crate) before: &'a World,
    pub(crate) action: Action,
    pub(crate) reply: &'a Reply<Vec<u8>>,
    pub(crate) after: &'a World,
}

/// Something that must hold in every reachable world, or of every step between two.
#[derive(Clone, Copy, Debug)]
pub struct Property {
    /// Its name in reports and in specs/requirements.toml.
    pub id: &'static str,
    /// The requirements that it covers.
    pub covers: &'static [&'static str],
    /// What it says.
    pub text: &'static str,
}

/// A property, and how it is judged.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Rule<C> {
    pub(crate) property: Property,
    pub(crate) check: C,
}

#[derive(Clone, Copy, Debug)]
pub(crate) enum Check {
    /// Judges every world.
    World(fn(&World) -> bool),
    /// Judges the steps that it says something about.
    Step(fn(&Step<'_>) -> Option<bool>),
}

macro_rules! rules {
    ($($id:literal [$($covers:literal)*] $text:literal $check:expr;)*) => {
        &[$($crate::property::Rule {
            property: $crate::property::Property {
                id: $id,
                covers: &[$($covers),*],
                text: $text,
            },
            check: $check,
        },)*]
    };
}
pub(crate) use rules;

/// The properties of level 1.
pub(crate) const RULES: &[Rule<Check>] = rules! {
    "session-iff-state" ["C12"]
        "a session exists exactly in PRE_COPY, PRE_COPY_P2P, STOP_COPY and RESUMING"
        Check::World(|w| w.device.fsm().session().is_some() == state(w).session().is_some());
    "state-has-flags" ["R2" "R4" "R5"]
        "the device is never in a state that its flags do not have"
        Check::World(|w| w.device.fsm().features().has(state(w)));
    "one-live-fd" ["C12" "C13"]
        "the data_fd of the session reaches it, and no other does"
        Check::World(|w| {
            let right = |fd| w.device.is_live(fd) == (w.alive == Some(fd));
            w.device.fds().open().all(|open| right(open.fd))
        });
    "lock-released" ["C29"]
        "between two ops nobody holds the state lock and no reset is waiting for it"
        Check::World(|w| w.device.is_at_rest());
    "session-holds-its-own" ["R6" "R8" "C26"]
        "what a session needs is held exactly while there is one: got once, given back once, not used \
         afterwards"
        Check::World(|w| {
            let (actions, session) = (w.device.actions(), w.device.fsm().session());
            !actions.is_misused() && actions.holds_session() == session.is_some()
        });
    "set-ends" ["C10"]
        "a SET ends, whatever it asks for, and lets go of the state lock"
        Check::Step(|s| matches!(s.action.op, Op::SetState { .. }).then(|| {
            *s.reply != Reply::Errno(Errno::EAGAIN) && s.after.device.is_at_rest()
        }));
    "load-restores" ["R29"]
        "a load that succeeds leaves the device with the registers that were written"
        Check::Step(load_restores);
    "running-reachable" ["T5" "R15"]
        "one SET leads to RUNNING, except from ERROR and from RESUMING with bad data; a reset always"
        Check::World(running_reachable);
    "reset-runs" ["R14" "R15" "C15"]
        "after a reset the device is in RUNNING, its session over, every data_fd dead"
        Check::Step(reset_runs);
    "deferred-reset-is-done" ["O4" "C29" "C32"]
        "a reset that arrives inside a SET is done when the SET returns, and the SET returns what \
         it would have returned without"
        Check::Step(deferred_reset_is_done);
    "dead-io-fails" ["C13" "C16" "R30" "O1"]
        "read and write of a data_fd whose session is over say ENODEV, never a byte or an end"
        Check::Step(dead_io_fails);
    "dead-info-fails" ["C19" "R33"]
        "PRECOPY_INFO says EINVAL outside the pre-copy states, and ENODEV of a dead fd in them"
        Check::Step(info_when_allowed);
    "live-io-works" ["R9" "R25" "C7" "C14"]
        "read and write of the session's data_fd never say ENODEV"
        Check::Step(live_io_works);
    "dead-poll-returns" ["C17" "R31" "O1"]
        "poll of a data_fd returns at once when its session is over, and in STOP_COPY"
        Check::Step(dead_poll_returns);
    "bytes-of-this-life" ["C20"]
        "what is read depends on nothing from before the last reset"
        Check::Step(bytes_of_this_life);
    "end-of-stream" ["R31" "R32"]
        "the end of the stream is temporary in the pre-copy states and permanent in STOP_COPY"
        Check::Step(end_of_stream);
    "set-arrives" ["R6"]
        "a SET that succeeds has left the device in the state asked for"
        Check::Step(set_arrives);
    "fd-iff-session-opens" ["R9" "R24" "R25" "R27" "C5"]
        "a SET returns a data_fd exactly when its last arc opens a session"
        Check::Step(fd_iff_session_opens);
    "arc-ends-session" ["R26" "C13"]
        "an arc out of the saving group or RESUMING leaves its data_fd dead"
        Check::Step(arc_ends_session);
    "refused-changes-nothing" ["C6" "C7" "R4" "R13"]
        "a SET that no route answers says EINVAL and changes nothing"
        Check::Step(refused_changes_nothing);
    "no-blocked-arc" ["R16" "C10"]
        "a SET of a pre-copy state in STOP_COPY says EINVAL and moves nothing"
        Check::Step(no_blocked_arc);
    "same-state-noop" ["C5"]
        "a SET of the state that the device is in changes nothing and returns no fd"
        Check::Step(same_state_noop);
    "failed-set-on-route" ["R8" "R13" "R17" "C9"]
        "a SET that fails leaves the device at the start of the arc that failed, or in ERROR"
        Check::Step(failed_set_on_route);
    "moved-without-fd" ["C2"]
        "with the fd table full the device moves all the same, and the session is nobody's"
        Check::Step(moved_without_fd);
    "error-until-reset" ["R14" "C8"]
        "in ERROR every SET fails"
        Check::Step(error_until_reset);
    "only-set-and-reset-move" ["R7" "R39"]
        "nothing but SET, reset and close changes the device_state"
        Check::Step(only_set_and_reset_move);
    "get-tells" ["R12" "C34"]
        "GET says in which state the device is"
        Check::Step(get_tells);
    "close-ends" ["C26"]
        "closing the device ends its session, and it opens in RUNNING"
        Check::Step(close_ends);
    "closing-fd-keeps-session" ["C14"]
        "closing a data_fd leaves state and session as they are"
        Check::Step(closing_fd_keeps_session);
    "O1-io-sees-it" ["O1"]
        "after a reset by the guest the next read or write of the latest data_fd fails"
        Check::Step(o1_io_sees_it);
    "O2-fd-tells" ["O2"]
        "believing in a pre-copy state, SET(STOP_COPY) returns a data_fd if and only if the guest \
         reset the device since; no reset inside this SET"
        Check::Step(o2_fd_tells);
    "O3-cancel-is-noop" ["O3"]
        "cancelling after a reset unseen, SET(RUNNING) succeeds and does nothing"
        Check::Step(o3_cancel_is_noop);
};

/// The claim of the seed thread without the assumption that no reset is done inside the very SET
/// that is meant to reveal it. Does not hold: see [`CLAIMS`](crate::CLAIMS).
pub(crate) const CLAIM_WITHOUT_ASSUMPTION: &[Rule<Check>] = rules! {
    "O2-without-assumption" ["O4"]
        "believing in a pre-copy state, SET(STOP_COPY) without a data_fd leaves the session alive"
        Check::Step(|s| match (s.set_to(), s.reply) {
            (Some(State::StopCopy), Reply::Fd(None)) if s.believes_in_pre_copy() =>
                Some(s.after.device.fsm().session().is_some()),
            _ => None,
        });
};

fn state(world: &World) -> State {
    world.device.fsm().state()
}

impl Step<'_> {
    fn from(&self) -> State {
        state(self.before)
    }

    fn at(&self) -> State {
        state(self.after)
    }

    /// The state asked for, if this is a SET on an open device that asks for one.
    fn set_to(&self) -> Option<State> {
        match self.action.op {
            Op::SetState { to, .. } if self.before.device.is_open() => to.known(),
            _ => None,
        }
    }

    fn fault(&self) -> Option<Fault> {
        match self.action.op {
            Op::SetState { fault, .. } => fault,
            _ => None,
        }
    }

    /// The route of a SET, as the table has it.
    fn route(&self) -> Option<Route> {
        let features = self.before.device.fsm().features();
        Route::new(features, self.from(), self.set_to()?).ok()
    }

    /// The route of a SET around which nothing went wrong.
    fn plain_route(&self) -> Option<Route> {
        self.route().filter(|_| self.fault().is_none())
    }

    fn believes_in_pre_copy(&self) -> bool {
        self.action.actor == Actor::Vmm && self.before.belief.state.is_some_and(State::is_pre_copy)
    }

    /// Whether this data_fd must work.
    fn is_alive(&self, fd: Fd) -> bool {
        self.before.alive == Some(fd)
    }

    /// The data_fd of a read or a write in its own direction.
    fn io_fd(&self) -> Option<Fd> {
        let (fd, saving) = match self.action.op {
            Op::Read { fd, .. } | Op::UringRead { fd, .. } => (fd, true),
            Op::Write { fd, .. } => (fd, false),
            _ => return None,
        };
        (self.is_open_saving_fd(fd) == saving).then_some(fd)
    }

    fn is_open_saving_fd(&self, fd: Fd) -> bool {
        let way = self.before.device.fds().get(fd).map(|entry| entry.direction);
        way == Some(vfio_fsm_core::Direction::Saving)
    }
}

fn running_reachable(world: &World) -> bool {
    let mut device = world.device;
    if !device.is_open() {
        return true;
    }
    let from = state(world);
    let moved = device.apply(Op::set(State::Running), &mut []) == Reply::Fd(None)
        && device.fsm().state() == State::Running;
    let bad_data = from == State::Resuming && !world.device.actions().is_loadable();
    let excused = from == State::Error || bad_data;
    let mut reset = world.device;
    let _ok = reset.apply(Op::Reset, &mut []);
    moved != excused && reset.fsm().state() == State::Running
}

fn is_dead(world: &World) -> bool {
    let fsm = world.device.fsm();
    let any_live = world.device.fds().open().any(|open| world.device.is_live(open.fd));
    fsm.session().is_none() && !any_live
}

fn reset_runs(step: &Step<'_>) -> Option<bool> {
    let applies = step.action.op == Op::Reset && step.before.device.is_open();
    applies.then(|| *step.reply == Reply::Ok && step.at() == State::Running && is_dead(step.after))
}

fn deferred_reset_is_done(step: &Step<'_>) -> Option<bool> {
    let Op::SetState { to, fault: Some(Fault::ResetInside) } = step.action.op else { return None };
    step.before.device.is_open().then(|| {
        let mut without = step.before.device;
        let same = without.apply(Op::set(to), &mut []).map(<[u8]>::to_vec) == *step.reply;
        same && step.at() == State::Running && is_dead(step.after)
    })
}

fn dead_io_fails(step: &Step<'_>) -> Option<bool> {
    let dead = !step.is_alive(step.io_fd()?);
    dead.then(|| *step.reply == Reply::Errno(Errno::ENODEV))
}

fn live_io_works(step: &Step<'_>) -> Option<bool> {
    let alive = step.is_alive(step.io_fd()?);
    alive.then(|| *step.reply != Reply::Errno(Errno::ENODEV))
}

fn info_when_allowed(step: &Step<'_>) -> Option<bool> {
    let Op::PrecopyInfo { fd } = step.action.op else { return None };
    step.is_open_saving_fd(fd).then(|| match step.reply {
        Reply::Errno(Errno::EINVAL) => !step.from().is_pre_copy(),
        Reply::Errno(Errno::ENODEV) => step.from().is_pre_copy() && !step.is_alive(fd),
        Reply::Info(_) => step.from().is_pre_copy() && step.is_alive(fd),
        _ => false,
    })
}

fn dead_poll_returns(step: &Step<'_>) -> Option<bool> {
    let Op::Poll { fd } = step.action.op else { return None };
    let stop_copy = step.from() == State::StopCopy && step.is_open_saving_fd(fd);
    let applies = stop_copy || !step.is_alive(fd);
    applies.then_some(matches!(step.reply, Reply::Ready(ready) if ready.readable))
}

fn bytes_of_this_life(step: &Step<'_>) -> Option<bool> {
    match step.reply {
        Reply::Bytes(bytes) => Some(bytes.iter().all(|&byte| step.before.is_of_this_life(byte))),
        _ => None,
    }
}

fn end_of_stream(step: &Step<'_>) -> Option<bool> {
    match step.reply {
        Reply::EndOfStream(end) => {
            Some((*end == EndOfStream::Temporary) == step.from().is_pre_copy())
        }
        _ => None,
    }
}

fn set_arrives(step: &Step<'_>) -> Option<bool> {
    let route = step.plain_route()?;
    // Bad data is the one thing that may stop it here (R29).
    if step.before.stays_for_bad_data(&route) {
        return Some(*step.reply == Reply::Errno(Errno::EINVAL) && step.at() == step.from());
    }
    // Both fds of the model's little table open: none can be installed, but the device has moved.
    let full = route.opens().is_some() && *step.reply == Reply::Errno(Errno::EMFILE);
    Some((full || matches!(step.reply, Reply::Fd(_))) && step.at() == route.to())
}

fn fd_iff_session_opens(step: &Step<'_>) -> Option<bool> {
    let route = step.plain_route()?;
    match step.reply {
        Reply::Fd(fd) => Some(fd.is_some() == route.opens().is_some()),
        _ => None,
    }
}

fn load_restores(step: &Step<'_>) -> Option<bool> {
    let loads = step.from() == State::Resuming && step.at() != State::Resuming;
    let succeeds = loads && step.set_to().is_some() && matches!(step.reply, Reply::Fd(_));
    let applies = succeeds && step.fault() != Some(Fault::ResetInside);
    // Of two tags in a row the second is a register.
    applies.then(|| matches!(step.after.device.actions().registers(), [LOADED | b'F']))
}

fn arc_ends_session(step: &Step<'_>) -> Option<bool> {
    let route = step.plain_route()?;
    let ended = step.from().session().is_some() && route.to().session().is_none();
    (ended && matches!(step.reply, Reply::Fd(_))).then(|| is_dead(step.after))
}

fn refused_changes_nothing(step: &Step<'_>) -> Option<bool> {
    let Op::SetState { fault, .. } = step.action.op else { return None };
    let applies =
        step.before.device.is_open() && step.route().is_none() && fault != Some(Fault::ResetInside);
    applies.then(|| {
        let unchanged = step.after.device == step.before.device;
        *step.reply == Reply::Errno(Errno::EINVAL) && unchanged
    })
}

fn no_blocked_arc(step: &Step<'_>) -> Option<bool> {
    let applies = step.from() == State::StopCopy && step.set_to().is_some_and(State::is_pre_copy);
    applies.then(|| {
        let inside = step.fault() == Some(Fault::ResetInside);
        let at = if inside { State::Running } else { State::StopCopy };
        *step.reply == Reply::Errno(Errno::EINVAL) && step.at() == at
    })
}

fn same_state_noop(step: &Step<'_>) -> Option<bool> {
    let applies = step.plain_route()?.is_empty();
    applies.then(|| *step.reply == Reply::Fd(None) && step.after.device == step.before.device)
}

fn failed_set_on_route(step: &Step<'_>) -> Option<bool> {
    let Some(Fault::ArcFails { hop, errno, leaves }) = step.fault() else { return None };
    let route = step.route()?;
    let failing = route.arcs().nth(hop.into())?;
    if hop > 0 && step.before.stays_for_bad_data(&route) {
        return Some(step.at() == State::Resuming);
    }
    if *step.reply != Reply::Errno(errno) {
        return Some(false);
    }
    let at = match leaves {
        Leaves::Source => failing.from(),
        Leaves::Error => State::Error,
    };
    Some(step.at() == at)
}

fn moved_without_fd(step: &Step<'_>) -> Option<bool> {
    let route = step.route()?;
    let applies = step.fault() == Some(Fault::FdTableFull)
        && route.opens().is_some()
        && !step.before.stays_for_bad_data(&route);
    applies.then(|| {
        let device = &step.after.device;
        let session = device.fsm().session().is_some();
        let nobodys = !device.fds().open().any(|open| device.is_live(open.fd));
        let refused = *step.reply == Reply::Errno(Errno::EMFILE);
        refused && step.at() == route.to() && session && nobodys
    })
}

fn error_until_reset(step: &Step<'_>) -> Option<bool> {
    step.set_to()?;
    let applies = step.from() == State::Error && step.fault() != Some(Fault::ResetInside);
    applies.then(|| matches!(step.reply, Reply::Errno(_)) && step.at() == State::Error)
}

fn only_set_and_reset_move(step: &Step<'_>) -> Option<bool> {
    let moves = matches!(step.action.op, Op::SetState { .. } | Op::Reset | Op::Close);
    (!moves).then(|| step.at() == step.from())
}

fn get_tells(step: &Step<'_>) -> Option<bool> {
    let applies = step.action.op == Op::GetState && step.before.device.is_open();
    applies.then(|| *step.reply == Reply::State(step.from().into()))
}

fn close_ends(step: &Step<'_>) -> Option<bool> {
    let applies = step.action.op == Op::Close && step.before.device.is_open();
    applies.then(|| is_dead(step.after) && step.at() == State::Running)
}

fn closing_fd_keeps_session(step: &Step<'_>) -> Option<bool> {
    let Op::CloseFd { .. } = step.action.op else { return None };
    Some(*step.reply == Reply::Ok && step.after.device.fsm() == step.before.device.fsm())
}

fn o1_io_sees_it(step: &Step<'_>) -> Option<bool> {
    let fd = step.io_fd()?;
    let latest = step.before.device.fds().last() == Some(fd);
    let applies = step.before.belief.reset_since && latest;
    applies.then_some(matches!(step.reply, Reply::Errno(_)))
}

fn o2_fd_tells(step: &Step<'_>) -> Option<bool> {
    step.plain_route()?;
    let applies = step.believes_in_pre_copy() && step.set_to() == Some(State::StopCopy);
    applies.then(|| match step.reply {
        Reply::Fd(fd) => fd.is_some() == step.before.belief.reset_since,
        // A session was opened but the table is full: as telling as the fd itself.
        Reply::Errno(Errno::EMFILE) => step.before.belief.reset_since,
        _ => false,
    })
}

fn o3_cancel_is_noop(step: &Step<'_>) -> Option<bool> {
    step.plain_route()?;
    let applies = step.believes_in_pre_copy()
        && step.before.belief.reset_since
        && step.set_to() == Some(State::Running);
    applies.then(|| {
        *step.reply == Reply::Fd(None) && step.after.device.fsm() == step.before.device.fsm()
    })
}
