// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! A device that is served over a vfio-user socket.

use std::collections::HashSet;
use std::path::{Path, PathBuf};
use std::thread;
use std::time::Duration;

use vfio_fsm_core::{
    Direction, EndOfStream, Errno, Fd, Features, IllegalFeatures, Op, RawState, Reply, Route, State,
};

use crate::replay::{Target, TargetError};
use crate::trace::Need;
use crate::vfio_user::{Client, ClientError};

/// How long one reply may take before the server counts as hanging.
const PATIENCE: Duration = Duration::from_secs(10);

/// A server that went down with a connection is given this long to be back.
const RECONNECTS: u32 = 40;
const BETWEEN: Duration = Duration::from_millis(50);

const NO_MESSAGE: &str = "vfio-user has no message for it";
const NO_DATA_FD: &str = "vfio-user has no data_fd that it could be done to";
const OTHER_SESSION: &str =
    "it is on the data_fd of an earlier session, and MIG_DATA_* reach the present one only";

/// A device that is served over a vfio-user socket.
///
/// How each op is said:
///
/// | op | message |
/// |---|---|
/// | `GetFeatures` | GET of `DEVICE_FEATURE_MIGRATION` |
/// | `GetState`, `SetState` | GET, SET of `DEVICE_FEATURE_MIG_DEVICE_STATE` |
/// | `Reset` | `DEVICE_RESET` |
/// | `Read` | `MIG_DATA_READ`, if no *other* session is open |
/// | `Write` | `MIG_DATA_WRITE`, if no *other* session is open |
/// | `Touch` | `REGION_WRITE` of one byte, where `--touch` says |
/// | `CloseFd`, and what is done to a data_fd that is closed | not said: there is no data_fd |
/// | `Seek`, `Poll`, `Pread`, `FdFlags`, `UringRead` | not said: there is no data_fd |
/// | `PrecopyInfo`, `DataSize`, `OptInPrecopyV2` | not said: there is no message |
/// | `Close`, `Open` | the trace is not applicable: a disconnect leaves the device as it is |
/// | `SetState` with a fault | the trace is not applicable: nobody can be asked for one |
///
/// An op that is not said changes nothing, so the rest of its trace is as true without it; the report
/// counts such steps with the reason.
///
/// What the messages do not tell is inferred here, and is no evidence about the device: whether a SET
/// opened a session (from the two states), which of the two ends a stream has come to (from the
/// state), and that a refusal is about a dead session (ENODEV) or the wrong direction (EBADF), as any
/// errno may be given for both. The state is what was SET or GET last; behind a SET that failed it is
/// asked for when it is needed.
#[derive(Debug)]
pub struct VfioUserTarget {
    path: PathBuf,
    touch: Option<(u32, u64)>,
    features: Features,
    /// `None` after the connection has failed.
    client: Option<Client>,
    /// `None` behind a SET that failed.
    state: Option<State>,
    sessions: Sessions,
    unsaid: Option<&'static str>,
    anomaly: Option<String>,
}

/// The data_fds that there would be.
#[derive(Debug, Default)]
struct Sessions {
    /// Which way each one goes: the first is number 1.
    ways: Vec<Direction>,
    /// The one whose session is open.
    open: Option<Fd>,
    closed: HashSet<Fd>,
    /// Whether the stream has come to its permanent end.
    ended: bool,
}

/// A server whose device cannot be tested.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum VfioUserError {
    /// There is no server, or it fails.
    #[error("{path}: {error}")]
    Client {
        /// The socket.
        path: PathBuf,
        /// Why.
        #[source]
        error: ClientError,
    },
    /// It has no migration, or not the one that is tested here.
    #[error(
        "{path}: the device cannot be migrated by VFIO migration v2 ({error}); the server must have \
         the commands DEVICE_FEATURE, MIG_DATA_READ and MIG_DATA_WRITE, which servers built on \
         libvfio-user before September 2023 lack"
    )]
    NoMigration {
        /// The socket.
        path: PathBuf,
        /// What it said.
        #[source]
        error: ClientError,
    },
    /// Its flags are none of the four.
    #[error("{path}: {error}")]
    Features {
        /// The socket.
        path: PathBuf,
        /// What it said.
        #[source]
        error: IllegalFeatures,
    },
}

