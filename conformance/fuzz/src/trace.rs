// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! The trace parser: what it takes prints, and parses again to itself; and it can be replayed, on a
//! device and on a broken one, with a verdict that names a step that there is.

use vfio_conform::replay::{Options, Replayer, Verdict};
use vfio_conform::target::Reference;
use vfio_conform::trace::{self, Data, Trace};
use vfio_fsm_core::Op;
use vfio_fsm_core::device::Bug;

/// A line of text may ask for a long fill; a trace that would take long is not replayed.
const MOST_BYTES: u64 = 1 << 20;

/// Whatever bytes a file has. How many traces were read.
pub fn check(file: &[u8]) -> usize {
    let Ok(traces) = trace::read(file) else { return 0 };
    let mut again = Vec::new();
    trace::write(&printed(&traces), &mut again).expect("memory takes everything");
    assert_eq!(trace::read(again.as_slice()).expect("was read before"), traces);
    for trace in traces.iter().filter(|trace| weight(trace) <= MOST_BYTES) {
        replay(trace, [Reference::new(), Reference::new()]);
        let broken = || Reference::with_bug(Bug::StaleFdWrites);
        replay(trace, [broken(), broken()]);
    }
    traces.len()
}

/// What goes to the printer.
fn printed(traces: &[Trace]) -> Vec<Trace> {
    let mut traces = traces.to_vec();
    if super::PLANTED {
        // A printer that has 16 bits for a length.
        for step in traces.iter_mut().flat_map(|trace| &mut trace.steps) {
            if let Op::Read { len, .. } = &mut step.op {
                *len &= 0xffff;
            }
        }
    }
    traces
}

/// How many bytes the writes of a trace are about, at most.
fn weight(trace: &Trace) -> u64 {
    let bytes = trace.steps.iter().map(|step| match &step.op {
        Op::Write { bytes: Data::Fill { len, .. }, .. } => u64::from(*len),
        _ => 0,
    });
    bytes.sum()
}

/// The verdict says which step, and that step exists.
pub fn replay(trace: &Trace, mut devices: [Reference; 2]) -> Verdict {
    let [source, destination] = &mut devices;
    let mut replayer = Replayer::new(vec![source, destination]);
    let outcome = replayer.replay(trace, Options::default());
    match &outcome.verdict {
        Verdict::Fail(mismatch) => {
            assert!((1..=trace.steps.len()).contains(&mismatch.step), "{mismatch}");
        }
        Verdict::Pass => assert!(outcome.ops >= trace.steps.len() as u64),
        other => panic!("the reference can do everything: {other:?}"),
    }
    outcome.verdict
}
