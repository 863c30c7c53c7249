// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! The protocol as a specification that knows nothing of our code can state it.
//!
//! The core's own device is explored with a small alphabet, every combination of it, and then looked
//! at: of each device only what [`Seen`] has is kept, of each reply only what [`Answer`] says. The
//! words that these print are those of `specs/murphi`, `specs/promela` and `specs/tla`, so that the
//! graphs can be compared line by line. `specs/checked-twice.md` says what is left out and why.

use std::fmt;

use vfio_fsm_core::device::{Bug, DeviceData, Memory, Planted};
use vfio_fsm_core::{
    Direction, EndOfStream, Errno, Fault, Fd, Features, Leaves, Op, PrecopyInfo, RawState,
    Readiness, Reply, Route, State,
};

use super::Graph;
use crate::world::ModelDevice;

/// What is kept of a device and the process that uses it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Seen {
    /// Whether the device is open.
    pub open: bool,
    /// The device_state.
    pub state: State,
    /// What the device's own registers hold.
    pub content: Content,
    /// The session and what is in its stream.
    pub stream: Stream,
    /// The process' data_fds, in the order of opening.
    pub fds: [Option<Entry>; 2],
}

/// A data_fd that is open.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Entry {
    /// What it is for.
    pub direction: Direction,
    /// Whether its session is alive.
    pub live: bool,
}

/// What the device's own registers hold: who wrote them last.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Content {
    /// Nobody since the last reset.
    Blank,
    /// The guest.
    Touched,
    /// A load, RESUMING to STOP.
    Loaded,
}

/// A session and what is in its stream.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Stream {
    /// No session.
    None,
    /// A saving session in a pre-copy state: whether initial and dirty bytes are left.
    PreCopy {
        /// Initial bytes are left (R35).
        initial: bool,
        /// Dirty bytes are left (R36).
        dirty: bool,
    },
    /// A saving session in STOP_COPY: whether anything is left (R31).
    StopCopy {
        /// Something is left.
        more: bool,
    },
    /// A resuming session, and what was written.
    Resuming(Written),
    /// A session in a state that has none: no correct device has this.
    Odd,
}

/// What was written into RESUMING.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Written {
    /// Nothing.
    Empty,
    /// A half of a stream.
    Part,
    /// One whole stream.
    Whole,
    /// What is no stream (R29).
    Bad,
}

/// One thing that can happen.
pub type Input = Op<&'static [u8]>;

/// What came of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Answer(pub Reply<(), ()>);

/// What an edge says.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Label {
    /// What happened.
    pub input: Input,
    /// What came of it.
    pub answer: Answer,
}

/// What the guest writes.
const TOUCHED: u8 = 1;
const WHOLE: &[u8] = b"F\x03";
/// Twice this is a whole stream, too: a tag is a possible register.
const HALF: &[u8] = b"F";
/// Neither the beginning of a stream nor the rest of one.
const JUNK: &[u8] = b"\x03\x03";

/// A read that takes everything there can be in the stream of one register.
const ALL: u32 = 8;

/// The graph of a device with these flags as it is seen, with a bug in it or without.
pub fn seen(features: Features, bug: Option<Bug>) -> Graph<Seen, Label> {
    let planted = bug.map_or(Planted::NONE, Planted::bug);
    let start = ModelDevice::with_bug(features, Memory::new(), planted);
    let whole: Graph<ModelDevice, Label> = Graph::explore(start, |device, found| {
        found.extend(inputs(device).into_iter().map(|input| {
            let (after, answer) = after(device, input);
            (Label { input, answer }, after)
        }));
    });
    whole.image(look, |_, label| *label)
}

fn after(device: &ModelDevice, input: Input) -> (ModelDevice, Answer) {
    let mut after = *device;
    let mut buf = [0; ALL as usize];
    let reply = after.apply(input, &mut buf).map(|_| ()).map_fd(|_| ());
    (after.renumbered(), Answer(reply.roughly()))
}

/// Of numbers only whether they are 0.
trait Roughly {
    fn roughly(self) -> Self;
}

