// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! Everything there is at one moment, at both ends and between.

use vfio_fsm_core::device::Device;
use vfio_fsm_core::vmm::{Event, Group, LoadPlan, Loader, Plan, Saver, Wait};
use vfio_fsm_core::{Direction, Fd, Op, State};

use super::device::{Hardware, PROGRAMMED, REGISTERS};
use super::slip::{StreamSlip, Wrong};
use super::stream::Wire;
use super::{Left, Setting};
use crate::session::around::{Member, Said, Session};

pub(super) type Source = Member<Saver<Fd>, Hardware>;
pub(super) type Target = Member<Loader<Fd>, Hardware>;

/// Both ends, and `N` streams.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) struct World<const N: usize> {
    pub(super) source: [Source; N],
    pub(super) from: Group,
    pub(super) here: Here,
    /// The guest at the source is held back.
    pub(super) halted: bool,
    pub(super) lives: [Life; N],
    pub(super) wires: [Wire; N],
    pub(super) destination: [Target; N],
    pub(super) to: Group,
    pub(super) there: There,
    pub(super) left: Left,
}

/// How far the VMM at the source is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) enum Here {
    Working,
    /// It has told the destination to go on, and does not go on itself unless that has failed.
    HandedOver,
    /// All sessions have ended, and none is complete.
    Failed,
}

/// How far the VMM at the destination is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) enum There {
    Working,
    /// The guest runs there.
    Started,
    /// All sessions have ended, and none is complete.
    Failed,
}

/// What happened to a device at both ends that its sessions cannot know. But for `resetting` it is
/// all ghost.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub(super) struct Life {
    /// Source: the hardware has been reset, and the driver does not know yet.
    pub(super) resetting: bool,
    /// Source: the guest or the host has reset it.
    pub(super) reset: bool,
    /// Source: the host has, since it stopped.
    pub(super) reset_since_stop: bool,
    /// Source: what it had when it last stopped to be copied.
    pub(super) stopped_with: Option<[u8; REGISTERS]>,
    /// Destination: the session has asked for the last time whether it is still in RESUMING.
    pub(super) looked: bool,
}

impl<const N: usize> World<N> {
    pub(super) fn new(setting: &Setting, wrong: Option<Wrong>) -> Self {
        let features = setting.features;
        let group = N > 1;
        let phases = group && wrong != Some(Wrong::Stream(StreamSlip::SkipsP2p));
        let plan =
            Plan { restarts: setting.restarts, chunk: setting.chunk, group: phases, ..Plan::LIVE };
        let blank = Device::new(features, Hardware::new(setting.how));
        let mut programmed = blank;
        let _reply = programmed.apply(Op::Touch(PROGRAMMED), &mut []);
        let order = |direction| {
            let group = Group::new(direction, &[features; N], true);
            // Features without P2P are not asked for here.
            group.unwrap_or_else(|refused| unreachable!("{refused}"))
        };
        Self {
            source: [Member::new(Saver::new(plan), programmed); N],
            from: order(Direction::Saving),
            here: Here::Working,
            halted: false,
            lives: [Life::default(); N],
            wires: [Wire::default(); N],
            destination: [Member::new(Loader::new(LoadPlan { group }), blank); N],
            to: order(Direction::Resuming),
            there: There::Working,
            left: setting.left,
        }
    }

    /// Of an end at which nothing more happens nothing is kept but how it went: it has been judged.
    pub(super) fn forget(&mut self, start: &Self, over: bool) {
        if over {
            *self = Self { here: self.here, there: self.there, ..*start };
            return;
        }
        if self.here == Here::Failed {
            (self.source, self.from, self.halted) = (start.source, start.from, start.halted);
            for life in &mut self.lives {
                *life = Life { looked: life.looked, ..Life::default() };
            }
        }
        if self.there == There::Failed {
            (self.destination, self.to) = (start.destination, start.to);
            for (life, wire) in self.lives.iter_mut().zip(&mut self.wires) {
                life.looked = false;
                *wire = Wire { read: wire.read, from: wire.from, ..Wire::default() };
            }
        }
    }

    /// Whether all loaders are loaded and wait to start.
    pub(super) fn is_loaded(&self) -> bool {
        let waits = |member: &Target| member.session.said() == Said::Wait(Wait::Run);
        self.there == There::Working && self.destination.iter().all(waits)
    }

    pub(super) fn are_complete(&self) -> bool {
        let complete = |member: &Source| {
            member.verdict().is_some_and(|verdict| verdict.is_complete()) && member.ended
        };
        !self.from.is_broken() && self.source.iter().all(complete)
    }

    /// Whether the device can start DMA to others: its state lets it, and somebody has programmed
    /// it since it was reset.
    pub(super) fn starts_dma(&self, index: usize) -> bool {
        initiates(&self.source[index])
    }

    pub(super) fn run(&mut self) {
        for member in &mut self.destination {
            let _refused = member.session.event(Event::Run);
        }
    }
}

pub(super) fn initiates<S: Session>(member: &Member<S, Hardware>) -> bool {
    let state = member.device.fsm().state();
    let runs = matches!(state, State::Running | State::PreCopy);
    runs && !member.device.actions().is_blank()
}
