// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! Streams that stall, break, lie or end too soon.

use std::cell::RefCell;
use std::io::{self, ErrorKind, Read, Write};
use std::rc::Rc;

use vfio_fsm_core::vmm::frame::{EncodeError, Frame, FrameError};
use vfio_fsm_core::vmm::{
    Cause, Event, Guest, Hook, LoadPlan, Plan, Port, Recovery, Then, Verdict,
};
use vfio_fsm_core::{Fd, Features, Op, Reply, State};
use vfio_fsm_kernel::session::{
    Interest, Loading, Observer, Outcome, Saving, Session, Standing, StreamError, Vmm,
};

use crate::memory::{COMPAT, COMPLETE, LIMITS, NoGuest, Shared, plan};

fn saved(plan: Plan) -> Vec<u8> {
    let mut stream = Vec::new();
    let device = Shared::new(Features::ALL, 7);
    let outcome = Saving::new(plan, COMPAT, device.clone(), &mut stream).unwrap().run(&mut NoGuest);
    assert_eq!(outcome.verdict, COMPLETE);
    device.ends(if plan.then == Then::Stop { State::Stop } else { State::Running });
    stream
}

fn load(device: &Shared, source: impl Read) -> Outcome {
    let accepts = |compat: &str| compat == COMPAT;
    Loading::new(LoadPlan::default(), LIMITS, accepts, device.clone(), source).run(&mut NoGuest)
}

fn aborted(cause: Cause) -> Verdict {
    Verdict::Aborted { cause, guest: Guest::Intact }
}

/// Takes and gives a few bytes, then says that it would block, then is interrupted, and so on.
struct Stutters<S> {
    inner: S,
    calls: usize,
}

impl<S> Stutters<S> {
    fn new(inner: S) -> Self {
        Self { inner, calls: 0 }
    }

    /// How many bytes this call is good for.
    fn next(&mut self) -> io::Result<usize> {
        self.calls += 1;
        match self.calls % 4 {
            0 => Err(ErrorKind::WouldBlock.into()),
            2 => Err(ErrorKind::Interrupted.into()),
            _ => Ok(1 + self.calls % 5),
        }
    }
}

impl<W: Write> Write for Stutters<W> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let len = self.next()?.min(bytes.len());
        self.inner.write(&bytes[..len])
    }

    fn flush(&mut self) -> io::Result<()> {
        self.next().map(drop)
    }
}

impl<R: Read> Read for Stutters<R> {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        let len = self.next()?.min(buf.len());
        self.inner.read(&mut buf[..len])
    }
}

/// What an event loop does, but for the waiting. Says how often the stream stalled.
fn pump(session: &mut impl Session) -> (Verdict, usize) {
    let mut stalled = 0;
    for _ in 0..10_000 {
        match session.step() {
            Interest::Now | Interest::DataFd => {}
            Interest::Stream => stalled += 1,
            Interest::Switchover => session.event(Event::Switchover).unwrap(),
            Interest::Run => session.event(Event::Run).unwrap(),
            Interest::Call(_) => session.called(true).unwrap(),
            Interest::Decide(_) => session.decide(Recovery::StopCopy).unwrap(),
            Interest::Done(verdict) => return (verdict, stalled),
        }
    }
    panic!("comes to no end");
}

