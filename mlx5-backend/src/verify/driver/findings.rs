// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! What the shipping driver is known to do that it should not, each shown by doing it. The pages in
//! `specs/findings` say more.

use vfio_fsm_core::{EndOfStream, Errno, Fd, Op, RawState, Reply, State};

use super::{Arena, Built, DriverError, Failure, LinuxDriver, Meanwhile, Options, Scripted};
use crate::layout::{CommandStatus, Opcode, ResumeOpMod, SuspendOpMod};

/// Pages of the driver under test: 256 MiB.
const PAGES: u64 = 1 << 16;

/// One thing that the shipping driver does.
#[derive(Clone, Copy, Debug)]
pub struct Finding {
    /// The page on it, without `specs/findings/` and `.md`.
    pub page: &'static str,
    /// What it is, in one sentence.
    pub what: &'static str,
    show: fn(&Built) -> Result<(), DriverError>,
}

impl Finding {
    /// Does it. Fails if the driver behaves otherwise: it may have been mended.
    pub fn show(&self, built: &Built) -> Result<(), DriverError> {
        (self.show)(built)
    }
}

/// All of them.
pub const FINDINGS: &[Finding] = &[
    Finding {
        page: "mlx5-truncated-stream",
        what: "RESUMING to STOP succeeds when the stream ends in the middle of a record",
        show: truncated_stream,
    },
    Finding {
        page: "mlx5-clean-up-fails",
        what: "when the SAVE fails that ends tracking, the device stays in PRE_COPY without a \
               session, and the next PRECOPY_INFO or SET is a null pointer dereference",
        show: null_pointer_when_clean_up_fails,
    },
    Finding {
        page: "mlx5-clean-up-fails",
        what: "when the same SAVE fails and the worker is late, SET succeeds, and the session's \
               pages and memory keys are never given back",
        show: leak_when_clean_up_fails,
    },
    Finding {
        page: "mlx5-pf-reload",
        what: "when the PF's driver disables and enables its VFs during PRE_COPY, the next \
               PRECOPY_INFO or SET is a null pointer dereference",
        show: null_pointer_after_reload,
    },
    Finding {
        page: "mlx5-responder-suspended",
        what: "when the step to STOP_COPY fails behind SUSPEND, the way back leaves the responder \
               suspended",
        show: responder_suspended,
    },
    Finding {
        page: "mlx5-reset-within-set",
        what: "a reset within a SET is followed by the rest of the SET's commands, and leaves the \
               VHCA suspended in RUNNING",
        show: suspended_after_reset,
    },
    Finding {
        page: "mlx5-record-size",
        what: "16 bytes of a stream make the driver allocate as much as they say, up to 4 GiB",
        show: unknown_record_allocated,
    },
    Finding {
        page: "mlx5-record-size",
        what: "so do 40 bytes with a hint of the size, and the pages are mapped for DMA besides",
        show: hinted_size_allocated,
    },
];

/// A driver and what has been seen of it.
struct Seen {
    driver: LinuxDriver<Scripted>,
    buf: Vec<u8>,
}

impl Seen {
    fn start(built: &Built, options: Options) -> Result<Self, DriverError> {
        let arena = Arena::new(PAGES).map_err(DriverError::Process)?;
        let driver = built.start(Scripted::new(false), &arena, options)?;
        Ok(Self { driver, buf: vec![0; 1 << 16] })
    }

    fn apply(&mut self, op: Op<&[u8]>) -> Result<Reply<usize>, DriverError> {
        Ok(self.driver.try_apply(op, &mut self.buf)?.map(<[u8]>::len))
    }

    /// Does an op that is to have this reply.
    fn expect(&mut self, op: Op<&[u8]>, expected: Reply<usize>) -> Result<(), DriverError> {
        let name = op.to_string();
        let reply = self.apply(op)?;
        if reply == expected {
            return Ok(());
        }
        Err(DriverError::Found(format!("{name} answers {reply} and not {expected}")))
    }

    fn set(&mut self, to: State, fd: Option<u32>) -> Result<(), DriverError> {
        self.expect(Op::set(to), Reply::Fd(fd.map(Fd)))
    }

    fn is_in(&mut self, state: State) -> Result<(), DriverError> {
        self.expect(Op::GetState, Reply::State(RawState::from(state)))
    }

