// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! The library for VMMs in C: its header, what is in its archive, and that it answers as the core.

#![expect(clippy::expect_used, reason = "helpers of tests may fail them")]

use std::collections::BTreeSet;
use std::fmt::Write as _;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::sync::LazyLock;

use expect_test::{Expect, expect, expect_file};
use vfio_fsm_core::vmm::{Choices, Evidence, Recovery};
use vfio_fsm_core::{Errno, Features, RawState, Refused, Route, State, Why, next_hop};

fn folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../fsm-core/c")
}

fn run(command: &mut Command) -> Output {
    let output = command.output().expect("it can be started");
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{command:?}:\n{said}");
    output
}

/// The archive, as it is shipped.
static ARCHIVE: LazyLock<PathBuf> = LazyLock::new(|| {
    let target = Path::new(env!("CARGO_TARGET_TMPDIR")).join("c");
    let mut cargo = Command::new(env!("CARGO"));
    // Offline: the crates of the workspace and no others, which cargo fetched on the way here.
    cargo.args(["build", "--quiet", "--release", "--offline", "--locked"]);
    cargo.arg("--manifest-path").arg(folder().join("Cargo.toml"));
    cargo.arg("--target-dir").arg(&target);
    for name in ["RUSTFLAGS", "CARGO_ENCODED_RUSTFLAGS", "CARGO_BUILD_TARGET"] {
        cargo.env_remove(name);
    }
    run(&mut cargo);
    target.join("release/libvfio_fsm.a")
});

/// A C example, compiled with every warning and linked to the archive and the C library alone.
fn compiled(example: &str) -> PathBuf {
    let program = Path::new(env!("CARGO_TARGET_TMPDIR")).join(example);
    let mut compiler = Command::new(std::env::var("CC").unwrap_or_else(|_| "cc".into()));
    compiler.args(["-std=c11", "-O2", "-Wall", "-Wextra", "-Wpedantic", "-Werror"]);
    compiler.arg("-I").arg(folder().join("include"));
    compiler.arg(folder().join("examples").join(example).with_extension("c"));
    compiler.arg(&*ARCHIVE).arg("-o").arg(&program);
    run(&mut compiler);
    program
}

/// P1: the header is what cbindgen makes of the source.
#[test]
fn the_header_is_that_of_the_source() {
    let config = cbindgen::Config::from_file(folder().join("cbindgen.toml")).expect("it is one");
    let mut builder = cbindgen::Builder::new().with_config(config);
    for module in ["code", "route", "evidence"] {
        builder = builder.with_src(folder().join("src").join(module).with_extension("rs"));
    }
    let mut header = Vec::new();
    builder.generate().expect("the source has bindings").write(&mut header);
    let header = String::from_utf8(header).expect("text");
    expect_file![folder().join("include/vfio_fsm.h")].assert_eq(&header);
}

/// The symbols of the one object in the archive that is ours, with their types.
fn symbols() -> Vec<(String, char)> {
    let listed = run(Command::new("ar").arg("t").arg(&*ARCHIVE));
    let listed = String::from_utf8(listed.stdout).expect("names");
    let ours: Vec<_> = listed.lines().filter(|name| name.starts_with("vfio_fsm-")).collect();
    assert_eq!(ours.len(), 1, "{listed}");
    let object = run(Command::new("ar").arg("p").arg(&*ARCHIVE).args(ours)).stdout;
    let path = Path::new(env!("CARGO_TARGET_TMPDIR")).join("vfio_fsm.o");
    fs::write(&path, object).expect("it can be written");
    let listed = run(Command::new("nm").arg("-P").arg(&path)).stdout;
    let listed = String::from_utf8(listed).expect("names");
    let split = |line: &str| {
        let mut words = line.split(' ').map(str::to_owned);
        let name = words.next().expect("a name");
        (name, words.next().and_then(|kind| kind.chars().next()).expect("a type"))
    };
    listed.lines().map(split).collect()
}

