// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! What must hold of two machines.

use vfio_fsm_core::State;
use vfio_fsm_core::vmm::Guest;

use super::device::Hardware;
use super::world::{Here, There, World, initiates};
use super::{Action, Move, System};
use crate::property::{Property, Rule, rules};
use crate::session::Trouble;
use crate::session::around::{Member, Session};

/// One step, to be judged.
#[derive(Debug)]
pub(crate) struct Step<'a, const N: usize> {
    pub(super) system: &'a System<N>,
    pub(super) before: &'a World<N>,
    pub(super) action: Action,
    pub(super) after: &'a World<N>,
}

/// What a rule says of a step; `None` if it has nothing to say.
pub(crate) type Judgement<const N: usize> = fn(&Step<'_, N>) -> Option<bool>;

/// Of the whole graph, and not of a step: see [`super::Ends`].
pub(crate) const EVERY_RUN_ENDS: Property = Property {
    id: "system-every-run-ends",
    covers: &["V10"],
    text: "when nothing more goes wrong, every run comes to its end: no component that nothing else \
           leaves is without one, given that a VMM which may decide for the switchover again and \
           again does so once",
};

impl<const N: usize> System<N> {
    pub(crate) const RULES: &'static [Rule<Judgement<N>>] = rules! {
        "system-one-session" ["V6" "R28" "R11"]
            "a destination starts with the bytes of one data_fd of each device, to their end, and \
             with nothing else"
            |step| step.starts().then(|| step.after.wires.iter().all(|wire| {
                wire.came.ended && wire.came.from.is_some() && !wire.came.mixed
            }));
        "system-as-it-stopped" ["V6" "R37" "R18"]
            "each device that a destination starts has what its source had when it stopped"
            |step| step.starts().then(|| (0..N).all(|index| {
                let registers = step.after.destination[index].device.actions().registers();
                step.after.lives[index].stopped_with == Some(registers)
            }));
        "system-nothing-lost" ["V6" "R22"]
            "each device that a destination starts has what its source has now, unless a host has \
             reset that since it stopped"
            |step| step.starts().then(|| (0..N).all(|index| {
                let registers = step.after.destination[index].device.actions().registers();
                let now = step.after.source[index].device.actions().registers();
                registers == now || step.after.lives[index].reset_since_stop
            }));
        "system-never-torn" ["V4" "R22"]
            "no device is loaded with an image that mixes what was before and what came after"
            |step| step.loads().map(|index| {
                !step.after.destination[index].device.actions().is_torn()
            });
        "system-quiet" ["V11" "R21"]
            "no device that is in STOP, STOP_COPY or RESUMING can be reached by DMA of another of its \
             VM, at either end"
            |step| {
                let here = is_quiet(&step.after.source);
                here.into_iter().chain(is_quiet(&step.after.destination)).reduce(|a, b| a && b)
            };
        "system-frozen" ["V4" "V11" "R22"]
            "while a device is in STOP or STOP_COPY at the source, the guest is held back; while one \
             is in STOP or RESUMING at the destination, it does not run there"
            |step| {
                let here = step.after.source.iter().any(Member::is_stopped);
                let there = step.after.destination.iter().any(Member::is_stopped);
                let held = step.after.halted || step.after.source.iter().all(|member| {
                    member.is_stuck() || !member.is_stopped()
                });
                let started = step.after.there == There::Started;
                (here || there).then_some((!here || held) && !(there && started))
            };
        "system-one-guest" ["V12"]
            "the guest never runs at both ends"
            |step| {
                let started = step.after.there == There::Started;
                (started || !step.after.halted).then_some(!started || step.after.halted)
            };
        "system-hands-over-first" ["V12"]
            "a destination starts only when every saver is complete and the source has handed over"
            |step| step.starts().then(|| {
                let complete = |member: &Member<_, _>| {
                    member.verdict().is_some_and(|verdict| verdict.is_complete())
                };
                step.before.here == Here::HandedOver && step.after.source.iter().all(complete)
            });
        "system-source-goes-on" ["V13" "V7" "V11"]
            "when all savers have ended without a migration, the guest runs on at the source, and \
             each of its devices is in RUNNING or said to be stuck"
            |step| step.fails_here().then(|| {
                let source = &step.after.source;
                let home = |member: &Member<_, _>| member.is_stuck() || member.is_in(State::Running);
                let all_stuck = source.iter().all(Member::is_stuck);
                source.iter().all(home) && (!step.after.halted || all_stuck)
            });
        "system-loss-is-said" ["V13" "V7"]
            "a device that is blank then, and was reset by neither guest nor host, is said to be lost"
            |step| step.fails_here().then(|| (0..N).all(|index| {
                let member = &step.after.source[index];
                let lost = member.device.actions().is_blank() && !step.after.lives[index].reset;
                !lost || member.verdict().is_some_and(|it| it.guest() == Guest::LostByUs)
            }));
        "system-loud" ["V13" "V10"]
            "a migration that fails at one end is complete at neither: no session says that it is"
            |step| {
                let complete = |verdict: Option<vfio_fsm_core::vmm::Verdict>| {
                    verdict.is_some_and(|verdict| verdict.is_complete())
                };
                if step.fails_here() {
                    Some(!step.after.source.iter().any(|member| complete(member.verdict())))
                } else if step.fails_there() {
                    Some(!step.after.destination.iter().any(|member| complete(member.verdict())))
                } else {
                    None
                }
            };
        "system-blank-again" ["V8" "R15"]
            "a destination that has failed has each device in RUNNING and blank, or says that it is \
             stuck"
            |step| step.fails_there().then(|| step.after.destination.iter().all(|member| {
                let blank = member.is_in(State::Running) && member.device.actions().is_blank();
                member.is_stuck() || blank
            }));
        "system-goes-on" ["V10"]
            "as long as it is not over at both ends, one of them can go on"
            |step| {
                let mut actions = Vec::new();
                step.system.offer(step.after, &mut actions);
                Some(step.system.is_over(step.after) || actions.into_iter().any(is_progress))
            };
    };
}

