// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! Checks against what others wrote. Nothing of theirs is in this repository: it comes from a
//! distribution's packages when a check runs.
//!
//! * [`golden`]: [`layout`](crate::layout) against rows of sizes, offsets and encoded values.
//! * [`headers`]: such rows made anew from a kernel's header.
//! * [`driver`]: the shipping kernel driver, run in user space.
//! * [`libmlx5`]: the firmware in software, driven by a distribution's libmlx5.

pub mod driver;
pub mod golden;
pub mod headers;
pub mod libmlx5;
