// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! The framed stream: what stands around the bytes of a data_fd on their way to another host.
//!
//! A data_fd gives bytes without any form. By themselves they do not tell whether they are whole,
//! whose they are, or that a reset made everything before them void. The framing adds just that: a
//! header, a head of 16 bytes before each piece, and one checksum that runs through it all. Every
//! byte of it is laid down in `specs/stream-format.md`; the reasons stand there, too.
//!
//! Nothing here reads, writes or allocates. The [`Encoder`] makes the bytes that go before a
//! payload, the [`Decoder`] says how many bytes it [needs] and is [given] them; payloads stay where
//! the caller has them.
//!
//! [needs]: Decoder::needs
//! [given]: Decoder::give
//!
//! ```
//! use vfio_fsm_core::vmm::frame::{Crc, Decoder, Encoder, FIRST_EPOCH, Frame, Item, Limits};
//!
//! /// CRC-32C, with the processor's own instruction where it has one.
//! #[derive(Clone)]
//! struct Crc32c(u32);
//!
//! impl Crc for Crc32c {
//!     fn new() -> Self {
//!         Self(0)
//!     }
//!
//!     fn update(&mut self, bytes: &[u8]) {
//!         self.0 = crc32c::crc32c_append(self.0, bytes);
//!     }
//!
//!     fn value(&self) -> u32 {
//!         self.0
//!     }
//! }
//!
//! let (epoch, payload) = (FIRST_EPOCH, b"from the data_fd");
//! let (mut encoder, header) = Encoder::<Crc32c>::new(1 << 20, "example")?;
//! let mut wire = header.to_vec();
//! wire.extend_from_slice(&encoder.frame(Frame::Data { epoch, len: 16 }, payload)?);
//! wire.extend_from_slice(payload);
//! wire.extend_from_slice(&encoder.frame(Frame::End { epoch }, &[])?);
//!
//! let mut decoder = Decoder::<Crc32c>::new(Limits { max_data: 1 << 20 });
//! let (mut rest, mut written) = (wire.as_slice(), Vec::new());
//! while decoder.needs() > 0 {
//!     let Some((bytes, after)) = rest.split_at_checked(decoder.needs()) else { break };
//!     rest = after;
//!     match decoder.give(bytes)? {
//!         Some(Item::Header(header)) => assert_eq!(header.compat, "example"),
//!         Some(Item::Frame(Frame::Data { .. })) => written.extend_from_slice(bytes),
//!         Some(Item::Frame(Frame::Discard { .. })) => written.clear(),
//!         _ => {}
//!     }
//! }
//! decoder.end()?; // not before this is the state whole
//! assert_eq!(written, payload);
//! # Ok::<(), Box<dyn core::error::Error>>(())
//! ```

use core::fmt;
use core::ops::Deref;

/// The epoch that a stream begins with.
pub const FIRST_EPOCH: u32 = 1;

/// The longest compatibility string, in bytes.
pub const MAX_COMPAT: usize = 255;

/// The longest header that a reader takes, in bytes.
pub const MAX_HEADER: usize = 4096;

/// The head of a frame, in bytes.
pub const HEAD: usize = 16;

/// Not text: a transfer that converts line ends, stops at control-Z or drops the eighth bit shows.
const MAGIC: [u8; 8] = *b"\x93VFIO\r\n\x1a";
const MAJOR: u16 = 1;
const MINOR: u16 = 0;

/// Magic, version and length of the header: what a reader of any version has to know.
const PREAMBLE: usize = 16;
/// A header without a compatibility string.
const MIN_HEADER: usize = 44;
/// The longest header that is written.
const OUR_HEADER: usize = MIN_HEADER + MAX_COMPAT;

/// A reader that does not know the kind skips the frame.
const OPTIONAL: u16 = 1;
/// The payload of END: how many bytes of payload the DATA frames of its epoch had.
const END_PAYLOAD: usize = 8;

/// A payload is `len: u32` bytes of one slice.
const _: () = assert!(usize::BITS >= 32);

