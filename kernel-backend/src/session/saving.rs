// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! From a device to a stream.

use std::io::{self, ErrorKind, Write};
use std::ops::Range;

use vfio_fsm_core::Op;
use vfio_fsm_core::vmm::frame::{EncodeError, Encoder, Frame};
use vfio_fsm_core::vmm::{
    Cause, Event, OutOfTurn, Plan, Port, Recovery, ResetRefused, Saver, Step, Verdict, Wait,
};

use super::buffer::Buffer;
use super::work::{Numbered, Work, in_turn};
use super::{Crc32c, Interest, Observer, Session, Standing, StreamError};

/// A session at the source: drives a [`Saver`] and writes its stream. See [`Session`].
///
/// Dropped before it is over, it closes its data_fd and leaves the device where it is.
pub struct Saving<P: Port, S, O = ()> {
    port: P,
    sink: S,
    saver: Saver<Numbered<P::Fd>>,
    encoder: Encoder<Crc32c>,
    buffer: Buffer,
    /// What is on its way to the sink.
    sending: Option<Sending>,
    waited: bool,
    /// A frame was not sent as a whole, and so nothing more is; and why.
    torn: Option<Cause>,
    work: Work<O>,
}

/// Bytes of the buffer that are still to be sent.
struct Sending {
    left: Range<usize>,
    /// Whose they are; those of the header are of no frame.
    frame: Option<Frame>,
}

impl<P: Port, S> Saving<P, S> {
    /// A session by this plan, for a destination that can load `compat`.
    ///
    /// # Errors
    ///
    /// When the plan's chunk is 0, or `compat` cannot be sent: nothing has been done then.
    pub fn new(plan: Plan, compat: &str, port: P, sink: S) -> Result<Self, EncodeError> {
        let (encoder, header) = Encoder::new(plan.chunk, compat)?;
        let mut buffer = Buffer::new(plan.chunk as usize);
        let sending = Some(Sending { left: buffer.prepend(&header, 0), frame: None });
        let (saver, work) = (Saver::new(plan), Work::new(()));
        let (waited, torn) = (false, None);
        Ok(Self { port, sink, saver, encoder, buffer, sending, waited, torn, work })
    }

    /// The same, watched.
    pub fn observed<O: Observer>(self, observer: O) -> Saving<P, S, O> {
        let Self { port, sink, saver, encoder, buffer, sending, waited, torn, work } = self;
        let work = work.observed(observer);
        Saving { port, sink, saver, encoder, buffer, sending, waited, torn, work }
    }
}

impl<P: Port, S, O> Saving<P, S, O> {
    /// The port: for what a session has no word for. What moves the device behind its back is
    /// taken for a reset, or for a fault of the driver.
    pub const fn port(&mut self) -> &mut P {
        &mut self.port
    }

    /// The sink, for an event loop to watch.
    pub const fn sink(&self) -> &S {
        &self.sink
    }

    /// What watches the session.
    pub const fn observer(&mut self) -> &mut O {
        &mut self.work.observer
    }

    /// The data_fd, while it is believed to be alive: for an event loop to watch for reading.
    pub fn data_fd(&self) -> Option<&P::Fd> {
        self.saver.data_fd().map(Numbered::fd)
    }
}

impl<P: Port<Fd: Clone>, S: Write, O: Observer> Session for Saving<P, S, O> {
    fn step(&mut self) -> Interest {
        let interest = match self.sending.take() {
            Some(sending) => self.send(sending),
            None => self.go_on(),
        };
        if interest != Interest::Now {
            let standing = self.standing();
            self.work.observer.pause(&interest, &standing);
        }
        interest
    }

    fn called(&mut self, done: bool) -> Result<(), OutOfTurn> {
        self.saver.called(done)
    }

    fn decide(&mut self, choice: Recovery) -> Result<(), OutOfTurn> {
        self.saver.decide(choice)
    }

    fn event(&mut self, event: Event) -> Result<(), ResetRefused> {
        let cause = match event {
            Event::Cancel => Some(Cause::Cancelled),
            Event::TimedOut => Some(Cause::TimedOut),
            Event::PeerLost => Some(Cause::PeerLost),
            _ => None,
        };
        self.saver.event(event)?;
        // Who gives up does not wait for a sink that takes nothing.
        if let Some(cause) = cause
            && let Some(sending) = self.sending.take()
        {
            self.tear(cause, sending.frame);
        }
        Ok(())
    }

