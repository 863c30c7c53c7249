// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! The states and the flag sets of `<linux/vfio.h>`.

use core::fmt;

/// A device_state, with its number in `enum vfio_device_mig_state`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[cfg_attr(feature = "serde", serde(rename_all = "SCREAMING_SNAKE_CASE"))]
#[repr(u8)]
pub enum State {
    /// The device failed and only a reset brings it back (R13, R14).
    Error = 0,
    /// Neither DMA nor interrupts, and nothing changes (R18).
    Stop = 1,
    /// Fully operational (R20).
    Running = 2,
    /// Stopped, and the whole state can be read from the data_fd (R31).
    StopCopy = 3,
    /// Stopped, and a state is being written to the data_fd (R27).
    Resuming = 4,
    /// Running, but starting no peer-to-peer DMA of its own (R21).
    RunningP2p = 5,
    /// Running, while a first, inexact copy is read from the data_fd (R32).
    PreCopy = 6,
    /// [`State::PreCopy`] without peer-to-peer DMA.
    PreCopyP2p = 7,
}

/// Which way the bytes of a session go, seen from the device.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[cfg_attr(feature = "serde", serde(rename_all = "snake_case"))]
pub enum Direction {
    /// The data_fd is read: PRE_COPY, PRE_COPY_P2P and STOP_COPY share one such session (R25).
    Saving,
    /// The data_fd is written: RESUMING.
    Resuming,
}

impl State {
    /// Every state, in the order of its number.
    pub const ALL: [Self; 8] = [
        Self::Error,
        Self::Stop,
        Self::Running,
        Self::StopCopy,
        Self::Resuming,
        Self::RunningP2p,
        Self::PreCopy,
        Self::PreCopyP2p,
    ];

    /// The state with this number, if Linux 6.12 knows one.
    pub const fn from_number(number: u32) -> Option<Self> {
        if number < 8 { Some(Self::ALL[number as usize]) } else { None }
    }

    /// The number in `enum vfio_device_mig_state`.
    pub const fn number(self) -> u32 {
        self as u32
    }

    /// The name without the `VFIO_DEVICE_STATE_` in front.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Error => "ERROR",
            Self::Stop => "STOP",
            Self::Running => "RUNNING",
            Self::StopCopy => "STOP_COPY",
            Self::Resuming => "RESUMING",
            Self::RunningP2p => "RUNNING_P2P",
            Self::PreCopy => "PRE_COPY",
            Self::PreCopyP2p => "PRE_COPY_P2P",
        }
    }

    /// The session a device in this state has, and which way it goes.
    pub const fn session(self) -> Option<Direction> {
        match self {
            Self::PreCopy | Self::PreCopyP2p | Self::StopCopy => Some(Direction::Saving),
            Self::Resuming => Some(Direction::Resuming),
            Self::Error | Self::Stop | Self::Running | Self::RunningP2p => None,
        }
    }

    /// PRE_COPY or PRE_COPY_P2P.
    pub const fn is_pre_copy(self) -> bool {
        matches!(self, Self::PreCopy | Self::PreCopyP2p)
    }

    /// One of the saving group: PRE_COPY, PRE_COPY_P2P, STOP_COPY.
    pub const fn is_saving(self) -> bool {
        matches!(self.session(), Some(Direction::Saving))
    }

    pub(crate) const fn is(self, other: Self) -> bool {
        self as u8 == other as u8
    }
}

impl fmt::Display for State {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.name())
    }
}

impl From<State> for u32 {
    fn from(state: State) -> Self {
        state.number()
    }
}

/// A device_state as it crosses the ioctl: any 32-bit number.
///
/// A user may ask for a number that is no state, and a later kernel may report one that we do not
/// know (R8). Shown, and written as JSON, by name where it has one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct RawState(pub u32);

impl RawState {
    /// The state with this number, if there is one.
    pub const fn known(self) -> Option<State> {
        State::from_number(self.0)
    }
}

impl From<State> for RawState {
    fn from(state: State) -> Self {
        Self(state.number())
    }
}

impl fmt::Display for RawState {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.known() {
            Some(state) => state.fmt(f),
            None => write!(f, "{:#x}", self.0),
        }
    }
}

#[cfg(feature = "serde")]
mod raw_state_serde {
    use serde::de::{Deserialize, Deserializer, Error, Visitor};
    use serde::ser::{Serialize, Serializer};

    use super::{RawState, State};

    impl Serialize for RawState {
        fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
            match self.known() {
                Some(state) => serializer.serialize_str(state.name()),
                None => serializer.serialize_u32(self.0),
            }
        }
    }

    impl<'de> Deserialize<'de> for RawState {
        fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
            deserializer.deserialize_any(NameOrNumber)
        }
    }

    struct NameOrNumber;

    impl Visitor<'_> for NameOrNumber {
        type Value = RawState;

        fn expecting(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
            f.write_str("the name of a device_state or a 32-bit number")
        }

        fn visit_str<E: Error>(self, name: &str) -> Result<RawState, E> {
            State::ALL
                .into_iter()
                .find(|state| state.name() == name)
                .map(RawState::from)
                .ok_or_else(|| E::custom(format_args!("unknown device_state {name:?}")))
        }

        fn visit_u64<E: Error>(self, number: u64) -> Result<RawState, E> {
            u32::try_from(number)
                .map(RawState)
                .map_err(|_| E::custom(format_args!("device_state {number} has over 32 bits")))
        }
    }
}

