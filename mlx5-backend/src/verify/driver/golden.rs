// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! What the driver says to the firmware on every arc, as text: for a scripted firmware that always
//! says the same, so that two transcripts can be compared byte by byte.

use std::fmt::Write as _;

use vfio_fsm_core::{Errno, Fd, Op, RawState, Reply, State};

use super::{
    Arena, Built, Completion, DriverError, Failure, Given, LinuxDriver, Options, Scripted,
};
use crate::layout::{CommandStatus, Opcode};

/// Of the driver: 64 MiB.
const PAGES: u64 = 1 << 14;

/// Every arc of the driver, with the commands in between: the scenarios of the golden file.
pub fn transcript(
    built: &Built,
    chunk_mode: bool,
    completion: Completion,
) -> Result<String, DriverError> {
    let arena = Arena::new(PAGES).map_err(DriverError::Process)?;
    let options = Options { completion, ..Options::default() };
    let mut scene = Scene {
        driver: built.start(Scripted::new(chunk_mode), &arena, options)?,
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

    fn apply(&mut self, op: Op<&[u8]>) -> Result<Reply<usize>, DriverError> {
        let mut buf = vec![0; 1 << 20];
        let reply = self.driver.try_apply(op, &mut buf)?;
        if let Reply::Bytes(bytes) = reply {
            self.stream.extend_from_slice(bytes);
        }
        Ok(reply.map(<[u8]>::len))
    }

    fn state(&mut self) -> Result<RawState, DriverError> {
        match self.apply(Op::GetState)? {
            Reply::State(state) => Ok(state),
            other => Err(DriverError::Found(format!("GET answers {other}"))),
        }
    }

    fn refuse(&mut self, opcode: Opcode, status: CommandStatus) {
        self.driver.firmware_mut().fail_next(opcode, Failure::Status(status));
    }

    fn commands(&mut self) {
        for given in self.driver.take_given() {
            self.line(&shown(&given));
        }
    }

    fn probe(&mut self) -> Result<(), DriverError> {
        self.line("PROBE (set_migratable)");
        self.commands();
        let Reply::Features(flags) = self.apply(Op::GetFeatures)? else {
            return Err(DriverError::Found("the driver does not migrate this VF".to_owned()));
        };
        let chunk_mode = u8::from(self.driver.firmware().chunk_mode());
        self.line(&format!(
            "  migration_flags={flags:#x} chunk_mode={chunk_mode} vhca_id={:#x}",
            Scripted::VHCA_ID
        ));
        Ok(())
    }

    fn scenario(&mut self, name: &str) {
        self.line(&format!("SCENARIO {name}"));
    }

    fn arc(&mut self, to: State) -> Result<(), DriverError> {
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
            other => return Err(DriverError::Found(format!("SET answers {other}"))),
        };
        self.line(&line);
        Ok(())
    }

    fn read(&mut self) -> Result<(), DriverError> {
        let fd = Fd(self.fds);
        let end = loop {
            match self.apply(Op::Read { fd, len: 1 << 20 })? {
                Reply::Bytes(_) => {}
                Reply::EndOfStream(vfio_fsm_core::EndOfStream::Permanent) => break 0,
                Reply::EndOfStream(vfio_fsm_core::EndOfStream::Temporary) => break -42,
                other => return Err(DriverError::Found(format!("a read answers {other}"))),
            }
        };
        self.commands();
        self.line(&format!("    read -> {end}, stream total {}", self.stream.len()));
        Ok(())
    }

    fn stop_copy(&mut self) -> Result<(), DriverError> {
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

    fn resume(&mut self) -> Result<(), DriverError> {
        self.scenario("resume");
        self.arc(State::Stop)?;
        let stream = std::mem::take(&mut self.stream);
        self.arc(State::Resuming)?;
        let fd = Fd(self.fds);
        let reply = self.apply(Op::Write { fd, bytes: &stream })?;
        if reply != Reply::Written(stream.len() as u32) {
            return Err(DriverError::Found(format!("the stream is not taken: {reply}")));
        }
        self.commands();
        self.arc(State::Running)
    }

    fn pre_copy(&mut self) -> Result<(), DriverError> {
        self.scenario("pre-copy");
        self.arc(State::PreCopy)?;
        self.read()?;
        self.line("  ioctl PRECOPY_INFO");
        let reply = self.apply(Op::PrecopyInfo { fd: Fd(self.fds) })?;
        let Reply::Info(info) = reply else {
            return Err(DriverError::Found(format!("PRECOPY_INFO answers {reply}")));
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

    fn pre_copy_cancelled(&mut self) -> Result<(), DriverError> {
        self.scenario("pre-copy cancelled");
        self.arc(State::PreCopy)?;
        self.arc(State::Running)
    }

    fn pre_copy_fails(&mut self) -> Result<(), DriverError> {
        self.scenario("pre-copy SAVE fails BAD_RES_STATE, falls back to full image");
        self.refuse(Opcode::SaveVhcaState, CommandStatus::BadResState);
        self.arc(State::PreCopy)?;
        self.read()?;
        self.arc(State::StopCopy)?;
        self.read()?;
        self.arc(State::Stop)?;
        self.arc(State::Running)
    }

    fn suspend_fails(&mut self) -> Result<(), DriverError> {
        self.scenario("SUSPEND fails RES_BUSY");
        self.refuse(Opcode::SuspendVhca, CommandStatus::ResBusy);
        self.arc(State::Stop)
    }

    fn reset(&mut self) -> Result<(), DriverError> {
        self.scenario("reset while STOP");
        self.arc(State::Stop)?;
        self.apply(Op::Reset)?;
        self.commands();
        let state = self.state()?;
        self.line(&format!("  after reset: {state}"));
        Ok(())
    }

    /// Of the many commands the golden file has those to the object.
    fn tracker(&mut self) -> Result<(), DriverError> {
        self.line("TRACKER object");
        let ranges = [(0, 0x8000_0000), (0x1_0000_0000, 0x1_0000_0000)];
        let created = self.driver.log_start(0x1000, &ranges)?;
        self.objects();
        self.line(&format!("  create={created}"));
        self.driver.object_changes(9);
        let (iova, len) = (0x20_0000, 0x40_0000);
        if let Err(errno) = self.driver.log_report(iova, len, 0x1000)? {
            return Err(DriverError::Found(format!("the report fails with {errno}")));
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