    fn standing(&self) -> Standing {
        Standing {
            at: self.saver.at(),
            frozen: self.saver.is_frozen(),
            epoch: self.saver.epoch(),
            aborting: self.saver.is_aborting() || self.torn.is_some(),
            evidence: self.saver.evidence(),
            left: self.saver.status(),
            progress: self.work.progress,
        }
    }

    fn take_error(&mut self) -> Option<StreamError> {
        self.work.error.take()
    }
}

impl<P: Port<Fd: Clone>, S: Write, O: Observer> Saving<P, S, O> {
    fn go_on(&mut self) -> Interest {
        if std::mem::take(&mut self.waited) {
            self.tell(Event::Tick);
        }
        let op = match self.saver.step() {
            Step::Do(op) => op.map(|never| match never {}),
            Step::Send(frame) => return self.begin(frame),
            Step::Call(hook) => return Interest::Call(hook),
            Step::Decide(decision) => return Interest::Decide(decision),
            Step::Wait(wait) => {
                self.waited = true;
                let idle = wait == Wait::Switchover;
                return if idle { Interest::Switchover } else { Interest::DataFd };
            }
            Step::End(verdict) => return Interest::Done(self.judge(verdict)),
        };
        let looks = matches!(op, Op::PrecopyInfo { .. });
        let reply = self.work.apply(&mut self.port, op, self.buffer.room());
        in_turn(self.saver.reply(reply));
        if looks {
            self.work.progress.looked(&self.saver.status());
        }
        Interest::Now
    }

    /// An event that is never refused.
    fn tell(&mut self, event: Event) {
        let refused = self.saver.event(event);
        debug_assert_eq!(refused, Ok(()));
    }

    fn begin(&mut self, frame: Frame) -> Interest {
        let len = if let Frame::Data { len, .. } = frame { len as usize } else { 0 };
        // Less than there should be is refused by the encoder.
        let payload = self.buffer.payload().get(..len).unwrap_or_default();
        match self.encoder.frame(frame, payload) {
            Ok(bytes) => {
                let left = self.buffer.prepend(&bytes, len);
                self.send(Sending { left, frame: Some(frame) })
            }
            Err(error) => self.lose(error.into(), Some(frame)),
        }
    }

    fn send(&mut self, mut sending: Sending) -> Interest {
        let Sending { left, frame } = &mut sending;
        while left.start < left.end {
            match self.sink.write(self.buffer.get(left.clone())) {
                Ok(0) => return self.lose(io::Error::from(ErrorKind::WriteZero).into(), *frame),
                Ok(taken) => left.start += taken,
                Err(error) => return self.stalled(error, sending),
            }
        }
        // Nobody waits for a single chunk; for what stands between them, somebody may.
        let flushed = if let Some(Frame::Data { .. }) = frame { Ok(()) } else { self.sink.flush() };
        match (flushed, *frame) {
            (Err(error), _) => return self.stalled(error, sending),
            (Ok(()), Some(frame)) => self.sent(frame),
            (Ok(()), None) => {}
        }
        Interest::Now
    }

    fn sent(&mut self, frame: Frame) {
        self.work.observer.frame(&frame);
        match frame {
            Frame::Data { len, .. } => self.work.moved(len),
            Frame::Discard { .. } => self.work.progress.restarted(),
            Frame::InitialBytesSent { .. } | Frame::End { .. } => {}
        }
        in_turn(self.saver.sent());
    }

    fn stalled(&mut self, error: io::Error, sending: Sending) -> Interest {
        let interest = match error.kind() {
            ErrorKind::WouldBlock => Interest::Stream,
            ErrorKind::Interrupted => Interest::Now,
            _ => return self.lose(error.into(), sending.frame),
        };
        self.sending = Some(sending);
        interest
    }

    /// The stream has failed. The session goes on, to bring the device home.
    fn lose(&mut self, error: StreamError, frame: Option<Frame>) -> Interest {
        self.work.error = Some(error);
        self.tell(Event::PeerLost);
        self.tear(Cause::PeerLost, frame);
        Interest::Now
    }

    fn tear(&mut self, cause: Cause, frame: Option<Frame>) {
        self.torn = self.torn.or(Some(cause));
        if frame.is_some() {
            // It was not, but then the session has been told to give up.
            in_turn(self.saver.sent());
        }
    }

    /// A snapshot without its last frame is none, though its device is back where it was.
    fn judge(&self, verdict: Verdict) -> Verdict {
        match (verdict, self.torn) {
            (Verdict::Complete { guest }, Some(cause)) => Verdict::Aborted { cause, guest },
            _ => verdict,
        }
    }
}
