// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! Whether what the calls returned is what the device of level 1 returns in some order of them.
//!
//! stateright's [`LinearizabilityTester`] decides it, on the core's own [`Device`]. A world keeps
//! of each call only what had returned when it began: that is all that real time says of an order,
//! and worlds in which it is the same are one.

use stateright::semantics::{ConsistencyTester, LinearizabilityTester, SequentialSpec};
use vfio_fsm_core::device::{Device, Memory};
use vfio_fsm_core::{Errno, Fd, Op, Reply, State};

use crate::locks::call::Call;
use crate::locks::world::{CALLERS, CALLS, Calls, Made, SOME_FD, STREAM, World, device_in};

/// Whose orders are looked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum View {
    /// Every call; a reset ends when it has been carried out.
    Device,
    /// Every call but `read`, the one that does without state_mutex; a reset ends when it returns.
    Mutex,
    /// Every call; a reset ends when it returns. Too strong.
    Return,
}

/// The device of level 1, and which data_fds its threads have.
#[derive(Clone, Debug)]
struct Level1 {
    device: Device<Memory<1>, 4>,
    first: Option<Fd>,
    opened: [Option<Fd>; CALLERS],
    /// Without the reads nobody knows how much is left.
    amounts: bool,
}

impl Level1 {
    fn new(start: State, amounts: bool) -> Self {
        let device = device_in(start);
        Self { first: device.fds().last(), device, opened: [None; CALLERS], amounts }
    }

    fn apply(&mut self, op: Op<&[u8]>) -> Reply<u8> {
        let mut buf = [0];
        self.device.apply(op, &mut buf).map(|bytes| bytes.first().copied().unwrap_or_default())
    }

    fn set(&mut self, who: usize, to: State) -> Reply<u8> {
        let reply = self.apply(Op::set(to));
        self.opened[who] = match reply {
            Reply::Fd(fd) => fd,
            _ => None,
        };
        reply.map_fd(|_fd| SOME_FD)
    }
}

impl SequentialSpec for Level1 {
    type Op = (usize, Call);
    type Ret = Reply<u8>;

    fn invoke(&mut self, &(who, call): &Self::Op) -> Self::Ret {
        let fd = self.opened[who].or(self.first).unwrap_or(SOME_FD);
        match call {
            Call::Set(to) => self.set(who, to),
            Call::Get => self.apply(Op::GetState),
            Call::Read => self.apply(Op::Read { fd, len: 1 }),
            Call::Write => self.apply(Op::Write { fd, bytes: STREAM }),
            Call::Info => self.apply(Op::PrecopyInfo { fd }),
            // A device that is closed is in RUNNING already.
            Call::HostReset if !self.device.is_open() => Reply::Ok,
            Call::Reset | Call::HostReset => self.apply(Op::Reset),
            Call::Close => self.apply(Op::Close),
            // Its session is over, and the device is still open.
            Call::Detach => {
                let _ok = self.apply(Op::Close);
                self.apply(Op::Open)
            }
            // Not of the device.
            Call::Fault | Call::Filled => Reply::Ok,
        }
    }

    fn is_valid_step(&mut self, op: &Self::Op, seen: &Self::Ret) -> bool {
        // Another reset had the PCI core's lock.
        if op.1 == Call::Reset && *seen == Reply::Errno(Errno::EAGAIN) {
            return true;
        }
        match (self.invoke(op), *seen) {
            (Reply::Info(_), Reply::Info(_)) if !self.amounts => true,
            (reply, seen) => reply == seen,
        }
    }
}

/// Whether there is such an order. Judges a world in which nobody can go on.
pub(crate) fn is_linearisable(world: &World, start: State, view: View) -> bool {
    let seen_by_view = |call: Call| !(view == View::Mutex && call == Call::Read);
    let mut made: Vec<(usize, Calls, Call, &Made)> = (0..CALLERS)
        .flat_map(|who| world.made(who).map(move |(nth, call, made)| (who, nth, call, made)))
        .filter(|&(_, _, call, made)| made.reply.is_some() && seen_by_view(call))
        .map(|(who, nth, call, made)| (who, Calls::one(who, nth), call, made))
        .collect();
    let before = |made: &Made| if view == View::Device { made.after_settled } else { made.after };
    // What has returned only grows, so that the sets lie in one another.
    made.sort_by_key(|&(_, _, _, made)| before(made).len());
    let level1 = Level1::new(start, view != View::Mutex);
    let mut tester = LinearizabilityTester::<Calls, Level1>::new(level1);
    let mut ended = Calls::default();
    for &(who, id, call, this) in &made {
        for &(_, other, _, earlier) in &made {
            if before(this).has(other) && !ended.has(other) {
                ended = ended.and(other);
                let Some(reply) = earlier.reply else { continue };
                let _told = tester.on_return(other, reply);
            }
        }
        // Each call is a thread to the tester: who made it says nothing that time does not.
        let _told = tester.on_invoke(id, (who, call));
    }
    for &(_, id, _, this) in &made {
        if let (false, Some(reply)) = (ended.has(id), this.reply) {
            let _told = tester.on_return(id, reply);
        }
    }
    tester.is_consistent()
}

const _: () = assert!(CALLERS * CALLS < 8, "a bit of Calls for each");
