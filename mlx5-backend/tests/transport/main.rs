// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! Which way commands go: found in a tree like sysfs, and a device over each.
#![expect(
    clippy::panic,
    clippy::expect_used,
    clippy::unwrap_used,
    reason = "helpers of tests fail the test"
)]

/// The kernel backend's own: the kernel's part, played by the core's device.
#[expect(dead_code, reason = "its own tests use the rest")]
mod double;
mod find;
mod front;
mod tree;
