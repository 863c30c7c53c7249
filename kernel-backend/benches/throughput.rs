// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! What a session costs beside the copying that it cannot do without, and what a group saves.
//!
//! `cargo bench -p vfio-fsm-kernel` prints two tables. In the first a session with its frames and
//! checksum stands beside a bare loop of read(2) and write(2) over the same kinds of files with the
//! same buffer; in the second a group of slow devices stands beside its slowest alone, and beside
//! one after the other. Medians of runs that take turns; nothing is asserted of time.
#![expect(clippy::unwrap_used, reason = "a benchmark that cannot run has nothing to say")]

use std::fs::{File, OpenOptions};
use std::io::{Read, Seek, Write};
use std::os::unix::net::UnixStream;
use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};

use nix::sys::memfd::{MFdFlags, memfd_create};
use vfio_fsm_core::vmm::frame::Limits;
use vfio_fsm_core::vmm::{Group, Hook, LoadPlan, Plan, Port};
use vfio_fsm_core::{Direction, EndOfStream, Errno, Features, Op, Reply, State};
use vfio_fsm_kernel::session::{Loading, Saving, Session, Vmm, run_group};

const STATE: usize = 256 << 20;
const CHUNK: usize = Plan::LIVE.chunk as usize;
const ROUNDS: usize = 15;
const PLAN: Plan = Plan { pre_copy: false, ..Plan::LIVE };

/// Moves as it is told, and has a file for a data_fd: read at the source, written at the
/// destination. With a pace, a read takes its time.
struct FilePort {
    state: State,
    data: Arc<File>,
    pace: Option<Pace>,
}

/// So many bytes at so many bytes per second.
struct Pace {
    left: usize,
    rate: f64,
    due: Instant,
}

impl FilePort {
    fn new(data: File) -> Self {
        Self { state: State::Running, data: Arc::new(data), pace: None }
    }

    fn slow(bytes: usize, rate: f64) -> Self {
        let pace = Some(Pace { left: bytes, rate, due: Instant::now() });
        Self { pace, ..Self::new(File::open("/dev/null").unwrap()) }
    }

    fn read(&mut self, buf: &mut [u8]) -> usize {
        let Some(pace) = &mut self.pace else { return (&*self.data).read(buf).unwrap() };
        let len = buf.len().min(pace.left);
        pace.left -= len;
        // By a clock of its own, so that the sleeps' lateness does not add up.
        pace.due = pace.due.max(Instant::now() - Duration::from_millis(2));
        pace.due += Duration::from_secs_f64(len as f64 / pace.rate);
        thread::sleep(pace.due.saturating_duration_since(Instant::now()));
        len
    }
}

impl Port for FilePort {
    type Fd = Arc<File>;

