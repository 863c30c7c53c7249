// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! What there is in level 1 at one moment, and what can happen to it.

use vfio_fsm_core::device::{Device, Memory, Planted};
use vfio_fsm_core::{
    Errno, Fault, Fd, Features, Leaves, Op, RawState, Reply, Route, SessionEffect, State,
};

/// The core's device with one register, and a user with room for two data_fds.
pub(crate) type ModelDevice = Device<Memory<1>, 2>;

/// What the VMM writes into RESUMING: a whole stream, its tag, its register. The last alone, or
/// anything behind a whole stream, is garbage.
const WRITES: [&[u8]; 3] = [&[b'F', LOADED], b"F", &[LOADED]];

/// The register after a load; the guest writes 1 or 2, a reset 0.
pub(crate) const LOADED: u8 = 3;

/// Everything there is at one moment.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) struct World {
    /// The core's device, with sessions and fds renumbered so that the space is finite.
    pub device: ModelDevice,
    /// Ghost: what a VMM knows that sees nothing but the replies to its own ops.
    pub belief: Belief,
    /// Ghost: the one data_fd that must work. Known from the ops and the replies alone, so that the
    /// device's own idea of it can be judged.
    pub alive: Option<Fd>,
    /// Ghost: flips with every reset, and with it what the guest writes.
    pub odd_life: bool,
}

/// What a VMM knows that sees nothing but the replies to its own ops.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Belief {
    /// The state it would assume; `None` after a SET that failed.
    pub state: Option<State>,
    /// Whether that is wrong by now, because the guest reset the device.
    pub reset_since: bool,
}

/// Who does it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Actor {
    /// The VMM: it sees the reply.
    Vmm,
    /// The guest, by a function-level reset or a touch: the VMM sees nothing.
    Guest,
    /// The host, by a reset through sysfs: nobody sees anything.
    Host,
}

/// One thing that can happen.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Action {
    /// Who does it.
    pub actor: Actor,
    /// What is done.
    pub op: Op<&'static [u8]>,
}

impl Belief {
    pub(crate) const RUNNING: Self = Self { state: Some(State::Running), reset_since: false };

    pub(crate) fn after(self, action: Action, reply: &Reply<Vec<u8>>) -> Self {
        match (action.actor, action.op, reply) {
            (Actor::Guest, Op::Reset, _) => Self { reset_since: true, ..self },
            (Actor::Vmm, Op::Reset | Op::Open, Reply::Ok) => Self::RUNNING,
            (Actor::Vmm, Op::SetState { to, fault }, Reply::Fd(_)) => {
                Self { state: to.known(), reset_since: fault == Some(Fault::ResetInside) }
            }
            (Actor::Vmm, Op::SetState { .. }, _) => Self { state: None, reset_since: false },
            (Actor::Vmm, Op::GetState, Reply::State(state)) => {
                Self { state: state.known(), reset_since: false }
            }
            _ => self,
        }
    }
}

impl World {
    pub(crate) fn initial(features: Features, planted: Planted) -> Self {
        let device = Device::with_bug(features, Memory::new(), planted);
        Self { device, belief: Belief::RUNNING, alive: None, odd_life: false }
    }

    /// The data_fd that must work after an op that was answered so.
    pub(crate) fn alive_after(&self, op: Op<&[u8]>, reply: &Reply<Vec<u8>>) -> Option<Fd> {
        match op {
            Op::CloseFd { fd } if self.alive == Some(fd) => None,
            Op::Reset | Op::Close if self.device.is_open() => None,
            Op::SetState { to, fault } if self.device.is_open() => match fault {
                Some(Fault::ResetInside) => None,
                fault => self.alive_after_set(to, fault, reply),
            },
            _ => self.alive,
        }
    }

