// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! A firmware that says the same in every run, and fails when it is told to.

use vfio_fsm_core::Errno;

use super::Firmware;
use crate::layout::{CommandStatus, Opcode};

/// A full image, and the buffer it asks for.
const FULL: (u32, u32) = (9999, 10_000);
/// What has changed since.
const CHANGED: (u32, u32) = (4999, 5000);
/// In chunk mode, what the whole asks for unless told otherwise. The image ends in the third chunk.
const CHUNKED_TOTAL: u64 = 20_000_000;
const CHUNKS: u32 = 3;
/// The most that the driver makes a chunk.
const CHUNK: u64 = 8 << 20;

/// How a command fails.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Failure {
    /// The firmware refuses it.
    Status(CommandStatus),
    /// It is not delivered, and mlx5_core reports this errno.
    Delivery(Errno),
}

/// When the next failure is due.
#[derive(Clone, Copy, Debug)]
enum Due {
    /// At the next command of this kind.
    Opcode(Opcode),
    /// When as many commands have been carried out.
    After(usize),
}

/// A firmware without a state: every full image has 9999 bytes, every other 4999, all of them what
/// the pages held before. In chunk mode a full image fills two chunks, of 8 MiB unless told otherwise,
/// and has 9999 bytes in the third.
#[derive(Clone, Debug, Default)]
pub struct Scripted {
    chunk_mode: bool,
    total: u64,
    /// PDs and memory keys are counted together.
    last_name: u32,
    queue_pairs: u32,
    chunks_saved: u32,
    failure: Option<(Due, Failure)>,
    resets: u32,
}

impl Scripted {
    /// What it calls the VF.
    pub const VHCA_ID: u16 = 0x1234;

    /// One with or without the capability `migration_in_chunks`.
    pub fn new(chunk_mode: bool) -> Self {
        Self { chunk_mode, total: CHUNKED_TOTAL, ..Self::default() }
    }

    /// With chunks of as many pages as hold `total` bytes, if that is less than 8 MiB.
    #[must_use]
    pub const fn with_total(mut self, total: u64) -> Self {
        self.total = total;
        self
    }

    /// Whether it saves in chunks.
    pub const fn chunk_mode(&self) -> bool {
        self.chunk_mode
    }

    /// How often the VF was reset.
    pub const fn resets(&self) -> u32 {
        self.resets
    }

    /// Fails the next command of this kind.
    pub const fn fail_next(&mut self, opcode: Opcode, failure: Failure) {
        self.failure = Some((Due::Opcode(opcode), failure));
    }

    /// Carries out as many commands, and fails the one behind them.
    pub const fn fail_after(&mut self, commands: usize, failure: Failure) {
        self.failure = Some((Due::After(commands), failure));
    }

    /// The failure that is due at this command.
    fn failure(&mut self, opcode: Opcode) -> Option<Failure> {
        let (due, failure) = self.failure?;
        self.failure = match due {
            Due::Opcode(at) if at == opcode => None,
            Due::After(0) => None,
            Due::After(left) => Some((Due::After(left - 1), failure)),
            Due::Opcode(_) => return None,
        };
        self.failure.is_none().then_some(failure)
    }

    fn capability(&self, op_mod: u16, output: &mut [u8]) {
        let Some(union) = output.get_mut(0x10..) else { return };
        let mut set = |byte: usize, bits: u8| {
            if let Some(byte) = union.get_mut(byte) {
                *byte |= bits;
            }
        };
        match op_mod >> 1 {
            // migration, hca_cap_2, adv_virtualization, vhca_id
            0 => {
                set(0xd1, 1 << 2);
                set(4, 1 << 7);
                set(0xaf, 1 << 6);
                let [high, low] = Self::VHCA_ID.to_be_bytes();
                set(6, high);
                set(7, low);
            }
            // migratable, migration_multi_load, migration_tracking_state, migration_in_chunks
            0x20 => {
                set(0x10, 1 << 7);
                set(0x19, 3 << 6);
                set(0x1a, u8::from(self.chunk_mode) << 7);
            }
            // pg_track: one object of 128 ranges, address spaces from 2^12 to 2^52, messages from
            // 2^12 to 2^18, pages of 2^12
            0x26 => {
                for (byte, bits) in [1, 128, 12, 52, 12, 18, 12, 12].into_iter().enumerate() {
                    set(byte, bits);
                }
            }
            _ => {}
        }
    }

    fn name(&mut self) -> u32 {
        self.last_name += 1;
        self.last_name
    }

    /// Two: the driver's, and the firmware's.
    fn queue_pair(&mut self) -> u32 {
        self.queue_pairs += 1;
        if self.queue_pairs == 2 { 0xab_cdef } else { self.queue_pairs }
    }

