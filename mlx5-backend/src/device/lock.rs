// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! The state lock and the gate: the one way in, and the one way out.

use vfio_fsm_core::device::{Arrival, ResetGate, Unlock};
use vfio_fsm_core::{Errno, Op};

use crate::command::Commands;
use crate::sync::MutexGuard;

use super::slip::Slip;
use super::{Function, Guarded, Mlx5Device};

/// What the gate's lock guards.
#[derive(Default)]
pub(super) struct Gate {
    pub(super) note: ResetGate,
    /// Resets of the function that have begun, and of which no note has been left yet.
    under_way: u32,
}

/// Behind so many resets an op is tried again, so that nobody can keep it for ever.
const MOST_RESETS: u32 = 16;

impl<C: Commands, F: Function> Mlx5Device<C, F> {
    /// Does this under the state lock, and then whatever reset has come meanwhile.
    pub(super) fn with<R>(&self, act: impl FnOnce(&mut Guarded<C>) -> R) -> R {
        let mut guarded = self.state.lock();
        let changes = guarded.device.actions().changes();
        let result = act(&mut guarded);
        let changed = guarded.device.actions().changes() != changes;
        self.release(guarded, changed);
        result
    }

    /// Does this under the state lock, and once more behind each reset that has overtaken it: if a
    /// command failed, that may be for no other reason than that the function was reset (M140).
    pub(super) fn behind_resets<R>(&self, mut act: impl FnMut(&mut Guarded<C>) -> R) -> R {
        self.with(|guarded| {
            let changes = guarded.device.actions().changes();
            for _ in 0..MOST_RESETS {
                let failures = guarded.device.actions().failures();
                let result = act(guarded);
                let failed = guarded.device.actions().failures() != failures;
                if !failed || !self.was_overtaken() {
                    return result;
                }
                guarded.in_doubt |= guarded.device.actions().changes() != changes;
                self.carry_out_reset(guarded);
            }
            act(guarded)
        })
    }

    /// Whether a reset has come since the state lock was taken; it is then the caller's to carry
    /// out. Waits for one that is under way, and that waits for nobody.
    fn was_overtaken(&self) -> bool {
        if self.slips(Slip::ShowsResets) {
            return false;
        }
        let mut gate = self.gate.lock();
        while gate.under_way > 0 && !gate.note.is_waiting() {
            self.reset_ended.wait(&mut gate);
        }
        gate.note.unlock(|| {}) == Unlock::ResetFirst
    }

    /// Resets the function, and has whoever holds the state lock do the rest. Waits for nobody (C30).
    pub(super) fn reset_and_tell(&self) -> Result<(), Errno> {
        self.gate.lock().under_way += 1;
        let reset = self.function.reset();
        let mut guarded = None;
        if self.slips(Slip::LosesReset) {
            guarded = self.state.try_lock();
        }
        let mut gate = self.gate.lock();
        gate.under_way -= 1;
        self.reset_ended.notify_all();
        reset?;
        if self.slips(Slip::LosesReset) && guarded.is_none() {
            return Ok(());
        }
        let arrival = gate.note.arrive(|| {
            guarded = guarded.take().or_else(|| self.state.try_lock());
            guarded.is_some()
        });
        drop(gate);
        if let (Arrival::Locked, Some(guarded)) = (arrival, guarded) {
            self.release(guarded, false);
        }
        Ok(())
    }

    /// The same by who holds the state lock himself.
    pub(super) fn reset_and_note(&self) -> Result<(), Errno> {
        self.function.reset()?;
        let deferred = self.gate.lock().note.arrive(|| false);
        debug_assert_eq!(deferred, Arrival::Deferred);
        Ok(())
    }

    /// `changed`: the holder has sent commands that change the VHCA.
    fn release(&self, mut guarded: MutexGuard<'_, Guarded<C>>, changed: bool) {
        guarded.in_doubt |= changed;
        let mut guarded = Some(guarded);
        while self.unlock(&mut guarded) == Unlock::ResetFirst {
            if let Some(guarded) = &mut guarded {
                self.carry_out_reset(guarded);
            }
        }
    }

    fn unlock(&self, guarded: &mut Option<MutexGuard<'_, Guarded<C>>>) -> Unlock {
        let mut gate = self.gate.lock();
        if self.slips(Slip::LooksThenLetsGo) {
            let seen = gate.note.unlock(|| {});
            drop(gate);
            if seen == Unlock::Released {
                *guarded = None;
            }
            return seen;
        }
        let Gate { note, under_way } = &mut *gate;
        note.unlock(|| {
            // A reset that begins from here on finds every command done.
            if let Some(mut guarded) = guarded.take() {
                guarded.in_doubt &= *under_way > 0;
            }
        })
    }

    fn carry_out_reset(&self, guarded: &mut Guarded<C>) {
        // A command of ours may have reached the firmware behind the reset (M72).
        if std::mem::take(&mut guarded.in_doubt) && !self.slips(Slip::ResetsOnce) {
            guarded.owes_reset = self.function.reset().is_err();
        }
        guarded.device.apply(Op::Reset, &mut []);
    }
}
