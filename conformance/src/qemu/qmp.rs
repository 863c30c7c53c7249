// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! QMP, as far as it is needed: one command at a time, and events by their names.
//!
//! Six commands do not make up for a crate that compiles QEMU's whole schema into the guest's program.

use std::io::{self, BufRead, BufReader, Write};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::time::Duration;

use serde_json::{Value, json};

/// A connection to a QEMU.
#[derive(Debug)]
pub(super) struct Qmp {
    stream: BufReader<UnixStream>,
    /// Events that nobody has asked for yet.
    events: Vec<String>,
}

/// What came of a command.
#[derive(Debug)]
pub(super) enum Answer {
    Returned(Value),
    Refused(String),
}

impl Qmp {
    /// Connect to a QEMU that listens here.
    pub(super) fn connect(socket: &Path, patience: Duration) -> io::Result<Self> {
        let stream = UnixStream::connect(socket)?;
        stream.set_read_timeout(Some(patience))?;
        let mut qmp = Self { stream: BufReader::new(stream), events: Vec::new() };
        let greeting = qmp.line()?;
        if greeting.get("QMP").is_none() {
            return Err(io::Error::other(format!("greeted with {greeting}")));
        }
        match qmp.execute("qmp_capabilities", json!({}))? {
            Answer::Returned(_) => Ok(qmp),
            Answer::Refused(why) => Err(io::Error::other(why)),
        }
    }

    /// Carry out a command.
    pub(super) fn execute(&mut self, command: &str, arguments: Value) -> io::Result<Answer> {
        let request = json!({ "execute": command, "arguments": arguments });
        let line = format!("{request}\n");
        self.stream.get_mut().write_all(line.as_bytes())?;
        loop {
            let mut line = self.line()?;
            if let Some(event) = line["event"].as_str() {
                self.events.push(event.to_owned());
            } else if let Some(returned) = line.get_mut("return") {
                return Ok(Answer::Returned(returned.take()));
            } else {
                let why = line["error"]["desc"].as_str().unwrap_or("an error without a reason");
                return Ok(Answer::Refused(why.to_owned()));
            }
        }
    }

    /// Whether this event has come; it is forgotten then.
    pub(super) fn take_event(&mut self, name: &str) -> bool {
        let place = self.events.iter().position(|event| event == name);
        place.is_some_and(|place| !self.events.remove(place).is_empty())
    }

    fn line(&mut self) -> io::Result<Value> {
        let mut line = String::new();
        if self.stream.read_line(&mut line)? == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        serde_json::from_str(&line).map_err(io::Error::other)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::net::UnixListener;
    use std::thread;

    /// A QEMU that says these lines, each after the request that is due before it.
    fn said(lines: &'static [&'static str]) -> io::Result<Qmp> {
        let folder = tempfile::tempdir().expect("a folder");
        let socket = folder.path().join("qmp");
        let listener = UnixListener::bind(&socket).expect("listens");
        let qemu = thread::spawn(move || {
            let (stream, _) = listener.accept().expect("a caller");
            let mut requests = BufReader::new(stream.try_clone().expect("a copy"));
            let mut stream = stream;
            for line in lines {
                writeln!(stream, "{line}").expect("writes");
                if line.contains("return") || line.contains("QMP") || line.contains("error") {
                    requests.read_line(&mut String::new()).expect("reads");
                }
            }
        });
        let qmp = Qmp::connect(&socket, Duration::from_secs(10));
        if let Ok(mut qmp) = qmp {
            let answers = [qmp.execute("a", json!({}))?, qmp.execute("b", json!({}))?];
            assert!(matches!(&answers[0], Answer::Returned(value) if value["status"] == "running"));
            assert!(matches!(&answers[1], Answer::Refused(why) if why == "no"));
            drop(qemu);
            return Ok(qmp);
        }
        qmp
    }

    #[test]
    fn events_between_answers_are_kept_and_taken_once() {
        let mut qmp = said(&[
            r#"{"QMP":{"version":{}}}"#,
            r#"{"return":{}}"#,
            r#"{"event":"RESET","data":{"guest":false}}"#,
            r#"{"return":{"status":"running"}}"#,
            r#"{"event":"STOP"}"#,
            r#"{"error":{"class":"GenericError","desc":"no"}}"#,
        ])
        .expect("speaks");
        assert!(qmp.take_event("RESET") && !qmp.take_event("RESET"));
        assert!(qmp.take_event("STOP") && !qmp.take_event("SHUTDOWN"));
    }

    #[test]
    fn what_does_not_greet_is_no_qemu() {
        assert!(said(&[r#"{"return":{}}"#]).is_err());
        assert!(said(&["SSH-2.0-OpenSSH"]).is_err());
    }
}
