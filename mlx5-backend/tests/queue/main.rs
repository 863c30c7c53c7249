// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! The command queue and the bring-up against a firmware that does what the test says.

mod bring_up;
mod commands;
mod dma;
mod encoding;
mod fake;
mod pages;
mod waiting;
