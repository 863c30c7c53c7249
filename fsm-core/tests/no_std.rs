// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! The core needs neither std nor alloc: a program that has neither is built around it, and run.
//!
//! See `freestanding/`. Where the toolchain has a bare target, `.ci/run` builds it for that too.

// The program is linked and started the way Linux does it.
#![cfg(target_os = "linux")]

use std::io;
use std::path::{Path, PathBuf};
use std::process::Command;

/// Builds the program, and says where it is.
fn build(features: &str, profile: &str) -> io::Result<PathBuf> {
    let package = Path::new(env!("CARGO_MANIFEST_DIR")).join("freestanding");
    let target = Path::new(env!("CARGO_TARGET_TMPDIR")).join("no-std");
    let mut cargo = Command::new(env!("CARGO"));
    // Offline: the crates of the workspace and no others, which cargo fetched on the way here.
    cargo.args(["build", "--quiet", "--offline", "--locked"]);
    cargo.args(["--profile", profile, "--features", features]);
    cargo.arg("--manifest-path").arg(package.join("Cargo.toml"));
    cargo.arg("--target-dir").arg(&target);
    // What this test is built with is meant for a program with std.
    for name in ["RUSTFLAGS", "CARGO_ENCODED_RUSTFLAGS", "CARGO_BUILD_TARGET"] {
        cargo.env_remove(name);
    }
    let built = cargo.output()?;
    let errors = String::from_utf8_lossy(&built.stderr);
    assert!(
        built.status.success(),
        "without std and alloc, features {features:?}, profile {profile}:\n{errors}"
    );
    let directory = if profile == "dev" { "debug" } else { profile };
    Ok(target.join(directory).join("vfio-fsm-freestanding"))
}

// Both profiles: unoptimised, nothing is left out that the linker would have complained about;
// optimised, the compiler may call functions that the source does not name. One test, because
// each build replaces the program of the one before.
#[test]
fn core_builds_and_runs_without_std_and_alloc() -> io::Result<()> {
    for profile in ["dev", "release"] {
        for features in ["", "serde"] {
            let program = build(features, profile)?;
            // Elsewhere it would not know how to end.
            if cfg!(target_arch = "x86_64") {
                let ran = Command::new(&program).status()?;
                assert_eq!(
                    ran.code(),
                    Some(0),
                    "features {features:?}, profile {profile}: the status is the number of the \
                     check in freestanding/src/checks.rs that failed, 101 a panic"
                );
            }
        }
    }
    Ok(())
}

/// The program, and the library for C, are built from the versions that the workspace is built from.
#[test]
fn lock_files_agree() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let packages = |path: &str| -> Vec<(String, String)> {
        let text = std::fs::read_to_string(root.join(path)).expect("the lock file can be read");
        let lock: toml::Table = text.parse().expect("a lock file is TOML");
        let packages = lock["package"].as_array().expect("an array").clone();
        let field = |package: &toml::Value, name: &str| {
            package[name].as_str().expect("a string").to_owned()
        };
        packages.iter().map(|package| (field(package, "name"), field(package, "version"))).collect()
    };
    let ours = packages("../Cargo.lock");
    for path in ["c/Cargo.lock", "freestanding/Cargo.lock"] {
        for package in packages(path) {
            let itself = ["vfio-fsm-c", "vfio-fsm-freestanding"].contains(&package.0.as_str());
            assert!(
                itself || ours.contains(&package),
                "{package:?} of {path} is not in the workspace's lock file"
            );
        }
    }
}
