// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! Whether a history could have been had from the core's device, one call after another.
//!
//! The search is Wing's and Gong's (1993), with Lowe's memory of where it has been (2017). Each call
//! is put somewhere between its beginning and its end, and the core's own device must answer each as
//! it was answered. What the uAPI leaves to a device, how much a read returns or whether a stream is
//! one, is taken from the answer.

use std::collections::HashSet;

use vfio_fsm_core::device::{ArcActions, ArcFailure, Device, DeviceData};
use vfio_fsm_core::{Arc, Errno, Fd, Features, Op, PrecopyInfo, Reply, State};

use super::history::{Call, History};

/// The calls that a history may have: a bit for each.
pub const MOST_CALLS: usize = 64;

/// The data_fds that may be open.
const FDS: usize = 16;

/// What was found out about a history.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Order {
    /// These calls, by their places in the history, one after the other.
    Found(Vec<usize>),
    /// There is none.
    None,
}

/// What a history is held against.
#[derive(Clone, Copy, Debug)]
pub struct Rules {
    /// The flags of the device.
    pub features: Features,
    /// Whether both ends of a stream are taken for the same, for a driver that is known not to tell
    /// them apart (R32).
    pub ends_alike: bool,
}

impl Rules {
    /// Of a device with these flags, and nothing forgiven.
    pub const fn new(features: Features) -> Self {
        Self { features, ends_alike: false }
    }
}

/// Look for an order of the calls that explains every answer.
///
/// # Panics
///
/// If there are more than [`MOST_CALLS`] calls.
pub fn order(history: &History, rules: Rules) -> Order {
    assert!(history.0.len() <= MOST_CALLS, "a bit for each call");
    let features = rules.features;
    let mut search = Search { history, rules, before: before(history), seen: HashSet::new() };
    let device = Device::new(features, Dictated::default());
    let start = Explained { done: 0, device, names: Vec::new(), held: Vec::new() };
    let mut order = Vec::new();
    if search.go(&start, &mut order) { Order::Found(order) } else { Order::None }
}

/// For each call the calls that must come before it.
fn before(history: &History) -> Vec<u64> {
    let calls = &history.0;
    let bits = |call: &Call| {
        let must = calls.iter().enumerate().filter(|(_, other)| history.precedes(other, call));
        must.map(|(index, _)| 1 << index).sum()
    };
    calls.iter().map(bits).collect()
}

struct Search<'h> {
    history: &'h History,
    rules: Rules,
    before: Vec<u64>,
    seen: HashSet<Explained>,
}

/// How far an explanation has come.
#[derive(Clone, PartialEq, Eq, Hash)]
struct Explained {
    done: u64,
    device: Device<Dictated, FDS>,
    /// The device's own numbers of the data_fds, by their numbers in the history.
    names: Vec<Option<Fd>>,
    /// Data_fds that are closed, by their numbers in the history, whose files calls still hold open.
    held: Vec<Fd>,
}

impl Search<'_> {
    fn go(&mut self, at: &Explained, order: &mut Vec<usize>) -> bool {
        let calls = &self.history.0;
        let open = (0..calls.len()).filter(|&index| at.done & 1 << index == 0);
        let open: Vec<_> = open.collect();
        // A call without an answer may not have happened yet.
        if open.iter().all(|&index| calls[index].reply.is_none()) {
            return true;
        }
        if !self.seen.insert(at.clone()) {
            return false;
        }
        for index in open {
            if self.before[index] & !at.done != 0 {
                continue;
            }
            order.push(index);
            let ways = at.explain(self.history, index, self.rules);
            if ways.iter().any(|next| self.go(next, order)) {
                return true;
            }
            order.pop();
        }
        false
    }
}

impl Explained {
    /// After this call, in each way in which the device answers it so.
    fn explain(&self, history: &History, index: usize, rules: Rules) -> Vec<Self> {
        let call = &history.0[index];
        let Some(op) = self.op(call) else { return Vec::new() };
        let ways = ways(call).iter().map(|way| self.after(op, *way));
        let answers: Vec<_> = match call.data_fd().filter(|name| self.held.contains(name)) {
            None => ways.collect(),
            // It came too late, or it is one of those that hold the file.
            Some(_) => {
                let late = (self.clone(), Reply::Errno(Errno::EBADF));
                let holds = history.is_closed_under(call);
                [late].into_iter().chain(ways.filter(|_| holds)).collect()
            }
        };
        let mut explained = Vec::new();
        for (mut next, said) in answers {
            if !call.reply.as_ref().is_none_or(|seen| rules.agree(call, &said, seen)) {
                continue;
            }
            next.done |= 1 << index;
            if let (Reply::Fd(Some(fd)), Some(Reply::Fd(Some(name)))) = (said, &call.reply) {
                let place = name.0 as usize;
                next.names.resize(next.names.len().max(place + 1), None);
                next.names[place] = Some(fd);
            }
            if let (Op::CloseFd { fd: name }, Reply::Ok) = (call.op, said) {
                next.held.push(name);
            }
            next.release(history);
            explained.push(next);
        }
        explained
    }

