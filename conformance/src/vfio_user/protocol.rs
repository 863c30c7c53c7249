// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! The messages of vfio-user that a migration needs, as bytes.
//!
//! Every number is in the byte order of the host. What is decoded came from somebody else: every
//! length is checked before it is believed.

use serde::{Deserialize, Serialize};

/// The major version of the protocol that we speak; both sides must speak the same.
pub const MAJOR: u16 = 0;

/// The newest minor version of it that we know; the server may know less.
pub const MINOR: u16 = 1;

/// What one message carries at most where nothing else was agreed upon, in bytes:
/// `max_data_xfer_size`.
pub const MOST_DATA: u32 = 1 << 20;

/// No message is longer: the data, and what stands before it.
pub const LONGEST_MESSAGE: usize = MOST_DATA as usize + 4096;

/// What is asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[repr(u16)]
pub enum Command {
    /// `VFIO_USER_VERSION`: the first message of a connection.
    Version = 1,
    /// `VFIO_USER_DEVICE_GET_INFO`.
    GetInfo = 4,
    /// `VFIO_USER_DEVICE_GET_REGION_INFO`.
    GetRegionInfo = 5,
    /// `VFIO_USER_REGION_WRITE`.
    RegionWrite = 10,
    /// `VFIO_USER_DEVICE_RESET`.
    Reset = 13,
    /// `VFIO_USER_DEVICE_FEATURE`.
    Feature = 16,
    /// `VFIO_USER_MIG_DATA_READ`.
    MigDataRead = 17,
    /// `VFIO_USER_MIG_DATA_WRITE`.
    MigDataWrite = 18,
}

impl Command {
    /// Those that we know.
    pub const ALL: [Self; 8] = [
        Self::Version,
        Self::GetInfo,
        Self::GetRegionInfo,
        Self::RegionWrite,
        Self::Reset,
        Self::Feature,
        Self::MigDataRead,
        Self::MigDataWrite,
    ];

    /// By its number.
    pub fn from_number(number: u16) -> Option<Self> {
        Self::ALL.into_iter().find(|command| *command as u16 == number)
    }
}

/// What does not hold together in a message.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Malformed {
    /// Fewer bytes than the message must have.
    #[error("{what} takes {needs} bytes, and there are {has}")]
    Short {
        /// Which part.
        what: &'static str,
        /// How many it takes.
        needs: usize,
        /// How many there are.
        has: usize,
    },
    /// The header says a size that no message has.
    #[error("a message of {0} bytes: the least is {HEADER}, the most {LONGEST_MESSAGE}")]
    Size(u32),
    /// The type bits of the flags are neither a command nor a reply.
    #[error("flags {0:#x}: neither a command nor a reply")]
    Type(u32),
    /// More than there may be.
    #[error("{what} {said}, and the most is {most}")]
    TooMuch {
        /// Which number.
        what: &'static str,
        /// What was said.
        said: u64,
        /// What it may be.
        most: u64,
    },
    /// The capabilities are no JSON, or not those of a version.
    #[error("the capabilities of the version are none: {0}")]
    Capabilities(String),
}

