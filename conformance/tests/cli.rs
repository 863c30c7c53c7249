// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! The program as its user meets it: exit codes, messages, JSON, files and pipes. Whatever it is
//! given, it does not panic.
#![expect(clippy::expect_used, clippy::panic, reason = "helpers of tests fail as tests do")]

mod program;

use std::ffi::OsStr;
use std::fs;
use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

use program::program;
use serde_json::Value;
use tempfile::TempDir;

/// Longer than anything takes, on a busy machine, without optimisation.
const PATIENCE: Duration = Duration::from_secs(300);

/// What makes a program take anything for a terminal with colour, or for none: a machine of CI sets
/// the first of them.
const COLOUR_VARIABLES: [&str; 4] = ["CI", "CLICOLOR", "CLICOLOR_FORCE", "NO_COLOR"];

/// How a run ended.
struct Ran {
    code: Option<i32>,
    out: String,
    err: String,
}

/// Run the program to its end, which is never a panic.
fn run<A: AsRef<OsStr>>(arguments: impl IntoIterator<Item = A>) -> Ran {
    let mut command = assert_cmd::Command::new(program());
    for variable in COLOUR_VARIABLES {
        command.env_remove(variable);
    }
    let output = command.args(arguments).timeout(PATIENCE).output().expect("it can be run");
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    let ran =
        Ran { code: output.status.code(), out: text(&output.stdout), err: text(&output.stderr) };
    assert!(!ran.err.contains("panicked"), "{}", ran.err);
    ran
}

impl Ran {
    /// The exit code, with everything said if it is another one.
    #[track_caller]
    fn ends_with(self, code: i32) -> Self {
        let Self { code: is, out, err } = &self;
        let out: String = out.chars().take(2000).collect();
        assert_eq!(*is, Some(code), "\nstdout: {out}\nstderr: {err}");
        self
    }

    /// A complaint that has all of this, and nothing on standard output.
    #[track_caller]
    fn complains_of(self, all: &[&str]) {
        let ran = self.ends_with(2);
        assert_eq!(ran.out, "", "a complaint belongs on standard error");
        for text in all {
            assert!(ran.err.contains(text), "{text:?} is not in: {}", ran.err);
        }
    }

    fn json(&self) -> Value {
        serde_json::from_str(&self.out).unwrap_or_else(|error| panic!("{error}: {}", self.out))
    }
}

fn directory() -> TempDir {
    tempfile::tempdir().expect("a temporary directory")
}

fn file(directory: &TempDir, name: &str, content: impl AsRef<[u8]>) -> PathBuf {
    let path = directory.path().join(name);
    fs::write(&path, content).expect("the temporary directory takes files");
    path
}

fn text(path: &Path) -> &str {
    path.to_str().expect("the names of these tests are text")
}

/// The names of the planted bugs, as the program gives them to a user who guesses.
fn bugs() -> Vec<String> {
    let ran = run(["replay", "--target", "reference:?"]).ends_with(2);
    let (_, list) = ran.err.split_once("there are ").expect("the complaint lists them");
    let list = list.lines().next().expect("a line");
    list.split(", ").map(str::to_owned).collect()
}

fn counts(ran: &Ran) -> Value {
    ran.json()["replay"]["counts"].clone()
}

// ---------------------------------------------------------------------------------------------
// Exit codes

#[test]
fn without_arguments_it_does_the_main_job() {
    let ran = run([""; 0]).ends_with(0);
    for text in
        ["model, level 1", "suites", "0 fail", "mlx5 with chunks", "planted bugs", "all good"]
    {
        assert!(ran.out.contains(text), "{text:?} is not in: {}", ran.out);
    }
    assert!(!ran.out.contains("FAIL"), "{}", ran.out);
}

#[test]
fn a_failing_verdict_is_1() {
    let ran = run(["replay", "--target", "reference:reset-keeps-state"]).ends_with(1);
    assert!(ran.out.contains("FAIL: "), "{}", ran.out);
    assert!(ran.out.contains("expected "), "{}", ran.out);
    // Its beginning is on the screen and all of it in the JSON, and both say how much that is.
    assert!(ran.out.contains("failures more; --json has them all"), "{}", ran.out);
    run(["replay", "--target", "reference"]).ends_with(0);
}

/// M141: the main job runs the suites on mlx5, too; and complete suites, and the learner.
#[cfg(feature = "mlx5")]
#[test]
fn mlx5_is_a_target_of_every_command() {
    let ran = run(["complete", "run", "--target", "mlx5", "--extra", "1"]).ends_with(0);
    assert!(ran.out.contains("0 fail") && ran.out.contains("8 + 1"), "{}", ran.out);
    let ran = run(["learn", "--target", "mlx5:chunks"]).ends_with(0);
    assert!(ran.out.contains("no difference"), "{}", ran.out);
    let bug = "mlx5:chunks:reset-keeps-state";
    let ran = run(["learn", "--target", bug]).ends_with(1);
    assert!(ran.out.contains("differs"), "{}", ran.out);
    let ran = run(["replay", "--target", bug, "--suite", "resets"]).ends_with(1);
    assert!(ran.out.contains("mlx5 with chunks with reset-keeps-state"), "{}", ran.out);
    run(["migrate", "--target", "mlx5", "--seed", "7"]).ends_with(0);
    run(["replay", "--target", "mlx5:?"]).complains_of(&["no bug is named", "reset-keeps-state"]);
    run(["replay", "--target", "mlx"]).complains_of(&["mlx5[:chunks][:BUG]"]);
}

/// M145: what a check against other people's code lacks is said, with what to do.
#[cfg(all(feature = "mlx5", feature = "lab"))]
#[test]
fn what_mlx5_verify_lacks_is_2() {
    let cache = directory();
    let at = text(cache.path());
    let verify = ["mlx5", "verify", "--cache", at];
    let missing = ["--compiler", "no-such-compiler"];
    run(verify.iter().chain(&missing)).complains_of(&["no-such-compiler", "apt-get install"]);
    run(["mlx5", "verify", "--cache", "relative/place"]).complains_of(&["--cache"]);
    // A mirror that cannot be reached, and lists that hold nothing.
    let tools = directory();
    for tool in ["apt-get", "apt-cache"] {
        let path = file(&tools, tool, "#!/bin/sh\necho no route to the mirror >&2\nexit 100\n");
        let mut rights = fs::metadata(&path).expect("it is there").permissions();
        std::os::unix::fs::PermissionsExt::set_mode(&mut rights, 0o755);
        fs::set_permissions(&path, rights).expect("it is ours");
    }
    let path = std::env::var("PATH").expect("there is one");
    let path = format!("{}:{path}", text(tools.path()));
    let mut command = assert_cmd::Command::new(program());
    let output = command.args(verify).env("PATH", path).timeout(PATIENCE).output();
    let output = output.expect("it can be run");
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!(output.status.code(), Some(2), "{said}");
    assert!(said.contains("check the network") && said.contains("no route"), "{said}");
}

