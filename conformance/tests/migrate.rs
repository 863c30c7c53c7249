// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! Whole migrations with a reset or a cancel at every step, on the reference device: what they come
//! to, that a bug in a device shows, and the command.
#![expect(clippy::expect_used, clippy::unwrap_used, reason = "helpers of tests fail as tests do")]

use std::collections::BTreeSet;

use expect_test::expect_file;
use serde_json::Value;
use vfio_conform::migrate::{self, Case, CaseReport, Matrix, Outcome, Seeds, Seen, Told};
use vfio_fsm_core::Features;
use vfio_fsm_core::device::Bug;

fn matrix(features: Features, bug: Option<Bug>) -> Matrix {
    migrate::in_memory(features, bug, 0, &mut |_progress| {}).expect("it can be run")
}

/// V5, V6, V7, V8, O1, O2, O3, O4: wherever a reset falls, and whatever the VMM chooses, the
/// destination equals the source after it, or the source runs.
#[test]
fn the_matrix_has_the_shape_that_was_reviewed() {
    let matrix = matrix(Features::ALL, None);
    assert!(matrix.is_good(0), "{matrix}");
    expect_file!["snapshots/migrate.txt"].assert_eq(&matrix.to_string());
    let wide: Vec<_> =
        matrix.to_string().lines().filter(|line| line.len() > 80).map(str::to_owned).collect();
    assert!(wide.is_empty(), "wider than a terminal: {wide:#?}");
}

/// V7: without PRE_COPY nothing can be restarted, and all the same every run ends as it must.
#[test]
fn the_matrix_is_good_on_all_four_sets_of_flags() {
    for features in Features::SETS {
        let matrix = matrix(features, None);
        assert!(matrix.is_good(0), "{matrix}");
        let ended: BTreeSet<_> =
            matrix.cases.iter().flat_map(|case| case.outcomes.keys()).collect();
        let all = [Outcome::Equal, Outcome::Whole, Outcome::Aborted];
        assert_eq!(ended, BTreeSet::from(all.each_ref()), "{features}");
    }
}

/// V5: each of the four ways in which a reset shows itself is met, and none where there is none.
#[test]
fn all_four_ways_are_met() {
    let matrix = matrix(Features::ALL, None);
    let seen = matrix.seen();
    for way in [Seen::DeadFd, Seen::UnexpectedFd, Seen::AlreadyRunning, Seen::DeferredIntoSet] {
        assert!(seen.contains_key(&way), "{way} was not met");
    }
    let quiet = matrix.cases.iter().filter(|report| report.case.reset().is_none());
    assert!(quiet.flat_map(|report| report.seen.keys()).all(|&seen| seen == Seen::Not));
}

/// V7: with everything going wrong at random.
#[test]
fn thousands_of_runs_at_random_end_as_they_must() {
    let seeds = Seeds::run(0..4000, None).expect("they can be run");
    assert!(seeds.is_good(), "{seeds}");
    // All of it happens: or nothing is shown.
    assert!(seeds.by_host > 0 && seeds.by_host < seeds.resets, "{seeds}");
    for outcome in [Outcome::Equal, Outcome::Whole, Outcome::Aborted, Outcome::Stuck] {
        assert!(seeds.outcomes.contains_key(&outcome), "no run is {outcome}: {seeds}");
    }
}

/// A seed makes the same run whenever it is run, and another seed another one.
#[test]
fn a_seed_can_be_repeated() {
    let told = |seed| serde_json::to_value(Told::run(seed, None).unwrap()).unwrap();
    let all: Vec<_> = (0..50).map(told).collect();
    assert_eq!(all, (0..50).map(told).collect::<Vec<_>>());
    let stories: BTreeSet<_> = all.iter().map(|told| told["story"].to_string()).collect();
    assert!(stories.len() > 45, "{} stories of 50 seeds", stories.len());
}

/// What fails among many fails alone, too, and is told.
#[test]
fn a_failing_seed_fails_again() {
    let bug = Some(Bug::ResetKeepsState);
    let seeds = Seeds::run(0..100, bug).expect("they can be run");
    let (seed, failure) = seeds.failures.first_key_value().expect("one fails");
    assert!(seeds.to_string().contains(&format!("--seed {seed}")), "{seeds}");
    let told = Told::run(*seed, bug).expect("it can be run");
    assert_eq!(told.wrong.as_deref(), Some(failure.what.as_str()));
    assert_eq!(told.story, failure.story);
}

/// V5, V7, V8: bugs of a device that a migration depends on make the matrix fail, or, where it
/// takes a fault besides, the runs at random.
#[test]
fn bugs_that_a_migration_depends_on_are_caught() {
    let by_the_matrix = [
        Bug::ResetKeepsSession,
        Bug::ResetKeepsState,
        Bug::LoseDeferredReset,
        Bug::FreshFdInSavingGroup,
        Bug::StopCopyEndsForNow,
        Bug::ResetKeepsData,
        Bug::StopsShort,
        Bug::GetSaysRunning,
    ];
    for bug in by_the_matrix {
        let matrix = matrix(Features::ALL, Some(bug));
        assert!(!matrix.is_good(0), "{} passes", bug.slug());
        assert!(matrix.to_string().contains("FAIL: migrate/"), "{matrix}");
    }
    for bug in [Bug::ResetStaysInError, Bug::LeaksLock] {
        let seeds = Seeds::run(0..2000, Some(bug)).expect("they can be run");
        assert!(!seeds.is_good(), "{} passes", bug.slug());
    }
}

fn events() -> Vec<Value> {
    let mut lines = Vec::new();
    let mut on =
        |progress: migrate::Progress<'_>| lines.push(serde_json::to_value(progress).unwrap());
    migrate::in_memory(Features::ALL, None, 0, &mut on).expect("it can be run");
    lines
}

