// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! Ways to get the locking wrong, to show that the exploration finds them. Outside of this crate's
//! own unit tests there is none, at no cost.

use crate::command::Commands;

use super::Mlx5Device;

/// One of them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Slip {
    /// A reset that finds the state lock taken goes away without leaving its note.
    LosesReset,
    /// Who lets the state lock go looks for a note first, and then lets go: in two steps.
    LooksThenLetsGo,
    /// A reset waits for the state lock before it resets the function.
    ResetWaits,
    /// A read waits for its SAVE with the state lock held.
    ReadsUnderLock,
    /// The function is not reset again for commands that outlast the reset.
    ResetsOnce,
    /// What fails because a reset has overtaken it is not done again.
    ShowsResets,
}

impl<C: Commands, F> Mlx5Device<C, F> {
    #[cfg(test)]
    pub(super) fn slips(&self, slip: Slip) -> bool {
        self.slip == Some(slip)
    }

    #[cfg(not(test))]
    #[expect(clippy::unused_self, reason = "the device that is tested has one")]
    pub(super) const fn slips(&self, _slip: Slip) -> bool {
        false
    }
}
