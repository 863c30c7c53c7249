// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! The shim and the client, compiled against the packages.

use std::ffi::OsString;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use super::super::headers::{VerifyError, run};

/// Debian packages whose contents are needed, unpacked into one directory. The last two are there
/// in most systems.
pub const PACKAGES: [&str; 5] =
    ["ibverbs-providers", "libibverbs1", "libibverbs-dev", "libnl-3-200", "libnl-route-3-200"];

const HOST_H: &str = include_str!("../../../verify/libmlx5/host.h");
const SHIM_C: &str = include_str!("../../../verify/libmlx5/shim.c");
const CLIENT_C: &str = include_str!("../../../verify/libmlx5/client.c");

/// What is compiled, and what it runs with.
#[derive(Clone, Debug)]
pub struct Programs {
    pub(super) shim: PathBuf,
    pub(super) client: PathBuf,
    /// The packages' libraries.
    pub(super) library_path: OsString,
    /// libmlx5 itself, with its whole version.
    pub(super) library: PathBuf,
}

impl Programs {
    /// Compiles shim and client with the compiler `cc` into the directory `out`.
    ///
    /// `packages` is where [`PACKAGES`] are unpacked.
    ///
    /// # Errors
    ///
    /// [`VerifyError`]: something of the packages is not there, or the compiler is not.
    pub fn compile(packages: &Path, cc: &str, out: &Path) -> Result<Self, VerifyError> {
        let missing = |what: &str| VerifyError::NoPackages {
            place: packages.into(),
            missing: what.to_owned(),
            packages: PACKAGES.join(" "),
        };
        let include = packages.join("usr/include");
        if !include.join("infiniband/mlx5dv.h").is_file() {
            return Err(missing("usr/include/infiniband/mlx5dv.h"));
        }
        let directories = [libraries(&packages.join("usr/lib")), libraries(&packages.join("lib"))];
        let directories = directories.concat();
        let find = |name: &str| {
            let paths = directories.iter().map(|directory| directory.join(name));
            let whole = paths.filter_map(|path| fs::canonicalize(path).ok()).next();
            whole.ok_or_else(|| missing(&format!("usr/lib/*/{name}")))
        };
        let library = find("libmlx5.so.1")?;
        let verbs = find("libibverbs.so.1")?;
        let library_path = std::env::join_paths(directories.iter().map(absolute))
            .map_err(|_| missing("a directory whose name has no colon in it"))?;

        for (name, text) in [("host.h", HOST_H), ("shim.c", SHIM_C), ("client.c", CLIENT_C)] {
            let path = out.join(name);
            let written = fs::create_dir_all(out).and_then(|()| fs::write(&path, text));
            written.map_err(|source| VerifyError::File { path, source })?;
        }
        let out = absolute(&out.to_owned());
        let shim = out.join("shim.so");
        let mut compile = Command::new(cc);
        compile.args(["-O2", "-fPIC", "-shared", "-o"]).arg(&shim).arg(out.join("shim.c"));
        run(compile)?;
        let client = out.join("client");
        let mut compile = Command::new(cc);
        compile.arg("-O2").arg("-I").arg(include).arg("-o").arg(&client).arg(out.join("client.c"));
        // What libibverbs itself needs is found when the client runs.
        compile.arg(&library).arg(verbs).args(["-Wl,--allow-shlib-undefined", "-ldl"]);
        run(compile)?;
        Ok(Self { shim, client, library_path, library })
    }

    /// The libmlx5 that is checked with, with its whole version.
    pub fn library(&self) -> &Path {
        &self.library
    }
}

fn absolute(path: &PathBuf) -> PathBuf {
    fs::canonicalize(path).unwrap_or_else(|_| path.clone())
}

/// The directories of one architecture below a directory for libraries.
fn libraries(below: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(below).into_iter().flatten().flatten();
    entries.map(|entry| entry.path()).filter(|path| path.is_dir()).collect()
}
