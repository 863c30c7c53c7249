// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! A real VMM for the guest: QEMU from a Debian package, with the libraries and firmware that it needs.
//!
//! Always of the same suite, whatever the host's: the host's may be too old to migrate devices, and
//! what is said of a VMM is said of a version.

use std::collections::BTreeMap;
use std::collections::btree_map::Entry;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::atomic::AtomicBool;

use object::elf::FileHeader64;
use object::read::elf::{Dyn, FileHeader};
use object::{Endianness, elf};

use super::cache::{self, Cache};
use super::error::{Error, file};
use super::packages::{self, Apt, Package};
use crate::observe::{self, Recorder};

/// Where the package comes from.
const SUITE: &str = "trixie";

/// The package, and the program in it.
const PACKAGE: &str = "qemu-system-x86";
const PROGRAM: &str = "usr/bin/qemu-system-x86_64";

/// What a machine without a display and with no network card asks for.
const FIRMWARE: [&str; 2] = ["bios-256k.bin", "kvmvapic.bin"];

/// Where the packages have firmware.
const FIRMWARE_DIRS: [&str; 2] = ["usr/share/seabios", "usr/share/qemu"];

/// Where they have libraries.
const LIBRARY_DIRS: [&str; 4] =
    ["usr/lib/x86_64-linux-gnu", "lib/x86_64-linux-gnu", "usr/lib64", "lib64"];

/// How the names of all cache entries begin; the number changes with what an entry holds.
const ENTRY: &str = "qemu-1-";

/// The name of the file in an entry that has the package's version.
const VERSION: &str = "version";

/// What stands between a VMM and libc, from its source.
const ANNOUNCE_RESET: &str = include_str!("announce_reset.c");

/// Where the parts are in the guest. The loader looks for libraries there without being told.
pub(super) const GUEST_DIR: &str = "vmm";
const GUEST_LIBRARIES: &str = "lib/x86_64-linux-gnu";
const GUEST_LOADER: &str = "lib64";

/// A VMM that is ready for the guest.
#[derive(Debug)]
pub(super) struct Qemu {
    /// The package's version.
    pub(super) version: String,
    /// Files, by where they are in the guest.
    pub(super) files: Vec<(String, PathBuf)>,
}

impl Qemu {
    /// From the cache if the newest one is there, else downloaded; with the recorder, compiled into
    /// `scratch`.
    pub(super) fn obtain(
        cache: &Cache,
        scratch: &Path,
        cancel: &AtomicBool,
    ) -> Result<Self, Error> {
        let entry = entry(cache, cancel)?;
        let mut qemu = Self::open(&entry)?;
        let recorder = scratch.join("recorder.so");
        Recorder::compile(&recorder)?;
        let announce_reset = scratch.join("announce-reset.so");
        observe::compile(ANNOUNCE_RESET, &announce_reset)?;
        for path in [recorder, announce_reset] {
            let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
            qemu.files.push((format!("{GUEST_DIR}/{name}"), path));
        }
        Ok(qemu)
    }

    fn open(entry: &Path) -> Result<Self, Error> {
        let version = entry.join(VERSION);
        let version = fs::read_to_string(&version).map_err(file("read", &version))?;
        let all = fs::read_dir(entry).map_err(file("list", entry))?;
        let named = all.flatten().filter_map(|file| {
            let name = file.file_name().into_string().ok()?;
            (name != VERSION).then(|| (in_guest(&name), file.path()))
        });
        let mut files: Vec<_> = named.collect();
        files.sort_unstable();
        Ok(Self { version: version.trim().to_owned(), files })
    }
}

/// Where a file of an entry belongs.
fn in_guest(name: &str) -> String {
    let dir = match name {
        _ if name.starts_with("ld-linux") => GUEST_LOADER,
        _ if name.contains(".so") => GUEST_LIBRARIES,
        _ => GUEST_DIR,
    };
    format!("{dir}/{name}")
}

