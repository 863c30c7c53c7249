// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! The page tracker on the firmware in software.
#![expect(clippy::expect_used, clippy::unwrap_used, reason = "helpers of tests fail the test")]

mod errors;
mod golden;
mod oracle;
mod rig;
mod undo;
