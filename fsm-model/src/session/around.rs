// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! What stands around a session, whichever it is: its device, its VMM, and the group that it is in.

use vfio_fsm_core::device::{ArcActions, Device, DeviceData};
use vfio_fsm_core::vmm::frame::Frame;
use vfio_fsm_core::vmm::{
    Decision, Event, Gate, Group, Hook, Loader, OutOfTurn, Piece, ResetRefused, Saver, Step,
    Verdict, Wait,
};
use vfio_fsm_core::{EndOfStream, Errno, Fd, Op, PrecopyInfo, Reply, State};

use crate::session::slip::Slip;
use crate::session::{Trouble, by_number};

/// What a session says, and nothing borrowed from it: an fd by its number, bytes by their place.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum Said {
    Do(Op<Piece>),
    Send(Frame),
    Call(Hook),
    Decide(Decision),
    Wait(Wait),
    End(Verdict),
}

impl Said {
    fn new<B>(step: Step<'_, B, Fd>, piece: impl FnOnce(B) -> Piece) -> Self {
        match step {
            Step::Do(op) => Self::Do(by_number(op.map(piece))),
            Step::Send(frame) => Self::Send(frame),
            Step::Call(hook) => Self::Call(hook),
            Step::Decide(decision) => Self::Decide(decision),
            Step::Wait(wait) => Self::Wait(wait),
            Step::End(verdict) => Self::End(verdict),
        }
    }
}

/// A session at either end.
pub(crate) trait Session: Copy {
    /// Makes it say what it will be told the answer of.
    fn ask(&mut self) -> Said;
    fn reply(&mut self, reply: Reply<u32>) -> Result<(), OutOfTurn>;
    fn called(&mut self, done: bool) -> Result<(), OutOfTurn>;
    fn event(&mut self, event: Event) -> Result<(), ResetRefused>;
    fn is_aborting(&self) -> bool;

    /// What it says now.
    fn said(mut self) -> Said {
        self.ask()
    }

    fn verdict(self) -> Option<Verdict> {
        match self.said() {
            Said::End(verdict) => Some(verdict),
            _ => None,
        }
    }
}

macro_rules! sessions {
    ($($session:ty, $piece:expr;)*) => {$(
        impl Session for $session {
            fn ask(&mut self) -> Said {
                Said::new(self.step(), $piece)
            }

            fn reply(&mut self, reply: Reply<u32>) -> Result<(), OutOfTurn> {
                self.reply(reply)
            }

            fn called(&mut self, done: bool) -> Result<(), OutOfTurn> {
                self.called(done)
            }

            fn event(&mut self, event: Event) -> Result<(), ResetRefused> {
                self.event(event)
            }

            fn is_aborting(&self) -> bool {
                self.is_aborting()
            }
        }
    )*};
}

sessions! {
    Saver<Fd>, |never| match never {};
    Loader<Fd>, |piece| piece;
}

/// The device that a VMM has in its hands, and how it gets an op wrong.
pub(crate) struct Hands<'a, A, const FDS: usize> {
    pub(crate) device: &'a mut Device<A, FDS>,
    pub(crate) slip: Option<Slip>,
    /// The data_fd that the session holds.
    pub(crate) held: Option<Fd>,
}

impl<A: ArcActions + DeviceData, const FDS: usize> Hands<'_, A, FDS> {
    fn is(&self, slip: Slip) -> bool {
        self.slip == Some(slip)
    }

    /// Carries an op out, with what goes wrong meanwhile: the op as it was done, and the answer.
    pub(crate) fn carry_out<'b>(
        &mut self,
        op: Op<&'b [u8]>,
        trouble: Trouble,
        buf: &mut [u8],
    ) -> (Op<&'b [u8]>, Reply<u32>) {
        let op = match (op, trouble) {
            (Op::SetState { to, .. }, Trouble::Set(fault)) => {
                Op::SetState { to, fault: Some(fault) }
            }
            (Op::Write { fd, bytes }, Trouble::Short) => Op::Write { fd, bytes: &bytes[..1] },
            (op, _) => op,
        };
        let reply = match trouble {
            Trouble::Errno(errno) => Reply::Errno(errno),
            _ if self.is(Slip::LeaksFd) && matches!(op, Op::CloseFd { .. }) => Reply::Ok,
            _ => self.device.apply(op, buf).map(|bytes| bytes.len() as u32),
        };
        (op, reply)
    }

    /// What the VMM makes of what was done: its answer to the session.
    pub(crate) fn report<B>(&mut self, op: &Op<B>, reply: Reply<u32>) -> Reply<u32> {
        let Some(slip) = self.slip else { return reply };
        match (slip, op, reply) {
            (Slip::SwapsFd, Op::SetState { .. }, Reply::Fd(Some(_))) if self.held.is_some() => {
                Reply::Fd(None)
            }
            (Slip::ClosesNewFd, Op::SetState { .. }, Reply::Fd(Some(fd)))
                if self.held.is_some() =>
            {
                let _reply = self.device.apply(Op::CloseFd { fd }, &mut []);
                reply
            }
            (Slip::InfoFailsSilently, Op::PrecopyInfo { .. }, Reply::Errno(_)) => {
                Reply::Info(PrecopyInfo::default())
            }
            (Slip::RemembersState, Op::SetState { .. }, Reply::Errno(_)) => Reply::Fd(None),
            (Slip::SaysRunning, Op::GetState, _) => Reply::State(State::Running.into()),
            (Slip::SaysAllFeatures, Op::GetFeatures, _) => Reply::Features(0b111),
            (Slip::DeadFdIsEnd, Op::Read { .. }, Reply::Errno(Errno::ENODEV)) => {
                Reply::EndOfStream(EndOfStream::Permanent)
            }
            (Slip::NeverReady, Op::Read { .. }, Reply::Bytes(_))
            | (Slip::NeverReady, Op::Write { .. }, Reply::Written(_)) => {
                Reply::Errno(Errno::EAGAIN)
            }
            (Slip::ResetUnchecked, Op::Reset, Reply::Errno(_)) => Reply::Ok,
            (Slip::ResetDenied, Op::Reset, Reply::Ok) => Reply::Errno(Errno::EIO),
            _ => reply,
        }
    }
}

