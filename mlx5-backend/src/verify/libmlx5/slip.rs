// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! One bit wrong between driver and firmware, to see that somebody notices.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;

use parking_lot::Mutex;

use crate::dma::{DmaError, DmaSpace};
use crate::firmware::DeviceMemory;
use crate::layout::{CmdIfBox, CmdQueueEntry, Eqe, Opcode};

/// What is wrong. To the driver it is a firmware that decodes or encodes one bit at another place.
///
/// Bits are counted from the first, most significant, one of a structure, as in [`crate::layout`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Slip {
    /// A bit of the input of this command, as the firmware reads it: in the queue entry, or from
    /// bit 128 on in the first mailbox.
    Input(Opcode, usize),
    /// A bit of the output of this command, as the firmware writes it.
    Output(Opcode, usize),
    /// A bit of each event.
    Event(usize),
    /// A bit of a dword of BAR0, by its offset in bytes, before the driver looks.
    Register(usize, usize),
    /// No interrupt is passed on.
    Silence,
}

impl Slip {
    /// Spoils BAR0.
    pub(super) fn spoil_bar(self, bar: &File) -> io::Result<()> {
        let Self::Register(offset, bit) = self else { return Ok(()) };
        let mut dword = [0; 4];
        bar.read_exact_at(&mut dword, offset as u64)?;
        flip(&mut dword, Some(bit));
        bar.write_all_at(&dword, offset as u64)
    }
}

/// What is mapped for DMA, with the slip.
pub(super) struct Memory {
    space: DmaSpace,
    slip: Option<Slip>,
    seen: Mutex<Seen>,
}

/// Which command the firmware is at.
#[derive(Default)]
struct Seen {
    /// The page that the queue is in: the first that an entry was read from.
    queue: Option<u64>,
    opcode: [u8; 2],
    /// Mailboxes read and written for it.
    reads: usize,
    writes: usize,
}

const ENTRY: usize = CmdQueueEntry::BYTES;
const BLOCK: usize = CmdIfBox::BYTES;
/// Where an entry has its input and its output, and how many bits of each.
const INPUT: usize = 0x10;
const OUTPUT: usize = 0x20;
const INLINE_BITS: usize = 128;
/// All of an entry or an event but the owner, which is written by itself.
const BODY: usize = ENTRY - 1;
const _: () = assert!(Eqe::BYTES == ENTRY);

impl Memory {
    pub(super) fn new(space: DmaSpace, slip: Option<Slip>) -> Self {
        Self { space, slip, seen: Mutex::default() }
    }

    /// Which bit of the structure is wrong, if this is its command.
    fn input_bit(&self, seen: &Seen) -> Option<usize> {
        match self.slip? {
            Slip::Input(opcode, bit) if u16::from(opcode).to_be_bytes() == seen.opcode => Some(bit),
            _ => None,
        }
    }

    fn output_bit(&self, seen: &Seen) -> Option<usize> {
        match self.slip? {
            Slip::Output(opcode, bit) if u16::from(opcode).to_be_bytes() == seen.opcode => {
                Some(bit)
            }
            _ => None,
        }
    }

    fn spoil_read(&self, iova: u64, bytes: &mut [u8]) {
        let mut seen = self.seen.lock();
        let page = iova & !0xfff;
        if bytes.len() == ENTRY && *seen.queue.get_or_insert(page) == page {
            // An entry that is read to be answered is the same command's.
            if bytes[BODY] & 1 != 0 && seen.opcode != bytes[INPUT..INPUT + 2] {
                seen.opcode.copy_from_slice(&bytes[INPUT..INPUT + 2]);
            }
            (seen.reads, seen.writes) = (0, 0);
            let bit = self.input_bit(&seen).filter(|bit| *bit < INLINE_BITS);
            flip(&mut bytes[INPUT..OUTPUT], bit);
        } else if bytes.len() == BLOCK {
            let bit = self.input_bit(&seen).and_then(|bit| bit.checked_sub(INLINE_BITS));
            flip(bytes, bit.filter(|_| seen.reads == 0));
            seen.reads += 1;
        }
    }

    /// The bytes with the slip, if they have one.
    fn spoil_write(&self, iova: u64, bytes: &[u8]) -> Option<Vec<u8>> {
        let mut seen = self.seen.lock();
        let in_queue = seen.queue == Some(iova & !0xfff);
        let (at, bit) = match (bytes.len(), self.slip?) {
            (BODY, Slip::Event(bit)) if !in_queue => (0, bit),
            (1, Slip::Event(bit)) if !in_queue => (0, bit.checked_sub(BODY * 8)?),
            (BODY, _) if in_queue => {
                (OUTPUT, self.output_bit(&seen).filter(|bit| *bit < INLINE_BITS)?)
            }
            (BLOCK, _) => {
                seen.writes += 1;
                let bit = self.output_bit(&seen).filter(|_| seen.writes == 1)?;
                (0, bit.checked_sub(INLINE_BITS)?)
            }
            _ => return None,
        };
        let mut bytes = bytes.to_vec();
        flip(&mut bytes[at..], Some(bit));
        Some(bytes)
    }
}

impl DeviceMemory for Memory {
    fn read(&self, iova: u64, bytes: &mut [u8]) -> Result<(), DmaError> {
        self.space.read(iova, bytes)?;
        if self.slip.is_some() {
            self.spoil_read(iova, bytes);
        }
        Ok(())
    }

    fn write(&self, iova: u64, bytes: &[u8]) -> Result<(), DmaError> {
        match self.slip.and_then(|_| self.spoil_write(iova, bytes)) {
            Some(spoilt) => self.space.write(iova, &spoilt),
            None => self.space.write(iova, bytes),
        }
    }
}

/// A bit that is not there is not flipped.
fn flip(bytes: &mut [u8], bit: Option<usize>) {
    if let Some(bit) = bit
        && let Some(byte) = bytes.get_mut(bit / 8)
    {
        *byte ^= 0x80 >> (bit % 8);
    }
}
