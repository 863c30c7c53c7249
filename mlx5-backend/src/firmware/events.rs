// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! Event queues: entries into the host's memory, and the vectors that tell of them.

use std::collections::VecDeque;
use std::sync::atomic::{Ordering, fence};

use super::commands::PageList;
use super::machine::Machine;
use super::memory::DeviceMemory;
use crate::layout::{Eqe, EventType, ObjectType};

/// Doorbell in a UAR page: consumer index, and an interrupt with the next event.
pub(super) const EQ_ARM: usize = 0x40;
/// The same without the interrupt.
pub(super) const EQ_UPDATE: usize = 0x48;

/// Events that find no room are kept up to here, and then lost (A-EQ-FULL).
const BACKLOG: usize = 4096;

/// An event queue.
pub(crate) struct EventQueue {
    pub(crate) pages: PageList,
    pub(crate) log_size: u8,
    pub(crate) uar: u32,
    pub(crate) vector: u16,
    /// Bit n: events of type n.
    pub(crate) events: u64,
    pub(crate) producer: u32,
    pub(crate) consumer: u32,
    pub(crate) armed: bool,
    pub(crate) backlog: VecDeque<[u8; Eqe::BYTES]>,
}

impl EventQueue {
    fn wants(&self, event: EventType) -> bool {
        let number = u8::from(event);
        number < 64 && self.events & 1 << number != 0
    }

    fn push(&mut self, eqe: [u8; Eqe::BYTES]) {
        if self.backlog.len() < BACKLOG {
            self.backlog.push_back(eqe);
        }
    }

    /// Writes what there is room for. Whether something is there that an armed queue tells of.
    fn flush(&mut self, memory: &dyn DeviceMemory) -> bool {
        while self.producer.wrapping_sub(self.consumer) & 0xff_ffff < 1 << self.log_size {
            let Some(mut eqe) = self.backlog.pop_front() else { break };
            // The owner changes with each round, the first of which is zero.
            let owner = (self.producer >> self.log_size & 1) as u8;
            let index = self.producer & ((1 << self.log_size) - 1);
            let at = self.pages.at(u64::from(index) * Eqe::BYTES as u64, Eqe::BYTES as u64);
            self.producer = self.producer.wrapping_add(1);
            let Some((iova, _)) = at else { continue };
            eqe[Eqe::BYTES - 1] = owner;
            let written = memory.write(iova, &eqe[..Eqe::BYTES - 1]);
            fence(Ordering::Release);
            if written.is_ok() {
                let last = (Eqe::BYTES - 1) as u64;
                let _ = memory.write(iova + last, &eqe[Eqe::BYTES - 1..]);
            }
        }
        let waiting = self.producer.wrapping_sub(self.consumer) & 0xff_ffff != 0;
        let tells = waiting && self.armed;
        self.armed &= !tells;
        tells
    }
}

impl Machine {
    /// Sends an event to the first queue that takes its type, if there is one.
    fn raise(&mut self, eqe: Eqe<[u8; Eqe::BYTES]>) {
        let event = eqe.event_type();
        let number = self.eqs.iter().find(|(_, eq)| eq.wants(event)).map(|(number, _)| number);
        self.raise_at(number, eqe);
    }

    fn raise_at(&mut self, number: Option<u32>, eqe: Eqe<[u8; Eqe::BYTES]>) {
        let Self { eqs, memory, interrupts, .. } = self;
        let Some(eq) = number.and_then(|number| eqs.get_mut(number)) else { return };
        eq.push(eqe.into_inner());
        if eq.flush(&**memory) {
            interrupts.push(eq.vector);
        }
    }

    pub(super) fn has_command_events(&self) -> bool {
        self.eqs.iter().any(|(_, eq)| eq.wants(EventType::Cmd))
    }

    pub(super) fn raise_command(&mut self, slot: u8) {
        let mut eqe = Eqe::zeroed();
        eqe.set_event_type(EventType::Cmd);
        eqe.command_completion_mut().set_command_completion_vector(1 << slot);
        self.raise(eqe);
    }

    /// So many events that ask for `pages` pages each.
    pub(super) fn request_pages(&mut self, events: u32, pages: u32) {
        self.function.want_pages(events.saturating_mul(pages));
        let mut eqe = Eqe::zeroed();
        eqe.set_event_type(EventType::PageRequest);
        eqe.page_request_mut().set_num_pages(i32::try_from(pages).unwrap_or(i32::MAX));
        for _ in 0..events {
            self.raise(eqe);
        }
    }

    pub(super) fn raise_object_change(&mut self, object: ObjectType, id: u32) {
        let mut eqe = Eqe::zeroed();
        eqe.set_event_type(EventType::ObjectChange);
        eqe.object_change_mut().set_obj_type(object).set_obj_id(id);
        self.raise(eqe);
    }

    /// A-CQ-EVENT: a completion is always told, armed or not.
    pub(super) fn raise_completion(&mut self, eqn: u32, cqn: u32) {
        let mut eqe = Eqe::zeroed();
        eqe.set_event_type(EventType::Comp);
        // The number is in the last dword of the event's data.
        eqe.event_data_mut()[24..].copy_from_slice(&cqn.to_be_bytes());
        self.raise_at(Some(eqn), eqe);
    }

    /// What a driver writes into a UAR page. Other doorbells than those of event queues do nothing.
    pub(super) fn uar_written(&mut self, offset: usize, value: u32) {
        if offset != EQ_ARM && offset != EQ_UPDATE {
            return;
        }
        let Self { eqs, memory, interrupts, .. } = self;
        let Some(eq) = eqs.get_mut(value >> 24) else { return };
        eq.consumer = value & 0xff_ffff;
        eq.armed |= offset == EQ_ARM;
        if eq.flush(&**memory) {
            interrupts.push(eq.vector);
        }
    }
}
