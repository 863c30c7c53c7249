// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! Reads lists of calls as tracers at the libc boundary print them: a line a call, tabs between.

use std::collections::HashMap;
use std::io::BufRead;
use std::str::FromStr;

use vfio_fsm_core::{EndOfStream, Errno, Fd, Op, PrecopyInfo, RawState, Reply, State};

use super::recording::{DmaLogging, Header, Problem, Recording, RecordingError, Recordings, Step};

/// Read a list of calls. Each line `=== NAME` begins a recording.
///
/// Calls that are not about migration are passed over, and so are those on an fd that is no device.
pub(super) fn read(input: impl BufRead) -> Result<Vec<Recording>, RecordingError> {
    let mut file = Recordings::default();
    let mut section = None;
    for (line, text) in (1..).zip(input.lines()) {
        let fail = |problem| RecordingError { line, problem };
        let text = text.map_err(|e| fail(e.into()))?;
        let text = text.trim_end();
        if text.is_empty() || text.starts_with('#') {
            continue;
        }
        if let Some(name) = text.strip_prefix("===") {
            file.header(line, Header::new(name.trim())).map_err(fail)?;
            section = Some(Section::default());
            continue;
        }
        if section.is_none() {
            file.header(line, Header::new("calls")).map_err(fail)?;
        }
        let known = section.get_or_insert_default();
        let step = known.step(text).map_err(|what| fail(Problem::Calls(what)))?;
        step.map_or(Ok(()), |step| file.step(step)).map_err(fail)?;
    }
    file.finish()
}

/// What is known of a process' descriptors.
#[derive(Default)]
struct Section {
    /// Devices by descriptor, and how many data_fds each has handed out.
    devices: HashMap<i32, (u32, u32)>,
    /// Data_fds by descriptor, also after their close: a use of one is a use of what it was.
    data_fds: HashMap<i32, (u32, Fd)>,
    next: u32,
}

/// The columns of a line.
struct Columns<'t> {
    columns: Vec<&'t str>,
}

impl<'t> Columns<'t> {
    fn place(&self, index: usize) -> Result<&'t str, String> {
        self.columns.get(index).copied().ok_or(format!("column {} is missing", index + 1))
    }

    /// The value of `key=value`, wherever it stands.
    fn find(&self, key: &str) -> Option<&'t str> {
        let words = self.columns.iter().flat_map(|column| column.split(' '));
        words.rev().find_map(|word| word.strip_prefix(key)?.strip_prefix('='))
    }

    fn number<T: FromStr>(&self, key: &str) -> Result<T, String> {
        let value = self.find(key).ok_or(format!("{key}= is missing"))?;
        value.parse().map_err(|_| format!("{key}={value} is no number that fits"))
    }

    fn hex(&self, key: &str) -> Result<u64, String> {
        let value = self.find(key).ok_or(format!("{key}= is missing"))?;
        let digits = value.strip_prefix("0x").ok_or(format!("{key}={value} is not in hex"))?;
        u64::from_str_radix(digits, 16).map_err(|_| format!("{key}={value} is no number that fits"))
    }

    /// The number behind `ret=N`, or that of `errno=N`.
    fn errno(&self) -> Result<Errno, String> {
        let last = self.columns.last().and_then(|column| column.rsplit(' ').next());
        let value = self.find("errno").or(last).unwrap_or_default();
        match value.parse() {
            Ok(errno) if errno > 0 => Ok(Errno(errno)),
            _ => Err(format!("the call failed, and {value:?} is no errno")),
        }
    }
}

impl Section {
    fn step(&mut self, text: &str) -> Result<Option<Step>, String> {
        let columns = Columns { columns: text.split('\t').collect() };
        let at = seconds(columns.place(0)?)?;
        let tid = columns.place(1)?;
        let tid = tid.parse().map_err(|_| format!("{tid:?} is no process or thread"))?;
        let fd: i32 = columns.number("fd")?;
        let step = match columns.place(2)? {
            "FEATURE" => self.feature(fd, &columns)?,
            "RESET" => self.devices.get(&fd).map(|&(device, _)| (device, Op::Reset)).map_or(
                Ok(None),
                |(device, op)| {
                    done(&columns, || Ok(Reply::Ok)).map(|r| Some(Step::new(device, op, r)))
                },
            )?,
            "CLOSE" => self.close(fd, &columns)?,
            "READ" | "WRITE" | "PRECOPY_INFO" => self.on_data_fd(fd, &columns)?,
            other => return Err(format!("there is no call {other:?}")),
        };
        Ok(step.map(|step| Step { at, tid, ..step }))
    }

    fn feature(&mut self, fd: i32, columns: &Columns<'_>) -> Result<Option<Step>, String> {
        let (way, feature) = (columns.place(4)?, columns.place(5)?);
        let size = if feature == "PRECOPY_INFOv2" { 8 } else { 16 };
        // Other ioctls have the same number, on other files and with other sizes.
        if way == "PROBE" || columns.number::<u64>("argsz")? < size {
            return Ok(None);
        }
        // The flags of VFIO_DEVICE_FEATURE have a bit for GET or SET; those of others do not.
        let call = columns.columns.iter().find_map(|column| column.strip_prefix("flags="));
        let call = call.and_then(|hex| u64::from_str_radix(hex.trim_start_matches("0x"), 16).ok());
        if call.ok_or("flags= is missing")? & 0x3_0000 == 0 {
            return Ok(None);
        }
        let op = match (way, feature) {
            ("GET", "MIGRATION") => Op::GetFeatures,
            ("GET", "MIG_DEVICE_STATE") => Op::GetState,
            ("SET", "MIG_DEVICE_STATE") => Op::set(state(columns)?),
            ("GET", "MIG_DATA_SIZE") => Op::DataSize,
            ("SET", "PRECOPY_INFOv2") => Op::OptInPrecopyV2,
            ("SET", "DMA_LOGGING_START") => return self.log(fd, DmaLogging::Start, columns),
            ("SET", "DMA_LOGGING_STOP") => return self.log(fd, DmaLogging::Stop, columns),
            ("GET", "DMA_LOGGING_REPORT") => return self.log(fd, DmaLogging::Report, columns),
            _ => return Ok(None),
        };
        let reply = done(columns, || match &op {
            Op::GetFeatures => Ok(Reply::Features(columns.hex("flags")?)),
            Op::GetState => Ok(Reply::State(state(columns)?)),
            Op::DataSize => Ok(Reply::Size(columns.number("stop_copy_length")?)),
            Op::SetState { .. } => self.set(fd, columns),
            _ => Ok(Reply::Ok),
        })?;
        Ok(Some(Step::new(self.device(fd).0, op, reply)))
    }