/// The checksum of a stream, which must be CRC-32C.
///
/// That is the CRC of iSCSI, NVMe, ext4 and btrfs: polynomial 0x1edc6f41, bits reflected, begun
/// with and in the end inverted by 0xffffffff. `"123456789"` gives 0xe3069283. The core leaves it
/// to its user, who has std and a crate with the processor's own instruction for it.
pub trait Crc: Clone {
    /// Of no bytes.
    fn new() -> Self;

    /// Of these bytes, too, after all that came before.
    fn update(&mut self, bytes: &[u8]);

    /// Of all bytes up to now: 0 of none.
    fn value(&self) -> u32;
}

/// What a stream says, piece by piece, between its header and its end.
///
/// The bytes of a [`Frame::Data`] travel beside it: models and tests do without them.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[cfg_attr(feature = "serde", serde(rename_all = "snake_case", deny_unknown_fields))]
pub enum Frame {
    /// The next bytes that were read from the data_fd.
    Data {
        /// The session that they are from.
        epoch: u32,
        /// How many: 1 to `max_data` of the header.
        len: u32,
    },
    /// `initial_bytes` was 0: the destination has what it needs to prepare itself (R35). Comes
    /// again when `VFIO_PRECOPY_INFO_REINIT` began anew.
    InitialBytesSent {
        /// The session whose initial bytes they were.
        epoch: u32,
    },
    /// The device was reset: everything of this epoch is void. What follows is of the next (F5).
    Discard {
        /// The session that is over.
        epoch: u32,
    },
    /// The whole state was sent. Nothing follows (F4).
    End {
        /// The session that it is from.
        epoch: u32,
    },
}

impl Frame {
    /// The epoch, which every frame has.
    pub const fn epoch(self) -> u32 {
        match self {
            Self::Data { epoch, .. }
            | Self::InitialBytesSent { epoch }
            | Self::Discard { epoch }
            | Self::End { epoch } => epoch,
        }
    }

    /// Its number on the wire.
    pub const fn kind(self) -> Kind {
        match self {
            Self::Data { .. } => Kind::DATA,
            Self::InitialBytesSent { .. } => Kind::INITIAL_BYTES_SENT,
            Self::Discard { .. } => Kind::DISCARD,
            Self::End { .. } => Kind::END,
        }
    }
}

impl fmt::Display for Frame {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} of epoch {}", self.kind(), self.epoch())?;
        if let Self::Data { len, .. } = self { write!(f, " ({len} bytes)") } else { Ok(()) }
    }
}

/// The kind of a frame as it stands in its head: any 16-bit number.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Kind(pub u16);

impl Kind {
    /// [`Frame::Data`].
    pub const DATA: Self = Self(1);
    /// [`Frame::InitialBytesSent`].
    pub const INITIAL_BYTES_SENT: Self = Self(2);
    /// [`Frame::Discard`].
    pub const DISCARD: Self = Self(3);
    /// [`Frame::End`].
    pub const END: Self = Self(4);
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match *self {
            Self::DATA => f.write_str("DATA"),
            Self::INITIAL_BYTES_SENT => f.write_str("INITIAL_BYTES_SENT"),
            Self::DISCARD => f.write_str("DISCARD"),
            Self::END => f.write_str("END"),
            Self(number) => write!(f, "kind {number:#x}"),
        }
    }
}

/// A compatibility string that is none.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum CompatError {
    /// More than [`MAX_COMPAT`].
    #[error("a compatibility string of {len} bytes; at most {MAX_COMPAT} are allowed")]
    TooLong {
        /// Its bytes.
        len: usize,
    },
    /// Not text.
    #[error("the compatibility string is not UTF-8 from byte {at} on")]
    NotUtf8 {
        /// How many bytes are.
        at: usize,
    },
    /// It is shown to people and put into logs, so it must not steer them.
    #[error("the compatibility string has a control character at byte {at}")]
    Control {
        /// Where.
        at: usize,
    },
}

