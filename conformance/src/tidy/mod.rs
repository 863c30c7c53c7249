// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! What the tool leaves of itself on a machine, however it ends: SIGKILL included, nothing.
//!
//! [`Family`] and [`tie`] are programs that end with this process. [`write_whole`] is a file that is
//! there in full or not at all. [`Scratch`] is a directory that the next run removes, if this one
//! could not.

mod child;
mod scratch;
mod whole;

pub use child::{Family, tie};
pub use scratch::Scratch;
pub use whole::write_whole;
