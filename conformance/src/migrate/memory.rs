// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! Migrations between two devices in memory, each side in its turn: first all that the source
//! sends, then the destination. So a run is the same whenever it is repeated.

use std::convert::Infallible;

use vfio_fsm_core::device::{Bug, Device, Memory, Planted};
use vfio_fsm_core::vmm::{Event, Plan, Port, Saver};
use vfio_fsm_core::{Fault, Fd, Features, Op, Reply};

use super::case::{Case, When};
use super::judge::{Ended, Images, MARK, Run};
use super::matrix::Bench;
use super::probe::{Orders, Probe, Schedule, Subject};
use super::record::Record;
use super::vmm::{self, Decisions, FIRST, Scripted};
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

/// A reset at one step.
pub(super) struct At(pub(super) Option<(usize, When)>);

impl Schedule for At {
    fn orders<B, F>(&mut self, step: usize, _op: &Op<B, F>, _frozen: bool) -> Orders {
        match self.0 {
            Some((at, when)) if at == step => Orders {
                before: when == When::Before,
                within: when == When::Within,
                after: when == When::After,
                ..Orders::default()
            },
            _ => Orders::default(),
        }
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

    /// One migration: `decisions` and `schedule` are the source's, `misfortune` the destination's.
    pub(super) fn migrate(
        &self,
        plan: Plan,
        decisions: &mut impl Decisions,
        schedule: impl Schedule,
        misfortune: impl Schedule,
        start: bool,
    ) -> Run {
        let record = Record::of_source();
        let subject = self.device(FIRST);
        let mut source = Probe { subject, schedule, record: &record };
        let mut saver = Saver::new(plan);
        let mut wire = Vec::new();
        let mut send = |piece| wire.push(piece);
        let mut verdict = vmm::save(&mut saver, &mut source, &record, decisions, &mut send);

        let loaded = Record::of_destination();
        let subject = self.device(MARK.touched);
        let mut probe = Probe { subject, schedule: misfortune, record: &loaded };
        let start = start && verdict.is_complete();
        let at_end = vmm::load(&mut probe, &loaded, &mut wire.into_iter(), start);
        let destination = vmm::find(probe, at_end);

        if verdict.is_complete() && destination.ended != Ended::Complete {
            record.event(Event::Cancel);
            let _heard = saver.event(Event::Cancel);
            verdict = vmm::save(&mut saver, &mut source, &record, decisions, &mut |_frame| {});
        }
        let (guest, evidence) = (verdict.guest(), saver.evidence());
        let source = vmm::find(source, verdict);
        let destination_refused = loaded.facts().refused_at_last;
        let facts = record.facts();
        Run { source, guest, evidence, facts, destination, destination_refused, fell: None }
    }
}

impl Bench for InMemory {
    type Error = Infallible;

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

    fn run(&mut self, case: &Case, _round: u32) -> Result<Run, Infallible> {
        let mut decisions = Scripted::new(case);
        let start = *case != Case::DestinationGivesUp;
        let (schedule, calm) = (At(case.reset()), At(None));
        Ok(self.migrate(vmm::PLAN, &mut decisions, schedule, calm, start))
    }
}
