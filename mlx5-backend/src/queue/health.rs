// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! Whether there still is a firmware.

use std::sync::OnceLock;
use std::time::{Duration, Instant};

use parking_lot::Mutex;

use crate::bar::{self, Registers};

/// Why no command can be given any more.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum GoneCause {
    /// All registers read as ones: unplugged, in reset, or powered down.
    #[error("no device answers at its registers")]
    Unplugged,
    /// The firmware turned the interface off: 1, or wants a reset by software: 7.
    #[error("the firmware turned the interface off, nic_interface is {state}")]
    Interface {
        /// nic_interface of the init segment.
        state: u32,
    },
    /// The firmware asks for a reset.
    #[error("the firmware failed, syndrome {syndrome:#x}, and asks for a reset")]
    Fatal {
        /// irisc_index, synd and ext_synd of the health buffer.
        syndrome: u32,
    },
    /// The health counter stands still.
    #[error("the firmware's health counter stands at {counter} for {period:?}")]
    Stuck {
        /// Where it stands.
        counter: u32,
        /// For how long, at least.
        period: Duration,
    },
    /// It was torn down from here.
    #[error("the function was torn down")]
    TornDown,
}

const NIC_DISABLED: u32 = 1;
const NIC_SOFTWARE_RESET: u32 = 7;
/// The dword of the health buffer whose highest bit asks for a reset.
const HEALTH_FLAGS: usize = bar::HEALTH_BUFFER + 0x38;
/// How often the counter must have been found where it was: a thread that slept does not count.
const LOOKS: u32 = 3;

/// What was seen of the firmware so far. Once gone, it stays gone.
pub(super) struct Health {
    period: Duration,
    gone: OnceLock<GoneCause>,
    seen: Mutex<Seen>,
}

struct Seen {
    counter: u32,
    since: Instant,
    looks: u32,
}

impl Health {
    pub(super) fn new(period: Duration) -> Self {
        let seen = Seen { counter: 0, since: Instant::now(), looks: 0 };
        Self { period, gone: OnceLock::new(), seen: Mutex::new(seen) }
    }

    pub(super) fn gone(&self) -> Option<GoneCause> {
        self.gone.get().copied()
    }

    pub(super) fn set_gone(&self, cause: GoneCause) -> GoneCause {
        *self.gone.get_or_init(|| cause)
    }

    /// Looks at the registers. Not free: each is a read over PCI.
    pub(super) fn look(&self, registers: &impl Registers) -> Option<GoneCause> {
        let cause = self.gone().or_else(|| fatal(registers)).or_else(|| self.stuck(registers))?;
        Some(self.set_gone(cause))
    }

    fn stuck(&self, registers: &impl Registers) -> Option<GoneCause> {
        let counter = registers.read32(bar::HEALTH_COUNTER) & 0xff_ffff;
        let mut seen = self.seen.lock();
        if counter != seen.counter || seen.looks == 0 {
            *seen = Seen { counter, since: Instant::now(), looks: 1 };
            return None;
        }
        seen.looks = seen.looks.saturating_add(1);
        let stuck = seen.looks > LOOKS && seen.since.elapsed() >= self.period;
        stuck.then_some(GoneCause::Stuck { counter, period: self.period })
    }
}

/// What the registers say that makes waiting useless. As `mlx5_health_check_fatal_sensors` of the
/// kernel's driver.
fn fatal(registers: &impl Registers) -> Option<GoneCause> {
    if registers.read32(bar::FW_REV) == u32::MAX {
        return Some(GoneCause::Unplugged);
    }
    let state = (registers.read32(bar::CMDQ_ADDRESS_LOW) >> 8) & 0x7;
    if state == NIC_DISABLED || state == NIC_SOFTWARE_RESET {
        return Some(GoneCause::Interface { state });
    }
    let syndrome = registers.read32(bar::HEALTH_SYNDROME);
    let wants_reset = || registers.read32(HEALTH_FLAGS) >> 31 == 1;
    (syndrome & 0xff_0000 != 0 && wants_reset()).then_some(GoneCause::Fatal { syndrome })
}