fn entry(cache: &Cache, cancel: &AtomicBool) -> Result<PathBuf, Error> {
    let mut apt = Apt::of_suite(cache.dir(&format!("apt-{SUITE}")), SUITE, cancel)?;
    let package = match (apt.newest(PACKAGE), cache.newest(ENTRY)) {
        (Ok(package), _) => package,
        // Without lists, say without a network, the one that we have will do.
        (Err(Error::NoPackage { .. } | Error::Lists { .. }), Some(entry)) => return Ok(entry),
        (Err(error), _) => return Err(error),
    };
    let name = cache::entry_name(ENTRY, &package.version);
    if let Some(entry) = cache.get(&name) {
        return Ok(entry);
    }
    let scratch = cache.scratch("qemu")?;
    let debs = apt.fetch_with_dependencies(&package, &scratch.path().join("debs"))?;
    let root = scratch.path().join("root");
    for deb in debs {
        packages::unpack(&deb, &root, cancel)?;
    }
    cache.put(&name, |entry| fill(&root, &package, entry))
}

/// Takes what is needed out of the unpacked packages.
fn fill(root: &Path, package: &Package, entry: &Path) -> Result<(), Error> {
    let missing = |name: &str| Error::NotInVmm { package: package.exact(), file: name.to_owned() };
    let take = |from: &Path, name: &str| {
        fs::copy(from, entry.join(name)).map(drop).map_err(file("copy", from))
    };
    let find = |dirs: &[&str], name: &str| {
        let mut places = dirs.iter().map(|dir| root.join(dir).join(name));
        places.find(|place| place.exists())
    };
    let program = root.join(PROGRAM);
    let mut needed: BTreeMap<String, PathBuf> = BTreeMap::new();
    let mut unread = vec![program.clone()];
    while let Some(path) = unread.pop() {
        let bytes = fs::read(&path).map_err(file("read", &path))?;
        for name in needs(&bytes) {
            if let Entry::Vacant(unknown) = needed.entry(name) {
                let name = unknown.key();
                let library = find(&LIBRARY_DIRS, name).ok_or_else(|| missing(name))?;
                unread.push(library.clone());
                unknown.insert(library);
            }
        }
    }
    take(&program, program.file_name().and_then(|name| name.to_str()).unwrap_or(PACKAGE))?;
    for (name, library) in &needed {
        take(library, name)?;
    }
    for name in FIRMWARE {
        take(&find(&FIRMWARE_DIRS, name).ok_or_else(|| missing(name))?, name)?;
    }
    let version = entry.join(VERSION);
    fs::write(&version, &package.version).map_err(file("write", &version))
}

/// The libraries that a program or library says it needs, its loader among them.
fn needs(bytes: &[u8]) -> Vec<String> {
    read_needs(bytes).unwrap_or_default()
}

fn read_needs(bytes: &[u8]) -> object::Result<Vec<String>> {
    let header = FileHeader64::<Endianness>::parse(bytes)?;
    let endian = header.endian()?;
    let sections = header.sections(endian, bytes)?;
    let Some((entries, strings)) = sections.dynamic(endian, bytes)? else {
        return Ok(Vec::new());
    };
    let strings = sections.strings(endian, bytes, strings)?;
    let needed = entries.iter().filter(|entry| entry.tag32(endian) == Some(elf::DT_NEEDED));
    needed.map(|entry| Ok(String::from_utf8_lossy(entry.string(endian, strings)?).into())).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_part_is_where_the_guest_looks_for_it() {
        assert_eq!(in_guest("libc.so.6"), "lib/x86_64-linux-gnu/libc.so.6");
        assert_eq!(in_guest("ld-linux-x86-64.so.2"), "lib64/ld-linux-x86-64.so.2");
        assert_eq!(in_guest("qemu-system-x86_64"), "vmm/qemu-system-x86_64");
        assert_eq!(in_guest("bios-256k.bin"), "vmm/bios-256k.bin");
    }

    #[test]
    fn this_dynamic_test_program_needs_libc() {
        let own = std::env::current_exe().expect("this test runs from a file");
        let found = needs(&fs::read(own).expect("reads"));
        assert_eq!(
            found.iter().any(|name| name == "libc.so.6"),
            !cfg!(target_feature = "crt-static")
        );
        assert!(needs(b"no program at all").is_empty());
    }
}
