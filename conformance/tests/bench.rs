// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! `vfio-conform bench` as its user meets it. No figure is judged here but for what is counted.
#![expect(clippy::unwrap_used, reason = "helpers of tests fail as tests do")]

use std::fs;
use std::process::{Command, Output, Stdio};

use serde_json::Value;

fn bench(arguments: &[&str]) -> Output {
    let mut command = assert_cmd::cargo::cargo_bin_cmd!("vfio-conform");
    command.arg("bench").args(arguments).output().unwrap()
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

/// B1, B2: Suites are no shorter than the least there can be, a tour of transitions and every suite
/// is made again, and what is said fits a terminal; how they grow is drawn, a file each.
#[test]
fn suites_are_measured_and_drawn() {
    let directory = tempfile::tempdir().unwrap();
    let svg = directory.path().join("svg");
    let output = bench(&["suites", "--svg", svg.to_str().unwrap()]);
    assert!(output.status.success(), "{}", text(&output.stderr));
    let out = text(&output.stdout);
    assert!(out.lines().all(|line| line.chars().count() <= 80), "{out}");
    assert!(out.contains("tour of all transitions") && out.contains("steps/s"), "{out}");
    let drawn = fs::read_to_string(svg.join("suite-over-k.svg")).unwrap();
    assert!(drawn.starts_with("<svg") && drawn.trim_end().ends_with("</svg>"));
    for text in ["inputs", "states that an implementation may have", "STOP_COPY"] {
        assert!(drawn.contains(text), "{text} is not in the drawing");
    }

    let output = bench(&["--json", "suites"]);
    let json: Value = serde_json::from_slice(&output.stdout).unwrap();
    assert!(!json["bench"]["machine"].as_str().unwrap().is_empty());
    let rows = json["bench"]["tables"][0]["rows"].as_array().unwrap();
    assert_eq!(rows.len(), 7);
    for row in rows {
        let [inputs, least, ratio] = [0, 1, 2].map(|at| row["figures"][at].as_f64().unwrap());
        assert!(inputs >= least && least > 0.0 && ratio >= 1.0, "{row}");
    }
    let lines = json["bench"]["curves"][0]["lines"].as_array().unwrap();
    assert_eq!(lines.len(), 4);
    for line in lines {
        let sizes: Vec<_> = line["points"].as_array().unwrap().iter().collect();
        assert!(sizes.windows(2).all(|pair| pair[0][1].as_f64() < pair[1][1].as_f64()), "{line}");
    }
}

/// B4: What the comparison with the kernel lacks is said, and is no failure.
#[test]
fn what_a_comparison_lacks_is_said() {
    let mut command = assert_cmd::cargo::cargo_bin_cmd!("vfio-conform");
    // A PATH with nothing on it but a shell's tools: no valgrind, no compiler, no cargo.
    let tools = tempfile::tempdir().unwrap();
    for tool in ["sh", "dirname", "mktemp", "rm"] {
        let real = ["/usr/bin", "/bin"].map(|at| std::path::Path::new(at).join(tool));
        let real = real.iter().find(|path| path.exists()).unwrap();
        std::os::unix::fs::symlink(real, tools.path().join(tool)).unwrap();
    }
    let home = tools.path().join("home");
    command.env("PATH", tools.path()).env("HOME", &home).env_remove("XDG_CACHE_HOME");
    let output = command.args(["bench", "lookup"]).output().unwrap();
    let out = text(&output.stdout);
    assert!(output.status.success() && out.contains("not measured"), "{out}");
    assert!(out.contains("is not installed"), "{out}");
    assert!(out.lines().all(|line| line.chars().count() <= 80), "{out}");
}

/// B5: The first Ctrl-C ends a measurement with what there is, and 3.
#[test]
fn a_measurement_can_be_cut_short() {
    let mut command = Command::new(assert_cmd::cargo::cargo_bin!("vfio-conform"));
    command.args(["bench", "stream"]).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut running = command.spawn().unwrap();
    // It says what it measures once it heeds the signal.
    let mut lines =
        std::io::BufRead::lines(std::io::BufReader::new(running.stderr.take().unwrap()));
    assert!(lines.next().unwrap().unwrap().contains("measuring"));
    let sent = Command::new("kill").args(["-INT", &running.id().to_string()]).status().unwrap();
    assert!(sent.success());
    lines.for_each(drop);
    let output = running.wait_with_output().unwrap();
    let out = text(&output.stdout);
    assert_eq!(output.status.code(), Some(3), "{out}");
    assert!(out.trim_end().ends_with("cut short"), "{out}");
}
