// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! The lab: replays traces against a real kernel driver in a virtual machine, and migrates.
//!
//! It takes a distribution kernel and the source of its `mtty` sample (a mediated serial port
//! with migration, needing no hardware) from Debian packages, builds the driver, boots the
//! kernel under software emulation, and lets our own replayer loose on two such devices there.
//! A guest that oopses or hangs is a result: it is recorded for the trace that did it, and the
//! run goes on behind that trace in a fresh guest. A migration with what disturbs it is a trace
//! here like any other.
//!
//! Nothing here needs root, prints anything, or writes outside the cache directory.

pub(crate) mod cache;
mod console;
pub(crate) mod error;
pub(crate) mod host;
mod initramfs;
mod module;
pub(crate) mod packages;
mod replayer;
mod vm;
mod vmm;
mod watch;

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use serde_json::Value;

use cache::Cache;
use error::file;
use initramfs::Contents;
use module::Kernel;
use packages::{Apt, MigratableKernel, Selection};
use vm::{Hardware, Line, Vm};
use vmm::Qemu;
use watch::{End, Limits, Watch};

pub use cache::traces_file;
pub use console::IncidentKind;
pub use error::Error;
pub use host::MissingTool;
pub use watch::Incident;

/// How often a guest that does not come up is started again.
const BOOT_ATTEMPTS: u32 = 3;

/// How a lab is set up.
#[derive(Debug, Clone)]
pub struct Options {
    /// Where downloads and builds are kept; see [`default_cache`].
    pub cache: PathBuf,
    /// A statically linked `vfio-conform` to use instead of building one.
    pub replayer: Option<PathBuf>,
    /// A kernel (package version, or release as of `uname -r`) instead of the newest.
    pub kernel: Option<String>,
    /// How long the guest may go without a result before it counts as hanging.
    pub watchdog: Duration,
    /// How long a guest may take to come up.
    pub boot_limit: Duration,
    /// After how many boots to stop: a driver that crashes on every trace costs one for each.
    pub max_boots: u32,
    /// Use the host's processor through KVM. Results then depend on the host.
    pub kvm: bool,
    /// The guest's memory in MiB.
    pub memory_mib: u32,
    /// The guest's processors.
    pub cpus: u32,
}

impl Options {
    /// The usual set-up, with this cache.
    pub fn new(cache: PathBuf) -> Self {
        Self {
            cache,
            replayer: None,
            kernel: None,
            watchdog: Duration::from_secs(20),
            boot_limit: Duration::from_secs(120),
            max_boots: 50,
            kvm: false,
            memory_mib: 256,
            cpus: 2,
        }
    }
}

/// The cache directory used when the user names none: `vfio-fsm/lab` in the user's cache
/// directory. None if the environment names no home.
pub fn default_cache() -> Option<PathBuf> {
    let absolute =
        |name: &str| std::env::var_os(name).map(PathBuf::from).filter(|path| path.is_absolute());
    let base = absolute("XDG_CACHE_HOME").or_else(|| Some(absolute("HOME")?.join(".cache")))?;
    Some(base.join("vfio-fsm/lab"))
}

/// What guests are to do, each from a fresh boot.
#[derive(Debug, Clone, Copy)]
pub enum Task<'a> {
    /// Replay the traces of this file.
    Replay {
        /// The file.
        traces: &'a Path,
        /// How many it has.
        count: usize,
    },
    /// Migrate, with a reset or a cancel at every step. How many cases that makes shows in the
    /// guest.
    Migrate {
        /// How often each step is raced against a reset by another process.
        rounds: u32,
    },
    /// Let threads race at a device.
    Race {
        /// How often.
        rounds: u32,
    },
    /// Do to a device node what no VMM should.
    Abuse {
        /// How many cases there are.
        count: usize,
    },
    /// Find out what machine a device is.
    Learn {
        /// How many machines there are.
        count: usize,
    },
    /// Close, unbind and remove a device under its users.
    Lifetime {
        /// How many cases there are.
        count: usize,
    },
    /// Have a real VMM migrate the devices, and hold what it does against the state machine.
    Watch {
        /// How many scenarios there are.
        count: usize,
    },
}

/// What happens while the lab works.
#[derive(Debug)]
#[non_exhaustive]
pub enum Event {
    /// A stage begins; what it is, in plain words.
    Stage(String),
    /// A guest is started.
    Boot {
        /// Counted from 1.
        number: u32,
        /// The first trace it replays.
        from: usize,
    },
    /// The replayer says something about a trace, as a rule its verdict: its line, untouched.
    Line(Value),
    /// Something went wrong in the guest.
    Incident(Incident),
}

