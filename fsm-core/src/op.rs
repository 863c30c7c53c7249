// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! The alphabet: what can be done to a migratable device, and what it answers.
//!
//! The core's device consumes [`Op`]s, models act in them, traces are lists of them with the
//! expected [`Reply`], backends carry them out, recordings of real VMMs are made of them, and the
//! VMM's sessions emit them. The parameter `B` is how bytes are carried: `&[u8]` where an op is
//! executed, a description of the bytes in a trace. The parameter `F` is what a data_fd is: its
//! number in a trace, and in a VMM the descriptor itself, which a reply hands over and an op borrows.

use core::fmt;

use crate::state::RawState;

/// A data_fd, by its epoch: the n-th that this device handed out, counted from 1.
///
/// Never used twice, so a name from an earlier session cannot reach a later one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[cfg_attr(feature = "serde", serde(transparent))]
pub struct Fd(pub u32);

impl fmt::Display for Fd {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "fd#{}", self.0)
    }
}

/// What a VMM, or the host around it, does to one device.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[cfg_attr(feature = "serde", serde(rename_all = "snake_case", deny_unknown_fields))]
pub enum Op<B, F = Fd> {
    /// Open the device (again).
    Open,
    /// Close the device; its data_fds may stay open.
    Close,
    /// GET of `VFIO_DEVICE_FEATURE_MIGRATION`.
    GetFeatures,
    /// GET of `VFIO_DEVICE_FEATURE_MIG_DEVICE_STATE`.
    GetState,
    /// SET of `VFIO_DEVICE_FEATURE_MIG_DEVICE_STATE`.
    SetState {
        /// The device_state asked for; any number.
        to: RawState,
        /// What goes wrong meanwhile.
        #[cfg_attr(feature = "serde", serde(default, skip_serializing_if = "Option::is_none"))]
        fault: Option<Fault>,
    },
    /// `VFIO_DEVICE_RESET`, or a function-level reset by the guest.
    Reset,
    /// GET of `VFIO_DEVICE_FEATURE_MIG_DATA_SIZE`.
    DataSize,
    /// SET of `VFIO_DEVICE_FEATURE_MIG_PRECOPY_INFOv2`.
    OptInPrecopyV2,
    /// `read(2)` from a data_fd.
    Read {
        /// Which data_fd.
        fd: F,
        /// Bytes asked for.
        len: u32,
    },
    /// `IORING_OP_READ` from a data_fd.
    UringRead {
        /// Which data_fd.
        fd: F,
        /// Bytes asked for.
        len: u32,
    },
    /// `pread(2)` from, and `pwrite(2)` to, a data_fd are refused: this is the `pread`.
    Pread {
        /// Which data_fd.
        fd: F,
        /// Bytes asked for.
        len: u32,
    },
    /// `write(2)` to a data_fd.
    Write {
        /// Which data_fd.
        fd: F,
        /// What to write.
        bytes: B,
    },
    /// `lseek(2)` on a data_fd.
    Seek {
        /// Which data_fd.
        fd: F,
    },
    /// `poll(2)` on a data_fd, without waiting.
    Poll {
        /// Which data_fd.
        fd: F,
    },
    /// `VFIO_MIG_GET_PRECOPY_INFO` on a data_fd.
    PrecopyInfo {
        /// Which data_fd.
        fd: F,
    },
    /// `F_GETFL` and `F_GETFD` of a data_fd.
    FdFlags {
        /// Which data_fd.
        fd: F,
    },
    /// `close(2)` of the user's data_fd.
    CloseFd {
        /// Which data_fd.
        fd: F,
    },
    /// The guest touches the device, so that its state depends on this value.
    Touch(u8),
}

impl<B, F> Op<B, F> {
    /// `SET` of this state with nothing going wrong.
    pub fn set(to: impl Into<RawState>) -> Self {
        Self::SetState { to: to.into(), fault: None }
    }

