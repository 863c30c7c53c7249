// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! The program as its user meets it: `observe` of a file, and `watch` of a VMM of ours on a device that
//! a library plays. What is recorded is real: calls of a process of its own, caught in front of libc.

#![expect(clippy::unwrap_used, reason = "helpers of tests fail as tests do")]

use std::ffi::OsStr;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use serde_json::Value;
use tempfile::TempDir;
use vfio_conform::observe::{Format, Recording, read};
use vfio_fsm_core::{Fd, Op, Reply, State};

fn data(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data").join(name)
}

/// The VMM and the library that plays the kernel, compiled.
struct Vmm {
    folder: TempDir,
}

impl Vmm {
    fn new() -> Self {
        let vmm = Self { folder: TempDir::new().unwrap() };
        vmm.compile("vmm.c", "vmm", &["-pthread"]);
        vmm.compile("fake_kernel.c", "kernel.so", &["-fPIC", "-shared"]);
        vmm
    }

    fn place(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    fn compile(&self, source: &str, to: &str, options: &[&str]) {
        let mut cc = Command::new("cc");
        cc.arg("-U_FORTIFY_SOURCE").args(options).arg("-o").arg(self.place(to)).arg(data(source));
        assert!(cc.arg("-ldl").status().unwrap().success());
    }

    /// `vfio-conform watch` of it: exit code, standard output, standard error.
    fn watch(&self, how: &str) -> (Option<i32>, String, String) {
        let (recording, vmm) = (self.place(&format!("{how}.jsonl")), self.place("vmm"));
        let arguments: [&OsStr; 7] = [
            "--json".as_ref(),
            "watch".as_ref(),
            "--out".as_ref(),
            recording.as_ref(),
            "--".as_ref(),
            vmm.as_ref(),
            how.as_ref(),
        ];
        run(&arguments, &[("LD_PRELOAD", self.place("kernel.so").as_ref())])
    }

    fn recording(&self, how: &str) -> Recording {
        let text = fs::read(self.place(&format!("{how}.jsonl"))).unwrap();
        read(text.as_slice(), Format::Recording).unwrap().remove(0)
    }
}

fn run(arguments: &[&OsStr], environment: &[(&str, &OsStr)]) -> (Option<i32>, String, String) {
    let mut command = assert_cmd::cargo::cargo_bin_cmd!("vfio-conform");
    command.args(arguments).envs(environment.iter().copied());
    let output = command.output().unwrap();
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    (output.status.code(), text(&output.stdout), text(&output.stderr))
}

fn observe(file: &Path, more: &[&str]) -> (Option<i32>, String, String) {
    let mut arguments: Vec<&OsStr> = vec!["observe".as_ref(), file.as_ref()];
    arguments.extend(more.iter().map(OsStr::new));
    run(&arguments, &[])
}

fn rules(json: &str) -> Vec<(String, u64)> {
    let json: Value = serde_json::from_str(json).unwrap();
    let findings = json["observe"]["recordings"][0]["findings"].as_array().unwrap();
    let rule = |finding: &Value| {
        (finding["rule"].as_str().unwrap().to_owned(), finding["step"].as_u64().unwrap())
    };
    findings.iter().map(rule).collect()
}

/// W9: a VMM that does all as it should is recorded call by call, and nothing is found.
#[test]
fn a_vmm_is_watched() {
    let vmm = Vmm::new();
    let (code, out, err) = vmm.watch("good");
    assert_eq!((code, rules(&out)), (Some(0), vec![]), "{err}");
    assert!(out.contains("exit status: 7"), "{out}");
    let recording = vmm.recording("good");
    let bytes = |len| (Op::Read { fd: Fd(1), len: 4 }, Reply::Bytes(len));
    let end = Reply::EndOfStream(vfio_fsm_core::EndOfStream::Permanent);
    let wanted = [
        (Op::GetFeatures, Reply::Features(1)),
        (Op::DataSize, Reply::Size(10)),
        (Op::set(State::StopCopy), Reply::Fd(Some(Fd(1)))),
        bytes(4),
        bytes(4),
        bytes(2),
        (Op::Read { fd: Fd(1), len: 4 }, end),
        (Op::CloseFd { fd: Fd(1) }, Reply::Ok),
        (Op::set(State::Stop), Reply::Fd(None)),
        (Op::GetState, Reply::State(State::Stop.into())),
        (Op::set(State::Running), Reply::Fd(None)),
        (Op::Reset, Reply::Ok),
        (Op::Close, Reply::Ok),
    ];
    let seen = recording.steps.iter().map(|step| (step.op.unwrap(), step.reply));
    assert_eq!(seen.collect::<Vec<_>>(), wanted);
    let steps = &recording.steps;
    assert!(steps.iter().all(|step| step.pid > 0 && step.tid > 0 && step.at > 0));
    assert!(steps.windows(2).all(|pair| pair[0].at <= pair[1].at));
}

/// W9: threads are told apart, and a child of the VMM is not taken for it.
#[test]
fn threads_and_children_are_told_apart() {
    let vmm = Vmm::new();
    let (code, out, err) = vmm.watch("thread");
    assert_eq!((code, rules(&out)), (Some(0), vec![]), "{err}");
    let steps = vmm.recording("thread").steps;
    assert!(steps.iter().all(|step| step.pid == steps[0].pid));
    let other = |op: &Op<u64>| matches!(op, Op::Read { .. });
    assert!(steps.iter().all(|s| (s.tid != steps[0].tid) == s.op.as_ref().is_some_and(other)));
}

/// W9: what a watched VMM does wrong is found, exit code 1.
#[test]
fn what_a_watched_vmm_does_wrong_is_found() {
    let vmm = Vmm::new();
    let (code, out, err) = vmm.watch("bad");
    let wanted = [("no-route".to_owned(), 9), ("stale-fd".to_owned(), 10)];
    assert_eq!((code, rules(&out)), (Some(1), wanted.to_vec()), "{err}");
    // The file that was kept says the same.
    let (code, out, _) = observe(&vmm.place("bad.jsonl"), &["--json"]);
    assert_eq!((code, rules(&out)), (Some(1), wanted.to_vec()));
    let (_, out, _) = observe(&vmm.place("bad.jsonl"), &[]);
    assert!(out.contains("errors 2") && out.contains("answered: EBADF"), "{out}");
}

/// W9: without a recorder, a compiler, a command or a device there is a complaint that says what to do.
#[test]
fn what_cannot_be_watched_is_said() {
    let vmm = Vmm::new();
    let (code, _, err) = vmm.watch("nothing");
    assert_eq!(code, Some(2), "{err}");
    assert!(err.contains("used no VFIO device that migrates"), "{err}");

    let watch = |command: &Path, environment: &[(&str, &OsStr)]| {
        run(&["watch".as_ref(), "--".as_ref(), command.as_ref()], environment)
    };
    let (code, _, err) = watch(Path::new("/nowhere/vmm"), &[]);
    assert!(code == Some(2) && err.contains("cannot be started"), "{err}");
    let (code, _, err) = watch(&vmm.place("vmm"), &[("CC", "/nowhere/cc".as_ref())]);
    assert!(code == Some(2) && err.contains("install a C compiler"), "{err}");
    let (code, _, err) = watch(&vmm.place("vmm"), &[("CC", "false".as_ref())]);
    assert!(code == Some(2) && err.contains("cannot compile the recorder"), "{err}");
    vmm.compile("vmm.c", "static", &["-static", "-pthread"]);
    let (code, _, err) = watch(&vmm.place("static"), &[]);
    assert!(code == Some(2) && err.contains("linked statically"), "{err}");
}

/// W6: a file that cannot be read is wrong use, and the complaint names file and line.
#[test]
fn what_cannot_be_observed_is_said() {
    let (code, out, _) = observe(&data("qemu-10.0.2-mtty.calls"), &[]);
    assert_eq!(code, Some(0));
    assert!(out.contains("SRC TRACE: calls 19"), "{out}");
    let forced = observe(&data("qemu-10.0.2-mtty.calls"), &["--format", "recording"]);
    assert!(forced.0 == Some(2) && forced.2.contains("line 1"), "{forced:?}");
    let absent = observe(Path::new("/nowhere/file"), &[]);
    assert!(absent.0 == Some(2) && absent.2.contains("/nowhere/file"), "{absent:?}");
}