/// Why a run ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ended {
    /// Every trace had its turn.
    Complete,
    /// The caller asked to stop.
    Cancelled,
    /// [`Options::max_boots`] was reached.
    TooManyBoots,
}

/// How long a stage took.
#[derive(Debug, Clone)]
pub struct Timing {
    /// The stage.
    pub stage: &'static str,
    /// Its wall time.
    pub took: Duration,
}

/// What a run has brought.
#[derive(Debug)]
pub struct Outcome {
    /// The kernel, as `uname -r` has it.
    pub kernel: String,
    /// The version of QEMU's package, if one was watched.
    pub qemu: Option<String>,
    /// What each task has brought, as far as the run came.
    pub parts: Vec<Part>,
    /// Wall time of each stage.
    pub timings: Vec<Timing>,
}

/// What a task has brought.
#[derive(Debug)]
pub struct Part {
    /// The replayer's lines (verdicts), untouched, in the order they came in.
    pub lines: Vec<Value>,
    /// What went wrong in the guests. Each that names a trace is a failure of that trace.
    pub incidents: Vec<Incident>,
    /// Traces that have neither a verdict nor an incident, by index. Empty unless the task
    /// ended early or the replayer skipped some, and where it is not known how many there are.
    pub missing: Vec<usize>,
    /// How many guests were started.
    pub boots: u32,
    /// Why the task ended.
    pub ended: Ended,
}

/// Does these tasks with the kernel's driver.
///
/// Set `cancel` to end the run early; once guests are running, it returns what it has so far.
pub fn run(
    options: &Options,
    tasks: &[Task<'_>],
    cancel: &AtomicBool,
    on: &mut dyn FnMut(Event),
) -> Result<Outcome, Error> {
    check_host(options)?;
    // What the user named is looked at before the minutes that a cold cache takes.
    options.replayer.as_deref().map_or(Ok(()), replayer::check)?;
    for task in tasks {
        if let Task::Replay { traces, .. } = task {
            fs::File::open(traces).map_err(file("read", traces))?;
        }
    }
    let cache = Cache::open(&options.cache)?;
    let mut lab = Lab { options, cancel, on, timings: Vec::new() };
    let kernel = lab.kernel(&cache)?;
    let replayer = lab.stage("replayer", "finding or building the static replayer", |_| {
        replayer::obtain(options.replayer.as_deref(), &cache, cancel)
    })?;
    let scratch = cache.scratch("boot")?;
    let qemu = match tasks.iter().any(|task| matches!(task, Task::Watch { .. })) {
        true => Some(lab.stage("vmm", "finding or downloading a QEMU to watch", |_| {
            Qemu::obtain(&cache, scratch.path(), cancel)
        })?),
        false => None,
    };
    let initramfs = scratch.path().join("initramfs");
    let (mut parts, mut boot_times) = (Vec::new(), Vec::new());
    for task in tasks {
        let contents = Contents::read(&kernel, &replayer, qemu.as_ref(), task)?;
        let about = task.about(&kernel.release);
        let part = lab.stage(task.stage(), &about, |lab| {
            let (image, initramfs) = (&kernel.image, &initramfs);
            let memory_mib = lab.options.memory_mib.max(task.memory_mib());
            let boot_times = &mut boot_times;
            let series = Series { lab, image, contents, initramfs, memory_mib, boot_times };
            series.all(task.count())
        })?;
        let complete = part.ended == Ended::Complete;
        parts.push(part);
        if !complete {
            break;
        }
    }
    let mut timings = lab.timings;
    timings.extend(boot_times.into_iter().map(|took| Timing { stage: "boot", took }));
    let qemu = qemu.map(|qemu| qemu.version);
    Ok(Outcome { kernel: kernel.release, qemu, parts, timings })
}

impl Task<'_> {
    /// Its name, as [`Outcome::timings`] has it.
    #[must_use]
    pub const fn stage(&self) -> &'static str {
        match self {
            Self::Replay { .. } => "replay",
            Self::Migrate { .. } => "migrate",
            Self::Race { .. } => "race",
            Self::Abuse { .. } => "abuse",
            Self::Learn { .. } => "learn",
            Self::Lifetime { .. } => "lifetime",
            Self::Watch { .. } => "watch",
        }
    }

    fn about(&self, release: &str) -> String {
        match self {
            Self::Replay { count, .. } => format!("replaying {count} traces on {release}"),
            Self::Migrate { .. } => format!("migrating on {release}"),
            Self::Race { rounds } => format!("racing {rounds} times on {release}"),
            Self::Abuse { .. } => format!("abusing a device of {release}"),
            Self::Learn { .. } => format!("learning what a device of {release} is"),
            Self::Lifetime { .. } => format!("removing a device of {release}"),
            Self::Watch { .. } => format!("watching QEMU migrate on {release}"),
        }
    }

    const fn count(&self) -> Option<usize> {
        match *self {
            Self::Replay { count, .. } => Some(count),
            Self::Migrate { .. } => None,
            Self::Race { rounds } => Some(rounds as usize),
            Self::Abuse { count }
            | Self::Learn { count }
            | Self::Lifetime { count }
            | Self::Watch { count } => Some(count),
        }
    }

    /// What the guest needs for it.
    const fn memory_mib(&self) -> u32 {
        match self {
            // Two QEMUs, and their files twice: in the archive, and unpacked.
            Self::Watch { .. } => 768,
            _ => 0,
        }
    }
}

