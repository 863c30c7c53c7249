// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! Whole sessions over a socket, beside a bare loop that copies the same bytes over one.

use std::io::{Read, Write};
use std::os::unix::net::UnixStream;
use std::thread;

use vfio_fsm_core::vmm::frame::Limits;
use vfio_fsm_core::vmm::{Hook, LoadPlan, Plan, Port};
use vfio_fsm_core::{EndOfStream, Errno, Features, Op, Reply, State};
use vfio_fsm_kernel::session::{Loading, Saving, Session, Vmm};

use super::super::Result;
use super::{Bench, Curve, Findings, Line, Table};

/// From 64 KiB to 256 MiB.
const SIZES: [usize; 7] = [64 << 10, 256 << 10, 1 << 20, 4 << 20, 16 << 20, 64 << 20, LARGEST];
const LARGEST: usize = 256 << 20;
const PLAN: Plan = Plan { pre_copy: false, ..Plan::LIVE };
const CHUNK: usize = PLAN.chunk as usize;

/// A device that does as it is told and has memory for an image: what is read comes from there, and
/// what is written goes there.
struct Image {
    state: State,
    bytes: Vec<u8>,
    at: usize,
}

impl Image {
    fn new(len: usize) -> Self {
        let bytes = (0..len as u32).map(|n| (n >> 3) as u8).collect();
        Self { state: State::Running, bytes, at: 0 }
    }

    fn again(&mut self) -> &mut Self {
        (self.state, self.at) = (State::Running, 0);
        self
    }

    fn read(&mut self, buf: &mut [u8]) -> usize {
        let left = self.bytes.get(self.at..).unwrap_or_default();
        let len = left.len().min(buf.len());
        buf[..len].copy_from_slice(&left[..len]);
        self.at += len;
        len
    }

    /// False if there is no room.
    fn write(&mut self, bytes: &[u8]) -> bool {
        let Some(room) = self.bytes.get_mut(self.at..self.at + bytes.len()) else { return false };
        room.copy_from_slice(bytes);
        self.at += bytes.len();
        true
    }
}

impl Port for Image {
    type Fd = ();

    fn apply<'b>(&mut self, op: Op<&[u8], &()>, buf: &'b mut [u8]) -> Reply<&'b [u8], ()> {
        match op {
            Op::GetFeatures => Reply::Features(Features::P2P.flags()),
            Op::GetState => Reply::State(self.state.into()),
            Op::SetState { to, .. } => {
                self.state = to.known().unwrap_or(State::Error);
                let opens = matches!(self.state, State::StopCopy | State::Resuming);
                Reply::Fd(opens.then_some(()))
            }
            Op::Read { .. } => match self.read(buf) {
                0 => Reply::EndOfStream(EndOfStream::Permanent),
                len => Reply::Bytes(&buf[..len]),
            },
            Op::Write { bytes, .. } if self.write(bytes) => Reply::Written(bytes.len() as u32),
            Op::CloseFd { .. } => Reply::Ok,
            _ => Reply::Errno(Errno::ENOTTY),
        }
    }
}

struct NoGuest;

impl Vmm for NoGuest {
    fn hook(&mut self, _hook: Hook) -> bool {
        true
    }
}

pub(super) fn measure(bench: &Bench) -> Result<Findings> {
    let mut table =
        Table::new("a migration over a socket: MB/s", ["session", "bare loop", "time ratio"]);
    let (mut sessions, mut loops) = (Vec::new(), Vec::new());
    for size in SIZES {
        bench.now(&format!("stream of {} KiB", size >> 10));
        // A small image many times over: a round of a few milliseconds is the scheduler's.
        let times = LARGEST / size;
        let (mut from, mut to) = (Image::new(size), Image::new(size));
        let (mut bare_from, mut bare_to) = (Image::new(size), Image::new(size));
        let compared = bench.compare(
            || (0..times).try_for_each(|_| session(from.again(), to.again())),
            || (0..times).try_for_each(|_| bare(bare_from.again(), bare_to.again())),
        )?;
        let Some(compared) = compared else { break };
        let bytes = (size * times) as f64;
        let [ours, other] =
            [compared.ours, compared.other].map(|time| bytes / time.as_secs_f64() / 1e6);
        table.row(format!("{} KiB", size >> 10), [Some(ours), Some(other), Some(compared.ratio)]);
        sessions.push((size as f64, ours));
        loops.push((size as f64, other));
    }
    let lines = vec![
        Line { name: "session".to_owned(), points: sessions },
        Line { name: "bare loop".to_owned(), points: loops },
    ];
    let curve = Curve {
        name: "stream-over-image",
        title: "A migration over a socket",
        x: "image, bytes",
        y: "MB/s",
        lines,
    };
    Ok(Findings { tables: vec![table], curves: vec![curve] })
}

fn session(from: &mut Image, to: &mut Image) -> Result<()> {
    let (sink, source) = UnixStream::pair()?;
    let saved = thread::scope(|scope| {
        let limits = Limits { max_data: PLAN.chunk };
        let mut loading = Loading::new(LoadPlan::default(), limits, |_| true, to, source);
        let loaded = scope.spawn(move || loading.run(&mut NoGuest).verdict.is_complete());
        // Dropped behind its run, which ends the stream.
        let saved = Saving::new(PLAN, "", from, sink).map(|mut saving| saving.run(&mut NoGuest));
        let loaded = loaded.join().unwrap_or_default();
        saved.map(|saved| saved.verdict.is_complete() && loaded)
    })?;
    if saved { Ok(()) } else { Err("a session without disturbance did not end complete".into()) }
}

fn bare(from: &mut Image, to: &mut Image) -> Result<()> {
    let (mut sink, mut source) = UnixStream::pair()?;
    thread::scope(|scope| {
        let copied = scope.spawn(move || -> std::io::Result<bool> {
            let mut buf = vec![0; CHUNK];
            loop {
                match source.read(&mut buf)? {
                    0 => return Ok(to.at == to.bytes.len()),
                    len if to.write(&buf[..len]) => {}
                    _ => return Ok(false),
                }
            }
        });
        let mut buf = vec![0; CHUNK];
        loop {
            match from.read(&mut buf) {
                0 => break,
                len => sink.write_all(&buf[..len])?,
            }
        }
        drop(sink);
        match copied.join() {
            Ok(Ok(true)) => Ok(()),
            _ => Err("the bare loop did not copy all".into()),
        }
    })
}