fn compat_text(bytes: &[u8]) -> Result<&str, CompatError> {
    if bytes.len() > MAX_COMPAT {
        return Err(CompatError::TooLong { len: bytes.len() });
    }
    let text = core::str::from_utf8(bytes)
        .map_err(|error| CompatError::NotUtf8 { at: error.valid_up_to() })?;
    match text.find(char::is_control) {
        Some(at) => Err(CompatError::Control { at }),
        None => Ok(text),
    }
}

/// How far a stream has got: what both ends count.
#[derive(Clone, Copy, Debug)]
struct Place {
    epoch: u32,
    /// Payload of the DATA frames of this epoch. 2^64 bytes are a century of 6 GB/s.
    data: u64,
}

impl Place {
    const START: Self = Self { epoch: FIRST_EPOCH, data: 0 };

    /// After one frame more; `None` if there is no number for the epoch that would begin.
    fn after(self, frame: Frame) -> Option<Self> {
        match frame {
            Frame::Data { len, .. } => {
                Some(Self { data: self.data.wrapping_add(len.into()), ..self })
            }
            Frame::Discard { .. } => Some(Self { epoch: self.epoch.checked_add(1)?, data: 0 }),
            Frame::InitialBytesSent { .. } | Frame::End { .. } => Some(self),
        }
    }
}

/// Up to `N` bytes to be sent.
#[derive(Clone, Copy, Debug)]
#[must_use = "the checksum of all that follows counts on these bytes having been sent"]
pub struct Encoded<const N: usize> {
    bytes: [u8; N],
    len: usize,
}

impl<const N: usize> Encoded<N> {
    const EMPTY: Self = Self { bytes: [0; N], len: 0 };

    fn push(&mut self, bytes: &[u8]) {
        self.bytes[self.len..][..bytes.len()].copy_from_slice(bytes);
        self.len += bytes.len();
    }
}

impl<const N: usize> Deref for Encoded<N> {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        &self.bytes[..self.len]
    }
}

/// The header as it is sent.
pub type HeaderBytes = Encoded<OUR_HEADER>;

/// What is sent of a frame before its payload; of END, the payload too.
pub type FrameBytes = Encoded<{ HEAD + END_PAYLOAD }>;

/// Writes one stream: makes what has to be sent before each payload.
///
/// A frame that it refuses is not part of the stream, and another may be given in its place.
#[derive(Clone, Debug)]
pub struct Encoder<C> {
    crc: C,
    max_data: u32,
    place: Place,
    ended: bool,
}

/// What cannot be written. Nothing of it was, and the stream can go on.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum EncodeError {
    /// A stream that may carry nothing.
    #[error("max_data is 0, so no DATA could be sent; choose the size of the buffer for reads")]
    MaxData,
    /// The compatibility string cannot be sent.
    #[error("{0}; choose another")]
    Compat(#[from] CompatError),
    /// DATA that is empty, or longer than the header promised.
    #[error("DATA of {len} bytes; the header promised 1 to {max_data}: send it in pieces")]
    Length {
        /// The length of the frame.
        len: u32,
        /// What the header said.
        max_data: u32,
    },
    /// The payload is not what the frame says it is.
    #[error("{frame}, with a payload of {got} bytes; only DATA has one, of the length it says")]
    Payload {
        /// The frame.
        frame: Frame,
        /// The length of the payload beside it.
        got: usize,
    },
    /// A frame of a session that is over, or of none yet.
    #[error("{frame} in epoch {expected}; drop it, it is of another session")]
    WrongEpoch {
        /// The frame.
        frame: Frame,
        /// The epoch that the stream is in.
        expected: u32,
    },
    /// The stream is complete.
    #[error("{frame} after END; begin another stream")]
    AfterEnd {
        /// The frame.
        frame: Frame,
    },
    /// The last epoch that has a number cannot be discarded.
    #[error(
        "DISCARD of epoch {}, and no number is left for the next; begin another stream",
        u32::MAX
    )]
    EpochsUsedUp,
}

