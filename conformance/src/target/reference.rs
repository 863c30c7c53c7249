// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! The core's own device in memory: what every suite must pass on, and every mutant must not.

use std::sync::{Arc, Mutex, PoisonError};

use vfio_fsm_core::device::{Bug, Device, Memory, Planted};
use vfio_fsm_core::vmm::Port;
use vfio_fsm_core::{Fd, Features, Op, Reply};

use crate::replay::{Target, TargetError};
use crate::trace::Need;

/// Registers of the device, so that its record is as long as the header of mtty.
const REGISTERS: usize = 23;

/// The data_fds that a trace may have open.
const FDS: usize = 64;

/// A device with registers and a stream, as the oracle of the suites sees it.
pub(crate) type MemoryDevice = Device<Memory<REGISTERS>, FDS>;

/// The core's own device in memory.
#[derive(Debug)]
pub struct Reference {
    device: MemoryDevice,
    planted: Planted,
}

impl Reference {
    /// A correct device.
    pub fn new() -> Self {
        Self::with(Planted::NONE)
    }

    /// A device with a bug, to show that a suite can fail.
    pub fn with_bug(bug: Bug) -> Self {
        Self::with(Planted::bug(bug))
    }

    fn with(planted: Planted) -> Self {
        let device = Device::with_bug(Features::ALL, Memory::new(), planted);
        Self { device, planted }
    }
}

impl Default for Reference {
    fn default() -> Self {
        Self::new()
    }
}

impl Target for Reference {
    fn offers(&self, _features: Features) -> bool {
        true
    }

    fn can(&self, _need: Need) -> bool {
        true
    }

    fn fresh(&mut self, features: Features) -> Result<(), TargetError> {
        self.device = Device::with_bug(features, Memory::new(), self.planted);
        Ok(())
    }

    fn apply<'b>(&mut self, op: Op<&[u8]>, buf: &'b mut [u8]) -> Reply<&'b [u8]> {
        self.device.apply(op, buf)
    }
}

/// The core's own device, shared by threads: one call after another.
#[derive(Clone, Debug)]
pub struct SharedReference(Arc<Mutex<MemoryDevice>>);

impl SharedReference {
    /// A device in RUNNING, with a bug if so.
    pub fn new(features: Features, bug: Option<Bug>) -> Self {
        let planted = bug.map_or(Planted::NONE, Planted::bug);
        Self(Arc::new(Mutex::new(Device::with_bug(features, Memory::new(), planted))))
    }
}

impl Port for SharedReference {
    type Fd = Fd;

    fn apply<'b>(&mut self, op: Op<&[u8], &Fd>, buf: &'b mut [u8]) -> Reply<&'b [u8]> {
        let mut device = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        device.apply(op.map_fd(|fd| *fd), buf)
    }
}
