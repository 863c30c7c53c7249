// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! The mlx5 backend, whose arcs are commands to a firmware in software.

use std::fmt;
use std::sync::Arc;

use vfio_fsm_core::device::{Bug, Planted};
use vfio_fsm_core::{Errno, Features, Op, Reply, State};
use vfio_fsm_mlx5::device::Shared;
use vfio_fsm_mlx5::dma::DmaSpace;
use vfio_fsm_mlx5::firmware::{Config, Firmware, VhcaConfig, VhcaHandle};
use vfio_fsm_mlx5::layout::Opcode;
use vfio_fsm_mlx5::queue::CommandQueue;
use vfio_fsm_mlx5::software::{SoftDevice, Software, SoftwareError};

use crate::replay::{Target, TargetError};
use crate::trace::Need;

/// The most memory that firmware commands and their buffers may take, in bytes. A device of a suite
/// needs a few pages; a stream that lies about its length must not get more.
const MEMORY: u64 = 256 << 20;

/// How a device in software is to be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Mlx5Options {
    /// States are cut into chunks.
    pub chunks: bool,
    /// A bug of the core's in the device.
    pub bug: Option<Bug>,
    /// Bytes of a full image of its state.
    pub image_bytes: u64,
    /// Two of different seeds differ in every byte of their state when they are fresh.
    pub seed: u64,
    /// So many ticks go by until a SAVE is done, each of them a look at the firmware's registers.
    /// 0: it is done when it is given.
    pub save_ticks: u64,
}

impl Default for Mlx5Options {
    fn default() -> Self {
        Self { chunks: false, bug: None, image_bytes: 9_999, seed: 1, save_ticks: 0 }
    }
}

impl Mlx5Options {
    /// The firmware, and a device's place in it.
    pub(crate) fn software(self) -> Result<Software, SoftwareError> {
        let Self { image_bytes, seed, .. } = self;
        let vhca = VhcaConfig { image_bytes, seed, ..VhcaConfig::default() };
        let config = Config { chunks: self.chunks, log_entries: 0, ..Config::of(vhca) };
        let config = config.with_latency(Opcode::SaveVhcaState, self.save_ticks);
        Software::new(config, DmaSpace::new(MEMORY))
    }

    pub(crate) fn device(
        self,
        software: &Software,
        features: Features,
    ) -> Result<SoftDevice, SoftwareError> {
        let planted = self.bug.map_or(Planted::NONE, Planted::bug);
        software.device_with_bug(features, planted)
    }
}

/// As a report has it: `mlx5 with chunks with reset-keeps-state`.
impl fmt::Display for Mlx5Options {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(if self.chunks { "mlx5 with chunks" } else { "mlx5" })?;
        self.bug.map_or(Ok(()), |bug| write!(f, " with {}", bug.slug()))
    }
}

/// A virtual function of a software firmware. Beside what it answers, the firmware is looked at:
/// that the right halves of the VHCA are suspended in each state, and that nothing is left of a
/// session that is over.
pub struct Mlx5Target {
    options: Mlx5Options,
    software: Software,
    device: Option<SoftDevice>,
    anomaly: Option<String>,
}

impl Mlx5Target {
    /// A firmware with one virtual function.
    ///
    /// # Errors
    ///
    /// There is no memory for it.
    pub fn new(options: Mlx5Options) -> Result<Self, SoftwareError> {
        Self::with_features(options, Features::ALL)
    }

    /// The same with these flags, until it is made fresh with others.
    ///
    /// # Errors
    ///
    /// As [`new`](Self::new).
    pub fn with_features(options: Mlx5Options, features: Features) -> Result<Self, SoftwareError> {
        let software = options.software()?;
        let device = Some(options.device(&software, features)?);
        Ok(Self { options, software, device, anomaly: None })
    }

    fn look(&mut self) {
        let Some(device) = &self.device else { return };
        let state = match device.apply(Op::GetState, &mut []) {
            Reply::State(state) => state.known(),
            // Closed, and so reset for whoever opens it next.
            _ => Some(State::Running),
        };
        let wrong = state.and_then(|state| self.software.disagrees(state));
        self.anomaly = wrong.map(|wrong| wrong.to_string());
    }
}

impl Target for Mlx5Target {
    fn offers(&self, _features: Features) -> bool {
        true
    }

    fn can(&self, _need: Need) -> bool {
        true
    }

    fn fresh(&mut self, features: Features) -> Result<(), TargetError> {
        // Its session ends with it.
        self.device = None;
        self.anomaly = None;
        let device = self.options.device(&self.software, features);
        self.device = Some(device.map_err(|error| TargetError(Box::new(error)))?);
        match self.software.disagrees(State::Running) {
            Some(wrong) => Err(TargetError(Box::new(wrong))),
            None => Ok(()),
        }
    }

    fn apply<'b>(&mut self, op: Op<&[u8]>, buf: &'b mut [u8]) -> Reply<&'b [u8]> {
        let Some(device) = &self.device else { return Reply::Errno(Errno::ENODEV) };
        let reply = device.apply(op, buf);
        if matches!(op, Op::SetState { .. } | Op::Reset | Op::Close | Op::Open | Op::CloseFd { .. })
        {
            self.look();
        }
        reply
    }

    fn take_anomaly(&mut self) -> Option<String> {
        self.anomaly.take()
    }
}

/// A virtual function of a software firmware, shared by threads.
pub struct SharedMlx5 {
    software: Software,
    device: Arc<SoftDevice>,
}

impl SharedMlx5 {
    /// A device in RUNNING on a firmware of its own.
    ///
    /// # Errors
    ///
    /// There is no memory for it.
    pub fn new(options: Mlx5Options) -> Result<Self, SoftwareError> {
        let software = options.software()?;
        let device = Arc::new(options.device(&software, Features::ALL)?);
        Ok(Self { software, device })
    }

    /// A thread's way to it. Reads wait, as a blocking file's do.
    pub fn port(&self) -> Shared<CommandQueue<Firmware>, VhcaHandle> {
        Shared(Arc::clone(&self.device))
    }

    /// What of the firmware is not as the device_state says. Of a device that is at rest.
    pub fn disagreement(&self) -> Option<String> {
        let Reply::State(state) = self.device.apply(Op::GetState, &mut []) else { return None };
        let wrong = self.software.disagrees(state.known()?)?;
        Some(format!("the firmware does not agree with the device: {wrong}"))
    }
}
