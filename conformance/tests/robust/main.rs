// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! The tool killed, starved and fed: whatever happens to it, no program of its own is left running,
//! no half of a file is taken for the whole, the next run works, and a complaint says what is wrong.
#![expect(clippy::unwrap_used, reason = "helpers of tests fail as tests do")]

mod fed;
mod killed;
mod mirror;
mod starved;

#[path = "../program/mod.rs"]
mod program;

use std::ffi::OsStr;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use program::program;
use tempfile::TempDir;

/// Longer than anything takes on a busy machine.
const PATIENCE: Duration = Duration::from_secs(300);

/// The tool, with an environment by which it and all that it starts can be told from all else.
struct Tool {
    place: TempDir,
}

impl Tool {
    fn new() -> Self {
        let tool = Self { place: TempDir::new().unwrap() };
        fs::create_dir(tool.path("bin")).unwrap();
        fs::create_dir(tool.path("tmp")).unwrap();
        tool
    }

    fn path(&self, name: &str) -> PathBuf {
        self.place.path().join(name)
    }

    /// A program of the test's own, before all others on the PATH.
    fn program(&self, name: &str, script: &str) {
        use std::os::unix::fs::PermissionsExt;
        let path = self.path("bin").join(name);
        fs::write(&path, script).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).unwrap();
    }

    fn command<A: AsRef<OsStr>>(&self, arguments: impl IntoIterator<Item = A>) -> Command {
        self.prepare(Command::new(program()), arguments)
    }

    /// The tool behind these commands of a shell.
    fn after(&self, shell: &str, arguments: &[&str]) -> Command {
        let mut sh = Command::new("sh");
        sh.args(["-c", &format!("{shell}; exec \"$0\" \"$@\"")]);
        sh.arg(program());
        self.prepare(sh, arguments)
    }

    fn prepare<A: AsRef<OsStr>>(
        &self,
        mut command: Command,
        arguments: impl IntoIterator<Item = A>,
    ) -> Command {
        let path = std::env::var("PATH").unwrap();
        command.args(arguments).current_dir(self.place.path());
        command.env("ROBUST", self.place.path()).env("TMPDIR", self.path("tmp"));
        command.env("PATH", format!("{}:{path}", self.path("bin").display()));
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
        command
    }

    /// Everything that runs with the environment of this tool.
    fn processes(&self) -> Vec<String> {
        let mark = format!("ROBUST={}\0", self.place.path().display());
        let processes = fs::read_dir("/proc").unwrap().flatten();
        processes
            .filter(|process| {
                let environment = fs::read(process.path().join("environ")).unwrap_or_default();
                environment.windows(mark.len()).any(|part| part == mark.as_bytes())
            })
            .map(|process| {
                let line = fs::read(process.path().join("cmdline")).unwrap_or_default();
                String::from_utf8_lossy(&line).replace('\0', " ")
            })
            .collect()
    }

    /// Nothing that was started is left, or will not be in a moment.
    #[track_caller]
    fn leaves_nothing_running(&self) {
        wait_until("all is gone", || self.processes().is_empty(), || self.processes().join("\n"));
    }

    #[track_caller]
    fn wait_for(&self, file: &str) {
        let path = self.path(file);
        wait_until(file, || path.exists(), String::new);
    }
}

#[track_caller]
fn wait_until(what: &str, is: impl Fn() -> bool, seen: impl Fn() -> String) {
    let began = Instant::now();
    while !is() {
        assert!(began.elapsed() < PATIENCE, "not {what}: {}", seen());
        thread::sleep(Duration::from_millis(5));
    }
}

/// SIGKILL, and waits for its end.
fn kill(mut child: Child) {
    child.kill().unwrap();
    child.wait().unwrap();
}

/// The names in a directory, in order.
fn names(directory: &Path) -> Vec<String> {
    let entries = fs::read_dir(directory).unwrap().flatten();
    let mut names: Vec<_> = entries.map(|entry| entry.file_name().into_string().unwrap()).collect();
    names.sort_unstable();
    names
}

fn err(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

#[track_caller]
fn ends_with(output: &Output, code: i32) {
    let out: String = String::from_utf8_lossy(&output.stdout).chars().take(2000).collect();
    let err = err(output);
    assert_eq!(output.status.code(), Some(code), "\nstdout: {out}\nstderr: {err}");
    assert!(!err.contains("panicked"), "{err}");
}

/// A complaint that has all of this.
#[track_caller]
fn complains_of(output: &Output, all: &[&str]) {
    ends_with(output, 2);
    let err = err(output);
    assert!(all.iter().all(|text| err.contains(text)), "{all:?} is not in: {err}");
}
