// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! What the driver says to the firmware on every arc, as text: for a scripted firmware that always
//! says the same, so that two transcripts can be compared byte by byte.

use std::fmt::Write as _;

use vfio_fsm_core::{Errno, Fd, Op, RawState, Reply, State};

use super::{
    Arena, Built, CommandFailed, Completion, Firmware, Given, LinuxDriver, Options,
};
use crate::layout::{CommandStatus, Opcode};
use crate::verify::VerifyError;

/// What the VF is called by the firmware.
const VHCA_ID: u16 = 0x1234;
/// A full image, and the buffer it asks for.
const FULL: (u32, u32) = (9999, 10_000);
/// What has changed since.
const CHANGED: (u32, u32) = (4999, 5000);
/// In chunk mode: the whole, and what each chunk asks for. The image ends in the third chunk.
const CHUNKED_TOTAL: u64 = 20_000_000;
const CHUNK: u32 = 8 << 20;
const CHUNKS: u32 = 3;

/// A firmware without memory of its own: every full image has 9999 bytes, every other 4999, all of
/// them what the pages held before.
#[derive(Clone, Debug, Default)]
struct Scripted {
    chunk_mode: bool,
    /// PDs and memory keys are counted together.
    last_name: u32,
    queue_pairs: u32,
    chunks_saved: u32,
    refuse: Option<(Opcode, CommandStatus)>,
}

impl Scripted {
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
                let [high, low] = VHCA_ID.to_be_bytes();
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
            true => (asked, CHUNKED_TOTAL),
            false => (asked, 0),
        };
        put(output, 0x10, &asked.to_be_bytes());
        put(output, 0x18, &total.to_be_bytes());
    }

    fn save(&mut self, [incremental, track]: [bool; 2], size: u32, output: &mut [u8]) {
        let (actual, next) = match (self.chunk_mode && size == CHUNK && !track, incremental) {
            (true, _) => {
                self.chunks_saved += 1;
                let last = self.chunks_saved == CHUNKS;
                self.chunks_saved %= CHUNKS;
                if last { (FULL.0, 0) } else { (CHUNK, CHUNK) }
            }
            (false, false) => (FULL.0, 0),
            (false, true) => (CHANGED.0, 0),
        };
        put(output, 0x8, &actual.to_be_bytes());
        put(output, 0xc, &next.to_be_bytes());
    }
}

fn put(output: &mut [u8], at: usize, bytes: &[u8]) {
    if let Some(place) = output.get_mut(at..at + bytes.len()) {
        place.copy_from_slice(bytes);
    }
}

