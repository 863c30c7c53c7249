// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! More than anybody would give it.

use std::fs::{self, File};
use std::io::{BufWriter, Write};

use super::*;

/// A trace of so many steps.
fn trace(output: &mut impl Write, name: &str, steps: usize) {
    let header = format!(r#"{{"vfio-fsm-trace":1,"name":"{name}","features":7}}"#);
    writeln!(output, "{header}").unwrap();
    for _ in 0..steps {
        writeln!(output, r#"{{"op":"get_state","expect":{{"state":["RUNNING"]}}}}"#).unwrap();
    }
}

/// H54: Ten thousand traces, each a file of its own, or all in one, or through a pipe.
#[test]
fn ten_thousand_traces_are_replayed() {
    const COUNT: usize = 10_000;
    let tool = Tool::new();
    let mut arguments = vec!["--json".to_owned(), "replay".to_owned()];
    let mut all = Vec::new();
    for number in 0..COUNT {
        let path = tool.path(&format!("{number}.jsonl"));
        let mut one = Vec::new();
        trace(&mut one, &format!("many/{number}"), 1);
        fs::write(&path, &one).unwrap();
        all.extend(one);
        arguments.extend(["--traces".to_owned(), path.display().to_string()]);
    }
    fs::write(tool.path("all"), all).unwrap();
    let counted = |output: &Output| {
        ends_with(output, 0);
        let report: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
        report["replay"]["counts"]["pass"].as_u64()
    };
    let many = Some(COUNT as u64);
    assert_eq!(counted(&tool.command(&arguments).output().unwrap()), many);
    let one = ["--json", "replay", "--traces", "all"];
    assert_eq!(counted(&tool.command(one).output().unwrap()), many);
    let mut piped = tool.command(["--json", "replay", "--traces", "/dev/stdin"]);
    let piped = piped.stdin(File::open(tool.path("all")).unwrap());
    assert_eq!(counted(&piped.output().unwrap()), many);
    let cat = "cat all |";
    let mut pipe = Command::new("sh");
    pipe.args(["-c", &format!("{cat} \"$0\" --json replay --traces /dev/stdin")]);
    pipe.arg(crate::program::program());
    assert_eq!(counted(&tool.prepare(pipe, [""; 0]).output().unwrap()), many);
}

/// H54: What is wrong at the very end of a file is found before anything is done to a device.
#[test]
fn a_fault_at_the_end_of_a_file_is_found_first() {
    let tool = Tool::new();
    let mut output = BufWriter::new(File::create(tool.path("file")).unwrap());
    for number in 0..100 {
        trace(&mut output, &format!("many/{number}"), 10);
    }
    trace(&mut output, "many/0", 1);
    drop(output);
    let run = tool.command(["replay", "--events", "--traces", "file"]).output().unwrap();
    complains_of(&run, &["file: line 1101", "many/0"]);
    assert!(run.stdout.is_empty());
}

/// H54: A single trace that is too large for memory is refused by its size.
#[test]
fn a_trace_without_end_is_refused() {
    let tool = Tool::new();
    let mut output = BufWriter::new(File::create(tool.path("file")).unwrap());
    let long = "00".repeat(1 << 20);
    writeln!(output, r#"{{"vfio-fsm-trace":1,"name":"long","features":7}}"#).unwrap();
    for _ in 0..40 {
        writeln!(
            output,
            r#"{{"op":{{"write":{{"fd":1,"bytes":{{"hex":"{long}"}}}}}},"expect":"written"}}"#
        )
        .unwrap();
    }
    drop(output);
    let run = tool.command(["replay", "--traces", "file"]).output().unwrap();
    complains_of(&run, &["long", "67108864 bytes"]);
}

/// H54: A file of a gigabyte is replayed in a fraction of its size.
#[test]
#[ignore = "writes a gigabyte, and takes minutes without optimisation"]
fn a_gigabyte_of_traces_is_replayed_in_little_memory() {
    let tool = Tool::new();
    let mut output = BufWriter::new(File::create(tool.path("file")).unwrap());
    for number in 0..10_000 {
        trace(&mut output, &format!("many/{number}"), 2_200);
    }
    drop(output);
    let size = fs::metadata(tool.path("file")).unwrap().len();
    assert!(size > 1 << 30, "{size}");
    let began = Instant::now();
    let mut running = tool.command(["replay", "--traces", "file"]).spawn().unwrap();
    let mut peak = 0;
    while running.try_wait().unwrap().is_none() {
        let status = fs::read_to_string(format!("/proc/{}/status", running.id())).unwrap();
        let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"));
        let kib = line.and_then(|line| line.trim().strip_suffix(" kB")?.parse().ok());
        peak = kib.unwrap_or(0).max(peak);
        thread::sleep(Duration::from_millis(10));
    }
    ends_with(&running.wait_with_output().unwrap(), 0);
    let seconds = began.elapsed().as_secs_f64();
    println!("{size} bytes of traces: {seconds:.1} s, at most {peak} KiB");
    assert!(peak < 64 << 10, "{peak} KiB");
}