/// A set of states, shown as `STOP|RUNNING`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct StateSet(u8);

impl StateSet {
    /// No state.
    pub const EMPTY: Self = Self(0);

    /// This set and `state`.
    #[must_use]
    pub const fn with(self, state: State) -> Self {
        Self(self.0 | 1 << state as u8)
    }

    /// Whether `state` is in the set.
    pub const fn contains(self, state: State) -> bool {
        self.0 & 1 << state as u8 != 0
    }

    /// The states in the set, by number.
    pub fn iter(self) -> impl Iterator<Item = State> {
        State::ALL.into_iter().filter(move |&state| self.contains(state))
    }
}

impl fmt::Display for StateSet {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if *self == Self::EMPTY {
            return f.write_str("nothing");
        }
        for (index, state) in self.iter().enumerate() {
            if index > 0 {
                f.write_str("|")?;
            }
            f.write_str(state.name())?;
        }
        Ok(())
    }
}

/// What a device advertises in `struct vfio_device_feature_migration`.
///
/// `STOP_COPY` is always there and the other two flags are free (R1, R2), so the four values of
/// this type are the four legal sets and an illegal one cannot be built (R3).
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[cfg_attr(feature = "serde", serde(try_from = "u64", into = "u64"))]
pub struct Features {
    p2p: bool,
    pre_copy: bool,
}

/// Flags that are not one of the four legal sets (R3).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, thiserror::Error)]
#[error(
    "migration flags {flags:#x} are not a legal set: STOP_COPY (0x1) must be there, P2P (0x2) and \
     PRE_COPY (0x4) may be, and nothing else is defined; treat the device as not migratable"
)]
pub struct IllegalFeatures {
    /// The flags as the device gave them.
    pub flags: u64,
}

impl Features {
    /// `STOP_COPY` alone.
    pub const STOP_COPY: Self = Self::new(false, false);
    /// `STOP_COPY | P2P`.
    pub const P2P: Self = Self::new(true, false);
    /// `STOP_COPY | PRE_COPY`.
    pub const PRE_COPY: Self = Self::new(false, true);
    /// `STOP_COPY | P2P | PRE_COPY`: all eight states, all fifteen arcs.
    pub const ALL: Self = Self::new(true, true);
    /// The four legal sets.
    pub const SETS: [Self; 4] = [Self::STOP_COPY, Self::P2P, Self::PRE_COPY, Self::ALL];

    /// `STOP_COPY`, and `P2P` and `PRE_COPY` as asked.
    pub const fn new(p2p: bool, pre_copy: bool) -> Self {
        Self { p2p, pre_copy }
    }

    /// From `flags` of `struct vfio_device_feature_migration`.
    pub const fn from_flags(flags: u64) -> Result<Self, IllegalFeatures> {
        match flags {
            0b001 | 0b011 | 0b101 | 0b111 => Ok(Self::new(flags & 0b010 != 0, flags & 0b100 != 0)),
            _ => Err(IllegalFeatures { flags }),
        }
    }

    /// The `VFIO_MIGRATION_*` flags.
    pub const fn flags(self) -> u64 {
        1 | (self.p2p as u64) << 1 | (self.pre_copy as u64) << 2
    }

    /// Whether `P2P` is set.
    pub const fn p2p(self) -> bool {
        self.p2p
    }

    /// Whether `PRE_COPY` is set.
    pub const fn pre_copy(self) -> bool {
        self.pre_copy
    }

    /// Whether a device with these flags has `state` (R1, R2). ERROR is always there.
    pub const fn has(self, state: State) -> bool {
        match state {
            State::RunningP2p => self.p2p,
            State::PreCopy => self.pre_copy,
            State::PreCopyP2p => self.p2p && self.pre_copy,
            State::Error | State::Stop | State::Running | State::StopCopy | State::Resuming => true,
        }
    }

    /// `full`, `pre-copy`, `p2p` or `stop-copy`: a short name for files and reports.
    pub const fn slug(self) -> &'static str {
        match (self.p2p, self.pre_copy) {
            (false, false) => "stop-copy",
            (true, false) => "p2p",
            (false, true) => "pre-copy",
            (true, true) => "full",
        }
    }

    /// Position in [`Features::SETS`].
    pub(crate) const fn index(self) -> usize {
        self.p2p as usize | (self.pre_copy as usize) << 1
    }
}

impl fmt::Display for Features {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match (self.p2p, self.pre_copy) {
            (false, false) => "STOP_COPY",
            (true, false) => "STOP_COPY|P2P",
            (false, true) => "STOP_COPY|PRE_COPY",
            (true, true) => "STOP_COPY|P2P|PRE_COPY",
        })
    }
}

impl TryFrom<u64> for Features {
    type Error = IllegalFeatures;

    fn try_from(flags: u64) -> Result<Self, IllegalFeatures> {
        Self::from_flags(flags)
    }
}

impl From<Features> for u64 {
    fn from(features: Features) -> Self {
        features.flags()
    }
}
