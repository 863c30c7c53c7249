// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! The shipping Linux driver, run in user space.
//!
//! These tests need a C compiler and the kernel's sources as the distribution ships them (on Debian
//! the package linux-source-6.12, of which `needed()` says what has to be unpacked), so they are
//! ignored unless asked for:
//!
//! ```text
//! LINUX_SOURCE=…/linux-source-6.12 cargo test -p vfio-fsm-mlx5 --features verify \
//!     --test driver -- --ignored
//! ```
#![expect(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "these are tests")]

mod arcs;
mod exchange;
mod findings;
mod mended;
mod paths;
mod program;
mod tracker;
