// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! All that a firmware knows, and the passing of time.

use std::sync::Arc;

use super::bar::{BAR_BYTES, Bar};
use super::commands::{Caps, CompletionQueue, Function, Mkey, Objects, Qp, Table, Tracker};
use super::config::Config;
use super::events::EventQueue;
use super::fault::Faults;
use super::log::Log;
use super::memory::DeviceMemory;
use super::queue::Queue;
use super::vhca::Vhca;
use crate::bar;

/// Bytes of a UAR page.
pub(super) const UAR_BYTES: usize = 4096;
/// The init segment takes the pages before this one.
pub(super) const FIRST_UAR: u32 = 8;
/// There are so many pages in BAR0.
pub(super) const END_UAR: u32 = (BAR_BYTES / UAR_BYTES) as u32;

/// Firmware revision in the init segment: 28.36.1010, the first with pre-copy.
const FW_REV: u32 = 36 << 16 | 28;
/// Command interface revision 5, subminor 1010.
const CMDIF_REV: u32 = 5 << 16 | 1010;
/// Full driver, and software reset.
const NIC_INTERFACES: u32 = 0b101 << 24;

pub(super) struct Machine {
    pub(super) bar: Arc<Bar>,
    pub(super) memory: Arc<dyn DeviceMemory>,
    pub(super) config: Config,
    pub(super) ticks: u64,
    /// The physical function is not there any more.
    pub(super) gone: bool,
    pub(super) function: Function,
    pub(super) caps: Caps,
    pub(super) objects: Objects,
    pub(super) mkeys: Table<Mkey>,
    pub(super) eqs: Table<EventQueue>,
    pub(super) cqs: Table<CompletionQueue>,
    pub(super) qps: Table<Qp>,
    pub(super) trackers: Table<Tracker>,
    pub(super) vhcas: Vec<Vhca>,
    pub(super) queue: Queue,
    pub(super) faults: Faults,
    pub(super) log: Log,
    /// Vectors to be raised once nothing is locked any more.
    pub(super) interrupts: Vec<u16>,
}

impl Machine {
    pub(super) fn new(config: Config, bar: Arc<Bar>, memory: Arc<dyn DeviceMemory>) -> Self {
        let vhcas = config.vhcas.iter().cloned().map(Vhca::new).collect();
        let machine = Self {
            bar,
            memory,
            ticks: 0,
            gone: false,
            function: Function::new(&config),
            caps: Caps::new(&config),
            objects: Objects::default(),
            mkeys: Table::new(1..1 << 24),
            eqs: Table::new(1..1 << 8),
            cqs: Table::new(1..1 << 16),
            qps: Table::new(1..1 << 16),
            trackers: Table::new(1..1 << 8),
            vhcas,
            queue: Queue::default(),
            faults: Faults::default(),
            log: Log::new(config.log_entries),
            interrupts: Vec::new(),
            config,
        };
        machine.write_init_segment();
        machine
    }

    fn write_init_segment(&self) {
        self.bar.store(bar::FW_REV, FW_REV);
        self.bar.store(bar::CMDIF_REV, CMDIF_REV);
        self.bar.store(bar::CMDQ_ADDRESS_LOW, self.queue_shape());
        let initializing = u32::from(self.config.initializing_ticks > 0) << 31;
        self.bar.store(bar::INITIALIZING, initializing | NIC_INTERFACES);
    }

    /// What the driver reads where it writes the queue's address.
    pub(super) fn queue_shape(&self) -> u32 {
        u32::from(self.config.log_slots) << 4 | u32::from(super::queue::LOG_STRIDE)
    }

    pub(super) fn is_initializing(&self) -> bool {
        self.ticks < self.config.initializing_ticks
    }

    /// Lets time pass: each command completes in its own moment, with what the devices did before.
    pub(super) fn advance(&mut self, ticks: u64) {
        if self.gone {
            return;
        }
        let until = self.ticks.saturating_add(ticks);
        while let Some(due) = self.queue.next_due().filter(|due| *due <= until) {
            self.pass(due.saturating_sub(self.ticks));
            self.complete_due();
            if self.gone {
                return;
            }
        }
        self.pass(until - self.ticks);
        self.send_reports();
    }

    fn pass(&mut self, ticks: u64) {
        let was_initializing = self.is_initializing();
        self.ticks += ticks;
        for vhca in &mut self.vhcas {
            vhca.run(ticks);
        }
        if was_initializing && !self.is_initializing() {
            self.bar.store(bar::INITIALIZING, NIC_INTERFACES);
        }
        // A-HEALTH-COUNTER: it moves with every tick.
        self.bar.store(bar::HEALTH_COUNTER, self.ticks as u32 & 0xff_ffff);
    }

    /// The physical function goes away: nothing is answered any more, and nothing written.
    pub(super) fn detach(&mut self) {
        self.gone = true;
        self.queue.forget();
        // A mapping of the memory reads what a removed device does.
        for offset in (0..UAR_BYTES * FIRST_UAR as usize).step_by(4) {
            self.bar.store(offset, u32::MAX);
        }
    }

    /// Every doorbell that is rung at one.
    pub(super) fn written(&mut self, offset: usize, value: u32) {
        match offset {
            bar::CMDQ_ADDRESS_HIGH => self.queue.set_high(value),
            bar::CMDQ_ADDRESS_LOW => {
                self.queue.set_low(value);
                self.bar.store(offset, self.queue_shape());
            }
            bar::COMMAND_DOORBELL => {
                self.ring(value);
                // A report that waits for a buffer tries again all the time.
                self.send_reports();
            }
            _ if offset >= FIRST_UAR as usize * UAR_BYTES => {
                self.uar_written(offset % UAR_BYTES, value);
            }
            _ => {}
        }
    }

    /// The same where all there is, is memory: looks for what was written. Whether there was
    /// something.
    pub(super) fn poll(&mut self) -> bool {
        if self.gone {
            return false;
        }
        let high = self.bar.load(bar::CMDQ_ADDRESS_HIGH);
        let low = self.bar.load(bar::CMDQ_ADDRESS_LOW);
        self.queue.set_high(high);
        if low != self.queue_shape() {
            self.queue.set_low(low);
            self.bar.store(bar::CMDQ_ADDRESS_LOW, self.queue_shape());
        }
        // A-DOORBELL-MERGED: two doorbells may have become one, so every slot is looked at.
        let mut busy = self.bar.take(bar::COMMAND_DOORBELL) != 0;
        if busy {
            self.ring(u32::MAX);
        }
        for uar in self.uars_of_eqs() {
            for offset in [super::events::EQ_ARM, super::events::EQ_UPDATE] {
                let value = self.bar.take(uar as usize * UAR_BYTES + offset);
                if value != 0 {
                    busy = true;
                    self.uar_written(offset, value);
                }
            }
        }
        busy
    }
}
