// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! Our backend and the shipping driver, side by side: every way of so many SETs from RUNNING, for the
//! same firmware, and after each step the commands of either.

use std::sync::Arc;

use vfio_fsm_core::{Direction, Errno, Fd, Features, Op, Reply, State};

use super::{Arena, Built, Completion, Direct, DriverError, Given, LinuxDriver, Options, Scripted};
use crate::device::Mlx5Device;
use crate::dma::DmaSpace;
use crate::layout::Opcode;
use crate::vhca::{Migration, Vhca};

/// In chunk mode, chunks of five pages, so that three of them are soon read.
const TOTAL: u64 = 20_000;
/// Pages and bytes of memory for either.
const PAGES: u64 = 1 << 12;
/// Where the page addresses of a CREATE_MKEY begin.
const MTT: usize = 0x110;

/// What is done between two SETs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Manner {
    /// Nothing.
    Idle,
    /// The data_fd is used: read to its end, asked what has changed, and read again; or written to.
    Busy,
}

/// What we mean to do otherwise, and why. What else is done otherwise, nobody meant.
pub const DIFFERENCES: &[(&str, &str)] =
    &[(EMPTY_STREAM, REFUSED), (NEXT_CHUNK, LATER), (KEYS, FREE_ORDER)];

const EMPTY_STREAM: &str = "leaving RESUMING without a stream fails";
const REFUSED: &str = "R29: a state that did not arrive is not one to run on. The kernel's driver \
     resumes a VHCA into which nothing was loaded";
const NEXT_CHUNK: &str = "the next chunk is saved when the data_fd is read, and not at once";
const LATER: &str = "our backend has no thread of its own; a reader that keeps reading sees no \
     difference, and one that does not keeps one buffer empty";

const KEYS: &str = "in chunk mode the memory keys are destroyed in another order";
const FREE_ORDER: &str = "all of them are destroyed before their protection domain, and no order \
     among them means anything";

/// Where the two part.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Parting {
    /// The SETs, the last of them or what was done behind it being where they part.
    pub path: Vec<State>,
    /// What was done there.
    pub op: String,
    /// Where the driver was before.
    pub from: State,
    /// The driver's reply and commands, those that are not the same.
    pub driver: Vec<String>,
    /// Ours.
    pub ours: Vec<String>,
}

/// Walks all paths of so many SETs. For each way, where the two part for the first time.
pub fn part(
    built: &Built,
    length: u32,
    chunk_mode: bool,
    manner: Manner,
) -> Result<Vec<Parting>, DriverError> {
    let stream = stream(built, chunk_mode)?;
    let mut partings: Vec<Parting> = Vec::new();
    for number in 0..TARGETS.len().pow(length) {
        let path = path(number, length);
        if partings.iter().any(|parting| path.starts_with(&parting.path)) {
            continue;
        }
        let mut both = Both::start(built, chunk_mode)?;
        partings.extend(both.walk(&path, manner, &stream)?);
    }
    Ok(partings)
}

/// Everything that may be asked for.
const TARGETS: [State; 8] = State::ALL;

fn path(mut number: usize, length: u32) -> Vec<State> {
    let mut path = Vec::new();
    for _ in 0..length {
        path.push(TARGETS[number % TARGETS.len()]);
        number /= TARGETS.len();
    }
    path.reverse();
    path
}

/// What is loaded where something is loaded: the driver's own.
fn stream(built: &Built, chunk_mode: bool) -> Result<Vec<u8>, DriverError> {
    let mut both = Both::start(built, chunk_mode)?;
    both.driver.try_apply(Op::set(State::StopCopy), &mut [])?;
    let mut stream = Vec::new();
    let mut buf = vec![0; 1 << 16];
    let read = Op::Read { fd: Fd(1), len: 1 << 16 };
    while let Reply::Bytes(bytes) = both.driver.try_apply(read, &mut buf)? {
        stream.extend_from_slice(bytes);
    }
    Ok(stream)
}

