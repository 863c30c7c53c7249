// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! The driver as a program: built once for all tests.

use std::path::PathBuf;
use std::sync::LazyLock;

use vfio_fsm_mlx5::verify::driver::{Build, Built};

/// The top of the kernel's sources.
pub(crate) fn source() -> PathBuf {
    let source = std::env::var_os("LINUX_SOURCE");
    source.expect("LINUX_SOURCE is to be the top of the kernel's sources").into()
}

/// Where this kind of program is built.
pub(crate) fn place(name: &str) -> PathBuf {
    PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join("driver").join(name)
}

/// As it ships, under the sanitizers.
pub(crate) static SHIPPING: LazyLock<Built> = LazyLock::new(|| {
    Build::new(&source()).sanitized().build(&place("shipping")).expect("it builds")
});

/// The same without them, where the commands are what matters.
pub(crate) static QUICK: LazyLock<Built> =
    LazyLock::new(|| Build::new(&source()).build(&place("quick")).expect("it builds"));
