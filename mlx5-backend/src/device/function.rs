// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! What is done to a virtual function beside commands to the firmware.

use vfio_fsm_core::Errno;

/// A virtual function as its user has it: what resets it, and what its guest does with it.
pub trait Function: Send + Sync {
    /// A function level reset: when it returns, the VHCA runs, is neither suspended nor tracked,
    /// and has no command of its own on its way. `VFIO_DEVICE_RESET` on hardware.
    ///
    /// Called without the state lock, and sometimes with it, but never called by itself: it must
    /// not come back to the device.
    fn reset(&self) -> Result<(), Errno>;

    /// The guest makes the device's state depend on `value`. Where nobody can: `EOPNOTSUPP`.
    fn touch(&self, value: u8) -> Result<(), Errno> {
        let _ = value;
        Err(Errno::EOPNOTSUPP)
    }
}
