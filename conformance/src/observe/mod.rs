// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! Recordings of real VMMs, held against the state machine from both sides: did the device answer as
//! it must, and did the VMM do what it may.
//!
//! ```
//! use vfio_conform::observe::{Format, Rule, observe, read};
//!
//! let file = r#"{"vfio-fsm-recording":1,"name":"a VMM that loses data"}
//! {"op":"get_features","reply":{"features":1}}
//! {"op":{"set_state":{"to":"STOP_COPY"}},"reply":{"fd":1}}
//! {"op":{"read":{"fd":1,"len":4096}},"reply":{"bytes":4096}}
//! {"op":{"close_fd":{"fd":1}},"reply":"ok"}
//! {"op":{"set_state":{"to":"STOP"}},"reply":{"fd":null}}
//! "#;
//! let recordings = read(file.as_bytes(), Format::detect(file.as_bytes()))?;
//! let report = observe(&recordings[0]);
//! assert_eq!(report.findings[0].rule, Rule::NotDrained);
//! assert_eq!(report.findings[0].step, Some(5));
//! # Ok::<(), vfio_conform::observe::RecordingError>(())
//! ```

mod calls;
mod device;
mod recording;
mod rules;
mod vmm;
mod watch;

use std::collections::BTreeMap;
use std::fmt;
use std::io::BufRead;

use serde::Serialize;
use vfio_fsm_core::{Features, Op, Reply};

pub use recording::{DmaLogging, Header, Problem, Recording, RecordingError, Step, VERSION, write};
pub use rules::{Rule, Severity, Side};
#[cfg(feature = "lab")]
pub(crate) use watch::compile;
pub use watch::{Recorder, WatchError, Watched, watch};

use device::DeviceSide;
use rules::Remark;
use vmm::VmmSide;

/// How recordings are written down.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Format {
    /// A line of JSON a call: `specs/recording-format.md`.
    Recording,
    /// A line of columns a call, as a tracer prints it.
    Calls,
}

impl Format {
    /// What a file is in, by its beginning: JSON begins with a brace.
    #[must_use]
    pub fn detect(beginning: &[u8]) -> Self {
        match beginning.trim_ascii_start().first() {
            Some(b'{') | None => Self::Recording,
            Some(_) => Self::Calls,
        }
    }
}

/// Read the recordings of a file, or say which line is wrong.
pub fn read(input: impl BufRead, format: Format) -> Result<Vec<Recording>, RecordingError> {
    match format {
        Format::Recording => recording::read(input),
        Format::Calls => calls::read(input),
    }
}

/// What was found in a recording.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Report {
    /// Its name.
    pub recording: String,
    /// How many calls it has.
    pub steps: usize,
    /// How many devices.
    pub devices: usize,
    /// What was found, in the order of the steps; the same again and again stands here once.
    pub findings: Vec<Finding>,
}

/// One thing that was found.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Finding {
    /// Which rule is broken.
    pub rule: Rule,
    /// Who is at fault.
    pub side: Side,
    /// How bad it is.
    pub severity: Severity,
    /// The requirements that the rule stands on.
    pub requirements: &'static [&'static str],
    /// The process.
    pub pid: u32,
    /// The device.
    pub device: u32,
    /// The step, counted from 1; `None` at the end of the recording.
    pub step: Option<usize>,
    /// When it began, in microseconds.
    pub at: u64,
    /// What was done.
    pub op: String,
    /// What was answered.
    pub seen: String,
    /// What should have been answered or done.
    pub expected: String,
    /// What to do about it.
    pub todo: &'static str,
    /// How often it was found, on this device.
    pub times: usize,
}

impl Report {
    /// How many findings are as bad as this.
    #[must_use]
    pub fn count(&self, severity: Severity) -> usize {
        self.findings.iter().filter(|finding| finding.severity == severity).count()
    }

    /// Whether there is no error among the findings.
    #[must_use]
    pub fn is_good(&self) -> bool {
        self.count(Severity::Error) == 0
    }

    fn add(&mut self, step: &Step, number: Option<usize>, remark: Remark) {
        let Remark { rule, severity, expected } = remark;
        let (pid, device) = (step.pid, step.device);
        let same = self.findings.iter_mut().find(|finding| {
            (finding.rule, finding.severity) == (rule, severity)
                && (finding.pid, finding.device) == (pid, device)
                && (number.is_some() && finding.step.is_some())
        });
        if let Some(same) = same {
            same.times += 1;
            return;
        }
        let (op, seen) = match number {
            Some(_) => told(step),
            None => ("the end of the recording".to_owned(), "nothing more".to_owned()),
        };
        self.findings.push(Finding {
            rule,
            side: rule.side(),
            severity,
            requirements: rule.requirements(),
            pid,
            device,
            step: number,
            at: step.at,
            op,
            seen,
            expected,
            todo: rule.todo(),
            times: 1,
        });
    }
}

