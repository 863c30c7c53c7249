// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! `vfio-conform replay`: traces on a device.

use std::collections::HashSet;
use std::fmt;
use std::fs::{self, File};
use std::io::BufReader;
#[cfg(feature = "junit")]
use std::io::BufWriter;
use std::path::{Path, PathBuf};
use std::str::FromStr;

use clap::Args;
use vfio_conform::deviation::Deviations;
#[cfg(feature = "junit")]
use vfio_conform::junit;
use vfio_conform::replay::{Options, Replayer, Target};
use vfio_conform::report::Report;
use vfio_conform::target::{KernelTarget, Reference, VfioUserTarget};
#[cfg(feature = "mlx5")]
use vfio_conform::target::{Mlx5Function, Mlx5Options, Mlx5Target};
use vfio_conform::trace::{self, Trace};
use vfio_fsm_core::device::Bug;
#[cfg(feature = "mlx5")]
use vfio_fsm_mlx5::transport::Choice;

use super::events::{Event, Events};
use super::output::Output;
use super::pace::Pace;
use super::{NONE_SELECTED, Result, Selection};

#[derive(Debug, Args)]
pub(crate) struct Arguments {
    /// What to test: `reference`, `reference:BUG` (a planted bug), `mlx5` (the mlx5 backend on a
    /// firmware in software), `mlx5:chunks`, either of these with `:BUG`,
    /// `kernel:DEVICE[,DEVICE]`: a PCI address, an mdev UUID, a directory in /sys, or
    /// /dev/vfio/devices/vfioN, or `vfio-user:SOCKET[,SOCKET]`; the second is the destination of
    /// round trips.
    #[arg(long, default_value = "reference")]
    target: TargetName,
    /// Trace files; the generated suites if none is given.
    #[arg(long, value_name = "FILE")]
    traces: Vec<PathBuf>,
    #[command(flatten)]
    selection: Selection,
    /// Also run, on a kernel, what is known to hang or crash some kernels.
    #[arg(long)]
    dangerous: bool,
    /// What is known of the device: the name of a driver (mtty) or a file.
    #[arg(long, value_name = "DRIVER")]
    deviations: Option<String>,
    /// A byte of the device that a guest could write, as REGION:OFFSET (mtty: 0:7).
    #[arg(long, value_name = "REGION:OFFSET")]
    touch: Option<Touch>,
    #[cfg(feature = "mlx5")]
    #[command(flatten)]
    function: Function,
    /// On a kernel, also measure how much slower a replay is than its bare ioctls.
    #[arg(long)]
    pace: bool,
    /// Begin with the n-th trace, counted from 0.
    #[arg(long, value_name = "N", default_value_t = 0)]
    from: usize,
    /// One JSON line when a trace begins and one for its verdict, as they happen.
    #[arg(long)]
    events: bool,
    /// Write the verdicts to this file, too, as JUnit's XML.
    #[cfg(feature = "junit")]
    #[arg(long, value_name = "FILE")]
    junit: Option<PathBuf>,
}

/// An mlx5 virtual function, in place of a target.
#[cfg(feature = "mlx5")]
#[derive(Debug, Args)]
struct Function {
    /// An mlx5 virtual function, by its PCI address. Who sends its commands is chosen by what is
    /// found: the kernel's driver, or we ourselves where user space owns the physical function.
    #[arg(long, value_name = "ADDRESS", conflicts_with = "target")]
    function: Option<String>,
    /// Who sends its commands: auto, kernel, firmware (ourselves), or software (a device of our own).
    #[arg(long, value_name = "TRANSPORT", conflicts_with = "target")]
    transport: Option<Choice>,
}

/// What to test.
#[derive(Clone, Debug)]
pub(super) enum TargetName {
    Reference(Option<Bug>),
    #[cfg(feature = "mlx5")]
    Mlx5(Mlx5Options),
    Kernel(Vec<String>),
    VfioUser(Vec<String>),
}

impl FromStr for TargetName {
    type Err = String;

    fn from_str(name: &str) -> std::result::Result<Self, String> {
        match name.split_once(':') {
            None if name == "reference" => Ok(Self::Reference(None)),
            Some(("reference", slug)) => Ok(Self::Reference(Some(bug(slug)?))),
            #[cfg(feature = "mlx5")]
            None if name == "mlx5" => Ok(Self::Mlx5(Mlx5Options::default())),
            #[cfg(feature = "mlx5")]
            Some(("mlx5", how)) => mlx5(how).map(Self::Mlx5),
            Some(("kernel", devices)) if !devices.is_empty() => pair(devices).map(Self::Kernel),
            Some(("vfio-user", sockets)) if !sockets.is_empty() => {
                pair(sockets).map(Self::VfioUser)
            }
            _ => Err(EXPECTED.to_owned()),
        }
    }
}

#[cfg(feature = "mlx5")]
const EXPECTED: &str = "expected reference[:BUG], mlx5[:chunks][:BUG], kernel:DEVICE[,DEVICE] or \
                        vfio-user:SOCKET[,SOCKET]";
