// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! Event queues: what the firmware says without being asked.
//!
//! As in the kernel's driver there are three, so that one kind of event cannot crowd out another:
//! for answers to commands, for pages, and for everything else.

use std::collections::VecDeque;

use parking_lot::{Mutex, RwLock};

use super::pages::{Function, Pages, Request};
use crate::bar::Registers;
use crate::dma::{DmaBuffer, DmaError, DmaSpace, PAGE_BYTES};
use crate::layout::{CreateEqIn, Eqe, EventType, LayoutError};

const LOG_ENTRIES: u8 = 8;
const ENTRIES: u32 = 1 << LOG_ENTRIES;
const OWNER: usize = Eqe::BYTES - 1;
/// From a UAR page, where a consumer index is written that also asks for the next interrupt.
const ARM: usize = 0x40;
const UAR_BYTES: usize = 4096;
/// Events that are kept for whoever asks. The newest are then left out, and counted.
const KEPT: usize = 1024;
/// The bit of `ec_function` that says the function belongs to an embedded CPU.
const EMBEDDED: u16 = 0x8000;

/// Something that the firmware said, other than about commands and pages.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Event {
    /// What happened.
    pub event_type: EventType,
    /// What of it.
    pub sub_type: u8,
    /// The details, as the type has them.
    pub data: [u8; 28],
}

/// How many events there were.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct EventCounts {
    /// Answers to commands, several of which may be in one event.
    pub commands: u64,
    /// Requests for pages, or for taking some back.
    pub pages: u64,
    /// All others.
    pub others: u64,
    /// Those of the others that nobody asked for in time.
    pub lost: u64,
}

/// Which events go to one queue.
#[derive(Clone, Copy)]
pub(super) enum Kind {
    Commands,
    Pages,
    Others { object_change: bool },
}

impl Kind {
    /// A bit for each type.
    fn mask(self) -> u64 {
        let types: &[EventType] = match self {
            Self::Commands => &[EventType::Cmd],
            Self::Pages => &[EventType::PageRequest],
            Self::Others { object_change: false } => &OTHERS,
            Self::Others { object_change: true } => &OTHERS_AND_OBJECTS,
        };
        types.iter().fold(0, |mask, event| mask | 1 << u8::from(*event))
    }
}

/// What every firmware has.
const OTHERS: [EventType; 5] = [
    EventType::CqError,
    EventType::WqCatasError,
    EventType::PortChange,
    EventType::WqInvalReqError,
    EventType::WqAccessError,
];
/// And what says that a page tracker failed, where there is one.
const OTHERS_AND_OBJECTS: [EventType; 6] = [
    EventType::CqError,
    EventType::WqCatasError,
    EventType::PortChange,
    EventType::WqInvalReqError,
    EventType::WqAccessError,
    EventType::ObjectChange,
];

/// The memory of an event queue, before and after the firmware knows of it.
pub(super) struct EventQueue {
    memory: DmaBuffer,
    /// The firmware's, `None` as long as it did not say it.
    number: Option<u8>,
    doorbell: usize,
    consumed: Mutex<u32>,
}

impl EventQueue {
    /// A queue with nothing in it: every entry is the firmware's.
    pub(super) fn new(dma: &DmaSpace, uar: u32) -> Result<Self, DmaError> {
        let memory = dma.allocate(ENTRIES as usize * Eqe::BYTES)?;
        for entry in 0..ENTRIES as usize {
            memory.store(entry * Eqe::BYTES + OWNER, 1)?;
        }
        let doorbell = uar as usize * UAR_BYTES + ARM;
        Ok(Self { memory, number: None, doorbell, consumed: Mutex::new(0) })
    }

    /// CREATE_EQ for it.
    pub(super) fn create_command(
        &self,
        uar: u32,
        kind: Kind,
    ) -> Result<CreateEqIn<Vec<u8>>, LayoutError> {
        let pages = self.memory.len() as u64 / PAGE_BYTES;
        let mut bytes = CreateEqIn::command().into_inner().to_vec();
        bytes.resize(CreateEqIn::BYTES + 8 * pages as usize, 0);
        let mut command = CreateEqIn::new(bytes)?;
        command.set_event_bitmask([kind.mask(), 0, 0, 0]);
        command.eq_context_entry_mut().set_log_eq_size(LOG_ENTRIES).set_uar_page(uar);
        for (page, address) in (0..pages).zip(command.pas_mut().chunks_exact_mut(8)) {
            address.copy_from_slice(&(self.memory.iova() + page * PAGE_BYTES).to_be_bytes());
        }
        Ok(command)
    }