    fn write(&mut self, bytes: &[u8]) -> Result<(), DriverError> {
        let written = Reply::Written(bytes.len() as u32);
        self.expect(Op::Write { fd: Fd(1), bytes }, written)
    }

    fn read_all(&mut self) -> Result<Vec<u8>, DriverError> {
        let mut stream = Vec::new();
        let read = Op::Read { fd: Fd(1), len: 1 << 16 };
        loop {
            match self.driver.try_apply(read, &mut self.buf)? {
                Reply::Bytes(bytes) => stream.extend_from_slice(bytes),
                Reply::EndOfStream(EndOfStream::Permanent | EndOfStream::Temporary) => {
                    return Ok(stream);
                }
                other => return Err(DriverError::Found(format!("a read answers {other}"))),
            }
        }
    }

    /// Opcode and op_mod of the commands since this was last asked.
    fn commands(&mut self) -> Vec<(Opcode, u16)> {
        let given = self.driver.take_given();
        given.iter().map(|given| (Opcode::from(given.opcode()), given.op_mod())).collect()
    }

    /// The process ends at a null pointer to a session, in this op.
    fn ends(mut self, op: Op<&[u8]>) -> Result<(), DriverError> {
        let name = op.to_string();
        match self.apply(op) {
            // Without the sanitizers it says nothing: it is a segmentation fault.
            Err(DriverError::Ended { said, .. })
                if said.is_empty() || said.contains("null pointer of type") =>
            {
                Ok(())
            }
            Err(other) => Err(other),
            Ok(reply) => Err(DriverError::Found(format!("{name} answers {reply}"))),
        }
    }
}

fn found(what: &str) -> DriverError {
    DriverError::Found(what.to_owned())
}

/// A stream of the driver's own.
fn stream(built: &Built) -> Result<Vec<u8>, DriverError> {
    let mut seen = Seen::start(built, Options::default())?;
    seen.set(State::StopCopy, Some(1))?;
    let stream = seen.read_all()?;
    seen.driver.finish(1)?;
    Ok(stream)
}

fn truncated_stream(built: &Built) -> Result<(), DriverError> {
    let stream = stream(built)?;
    let mut seen = Seen::start(built, Options::default())?;
    seen.set(State::Resuming, Some(1))?;
    seen.write(&stream[..stream.len().min(56)])?;
    seen.commands();
    seen.set(State::Running, None)?;
    seen.is_in(State::Running)?;
    let commands = seen.commands();
    if commands.iter().any(|(opcode, _)| *opcode == Opcode::LoadVhcaState) {
        return Err(found("an image was loaded"));
    }
    if commands.iter().filter(|(opcode, _)| *opcode == Opcode::ResumeVhca).count() != 2 {
        return Err(found("the VHCA was not resumed"));
    }
    seen.driver.finish(1)
}

/// In PRE_COPY, with a SAVE to come that fails.
fn clean_up_will_fail(built: &Built, workers_first: bool) -> Result<Seen, DriverError> {
    let mut seen = Seen::start(built, Options { workers_first, ..Options::default() })?;
    seen.set(State::PreCopy, Some(1))?;
    let failure = Failure::Status(CommandStatus::InternalErr);
    seen.driver.firmware_mut().fail_next(Opcode::SaveVhcaState, failure);
    Ok(seen)
}

fn null_pointer_when_clean_up_fails(built: &Built) -> Result<(), DriverError> {
    for op in [Op::PrecopyInfo { fd: Fd(1) }, Op::set(State::Running), Op::set(State::StopCopy)] {
        let mut seen = clean_up_will_fail(built, true)?;
        seen.expect(Op::set(State::Running), Reply::Errno(Errno::EIO))?;
        seen.is_in(State::PreCopy)?;
        seen.ends(op)?;
    }
    Ok(())
}

fn leak_when_clean_up_fails(built: &Built) -> Result<(), DriverError> {
    let mut seen = clean_up_will_fail(built, false)?;
    seen.set(State::Running, None)?;
    match seen.driver.finish(1) {
        Err(DriverError::Found(left)) if left.contains("files: 1") => Ok(()),
        Err(other) => Err(other),
        Ok(()) => Err(found("nothing is left")),
    }
}

