// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! A device whose hardware takes its time: what a reset or a touch does to an image that is being
//! read.
//!
//! The bytes, the sessions and the states are those of the core's `Memory`. What differs is when
//! the registers are read that the image is made of, and what becomes of it if the hardware is
//! reset meanwhile: what the seed thread says of two drivers.

use vfio_fsm_core::device::{ArcActions, ArcFailure, DeviceData, Memory};
use vfio_fsm_core::{Arc, Errno, PrecopyInfo, State};

/// How a device makes its image in STOP_COPY.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Serialisation {
    /// All at once, by the first read in STOP_COPY.
    Atomic,
    /// All at once, by a command of the firmware that fails if the device is reset before the image
    /// is out: the data_fd gives an error (mlx5).
    Fails,
    /// Register by register, as it is read: the image mixes what was before and what came after
    /// (hisi_acc).
    Tears,
}

impl Serialisation {
    /// Its name in reports.
    pub const fn slug(self) -> &'static str {
        match self {
            Self::Atomic => "atomic",
            Self::Fails => "mlx5",
            Self::Tears => "hisi_acc",
        }
    }
}

/// Registers: two, so that an image can be torn.
pub(super) const REGISTERS: usize = 2;

/// An image, and so the longest read: a tag and the registers.
pub(super) const RECORD: usize = Memory::<REGISTERS>::RECORD;

/// What a reset of the hardware leaves in a register.
pub(super) const BLANK: u8 = 0;
/// What the guest writes: a device that has it, or another value, is programmed and may start DMA.
pub(super) const PROGRAMMED: u8 = 1;
/// What it writes next, or what DMA by another device leaves.
const CHANGED: u8 = 2;

/// The record of an image that is read in STOP_COPY.
const FINAL: u8 = b'F';

/// Memory, and the hardware that makes an image of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Hardware {
    memory: Memory<REGISTERS>,
    how: Serialisation,
    save: Save,
}

/// An image on its way out. Of a device that is atomic nothing is kept.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
struct Save {
    stopped: bool,
    /// The hardware was reset meanwhile.
    spoilt: bool,
    tag: u8,
    /// Bytes of the record that have gone by.
    at: u8,
}

impl Hardware {
    pub(super) const fn new(how: Serialisation) -> Self {
        let save = Save { stopped: false, spoilt: false, tag: 0, at: 0 };
        Self { memory: Memory::new(), how, save }
    }

    pub(super) const fn registers(&self) -> [u8; REGISTERS] {
        *self.memory.registers()
    }

    /// Whether all registers were written at once, as they always are.
    pub(super) const fn is_torn(&self) -> bool {
        let [one, other] = self.registers();
        one != other
    }

    pub(super) const fn is_blank(&self) -> bool {
        matches!(self.registers(), [BLANK, BLANK])
    }

    /// What the next touch writes: never what is there.
    pub(super) const fn next_value(&self) -> u8 {
        let [value, _] = self.registers();
        if value == PROGRAMMED { CHANGED } else { PROGRAMMED }
    }

    /// Whether what was written into RESUMING is a whole image.
    pub(super) const fn is_loadable(&self) -> bool {
        self.memory.is_loadable()
    }

    /// The registers as they are now, in place of those of the record that is read.
    fn tear(&mut self, bytes: &mut [u8]) {
        for byte in bytes {
            match self.save.at {
                0 => self.save.tag = *byte,
                at if self.save.tag == FINAL => {
                    *byte = self.memory.registers()[usize::from(at) - 1];
                }
                _ => {}
            }
            self.save.at = (self.save.at + 1) % RECORD as u8;
        }
    }
}

impl ArcActions for Hardware {
    fn arc(&mut self, arc: Arc) -> Result<(), ArcFailure> {
        self.memory.arc(arc)?;
        self.save.stopped |= self.how == Serialisation::Fails && arc.to() == State::StopCopy;
        Ok(())
    }

    fn end_session(&mut self) {
        self.memory.end_session();
        self.save = Save::default();
    }

    fn reset(&mut self) {
        self.memory.reset();
    }
}

impl DeviceData for Hardware {
    fn read(&mut self, buf: &mut [u8]) -> Result<usize, Errno> {
        if self.save.spoilt {
            return Err(Errno::EIO);
        }
        let len = self.memory.read(buf)?;
        if self.how == Serialisation::Tears {
            self.tear(&mut buf[..len]);
        }
        Ok(len)
    }

    fn write(&mut self, bytes: &[u8]) -> Result<usize, Errno> {
        self.memory.write(bytes)
    }

    fn precopy_info(&mut self) -> Result<PrecopyInfo, Errno> {
        self.memory.precopy_info()
    }

    fn data_size(&mut self) -> Result<u64, Errno> {
        self.memory.data_size()
    }

    fn readable(&self) -> bool {
        self.memory.readable()
    }

    /// Also how the hardware is reset, by [`BLANK`]: the driver hears of it later.
    fn touch(&mut self, value: u8) {
        self.save.spoilt |= self.save.stopped && value == BLANK;
        self.memory.touch(value);
    }
}
