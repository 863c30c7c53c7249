// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! The device's side: every answer must be one that the core's device gives after what went before.
//!
//! What the uAPI leaves to a device is taken from its answers. Where it leaves more than one state, as
//! after a SET that failed, all of them are followed until an answer tells.

use std::collections::HashSet;

use vfio_fsm_core::device::Device;
use vfio_fsm_core::{
    EndOfStream, Errno, Fault, Fd, Features, Leaves, Op, RawState, Reply, Route, State,
};

use super::recording::fd_of;
use super::rules::{Remark, Rule, Severity};
use crate::race::{Dictated, Way};

/// The data_fds that are followed; of more the oldest are let go.
const FDS: usize = 32;

/// The ways to an answer that are followed at a time.
const MOST_WORLDS: usize = 64;

/// What is known of a device from its answers: everything that it may be.
pub(super) struct DeviceSide {
    features: Features,
    worlds: Vec<World>,
    /// The data_fd that PRECOPY_INFO was last asked on, and its initial_bytes.
    initial: Option<(Fd, u64)>,
}

/// One thing that the device may be.
#[derive(Clone, PartialEq, Eq, Hash)]
struct World {
    device: Device<Dictated, FDS>,
    /// The core's numbers of the data_fds, by those of the recording. Of some there is none: they
    /// were let go.
    names: Vec<Option<Fd>>,
    /// It is so only if a reset was that has not been said yet.
    unsaid: bool,
}

impl DeviceSide {
    /// A device that was just opened.
    pub(super) fn new(features: Features) -> Self {
        let device = Device::new(features, Dictated::default());
        let world = World { device, names: Vec::new(), unsaid: false };
        Self { features, worlds: vec![world], initial: None }
    }

    /// Take in an answer, and say what is wrong with it.
    pub(super) fn answer(&mut self, op: &Op<u64>, reply: &Reply<u64>) -> Vec<Remark> {
        let mut remarks = Vec::new();
        if let (Op::GetFeatures, Reply::Features(flags)) = (op, reply) {
            remarks.extend(self.flags(*flags));
            return remarks;
        }
        remarks.extend(self.initial(op, reply));
        let mut next = self.all(|world| world.explain(op, reply));
        if let (Op::SetState { .. }, Reply::Errno(_)) = (op, reply) {
            // A SET can fail anywhere, so also behind a reset: which it was, a later answer tells.
            next.extend(self.all(|world| world.explain_by_reset(op, reply)));
            next.truncate(MOST_WORLDS);
        }
        if !next.is_empty() {
            let unsaid = next.iter().all(|world| world.unsaid);
            if unsaid {
                remarks.push(Remark::new(Rule::ResetInferred, "another answer, unless by a reset"));
                next.iter_mut().for_each(|world| world.unsaid = false);
            }
            self.worlds = next;
            return remarks;
        }
        let after_reset = self.all(|world| world.explain_by_reset(op, reply));
        if after_reset.is_empty() {
            remarks.push(self.unexplained(op, reply));
            self.believe(op, reply);
        } else {
            let at = self.worlds[0].device.fsm().state();
            let expected = format!("{}, unless {at} was left by a reset", self.worlds[0].says(op));
            remarks.push(Remark::new(Rule::ResetInferred, expected));
            self.worlds = after_reset;
            self.worlds.iter_mut().for_each(|world| world.unsaid = false);
        }
        remarks
    }

    fn all(&self, explain: impl Fn(&World) -> Vec<World>) -> Vec<World> {
        let mut seen = HashSet::new();
        let next = self.worlds.iter().flat_map(explain).filter(|next| seen.insert(next.clone()));
        next.take(MOST_WORLDS).collect()
    }

    fn flags(&self, flags: u64) -> Option<Remark> {
        let expected = match Features::from_flags(flags) {
            Ok(features) if features == self.features => return None,
            Ok(_) => format!("the flags of before, {:#x}", self.features.flags()),
            Err(illegal) => illegal.to_string(),
        };
        Some(Remark::new(Rule::DeviceFeatures, expected))
    }

    fn initial(&mut self, op: &Op<u64>, reply: &Reply<u64>) -> Option<Remark> {
        let (Op::PrecopyInfo { fd }, Reply::Info(info)) = (op, reply) else { return None };
        let before = self.initial.replace((*fd, info.initial_bytes));
        let (_, before) = before.filter(|(other, _)| other == fd)?;
        let rose = info.initial_bytes > before && !info.reinit;
        let expected = format!("initial_bytes of at most {before}, as before");
        rose.then(|| Remark::new(Rule::DeviceInitial, expected))
    }

