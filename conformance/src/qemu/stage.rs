// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! A scenario under way: what can be done to source and destination.

use std::fmt;
use std::path::PathBuf;

use serde_json::{Value, json};
use vfio_fsm_core::{Op, Reply, State};

use super::vmm::{Start, Vmm, uri};
use super::{Setup, Trouble, Watched, fresh};
use crate::observe::{Recording, Step};

/// Milliseconds of downtime that let a migration come to its end.
const DOWNTIME: u32 = 300;

/// Which of the two VMs goes on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ends {
    /// The source.
    Stayed,
    /// The destination.
    Moved,
}

impl fmt::Display for Ends {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Stayed => "the source alone",
            Self::Moved => "the destination alone",
        })
    }
}

/// Source and destination of a scenario.
pub(super) struct Stage<'s> {
    /// Of the scenario.
    name: &'static str,
    announce_reset: bool,
    setup: &'s Setup,
    on: &'s mut dyn FnMut(&str),
    source: Vmm,
    destination: Option<Vmm>,
    /// Destinations that were started.
    attempts: u32,
    migrations: Vec<String>,
    gone: Vec<Watched>,
}

impl<'s> Stage<'s> {
    /// With a source that runs. `announce_reset`: whether the devices say that they can be reset.
    pub(super) fn open(
        name: &'static str,
        announce_reset: bool,
        setup: &'s Setup,
        on: &'s mut dyn FnMut(&str),
    ) -> Result<Self, Trouble> {
        on("starting the source");
        setup.devices.iter().try_for_each(|device| fresh(device))?;
        let start = Start {
            name: &format!("{name}/source"),
            device: &setup.devices[0],
            announce_reset,
            incoming: None,
        };
        let source = Vmm::start(setup, &start)?;
        let (migrations, gone) = (Vec::new(), Vec::new());
        let (destination, attempts) = (None, 0);
        Ok(Self {
            name,
            announce_reset,
            setup,
            on,
            source,
            destination,
            attempts,
            migrations,
            gone,
        })
    }

    /// Keep migrations in PRE_COPY. QEMU asks a device for the size of its last share only while there
    /// is some room for it in the downtime: here it is two bytes, and no device's share is so small.
    /// What room there is it finds out every 100 ms, so the memory must not be sent before that.
    pub(super) fn hold(&mut self) -> Result<(), Trouble> {
        self.set(json!({
            "downtime-limit": 1,
            "max-bandwidth": 1 << 20,
            "avail-switchover-bandwidth": 2000,
        }))
    }

    /// Keep migrations from getting anywhere: the memory alone takes all that may be sent.
    pub(super) fn crawl(&mut self) -> Result<(), Trouble> {
        self.hold()?;
        self.set(json!({ "max-bandwidth": 1 }))
    }

    /// Let them come to their end.
    pub(super) fn release(&mut self) -> Result<(), Trouble> {
        self.set(json!({
            "downtime-limit": DOWNTIME,
            "max-bandwidth": 0,
            "avail-switchover-bandwidth": 0,
        }))
    }

    fn set(&mut self, parameters: Value) -> Result<(), Trouble> {
        self.source.execute("migrate-set-parameters", parameters).map(drop)
    }

    /// Begin a migration to a new destination.
    pub(super) fn migrate(&mut self) -> Result<(), Trouble> {
        (self.on)("starting the destination");
        self.see_off_destination();
        self.attempts += 1;
        let socket = self.socket();
        let start = Start {
            name: &format!("{}/destination-{}", self.name, self.attempts),
            device: &self.setup.devices[1],
            announce_reset: self.announce_reset,
            incoming: Some(&socket),
        };
        self.destination = Some(Vmm::start(self.setup, &start)?);
        (self.on)("migrating");
        self.source.execute("migrate", json!({ "uri": uri(&socket) })).map(drop)
    }

    fn socket(&self) -> PathBuf {
        self.setup.folder.join(format!("migration-{}", self.attempts))
    }

    /// Wait until the device is in PRE_COPY, for the n-th time, and its data_fd has been read from.
    pub(super) fn await_pre_copy(&mut self, times: usize) -> Result<(), Trouble> {
        let what = format!("PRE_COPY and a read, {times} times");
        self.source.await_call(&what, |recording| pre_copies_read(recording) >= times)
    }

    /// Wait until the device is in PRE_COPY.
    pub(super) fn await_pre_copy_begun(&mut self) -> Result<(), Trouble> {
        let entered = |step: &Step| {
            let to = match step.op {
                Some(Op::SetState { to, .. }) => to.known(),
                _ => None,
            };
            to == Some(State::PreCopy) && matches!(step.reply, Reply::Fd(Some(_)))
        };
        self.source.await_call("PRE_COPY", |recording| recording.steps.iter().any(entered))
    }

    /// Reset the guest.
    pub(super) fn reset(&mut self) -> Result<(), Trouble> {
        (self.on)("resetting the guest");
        self.source.execute("system_reset", json!({}))?;
        self.source.await_event("RESET")
    }

    /// Wait until the firmware has reset the guest once more by itself, as SeaBIOS does when it finds
    /// that it has run before. One that does not is ready all the same.
    pub(super) fn await_reboot(&mut self) {
        let _ = self.source.await_event("RESET");
    }