    fn log(&mut self, fd: i32, call: DmaLogging, of: &Columns<'_>) -> Result<Option<Step>, String> {
        let reply = done(of, || Ok(Reply::Ok))?;
        Ok(Some(Step::log(self.device(fd).0, call, reply)))
    }

    fn set(&mut self, fd: i32, columns: &Columns<'_>) -> Result<Reply<u64>, String> {
        let data_fd: i32 = columns.number("data_fd")?;
        if data_fd < 0 {
            return Ok(Reply::Fd(None));
        }
        let (device, handed_out) = self.device(fd);
        let name = Fd(*handed_out + 1);
        *handed_out += 1;
        self.data_fds.insert(data_fd, (device, name));
        Ok(Reply::Fd(Some(name)))
    }

    fn device(&mut self, fd: i32) -> (u32, &mut u32) {
        let next = &mut self.next;
        let (device, handed_out) = self.devices.entry(fd).or_insert_with(|| {
            *next += 1;
            (*next - 1, 0)
        });
        (*device, handed_out)
    }

    fn close(&mut self, fd: i32, columns: &Columns<'_>) -> Result<Option<Step>, String> {
        let failed = columns.find("rc").is_some_and(|rc| rc != "0");
        let reply = if failed { Reply::Errno(columns.errno()?) } else { Reply::Ok };
        if let Some(&(device, fd)) = self.data_fds.get(&fd) {
            return Ok(Some(Step::new(device, Op::CloseFd { fd }, reply)));
        }
        Ok(self.devices.remove(&fd).map(|(device, _)| Step::new(device, Op::Close, reply)))
    }

    fn on_data_fd(&mut self, fd: i32, columns: &Columns<'_>) -> Result<Option<Step>, String> {
        let unknown = || format!("fd={fd} was returned by no SET");
        let &(device, fd) = self.data_fds.get(&fd).ok_or_else(unknown)?;
        let (op, reply) = match columns.place(2)? {
            "READ" => (Op::Read { fd, len: columns.number("len")? }, read_reply(columns)?),
            "WRITE" => {
                let reply = match columns.number::<i64>("ret")? {
                    0.. => Reply::Written(columns.number("ret")?),
                    _ => Reply::Errno(columns.errno()?),
                };
                (Op::Write { fd, bytes: columns.number("len")? }, reply)
            }
            _ => {
                let info = || {
                    let (initial, dirty) = (columns.number("init")?, columns.number("dirty")?);
                    let reinit = columns.find("reinit").is_some_and(|value| value == "1");
                    let info = PrecopyInfo { initial_bytes: initial, dirty_bytes: dirty, reinit };
                    Ok(Reply::Info(info))
                };
                (Op::PrecopyInfo { fd }, done(columns, info)?)
            }
        };
        Ok(Some(Step::new(device, op, reply)))
    }
}

fn read_reply(columns: &Columns<'_>) -> Result<Reply<u64>, String> {
    Ok(match columns.number::<i64>("ret")? {
        0 => Reply::EndOfStream(EndOfStream::Permanent),
        1.. => Reply::Bytes(columns.number("ret")?),
        _ => match columns.errno()? {
            Errno::ENOMSG => Reply::EndOfStream(EndOfStream::Temporary),
            errno => Reply::Errno(errno),
        },
    })
}

/// The answer of an ioctl: what it says if it succeeded, its errno otherwise.
fn done(
    columns: &Columns<'_>,
    says: impl FnOnce() -> Result<Reply<u64>, String>,
) -> Result<Reply<u64>, String> {
    if columns.number::<i64>("rc")? == 0 { says() } else { Ok(Reply::Errno(columns.errno()?)) }
}

/// A device_state by its name or its number.
fn state(columns: &Columns<'_>) -> Result<RawState, String> {
    let value = columns.find("state").ok_or("state= is missing")?;
    let named = State::ALL.into_iter().find(|state| state.name() == value);
    let state = named.map(RawState::from).or_else(|| value.parse().ok().map(RawState));
    state.ok_or_else(|| format!("state={value} is no device_state"))
}

/// Seconds with a fraction, in microseconds.
fn seconds(text: &str) -> Result<u64, String> {
    let wrong = || format!("{text:?} is no time in seconds");
    let (whole, part) = text.split_once('.').unwrap_or((text, "0"));
    let digits = |text: &str| !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    if !digits(whole) || !digits(part) {
        return Err(wrong());
    }
    let whole: u64 = whole.parse().map_err(|_| wrong())?;
    let micros: u64 = format!("{part:0<6}")[..6].parse().map_err(|_| wrong())?;
    whole.checked_mul(1_000_000).and_then(|micro| micro.checked_add(micros)).ok_or_else(wrong)
}
