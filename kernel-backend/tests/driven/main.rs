// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! `KernelDevice` and `DevicePort` driven without a kernel: see [`double`] for what answers instead.
#![expect(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "a helper of a test fails as the test does"
)]

#[cfg(feature = "abuse")]
mod abuse;
mod double;
mod odd;
mod open;
mod ops;
mod same;
mod session;
