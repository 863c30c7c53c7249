// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! A client that believes nothing: one command, one reply, each within a time and a length.

use std::io;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::time::Duration;

use vfio_fsm_core::Errno;

use super::framed::{Broken, Framed};
use super::protocol::{
    Capabilities, Command, DeviceInfo, FeatureHead, Header, LONGEST_MESSAGE, MAJOR, MINOR,
    MOST_DATA, Malformed, MigData, MigState, MigrationFlags, RegionAccess, Version, VersionNumbers,
    feature, flag, info, message,
};

/// A server may send so many commands of its own before the reply to one of ours.
const MOST_COMMANDS: u32 = 64;

/// What was being done when a server failed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Step {
    /// `VFIO_USER_VERSION`.
    #[error("the version")]
    Version,
    /// `VFIO_USER_DEVICE_GET_INFO`.
    #[error("DEVICE_GET_INFO")]
    GetInfo,
    /// `VFIO_USER_DEVICE_RESET`.
    #[error("DEVICE_RESET")]
    Reset,
    /// GET of `VFIO_DEVICE_FEATURE_MIGRATION`.
    #[error("GET of the migration flags")]
    MigrationFlags,
    /// GET of `VFIO_DEVICE_FEATURE_MIG_DEVICE_STATE`.
    #[error("GET of the device_state")]
    GetState,
    /// SET of `VFIO_DEVICE_FEATURE_MIG_DEVICE_STATE`.
    #[error("SET of the device_state")]
    SetState,
    /// `VFIO_USER_MIG_DATA_READ`.
    #[error("MIG_DATA_READ")]
    DataRead,
    /// `VFIO_USER_MIG_DATA_WRITE`.
    #[error("MIG_DATA_WRITE")]
    DataWrite,
    /// `VFIO_USER_REGION_WRITE`.
    #[error("REGION_WRITE")]
    RegionWrite,
}

impl Step {
    const fn command(self) -> Command {
        match self {
            Self::Version => Command::Version,
            Self::GetInfo => Command::GetInfo,
            Self::Reset => Command::Reset,
            Self::MigrationFlags | Self::GetState | Self::SetState => Command::Feature,
            Self::DataRead => Command::MigDataRead,
            Self::DataWrite => Command::MigDataWrite,
            Self::RegionWrite => Command::RegionWrite,
        }
    }
}

/// What a server did instead of answering as it must.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ClientError {
    /// Nobody listens there.
    #[error(
        "cannot connect to {path}: {error}; start the server first, and give the path of its socket"
    )]
    Connect {
        /// The socket.
        path: PathBuf,
        /// Why.
        #[source]
        error: io::Error,
    },
    /// The server has hung up.
    #[error("the server hung up at {during}{}; look at its log: it died or refused", part(*.within))]
    Gone {
        /// What was being done.
        during: Step,
        /// Whether a part of a message had come.
        within: bool,
    },
    /// The server does not answer.
    #[error("no whole reply to {during} within {after:?}; look at what the server is doing")]
    Silent {
        /// What was being done.
        during: Step,
        /// How long it was waited for.
        after: Duration,
    },
    /// The socket failed.
    #[error("the socket failed at {during}: {error}")]
    Io {
        /// What was being done.
        during: Step,
        /// Why.
        #[source]
        error: io::Error,
    },
    /// The reply is no reply.
    #[error("the reply to {during} is malformed: {problem}")]
    Malformed {
        /// What was being done.
        during: Step,
        /// What does not hold together.
        #[source]
        problem: Malformed,
    },
    /// The reply is to something else.
    #[error(
        "the reply to {during} should be to command {asked} with id {id}, and is to {said} with {said_id}"
    )]
    OtherReply {
        /// What was being done.
        during: Step,
        /// Number of the command.
        asked: u16,
        /// Its id.
        id: u16,
        /// Number of the command in the reply.
        said: u16,
        /// The id in the reply.
        said_id: u16,
    },
    /// More commands from the server than anybody needs, and no reply.
    #[error("{MOST_COMMANDS} commands from the server, and no reply to {during}")]
    Chatter {
        /// What was being done.
        during: Step,
    },
    /// It speaks another protocol, or claims to know more of it than it was offered.
    #[error("the server speaks version {}.{}, and was offered {MAJOR}.{MINOR}", .0.major, .0.minor)]
    OtherVersion(VersionNumbers),
    /// The device cannot be reset, which every test begins with.
    #[error(
        "the device cannot be reset (VFIO_DEVICE_FLAGS_RESET is not set), which every test begins with"
    )]
    NoReset,
    /// The server refused, as it may. Without an errno it did not say why.
    #[error("{during} was refused: {}", reason(*.errno))]
    Refused {
        /// What was being done.
        during: Step,
        /// Why, if that was said.
        errno: Option<Errno>,
    },
    /// The state that was SET is not the one that the reply repeats.
    #[error("SET of device_state {asked} was answered with device_state {said}")]
    OtherState {
        /// What was asked for.
        asked: u32,
        /// What the reply has.
        said: u32,
    },
}

