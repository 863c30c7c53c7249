// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! Migrations between the shipping driver and our backend, each on a software firmware of its own.

use vfio_fsm_core::{EndOfStream, Fd, Op, Reply, State};

use super::{Bench, Built, Direct, DriverError, LinuxDriver, Options, Ours, Software};
use crate::firmware::{Config, VhcaConfig};

/// Who drives the VF at one end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Side {
    /// mlx5-vfio-pci.
    Linux,
    /// Our backend.
    Ours,
}

/// How the state is saved.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Way {
    /// In STOP_COPY alone.
    Stopped,
    /// Beginning in PRE_COPY, while the guest goes on changing it.
    Running,
}

/// Bytes of an image; in chunk mode, two chunks and a part of a third.
const IMAGE: u64 = 1_000_000;
const CHUNKED_IMAGE: u64 = 18_000_000;
const PAGES: u64 = 1 << 15;

/// Migrates a VF whose guest has touched it. The stream, if the destination has the source's state
/// behind it.
pub fn exchange(
    built: &Built,
    [source, destination]: [Side; 2],
    way: Way,
    chunk_mode: bool,
) -> Result<Vec<u8>, DriverError> {
    let mut source = End::start(built, source, chunk_mode, 1)?;
    let mut destination = End::start(built, destination, chunk_mode, 2)?;
    source.does(Op::Touch(0x5a))?;
    destination.does(Op::Touch(0x33))?;
    let stream = source.save(way)?;
    let state = source.digest();
    if destination.digest() == state {
        return Err(DriverError::Found("the destination is not another".to_owned()));
    }
    destination.load(&stream)?;
    if destination.digest() != state {
        return Err(DriverError::Found("the state is another than the source's".to_owned()));
    }
    source.finish()?;
    destination.finish()?;
    Ok(stream)
}

/// One end. Neither is large beside what it drives.
enum End {
    Linux(Box<LinuxDriver<Software>>),
    Ours(Box<(Ours<Software>, Direct<Software>)>),
}

impl End {
    fn start(built: &Built, side: Side, chunks: bool, seed: u64) -> Result<Self, DriverError> {
        let image_bytes = if chunks { CHUNKED_IMAGE } else { IMAGE };
        let vhca = VhcaConfig { image_bytes, seed, ..VhcaConfig::default() };
        let bench = Bench::software(Config { chunks, ..Config::of(vhca) }, PAGES)?;
        Ok(match side {
            Side::Linux => Self::Linux(Box::new(bench.driver(built, Options::default())?)),
            Side::Ours => Self::Ours(Box::new(bench.ours()?)),
        })
    }

    fn apply<'b>(
        &mut self,
        op: Op<&[u8]>,
        buf: &'b mut [u8],
    ) -> Result<Reply<&'b [u8]>, DriverError> {
        match self {
            Self::Linux(driver) => driver.try_apply(op, buf),
            Self::Ours(device) => Ok(device.0.apply(op, buf)),
        }
    }

    /// Something that does not fail.
    fn does(&mut self, op: Op<&[u8]>) -> Result<Reply<usize>, DriverError> {
        let name = op.to_string();
        match self.apply(op, &mut [])?.map(<[u8]>::len) {
            Reply::Errno(errno) => Err(DriverError::Found(format!("{name} fails with {errno}"))),
            reply => Ok(reply),
        }
    }

    /// Nothing is left, where that can be seen.
    fn finish(self) -> Result<(), DriverError> {
        match self {
            Self::Linux(driver) => driver.finish(1),
            Self::Ours(_) => Ok(()),
        }
    }

    fn dirty(&mut self, bytes: u64) {
        match self {
            Self::Linux(driver) => driver.firmware().vhca().dirty(bytes),
            Self::Ours(device) => device.1.with(|software| software.vhca().dirty(bytes)),
        }
    }

    fn digest(&self) -> u64 {
        match self {
            Self::Linux(driver) => driver.firmware().vhca().digest(),
            Self::Ours(device) => device.1.with(|software| software.vhca().digest()),
        }
    }

    fn save(&mut self, way: Way) -> Result<Vec<u8>, DriverError> {
        let mut stream = Vec::new();
        if way == Way::Running {
            self.does(Op::set(State::PreCopy))?;
            for changed in [100_000, 5_000, 0] {
                self.read(&mut stream)?;
                self.dirty(changed);
                self.does(Op::PrecopyInfo { fd: Fd(1) })?;
            }
            self.read(&mut stream)?;
            self.dirty(10_000);
        }
        self.does(Op::set(State::StopCopy))?;
        self.read(&mut stream)?;
        Ok(stream)
    }

    /// Reads on to an end.
    fn read(&mut self, stream: &mut Vec<u8>) -> Result<(), DriverError> {
        let mut buf = vec![0; 1 << 20];
        loop {
            // Never in step with pages or records.
            match self.apply(Op::Read { fd: Fd(1), len: 777_777 }, &mut buf)? {
                Reply::Bytes(bytes) => stream.extend_from_slice(bytes),
                Reply::EndOfStream(EndOfStream::Temporary | EndOfStream::Permanent) => {
                    return Ok(());
                }
                other => return Err(DriverError::Found(format!("a read answers {other:?}"))),
            }
        }
    }

    fn load(&mut self, stream: &[u8]) -> Result<(), DriverError> {
        self.does(Op::set(State::Resuming))?;
        for mut bytes in stream.chunks(654_321) {
            while !bytes.is_empty() {
                match self.does(Op::Write { fd: Fd(1), bytes })? {
                    Reply::Written(taken @ 1..) => {
                        bytes = bytes.get(taken as usize..).unwrap_or_default();
                    }
                    other => return Err(DriverError::Found(format!("a write answers {other}"))),
                }
            }
        }
        self.does(Op::set(State::Running)).map(drop)
    }
}
