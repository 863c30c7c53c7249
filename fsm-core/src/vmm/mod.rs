// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! The VMM's side of a migration.

pub mod frame;