    fn query(&mut self, incremental: bool, output: &mut [u8]) {
        let (_, asked) = if incremental { CHANGED } else { FULL };
        let (asked, total) = match self.chunk_mode {
            true => (asked, self.total),
            false => (asked, 0),
        };
        put(output, 0x10, &asked.to_be_bytes());
        put(output, 0x18, &total.to_be_bytes());
    }

    fn save(&mut self, [incremental, track]: [bool; 2], size: u32, output: &mut [u8]) {
        let chunk = self.total.min(CHUNK).next_multiple_of(4096);
        let is_chunk = self.chunk_mode && u64::from(size) == chunk && !track;
        let (actual, next) = match (is_chunk, incremental) {
            (true, _) => {
                self.chunks_saved += 1;
                let last = self.chunks_saved == CHUNKS;
                self.chunks_saved %= CHUNKS;
                if last { (FULL.0, 0) } else { (size, size) }
            }
            (false, false) => (FULL.0, 0),
            (false, true) => (CHANGED.0, 0),
        };
        // What nobody reads, the driver makes no room for.
        put(output, 0x8, &actual.min(size).to_be_bytes());
        put(output, 0xc, &next.to_be_bytes());
    }
}

fn put(output: &mut [u8], at: usize, bytes: &[u8]) {
    if let Some(place) = output.get_mut(at..at + bytes.len()) {
        place.copy_from_slice(bytes);
    }
}

impl Firmware for Scripted {
    fn command(&mut self, input: &[u8], output: &mut [u8]) -> Result<(), Errno> {
        let word = |at: usize| {
            let bytes = input.get(at..at + 2).and_then(|bytes| bytes.try_into().ok());
            bytes.map_or(0, u16::from_be_bytes)
        };
        let opcode = Opcode::from(word(0));
        match self.failure(opcode) {
            Some(Failure::Delivery(errno)) => return Err(errno),
            Some(Failure::Status(status)) => {
                put(output, 0, &[u8::from(status)]);
                return Ok(());
            }
            None => {}
        }
        let flags = input.get(8).copied().unwrap_or_default();
        let [first, second] = [flags & 0x80 != 0, flags & 0x40 != 0];
        match opcode {
            Opcode::QueryHcaCap => self.capability(word(6), output),
            Opcode::AllocPd => {
                // What was not read of an image, the next session does not get.
                self.chunks_saved = 0;
                put(output, 8, &self.name().to_be_bytes());
            }
            Opcode::CreateMkey => put(output, 8, &self.name().to_be_bytes()),
            Opcode::AllocUar | Opcode::CreateCq => put(output, 8, &1u32.to_be_bytes()),
            Opcode::CreateQp => put(output, 8, &self.queue_pair().to_be_bytes()),
            Opcode::CreateGeneralObject => put(output, 8, &9u32.to_be_bytes()),
            Opcode::QueryVhcaMigrationState => self.query(first, output),
            Opcode::SaveVhcaState => {
                let size = input.get(0x1c..0x20).and_then(|bytes| bytes.try_into().ok());
                self.save([first, second], size.map_or(0, u32::from_be_bytes), output);
            }
            _ => {}
        }
        Ok(())
    }

    fn reset(&mut self) {
        self.resets += 1;
    }

    fn touch(&mut self, _value: u8) {}
}

#[cfg(test)]
mod tests {
    use super::*;

    /// M107: a failure that is due comes once, at its command.
    #[test]
    fn a_failure_comes_once() {
        let mut firmware = Scripted::new(false);
        let says = |firmware: &mut Scripted, opcode: Opcode| {
            let mut input = [0; 16];
            input[..2].copy_from_slice(&u16::from(opcode).to_be_bytes());
            let mut output = [0; 16];
            firmware.command(&input, &mut output).map(|()| output[0])
        };
        firmware.fail_after(1, Failure::Delivery(Errno::EIO));
        assert_eq!(says(&mut firmware, Opcode::AllocPd), Ok(0));
        assert_eq!(says(&mut firmware, Opcode::AllocPd), Err(Errno::EIO));
        assert_eq!(says(&mut firmware, Opcode::AllocPd), Ok(0));
        firmware.fail_next(Opcode::DeallocPd, Failure::Status(CommandStatus::BadRes));
        assert_eq!(says(&mut firmware, Opcode::AllocPd), Ok(0));
        assert_eq!(says(&mut firmware, Opcode::DeallocPd), Ok(u8::from(CommandStatus::BadRes)));
        assert_eq!(says(&mut firmware, Opcode::DeallocPd), Ok(0));
    }
}