    /// The firmware's number for it.
    pub(super) fn set_number(&mut self, number: u8) {
        self.number = Some(number);
    }

    /// Tells the firmware how far it was read, and asks for an interrupt for the next event.
    fn arm(&self, registers: &impl Registers, consumed: u32) {
        if let Some(number) = self.number {
            let index = consumed & 0xff_ffff;
            registers.write32(self.doorbell, u32::from(number) << 24 | index);
        }
    }

    /// Takes events until there is none, or `handle` wants no more, or each entry was read once.
    fn drain(&self, registers: &impl Registers, mut handle: impl FnMut(&Eqe) -> bool) {
        let mut consumed = self.consumed.lock();
        let before = *consumed;
        while consumed.wrapping_sub(before) < ENTRIES {
            let Some(event) = self.entry(*consumed) else { break };
            if !handle(&event) {
                break;
            }
            *consumed = consumed.wrapping_add(1);
        }
        if *consumed != before {
            self.arm(registers, *consumed);
        }
    }

    /// The entry at this index, if the firmware has written it in this round.
    fn entry(&self, index: u32) -> Option<Eqe> {
        let offset = (index % ENTRIES) as usize * Eqe::BYTES;
        let round = u8::from(index & ENTRIES != 0);
        if self.memory.load(offset + OWNER).ok()? & 1 != round {
            return None;
        }
        let mut event = Eqe::zeroed();
        self.memory.read(offset, event.as_bytes_mut()).ok()?;
        Some(event)
    }
}

/// All event queues of a function, and what came out of them.
#[derive(Default)]
pub(super) struct Events {
    /// Those that the firmware knows of. Their memory is its own until it has destroyed them.
    queues: RwLock<Vec<EventQueue>>,
    log: Mutex<Log>,
}

#[derive(Default)]
struct Log {
    events: VecDeque<Event>,
    counts: EventCounts,
}

impl Events {
    /// From here on the firmware interrupts for this queue's events.
    pub(super) fn add(&self, queue: EventQueue, registers: &impl Registers) {
        queue.arm(registers, 0);
        self.queues.write().push(queue);
    }

    /// Keeps the memory of a queue that the firmware may know of.
    pub(super) fn keep(&self, queue: EventQueue) {
        self.queues.write().push(queue);
    }

    /// The numbers of the queues, in the order they were made.
    pub(super) fn numbers(&self) -> Vec<u8> {
        self.queues.read().iter().filter_map(|queue| queue.number).collect()
    }

    /// Forgets a queue that the firmware has forgotten.
    pub(super) fn remove(&self, number: u8) {
        self.queues.write().retain(|queue| queue.number != Some(number));
    }

    pub(super) fn next(&self) -> Option<Event> {
        self.log.lock().events.pop_front()
    }

    pub(super) fn counts(&self) -> EventCounts {
        self.log.lock().counts
    }

    /// Takes what there is. Requests for pages are left in the queue while too many wait: the
    /// firmware then has to wait with more.
    pub(super) fn drain(&self, registers: &impl Registers, pages: &Pages) {
        for queue in &*self.queues.read() {
            queue.drain(registers, |event| self.handle(event, pages));
        }
    }

    fn handle(&self, event: &Eqe, pages: &Pages) -> bool {
        match event.event_type() {
            EventType::Cmd => self.log.lock().counts.commands += 1,
            EventType::PageRequest => {
                if !pages.want(request(event)) {
                    return false;
                }
                self.log.lock().counts.pages += 1;
            }
            // Who has completion queues polls them; kept, they would crowd out what matters.
            EventType::Comp => {}
            event_type => self.log.lock().add(event_type, event),
        }
        true
    }
}

impl Log {
    fn add(&mut self, event_type: EventType, event: &Eqe) {
        self.counts.others += 1;
        if self.events.len() == KEPT {
            self.counts.lost += 1;
            return;
        }
        let mut data = [0; 28];
        data.copy_from_slice(event.event_data());
        self.events.push_back(Event { event_type, sub_type: event.event_sub_type(), data });
    }
}

fn request(event: &Eqe) -> Request {
    let request = event.page_request();
    let embedded = request.ec_function() & EMBEDDED != 0;
    let function = Function { id: request.function_id(), embedded };
    Request { function, pages: request.num_pages() }
}
