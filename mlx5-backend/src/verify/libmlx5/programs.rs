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

        let shim = compile_shim(cc, out)?;
        let client_c = write(out, "client.c", CLIENT_C)?;
        let client = client_c.with_extension("");
        let mut compile = Command::new(cc);
        compile.arg("-O2").arg("-I").arg(include).arg("-o").arg(&client).arg(client_c);
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

/// The shim, next to the header that the clients need.
pub(super) fn compile_shim(cc: &str, out: &Path) -> Result<PathBuf, VerifyError> {
    fs::create_dir_all(out).map_err(|source| VerifyError::File { path: out.into(), source })?;
    write(out, "host.h", HOST_H)?;
    let source = write(out, "shim.c", SHIM_C)?;
    let shim = source.with_extension("so");
    let mut compile = Command::new(cc);
    compile.args(["-O2", "-fPIC", "-shared", "-o"]).arg(&shim).arg(source);
    run(compile)?;
    Ok(shim)
}

/// Writes a source. Where it is, whatever directory is the current one.
pub(super) fn write(out: &Path, name: &str, text: &str) -> Result<PathBuf, VerifyError> {
    let path = absolute(&out.to_owned()).join(name);
    match fs::write(&path, text) {
        Ok(()) => Ok(path),
        Err(source) => Err(VerifyError::File { path, source }),
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