    fn unexplained(&self, op: &Op<u64>, reply: &Reply<u64>) -> Remark {
        let said = self.worlds[0].says(op);
        let rule = match op {
            Op::GetState => Rule::DeviceState,
            Op::SetState { .. } => Rule::DeviceSet,
            Op::PrecopyInfo { .. } => Rule::DeviceInfo,
            _ => match self.other_end(reply) {
                Some(end) => {
                    let remark =
                        Remark::new(Rule::DeviceEnd, Reply::<()>::EndOfStream(end).to_string());
                    // ENOMSG is what a driver should say, 0 what it must.
                    let should = end == EndOfStream::Temporary;
                    return if should { remark.only(Severity::Warning) } else { remark };
                }
                None if fd_of(op).is_some() => Rule::DeviceStream,
                None => Rule::DeviceOther,
            },
        };
        Remark::new(rule, said)
    }

    /// The end that was due, if a stream that is alive came to the other one.
    fn other_end(&self, reply: &Reply<u64>) -> Option<EndOfStream> {
        let Reply::EndOfStream(seen) = reply else { return None };
        let pre_copy = self.worlds.iter().any(|world| world.device.fsm().state().is_pre_copy());
        let stop_copy =
            self.worlds.iter().any(|world| world.device.fsm().state() == State::StopCopy);
        match seen {
            EndOfStream::Permanent if pre_copy => Some(EndOfStream::Temporary),
            EndOfStream::Temporary if stop_copy => Some(EndOfStream::Permanent),
            _ => None,
        }
    }

    /// Go on from what the device claims to be.
    fn believe(&mut self, op: &Op<u64>, reply: &Reply<u64>) {
        let claimed = match (op, reply) {
            (Op::GetState, Reply::State(state)) => state.known(),
            (Op::SetState { to, .. }, Reply::Fd(_)) => to.known(),
            _ => None,
        };
        if let Some(state) = claimed.filter(|state| self.features.has(*state)) {
            let name = if let Reply::Fd(name) = reply { *name } else { None };
            self.worlds.truncate(1);
            self.worlds[0].move_to(state, name);
        }
    }
}

impl World {
    /// What the device is after this answer, in each way in which it may have come to it.
    fn explain(&self, op: &Op<u64>, reply: &Reply<u64>) -> Vec<Self> {
        match (op, reply) {
            // A reset or a close that failed has done nothing; a touch shows in the bytes alone.
            (Op::Reset | Op::Open | Op::Close, Reply::Errno(_)) | (Op::Touch(_), _) => {
                vec![self.clone()]
            }
            (Op::OptInPrecopyV2, Reply::Errno(Errno::ENOTTY)) => vec![self.clone()],
            (Op::SetState { to, .. }, _) => self.explain_set(*to, reply),
            _ => ways(op, reply).iter().filter_map(|way| self.after(op, *way, reply)).collect(),
        }
    }

    /// The same with a reset before the op, or inside it, that nobody recorded.
    fn explain_by_reset(&self, op: &Op<u64>, reply: &Reply<u64>) -> Vec<Self> {
        let mut reset = Self { unsaid: true, ..self.clone() };
        reset.device.apply(Op::Reset, &mut []);
        let mut ways = reset.explain(op, reply);
        if let (Op::SetState { to, .. }, Reply::Fd(_)) = (op, reply) {
            let inside = Op::SetState { to: *to, fault: Some(Fault::ResetInside) };
            ways.extend(self.after(&inside, Way::Gives, reply));
        }
        ways
    }

    fn explain_set(&self, to: RawState, reply: &Reply<u64>) -> Vec<Self> {
        let plain = Op::set(to);
        let Reply::Errno(errno) = *reply else {
            return self.after(&plain, Way::Gives, reply).into_iter().collect();
        };
        let fsm = self.device.fsm();
        let route = to.known().and_then(|to| Route::new(fsm.features(), fsm.state(), to).ok());
        let hops = 0..route.map_or(0, |route| route.len()) as u8;
        let failures = hops.flat_map(|hop| {
            [Leaves::Source, Leaves::Error].map(|leaves| Fault::ArcFails { hop, errno, leaves })
        });
        let faults = failures.map(Some).chain([None, Some(Fault::FdTableFull)]);
        let sets = faults.map(|fault| Op::SetState { to, fault });
        let mut ways: Vec<_> = sets.filter_map(|op| self.after(&op, Way::Gives, reply)).collect();
        if errno == Errno::EFAULT {
            // It may not have come in, and it may not have come out (C3).
            let mut moved = self.clone();
            moved.apply(&plain, Way::Gives);
            ways.extend([self.clone(), moved]);
        }
        ways
    }

    /// After this op, if it is answered so.
    fn after(&self, op: &Op<u64>, way: Way, reply: &Reply<u64>) -> Option<Self> {
        let mut next = self.clone();
        if matches!(reply, Reply::Fd(Some(_))) {
            next.make_room();
        }
        let Some(said) = next.apply(op, way) else { return Some(next) };
        if !agree(op, &said, reply) {
            return None;
        }
        if let (Reply::Fd(Some(fd)), Reply::Fd(Some(name))) = (said, reply) {
            next.name(*name, fd);
        }
        Some(next)
    }

