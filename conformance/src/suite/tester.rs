// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! The inputs of a device's machines, and who does them: on a script, or on a target as it is.

use std::fmt;

use serde::Serialize;
use vfio_fsm_core::{Errno, Fault, Fd, Features, Leaves, Op, PrecopyInfo, RawState, Reply, State};

use crate::replay::{Target, TargetError};
use crate::suite::script::READ;
use crate::trace::Data;

/// Which machine of a device: how much of it is asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, clap::ValueEnum)]
#[serde(rename_all = "snake_case")]
pub enum Kind {
    /// SET, GET, RESET and arcs that fail. A data_fd is fed if it can be, and closed, at once.
    Control,
    /// And the data_fd handed out last: read, write, PRECOPY_INFO, close; and the device reopened.
    Stream,
    /// And the data_fd before that.
    Epochs,
}

impl Kind {
    /// Every machine.
    pub const ALL: [Self; 3] = [Self::Control, Self::Stream, Self::Epochs];

    const fn name(self) -> &'static str {
        match self {
            Self::Control => "control",
            Self::Stream => "stream",
            Self::Epochs => "epochs",
        }
    }
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.name())
    }
}

/// Which data_fd.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Which {
    /// The one handed out last, open or closed.
    Last,
    /// The one before.
    Earlier,
}

/// One thing to do: the same ops whatever state the device is in.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Input {
    /// SET of this number.
    Set(RawState),
    /// SET of STOP, whose first arc fails into ERROR.
    Fault,
    /// GET of the device_state.
    Get,
    /// `VFIO_DEVICE_RESET`.
    Reset,
    /// Close the device and open it.
    Reopen,
    /// SET of STOP and then a reset. A RESUMING session without a whole stream may be left in two
    /// ways (R29), which the reset makes one again.
    StopThenReset,
    /// Read to the end.
    Read(Which),
    /// Write a whole stream.
    Write(Which),
    /// PRECOPY_INFO.
    Info(Which),
    /// Close the data_fd.
    CloseFd(Which),
}

/// A number that is no state.
const NO_STATE: RawState = RawState(State::ALL.len() as u32);

impl Input {
    /// Those of a machine. `faults`: whether arcs can be made to fail.
    pub fn all(kind: Kind, faults: bool) -> Vec<Self> {
        let states = State::ALL.iter().map(|&state| state.into()).chain([NO_STATE]);
        let mut inputs: Vec<_> = states.map(Self::Set).collect();
        inputs.extend([Self::Get, Self::Reset]);
        inputs.extend(faults.then_some(Self::Fault));
        let fds = match kind {
            Kind::Control => return inputs,
            Kind::Stream => &[Which::Last][..],
            Kind::Epochs => &[Which::Last, Which::Earlier],
        };
        inputs.extend([Self::StopThenReset, Self::Reopen]);
        for &fd in fds {
            inputs.extend([Self::Read(fd), Self::Write(fd), Self::Info(fd), Self::CloseFd(fd)]);
        }
        inputs
    }

    /// Those of a machine without faults that can be said over vfio-user: no data_fd is closed or asked
    /// for its PRECOPY_INFO, and no device reopened. `None`: it has no word for the machine.
    pub fn over_vfio_user(kind: Kind) -> Option<Vec<Self>> {
        let mut inputs = (kind != Kind::Epochs).then(|| Self::all(kind, false))?;
        inputs.retain(|input| !matches!(input, Self::Info(_) | Self::CloseFd(_) | Self::Reopen));
        Some(inputs)
    }
}

impl fmt::Display for Input {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (what, fd) = match self {
            Self::Set(to) => return write!(f, "set-{to}"),
            Self::Fault => return f.write_str("fault"),
            Self::Get => return f.write_str("get"),
            Self::Reset => return f.write_str("reset"),
            Self::Reopen => return f.write_str("reopen"),
            Self::StopThenReset => return f.write_str("stop-reset"),
            Self::Read(fd) => ("read", fd),
            Self::Write(fd) => ("write", fd),
            Self::Info(fd) => ("info", fd),
            Self::CloseFd(fd) => ("close", fd),
        };
        f.write_str(what)?;
        if *fd == Which::Earlier { f.write_str("-earlier") } else { Ok(()) }
    }
}