    /// The name that traces give it: `set_state`, `read`, …
    pub const fn name(&self) -> &'static str {
        match self {
            Self::Open => "open",
            Self::Close => "close",
            Self::GetFeatures => "get_features",
            Self::GetState => "get_state",
            Self::SetState { .. } => "set_state",
            Self::Reset => "reset",
            Self::DataSize => "data_size",
            Self::OptInPrecopyV2 => "opt_in_precopy_v2",
            Self::Read { .. } => "read",
            Self::UringRead { .. } => "uring_read",
            Self::Pread { .. } => "pread",
            Self::Write { .. } => "write",
            Self::Seek { .. } => "seek",
            Self::Poll { .. } => "poll",
            Self::PrecopyInfo { .. } => "precopy_info",
            Self::FdFlags { .. } => "fd_flags",
            Self::CloseFd { .. } => "close_fd",
            Self::Touch(_) => "touch",
        }
    }

    /// The same op with its bytes carried another way.
    pub fn map<C>(self, carry: impl FnOnce(B) -> C) -> Op<C, F> {
        self.map_both(|fd| fd, carry)
    }

    /// The same op on another data_fd, if it is on one.
    pub fn map_fd<G>(self, rename: impl FnOnce(F) -> G) -> Op<B, G> {
        self.map_both(rename, |bytes| bytes)
    }

    fn map_both<C, G>(self, rename: impl FnOnce(F) -> G, carry: impl FnOnce(B) -> C) -> Op<C, G> {
        match self {
            Self::Open => Op::Open,
            Self::Close => Op::Close,
            Self::GetFeatures => Op::GetFeatures,
            Self::GetState => Op::GetState,
            Self::SetState { to, fault } => Op::SetState { to, fault },
            Self::Reset => Op::Reset,
            Self::DataSize => Op::DataSize,
            Self::OptInPrecopyV2 => Op::OptInPrecopyV2,
            Self::Touch(value) => Op::Touch(value),
            Self::Read { fd, len } => Op::Read { fd: rename(fd), len },
            Self::UringRead { fd, len } => Op::UringRead { fd: rename(fd), len },
            Self::Pread { fd, len } => Op::Pread { fd: rename(fd), len },
            Self::Write { fd, bytes } => Op::Write { fd: rename(fd), bytes: carry(bytes) },
            Self::Seek { fd } => Op::Seek { fd: rename(fd) },
            Self::Poll { fd } => Op::Poll { fd: rename(fd) },
            Self::PrecopyInfo { fd } => Op::PrecopyInfo { fd: rename(fd) },
            Self::FdFlags { fd } => Op::FdFlags { fd: rename(fd) },
            Self::CloseFd { fd } => Op::CloseFd { fd: rename(fd) },
        }
    }
}

impl<B, F: fmt::Display> fmt::Display for Op<B, F> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Open => f.write_str("open"),
            Self::Close => f.write_str("close"),
            Self::GetFeatures => f.write_str("GET features"),
            Self::GetState => f.write_str("GET state"),
            Self::SetState { to, fault: None } => write!(f, "SET {to}"),
            Self::SetState { to, fault: Some(fault) } => write!(f, "SET {to} while {fault}"),
            Self::Reset => f.write_str("RESET"),
            Self::DataSize => f.write_str("GET data size"),
            Self::OptInPrecopyV2 => f.write_str("SET precopy info v2"),
            Self::Read { fd, len } => write!(f, "read {fd} {len}"),
            Self::UringRead { fd, len } => write!(f, "io_uring read {fd} {len}"),
            Self::Pread { fd, len } => write!(f, "pread {fd} {len}"),
            Self::Write { fd, .. } => write!(f, "write {fd}"),
            Self::Seek { fd } => write!(f, "lseek {fd}"),
            Self::Poll { fd } => write!(f, "poll {fd}"),
            Self::PrecopyInfo { fd } => write!(f, "PRECOPY_INFO {fd}"),
            Self::FdFlags { fd } => write!(f, "fcntl {fd}"),
            Self::CloseFd { fd } => write!(f, "close {fd}"),
            Self::Touch(value) => write!(f, "guest touch {value:#04x}"),
        }
    }
}

/// What goes wrong around one `SET`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[cfg_attr(feature = "serde", serde(rename_all = "snake_case", deny_unknown_fields))]
pub enum Fault {
    /// The VMM's fd table is full: the device moves, and then no fd can be installed (C2).
    FdTableFull,
    /// A reset arrives while `SET` holds the state lock, and is done before `SET` returns (O4).
    ResetInside,
    /// The driver fails one arc of the route.
    ArcFails {
        /// Which arc, counted from 0.
        hop: u8,
        /// What the driver reports.
        errno: Errno,
        /// Where the failure leaves the device.
        leaves: Leaves,
    },
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::FdTableFull => f.write_str("the fd table is full"),
            Self::ResetInside => f.write_str("a reset arrives"),
            Self::ArcFails { hop, errno, leaves: Leaves::Source } => {
                write!(f, "arc {hop} fails with {errno}")
            }
            Self::ArcFails { hop, errno, leaves: Leaves::Error } => {
                write!(f, "arc {hop} fails with {errno} into ERROR")
            }
        }
    }
}

