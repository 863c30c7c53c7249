// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! The stream on mlx5's data_fd: records, as Linux's `mlx5-vfio-pci` writes and reads them.
//!
//! A record is a header of [`HEADER_BYTES`], little endian (`u64` length of the data, `u32` flags,
//! `u32` tag), and its data. A saved device is a record [`TAG_STOP_COPY_SIZE`] and one
//! [`TAG_FW_DATA`] for each `SAVE_VHCA_STATE`:
//!
//! ```
//! use vfio_fsm_mlx5::stream::{self, Event, Reader};
//!
//! let mut bytes = stream::stop_copy_size(0x3000).to_vec();
//! bytes.extend(stream::fw_data(3));
//! bytes.extend(b"abc");
//!
//! let mut reader = Reader::default();
//! let mut input = bytes.as_slice();
//! let mut image = Vec::<u8>::new();
//! while let Some(event) = reader.next(&mut input)? {
//!     match event {
//!         Event::StopCopySize(bytes) => assert_eq!(bytes, 0x3000),
//!         Event::Image { bytes } => assert_eq!(bytes, 3),
//!         Event::Data(part) => image.extend(part),
//!         Event::ImageEnd => assert_eq!(image, b"abc"),
//!     }
//! }
//! reader.finish()?;
//! # Ok::<(), vfio_fsm_mlx5::stream::StreamError>(())
//! ```
//!
//! What is read is not trusted. The [`Reader`] owns no memory: data is handed out as parts of what
//! was given, records it does not know are skipped as they come (Linux's driver first allocates all
//! of one), and a stream that ends inside a record is refused (Linux's driver takes it).

use vfio_fsm_core::Errno;

/// The length of a record's header.
pub const HEADER_BYTES: usize = 16;

/// The length of a whole record [`TAG_STOP_COPY_SIZE`].
pub const STOP_COPY_SIZE_BYTES: usize = HEADER_BYTES + 8;

/// An image, for `LOAD_VHCA_STATE`. Mandatory.
pub const TAG_FW_DATA: u32 = 0;

/// How large the last images may become in all: a `u64` of bytes. Optional.
pub const TAG_STOP_COPY_SIZE: u32 = 1;

/// In a header's flags: who does not know the tag may skip the record.
pub const FLAG_OPTIONAL: u32 = 1;

/// The whole record that begins a stream: how large a buffer the source has for its last images,
/// in bytes.
pub fn stop_copy_size(bytes: u64) -> [u8; STOP_COPY_SIZE_BYTES] {
    let mut record = [0; STOP_COPY_SIZE_BYTES];
    let (header, data) = record.split_at_mut(HEADER_BYTES);
    header.copy_from_slice(
        &Header { bytes: 8, flags: FLAG_OPTIONAL, tag: TAG_STOP_COPY_SIZE }.encode(),
    );
    data.copy_from_slice(&bytes.to_le_bytes());
    record
}

/// The header of an image of this many bytes, which are to follow.
pub fn fw_data(bytes: u32) -> [u8; HEADER_BYTES] {
    Header { bytes: bytes.into(), flags: 0, tag: TAG_FW_DATA }.encode()
}

#[derive(Clone, Copy, Debug)]
struct Header {
    bytes: u64,
    flags: u32,
    tag: u32,
}

impl Header {
    fn encode(self) -> [u8; HEADER_BYTES] {
        let number =
            u128::from(self.bytes) | u128::from(self.flags) << 64 | u128::from(self.tag) << 96;
        number.to_le_bytes()
    }

    fn decode(bytes: [u8; HEADER_BYTES]) -> Self {
        let number = u128::from_le_bytes(bytes);
        Self { bytes: number as u64, flags: (number >> 64) as u32, tag: (number >> 96) as u32 }
    }
}

