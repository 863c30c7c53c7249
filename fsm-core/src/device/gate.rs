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
//! Nothing is lost because leaving the note and trying the lock are one step, and so are looking for
//! a note and letting go of the lock: a driver keeps this value under a spin lock of its own, and
//! calls one method under it at a time (T6).

/// The note of a reset that found the state lock taken.
///
/// ```
/// use std::sync::Mutex;
/// use vfio_fsm_core::device::{Arrival, ResetGate, Unlock};
///
/// // In a driver: the state under a sleeping lock, this under a spin lock.
/// let state = Mutex::new(0);
/// let gate = Mutex::new(ResetGate::new());
///
/// // SET has the state lock, and is at work on an arc, when the guest resets the device.
/// let guard = state.lock().unwrap();
/// let arrival = gate.lock().unwrap().arrive(|| state.try_lock().is_ok());
/// assert_eq!(arrival, Arrival::Deferred); // and the reset handler returns
///
/// // SET is done. Every exit of every operation goes through this loop.
/// let mut guard = Some(guard);
/// while gate.lock().unwrap().unlock(|| drop(guard.take())) == Unlock::ResetFirst {
///     // DeviceFsm::reset(), with the spin lock free and the state lock held
///     **guard.as_mut().unwrap() += 1;
/// }
/// assert_eq!(*state.lock().unwrap(), 1);
/// ```
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct ResetGate {
    deferred: bool,
}

/// What a reset found.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[must_use]
pub enum Arrival {
    /// The lock was free and is now held: go on as an unlock does, which asks for the reset.
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
    /// No reset waiting.
    pub const fn new() -> Self {
        Self { deferred: false }
    }

    /// A reset arrives; `try_lock` takes the state lock if it is free. Never waits (C30).
    pub fn arrive(&mut self, try_lock: impl FnOnce() -> bool) -> Arrival {
        self.deferred = true;
        if try_lock() { Arrival::Locked } else { Arrival::Deferred }
    }

    /// `release` the state lock, unless a reset is waiting.
    pub fn unlock(&mut self, release: impl FnOnce()) -> Unlock {
        if self.deferred {
            self.deferred = false;
            return Unlock::ResetFirst;
        }
        release();
        Unlock::Released
    }

    /// Whether a reset is waiting for the holder of the lock.
    pub const fn is_waiting(&self) -> bool {
        self.deferred
    }
}