/// What the VMM with [`Slip::RemembersState`] answers in place of the device.
pub(crate) fn remembered<B>(
    slip: Option<Slip>,
    op: &Op<B>,
    believed: Option<State>,
) -> Option<Reply<u32>> {
    let asks = slip == Some(Slip::RemembersState) && matches!(op, Op::GetState);
    believed.filter(|_| asks).map(|at| Reply::State(at.into()))
}

/// A session, its device, and how its group knows it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Member<S, A> {
    pub(crate) session: S,
    pub(crate) device: Device<A, 2>,
    /// The gate that it stands at.
    pub(crate) at: Option<Hook>,
    pub(crate) told_to_give_up: bool,
    /// Its end has been told to the group.
    pub(crate) ended: bool,
}

impl<S: Session, A: ArcActions + DeviceData> Member<S, A> {
    pub(crate) const fn new(session: S, device: Device<A, 2>) -> Self {
        Self { session, device, at: None, told_to_give_up: false, ended: false }
    }

    pub(crate) fn verdict(&self) -> Option<Verdict> {
        self.session.verdict()
    }

    pub(crate) fn is_in(&self, state: State) -> bool {
        self.device.fsm().state() == state
    }

    pub(crate) fn is_stopped(&self) -> bool {
        [State::Stop, State::StopCopy, State::Resuming].iter().any(|&state| self.is_in(state))
    }

    pub(crate) fn is_stuck(&self) -> bool {
        matches!(self.verdict(), Some(Verdict::Stuck { .. }))
    }

    /// Whether the session is on its way back, or will be when it is asked.
    pub(crate) fn aborts(&self) -> bool {
        let mut session = self.session;
        session.ask();
        session.is_aborting()
    }

    /// The session calls a hook: whether that came to anything.
    pub(crate) fn arrive(&mut self, group: &mut Group, index: usize, hook: Hook) -> bool {
        self.session.ask();
        let arrived = group.arrive(index, hook, self.session.is_aborting()).is_ok();
        // What the group does not keep, the VMM does at once.
        let own = is_own(hook);
        if own {
            self.called(true);
        }
        self.at = arrived.then_some(hook);
        own || arrived
    }

    /// Answers the hook that it has arrived at.
    pub(crate) fn pass(&mut self, open: bool) -> Hook {
        self.called(open);
        self.at.take().unwrap_or(Hook::Freeze)
    }

    fn called(&mut self, done: bool) {
        self.session.ask();
        let _told = self.session.called(done);
    }
}

/// A hook that is the member's own affair.
pub(crate) const fn is_own(hook: Hook) -> bool {
    matches!(hook, Hook::InitialBytesLoaded | Hook::RestoreConfig | Hook::RestoreInterrupts)
}

/// Whether a member may pass the gate that it stands at.
pub(crate) fn may_pass(group: &Group, index: usize, slip: Option<Slip>) -> bool {
    group.gate(index) != Gate::Wait || slip == Some(Slip::IgnoresGates)
}

/// What a driver of a group does behind each step: tells it who has ended, calls what is `due`, and
/// takes all back if one has failed. `stays` is whether one that is complete stays in STOP. Says
/// whether it has told anybody to give up.
pub(crate) fn keep_order<S: Session, A: ArcActions + DeviceData>(
    group: &mut Group,
    members: &mut [Member<S, A>],
    stays: bool,
    slip: Option<Slip>,
    mut call: impl FnMut(&Group, Hook) -> bool,
) -> bool {
    for (index, member) in members.iter_mut().enumerate() {
        if let Some(verdict) = member.verdict().filter(|_| !member.ended) {
            member.ended = true;
            group.end(index, &verdict, stays);
        }
    }
    while let Some(hook) = group.due() {
        let done = call(group, hook);
        group.done(hook, done);
    }
    let mut told = false;
    if group.is_broken() && slip != Some(Slip::DeafToCancel) {
        for member in members {
            if !core::mem::replace(&mut member.told_to_give_up, true) {
                told = true;
                let _refused = member.session.event(Event::Cancel);
                // One that was complete goes on, and ends once more.
                member.ended &= member.verdict().is_some();
            }
        }
    }
    told
}