/// What a tester works with: something that does ops to a device.
pub(crate) trait Hands {
    /// Do it.
    fn op(&mut self, op: Op<Data>) -> Reply<usize>;

    /// Read until something else than bytes is answered.
    fn drain(&mut self, fd: Fd) -> Reply<usize>;
}

impl<H: Hands> Hands for &mut H {
    fn op(&mut self, op: Op<Data>) -> Reply<usize> {
        (**self).op(op)
    }

    fn drain(&mut self, fd: Fd) -> Reply<usize> {
        (**self).drain(fd)
    }
}

/// The slot with the stream of a device in its reset state.
pub(super) const STREAM: u8 = 0;

/// Does inputs, and keeps the fd table small.
#[derive(Clone, Debug)]
pub(crate) struct Tester<H> {
    pub(super) hands: H,
    kind: Kind,
    last: (Fd, bool),
    earlier: (Fd, bool),
}

impl<H: Hands> Tester<H> {
    /// On a device in RUNNING that has handed out this data_fd, which is closed.
    pub(super) fn new(kind: Kind, hands: H, fd: Fd) -> Self {
        Self { hands, kind, last: (fd, false), earlier: (fd, false) }
    }

    /// Do it.
    pub(crate) fn input(&mut self, input: Input) -> Answer {
        match input {
            Input::Set(to) => self.set(to),
            Input::Fault => {
                let fault = Fault::ArcFails { hop: 0, errno: Errno::EIO, leaves: Leaves::Error };
                self.op(Op::SetState { to: State::Stop.into(), fault: Some(fault) })
            }
            Input::Get => self.op(Op::GetState),
            Input::Reset => self.op(Op::Reset),
            Input::Reopen => self.op(Op::Close).and(self.op(Op::Open)),
            Input::StopThenReset => self.op(Op::set(State::Stop)).and(self.op(Op::Reset)),
            Input::Read(which) => Answer::new(self.hands.drain(self.fd(which).0)),
            Input::Write(which) => {
                self.op(Op::Write { fd: self.fd(which).0, bytes: Data::slot(STREAM) })
            }
            Input::Info(which) => self.op(Op::PrecopyInfo { fd: self.fd(which).0 }),
            Input::CloseFd(which) => self.close(which),
        }
    }

    fn op(&mut self, op: Op<Data>) -> Answer {
        Answer::new(self.hands.op(op))
    }

    /// A data_fd, and whether it is open.
    pub(super) const fn fd(&self, which: Which) -> (Fd, bool) {
        match which {
            Which::Last => self.last,
            Which::Earlier => self.earlier,
        }
    }

    fn close(&mut self, which: Which) -> Answer {
        let fd = self.fd(which).0;
        // There may be one only, under both names.
        for known in [&mut self.last, &mut self.earlier] {
            known.1 &= known.0 != fd;
        }
        self.op(Op::CloseFd { fd })
    }

    /// A data_fd that SET returns is minded from now on, and the oldest no longer.
    fn set(&mut self, to: RawState) -> Answer {
        let reply = self.hands.op(Op::set(to));
        if let Reply::Fd(Some(fd)) = reply {
            let oldest = if self.kind == Kind::Epochs { Which::Earlier } else { Which::Last };
            if self.fd(oldest).1 {
                self.close(oldest);
            }
            self.earlier = self.last;
            self.last = (fd, true);
            if self.kind == Kind::Control {
                if to == State::Resuming.into() {
                    self.op(Op::Write { fd, bytes: Data::slot(STREAM) });
                }
                self.close(Which::Last);
            }
        }
        Answer::new(reply)
    }

    /// Back to the beginning, in the same life: a reset, and every data_fd closed.
    pub(super) fn start_over(&mut self) {
        self.hands.op(Op::Reset);
        for which in [Which::Last, Which::Earlier] {
            if self.fd(which).1 {
                self.close(which);
            }
        }
        self.earlier = self.last;
    }
}

