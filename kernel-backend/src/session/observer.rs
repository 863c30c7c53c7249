// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! Watching a session at work.

use vfio_fsm_core::vmm::frame::Frame;
use vfio_fsm_core::{Op, Reply};

use super::{Interest, Standing};

/// Sees all that a session does, when it does it: to trace, to count, to record what a conformance
/// trace is made of, or to let something happen at an exact moment of a test.
///
/// data_fds go by the number in which the session got them, from 1, as in traces.
pub trait Observer {
    /// This op is carried out next.
    fn before(&mut self, op: &Op<&[u8]>) {
        let _ = op;
    }

    /// It was, and this is what it came to.
    fn after(&mut self, op: &Op<&[u8]>, reply: &Reply<&[u8]>) {
        let _ = (op, reply);
    }

    /// This frame has gone to the sink, or has come whole from the source.
    fn frame(&mut self, frame: &Frame) {
        let _ = frame;
    }

    /// The session goes no further by itself: what it wants, and how it stands.
    fn pause(&mut self, interest: &Interest, standing: &Standing) {
        let _ = (interest, standing);
    }
}

/// Watches nothing.
impl Observer for () {}

impl<O: Observer + ?Sized> Observer for &mut O {
    fn before(&mut self, op: &Op<&[u8]>) {
        (**self).before(op);
    }

    fn after(&mut self, op: &Op<&[u8]>, reply: &Reply<&[u8]>) {
        (**self).after(op, reply);
    }

    fn frame(&mut self, frame: &Frame) {
        (**self).frame(frame);
    }

    fn pause(&mut self, interest: &Interest, standing: &Standing) {
        (**self).pause(interest, standing);
    }
}

/// Both watch, the first first.
impl<A: Observer, B: Observer> Observer for (A, B) {
    fn before(&mut self, op: &Op<&[u8]>) {
        self.0.before(op);
        self.1.before(op);
    }

    fn after(&mut self, op: &Op<&[u8]>, reply: &Reply<&[u8]>) {
        self.0.after(op, reply);
        self.1.after(op, reply);
    }

    fn frame(&mut self, frame: &Frame) {
        self.0.frame(frame);
        self.1.frame(frame);
    }

    fn pause(&mut self, interest: &Interest, standing: &Standing) {
        self.0.pause(interest, standing);
        self.1.pause(interest, standing);
    }
}