struct Both {
    driver: LinuxDriver<Scripted>,
    ours: Mlx5Device<Direct<Scripted>, Direct<Scripted>>,
    firmware: Direct<Scripted>,
    fd: Option<Fd>,
    /// In chunk mode: the driver's, and ours.
    chunks: Option<[Chunks; 2]>,
}

impl Parting {
    /// Which of the [`DIFFERENCES`] it is, if it is one that we mean.
    pub fn meant(&self) -> Option<&'static str> {
        let refused = self.ours == [Errno::EINVAL.to_string()];
        let leaves = self.from == State::Resuming && self.op.starts_with("SET");
        (refused && leaves).then_some(EMPTY_STREAM)
    }
}

/// What a side has given so far of the commands that save the chunks of one image.
#[derive(Debug, Default)]
struct Chunks(Vec<String>);

impl Chunks {
    /// Takes them out of what was given.
    fn take(&mut self, given: Vec<Given>) -> Vec<String> {
        let (chunks, others): (Vec<_>, Vec<_>) = given.into_iter().partition(is_chunk);
        self.0.extend(chunks.iter().map(shown));
        let mut others: Vec<_> = others.iter().map(shown).collect();
        // Runs of them, as they come together: [`KEYS`].
        let destroys = |line: &String| line.starts_with("DESTROY_MKEY");
        for run in others.chunk_by_mut(|a, b| destroys(a) && destroys(b)) {
            run.sort_unstable();
        }
        others
    }

    /// Whether the other side is where this one is, or one chunk ahead ([`NEXT_CHUNK`]).
    fn are_followed_by(&self, ahead: &Self) -> bool {
        ahead.0.starts_with(&self.0) && ahead.0.len() <= self.0.len() + 1
    }
}

/// A SAVE that goes on with an image: incremental, and not tracking.
fn is_chunk(given: &Given) -> bool {
    let flags = given.input.get(8).copied().unwrap_or_default();
    Opcode::from(given.opcode()) == Opcode::SaveVhcaState && flags & 0xc0 == 0x80
}

impl Both {
    fn start(built: &Built, chunk_mode: bool) -> Result<Self, DriverError> {
        let scripted = Scripted::new(chunk_mode).with_total(TOTAL);
        let arena = Arena::new(PAGES).map_err(DriverError::Process)?;
        let options = Options { completion: Completion::Within, ..Options::default() };
        let mut driver = built.start(scripted.clone(), &arena, options)?;
        driver.take_given();
        let firmware = Direct::new(scripted, DmaSpace::new(PAGES * 4096));
        let vhca = Migration::of(&firmware)
            .and_then(|pf| Vhca::new(Arc::new(firmware.clone()), pf, 1))
            .map_err(|error| DriverError::Found(format!("our backend: {error}")))?;
        firmware.take_given();
        let ours = Mlx5Device::new(Features::ALL, vhca, firmware.clone());
        let chunks = chunk_mode.then(Default::default);
        Ok(Self { driver, ours, firmware, fd: None, chunks })
    }

    fn walk(
        &mut self,
        path: &[State],
        manner: Manner,
        stream: &[u8],
    ) -> Result<Option<Parting>, DriverError> {
        for (done, &to) in (1..).zip(path) {
            let from = self.state()?;
            if let Some(chunks) = &mut self.chunks
                && !from.is_saving()
            {
                *chunks = Default::default();
            }
            let mut op = format!("SET {to}");
            let mut parted = self.steps(&[Op::set(to)])?;
            if manner == Manner::Busy && parted.is_none() {
                (op, parted) = self.use_data_fd(stream)?;
            }
            if let Some((driver, ours)) = parted {
                let path = path[..done].to_vec();
                return Ok(Some(Parting { path, op, from, driver, ours }));
            }
        }
        Ok(None)
    }