    fn apply<'b>(
        &mut self,
        op: Op<&[u8], &Arc<File>>,
        buf: &'b mut [u8],
    ) -> Reply<&'b [u8], Arc<File>> {
        match op {
            Op::GetFeatures => Reply::Features(Features::P2P.flags()),
            Op::GetState => Reply::State(self.state.into()),
            Op::SetState { to, .. } => {
                self.state = to.known().unwrap();
                let opens = matches!(self.state, State::StopCopy | State::Resuming);
                Reply::Fd(opens.then(|| self.data.clone()))
            }
            Op::Read { .. } => match self.read(buf) {
                0 => Reply::EndOfStream(EndOfStream::Permanent),
                len => Reply::Bytes(&buf[..len]),
            },
            Op::Write { fd, bytes } => Reply::Written(fd.as_ref().write(bytes).unwrap() as u32),
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

fn memfd() -> File {
    memfd_create(c"state", MFdFlags::empty()).unwrap().into()
}

/// A file with all its pages there, at its beginning.
fn filled(bytes: &[u8]) -> File {
    let mut file = memfd();
    file.write_all(bytes).unwrap();
    rewound(&file)
}

fn rewound(file: &File) -> File {
    let mut file = file.try_clone().unwrap();
    file.rewind().unwrap();
    file
}

/// The loop that a VMM without any of this would have.
fn bare(mut from: impl Read, mut to: impl Write) {
    let mut buf = vec![0; CHUNK];
    loop {
        match from.read(&mut buf).unwrap() {
            0 => break,
            len => to.write_all(&buf[..len]).unwrap(),
        }
    }
}

fn save(state: File, sink: impl Write) {
    let outcome = Saving::new(PLAN, "", FilePort::new(state), sink).unwrap().run(&mut NoGuest);
    assert!(outcome.verdict.is_complete(), "{outcome:?}");
}

fn load(stream: File, state: File) {
    let limits = Limits { max_data: PLAN.chunk };
    let port = FilePort::new(state);
    let outcome =
        Loading::new(LoadPlan::default(), limits, |_| true, port, stream).run(&mut NoGuest);
    assert!(outcome.verdict.is_complete(), "{outcome:?}");
}

fn timed(run: impl FnOnce()) -> Duration {
    let begun = Instant::now();
    run();
    begun.elapsed()
}

fn median(mut times: Vec<Duration>) -> Duration {
    times.sort();
    times[times.len() / 2]
}

/// The two in turns, after one round to warm up.
fn compare(name: &str, mut bare: impl FnMut(), mut session: impl FnMut()) {
    let rounds = (0..=ROUNDS).map(|_| (timed(&mut bare), timed(&mut session))).skip(1);
    let (bare, session): (Vec<_>, Vec<_>) = rounds.unzip();
    let (bare, session) = (median(bare), median(session));
    let rate = |time: Duration| STATE as f64 / time.as_secs_f64() / 1e9;
    let ratio = bare.as_secs_f64() / session.as_secs_f64();
    println!("{name:28} {:10.2} {:10.2} {ratio:8.2}", rate(bare), rate(session));
}

/// A socket whose other end is read until it is closed.
fn drained<T>(run: impl FnOnce(UnixStream) -> T) -> T {
    let (ours, mut theirs) = UnixStream::pair().unwrap();
    let drain = thread::spawn(move || {
        let mut buf = vec![0; CHUNK];
        while theirs.read(&mut buf).unwrap() > 0 {}
    });
    let result = run(ours);
    drain.join().unwrap();
    result
}

fn throughput() {
    let bytes: Vec<u8> = (0..STATE as u32).map(|n| (n >> 3) as u8).collect();
    let state = filled(&bytes);
    let mut framed = Vec::new();
    save(rewound(&state), &mut framed);
    let (framed, image) = (filled(&framed), filled(&bytes));
    drop(bytes);
    let null = || OpenOptions::new().write(true).open("/dev/null").unwrap();

    println!("{} MiB in chunks of {} KiB", STATE >> 20, CHUNK >> 10);
    println!("{:28} {:>10} {:>10} {:>8}", "", "bare GB/s", "session", "ratio");
    compare(
        "save to a file",
        || bare(rewound(&state), rewound(&image)),
        || save(rewound(&state), rewound(&image)),
    );
    compare(
        "save to a socket",
        || drained(|sink| bare(rewound(&state), sink)),
        || drained(|sink| save(rewound(&state), sink)),
    );
    compare(
        "save to /dev/null",
        || bare(rewound(&state), null()),
        || save(rewound(&state), null()),
    );
    compare(
        "load from a file",
        || bare(rewound(&framed), rewound(&image)),
        || load(rewound(&framed), rewound(&image)),
    );
}

/// Devices of these sizes, drained at 80 MB/s each: how long from the freeze to the last END.
fn downtime(sizes: &[usize]) -> Duration {
    let mut group = Group::new(Direction::Saving, &vec![Features::P2P; sizes.len()], true).unwrap();
    let plan = Plan { group: group.in_two_phases(), ..PLAN };
    let member = |&size| {
        let port = FilePort::slow(size, 80e6);
        (Saving::new(plan, "", port, std::io::sink()).unwrap(), NoGuest)
    };
    let mut members: Vec<_> = sizes.iter().map(member).collect();
    let mut frozen = Instant::now();
    let outcomes = run_group(&mut group, &mut members, |hook| {
        frozen = if hook == Hook::Freeze { Instant::now() } else { frozen };
        true
    });
    assert!(outcomes.iter().all(|outcome| outcome.verdict.is_complete()));
    frozen.elapsed()
}

fn downtimes() {
    println!("\ndevices of 8 MB and less at 80 MB/s each: milliseconds of downtime");
    println!("{:>8} {:>8} {:>12} {:>12} {:>8}", "devices", "group", "slowest", "in turn", "ratio");
    for devices in [1, 2, 4, 8] {
        let sizes: Vec<_> = (0..devices).map(|index| 8_000_000 - index * 500_000).collect();
        let (mut group, mut slowest, mut in_turn) = (Vec::new(), Vec::new(), Vec::new());
        for _ in 0..5 {
            group.push(downtime(&sizes));
            slowest.push(downtime(&sizes[..1]));
            in_turn.push(sizes.iter().map(|&size| downtime(&[size])).sum());
        }
        let (group, slowest, in_turn) = (median(group), median(slowest), median(in_turn));
        let ratio = group.as_secs_f64() / slowest.as_secs_f64();
        let ms = |time: Duration| time.as_secs_f64() * 1e3;
        println!(
            "{devices:>8} {:>8.1} {:>12.1} {:>12.1} {ratio:>8.2}",
            ms(group),
            ms(slowest),
            ms(in_turn)
        );
    }
}

fn main() {
    // `cargo test --benches` runs this, too, to see that it does.
    if std::env::args().any(|argument| argument == "--bench") {
        throughput();
        downtimes();
    }
}
