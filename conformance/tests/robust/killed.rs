// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! SIGKILL at every moment there is.

use std::fs::{self, File};
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;
use std::process::Stdio;
use std::thread;
use std::time::{Duration, SystemTime};

use super::*;

/// What the lab calls, all played by one script.
pub(super) const LAB_TOOLS: [&str; 9] = [
    "apt-cache",
    "apt-get",
    "dpkg-deb",
    "gcc",
    "gcc-12",
    "make",
    "qemu-system-x86_64",
    "tar",
    "xz",
];

pub(super) const LAB_SCRIPT: &str = include_str!("../data/lab_tool.sh");

/// As much of a static program as the lab looks at.
pub(super) fn replayer() -> Vec<u8> {
    let mut bytes = vec![0; 64 + 56];
    bytes[..16].copy_from_slice(b"\x7fELF\x02\x01\x01\0\0\0\0\0\0\0\0\0");
    bytes[16] = 2;
    bytes[18] = 62;
    bytes[20] = 1;
    bytes[24] = 1;
    bytes[32] = 64;
    bytes[52] = 64;
    bytes[54] = 56;
    bytes[56] = 1;
    bytes[64] = 1;
    bytes
}

/// A lab whose programs are all played, so that it takes no time and can be stopped anywhere.
pub(super) fn lab(played: &[&str]) -> Tool {
    let tool = Tool::new();
    played.iter().for_each(|name| tool.program(name, LAB_SCRIPT));
    fs::write(tool.path("replayer"), replayer()).unwrap();
    tool
}

pub(super) fn lab_command(tool: &Tool) -> Command {
    let (cache, replayer) = (tool.path("cache"), tool.path("replayer"));
    let mut command = tool.command(["lab", "--suite", "arcs", "--only"]);
    command.arg("arcs/full/RUNNING/to-STOP");
    command.arg("--cache").arg(cache).arg("--replayer").arg(replayer);
    command
}

/// The cache after a run that went well.
#[track_caller]
fn is_tidy(tool: &Tool) {
    assert_eq!(names(&tool.path("cache")), ["kernel-1-6.12.9-1", "lock"]);
    let entry = names(&tool.path("cache/kernel-1-6.12.9-1"));
    let whole = ["busybox", "load-order", "mdev.ko", "mtty.ko", "release", "vfio.ko"];
    assert_eq!(entry[..6], whole);
}

/// H50, H51: The lab is killed at every program that it calls, and that program and its children
/// are gone, a machine included; the next lab works and clears up.
#[test]
fn a_lab_killed_at_every_call_leaves_nothing() {
    let mut calls = Vec::new();
    for stop_at in 1..100 {
        let tool = lab(&LAB_TOOLS);
        let mut running = lab_command(&tool).env("STOP_AT", stop_at.to_string()).spawn().unwrap();
        wait_until(
            "stopped",
            || tool.path("reached").exists() || tool.path("ended").exists() || is_over(&running),
            String::new,
        );
        if !tool.path("reached").exists() {
            assert!(running.wait().unwrap().success());
            break;
        }
        let called = fs::read_to_string(tool.path("calls")).unwrap();
        calls.push(called.lines().last().unwrap().to_owned());
        assert!(tool.processes().len() > 1, "there is something to be killed");
        kill(running);
        tool.leaves_nothing_running();

        ends_with(&lab_command(&tool).output().unwrap(), 0);
        is_tidy(&tool);
    }
    for tool in ["apt-cache", "apt-get", "dpkg-deb", "tar", "make", "xz", "qemu-system-x86_64"] {
        assert!(calls.iter().any(|call| call == tool), "{tool} is not among {calls:?}");
    }
}

/// H50, H51: The same at moments that nobody has chosen.
#[test]
fn a_lab_killed_at_any_time_leaves_nothing() {
    let tool = lab(&LAB_TOOLS);
    for delay in (0..400).step_by(16) {
        let running = lab_command(&tool).spawn().unwrap();
        thread::sleep(Duration::from_millis(delay));
        kill(running);
        tool.leaves_nothing_running();
    }
    ends_with(&lab_command(&tool).output().unwrap(), 0);
    is_tidy(&tool);
}

/// Whether a process has ended, though nobody has waited for it.
fn is_over(child: &Child) -> bool {
    let stat = fs::read_to_string(format!("/proc/{}/stat", child.id())).unwrap_or_default();
    stat.rsplit_once(") ").is_none_or(|(_, rest)| rest.starts_with('Z'))
}

