// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! `vfio-conform serve`, and what a user of `vfio-user:SOCKET` meets.

use std::io::{BufRead, BufReader, Write};
use std::path::Path;
use std::process::{Child, Command, Output, Stdio};

use crate::golden::{EXCHANGES, bytes, request};
use crate::{impostor, socket};

const TOOL: &str = env!("CARGO_BIN_EXE_vfio-conform");

fn run(arguments: &[&str]) -> (Option<i32>, String, String) {
    let Output { status, stdout, stderr } =
        Command::new(TOOL).args(arguments).output().expect("it runs");
    let text = |bytes| String::from_utf8(bytes).expect("it is text");
    (status.code(), text(stdout), text(stderr))
}

/// A server in a process of its own, once it says that it serves.
struct Serving(Child);

impl Serving {
    fn start(arguments: &[&str]) -> Self {
        let mut command = Command::new(TOOL);
        let child = command.arg("serve").args(arguments).stdout(Stdio::piped()).spawn();
        let mut child = child.expect("it runs");
        let mut line = String::new();
        let stdout = child.stdout.as_mut().expect("a pipe");
        BufReader::new(stdout).read_line(&mut line).expect("a line");
        assert!(line.contains(" at "), "{line}");
        Self(child)
    }

    /// It ends when its clients have gone.
    fn ends(mut self) {
        assert_eq!(self.0.wait().expect("it ends").code(), Some(0));
    }
}

impl Drop for Serving {
    fn drop(&mut self) {
        // It may have ended by itself.
        let _killed = self.0.kill();
        let _ended = self.0.wait();
    }
}

/// U10: The commands of the page for those who serve a device are run as they stand there, and do
/// what the page says: the good device passes, the one with a bug does not.
#[test]
fn the_commands_of_the_page_work() {
    let page = include_str!("../../specs/test-your-driver.md");
    let (_, section) =
        page.split_once("## You serve a device over vfio-user").expect("it is there");
    let section = section.split("\n## ").next().unwrap_or_default();
    let directory = tempfile::tempdir().expect("a temporary directory");
    let place = directory.path().to_str().expect("text");
    let mut serving: Vec<Serving> = Vec::new();
    let mut count = 0;
    for line in section.lines().filter_map(|line| line.strip_prefix("vfio-conform ")) {
        let (command, comment) = line.split_once('#').unwrap_or((line, ""));
        let command = command.replace("/tmp/", &format!("{place}/"));
        let words: Vec<_> = command.split_whitespace().collect();
        count += 1;
        if words[0] == "serve" {
            serving.push(Serving::start(&words[1..]));
            continue;
        }
        let fails = comment.contains("FAIL");
        let (code, out, err) = run(&words);
        assert_eq!(code, Some(i32::from(fails)), "{command}: {out}{err}");
    }
    assert!(count >= 6, "{count} commands");
}

/// U10: A server ends with its last client, takes its socket with it, and takes over one that was
/// left behind, but not one that is in use.
#[test]
fn serve_minds_its_socket() {
    let directory = tempfile::tempdir().expect("a temporary directory");
    let path = socket(&directory);
    let name = path.to_str().expect("text");
    // Left behind by nobody who still listens.
    drop(std::os::unix::net::UnixListener::bind(&path).expect("a socket"));
    let serving = Serving::start(&[name, "--clients", "2"]);
    let (code, _, err) = run(&["serve", name]);
    assert_eq!(code, Some(2));
    assert!(err.contains("in use; take another path"), "{err}");
    let target = format!("vfio-user:{name}");
    let (code, out, err) = run(&["replay", "--target", &target, "--suite", "arcs"]);
    assert_eq!(code, Some(0), "{out}{err}");
    serving.ends();
    assert!(!path.exists());
}

/// U11: Where nobody listens, and where what listens dies or lies at any message, the tool says what,
/// and what to do, with exit status 2.
#[test]
fn a_server_that_fails_is_2_with_what_to_do() {
    let replay = |path: &Path| {
        let target = format!("vfio-user:{}", path.display());
        run(&["replay", "--target", &target, "--suite", "arcs"])
    };
    let directory = tempfile::tempdir().expect("a temporary directory");
    let (code, _, err) = replay(&socket(&directory));
    assert_eq!(code, Some(2));
    assert!(err.contains("start the server first"), "{err}");
    // The three messages before the first trace.
    for at in 0..3 {
        let directory = tempfile::tempdir().expect("a temporary directory");
        let server = impostor(&socket(&directory), move |mut stream| {
            for (_, _, reply) in &EXCHANGES[..at] {
                let _request = request(&mut stream);
                let _sent = stream.write_all(&bytes(reply));
            }
            let _request = request(&mut stream);
        });
        let (code, out, err) = replay(&socket(&directory));
        assert_eq!((code, out.as_str()), (Some(2), ""), "{err}");
        assert!(err.contains("the server hung up") && err.contains("look at its log"), "{err}");
        assert!(server.join().is_ok());
    }
}

/// U11: A race has no meaning over one connection, and whole migrations need data_fds; that is said.
#[test]
fn what_makes_no_sense_over_a_socket_is_2() {
    for command in ["race", "migrate", "abuse"] {
        let (code, out, err) = run(&[command, "--target", "vfio-user:/nowhere"]);
        assert_eq!((code, out.as_str()), (Some(2), ""), "{command}: {err}");
    }
    let (code, _, err) = run(&["replay", "--target", "vfio-user:"]);
    assert_eq!(code, Some(2));
    assert!(err.contains("vfio-user:SOCKET"), "{err}");
}
