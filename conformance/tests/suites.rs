// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! The suites themselves: they pass on what is right and fail on what is wrong.

use vfio_conform::replay::{Options, Replayer, Verdict};
use vfio_conform::suite::Suite;
use vfio_conform::target::Reference;
use vfio_conform::trace;
use vfio_fsm_core::device::Bug;

/// Every trace passes on the core's device.
#[test]
fn the_reference_passes_everything() {
    let (mut source, mut destination) = (Reference::new(), Reference::new());
    let mut replayer = Replayer::new(vec![&mut source, &mut destination]);
    for &suite in Suite::ALL {
        let traces = suite.generate_all();
        println!(
            "{suite}: {} traces, {} steps",
            traces.len(),
            traces.iter().map(|t| t.steps.len()).sum::<usize>()
        );
        for trace in traces {
            let outcome = replayer.replay(&trace, Options::default()).expect("never fails");
            assert_eq!(outcome.verdict, Verdict::Pass, "{}", trace.header.name);
        }
    }
}

/// Every bug that can be planted in the core's device fails some trace.
#[test]
fn every_bug_fails_a_trace() {
    let traces: Vec<_> = Suite::ALL.iter().copied().flat_map(Suite::generate_all).collect();
    for &bug in Bug::ALL {
        let (mut source, mut destination) = (Reference::with_bug(bug), Reference::with_bug(bug));
        let mut replayer = Replayer::new(vec![&mut source, &mut destination]);
        let fails = |trace: &&trace::Trace| {
            let outcome = replayer.replay(trace, Options::default()).expect("never fails");
            matches!(outcome.verdict, Verdict::Fail(_))
        };
        let count = traces.iter().filter(fails).count();
        println!("{}: {count}", bug.slug());
        assert!(count > 0, "{} passes every suite", bug.slug());
    }
}

/// What the model found against a bug fails on the device with that bug, and on no other for the
/// same reason: the run that refutes the claim passes on the correct device too.
#[test]
fn counterexamples_fail_on_their_bug() {
    for &bug in Bug::ALL {
        let name = format!("model/full/{}", bug.slug());
        let traces = Suite::Model.generate_all();
        let found = traces.iter().find(|trace| trace.header.name == name).expect("one a bug");
        let (mut source, mut destination) = (Reference::with_bug(bug), Reference::with_bug(bug));
        let mut replayer = Replayer::new(vec![&mut source, &mut destination]);
        let outcome = replayer.replay(found, Options::default()).expect("never fails");
        assert!(matches!(outcome.verdict, Verdict::Fail(_)), "{name}");
    }
}

/// A trace written and read again is the same trace, and names are unique over all suites.
#[test]
fn traces_survive_the_file() {
    let traces: Vec<_> = Suite::ALL.iter().copied().flat_map(Suite::generate_all).collect();
    let mut file = Vec::new();
    trace::write(&traces, &mut file).expect("memory takes it");
    println!("{} bytes", file.len());
    assert_eq!(trace::read(file.as_slice()).expect("reads its own"), traces);
}
