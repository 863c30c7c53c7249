// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! How a reset reaches a device whose state lock is held.
//!
//! A reset handler must not wait for the state lock: the kernel calls it under locks that are taken
//! inside the state lock elsewhere, so waiting could close a cycle. So it leaves a note, and
//! whoever holds the lock carries the reset out before letting go.
//!
//! ```text
//! reset arrives --> lock free? -- yes --> take it ------------+
//!                       |                                     v
//!                       no                       unlock: note left? -- yes --> reset, ask again
//!                       v                                     |
//!                  leave a note                               no --> released
//! ```
//!
//! Nothing is lost because the question "is a note left?" and the release are one step: a driver
//! keeps this value under a spin lock of its own and calls one method under it at a time (T6).

/// The state lock and the note of a reset that found it taken.
///
/// ```
/// use std::sync::Mutex;
/// use vfio_fsm_core::device::{Arrival, ResetGate, Unlock};
///
/// // In a driver: the state under a sleeping lock, this under a spin lock.
/// let gate = Mutex::new(ResetGate::new());
/// let lock_gate = || gate.lock().unwrap();
///
/// // SET has the state lock, and is at work on an arc, when the guest resets the device.
/// assert!(lock_gate().try_lock());
/// assert_eq!(lock_gate().arrive(), Arrival::Deferred); // and the reset handler returns
///
/// // SET is done. Every exit of every operation goes through this loop.
/// let mut resets = 0;
/// while lock_gate().unlock() == Unlock::ResetFirst {
///     resets += 1; // DeviceFsm::reset(), with the spin lock free and the state lock held
/// }
/// assert_eq!(resets, 1);
/// ```
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct ResetGate {
    held: bool,
    deferred: bool,
}

/// What a reset found.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[must_use]
pub enum Arrival {
    /// The lock was free and is now held: call [`ResetGate::unlock`], which asks for the reset.
    Locked,
    /// The holder will do it: return at once.
    Deferred,
}

/// What an unlock came to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[must_use]
pub enum Unlock {
    /// Still held: carry out the reset, then unlock again.
    ResetFirst,
    /// Released.
    Released,
}

impl ResetGate {
    /// Free, and no reset waiting.
    pub const fn new() -> Self {
        Self { held: false, deferred: false }
    }

    /// Take the lock for an ordinary operation; false if it is held.
    #[must_use]
    pub const fn try_lock(&mut self) -> bool {
        let free = !self.held;
        self.held = true;
        free
    }

    /// A reset arrives. Never waits.
    pub const fn arrive(&mut self) -> Arrival {
        self.deferred = true;
        if self.try_lock() { Arrival::Locked } else { Arrival::Deferred }
    }

    /// Let go of the lock, unless a reset is waiting.
    pub const fn unlock(&mut self) -> Unlock {
        if self.deferred {
            self.deferred = false;
            return Unlock::ResetFirst;
        }
        self.held = false;
        Unlock::Released
    }

    /// Whether somebody holds the lock.
    pub const fn is_held(&self) -> bool {
        self.held
    }
}
