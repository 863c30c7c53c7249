// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! Checks against what others wrote. Nothing of theirs is in this repository: it comes from the
//! distribution's packages when a check runs.

pub mod driver;
mod error;

pub use error::VerifyError;