    /// Start a VM of its own at the destination's device, and end it.
    pub(super) fn start_at_destination(&mut self) -> Result<(), Trouble> {
        (self.on)("starting a VM at the destination's device");
        self.see_off_destination();
        let start = Start {
            name: &format!("{}/restarted", self.name),
            device: &self.setup.devices[1],
            announce_reset: self.announce_reset,
            incoming: None,
        };
        let vmm = Vmm::start(self.setup, &start)?;
        self.gone.push(vmm.quit());
        Ok(())
    }

    /// Let the destination's guest go on.
    pub(super) fn resume(&mut self) -> Result<(), Trouble> {
        match &mut self.destination {
            Some(vmm) => vmm.execute("cont", json!({})).map(drop),
            None => Ok(()),
        }
    }

    /// Halt the guest's processors.
    pub(super) fn stop(&mut self) -> Result<(), Trouble> {
        self.source.execute("stop", json!({})).map(drop)
    }

    /// Give the migration up.
    pub(super) fn cancel(&mut self) -> Result<(), Trouble> {
        (self.on)("cancelling");
        self.source.execute("migrate_cancel", json!({})).map(drop)
    }

    /// Take the destination away.
    pub(super) fn kill_destination(&mut self) {
        if let Some(destination) = &mut self.destination {
            destination.kill();
        }
    }

    /// Wait until the migration has ended, one way or the other.
    pub(super) fn settle(&mut self) -> Result<(), Trouble> {
        (self.on)("waiting for the migration's end");
        let ended = self.source.wait("the end of the migration", |source| {
            let status = source.migration()?;
            let over = ["completed", "failed", "cancelled"].contains(&status.as_str());
            Ok(if over { Ok(status) } else { Err(status) })
        })?;
        self.migrations.push(ended);
        Ok(())
    }

    /// Which of the two runs; nothing if it is both or neither.
    pub(super) fn who_runs(&mut self) -> Result<Option<Ends>, Trouble> {
        let alive = "running";
        let source = self.source.run_state()? == alive;
        let moved = self.migrations.last().is_some_and(|ended| ended == "completed");
        let destination = match &mut self.destination {
            // It starts a moment after the source is done.
            Some(vmm) if moved => vmm
                .wait("the VM", |vmm| {
                    let state = vmm.run_state()?;
                    Ok(if state == alive { Ok(()) } else { Err(state) })
                })
                .is_ok(),
            // One that was given nothing, or that is dead, runs nothing.
            Some(vmm) => vmm.run_state().is_ok_and(|state| state == alive),
            None => false,
        };
        Ok(match (source, destination) {
            (true, false) => Some(Ends::Stayed),
            (false, true) => Some(Ends::Moved),
            _ => None,
        })
    }

    fn see_off_destination(&mut self) {
        self.gone.extend(self.destination.take().map(Vmm::quit));
    }

    /// End both: how the migrations ended, and what each QEMU did.
    pub(super) fn close(mut self) -> (Vec<String>, Vec<Watched>) {
        (self.on)("ending both");
        self.see_off_destination();
        let mut vmms = vec![self.source.quit()];
        vmms.append(&mut self.gone);
        (self.migrations, vmms)
    }
}

/// How often PRE_COPY was entered with a data_fd that was read from afterwards.
fn pre_copies_read(recording: &Recording) -> usize {
    let mut entered = false;
    let mut times = 0;
    for Step { op, reply, .. } in &recording.steps {
        match (op, reply) {
            (Some(Op::SetState { to, .. }), Reply::Fd(fd)) => {
                entered = to.known() == Some(State::PreCopy) && fd.is_some();
            }
            (Some(Op::Read { .. }), Reply::Bytes(_) | Reply::EndOfStream(_)) if entered => {
                (entered, times) = (false, times + 1);
            }
            _ => {}
        }
    }
    times
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::observe::{Format, read};

    #[test]
    fn a_pre_copy_counts_when_it_was_read_from() {
        let header = r#"{"vfio-fsm-recording":1,"name":"r"}"#;
        let enter =
            |fd| format!(r#"{{"op":{{"set_state":{{"to":"PRE_COPY"}}}},"reply":{{"fd":{fd}}}}}"#);
        let read_from =
            |fd| format!(r#"{{"op":{{"read":{{"fd":{fd},"len":9}}}},"reply":{{"bytes":3}}}}"#);
        let back = r#"{"op":{"set_state":{"to":"RUNNING"}},"reply":{"fd":null}}"#;
        let count = |lines: &[&str]| {
            let text = [&[header], lines].concat().join("\n");
            let mut recordings = read(text.as_bytes(), Format::Recording).expect("a recording");
            pre_copies_read(&recordings.remove(0))
        };
        assert_eq!(count(&[&enter(1)]), 0);
        assert_eq!(count(&[&enter(1), &read_from(1), &read_from(1)]), 1);
        assert_eq!(count(&[&enter(1), back, &enter(2), &read_from(2)]), 1);
        assert_eq!(count(&[&enter(1), &read_from(1), back, &enter(2), &read_from(2)]), 2);
    }
}