/// V6, R10: an event loop, with a sink and a source that take and give as they like, makes and
/// takes the same stream as a VMM that blocks.
#[test]
fn an_event_loop_makes_the_same_stream() {
    for features in Features::SETS {
        for plan in [plan(), Plan { chunk: 4, ..Plan::SNAPSHOT }] {
            let mut blocking = Vec::new();
            let device = Shared::new(features, 7);
            let mut saving = Saving::new(plan, COMPAT, device, &mut blocking).unwrap();
            assert_eq!(saving.run(&mut NoGuest).verdict, COMPLETE);
            drop(saving);

            let mut stream = Vec::new();
            let device = Shared::new(features, 7);
            let sink = Stutters::new(&mut stream);
            let mut saving = Saving::new(plan, COMPAT, device.clone(), sink).unwrap();
            let (verdict, stalled) = pump(&mut saving);
            assert_eq!(verdict, COMPLETE);
            assert!(stalled > 10, "{stalled}");
            drop(saving);
            assert_eq!(stream, blocking);
            device.ends(if plan.then == Then::Stop { State::Stop } else { State::Running });

            let device = Shared::new(features, 0);
            let (source, accepts) = (Stutters::new(&stream[..]), |compat: &str| compat == COMPAT);
            let mut loading =
                Loading::new(LoadPlan::default(), LIMITS, accepts, device.clone(), source);
            let (verdict, stalled) = pump(&mut loading);
            assert_eq!(verdict, COMPLETE);
            assert!(stalled > 10, "{stalled}");
            assert_eq!(device.value(), 7);
            device.ends(State::Running);
        }
    }
}

/// Takes so many bytes, and then fails, or takes none.
struct Fails {
    left: usize,
    error: Option<ErrorKind>,
}

impl Write for Fails {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        match (self.left, self.error) {
            (0, Some(error)) => Err(error.into()),
            (left, _) => {
                let taken = left.min(bytes.len());
                self.left -= taken;
                Ok(taken)
            }
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// V6, V7, R10: whichever byte the sink fails at, the device is brought home, the migration is
/// none, and the error is told beside the verdict.
#[test]
fn a_sink_that_fails_at_any_byte() {
    for plan in [plan(), Plan { pre_copy: false, ..plan() }, Plan { then: Then::Back, ..plan() }] {
        for error in [Some(ErrorKind::BrokenPipe), None] {
            for left in 0..saved(plan).len() {
                let device = Shared::new(Features::ALL, 7);
                let sink = Fails { left, error };
                let mut saving = Saving::new(plan, COMPAT, device.clone(), sink).unwrap();
                let outcome = saving.run(&mut NoGuest);
                assert_eq!(outcome.verdict, aborted(Cause::PeerLost), "{left}");
                let Some(StreamError::Io(seen)) = outcome.error else { panic!("{left}") };
                assert_eq!(seen.kind(), error.unwrap_or(ErrorKind::WriteZero));
                assert!(outcome.standing.aborting);
                device.ends(State::Running);
                assert_eq!(device.value(), 7);
            }
        }
    }
}

/// What is still in a buffered sink when all else is done has to get through, too.
#[test]
fn a_sink_that_fails_to_flush() {
    struct Full;
    impl Write for Full {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            Ok(bytes.len())
        }
        fn flush(&mut self) -> io::Result<()> {
            Err(ErrorKind::StorageFull.into())
        }
    }
    let device = Shared::new(Features::ALL, 7);
    let outcome = Saving::new(plan(), COMPAT, device.clone(), Full).unwrap().run(&mut NoGuest);
    assert_eq!(outcome.verdict, aborted(Cause::PeerLost));
    assert!(matches!(outcome.error, Some(StreamError::Io(_))));
    device.ends(State::Running);
}

/// V8, R10: a stream that ends anywhere before its end leaves a blank device, and says so.
#[test]
fn a_source_that_ends_too_soon() {
    let stream = saved(plan());
    for len in 0..stream.len() {
        let device = Shared::new(Features::ALL, 0);
        let outcome = load(&device, &stream[..len]);
        assert_eq!(outcome.verdict, aborted(Cause::PeerLost), "{len}");
        let Some(StreamError::Frame(error)) = outcome.error else { panic!("{len}") };
        assert!(matches!(error, FrameError::Truncated { .. }), "{len}: {error}");
        device.ends(State::Running);
        assert_eq!(device.value(), 0);
    }
}

/// V8, R10: a stream with any byte changed is refused, what it had written is reset away, and the
/// decoder's own words are kept.
#[test]
fn a_source_that_lies() {
    let stream = saved(plan());
    for at in 0..stream.len() {
        let mut bad = stream.clone();
        bad[at] ^= 0x10;
        let device = Shared::new(Features::ALL, 0);
        let outcome = load(&device, &bad[..]);
        let cause = match outcome.verdict {
            Verdict::Aborted { cause: cause @ (Cause::BadStream | Cause::PeerLost), .. } => cause,
            other => panic!("{at}: {other}"),
        };
        let Some(StreamError::Frame(error)) = outcome.error else { panic!("{at}") };
        // A length that was changed can also want more than there is.
        assert_eq!(cause == Cause::PeerLost, matches!(error, FrameError::Truncated { .. }));
        device.ends(State::Running);
        assert_eq!(device.value(), 0, "{at}");
    }
}

/// V8, R10: a source that fails is like one that ends, but for the error.
#[test]
fn a_source_that_fails() {
    struct Broken<'a>(&'a [u8]);
    impl Read for Broken<'_> {
        fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
            match self.0.read(buf)? {
                0 => Err(ErrorKind::ConnectionReset.into()),
                len => Ok(len),
            }
        }
    }
    let stream = saved(plan());
    for len in 0..stream.len() {
        let device = Shared::new(Features::ALL, 0);
        let outcome = load(&device, Broken(&stream[..len]));
        assert_eq!(outcome.verdict, aborted(Cause::PeerLost));
        let Some(StreamError::Io(seen)) = outcome.error else { panic!("{len}") };
        assert_eq!(seen.kind(), ErrorKind::ConnectionReset);
        device.ends(State::Running);
    }
}

