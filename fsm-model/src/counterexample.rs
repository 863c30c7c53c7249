// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! A run that breaks a property, as something to read and something to replay.

use std::fmt;

use vfio_fsm_core::device::{Device, Memory};
use vfio_fsm_core::{Fd, Features, Op, Reply, State};

use crate::protocol::Protocol;
use crate::world::{Action, Actor, ModelDevice};

/// A run that breaks a property.
#[derive(Clone, Debug)]
pub struct Counterexample {
    /// Which property.
    pub property: &'static str,
    /// The flags of the device.
    pub features: Features,
    /// What was done, in order; the last step breaks the property.
    pub steps: Vec<CounterStep>,
}

/// One step of a counterexample.
#[derive(Clone, Debug)]
pub struct CounterStep {
    /// Who did it.
    pub actor: Actor,
    /// What was done; its fds are numbered as a real device would number them.
    pub op: Op<&'static [u8]>,
    /// What the checked device answered.
    pub seen: Reply<Vec<u8>>,
    /// What a correct device answers.
    pub correct: Reply<Vec<u8>>,
    /// Where the checked device was then.
    pub at: State,
}

impl Counterexample {
    pub(crate) fn new(model: &Protocol, property: &'static str, actions: Vec<Action>) -> Self {
        // Not renumbered, so that the fds are called what a process would call them.
        let mut checked: ModelDevice =
            Device::with_bug(model.features(), Memory::new(), model.planted());
        let mut correct = ModelDevice::new(model.features(), Memory::new());
        let mut steps = Vec::new();
        for action in actions {
            let op = action.op.map_fd(|fd| nth_open(&checked, fd));
            let (mut buf, mut other) = ([0; 4], [0; 4]);
            steps.push(CounterStep {
                actor: action.actor,
                op,
                seen: checked.apply(op, &mut buf).map(<[u8]>::to_vec),
                correct: correct.apply(op, &mut other).map(<[u8]>::to_vec),
                at: checked.fsm().state(),
            });
        }
        Self { property, features: model.features(), steps }
    }
}

/// The open data_fd that the model, which numbers them from 1, calls by this number.
fn nth_open(device: &ModelDevice, fd: Fd) -> Fd {
    let mut open: Vec<Fd> = device.fds().open().map(|open| open.fd).collect();
    open.sort_unstable();
    open.get(fd.0 as usize - 1).copied().unwrap_or(fd)
}

impl fmt::Display for CounterStep {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let actor = match self.actor {
            Actor::Vmm => "VMM",
            Actor::Guest => "guest",
        };
        write!(f, "{actor:<5} {} => {}", self.op, self.seen)?;
        if self.seen != self.correct {
            write!(f, "   (correct: {})", self.correct)?;
        }
        write!(f, "   [{}]", self.at)
    }
}

impl fmt::Display for Counterexample {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "{} is broken, {}:", self.property, self.features)?;
        (1..).zip(&self.steps).try_for_each(|(number, step)| writeln!(f, "{number:>3}. {step}"))
    }
}
