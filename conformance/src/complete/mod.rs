// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! Suites with a guarantee, over any finite machine: tours, complete suites, and how sharp they are.

mod hsi;
pub mod learn;
mod machine;
pub mod power;
pub mod tour;

pub use hsi::{Complete, Size};
pub use machine::{Alike, Machine, Node, Output, Separators, Symbol};