/// F4: nothing is read behind the end, for the connection may carry other things.
#[test]
fn nothing_is_read_behind_the_end() {
    let mut stream = saved(plan());
    stream.extend_from_slice(b"next");
    let mut source = &stream[..];
    assert_eq!(load(&Shared::new(Features::ALL, 0), &mut source).verdict, COMPLETE);
    assert_eq!(source, b"next");
}

/// A device that a stream is not for is not even asked what it can do.
#[test]
fn a_stream_for_something_else() {
    struct Never;
    impl Observer for Never {
        fn before(&mut self, op: &Op<&[u8]>) {
            panic!("{op}");
        }
    }
    let stream = saved(plan());
    let device = Shared::new(Features::ALL, 0);
    let accepts = |compat: &str| compat != COMPAT;
    let loading = Loading::new(LoadPlan::default(), LIMITS, accepts, device.clone(), &stream[..]);
    let outcome = loading.observed(Never).run(&mut NoGuest);
    assert_eq!(outcome.verdict, aborted(Cause::BadStream));
    let error = outcome.error.unwrap();
    assert!(matches!(&error, StreamError::Incompatible { compat } if compat == COMPAT), "{error}");
    device.ends(State::Running);
}

/// F2: a stream with chunks larger than the room that was set aside is refused by its header.
#[test]
fn chunks_that_are_too_large() {
    let stream = saved(Plan { chunk: 5, ..plan() });
    let outcome = load(&Shared::new(Features::ALL, 0), &stream[..]);
    let Some(StreamError::Frame(error)) = outcome.error else { panic!() };
    assert_eq!(error, FrameError::MaxData { got: 5, limit: 4 });
}

#[test]
fn a_plan_that_cannot_be_sent() {
    let new = |plan, compat| Saving::new(plan, compat, Shared::new(Features::ALL, 0), io::sink());
    let none = Plan { chunk: 0, ..plan() };
    assert_eq!(new(none, COMPAT).err(), Some(EncodeError::MaxData));
    assert!(new(plan(), "a\nb").is_err());
}

