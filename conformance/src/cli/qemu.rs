// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! `vfio-conform drive-qemu`: what the lab has a real QEMU do to a device, in the guest.

use std::path::PathBuf;
use std::time::Duration;

use clap::Args;
use serde::Serialize;
use vfio_conform::deviation::{DeviationError, Deviations};
use vfio_conform::observe::{self, Recorder};
use vfio_conform::qemu::{SCENARIOS, Setup, Watched};
use vfio_conform::replay::Verdict;

use super::Result;
use super::events::{Event, Events};
use super::replay::TargetName;

#[derive(Debug, Args)]
pub(crate) struct Arguments {
    /// The program.
    #[arg(long, value_name = "FILE")]
    qemu: PathBuf,
    /// Where its firmware is.
    #[arg(long, value_name = "DIR")]
    firmware: PathBuf,
    /// The compiled recorder.
    #[arg(long, value_name = "FILE")]
    recorder: PathBuf,
    /// The compiled library that has a device say that it can be reset.
    #[arg(long, value_name = "FILE")]
    announce_reset: PathBuf,
    /// `kernel:SOURCE,DESTINATION`, each a directory in /sys.
    #[arg(long)]
    target: TargetName,
    /// Seconds that anything may take.
    #[arg(long, value_name = "SECONDS", default_value_t = 15)]
    patience: u64,
    /// Begin with the n-th scenario, counted from 0.
    #[arg(long, value_name = "N", default_value_t = 0)]
    from: usize,
    /// One JSON line for everything that happens, as it happens.
    #[arg(long)]
    events: bool,
}

/// Beside the verdicts.
#[derive(Serialize)]
#[serde(tag = "event", rename_all = "snake_case")]
enum Told<'a> {
    Doing {
        index: usize,
        what: &'a str,
    },
    Watched {
        index: usize,
        trace: &'a str,
        #[serde(flatten)]
        vmm: &'a Watched,
        recording: Option<String>,
    },
    Migrated {
        index: usize,
        trace: &'a str,
        migrations: &'a [String],
    },
}

pub(crate) fn run(arguments: &Arguments) -> Result {
    let TargetName::Kernel(devices) = &arguments.target else {
        return Err("QEMU can be given devices of a kernel only".into());
    };
    let [source, destination] = devices.as_slice() else {
        return Err("two devices are needed: of the source, and of the destination".into());
    };
    let folder = tempfile::tempdir()?;
    let setup = Setup {
        qemu: arguments.qemu.clone(),
        firmware: arguments.firmware.clone(),
        recorder: Recorder::compiled(&arguments.recorder),
        announce_reset: arguments.announce_reset.clone(),
        devices: [source.into(), destination.into()],
        folder: folder.path().to_owned(),
        patience: Duration::from_secs(arguments.patience),
    };
    let mut events = Events::new(arguments.events, "watch");
    events.expect(SCENARIOS.len());
    let of = |name| Ok::<_, DeviationError>(Deviations::named(name)?.of_findings("watch/"));
    let known = of("mtty")?.and(of("qemu")?);
    let mut good = true;
    for (index, scenario) in SCENARIOS.iter().enumerate().skip(arguments.from) {
        let trace = scenario.name;
        events.begin(index, trace)?;
        // A line that cannot be written is missed by who waits for it.
        let played = scenario.play(&setup, &mut |what| {
            let _ = events.line(&Told::Doing { index, what });
        });
        let mut ops = 0;
        for vmm in &played.vmms {
            ops += vmm.recording.as_ref().map_or(0, |recording| recording.steps.len() as u64);
            let recording = vmm.recording.as_ref().map(|recording| {
                let mut text = Vec::new();
                observe::write([recording], &mut text).map(|()| text)
            });
            let recording = recording.transpose()?.map(String::from_utf8).transpose()?;
            events.line(&Told::Watched { index, trace, vmm, recording })?;
        }
        let migrations = &played.migrations;
        events.line(&Told::Migrated { index, trace, migrations })?;
        let verdict = played.verdict(scenario, &known);
        good &= matches!(verdict, Verdict::Pass | Verdict::Deviation { .. });
        events.tell(&Event::Verdict { index, trace, ops, verdict: &verdict })?;
    }
    events.done()?;
    Ok(good)
}
