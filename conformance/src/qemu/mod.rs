// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! A real VMM at a real device: an unmodified QEMU migrates, is disturbed at it, and is recorded.
//!
//! Two QEMUs, each with a device of its own and no guest but its firmware, are started with the
//! recorder of [`observe`](crate::observe) in them and driven over QMP. Each [`Scenario`] says what is
//! done and which of the two must run in the end; what they did with their devices meanwhile is in the
//! recordings, and held against the state machine from both sides.

mod qmp;
mod scenario;
mod stage;
mod vmm;

use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use serde::Serialize;
use vfio_fsm_kernel::{DevicePath, KernelDevice};

use crate::deviation::Deviations;
use crate::observe::{
    Finding, Format, Recorder, Recording, Report, Severity, Side, WatchError, read,
};
use crate::replay::{Mismatch, Verdict};

pub use scenario::{SCENARIOS, Scenario};
pub use stage::Ends;

use stage::Stage;

/// What QEMU is started with.
#[derive(Debug)]
pub struct Setup {
    /// The program.
    pub qemu: PathBuf,
    /// Where its firmware is.
    pub firmware: PathBuf,
    /// What is loaded into it.
    pub recorder: Recorder,
    /// What is loaded behind it so that the device says that it can be reset.
    pub announce_reset: PathBuf,
    /// The devices of source and destination, in /sys.
    pub devices: [PathBuf; 2],
    /// Sockets and recordings are put here.
    pub folder: PathBuf,
    /// How long anything may take.
    pub patience: Duration,
}

/// A scenario that could not be brought to its end.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Trouble {
    /// A file or socket.
    #[error("{}: {error}", path.display())]
    File {
        /// Which.
        path: PathBuf,
        /// What happened.
        #[source]
        error: std::io::Error,
    },
    /// QEMU could not be given the recorder.
    #[error(transparent)]
    Watch(#[from] WatchError),
    /// A device is not to be had fresh before a scenario.
    #[error("{}: {error}", path.display())]
    Device {
        /// Which.
        path: PathBuf,
        /// What happened.
        #[source]
        error: Box<dyn std::error::Error + Send + Sync>,
    },
    /// QEMU ended, or does not speak QMP.
    #[error("{name} does not answer {command:?} ({error}); it said: {said}")]
    Silent {
        /// Source or destination.
        name: String,
        /// What it was asked.
        command: String,
        /// What happened.
        #[source]
        error: std::io::Error,
        /// Its last messages.
        said: String,
    },
    /// QEMU refused a command.
    #[error("{name} refuses {command:?}: {refusal}")]
    Refused {
        /// Source or destination.
        name: String,
        /// What it was asked.
        command: String,
        /// What it answered.
        refusal: String,
    },
    /// Something did not come about in time.
    #[error("waited {after:?} for {what}, and saw {seen}")]
    Late {
        /// What was awaited.
        what: String,
        /// How long.
        after: Duration,
        /// What was there instead.
        seen: String,
    },
}

/// What came of a scenario.
#[derive(Debug, Default)]
pub struct Played {
    /// Why it was not brought to its end, if so.
    pub trouble: Option<Trouble>,
    /// Which of the two ran at the end.
    pub ran: Option<Ends>,
    /// How the migrations ended, as QEMU says, in their order.
    pub migrations: Vec<String>,
    /// What each QEMU did.
    pub vmms: Vec<Watched>,
}

/// What one QEMU did.
#[derive(Debug, Serialize)]
pub struct Watched {
    /// Scenario and role.
    pub name: String,
    /// What it did with its device; nothing if it did not use it.
    #[serde(skip)]
    pub recording: Option<Recording>,
    /// What is to be said of that.
    #[serde(skip)]
    pub report: Option<Report>,
    /// What it wrote on its standard error.
    pub said: String,
}

