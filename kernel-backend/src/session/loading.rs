// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! From a stream to a device.

use std::io::{ErrorKind, Read};

use vfio_fsm_core::Reply;
use vfio_fsm_core::vmm::frame::{Decoder, Item, Limits};
use vfio_fsm_core::vmm::{
    Event, LoadPlan, Loader, OutOfTurn, Piece, Port, Recovery, ResetRefused, Status, Step, Wait,
};

use super::buffer::Buffer;
use super::work::{Numbered, Work, in_turn};
use super::{Crc32c, Interest, Observer, Session, Standing, StreamError};

/// A session at the destination: reads a stream and drives a [`Loader`]. See [`Session`].
///
/// The device is left alone until the stream's header has come and is accepted, and nothing is read
/// behind its END. Dropped before it is over, a session closes its data_fd and leaves the device
/// where it is.
pub struct Loading<P: Port, S, A, O = ()> {
    port: P,
    source: S,
    accepts: A,
    loader: Loader<Numbered<P::Fd>>,
    decoder: Decoder<Crc32c>,
    buffer: Buffer,
    /// Of the bytes that the decoder asks for, so many are in the buffer.
    have: usize,
    begun: bool,
    waited: bool,
    work: Work<O>,
}

impl<P: Port, S, A: FnMut(&str) -> bool> Loading<P, S, A> {
    /// A session by this plan, with chunks up to this limit: room for one is set aside.
    ///
    /// `accepts` says, by the compatibility string in its header, whether a stream is for this
    /// device: `|compat| compat == "…"`, or something cleverer.
    pub fn new(plan: LoadPlan, limits: Limits, accepts: A, port: P, source: S) -> Self {
        Self {
            port,
            source,
            accepts,
            loader: Loader::new(plan),
            decoder: Decoder::new(limits),
            buffer: Buffer::new(limits.buffer()),
            have: 0,
            begun: false,
            waited: false,
            work: Work::new(()),
        }
    }

    /// The same, watched.
    pub fn observed<O: Observer>(self, observer: O) -> Loading<P, S, A, O> {
        let Self { port, source, accepts, loader, decoder, buffer, have, begun, waited, work } =
            self;
        let work = work.observed(observer);
        Loading { port, source, accepts, loader, decoder, buffer, have, begun, waited, work }
    }
}

impl<P: Port, S, A, O> Loading<P, S, A, O> {
    /// The port: for what a session has no word for. What moves the device behind its back is
    /// taken for a reset, or for a fault of the driver.
    pub const fn port(&mut self) -> &mut P {
        &mut self.port
    }

    /// The source, for an event loop to watch.
    pub const fn source(&self) -> &S {
        &self.source
    }

    /// What watches the session.
    pub const fn observer(&mut self) -> &mut O {
        &mut self.work.observer
    }

    /// The data_fd, while it is believed to be alive: for an event loop to watch for writing.
    pub fn data_fd(&self) -> Option<&P::Fd> {
        self.loader.data_fd().map(Numbered::fd)
    }
}

impl<P, S, A, O> Session for Loading<P, S, A, O>
where
    P: Port<Fd: Clone>,
    S: Read,
    A: FnMut(&str) -> bool,
    O: Observer,
{
    fn step(&mut self) -> Interest {
        let interest = if self.begun { self.go_on() } else { self.take() };
        if interest != Interest::Now {
            let standing = self.standing();
            self.work.observer.pause(&interest, &standing);
        }
        interest
    }

    fn called(&mut self, done: bool) -> Result<(), OutOfTurn> {
        self.loader.called(done)
    }

    fn decide(&mut self, _choice: Recovery) -> Result<(), OutOfTurn> {
        Err(OutOfTurn { got: "a choice", asked: "something else: a destination has none" })
    }

    fn event(&mut self, event: Event) -> Result<(), ResetRefused> {
        // Who gives up does not wait for the header.
        let gives_up = [Event::Cancel, Event::TimedOut, Event::PeerLost, Event::BadStream];
        self.begun |= gives_up.contains(&event);
        self.loader.event(event)
    }

    fn standing(&self) -> Standing {
        Standing {
            at: self.loader.at(),
            frozen: self.loader.is_frozen(),
            epoch: self.loader.epoch(),
            aborting: self.loader.is_aborting(),
            evidence: self.loader.evidence(),
            left: Status::NONE,
            progress: self.work.progress,
        }
    }

    fn take_error(&mut self) -> Option<StreamError> {
        self.work.error.take()
    }
}

impl<P, S, A, O> Loading<P, S, A, O>
where
    P: Port<Fd: Clone>,
    S: Read,
    A: FnMut(&str) -> bool,
    O: Observer,
{
    fn go_on(&mut self) -> Interest {
        if std::mem::take(&mut self.waited) {
            self.tell(Event::Tick);
        }
        let op = match self.loader.step() {
            Step::Do(op) => op,
            Step::Call(hook) => return Interest::Call(hook),
            Step::Wait(Wait::Frame) => return self.take(),
            Step::Wait(Wait::Run) => return Interest::Run,
            Step::End(verdict) => return Interest::Done(verdict),
            // The last two are none of a loader's.
            Step::Wait(_) | Step::Send(_) | Step::Decide(_) => {
                self.waited = true;
                return Interest::DataFd;
            }
        };
        let payload = self.buffer.payload();
        let op = op.map(|piece: Piece| piece.of(payload));
        let reply = self.work.apply(&mut self.port, op, &mut []);
        if let Reply::Written(taken) = reply {
            self.work.moved(taken);
        }
        in_turn(self.loader.reply(reply));
        Interest::Now
    }

    /// An event that is never refused.
    fn tell(&mut self, event: Event) {
        let refused = self.loader.event(event);
        debug_assert_eq!(refused, Ok(()));
    }

    /// Reads once, and hands on what is whole by that.
    fn take(&mut self) -> Interest {
        let needs = self.decoder.needs();
        match self.source.read(&mut self.buffer.room()[self.have..needs]) {
            Ok(0) => return self.ended(),
            Ok(got) => self.have += got,
            Err(error) => match error.kind() {
                ErrorKind::Interrupted => {}
                ErrorKind::WouldBlock => return Interest::Stream,
                _ => return self.fail(Event::PeerLost, Some(error.into())),
            },
        }
        if self.have < needs {
            return Interest::Now;
        }
        self.have = 0;
        match self.decoder.give(&self.buffer.payload()[..needs]) {
            Ok(None) => {}
            Ok(Some(Item::Header(header))) => {
                if !(self.accepts)(header.compat) {
                    let compat = header.compat.to_owned();
                    return self.fail(Event::BadStream, Some(StreamError::Incompatible { compat }));
                }
                self.begun = true;
            }
            Ok(Some(Item::Frame(frame))) => {
                self.work.observer.frame(&frame);
                in_turn(self.loader.frame(frame));
            }
            Err(error) => return self.fail(Event::BadStream, Some(error.into())),
        }
        Interest::Now
    }

    fn ended(&mut self) -> Interest {
        let truncated = self.decoder.end().err();
        self.fail(Event::PeerLost, truncated.map(StreamError::from))
    }

    /// Nothing more comes. The session goes on, to bring the device home.
    fn fail(&mut self, event: Event, error: Option<StreamError>) -> Interest {
        self.work.error = error;
        self.begun = true;
        self.tell(event);
        Interest::Now
    }
}