impl<C: Crc> Encoder<C> {
    /// A stream of DATA frames up to `max_data` bytes, and its header, to be sent first.
    ///
    /// `compat` names what the receiver must be able to load: see `specs/stream-format.md`.
    pub fn new(max_data: u32, compat: &str) -> Result<(Self, HeaderBytes), EncodeError> {
        if max_data == 0 {
            return Err(EncodeError::MaxData);
        }
        let compat = compat_text(compat.as_bytes())?.as_bytes();
        let len = MIN_HEADER + compat.len();
        let mut header = HeaderBytes::EMPTY;
        header.push(&MAGIC);
        header.push(&MAJOR.to_le_bytes());
        header.push(&MINOR.to_le_bytes());
        header.push(&(len as u32).to_le_bytes());
        header.push(&[0; 16]); // required and optional features: there are none yet
        header.push(&max_data.to_le_bytes());
        header.push(&(compat.len() as u16).to_le_bytes());
        header.push(&[0; 2]); // reserved
        header.push(compat);
        let mut crc = C::new();
        crc.update(&header);
        header.push(&crc.value().to_le_bytes());
        Ok((Self { crc, max_data, place: Place::START, ended: false }, header))
    }

    /// What is to be sent for this frame, to be followed by `payload`.
    ///
    /// The payload of DATA is the `len` bytes it speaks of. The other frames are given none: that
    /// of END is made here.
    pub fn frame(&mut self, frame: Frame, payload: &[u8]) -> Result<FrameBytes, EncodeError> {
        self.place = self.check(frame, payload)?;
        self.ended = matches!(frame, Frame::End { .. });
        let total = self.place.data.to_le_bytes();
        let payload = if self.ended { &total } else { payload };
        let mut bytes = FrameBytes::EMPTY;
        bytes.push(&frame.kind().0.to_le_bytes());
        bytes.push(&[0; 2]); // flags
        bytes.push(&(payload.len() as u32).to_le_bytes());
        bytes.push(&frame.epoch().to_le_bytes());
        self.crc.update(&bytes);
        self.crc.update(payload);
        bytes.push(&self.crc.value().to_le_bytes());
        if self.ended {
            bytes.push(payload);
        }
        Ok(bytes)
    }

    /// Where the stream will be after this frame, if the frame may come now.
    fn check(&self, frame: Frame, payload: &[u8]) -> Result<Place, EncodeError> {
        let (max_data, expected) = (self.max_data, self.place.epoch);
        if self.ended {
            return Err(EncodeError::AfterEnd { frame });
        }
        if frame.epoch() != expected {
            return Err(EncodeError::WrongEpoch { frame, expected });
        }
        let len = match frame {
            Frame::Data { len, .. } if (1..=max_data).contains(&len) => len as usize,
            Frame::Data { len, .. } => return Err(EncodeError::Length { len, max_data }),
            _ => 0,
        };
        if payload.len() != len {
            return Err(EncodeError::Payload { frame, got: payload.len() });
        }
        self.place.after(frame).ok_or(EncodeError::EpochsUsedUp)
    }
}

/// What a reader lets a writer ask of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// The largest `max_data` of a header that is accepted, in bytes.
    pub max_data: u32,
}

impl Limits {
    /// A buffer of so many bytes has room for whatever [`Decoder::needs`] (F2).
    pub const fn buffer(self) -> usize {
        let data = self.max_data as usize;
        if data > MAX_HEADER { data } else { MAX_HEADER }
    }
}

/// Reads one stream.
///
/// Holds no payload and no header: a few words beside the checksum (F2). Its first error stays: the
/// stream is no good after it.
#[derive(Clone, Debug)]
pub struct Decoder<C> {
    crc: C,
    limits: Limits,
    /// Of the header.
    max_data: u32,
    place: Place,
    next: Next,
}

/// What comes next in the stream.
#[derive(Clone, Copy, Debug)]
enum Next {
    Preamble,
    Header { minor: u16, len: usize },
    Head,
    Payload(Pending),
    Nothing,
    Failed(FrameError),
}

