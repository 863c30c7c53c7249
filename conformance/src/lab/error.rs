// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! Why the lab could not do its work.
//!
//! None of these is a verdict: a driver that misbehaves is an [`super::Incident`]. Each message
//! says what was asked, what was seen, and what to do next, because the reader is someone whose
//! machine lacks something.

use std::io;
use std::path::{Path, PathBuf};

use super::host::MissingTool;

/// A part of the lab that is missing or did not work.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The machine is not one whose Debian kernel packages could run here.
    #[error(
        "the lab builds and boots an amd64 kernel, this machine is {seen}: run it on an x86-64 \
         Debian, or in a container of one"
    )]
    Architecture {
        /// What the machine is.
        seen: String,
    },

    /// Host programs that are not on the PATH, all of them at once.
    #[error("{}", super::host::list_missing(.0))]
    Tools(Vec<MissingTool>),

    /// KVM was asked for and cannot be used.
    #[error(
        "KVM was asked for and /dev/kvm cannot be opened ({source}): leave the option out \
         (software emulation needs nothing), or join the group that owns /dev/kvm"
    )]
    Kvm {
        /// What opening it said.
        source: io::Error,
    },

    /// The kernel's makefiles cannot work below this path.
    #[error(
        "the cache directory {} is not absolute UTF-8 text without white space, quotes, `$`, `#` \
         or `:`, and make cannot build below it: name another one with --cache", path.display()
    )]
    CachePath {
        /// The directory asked for.
        path: PathBuf,
    },

    /// Another lab is at work in the same cache.
    #[error(
        "another lab is using the cache {}: wait for it to end, or give this one a cache of its \
         own with --cache", path.display()
    )]
    CacheBusy {
        /// The cache directory.
        path: PathBuf,
    },

    /// A file operation failed.
    #[error("could not {what} {}: {source}", path.display())]
    File {
        /// What was being done, as a verb.
        what: &'static str,
        /// To which file.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },

    /// A host program could not be started or waited for.
    #[error("could not run {program}: {source}; is it executable by this user?")]
    Start {
        /// The program.
        program: String,
        /// What the system said.
        source: io::Error,
    },

    /// No kernel can be had with everything the lab needs.
    #[error(
        "asked the package lists for {asked}, saw {seen}: {}",
        "use a Debian (12 or later) whose apt sources include main and the security suite, and \
         check that `apt-cache policy busybox-static linux-source` finds candidates"
    )]
    NoKernel {
        /// What was looked for.
        asked: String,
        /// What the lists hold instead.
        seen: String,
    },

    /// A package is in no list.
    #[error(
        "asked the package lists for {asked}, saw {seen}: {}",
        "use a Debian (12 or later) whose apt sources include main and the security suite"
    )]
    NoPackage {
        /// What was looked for.
        asked: String,
        /// What the lists hold instead.
        seen: String,
    },

    /// The package lists could not be brought up to date.
    #[error(
        "`apt-get update` into the lab's own lists failed (attempts: {attempts}); check the network and \
         /etc/apt/sources.list, then run again. It said:\n{said}"
    )]
    Lists {
        /// How often it was tried.
        attempts: u32,
        /// The end of its output.
        said: String,
    },

    /// A package could not be downloaded.
    #[error(
        "`apt-get download {packages}` failed (attempts: {attempts}); check the network (the mirror is \
         the one in /etc/apt/sources.list), then run again. It said:\n{said}"
    )]
    Download {
        /// The packages asked for, with versions.
        packages: String,
        /// How often it was tried.
        attempts: u32,
        /// The end of its output.
        said: String,
    },

    /// A package could not be taken apart.
    #[error(
        "could not unpack {}; is the disk full? Run again to download it anew. It said:\n{said}",
        package.display()
    )]
    Unpack {
        /// The archive.
        package: PathBuf,
        /// The end of the tool's output.
        said: String,
    },

    /// A package does not hold a file that belongs in it.
    #[error(
        "{package} holds no {file}: this kernel is laid out in a way the lab does not know; pin \
         another one of `apt-cache madison linux-source-*` with --kernel, and please report it"
    )]
    NotInPackage {
        /// The package.
        package: String,
        /// What was looked for.
        file: String,
    },

    /// A part of the VMM is in none of its packages.
    #[error(
        "neither {package} nor what it depends on holds {file}: this QEMU is laid out in a way the \
         lab does not know; please report it, and name the tasks to run without `--watch`"
    )]
    NotInVmm {
        /// The package.
        package: String,
        /// What was looked for.
        file: String,
    },

    /// The sample driver did not build.
    #[error(
        "the mtty module does not build against {release} with {compiler}; the lab knows kernels \
         from 6.7 on, pin one with --kernel. The compiler said:\n{said}"
    )]
    Module {
        /// The kernel release.
        release: String,
        /// The compiler the kernel asks for.
        compiler: String,
        /// The end of the build's output.
        said: String,
    },

    /// What is loaded into a VMM in the guest did not compile.
    #[error("what records a VMM in the guest cannot be made: {0}")]
    Recorder(#[from] crate::observe::WatchError),

    /// The program given as replayer cannot run in the guest.
    #[error(
        "{} cannot be the replayer: {why}; build one with `RUSTFLAGS='-C \
         target-feature=+crt-static' cargo build --release --no-default-features --bin \
         vfio-conform --target x86_64-unknown-linux-gnu`", path.display()
    )]
    NotStatic {
        /// The program.
        path: PathBuf,
        /// What is wrong with it.
        why: &'static str,
    },

    /// There is no replayer and nothing to build one from.
    #[error(
        "the guest needs a statically linked vfio-conform: this one is not static, and its source \
         is not at {}; give a static one with --replayer PATH", source_tree.display()
    )]
    NoReplayer {
        /// Where the source would be.
        source_tree: PathBuf,
    },

    /// The static replayer did not build.
    #[error(
        "the static replayer did not build from {}; mend that, or give one with --replayer PATH. \
         cargo said:\n{said}", source_tree.display()
    )]
    ReplayerBuild {
        /// Where it was built from.
        source_tree: PathBuf,
        /// The end of cargo's output.
        said: String,
    },

    /// The guest did not come up, or died before a trace began.
    #[error(
        "the guest did not get as far as its first trace in {attempts} boots: {reason}. If the \
         machine is very busy run again; otherwise the console says why:\n{console}"
    )]
    Boot {
        /// How often it was tried.
        attempts: u32,
        /// What was seen last.
        reason: String,
        /// The end of the guest's console.
        console: String,
    },

    /// The replayer ended before it began a trace.
    #[error(
        "the replayer ended with code {code} before it began a trace; check that the trace file \
         is of this version (`vfio-conform generate` writes one). It said:\n{said}"
    )]
    Replayer {
        /// Its exit code in the guest.
        code: i64,
        /// What it wrote that was no event.
        said: String,
    },

    /// The caller asked to stop before the first boot.
    #[error("stopped on request while preparing; what was finished is kept in the cache")]
    Cancelled,
}

impl Error {
    /// Whether other lists might hold what was asked for.
    pub(crate) const fn is_about_lists(&self) -> bool {
        matches!(self, Self::NoKernel { .. } | Self::NoPackage { .. })
    }
}

/// Adds what was being done, and to which file, to an I/O error.
pub(crate) fn file(what: &'static str, path: &Path) -> impl FnOnce(io::Error) -> Error {
    let path = path.to_owned();
    move |source| Error::File { what, path, source }
}
