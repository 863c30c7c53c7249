// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! The program that replays the traces in the guest: statically linked, so that the initramfs
//! needs no library of anyone's.

use std::fs;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};
use std::sync::atomic::AtomicBool;

use object::elf::{FileHeader64, PT_INTERP};
use object::read::elf::{FileHeader, ProgramHeader};
use object::{Endianness, elf};

use super::cache::Cache;
use super::error::{Error, file};
use super::host;

/// Named outright, because flags for the host also reach procedural macros, which cannot be
/// linked statically.
const TARGET: &str = "x86_64-unknown-linux-gnu";

/// Finds or builds the replayer: what the user names, else this program if it is static, else
/// one built from the source this program was built from.
pub(super) fn obtain(
    named: Option<&Path>,
    cache: &Cache,
    cancel: &AtomicBool,
) -> Result<PathBuf, Error> {
    if let Some(path) = named {
        check(path)?;
        return Ok(path.to_owned());
    }
    if let Ok(own) = std::env::current_exe()
        && is_replayer(&own)
        && check(&own).is_ok()
    {
        return Ok(own);
    }
    let member = Path::new(env!("CARGO_MANIFEST_DIR"));
    // The workspace, or, of a package from a registry, the package alone.
    let workspace = member.parent().filter(|parent| parent.join("Cargo.toml").exists());
    let source_tree = workspace.unwrap_or(member);
    if !member.join("Cargo.toml").exists() {
        return Err(Error::NoReplayer { source_tree: source_tree.to_owned() });
    }
    let target_dir = cache.dir("replayer-target");
    give_to(source_tree, &target_dir)?;
    build(source_tree, &target_dir, cancel)
}

/// Empties a target directory in which another tree was built. Cargo knows a package by its place
/// in the tree, and what it has to build by the files' ages: of a checkout that is older than
/// what was built from another one it would build nothing, and take that.
fn give_to(source_tree: &Path, target_dir: &Path) -> Result<(), Error> {
    let mark = target_dir.join("source-tree");
    let tree = source_tree.as_os_str().as_encoded_bytes();
    if fs::read(&mark).is_ok_and(|of| of == tree) {
        return Ok(());
    }
    match fs::remove_dir_all(target_dir) {
        Err(error) if error.kind() != ErrorKind::NotFound => {
            return Err(file("empty", target_dir)(error));
        }
        _ => {}
    }
    fs::create_dir_all(target_dir).map_err(file("create", target_dir))?;
    fs::write(&mark, tree).map_err(file("write", &mark))
}

/// A static test program or embedder of the library is not a replayer.
fn is_replayer(program: &Path) -> bool {
    program.file_stem().is_some_and(|name| name == "vfio-conform")
}

fn build(source_tree: &Path, target_dir: &Path, cancel: &AtomicBool) -> Result<PathBuf, Error> {
    // The cargo that runs us knows the toolchain; without one, the PATH's.
    let program = std::env::var("CARGO").unwrap_or_else(|_| "cargo".into());
    if program == "cargo" {
        host::check([("cargo", "cargo")])?;
    }
    let mut cargo = host::command(&program);
    cargo.current_dir(source_tree).args(["build", "--release", "--no-default-features"]);
    cargo.args(["--package", "vfio-conform", "--bin", "vfio-conform", "--target", TARGET]);
    if source_tree.join("Cargo.lock").exists() {
        // The lab must not change the tree it was built from.
        cargo.arg("--locked");
    }
    cargo.arg("--target-dir").arg(target_dir).env("RUSTFLAGS", "-C target-feature=+crt-static");
    for inherited in ["CARGO_ENCODED_RUSTFLAGS", "CARGO_BUILD_TARGET", "MAKEFLAGS"] {
        cargo.env_remove(inherited);
    }
    let said = host::run(cargo, cancel)?;
    if !said.status.success() {
        return Err(Error::ReplayerBuild {
            source_tree: source_tree.to_owned(),
            said: said.tail(),
        });
    }
    let built = target_dir.join(TARGET).join("release/vfio-conform");
    check(&built)?;
    Ok(built)
}