fn part(within: bool) -> &'static str {
    if within { ", in the middle of a reply" } else { "" }
}

fn reason(errno: Option<Errno>) -> String {
    errno.map_or_else(|| "no errno was given".to_owned(), |errno| errno.to_string())
}

/// A connection to a server.
#[derive(Debug)]
pub struct Client {
    framed: Framed,
    patience: Duration,
    next_id: u16,
    most_data: u32,
    outbox: Vec<u8>,
}

impl Client {
    /// Connect, agree on a version, and see that the device can be reset.
    ///
    /// # Errors
    ///
    /// Nobody listens, or the server does not answer as the protocol says.
    pub fn connect(path: &Path, patience: Duration) -> Result<Self, ClientError> {
        let connect = |error| ClientError::Connect { path: path.to_owned(), error };
        let stream = UnixStream::connect(path).map_err(connect)?;
        Self::on(stream, patience)
    }

    /// The same on a socket that is connected already.
    ///
    /// # Errors
    ///
    /// As [`connect`](Self::connect).
    pub fn on(stream: UnixStream, patience: Duration) -> Result<Self, ClientError> {
        let io = |error| ClientError::Io { during: Step::Version, error };
        let framed = Framed::new(stream, Some(patience)).map_err(io)?;
        let outbox = Vec::new();
        let mut client = Self { framed, patience, next_id: 0, most_data: MOST_DATA, outbox };
        client.negotiate()?;
        client.look()?;
        Ok(client)
    }

    fn negotiate(&mut self) -> Result<(), ClientError> {
        let during = Step::Version;
        let offer = Version {
            numbers: VersionNumbers { major: MAJOR, minor: MINOR },
            capabilities: Capabilities {
                max_msg_fds: Some(1),
                max_data_xfer_size: Some(MOST_DATA.into()),
            },
        };
        let malformed = |problem| ClientError::Malformed { during, problem };
        let mut payload = Vec::new();
        offer.encode(&mut payload).map_err(malformed)?;
        let reply = self.ask(during, |to| to.extend_from_slice(&payload))?;
        let said = Version::decode(reply).map_err(malformed)?;
        if said.numbers.major != MAJOR || said.numbers.minor > MINOR {
            return Err(ClientError::OtherVersion(said.numbers));
        }
        self.most_data = said.most_data();
        if self.most_data == 0 {
            let problem = Malformed::Capabilities("max_data_xfer_size is 0".to_owned());
            return Err(malformed(problem));
        }
        Ok(())
    }

