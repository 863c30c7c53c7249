// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! A firmware and the memory around it, for the shipping driver or for our backend.

use std::fmt;
use std::sync::Arc;

use vfio_fsm_core::{Errno, Features};

use super::{Arena, Built, Direct, DriverError, Firmware, LinuxDriver, Options, Ours, Scripted};
use crate::command::{CommandError, Commands};
use crate::device::Mlx5Device;
use crate::dma::{DmaError, DmaSpace};
use crate::firmware::{self, Config, DeviceMemory, VhcaHandle};
use crate::queue::{self, CommandQueue};
use crate::vhca::{Migration, Vhca};

/// A firmware with a VF, and the memory it reaches.
#[derive(Debug)]
pub struct Bench<F> {
    /// The firmware.
    pub firmware: F,
    /// The pages of the shipping driver.
    pub arena: Arena,
    /// The buffers of our backend.
    pub dma: DmaSpace,
    /// Whether images have contents that two runs have in common.
    pub contents: bool,
}

impl Bench<Scripted> {
    /// With a scripted firmware, and so many pages for either side.
    pub fn scripted(firmware: Scripted, pages: u64) -> Result<Self, DriverError> {
        let arena = Arena::new(pages).map_err(DriverError::Process)?;
        Ok(Self { firmware, arena, dma: DmaSpace::new(pages * 4096), contents: false })
    }
}

impl Bench<Software> {
    /// With the software firmware, and so many pages for either side.
    pub fn software(config: Config, pages: u64) -> Result<Self, DriverError> {
        let arena = Arena::new(pages).map_err(DriverError::Process)?;
        // The queue itself is in there, too, with mailboxes for as long a command as there may be.
        let dma = DmaSpace::new(pages * 4096 + QUEUE_BYTES);
        let memory =
            Host { arena: arena.try_clone().map_err(DriverError::Process)?, dma: dma.clone() };
        let firmware = Software::new(config, memory, dma.clone())?;
        Ok(Self { firmware, arena, dma, contents: true })
    }
}

const QUEUE_BYTES: u64 = 64 << 20;

impl<F: Firmware + Send> Bench<F> {
    /// The shipping driver on it.
    pub fn driver(self, built: &Built, options: Options) -> Result<LinuxDriver<F>, DriverError> {
        let mut driver = built.start(self.firmware, &self.arena, options)?;
        driver.take_given();
        Ok(driver)
    }

    /// Our backend on it.
    pub fn ours(self) -> Result<(Ours<F>, Direct<F>), DriverError> {
        let direct = Direct::new(self.firmware, self.dma);
        let vhca = Migration::of(&direct)
            .and_then(|pf| Vhca::new(Arc::new(direct.clone()), pf, 1))
            .map_err(|error| DriverError::Found(format!("our backend: {error}")))?;
        direct.take_given();
        Ok((Mlx5Device::new(Features::ALL, vhca, direct.clone()), direct))
    }
}

/// The memory of a host on which either side may run.
struct Host {
    arena: Arena,
    dma: DmaSpace,
}

impl DeviceMemory for Host {
    fn read(&self, iova: u64, bytes: &mut [u8]) -> Result<(), DmaError> {
        match self.arena.contains(iova) {
            true => self.arena.read(iova, bytes),
            false => self.dma.read(iova, bytes),
        }
    }

    fn write(&self, iova: u64, bytes: &[u8]) -> Result<(), DmaError> {
        match self.arena.contains(iova) {
            true => self.arena.write(iova, bytes),
            false => self.dma.write(iova, bytes),
        }
    }
}

/// The software firmware, behind a command queue of ours; its first VF.
pub struct Software {
    queue: CommandQueue<firmware::Firmware>,
    firmware: firmware::Firmware,
    vhca: VhcaHandle,
}

impl Software {
    fn new(
        config: Config,
        memory: impl DeviceMemory + 'static,
        dma: DmaSpace,
    ) -> Result<Self, DriverError> {
        let broken = |error: &dyn fmt::Display| DriverError::Found(error.to_string());
        let vhca_id = config.vhcas.first().map(|vhca| vhca.vhca_id).unwrap_or_default();
        let firmware = firmware::Firmware::new(config, memory).map_err(|error| broken(&error))?;
        let vhca = firmware.vhca(vhca_id).ok_or_else(|| broken(&"the firmware has no VF"))?;
        // Nobody has told the firmware that mailboxes are not signed.
        let options = queue::Options { signatures: true, ..queue::Options::default() };
        let queue = CommandQueue::new(firmware.clone(), dma, options);
        let queue = queue.map_err(|error| broken(&error))?;
        Ok(Self { queue, firmware, vhca })
    }

    /// The firmware itself.
    pub const fn firmware(&self) -> &firmware::Firmware {
        &self.firmware
    }

    /// Its VF.
    pub const fn vhca(&self) -> &VhcaHandle {
        &self.vhca
    }
}

impl fmt::Debug for Software {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Software").field("vhca", &self.vhca).finish_non_exhaustive()
    }
}

impl Firmware for Software {
    fn command(&mut self, input: &[u8], output: &mut [u8]) -> Result<(), Errno> {
        match self.queue.execute(input, output) {
            // What the status means, the driver is to see.
            Ok(()) | Err(CommandError::Status { .. }) => Ok(()),
            Err(other) => Err(other.errno()),
        }
    }

    fn reset(&mut self) {
        self.vhca.flr();
    }

    fn touch(&mut self, value: u8) {
        self.vhca.touch(value);
    }
}