impl VfioUserTarget {
    /// Connect to the server at a socket; and, to change the state of the device as a guest would,
    /// the region and offset of a byte in it.
    ///
    /// # Errors
    ///
    /// There is no server, or its device has no migration.
    pub fn open(path: &Path, touch: Option<(u32, u64)>) -> Result<Self, VfioUserError> {
        let path = path.to_owned();
        let failed = |error| VfioUserError::Client { path: path.clone(), error };
        let mut client = Client::connect(&path, PATIENCE).map_err(failed)?;
        let flags = client.migration_flags().map_err(|error| match error {
            ClientError::Refused { .. } => VfioUserError::NoMigration { path: path.clone(), error },
            error => failed(error),
        })?;
        let illegal = |error| VfioUserError::Features { path: path.clone(), error };
        let features = Features::from_flags(flags).map_err(illegal)?;
        Ok(Self {
            path,
            touch,
            features,
            client: Some(client),
            state: None,
            sessions: Sessions::default(),
            unsaid: None,
            anomaly: None,
        })
    }

    /// What the device can do.
    pub const fn features(&self) -> Features {
        self.features
    }

    fn reconnect(&mut self) -> Result<(), ClientError> {
        let mut attempts = 0;
        while self.client.is_none() {
            match Client::connect(&self.path, PATIENCE) {
                Ok(client) => self.client = Some(client),
                Err(ClientError::Connect { .. } | ClientError::Gone { .. })
                    if attempts < RECONNECTS =>
                {
                    attempts += 1;
                    thread::sleep(BETWEEN);
                }
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }

    /// Ask the server. `Err`: what it refused with. A server that fails has no reply, and the
    /// connection is over.
    fn ask<T>(
        &mut self,
        ask: impl FnOnce(&mut Client) -> Result<T, ClientError>,
    ) -> Result<T, Errno> {
        let Some(client) = &mut self.client else { return Err(Errno::ENODEV) };
        match ask(client) {
            Ok(said) => Ok(said),
            Err(ClientError::Refused { errno, .. }) => Err(errno.unwrap_or(Errno::EIO)),
            Err(ClientError::OtherState { asked, said }) => {
                let error = ClientError::OtherState { asked, said };
                self.anomaly = Some(error.to_string());
                Err(Errno::EIO)
            }
            Err(error) => {
                self.client = None;
                self.anomaly = Some(error.to_string());
                Err(Errno::EIO)
            }
        }
    }

    /// Where the device is, as far as is known without asking, or by asking.
    fn known(&mut self) -> Result<State, Errno> {
        match self.state {
            Some(state) => Ok(state),
            None => {
                self.get()?;
                self.state.ok_or(Errno::EIO)
            }
        }
    }

    fn get(&mut self) -> Result<RawState, Errno> {
        let said = RawState(self.ask(Client::state)?);
        self.state = said.known();
        self.sessions.see(self.state);
        Ok(said)
    }

    fn set(&mut self, to: RawState) -> Result<Option<Fd>, Errno> {
        let from = self.known()?;
        let target = to.known();
        let route = target.map(|target| Route::new(self.features, from, target));
        if let Err(errno) = self.ask(|client| client.set_state(to.0)) {
            // Without a route nothing happens; on one, the device may be anywhere (R8).
            if matches!(route, Some(Ok(_))) {
                self.state = None;
            }
            return Err(errno);
        }
        self.state = target;
        let opens = route.and_then(Result::ok).and_then(|route| route.opens());
        let fd = opens.map(|way| self.sessions.begin(way));
        self.sessions.see(target);
        Ok(fd)
    }

    fn reset(&mut self) -> Result<(), Errno> {
        self.ask(Client::reset)?;
        self.state = Some(State::Running);
        self.sessions.see(self.state);
        Ok(())
    }

    /// Whether an op on this data_fd can be said: if not, what the kernel would answer.
    fn reach(&mut self, fd: Fd) -> Result<(), Errno> {
        let sessions = &self.sessions;
        let (why, errno) = if sessions.way(fd).is_none() || sessions.closed.contains(&fd) {
            (NO_DATA_FD, Errno::EBADF)
        } else if sessions.open.is_some_and(|open| open != fd) {
            (OTHER_SESSION, Errno::ENODEV)
        } else {
            return Ok(());
        };
        self.unsaid = Some(why);
        Err(errno)
    }

    /// The word that traces have for a refusal: of a session that is over, or of the other direction.
    fn refusal(&self, fd: Fd, way: Direction, errno: Errno) -> Errno {
        match self.sessions.open {
            _ if self.sessions.way(fd) != Some(way) => Errno::EBADF,
            None => Errno::ENODEV,
            Some(_) => errno,
        }
    }

    fn read<'b>(&mut self, fd: Fd, buf: &'b mut [u8]) -> Result<Reply<&'b [u8]>, Errno> {
        self.reach(fd)?;
        let state = self.known()?;
        let read = |client: &mut Client| {
            let asked = buf.len().min(client.most_data() as usize);
            client.read(&mut buf[..asked]).map(|bytes| (asked, bytes.len()))
        };
        let (asked, len) = match self.ask(read) {
            Ok(read) => read,
            Err(errno) => return Err(self.refusal(fd, Direction::Saving, errno)),
        };
        if self.sessions.ended && len > 0 {
            self.anomaly = Some(format!("{len} bytes behind the end of the stream in {state}"));
        }
        self.sessions.ended |= state == State::StopCopy && len < asked;
        Ok(match (len, state) {
            (0, _) if asked == 0 => Reply::Bytes(&[]),
            (0, State::StopCopy) => Reply::EndOfStream(EndOfStream::Permanent),
            (0, _) => Reply::EndOfStream(EndOfStream::Temporary),
            _ => Reply::Bytes(&buf[..len]),
        })
    }

