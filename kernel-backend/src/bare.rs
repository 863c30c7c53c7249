// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! The ioctls of a session without anything around them: what everything else is measured against.

use std::time::{Duration, Instant};

use vfio_bindings::bindings::vfio::{
    VFIO_DEVICE_FEATURE_GET as GET, VFIO_DEVICE_FEATURE_MIG_DEVICE_STATE as DEVICE_STATE,
    VFIO_DEVICE_FEATURE_SET as SET, vfio_device_feature_mig_state,
};
use vfio_fsm_core::{Errno, State};

use crate::device::KernelDevice;
use crate::sys;

impl KernelDevice {
    /// SET `away`, GET, SET RUNNING, GET, so often, and how long that took. Nothing but the errno is
    /// looked at. Neither state may have a session.
    ///
    /// # Errors
    ///
    /// The errno of the first call that fails; the device is left where it is then.
    pub fn bare_loop(&self, away: State, rounds: u32) -> Result<Duration, Errno> {
        let device = self.device_fd()?;
        let mut answer = vfio_device_feature_mig_state::default();
        let began = Instant::now();
        for _ in 0..rounds {
            for state in [away, State::Running] {
                let mut asked =
                    vfio_device_feature_mig_state { device_state: state.number(), data_fd: -1 };
                sys::device_feature(device, SET | DEVICE_STATE, &mut asked)?;
                sys::device_feature(device, GET | DEVICE_STATE, &mut answer)?;
            }
        }
        Ok(began.elapsed())
    }
}