    fn look(&mut self) -> Result<(), ClientError> {
        let ours = DeviceInfo { argsz: DeviceInfo::LEN as u32, ..DeviceInfo::default() };
        let during = Step::GetInfo;
        let reply = self.ask(during, |to| ours.encode(to))?;
        let (said, _) = decoded(during, DeviceInfo::decode(reply))?;
        if said.flags & info::RESET == 0 { Err(ClientError::NoReset) } else { Ok(()) }
    }

    /// The most data that one message carries, in bytes.
    pub const fn most_data(&self) -> u32 {
        self.most_data
    }

    /// `VFIO_USER_DEVICE_RESET`.
    ///
    /// # Errors
    ///
    /// It was refused, or the server fails.
    pub fn reset(&mut self) -> Result<(), ClientError> {
        self.ask(Step::Reset, |_| ()).map(|_| ())
    }

    /// GET of the migration flags.
    ///
    /// # Errors
    ///
    /// The device cannot be migrated, or the server fails.
    pub fn migration_flags(&mut self) -> Result<u64, ClientError> {
        let during = Step::MigrationFlags;
        let data = self.get(during, feature::MIGRATION, MigrationFlags::LEN)?;
        Ok(decoded(during, MigrationFlags::decode(data))?.0.flags)
    }

    /// GET of the device_state.
    ///
    /// # Errors
    ///
    /// It was refused, or the server fails.
    pub fn state(&mut self) -> Result<u32, ClientError> {
        let during = Step::GetState;
        let data = self.get(during, feature::MIG_DEVICE_STATE, MigState::LEN)?;
        Ok(decoded(during, MigState::decode(data))?.0.device_state)
    }

    fn get(&mut self, during: Step, index: u32, len: usize) -> Result<&[u8], ClientError> {
        let argsz = (FeatureHead::LEN + len) as u32;
        let head = FeatureHead { argsz, flags: feature::GET | index };
        let reply = self.ask(during, |to| head.encode(to))?;
        Ok(decoded(during, FeatureHead::decode(reply))?.1)
    }

    /// SET of the device_state.
    ///
    /// # Errors
    ///
    /// It was refused, or the server fails.
    pub fn set_state(&mut self, to: u32) -> Result<(), ClientError> {
        let during = Step::SetState;
        let argsz = (FeatureHead::LEN + MigState::LEN) as u32;
        let head = FeatureHead { argsz, flags: feature::SET | feature::MIG_DEVICE_STATE };
        let reply = self.ask(during, |bytes| {
            head.encode(bytes);
            MigState { device_state: to, data_fd: -1 }.encode(bytes);
        })?;
        let (_, data) = decoded(during, FeatureHead::decode(reply))?;
        let (said, _) = decoded(during, MigState::decode(data))?;
        if said.device_state == to {
            return Ok(());
        }
        Err(ClientError::OtherState { asked: to, said: said.device_state })
    }