/// H50: A VMM under the recorder ends with the tool, and what the tool made is cleared up by the
/// next run.
#[test]
fn a_watched_vmm_ends_with_the_tool() {
    let tool = Tool::new();
    let script = ": >\"$ROBUST/reached\"; exec sleep 600";
    let running = tool.command(["watch", "--", "sh", "-c", script]).spawn().unwrap();
    tool.wait_for("reached");
    kill(running);
    tool.leaves_nothing_running();

    // It is there, and goes when it is old enough to be nobody's.
    let left = names(&tool.path("tmp"));
    assert_eq!(left.len(), 1);
    let folder = tool.path("tmp").join(&left[0]);
    let used = tool.path("tmp/vfio-conform-in-use");
    fs::create_dir(&used).unwrap();
    let lock = File::open(&used).unwrap();
    lock.lock().unwrap();
    let long_ago = SystemTime::now() - Duration::from_secs(3600);
    for old in [&folder, &used] {
        File::open(old).unwrap().set_modified(long_ago).unwrap();
    }
    let next = tool.command(["watch", "--", "true"]).output().unwrap();
    assert!(err(&next).contains("used no VFIO device"), "{}", err(&next));
    assert_eq!(names(&tool.path("tmp")), ["vfio-conform-in-use"]);
}

/// H50: A checker that is measured ends with the tool, one of others included.
#[test]
fn a_measured_checker_ends_with_the_tool() {
    // A Spin whose verifier hangs, with a child that hangs too.
    let tool = Tool::new();
    tool.program("spin", "#!/bin/sh\n: >pan.c\n");
    tool.program(
        "gcc",
        "#!/bin/sh\nfor out; do case $out in [DB]FS) cp \"$ROBUST/pan\" $out;; esac; done\n",
    );
    tool.program("pan", "");
    let pan = "#!/bin/sh\nsleep 600 &\n: >\"$ROBUST/reached\"\nexec sleep 600\n";
    fs::write(tool.path("pan"), pan).unwrap();
    Command::new("chmod").arg("+x").arg(tool.path("pan")).status().unwrap();
    let bench = ["bench", "check", "--model", "bench, 3 devices"];
    let running = tool.command(bench).spawn().unwrap();
    tool.wait_for("reached");
    kill(running);
    tool.leaves_nothing_running();
}

/// H50: The other processes of a migration between real devices end when nobody speaks to them.
#[test]
fn a_migration_peer_ends_with_its_socket() {
    let tool = Tool::new();
    let (ours, theirs) = UnixStream::pair().unwrap();
    let mut peer = tool.command(["migrate-peer"]);
    let device = File::options().read(true).write(true).open("/dev/null").unwrap();
    let peer = peer.stdin(OwnedFd::from(theirs)).stdout(Stdio::from(device)).spawn().unwrap();
    drop(ours);
    let output = peer.wait_with_output().unwrap();
    ends_with(&output, 0);
}

/// H51: `generate` is killed at a byte, at every size that a file goes through, and each file that
/// stands under its name is whole; the next run writes them all, and nothing else is left.
#[test]
fn files_of_a_killed_run_are_whole_or_not_there() {
    let tool = Tool::new();
    let suites = ["generate", "--suite", "fds", "--suite", "streams", "--out", "out"];
    let out = tool.path("out");
    ends_with(&tool.command(suites).output().unwrap(), 0);
    let whole: Vec<_> =
        names(&out).into_iter().map(|name| (fs::read(out.join(&name)).unwrap(), name)).collect();
    let largest = whole.iter().map(|(bytes, _)| bytes.len()).max().unwrap();
    fs::remove_dir_all(&out).unwrap();

    let mut died = 0;
    for blocks in (0..=largest / 512).step_by(largest / 512 / 12 + 1) {
        // Past so many blocks of 512 bytes the kernel sends a signal that kills.
        let run =
            tool.after(&format!("ulimit -c 0; ulimit -f {blocks}"), &suites).output().unwrap();
        died += u32::from(run.status.code().is_none());
        for (bytes, name) in &whole {
            if let Ok(seen) = fs::read(out.join(name)) {
                assert!(seen == *bytes, "{name} is not whole after {blocks} blocks");
            }
        }
    }
    assert!(died > 5, "it was killed only {died} times");
    ends_with(&tool.command(suites).output().unwrap(), 0);
    assert_eq!(names(&out), whole.iter().map(|(_, name)| name.clone()).collect::<Vec<_>>());
}

/// H51: A file that another process is writing is left to it.
#[test]
fn a_file_has_one_writer_at_a_time() {
    let tool = Tool::new();
    let suites = ["generate", "--suite", "fds", "--out", "out"];
    fs::create_dir(tool.path("out")).unwrap();
    let other = File::create(tool.path("out/fds.jsonl.partial")).unwrap();
    other.lock().unwrap();
    complains_of(&tool.command(suites).output().unwrap(), &["fds.jsonl", "another process"]);
    assert!(!tool.path("out/fds.jsonl").exists() && tool.path("out/fds.jsonl.partial").exists());
    drop(other);
    ends_with(&tool.command(suites).output().unwrap(), 0);
    assert_eq!(names(&tool.path("out")), ["fds.jsonl"]);
}
