// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! A kernel ready to boot: its image, the driver built for it, the modules that driver needs.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::sync::atomic::AtomicBool;

use object::{Object, ObjectSection};

use super::cache;
use super::error::{Error, file};
use super::host;
use super::packages::{self, Selection};

/// The driver under test, in the kernel's own samples.
const DRIVER_SOURCE: &str = "samples/vfio-mdev/mtty.c";

/// What must be loaded; the group path needs the IOMMU driver, which no module depends on.
const ROOTS: [&str; 4] = ["vfio", "vfio_iommu_type1", "mdev", "mtty"];

/// Names of the files in a cache entry.
const IMAGE: &str = "vmlinuz";
const BUSYBOX: &str = "busybox";
const RELEASE: &str = "release";
const LOAD_ORDER: &str = "load-order";

/// A kernel in the cache.
#[derive(Debug, Clone)]
pub(super) struct Kernel {
    pub(super) release: String,
    pub(super) image: PathBuf,
    pub(super) busybox: PathBuf,
    /// The modules, each after those it depends on.
    pub(super) modules: Vec<PathBuf>,
}

impl Kernel {
    /// Reads a cache entry written by [`prepare`].
    pub(super) fn open(entry: &Path) -> Result<Self, Error> {
        let read = |name: &str| {
            let path = entry.join(name);
            fs::read_to_string(&path).map_err(file("read", &path))
        };
        Ok(Self {
            release: read(RELEASE)?.trim().to_owned(),
            image: entry.join(IMAGE),
            busybox: entry.join(BUSYBOX),
            modules: read(LOAD_ORDER)?.lines().map(|name| entry.join(name)).collect(),
        })
    }
}

/// The name of a selection's cache entry; the number changes with what an entry holds.
pub(super) fn entry_name(version: &str) -> String {
    cache::entry_name(ENTRY, version)
}

/// How the names of all such entries begin.
pub(super) const ENTRY: &str = "kernel-1-";

/// Fills `entry` from the downloaded packages, working in `scratch`.
pub(super) fn prepare(
    selection: &Selection,
    debs: &[PathBuf],
    scratch: &Path,
    entry: &Path,
    cancel: &AtomicBool,
) -> Result<(), Error> {
    for deb in debs {
        packages::unpack(deb, scratch, cancel)?;
    }
    let image = scratch.join(format!("boot/vmlinuz-{}", selection.release));
    take(&image, &entry.join(IMAGE), &selection.image.name)?;
    let busybox = ["bin/busybox", "usr/bin/busybox"].map(|name| scratch.join(name));
    let busybox = busybox.iter().find(|path| path.exists()).unwrap_or(&busybox[0]);
    take(busybox, &entry.join(BUSYBOX), &selection.busybox.name)?;
    let source = packages::source_files(scratch, &selection.source, &[DRIVER_SOURCE], cancel)?;
    let driver = source.join(DRIVER_SOURCE);
    let built = build(selection, scratch, &driver, cancel)?;
    let order = collect_modules(selection, scratch, &built, entry, cancel)?;
    write(&entry.join(LOAD_ORDER), &order.join("\n"))?;
    write(&entry.join(RELEASE), &selection.release)
}

fn take(from: &Path, to: &Path, package: &str) -> Result<(), Error> {
    if !from.exists() {
        let name = from.file_name().unwrap_or_default().to_string_lossy().into_owned();
        return Err(Error::NotInPackage { package: package.to_owned(), file: name });
    }
    fs::copy(from, to).map(drop).map_err(file("copy", from))
}

fn write(path: &Path, text: &str) -> Result<(), Error> {
    fs::write(path, text).map_err(file("write", path))
}