#[test]
fn help_says_what_the_exit_codes_mean() {
    let ran = run(["--help"]).ends_with(0);
    assert!(ran.out.contains("0 all good, 1 a verdict failed, 2 wrong use"), "{}", ran.out);
    assert!(ran.out.contains("3 a check was cut short"), "{}", ran.out.replace('\n', " "));
    for command in ["run", "check", "bench", "generate", "replay", "migrate", "lab"] {
        assert!(ran.out.contains(command), "{command}");
        run([command, "--help"]).ends_with(0);
    }
    run(["--version"]).ends_with(0);
}

/// Wrong use is 2, and says what would have been right.
#[test]
fn wrong_use_is_2() {
    let cases: &[(&[&str], &[&str])] = &[
        (&["bogus"], &["bogus", "--help"]),
        (&["replay", "--bogus"], &["--bogus", "--help"]),
        (&["replay", "--suite", "bogus"], &["bogus", "arcs, resets, fds, streams"]),
        (
            &["replay", "--target", "bogus"],
            &["bogus", "kernel:DEVICE[,DEVICE] or vfio-user:SOCKET"],
        ),
        (&["replay", "--target", "reference:bogus"], &["bogus", "reset-keeps-state"]),
        (&["replay", "--target", "kernel:"], &["kernel:", "kernel:DEVICE"]),
        (&["replay", "--target", "kernel:a,b,c"], &["kernel:a,b,c", "at most two devices"]),
        (&["replay", "--touch", "7"], &["7", "REGION:OFFSET"]),
        (&["replay", "--from", "-1"], &["-1", "--help"]),
        (&["replay", "--deviations", "bogus"], &["bogus", "mtty", "specs/deviations/README.md"]),
        (&["replay", "--only", "["], &["--only <GLOB>", "[", "position"]),
        (&["replay", "--only", "bogus/*"], &["no trace is selected", "generate --out -"]),
        (&["generate", "--out", "-", "--only", "bogus/*"], &["no trace is selected"]),
        (&["lab", "--only", "bogus/*"], &["no trace is selected"]),
        (&["lab", "--migrate", "--only", "arcs/*"], &["--migrate", "cannot be used with"]),
        (&["check", "--model", "Saver", "--runs"], &["--runs", "cannot be used with"]),
        (&["check", "--features", "full", "--counterexamples", "x"], &["cannot be used with"]),
        (&["lab", "--rounds", "0"], &["--rounds"]),
        (&["lab", "--watchdog", "soon"], &["soon", "--watchdog"]),
    ];
    for (arguments, says) in cases {
        run(*arguments).complains_of(says);
    }
}

// ---------------------------------------------------------------------------------------------
// Trace files that are none

const HEADER: &str = r#"{"vfio-fsm-trace":1,"name":"a/b","features":7}"#;
const STEP: &str = r#"{"op":"reset","expect":"ok"}"#;
const RESUME: &str = r#"{"op":{"set_state":{"to":"RESUMING"}},"expect":{"fd":1}}"#;
const SAVE: &str = r#"{"op":{"read":{"fd":1,"len":9}},"into":0,"expect":{"errno":"EBADF"}}"#;

/// A file of these lines.
fn lines(lines: &[&str]) -> Vec<u8> {
    let mut text = lines.join("\n").into_bytes();
    text.push(b'\n');
    text
}

