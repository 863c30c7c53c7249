// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! The program that is tested: cargo's, or the one that `VFIO_CONFORM_PROGRAM` names, such as one that
//! was built with optimisation while the tests were not.

use std::ffi::OsString;
use std::path::PathBuf;

pub(crate) fn program() -> PathBuf {
    let cargos = || OsString::from(env!("CARGO_BIN_EXE_vfio-conform"));
    std::env::var_os("VFIO_CONFORM_PROGRAM").unwrap_or_else(cargos).into()
}
