// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! The one kind of lock that [`vhca`](crate::vhca) and [`device`](crate::device) take.
//!
//! It is parking_lot's. In this crate's own unit tests it is loom's, which tries every order in
//! which threads can get at it: so what is explored there is the code that ships, line by line.
//! Everything else that is tested with these modules therefore stands in `tests/`.

#[cfg(not(test))]
pub(crate) use parking_lot::{Condvar, Mutex, MutexGuard};

#[cfg(test)]
pub(crate) use explored::{Condvar, Mutex, MutexGuard};

#[cfg(test)]
mod explored {
    use std::ops::{Deref, DerefMut};

    /// parking_lot's interface over loom's.
    ///
    /// Not loom's own mutex: its `try_lock` waits while another thread has the lock, so that the
    /// one thing that a reset is about would never be seen.
    pub(crate) struct Mutex<T> {
        taken: loom::sync::Mutex<bool>,
        free: loom::sync::Condvar,
        /// Never waited for: `taken` comes first.
        value: std::sync::Mutex<T>,
    }

    pub(crate) struct MutexGuard<'a, T> {
        value: Option<std::sync::MutexGuard<'a, T>>,
        mutex: &'a Mutex<T>,
    }

    impl<T> Mutex<T> {
        pub(crate) fn new(value: T) -> Self {
            let (taken, free) = (loom::sync::Mutex::new(false), loom::sync::Condvar::new());
            Self { taken, free, value: std::sync::Mutex::new(value) }
        }

        pub(crate) fn lock(&self) -> MutexGuard<'_, T> {
            let mut taken = self.taken.lock().unwrap();
            while *taken {
                taken = self.free.wait(taken).unwrap();
            }
            *taken = true;
            self.guard()
        }

        pub(crate) fn try_lock(&self) -> Option<MutexGuard<'_, T>> {
            let mut taken = self.taken.lock().unwrap();
            (!std::mem::replace(&mut *taken, true)).then(|| self.guard())
        }

        fn guard(&self) -> MutexGuard<'_, T> {
            MutexGuard { value: Some(self.value()), mutex: self }
        }

        fn value(&self) -> std::sync::MutexGuard<'_, T> {
            self.value.try_lock().unwrap_or_else(|_| panic!("two have the lock"))
        }
    }

    /// parking_lot's interface over loom's.
    #[derive(Default)]
    pub(crate) struct Condvar(loom::sync::Condvar);

    impl Condvar {
        pub(crate) fn wait<T>(&self, guard: &mut MutexGuard<'_, T>) {
            let mutex = guard.mutex;
            guard.value = None;
            let mut taken = mutex.taken.lock().unwrap();
            *taken = false;
            mutex.free.notify_one();
            taken = self.0.wait(taken).unwrap();
            while *taken {
                taken = mutex.free.wait(taken).unwrap();
            }
            *taken = true;
            drop(taken);
            guard.value = Some(mutex.value());
        }

        pub(crate) fn notify_all(&self) {
            self.0.notify_all();
        }
    }

    impl<T> Deref for MutexGuard<'_, T> {
        type Target = T;

        fn deref(&self) -> &T {
            self.value.as_ref().unwrap()
        }
    }

    impl<T> DerefMut for MutexGuard<'_, T> {
        fn deref_mut(&mut self) -> &mut T {
            self.value.as_mut().unwrap()
        }
    }

    impl<T> Drop for MutexGuard<'_, T> {
        fn drop(&mut self) {
            self.value = None;
            // Poisoned only while a test fails already.
            if let Ok(mut taken) = self.mutex.taken.lock() {
                *taken = false;
                self.mutex.free.notify_one();
            }
        }
    }
}
