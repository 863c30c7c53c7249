// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! Migrates a VHCA that goes on changing from one software firmware to another.
//!
//!     cargo run --release -p vfio-fsm-mlx5 --features firmware --example migrate_vhca -- \
//!         [IMAGE_MIB [DIRTY_MIB_PER_S [LINK_MIB_PER_S [chunks]]]]
//!
//! The source is saved with PRE_COPY over a link of a given rate, while its guest dirties state at
//! another; a line is printed each time that everything has been sent that there was. When what is
//! left would go by in time, or the copy does not converge, the guest is stopped. Without arguments:
//! 256 MiB, 40 MiB/s and 400 MiB/s, in whole images.
//!
//! Two downtimes are estimated before the switchover: from what has changed, and as a VMM must that
//! only knows the uAPI, from the STOP_COPY size that the device tells as well. mlx5's firmware tells
//! that of a whole image there, so the second is on the safe side. With chunks the first is not: as
//! with Linux's driver, no more than the next chunk is told to have changed.
//!
//! Exit status: 0 if the destination runs with the source's state, 1 if not, 2 wrong use.

use std::env;
use std::error::Error;
use std::io::{self, Write};
use std::os::unix::net::UnixStream;
use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use parking_lot::Mutex;
use vfio_fsm_core::Features;
use vfio_fsm_core::vmm::frame::Limits;
use vfio_fsm_core::vmm::{Event, Hook, LoadPlan, Plan, Verdict};
use vfio_fsm_kernel::session::{Interest, Loading, Saving, Session, Standing, Vmm};
use vfio_fsm_mlx5::device::Shared;
use vfio_fsm_mlx5::dma::DmaSpace;
use vfio_fsm_mlx5::firmware::{Config, VhcaConfig, VhcaHandle};
use vfio_fsm_mlx5::software::Software;

const MIB: u64 = 1 << 20;

/// The guest may be stopped for so long.
const DOWNTIME: Duration = Duration::from_millis(100);

/// So often in a row nothing is gained before the copy is taken not to converge.
const STALLED: u32 = 8;

/// What is to be migrated, and how.
#[derive(Clone, Copy)]
struct Setting {
    image: u64,
    dirty_rate: u64,
    link_rate: u64,
    chunks: bool,
}

impl Setting {
    fn parse(arguments: &[String]) -> Option<Self> {
        let mib = |n: usize, otherwise: u64| match arguments.get(n) {
            Some(text) => text.parse().ok().and_then(|mib: u64| mib.checked_mul(MIB)),
            None => Some(otherwise * MIB),
        };
        let chunks = match arguments.get(3).map(String::as_str) {
            None => false,
            Some("chunks") => true,
            Some(_) => return None,
        };
        let (image, dirty_rate, link_rate) = (mib(0, 256)?, mib(1, 40)?, mib(2, 400)?);
        let fine = arguments.len() <= 4 && image > 0 && link_rate > 0;
        fine.then_some(Self { image, dirty_rate, link_rate, chunks })
    }

    /// A firmware with a VHCA, for which there is memory for the buffers of a migration.
    fn software(self, seed: u64) -> Result<Software, Box<dyn Error>> {
        let vhca = VhcaConfig { image_bytes: self.image, seed, ..VhcaConfig::default() };
        let config = Config { chunks: self.chunks, ..Config::of(vhca) };
        Ok(Software::new(config, DmaSpace::new(4 * self.image + 64 * MIB))?)
    }
}

/// A stream that takes so many bytes a second.
struct Link {
    stream: UnixStream,
    rate: u64,
    /// When what was sent so far has gone by.
    due: Instant,
}

impl Write for Link {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let sent = self.stream.write(bytes)?;
        self.due = self.due.max(Instant::now());
        self.due += Duration::from_secs_f64(sent as f64 / self.rate as f64);
        // A sleep is later than asked for: what is less than that is left to add up.
        let early = self.due.saturating_duration_since(Instant::now());
        if early > Duration::from_millis(1) {
            thread::sleep(early);
        }
        Ok(sent)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.stream.flush()
    }
}

/// The guest at the source: until it is halted, its device changes.
fn guest(vhca: &VhcaHandle, rate: u64, halted: &Mutex<bool>, over: &AtomicBool) {
    let mut last = Instant::now();
    while !over.load(Ordering::Relaxed) {
        thread::sleep(Duration::from_millis(1));
        let passed = last.elapsed();
        last += passed;
        let halted = halted.lock();
        if !*halted {
            vhca.dirty((rate as f64 * passed.as_secs_f64()) as u64);
        }
    }
}

/// The VMM at the source.
struct Source<'g> {
    /// Whether the guest is halted. Who holds it is not in the middle of a change.
    halted: &'g Mutex<bool>,
    started: Instant,
    rounds: u32,
    sent: u64,
    estimates: [Option<Duration>; 2],
    frozen: Option<Instant>,
}

