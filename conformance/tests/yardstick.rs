// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! `vfio-conform bugs`, and the commands of specs/test-your-driver.md.

#![expect(clippy::expect_used, reason = "helpers of tests may fail them")]

use std::collections::{BTreeMap, BTreeSet};

use assert_cmd::Command;
use serde_json::Value;
use vfio_conform::catalogue;
use vfio_fsm_core::device::Bug;

fn run(arguments: &[&str]) -> (i32, String) {
    let mut command = Command::new(env!("CARGO_BIN_EXE_vfio-conform"));
    let output = command.args(arguments).output().expect("it runs");
    let text = String::from_utf8(output.stdout).expect("it is text");
    (output.status.code().expect("no signal ends it"), text)
}

fn names(json: &Value) -> BTreeSet<&str> {
    json.as_array().expect("a list").iter().filter_map(Value::as_str).collect()
}

/// D11: Every bug of the catalogue is planted and found, and by a suite none of whose traces was written
/// for it; or it stands among the survivors with a reason. What finds it on the reference finds it on
/// mlx5, but for what mlx5 has no place for; and neither the learner nor a race is for show.
#[test]
fn every_bug_is_found_or_has_a_reason() {
    let (code, text) = run(&["bugs", "--json"]);
    let json: Value = serde_json::from_str(&text).expect("is JSON");
    assert_eq!(code, 0);
    let planted = json["bugs"]["planted"].as_array().expect("a list");
    let faults: BTreeSet<_> = planted.iter().filter_map(|row| row["fault"].as_str()).collect();
    assert_eq!(faults, Bug::ALL.iter().map(|bug| bug.slug()).collect());
    let mut by = BTreeMap::new();
    for row in planted {
        let found = row["found"].as_object().expect("suites");
        assert!(!found.contains_key("model"), "traces written for a bug do not count");
        let fault = row["fault"].as_str().expect("a name");
        let mut by_suites = 0;
        for (of, found) in found.iter().filter(|(_, found)| !found.is_null()) {
            let trace = found["trace"].as_str().expect("a name");
            assert!(found["step"].as_u64() > Some(0) && !trace.contains(fault), "{row}");
            by_suites += usize::from(!["learner", "mlx5", "race"].contains(&of.as_str()));
            *by.entry(of.clone()).or_insert(0) += 1;
        }
        assert!(by_suites > 0, "{fault} is found by no suite: {row}");
    }
    // All but a few show on mlx5, too (conformance/tests/mlx5.rs has which do not, and why), and most
    // in what is learned; how many races find depends on the threads.
    assert!(by["mlx5"] + 10 > planted.len(), "{by:?}");
    assert!(by["learner"] > planted.len() / 2 && by["race"] > 5, "{by:?}");
    let survivors = json["bugs"]["survivors"].as_array().expect("a list");
    let mut known: BTreeSet<_> = planted.iter().flat_map(|row| names(&row["bugs"])).collect();
    for row in survivors {
        assert!(row["reason"].as_str().is_some_and(|reason| reason.len() > 5), "{row}");
        known.extend(row["bug"].as_str());
    }
    let entries = catalogue::entries().expect("a catalogue");
    assert_eq!(known, entries.iter().map(|entry| entry.id.as_str()).collect());
}

/// What a person sees has 80 columns, and can be had for one bug.
#[test]
fn one_bug_can_be_asked_for() {
    let (code, text) = run(&["bugs", "B48", "get-says-running", "B31"]);
    assert_eq!(code, 0, "{text}");
    assert!(text.lines().all(|line| line.chars().count() <= 80), "{text}");
    for part in ["3 of 3 found", "B48  reset-keeps-state", "-  get-says-running", "B31  ", "faults"]
    {
        assert!(text.contains(part), "{part}: {text}");
    }
    assert_eq!(run(&["bugs", "B99"]).0, 2);
}

/// Every command of the page is one: its options exist.
#[test]
fn the_commands_of_the_page_are_commands() {
    let page = include_str!("../specs/test-your-driver.md");
    let commands = page.lines().filter_map(|line| line.strip_prefix("vfio-conform "));
    let mut count = 0;
    for command in commands {
        let words = command.split('#').next().unwrap_or_default();
        let arguments: Vec<_> = words.split_whitespace().chain(["--help"]).collect();
        let (code, text) = run(&arguments);
        assert_eq!(code, 0, "{command}: {text}");
        count += 1;
    }
    assert!(count > 8, "{count} commands were found");
}

/// The reference has no memory to be abused with, and says so.
#[test]
fn abuse_wants_a_device_node() {
    assert_eq!(run(&["abuse", "--target", "reference"]).0, 2);
    assert_eq!(run(&["abuse", "--target", "kernel:/no/such/device"]).0, 2);
}
