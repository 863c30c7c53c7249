// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! Directories for work in between.

use std::fs::{self, DirEntry, File};
use std::io;
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::Path;
use std::time::Duration;

use rustix::fs::{FlockOperation, OFlags, flock};
use rustix::process::geteuid;
use tempfile::TempDir;

/// How the names of all of them begin.
const PREFIX: &str = "vfio-conform-";

/// A directory younger than this may not have its lock yet.
const NEWBORN: Duration = Duration::from_secs(60);

/// A directory below the system's one for what may be lost. It is removed when this value is
/// dropped, or else, when this process was killed, by the next [`Scratch::new`] a minute later.
#[derive(Debug)]
pub struct Scratch {
    directory: TempDir,
    /// Held for as long as the directory is in use; the system drops it with the process.
    _lock: File,
}

impl Scratch {
    /// Makes one, and removes those that nobody uses any more.
    ///
    /// # Errors
    ///
    /// Those of the file system, with the path in them.
    pub fn new() -> io::Result<Self> {
        sweep(&std::env::temp_dir());
        let directory = tempfile::Builder::new().prefix(PREFIX).tempdir()?;
        let lock = File::open(directory.path())?;
        flock(&lock, FlockOperation::NonBlockingLockExclusive)?;
        Ok(Self { directory, _lock: lock })
    }

    /// Where it is.
    pub fn path(&self) -> &Path {
        self.directory.path()
    }
}

/// Failing is no harm: the next one tries again.
fn sweep(below: &Path) {
    for entry in fs::read_dir(below).into_iter().flatten().flatten() {
        if entry.file_name().to_string_lossy().starts_with(PREFIX) && is_abandoned(&entry) {
            let _ = fs::remove_dir_all(entry.path());
        }
    }
}

/// Whether it is ours to remove. The temporary directory is everybody's, so nothing in it is
/// followed or trusted.
fn is_abandoned(entry: &DirEntry) -> bool {
    let Ok(meta) = entry.metadata() else { return false };
    let age = meta.modified().ok().and_then(|changed| changed.elapsed().ok());
    if !meta.is_dir() || meta.uid() != geteuid().as_raw() || age.is_none_or(|age| age < NEWBORN) {
        return false;
    }
    let flags = (OFlags::NOFOLLOW | OFlags::DIRECTORY).bits() as i32;
    let open = File::options().read(true).custom_flags(flags).open(entry.path());
    open.is_ok_and(|lock| flock(&lock, FlockOperation::NonBlockingLockExclusive).is_ok())
}