impl Source<'_> {
    /// Everything is sent that there was; `standing` says what has come since.
    fn round(&mut self, standing: &Standing) {
        self.rounds += 1;
        let bytes = standing.progress.bytes();
        let (sent, left) = (bytes - self.sent, standing.left.dirty_bytes);
        self.sent = bytes;
        let rate = standing.progress.bytes_per_second();
        let changed = rate.map(|rate| Duration::from_secs_f64(left as f64 / rate.max(1) as f64));
        self.estimates = [changed, standing.downtime()];
        println!(
            "{:>6} {:>8.3} s {:>12} sent {:>12} changed  {}  {}",
            self.rounds,
            self.started.elapsed().as_secs_f64(),
            sent,
            left,
            millis(changed),
            millis(standing.downtime()),
        );
    }
}

impl Vmm for Source<'_> {
    fn hook(&mut self, hook: Hook) -> bool {
        match hook {
            Hook::Freeze => {
                *self.halted.lock() = true;
                self.frozen = Some(Instant::now());
            }
            Hook::Thaw => *self.halted.lock() = false,
            _ => {}
        }
        true
    }

    fn wait(&mut self, interest: &Interest, standing: &Standing) -> Option<Event> {
        if *interest != Interest::Switchover || !standing.left.ready {
            thread::sleep(Duration::from_millis(1));
            return None;
        }
        if standing.progress.bytes() > self.sent {
            self.round(standing);
        } else {
            thread::sleep(Duration::from_millis(1));
        }
        let in_time = self.estimates[0].is_some_and(|estimate| estimate <= DOWNTIME);
        let in_vain = standing.progress.stalled_looks() >= STALLED;
        (in_time || in_vain).then_some(Event::Switchover)
    }
}

/// The VMM at the destination, which starts the guest as soon as it can.
struct Destination {
    running: Option<Instant>,
}

impl Vmm for Destination {
    fn hook(&mut self, hook: Hook) -> bool {
        if hook == Hook::Thaw {
            self.running = Some(Instant::now());
        }
        true
    }
}

fn millis(time: Option<Duration>) -> String {
    match time {
        Some(time) => format!("{:>8.1} ms", time.as_secs_f64() * 1e3),
        None => format!("{:>11}", "-"),
    }
}

fn migrate(setting: Setting) -> Result<bool, Box<dyn Error>> {
    let (from, to) = (setting.software(1)?, setting.software(2)?);
    let source = Shared(Arc::new(from.device(Features::ALL)?));
    let destination = Shared(Arc::new(to.device(Features::ALL)?));
    let (ours, theirs) = UnixStream::pair()?;
    let link = Link { stream: ours, rate: setting.link_rate, due: Instant::now() };
    let over = AtomicBool::new(false);
    let halted = Mutex::new(false);
    let mut vmm = Source {
        halted: &halted,
        started: Instant::now(),
        rounds: 0,
        sent: 0,
        estimates: [None; 2],
        frozen: None,
    };
    println!(
        "{:>6} {:>10} {:>12}      {:>12}          {:>11}  {:>11}",
        "round", "at", "bytes", "bytes", "to send it", "by the uAPI"
    );
    let (saved, loaded, running) = thread::scope(|scope| -> Result<_, Box<dyn Error>> {
        scope.spawn(|| guest(from.vhca(), setting.dirty_rate, &halted, &over));
        let loading = scope.spawn(|| {
            let (plan, limits) = (LoadPlan::default(), Limits { max_data: Plan::LIVE.chunk });
            let accepts = |compat: &str| compat == "mlx5";
            let mut vmm = Destination { running: None };
            let verdict =
                Loading::new(plan, limits, accepts, destination, theirs).run(&mut vmm).verdict;
            (verdict, vmm.running)
        });
        let saved = Saving::new(Plan::LIVE, "mlx5", source, link).map(|mut saving| {
            // The stream is closed behind it, or the destination would wait for more.
            saving.run(&mut vmm)
        });
        over.store(true, Ordering::Relaxed);
        let (loaded, running) = loading.join().map_err(|_| "the destination has panicked")?;
        Ok((saved?, loaded, running))
    })?;
    let equal = from.vhca().digest() == to.vhca().digest();
    let bytes = saved.standing.progress.bytes();
    println!("source: {}; destination: {loaded}; states equal: {equal}", saved.verdict);
    println!(
        "{} rounds, {bytes} bytes in all, {} of them behind the switchover, {:.3} s",
        vmm.rounds,
        bytes - vmm.sent,
        vmm.started.elapsed().as_secs_f64()
    );
    let actual = running.zip(vmm.frozen).map(|(running, frozen)| running - frozen);
    let [changed, all] = vmm.estimates.map(millis);
    println!("downtime: {} actual, {changed} and {all} estimated", millis(actual));
    let complete = |verdict| matches!(verdict, Verdict::Complete { .. });
    Ok(complete(saved.verdict) && complete(loaded) && equal)
}

fn main() -> ExitCode {
    let arguments: Vec<_> = env::args().skip(1).collect();
    let Some(setting) = Setting::parse(&arguments) else {
        eprintln!("expected [IMAGE_MIB [DIRTY_MIB_PER_S [LINK_MIB_PER_S [chunks]]]]");
        return ExitCode::from(2);
    };
    match migrate(setting) {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::from(1),
        Err(error) => {
            eprintln!("{error}");
            ExitCode::from(2)
        }
    }
}