/// Builds the driver out of tree against the headers unpacked below `root`.
fn build(
    selection: &Selection,
    root: &Path,
    driver: &Path,
    cancel: &AtomicBool,
) -> Result<PathBuf, Error> {
    let headers = root.join(format!("usr/src/linux-headers-{}", selection.release));
    relocate(&headers.join("Makefile"), root)?;
    let work = root.join("driver");
    fs::create_dir(&work).map_err(file("create", &work))?;
    fs::copy(driver, work.join("mtty.c")).map_err(file("copy", driver))?;
    write(&work.join("Kbuild"), "obj-m := mtty.o\n")?;
    let mut make = host::command("make");
    // A make above us would hand down its flags and its job server.
    make.env_remove("MAKEFLAGS").env_remove("MFLAGS").env_remove("MAKELEVEL").env("LC_ALL", "C");
    make.arg("-C").arg(&headers).arg(format!("M={}", work.display()));
    // Type information for the module would need pahole, and nothing here reads it.
    make.args(["CONFIG_DEBUG_INFO_BTF_MODULES=", "modules"]);
    let said = host::run(make, cancel)?;
    let built = work.join("mtty.ko");
    if said.status.success() && built.exists() {
        return Ok(built);
    }
    Err(Error::Module {
        release: selection.release.clone(),
        compiler: selection.compiler.clone(),
        said: said.tail(),
    })
}

/// The headers' makefile names the place the package would have been installed at.
fn relocate(makefile: &Path, root: &Path) -> Result<(), Error> {
    let text = fs::read_to_string(makefile).map_err(file("read", makefile))?;
    write(makefile, &text.replace("/usr/src/", &format!("{}/usr/src/", root.display())))
}

/// Puts the driver and all it depends on into `entry`, and returns the order to load them in.
fn collect_modules(
    selection: &Selection,
    root: &Path,
    driver: &Path,
    entry: &Path,
    cancel: &AtomicBool,
) -> Result<Vec<String>, Error> {
    let shipped = shipped_modules(root);
    let mut needs: BTreeMap<String, Vec<String>> = BTreeMap::new();
    let mut wanted: Vec<String> = ROOTS.map(str::to_owned).to_vec();
    while let Some(name) = wanted.pop() {
        if needs.contains_key(&name) {
            continue;
        }
        let target = entry.join(format!("{name}.ko"));
        match shipped.get(&name) {
            _ if name == "mtty" => {
                fs::copy(driver, &target).map(drop).map_err(file("copy", driver))
            }
            Some(path) => decompress(path, &target, cancel),
            None => Err(Error::NotInPackage {
                package: selection.image.name.clone(),
                file: format!("{name}.ko"),
            }),
        }?;
        let bytes = fs::read(&target).map_err(file("read", &target))?;
        let depends = depends(&bytes);
        wanted.extend(depends.iter().cloned());
        needs.insert(name, depends);
    }
    Ok(load_order(&ROOTS, &needs).into_iter().map(|name| format!("{name}.ko")).collect())
}

/// All modules of the image package by name; `-` and `_` are the same to the kernel.
fn shipped_modules(root: &Path) -> BTreeMap<String, PathBuf> {
    let mut found = BTreeMap::new();
    let mut dirs = vec![root.join("lib/modules"), root.join("usr/lib/modules")];
    while let Some(dir) = dirs.pop() {
        for entry in fs::read_dir(dir).into_iter().flatten().flatten() {
            // Not following links: the headers' `build` leads out of the tree.
            match entry.file_type() {
                Ok(kind) if kind.is_dir() => dirs.push(entry.path()),
                Ok(kind) if kind.is_file() => {
                    let file_name = entry.file_name().to_string_lossy().into_owned();
                    if let Some((name, "" | ".xz")) = file_name.split_once(".ko") {
                        found.insert(name.replace('-', "_"), entry.path());
                    }
                }
                _ => {}
            }
        }
    }
    found
}

fn decompress(from: &Path, to: &Path, cancel: &AtomicBool) -> Result<(), Error> {
    if from.extension().is_none_or(|extension| extension != "xz") {
        return fs::copy(from, to).map(drop).map_err(file("copy", from));
    }
    let mut xz = host::command("xz");
    xz.arg("-dc").arg(from);
    let output = File::create(to).map_err(file("create", to))?;
    if host::run_into(xz, output, cancel)? {
        return Ok(());
    }
    Err(Error::Unpack { package: from.to_owned(), said: "xz could not decompress it".into() })
}

