// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! Programs of the host: which are needed, and running one so that it ends when we do.

use std::fs::File;
use std::io::Read;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitStatus, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::Duration;

use super::error::Error;
use crate::tidy::Family;

/// A program the lab needs that is not on the PATH.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MissingTool {
    /// The program.
    pub program: String,
    /// The Debian package that has it.
    pub package: String,
}

/// What fetches and unpacks packages, and where Debian keeps it.
pub(crate) const FETCHING: [(&str, &str); 5] = [
    ("apt-get", "apt"),
    ("apt-cache", "apt"),
    ("dpkg-deb", "dpkg"),
    ("tar", "tar"),
    ("xz", "xz-utils"),
];

/// What the lab calls beside it.
pub(crate) const LAB: [(&str, &str); 3] =
    [("make", "make"), ("gcc", "gcc"), ("qemu-system-x86_64", "qemu-system-x86")];

/// Says which of `tools` (program, package) are missing, or nothing.
pub(crate) fn check<'t>(tools: impl IntoIterator<Item = (&'t str, &'t str)>) -> Result<(), Error> {
    let missing: Vec<MissingTool> = tools
        .into_iter()
        .filter(|(program, _)| find(program).is_none())
        .map(|(program, package)| MissingTool { program: program.into(), package: package.into() })
        .collect();
    if missing.is_empty() { Ok(()) } else { Err(Error::Tools(missing)) }
}

/// The message of [`Error::Tools`]: all that is missing, and one command that brings it.
pub(crate) fn list_missing(missing: &[MissingTool]) -> String {
    let programs: Vec<&str> = missing.iter().map(|tool| tool.program.as_str()).collect();
    let mut packages: Vec<&str> = missing.iter().map(|tool| tool.package.as_str()).collect();
    packages.sort_unstable();
    packages.dedup();
    let mut text = format!("not on the PATH: {}", programs.join(", "));
    if packages.contains(&"apt") || packages.contains(&"dpkg") {
        text.push_str("; the lab takes its kernel from Debian packages, so it needs a Debian");
    } else {
        text.push_str(&format!("; as root: apt-get install {}", packages.join(" ")));
    }
    text
}

/// Looks a program up on the PATH.
fn find(program: &str) -> Option<PathBuf> {
    let path = std::env::var_os("PATH")?;
    std::env::split_paths(&path).map(|dir| dir.join(program)).find(|file| is_program(file))
}

fn is_program(file: &Path) -> bool {
    use std::os::unix::fs::PermissionsExt;
    file.metadata().is_ok_and(|meta| meta.is_file() && meta.permissions().mode() & 0o111 != 0)
}

/// A command without input. A process group of its own, once it runs, keeps the terminal's Ctrl-C
/// away: we decide what stops when.
pub(crate) fn command(program: &str) -> Command {
    let mut command = Command::new(program);
    command.stdin(Stdio::null());
    command
}

/// What a program said and how it ended.
pub(crate) struct Said {
    pub(crate) status: ExitStatus,
    pub(crate) stdout: String,
    stderr: String,
}

impl Said {
    /// The last lines of both outputs, for an error message.
    pub(crate) fn tail(&self) -> String {
        let lines: Vec<&str> = self.stdout.lines().chain(self.stderr.lines()).collect();
        lines[lines.len().saturating_sub(30)..].join("\n")
    }
}

/// Runs a program to its end and keeps what it says; stops it when `cancel` is set.
pub(crate) fn run(mut command: Command, cancel: &AtomicBool) -> Result<Said, Error> {
    let program = named(&command);
    let start = |source| Error::Start { program: program.clone(), source };
    let command = command.stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut family = Family::start(command).map_err(start)?;
    let (out, err) = (family.child().stdout.take(), family.child().stderr.take());
    thread::scope(|scope| {
        let out = scope.spawn(|| drain(out));
        let err = scope.spawn(|| drain(err));
        let status = wait(&mut family, cancel, &program);
        // Ends the readers too: their pipes close with the last writer, whoever that is.
        family.kill();
        let (stdout, stderr) = (out.join().unwrap_or_default(), err.join().unwrap_or_default());
        status.map(|status| Said { status, stdout, stderr })
    })
}

/// Runs a program whose output is a file (a decompressor); true when it succeeded.
pub(crate) fn run_into(
    mut command: Command,
    output: File,
    cancel: &AtomicBool,
) -> Result<bool, Error> {
    let program = named(&command);
    let start = |source| Error::Start { program: program.clone(), source };
    let command = command.stdout(output).stderr(Stdio::null());
    let mut family = Family::start(command).map_err(start)?;
    wait(&mut family, cancel, &program).map(|status| status.success())
}

fn wait(family: &mut Family, cancel: &AtomicBool, program: &str) -> Result<ExitStatus, Error> {
    loop {
        if cancel.load(Ordering::Relaxed) {
            return Err(Error::Cancelled);
        }
        match family.child().try_wait() {
            Ok(Some(status)) => return Ok(status),
            Ok(None) => thread::sleep(Duration::from_millis(10)),
            Err(source) => return Err(Error::Start { program: program.to_owned(), source }),
        }
    }
}

/// Reads all there is; a program's odd bytes must not hide its message.
fn drain(pipe: Option<impl Read>) -> String {
    let mut bytes = Vec::new();
    if let Some(mut pipe) = pipe {
        // A read error leaves what came before it, which is all there is to show.
        let _ = pipe.read_to_end(&mut bytes);
    }
    String::from_utf8_lossy(&bytes).into_owned()
}

/// The program, for messages.
fn named(command: &Command) -> String {
    command.get_program().to_string_lossy().into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn all_missing_tools_are_named_at_once_with_one_command() {
        let wanted = [("sh", "dash"), ("no-such-b", "pkg-b"), ("no-such-a", "pkg-a")];
        let error = check(wanted).expect_err("two are missing").to_string();
        assert_eq!(
            error,
            "not on the PATH: no-such-b, no-such-a; as root: apt-get install pkg-a pkg-b"
        );
        assert!(check([("sh", "dash")]).is_ok());
    }

    #[test]
    fn without_apt_the_message_does_not_advise_apt() {
        let error = check([("no-such-apt", "apt")]).expect_err("missing").to_string();
        assert!(error.contains("needs a Debian") && !error.contains("install"), "{error}");
    }

    #[test]
    fn a_program_is_heard_and_its_failure_seen() {
        let mut sh = command("sh");
        sh.args(["-c", "echo one; echo two >&2; exit 3"]);
        let said = run(sh, &AtomicBool::new(false)).expect("sh runs");
        assert_eq!(said.status.code(), Some(3));
        assert_eq!(said.tail(), "one\ntwo");
    }

    #[test]
    fn cancelling_ends_a_program_and_its_children() {
        let mut sh = command("sh");
        sh.args(["-c", "sleep 600 & wait"]);
        let started = std::time::Instant::now();
        assert!(matches!(run(sh, &AtomicBool::new(true)), Err(Error::Cancelled)));
        assert!(started.elapsed() < Duration::from_secs(60));
    }
}
