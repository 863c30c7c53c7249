// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! Abuse of a kernel that bears it, and of kernels that do not.

use vfio_fsm_core::{Features, State};
use vfio_fsm_kernel::abuse::{CASES, Case, Outcome};

use crate::double::{Quirks, Wrong, fd_table_is_mine, fd_table_stays_open, world};
use crate::ops::device;

/// Its threads have no world, and so no kernel of ours: see the test about it.
const THREADS: &str = "concurrent-writers";

fn case(name: &str) -> &'static Case {
    CASES.iter().find(|case| case.name == name).unwrap_or_else(|| panic!("no case {name}"))
}

/// The case, on a device that is like this.
fn run(case: &Case, features: Features, quirks: Quirks) -> Outcome {
    let mut device = device(features);
    world(|world| world.quirks = quirks);
    case.run(&mut device).expect("there is memory, and the device can be reset")
}

/// G1, G2, G3, G4, G5, G6, G7, G8, R38, C3, C38, C40: A kernel that does what it should is found without
/// fault.
#[test]
fn a_good_kernel_bears_it() {
    // Alone, since it looks for the next free fd.
    let _guard = fd_table_is_mine();
    for features in Features::SETS {
        for case in CASES.iter().filter(|case| case.name != THREADS) {
            let outcome = run(case, features, Quirks::default());
            let slips: Vec<_> = outcome.slips.iter().map(ToString::to_string).collect();
            assert!(slips.is_empty(), "{} {features}: {slips:#?}", case.name);
            assert!(outcome.calls > 2, "{} did nothing", case.name);
            let wants_pre_copy = case.name.starts_with("precopy-");
            assert_eq!(
                outcome.inapplicable.is_some(),
                wants_pre_copy && !features.pre_copy(),
                "{} {features}",
                case.name
            );
        }
    }
}

/// G1, G2, G3, G4, G5, G6, G7, G8, R38, C38, C40: Each way to be wrong is found by the case that is about it.
#[test]
fn each_way_to_be_wrong_is_found() {
    let _guard = fd_table_is_mine();
    let wrongs = [
        (Wrong::FeatureArgsz, "feature-argsz"),
        (Wrong::UnknownFlags, "feature-flags"),
        (Wrong::OtherWay, "feature-flags"),
        (Wrong::OtherWay, "feature-probe"),
        (Wrong::ProbeActs, "feature-probe"),
        (Wrong::UnknownFeature, "feature-numbers"),
        (Wrong::AnswerLost, "feature-memory"),
        (Wrong::FdStays, "feature-memory"),
        (Wrong::LogStays, "logging-memory"),
        (Wrong::InfoArgsz, "precopy-argsz"),
        (Wrong::InfoFlags, "precopy-outputs"),
        (Wrong::InfoCount, "precopy-memory"),
        (Wrong::AnswerLost, "precopy-memory"),
        (Wrong::AnyIoctl, "data-fd-ioctls"),
        (Wrong::ReadLoses, "read-memory"),
        (Wrong::WriteOverflows, "write-memory"),
        (Wrong::HasPosition, "positions"),
    ];
    for (wrong, name) in wrongs {
        let quirks = Quirks { wrong: Some(wrong), ..Quirks::default() };
        let outcome = run(case(name), Features::ALL, quirks);
        assert!(!outcome.slips.is_empty(), "{wrong:?} is not found by {name}");
    }
}

/// R12, C1: What a GET and a SET that fails answer is looked at field by field.
#[test]
fn wrong_answers_are_found() {
    let _guard = fd_table_stays_open();
    let outputs = case("feature-outputs");
    for quirks in [
        Quirks { failed_set: Some((State::Running.into(), -1)), ..Quirks::default() },
        Quirks { failed_set: Some((State::Error.into(), 7)), ..Quirks::default() },
    ] {
        assert_eq!(run(outputs, Features::ALL, quirks).slips.len(), 1);
    }
}

/// G9, C42: A device that gives two writers more room than one is found: the threads of this case reach
/// a pipe in place of the device, which takes all.
#[test]
fn an_overrun_is_found() {
    let _guard = fd_table_stays_open();
    let outcome = run(case(THREADS), Features::ALL, Quirks::default());
    let text = outcome.slips[0].to_string();
    assert!(text.contains("two writers at once: expected at most"), "{text}");
}