    /// `VFIO_USER_MIG_DATA_READ`: the next bytes of the stream, at most as many as `buf` takes and as
    /// one message carries. Fewer than that are the last for now.
    ///
    /// # Errors
    ///
    /// It was refused, or the server fails.
    pub fn read<'b>(&mut self, buf: &'b mut [u8]) -> Result<&'b [u8], ClientError> {
        let during = Step::DataRead;
        let size = self.most_data.min(u32::try_from(buf.len()).unwrap_or(u32::MAX));
        let ask = MigData { argsz: MigData::LEN as u32 + size, size };
        let reply = self.ask(during, |to| ask.encode(to))?;
        let (said, data) = decoded(during, MigData::decode(reply))?;
        if said.size > size {
            let (said, most) = (said.size.into(), size.into());
            let problem = Malformed::TooMuch { what: "the size of the data is", said, most };
            return Err(ClientError::Malformed { during, problem });
        }
        let len = said.size as usize;
        // libvfio-user's reply is as long as the data could have been: what is behind is nothing.
        let data = data.get(..len).ok_or(ClientError::Malformed {
            during,
            problem: Malformed::Short { what: "the data", needs: len, has: data.len() },
        })?;
        let buf = &mut buf[..len];
        buf.copy_from_slice(data);
        Ok(buf)
    }

    /// `VFIO_USER_MIG_DATA_WRITE`: all of it, or as much as one message carries. How much that is.
    ///
    /// # Errors
    ///
    /// It was refused, or the server fails.
    pub fn write(&mut self, bytes: &[u8]) -> Result<u32, ClientError> {
        let size = self.most_data.min(u32::try_from(bytes.len()).unwrap_or(u32::MAX));
        // The reply has nothing; libvfio-user wants room for the data in it all the same.
        let head = MigData { argsz: MigData::LEN as u32 + size, size };
        self.ask(Step::DataWrite, |to| {
            head.encode(to);
            to.extend_from_slice(&bytes[..size as usize]);
        })?;
        Ok(size)
    }

    /// `VFIO_USER_REGION_WRITE` of one byte.
    ///
    /// # Errors
    ///
    /// It was refused, or the server fails.
    pub fn region_write(&mut self, region: u32, offset: u64, byte: u8) -> Result<(), ClientError> {
        let head = RegionAccess { offset, region, count: 1 };
        self.ask(Step::RegionWrite, |to| {
            head.encode(to);
            to.push(byte);
        })?;
        Ok(())
    }

    /// One command, and what its reply carries.
    fn ask(
        &mut self,
        during: Step,
        payload: impl FnOnce(&mut Vec<u8>),
    ) -> Result<&[u8], ClientError> {
        let Self { framed, patience, next_id, outbox, .. } = self;
        let broken = |broken| match broken {
            Broken::Gone { within } => ClientError::Gone { during, within },
            Broken::Silent => ClientError::Silent { during, after: *patience },
            Broken::Io(error) => ClientError::Io { during, error },
            Broken::Malformed(problem) => ClientError::Malformed { during, problem },
        };
        *next_id = next_id.wrapping_add(1);
        let command = during.command() as u16;
        let ours = Header { id: *next_id, command, ..Header::default() };
        message(outbox, ours, payload);
        debug_assert!(outbox.len() <= LONGEST_MESSAGE, "the data is bounded");
        framed.send(outbox).map_err(broken)?;
        let (said, len) = reply(framed, outbox, during, broken)?;
        if (said.id, said.command) != (ours.id, command) {
            let (said, said_id) = (said.command, said.id);
            let asked = command;
            return Err(ClientError::OtherReply { during, asked, id: ours.id, said, said_id });
        }
        if said.flags & flag::ERROR != 0 {
            let errno = i32::try_from(said.error).ok().filter(|&errno| errno > 0).map(Errno);
            return Err(ClientError::Refused { during, errno });
        }
        Ok(&outbox[..len])
    }
}

/// The next reply: its header, and how much of `to` its payload takes. Commands of the server's are
/// refused on the way: it was given no memory that it could reach.
fn reply(
    framed: &mut Framed,
    to: &mut Vec<u8>,
    during: Step,
    broken: impl Fn(Broken) -> ClientError,
) -> Result<(Header, usize), ClientError> {
    for _ in 0..MOST_COMMANDS {
        let (header, payload) = framed.receive().map_err(&broken)?;
        if header.is_reply() {
            to.clear();
            to.extend_from_slice(payload);
            return Ok((header, to.len()));
        }
        if header.flags & flag::NO_REPLY == 0 {
            let flags = flag::REPLY | flag::ERROR;
            let error = Errno::EOPNOTSUPP.0.unsigned_abs();
            message(to, Header { flags, error, ..header }, |_| ());
            framed.send(to).map_err(&broken)?;
        }
    }
    Err(ClientError::Chatter { during })
}

fn decoded<T>(during: Step, found: Result<T, Malformed>) -> Result<T, ClientError> {
    found.map_err(|problem| ClientError::Malformed { during, problem })
}