impl Roughly for Reply<(), ()> {
    fn roughly(self) -> Self {
        match self {
            Self::Written(_) => Self::Ok,
            Self::Info(PrecopyInfo { initial_bytes, dirty_bytes, reinit }) => {
                let (initial_bytes, dirty_bytes) = (initial_bytes.min(1), dirty_bytes.min(1));
                Self::Info(PrecopyInfo { initial_bytes, dirty_bytes, reinit })
            }
            exact => exact,
        }
    }
}

/// What can happen to a device: the labels are the same whether it is open or not.
fn inputs(device: &ModelDevice) -> Vec<Input> {
    let mut inputs = vec![Op::Open, Op::Close, Op::Reset, Op::GetState];
    let state = device.fsm().state();
    if device.is_open() && matches!(state, State::Running | State::PreCopy) {
        inputs.push(Op::Touch(TOUCHED));
    }
    let features = device.fsm().features();
    for number in 0..=State::ALL.len() as u32 {
        let to = RawState(number);
        let route = to.known().and_then(|to| Route::new(features, state, to).ok());
        let faults = [None, Some(Fault::FdTableFull), Some(Fault::ResetInside)].into_iter();
        let failing = (0..route.map_or(0, |route| route.len() as u8)).flat_map(|hop| {
            let fails = |leaves| Some(Fault::ArcFails { hop, errno: Errno::EIO, leaves });
            [fails(Leaves::Source), fails(Leaves::Error)]
        });
        inputs.extend(faults.chain(failing).map(|fault| Op::SetState { to, fault }));
    }
    for fd in device.fds().open().map(|open| open.fd) {
        inputs.extend([Op::Read { fd, len: ALL }, Op::PrecopyInfo { fd }, Op::Poll { fd }]);
        inputs.extend([WHOLE, HALF, JUNK].map(|bytes| Op::Write { fd, bytes }));
        inputs.push(Op::CloseFd { fd });
    }
    inputs
}

fn look(device: &ModelDevice) -> Seen {
    let fsm = device.fsm();
    let mut fds: Vec<_> = device.fds().open().collect();
    fds.sort_unstable_by_key(|open| open.fd);
    let mut fds = fds
        .into_iter()
        .map(|open| Entry { direction: open.direction, live: device.is_live(open.fd) });
    Seen {
        open: device.is_open(),
        state: fsm.state(),
        content: match device.actions().registers() {
            [0] => Content::Blank,
            [TOUCHED] => Content::Touched,
            _ => Content::Loaded,
        },
        stream: fsm.session().map_or(Stream::None, |_| stream(device)),
        fds: [fds.next(), fds.next()],
    }
}

fn stream(device: &ModelDevice) -> Stream {
    // Asked of what acts, past the state machine that may refuse to pass it on.
    let mut data = *device.actions();
    match device.fsm().state() {
        State::PreCopy | State::PreCopyP2p => data.precopy_info().map_or(Stream::Odd, |info| {
            Stream::PreCopy { initial: info.initial_bytes > 0, dirty: info.dirty_bytes > 0 }
        }),
        State::StopCopy => Stream::StopCopy { more: data.readable() },
        State::Resuming => Stream::Resuming(written(data)),
        State::Error | State::Stop | State::Running | State::RunningP2p => Stream::Odd,
    }
}

/// What was written is told by what more can be.
fn written(data: Memory<1>) -> Written {
    let takes = |bytes: &[u8]| {
        let mut data = data;
        data.write(bytes).is_ok()
    };
    match (data.is_loadable(), takes(WHOLE), takes(HALF)) {
        (true, _, _) => Written::Whole,
        (_, true, _) => Written::Empty,
        (_, _, true) => Written::Part,
        _ => Written::Bad,
    }
}

impl fmt::Display for Seen {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { open, state, content, stream, fds } = self;
        let open = if *open { "OPEN" } else { "CLOSED" };
        write!(f, "{open} {state} {content} {stream}")?;
        fds.iter().try_for_each(|entry| match entry {
            None => f.write_str(" FREE"),
            Some(Entry { direction, live }) => {
                let way = if *direction == Direction::Saving { "SAVE" } else { "RESUME" };
                write!(f, " {way}_{}", if *live { "LIVE" } else { "DEAD" })
            }
        })
    }
}