/// Checks that the guest can run this program.
pub(super) fn check(path: &Path) -> Result<(), Error> {
    let bytes = fs::read(path).map_err(file("read", path))?;
    let why = |why| Error::NotStatic { path: path.to_owned(), why };
    static_program(&bytes).map_err(why)
}

/// Whether these bytes are an x86-64 program that needs no dynamic loader.
fn static_program(bytes: &[u8]) -> Result<(), &'static str> {
    let header =
        FileHeader64::<Endianness>::parse(bytes).map_err(|_| "it is no 64-bit ELF file")?;
    let endian = header.endian().map_err(|_| "it is of no known byte order")?;
    if header.e_machine(endian) != elf::EM_X86_64 {
        return Err("it is for another processor than the guest's (x86-64)");
    }
    if header.e_entry(endian) == 0 {
        return Err("it is no program but a library or an object");
    }
    let segments = header.program_headers(endian, bytes).map_err(|_| "its headers are damaged")?;
    if segments.iter().any(|segment| segment.p_type(endian) == PT_INTERP) {
        return Err("it is dynamically linked and the guest has no libraries");
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// An ELF header for `machine`, and one program header of `kind`.
    fn program(machine: u16, entry: u64, kind: u32) -> Vec<u8> {
        let mut bytes = vec![0; 64 + 56];
        bytes[..16].copy_from_slice(b"\x7fELF\x02\x01\x01\0\0\0\0\0\0\0\0\0");
        bytes[16..18].copy_from_slice(&2u16.to_le_bytes());
        bytes[18..20].copy_from_slice(&machine.to_le_bytes());
        bytes[20..24].copy_from_slice(&1u32.to_le_bytes());
        bytes[24..32].copy_from_slice(&entry.to_le_bytes());
        bytes[32..40].copy_from_slice(&64u64.to_le_bytes());
        bytes[52..58].copy_from_slice(&[64, 0, 56, 0, 1, 0]);
        bytes[64..68].copy_from_slice(&kind.to_le_bytes());
        bytes
    }

    #[test]
    fn only_a_static_program_for_the_guest_passes() {
        assert_eq!(static_program(&program(elf::EM_X86_64, 1, elf::PT_LOAD)), Ok(()));
        let dynamic = static_program(&program(elf::EM_X86_64, 1, PT_INTERP));
        assert!(dynamic.expect_err("has a loader").contains("dynamically"));
        let foreign = static_program(&program(elf::EM_AARCH64, 1, elf::PT_LOAD));
        assert!(foreign.expect_err("other machine").contains("processor"));
        let library = static_program(&program(elf::EM_X86_64, 0, elf::PT_LOAD));
        assert!(library.expect_err("no entry").contains("library"));
        assert!(static_program(b"#!/bin/sh\n").is_err());
        assert!(static_program(&program(elf::EM_X86_64, 1, elf::PT_LOAD)[..100]).is_err());
    }

    #[test]
    fn what_another_tree_built_is_not_taken() {
        let target = tempfile::tempdir().expect("a directory for it");
        let target = target.path().join("target");
        let built = target.join("built");
        for (tree, stays) in [("/one", false), ("/one", true), ("/two", false), ("/one", false)] {
            give_to(Path::new(tree), &target).expect("it can be written to");
            assert_eq!(built.exists(), stays, "{tree}");
            fs::write(&built, tree).expect("it can be written to");
        }
    }

    #[test]
    fn this_dynamic_test_program_is_told_apart() {
        let own = std::env::current_exe().expect("this test runs from a file");
        let dynamic = !cfg!(target_feature = "crt-static");
        assert_eq!(check(&own).is_err(), dynamic);
        assert!(!is_replayer(&own));
    }
}
