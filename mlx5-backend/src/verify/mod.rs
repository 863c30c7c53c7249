// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! Checks of [`layout`](crate::layout) against what the kernel's own macros do.
//!
//! * [`golden`]: rows of sizes, offsets and encoded values, and a check of each.
//! * [`headers`]: such rows made anew from a kernel's header.

pub mod golden;
pub mod headers;
