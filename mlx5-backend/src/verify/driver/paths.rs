// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! Our backend and the shipping driver, side by side: every way of so many SETs from RUNNING, for the
//! same firmware, and after each step the commands of either.

use std::hash::{DefaultHasher, Hash, Hasher};

use vfio_fsm_core::{Direction, Errno, Fd, Op, Reply, State};

use super::{
    Bench, Built, Completion, Direct, DriverError, Firmware, Given, LinuxDriver, Options, Ours,
};
use crate::layout::Opcode;

/// Where the page addresses of a CREATE_MKEY begin.
const MTT: usize = 0x110;

/// What is done between two SETs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Manner {
    /// Nothing.
    Idle,
    /// The guest touches the VF, so that something has always changed.
    Touched,
    /// The data_fd is used: read to its end, asked what has changed, and read again; or written to.
    Busy,
}

/// What we mean to do otherwise, and why. What else is done otherwise, nobody meant.
pub const DIFFERENCES: &[(&str, &str)] =
    &[(EMPTY_STREAM, REFUSED), (NO_BUFFER, A_PAGE), (NEXT_CHUNK, LATER), (KEYS, FREE_ORDER)];

const EMPTY_STREAM: &str = "leaving RESUMING without a stream fails";
const REFUSED: &str = "R29: a state that did not arrive is not one to run on. The kernel's driver \
     resumes a VHCA into which nothing was loaded";
const NO_BUFFER: &str =
    "when nothing has changed, the SAVE that ends tracking has a buffer even so";
const A_PAGE: &str = "the kernel's driver then gives memory key 0 and size 0; no public word says that \
     firmware takes them, and if it does not, tracking does not end";
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

/// Walks all paths of so many SETs, on firmwares that `bench` makes alike. For each way, where the
/// two part for the first time.
pub fn part<F: Firmware + Send>(
    built: &Built,
    length: u32,
    chunk_mode: bool,
    manner: Manner,
    bench: impl Fn() -> Result<Bench<F>, DriverError>,
) -> Result<Vec<Parting>, DriverError> {
    let start = || Both::start(built, chunk_mode, [bench()?, bench()?]);
    let stream = start()?.stream()?;
    let mut partings: Vec<Parting> = Vec::new();
    for number in 0..TARGETS.len().pow(length) {
        let path = path(number, length);
        if partings.iter().any(|parting| path.starts_with(&parting.path)) {
            continue;
        }
        partings.extend(start()?.walk(&path, manner, &stream)?);
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

struct Both<F: Firmware + Send> {
    driver: LinuxDriver<F>,
    ours: Ours<F>,
    firmware: Direct<F>,
    /// Whether the two read the same.
    contents: bool,
    fd: Option<Fd>,
    /// In chunk mode: the driver's, and ours.
    chunks: Option<[Chunks; 2]>,
}

impl Parting {
    /// Which of the [`DIFFERENCES`] it is, if it is one that we mean.
    pub fn meant(&self) -> Option<&'static str> {
        let refused = self.ours == [said(Reply::Errno(Errno::EINVAL), true)];
        if refused && self.from == State::Resuming && self.op.starts_with("SET") {
            return Some(EMPTY_STREAM);
        }
        let begins =
            |lines: &[String], with| lines.first().is_some_and(|line| line.starts_with(with));
        let no_buffer = begins(&self.driver, "SAVE_VHCA_STATE 011800000000000000001234 of 32");
        (no_buffer && begins(&self.ours, "CREATE_MKEY")).then_some(NO_BUFFER)
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

impl<F: Firmware + Send> Both<F> {
    fn start(built: &Built, chunk_mode: bool, benches: [Bench<F>; 2]) -> Result<Self, DriverError> {
        let [theirs, mine] = benches;
        let contents = theirs.contents;
        let options = Options { completion: Completion::Within, ..Options::default() };
        let driver = theirs.driver(built, options)?;
        let (ours, firmware) = mine.ours()?;
        let chunks = chunk_mode.then(Default::default);
        Ok(Self { driver, ours, firmware, contents, fd: None, chunks })
    }

    /// What is loaded where something is loaded: the driver's own.
    fn stream(mut self) -> Result<Vec<u8>, DriverError> {
        self.driver.try_apply(Op::set(State::StopCopy), &mut [])?;
        let mut stream = Vec::new();
        let mut buf = vec![0; 1 << 16];
        let read = Op::Read { fd: Fd(1), len: 1 << 16 };
        while let Reply::Bytes(bytes) = self.driver.try_apply(read, &mut buf)? {
            stream.extend_from_slice(bytes);
        }
        Ok(stream)
    }

    fn walk(
        &mut self,
        path: &[State],
        manner: Manner,
        stream: &[u8],
    ) -> Result<Option<Parting>, DriverError> {
        for (done, &to) in (1u8..).zip(path) {
            let from = self.state()?;
            if let Some(chunks) = &mut self.chunks
                && !from.is_saving()
            {
                *chunks = Default::default();
            }
            let mut op = format!("SET {to}");
            let mut parted = self.steps(&[Op::set(to)])?;
            if parted.is_none() {
                (op, parted) = match manner {
                    Manner::Idle => (op, None),
                    Manner::Touched => (op, self.steps(&[Op::Touch(done)])?),
                    Manner::Busy => self.use_data_fd(stream)?,
                };
            }
            if let Some((driver, ours)) = parted {
                let path = path[..usize::from(done)].to_vec();
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
        let info = Op::PrecopyInfo { fd };
        for op in [read, read, read, Op::Touch(0x77), info, Op::DataSize, read, read, read] {
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
            let reply = self.driver.try_apply(op, &mut buf)?;
            if let Reply::Fd(Some(fd)) = reply {
                self.fd = Some(fd);
            }
            expected.push(said(reply, self.contents));
            replies.push(said(self.ours.apply(op, &mut buf), self.contents));
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

/// A reply, with a digest of what was read where that is known.
fn said(reply: Reply<&[u8]>, contents: bool) -> String {
    let mut hasher = DefaultHasher::new();
    match reply {
        Reply::Bytes(bytes) if contents => bytes.hash(&mut hasher),
        _ => {}
    }
    format!("{} ({:016x})", reply.map(<[u8]>::len), hasher.finish())
}

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
