// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! The suites themselves: they pass on what is right and fail on what is wrong.

use vfio_conform::replay::{Options, Replayer, Target, TargetError, Verdict};
use vfio_conform::suite::{Refuted, Suite};
use vfio_conform::target::Reference;
use vfio_conform::trace::{self, Need};
use vfio_fsm_core::device::Bug;
use vfio_fsm_core::{Features, Op, Reply, State};
use vfio_fsm_model::{Fault, Replay};

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
            let outcome = replayer.replay(&trace, Options::default());
            assert_eq!(outcome.verdict, Verdict::Pass, "{}", trace.header.name);
        }
    }
}

/// Every bug that can be planted in the core's device fails some trace, and not only the run that
/// the model has found against it.
#[test]
fn every_bug_fails_a_trace() {
    let suites = Suite::ALL.iter().copied().filter(|suite| *suite != Suite::Model);
    let traces: Vec<_> = suites.flat_map(Suite::generate_all).collect();
    for &bug in Bug::ALL {
        let (mut source, mut destination) = (Reference::with_bug(bug), Reference::with_bug(bug));
        let mut replayer = Replayer::new(vec![&mut source, &mut destination]);
        let fails = |trace: &&trace::Trace| {
            let outcome = replayer.replay(trace, Options::default());
            matches!(outcome.verdict, Verdict::Fail(_))
        };
        let count = traces.iter().filter(fails).count();
        println!("{}: {count}", bug.slug());
        assert!(count > 0, "{} passes every suite", bug.slug());
    }
}

/// What the model found against a bug of the device fails on the device with that bug: every run,
/// of every property that claims it.
#[test]
fn counterexamples_fail_on_their_bug() {
    for refuted in Refuted::all() {
        let Fault::Device(bug) = refuted.claim.fault else { continue };
        let trace = refuted.trace().expect("a device sees it");
        let (mut source, mut destination) = (Reference::with_bug(bug), Reference::with_bug(bug));
        let mut replayer = Replayer::new(vec![&mut source, &mut destination]);
        let outcome = replayer.replay(&trace, Options::default());
        assert!(matches!(outcome.verdict, Verdict::Fail(_)), "{}", trace.header.name);
    }
}

/// Every claim of level 1 has a trace, and each trace ends where its run does.
#[test]
fn every_run_of_level_1_is_a_trace() {
    for refuted in Refuted::all().iter().filter(|refuted| refuted.claim.level() == 1) {
        let (claim, run) = (refuted.claim, refuted.run().expect("it is caught"));
        let Some(Replay::Trace(trace)) = &run.replay else { panic!("{} has none", claim.fault) };
        let end = |device| {
            let mut steps = trace.steps.iter().rev();
            let at = steps.find(|step| step.device == device).map(|step| step.at);
            at.unwrap_or(State::Running).to_string()
        };
        let pair = claim.model().starts_with("2 ");
        let at = if pair { format!("[{}, {}]", end(0), end(1)) } else { format!("[{}]", end(0)) };
        assert!(run.steps.last().expect("a step").ends_with(&at), "{at}: {run}");
    }
}

/// A trace asked for by its name is the one that its suite has, and other names have none.
#[test]
fn a_name_leads_to_its_trace() {
    for &suite in Suite::ALL {
        for features in Features::SETS {
            let all = suite.generate(features);
            for trace in all.iter().step_by(all.len() / 8 + 1) {
                assert_eq!(suite.named(features, &trace.header.name).as_ref(), Some(trace));
            }
            assert_eq!(suite.named(features, &format!("{suite}/{}/", features.slug())), None);
        }
    }
}

/// A file that was cut off at the end of a line is not taken for a whole one.
#[test]
fn a_file_that_was_cut_off_is_refused() {
    let mut file = Vec::new();
    trace::write(&Suite::Fds.generate(Features::STOP_COPY), &mut file).expect("memory takes it");
    let text = String::from_utf8(file).expect("it is text");
    let lines: Vec<_> = text.lines().collect();
    let whole = |count: usize| trace::read(lines[..count].join("\n").as_bytes());
    assert!(whole(lines.len()).is_ok());
    for count in lines.len() - 3..lines.len() {
        let error = whole(count).expect_err("cut off").to_string();
        assert!(error.contains("cut off"), "{error}");
    }
}

/// A device that loads other bytes than were saved, and says nothing, is found by the round trips.
#[test]
fn a_wrong_load_is_seen() {
    struct Miscopies(Reference);
    impl Target for Miscopies {
        fn offers(&self, features: Features) -> bool {
            self.0.offers(features)
        }
        fn can(&self, need: Need) -> bool {
            self.0.can(need)
        }
        fn fresh(&mut self, features: Features) -> Result<(), TargetError> {
            self.0.fresh(features)
        }
        fn apply<'b>(&mut self, op: Op<&[u8]>, buf: &'b mut [u8]) -> Reply<&'b [u8]> {
            let mut bytes = Vec::new();
            let op = op.map(|right| {
                bytes = right.iter().map(|byte| byte & 0x5f).collect();
                bytes.as_slice()
            });
            self.0.apply(op, buf)
        }
    }
    let (mut source, mut destination) = (Reference::new(), Miscopies(Reference::new()));
    let mut replayer = Replayer::new(vec![&mut source, &mut destination]);
    let traces = Suite::Streams.generate(Features::ALL);
    let trips = traces.iter().filter(|trace| trace.header.name.contains("round-trip"));
    for trace in trips {
        let outcome = replayer.replay(trace, Options::default());
        let Verdict::Fail(mismatch) = outcome.verdict else { panic!("{}", trace.header.name) };
        assert!(mismatch.seen.contains("other bytes"), "{mismatch}");
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
