// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! What suites can be run on.

mod kernel;
mod reference;

pub use kernel::{KernelTarget, KernelTargetError};
pub(crate) use reference::MemoryDevice;
pub use reference::{Reference, SharedReference};