/// A chunk is one write with its head, the payload at a page, and reads go to one and the same
/// place: nothing is copied or allocated on the way.
#[test]
fn a_chunk_is_one_write_without_a_copy() {
    #[derive(Default)]
    struct Sees {
        payloads: Vec<usize>,
        writes: usize,
        flushes: usize,
    }
    impl Write for &mut Sees {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.writes += 1;
            // DATA of the longest length.
            if bytes.len() == 20 && bytes[..8] == [1, 0, 0, 0, 4, 0, 0, 0] {
                self.payloads.push(bytes[16..].as_ptr().addr());
            }
            Ok(bytes.len())
        }
        fn flush(&mut self) -> io::Result<()> {
            self.flushes += 1;
            Ok(())
        }
    }
    struct Reads(Vec<usize>);
    impl Observer for Reads {
        fn after(&mut self, op: &Op<&[u8]>, reply: &Reply<&[u8]>) {
            if let (Op::Read { .. }, Reply::Bytes(bytes)) = (op, reply) {
                self.0.push(bytes.as_ptr().addr());
            }
        }
    }
    let mut sees = Sees::default();
    let device = Shared::new(Features::ALL, 7);
    let saving = Saving::new(plan(), COMPAT, device, &mut sees).unwrap();
    let mut saving = saving.observed(Reads(Vec::new()));
    assert_eq!(saving.run(&mut NoGuest).verdict, COMPLETE);
    let reads = std::mem::take(&mut saving.observer().0);
    drop(saving);
    // Twice ten bytes: three chunks each; and the header, INITIAL_BYTES_SENT and END.
    assert_eq!((reads.len(), sees.writes, sees.flushes), (6, 6 + 3, 3));
    assert!(sees.payloads.len() >= 4);
    assert!(sees.payloads.iter().chain(&reads).all(|at| at % 4096 == 0 && *at == reads[0]));
}

/// An observer sees every op and its answer, in order, and data_fds by the numbers that the device
/// gives them, also when there are several.
#[test]
fn an_observer_sees_what_the_device_sees() {
    /// A port that writes down what it is asked and answers.
    struct Recorded(Shared, Rc<RefCell<Vec<String>>>);
    impl Port for Recorded {
        type Fd = Fd;
        fn apply<'b>(&mut self, op: Op<&[u8], &Fd>, buf: &'b mut [u8]) -> Reply<&'b [u8]> {
            let asked = op.map_fd(|fd| *fd).to_string();
            let reply = self.0.apply(op, buf);
            self.1.borrow_mut().push(format!("{asked}: {reply}"));
            reply
        }
    }
    struct Records {
        device: Shared,
        asked: String,
        lines: Vec<String>,
        frames: usize,
    }
    impl Observer for Records {
        fn before(&mut self, op: &Op<&[u8]>) {
            self.asked = op.to_string();
            if self.asked == "SET STOP_COPY" && self.frames == 4 {
                self.device.apply(Op::Reset, &mut []);
            }
        }
        fn after(&mut self, op: &Op<&[u8]>, reply: &Reply<&[u8]>) {
            assert_eq!(self.asked, op.to_string());
            self.lines.push(format!("{op}: {reply}"));
        }
        fn frame(&mut self, _frame: &Frame) {
            self.frames += 1;
        }
    }
    let (device, lines) = (Shared::new(Features::ALL, 7), Rc::default());
    let records =
        Records { device: device.clone(), asked: String::new(), lines: Vec::new(), frames: 0 };
    let port = Recorded(device, Rc::clone(&lines));
    let saving = Saving::new(plan(), COMPAT, port, io::sink()).unwrap();
    let mut saving = saving.observed(records);
    assert_eq!(pump(&mut saving).0, Verdict::Complete { guest: Guest::ResetByItself });
    assert_eq!(saving.observer().lines, *lines.borrow());
    assert!(lines.borrow().contains(&"SET STOP_COPY: ok, fd#2".to_owned()));
    // Three chunks and INITIAL_BYTES_SENT; DISCARD, three chunks again, and END.
    assert_eq!(saving.observer().frames, 4 + 5);
    let standing = saving.standing();
    assert_eq!((standing.progress.bytes(), standing.epoch, standing.aborting), (10 + 10, 2, false));
}