/// Structures of fixed length: numbers one after the other, in the byte order of the host.
macro_rules! fixed {
    ($($(#[$doc:meta])* $name:ident, $len:literal, $what:literal {
        $($(#[$field_doc:meta])* $field:ident: $type:ty,)*
    })*) => {
        $(
            $(#[$doc])*
            #[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
            pub struct $name {
                $($(#[$field_doc])* pub $field: $type,)*
            }

            impl $name {
                /// How many bytes it takes.
                pub const LEN: usize = $len;

                /// Add its bytes.
                pub fn encode(&self, to: &mut Vec<u8>) {
                    $(to.extend_from_slice(&self.$field.to_ne_bytes());)*
                }

                /// Take it from the front, and give what is behind it.
                ///
                /// # Errors
                ///
                /// There are too few bytes.
                pub fn decode(bytes: &[u8]) -> Result<(Self, &[u8]), Malformed> {
                    let short = Malformed::Short { what: $what, needs: Self::LEN, has: bytes.len() };
                    let mut rest = bytes;
                    $(
                        let Some((field, behind)) = rest.split_first_chunk() else {
                            return Err(short);
                        };
                        let $field = <$type>::from_ne_bytes(*field);
                        rest = behind;
                    )*
                    Ok((Self { $($field,)* }, rest))
                }
            }

            const _: () = assert!($name::LEN == 0 $(+ size_of::<$type>())*);
        )*
    };
}

fixed! {
    /// What stands before every message.
    Header, 16, "a header" {
        /// Chosen by who asks, repeated by who answers.
        id: u16,
        /// Number of a [`Command`].
        command: u16,
        /// Bytes of the whole message.
        size: u32,
        /// Bits 0 to 3: 0 a command, 1 a reply. Bit 4: no reply is wanted. Bit 5: the reply is an error.
        flags: u32,
        /// The errno of an error, or 0 where its sender has none to give.
        error: u32,
    }
    /// The two numbers of a version; the capabilities stand behind them.
    VersionNumbers, 4, "a version" {
        /// Must be the same on both sides.
        major: u16,
        /// The server's is the client's or less.
        minor: u16,
    }
    /// `struct vfio_device_info`, as it was first.
    DeviceInfo, 16, "a device info" {
        /// The most that the reply may take, or takes.
        argsz: u32,
        /// Bit 0: can be reset. Bit 1: a PCI device.
        flags: u32,
        /// How many regions.
        num_regions: u32,
        /// How many kinds of interrupts.
        num_irqs: u32,
    }
    /// `struct vfio_region_info`.
    RegionInfo, 32, "a region info" {
        /// The most that the reply may take, or takes.
        argsz: u32,
        /// Bit 0: readable. Bit 1: writable. Bit 2: can be mapped.
        flags: u32,
        /// Which region.
        index: u32,
        /// Where its capabilities begin; 0 if there are none.
        cap_offset: u32,
        /// Bytes.
        size: u64,
        /// Of a file descriptor that comes with the reply.
        offset: u64,
    }
    /// What stands before the data of a `REGION_WRITE`, and is its reply.
    RegionAccess, 16, "a region access" {
        /// Within the region, in bytes.
        offset: u64,
        /// Which region.
        region: u32,
        /// Bytes.
        count: u32,
    }
    /// `struct vfio_device_feature`; its data stands behind it.
    FeatureHead, 8, "a device feature" {
        /// The most that the reply may take, or takes.
        argsz: u32,
        /// Number of the feature, and what is to be done with it.
        flags: u32,
    }
    /// `struct vfio_device_feature_migration`.
    MigrationFlags, 8, "the migration flags" {
        /// `VFIO_MIGRATION_*`.
        flags: u64,
    }
    /// `struct vfio_device_feature_mig_state`.
    MigState, 8, "a device_state" {
        /// The state.
        device_state: u32,
        /// Not used in vfio-user.
        data_fd: i32,
    }
    /// What stands before the bytes of a stream, and asks for them.
    MigData, 8, "a piece of migration data" {
        /// The most that the reply may take, or takes.
        argsz: u32,
        /// Bytes of the stream.
        size: u32,
    }
}

/// Bytes of a header.
pub const HEADER: usize = Header::LEN;

/// Bits of [`Header::flags`].
pub mod flag {
    /// Which bits tell a command from a reply.
    pub const TYPE: u32 = 0xf;
    /// A reply; a command has 0.
    pub const REPLY: u32 = 1;
    /// Of a command: no reply is wanted.
    pub const NO_REPLY: u32 = 1 << 4;
    /// Of a reply: the command failed.
    pub const ERROR: u32 = 1 << 5;
}

/// Bits of [`DeviceInfo::flags`] and [`RegionInfo::flags`].
pub mod info {
    /// The device can be reset.
    pub const RESET: u32 = 1;
    /// It is a PCI device.
    pub const PCI: u32 = 1 << 1;
    /// The region can be written.
    pub const REGION_WRITE: u32 = 1 << 1;
}

/// Bits and numbers of [`FeatureHead::flags`], as `linux/vfio.h` has them.
pub mod feature {
    /// Which bits are the number of the feature.
    pub const INDEX: u32 = 0xffff;
    /// Get it.
    pub const GET: u32 = 1 << 16;
    /// Set it.
    pub const SET: u32 = 1 << 17;
    /// Only ask whether that could be done.
    pub const PROBE: u32 = 1 << 18;
    /// `VFIO_DEVICE_FEATURE_MIGRATION`.
    pub const MIGRATION: u32 = 1;
    /// `VFIO_DEVICE_FEATURE_MIG_DEVICE_STATE`.
    pub const MIG_DEVICE_STATE: u32 = 2;
}

impl Header {
    /// How many bytes follow it.
    ///
    /// # Errors
    ///
    /// No message has the size that it says, or it is neither a command nor a reply.
    pub fn payload(&self) -> Result<usize, Malformed> {
        let size = self.size as usize;
        if !(HEADER..=LONGEST_MESSAGE).contains(&size) {
            return Err(Malformed::Size(self.size));
        }
        if self.flags & flag::TYPE > flag::REPLY {
            return Err(Malformed::Type(self.flags));
        }
        Ok(size - HEADER)
    }

    /// Whether it is a reply's.
    pub const fn is_reply(&self) -> bool {
        self.flags & flag::TYPE == flag::REPLY
    }
}

/// Write a message into `to`, whose header gets its size.
pub fn message(to: &mut Vec<u8>, header: Header, payload: impl FnOnce(&mut Vec<u8>)) {
    to.clear();
    header.encode(to);
    payload(to);
    let size = to.len() as u32;
    to[4..8].copy_from_slice(&size.to_ne_bytes());
}

/// What a side can do beyond what all can. What the other names and we do not know is no matter.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Capabilities {
    /// File descriptors that it takes with one message.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub max_msg_fds: Option<u64>,
    /// The most data that one message to it may carry, in bytes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub max_data_xfer_size: Option<u64>,
}

#[derive(Default, Serialize, Deserialize)]
struct VersionData {
    #[serde(default)]
    capabilities: Capabilities,
}

/// The payload of a version, both ways.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Version {
    /// The protocol's.
    pub numbers: VersionNumbers,
    /// The sender's.
    pub capabilities: Capabilities,
}

impl Version {
    /// Add its bytes, the NUL included.
    ///
    /// # Errors
    ///
    /// The capabilities cannot be written as JSON.
    pub fn encode(&self, to: &mut Vec<u8>) -> Result<(), Malformed> {
        self.numbers.encode(to);
        let data = VersionData { capabilities: self.capabilities };
        serde_json::to_writer(&mut *to, &data)
            .map_err(|error| Malformed::Capabilities(error.to_string()))?;
        to.push(0);
        Ok(())
    }

    /// From a payload. Without capabilities the defaults hold.
    ///
    /// # Errors
    ///
    /// It is too short, or the capabilities are not a JSON object that ends with a NUL.
    pub fn decode(payload: &[u8]) -> Result<Self, Malformed> {
        let (numbers, data) = VersionNumbers::decode(payload)?;
        let data = match data.split_last() {
            None => VersionData::default(),
            Some((0, json)) => serde_json::from_slice(json)
                .map_err(|error| Malformed::Capabilities(error.to_string()))?,
            Some(_) => return Err(Malformed::Capabilities("no NUL at their end".to_owned())),
        };
        Ok(Self { numbers, capabilities: data.capabilities })
    }

    /// The most data that a message to the sender may carry, and that we send.
    pub fn most_data(&self) -> u32 {
        let said = self.capabilities.max_data_xfer_size;
        said.map_or(MOST_DATA, |said| said.min(u64::from(MOST_DATA)) as u32)
    }
}