fn check_host(options: &Options) -> Result<(), Error> {
    if std::env::consts::ARCH != "x86_64" {
        return Err(Error::Architecture { seen: std::env::consts::ARCH.to_owned() });
    }
    host::check(host::FETCHING.into_iter().chain(host::LAB))?;
    if options.kvm {
        let device = fs::File::options().read(true).write(true).open("/dev/kvm");
        device.map_err(|source| Error::Kvm { source })?;
    }
    Ok(())
}

/// Traces that nothing was said about.
fn missing(part: &Part, trace_count: usize) -> Vec<usize> {
    let verdicts = part.lines.iter().filter(|line| line["event"] == "verdict");
    let mut left = vec![true; trace_count];
    let indices = verdicts
        .filter_map(|line| usize::try_from(line["index"].as_u64()?).ok())
        .chain(part.incidents.iter().filter(|i| i.kind.is_fatal()).filter_map(|i| i.index));
    for index in indices {
        if let Some(left) = left.get_mut(index) {
            *left = false;
        }
    }
    (0..trace_count).filter(|index| left[*index]).collect()
}

/// What every stage needs.
struct Lab<'a> {
    options: &'a Options,
    cancel: &'a AtomicBool,
    on: &'a mut dyn FnMut(Event),
    timings: Vec<Timing>,
}

impl Lab<'_> {
    /// Announces a stage, does it, and notes how long it took.
    fn stage<T>(
        &mut self,
        stage: &'static str,
        about: &str,
        work: impl FnOnce(&mut Self) -> Result<T, Error>,
    ) -> Result<T, Error> {
        (self.on)(Event::Stage(about.to_owned()));
        let started = Instant::now();
        let result = work(self);
        self.timings.push(Timing { stage, took: started.elapsed() });
        result
    }

    /// A kernel with its driver: from the cache if the newest one is there, else made.
    fn kernel(&mut self, cache: &Cache) -> Result<Kernel, Error> {
        let pin = self.options.kernel.as_deref();
        let wanted = MigratableKernel { pin };
        let mut apt = Apt::new(cache.dir("apt"), self.cancel);
        let chosen = self.stage("choose", "choosing a kernel", |_| apt.select(&wanted));
        let mut selection = match (chosen, cache.newest(module::ENTRY)) {
            (Ok(selection), _) => selection,
            // Without lists, say without a network, any kernel will do that we have.
            (Err(Error::NoKernel { .. } | Error::Lists { .. }), Some(entry)) if pin.is_none() => {
                return Kernel::open(&entry);
            }
            (Err(error), _) => return Err(error),
        };
        let downloads = cache.dir("downloads");
        if let Some(entry) = cache.get(&module::entry_name(&selection.version)) {
            // A run that was killed behind the build has left them.
            let _ = fs::remove_dir_all(&downloads);
            return Kernel::open(&entry);
        }
        host::check([(selection.compiler.as_str(), selection.compiler.as_str())])?;
        let about = format!("downloading Linux {} (about 280 MB)", selection.version);
        let debs =
            self.stage("download", &about, |_| apt.download(&mut selection, &wanted, &downloads))?;
        let name = module::entry_name(&selection.version);
        // Had the lists been out of date, what they should have said may be here already.
        let entry = match cache.get(&name) {
            Some(entry) => entry,
            None => self.build(cache, &name, &selection, &debs)?,
        };
        // The packages have served; a directory that stays is only a waste of space.
        let _ = fs::remove_dir_all(&downloads);
        Kernel::open(&entry)
    }

    /// Makes a cache entry from downloaded packages.
    fn build(
        &mut self,
        cache: &Cache,
        name: &str,
        selection: &Selection,
        debs: &[PathBuf],
    ) -> Result<PathBuf, Error> {
        let about = format!("building the mtty driver for {}", selection.release);
        let cancel = self.cancel;
        self.stage("build", &about, |_| {
            let scratch = cache.scratch("build")?;
            cache.put(name, |entry| module::prepare(selection, debs, scratch.path(), entry, cancel))
        })
    }
}

