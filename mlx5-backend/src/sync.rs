// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! The one kind of lock that [`vhca`](crate::vhca) and [`device`](crate::device) take.
//!
//! It is parking_lot's. In this crate's own unit tests it is loom's, which tries every order in
//! which threads can get at it: so what is explored there is the code that ships, line by line.
//! Everything else that is tested with these modules therefore stands in `tests/`.

#[cfg(not(test))]
pub(crate) use parking_lot::{Mutex, MutexGuard};

#[cfg(test)]
pub(crate) use explored::{Mutex, MutexGuard};

#[cfg(test)]
mod explored {
    pub(crate) use loom::sync::MutexGuard;

    /// loom's mutex with parking_lot's interface: there is no poison.
    pub(crate) struct Mutex<T>(loom::sync::Mutex<T>);

    impl<T> Mutex<T> {
        pub(crate) fn new(value: T) -> Self {
            Self(loom::sync::Mutex::new(value))
        }

        pub(crate) fn lock(&self) -> MutexGuard<'_, T> {
            self.0.lock().unwrap()
        }

        pub(crate) fn try_lock(&self) -> Option<MutexGuard<'_, T>> {
            self.0.try_lock().ok()
        }
    }
}