    fn write(&mut self, fd: Fd, bytes: &[u8]) -> Result<u32, Errno> {
        self.reach(fd)?;
        self.known()?;
        let taken = self.ask(|client| client.write(bytes));
        taken.map_err(|errno| self.refusal(fd, Direction::Resuming, errno))
    }

    fn touch(&mut self, value: u8) -> Result<(), Errno> {
        let (region, offset) = self.touch.ok_or(Errno::EOPNOTSUPP)?;
        self.ask(|client| client.region_write(region, offset, value))
    }
}

impl Sessions {
    fn begin(&mut self, way: Direction) -> Fd {
        self.ways.push(way);
        let fd = Fd(self.ways.len() as u32);
        (self.open, self.ended) = (Some(fd), false);
        fd
    }

    fn way(&self, fd: Fd) -> Option<Direction> {
        self.ways.get((fd.0 as usize).checked_sub(1)?).copied()
    }

    /// The session ends when the device leaves the states that have it.
    fn see(&mut self, state: Option<State>) {
        let way = state.and_then(State::session);
        if self.open.is_some_and(|open| self.way(open) != way) {
            self.open = None;
        }
    }
}

impl Target for VfioUserTarget {
    fn offers(&self, features: Features) -> bool {
        self.features == features
    }

    fn can(&self, need: Need) -> bool {
        match need {
            Need::SecondDevice => true,
            // Such reads are not said; see above.
            Need::Uring => true,
            Need::Touch => self.touch.is_some(),
            Need::Reopen | Need::FdTableFull | Need::ResetInside | Need::ArcFails => false,
        }
    }

    fn fresh(&mut self, _features: Features) -> Result<(), TargetError> {
        (self.unsaid, self.anomaly) = (None, None);
        self.sessions = Sessions::default();
        self.reconnect().map_err(|error| TargetError(Box::new(error)))?;
        let fresh = self.reset().and_then(|()| self.get());
        let why = match fresh {
            Ok(state) if state == State::Running.into() => return Ok(()),
            Ok(state) => format!("after a reset it is in {state}"),
            Err(errno) => format!("it cannot be reset and asked for its state: {errno}"),
        };
        let why = self.anomaly.take().unwrap_or(why);
        Err(TargetError(why.into()))
    }

    fn apply<'b>(&mut self, op: Op<&[u8]>, buf: &'b mut [u8]) -> Reply<&'b [u8]> {
        let done = match op {
            Op::GetFeatures => self.ask(Client::migration_flags).map(Reply::Features),
            Op::GetState => self.get().map(Reply::State),
            Op::SetState { to, fault: None } => self.set(to).map(Reply::Fd),
            Op::Reset => self.reset().map(|()| Reply::Ok),
            Op::Touch(value) => self.touch(value).map(|()| Reply::Ok),
            Op::Read { fd, len } => {
                let room = buf.len().min(len as usize);
                self.read(fd, &mut buf[..room])
            }
            Op::Write { fd, bytes } => self.write(fd, bytes).map(Reply::Written),
            Op::CloseFd { fd } => {
                self.unsaid = Some(NO_DATA_FD);
                self.sessions.closed.insert(fd);
                Ok(Reply::Ok)
            }
            Op::Seek { .. } | Op::Poll { .. } | Op::Pread { .. } => self.not_said(NO_DATA_FD),
            Op::FdFlags { .. } | Op::UringRead { .. } => self.not_said(NO_DATA_FD),
            Op::PrecopyInfo { .. } | Op::DataSize | Op::OptInPrecopyV2 => self.not_said(NO_MESSAGE),
            // Traces with these are not applicable.
            Op::Open | Op::Close | Op::SetState { .. } => self.not_said(NO_MESSAGE),
        };
        done.unwrap_or_else(Reply::Errno)
    }

    fn take_anomaly(&mut self) -> Option<String> {
        self.anomaly.take()
    }

    fn take_unsaid(&mut self) -> Option<&'static str> {
        self.unsaid.take()
    }
}

impl VfioUserTarget {
    fn not_said<T>(&mut self, why: &'static str) -> Result<T, Errno> {
        self.unsaid = Some(why);
        Err(Errno::EOPNOTSUPP)
    }
}
