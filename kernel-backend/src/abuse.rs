// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! What a VMM should never do to a device node and any process can: wrong sizes, flags, features,
//! pointers and lengths, which no [`Op`] has a word for.
//!
//! Each [`Case`] begins with a device in RUNNING. Arguments end where mapped memory does, so that a
//! kernel that touches one byte too many gets a fault, and every output field holds something
//! beforehand. What came of a call that should not have come of it is a [`Slip`].
//!
//! ```no_run
//! use vfio_fsm_kernel::{DevicePath, KernelDevice, abuse};
//!
//! let path: DevicePath = "0000:01:00.2".parse()?;
//! let mut device = KernelDevice::open(&path)?;
//! for case in abuse::CASES {
//!     for slip in case.run(&mut device)?.slips {
//!         println!("{}: {slip}", case.name);
//!     }
//! }
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```

use std::fmt;
use std::io;
use std::os::fd::{AsFd, BorrowedFd};
use std::thread;

use vfio_bindings::bindings::vfio::{
    VFIO_DEVICE_FEATURE_DMA_LOGGING_START as LOGGING_START,
    VFIO_DEVICE_FEATURE_DMA_LOGGING_STOP as LOGGING_STOP, VFIO_DEVICE_FEATURE_GET as GET,
    VFIO_DEVICE_FEATURE_MIG_DATA_SIZE as DATA_SIZE,
    VFIO_DEVICE_FEATURE_MIG_DEVICE_STATE as DEVICE_STATE, VFIO_DEVICE_FEATURE_MIGRATION as FLAGS,
    VFIO_DEVICE_FEATURE_PROBE as PROBE, VFIO_DEVICE_FEATURE_SET as SET,
};
use vfio_fsm_core::{Errno, Fd, Op, Reply, State};

use crate::device::KernelDevice;
use crate::error::FreshError;
use crate::sys::brink::{Access, Brink};
use crate::sys::{DEVICE_FEATURE, MIG_GET_PRECOPY_INFO, request};

/// One kind of abuse.
#[derive(Clone, Copy, Debug)]
pub struct Case {
    /// Its name in reports.
    pub name: &'static str,
    /// The requirements that a run without a slip is evidence for.
    pub covers: &'static [&'static str],
    run: fn(&mut Abuser<'_>) -> io::Result<()>,
}

/// What a case came to.
#[derive(Clone, Debug, Default)]
pub struct Outcome {
    /// Calls that were made.
    pub calls: u64,
    /// What was wrong.
    pub slips: Vec<Slip>,
    /// Why nothing was tried, if so.
    pub inapplicable: Option<&'static str>,
}

/// A call that came to something else than it should have.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Slip {
    /// What was done.
    pub call: String,
    /// What should have come of it.
    pub expected: String,
    /// What came.
    pub seen: String,
}

impl fmt::Display for Slip {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { call, expected, seen } = self;
        write!(f, "{call}: expected {expected}, saw {seen}")
    }
}

/// A case that could not be begun.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum AbuseError {
    /// The device is not to be had fresh.
    #[error(transparent)]
    Fresh(#[from] FreshError),
    /// No memory, or no thread.
    #[error("cannot set the case up: {0}; free memory and address space and try again")]
    System(#[from] io::Error),
}

/// Every case.
pub const CASES: &[Case] = &[
    Case { name: "feature-argsz", covers: &["G1", "C38"], run: feature_argsz },
    Case { name: "feature-flags", covers: &["G2", "C38"], run: feature_flags },
    Case { name: "feature-probe", covers: &["G2", "C38"], run: feature_probe },
    Case { name: "feature-numbers", covers: &["G3", "C38"], run: feature_numbers },
    Case { name: "feature-outputs", covers: &["G4", "R12", "C1"], run: feature_outputs },
    Case { name: "feature-memory", covers: &["G5", "C2", "C3"], run: feature_memory },
    Case { name: "logging-memory", covers: &["C40"], run: logging_memory },
    Case { name: "precopy-argsz", covers: &["R38"], run: precopy_argsz },
    Case { name: "precopy-outputs", covers: &["G4"], run: precopy_outputs },
    Case { name: "precopy-memory", covers: &["G5"], run: precopy_memory },
    Case { name: "data-fd-ioctls", covers: &["R38"], run: data_fd_ioctls },
    Case { name: "read-memory", covers: &["G6"], run: read_memory },
    Case { name: "write-memory", covers: &["G7"], run: write_memory },
    Case { name: "positions", covers: &["C22", "G8"], run: positions },
    Case { name: "concurrent-writers", covers: &["G9", "C42"], run: concurrent_writers },
];

impl Case {
    /// Make the device fresh, and do it.
    ///
    /// # Errors
    ///
    /// When the device is not to be had fresh, or there is no memory.
    pub fn run(&self, device: &mut KernelDevice) -> Result<Outcome, AbuseError> {
        device.fresh()?;
        let mut abuser = Abuser { device, brink: Brink::new()?, outcome: Outcome::default() };
        (self.run)(&mut abuser)?;
        abuser.still_works()?;
        Ok(abuser.outcome)
    }
}

struct Abuser<'d> {
    device: &'d mut KernelDevice,
    brink: Brink,
    outcome: Outcome,
}

/// What a call returned.
type Returned = Result<usize, Errno>;

/// Patterns that output fields hold before a call: none of them is an answer.
const POISONS: [u8; 3] = [0xa5, 0x5a, 0xee];

/// `struct vfio_device_feature` and the 8 bytes behind it.
const FEATURE_LEN: usize = 16;

/// `struct vfio_precopy_info`.
const INFO_LEN: usize = 24;

fn feature(argsz: u32, flags: u32, payload: impl AsRef<[u8]>) -> Vec<u8> {
    [&argsz.to_ne_bytes()[..], &flags.to_ne_bytes(), payload.as_ref()].concat()
}

/// The payload of a SET, with something in data_fd.
fn state(to: State) -> [u8; 8] {
    let [a, b, c, d] = to.number().to_ne_bytes();
    [a, b, c, d, 0xa5, 0xa5, 0xa5, 0xa5]
}

fn info(argsz: u32, poison: u8) -> Vec<u8> {
    [&argsz.to_ne_bytes()[..], &[poison; INFO_LEN - 4]].concat()
}

fn shown(returned: Returned) -> String {
    returned.map_or_else(|errno| errno.to_string(), |value| value.to_string())
}

impl Abuser<'_> {
    fn check(&mut self, right: bool, call: impl fmt::Display, expected: &str, seen: String) {
        self.outcome.calls += 1;
        if !right {
            let (call, expected) = (call.to_string(), expected.to_owned());
            self.outcome.slips.push(Slip { call, expected, seen });
        }
    }

    fn returns(&mut self, want: Returned, seen: Returned, call: impl fmt::Display) {
        self.check(want == seen, call, &shown(want), shown(seen));
    }

    /// `VFIO_DEVICE_FEATURE` with this argument at the end of the page, and what became of it.
    fn feature(&mut self, argument: &[u8]) -> (Returned, Vec<u8>) {
        self.brink.put(argument);
        let device = self.device.device_fd();
        let done = device.and_then(|fd| self.brink.ioctl(fd, DEVICE_FEATURE, argument.len()));
        (done, self.brink.get(argument.len()))
    }

    /// The same in memory that may be used like this alone.
    fn feature_in(&mut self, access: Access, argument: &[u8]) -> io::Result<Returned> {
        self.brink.put(argument);
        self.brink.allow(access)?;
        let device = self.device.device_fd();
        let done = device.and_then(|fd| self.brink.ioctl(fd, DEVICE_FEATURE, argument.len()));
        self.brink.allow(Access::ReadWrite)?;
        Ok(done)
    }

    /// A call that must fail with this errno and leave its argument as it is.
    fn refuses(&mut self, errno: Errno, argument: &[u8], call: impl fmt::Display) {
        let (done, left) = self.feature(argument);
        self.returns(Err(errno), done, &call);
        self.check(left == argument, call, "an argument left as it was", hex(&left));
    }

    fn set(&mut self, to: State) -> Option<Fd> {
        match self.device.apply(Op::set(to), &mut []) {
            Reply::Fd(fd) => fd,
            other => {
                self.check(false, format_args!("SET({to})"), "success", other.to_string());
                None
            }
        }
    }

    fn expect_state(&mut self, want: State, after: &str) {
        let seen = self.device.apply(Op::GetState, &mut []).to_string();
        let right = seen == Reply::<&[u8]>::State(want.into()).to_string();
        self.check(right, format_args!("GET after {after}"), &want.to_string(), seen);
    }

    /// A session that is open, or none and the reason why.
    fn session(&mut self, to: State) -> Option<Fd> {
        if to.is_pre_copy() && !self.device.features().pre_copy() {
            self.outcome.inapplicable = Some("the device has no PRE_COPY");
            return None;
        }
        self.set(to)
    }

    /// An ioctl on a data_fd with this argument at the end of the page, and what became of it.
    fn on_data_fd(&mut self, fd: Fd, number: u32, argument: &[u8]) -> (Returned, Vec<u8>) {
        self.brink.put(argument);
        let file = self.device.data_fd(fd);
        let done = file.and_then(|file| self.brink.ioctl(file, number, argument.len()));
        (done, self.brink.get(argument.len()))
    }

    fn with_file(&self, fd: Fd, call: impl Fn(&Brink, BorrowedFd<'_>) -> Returned) -> Returned {
        self.device.data_fd(fd).and_then(|file| call(&self.brink, file))
    }

    /// Whatever was done to it, after a reset the device can be saved from the beginning to the end.
    fn still_works(&mut self) -> io::Result<()> {
        self.brink.allow(Access::ReadWrite)?;
        let reset = self.device.apply(Op::Reset, &mut []).to_string();
        self.check(reset == Reply::<&[u8]>::Ok.to_string(), "RESET", "success", reset);
        self.expect_state(State::Running, "the reset");
        if let Some(fd) = self.set(State::StopCopy) {
            let end = self.drain(fd);
            self.check(
                end.is_ok(),
                "reads to the end",
                "a stream",
                shown(end.map(|all| all.len())),
            );
        }
        self.set(State::Running);
        Ok(())
    }

    /// All that a saving session says.
    fn drain(&mut self, fd: Fd) -> Result<Vec<u8>, Errno> {
        let (mut all, mut buf) = (Vec::new(), [0; Brink::PAGE]);
        while all.len() < LONGEST {
            match self.device.apply(Op::Read { fd, len: Brink::PAGE as u32 }, &mut buf) {
                Reply::Bytes(bytes) => all.extend_from_slice(bytes),
                Reply::Errno(errno) => return Err(errno),
                _ => return Ok(all),
            }
        }
        Ok(all)
    }
}

/// Enough of a stream to compare.
const LONGEST: usize = 1 << 20;

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// Every argsz around the right one, and the largest: too small is refused, too large is not.
fn feature_argsz(abuser: &mut Abuser<'_>) -> io::Result<()> {
    let calls = [
        (GET | FLAGS, [0xa5; 8]),
        (GET | DATA_SIZE, [0xa5; 8]),
        (GET | DEVICE_STATE, [0xa5; 8]),
        (SET | DEVICE_STATE, state(State::Running)),
    ];
    for (flags, payload) in calls {
        for argsz in (0..FEATURE_LEN as u32 + 9).chain([u32::MAX]) {
            let argument = feature(argsz, flags, payload);
            let call = format!("feature {flags:#x} argsz {argsz}");
            if argsz < FEATURE_LEN as u32 {
                abuser.refuses(Errno::EINVAL, &argument, call);
            } else {
                let (done, left) = abuser.feature(&argument);
                abuser.returns(Ok(0), done, &call);
                abuser.check(left[..8] == argument[..8], call, "its header kept", hex(&left));
            }
        }
    }
    Ok(())
}

/// Flags that do not exist, calls that are none, or two, or the wrong way.
fn feature_flags(abuser: &mut Abuser<'_>) -> io::Result<()> {
    let unknown = (19..32).map(|bit| GET | DEVICE_STATE | 1 << bit);
    let none = [FLAGS, DEVICE_STATE, DATA_SIZE];
    let both = none.map(|feature| GET | SET | feature);
    let wrong_way = [SET | FLAGS, SET | DATA_SIZE];
    for flags in unknown.chain(none).chain(both).chain(wrong_way) {
        let argument = feature(FEATURE_LEN as u32, flags, state(State::Stop));
        abuser.refuses(Errno::EINVAL, &argument, format_args!("feature {flags:#x}"));
    }
    abuser.expect_state(State::Running, "calls with bad flags");
    Ok(())
}

/// A PROBE says what there is, does nothing, and writes nothing.
fn feature_probe(abuser: &mut Abuser<'_>) -> io::Result<()> {
    for (flags, there) in [
        (GET | FLAGS, true),
        (SET | FLAGS, false),
        (GET | SET | FLAGS, false),
        (GET | DEVICE_STATE, true),
        (SET | DEVICE_STATE, true),
        (GET | SET | DEVICE_STATE, true),
        (GET | DATA_SIZE, true),
        (SET | DATA_SIZE, false),
    ] {
        let argument = feature(FEATURE_LEN as u32, PROBE | flags, state(State::Stop));
        let call = format!("probe {flags:#x}");
        let (done, left) = abuser.feature(&argument);
        abuser.returns(if there { Ok(0) } else { Err(Errno::EINVAL) }, done, &call);
        abuser.check(left == argument, call, "an argument left as it was", hex(&left));
    }
    abuser.expect_state(State::Running, "probes");
    Ok(())
}

/// Features that nobody has.
fn feature_numbers(abuser: &mut Abuser<'_>) -> io::Result<()> {
    for number in [0x7f, 0x100, 0x7fff, 0x8000, 0xffff] {
        for call in [GET, SET, PROBE | GET, PROBE | SET] {
            let argument = feature(FEATURE_LEN as u32, call | number, [0xa5; 8]);
            abuser.refuses(Errno::ENOTTY, &argument, format_args!("feature {:#x}", call | number));
        }
    }
    Ok(())
}

/// Output fields are written whatever was in them, and a SET that fails answers no fd.
fn feature_outputs(abuser: &mut Abuser<'_>) -> io::Result<()> {
    for flags in [GET | FLAGS, GET | DATA_SIZE, GET | DEVICE_STATE] {
        let answers: Vec<_> = POISONS
            .iter()
            .map(|&poison| abuser.feature(&feature(FEATURE_LEN as u32, flags, [poison; 8])).1)
            .collect();
        let same = answers.iter().all(|answer| *answer == answers[0]);
        let seen = answers.iter().map(|answer| hex(answer)).collect::<Vec<_>>().join(", ");
        let call = format!("feature {flags:#x}, three times, of other fields");
        abuser.check(same, call, "the same answer", seen);
    }
    let (_, running) = abuser.feature(&feature(FEATURE_LEN as u32, GET | DEVICE_STATE, [0xa5; 8]));
    let want = [State::Running.number().to_ne_bytes(), (-1_i32).to_ne_bytes()].concat();
    abuser.check(running[8..] == want, "GET of the state", "RUNNING and -1", hex(&running[8..]));

    let refused = feature(FEATURE_LEN as u32, SET | DEVICE_STATE, state(State::Error));
    let (done, left) = abuser.feature(&refused);
    abuser.returns(Err(Errno::EINVAL), done, "SET(ERROR)");
    let no_fd = left[12..] == [0xff; 4] || left[12..] == [0xa5; 4];
    let right = left[..12] == refused[..12] && no_fd;
    abuser.check(right, "SET(ERROR)", "the state asked for and no fd", hex(&left));
    Ok(())
}

/// Arguments that cannot be written, or read, or are not there to the end.
fn feature_memory(abuser: &mut Abuser<'_>) -> io::Result<()> {
    let fault = Err(Errno::EFAULT);
    let calls = [
        (GET | FLAGS, [0; 8]),
        (GET | DATA_SIZE, [0; 8]),
        (GET | DEVICE_STATE, [0; 8]),
        (SET | DEVICE_STATE, state(State::Running)),
    ];
    for (flags, payload) in calls {
        let whole = feature(FEATURE_LEN as u32, flags, payload);
        for access in [Access::Read, Access::None] {
            let done = abuser.feature_in(access, &whole)?;
            abuser.returns(fault, done, format_args!("feature {flags:#x} in memory {access:?}"));
        }
        // The header is there, and what follows is not.
        for room in [8, 12] {
            let (done, _) = abuser.feature(&whole[..room]);
            abuser.returns(fault, done, format_args!("feature {flags:#x} cut off after {room}"));
        }
    }
    abuser.expect_state(State::Running, "calls with bad memory");
    // The device moves, and only then is seen that nobody can be told (C2, C3).
    let first_free = free_number()?;
    let save = feature(FEATURE_LEN as u32, SET | DEVICE_STATE, state(State::StopCopy));
    let done = abuser.feature_in(Access::Read, &save)?;
    abuser.returns(fault, done, "SET(STOP_COPY) in memory Read");
    abuser.expect_state(State::StopCopy, "a SET whose answer cannot be written");
    let now_free = free_number()?;
    let seen = format!("the next free number is {now_free} and was {first_free}");
    abuser.check(first_free == now_free, "that SET", "no fd left behind", seen);
    let again = abuser.set(State::StopCopy);
    let seen = format!("{again:?}");
    abuser.check(again.is_none(), "SET(STOP_COPY) once more", "no fd", seen);
    Ok(())
}

/// A START of DMA logging whose answer cannot be written leaves nothing started, which another START
/// shows: a device that still logs refuses it.
fn logging_memory(abuser: &mut Abuser<'_>) -> io::Result<()> {
    if abuser.feature(&feature(8, PROBE | SET | LOGGING_START, [])).0.is_err() {
        abuser.outcome.inapplicable = Some("the device has no DMA logging");
        return Ok(());
    }
    let page = Brink::PAGE as u64;
    let range = [0, page];
    let ranges = range.as_ptr().expose_provenance() as u64;
    let (num_ranges, reserved) = (1_u32.to_ne_bytes(), [0; 4]);
    let control = [&page.to_ne_bytes()[..], &num_ranges, &reserved, &ranges.to_ne_bytes()].concat();
    let start = feature(8 + control.len() as u32, SET | LOGGING_START, control);
    let done = abuser.feature_in(Access::Read, &start)?;
    abuser.returns(Err(Errno::EFAULT), done, "START in memory Read");
    let (done, _) = abuser.feature(&start);
    abuser.returns(Ok(0), done, "START after a START whose answer cannot be written");
    let (done, _) = abuser.feature(&feature(8, SET | LOGGING_STOP, []));
    abuser.returns(Ok(0), done, "STOP");
    Ok(())
}

/// The number that the next fd will have.
fn free_number() -> io::Result<i32> {
    use std::os::fd::AsRawFd;
    let (read, _write) = io::pipe()?;
    Ok(read.as_raw_fd())
}

/// Every argsz around the right one (R38).
fn precopy_argsz(abuser: &mut Abuser<'_>) -> io::Result<()> {
    let Some(fd) = abuser.session(State::PreCopy) else { return Ok(()) };
    for argsz in (0..INFO_LEN as u32 + 9).chain([u32::MAX]) {
        let argument = info(argsz, 0);
        let (done, left) = abuser.on_data_fd(fd, MIG_GET_PRECOPY_INFO, &argument);
        let call = format!("PRECOPY_INFO argsz {argsz}");
        if argsz < INFO_LEN as u32 {
            abuser.returns(Err(Errno::EINVAL), done, &call);
            abuser.check(left == argument, call, "an argument left as it was", hex(&left));
        } else {
            abuser.returns(Ok(0), done, call);
        }
    }
    Ok(())
}

/// The amounts are written whatever was there; the flags are, too, or they are left (B34: before the
/// opt-in no kernel promises more).
fn precopy_outputs(abuser: &mut Abuser<'_>) -> io::Result<()> {
    let Some(fd) = abuser.session(State::PreCopy) else { return Ok(()) };
    let mut amounts = Vec::new();
    for poison in POISONS {
        let argument = info(INFO_LEN as u32, poison);
        let (done, left) = abuser.on_data_fd(fd, MIG_GET_PRECOPY_INFO, &argument);
        let call = format!("PRECOPY_INFO of fields of {poison:#x}");
        abuser.returns(Ok(0), done, &call);
        abuser.check(left[..4] == argument[..4], &call, "its argsz kept", hex(&left));
        let flags = left[4..8] == [poison; 4] || left[4..8] == [0; 4];
        abuser.check(flags, &call, "flags of 0, or left as they were", hex(&left[4..8]));
        amounts.push(left[8..].to_vec());
    }
    let same = amounts.iter().all(|amount| *amount == amounts[0]);
    let seen = amounts.iter().map(|amount| hex(amount)).collect::<Vec<_>>().join(", ");
    abuser.check(same, "PRECOPY_INFO, of other fields", "the same amounts", seen);
    Ok(())
}

/// Arguments that cannot be written, or read, or are not there to the end: EFAULT, and no count
/// (B31); and the session goes on.
fn precopy_memory(abuser: &mut Abuser<'_>) -> io::Result<()> {
    let Some(fd) = abuser.session(State::PreCopy) else { return Ok(()) };
    let fault = Err(Errno::EFAULT);
    for access in [Access::Read, Access::None] {
        abuser.brink.put(&info(INFO_LEN as u32, 0));
        abuser.brink.allow(access)?;
        let number = MIG_GET_PRECOPY_INFO;
        let done = abuser.with_file(fd, |brink, file| brink.ioctl(file, number, INFO_LEN));
        abuser.brink.allow(Access::ReadWrite)?;
        abuser.returns(fault, done, format_args!("PRECOPY_INFO in memory {access:?}"));
    }
    for room in [4, 8, 16, 23] {
        let whole = info(INFO_LEN as u32, 0);
        let (done, _) = abuser.on_data_fd(fd, MIG_GET_PRECOPY_INFO, &whole[..room]);
        abuser.returns(fault, done, format_args!("PRECOPY_INFO cut off after {room}"));
    }
    let (done, _) = abuser.on_data_fd(fd, MIG_GET_PRECOPY_INFO, &info(INFO_LEN as u32, 0));
    abuser.returns(Ok(0), done, "PRECOPY_INFO in good memory");
    Ok(())
}

/// Every other ioctl of VFIO on a data_fd (R38).
fn data_fd_ioctls(abuser: &mut Abuser<'_>) -> io::Result<()> {
    for to in [State::StopCopy, State::Resuming] {
        let Some(fd) = abuser.session(to) else { continue };
        for number in (0..64).filter(|&number| request(number) != MIG_GET_PRECOPY_INFO) {
            let argument = [0; 64];
            let (done, left) = abuser.on_data_fd(fd, request(number), &argument);
            let call = format!("ioctl {:#x} on the data_fd of {to}", request(number));
            abuser.returns(Err(Errno::ENOTTY), done, &call);
            abuser.check(left == argument, call, "an argument left as it was", hex(&left));
        }
    }
    Ok(())
}

/// Reads to where nothing can be written, of nothing, and of far too much. None of them loses bytes.
fn read_memory(abuser: &mut Abuser<'_>) -> io::Result<()> {
    let Some(fd) = abuser.set(State::StopCopy) else { return Ok(()) };
    let whole = abuser.drain(fd).unwrap_or_default();
    abuser.set(State::Running);
    let Some(fd) = abuser.set(State::StopCopy) else { return Ok(()) };
    for access in [Access::Read, Access::None] {
        abuser.brink.allow(access)?;
        let done = abuser.with_file(fd, |brink, file| brink.read(file, 8, 8));
        abuser.brink.allow(Access::ReadWrite)?;
        abuser.returns(Err(Errno::EFAULT), done, format_args!("read to memory {access:?}"));
    }
    let nothing = abuser.with_file(fd, |brink, file| brink.read(file, 0, 0));
    abuser.returns(Ok(0), nothing, "read of 0 bytes");
    for len in [isize::MAX as usize, isize::MAX as usize + 1, usize::MAX] {
        let done = abuser.with_file(fd, |brink, file| brink.read(file, 0, len));
        let call = format!("read of {len} bytes");
        abuser.check(done.is_err(), call, "any errno", shown(done));
    }
    abuser.expect_state(State::StopCopy, "bad reads");
    // A stream longer than this may change from session to session.
    let rest = abuser.drain(fd).unwrap_or_default();
    let right = rest.len() == whole.len() || whole.len() >= LONGEST;
    let (want, seen) = (format!("{} bytes", whole.len()), format!("{} bytes", rest.len()));
    abuser.check(right, "reads after reads that failed", &want, seen);
    Ok(())
}

/// Writes from where nothing can be read, of nothing, and of far too much: no more is taken than
/// there is (B19, B20).
fn write_memory(abuser: &mut Abuser<'_>) -> io::Result<()> {
    let Some(fd) = abuser.set(State::Resuming) else { return Ok(()) };
    let nothing = abuser.with_file(fd, |brink, file| brink.write(file, 0, 0));
    abuser.returns(Ok(0), nothing, "write of 0 bytes");
    abuser.brink.allow(Access::None)?;
    let done = abuser.with_file(fd, |brink, file| brink.write(file, 8, 8));
    abuser.brink.allow(Access::ReadWrite)?;
    abuser.returns(Err(Errno::EFAULT), done, "write from memory None");
    // Near MAX_RW_COUNT, near what an int holds, near what a ssize_t holds.
    let near = |limit: usize| [limit - 1, limit, limit.wrapping_add(1)];
    let lens = [0x7fff_f000, i32::MAX as usize, u32::MAX as usize, isize::MAX as usize];
    for len in lens.into_iter().flat_map(near).chain([usize::MAX]) {
        for room in [1, 8, Brink::PAGE] {
            let done = abuser.with_file(fd, |brink, file| brink.write(file, room, len));
            let right = done.is_err_and(|errno| errno.0 > 0) || done.is_ok_and(|got| got <= room);
            let call = format!("write of {len} bytes where there are {room}");
            abuser.check(right, call, "any errno, or no more than there are", shown(done));
        }
    }
    abuser.expect_state(State::Resuming, "bad writes");
    Ok(())
}

/// A data_fd has no position, whichever is asked for.
fn positions(abuser: &mut Abuser<'_>) -> io::Result<()> {
    for to in [State::StopCopy, State::Resuming] {
        let Some(fd) = abuser.set(to) else { continue };
        for position in [0, 1, i64::MAX - 1, i64::MAX, -1, i64::MIN] {
            let errno = if position < 0 { Errno::EINVAL } else { Errno::ESPIPE };
            let way = |brink: &Brink, file: BorrowedFd<'_>| match to {
                State::Resuming => brink.pwrite(file, position),
                _ => brink.pread(file, position),
            };
            let done = abuser.with_file(fd, way);
            let call = format!("pread or pwrite at {position} in {to}");
            abuser.returns(Err(errno), done, call);
        }
    }
    Ok(())
}

/// Bytes of one write, and writes of one writer.
const WRITE: usize = 512;
const WRITES: usize = 16;

/// Two who write at the same time are given no more room than one (B21). Of a device that takes all
/// that one writes, nothing follows but that it lives.
fn concurrent_writers(abuser: &mut Abuser<'_>) -> io::Result<()> {
    let Some(fd) = abuser.set(State::Resuming) else { return Ok(()) };
    abuser.brink.put(&[0; WRITE]);
    let alone = abuser.with_file(fd, |brink, file| Ok(write_until_refused(brink, file)));
    let alone = alone.unwrap_or(0);
    if alone == WRITE * WRITES {
        abuser.outcome.inapplicable = Some("the device takes all that one writer has");
        return Ok(());
    }
    abuser.device.apply(Op::Reset, &mut []);
    for _ in 0..64 {
        let Some(fd) = abuser.set(State::Resuming) else { return Ok(()) };
        let file = match abuser.device.data_fd(fd) {
            Ok(file) => file.try_clone_to_owned()?,
            Err(_closed) => return Ok(()),
        };
        let taken = both([Brink::new()?, Brink::new()?], file.as_fd());
        let seen = format!("{taken} bytes");
        let want = format!("at most {alone} bytes taken");
        abuser.check(taken <= alone, "two writers at once", &want, seen);
        abuser.device.apply(Op::CloseFd { fd }, &mut []);
        abuser.device.apply(Op::Reset, &mut []);
    }
    Ok(())
}

/// What two writers together get rid of.
fn both(brinks: [Brink; 2], file: BorrowedFd<'_>) -> usize {
    thread::scope(|scope| {
        let writers = brinks.map(|brink| scope.spawn(move || write_until_refused(&brink, file)));
        writers.into_iter().map(|writer| writer.join().unwrap_or(0)).sum()
    })
}

fn write_until_refused(brink: &Brink, file: BorrowedFd<'_>) -> usize {
    (0..WRITES).map_while(|_| brink.write(file, WRITE, WRITE).ok().filter(|&n| n > 0)).sum()
}
