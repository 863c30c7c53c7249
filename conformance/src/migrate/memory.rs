// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! Migrations between two devices in memory, each side in its turn: first all that the source
//! sends, then the destination. So a run is the same whenever it is repeated.

use vfio_fsm_core::device::{Bug, Device, Memory, Planted};
use vfio_fsm_core::vmm::{Plan, Port};
use vfio_fsm_core::{Fault, Fd, Features, Op, Reply};

use super::Error;
use super::case::Case;
use super::judge::{Images, MARK, Run};
use super::matrix::Bench;
use super::probe::{At, Probe, Schedule, Subject};
use super::record::Record;
use super::vmm::{self, AtSource, Decisions, FIRST, Scripted};
use crate::target::MemoryDevice;

impl Subject for MemoryDevice {
    fn reset(&mut self) {
        let _ok = self.apply(Op::Reset, &mut []);
    }

    fn race<'b>(&mut self, op: Op<&[u8], &Fd>, buf: &'b mut [u8]) -> Reply<&'b [u8]> {
        let op = match op {
            Op::SetState { to, .. } => Op::SetState { to, fault: Some(Fault::ResetInside) },
            other => other,
        };
        Port::apply(self, op, buf)
    }
}

/// The reference device at both ends, with a bug in each if one is planted.
#[derive(Debug)]
pub(super) struct InMemory {
    features: Features,
    planted: Planted,
    images: Images,
}

impl InMemory {
    pub(super) fn new(features: Features, bug: Option<Bug>) -> Self {
        let planted = bug.map_or(Planted::NONE, Planted::bug);
        // What is right is what a device without bugs reads.
        let images = Images::of(&mut MemoryDevice::new(features, Memory::new()));
        Self { features, planted, images }
    }

    fn device(&self, touched: u8) -> MemoryDevice {
        let mut device = Device::with_bug(self.features, Memory::new(), self.planted);
        let _ok = device.apply(Op::Touch(touched), &mut []);
        device
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
        let mut source = self.device(FIRST);
        let probe = Probe { subject: &mut source, schedule: at_source, record: &record };
        let vmm = AtSource { record: &record, decisions };
        vmm::migrate(plan, probe, Vec::new(), vmm, |stream, complete| {
            let subject = &mut self.device(MARK.touched);
            let probe = Probe { subject, schedule: at_destination, record: &loaded };
            Ok(vmm::load(probe, &way(stream)[..], &mut || start && complete))
        })
    }
}

impl Bench for InMemory {
    fn describe(&self) -> String {
        format!("reference with {}", self.features)
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
        self.migrate(vmm::PLAN, Scripted::new(case), schedules, <[u8]>::to_vec, start)
    }
}