/// Where a failed arc leaves the device (R8, R13).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[cfg_attr(feature = "serde", serde(rename_all = "snake_case"))]
pub enum Leaves {
    /// Where the arc began: an intermediate state, if other arcs went before.
    Source,
    /// In ERROR, because the arc could be neither finished nor undone.
    Error,
}

/// What a device, or the kernel around it, answers.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[cfg_attr(feature = "serde", serde(rename_all = "snake_case"))]
pub enum Reply<B, F = Fd> {
    /// Done, and nothing to say.
    Ok,
    /// The `VFIO_MIGRATION_*` flags.
    Features(u64),
    /// The device_state.
    State(RawState),
    /// `SET` succeeded: with a fresh data_fd, or with none (`data_fd == -1`).
    Fd(Option<F>),
    /// What was read: at least one byte, unless none was asked for.
    Bytes(B),
    /// How many bytes were taken.
    Written(u32),
    /// Nothing more to read.
    EndOfStream(EndOfStream),
    /// Estimated length of the STOP_COPY data (R39).
    Size(u64),
    /// What is left of the pre-copy data.
    Info(PrecopyInfo),
    /// What `poll` says at once.
    Ready(Readiness),
    /// How the data_fd was opened.
    FdFlags(FdFlags),
    /// The call failed.
    Errno(Errno),
}

impl<B, F> Reply<B, F> {
    /// The same reply with its bytes carried another way.
    pub fn map<C>(self, carry: impl FnOnce(B) -> C) -> Reply<C, F> {
        self.map_both(|fd| fd, carry)
    }

    /// The same reply with its data_fd, if it has one, turned into something else.
    pub fn map_fd<G>(self, adopt: impl FnOnce(F) -> G) -> Reply<B, G> {
        self.map_both(adopt, |bytes| bytes)
    }

    fn map_both<C, G>(self, adopt: impl FnOnce(F) -> G, carry: impl FnOnce(B) -> C) -> Reply<C, G> {
        match self {
            Self::Bytes(bytes) => Reply::Bytes(carry(bytes)),
            Self::Ok => Reply::Ok,
            Self::Features(flags) => Reply::Features(flags),
            Self::State(state) => Reply::State(state),
            Self::Fd(fd) => Reply::Fd(fd.map(adopt)),
            Self::Written(len) => Reply::Written(len),
            Self::EndOfStream(end) => Reply::EndOfStream(end),
            Self::Size(size) => Reply::Size(size),
            Self::Info(info) => Reply::Info(info),
            Self::Ready(ready) => Reply::Ready(ready),
            Self::FdFlags(flags) => Reply::FdFlags(flags),
            Self::Errno(errno) => Reply::Errno(errno),
        }
    }
}

impl<B: fmt::Debug, F: fmt::Display> fmt::Display for Reply<B, F> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Ok => f.write_str("ok"),
            Self::Features(flags) => write!(f, "flags {flags:#x}"),
            Self::State(state) => write!(f, "{state}"),
            Self::Fd(None) => f.write_str("ok, data_fd -1"),
            Self::Fd(Some(fd)) => write!(f, "ok, {fd}"),
            Self::Bytes(bytes) => write!(f, "bytes {bytes:?}"),
            Self::Written(len) => write!(f, "{len} written"),
            Self::EndOfStream(EndOfStream::Temporary) => f.write_str("ENOMSG, temporary end"),
            Self::EndOfStream(EndOfStream::Permanent) => f.write_str("0, end of stream"),
            Self::Size(size) => write!(f, "size {size}"),
            Self::Info(info) => write!(f, "{info}"),
            Self::Ready(ready) => write!(f, "{ready}"),
            Self::FdFlags(flags) => write!(f, "{flags}"),
            Self::Errno(errno) => write!(f, "{errno}"),
        }
    }
}

/// Which end of the stream was reached.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[cfg_attr(feature = "serde", serde(rename_all = "snake_case"))]
pub enum EndOfStream {
    /// `ENOMSG` in PRE_COPY: initial and dirty bytes are both 0 for now (R32).
    Temporary,
    /// `read` returned 0 in STOP_COPY: the whole state was transferred (R31).
    Permanent,
}

/// `struct vfio_precopy_info`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
pub struct PrecopyInfo {
    /// Bytes that should be read before leaving PRE_COPY (R35).
    pub initial_bytes: u64,
    /// Bytes of what changed since (R36).
    pub dirty_bytes: u64,
    /// `VFIO_PRECOPY_INFO_REINIT`: new initial data is on the stream. Only after opting in.
    pub reinit: bool,
}