#[cfg(not(feature = "mlx5"))]
const EXPECTED: &str =
    "expected reference[:BUG], kernel:DEVICE[,DEVICE] or vfio-user:SOCKET[,SOCKET]";

fn pair(names: &str) -> std::result::Result<Vec<String>, String> {
    let names: Vec<_> = names.split(',').map(str::to_owned).collect();
    if names.len() > 2 {
        return Err("at most two devices: source and destination".to_owned());
    }
    Ok(names)
}

fn bug(slug: &str) -> std::result::Result<Bug, String> {
    let found = Bug::ALL.iter().find(|bug| bug.slug() == slug);
    found.copied().ok_or_else(|| {
        let known: Vec<_> = Bug::ALL.iter().map(|bug| bug.slug()).collect();
        format!("no bug is named {slug:?}; there are {}", known.join(", "))
    })
}

#[cfg(feature = "mlx5")]
fn mlx5(how: &str) -> std::result::Result<Mlx5Options, String> {
    let (chunks, slug) = match how.split_once(':') {
        None if how == "chunks" => (true, None),
        Some(("chunks", slug)) => (true, Some(slug)),
        _ => (false, Some(how)),
    };
    Ok(Mlx5Options { chunks, bug: slug.map(bug).transpose()?, ..Mlx5Options::default() })
}

/// A byte of the device that a guest could write.
#[derive(Clone, Copy, Debug)]
pub(super) struct Touch {
    pub(super) region: u32,
    pub(super) offset: u64,
}

impl FromStr for Touch {
    type Err = String;

    fn from_str(text: &str) -> std::result::Result<Self, String> {
        let parse = || {
            let (region, offset) = text.split_once(':')?;
            Some(Self { region: region.parse().ok()?, offset: offset.parse().ok()? })
        };
        parse().ok_or_else(|| "expected REGION:OFFSET, two numbers".to_owned())
    }
}

/// As it is parsed.
impl fmt::Display for Touch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.region, self.offset)
    }
}

impl TargetName {
    pub(super) fn open(&self, touch: Option<Touch>) -> Result<Vec<Box<dyn Target>>> {
        match self {
            Self::Reference(bug) => {
                let new = || match *bug {
                    Some(bug) => Reference::with_bug(bug),
                    None => Reference::new(),
                };
                Ok(vec![Box::new(new()), Box::new(new())])
            }
            #[cfg(feature = "mlx5")]
            Self::Mlx5(options) => [1, 2]
                .into_iter()
                .map(|seed| {
                    let target = Mlx5Target::new(Mlx5Options { seed, ..*options })?;
                    Ok(Box::new(target) as Box<dyn Target>)
                })
                .collect(),
            Self::Kernel(devices) => devices
                .iter()
                .map(|device| {
                    let touch = touch.map(|Touch { region, offset }| (region, offset));
                    let target = KernelTarget::open(device, touch)?;
                    Ok(Box::new(target) as Box<dyn Target>)
                })
                .collect(),
            Self::VfioUser(sockets) => sockets
                .iter()
                .map(|socket| {
                    let touch = touch.map(|Touch { region, offset }| (region, offset));
                    let target = VfioUserTarget::open(Path::new(socket), touch)?;
                    Ok(Box::new(target) as Box<dyn Target>)
                })
                .collect(),
        }
    }

    pub(super) fn describe(&self) -> String {
        match self {
            Self::Reference(None) => "reference".to_owned(),
            Self::Reference(Some(bug)) => format!("reference with {}", bug.slug()),
            #[cfg(feature = "mlx5")]
            Self::Mlx5(options) => options.to_string(),
            Self::Kernel(devices) => format!("kernel {}", devices.join(" and ")),
            Self::VfioUser(sockets) => format!("vfio-user {}", sockets.join(" and ")),
        }
    }
}

impl Arguments {
    /// The devices, and what a report calls them.
    fn open(&self) -> Result<(Vec<Box<dyn Target>>, String)> {
        #[cfg(feature = "mlx5")]
        if self.function.function.is_some() || self.function.transport.is_some() {
            let Function { function, transport } = &self.function;
            let target = Mlx5Function::open(function.as_deref(), transport.unwrap_or_default())?;
            let by = target.transport().map(|transport| transport.to_string()).unwrap_or_default();
            let name = format!("mlx5 {} by {by}", function.as_deref().unwrap_or("of our own"));
            return Ok((vec![Box::new(target)], name));
        }
        Ok((self.target.open(self.touch)?, self.target.describe()))
    }
}

