// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! A whole device without hardware: firmware, command queue and device in one process.
//!
//! ```
//! use vfio_fsm_core::{Features, Op, Reply, State};
//! use vfio_fsm_mlx5::dma::DmaSpace;
//! use vfio_fsm_mlx5::firmware::{Config, VhcaConfig};
//! use vfio_fsm_mlx5::software::Software;
//!
//! let software = Software::new(Config::of(VhcaConfig::default()), DmaSpace::new(64 << 20))?;
//! let device = software.device(Features::ALL)?;
//! assert_eq!(device.apply(Op::set(State::Stop), &mut []), Reply::Fd(None));
//! assert!(software.vhca().status().responder_suspended);
//! # Ok::<(), vfio_fsm_mlx5::software::SoftwareError>(())
//! ```

use std::sync::Arc;

use vfio_fsm_core::device::Planted;
use vfio_fsm_core::{Errno, Features, State};

use crate::device::{Function, Mlx5Device};
use crate::dma::DmaSpace;
use crate::firmware::{Config, ConfigError, Firmware, VhcaHandle};
use crate::queue::{CommandQueue, Options, QueueError};
use crate::vhca::{Migration, Vhca, VhcaError};

/// A virtual function of a software firmware as a device that migrates.
pub type SoftDevice = Mlx5Device<CommandQueue<Firmware>, VhcaHandle>;

/// A physical function in software, the command queue to it, and its first virtual function.
pub struct Software {
    firmware: Firmware,
    commands: Arc<CommandQueue<Firmware>>,
    migration: Migration,
    vhca: VhcaHandle,
}

/// A device in software that cannot be.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum SoftwareError {
    /// The firmware cannot be like this.
    #[error(transparent)]
    Config(#[from] ConfigError),
    /// It has no virtual function.
    #[error("the configuration has no virtual function; give it a VhcaConfig")]
    NoFunction,
    /// The command queue did not come up.
    #[error(transparent)]
    Queue(#[from] QueueError),
    /// The virtual function cannot be migrated.
    #[error(transparent)]
    Vhca(#[from] VhcaError),
}

impl Software {
    /// A firmware like this, which is up already ([`Config::of`]) and reached by its registers; all
    /// signatures are made and verified. Buffers, queue and mailboxes are in `memory`.
    ///
    /// # Errors
    ///
    /// [`SoftwareError`], as its variants say.
    pub fn new(config: Config, memory: DmaSpace) -> Result<Self, SoftwareError> {
        let vhca_id = config.vhcas.first().ok_or(SoftwareError::NoFunction)?.vhca_id;
        let firmware = Firmware::new(config, memory.clone())?;
        let vhca = firmware.vhca(vhca_id).ok_or(SoftwareError::NoFunction)?;
        let options = Options { signatures: true, ..Options::default() };
        let commands = Arc::new(CommandQueue::new(firmware.clone(), memory, options)?);
        let migration = Migration::of(&*commands)?;
        Ok(Self { firmware, commands, migration, vhca })
    }

    /// The firmware.
    pub const fn firmware(&self) -> &Firmware {
        &self.firmware
    }

    /// The queue to it.
    pub const fn commands(&self) -> &Arc<CommandQueue<Firmware>> {
        &self.commands
    }

    /// The virtual function as the firmware sees it.
    pub const fn vhca(&self) -> &VhcaHandle {
        &self.vhca
    }

    /// The virtual function as its user has it: reset, in RUNNING. Drop an earlier one first.
    ///
    /// # Errors
    ///
    /// It is not migratable.
    pub fn device(&self, features: Features) -> Result<SoftDevice, SoftwareError> {
        self.device_with_bug(features, Planted::NONE)
    }

    /// The same with a bug of the core's in it: to show that a check can fail.
    ///
    /// # Errors
    ///
    /// As [`device`](Self::device).
    pub fn device_with_bug(
        &self,
        features: Features,
        planted: Planted,
    ) -> Result<SoftDevice, SoftwareError> {
        self.vhca.flr();
        let vhca = Vhca::new(Arc::clone(&self.commands), self.migration, 1)?;
        Ok(Mlx5Device::with_bug(features, vhca, self.vhca.clone(), planted))
    }

    /// What of the firmware a device in this state should not have left as it is, if anything:
    /// halves of the VHCA that are suspended or not, and objects of a session that is over.
    pub fn disagrees(&self, state: State) -> Option<Disagreement> {
        let status = self.vhca.status();
        let halted = (status.initiator_suspended, status.responder_suspended);
        let wanted = match state {
            State::Running | State::PreCopy => (false, false),
            State::RunningP2p | State::PreCopyP2p => (true, false),
            State::Stop | State::StopCopy | State::Resuming => (true, true),
            // Nobody knows what has happened to it.
            State::Error => return None,
        };
        if halted != wanted {
            return Some(Disagreement::Halted { state, initiator: halted.0, responder: halted.1 });
        }
        let counts = self.firmware.counts();
        let left = counts.pds + counts.mkeys;
        (state.session().is_none() && left > 0).then_some(Disagreement::Left { state, left })
    }
}

/// A firmware that is not as the device_state says.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Disagreement {
    /// The wrong halves are suspended.
    #[error(
        "in {state}, with the VHCA's initiator suspended: {initiator}, responder suspended: \
         {responder}"
    )]
    Halted {
        /// What the device says.
        state: State,
        /// Whether this half is.
        initiator: bool,
        /// Whether this one is.
        responder: bool,
    },
    /// Memory keys and protection domains are left.
    #[error("in {state}, with {left} memory keys and protection domains left of a session")]
    Left {
        /// What the device says.
        state: State,
        /// How many.
        left: usize,
    },
}

impl Function for VhcaHandle {
    fn reset(&self) -> Result<(), Errno> {
        self.flr();
        Ok(())
    }

    fn touch(&self, value: u8) -> Result<(), Errno> {
        VhcaHandle::touch(self, value);
        Ok(())
    }
}
