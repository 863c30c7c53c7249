// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! The suites through the messages.

use std::collections::BTreeMap;

use vfio_conform::complete::Complete;
use vfio_conform::complete::learn::{System, learn};
use vfio_conform::replay::{Options, Replayer, Target, Verdict};
use vfio_conform::suite::{Input, Kind, Specification, Subject, Suite};
use vfio_conform::trace::{Need, Trace};
use vfio_fsm_core::{Features, Op, Reply};

use crate::Served;

/// U7, U8: Every trace passes over the socket, for each set of flags, or has a reason not to be run;
/// and every step that is left out has one.
#[test]
fn every_suite_passes_over_a_socket() {
    for features in Features::SETS {
        let served = [Served::reference(features, None), Served::reference(features, None)];
        let [mut source, mut destination] = served.each_ref().map(Served::target);
        let mut replayer = Replayer::new(vec![&mut source, &mut destination]);
        let mut reasons: BTreeMap<String, u64> = BTreeMap::new();
        let mut passed = 0;
        for trace in Suite::ALL.iter().flat_map(|suite| suite.generate(features)) {
            match replayer.replay(&trace, Options::default()).verdict {
                Verdict::Pass => passed += 1,
                Verdict::NotApplicable { reason } => *reasons.entry(reason).or_default() += 1,
                verdict => panic!("{}: {verdict:?}", trace.header.name),
            }
        }
        println!("{features}: {passed} pass; {reasons:?}; {:?}", replayer.unsaid());
        assert!(passed > 1000, "{features}: {passed} pass");
        let lacks = [Need::Reopen, Need::FdTableFull, Need::ResetInside, Need::ArcFails];
        let known = lacks.map(|need| format!("the target lacks {need}"));
        let unknown: Vec<_> = reasons.keys().filter(|reason| !known.contains(reason)).collect();
        assert!(unknown.is_empty(), "{features}: {unknown:?}");
        assert_eq!(replayer.unsaid().len(), 3, "{:?}", replayer.unsaid());
        drop((source, destination));
        served.into_iter().for_each(Served::join);
    }
}

/// U8: A trace of which nothing can be said is not passed.
#[test]
fn a_trace_that_says_nothing_does_not_pass() {
    let served = Served::reference(Features::PRE_COPY, None);
    let mut target = served.target();
    let mut trace: Trace = Suite::Arcs.generate(Features::PRE_COPY).swap_remove(0);
    trace.steps.truncate(1);
    trace.steps[0].op = Op::DataSize;
    let mut replayer = Replayer::new(vec![&mut target]);
    let verdict = replayer.replay(&trace, Options::default()).verdict;
    assert!(matches!(verdict, Verdict::NotApplicable { .. }), "{verdict:?}");
}

/// U7: The theorem of a complete suite can be had over the socket, for the control machine and for
/// the one with its stream, and the learner finds no difference.
#[test]
fn complete_suites_and_the_learner_work_over_a_socket() {
    for kind in [Kind::Control, Kind::Stream] {
        let served = Served::reference(Features::PRE_COPY, None);
        let mut target = served.target();
        let inputs = Input::over_vfio_user(kind).expect("has words for it");
        let mut specification = Specification::with_inputs(kind, Features::PRE_COPY, true, inputs);
        let machine = specification.machine.clone();
        let suite = Complete::new(&machine, 0).expect("a minimal machine");
        let mut subject = Subject::new(&mut specification, &mut target).expect("a fresh device");
        suite.for_each(|_, test| {
            let answers = subject.ask(test).expect("it answers");
            assert_eq!(machine.refuted(test, &answers), None, "{kind}: {test:?}");
        });
        let learned = learn(&mut subject, &machine, 0, 100).expect("a machine");
        assert_eq!(machine.differences(&learned.machine), []);
    }
    assert_eq!(Input::over_vfio_user(Kind::Epochs), None);
}

/// U6: What a client leaves behind the next one finds; a disconnect is not a reset.
#[test]
fn a_disconnect_leaves_the_device_as_it_is() {
    let served =
        Served::new(2, Features::PRE_COPY, || Box::new(vfio_conform::target::Reference::new()));
    let mut first = served.target();
    first.fresh(Features::PRE_COPY).expect("a fresh device");
    let stop = vfio_fsm_core::State::Stop;
    assert_eq!(first.apply(Op::set(stop), &mut []), Reply::Fd(None));
    drop(first);
    let mut second = served.target();
    assert_eq!(second.apply(Op::GetState, &mut []), Reply::State(stop.into()));
    drop(second);
    served.join();
}