impl fmt::Display for PrecopyInfo {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "initial {} dirty {}", self.initial_bytes, self.dirty_bytes)?;
        if self.reinit { f.write_str(" reinit") } else { Ok(()) }
    }
}

/// What `poll(2)` reports for a data_fd.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
pub struct Readiness {
    /// `POLLIN`: a read would return at once, with bytes, an end or an error.
    pub readable: bool,
    /// `POLLOUT`.
    pub writable: bool,
    /// `POLLHUP`, `POLLRDHUP` or `POLLERR`: the session is over.
    pub hangup: bool,
}

impl fmt::Display for Readiness {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let set = |on, name| if on { name } else { "" };
        let (r, w) = (set(self.readable, " readable"), set(self.writable, " writable"));
        write!(f, "poll:{r}{w}{}", set(self.hangup, " hangup"))
    }
}

/// How a data_fd was opened.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
pub struct FdFlags {
    /// May be read.
    pub read: bool,
    /// May be written.
    pub write: bool,
    /// `FD_CLOEXEC`: must be set (C4).
    pub cloexec: bool,
}

impl fmt::Display for FdFlags {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let set = |on, name| if on { name } else { "" };
        let (r, w) = (set(self.read, " read"), set(self.write, " write"));
        write!(f, "flags:{r}{w}{}", set(self.cloexec, " cloexec"))
    }
}

/// An errno of Linux, as the generic architectures number it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Errno(pub i32);

macro_rules! errnos {
    ($($name:ident = $number:literal: $doc:literal,)*) => {
        impl Errno {
            $(#[doc = $doc] pub const $name: Self = Self($number);)*

            const NAMES: &'static [(Self, &'static str)] =
                &[$((Self::$name, stringify!($name)),)*];
        }
    };
}

errnos! {
    EIO = 5: "The device failed.",
    EBADF = 9: "Not open, or not in this direction.",
    EAGAIN = 11: "Would block, or a lock is held elsewhere.",
    ENOMEM = 12: "No memory; mtty also says so of too much data.",
    EFAULT = 14: "A bad address; mtty also says so of a bad header.",
    EBUSY = 16: "In use.",
    ENODEV = 19: "The session of this data_fd is over.",
    EINVAL = 22: "Not allowed here.",
    ENFILE = 23: "No more files in the whole system.",
    EMFILE = 24: "No more fds in this process.",
    ENOTTY = 25: "No such ioctl or feature on this fd.",
    EFBIG = 27: "More than the device can take.",
    ENOSPC = 28: "More than the device can take.",
    ESPIPE = 29: "A stream has no position.",
    ENOMSG = 42: "The temporary end of a PRE_COPY stream.",
    EPROTO = 71: "The stream is not one.",
    EOVERFLOW = 75: "A number is too large.",
    EOPNOTSUPP = 95: "Not supported.",
    ENOTCONN = 107: "The physical function is gone.",
}

impl Errno {
    /// The name, for those that this protocol uses.
    pub fn name(self) -> Option<&'static str> {
        Self::NAMES.iter().find(|(errno, _)| *errno == self).map(|(_, name)| *name)
    }
}

impl fmt::Display for Errno {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.name() {
            Some(name) => f.write_str(name),
            None => write!(f, "errno {}", self.0),
        }
    }
}

#[cfg(feature = "serde")]
mod errno_serde {
    use serde::de::{Deserialize, Deserializer, Error, Visitor};
    use serde::ser::{Serialize, Serializer};

    use super::Errno;

    impl Serialize for Errno {
        fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
            match self.name() {
                Some(name) => serializer.serialize_str(name),
                None => serializer.serialize_i32(self.0),
            }
        }
    }

    impl<'de> Deserialize<'de> for Errno {
        fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
            deserializer.deserialize_any(NameOrNumber)
        }
    }

    struct NameOrNumber;

    impl Visitor<'_> for NameOrNumber {
        type Value = Errno;

        fn expecting(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
            f.write_str("the name of an errno or its number")
        }

        fn visit_str<E: Error>(self, name: &str) -> Result<Errno, E> {
            let known = Errno::NAMES.iter().find(|(_, known)| *known == name);
            known
                .map(|(errno, _)| *errno)
                .ok_or_else(|| E::custom(format_args!("unknown errno {name:?}")))
        }

        fn visit_u64<E: Error>(self, number: u64) -> Result<Errno, E> {
            match i32::try_from(number) {
                Ok(number) if number > 0 => Ok(Errno(number)),
                _ => Err(E::custom(format_args!("{number} is not an errno"))),
            }
        }
    }
}