impl Scenario {
    /// Play it. `on` hears what is being done.
    pub fn play(&self, setup: &Setup, on: &mut dyn FnMut(&str)) -> Played {
        let mut stage = match Stage::open(self.name, self.announces_reset, setup, on) {
            Ok(stage) => stage,
            Err(trouble) => return Played { trouble: Some(trouble), ..Played::default() },
        };
        let played = (self.play)(&mut stage).and_then(|()| stage.who_runs());
        let (ran, trouble) = match played {
            Ok(ran) => (ran, None),
            Err(trouble) => (None, Some(trouble)),
        };
        let (migrations, vmms) = stage.close();
        Played { trouble, ran, migrations, vmms }
    }
}

impl Played {
    /// Whether it came to what it should, with nothing wrong on either side but what is known.
    #[must_use]
    pub fn verdict(&self, scenario: &Scenario, known: &Deviations) -> Verdict {
        let (mut ids, mut unknown): (Vec<String>, Vec<Mismatch>) = (Vec::new(), Vec::new());
        for (text, mismatch) in self.wrong(scenario) {
            match known.find_finding(scenario.name, &text) {
                Some(id) if ids.iter().any(|known| known == id) => {}
                Some(id) => ids.push(id.to_owned()),
                None => unknown.push(mismatch),
            }
        }
        match unknown.into_iter().next() {
            Some(mismatch) => Verdict::Fail(mismatch),
            None if ids.is_empty() => Verdict::Pass,
            None => Verdict::Deviation { ids, steps: Vec::new() },
        }
    }

    /// What is wrong: as a text for lists of what is known, and as a report has it.
    fn wrong(&self, scenario: &Scenario) -> Vec<(String, Mismatch)> {
        let mut wrong = Vec::new();
        let mut ended = |op: &str, expected: String, seen: String| {
            let text = format!("scenario: {op}: expected {expected}, saw {seen}");
            wrong.push((
                text,
                Mismatch { step: 0, op: op.to_owned(), expected, seen, story: Vec::new() },
            ));
        };
        if let Some(trouble) = &self.trouble {
            ended("all of it", "to be played".to_owned(), trouble.to_string());
        } else if self.ran.is_none_or(|ran| !scenario.ends.contains(&ran)) {
            let seen = self.ran.map_or("both or neither".to_owned(), |ran| ran.to_string());
            let ends: Vec<_> = scenario.ends.iter().map(Ends::to_string).collect();
            ended("which VM runs in the end", ends.join(" or "), seen);
        }
        for report in self.vmms.iter().filter_map(|vmm| vmm.report.as_ref()) {
            let errors = report.findings.iter().filter(|it| it.severity == Severity::Error);
            for Finding { rule, side, step, op, seen, expected, .. } in errors {
                let side = if *side == Side::Device { "device" } else { "VMM" };
                let text = format!("{side} {rule}: {op}: expected {expected}, saw {seen}");
                let mismatch = Mismatch {
                    step: step.unwrap_or(0),
                    op: format!("{}: {op}", report.recording),
                    expected: expected.clone(),
                    seen: format!("{seen} ({rule})"),
                    story: Vec::new(),
                };
                wrong.push((text, mismatch));
            }
        }
        wrong
    }
}

/// Reset a device, so that a scenario does not begin where another one has left it.
fn fresh(path: &Path) -> Result<(), Trouble> {
    let reset = || -> Result<(), Box<dyn std::error::Error + Send + Sync>> {
        let device: DevicePath = path.to_string_lossy().parse()?;
        KernelDevice::open(&device)?.fresh()?;
        Ok(())
    };
    reset().map_err(|error| Trouble::Device { path: path.to_owned(), error })
}

fn at(path: &Path) -> impl FnOnce(std::io::Error) -> Trouble {
    let path = path.to_owned();
    |error| Trouble::File { path, error }
}

