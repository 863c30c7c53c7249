// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! Stands between a session and its device, does what a schedule says, and keeps the record.

use vfio_fsm_core::vmm::Port;
use vfio_fsm_core::{Errno, Fault, Op, Reply};

use super::case::When;
use super::record::Record;

/// More ops than any run has: a session that goes round in circles is told EIO from here on.
pub(super) const MOST_OPS: usize = 2000;

/// A device that others can reset, too.
pub(super) trait Subject: Port {
    /// Somebody else resets it, now.
    fn reset(&mut self);

    /// Carry out one op while somebody else resets the device.
    fn race<'b>(
        &mut self,
        op: Op<&[u8], &Self::Fd>,
        buf: &'b mut [u8],
    ) -> Reply<&'b [u8], Self::Fd>;

    /// Something wrong with the ops so far that their replies have no word for.
    fn take_anomaly(&mut self) -> Option<String> {
        None
    }
}

/// What happens around one op.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Orders {
    /// A reset before it.
    pub(super) before: bool,
    /// A reset while it is carried out.
    pub(super) within: bool,
    /// A reset behind it.
    pub(super) after: bool,
    /// What goes wrong in a SET.
    pub(super) fault: Option<Fault>,
    /// A read or write of no more than this.
    pub(super) most: Option<u32>,
    /// It is not carried out but fails.
    pub(super) refuse: Option<Errno>,
}

/// Says what happens around each op.
pub(super) trait Schedule {
    /// The orders for the op that is the n-th, counted from 1.
    fn orders<B, F>(&mut self, step: usize, op: &Op<B, F>, frozen: bool) -> Orders;
}

/// A reset at one step.
pub(super) struct At(pub(super) Option<(usize, When)>);

impl Schedule for At {
    fn orders<B, F>(&mut self, step: usize, _op: &Op<B, F>, _frozen: bool) -> Orders {
        match self.0 {
            Some((at, when)) if at == step => Orders {
                before: when == When::Before,
                within: when == When::Within,
                after: when == When::After,
                ..Orders::default()
            },
            _ => Orders::default(),
        }
    }
}

/// The device as the session has it.
pub(super) struct Probe<'a, S, O> {
    pub(super) subject: &'a mut S,
    pub(super) schedule: O,
    pub(super) record: &'a Record,
}

impl<S: Subject, O> Probe<'_, S, O> {
    fn reset(&mut self, how: &str) {
        self.subject.reset();
        self.record.was_reset(how);
    }

    /// Let the guest write what it has to write, if it runs.
    pub(super) fn settle(&mut self) {
        if let Some(value) = self.record.take_touch() {
            let _done = self.subject.apply(Op::Touch(value), &mut []);
        }
    }

    fn carry_out<'b>(
        &mut self,
        orders: Orders,
        op: Op<&[u8], &S::Fd>,
        buf: &'b mut [u8],
    ) -> Reply<&'b [u8], S::Fd> {
        if let Some(errno) = orders.refuse {
            return Reply::Errno(errno);
        }
        if self.record.steps() > MOST_OPS {
            return Reply::Errno(Errno::EIO);
        }
        let most = orders.most.unwrap_or(u32::MAX);
        let op = match op {
            Op::SetState { to, fault: None } => Op::SetState { to, fault: orders.fault },
            Op::Read { fd, len } => Op::Read { fd, len: len.min(most) },
            Op::Write { fd, bytes } => {
                Op::Write { fd, bytes: &bytes[..bytes.len().min(most as usize)] }
            }
            other => other,
        };
        match orders.within {
            true => self.subject.race(op, buf),
            false => self.subject.apply(op, buf),
        }
    }
}

impl<S: Subject, O: Schedule> Port for Probe<'_, S, O> {
    type Fd = S::Fd;

    fn apply<'b>(&mut self, op: Op<&[u8], &S::Fd>, buf: &'b mut [u8]) -> Reply<&'b [u8], S::Fd> {
        self.settle();
        let step = self.record.begin(op);
        let orders = self.schedule.orders(step, &op, self.record.is_frozen());
        if orders.before {
            self.reset("before");
        }
        if orders.refuse.is_some() {
            self.record.refused(&op);
        }
        let reply = self.carry_out(orders, op, buf);
        // The reply's data_fd is the session's: the log has to do with the word.
        let shown = shown(&reply);
        self.record.answered(&op, shown);
        if orders.within {
            self.record.was_reset("meanwhile");
        }
        if orders.after {
            self.reset("behind");
        }
        reply
    }
}

/// What a person is shown: the bytes counted, and the data_fd by the word.
pub(super) fn shown<F>(reply: &Reply<&[u8], F>) -> Reply<usize, &'static str> {
    match reply {
        Reply::Ok => Reply::Ok,
        Reply::Features(flags) => Reply::Features(*flags),
        Reply::State(state) => Reply::State(*state),
        Reply::Fd(fd) => Reply::Fd(fd.as_ref().map(|_fd| "data_fd")),
        Reply::Bytes(bytes) => Reply::Bytes(bytes.len()),
        Reply::Written(len) => Reply::Written(*len),
        Reply::EndOfStream(end) => Reply::EndOfStream(*end),
        Reply::Size(size) => Reply::Size(*size),
        Reply::Info(info) => Reply::Info(*info),
        Reply::Ready(ready) => Reply::Ready(*ready),
        Reply::FdFlags(flags) => Reply::FdFlags(*flags),
        Reply::Errno(errno) => Reply::Errno(*errno),
    }
}
