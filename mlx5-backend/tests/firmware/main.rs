// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! The software firmware, through registers and memory alone.
#![expect(clippy::unwrap_used, reason = "a helper that fails, fails its test")]

mod assumptions;
mod bring_up;
mod chunks;
mod driver;
mod faults;
mod hostile;
mod migration;
mod objects;
mod threaded;
mod tracker;
mod transport;