/// A series of boots that takes every trace once.
struct Series<'a, 'b> {
    lab: &'a mut Lab<'b>,
    image: &'a Path,
    contents: Contents,
    initramfs: &'a Path,
    memory_mib: u32,
    boot_times: &'a mut Vec<Duration>,
}

impl Series<'_, '_> {
    /// Boots until all traces have had their turn; without a count, until the guest says so.
    fn all(mut self, trace_count: Option<usize>) -> Result<Part, Error> {
        let mut part = Part {
            lines: Vec::new(),
            incidents: Vec::new(),
            missing: Vec::new(),
            boots: 0,
            ended: Ended::Complete,
        };
        let mut from = 0;
        let mut attempt = 1;
        while trace_count.is_none_or(|count| from < count) {
            if part.boots == self.lab.options.max_boots {
                part.ended = Ended::TooManyBoots;
                break;
            }
            let (end, watch) = match self.boot(from, &mut part)? {
                Some(ended) => ended,
                None => {
                    part.ended = Ended::Cancelled;
                    break;
                }
            };
            match end {
                End::Finished => break,
                End::Broke { next } => (from, attempt) = (next, 1),
                End::NotStarted { .. } if attempt < BOOT_ATTEMPTS => attempt += 1,
                End::NotStarted { reason } => {
                    let console = [watch.recent(), watch.said()].concat().join("\n");
                    return Err(Error::Boot { attempts: attempt, reason, console });
                }
                End::ReplayerDied { code } => {
                    return Err(Error::Replayer { code, said: watch.said().join("\n") });
                }
            }
        }
        part.missing = trace_count.map_or(Vec::new(), |count| missing(&part, count));
        Ok(part)
    }

    /// One boot, from trace `from` on; none if cancelled.
    fn boot(&mut self, from: usize, part: &mut Part) -> Result<Option<(End, Watch)>, Error> {
        let archive = self.contents.archive(from).and_then(|a| fs::write(self.initramfs, a));
        archive.map_err(file("write", self.initramfs))?;
        part.boots += 1;
        (self.lab.on)(Event::Boot { number: part.boots, from });
        let options = self.lab.options;
        let hardware = Hardware {
            cpus: options.cpus,
            memory_mib: self.memory_mib,
            kvm: options.kvm,
            silence: options.watchdog,
        };
        let mut vm = Vm::start(&hardware, self.image, self.initramfs)?;
        let started = Instant::now();
        let limits = Limits { boot: options.boot_limit, silence: options.watchdog };
        let mut watch = Watch::new(part.boots, limits, started);
        loop {
            if self.lab.cancel.load(Ordering::Relaxed) {
                self.report(&mut watch, part);
                return Ok(None);
            }
            let was_ready = watch.is_ready();
            let end = self.step(&mut vm, &mut watch, part)?;
            if watch.is_ready() && !was_ready {
                self.boot_times.push(started.elapsed());
            }
            self.report(&mut watch, part);
            if let Some(end) = end {
                return Ok(Some((end, watch)));
            }
        }
    }

    /// Takes in what the guest says next; says how the boot ended, if it did.
    fn step(
        &mut self,
        vm: &mut Vm,
        watch: &mut Watch,
        part: &mut Part,
    ) -> Result<Option<End>, Error> {
        let lines = vm.lines(Duration::from_millis(100));
        let lines = lines.map_err(file("read from the guest running", self.image))?;
        let now = Instant::now();
        let Some(lines) = lines else { return Ok(Some(watch.closed())) };
        for line in lines {
            match line {
                Line::Console(line) => watch.console_line(&line, now),
                Line::Result(line) => {
                    if let Some(value) = watch.result_line(&line, now) {
                        (self.lab.on)(Event::Line(value.clone()));
                        part.lines.push(value);
                    }
                }
            }
        }
        Ok(watch.tick(now))
    }

    fn report(&mut self, watch: &mut Watch, part: &mut Part) {
        for incident in watch.take_incidents() {
            (self.lab.on)(Event::Incident(incident.clone()));
            part.incidents.push(incident);
        }
    }
}
