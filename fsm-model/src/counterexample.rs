// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! A run that breaks a property, as its devices see it: something to replay.

use std::fmt;

use vfio_fsm_core::device::{Device, Memory, Planted};
use vfio_fsm_core::{Fd, Features, Op, Reply, State};

use crate::world::Actor;

/// A run that breaks a property, as its devices see it.
#[derive(Clone, Debug)]
pub struct Counterexample {
    /// Which property.
    pub property: &'static str,
    /// The flags of the devices.
    pub features: Features,
    /// How long a whole image of these devices is: what is written is one, or a piece of one.
    pub image: usize,
    /// What was done, in order. Of a bug in a device the last step shows it; of a slip of a VMM, all
    /// together.
    pub steps: Vec<CounterStep>,
}

/// One step of a counterexample.
#[derive(Clone, Debug)]
pub struct CounterStep {
    /// To which device, counted from 0.
    pub device: u8,
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

/// What a model's devices are asked, one step after the other.
#[derive(Debug)]
pub(crate) struct Recorder<const N: usize> {
    features: Features,
    /// Not renumbered, so that the fds are called what a process would call them.
    checked: [Device<Memory<N>, 2>; 2],
    correct: [Device<Memory<N>, 2>; 2],
    steps: Vec<CounterStep>,
}

impl<const N: usize> Recorder<N> {
    pub(crate) fn new(features: Features, planted: Planted) -> Self {
        Self {
            features,
            checked: [Device::with_bug(features, Memory::new(), planted); 2],
            correct: [Device::new(features, Memory::new()); 2],
            steps: Vec::new(),
        }
    }

    pub(crate) fn ask(&mut self, device: u8, actor: Actor, op: Op<&'static [u8]>) {
        let (mut buf, mut other) = ([0; 4], [0; 4]);
        let index = usize::from(device);
        self.steps.push(CounterStep {
            device,
            actor,
            op,
            seen: self.checked[index].apply(op, &mut buf).map(<[u8]>::to_vec),
            correct: self.correct[index].apply(op, &mut other).map(<[u8]>::to_vec),
            at: self.checked[index].fsm().state(),
        });
    }

    /// The open data_fd of the first device that a model which numbers them from 1 calls by this
    /// number.
    pub(crate) fn nth_open(&self, fd: Fd) -> Fd {
        let mut open: Vec<Fd> = self.checked[0].fds().open().map(|open| open.fd).collect();
        open.sort_unstable();
        open.get(fd.0 as usize - 1).copied().unwrap_or(fd)
    }

    pub(crate) fn finish(self, property: &'static str) -> Counterexample {
        let image = Memory::<N>::RECORD;
        Counterexample { property, features: self.features, image, steps: self.steps }
    }
}

impl fmt::Display for CounterStep {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let actor = match self.actor {
            Actor::Vmm => "VMM",
            Actor::Guest => "guest",
            Actor::Host => "host",
        };
        write!(f, "{actor:<5} {} => {}", self.op, self.seen)?;
        if self.seen != self.correct {
            write!(f, "   (correct: {})", self.correct)?;
        }
        write!(f, "   [{}]", self.at)
    }
}