/// What is in a recording so far; nothing where it is empty or a line is being written.
fn recorded(file: &Path) -> Option<Recording> {
    let text = fs::read(file).ok()?;
    let whole = text.iter().rposition(|byte| *byte == b'\n').map_or(0, |end| end + 1);
    read(&text[..whole], Format::Recording).ok()?.pop()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::observe::observe;

    const SCENARIO: Scenario = SCENARIOS[0];

    /// A source that was recorded doing this, and a migration that moved the VM.
    fn played(steps: &str) -> Played {
        let name = format!("{}/source", SCENARIO.name);
        let text = format!("{{\"vfio-fsm-recording\":1,\"name\":\"{name}\"}}\n{steps}");
        let recording = read(text.as_bytes(), Format::Recording).expect("a recording").remove(0);
        let report = Some(observe(&recording));
        let vmm = Watched { name, recording: Some(recording), report, said: String::new() };
        let (trouble, ran, migrations) = (None, Some(Ends::Moved), vec!["completed".into()]);
        Played { trouble, ran, migrations, vmms: vec![vmm] }
    }

    fn known(found: &str) -> Deviations {
        let text = format!(
            "driver = \"x\"\nseen_with = \"x\"\n[[deviation]]\nid = \"known\"\nbreaks = []\n\
             reason = \"x\"\ntraces = [\"watch/*\"]\nfound = [\"{found}\"]\n"
        );
        Deviations::parse("x", &text).expect("a good list")
    }

    const GOOD: &str = "{\"op\":\"get_features\",\"reply\":{\"features\":7}}\n";
    const STALE: &str = r#"{"op":"get_features","reply":{"features":7}}
{"op":{"set_state":{"to":"PRE_COPY"}},"reply":{"fd":1}}
{"op":"reset","reply":"ok"}
{"op":{"read":{"fd":1,"len":96}},"reply":{"errno":"ENODEV"}}
{"op":{"close_fd":{"fd":1}},"reply":"ok"}
"#;

    /// W10: the VM that runs in the end, and every error in the recordings, make the verdict.
    #[test]
    fn a_scenario_is_judged_by_its_end_and_by_its_recordings() {
        let none = known("nothing");
        assert_eq!(played(GOOD).verdict(&SCENARIO, &none), Verdict::Pass);
        let stayed = Played { ran: Some(Ends::Stayed), ..played(GOOD) };
        assert!(matches!(stayed.verdict(&SCENARIO, &none), Verdict::Fail(_)));
        let both = Played { ran: None, ..played(GOOD) };
        assert!(matches!(both.verdict(&SCENARIO, &none), Verdict::Fail(_)));
        let Verdict::Fail(mismatch) = played(STALE).verdict(&SCENARIO, &none) else {
            panic!("the stale fd is found");
        };
        assert_eq!(mismatch.step, 4);
        assert!(mismatch.seen.contains("stale-fd"), "{mismatch}");
    }

    /// W10: what is listed is a known deviation, and nothing else is.
    #[test]
    fn what_is_known_does_not_fail_a_scenario() {
        let ids = vec!["known".to_owned()];
        let list = known("VMM stale-fd: read fd#1 96: *");
        assert_eq!(
            played(STALE).verdict(&SCENARIO, &list),
            Verdict::Deviation { ids, steps: Vec::new() }
        );
        assert_eq!(list.unused().count(), 0);
        let lost = Played { ran: None, ..played(STALE) };
        assert!(matches!(lost.verdict(&SCENARIO, &list), Verdict::Fail(_)), "the end is not known");
    }

    /// W10: names are unique, and what can bring a kernel down is behind everything else.
    #[test]
    fn the_dangerous_scenario_is_the_last() {
        let mut names: Vec<_> = SCENARIOS.iter().map(|scenario| scenario.name).collect();
        assert_eq!(names.last(), Some(&"watch/start-after-incoming"));
        names.sort_unstable();
        names.dedup();
        assert_eq!(names.len(), SCENARIOS.len());
    }
}