    /// Close the files that no call can hold any longer.
    fn release(&mut self, history: &History) {
        let calls = history.0.iter().enumerate();
        let open = calls.filter(|(index, _)| self.done & 1 << index == 0).map(|(_, call)| call);
        let holders: Vec<_> = open.filter(|call| history.is_closed_under(call)).collect();
        let (held, free): (Vec<_>, Vec<_>) = core::mem::take(&mut self.held)
            .into_iter()
            .partition(|name| holders.iter().any(|call| call.data_fd() == Some(*name)));
        self.held = held;
        for name in free {
            if let Some(fd) = self.names.get(name.0 as usize).copied().flatten() {
                self.device.apply(Op::CloseFd { fd }, &mut []);
            }
        }
    }

    /// The op in the device's own numbers; `None` if its data_fd has not been handed out yet.
    fn op(&self, call: &Call) -> Option<Op<u32>> {
        let mut known = true;
        let op = call.op.map_fd(|name| {
            let fd = self.names.get(name.0 as usize).copied().flatten();
            known = fd.is_some();
            fd.unwrap_or(name)
        });
        known.then_some(op)
    }

    /// After an op, and its answer. What a close leaves to the calls under way is `release`'s.
    fn after(&self, op: Op<u32>, way: Way) -> (Self, Reply<usize>) {
        let mut next = self.clone();
        let mut buf = [0];
        next.device.apply(Op::Touch(way as u8), &mut buf);
        let said = next.device.apply(op.map(|_| [0].as_slice()), &mut buf).map(<[u8]>::len);
        next.device.apply(Op::Touch(Way::Gives as u8), &mut buf);
        let closes = matches!(op, Op::CloseFd { .. });
        (if closes { self.clone() } else { next }, said)
    }
}

/// What a device makes of the next call where it has a choice.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
#[repr(u8)]
pub(crate) enum Way {
    /// A read returns bytes, a write is taken, a stream is a good one.
    #[default]
    Gives,
    /// A read finds nothing.
    Empty,
    /// A read would block, a write or a stream is refused.
    Refuses,
}

/// In which ways a device may have come to an answer.
fn ways(call: &Call) -> &'static [Way] {
    match (&call.op, &call.reply) {
        (Op::Read { .. } | Op::UringRead { .. }, Some(Reply::Bytes(_))) => &[Way::Gives],
        (Op::Read { .. } | Op::UringRead { .. }, _) => &[Way::Empty, Way::Refuses],
        (Op::SetState { .. } | Op::Write { .. }, _) => &[Way::Gives, Way::Refuses],
        _ => &[Way::Gives],
    }
}

impl Rules {
    /// Whether an answer is one of those that are right where the core's device gave this.
    fn agree(self, call: &Call, said: &Reply<usize>, seen: &Reply<usize>) -> bool {
        let dead = [Errno::ENODEV, Errno::EBADF];
        match (said, seen) {
            (Reply::Fd(said), Reply::Fd(seen)) => said.is_some() == seen.is_some(),
            (Reply::Bytes(_), Reply::Bytes(_))
            | (Reply::Written(_), Reply::Written(_))
            | (Reply::Info(_), Reply::Info(_))
            | (Reply::Ready(_), Reply::Ready(_))
            | (Reply::Size(_), Reply::Size(_)) => true,
            (Reply::EndOfStream(_), Reply::EndOfStream(_)) if self.ends_alike => true,
            // Which errno a refused SET or write has is for the other suites.
            (Reply::Errno(said), Reply::Errno(seen)) => {
                let refusal = matches!(call.op, Op::SetState { .. } | Op::Write { .. });
                said == seen || (refusal && !dead.contains(said) && !dead.contains(seen))
            }
            (said, seen) => said == seen,
        }
    }
}

/// A device that does as it is told.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub(crate) struct Dictated(Way);

impl ArcActions for Dictated {
    fn arc(&mut self, arc: Arc) -> Result<(), ArcFailure> {
        match (arc.from(), arc.to(), self.0) {
            (State::Resuming, State::Stop, Way::Refuses) => Err(Errno::EINVAL.into()),
            _ => Ok(()),
        }
    }

    fn end_session(&mut self) {}

    fn reset(&mut self) {}
}

impl DeviceData for Dictated {
    fn read(&mut self, buf: &mut [u8]) -> Result<usize, Errno> {
        match self.0 {
            Way::Gives => Ok(buf.len()),
            Way::Empty => Ok(0),
            Way::Refuses => Err(Errno::EAGAIN),
        }
    }

    fn write(&mut self, bytes: &[u8]) -> Result<usize, Errno> {
        if self.0 == Way::Refuses { Err(Errno::EINVAL) } else { Ok(bytes.len()) }
    }

    fn precopy_info(&mut self) -> Result<PrecopyInfo, Errno> {
        Ok(PrecopyInfo::default())
    }

    fn data_size(&mut self) -> Result<u64, Errno> {
        Ok(0)
    }

    fn readable(&self) -> bool {
        true
    }

    fn touch(&mut self, value: u8) {
        self.0 = match value {
            1 => Way::Empty,
            2 => Way::Refuses,
            _ => Way::Gives,
        };
    }
}