/// Who does not wait for the header of a stream that does not come, gets away.
/// A guest that changes its device as fast as it is read: the copy never converges, and the VMM sees
/// it and stops waiting.
#[test]
fn a_copy_that_does_not_converge() {
    struct Busy {
        device: Shared,
        most: u32,
    }
    impl Vmm for Busy {
        fn hook(&mut self, _hook: Hook) -> bool {
            true
        }

        fn event(&mut self, standing: &Standing) -> Option<Event> {
            self.most = self.most.max(standing.progress.stalled_looks());
            if standing.frozen {
                return None;
            }
            let _reply = self.device.apply(Op::Touch(6), &mut []);
            (standing.progress.stalled_looks() == 3).then_some(Event::Switchover)
        }

        fn wait(&mut self, _interest: &Interest, _standing: &Standing) -> Option<Event> {
            None
        }
    }
    let device = Shared::new(Features::ALL, 5);
    let mut vmm = Busy { device: device.clone(), most: 0 };
    let mut stream = Vec::new();
    let mut saving = Saving::new(plan(), COMPAT, device.clone(), &mut stream).unwrap();
    assert_eq!(saving.run(&mut vmm).verdict, COMPLETE);
    assert_eq!(vmm.most, 3);
    let target = Shared::new(Features::ALL, 0);
    assert_eq!(load(&target, &stream[..]).verdict, COMPLETE);
    assert_eq!(target.value(), 6);
}

#[test]
fn cancelled_before_anything_came() {
    struct Nothing;
    impl Read for Nothing {
        fn read(&mut self, _buf: &mut [u8]) -> io::Result<usize> {
            Err(ErrorKind::WouldBlock.into())
        }
    }
    let device = Shared::new(Features::ALL, 0);
    let mut loading = Loading::new(LoadPlan::default(), LIMITS, |_| true, device.clone(), Nothing);
    assert_eq!(loading.step(), Interest::Stream);
    assert!(loading.event(Event::Reset).is_err());
    assert_eq!(loading.step(), Interest::Stream);
    loading.event(Event::Cancel).unwrap();
    assert_eq!(loading.step(), Interest::Done(aborted(Cause::Cancelled)));
    device.ends(State::Running);
}

/// R10: who gives up does not wait for a sink that takes nothing more, and has no image: whichever
/// frame it was that got stuck.
#[test]
fn cancelled_while_the_sink_is_full() {
    struct Full(usize);
    impl Write for Full {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            match self.0.min(bytes.len()) {
                0 => Err(ErrorKind::WouldBlock.into()),
                taken => {
                    self.0 -= taken;
                    Ok(taken)
                }
            }
        }
        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }
    for plan in [plan(), Plan { then: Then::Back, ..plan() }] {
        for room in 0..saved(plan).len() {
            let device = Shared::new(Features::ALL, 7);
            let mut saving = Saving::new(plan, COMPAT, device.clone(), Full(room)).unwrap();
            let mut steps = 0;
            let verdict = loop {
                steps += 1;
                assert!(steps < 1000, "comes to no end");
                match saving.step() {
                    Interest::Switchover => saving.event(Event::Switchover).unwrap(),
                    Interest::Call(_) => saving.called(true).unwrap(),
                    Interest::Stream => saving.event(Event::Cancel).unwrap(),
                    Interest::Done(verdict) => break verdict,
                    _ => {}
                }
            };
            assert_eq!(verdict, aborted(Cause::Cancelled), "{room}");
            assert!(saving.take_error().is_none());
            device.ends(State::Running);
        }
    }
}

/// An answer that was not asked for changes nothing.
#[test]
fn out_of_turn() {
    let device = Shared::new(Features::ALL, 0);
    let mut saving = Saving::new(plan(), COMPAT, device, Vec::new()).unwrap();
    assert!(saving.called(true).is_err());
    assert!(saving.decide(Recovery::Abort).is_err());
    let mut stream = &saved(plan())[..];
    let device = Shared::new(Features::ALL, 0);
    let mut loading = Loading::new(LoadPlan::default(), LIMITS, |_| true, device, &mut stream);
    assert!(loading.called(true).is_err());
    assert!(loading.decide(Recovery::Abort).is_err());
    assert_eq!(pump(&mut saving).0, COMPLETE);
    assert_eq!(pump(&mut loading).0, COMPLETE);
}