    fn alive_after_set(
        &self,
        to: RawState,
        fault: Option<Fault>,
        reply: &Reply<Vec<u8>>,
    ) -> Option<Fd> {
        let fsm = self.device.fsm();
        let Some(Ok(route)) = to.known().map(|to| Route::new(fsm.features(), fsm.state(), to))
        else {
            return self.alive;
        };
        let fails_at_once = matches!(fault, Some(Fault::ArcFails { hop: 0, .. }));
        if self.stays_for_bad_data(&route) && !fails_at_once {
            return self.alive;
        }
        let walked = match fault {
            Some(Fault::ArcFails { hop, leaves, .. }) if usize::from(hop) < route.len() => {
                if leaves == Leaves::Error {
                    return None;
                }
                usize::from(hop)
            }
            _ => route.len(),
        };
        route.arcs().take(walked).fold(self.alive, |alive, arc| match (arc.session(), reply) {
            (SessionEffect::None | SessionEffect::Keeps, _) => alive,
            (SessionEffect::Opens(_), Reply::Fd(fd)) => *fd,
            (SessionEffect::Opens(_) | SessionEffect::Ends, _) => None,
        })
    }

    /// Whether a SET fails on its first arc because what was written is no stream (R29).
    pub(crate) fn stays_for_bad_data(&self, route: &Route) -> bool {
        let resuming = self.device.fsm().state() == State::Resuming;
        resuming && !route.is_empty() && !self.device.actions().is_loadable()
    }

    /// The same world with sessions and data_fds renumbered.
    pub(crate) fn renumbered(self) -> Self {
        let rank = |fd: Fd| {
            let lower = self.device.fds().open().filter(|open| open.fd < fd);
            Fd(1 + lower.count() as u32)
        };
        Self { alive: self.alive.map(rank), device: self.device.renumbered(), ..self }
    }

    /// What the guest writes in this life.
    pub(crate) const fn guest_value(&self) -> u8 {
        1 + self.odd_life as u8
    }

    /// Whether a byte may stand in a stream of this life: a tag, a register after reset or load,
    /// or what the guest wrote since.
    pub(crate) const fn is_of_this_life(&self, byte: u8) -> bool {
        matches!(byte, b'P' | b'F' | 0 | LOADED) || byte == self.guest_value()
    }

    fn sets(&self, ops: &mut Vec<Op<&'static [u8]>>) {
        let fsm = self.device.fsm();
        for number in 0..=State::ALL.len() as u32 {
            let to = RawState(number);
            let mut push = |fault| ops.push(Op::SetState { to, fault });
            push(None);
            push(Some(Fault::FdTableFull));
            push(Some(Fault::ResetInside));
            let route = to.known().and_then(|to| Route::new(fsm.features(), fsm.state(), to).ok());
            for hop in 0..route.map_or(0, |route| route.len() as u8) {
                for leaves in [Leaves::Source, Leaves::Error] {
                    push(Some(Fault::ArcFails { hop, errno: Errno::EIO, leaves }));
                }
            }
        }
    }

    fn on_fd(fd: Fd, ops: &mut Vec<Op<&'static [u8]>>) {
        ops.extend([Op::Read { fd, len: 1 }, Op::UringRead { fd, len: 1 }, Op::Poll { fd }]);
        ops.extend([Op::PrecopyInfo { fd }, Op::Pread { fd, len: 1 }, Op::Seek { fd }]);
        ops.extend(WRITES.map(|bytes| Op::Write { fd, bytes }));
        ops.extend([Op::FdFlags { fd }, Op::CloseFd { fd }]);
    }

    pub(crate) fn ops(&self) -> Vec<Op<&'static [u8]>> {
        let mut ops = vec![Op::Open, Op::Close, Op::GetState, Op::Reset];
        ops.extend([Op::GetFeatures, Op::DataSize, Op::OptInPrecopyV2]);
        self.sets(&mut ops);
        for open in self.device.fds().open() {
            Self::on_fd(open.fd, &mut ops);
        }
        ops
    }
}