/// A frame of which the head was read.
#[derive(Clone, Copy, Debug)]
struct Pending {
    kind: Kind,
    /// `None` if the frame is skipped.
    frame: Option<Frame>,
    /// What the head says.
    crc: u32,
    /// How much of the payload is still to come.
    left: u32,
}

/// What was read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Item<'a> {
    /// The first of every stream.
    Header(Header<'a>),
    /// One frame, with the right checksum. The payload of DATA is the bytes just given.
    Frame(Frame),
}

/// What a stream says of itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Header<'a> {
    /// The minor version, which may be later than ours. The major version is 1.
    pub minor: u16,
    /// The optional features, most of which may be unknown. Of the required ones none is.
    pub optional: u64,
    /// The longest DATA that will come, in bytes.
    pub max_data: u32,
    /// What the receiver must be able to load. Whether it can is for its VMM to say.
    pub compat: &'a str,
}

/// A part of a stream.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Part {
    /// Before the first frame.
    Header,
    /// The head of a frame, or all of it.
    Head,
    /// The payload of a frame.
    Payload(Kind),
}

impl fmt::Display for Part {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Header => f.write_str("the header"),
            Self::Head => f.write_str("the head of a frame"),
            Self::Payload(kind) => write!(f, "the payload of {kind}"),
        }
    }
}

/// Why a stream is refused. The state it carried must not be used: reset the device, and have the
/// source send anew or go on running there.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum FrameError {
    /// Something else.
    #[error(
        "the stream begins with {got:02x?}, not {MAGIC:02x?}: no framed stream, or sent \
         through something that takes it for text; look at what is connected"
    )]
    BadMagic {
        /// The first bytes.
        got: [u8; 8],
    },
    /// Another format.
    #[error(
        "the stream has version {got}, this reader knows {MAJOR}; have the source write \
         that, or update"
    )]
    Version {
        /// The major version.
        got: u16,
    },
    /// A header too short for what it has, or too long.
    #[error(
        "a header of {got} bytes; it has {MIN_HEADER} and those of its compatibility string, and \
         at most {MAX_HEADER}: damaged or hostile"
    )]
    HeaderLength {
        /// What the header says of itself.
        got: u32,
    },
    /// A damaged header.
    #[error(
        "the header says CRC {said:#010x}, its bytes give {computed:#010x}: damaged, send anew"
    )]
    HeaderCrc {
        /// What stands in it.
        said: u32,
        /// What its bytes give.
        computed: u32,
    },
    /// The stream cannot be understood without something that is unknown here.
    #[error(
        "the stream requires features {unknown:#x}, unknown here; update, or have the \
         source do without"
    )]
    RequiredFeatures {
        /// Their bits.
        unknown: u64,
    },
    /// More than this reader has room for, or nothing.
    #[error(
        "the header announces DATA of up to {got} bytes, the limit here is {limit}; \
         raise it, or send less"
    )]
    MaxData {
        /// What the header says.
        got: u32,
        /// [`Limits::max_data`].
        limit: u32,
    },
    /// No proper compatibility string.
    #[error("{0}: the source is at fault")]
    Compat(#[from] CompatError),
    /// A frame that may not be skipped.
    #[error("a frame of the unknown {kind} that is not optional: damaged, or update this reader")]
    UnknownKind {
        /// Its kind.
        kind: Kind,
    },
    /// Flags that change nobody knows what.
    #[error("{kind} with the flags {flags:#x}, unknown there: damaged, or update this reader")]
    UnknownFlags {
        /// The kind of the frame.
        kind: Kind,
        /// All its flags.
        flags: u16,
    },
    /// A length that the kind cannot have.
    #[error("{kind} of {got} bytes; {least} to {most} are allowed: damaged or hostile")]
    Length {
        /// The kind of the frame.
        kind: Kind,
        /// What its head says.
        got: u32,
        /// The least.
        least: u32,
        /// The most.
        most: u32,
    },
    /// A frame from elsewhere, or one is missing.
    #[error("{kind} of epoch {got} in epoch {expected}: frames were lost or mixed, send anew")]
    WrongEpoch {
        /// The kind of the frame.
        kind: Kind,
        /// The epoch that the stream is in.
        expected: u32,
        /// What its head says.
        got: u32,
    },
    /// This frame, or what came before it, is not as it was written (F3).
    #[error(
        "{kind} says CRC {said:#010x}, the stream up to its end gives {computed:#010x}: damaged, \
         lost or mixed, send anew"
    )]
    Crc {
        /// The kind of the frame.
        kind: Kind,
        /// What its head says.
        said: u32,
        /// What the bytes give.
        computed: u32,
    },
    /// A writer that counts wrongly.
    #[error("END says {said} bytes of DATA, {counted} came: the source is at fault")]
    EndLength {
        /// What END says.
        said: u64,
        /// What there was.
        counted: u64,
    },
    /// The last epoch that has a number was discarded.
    #[error("DISCARD of epoch {}, and no number is left for the next", u32::MAX)]
    EpochsUsedUp,
    /// The stream was complete.
    #[error("{got} bytes after END: more than one stream was sent, or they were mixed")]
    AfterEnd {
        /// How many bytes.
        got: usize,
    },
    /// The connection was closed before END (F4). Only [`Decoder::end`] says so.
    #[error(
        "the stream ends in {part}, where {needs} bytes were asked for, after {data} bytes of DATA \
         of epoch {epoch}; END is missing, so the state is not whole"
    )]
    Truncated {
        /// Where.
        part: Part,
        /// What [`Decoder::needs`] said.
        needs: usize,
        /// The epoch.
        epoch: u32,
        /// Payload of the whole DATA frames of that epoch.
        data: u64,
    },
    /// A caller's mistake: the bytes given are not those that were asked for.
    #[error("{got} bytes were given where {needs} were asked for; give what needs() says")]
    NotAsked {
        /// What [`Decoder::needs`] said.
        needs: usize,
        /// What was given.
        got: usize,
    },
}

