// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! What it costs to move the state of a VHCA, beside copying as many bytes.
//!
//! `cargo bench -p vfio-fsm-mlx5 --features firmware --bench state` takes a VHCA of 1 GiB (or of so
//! many MiB as its argument says) from one software firmware to another: SAVE, read, write, LOAD. The
//! firmware makes and compares every byte, which hardware does elsewhere: so its commands are timed
//! apart, and what is ours is the rest. It stands beside memcpy of the same bytes. The second table
//! is about chunks: how much of the time that SAVEs take is hidden behind reading. Nothing is
//! asserted of time.
#![expect(clippy::unwrap_used, clippy::panic, reason = "a benchmark that cannot run says nothing")]

use std::hint::black_box;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use vfio_fsm_core::{Fd, Features, Op, Reply, State};
use vfio_fsm_mlx5::command::{CommandError, Commands};
use vfio_fsm_mlx5::device::Mlx5Device;
use vfio_fsm_mlx5::dma::DmaSpace;
use vfio_fsm_mlx5::firmware::{Config, Firmware, VhcaConfig, VhcaHandle};
use vfio_fsm_mlx5::queue::{CommandQueue, Ticket};
use vfio_fsm_mlx5::software::Software;
use vfio_fsm_mlx5::vhca::{Migration, Vhca};

const MIB: usize = 1 << 20;

/// One read or write, as the kernel's sessions have it.
const PIECE: usize = 256 << 10;

const ROUNDS: usize = 3;

/// The queue, and how long its commands took: this firmware carries them out in the doorbell.
struct Timed {
    queue: Arc<CommandQueue<Firmware>>,
    nanos: AtomicU64,
}

impl Timed {
    fn time<R>(&self, act: impl FnOnce() -> R) -> R {
        let started = Instant::now();
        let result = act();
        self.nanos.fetch_add(started.elapsed().as_nanos() as u64, Ordering::Relaxed);
        result
    }
}

impl Commands for Timed {
    type Ticket = Ticket;

    fn start(&self, input: &[u8], output_len: usize) -> Result<Ticket, CommandError> {
        self.time(|| self.queue.start(input, output_len))
    }

    fn is_done(&self, ticket: &Ticket) -> bool {
        self.queue.is_done(ticket)
    }

    fn finish(&self, ticket: Ticket, output: &mut [u8]) -> Result<(), CommandError> {
        self.time(|| self.queue.finish(ticket, output))
    }

    fn dma(&self) -> &DmaSpace {
        self.queue.dma()
    }
}

/// A device, the time of its commands, and the firmware below.
struct Side {
    device: Mlx5Device<Timed, VhcaHandle>,
    commands: Arc<Timed>,
    software: Software,
}

impl Side {
    fn new(config: Config) -> Self {
        let image = config.vhcas[0].image_bytes;
        let software = Software::new(config, DmaSpace::new(2 * image + (64 << 20))).unwrap();
        let queue = Arc::clone(software.commands());
        let commands = Arc::new(Timed { queue, nanos: AtomicU64::new(0) });
        let pf = Migration::of(&*commands).unwrap();
        let vhca = Vhca::new(Arc::clone(&commands), pf, 1).unwrap();
        let device = Mlx5Device::new(Features::ALL, vhca, software.vhca().clone());
        Self { device, commands, software }
    }

    fn open(&self, to: State) -> Fd {
        match self.device.apply(Op::set(to), &mut []) {
            Reply::Fd(Some(fd)) => fd,
            other => panic!("{to}: {other:?}"),
        }
    }

    fn take_time(&self) -> Duration {
        Duration::from_nanos(self.commands.nanos.swap(0, Ordering::Relaxed))
    }
}

fn config(image: usize, seed: u64, chunks: bool) -> Config {
    let vhca = VhcaConfig { image_bytes: image as u64, seed, ..VhcaConfig::default() };
    Config { chunks, ..Config::of(vhca) }
}

/// Reads all that there is, and writes it there. How many bytes that were.
fn transfer(from: &Side, to: &Side) -> usize {
    let (source, destination) = (from.open(State::StopCopy), to.open(State::Resuming));
    let mut buf = vec![0; PIECE];
    let mut total = 0;
    loop {
        let read = Op::Read { fd: source, len: PIECE as u32 };
        let bytes = match from.device.apply(read, &mut buf) {
            Reply::Bytes(bytes) => bytes,
            Reply::EndOfStream(_) => break,
            other => panic!("{other:?}"),
        };
        total += bytes.len();
        let written = to.device.apply(Op::Write { fd: destination, bytes }, &mut []);
        assert_eq!(written, Reply::Written(bytes.len() as u32));
    }
    for side in [from, to] {
        assert_eq!(side.device.apply(Op::set(State::Running), &mut []), Reply::Fd(None));
    }
    assert_eq!(from.software.vhca().digest(), to.software.vhca().digest());
    total
}