/// P2: the archive needs nothing but memory functions of C, has nothing in it that could panic or
/// allocate, and defines what the header declares and nothing else.
#[test]
fn nothing_panics_or_allocates() {
    let symbols = symbols();
    let of = |kinds: &str| -> BTreeSet<&str> {
        let found = symbols.iter().filter(|(_, kind)| kinds.contains(*kind));
        found.map(|(name, _)| name.as_str()).collect()
    };
    let memory = BTreeSet::from(["memcmp", "memcpy", "memmove", "memset"]);
    assert!(of("Uwv").is_subset(&memory), "needed from elsewhere: {:?}", of("Uwv"));
    let speaks_of = |word: &&str| symbols.iter().any(|(name, _)| name.contains(*word));
    let found: Vec<_> =
        ["panic", "unwind", "alloc", "unwrap"].into_iter().filter(speaks_of).collect();
    assert!(found.is_empty(), "{found:?} in {symbols:#?}");

    let header = fs::read_to_string(folder().join("include/vfio_fsm.h")).expect("it is there");
    let functions = regex::Regex::new(r"\b(vfio_fsm_\w+)\(").expect("a good expression");
    let declarations = header.lines().filter(|line| !line.starts_with("//"));
    let declared: BTreeSet<_> = declarations
        .flat_map(|line| functions.captures(line).map(|found| found[1].to_owned()))
        .collect();
    let declared: BTreeSet<_> = declared.iter().map(String::as_str).collect();
    assert!(declared.len() > 10, "{declared:?}");
    assert_eq!(of("TDBRVWuig"), declared);
}

const OK: i32 = 0;
const NULL: i32 = -1;
const FLAGS: i32 = -2;
const UNKNOWN: i32 = -3;
const NO_DATA_FD: i32 = -10;
const ERRNO: i32 = -11;
/// What `every_answer.c` finds where nothing was written.
const UNTOUCHED: u32 = 0xa5a5_a5a5;

fn code(refused: Refused) -> i32 {
    match refused.why() {
        Why::Unknown => UNKNOWN,
        Why::Unsupported => -4,
        Why::ErrorAsked => -5,
        Why::InError => -6,
        Why::Impossible => -7,
        Why::Blocked => -8,
        _ => -9,
    }
}

/// The core's route, or the code for what is wrong with the question.
fn route(flags: u64, from: u32, to: u32) -> Result<Route, i32> {
    let features = Features::from_flags(flags).map_err(|_| FLAGS)?;
    let from = State::from_number(from).ok_or(UNKNOWN)?;
    let to = State::from_number(to).ok_or(UNKNOWN)?;
    let hop = next_hop(features, from, to).map_err(code);
    let route = Route::new(features, from, to).map_err(code);
    assert_eq!(hop, route.map(|route| route.arcs().next().map_or(from, |arc| arc.to())));
    route
}

fn line_of_route(route: Result<Route, i32>) -> String {
    let Ok(route) = route else {
        let code = route.expect_err("no route");
        let untouched = [UNTOUCHED.to_string(), UNTOUCHED.to_string(), UNTOUCHED.to_string()];
        let [hop, len, opens] = untouched;
        return format!("0 {code} {hop}, {code} {hop} {hop} {hop} {hop} len {len} opens {opens}");
    };
    let hops: Vec<u32> = route.arcs().map(|arc| arc.to().number()).collect();
    let first = hops.first().copied().unwrap_or(route.from().number());
    let hop = |i: usize| hops.get(i).copied().unwrap_or(0);
    let opens = route.opens().map_or(0, |direction| direction as u32 + 1);
    let laid_out = format!("{} {} {} {}", hop(0), hop(1), hop(2), hop(3));
    format!("1 {OK} {first}, {OK} {laid_out} len {} opens {opens}", hops.len())
}

fn line(answer: Result<u32, i32>) -> String {
    match answer {
        Ok(value) => format!("{OK} {value}"),
        Err(code) => format!("{code} {UNTOUCHED}"),
    }
}

fn of_set(route: Result<Route, i32>, data_fd: i32) -> Result<u32, i32> {
    match (route?.opens().is_some(), data_fd >= 0) {
        (false, true) => Ok(2),
        (true, false) => Err(NO_DATA_FD),
        _ => Ok(0),
    }
}

fn choices(flags: u64, left: u32, held: bool) -> Result<u32, i32> {
    let features = Features::from_flags(flags).map_err(|_| FLAGS)?;
    let choices = Choices::new(left > 0, features.pre_copy() && !held);
    let open = [(Recovery::Abort, 1), (Recovery::Restart, 2), (Recovery::StopCopy, 4)];
    Ok(open.into_iter().filter(|(recovery, _)| choices.allow(*recovery)).map(|(_, bit)| bit).sum())
}