/// What another process tells line by line makes the same matrix here.
#[test]
fn a_matrix_can_be_told_as_events() {
    let events = events();
    let told = Matrix::collect(&events).expect("they are of this version");
    assert_eq!(told, matrix(Features::ALL, None));
    assert_eq!(events.last().unwrap()["event"], "done");
    let begun = events.iter().filter(|event| event["event"] == "begin").count();
    assert_eq!(begun, told.planned);
}

/// Cases that are missing, and a kernel that cried out, are failures.
#[test]
fn what_is_missing_or_crashed_is_not_good() {
    let events = events();
    assert!(!Matrix::collect([]).unwrap().is_good(0), "nothing was run");
    let some = Matrix::collect(&events[..events.len() / 2]).unwrap();
    assert!(!some.is_good(0), "half was run");

    let mut crashed = Matrix::collect(&events).unwrap();
    crashed.crashed(7, "oops", "one line\nand another");
    assert!(!crashed.is_good(0));
    let (case, failure) = crashed.failures().next().expect("it is one");
    assert_eq!((case, failure.what.as_str()), (&Case::Cancel { step: 7 }, "the kernel: oops"));
    assert_eq!(failure.story, ["one line", "and another"]);

    let mut cut = Matrix::collect(&events[..3]).unwrap();
    cut.crashed(1, "silence", "");
    assert_eq!(cut.cases.len(), 2, "the case that had no verdict has one now");
    let hung = migrate::Hang { index: 3, case: Case::Undisturbed, op: "SET STOP".to_owned() };
    assert_eq!(CaseReport::hung(&hung).failures[0].what, "SET STOP does not return");
}

mod command {
    use assert_cmd::cargo::cargo_bin_cmd;
    use serde_json::Value;

    /// Exit code, standard output, standard error.
    fn run(arguments: &[&str]) -> (Option<i32>, String, String) {
        let output = cargo_bin_cmd!("vfio-conform").arg("migrate").args(arguments).output();
        let output = output.expect("it can be run");
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        (output.status.code(), text(&output.stdout), text(&output.stderr))
    }

    #[test]
    fn it_prints_the_table_and_ends_with_0() {
        let (code, out, err) = run(&["--seeds", "20"]);
        assert_eq!((code, err.as_str()), (Some(0), ""));
        for text in ["175 of 175 cases", "stop-copy", "at random: 20 migrations", "0 failed"] {
            assert!(out.contains(text), "{text:?} is not in: {out}");
        }
    }

    #[test]
    fn a_bug_is_1_with_a_trace_and_how_to_repeat_it() {
        let target = ["--target", "reference:reset-keeps-session"];
        let (code, out, _) = run(&[target[0], target[1], "--seeds", "300"]);
        assert_eq!(code, Some(1));
        for text in ["FAIL: migrate/", "SET STOP_COPY: ", "destination:", "--seed "] {
            assert!(out.contains(text), "{text:?} is not in: {out}");
        }
        let (_, seed) = out.split_once("repeat it with --seed ").expect("a seed fails");
        let seed = seed.lines().next().expect("a line");
        let (code, out, _) = run(&[target[0], target[1], "--seed", seed]);
        assert_eq!(code, Some(1));
        assert!(out.contains(&format!("FAIL: seed {seed}: ")), "{out}");
    }

    #[test]
    fn json_has_every_case() {
        let (code, out, _) = run(&["--seeds", "20", "--json"]);
        assert_eq!(code, Some(0));
        let json: Value = serde_json::from_str(&out).expect("one object");
        let matrix = &json["migrate"]["matrix"];
        assert_eq!(matrix["cases"].as_array().map(Vec::len), Some(175));
        assert_eq!(matrix["planned"], 175);
        assert_eq!(json["migrate"]["at_random"]["runs"], 20);
        let (code, out, _) = run(&["--seed", "3", "--json"]);
        assert_eq!(code, Some(0));
        let json: Value = serde_json::from_str(&out).expect("one object");
        assert_eq!(json["migrate"]["seed"], 3);
    }

    #[test]
    fn events_come_one_a_line_from_where_they_are_wanted() {
        let (code, out, _) = run(&["--seeds", "0", "--events", "--from", "173"]);
        assert_eq!(code, Some(0));
        let lines: Vec<Value> =
            out.lines().map(|line| serde_json::from_str(line).expect("JSON")).collect();
        let kinds: Vec<_> = lines.iter().map(|line| line["event"].as_str().unwrap_or("")).collect();
        assert_eq!(kinds, ["planned", "begin", "verdict", "begin", "verdict", "done"]);
        assert_eq!(lines[1]["index"], 173);
    }

    #[test]
    fn wrong_use_is_2() {
        let cases: &[(&[&str], &str)] = &[
            (&["--target", "bogus"], "kernel:DEVICE[,DEVICE] or vfio-user:SOCKET"),
            (&["--target", "kernel:one", "--touch", "0:7"], "two devices"),
            (&["--target", "kernel:one,two"], "--touch REGION:OFFSET"),
            (&["--target", "kernel:one,two", "--seeds", "5"], "devices in memory"),
            (&["--target", "kernel:/no/such,/device", "--touch", "0:7"], "/no/such"),
            (&["--touch", "7"], "REGION:OFFSET"),
            (&["--rounds", "0"], "--rounds"),
            (&["--seed", "1", "--seeds", "2"], "cannot be used with"),
            (&["--from", "175"], "there are 175 cases"),
        ];
        for (arguments, complaint) in cases {
            let (code, out, err) = run(arguments);
            assert_eq!((code, out.as_str()), (Some(2), ""), "{arguments:?}: {err}");
            assert!(err.contains(complaint), "{complaint:?} is not in: {err}");
        }
    }
}
