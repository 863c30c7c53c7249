// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! `vfio-conform lifetime`: a device that is closed, unbound and removed under its users.

use std::time::Instant;

use clap::Args;
use vfio_conform::deviation::Deviations;
use vfio_conform::lifetime::CASES;
use vfio_conform::replay::{self, Verdict};
use vfio_conform::report::Report;

use super::Result;
use super::abuse::judge;
use super::events::{Event, Events};
use super::output::Output;
use super::replay::TargetName;

#[derive(Debug, Args)]
pub(crate) struct Arguments {
    /// `kernel:DEVICE`, by its directory in /sys; of two devices the first is taken.
    #[arg(long)]
    target: TargetName,
    /// Also what is known to hang or crash some kernels.
    #[arg(long)]
    dangerous: bool,
    /// What is known of the device: the name of a driver (mtty) or a file.
    #[arg(long, value_name = "DRIVER")]
    deviations: Option<String>,
    /// Begin with the n-th case, counted from 0.
    #[arg(long, value_name = "N", default_value_t = 0)]
    from: usize,
    /// One JSON line when a case begins and one for its verdict, as they happen.
    #[arg(long)]
    events: bool,
}

pub(crate) fn run(arguments: &Arguments, output: &mut Output) -> Result {
    let TargetName::Kernel(devices) = &arguments.target else {
        return Err("the reference cannot be removed: give kernel:DEVICE".into());
    };
    let deviations = arguments.deviations.as_deref().map(Deviations::named).transpose()?;
    let deviations = deviations.map(|list| list.of_calls("lifetime/"));
    let mut events = Events::new(arguments.events, "lifetime");
    events.expect(CASES.len());
    let mut report = Report::new(format!("lifetime of kernel {}", devices[0]));
    let started = Instant::now();
    for (index, case) in CASES.iter().enumerate().skip(arguments.from) {
        let name = format!("lifetime/{}", case.name);
        events.begin(index, &name)?;
        let (ops, verdict) = if case.dangerous && !arguments.dangerous {
            let reason = "it can bring a kernel down: --dangerous".to_owned();
            (0, Verdict::NotApplicable { reason })
        } else {
            let outcome = case.run(&devices[0])?;
            (outcome.calls, judge(&name, &outcome, deviations.as_ref()))
        };
        events.tell(&Event::Verdict { index, trace: &name, ops, verdict: &verdict })?;
        report.record(&name, replay::Outcome { verdict, ops });
    }
    events.done()?;
    let complete = arguments.dangerous && arguments.from == 0;
    report.finish(started.elapsed(), deviations.as_ref(), complete);
    if !arguments.events {
        output.say("lifetime", &report)?;
    }
    Ok(report.is_good())
}
