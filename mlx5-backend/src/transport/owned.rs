// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! A virtual function whose physical one user space owns.

use std::fs;
use std::path::PathBuf;
use std::sync::Arc;

use vfio_fsm_core::{Errno, Features};

use crate::device::{Function, Mlx5Device};
use crate::pf::{Bar0, PfError, PhysicalFunction};
use crate::queue::{Hca, HcaError, Options};
use crate::vhca::{Migration, Vhca, VhcaError};

use super::sysfs::Found;

/// A physical function that did not come up, or a virtual one that cannot be migrated.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum OwnedError {
    /// VFIO does not give it.
    #[error(transparent)]
    Open(#[from] PfError),
    /// The firmware does not come up.
    #[error(transparent)]
    Hca(#[from] HcaError),
    /// The virtual function cannot be migrated.
    #[error(transparent)]
    Vhca(#[from] VhcaError),
}

/// The device, the physical function's firmware, and the function: taken down in this order.
pub(super) struct Owned {
    device: Mlx5Device<Hca<Arc<Bar0>>, SysfsReset>,
    _pf: PhysicalFunction,
}

impl Owned {
    pub(super) fn open(found: &Found, dma_limit: u64) -> Result<Self, OwnedError> {
        let pf = PhysicalFunction::open(&found.pf, dma_limit)?;
        let hca = Hca::bring_up(pf.registers(), pf.dma().clone(), Options::default())?;
        let commands = Arc::new(hca);
        crate::vhca::make_migratable(&*commands, found.function)?;
        let migration = Migration::of(&*commands)?;
        let vhca = Vhca::new(commands, migration, found.function)?;
        let reset = SysfsReset { attribute: found.vf.join("reset") };
        Ok(Self { device: Mlx5Device::new(Features::ALL, vhca, reset), _pf: pf })
    }

    pub(super) const fn device(&self) -> &Mlx5Device<Hca<Arc<Bar0>>, SysfsReset> {
        &self.device
    }
}

/// Resets a function by its attribute in sysfs, whoever has it open.
pub(super) struct SysfsReset {
    attribute: PathBuf,
}

impl Function for SysfsReset {
    fn reset(&self) -> Result<(), Errno> {
        fs::write(&self.attribute, "1")
            .map_err(|error| error.raw_os_error().map_or(Errno::EIO, Errno))
    }
}
