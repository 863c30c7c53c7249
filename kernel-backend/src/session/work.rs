// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! What both kinds of session do alike: carry out an op in front of an observer, and count.

use std::time::Instant;

use vfio_fsm_core::vmm::{OutOfTurn, Port, Progress};
use vfio_fsm_core::{Fd, Op, Reply};

use super::StreamError;
use super::observer::Observer;

/// A data_fd, with the number that it goes by in front of observers.
#[derive(Clone, Debug)]
pub(super) struct Numbered<F> {
    number: Fd,
    fd: F,
}

impl<F> Numbered<F> {
    pub(super) const fn fd(&self) -> &F {
        &self.fd
    }
}

pub(super) struct Work<O> {
    pub(super) observer: O,
    pub(super) progress: Progress,
    /// What was wrong with the stream; nothing is sent or taken behind it.
    pub(super) error: Option<StreamError>,
    begun: Instant,
    data_fds: u32,
}

impl<O: Observer> Work<O> {
    pub(super) fn new(observer: O) -> Self {
        let (progress, begun) = (Progress::default(), Instant::now());
        Self { observer, progress, error: None, begun, data_fds: 0 }
    }

    pub(super) fn observed<N: Observer>(self, observer: N) -> Work<N> {
        let Self { observer: _, progress, error, begun, data_fds } = self;
        Work { observer, progress, error, begun, data_fds }
    }

    /// Carries out one op; of what was read, the answer says how much.
    pub(super) fn apply<P: Port<Fd: Clone>>(
        &mut self,
        port: &mut P,
        op: Op<&[u8], &Numbered<P::Fd>>,
        buf: &mut [u8],
    ) -> Reply<u32, Numbered<P::Fd>> {
        let seen = op.map_fd(|fd| fd.number);
        self.observer.before(&seen);
        let reply = port.apply(op.map_fd(Numbered::fd), buf).map_fd(|fd| {
            self.data_fds += 1;
            Numbered { number: Fd(self.data_fds), fd }
        });
        self.observer.after(&seen, &reply.clone().map_fd(|fd| fd.number));
        // No read asks for more than a u32.
        reply.map(|bytes| bytes.len() as u32)
    }

    /// So many bytes of the device's state have gone by.
    pub(super) fn moved(&mut self, bytes: u32) {
        self.progress.moved(bytes.into(), self.begun.elapsed());
    }
}

/// An answer to what the session has just asked for: it cannot be out of turn.
pub(super) fn in_turn(answered: Result<(), OutOfTurn>) {
    debug_assert_eq!(answered, Ok(()));
}
