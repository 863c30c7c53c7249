// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! The driver as a program: built once for all tests.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::LazyLock;

use vfio_fsm_mlx5::verify::driver::{Build, Built, CHECKS};

/// The top of the kernel's sources.
pub(crate) fn source() -> PathBuf {
    let source = std::env::var_os("LINUX_SOURCE");
    source.expect("LINUX_SOURCE is to be the top of the kernel's sources").into()
}

/// Where this kind of program is built: a place of this process's own, since each test may run in a
/// process of its own.
pub(crate) fn place(name: &str) -> PathBuf {
    PLACES.join(format!("{name}-{}", std::process::id()))
}

/// All such places, those of processes that are gone being swept away.
static PLACES: LazyLock<PathBuf> = LazyLock::new(|| {
    let places = PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join("driver");
    for entry in fs::read_dir(&places).into_iter().flatten().flatten() {
        let name = entry.file_name();
        let of = name.to_str().and_then(|name| name.rsplit_once('-')).map_or("", |(_, of)| of);
        if !Path::new("/proc").join(of).exists() || of.is_empty() {
            // Another process may be sweeping, too.
            let _ = fs::remove_dir_all(entry.path());
        }
    }
    places
});

/// As it ships, under the sanitizers.
pub(crate) static SHIPPING: LazyLock<Built> = LazyLock::new(|| {
    Build::new(&source()).sanitized().build(&place("shipping")).expect("it builds")
});

/// The same without them, where the commands are what matters.
pub(crate) static QUICK: LazyLock<Built> =
    LazyLock::new(|| Build::new(&source()).build(&place("quick")).expect("it builds"));

/// One of the checks, which is to pass. What it has done.
pub(crate) fn check(name: &str, built: &Built) -> String {
    let check = CHECKS.iter().find(|check| check.name == name).expect("a check of this name");
    check.run(built).unwrap_or_else(|error| panic!("{}: {error}", check.what))
}
