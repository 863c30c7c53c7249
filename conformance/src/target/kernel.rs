// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! A real device node.

use std::time::Duration;

use vfio_fsm_core::{Errno, Features, Op, Reply};
use vfio_fsm_kernel::{DevicePath, KernelDevice, OpenError, ParsePathError, TouchError};

use crate::replay::{Target, TargetError};
use crate::suite::away;
use crate::trace::Need;

/// A device that the kernel drives.
#[derive(Debug)]
pub struct KernelTarget {
    device: KernelDevice,
    uring: bool,
}

/// A device that cannot be tested.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum KernelTargetError {
    /// The name is none.
    #[error(transparent)]
    Path(#[from] ParsePathError),
    /// It cannot be opened.
    #[error(transparent)]
    Open(#[from] OpenError),
    /// The byte to touch is none of the device's.
    #[error(transparent)]
    Touch(#[from] TouchError),
}

impl KernelTarget {
    /// Open a device: a PCI address, an mdev UUID, a directory in /sys, or a cdev node; and, to
    /// change its state as a guest would, the region and offset of a byte in it.
    pub fn open(name: &str, touch: Option<(u32, u64)>) -> Result<Self, KernelTargetError> {
        let path: DevicePath = name.parse()?;
        let mut device = KernelDevice::open(&path)?;
        if let Some((region, offset)) = touch {
            device = device.with_touch(region, offset)?;
        }
        let uring = device.uring_available();
        Ok(Self { device, uring })
    }
}

impl KernelTarget {
    /// The flags of the device.
    #[must_use]
    pub const fn features(&self) -> Features {
        self.device.features()
    }

    /// The ioctls of [`suite::pace`](crate::suite::pace) with nothing around them.
    ///
    /// # Errors
    ///
    /// The errno of the first call that fails.
    pub fn bare_loop(&self, rounds: u32) -> Result<Duration, Errno> {
        self.device.bare_loop(away(self.features()), rounds)
    }
}

impl Target for KernelTarget {
    fn offers(&self, features: Features) -> bool {
        self.device.features() == features
    }

    fn can(&self, need: Need) -> bool {
        match need {
            Need::FdTableFull | Need::SecondDevice | Need::Reopen => true,
            Need::Uring => self.uring,
            Need::Touch => self.device.touch_configured(),
            // A driver cannot be made to fail, nor a reset be placed inside a SET.
            Need::ResetInside | Need::ArcFails => false,
        }
    }

    fn is_kernel(&self) -> bool {
        true
    }

    fn fresh(&mut self, _features: Features) -> Result<(), TargetError> {
        self.device.fresh().map_err(|error| TargetError(Box::new(error)))
    }

    fn apply<'b>(&mut self, op: Op<&[u8]>, buf: &'b mut [u8]) -> Reply<&'b [u8]> {
        self.device.apply(op, buf)
    }

    fn take_anomaly(&mut self) -> Option<String> {
        let anomalies = self.device.take_anomalies();
        let texts: Vec<_> = anomalies.iter().map(ToString::to_string).collect();
        (!texts.is_empty()).then(|| texts.join("; "))
    }
}
