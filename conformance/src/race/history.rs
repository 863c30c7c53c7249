// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! What several threads did to one device at once, and what they were answered.

use std::fmt;

use serde::Serialize;
use vfio_fsm_core::{Errno, Fd, Op, Reply};

/// One call: from when to when, by whom, and what came of it.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Call {
    /// Who.
    pub thread: usize,
    /// What. Data_fds are numbered in the order in which they were handed out.
    pub op: Op<u32>,
    /// The answer, its bytes counted; `None` if none has come.
    pub reply: Option<Reply<usize>>,
    /// When it began, by a clock that all threads share and that ticks with each beginning and end.
    pub began: u64,
    /// When it ended; `u64::MAX` if it has not.
    pub ended: u64,
}

impl Call {
    /// Whether it goes to the driver by a data_fd, under the file's lock and not the state's.
    pub(super) const fn is_on_data_fd(&self) -> bool {
        matches!(
            self.op,
            Op::Read { .. }
                | Op::UringRead { .. }
                | Op::Write { .. }
                | Op::PrecopyInfo { .. }
                | Op::Poll { .. }
        )
    }

    /// Whether it takes a data_fd away from calls that come later.
    fn closes(&self) -> bool {
        matches!(self.op, Op::CloseFd { .. }) && !matches!(self.reply, Some(Reply::Errno(_)))
    }

    pub(super) fn data_fd(&self) -> Option<Fd> {
        let mut named = None;
        let _same = self.op.map_fd(|fd| {
            named = Some(fd);
            fd
        });
        named
    }

    /// Whether it may hold the state lock for a while.
    const fn holds_state_lock(&self) -> bool {
        matches!(
            self.op,
            Op::SetState { .. } | Op::GetState | Op::DataSize | Op::PrecopyInfo { .. }
        )
    }

    /// Whether it leaves everything as it is.
    pub(super) fn only_looks(&self) -> bool {
        match self.op {
            Op::GetState | Op::Poll { .. } | Op::PrecopyInfo { .. } => true,
            Op::Read { .. } | Op::UringRead { .. } | Op::Write { .. } => {
                matches!(self.reply, Some(Reply::Errno(Errno::ENODEV | Errno::EBADF)))
            }
            _ => false,
        }
    }

    const fn overlaps(&self, other: &Self) -> bool {
        self.began < other.ended && other.began < self.ended
    }
}

/// What was done and answered, in the order of beginning.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
#[serde(transparent)]
pub struct History(pub Vec<Call>);

impl History {
    /// Whether a call uses a data_fd that is closed while the call is under way: it may have hold of
    /// the file, which then is open until it returns.
    pub(super) fn is_closed_under(&self, call: &Call) -> bool {
        let closes = |other: &Call| {
            other.closes() && other.data_fd() == call.data_fd() && other.overlaps(call)
        };
        call.is_on_data_fd() && self.0.iter().any(closes)
    }

    /// Whether one call was over, and had its effect, before another began.
    ///
    /// The licence of the protocol: a reset that meets the state lock held is left to its holder, and
    /// returns. Who takes the state lock next finds it done. Who reads from a data_fd meanwhile does
    /// not, until the holder is through (L6).
    pub(super) fn precedes(&self, one: &Call, other: &Call) -> bool {
        if one.ended >= other.began {
            return false;
        }
        if !matches!(one.op, Op::Reset) || !other.is_on_data_fd() {
            return true;
        }
        let holders = self.0.iter().filter(|call| call.holds_state_lock() && call.overlaps(one));
        holders.map(|call| call.ended).all(|done| done < other.began)
    }

    /// What had been done and answered up to a moment.
    #[must_use]
    pub fn until(&self, moment: u64) -> Self {
        let begun = self.0.iter().filter(|call| call.began <= moment);
        let cut = |call: &Call| match call.ended <= moment {
            true => call.clone(),
            false => Call { ended: u64::MAX, reply: None, ..call.clone() },
        };
        Self(begun.map(cut).collect())
    }

    /// Without one of its calls.
    #[must_use]
    pub fn without(&self, index: usize) -> Self {
        let mut calls = self.0.clone();
        calls.remove(index);
        Self(calls)
    }
}

/// A space-time diagram: a column a thread, a line a beginning or an end.
impl fmt::Display for History {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let threads = self.0.iter().map(|call| call.thread + 1).max().unwrap_or_default();
        let begins = self.0.iter().map(|call| (call.began, call, true));
        let ends = self.0.iter().map(|call| (call.ended, call, false));
        let mut events: Vec<_> = begins.chain(ends.filter(|end| end.0 < u64::MAX)).collect();
        events.sort_by_key(|event| event.0);
        let mut busy = vec![false; threads];
        for thread in 0..threads {
            write!(f, "{:<WIDTH$}", format!("thread {thread}"))?;
        }
        for (_, call, begins) in events {
            writeln!(f)?;
            for (thread, is_busy) in busy.iter_mut().enumerate() {
                let bar = if *is_busy { "|" } else { "" };
                let text = match (thread == call.thread, begins, &call.reply) {
                    (false, ..) => bar.to_owned(),
                    (true, true, _) => format!("+ {}", call.op),
                    (true, false, Some(reply)) => format!("+ {}", Counted(reply)),
                    (true, false, None) => bar.to_owned(),
                };
                *is_busy = if thread == call.thread { begins } else { *is_busy };
                write!(f, "{text:<WIDTH$}")?;
            }
        }
        writeln!(f)
    }
}

/// Of a column.
const WIDTH: usize = 26;

/// A reply whose bytes are counted.
struct Counted<'a>(&'a Reply<usize, Fd>);

impl fmt::Display for Counted<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            Reply::Bytes(len) => write!(f, "{len} bytes"),
            other => other.fmt(f),
        }
    }
}
