// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! The mlx5 backend at one end of a migration.

use vfio_fsm_core::vmm::Port;
use vfio_fsm_core::{Fd, Features, Op, Reply};
use vfio_fsm_mlx5::firmware::IMAGE_HEADER;
use vfio_fsm_mlx5::software::SoftwareError;

use super::memory::End;
use crate::replay::Target;
use crate::target::{Mlx5Options, Mlx5Target};

/// Bytes of a device's image: a small one, since the steps of a run are as many as its pieces.
const IMAGE: u64 = IMAGE_HEADER as u64 + 40;

/// Bytes that a session moves at a time: fewer than an image has.
pub(super) const PIECE: u32 = 64;

/// A device on a software firmware; of the two ends of a migration no byte is the same.
pub(super) struct Mlx5Subject(Mlx5Target, Vec<String>);

impl Mlx5Subject {
    pub(super) fn new(
        options: Mlx5Options,
        features: Features,
        end: End,
    ) -> Result<Self, SoftwareError> {
        let seed = if end == End::Source { 1 } else { 2 };
        let options = Mlx5Options { seed, image_bytes: IMAGE, ..options };
        Ok(Self(Mlx5Target::with_features(options, features)?, Vec::new()))
    }

    /// What of the firmware was not as the device_state said.
    pub(super) fn take_anomaly(&mut self) -> Option<String> {
        let anomaly = self.1.join("; ");
        self.1.clear();
        (!anomaly.is_empty()).then_some(anomaly)
    }
}

impl Port for Mlx5Subject {
    type Fd = Fd;

    fn apply<'b>(&mut self, op: Op<&[u8], &Fd>, buf: &'b mut [u8]) -> Reply<&'b [u8]> {
        let Self(target, anomalies) = self;
        let reply = target.apply(op.map_fd(|fd| *fd), buf);
        anomalies.extend(target.take_anomaly());
        reply
    }
}