impl<C: Crc> Decoder<C> {
    /// At the beginning of a stream.
    pub fn new(limits: Limits) -> Self {
        Self { crc: C::new(), limits, max_data: 0, place: Place::START, next: Next::Preamble }
    }

    /// How many bytes [`Decoder::give`] takes next: at most [`Limits::buffer`], and 0 once there is
    /// nothing more to read, be it because of END or of an error.
    pub fn needs(&self) -> usize {
        match self.next {
            Next::Preamble => PREAMBLE,
            Next::Header { len, .. } => len - PREAMBLE,
            Next::Head => HEAD,
            // More than the buffer has room for can only be a frame that is skipped.
            Next::Payload(pending) => self.limits.buffer().min(pending.left as usize),
            Next::Nothing | Next::Failed(_) => 0,
        }
    }

    /// The next [`Decoder::needs`] bytes of the stream, and what they complete, if anything.
    pub fn give<'a>(&mut self, bytes: &'a [u8]) -> Result<Option<Item<'a>>, FrameError> {
        self.read(bytes).inspect_err(|&error| self.next = Next::Failed(error))
    }

    /// The connection was closed: was that all? Only after END it was.
    pub fn end(&self) -> Result<(), FrameError> {
        let part = match self.next {
            Next::Nothing => return Ok(()),
            Next::Failed(error) => return Err(error),
            Next::Preamble | Next::Header { .. } => Part::Header,
            Next::Head => Part::Head,
            Next::Payload(pending) => Part::Payload(pending.kind),
        };
        let Place { epoch, data } = self.place;
        Err(FrameError::Truncated { part, needs: self.needs(), epoch, data })
    }

    fn read<'a>(&mut self, bytes: &'a [u8]) -> Result<Option<Item<'a>>, FrameError> {
        let (needs, got) = (self.needs(), bytes.len());
        match self.next {
            Next::Failed(error) => Err(error),
            Next::Nothing => Err(FrameError::AfterEnd { got }),
            _ if got != needs => Err(FrameError::NotAsked { needs, got }),
            Next::Preamble => self.preamble(bytes),
            Next::Header { minor, .. } => self.header(minor, bytes),
            Next::Head => self.head(bytes),
            Next::Payload(pending) => self.payload(pending, bytes),
        }
    }

    fn preamble<'a>(&mut self, bytes: &[u8]) -> Result<Option<Item<'a>>, FrameError> {
        self.crc.update(bytes);
        let mut fields = Fields(bytes);
        let got = fields.number(8).to_le_bytes();
        if got != MAGIC {
            return Err(FrameError::BadMagic { got });
        }
        let (major, minor) = (fields.number(2) as u16, fields.number(2) as u16);
        if major != MAJOR {
            return Err(FrameError::Version { got: major });
        }
        let got = fields.number(4) as u32;
        let len = got as usize;
        if !(MIN_HEADER..=MAX_HEADER).contains(&len) {
            return Err(FrameError::HeaderLength { got });
        }
        self.next = Next::Header { minor, len };
        Ok(None)
    }

    fn header<'a>(&mut self, minor: u16, bytes: &'a [u8]) -> Result<Option<Item<'a>>, FrameError> {
        let (covered, said) = bytes.split_at(bytes.len().saturating_sub(4));
        self.crc.update(covered);
        let (said, computed) = (Fields(said).number(4) as u32, self.crc.value());
        if said != computed {
            return Err(FrameError::HeaderCrc { said, computed });
        }
        let mut fields = Fields(covered);
        let (unknown, optional) = (fields.number(8), fields.number(8));
        if unknown != 0 {
            return Err(FrameError::RequiredFeatures { unknown });
        }
        let (max_data, limit) = (fields.number(4) as u32, self.limits.max_data);
        if max_data == 0 || max_data > limit {
            return Err(FrameError::MaxData { got: max_data, limit });
        }
        let compat_len = fields.number(2) as usize;
        fields.take(2); // reserved
        let compat = fields.take(compat_len);
        if compat.len() < compat_len {
            return Err(FrameError::HeaderLength { got: (PREAMBLE + bytes.len()) as u32 });
        }
        let compat = compat_text(compat)?;
        self.max_data = max_data;
        self.next = Next::Head;
        Ok(Some(Item::Header(Header { minor, optional, max_data, compat })))
    }

    fn head<'a>(&mut self, bytes: &[u8]) -> Result<Option<Item<'a>>, FrameError> {
        let mut fields = Fields(bytes);
        self.crc.update(Fields(bytes).take(HEAD - 4));
        let (kind, flags) = (Kind(fields.number(2) as u16), fields.number(2) as u16);
        let (len, epoch) = (fields.number(4) as u32, fields.number(4) as u32);
        let frame = frame_of(kind, flags, epoch, len)?;
        let (least, most) = match frame {
            Some(Frame::Data { .. }) => (1, self.max_data),
            Some(Frame::End { .. }) => (END_PAYLOAD as u32, END_PAYLOAD as u32),
            Some(_) => (0, 0),
            None => (0, u32::MAX),
        };
        if len < least || len > most {
            return Err(FrameError::Length { kind, got: len, least, most });
        }
        let expected = self.place.epoch;
        if epoch != expected {
            return Err(FrameError::WrongEpoch { kind, expected, got: epoch });
        }
        let pending = Pending { kind, frame, crc: fields.number(4) as u32, left: len };
        if len == 0 { self.whole(pending, &[]) } else { self.wait_for(pending) }
    }

    fn payload<'a>(
        &mut self,
        mut pending: Pending,
        bytes: &[u8],
    ) -> Result<Option<Item<'a>>, FrameError> {
        self.crc.update(bytes);
        pending.left -= bytes.len() as u32;
        if pending.left == 0 { self.whole(pending, bytes) } else { self.wait_for(pending) }
    }

    fn wait_for<'a>(&mut self, pending: Pending) -> Result<Option<Item<'a>>, FrameError> {
        self.next = Next::Payload(pending);
        Ok(None)
    }

    /// All of a frame was read; `payload` is its last piece, which is all of it unless skipped.
    fn whole<'a>(
        &mut self,
        pending: Pending,
        payload: &[u8],
    ) -> Result<Option<Item<'a>>, FrameError> {
        let Pending { kind, frame, crc: said, .. } = pending;
        let computed = self.crc.value();
        if said != computed {
            return Err(FrameError::Crc { kind, said, computed });
        }
        self.next = Next::Head;
        let Some(frame) = frame else { return Ok(None) };
        if let Frame::End { .. } = frame {
            let (said, counted) = (Fields(payload).number(8), self.place.data);
            if said != counted {
                return Err(FrameError::EndLength { said, counted });
            }
            self.next = Next::Nothing;
        }
        self.place = self.place.after(frame).ok_or(FrameError::EpochsUsedUp)?;
        Ok(Some(Item::Frame(frame)))
    }
}

