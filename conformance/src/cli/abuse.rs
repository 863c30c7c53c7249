// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! `vfio-conform abuse`: what no VMM should do to a device node and any process can.

use std::time::Instant;

use clap::Args;
use vfio_conform::deviation::Deviations;
use vfio_conform::replay::{self, Mismatch, Verdict};
use vfio_conform::report::Report;
use vfio_fsm_kernel::abuse::{CASES, Outcome, Slip};
use vfio_fsm_kernel::{DevicePath, KernelDevice};

use super::Result;
use super::events::{Event, Events};
use super::output::Output;
use super::replay::TargetName;

#[derive(Debug, Args)]
pub(crate) struct Arguments {
    /// `kernel:DEVICE`, as `replay` has it; of two devices the first is taken.
    #[arg(long)]
    target: TargetName,
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
        return Err("the reference has no memory to be abused with: give kernel:DEVICE".into());
    };
    let path: DevicePath = devices[0].parse()?;
    let mut device = KernelDevice::open(&path)?;
    let deviations = arguments.deviations.as_deref().map(Deviations::named).transpose()?;
    let deviations = deviations.map(|list| list.of_calls("abuse/"));
    let mut events = Events::new(arguments.events, "abuse");
    events.expect(CASES.len());
    let mut report = Report::new(format!("abuse of kernel {path}"));
    let started = Instant::now();
    for (index, case) in CASES.iter().enumerate().skip(arguments.from) {
        let name = format!("abuse/{}", case.name);
        events.begin(index, &name)?;
        let outcome = case.run(&mut device)?;
        let (ops, verdict) = (outcome.calls, judge(&name, &outcome, deviations.as_ref()));
        events.tell(&Event::Verdict { index, trace: &name, ops, verdict: &verdict })?;
        report.record(&name, replay::Outcome { verdict, ops });
    }
    events.done()?;
    report.finish(started.elapsed(), deviations.as_ref(), arguments.from == 0);
    if !arguments.events {
        output.say("abuse", &report)?;
    }
    Ok(report.is_good())
}

/// A slip that is not listed fails the case; the first of them is shown.
pub(super) fn judge(name: &str, outcome: &Outcome, deviations: Option<&Deviations>) -> Verdict {
    let (mut ids, mut unknown): (Vec<String>, Vec<&Slip>) = (Vec::new(), Vec::new());
    for slip in &outcome.slips {
        match deviations.and_then(|list| list.find_call(name, &slip.to_string())) {
            Some(id) if ids.iter().any(|known| known == id) => {}
            Some(id) => ids.push(id.to_owned()),
            None => unknown.push(slip),
        }
    }
    match (unknown.first(), outcome.inapplicable) {
        (Some(slip), _) => Verdict::Fail(Mismatch {
            step: 0,
            op: slip.call.clone(),
            expected: slip.expected.clone(),
            seen: match unknown.len() {
                1 => slip.seen.clone(),
                all => format!("{}, and {} calls more that are wrong", slip.seen, all - 1),
            },
            story: Vec::new(),
        }),
        (None, Some(reason)) => Verdict::NotApplicable { reason: reason.to_owned() },
        (None, None) if ids.is_empty() => Verdict::Pass,
        (None, None) => Verdict::Deviation { ids, steps: Vec::new() },
    }
}
