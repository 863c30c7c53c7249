// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! What was really done in one run: the guest, the resets, the ops. The judge goes by this and not
//! by what a session believes.

use std::cell::RefCell;
use std::thread;
use std::time::Duration;

use super::judge::MARK;
use super::vmm::{FIRST, VALUES};
use vfio_fsm_core::vmm::{Event, Hook};
use vfio_fsm_core::{Op, Reply};

/// So often a session may wait between two ops before time is given to what it waits for.
const FEW_WAITS: u32 = 100;

/// So often at most. No device here keeps a session waiting: its fds block.
const MOST_WAITS: u32 = 150;

/// What a device holds: what the guest wrote last, and whether it was reset since.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Content {
    pub(super) touched: u8,
    pub(super) reset: bool,
}

/// The truth about one device in one run.
///
/// Its guest writes a new value whenever its driver would set up the device: at the start, behind
/// each reset, when it runs again, and once in a while. So what was before can be told from what is
/// after, also on a device whose reset leaves the registers alone.
#[derive(Debug)]
pub(super) struct Record(RefCell<Facts>);

#[derive(Clone, Debug)]
pub(super) struct Facts {
    pub(super) content: Content,
    has_guest: bool,
    /// No guest touches the device.
    pub(super) frozen: bool,
    /// The guest has something to write.
    due: bool,
    /// Resets behind the session's back.
    pub(super) resets: u32,
    /// Of these, with the guest frozen: then it was the host.
    pub(super) by_host: u32,
    /// The session reset the device, unasked.
    pub(super) lost: bool,
    /// The VMM has just asked the session for a reset.
    ordered: bool,
    /// The device was made to fail the session's last resort, a reset, or the look behind it.
    pub(super) refused_at_last: bool,
    /// What the device held when its stream was read to its end; of a complete migration the last
    /// end is that of STOP_COPY.
    pub(super) whole: Option<Content>,
    /// It was reset behind that.
    pub(super) reset_when_whole: bool,
    /// How often the session has waited since its latest op.
    waits: u32,
    /// It would have waited for ever.
    pub(super) stalled: bool,
    /// The session's ops.
    pub(super) ops: Vec<String>,
    /// The first with the guest frozen.
    pub(super) frozen_from: Option<usize>,
    /// All that happened, for a person.
    pub(super) log: Vec<String>,
}

impl Record {
    /// A device whose guest has just written the first value.
    pub(super) fn of_source() -> Self {
        Self::new(Content { touched: FIRST, reset: false }, true)
    }

    /// A device whose guest does not run yet.
    pub(super) fn of_destination() -> Self {
        Self::new(MARK, false)
    }

    fn new(content: Content, has_guest: bool) -> Self {
        Self(RefCell::new(Facts {
            content,
            has_guest,
            frozen: false,
            due: false,
            resets: 0,
            by_host: 0,
            lost: false,
            ordered: false,
            refused_at_last: false,
            whole: None,
            reset_when_whole: false,
            waits: 0,
            stalled: false,
            ops: Vec::new(),
            frozen_from: None,
            log: Vec::new(),
        }))
    }

    pub(super) fn facts(&self) -> Facts {
        self.0.borrow().clone()
    }

    pub(super) fn steps(&self) -> usize {
        self.0.borrow().ops.len()
    }

    pub(super) fn is_frozen(&self) -> bool {
        self.0.borrow().frozen
    }

    pub(super) fn say(&self, line: String) {
        self.0.borrow_mut().log.push(line);
    }

    /// An op begins: its number, counted from 1.
    pub(super) fn begin<B, F>(&self, op: Op<B, F>) -> usize {
        let mut facts = self.0.borrow_mut();
        facts.ordered &= matches!(op, Op::Reset);
        facts.waits = 0;
        let text = op.map_fd(|_fd| "data_fd").to_string();
        facts.ops.push(text);
        let step = facts.ops.len();
        if facts.frozen && facts.frozen_from.is_none() {
            facts.frozen_from = Some(step);
        }
        step
    }

    /// An op was answered.
    pub(super) fn answered<B, F>(&self, op: &Op<B, F>, reply: Reply<usize, &str>) {
        let mut facts = self.0.borrow_mut();
        match (op, &reply) {
            (Op::Reset, Reply::Ok) => facts.session_reset(),
            (Op::Read { .. }, Reply::EndOfStream(_)) => {
                (facts.whole, facts.reset_when_whole) = (Some(facts.content), false);
            }
            (Op::Read { .. }, Reply::Bytes(_)) => {
                (facts.whole, facts.reset_when_whole) = (None, false);
            }
            _ => {}
        }
        let line = match (facts.ops.last(), &reply) {
            (Some(text), Reply::Bytes(len)) => format!("{text}: {len} bytes"),
            (Some(text), reply) => format!("{text}: {reply}"),
            (None, _) => return,
        };
        let line = format!("{:>3} {line}", facts.ops.len());
        facts.log.push(line);
    }

    /// The op is made to fail.
    pub(super) fn refused<B, F>(&self, op: &Op<B, F>) {
        let mut facts = self.0.borrow_mut();
        facts.refused_at_last |= facts.lost || matches!(op, Op::Reset);
    }

    /// The session waits and does nothing: whether it has done so for too long.
    pub(super) fn waits_in_vain(&self) -> bool {
        let mut facts = self.0.borrow_mut();
        facts.waits += 1;
        if facts.waits > FEW_WAITS {
            thread::sleep(Duration::from_millis(1));
        }
        facts.stalled |= facts.waits > MOST_WAITS;
        facts.stalled
    }

    /// The device was reset behind the session's back.
    pub(super) fn was_reset(&self, how: &str) {
        let mut facts = self.0.borrow_mut();
        facts.resets += 1;
        facts.by_host += u32::from(facts.frozen);
        facts.content.reset = true;
        facts.reset_when_whole |= facts.whole.is_some();
        facts.due |= !facts.frozen;
        let by_guest = facts.has_guest && !facts.frozen;
        let who = if by_guest { "the guest" } else { "the host" };
        facts.log.push(format!("    reset by {who}, {how}"));
    }

    /// The guest means to write something; it does when it runs.
    pub(super) fn wants_to_touch(&self) {
        self.0.borrow_mut().due = true;
    }

    /// What the guest writes now, if it runs and has something to write.
    pub(super) fn take_touch(&self) -> Option<u8> {
        let mut facts = self.0.borrow_mut();
        if !facts.due || facts.frozen || !facts.has_guest {
            return None;
        }
        facts.due = false;
        let touched = (facts.content.touched - FIRST + 1) % VALUES + FIRST;
        facts.content = Content { touched, reset: false };
        facts.log.push(format!("    the guest writes {touched:#04x}"));
        Some(touched)
    }

    pub(super) fn called(&self, hook: Hook) {
        let mut facts = self.0.borrow_mut();
        match hook {
            Hook::Freeze => facts.frozen = true,
            Hook::Thaw => (facts.frozen, facts.due) = (false, true),
            _ => {}
        }
        facts.log.push(format!("    call {hook}"));
    }

    pub(super) fn event(&self, event: Event) {
        let mut facts = self.0.borrow_mut();
        facts.ordered |= event == Event::Reset;
        facts.log.push(format!("    {event:?}"));
    }
}

impl Facts {
    fn session_reset(&mut self) {
        self.content.reset = true;
        if self.ordered {
            (self.ordered, self.due) = (false, true);
            self.resets += 1;
        } else {
            self.lost = true;
        }
    }
}
