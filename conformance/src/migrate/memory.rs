// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! Migrations between two devices in memory, each side in its turn: first all that the source
//! sends, then the destination. So a run is the same whenever it is repeated.

use std::fmt;

use vfio_fsm_core::device::{Bug, Device, Memory, Planted};
use vfio_fsm_core::vmm::{Plan, Port};
use vfio_fsm_core::{Fault, Fd, Features, Op, Reply};

use super::Error;
use super::case::Case;
use super::judge::{Images, MARK, Run};
use super::matrix::Bench;
#[cfg(feature = "mlx5")]
use super::mlx5::Mlx5Subject;
use super::probe::{At, Probe, Schedule, Subject};
use super::record::Record;
use super::vmm::{self, AtSource, Decisions, FIRST, Scripted};
use crate::target::MemoryDevice;
#[cfg(feature = "mlx5")]
use crate::target::Mlx5Options;

/// What is at both ends of a migration in memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Devices {
    /// The core's own device, with a bug if so.
    Reference(Option<Bug>),
    /// The mlx5 backend, each on a software firmware of its own.
    #[cfg(feature = "mlx5")]
    Mlx5(Mlx5Options),
}

impl From<Option<Bug>> for Devices {
    fn from(bug: Option<Bug>) -> Self {
        Self::Reference(bug)
    }
}

impl fmt::Display for Devices {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Reference(None) => f.write_str("reference"),
            Self::Reference(Some(bug)) => write!(f, "reference with {}", bug.slug()),
            #[cfg(feature = "mlx5")]
            Self::Mlx5(options) => options.fmt(f),
        }
    }
}

/// Which of the two.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum End {
    Source,
    Destination,
}

impl Devices {
    /// The same without bugs.
    const fn sound(self) -> Self {
        match self {
            Self::Reference(_) => Self::Reference(None),
            #[cfg(feature = "mlx5")]
            Self::Mlx5(options) => Self::Mlx5(Mlx5Options { bug: None, ..options }),
        }
    }

    fn device(self, features: Features, end: End) -> Result<InMemoryDevice, Error> {
        match self {
            Self::Reference(bug) => {
                // Its reset state is the same everywhere.
                let (End::Source | End::Destination) = end;
                let planted = bug.map_or(Planted::NONE, Planted::bug);
                let device = Device::with_bug(features, Memory::new(), planted);
                Ok(InMemoryDevice::Reference(device))
            }
            #[cfg(feature = "mlx5")]
            Self::Mlx5(options) => {
                Ok(InMemoryDevice::Mlx5(Mlx5Subject::new(options, features, end)?))
            }
        }
    }

    /// A live migration, in pieces that are shorter than the streams.
    const fn plan(self) -> Plan {
        match self {
            Self::Reference(_) => vmm::PLAN,
            #[cfg(feature = "mlx5")]
            Self::Mlx5(_) => Plan { chunk: super::mlx5::PIECE, ..vmm::PLAN },
        }
    }
}

/// One of them.
#[cfg_attr(
    feature = "mlx5",
    expect(
        clippy::large_enum_variant,
        reason = "there are two at a time, and each is used at once"
    )
)]
pub(super) enum InMemoryDevice {
    Reference(MemoryDevice),
    #[cfg(feature = "mlx5")]
    Mlx5(Mlx5Subject),
}

impl Port for InMemoryDevice {
    type Fd = Fd;

    fn apply<'b>(&mut self, op: Op<&[u8], &Fd>, buf: &'b mut [u8]) -> Reply<&'b [u8]> {
        match self {
            Self::Reference(device) => Port::apply(device, op, buf),
            #[cfg(feature = "mlx5")]
            Self::Mlx5(device) => device.apply(op, buf),
        }
    }
}

impl Subject for InMemoryDevice {
    fn reset(&mut self) {
        let _ok = self.apply(Op::Reset, &mut []);
    }

    fn race<'b>(&mut self, op: Op<&[u8], &Fd>, buf: &'b mut [u8]) -> Reply<&'b [u8]> {
        let op = match op {
            Op::SetState { to, .. } => Op::SetState { to, fault: Some(Fault::ResetInside) },
            other => other,
        };
        self.apply(op, buf)
    }

    fn take_anomaly(&mut self) -> Option<String> {
        match self {
            Self::Reference(_) => None,
            #[cfg(feature = "mlx5")]
            Self::Mlx5(device) => device.take_anomaly(),
        }
    }
}

/// Two devices of a kind.
#[derive(Debug)]
pub(super) struct InMemory {
    features: Features,
    devices: Devices,
    images: Images,
}

impl InMemory {
    pub(super) fn new(features: Features, devices: Devices) -> Result<Self, Error> {
        // What is right is what a device without bugs reads.
        let images = Images::of(&mut devices.sound().device(features, End::Source)?);
        let images = images.blank(&mut devices.sound().device(features, End::Destination)?);
        Ok(Self { features, devices, images })
    }

    fn device(&self, end: End, touched: u8) -> Result<InMemoryDevice, Error> {
        let mut device = self.devices.device(self.features, end)?;
        let _ok = device.apply(Op::Touch(touched), &mut []);
        Ok(device)
    }

    pub(super) const fn features(&self) -> Features {
        self.features
    }

    /// One migration; `way` is what becomes of the stream.
    pub(super) fn migrate<D: Decisions, O: Schedule>(
        &self,
        plan: Plan,
        decisions: D,
        [at_source, at_destination]: [O; 2],
        way: impl FnOnce(&[u8]) -> Vec<u8>,
        start: bool,
    ) -> Result<Run, Error> {
        let (record, loaded) = (Record::of_source(), Record::of_destination());
        let mut source = self.device(End::Source, FIRST)?;
        let probe = Probe { subject: &mut source, schedule: at_source, record: &record };
        let vmm = AtSource { record: &record, decisions };
        vmm::migrate(plan, probe, Vec::new(), vmm, |stream, complete| {
            let subject = &mut self.device(End::Destination, MARK.touched)?;
            let probe = Probe { subject, schedule: at_destination, record: &loaded };
            Ok(vmm::load(probe, &way(stream)[..], &mut || start && complete))
        })
    }
}

impl Bench for InMemory {
    fn describe(&self) -> String {
        format!("{} with {}", self.devices, self.features)
    }

    fn images(&self) -> &Images {
        &self.images
    }

    /// A device that does one op at a time has nothing within it, but for the lock of a SET.
    fn races(&self, op: &str) -> bool {
        op.starts_with("SET ") && !op.starts_with("SET precopy")
    }

    fn run(&mut self, case: &Case, _round: u32) -> Result<Run, Error> {
        let start = *case != Case::DestinationGivesUp;
        let schedules = [At(case.reset()), At(None)];
        let plan = self.devices.plan();
        self.migrate(plan, Scripted::new(case), schedules, <[u8]>::to_vec, start)
    }
}
