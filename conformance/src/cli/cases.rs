// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! Cases that are run on a device node one after the other: of `abuse` and of `lifetime`.

use std::time::Instant;

use clap::Args;
use vfio_conform::deviation::Deviations;
use vfio_conform::replay::{self, Mismatch, Verdict};
use vfio_conform::report::Report;
use vfio_fsm_kernel::abuse::{Outcome, Slip};

use super::Result;
use super::events::{Event, Events};
use super::output::Output;
use super::replay::TargetName;

#[derive(Debug, Args)]
// A command that has these among its own would have two groups of this name.
#[group(skip)]
pub(crate) struct Arguments {
    /// `kernel:DEVICE`, as `replay` has it; of two devices the first is taken.
    #[arg(long)]
    target: TargetName,
    /// What is known of the device: the name of a driver (mtty) or a file.
    #[arg(long, value_name = "DRIVER")]
    deviations: Option<String>,
    /// Begin with the n-th case, counted from 0.
    #[arg(long, value_name = "N", default_value_t = 0)]
    pub(super) from: usize,
    /// One JSON line when a case begins and one for its verdict, as they happen.
    #[arg(long)]
    events: bool,
}

impl Arguments {
    /// The device node; nothing else can be given, for this reason.
    pub(super) fn node(&self, why: &str) -> Result<&str> {
        match &self.target {
            TargetName::Kernel(devices) => Ok(&devices[0]),
            _ => Err(format!("{why}: give kernel:DEVICE").into()),
        }
    }

    /// Run the cases of these names, and say what they came to. With `complete`, all there are.
    pub(super) fn run(
        &self,
        kind: &'static str,
        device: &str,
        names: impl ExactSizeIterator<Item = &'static str>,
        complete: bool,
        output: &mut Output,
        mut run: impl FnMut(usize) -> Result<Outcome>,
    ) -> Result {
        let known = self.deviations.as_deref().map(Deviations::named).transpose()?;
        let known = known.map(|list| list.of_calls(&format!("{kind}/")));
        let mut events = Events::new(self.events, kind);
        events.expect(names.len());
        let mut report = Report::new(format!("{kind} of kernel {device}"));
        let started = Instant::now();
        for (index, name) in names.enumerate().skip(self.from) {
            let name = format!("{kind}/{name}");
            events.begin(index, &name)?;
            let outcome = run(index)?;
            let (ops, verdict) = (outcome.calls, judge(&name, &outcome, known.as_ref()));
            events.tell(&Event::Verdict { index, trace: &name, ops, verdict: &verdict })?;
            report.record(&name, replay::Outcome { verdict, ops });
        }
        events.done()?;
        report.finish(started.elapsed(), known.as_ref(), complete && self.from == 0);
        if !self.events {
            output.say(kind, &report)?;
        }
        Ok(report.is_good())
    }
}

/// A slip that is not listed fails the case; the first of them is shown.
fn judge(name: &str, outcome: &Outcome, deviations: Option<&Deviations>) -> Verdict {
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
