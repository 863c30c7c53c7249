// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! Our own explorer and stateright, beside each other on the same models.
#![expect(clippy::expect_used, reason = "helpers of tests fail as tests do")]

use std::num::NonZeroUsize;
use std::time::Duration;

use vfio_fsm_model::{
    BENCH_CASES, CASES, Case, Checked, Cut, Engine, How, LOCK_CASES, SYSTEM_CASES, Watch,
    check_watched,
};

fn how(engine: Engine, threads: usize) -> How {
    let threads = NonZeroUsize::new(threads).expect("there are some");
    How { engine, threads, symmetric: false }
}

fn check(case: &'static Case, how: How) -> Checked {
    check_watched(case, how, &Watch::new(None))
}

/// Those that take no time, and the smallest that threads share.
fn small() -> impl Iterator<Item = &'static Case> {
    let all = CASES.iter().chain(LOCK_CASES).chain(SYSTEM_CASES).chain(BENCH_CASES);
    all.filter(|case| case.states < 60_000 || case.name == "from STOP_COPY")
}

/// X3: in every model both find as many worlds and steps and have as much to judge, and both pass.
#[test]
fn both_engines_find_the_same() {
    for case in small() {
        let [theirs, ours] =
            [Engine::Stateright, Engine::Own].map(|engine| check(case, how(engine, 1)));
        let counts = |checked: &Checked| (checked.states, checked.transitions, checked.depth);
        let (name, features) = (case.name, case.features);
        assert!(ours.failures.is_empty() && theirs.failures.is_empty(), "{name}, {features}");
        assert_eq!(counts(&ours), counts(&theirs), "{name}, {features}");
        // stateright judges only worlds that it comes by; ours every step, and so do both here.
        assert_eq!(ours.judged, theirs.judged, "{name}, {features}");
        assert_eq!((ours.cut, theirs.cut), (None, None));
    }
}

/// X3: how many threads there are changes nothing that is counted.
#[test]
fn threads_change_nothing() {
    for case in small().filter(|case| case.states > 10_000) {
        let [one, two, five] = [1, 2, 5].map(|threads| check(case, how(Engine::Own, threads)));
        for other in [two, five] {
            assert_eq!(
                (other.states, other.transitions, other.depth, &other.judged),
                (one.states, one.transitions, one.depth, &one.judged),
                "{}, {}",
                case.name,
                case.features
            );
        }
    }
}

/// A check whose time is over is not finished, and not failed either: whoever asks for less time than
/// it takes gets no verdict.
#[test]
fn no_time_is_no_verdict() {
    let case = CASES.iter().find(|case| case.name == "Loader").expect("there is one");
    for engine in [Engine::Own, Engine::Stateright] {
        let watch = Watch::new(Some(Duration::ZERO));
        let checked = check_watched(case, how(engine, 1), &watch);
        assert_eq!(checked.cut, Some(Cut::TimeLimit(Duration::ZERO)), "{engine:?}");
        assert!(checked.failures.is_empty() && checked.states < case.states, "{engine:?}");
        assert_eq!(check(case, how(engine, 1)).cut, None, "{engine:?}");
    }
}

/// The same for one that somebody interrupts.
#[test]
fn an_interrupted_check_is_not_finished() {
    let case = CASES.iter().find(|case| case.name == "Loader").expect("there is one");
    for engine in [Engine::Own, Engine::Stateright] {
        let watch = Watch::new(None);
        watch.interrupt();
        let checked = check_watched(case, how(engine, 2), &watch);
        assert_eq!(checked.cut, Some(Cut::Interrupted), "{engine:?}");
        assert!(checked.failures.is_empty(), "{engine:?}");
    }
}

/// Whoever looks on sees the check go on, to its end.
#[test]
fn progress_ends_where_the_check_does() {
    let case =
        BENCH_CASES.iter().find(|case| case.name == "bench, 2 devices").expect("there is one");
    let watch = Watch::new(None);
    let checked = check_watched(case, how(Engine::Own, 2), &watch);
    let progress = watch.progress();
    assert_eq!((progress.states, progress.depth), (checked.states, checked.depth));
    assert_eq!(progress.transitions, checked.transitions);
    assert!(checked.failures.is_empty(), "{:?}", checked.failures);
}