    /// `None` if it is on a data_fd that was let go.
    fn apply(&mut self, op: &Op<u64>, way: Way) -> Option<Reply<u64>> {
        let mut known = true;
        let op = op.map_fd(|name| {
            let fd = self.names.get(name.0 as usize).copied().flatten();
            known = fd.is_some();
            fd.unwrap_or(name)
        });
        if !known {
            return None;
        }
        let mut buf = [0];
        self.device.apply(Op::Touch(way as u8), &mut buf);
        let said = self.device.apply(op.map(|_| [0].as_slice()), &mut buf);
        let said = said.map(|bytes| bytes.len() as u64);
        self.device.apply(Op::Touch(Way::Gives as u8), &mut buf);
        Some(said)
    }

    fn name(&mut self, name: Fd, fd: Fd) {
        let place = name.0 as usize;
        self.names.resize(self.names.len().max(place + 1), None);
        self.names[place] = Some(fd);
    }

    /// Let the oldest data_fd go if there is no room for another.
    fn make_room(&mut self) {
        if self.device.fds().open().count() < FDS {
            return;
        }
        let is_open = |fd: Fd| self.device.fds().get(fd).is_some();
        let oldest = self.names.iter().position(|fd| fd.is_some_and(is_open));
        if let Some(fd) = oldest.and_then(|place| self.names[place].take()) {
            self.device.apply(Op::CloseFd { fd }, &mut []);
        }
    }

    /// Be in this state, and in its session if it has one, however that came about.
    fn move_to(&mut self, state: State, name: Option<Fd>) {
        let kept = self.names.iter().flatten().copied().find(|fd| self.device.is_live(*fd));
        let kept = kept.and_then(|fd| self.names.iter().position(|other| *other == Some(fd)));
        self.make_room();
        self.device.apply(Op::Reset, &mut []);
        let to = Op::set(state);
        let fault = Fault::ArcFails { hop: 0, errno: Errno::EIO, leaves: Leaves::Error };
        let to_error = Op::SetState { to: State::Stop.into(), fault: Some(fault) };
        let to = if state == State::Error { to_error } else { to };
        let opened = self.device.apply(to, &mut []);
        let name = name.or(kept.map(|place| Fd(place as u32)));
        if let (Reply::Fd(Some(fd)), Some(name)) = (opened, name) {
            self.name(name, fd);
        }
    }

    /// What the core's device says here, for a person.
    fn says(&self, op: &Op<u64>) -> String {
        match (op, self.clone().apply(op, Way::Gives)) {
            (_, None) => "anything".to_owned(),
            (_, Some(Reply::Fd(Some(_)))) => "ok, a new data_fd".to_owned(),
            (Op::Read { len, .. } | Op::UringRead { len, .. }, Some(Reply::Bytes(_))) => {
                format!("1 to {len} bytes, or an end")
            }
            (Op::Write { bytes, .. }, Some(Reply::Written(_))) => format!("up to {bytes} written"),
            (_, Some(reply)) => reply.to_string(),
        }
    }
}

/// In which ways a device may have come to an answer.
const fn ways(op: &Op<u64>, reply: &Reply<u64>) -> &'static [Way] {
    match (op, reply) {
        (Op::Read { .. } | Op::UringRead { .. }, Reply::Bytes(_)) => &[Way::Gives],
        (Op::Read { .. } | Op::UringRead { .. }, _) => &[Way::Empty, Way::Refuses],
        (Op::Write { .. }, _) => &[Way::Gives, Way::Refuses],
        _ => &[Way::Gives],
    }
}

/// Whether an answer is one of those that are right where the core's device gave this.
fn agree(op: &Op<u64>, said: &Reply<u64>, seen: &Reply<u64>) -> bool {
    let dead = [Errno::ENODEV, Errno::EBADF];
    match (said, seen) {
        (Reply::Fd(said), Reply::Fd(seen)) => said.is_some() == seen.is_some(),
        (Reply::Bytes(_), Reply::Bytes(len)) => {
            let (Op::Read { len: asked, .. } | Op::UringRead { len: asked, .. }) = op else {
                return false;
            };
            *len <= u64::from(*asked) && (*len > 0 || *asked == 0)
        }
        (Reply::Written(_), Reply::Written(taken)) => {
            matches!(op, Op::Write { bytes, .. } if u64::from(*taken) <= *bytes)
        }
        (Reply::Info(_), Reply::Info(_))
        | (Reply::Ready(_), Reply::Ready(_))
        | (Reply::Size(_), Reply::Size(_)) => true,
        // Which errno a refused SET, read or write has is for the suites.
        (Reply::Errno(said), Reply::Errno(seen)) => {
            let refusal = matches!(
                op,
                Op::SetState { .. } | Op::Write { .. } | Op::Read { .. } | Op::UringRead { .. }
            );
            said == seen || (refusal && !dead.contains(said) && !dead.contains(seen))
        }
        (said, seen) => said == seen,
    }
}