fn null_pointer_after_reload(built: &Built) -> Result<(), DriverError> {
    for op in [Op::PrecopyInfo { fd: Fd(1) }, Op::set(State::Running), Op::set(State::StopCopy)] {
        let mut seen = Seen::start(built, Options::default())?;
        seen.set(State::PreCopy, Some(1))?;
        seen.driver.detach()?;
        seen.expect(Op::set(State::Running), Reply::Errno(Errno::ENOTCONN))?;
        seen.driver.attach()?;
        seen.is_in(State::PreCopy)?;
        seen.ends(op)?;
    }
    Ok(())
}

fn responder_suspended(built: &Built) -> Result<(), DriverError> {
    let mut seen = Seen::start(built, Options::default())?;
    seen.set(State::PreCopy, Some(1))?;
    seen.read_all()?;
    let failure = Failure::Status(CommandStatus::InternalErr);
    seen.driver.firmware_mut().fail_next(Opcode::QueryVhcaMigrationState, failure);
    seen.expect(Op::set(State::StopCopy), Reply::Errno(Errno::EIO))?;
    seen.is_in(State::PreCopyP2p)?;
    seen.commands();
    seen.set(State::PreCopy, None)?;
    let initiator = u16::from(ResumeOpMod::Initiator);
    if seen.commands() != [(Opcode::ResumeVhca, initiator)] {
        return Err(found("the responder was resumed"));
    }
    seen.expect(Op::set(State::Running), Reply::Errno(Errno::ENODEV))?;
    seen.is_in(State::PreCopy)?;
    seen.driver.finish(1)
}

fn suspended_after_reset(built: &Built) -> Result<(), DriverError> {
    let mut seen = Seen::start(built, Options::default())?;
    // While the second command runs: the first has suspended the initiator.
    seen.driver.meanwhile(Meanwhile::Command(1), Op::Reset);
    seen.commands();
    seen.set(State::Stop, None)?;
    seen.is_in(State::Running)?;
    let suspends = [SuspendOpMod::Initiator, SuspendOpMod::Responder].map(u16::from);
    if seen.commands() != suspends.map(|op_mod| (Opcode::SuspendVhca, op_mod)) {
        return Err(found("the VHCA was resumed"));
    }
    seen.driver.finish(1)
}

/// What the driver has allocated beyond what it had, for this beginning of a stream.
fn allocated(built: &Built, bytes: &[u8]) -> Result<(u64, u64), DriverError> {
    let mut seen = Seen::start(built, Options::default())?;
    seen.set(State::Resuming, Some(1))?;
    let before = seen.driver.stats()?;
    seen.write(bytes)?;
    let after = seen.driver.stats()?;
    seen.driver.finish(1)?;
    Ok((after.pages - before.pages, after.mapped_pages))
}

fn record(len: u64, [flags, tag]: [u32; 2]) -> Vec<u8> {
    let mut record = len.to_le_bytes().to_vec();
    record.extend(flags.to_le_bytes());
    record.extend(tag.to_le_bytes());
    record
}

/// 200 MiB: the test has no 4 GiB to give.
const ASKED: u64 = 200 << 20;

fn unknown_record_allocated(built: &Built) -> Result<(), DriverError> {
    let (pages, _) = allocated(built, &record(ASKED, [1, 0x7fff]))?;
    // The page for headers is given back for it.
    if pages < ASKED / 4096 - 1 {
        return Err(found(&format!("{pages} pages were allocated")));
    }
    Ok(())
}

fn hinted_size_allocated(built: &Built) -> Result<(), DriverError> {
    let mut bytes = record(8, [1, 1]);
    bytes.extend(ASKED.to_le_bytes());
    bytes.extend(record(1, [0, 0]));
    let (pages, mapped) = allocated(built, &bytes)?;
    if pages < ASKED / 4096 || mapped < ASKED / 4096 {
        return Err(found(&format!("{pages} pages were allocated, {mapped} mapped")));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;

    /// M104: every finding has its page.
    #[test]
    fn every_finding_has_a_page() {
        let pages = Path::new(env!("CARGO_MANIFEST_DIR")).join("specs/findings");
        for finding in FINDINGS {
            let page = pages.join(finding.page).with_extension("md");
            assert!(page.exists(), "{} is not there", page.display());
        }
    }
}
