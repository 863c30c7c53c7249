// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! The state lock and the gate: the one way in, and the one way out.

use vfio_fsm_core::Op;
use vfio_fsm_core::device::{Arrival, Unlock};

use crate::command::Commands;
use crate::sync::MutexGuard;

use super::slip::Slip;
use super::{Function, Guarded, Mlx5Device};

impl<C: Commands, F: Function> Mlx5Device<C, F> {
    /// Does this under the state lock, and then whatever reset has come meanwhile.
    pub(super) fn with<R>(&self, act: impl FnOnce(&mut Guarded<C>) -> R) -> R {
        let mut guarded = self.state.lock();
        let changes = guarded.device.actions().changes();
        let result = act(&mut guarded);
        self.release(guarded, changes);
        result
    }

    /// The function has been reset, and nobody is waited for: whoever holds the state lock does the
    /// rest (C30).
    pub(super) fn deliver_reset(&self) {
        let mut guarded = None;
        if self.slips(Slip::LosesReset) {
            guarded = self.state.try_lock();
            if guarded.is_none() {
                return;
            }
        }
        let arrival = self.gate.lock().arrive(|| {
            guarded = guarded.take().or_else(|| self.state.try_lock());
            guarded.is_some()
        });
        if let (Arrival::Locked, Some(guarded)) = (arrival, guarded) {
            let changes = guarded.device.actions().changes();
            self.release(guarded, changes);
        }
    }

    /// The same by who holds the state lock himself.
    pub(super) fn leave_note(&self) {
        let deferred = self.gate.lock().arrive(|| false);
        debug_assert_eq!(deferred, Arrival::Deferred);
    }

    fn release(&self, guarded: MutexGuard<'_, Guarded<C>>, changes: u64) {
        let mut guarded = Some(guarded);
        while self.unlock(&mut guarded) == Unlock::ResetFirst {
            if let Some(guarded) = &mut guarded {
                self.carry_out_reset(guarded, changes);
            }
        }
    }

    fn unlock(&self, guarded: &mut Option<MutexGuard<'_, Guarded<C>>>) -> Unlock {
        if self.slips(Slip::LooksThenLetsGo) {
            let seen = self.gate.lock().unlock(|| {});
            if seen == Unlock::Released {
                *guarded = None;
            }
            return seen;
        }
        self.gate.lock().unlock(|| *guarded = None)
    }

    fn carry_out_reset(&self, guarded: &mut Guarded<C>, changes: u64) {
        // A command of ours may have reached the firmware behind the reset (M72).
        if guarded.device.actions().changes() != changes && !self.slips(Slip::ResetsOnce) {
            guarded.owes_reset = self.function.reset().is_err();
        }
        guarded.device.apply(Op::Reset, &mut []);
    }
}
