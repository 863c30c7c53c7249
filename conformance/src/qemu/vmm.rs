// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! One QEMU: started with the recorder in it, asked over QMP, and seen off.

use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use super::qmp::{Answer, Qmp};
use super::{Setup, Trouble, Watched, at, recorded};
use crate::observe::{Recording, observe};

/// How often something that takes time is looked at.
const GLANCE: Duration = Duration::from_millis(20);

/// How much of what QEMU says is shown.
const LAST_LINES: usize = 10;

/// The guest's memory: its firmware has enough, and a migration goes over all of it.
const MEMORY_MIB: &str = "16";

/// A running QEMU. Dropped, it is killed.
#[derive(Debug)]
pub(super) struct Vmm {
    name: String,
    child: Child,
    qmp: Qmp,
    recording: PathBuf,
    errors: PathBuf,
    patience: Duration,
}

/// How a QEMU is started.
pub(super) struct Start<'s> {
    /// Unique, and in what is recorded.
    pub(super) name: &'s str,
    /// Its device, in /sys.
    pub(super) device: &'s Path,
    /// Whether that says that it can be reset.
    pub(super) announce_reset: bool,
    /// Where it waits for a migration, if it does.
    pub(super) incoming: Option<&'s Path>,
}

impl Vmm {
    /// Start it, and wait until it answers.
    pub(super) fn start(setup: &Setup, start: &Start<'_>) -> Result<Self, Trouble> {
        let place =
            |what: &str| setup.folder.join(format!("{}.{what}", start.name.replace('/', "-")));
        let (socket, recording, errors) = (place("qmp"), place("jsonl"), place("stderr"));
        let mut qemu = Command::new(&setup.qemu);
        let before = start.announce_reset.then_some(setup.announce_reset.as_path());
        setup.recorder.record(&mut qemu, start.name, &recording, &place("loaded"), before)?;
        qemu.args(["-nodefaults", "-no-user-config", "-display", "none", "-machine", "pc"]);
        qemu.args(["-accel", "tcg", "-m", MEMORY_MIB, "-L"]).arg(&setup.firmware);
        // The log of DMA is left alone: Debian's kernel has the feature and cannot report from it.
        qemu.arg("-device").arg(format!(
            "vfio-pci,sysfsdev={},enable-migration=on,x-device-dirty-page-tracking=off",
            start.device.display()
        ));
        qemu.arg("-qmp").arg(format!("unix:{},server=on,wait=off", socket.display()));
        if let Some(incoming) = start.incoming {
            qemu.arg("-incoming").arg(uri(incoming));
        }
        let stderr = File::create(&errors).map_err(at(&errors))?;
        qemu.stdin(Stdio::null()).stdout(Stdio::null()).stderr(stderr);
        let mut child = qemu.spawn().map_err(at(&setup.qemu))?;
        let qmp = connect(&mut child, &socket, setup.patience).map_err(|error| {
            // It has ended, or nobody can talk to it.
            let _ = child.kill();
            let _ = child.wait();
            silent(start.name, "qmp_capabilities", error, &errors)
        })?;
        let name = start.name.to_owned();
        Ok(Self { name, child, qmp, recording, errors, patience: setup.patience })
    }

    /// Carry out a command that must succeed.
    pub(super) fn execute(&mut self, command: &str, arguments: Value) -> Result<Value, Trouble> {
        match self.qmp.execute(command, arguments) {
            Ok(Answer::Returned(value)) => Ok(value),
            Ok(Answer::Refused(refusal)) => {
                let (name, command) = (self.name.clone(), command.to_owned());
                Err(Trouble::Refused { name, command, refusal })
            }
            Err(error) => Err(silent(&self.name, command, error, &self.errors)),
        }
    }

    /// What the VM does: `running`, `paused`, `postmigrate` and so on.
    pub(super) fn run_state(&mut self) -> Result<String, Trouble> {
        let answer = self.execute("query-status", json!({}))?;
        Ok(answer["status"].as_str().unwrap_or("no state").to_owned())
    }

