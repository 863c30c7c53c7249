// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! The arcs as firmware commands, on a firmware that does what the test says.

mod commands;
mod double;
mod sessions;
mod undo;
