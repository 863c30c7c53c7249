// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! The command queue and the bring-up against a firmware that does what the test says.
#![expect(
    clippy::unwrap_used,
    clippy::expect_used,
    reason = "a helper of a test fails as the test does"
)]

mod bring_up;
mod commands;
mod dma;
mod encoding;
mod fake;
mod pages;
mod waiting;