/// The frame that a head speaks of; `None` if it is to be skipped (F6).
fn frame_of(kind: Kind, flags: u16, epoch: u32, len: u32) -> Result<Option<Frame>, FrameError> {
    let frame = match kind {
        Kind::DATA => Some(Frame::Data { epoch, len }),
        Kind::INITIAL_BYTES_SENT => Some(Frame::InitialBytesSent { epoch }),
        Kind::DISCARD => Some(Frame::Discard { epoch }),
        Kind::END => Some(Frame::End { epoch }),
        _ => None,
    };
    match (frame, flags) {
        (Some(_), 0) | (None, OPTIONAL) => Ok(frame),
        (None, 0) => Err(FrameError::UnknownKind { kind }),
        _ => Err(FrameError::UnknownFlags { kind, flags }),
    }
}

/// Bytes that are taken off one field after another. Where there are too few, a field is shorter.
struct Fields<'a>(&'a [u8]);

impl<'a> Fields<'a> {
    fn take(&mut self, len: usize) -> &'a [u8] {
        let (field, rest) = self.0.split_at(len.min(self.0.len()));
        self.0 = rest;
        field
    }

    /// A little-endian number of up to 8 bytes.
    fn number(&mut self, len: usize) -> u64 {
        self.take(len).iter().rev().fold(0, |number, &byte| number << 8 | u64::from(byte))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A checksum that finds nothing: these tests are of numbers that no stream gets to.
    #[derive(Clone)]
    struct Blind;

    impl Crc for Blind {
        fn new() -> Self {
            Self
        }

        fn update(&mut self, _: &[u8]) {}

        fn value(&self) -> u32 {
            0
        }
    }

    const LAST: Place = Place { epoch: u32::MAX, data: 0 };

    /// F5: the last epoch cannot be discarded, by neither end, and it can be ended.
    #[test]
    fn no_epoch_comes_twice() {
        let epoch = u32::MAX;
        let (mut encoder, header) = Encoder::<Blind>::new(1, "").expect("can be written");
        encoder.place = LAST;
        let refused = encoder.frame(Frame::Discard { epoch }, &[]).expect_err("nothing after it");
        assert_eq!(refused, EncodeError::EpochsUsedUp);
        let end = encoder.frame(Frame::End { epoch }, &[]).expect("the stream can go on");

        let mut decoder = Decoder::<Blind>::new(Limits { max_data: 1 });
        decoder.give(&header[..16]).expect("the preamble");
        decoder.give(&header[16..]).expect("the rest of the header");
        decoder.place = LAST;
        let mut discarding = decoder.clone();
        let discard = [3, 0, 0, 0, 0, 0, 0, 0, 255, 255, 255, 255, 0, 0, 0, 0];
        assert_eq!(discarding.give(&discard), Err(FrameError::EpochsUsedUp));
        assert_eq!(discarding.end(), Err(FrameError::EpochsUsedUp));
        decoder.give(&end[..16]).expect("the head");
        let ended = decoder.give(&end[16..]).expect("the payload");
        assert_eq!(ended, Some(Item::Frame(Frame::End { epoch })));
    }
}
