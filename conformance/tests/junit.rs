// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! `vfio-conform replay --junit`: every trace is a test, with its verdict.

#![expect(clippy::unwrap_used, reason = "helpers of tests may fail them")]

use std::fs;

use assert_cmd::Command;
use regex::Regex;

/// The exit status, and the XML.
fn replay(arguments: &[&str]) -> (i32, String) {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("junit.xml");
    let mut command = Command::new(env!("CARGO_BIN_EXE_vfio-conform"));
    command.args(["replay", "--junit"]).arg(&path).args(arguments);
    let code = command.output().unwrap().status.code().unwrap();
    (code, fs::read_to_string(path).unwrap_or_default())
}

fn count(pattern: &str, text: &str) -> usize {
    Regex::new(pattern).unwrap().find_iter(text).count()
}

/// D12: A test for each trace, in a suite of its suite; what fails says at which step and why.
#[test]
fn every_trace_is_a_test() {
    let selected = ["--suite", "arcs", "--suite", "fds"];
    let (code, xml) = replay(&selected);
    assert_eq!(code, 0, "{xml}");
    assert_eq!(count("<testsuite ", &xml), 2, "{xml}");
    let tests = count("<testcase ", &xml);
    assert!(tests > 500 && count("<failure", &xml) == 0, "{tests}");
    let broken = [&selected[..], &["--target", "reference:reset-keeps-session"]].concat();
    let (code, xml) = replay(&broken);
    assert_eq!(code, 1);
    assert_eq!(count("<testcase ", &xml), tests);
    let failures = count(r#"<failure message="step \d+: "#, &xml);
    assert!(failures > 0 && failures == count("<failure", &xml), "{xml}");
}

/// D12: A file that cannot be written is said, and is no verdict.
#[test]
fn a_file_that_cannot_be_written_is_2() {
    let mut command = Command::new(env!("CARGO_BIN_EXE_vfio-conform"));
    command.args(["replay", "--suite", "fds", "--junit", "/no/such/folder/junit.xml"]);
    assert_eq!(command.output().unwrap().status.code(), Some(2));
}
