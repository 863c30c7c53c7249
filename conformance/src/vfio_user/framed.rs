// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! Whole messages over a unix socket.

use std::io::{self, ErrorKind, Read, Write};
use std::os::unix::net::UnixStream;
use std::time::{Duration, Instant};

use super::protocol::{HEADER, Header, LONGEST_MESSAGE, Malformed};

/// Why no message came or went.
#[derive(Debug)]
pub(super) enum Broken {
    /// The other side has hung up: `true` in the middle of a message.
    Gone { within: bool },
    /// It was silent for too long.
    Silent,
    /// The socket failed.
    Io(io::Error),
    /// What came is no message.
    Malformed(Malformed),
}

impl From<io::Error> for Broken {
    fn from(error: io::Error) -> Self {
        match error.kind() {
            ErrorKind::WouldBlock | ErrorKind::TimedOut => Self::Silent,
            ErrorKind::BrokenPipe | ErrorKind::ConnectionReset => Self::Gone { within: false },
            _ => Self::Io(error),
        }
    }
}

/// A socket, and what came too early.
#[derive(Debug)]
pub(super) struct Framed {
    stream: UnixStream,
    /// How long a message may take, if there is a limit.
    patience: Option<Duration>,
    inbox: Vec<u8>,
    /// What of the inbox has been taken, and what is filled.
    taken: usize,
    filled: usize,
}

impl Framed {
    pub(super) fn new(stream: UnixStream, patience: Option<Duration>) -> io::Result<Self> {
        stream.set_read_timeout(patience)?;
        stream.set_write_timeout(patience)?;
        Ok(Self { stream, patience, inbox: vec![0; LONGEST_MESSAGE], taken: 0, filled: 0 })
    }

    /// One message in, its header checked: what follows the header is as long as the header says.
    pub(super) fn receive(&mut self) -> Result<(Header, &[u8]), Broken> {
        // What is left of the message before goes to the front.
        self.inbox.copy_within(self.taken..self.filled, 0);
        (self.filled, self.taken) = (self.filled - self.taken, 0);
        let began = Instant::now();
        self.fill(HEADER, began)?;
        let (header, _) = Header::decode(&self.inbox[..HEADER]).map_err(Broken::Malformed)?;
        let end = HEADER + header.payload().map_err(Broken::Malformed)?;
        self.fill(end, began)?;
        self.taken = end;
        Ok((header, &self.inbox[HEADER..end]))
    }

    fn fill(&mut self, needs: usize, began: Instant) -> Result<(), Broken> {
        while self.filled < needs {
            match self.stream.read(&mut self.inbox[self.filled..]) {
                Ok(0) => return Err(Broken::Gone { within: self.filled > 0 }),
                Ok(read) => self.filled += read,
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) => return Err(error.into()),
            }
            // Each read has a limit of its own; this is against one byte after the other.
            if self.filled < needs && self.patience.is_some_and(|most| began.elapsed() > most) {
                return Err(Broken::Silent);
            }
        }
        Ok(())
    }

    pub(super) fn send(&mut self, message: &[u8]) -> Result<(), Broken> {
        self.stream.write_all(message).map_err(Broken::from)
    }
}
