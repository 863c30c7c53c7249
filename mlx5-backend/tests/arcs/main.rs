// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! The arcs as firmware commands, on a firmware that does what the test says.
#![expect(clippy::panic, clippy::unwrap_used, reason = "helpers of tests fail the test")]

mod commands;
mod device;
mod double;
mod sessions;
mod undo;