/// Whether an action is one of those that lead on, and nothing that goes wrong.
pub(super) const fn is_progress(action: Action) -> bool {
    match action {
        Action::Source(_, step) | Action::Destination(_, step) => {
            matches!(step, Move::Go(Trouble::None) | Move::Choose(_) | Move::Switchover)
                || matches!(step, Move::Tick | Move::Take)
        }
        Action::ResetDone(_) | Action::HandOver | Action::Start => true,
        Action::HearFailure | Action::HearGivenUp => true,
        _ => false,
    }
}

/// Of one end at which a device is stopped: whether no other can start DMA.
fn is_quiet<S: Session, const N: usize>(members: &[Member<S, Hardware>; N]) -> Option<bool> {
    let starters = members.iter().filter(|member| initiates(member)).count();
    // One that is stuck has been given up, and is to be unplugged.
    let stopped = members.iter().any(|member| member.is_stopped() && !member.is_stuck());
    (stopped && N > 1).then_some(starters == 0)
}

impl<const N: usize> Step<'_, N> {
    fn starts(&self) -> bool {
        self.before.there != There::Started && self.after.there == There::Started
    }

    fn fails_here(&self) -> bool {
        self.before.here != Here::Failed && self.after.here == Here::Failed
    }

    fn fails_there(&self) -> bool {
        self.before.there != There::Failed && self.after.there == There::Failed
    }

    /// Which device has just left RESUMING by a SET, and so was loaded.
    fn loads(&self) -> Option<usize> {
        let Action::Destination(index, Move::Go(_)) = self.action else { return None };
        let left = self.before.destination[index].is_in(State::Resuming);
        let after = &self.after.destination[index];
        let loaded = after.is_in(State::RunningP2p) || after.is_in(State::Running);
        (left && loaded && !after.device.actions().is_blank()).then_some(index)
    }
}