    /// How its migration is going, or `none`.
    pub(super) fn migration(&mut self) -> Result<String, Trouble> {
        let answer = self.execute("query-migrate", json!({}))?;
        Ok(answer["status"].as_str().unwrap_or("none").to_owned())
    }

    /// Wait for a QMP event.
    pub(super) fn await_event(&mut self, name: &str) -> Result<(), Trouble> {
        self.wait(&format!("the event {name}"), |vmm| {
            let state = vmm.run_state()?;
            Ok(if vmm.qmp.take_event(name) { Ok(()) } else { Err(state) })
        })
    }

    /// Wait until its recording shows something.
    pub(super) fn await_call(
        &mut self,
        what: &str,
        shows: impl Fn(&Recording) -> bool,
    ) -> Result<(), Trouble> {
        self.wait(what, |vmm| {
            let state = vmm.migration()?;
            let recording = recorded(&vmm.recording);
            Ok(if recording.is_some_and(|recording| shows(&recording)) {
                Ok(())
            } else {
                Err(state)
            })
        })
    }

    /// Wait until `look` finds something, or time is up; else it says what is there instead.
    pub(super) fn wait<T>(
        &mut self,
        what: &str,
        mut look: impl FnMut(&mut Self) -> Result<Result<T, String>, Trouble>,
    ) -> Result<T, Trouble> {
        let began = Instant::now();
        loop {
            match look(self)? {
                Ok(found) => return Ok(found),
                Err(seen) if began.elapsed() > self.patience => {
                    let what = format!("{what} of {}", self.name);
                    return Err(Trouble::Late { what, after: self.patience, seen });
                }
                Err(_) => thread::sleep(GLANCE),
            }
        }
    }

    /// Kill it, as a host that loses power would.
    pub(super) fn kill(&mut self) {
        // It may have ended by itself, which is as good.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }

    /// End it in good order, and say what it did.
    pub(super) fn quit(mut self) -> Watched {
        if self.qmp.execute("quit", json!({})).is_ok() {
            let began = Instant::now();
            while matches!(self.child.try_wait(), Ok(None)) && began.elapsed() < self.patience {
                thread::sleep(GLANCE);
            }
        }
        self.kill();
        let recording = recorded(&self.recording);
        let report = recording.as_ref().map(observe);
        let said = last_words(&self.errors);
        Watched { name: self.name.clone(), recording, report, said }
    }
}

impl Drop for Vmm {
    fn drop(&mut self) {
        self.kill();
    }
}

/// What QEMU calls a socket.
pub(super) fn uri(socket: &Path) -> String {
    format!("unix:{}", socket.display())
}

/// Connect to a QEMU that was just started, as soon as it listens.
fn connect(child: &mut Child, socket: &Path, patience: Duration) -> io::Result<Qmp> {
    let began = Instant::now();
    loop {
        if let Some(status) = child.try_wait()? {
            return Err(io::Error::other(format!("it ended: {status}")));
        }
        match Qmp::connect(socket, patience) {
            Ok(qmp) => return Ok(qmp),
            Err(error) if began.elapsed() > patience => return Err(error),
            Err(_) => thread::sleep(GLANCE),
        }
    }
}

fn silent(name: &str, command: &str, error: io::Error, errors: &Path) -> Trouble {
    let (name, command) = (name.to_owned(), command.to_owned());
    Trouble::Silent { name, command, error, said: last_words(errors) }
}

/// The end of what a QEMU has written on its standard error.
fn last_words(errors: &Path) -> String {
    let said = fs::read(errors).unwrap_or_default();
    let said = String::from_utf8_lossy(&said);
    let lines: Vec<&str> = said.lines().collect();
    lines[lines.len().saturating_sub(LAST_LINES)..].join("\n")
}