/// Why a stream is refused.
#[derive(Clone, Copy, Debug, Eq, PartialEq, thiserror::Error)]
pub enum StreamError {
    /// A record that must be understood, and is not.
    #[error(
        "the record at byte {at} is mandatory and has the unknown tag {tag:#x} ({bytes} bytes): \
         the source is newer than this reader, or the stream is none of mlx5's"
    )]
    UnknownTag {
        /// Where its header begins.
        at: u64,
        /// The tag.
        tag: u32,
        /// The length it claims.
        bytes: u64,
    },
    /// A record is longer than the [`Limits`] allow.
    #[error(
        "the record at byte {at} (tag {tag:#x}) claims {bytes} bytes, the limit is {limit}: the \
         stream is damaged, or needs a larger limit"
    )]
    TooLarge {
        /// Where its header begins.
        at: u64,
        /// The tag.
        tag: u32,
        /// The length it claims.
        bytes: u64,
        /// The most it may claim.
        limit: u32,
    },
    /// A record [`TAG_STOP_COPY_SIZE`] has no room for its number.
    #[error("the stop-copy size at byte {at} has {bytes} bytes, not 8: the stream is damaged")]
    ShortStopCopySize {
        /// Where its header begins.
        at: u64,
        /// The length it claims.
        bytes: u64,
    },
    /// The stream ended inside a record.
    #[error(
        "the stream ends at byte {at}, with {missing} bytes missing of the record it is in: write \
         the rest, or the device has only part of its state"
    )]
    Truncated {
        /// How many bytes there were.
        at: u64,
        /// How many more the header or the data needs at least.
        missing: u64,
    },
    /// The stream was refused before.
    #[error("the stream was refused before: reset the device, and send it from the beginning")]
    Refused,
}

impl StreamError {
    /// What Linux's driver says of it; of a truncated stream it says nothing.
    pub fn errno(&self) -> Errno {
        match self {
            Self::UnknownTag { .. } => Errno::EOPNOTSUPP,
            Self::TooLarge { .. } => Errno::ENOMEM,
            Self::ShortStopCopySize { .. } => Errno::EINVAL,
            Self::Truncated { .. } => Errno::EPROTO,
            Self::Refused => Errno::ENODEV,
        }
    }
}

/// How long records may be, in bytes of data. The default is what `LOAD_VHCA_STATE` can say.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Limits {
    /// An image, for which whoever reads has to find memory.
    pub image: u32,
    /// A record that is not an image, which is skipped.
    pub other: u32,
}

impl Default for Limits {
    fn default() -> Self {
        Self { image: u32::MAX, other: u32::MAX }
    }
}

/// What comes next in a stream.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Event<'a> {
    /// How large the source's last images may become in all, in bytes: a hint for the size of a
    /// buffer, and no more to be trusted than the rest. At most `u32::MAX`, as in Linux's driver.
    StopCopySize(u64),
    /// An image begins.
    Image {
        /// Its length.
        bytes: u32,
    },
    /// The next part of the image; never empty.
    Data(&'a [u8]),
    /// The image is complete: load it.
    ImageEnd,
}

/// Where in a record the reader is.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Place {
    /// In a header, this much of which is there.
    Header { got: usize },
    /// In an image.
    Image { missing: u32 },
    /// In the number of a [`TAG_STOP_COPY_SIZE`]; what follows it is skipped.
    StopCopySize { got: usize, behind: u32 },
    /// In a record that is skipped.
    Skip { missing: u32 },
    /// Behind an error.
    Refused,
}

/// Takes a stream apart, in pieces of any size.
#[derive(Clone, Debug)]
pub struct Reader {
    limits: Limits,
    place: Place,
    /// What is there of a header or a number.
    partial: [u8; HEADER_BYTES],
    position: u64,
    images: u64,
}

impl Default for Reader {
    fn default() -> Self {
        Self::new(Limits::default())
    }
}

impl Reader {
    /// A reader at the beginning of a stream.
    pub fn new(limits: Limits) -> Self {
        let place = Place::Header { got: 0 };
        Self { limits, place, partial: [0; HEADER_BYTES], position: 0, images: 0 }
    }

    /// How many bytes were taken.
    pub fn position(&self) -> u64 {
        self.position
    }

    /// How many images were complete.
    pub fn images(&self) -> u64 {
        self.images
    }