/// The most memory that this process ever had, in MiB.
fn peak() -> usize {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"));
    let kib = line.and_then(|line| line.split_whitespace().next()?.parse::<usize>().ok());
    kib.unwrap_or_default() >> 10
}

/// Two devices, moved back and forth. Of the rounds the one in which ours took least.
fn moved(image: usize, chunks: bool) -> (usize, Duration, Duration) {
    let (from, to) = (Side::new(config(image, 1, chunks)), Side::new(config(image, 2, chunks)));
    let rounds = (0..ROUNDS).map(|_| {
        from.take_time();
        to.take_time();
        let started = Instant::now();
        let bytes = transfer(&from, &to);
        let all = started.elapsed();
        (bytes, all, all.saturating_sub(from.take_time() + to.take_time()))
    });
    rounds.min_by_key(|(_, _, ours)| *ours).unwrap()
}

/// Copying as many bytes from one place to another.
fn copied(bytes: usize) -> Duration {
    let (from, mut to) = (vec![1_u8; bytes], vec![2_u8; bytes]);
    let rounds = (0..ROUNDS).map(|_| {
        let started = Instant::now();
        to.copy_from_slice(black_box(&from));
        black_box(&mut to);
        started.elapsed()
    });
    rounds.min().unwrap()
}

/// SAVEs that take their time, and a reader who takes his: alone, and both.
fn overlap() {
    const IMAGE: usize = 128 * MIB;
    const MICROS_PER_MIB: u64 = 2_000;
    let run = |save: bool, read: bool| {
        let mut config = config(IMAGE, 1, true);
        config.vhcas[0].ticks_per_mib = if save { MICROS_PER_MIB } else { 0 };
        let side = Side::new(config);
        let over = AtomicBool::new(false);
        thread::scope(|scope| {
            scope.spawn(|| {
                let mut last = Instant::now();
                while !over.load(Ordering::Relaxed) {
                    thread::sleep(Duration::from_micros(100));
                    let passed = last.elapsed();
                    last += passed;
                    side.software.firmware().tick(passed.as_micros() as u64);
                }
            });
            let started = Instant::now();
            let fd = side.open(State::StopCopy);
            let mut buf = vec![0; MIB];
            let mut due = started;
            loop {
                let read_op = Op::Read { fd, len: MIB as u32 };
                let Reply::Bytes(bytes) = side.device.apply(read_op, &mut buf) else { break };
                if read {
                    let micros = MICROS_PER_MIB * bytes.len() as u64 / MIB as u64;
                    due = due.max(Instant::now()) + Duration::from_micros(micros);
                    thread::sleep(due.saturating_duration_since(Instant::now()));
                }
            }
            let took = started.elapsed();
            over.store(true, Ordering::Relaxed);
            took
        })
    };
    let (neither, saving, reading, both) =
        (run(false, false), run(true, false), run(false, true), run(true, true));
    // What neither of them takes is in all three.
    let sum = (saving + reading).saturating_sub(neither);
    println!("overlap of SAVE with reading, {} MiB in chunks", IMAGE / MIB);
    println!(
        "  saving alone {:.3} s, reading alone {:.3} s, both {:.3} s: {:.2} of their sum",
        saving.as_secs_f64(),
        reading.as_secs_f64(),
        both.as_secs_f64(),
        both.as_secs_f64() / sum.as_secs_f64()
    );
}

fn main() {
    let mib = std::env::args().find_map(|argument| argument.parse::<usize>().ok());
    let image = mib.unwrap_or(1024) * MIB;
    println!("a VHCA of {} MiB: SAVE, read, write, LOAD", image / MIB);
    // In chunks first: the peak of memory only ever rises.
    let before = peak();
    let chunked = moved(image, true);
    let after = peak();
    println!("  in chunks: at most {} MiB more memory than before", after.saturating_sub(before));
    let whole = moved(image, false);
    let copied = copied(image);
    println!("  {:<10} {:>9} {:>9} {:>9}", "", "all", "ours", "to memcpy");
    println!(
        "  {:<10} {:>7.3} s {:>7.3} s {:>9.2}",
        "memcpy",
        copied.as_secs_f64(),
        copied.as_secs_f64(),
        1.0
    );
    for (what, (_, all, ours)) in [("in chunks", chunked), ("whole", whole)] {
        println!(
            "  {what:<10} {:>7.3} s {:>7.3} s {:>9.2}",
            all.as_secs_f64(),
            ours.as_secs_f64(),
            copied.as_secs_f64() / ours.as_secs_f64()
        );
    }
    overlap();
}
