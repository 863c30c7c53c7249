// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! A firmware in software, at the level of registers and DMA.
//!
//! It is a physical function and its virtual ones: the init segment, the doorbell, the command
//! queue with its mailboxes in the host's memory, memory keys down to IOVAs, pages, events, and
//! VHCAs that have a state to save. What real firmware does where nothing public says it, stands in
//! [`assumptions`], each under a name.
//!
//! There are two ways to drive one:
//!
//! * [`Firmware`] is [`Registers`]: the doorbell's write carries the command out before it returns.
//!   No thread, no clock, and the same every time. See [`Config`] for what time is then.
//! * [`Firmware::spawn`]: a thread that polls BAR0, which is plain memory, for a driver that maps
//!   [`Firmware::bar_file`].
//!
//! ```
//! use vfio_fsm_mlx5::bar::{self, Registers};
//! use vfio_fsm_mlx5::dma::DmaSpace;
//! use vfio_fsm_mlx5::firmware::{Config, Firmware, VhcaConfig};
//!
//! let vhca = VhcaConfig { image_bytes: 1 << 30, ..VhcaConfig::default() };
//! let firmware = Firmware::new(Config::of(vhca), DmaSpace::new(1 << 20))?;
//! assert_eq!(firmware.read32(bar::INITIALIZING) >> 31, 0);
//!
//! // As a reset leaves it.
//! let vhca = firmware.vhca(0x1234).ok_or("no such VHCA")?;
//! let fresh = vhca.digest();
//! vhca.touch(7);
//! assert_ne!(vhca.digest(), fresh);
//! vhca.flr();
//! assert_eq!(vhca.digest(), fresh);
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```

pub mod assumptions;
mod bar;
mod commands;
mod config;
mod events;
mod fault;
mod log;
mod machine;
mod memory;
mod queue;
mod refusal;
mod thread;
mod vhca;

use std::fmt;
use std::fs::File;
use std::sync::Arc;

use parking_lot::{Mutex, MutexGuard, RwLock};

pub use self::bar::BAR_BYTES;
pub use self::config::{Checks, Config, ConfigError, PF_VHCA_ID, VhcaConfig};
pub use self::fault::{Fault, Trigger};
pub use self::log::{LOGGED_INPUT, LogEntry};
pub use self::memory::DeviceMemory;
pub use self::queue::{MAX_INPUT, MAX_OUTPUT};
pub use self::refusal::Syndrome;
pub use self::thread::Running;
pub use self::vhca::{IMAGE_HEADER, VhcaStatus};

use self::bar::Bar;
use self::machine::Machine;
use crate::bar::Registers;

/// A physical function in software. Cloning gives another handle to the same.
#[derive(Clone)]
pub struct Firmware {
    shared: Arc<Shared>,
}

struct Shared {
    bar: Arc<Bar>,
    machine: Mutex<Machine>,
    on_interrupt: RwLock<Option<Arc<OnInterrupt>>>,
}

type OnInterrupt = dyn Fn(u16) + Send + Sync;

/// How much there is of what a driver makes and destroys.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Counts {
    /// Protection domains.
    pub pds: usize,
    /// Memory keys.
    pub mkeys: usize,
    /// Event queues.
    pub eqs: usize,
    /// Completion queues.
    pub cqs: usize,
    /// Queue pairs.
    pub qps: usize,
    /// Page trackers.
    pub trackers: usize,
    /// Pages that the firmware has got.
    pub pages: usize,
}

impl Firmware {
    /// A firmware that reaches the host's memory through `memory`.
    ///
    /// # Errors
    ///
    /// The configuration cannot be, or there is no memory for BAR0.
    pub fn new(config: Config, memory: impl DeviceMemory + 'static) -> Result<Self, ConfigError> {
        config.check()?;
        let bar = Arc::new(Bar::new()?);
        let machine = Mutex::new(Machine::new(config, bar.clone(), Arc::new(memory)));
        Ok(Self { shared: Arc::new(Shared { bar, machine, on_interrupt: RwLock::new(None) }) })
    }

    /// What is called with the vector when an event queue tells of an event, in the place of an
    /// MSI-X message. It may use the firmware's registers.
    pub fn on_interrupt(&self, call: impl Fn(u16) + Send + Sync + 'static) {
        *self.shared.on_interrupt.write() = Some(Arc::new(call));
    }

    /// The memory that is BAR0, of [`BAR_BYTES`] bytes, big endian: for a driver that maps it.
    /// See [`spawn`](Self::spawn).
    pub fn bar_file(&self) -> &File {
        self.shared.bar.file()
    }

    /// Lets so many ticks pass.
    pub fn tick(&self, ticks: u64) {
        self.with(|machine| machine.advance(ticks));
    }

    /// Lets time pass until nothing is in flight.
    pub fn complete_all(&self) {
        self.with(Machine::complete_all);
    }

    /// The ticks that have passed.
    pub fn now(&self) -> u64 {
        self.shared.machine.lock().ticks
    }

    /// A virtual function, by its vhca_id.
    pub fn vhca(&self, vhca_id: u16) -> Option<VhcaHandle> {
        let machine = self.shared.machine.lock();
        let place = machine.vhcas.iter().position(|vhca| vhca.config.vhca_id == vhca_id)?;
        Some(VhcaHandle { firmware: self.clone(), place })
    }

    /// Makes something go wrong, once.
    pub fn inject(&self, trigger: Trigger, fault: Fault) {
        self.shared.machine.lock().faults.plant(trigger, fault);
    }

    /// Takes back all faults that did not happen. Whether there were any.
    pub fn clear_faults(&self) -> bool {
        let mut machine = self.shared.machine.lock();
        let left = !machine.faults.is_empty();
        machine.faults.clear();
        left
    }

    /// The physical function goes away, as when it is unplugged or its driver gives up.
    pub fn detach(&self) {
        self.with(Machine::detach);
    }

    /// Asks for pages by event: so many events for so many pages each.
    pub fn request_pages(&self, events: u32, pages: u32) {
        self.with(|machine| machine.request_pages(events, pages));
    }

    /// Every page tracker goes into its error state, with or without the event that says so.
    pub fn fail_trackers(&self, event: bool) {
        self.with(|machine| machine.fail_trackers(event));
    }

    /// The last commands, oldest first.
    pub fn log(&self) -> Vec<LogEntry> {
        self.shared.machine.lock().log.entries()
    }

    /// The last commands, oldest first, which are then forgotten.
    pub fn drain_log(&self) -> Vec<LogEntry> {
        self.shared.machine.lock().log.drain()
    }

    /// What the driver has made and not destroyed.
    pub fn counts(&self) -> Counts {
        let machine = self.shared.machine.lock();
        Counts {
            pds: machine.objects.pd_count(),
            mkeys: machine.mkeys.len(),
            eqs: machine.eqs.len(),
            cqs: machine.cqs.len(),
            qps: machine.qps.len(),
            trackers: machine.trackers.len(),
            pages: machine.function.page_count(),
        }
    }

    /// Does something to the machine, and raises what came of it when nothing is locked any more.
    fn with<T>(&self, act: impl FnOnce(&mut Machine) -> T) -> T {
        let mut machine = self.shared.machine.lock();
        let result = act(&mut machine);
        self.raise(machine);
        result
    }

    fn raise(&self, mut machine: MutexGuard<'_, Machine>) {
        let vectors = std::mem::take(&mut machine.interrupts);
        drop(machine);
        if vectors.is_empty() {
            return;
        }
        let call = self.shared.on_interrupt.read().clone();
        for vector in vectors {
            if let Some(call) = &call {
                call(vector);
            }
        }
    }
}

/// One tick passes with every register that is read.
impl Registers for Firmware {
    fn read32(&self, offset: usize) -> u32 {
        self.with(|machine| {
            machine.advance(1);
            if machine.gone { u32::MAX } else { machine.bar.load(offset) }
        })
    }

    fn write32(&self, offset: usize, value: u32) {
        self.with(|machine| {
            if !machine.gone && offset.is_multiple_of(4) {
                machine.written(offset, value);
            }
        });
    }
}

impl fmt::Debug for Firmware {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let counts = self.counts();
        f.debug_struct("Firmware").field("counts", &counts).finish_non_exhaustive()
    }
}

/// A virtual function of a [`Firmware`].
#[derive(Clone, Debug)]
pub struct VhcaHandle {
    firmware: Firmware,
    place: usize,
}

impl VhcaHandle {
    /// What is known of it.
    pub fn status(&self) -> VhcaStatus {
        self.firmware.shared.machine.lock().vhcas[self.place].status()
    }

    /// Changes the one byte of its state that the guest can see.
    pub fn touch(&self, value: u8) {
        self.firmware.shared.machine.lock().vhcas[self.place].touch(value);
    }

    /// The byte that the guest can see.
    pub fn touched(&self) -> u8 {
        self.firmware.shared.machine.lock().vhcas[self.place].touched()
    }

    /// Changes so many bytes of its state, in whole blocks of 4096, going round and round.
    pub fn dirty(&self, bytes: u64) {
        self.firmware.shared.machine.lock().vhcas[self.place].dirty(bytes);
    }

    /// Bytes that it dirties in one tick from now on.
    pub fn set_dirty_rate(&self, bytes: u64) {
        self.firmware.shared.machine.lock().vhcas[self.place].config.dirty_rate = bytes;
    }

    /// Writes so many bytes of the host's memory, as far as page trackers are concerned.
    pub fn dma_written(&self, iova: u64, bytes: u64) {
        self.firmware.with(|machine| {
            let vhca_id = machine.vhcas[self.place].config.vhca_id;
            machine.dma_written(vhca_id, iova, bytes);
        });
    }

    /// A function-level reset.
    pub fn flr(&self) {
        self.firmware.shared.machine.lock().vhcas[self.place].flr();
    }

    /// A number that two states have in common if and, but for chance, only if they are equal.
    pub fn digest(&self) -> u64 {
        self.firmware.shared.machine.lock().vhcas[self.place].digest()
    }

    /// Bytes of its state from `offset` on. How many there were.
    pub fn read_state(&self, offset: u64, out: &mut [u8]) -> usize {
        self.firmware.shared.machine.lock().vhcas[self.place].read_state(offset, out)
    }
}