    /// Takes bytes from the front of `input` up to the next event. `None`: all are taken, and more
    /// are needed; only then is it all told.
    ///
    /// # Errors
    ///
    /// [`StreamError`], and from then on [`StreamError::Refused`].
    pub fn next<'a>(&mut self, input: &mut &'a [u8]) -> Result<Option<Event<'a>>, StreamError> {
        loop {
            let event = match self.place {
                Place::Header { got } => {
                    if !self.fill(input, got, HEADER_BYTES, |got| Place::Header { got }) {
                        return Ok(None);
                    }
                    self.header().inspect_err(|_| self.refuse())?
                }
                Place::Image { missing: 0 } => {
                    self.place = Place::Header { got: 0 };
                    self.images += 1;
                    Some(Event::ImageEnd)
                }
                Place::Image { missing } => {
                    let data = self.take(input, missing as usize);
                    if data.is_empty() {
                        return Ok(None);
                    }
                    self.place = Place::Image { missing: missing - data.len() as u32 };
                    Some(Event::Data(data))
                }
                Place::StopCopySize { got, behind } => {
                    if !self.fill(input, got, 8, |got| Place::StopCopySize { got, behind }) {
                        return Ok(None);
                    }
                    self.place = Place::Skip { missing: behind };
                    let number = u128::from_le_bytes(self.partial) as u64;
                    Some(Event::StopCopySize(number.min(u32::MAX.into())))
                }
                Place::Skip { missing: 0 } => {
                    self.place = Place::Header { got: 0 };
                    None
                }
                Place::Skip { missing } => {
                    let skipped = self.take(input, missing as usize);
                    if skipped.is_empty() {
                        return Ok(None);
                    }
                    self.place = Place::Skip { missing: missing - skipped.len() as u32 };
                    None
                }
                Place::Refused => return Err(StreamError::Refused),
            };
            if event.is_some() {
                return Ok(event);
            }
        }
    }

    /// Refuses whatever else comes: an image could not be loaded.
    pub fn refuse(&mut self) {
        self.place = Place::Refused;
    }

    /// Whether the stream may end here, which is between two records. It says nothing of how many
    /// there were: see [`images`](Self::images).
    ///
    /// # Errors
    ///
    /// [`StreamError::Truncated`]: it may not. [`StreamError::Refused`]: it was refused before.
    pub fn finish(&self) -> Result<(), StreamError> {
        let missing = match self.place {
            Place::Header { got: 0 } | Place::Skip { missing: 0 } => return Ok(()),
            Place::Header { got } => (HEADER_BYTES - got) as u64,
            // It was taken, but not told to be complete: nobody has loaded it.
            Place::Image { missing } | Place::Skip { missing } => missing.into(),
            Place::StopCopySize { got, behind } => (8 - got) as u64 + u64::from(behind),
            Place::Refused => return Err(StreamError::Refused),
        };
        Err(StreamError::Truncated { at: self.position, missing })
    }

    /// Takes at most `most` bytes.
    fn take<'a>(&mut self, input: &mut &'a [u8], most: usize) -> &'a [u8] {
        let (taken, rest) = input.split_at(most.min(input.len()));
        *input = rest;
        self.position += taken.len() as u64;
        taken
    }

    /// Completes what is partly there, up to `want` bytes; whether it is.
    fn fill(
        &mut self,
        input: &mut &[u8],
        got: usize,
        want: usize,
        place: impl Fn(usize) -> Place,
    ) -> bool {
        let more = self.take(input, want - got);
        if let Some(room) = self.partial.get_mut(got..got + more.len()) {
            room.copy_from_slice(more);
        }
        self.place = place(got + more.len());
        got + more.len() == want
    }

    /// What the header says that has just been completed.
    fn header(&mut self) -> Result<Option<Event<'static>>, StreamError> {
        let Header { bytes, flags, tag } = Header::decode(self.partial);
        let at = self.position - HEADER_BYTES as u64;
        let limit = if tag == TAG_FW_DATA { self.limits.image } else { self.limits.other };
        let short = match u32::try_from(bytes) {
            Ok(short) if short <= limit => short,
            _ => return Err(StreamError::TooLarge { at, tag, bytes, limit }),
        };
        self.place = match tag {
            TAG_FW_DATA => Place::Image { missing: short },
            TAG_STOP_COPY_SIZE => match short.checked_sub(8) {
                Some(behind) => Place::StopCopySize { got: 0, behind },
                None => return Err(StreamError::ShortStopCopySize { at, bytes }),
            },
            _ if flags & FLAG_OPTIONAL != 0 => Place::Skip { missing: short },
            _ => return Err(StreamError::UnknownTag { at, tag, bytes }),
        };
        Ok((tag == TAG_FW_DATA).then_some(Event::Image { bytes: short }))
    }
}