/// The lines that `every_answer.c` has to print, from the core.
fn every_answer() -> String {
    let flags = [1, 3, 5, 7, 0, 2, 4, 8, 9, u64::MAX];
    let states = [0, 1, 2, 3, 4, 5, 6, 7, 8, 255, u32::MAX];
    let mut text = String::new();
    let mut say = |line: String| writeln!(text, "{line}").expect("to a string");
    for set in flags {
        say(format!("migratable {set}: {}", u8::from(Features::from_flags(set).is_ok())));
        for (from, to) in states.into_iter().flat_map(|from| states.map(|to| (from, to))) {
            let route = route(set, from, to);
            say(format!("route {set} {from} {to}: {}", line_of_route(route)));
            for fd in [-1, 0, 7, i32::MIN] {
                say(format!("of_set {set} {from} {to} {fd}: {}", line(of_set(route, fd))));
            }
        }
        for (left, held) in (0..3).flat_map(|left| [(left, false), (left, true)]) {
            let open = choices(set, left, held);
            say(format!("choices {set} {left} {}: {}", u8::from(held), line(open)));
        }
    }
    for one in states {
        let state = State::from_number(one);
        say(format!("name {one}: {}", state.map_or("no device_state", State::name)));
        for other in states {
            let seen = |of: fn(State, RawState) -> Option<Evidence>, number| {
                let evidence = state.map(|state| of(state, RawState(other)));
                line(evidence.map(|seen| seen.map_or(0, |_| number)).ok_or(UNKNOWN))
            };
            say(format!("behind_set {one} {other}: {}", seen(Evidence::behind_set, 4)));
            say(format!("of_state {one} {other}: {}", seen(Evidence::of_state, 3)));
        }
        for errno in [-1, 0, 1, 5, 9, 19, 22, i32::MAX] {
            let seen = Evidence::of_call("read", Errno(errno), RawState(one));
            let answer = if errno > 0 { Ok(u32::from(seen.is_some())) } else { Err(ERRNO) };
            say(format!("of_call {errno} {one}: {}", line(answer)));
        }
    }
    text
}

/// P3: every answer is the core's, and nothing is written beside an error, whatever numbers and
/// pointers come.
#[test]
fn every_answer_is_that_of_the_core() {
    let printed = run(&mut Command::new(compiled("every_answer"))).stdout;
    let printed = String::from_utf8(printed).expect("text");
    let (answers, rest) = printed.split_at(printed.find("code -13").expect("the codes come last"));
    let expected = every_answer();
    for (got, want) in answers.lines().zip(expected.lines()) {
        assert_eq!(got, want);
    }
    assert_eq!(answers.lines().count(), expected.lines().count());
    let nulls = format!("null:{}", format!(" {NULL}").repeat(7));
    assert_eq!(rest.lines().last(), Some(nulls.as_str()));
    codes().assert_eq(rest);
}

fn codes() -> Expect {
    expect![[r#"
        code -13: no code of vfio_fsm
        code -12: no code of vfio_fsm
        code -11: an errno is a positive number
        code -10: a data_fd was due and none came; the driver is at fault
        code -9: no SET leads there
        code -8: this pair is blocked, and an unpatched kernel never returns from it; go through STOP
        code -7: the device is in a state that its flags do not have
        code -6: only VFIO_DEVICE_RESET leaves ERROR
        code -5: ERROR cannot be asked for
        code -4: the device lacks the flag for this state
        code -3: there is no such device_state
        code -2: the migration flags are not a legal set; treat the device as not migratable
        code -1: the pointer for the answer is null
        code 0: done
        code 1: no code of vfio_fsm
        null: -1 -1 -1 -1 -1 -1 -1
    "#]]
}

/// P4, O1, O2, O3, O4: a save loop in C is told of a reset in each of the four ways, and of none when
/// there is none.
#[test]
fn a_save_loop_in_c_sees_each_reset() {
    let program = compiled("qemu_like");
    let mut said = String::new();
    for when in ["never", "read", "stop", "inside", "cancel"] {
        let output = Command::new(&program).arg(when).output().expect("it can be started");
        let printed = String::from_utf8(output.stdout).expect("text");
        let ended = output.status.code().expect("no signal");
        write!(said, "{when}: {ended}, {printed}").expect("to a string");
    }
    expect![[r#"
        never: 0, the image is whole
        read: 3, read: reset, by a dead data_fd; open: abort restart stop-copy
        stop: 3, SET: reset, by an unexpected data_fd; open: abort restart stop-copy
        inside: 3, GET behind SET: reset, by in RUNNING behind a SET that succeeded; open: abort restart stop-copy
        cancel: 3, GET before going back: reset, by in RUNNING already; open: abort restart stop-copy
    "#]].assert_eq(&said);
}