impl Firmware for Scripted {
    fn command(
        &mut self,
        input: &[u8],
        output: &mut [u8],
        _memory: &Arena,
    ) -> Result<(), CommandFailed> {
        let given = Given { input: input.to_owned(), output: Vec::new(), asynchronous: false };
        let opcode = Opcode::from(given.opcode());
        if let Some((refused, status)) = self.refuse
            && refused == opcode
        {
            self.refuse = None;
            put(output, 0, &[u8::from(status)]);
            return Ok(());
        }
        let flags = input.get(8).copied().unwrap_or_default();
        let [first, second] = [flags & 0x80 != 0, flags & 0x40 != 0];
        match opcode {
            Opcode::QueryHcaCap => self.capability(given.op_mod(), output),
            Opcode::AllocPd | Opcode::CreateMkey => put(output, 8, &self.name().to_be_bytes()),
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

    fn reset(&mut self) {}

    fn touch(&mut self, _value: u8) {}
}

/// Every arc of the driver, with the commands in between: the scenarios of the golden file.
pub fn transcript(
    built: &Built,
    chunk_mode: bool,
    completion: Completion,
) -> Result<String, VerifyError> {
    let firmware = Scripted { chunk_mode, ..Scripted::default() };
    let options = Options { completion, ..Options::default() };
    let mut scene = Scene {
        driver: built.start(firmware, options)?,
        text: String::new(),
        fds: 0,
        stream: Vec::new(),
    };
    scene.probe()?;
    scene.stop_copy()?;
    scene.resume()?;
    scene.pre_copy()?;
    scene.pre_copy_cancelled()?;
    scene.pre_copy_fails()?;
    scene.suspend_fails()?;
    scene.reset()?;
    scene.tracker()?;
    let Scene { driver, text, fds, .. } = scene;
    driver.finish(fds)?;
    Ok(text)
}

struct Scene {
    driver: LinuxDriver<Scripted>,
    text: String,
    /// How many data_fds there have been.
    fds: u32,
    stream: Vec<u8>,
}

impl Scene {
    fn line(&mut self, text: &str) {
        self.text.push_str(text);
        self.text.push('\n');
    }

    fn apply(&mut self, op: Op<&[u8]>) -> Result<Reply<usize>, VerifyError> {
        let mut buf = vec![0; 1 << 20];
        let reply = self.driver.try_apply(op, &mut buf)?;
        if let Reply::Bytes(bytes) = reply {
            self.stream.extend_from_slice(bytes);
        }
        Ok(reply.map(<[u8]>::len))
    }

    fn state(&mut self) -> Result<RawState, VerifyError> {
        match self.apply(Op::GetState)? {
            Reply::State(state) => Ok(state),
            other => Err(VerifyError::Found(format!("GET answers {other}"))),
        }
    }

    fn commands(&mut self) {
        for given in self.driver.take_given() {
            self.line(&shown(&given));
        }
    }

    fn probe(&mut self) -> Result<(), VerifyError> {
        self.line("PROBE (set_migratable)");
        self.commands();
        let Reply::Features(flags) = self.apply(Op::GetFeatures)? else {
            return Err(VerifyError::Found("the driver does not migrate this VF".to_owned()));
        };
        let chunk_mode = u8::from(self.driver.firmware().chunk_mode);
        self.line(&format!(
            "  migration_flags={flags:#x} chunk_mode={chunk_mode} vhca_id={VHCA_ID:#x}"
        ));
        Ok(())
    }

    fn scenario(&mut self, name: &str) {
        self.line(&format!("SCENARIO {name}"));
    }

    fn arc(&mut self, to: State) -> Result<(), VerifyError> {
        let from = self.state()?;
        self.line(&format!("  ARC {from} -> {to}"));
        let reply = self.apply(Op::set(to))?;
        self.commands();
        let line = match reply {
            Reply::Fd(None) => format!("    = ok, state {}", self.state()?),
            Reply::Fd(Some(Fd(fd))) => {
                self.fds = fd;
                self.stream.clear();
                format!("    = ok, state {} + data_fd", self.state()?)
            }
            Reply::Errno(Errno(errno)) => {
                format!("    = error -{errno} (state now {})", self.state()?)
            }
            other => return Err(VerifyError::Found(format!("SET answers {other}"))),
        };
        self.line(&line);
        Ok(())
    }

    fn read(&mut self) -> Result<(), VerifyError> {
        let fd = Fd(self.fds);
        let end = loop {
            match self.apply(Op::Read { fd, len: 1 << 20 })? {
                Reply::Bytes(_) => {}
                Reply::EndOfStream(vfio_fsm_core::EndOfStream::Permanent) => break 0,
                Reply::EndOfStream(vfio_fsm_core::EndOfStream::Temporary) => break -42,
                other => return Err(VerifyError::Found(format!("a read answers {other}"))),
            }
        };
        self.commands();
        self.line(&format!("    read -> {end}, stream total {}", self.stream.len()));
        Ok(())
    }

    fn stop_copy(&mut self) -> Result<(), VerifyError> {
        self.scenario("stop-copy");
        self.arc(State::Stop)?;
        self.arc(State::StopCopy)?;
        self.read()?;
        self.arc(State::Stop)?;
        self.arc(State::Running)?;
        let start = hex(&self.stream[..self.stream.len().min(56)]);
        self.line(&format!("  STREAM {start}.."));
        Ok(())
    }

    fn resume(&mut self) -> Result<(), VerifyError> {
        self.scenario("resume");
        self.arc(State::Stop)?;
        let stream = std::mem::take(&mut self.stream);
        self.arc(State::Resuming)?;
        let fd = Fd(self.fds);
        let reply = self.apply(Op::Write { fd, bytes: &stream })?;
        if reply != Reply::Written(stream.len() as u32) {
            return Err(VerifyError::Found(format!("the stream is not taken: {reply}")));
        }
        self.commands();
        self.arc(State::Running)
    }

    fn pre_copy(&mut self) -> Result<(), VerifyError> {
        self.scenario("pre-copy");
        self.arc(State::PreCopy)?;
        self.read()?;
        self.line("  ioctl PRECOPY_INFO");
        let reply = self.apply(Op::PrecopyInfo { fd: Fd(self.fds) })?;
        let Reply::Info(info) = reply else {
            return Err(VerifyError::Found(format!("PRECOPY_INFO answers {reply}")));
        };
        self.commands();
        let (initial, dirty) = (info.initial_bytes, info.dirty_bytes);
        self.line(&format!("    = 0 initial={initial} dirty={dirty}"));
        self.read()?;
        self.arc(State::StopCopy)?;
        self.read()?;
        self.arc(State::Stop)?;
        self.arc(State::Running)
    }

    fn pre_copy_cancelled(&mut self) -> Result<(), VerifyError> {
        self.scenario("pre-copy cancelled");
        self.arc(State::PreCopy)?;
        self.arc(State::Running)
    }

    fn pre_copy_fails(&mut self) -> Result<(), VerifyError> {
        self.scenario("pre-copy SAVE fails BAD_RES_STATE, falls back to full image");
        self.driver.firmware_mut().refuse =
            Some((Opcode::SaveVhcaState, CommandStatus::BadResState));
        self.arc(State::PreCopy)?;
        self.read()?;
        self.arc(State::StopCopy)?;
        self.read()?;
        self.arc(State::Stop)?;
        self.arc(State::Running)
    }

    fn suspend_fails(&mut self) -> Result<(), VerifyError> {
        self.scenario("SUSPEND fails RES_BUSY");
        self.driver.firmware_mut().refuse = Some((Opcode::SuspendVhca, CommandStatus::ResBusy));
        self.arc(State::Stop)
    }

    fn reset(&mut self) -> Result<(), VerifyError> {
        self.scenario("reset while STOP");
        self.arc(State::Stop)?;
        self.apply(Op::Reset)?;
        self.commands();
        let state = self.state()?;
        self.line(&format!("  after reset: {state}"));
        Ok(())
    }

    /// Of the many commands the golden file has those to the object.
    fn tracker(&mut self) -> Result<(), VerifyError> {
        self.line("TRACKER object");
        let ranges = [(0, 0x8000_0000), (0x1_0000_0000, 0x1_0000_0000)];
        let created = self.driver.log_start(0x1000, &ranges)?;
        self.objects();
        self.line(&format!("  create={created}"));
        self.driver.object_changes(9);
        let (iova, len) = (0x20_0000, 0x40_0000);
        if let Err(errno) = self.driver.log_report(iova, len, 0x1000)? {
            return Err(VerifyError::Found(format!("the report fails with {errno}")));
        }
        self.driver.log_stop()?;
        self.objects();
        Ok(())
    }

    fn objects(&mut self) {
        let mut given = self.driver.take_given();
        given.retain(|given| (0xa00..=0xa03).contains(&given.opcode()));
        for given in given {
            self.line(&shown(&given));
        }
    }
}

/// A command as the golden file has it: of long ones the first 96 bytes, of others all but the zero
/// bytes at the end, behind the first 16.
fn shown(given: &Given) -> String {
    let opcode = Opcode::from(given.opcode());
    let len = given.input.len();
    let mut text = format!("    {opcode} op_mod={}\n      in {len} ", given.op_mod());
    let input = given.input.as_slice();
    let end = if len > 96 {
        96
    } else {
        let zeros = input.iter().rev().take_while(|byte| **byte == 0).count();
        (len - zeros).max(16.min(len))
    };
    text.push_str(&hex(&input[..end]));
    if end < len {
        text.push_str("..");
    }
    if given.status() != 0 {
        // Writing to a string cannot fail.
        let _ = write!(text, "\n      -> status {:#x}", given.status());
    }
    text
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}