impl fmt::Display for Content {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Blank => "BLANK",
            Self::Touched => "TOUCHED",
            Self::Loaded => "LOADED",
        })
    }
}

impl fmt::Display for Stream {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::None => "NO_SESSION",
            Self::PreCopy { initial: true, dirty: false } => "INITIAL",
            Self::PreCopy { initial: true, dirty: true } => "INITIAL_DIRTY",
            Self::PreCopy { initial: false, dirty: true } => "DIRTY",
            Self::PreCopy { initial: false, dirty: false } => "DRAINED",
            Self::StopCopy { more: true } => "MORE",
            Self::StopCopy { more: false } => "ALL_READ",
            Self::Resuming(Written::Empty) => "EMPTY",
            Self::Resuming(Written::Part) => "PART",
            Self::Resuming(Written::Whole) => "WHOLE",
            Self::Resuming(Written::Bad) => "BAD",
            Self::Odd => "ODD",
        })
    }
}

impl fmt::Display for Answer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            Reply::Ok => f.write_str("OK"),
            Reply::State(state) => write!(f, "{state}"),
            Reply::Fd(Some(())) => f.write_str("FD"),
            Reply::Fd(None) => f.write_str("NO_FD"),
            Reply::Bytes(()) => f.write_str("BYTES"),
            Reply::EndOfStream(EndOfStream::Temporary) => f.write_str("END_FOR_NOW"),
            Reply::EndOfStream(EndOfStream::Permanent) => f.write_str("END_OF_STREAM"),
            Reply::Info(PrecopyInfo { initial_bytes, dirty_bytes, .. }) => {
                let (initial, dirty) = (initial_bytes > 0, dirty_bytes > 0);
                write!(f, "{}", Stream::PreCopy { initial, dirty })
            }
            Reply::Ready(Readiness { readable, writable, hangup }) => {
                f.write_str(match (readable, writable, hangup) {
                    (true, false, false) => "READABLE",
                    (false, false, false) => "NOTHING",
                    (false, true, false) => "WRITABLE",
                    (true, false, true) => "HANGUP",
                    _ => "ODD",
                })
            }
            Reply::Errno(errno) => write!(f, "{errno}"),
            Reply::Features(_) | Reply::Written(_) | Reply::Size(_) | Reply::FdFlags(_) => {
                f.write_str("ODD")
            }
        }
    }
}

impl fmt::Display for Label {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let on = |f: &mut fmt::Formatter<'_>, what, fd: Fd| write!(f, "{what} {}", fd.0);
        match self.input {
            Op::Open => f.write_str("OPEN"),
            Op::Close => f.write_str("CLOSE"),
            Op::Reset => f.write_str("RESET"),
            Op::GetState => f.write_str("GET"),
            Op::Touch(_) => f.write_str("TOUCH"),
            Op::SetState { to, fault } => set(f, to, fault),
            Op::Read { fd, .. } => on(f, "READ", fd),
            Op::PrecopyInfo { fd } => on(f, "PRECOPY_INFO", fd),
            Op::Poll { fd } => on(f, "POLL", fd),
            Op::Write { fd, bytes: WHOLE } => on(f, "WRITE_WHOLE", fd),
            Op::Write { fd, bytes: HALF } => on(f, "WRITE_HALF", fd),
            Op::Write { fd, .. } => on(f, "WRITE_JUNK", fd),
            Op::CloseFd { fd } => on(f, "CLOSE_FD", fd),
            other => write!(f, "{other}"),
        }?;
        write!(f, " => {}", self.answer)
    }
}

fn set(f: &mut fmt::Formatter<'_>, to: RawState, fault: Option<Fault>) -> fmt::Result {
    match to.known() {
        Some(state) => write!(f, "SET {state} ")?,
        None => f.write_str("SET UNKNOWN ")?,
    }
    match fault {
        None => f.write_str("NONE"),
        Some(Fault::FdTableFull) => f.write_str("FULL"),
        Some(Fault::ResetInside) => f.write_str("RESET_INSIDE"),
        Some(Fault::ArcFails { hop, leaves, .. }) => {
            let left = if leaves == Leaves::Error { "ERROR" } else { "SOURCE" };
            write!(f, "FAIL_{hop}_{left}")
        }
    }
}
