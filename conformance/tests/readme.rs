// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! The README shows what the main job prints: it must be what it prints.

#![expect(clippy::expect_used, reason = "helpers of tests may fail them")]

use std::path::Path;
use std::process::Command;

use regex::Regex;

/// The first sample in the README that `shows`.
fn sample(shows: &str) -> String {
    let readme = Path::new(env!("CARGO_MANIFEST_DIR")).join("../README.md");
    let readme = std::fs::read_to_string(readme).expect("the README is there");
    let sample = readme.split("```text\n").skip(1).find(|block| block.contains(shows));
    sample.and_then(|block| block.split("```").next()).expect("there is a sample").to_owned()
}

/// Every line of the README's sample output is printed by the main job, times aside.
#[test]
fn the_readme_shows_what_is_printed() {
    let sample = sample("model, level 1");
    let output = Command::new(env!("CARGO_BIN_EXE_vfio-conform")).output().expect("it runs");
    assert!(output.status.success(), "{output:?}");
    let output = String::from_utf8(output.stdout).expect("it prints text");
    let time = Regex::new(r"\d+\.\d s").expect("a good expression");
    let printed: Vec<_> = output.lines().map(|line| time.replace(line, "N s")).collect();
    let shown = sample.lines().filter(|line| line.trim() != "...");
    for line in shown.map(|line| time.replace(line, "N s")) {
        assert!(printed.contains(&line), "the README shows {line:?}, which is not printed");
    }
}
