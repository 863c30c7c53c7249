// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! No room, no rights, nothing that could be written to.

use std::fs::{self, File};

use super::*;

/// H52: Where standard output is full, no run passes: exit status 2 and the reason.
#[test]
fn a_full_standard_output_is_2_and_said() {
    let tool = Tool::new();
    let reset = tool.path("one.jsonl");
    fs::write(&reset, ONE).unwrap();
    let replay = ["replay", "--traces", reset.to_str().unwrap()];
    let commands: [&[&str]; 5] = [
        &["generate", "--suite", "fds", "--out", "-"],
        &replay,
        &[&["--json"], &replay[..]].concat(),
        &[&replay[..], &["--events"]].concat(),
        &["migrate", "--seeds", "0"],
    ];
    for arguments in commands {
        let full = File::options().write(true).open("/dev/full").unwrap();
        let output = tool.command(arguments).stdout(full).output().unwrap();
        complains_of(&output, &["No space left on device"]);
    }
}

/// H52: The same for a file, whatever writes it; half of one does not stay.
#[test]
fn a_full_disk_is_2_and_said() {
    let tool = Tool::new();
    let commands: [&[&str]; 2] = [&["complete", "traces", "--out"], &["learn", "--dot"]];
    for arguments in commands {
        let output = tool.command([arguments, &["/dev/full"]].concat()).output().unwrap();
        complains_of(&output, &["/dev/full", "No space left on device"]);
        // A limit on the size of files is as good as a small disk, where it does not kill.
        let limit = "trap '' XFSZ; ulimit -f 0";
        let output = tool.after(limit, &[arguments, &["small"]].concat()).output().unwrap();
        complains_of(&output, &["small", "File too large"]);
        assert!(!tool.path("small").exists() && !tool.path("small.partial").exists());
    }
    let generate = ["generate", "--suite", "fds", "--out", "out"];
    let output = tool.after("trap '' XFSZ; ulimit -f 9", &generate).output().unwrap();
    complains_of(&output, &["out/fds.jsonl", "File too large"]);
    assert!(names(&tool.path("out")).is_empty());
}

/// H52: A complaint that nobody can hear changes nothing.
#[test]
fn a_full_standard_error_does_not_matter() {
    let tool = Tool::new();
    let full = || File::options().write(true).open("/dev/full").unwrap();
    let missing = tool.command(["replay", "--traces", "none"]).stderr(full()).output().unwrap();
    assert_eq!(missing.status.code(), Some(2));
    let good = tool.command(["replay", "--suite", "fds"]).stderr(full()).output().unwrap();
    assert_eq!(good.status.code(), Some(0));
}

/// H53: Where nothing can be made, which of the directories it is is said. /proc is one, also for
/// root.
#[test]
fn a_directory_that_cannot_be_written_to_is_2_and_named() {
    let tool = Tool::new();
    let runs: [&[&str]; 3] = [
        &["generate", "--suite", "fds", "--out", "/proc/traces"],
        &["generate", "--suite", "fds", "--out", "/proc"],
        &["complete", "traces", "--out", "/proc/traces"],
    ];
    for arguments in runs {
        complains_of(&tool.command(arguments).output().unwrap(), &["/proc"]);
    }
    let mut watch = tool.command(["watch", "--", "true"]);
    complains_of(&watch.env("TMPDIR", "/proc").output().unwrap(), &["/proc"]);
}

mod lab {
    use super::super::killed::{LAB_TOOLS, lab, lab_command};
    use super::*;

    /// H53: So it is for the lab's cache.
    #[test]
    fn a_cache_that_cannot_be_made_is_2_and_named() {
        let tool = lab(&LAB_TOOLS);
        let mut command = lab_command(&tool);
        command.arg("--kernel").arg("6.12.9-1");
        fs::write(tool.path("cache"), "a file").unwrap();
        complains_of(&command.output().unwrap(), &["cache"]);
    }

    /// H52: The lab on a disk of each size, from one that has room for nothing to one that has for
    /// all: always a reason or all good, and never an entry that is not whole.
    #[test]
    #[ignore = "mounts small file systems, as root"]
    fn a_lab_on_a_full_disk_says_so() {
        // What is downloaded and unpacked is larger than in the other tests.
        let script = super::super::killed::LAB_SCRIPT
            .replace("echo kernel >", "head -c 200000 /dev/zero >")
            .replace("echo module >", "head -c 100000 /dev/zero >");
        let mut ends = std::collections::BTreeMap::new();
        for kib in (4..1400).step_by(60) {
            let tool = lab(&LAB_TOOLS);
            LAB_TOOLS.iter().for_each(|name| tool.program(name, &script));
            let cache = tool.path("cache");
            fs::create_dir(&cache).unwrap();
            let disk = Disk::mount(&cache, kib);
            let output = lab_command(&tool).output().unwrap();
            let code = output.status.code().unwrap();
            *ends.entry(code).or_insert(0) += 1;
            if code != 0 {
                complains_of(&output, &[]);
                let said = err(&output);
                let clear = ["No space left", "is the disk full"];
                assert!(clear.iter().any(|text| said.contains(text)), "{kib} KiB: {said}");
            }
            let entry = cache.join("kernel-1-6.12.9-1");
            if entry.exists() {
                assert!(entry.join("release").metadata().unwrap().len() > 0, "{kib} KiB");
            }
            // With room again, the same cache serves.
            disk.grow();
            ends_with(&lab_command(&tool).output().unwrap(), 0);
        }
        assert!(ends[&2] > 3 && ends[&0] > 3, "{ends:?}");
    }

    /// A file system of its own size.
    struct Disk(PathBuf);

    impl Disk {
        fn mount(at: &Path, kib: u32) -> Self {
            let size = format!("size={kib}k");
            let mut mount = Command::new("mount");
            mount.args(["-t", "tmpfs", "-o", &size, "tmpfs"]).arg(at);
            assert!(mount.status().unwrap().success(), "a mount needs root");
            Self(at.to_owned())
        }

        fn grow(&self) {
            let mut mount = Command::new("mount");
            mount.args(["-o", "remount,size=16m"]).arg(&self.0);
            assert!(mount.status().unwrap().success());
        }
    }

    impl Drop for Disk {
        fn drop(&mut self) {
            let _ = Command::new("umount").arg(&self.0).status();
        }
    }
}

const ONE: &str = "{\"vfio-fsm-trace\":1,\"name\":\"one\",\"features\":7}\n\
                   {\"op\":\"reset\",\"expect\":\"ok\"}\n";