/// What a module says it depends on. `depmod` would gather this into modules.dep, which the
/// package does not ship.
fn depends(module: &[u8]) -> Vec<String> {
    let Ok(elf) = object::File::parse(module) else { return Vec::new() };
    let info = elf.section_by_name(".modinfo");
    let info = info.and_then(|section| section.data().ok()).unwrap_or_default();
    info.split(|byte| *byte == 0)
        .filter_map(|field| field.strip_prefix(b"depends="))
        .flat_map(|list| list.split(|byte| *byte == b','))
        .filter(|name| !name.is_empty())
        .map(|name| String::from_utf8_lossy(name).replace('-', "_"))
        .collect()
}

/// `roots` and what they need, each after what it needs.
fn load_order(roots: &[&str], needs: &BTreeMap<String, Vec<String>>) -> Vec<String> {
    fn visit(
        name: &str,
        needs: &BTreeMap<String, Vec<String>>,
        seen: &mut BTreeSet<String>,
        order: &mut Vec<String>,
    ) {
        if seen.insert(name.to_owned()) {
            for need in needs.get(name).into_iter().flatten() {
                visit(need, needs, seen, order);
            }
            order.push(name.to_owned());
        }
    }
    let (mut seen, mut order) = (BTreeSet::new(), Vec::new());
    for root in roots {
        visit(root, needs, &mut seen, &mut order);
    }
    order
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn modules_are_loaded_after_what_they_need() {
        let needs = BTreeMap::from([
            ("mtty".to_owned(), vec!["mdev".to_owned(), "vfio".to_owned()]),
            ("mdev".to_owned(), vec!["bus".to_owned()]),
            ("vfio".to_owned(), vec![]),
        ]);
        assert_eq!(load_order(&["mtty", "vfio"], &needs), ["bus", "mdev", "vfio", "mtty"]);
    }

    #[test]
    fn an_entry_name_is_one_path_component_that_make_can_read() {
        assert_eq!(entry_name("6.12.117-1~deb12u1"), "kernel-1-6.12.117-1_deb12u1");
        assert_eq!(entry_name("1:6/../x"), "kernel-1-1_6_.._x");
    }

    #[test]
    fn dependencies_are_read_from_the_module_itself() {
        let module = elf_with_modinfo(b"license=GPL\0depends=mdev,vfio-pci\0name=mtty\0");
        assert_eq!(depends(&module), ["mdev", "vfio_pci"]);
        assert!(depends(&elf_with_modinfo(b"license=GPL\0depends=\0")).is_empty());
        assert!(depends(b"no module at all").is_empty());
    }

    /// The least ELF that has a `.modinfo`: header, its bytes, names, three section headers.
    fn elf_with_modinfo(info: &[u8]) -> Vec<u8> {
        let names = b"\0.modinfo\0.shstrtab\0";
        let info_at = 64;
        let names_at = info_at + info.len();
        let sections_at = (names_at + names.len()).next_multiple_of(8);
        let mut elf = vec![0; 64];
        elf[..16].copy_from_slice(b"\x7fELF\x02\x01\x01\0\0\0\0\0\0\0\0\0");
        elf[16..24].copy_from_slice(&[1, 0, 62, 0, 1, 0, 0, 0]); // relocatable, x86-64
        elf[40..48].copy_from_slice(&(sections_at as u64).to_le_bytes());
        elf[52..64].copy_from_slice(&[64, 0, 0, 0, 0, 0, 64, 0, 3, 0, 2, 0]);
        elf.extend_from_slice(info);
        elf.extend_from_slice(names);
        elf.resize(sections_at + 64, 0);
        for (name, kind, at, len) in [(1u32, 1u32, info_at, info.len()), (10, 3, names_at, 20)] {
            let mut header = [0; 64];
            header[..4].copy_from_slice(&name.to_le_bytes());
            header[4..8].copy_from_slice(&kind.to_le_bytes());
            header[24..32].copy_from_slice(&(at as u64).to_le_bytes());
            header[32..40].copy_from_slice(&(len as u64).to_le_bytes());
            elf.extend_from_slice(&header);
        }
        elf
    }
}