    fn state(&mut self) -> Result<State, DriverError> {
        match self.driver.try_apply(Op::GetState, &mut [])? {
            Reply::State(state) => Ok(state.known().unwrap_or(State::Error)),
            other => Err(DriverError::Found(format!("GET answers {other:?}"))),
        }
    }

    /// What is done with the data_fd in this state, and where the two part in that. A stream is
    /// loaded as one: when the memory for it is allocated is each side's own.
    fn use_data_fd(&mut self, stream: &[u8]) -> Result<(String, Option<Lines>), DriverError> {
        let nothing = (String::new(), None);
        let Some(fd) = self.fd else { return Ok(nothing) };
        match self.state()?.session() {
            None => return Ok(nothing),
            Some(Direction::Resuming) => {
                let writes: Vec<_> =
                    stream.chunks(3000).map(|bytes| Op::Write { fd, bytes }).collect();
                return Ok(("load".to_owned(), self.steps(&writes)?));
            }
            Some(Direction::Saving) => {}
        }
        // Enough for every stream here, each read beyond a buffer.
        let read = Op::Read { fd, len: 1 << 15 };
        for op in [read, read, read, Op::PrecopyInfo { fd }, Op::DataSize, read, read, read] {
            let parted = self.steps(&[op])?;
            if parted.is_some() {
                return Ok((op.to_string(), parted));
            }
        }
        Ok(nothing)
    }

    /// Both do all of it. What differs in what they say, if anything does.
    fn steps(&mut self, ops: &[Op<&[u8]>]) -> Result<Option<Lines>, DriverError> {
        let mut buf = vec![0; 1 << 16];
        let (mut replies, mut expected) = (Vec::new(), Vec::new());
        for &op in ops {
            let reply = self.driver.try_apply(op, &mut buf)?.map(<[u8]>::len);
            if let Reply::Fd(Some(fd)) = reply {
                self.fd = Some(fd);
            }
            expected.push(reply.to_string());
            replies.push(self.ours.apply(op, &mut buf).map(<[u8]>::len).to_string());
        }
        let (mut driver, mut ours) = self.commands();
        if let Some([theirs, mine]) = &self.chunks
            && !mine.are_followed_by(theirs)
        {
            driver.extend_from_slice(&theirs.0);
            ours.extend_from_slice(&mine.0);
        }
        driver.extend(expected);
        ours.extend(replies);
        Ok((driver != ours).then(|| differing(&driver, &ours)))
    }

    /// What either has given since this was last asked, without chunks.
    fn commands(&mut self) -> Lines {
        let (driver, ours) = (self.driver.take_given(), self.firmware.take_given());
        match &mut self.chunks {
            Some([theirs, mine]) => (theirs.take(driver), mine.take(ours)),
            None => (driver.iter().map(shown).collect(), ours.iter().map(shown).collect()),
        }
    }
}

/// The driver's, and ours.
type Lines = (Vec<String>, Vec<String>);

/// A command by its name and its bytes; addresses of pages are each side's own.
fn shown(given: &Given) -> String {
    let opcode = Opcode::from(given.opcode());
    let mut input = given.input.clone();
    if opcode == Opcode::CreateMkey
        && let Some(pages) = input.get_mut(MTT..)
    {
        pages.fill(0);
    }
    let end = input.len() - input.iter().rev().take_while(|byte| **byte == 0).count();
    let bytes: String = input[..end].iter().map(|byte| format!("{byte:02x}")).collect();
    format!("{opcode} {bytes} of {}", input.len())
}

/// Without what they have in common at the beginning and at the end.
fn differing(driver: &[String], ours: &[String]) -> Lines {
    let head = driver.iter().zip(ours).take_while(|(a, b)| a == b).count();
    let (driver, ours) = (&driver[head..], &ours[head..]);
    let tail = driver.iter().rev().zip(ours.iter().rev()).take_while(|(a, b)| a == b).count();
    (driver[..driver.len() - tail].to_vec(), ours[..ours.len() - tail].to_vec())
}