fn write(bytes: &str) -> String {
    format!(r#"{{"op":{{"write":{{"fd":1,"bytes":{bytes}}}}},"expect":"written"}}"#)
}

/// Each with the line that is wrong, and what the message says of it.
fn malformed() -> Vec<(&'static str, Vec<u8>, usize, &'static [&'static str])> {
    let header = |from: &str, to: &str| HEADER.replace(from, to);
    let step = |from: &str, to: &str| STEP.replace(from, to);
    let binary: Vec<u8> =
        (0..4096_u32).map(|n| (n.wrapping_mul(2_654_435_761) >> 11) as u8).collect();
    const FORMAT: &str = "specs/trace-format.md";
    vec![
        ("not-json", lines(&["hello"]), 1, &["expected value", FORMAT]),
        ("not-an-object", lines(&[HEADER, "17"]), 2, &[FORMAT]),
        ("an-array", lines(&["[1,\"a/b\",7,[],null]"]), 1, &[FORMAT]),
        ("binary", binary, 1, &[FORMAT]),
        ("nul-bytes", vec![0; 100], 1, &[FORMAT]),
        (
            "not-utf8",
            lines(&[HEADER]).into_iter().map(|b| if b == b'a' { 0xff } else { b }).collect(),
            1,
            &[FORMAT],
        ),
        (
            "unknown-key",
            lines(&[HEADER, &step("{", r#"{"colour":1,"#)]),
            2,
            &["colour", "`same_as`", FORMAT],
        ),
        (
            "unknown-key-of-header",
            lines(&[&header("{", r#"{"colour":1,"#)]),
            1,
            &["colour", "`covers`", FORMAT],
        ),
        (
            "key-twice",
            lines(&[HEADER, &step("{", r#"{"op":"reset","#)]),
            2,
            &["duplicate field `op`", FORMAT],
        ),
        (
            "unknown-op",
            lines(&[HEADER, STEP, &step("reset", "explode")]),
            3,
            &["explode", "`set_state`", FORMAT],
        ),
        (
            "unknown-expectation",
            lines(&[HEADER, &step("ok", "fine")]),
            2,
            &["fine", "`any_of`", FORMAT],
        ),
        (
            "unknown-state",
            lines(&[HEADER, &RESUME.replace("RESUMING", "JUMPING")]),
            2,
            &["unknown device_state \"JUMPING\"", FORMAT],
        ),
        (
            "unknown-errno",
            lines(&[HEADER, &SAVE.replace("EBADF", "EODD")]),
            2,
            &["unknown errno \"EODD\"", FORMAT],
        ),
        (
            "state-over-32-bits",
            lines(&[HEADER, &RESUME.replace("\"RESUMING\"", "4294967296")]),
            2,
            &["over 32 bits", FORMAT],
        ),
        (
            "no-expectation",
            lines(&[HEADER, r#"{"op":"reset"}"#]),
            2,
            &["missing field `expect`", FORMAT],
        ),
        (
            "illegal-features",
            lines(&[&header("7", "6"), STEP]),
            1,
            &["0x6 are not a legal set", FORMAT],
        ),
        (
            "newer-version",
            lines(&[&header(":1,", r#":2,"colour":1,"#), STEP]),
            1,
            &["version 2", "reads version 1", "a newer one"],
        ),
        ("version-0", lines(&[&header(":1,", ":0,"), STEP]), 1, &["version 0", "reads version 1"]),
        (
            "version-beyond-u32",
            lines(&[&header(":1,", ":4294967297,"), STEP]),
            1,
            &["version 4294967297", "reads version 1"],
        ),
        ("version-no-number", lines(&[&header(":1,", ":\"1\","), STEP]), 1, &[FORMAT]),
        (
            "step-before-header",
            lines(&[STEP, HEADER, STEP]),
            1,
            &["before the first header", "vfio-fsm-trace"],
        ),
        (
            "name-twice",
            lines(&[HEADER, STEP, HEADER, STEP]),
            3,
            &["a second trace", "\"a/b\"", "unique"],
        ),
        ("empty", Vec::new(), 1, &["no trace in the file", "vfio-conform generate"]),
        ("blank", b"\n \n\n".to_vec(), 1, &["no trace in the file"]),
        ("header-only", lines(&[HEADER]), 1, &["\"a/b\" has no step", "cut off"]),
        (
            "header-before-header",
            lines(&[HEADER, &header("a/b", "c")]),
            1,
            &["\"a/b\" has no step"],
        ),
        ("cut-off", lines(&[HEADER, STEP, &STEP[..17]]), 3, &["EOF while parsing", FORMAT]),
        (
            "cut-off-with-the-line",
            lines(&[HEADER, STEP])[..HEADER.len() + 10].to_vec(),
            2,
            &["EOF while parsing", FORMAT],
        ),
        (
            "device-7",
            lines(&[HEADER, &step("{", r#"{"device":7,"#)]),
            2,
            &["device is 0 or 1", FORMAT],
        ),
        (
            "device-255",
            lines(&[HEADER, &step("{", r#"{"device":255,"#)]),
            2,
            &["device is 0 or 1", FORMAT],
        ),
        ("device-256", lines(&[HEADER, &step("{", r#"{"device":256,"#)]), 2, &["256", FORMAT]),
        (
            "slot-never-filled",
            lines(&[HEADER, RESUME, &write(r#"{"slot":{"slot":0}}"#)]),
            3,
            &["no earlier step", FORMAT],
        ),
        (
            "slot-8",
            lines(&[HEADER, &SAVE.replace("\"into\":0", "\"into\":8")]),
            2,
            &["numbered 0 to 7", FORMAT],
        ),
        (
            "same-as-nothing",
            lines(&[HEADER, &SAVE.replace("into", "same_as")]),
            2,
            &["no earlier step", FORMAT],
        ),
        (
            "part-2-of-2",
            lines(&[HEADER, SAVE, &write(r#"{"slot":{"slot":0,"part":2,"of":2}}"#)]),
            3,
            &["part counts from 0", FORMAT],
        ),
        (
            "part-of-0",
            lines(&[HEADER, SAVE, &write(r#"{"slot":{"slot":0,"of":0}}"#)]),
            3,
            &["part counts from 0", FORMAT],
        ),
        (
            "fill-too-large",
            lines(&[HEADER, RESUME, &write(r#"{"fill":{"byte":0,"len":67108865}}"#)]),
            3,
            &["67108864", FORMAT],
        ),
        (
            "fill-beyond-u32",
            lines(&[HEADER, RESUME, &write(r#"{"fill":{"byte":0,"len":4294967296}}"#)]),
            3,
            &["4294967296", FORMAT],
        ),
        ("odd-hex", lines(&[HEADER, RESUME, &write(r#"{"hex":"abc"}"#)]), 3, &[FORMAT]),
        (
            "until-end-of-reset",
            lines(&[HEADER, &step("{", r#"{"until_end":true,"#)]),
            2,
            &["until_end", "read", FORMAT],
        ),
        (
            "nested-too-deep",
            lines(&[
                HEADER,
                &step(
                    "\"ok\"",
                    &format!("{}\"ok\"{}", "{\"any_of\":[".repeat(200), "]}".repeat(200)),
                ),
            ]),
            2,
            &["recursion limit", FORMAT],
        ),
    ]
}

#[test]
fn a_malformed_file_is_refused_with_its_line() {
    let directory = directory();
    for (name, content, line, says) in malformed() {
        let path = file(&directory, name, content);
        let place = format!("{}: line {line}: ", path.display());
        let says: Vec<_> = [place.as_str()].into_iter().chain(says.iter().copied()).collect();
        run(["replay", "--traces", text(&path)]).complains_of(&says);
    }
    // What they are made of is not what is wrong with them.
    let good = lines(&[HEADER, STEP, "", STEP, &HEADER.replace("a/b", "c"), SAVE]);
    let good = file(&directory, "good", good);
    run(["replay", "--traces", text(&good)]).ends_with(0);
}

#[test]
fn a_line_without_end_is_refused() {
    let directory = directory();
    let mut content = lines(&[HEADER, STEP]);
    content.resize(content.len() + (16 << 20) + 1, b' ');
    let path = file(&directory, "long", content);
    let place = format!("{}: line 3: ", path.display());
    run(["replay", "--traces", text(&path)]).complains_of(&[&place, "longer than 16777216 bytes"]);
}

#[test]
fn what_is_no_file_is_refused() {
    let directory = directory();
    let missing = directory.path().join("missing");
    run(["replay", "--traces", text(&missing)]).complains_of(&[text(&missing), "No such file"]);
    let path = text(directory.path());
    run(["replay", "--traces", path]).complains_of(&[path, "directory"]);
    let good = file(&directory, "good", lines(&[HEADER, STEP]));
    // One bad file of two is as bad.
    run(["replay", "--traces", text(&good), "--traces", text(&missing)])
        .complains_of(&[text(&missing)]);
}

#[test]
fn a_name_in_two_files_is_refused() {
    let directory = directory();
    let first = file(&directory, "first", lines(&[HEADER, STEP]));
    let second = file(&directory, "second", lines(&[HEADER, STEP]));
    run(["replay", "--traces", text(&first), "--traces", text(&second)]).complains_of(&[
        text(&second),
        "a second trace",
        "\"a/b\"",
    ]);
}

#[test]
fn beginning_after_the_end_is_refused() {
    let directory = directory();
    let path = file(&directory, "one", lines(&[HEADER, STEP]));
    run(["replay", "--traces", text(&path), "--from", "0"]).ends_with(0);
    run(["replay", "--traces", text(&path), "--from", "1"]).complains_of(&["--from", "1 trace"]);
}

// ---------------------------------------------------------------------------------------------
// Devices that are none

#[test]
fn a_device_that_is_none_is_refused() {
    let directory = directory();
    let missing = directory.path().join("device");
    let cases: &[(&str, &[&str])] = &[
        (
            "/dev/null",
            &["\"/dev/null\" names no device", "0000:01:00.0", "/dev/vfio/devices/vfio0"],
        ),
        ("0000:zz:00.0", &["0000:zz:00.0", "PCI address"]),
        ("0000:ff:1f.9", &["0000:ff:1f.9", "PCI address"]),
        ("ffff:ff:1f.7", &["no device at", "ffff:ff:1f.7", "ls /sys/bus/pci/devices"]),
        ("/dev/vfio/devices/vfio4294967", &["/dev/vfio/devices/vfio4294967", "ls "]),
        ("00000000-0000-0000-0000-000000000000", &["00000000-0000-0000-0000-000000000000"]),
        (text(&missing), &[text(&missing)]),
        (",", &["no device was named"]),
    ];
    for (device, says) in cases {
        run(["replay", "--target", &format!("kernel:{device}")]).complains_of(says);
    }
}

// ---------------------------------------------------------------------------------------------
// Where output goes

/// A path that nobody can write to, root included: below a regular file.
fn unwritable(directory: &TempDir) -> PathBuf {
    file(directory, "regular-file", "").join("below")
}

#[test]
fn an_unwritable_place_is_named() {
    let directory = directory();
    let path = unwritable(&directory);
    let says = [text(&path), "Not a directory"];
    run(["generate", "--out", text(&path)]).complains_of(&says);
    let cache = ["lab", "--only", "fds/full/RUNNING/same-state", "--cache", text(&path)];
    run(cache).complains_of(&says);
}

#[test]
fn a_full_disk_is_no_success() {
    let Ok(full) = fs::File::options().write(true).open("/dev/full") else { return };
    // The second is small enough to wait in a buffer until the very end.
    let small = ["generate", "--out", "-", "--only", "fds/full/RUNNING/same-state"];
    let large = ["generate", "--out", "-"];
    for arguments in [&large[..], &small, &["replay"], &["replay", "--json"]] {
        let mut command = Command::new(program());
        let full = full.try_clone().expect("a second descriptor");
        let output = command.args(arguments).stdout(full).stderr(Stdio::piped()).output();
        let output = output.expect("it can be run");
        let err = String::from_utf8_lossy(&output.stderr);
        assert!(err.contains("No space left"), "{arguments:?}: {err}");
        assert!(!err.contains("panicked"), "{err}");
        assert_eq!(output.status.code(), Some(2), "{arguments:?}");
    }
}

#[test]
#[ignore = "checks a model of every fault: the gate does it with optimisation"]
fn a_full_disk_is_no_success_for_counterexamples() {
    if !Path::new("/dev/full").exists() {
        return;
    }
    let ran = run(["check", "--counterexamples", "/dev/full"]).ends_with(2);
    assert!(ran.err.contains("/dev/full: No space left"), "{}", ran.err);
}

/// Whoever reads may stop reading.
#[test]
fn a_closed_pipe_is_no_error() {
    let cases: &[&[&str]] =
        &[&["generate", "--out", "-"], &["replay", "--events"], &["replay", "--json"], &["replay"]];
    for arguments in cases {
        for lines in [0, 1] {
            let mut command = Command::new(program());
            command.args(*arguments).stdout(Stdio::piped()).stderr(Stdio::piped());
            let mut child = command.spawn().expect("it can be run");
            let mut reader = BufReader::new(child.stdout.take().expect("it is piped"));
            for _ in 0..lines {
                let len = reader.read_line(&mut String::new()).expect("a line");
                assert!(len > 0, "{arguments:?} says something");
            }
            drop(reader);
            let output = child.wait_with_output().expect("it ends");
            let err = String::from_utf8_lossy(&output.stderr);
            assert_eq!(err, "", "{arguments:?}");
            assert_eq!(output.status.code(), Some(0), "{arguments:?}");
        }
    }
}

/// And it does not turn a failed verdict into a good one.
#[test]
fn a_closed_pipe_does_not_hide_a_verdict() {
    for arguments in [&["--json"][..], &[]] {
        let mut command = Command::new(program());
        command.args(["replay", "--target", "reference:reset-keeps-state"]).args(arguments);
        let mut child = command.stdout(Stdio::piped()).spawn().expect("it can be run");
        drop(child.stdout.take());
        assert_eq!(child.wait().expect("it ends").code(), Some(1), "{arguments:?}");
    }
}

// ---------------------------------------------------------------------------------------------
// JSON

#[track_caller]
fn has_keys(value: &Value, expected: &[&str]) {
    let object = value.as_object().unwrap_or_else(|| panic!("{value} is no object"));
    // Every object says whose it is, and that is tested once.
    let mut keys: Vec<_> =
        object.keys().map(String::as_str).filter(|key| *key != "vfio-conform").collect();
    let mut expected = expected.to_vec();
    keys.sort_unstable();
    expected.sort_unstable();
    assert_eq!(keys, expected);
}

/// For what grows: nothing that was there goes away.
#[track_caller]
fn has_at_least(value: &Value, expected: &[&str]) {
    for key in expected {
        assert!(value.get(key).is_some(), "{key} is not in {value}");
    }
}

const REPORT: &[&str] = &[
    "target",
    "counts",
    "ops",
    "seconds",
    "traces",
    "unused_deviations",
    "known",
    "coverage",
    "unsaid",
];

#[test]
fn run_says_it_all_in_json() {
    let json = run(["--json"]).ends_with(0).json();
    let replays = ["replay", "replay_mlx5", "replay_mlx5_chunks"];
    has_keys(&json, &[&["model", "suites", "planted_bugs"][..], &replays].concat());
    let model = json["model"].as_object().expect("an object");
    let lists = ["spaces", "lock_spaces", "system_spaces", "properties", "claims"];
    has_keys(&json["model"], &[&lists[..], &["not_finished"]].concat());
    for list in lists {
        assert!(!model[list].as_array().expect("a list").is_empty(), "{list} is empty");
    }
    assert!(model["not_finished"].is_null(), "{}", model["not_finished"]);
    let space = ["model", "features", "states", "transitions", "depth", "seconds", "failures"];
    for spaces in ["spaces", "lock_spaces", "system_spaces"] {
        has_at_least(&model[spaces][0], &space);
    }
    let claim = ["fault", "property", "model", "features", "steps", "run"];
    has_at_least(&model["claims"][0], &claim);
    has_keys(&json["suites"], &["arcs", "resets", "fds", "streams", "faults", "complete", "model"]);
    has_keys(&json["suites"]["arcs"], &["traces", "steps"]);
    for replay in replays {
        has_keys(&json[replay], REPORT);
    }
    let mut bugs = bugs();
    bugs.sort_unstable();
    has_keys(&json["planted_bugs"], &bugs.iter().map(String::as_str).collect::<Vec<_>>());
    for (bug, trace) in json["planted_bugs"].as_object().expect("an object") {
        assert!(trace.is_string(), "{bug} fails a trace");
    }
}

#[test]
fn replay_says_every_verdict_in_json() {
    let ran =
        run(["replay", "--json", "--suite", "fds", "--target", "reference:close-keeps-state"]);
    let json = ran.ends_with(1).json();
    has_keys(&json, &["replay"]);
    let report = &json["replay"];
    has_keys(report, REPORT);
    has_keys(&report["counts"], &["pass", "fail", "deviation", "not_applicable"]);
    let traces = report["traces"].as_array().expect("a list");
    let failed: Vec<_> = traces.iter().filter(|trace| trace["verdict"] == "fail").collect();
    assert_eq!(report["counts"]["fail"], failed.len());
    has_keys(failed[0], &["trace", "verdict", "step", "op", "expected", "seen", "story"]);
    let passed = traces.iter().find(|trace| trace["verdict"] == "pass").expect("some pass");
    has_keys(passed, &["trace", "verdict"]);
}

/// As each trace begins and ends, a line.
#[test]
fn events_are_lines_of_json() {
    let ran = run(["replay", "--events", "--only", "fds/full/RUNNING/*"]).ends_with(0);
    let lines: Vec<Value> =
        ran.out.lines().map(|line| serde_json::from_str(line).expect("a line of JSON")).collect();
    let (done, pairs) = lines.split_last().expect("some lines");
    assert_eq!(done["event"], "done");
    assert!(!pairs.is_empty() && pairs.len() % 2 == 0);
    for (index, pair) in pairs.chunks(2).enumerate() {
        has_keys(&pair[0], &["event", "index", "trace"]);
        has_keys(&pair[1], &["event", "index", "trace", "ops", "verdict"]);
        assert_eq!((&pair[0]["event"], &pair[1]["event"]), (&"begin".into(), &"verdict".into()));
        assert_eq!(pair[0]["trace"], pair[1]["trace"]);
        assert_eq!(pair[0]["index"], index);
    }
}

/// What goes to standard output in a form of its own is not followed by a JSON object.
#[test]
fn json_leaves_other_formats_alone() {
    let only = ["--only", "fds/full/RUNNING/*"];
    for command in [&["generate", "--out", "-"][..], &["replay", "--events"]] {
        let plain = run(command.iter().chain(&only)).ends_with(0);
        let json = run(command.iter().chain(&only).chain(&["--json"])).ends_with(0);
        assert_eq!(plain.out, json.out, "{command:?}");
    }
}

// ---------------------------------------------------------------------------------------------
// Files that the program writes are files that it reads

#[test]
fn generated_files_give_the_same_verdicts() {
    let directory = directory();
    let out = directory.path().join("some/where");
    let json = run(["generate", "--json", "--out", text(&out)]).ends_with(0).json();
    has_keys(&json, &["files"]);
    let files = json["files"].as_array().expect("a list");
    has_keys(&files[0], &["file", "traces", "steps"]);
    let suites = ["arcs", "resets", "fds", "streams", "faults", "complete", "model"];
    assert_eq!(files.len(), suites.len());
    let mut written: Vec<_> = fs::read_dir(&out)
        .expect("the directory is made")
        .map(|entry| entry.expect("an entry").file_name().into_string().expect("text"))
        .collect();
    written.sort_unstable();
    let mut expected = suites.map(|suite| format!("{suite}.jsonl"));
    expected.sort_unstable();
    assert_eq!(written, expected, "nothing half-written is left");
    for target in ["reference", "reference:reset-keeps-session"] {
        let code = i32::from(target != "reference");
        let target = ["replay", "--json", "--target", target];
        let mut from_files: Vec<&str> = target.to_vec();
        for file in files {
            from_files.extend(["--traces", file["file"].as_str().expect("a path")]);
        }
        let direct = run(target).ends_with(code);
        let from_files = run(from_files).ends_with(code);
        assert_eq!(counts(&direct), counts(&from_files));
        let traces = |ran: &Ran| ran.json()["replay"]["traces"].clone();
        assert_eq!(traces(&direct), traces(&from_files));
        let sum = files.iter().map(|file| file["traces"].as_u64().expect("a number")).sum::<u64>();
        assert_eq!(traces(&direct).as_array().map(|all| all.len() as u64), Some(sum));
    }
}

#[test]
fn standard_output_has_the_same_traces() {
    let directory = directory();
    let select = ["--suite", "streams", "--only", "streams/p2p/*"];
    let ran = run(["generate", "--out", "-"].iter().chain(&select)).ends_with(0);
    let path = file(&directory, "streams", ran.out);
    let from_file = run(["replay", "--json", "--traces", text(&path)]).ends_with(0);
    let direct = run(["replay", "--json"].iter().chain(&select)).ends_with(0);
    assert_eq!(counts(&from_file), counts(&direct));
    // --only chooses from files too.
    let one = ["replay", "--json", "--traces", text(&path), "--only", "*/damaged-zeros"];
    assert_eq!(counts(&run(one).ends_with(0))["pass"], 1);
}

#[test]
fn every_planted_bug_fails_a_verdict() {
    let bugs = bugs();
    assert!(bugs.len() >= 29, "{bugs:?}");
    // Made once: the model's own traces take a while to find.
    let directory = directory();
    run(["generate", "--out", text(directory.path())]).ends_with(0);
    let files: Vec<_> = fs::read_dir(directory.path())
        .expect("the folder is there")
        .map(|entry| entry.expect("it can be read").path())
        .collect();
    let traces: Vec<&str> = files.iter().flat_map(|file| ["--traces", text(file)]).collect();
    for bug in bugs {
        let target = format!("reference:{bug}");
        let replay = ["replay", "--json", "--target", &target];
        let ran = run(replay.iter().chain(&traces)).ends_with(1);
        let counts = counts(&ran);
        assert_ne!(counts["fail"], 0, "{bug}: {counts}");
        assert_ne!(counts["pass"], 0, "{bug} does not break everything: {counts}");
    }
}

/// The model's counterexamples pass on the device, and on each bug one that is against it fails.
#[test]
#[ignore = "checks a model of every fault: the gate does it with optimisation"]
fn counterexamples_tell_bug_from_device() {
    let directory = directory();
    let path = directory.path().join("counterexamples");
    run(["check", "--counterexamples", text(&path)]).ends_with(0);
    let all = run(["replay", "--json", "--traces", text(&path)]).ends_with(0).json();
    let traces = all["replay"]["traces"].as_array().expect("a list");
    let names: Vec<_> = traces.iter().filter_map(|trace| trace["trace"].as_str()).collect();
    assert_eq!(names.len(), traces.len());
    for bug in bugs() {
        // model/flags/actors/bug/property
        let against = |name: &&&str| name.split('/').any(|part| part == bug);
        let fails = |name: &&str| {
            let target = format!("reference:{bug}");
            let only = ["replay", "--traces", text(&path), "--only", name, "--target", &target];
            run(only).code == Some(1)
        };
        let told = names.iter().filter(against).any(fails);
        assert!(told, "{bug}: none of {names:?} fails");
    }
}

/// `check --mutants` has a row for each bug of the catalogue, fits a terminal, and says the same in
/// JSON.
#[test]
#[ignore = "checks a model of every fault: the gate does it with optimisation"]
#[cfg(feature = "check")]
fn the_matrix_of_mutants_is_whole() {
    let ran = run(["check", "--mutants"]).ends_with(0);
    // Behind what `check` says of the models.
    let matrix = ran.out.lines().skip_while(|line| !line.contains("dropped assumptions")).skip(1);
    // The name of a test is one word, however long.
    let is_wide = |line: &&str| line.chars().count() > 80 && line.trim().contains(' ');
    let wide = matrix.clone().find(is_wide);
    assert!(matrix.count() > 100, "{}", ran.out);
    assert_eq!(wide, None, "at most 80 columns");
    let json = run(["check", "--mutants", "--json"]).ends_with(0).json();
    has_keys(&json, &["model", "mutants"]);
    let matrix = &json["mutants"];
    has_keys(matrix, &["bugs", "others", "not_here"]);
    let rows = |list: &str| matrix[list].as_array().expect("a list").clone();
    for row in rows("bugs").iter().chain(&rows("others")) {
        has_at_least(row, &["fault", "property", "model", "steps"]);
        let fault = row["fault"].as_str().expect("a name");
        // A number of JSON would not be padded.
        let steps = row["steps"].as_u64().expect("it is caught");
        let shown = format!("{fault:<33} {:<33} {steps:>5}", row["property"].as_str().unwrap());
        assert!(ran.out.contains(&shown), "{shown} is not printed");
    }
    let catalogue = vfio_conform::catalogue::entries().expect("it is one");
    let rows = [rows("bugs"), rows("not_here")].concat();
    for entry in catalogue {
        assert!(rows.iter().any(|row| row["bug"] == entry.id.as_str()), "{}", entry.id);
    }
}

/// X1, X2: `graph` counts, judges and writes every graph; a bug is a verdict, not a complaint.
#[cfg(feature = "check")]
#[test]
fn graphs_are_counted_and_written() {
    let directory = directory();
    let out = text(directory.path());
    let ran = run(["graph", "--json", "--out", out]).ends_with(0);
    let json = ran.json();
    let graphs = json["graphs"].as_array().expect("four graphs");
    assert_eq!(graphs.len(), 4);
    for (graph, slug) in graphs.iter().zip(["stop-copy", "p2p", "pre-copy", "full"]) {
        let read = |end| fs::read_to_string(directory.path().join(format!("{slug}.{end}")));
        let edges = read("edges").expect("the edges");
        assert_eq!(graph["transitions"], edges.lines().count(), "{slug}");
        assert_eq!(
            read("dot").expect("the picture").matches(" -> ").count(),
            edges.lines().count()
        );
    }
    let ran = run(["graph", "--bug", "dead-poll-hangs"]).ends_with(1);
    assert!(ran.out.contains("FAIL: reader-woken"), "{}", ran.out);
    run(["graph", "--bug", "none-such"]).complains_of(&["none-such", "dead-poll-hangs"]);
}

// ---------------------------------------------------------------------------------------------
// A check that is cut short, and one by hand

/// A check that would pass, without time: neither passed nor failed.
#[test]
fn a_check_without_time_is_3() {
    let model = ["check", "--model", "bench, 1 device"];
    run(model).ends_with(0);
    let ran = run(model.into_iter().chain(["--time-limit", "0"])).ends_with(3);
    assert!(ran.out.contains("NOT FINISHED: the time limit of 0 s"), "{}", ran.out);
    let ran = run(["--json", "check", "--time-limit", "0"]).ends_with(3);
    assert!(ran.json()["model"]["not_finished"].is_string(), "{}", ran.out);
}

/// What cannot be meant is said.
#[test]
fn a_check_that_cannot_be_is_2() {
    run(["check", "--model", "no such"]).complains_of(&["no model is selected", "\"Saver\""]);
    run(["check", "--features", "none"]).complains_of(&["stop-copy", "full"]);
    run(["check", "--symmetry", "--engine", "stateright"]).complains_of(&["--engine own"]);
}

/// Both engines, by name, say the same but for the time.
#[test]
fn the_engines_say_the_same() {
    let said = |engine| {
        let arguments = ["--json", "check", "--model", "bench, 2 devices", "--engine", engine];
        let mut json = run(arguments.into_iter().chain(["--threads", "1"])).ends_with(0).json();
        json["model"]["spaces"][0]["seconds"].take();
        json["model"].take()
    };
    assert_eq!(said("own"), said("stateright"));
    assert_eq!(said("own")["spaces"][0]["states"], 31_752);
}

/// The program at work, ended at the latest with the test.
struct Working(std::process::Child);

impl Working {
    fn begin(arguments: &[&str]) -> Self {
        let mut command = Command::new(program());
        let command = command.args(arguments).stdout(Stdio::piped()).stderr(Stdio::null());
        Self(command.spawn().expect("it can be run"))
    }
}

impl Drop for Working {
    fn drop(&mut self) {
        // It has ended already, or it is to.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// Try until it comes to something.
fn patiently<T>(mut attempt: impl FnMut() -> Option<T>) -> T {
    let began = std::time::Instant::now();
    loop {
        if let Some(done) = attempt() {
            return done;
        }
        assert!(began.elapsed() < PATIENCE, "it takes too long");
        std::thread::sleep(Duration::from_millis(5));
    }
}

/// Ctrl-C in the middle of a large check: it says what was done, and that it is not all.
#[test]
fn an_interrupted_check_says_what_was_done() {
    let mut working = Working::begin(&["check", "--model", "Saver", "--engine", "own"]);
    let id = working.0.id();
    // From when on it catches the signal.
    patiently(|| {
        let status = fs::read_to_string(format!("/proc/{id}/status")).ok()?;
        let caught = status.lines().find_map(|line| line.strip_prefix("SigCgt:"))?;
        let caught = u64::from_str_radix(caught.trim(), 16).ok()?;
        (caught & 1 << 1 != 0).then_some(())
    });
    let sent = Command::new("kill").args(["-INT", &id.to_string()]).status();
    assert!(sent.expect("kill is there").success());
    let status = patiently(|| working.0.try_wait().expect("it can be waited for"));
    let out = working.0.stdout.take().expect("it is piped");
    let out = std::io::read_to_string(out).expect("it is text");
    assert_eq!(status.code(), Some(3), "{out}");
    assert!(out.contains("NOT FINISHED: it was interrupted"), "{out}");
}

/// The Explorer, without a browser: worlds and steps in words.
#[test]
fn a_model_can_be_explored() {
    use std::io::{Read, Write};
    use std::net::{TcpListener, TcpStream};
    let free = TcpListener::bind("127.0.0.1:0").and_then(|listener| listener.local_addr());
    let address = free.expect("there is a free port").to_string();
    let arguments = ["check", "--model", "Saver", "--features", "full", "--explore", &address];
    let _working = Working::begin(&arguments);
    let get = |path: &str| -> Value {
        let mut stream = patiently(|| TcpStream::connect(&address).ok());
        write!(stream, "GET {path} HTTP/1.0\r\n\r\n").expect("it listens");
        let mut answer = String::new();
        stream.read_to_string(&mut answer).expect("it answers");
        let (_, body) = answer.split_once("\r\n\r\n").expect("there is a body");
        serde_json::from_str(body).unwrap_or_else(|error| panic!("{error}: {answer}"))
    };
    assert_eq!(get("/.status")["properties"][0][1], "saver-legal-set");
    let begin = get("/.states/");
    let words = begin[0]["state"].as_str().expect("a world is in words");
    assert!(words.starts_with("device in RUNNING; guest running; saver: "), "{words}");
    let fingerprint = begin[0]["fingerprint"].as_str().expect("a fingerprint is text");
    let steps = get(&format!("/.states/{fingerprint}"));
    let steps = steps.as_array().expect("there are some");
    let actions: Vec<_> = steps.iter().filter_map(|step| step["action"].as_str()).collect();
    for words in ["session  GET features => ", "guest    RESET", "VMM      Cancel"] {
        assert!(actions.iter().any(|action| action.starts_with(words)), "{words}: {actions:?}");
    }
}

/// An address at which nobody can listen is wrong use.
#[test]
fn an_address_in_use_is_2() {
    let taken = std::net::TcpListener::bind("127.0.0.1:0").expect("there is a free port");
    let address = taken.local_addr().expect("it has one").to_string();
    run(["check", "--model", "Saver", "--explore", &address]).complains_of(&["--explore"]);
}

/// M170, M172: an mlx5 function is tested by whoever sends its commands; what is not there is said,
/// and software is never fallen back to.
#[test]
#[cfg(feature = "mlx5")]
fn a_transport_can_be_chosen() {
    let by = |transport| {
        let only = ["--suite", "resets", "--only", "resets/full/RUNNING/*"];
        run([&["replay"][..], &only, &["--transport", transport]].concat())
    };
    let ours = by("software").ends_with(0);
    assert!(ours.out.starts_with("mlx5 of our own by software:"), "{}", ours.out);
    for (transport, says) in
        [("auto", "no device was named"), ("kernel", "no device"), ("pigeon", "auto")]
    {
        let none = by(transport).ends_with(2);
        assert!(none.err.contains(says), "{}", none.err);
    }
    let nowhere = run(["replay", "--function", "ffff:ff:1f.7"]).ends_with(2);
    assert!(nowhere.err.contains("ffff:ff:1f.7"), "{}", nowhere.err);
}

// ---------------------------------------------------------------------------------------------
// Results, reports and diagrams

/// The files of a directory, by name.
#[cfg(feature = "report")]
fn names(directory: &Path) -> Vec<String> {
    let entries = fs::read_dir(directory).expect("it is there");
    let name = |entry: std::io::Result<fs::DirEntry>| entry.expect("an entry").file_name();
    let mut names: Vec<_> =
        entries.map(|entry| name(entry).to_string_lossy().into_owned()).collect();
    // Of two in one second the second has a number.
    names.sort_by_key(|name| name.trim_end_matches(".json").to_owned());
    names
}

/// H2, H7: what a run finds is kept where it is told to, good or not, and `report` shows it again;
/// the exit status of a run is its own.
#[cfg(feature = "report")]
#[test]
fn runs_are_kept_and_reported() {
    let at = directory();
    let results = at.path().join("new/results");
    let results = text(&results);
    let replay = ["replay", "--suite", "arcs", "--results", results];
    run(replay).ends_with(0);
    let bug = ["--target", "reference:fresh-fd-in-saving-group", "--html"];
    run(replay.iter().chain(&bug)).ends_with(1);
    let kept = names(Path::new(results));
    assert_eq!(kept.len(), 3, "{kept:?}");
    assert!(kept[0].ends_with("Z-replay.json") && kept[2] == "report.html", "{kept:?}");

    let json = run(["replay", "--suite", "arcs", "--json"]).ends_with(0).json();
    let file = fs::read(Path::new(results).join(&kept[0])).expect("it is there");
    let file: Value = serde_json::from_slice(&file).expect("it is JSON");
    let keys =
        |value: &Value| value.as_object().expect("an object").keys().cloned().collect::<Vec<_>>();
    assert_eq!(keys(&json), keys(&file), "a file is what --json prints");
    assert_eq!(file["vfio-conform"]["verdict"], "good");
    assert_eq!(json["vfio-conform"]["command"], "replay");

    let report = run(["report", results]).ends_with(0);
    for said in ["replay    good", "replay    FAILED", "reference with fresh-fd-in-saving-group: "]
    {
        assert!(report.out.contains(said), "{said:?} is not in: {}", report.out);
    }
    let json = run(["report", results, "--json"]).ends_with(0).json();
    assert_eq!(json["report"]["runs"].as_array().map(Vec::len), Some(2));
    let page = at.path().join("page.html");
    run(["report", results, &format!("--html={}", text(&page))]).ends_with(0);
    let page = fs::read_to_string(page).expect("it was written");
    assert_eq!(page.matches("<time ").count(), 2);
    assert!(page.contains("something failed") && page.contains("class=\"arc failed\""));
}

/// H3: a directory without a result is 2, one with some is 0, and what is refused is said; a place
/// that takes no results is 2 before anything is run.
#[cfg(feature = "report")]
#[test]
fn what_is_no_result_is_said() {
    let at = directory();
    run(["report", text(at.path())]).complains_of(&["no results", "--results DIR"]);
    run(["report", "/no/such/place"]).complains_of(&["/no/such/place", "--results DIR"]);
    let cut = file(&at, "cut.json", "{\"vfio-conform\": ");
    run(["report", text(at.path()), "--html"]).complains_of(&["refused cut.json", "cut off"]);
    assert_eq!(names(at.path()), ["cut.json"], "no page of nothing");
    run(["replay", "--suite", "streams", "--results", text(at.path())]).ends_with(0);
    let report = run(["report", text(at.path())]).ends_with(0);
    assert!(report.out.contains("refused cut.json: cut off at line 1"), "{}", report.out);
    let inside = cut.join("inside");
    run(["check", "--results", text(&inside)])
        .complains_of(&["results cannot be kept", "cut.json"]);
    let events = ["replay", "--events", "--suite", "streams", "--results", text(at.path())];
    assert!(run(events).ends_with(2).err.contains("leave --results away"));
    let page = format!("--html={}", text(&inside));
    run(["replay", "--suite", "streams", &page]).ends_with(2);
}

/// H3: of a run that is killed nothing is taken for a result, and the next run is as good as ever.
#[cfg(feature = "report")]
#[test]
fn a_killed_run_is_no_result() {
    let at = directory();
    let mut child = Command::new(program())
        .args(["check", "--engine", "own", "--threads", "1", "--results", text(at.path())])
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .expect("it runs");
    while names(at.path()).is_empty() {
        assert!(child.try_wait().expect("it is ours").is_none(), "it is over already");
        std::thread::yield_now();
    }
    child.kill().expect("it is ours");
    child.wait().expect("it is dead");
    run(["report", text(at.path())]).complains_of(&["-check-", "was killed"]);
    run(["replay", "--suite", "streams", "--results", text(at.path())]).ends_with(0);
    let report = run(["report", text(at.path())]).ends_with(0);
    assert!(
        report.out.contains("replay    good") && report.out.contains("was killed"),
        "{}",
        report.out
    );
}

/// H6, H8, H9: the pictures by themselves, in the languages that have them.
#[cfg(feature = "report")]
#[test]
fn pictures_are_drawn() {
    let at = directory();
    let results = text(at.path());
    let bug = "reference:fresh-fd-in-saving-group";
    run(["replay", "--target", bug, "--suite", "arcs", "--results", results]).ends_with(1);
    run(["migrate", "--seeds", "1", "--results", results]).ends_with(0);
    let picture = |arguments: &[&str]| run([&["diagram"], arguments].concat()).ends_with(0).out;
    assert!(picture(&["machine"]).starts_with("<?xml"));
    assert!(picture(&["machine", "--format", "dot"]).starts_with("digraph"));
    let plain = picture(&["machine", "--features", "p2p", "--format", "mermaid"]);
    assert!(plain.starts_with("stateDiagram-v2") && !plain.contains("PRE_COPY"), "{plain}");
    let walked = picture(&["machine", results, "--format", "mermaid"]);
    assert!(walked.contains("PRE_COPY --> PRE_COPY_P2P: same fd, ✗ "), "{walked}");
    assert!(picture(&["machine", results, "--format", "dot"]).contains("penwidth=4"));
    assert!(picture(&["resets", results]).contains("class=\"cell equal\""));
    assert!(picture(&["trace", results]).contains("expected: "));
    assert!(picture(&["trace", results, "--format", "mermaid"]).starts_with("sequenceDiagram"));
    run(["diagram", "trace", results, "--format", "dot"]).complains_of(&["svg or mermaid"]);
    run(["diagram", "trace", results, "--name", "none"]).complains_of(&["\"none\" failed"]);
    run(["diagram", "machine", results, "--target", "?"]).complains_of(&["no replay"]);
    let none = directory();
    run(["diagram", "resets", text(none.path())]).complains_of(&["--results DIR"]);
}

/// H13: each shell is given its completions, and `man` a page for each command, of which none is
/// left out.
#[cfg(feature = "manual")]
#[test]
fn shells_and_man_are_served() {
    for shell in ["bash", "elvish", "fish", "powershell", "zsh"] {
        let script = run(["completions", shell]).ends_with(0).out;
        assert!(script.contains("vfio-conform") && script.contains("replay"), "{shell}");
    }
    run(["completions", "tcsh"]).complains_of(&["tcsh", "bash"]);
    let page = run(["man"]).ends_with(0).out;
    assert!(page.contains(".TH") && page.contains("vfio\\-conform"), "{page}");
    let at = directory();
    run(["man", text(at.path())]).ends_with(0);
    let help = run(["--help"]).ends_with(0).out;
    let (_, commands) = help.split_once("Commands:\n").expect("the help lists them");
    let commands = commands.lines().take_while(|line| line.starts_with("  "));
    let commands = commands.filter(|line| !line.starts_with("   "));
    let mut count = 0;
    for command in commands.filter_map(|line| line.split_whitespace().next()) {
        let page = at.path().join(format!("vfio-conform-{command}.1"));
        assert!(command == "help" || page.exists(), "{command} has no page");
        count += 1;
    }
    assert!(count > 15, "{count} commands");
}

// ---------------------------------------------------------------------------------------------
// How it is said

/// H12: quiet says nothing of what is good and all of what is not; verbose keeps nothing back; the
/// status and the JSON are those of the others.
#[test]
fn quiet_and_verbose() {
    let arcs = |more: &[&'static str]| run([&["replay", "--suite", "arcs"], more].concat());
    let bug = ["--target", "reference:fresh-fd-in-saving-group"];
    assert_eq!(arcs(&["--quiet"]).ends_with(0).out, "");
    assert_eq!(arcs(&["-q"]).ends_with(0).err, "");
    let normal = arcs(&bug).ends_with(1);
    let quiet = arcs(&[&bug[..], &["--quiet"]].concat()).ends_with(1);
    let failures = |ran: &Ran| ran.out.lines().filter(|line| line.contains("FAIL: ")).count();
    assert_eq!(failures(&normal), 10);
    assert_eq!(failures(&quiet), 10);
    let verbose = arcs(&[&bug[..], &["--verbose"]].concat()).ends_with(1);
    let json = arcs(&[&bug[..], &["--json"]].concat()).ends_with(1).json();
    assert_eq!(Some(failures(&verbose) as u64), json["replay"]["counts"]["fail"].as_u64());
    assert!(!verbose.out.contains("failures more"), "{}", verbose.out);
    let quiet = arcs(&[&bug[..], &["--json", "-q"]].concat()).ends_with(1).json();
    assert_eq!(quiet["replay"]["counts"], json["replay"]["counts"]);
    arcs(&["-q", "-v"]).complains_of(&["cannot be used with"]);
}

/// As a terminal of this width shows it.
fn on_a_terminal(columns: u32, variables: &[(&str, &str)], arguments: &str) -> String {
    let program = program().display().to_string();
    let command = format!("stty columns {columns}; {program} {arguments}");
    let mut script = Command::new("script");
    for variable in COLOUR_VARIABLES {
        script.env_remove(variable);
    }
    script.args(["-qefc", &command, "/dev/null"]).env("TERM", "xterm-256color");
    script.envs(variables.iter().copied()).stdin(Stdio::null());
    let output = script.output().expect("script, of util-linux, is there");
    String::from_utf8(output.stdout).expect("it is text").replace('\r', "")
}

/// H11: a terminal has colour, unless NO_COLOR says no, and what is no terminal never has.
#[test]
fn colour_is_for_terminals() {
    let bug = "replay --suite arcs --target reference:fresh-fd-in-saving-group";
    let red = "\u{1b}[31mFAIL";
    let shown = on_a_terminal(100, &[], bug);
    assert!(shown.contains(red), "{shown}");
    for variables in [[("NO_COLOR", "1")], [("TERM", "dumb")]] {
        let shown = on_a_terminal(100, &variables, bug);
        assert!(shown.contains("FAIL") && !shown.contains(red), "{variables:?}: {shown}");
    }
    let piped = run(bug.split(' ')).ends_with(1);
    assert!(!piped.out.contains('\u{1b}'), "{}", piped.out);
}

/// H10: on a terminal of 80 columns no line is longer.
#[test]
fn lines_fit_a_terminal() {
    let colour = regex::Regex::new("\u{1b}\\[[0-9;?]*[A-Za-z]").expect("a good expression");
    for arguments in [
        "replay --target reference:reset-keeps-state --suite resets --suite faults",
        "migrate --seeds 100 --target reference:reset-keeps-state",
        "complete run",
        "learn --target reference:reset-keeps-state",
    ] {
        let shown = on_a_terminal(80, &[], &format!("{arguments} 2>/dev/null"));
        let shown = colour.replace_all(&shown, "");
        assert!(shown.lines().count() > 1, "{arguments}: {shown}");
        for line in shown.lines() {
            assert!(line.chars().count() <= 80, "{arguments}: {line}");
        }
    }
}

/// H10: tables fit 80 columns wherever they go.
#[cfg(feature = "check")]
#[test]
fn tables_fit_80_columns() {
    for arguments in [
        "check --model Loader",
        "complete sizes",
        "complete power --most 10 --extra 2",
        "graph",
        "migrate --seeds 0",
        "bugs B48",
    ] {
        let ran = run(arguments.split(' ')).ends_with(0);
        for line in ran.out.lines() {
            assert!(line.chars().count() <= 80, "{arguments}: {line}");
        }
    }
}