/// A call and its answer, for a person.
fn told(step: &Step) -> (String, String) {
    let op = match (&step.op, step.dma_logging) {
        (Some(Op::Write { fd, bytes }), _) => format!("write {fd} {bytes}"),
        (Some(op), _) => op.to_string(),
        (None, Some(DmaLogging::Start)) => "DMA logging START".to_owned(),
        (None, Some(DmaLogging::Stop)) => "DMA logging STOP".to_owned(),
        (None, _) => "DMA logging REPORT".to_owned(),
    };
    let seen = match &step.reply {
        Reply::Bytes(len) => format!("{len} bytes"),
        other => other.to_string(),
    };
    (op, seen)
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { recording, steps, devices, .. } = self;
        let [errors, warnings, notes] = [Severity::Error, Severity::Warning, Severity::Note]
            .map(|severity| self.count(severity));
        writeln!(
            f,
            "{recording}: calls {steps}, devices {devices}; errors {errors}, warnings {warnings}, \
             notes {notes}"
        )?;
        self.findings.iter().try_for_each(|finding| finding.fmt(f))
    }
}

impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { rule, severity, op, seen, expected, todo, .. } = self;
        let who = if self.side == Side::Device { "device" } else { "VMM" };
        let step = self.step.map_or("end".to_owned(), |step| format!("step {step}"));
        let times = if self.times > 1 { format!(", {} times", self.times) } else { String::new() };
        let seconds = self.at as f64 / 1e6;
        writeln!(f, "  {severity}: {who} {}, {step} at {seconds:.6}{times}: {rule}", self.device)?;
        writeln!(f, "    done:     {op}")?;
        writeln!(f, "    answered: {seen}")?;
        writeln!(f, "    expected: {expected}  [{}]", self.requirements.join(", "))?;
        writeln!(f, "    to do:    {todo}")
    }
}

/// One device and its user.
struct Pair {
    device: DeviceSide,
    vmm: VmmSide,
}

/// Hold a recording against the state machine.
///
/// A device counts as just opened when it is first seen. Where calls overlap in time their order is
/// not known, so what would be an error is a warning there.
#[must_use]
pub fn observe(recording: &Recording) -> Report {
    let steps = &recording.steps;
    let mut pairs = BTreeMap::<(u32, u32), Pair>::new();
    let mut report = Report {
        recording: recording.header.name.clone(),
        steps: steps.len(),
        devices: 0,
        findings: Vec::new(),
    };
    for (index, step) in steps.iter().enumerate() {
        let place = (step.pid, step.device);
        let peers = step.op.as_ref().and_then(|op| peer_running(&pairs, place, op));
        let pair = pairs.entry(place).or_insert_with(|| {
            let features = features(steps, place);
            Pair { device: DeviceSide::new(features), vmm: VmmSide::new(features) }
        });
        let remarks = pair.take(step, overlaps(steps, index));
        for remark in peers.into_iter().chain(remarks) {
            report.add(step, Some(index + 1), remark);
        }
    }
    for (place, pair) in &pairs {
        let last = steps.iter().rfind(|step| (step.pid, step.device) == *place);
        let remarks = pair.vmm.end();
        last.into_iter().for_each(|last| {
            remarks.iter().for_each(|remark| report.add(last, None, remark.clone()));
        });
    }
    report.devices = pairs.len();
    report
}

impl Pair {
    fn take(&mut self, step: &Step, overlaps: bool) -> Vec<Remark> {
        let Some(op) = &step.op else {
            let call = step.dma_logging;
            return call.and_then(|call| self.vmm.log(call, &step.reply)).into_iter().collect();
        };
        let mut remarks = self.device.answer(op, &step.reply);
        remarks.extend(self.vmm.call(op, &step.reply));
        if overlaps {
            for remark in &mut remarks {
                remark.severity = remark.severity.min(Severity::Warning);
            }
        }
        remarks
    }
}

/// The flags that a device says it has; those of one with everything if nobody asked.
fn features(steps: &[Step], place: (u32, u32)) -> Features {
    let said = steps.iter().filter(|step| (step.pid, step.device) == place);
    let flags = said.filter_map(|step| match step.reply {
        Reply::Features(flags) => Features::from_flags(flags).ok(),
        _ => None,
    });
    flags.into_iter().next().unwrap_or(Features::ALL)
}

/// Whether another call on the same device was under way with this one.
fn overlaps(steps: &[Step], index: usize) -> bool {
    /// Calls that can have returned around this one; more threads no VMM has at one device.
    const NEAR: usize = 16;
    let step = &steps[index];
    let near = &steps[index.saturating_sub(NEAR)..(index + NEAR + 1).min(steps.len())];
    near.iter().any(|other| {
        (other.pid, other.device) == (step.pid, step.device)
            && other.tid != step.tid
            && other.overlaps(step)
    })
}

/// A device of the same VM that still starts peer-to-peer DMA where this op stops one.
fn peer_running(
    pairs: &BTreeMap<(u32, u32), Pair>,
    place: (u32, u32),
    op: &Op<u64>,
) -> Option<Remark> {
    let stops = pairs.get(&place).is_some_and(|pair| pair.vmm.stops(op));
    let mut others = pairs.iter().filter(|(other, _)| other.0 == place.0 && **other != place);
    let (other, _) = others.find(|(_, pair)| pair.vmm.starts_dma()).filter(|_| stops)?;
    let expected = format!("device {} in a P2P state or stopped before it", other.1);
    Some(Remark::new(Rule::PeerRunning, expected))
}
