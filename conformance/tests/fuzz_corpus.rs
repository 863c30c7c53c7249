// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! What `conformance/fuzz` holds against any bytes, on the committed ones: on a toolchain of any kind,
//! and without a fuzzer.

#![expect(
    clippy::expect_used,
    clippy::panic,
    unreachable_pub,
    reason = "properties fail as tests do; they are of a crate of their own, too"
)]

#[path = "../fuzz/src/lib.rs"]
mod fuzz;

use std::fs;
use std::path::{Path, PathBuf};

fn folder(target: &str) -> PathBuf {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    // Shared with tests/trace_fuzz.rs.
    if target == "trace" {
        root.join("tests/corpus")
    } else {
        root.join("fuzz/corpus").join(target)
    }
}

/// Every committed input of a target, each with its name.
fn corpus(target: &str) -> Vec<(String, Vec<u8>)> {
    let files = fs::read_dir(folder(target)).expect("the corpus is there");
    let paths = files.map(|file| file.expect("an entry").path());
    let mut inputs: Vec<_> = paths
        .map(|path| {
            let name = path.file_name().expect("it has a name").to_string_lossy().into_owned();
            (name, fs::read(&path).expect("it is a file"))
        })
        .collect();
    inputs.sort_unstable();
    inputs
}

/// Seeds that are made are committed as they are made. `UPDATE_EXPECT=1` writes them.
fn committed(target: &str, seeds: Vec<(&'static str, Vec<u8>)>) {
    for (name, bytes) in seeds {
        let path = folder(target).join(name);
        if std::env::var_os("UPDATE_EXPECT").is_some() {
            fs::write(&path, &bytes).expect("it can be written");
        }
        let there = fs::read(&path).unwrap_or_default();
        assert!(there == bytes, "{target}/{name} is another; run with UPDATE_EXPECT=1");
    }
}

/// D1: Whatever bytes a trace file has, it is refused, or prints and parses to itself and can be
/// replayed; the corpus has files of both kinds.
#[test]
fn traces() {
    let read = corpus("trace").iter().filter(|(_, file)| fuzz::trace::check(file) > 0).count();
    assert!(read > 5, "{read}");
}

/// D2: Whatever bytes a framed stream has, a decoder keeps to its limits, a session comes to the same
/// end in whatever pieces it comes, and what is accepted is written again as what it was.
#[test]
fn frames() {
    committed("frame", fuzz::frame::seeds());
    let whole = corpus("frame").iter().filter(|(_, input)| fuzz::frame::check(input)).count();
    assert!(whole >= 4, "{whole}");
}

/// D3: Whatever bytes a stream of mlx5's has, it says the same in whatever pieces it comes, and what
/// is accepted is written again as what it was.
#[test]
fn records() {
    committed("record", fuzz::record::seeds());
    corpus("record").iter().for_each(|(_, input)| fuzz::record::check(input));
}

/// D4: Whatever a driver writes into the command queue, the software firmware answers it, and a command
/// with a bad status has changed nothing.
#[test]
fn commands() {
    committed("firmware", fuzz::firmware::seeds());
    corpus("firmware").iter().for_each(|(_, input)| fuzz::firmware::check(input));
}

/// D5: Whatever bytes a recording has, it is refused, or written and read again as itself, and judged
/// without a panic; the corpus has files of both kinds.
#[test]
fn recordings() {
    let all = corpus("recording");
    let read = all.iter().filter(|(_, file)| fuzz::recording::check(file) > 0).count();
    assert!((4..all.len()).contains(&read), "{read} of {}", all.len());
}