pub(crate) fn run(arguments: &Arguments, output: &mut Output) -> Result {
    let traces = Traces::of(arguments)?;
    let planned = traces.count;
    let deviations = arguments.deviations.as_deref().map(Deviations::named).transpose()?;
    let deviations = deviations.map(Deviations::of_traces);
    let (mut targets, name) = arguments.open()?;
    let borrowed = targets.iter_mut().map(|target| &mut **target as &mut dyn Target).collect();
    let options = Options { dangerous: arguments.dangerous, deviations: deviations.as_ref() };
    let mut events = Events::new(arguments.events, "replay");
    events.expect(planned);
    let mut report = Report::new(name);
    let mut replayer = Replayer::new(borrowed);
    let mut seen = 0;
    traces.each(|trace| {
        let index = seen;
        seen += 1;
        if index < arguments.from {
            return Ok(());
        }
        let name = &trace.header.name;
        events.begin(index, name)?;
        let outcome = replayer.replay(&trace, options);
        let (ops, verdict) = (outcome.ops, &outcome.verdict);
        events.tell(&Event::Verdict { index, trace: name, ops, verdict })?;
        // With events, somebody else makes the report, and knows the traces as well.
        if arguments.events {
            report.record(name, outcome);
        } else {
            report.record_trace(&trace, outcome);
        }
        Ok(())
    })?;
    if seen != planned {
        return Err(format!(
            "the files had {planned} traces and now have {seen}: they were changed meanwhile"
        )
        .into());
    }
    report.unsaid = replayer.unsaid().clone();
    let took = replayer.took();
    drop(replayer);
    let pace = match &arguments.target {
        TargetName::Kernel(devices) if arguments.pace => {
            drop(targets);
            Some(Pace::measure(&devices[0])?)
        }
        _ => None,
    };
    if let Some(pace) = &pace {
        events.line(pace)?;
    }
    events.done()?;
    let complete =
        arguments.selection.is_all() && arguments.traces.is_empty() && arguments.from == 0;
    report.finish(took, deviations.as_ref(), complete);
    #[cfg(feature = "junit")]
    if let Some(path) = &arguments.junit {
        let written =
            File::create(path).and_then(|file| junit::write(&report, BufWriter::new(file)));
        written.map_err(|error| format!("{}: {error}", path.display()))?;
    }
    if !arguments.events {
        output.say("replay", &report)?;
        pace.map_or(Ok(()), |pace| output.say("pace", &pace))?;
    }
    Ok(report.is_good())
}

/// The traces to be replayed. Regular files are read twice, so that they may be larger than memory:
/// once to find what is wrong with them before anything is done to a device, and once to replay.
struct Traces {
    parts: Vec<Part>,
    only: Option<glob::Pattern>,
    /// How many there are.
    count: usize,
}

enum Part {
    Kept(Vec<Trace>),
    File(PathBuf),
}

impl Traces {
    fn of(arguments: &Arguments) -> Result<Self> {
        if arguments.traces.is_empty() {
            let traces = arguments.selection.generate()?;
            return Ok(Self { count: traces.len(), parts: vec![Part::Kept(traces)], only: None });
        }
        let only = arguments.selection.only.clone();
        let mut all = Self { parts: Vec::new(), only, count: 0 };
        let mut names = HashSet::new();
        for path in &arguments.traces {
            let part = all.look(path, &mut names)?;
            all.parts.push(part);
        }
        if all.count == 0 {
            return Err(NONE_SELECTED.into());
        }
        let (from, count) = (arguments.from, all.count);
        if from >= count {
            let message = format!("--from {from}: there are {count} traces, counted from 0");
            return Err(message.into());
        }
        Ok(all)
    }

    /// Reads a file to its end, and keeps what can be read only once.
    fn look(&mut self, path: &Path, names: &mut HashSet<String>) -> Result<Part> {
        let once = !fs::metadata(path).is_ok_and(|meta| meta.is_file());
        let mut kept = Vec::new();
        for trace in read(path)? {
            let trace = trace?;
            self.count += usize::from(wants(self.only.as_ref(), &trace));
            let name = trace.header.name.clone();
            if once {
                kept.push(trace);
            }
            if names.contains(&name) {
                let path = path.display();
                return Err(format!("{path}: a second trace of the name {name:?}").into());
            }
            names.insert(name);
        }
        Ok(if once { Part::Kept(kept) } else { Part::File(path.to_owned()) })
    }

    /// All that are wanted.
    fn each(self, mut on: impl FnMut(Trace) -> Result<()>) -> Result<()> {
        let Self { parts, only, .. } = self;
        let mut on = |trace: Trace| if wants(only.as_ref(), &trace) { on(trace) } else { Ok(()) };
        for part in parts {
            match part {
                Part::Kept(traces) => traces.into_iter().try_for_each(&mut on)?,
                Part::File(path) => read(&path)?.try_for_each(|trace| on(trace?))?,
            }
        }
        Ok(())
    }
}

fn wants(only: Option<&glob::Pattern>, trace: &Trace) -> bool {
    only.is_none_or(|only| only.matches(&trace.header.name))
}

/// The traces of a file; each error says which file it is.
fn read(path: &Path) -> Result<impl Iterator<Item = Result<Trace>>> {
    let name = path.display().to_string();
    let file = File::open(path).map_err(|error| format!("{name}: {error}"))?;
    let fail = move |error| format!("{name}: {error}").into();
    Ok(trace::Reader::new(BufReader::new(file)).map(move |trace| trace.map_err(&fail)))
}