/// What an input was answered, as far as answers are compared: those that a correct device may give
/// one instead of the other are the same.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Answer(Reply<(), Fd>, Option<Reply<(), Fd>>);

impl Answer {
    fn new(reply: Reply<usize>) -> Self {
        let any = match reply {
            Reply::Info(_) => Reply::Info(PrecopyInfo::default()),
            Reply::Written(_) => Reply::Written(0),
            reply => reply.map(|_| ()).map_fd(|_| NEVER),
        };
        Self(any, None)
    }

    /// And the next op of the same input.
    fn and(self, next: Self) -> Self {
        Self(self.0, Some(next.0))
    }
}

impl fmt::Display for Answer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, reply) in [Some(self.0), self.1].into_iter().flatten().enumerate() {
            f.write_str(if index == 0 { "" } else { ", " })?;
            match reply {
                Reply::Fd(Some(_)) => f.write_str("ok, a data_fd")?,
                Reply::Info(_) => f.write_str("an info")?,
                Reply::Written(_) => f.write_str("written")?,
                Reply::Bytes(()) => f.write_str("bytes")?,
                other => other.fmt(f)?,
            }
        }
        Ok(())
    }
}

/// A data_fd that no device hands out: as good as one that is closed.
pub(super) const NEVER: Fd = Fd(u32::MAX);

/// A target, as it is.
pub struct Live<'t> {
    target: &'t mut dyn Target,
    stream: Vec<u8>,
    buffer: Vec<u8>,
    /// Ops done so far.
    pub ops: u64,
}

impl fmt::Debug for Live<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Live").field("ops", &self.ops).finish_non_exhaustive()
    }
}

/// One read asks for so much.
const BUFFER: usize = 1 << 20;

/// No device has to deliver more before its stream is taken for endless.
const LONGEST_STREAM: usize = 4 << 30;

impl<'t> Live<'t> {
    /// A target, whose own stream is read first: what is written to it later.
    pub fn new(target: &'t mut dyn Target, features: Features) -> Result<Self, TargetError> {
        target.fresh(features)?;
        let mut live = Self { target, stream: Vec::new(), buffer: vec![0; BUFFER], ops: 0 };
        if let Reply::Fd(Some(fd)) = live.op(Op::set(State::StopCopy)) {
            while let Reply::Bytes(bytes) =
                live.target.apply(Op::Read { fd, len: READ }, &mut live.buffer)
                && !bytes.is_empty()
                && live.stream.len() < LONGEST_STREAM
            {
                live.stream.extend_from_slice(bytes);
            }
        }
        Ok(live)
    }

    /// Whom it is.
    pub fn target(&mut self) -> &mut dyn Target {
        self.target
    }
}

impl Hands for Live<'_> {
    fn op(&mut self, op: Op<Data>) -> Reply<usize> {
        self.ops += 1;
        let op = match &op {
            // Data is only ever the stream.
            Op::Write { fd, .. } => return self.write(*fd),
            other => other.clone().map(|_| [].as_slice()),
        };
        self.target.apply(op, &mut self.buffer).map(<[u8]>::len)
    }

    fn drain(&mut self, fd: Fd) -> Reply<usize> {
        let mut total = 0;
        loop {
            self.ops += 1;
            match self.target.apply(Op::Read { fd, len: READ }, &mut self.buffer) {
                Reply::Bytes(bytes) if !bytes.is_empty() && total < LONGEST_STREAM => {
                    total += bytes.len();
                }
                other => return other.map(<[u8]>::len),
            }
        }
    }
}

impl Live<'_> {
    fn write(&mut self, fd: Fd) -> Reply<usize> {
        let mut done = 0;
        loop {
            let op = Op::Write { fd, bytes: &self.stream[done..] };
            match self.target.apply(op, &mut self.buffer) {
                Reply::Written(taken) => done += taken as usize,
                other => return other.map(<[u8]>::len),
            }
            // A device that takes nothing, or more than there is, would be asked for ever.
            if done == 0 || done >= self.stream.len() {
                return Reply::Written(done as u32);
            }
        }
    }
}
