// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! Sessions over devices in memory: streams that fail, event loops, and groups.
#![expect(clippy::unwrap_used, clippy::panic, reason = "a helper of a test fails as the test does")]

mod group;
mod memory;
mod stream;
#[cfg(feature = "tracing")]
mod traced;
