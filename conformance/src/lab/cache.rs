// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! What is expensive is done once: a directory of finished entries.
//!
//! An entry is built beside its place and renamed into it, so whatever stands under an entry's
//! name is whole, even if the machine lost power on the way. A lock keeps two labs apart.

use std::fs::{self, File};
use std::path::{Path, PathBuf};

use rustix::fs::{FlockOperation, flock};

use super::error::{Error, file};
use super::packages::compare_versions;

/// Marks directories under construction; swept when the next lab starts.
const PARTIAL: &str = "partial-";

/// How the names of the files begin that hold the traces of a run. They are made before the lock is
/// held, so their names end in the process that has made them.
const TRACES: &str = "traces-";

/// Where a run of this process keeps the traces that it hands to the guest.
pub fn traces_file(cache: &Path) -> PathBuf {
    cache.join(format!("{TRACES}{}.jsonl", std::process::id()))
}

/// Whether the process that has made such a file is gone.
fn is_abandoned(traces: &str) -> bool {
    let process = traces.strip_prefix(TRACES).and_then(|rest| rest.split_once('.'));
    process.is_some_and(|(id, _)| !Path::new("/proc").join(id).exists())
}

/// The name of an entry for what has this version.
pub(crate) fn entry_name(prefix: &str, version: &str) -> String {
    let safe = |c: char| if c.is_ascii_alphanumeric() || "+.-".contains(c) { c } else { '_' };
    format!("{prefix}{}", version.chars().map(safe).collect::<String>())
}

/// An open, locked cache directory.
pub(crate) struct Cache {
    root: PathBuf,
    /// Held for as long as the cache is open; the system drops it with the process.
    _lock: File,
}

impl Cache {
    /// Opens (or makes) the cache and locks it against other labs.
    pub(crate) fn open(root: &Path) -> Result<Self, Error> {
        check_path(root)?;
        fs::create_dir_all(root).map_err(file("create the cache", root))?;
        let lock_path = root.join("lock");
        let lock = File::create(&lock_path).map_err(file("open", &lock_path))?;
        flock(&lock, FlockOperation::NonBlockingLockExclusive).map_err(|errno| {
            if errno == rustix::io::Errno::WOULDBLOCK {
                Error::CacheBusy { path: root.to_owned() }
            } else {
                Error::File { what: "lock", path: lock_path.clone(), source: errno.into() }
            }
        })?;
        let cache = Self { root: root.to_owned(), _lock: lock };
        cache.sweep();
        Ok(cache)
    }

    /// A directory of the cache that its user keeps in order by itself (cargo's, apt's).
    pub(crate) fn dir(&self, name: &str) -> PathBuf {
        self.root.join(name)
    }

    /// The entry of this name, if it is finished.
    pub(crate) fn get(&self, name: &str) -> Option<PathBuf> {
        let path = self.root.join(name);
        path.is_dir().then_some(path)
    }

    /// Names of the finished entries that begin with `prefix`.
    pub(crate) fn names(&self, prefix: &str) -> Vec<String> {
        let entries = fs::read_dir(&self.root).into_iter().flatten().flatten();
        entries
            .filter_map(|entry| entry.file_name().into_string().ok())
            .filter(|name| name.starts_with(prefix))
            .collect()
    }

    /// Of the finished entries that begin with `prefix`, followed by a version, the newest.
    pub(crate) fn newest(&self, prefix: &str) -> Option<PathBuf> {
        let names = self.names(prefix);
        self.get(names.iter().max_by(|a, b| compare_versions(a, b))?)
    }

    /// Builds an entry with `make`, which fills the directory it is given.
    pub(crate) fn put(
        &self,
        name: &str,
        make: impl FnOnce(&Path) -> Result<(), Error>,
    ) -> Result<PathBuf, Error> {
        let work = self.scratch(name)?;
        make(work.path())?;
        sync(work.path())?;
        let place = self.root.join(name);
        fs::rename(work.path(), &place).map_err(file("put into place", &place))?;
        Ok(place)
    }

    /// An empty directory for work in between, gone when dropped.
    pub(crate) fn scratch(&self, name: &str) -> Result<Scratch, Error> {
        // The process id keeps apart from what a killed lab's last child may still write.
        let path = self.root.join(format!("{PARTIAL}{}-{name}", std::process::id()));
        fs::create_dir(&path).map_err(file("create", &path))?;
        Ok(Scratch(path))
    }

    fn sweep(&self) {
        for name in self.names(PARTIAL) {
            remove(&self.root.join(name));
        }
        for name in self.names(TRACES).into_iter().filter(|name| is_abandoned(name)) {
            let _ = fs::remove_file(self.root.join(name));
        }
    }
}

/// A directory that goes when its user is done with it.
pub(crate) struct Scratch(PathBuf);

impl Scratch {
    pub(crate) fn path(&self) -> &Path {
        &self.0
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        remove(&self.0);
    }
}

/// Brings all of an entry to the disk before its name says that it is whole.
fn sync(dir: &Path) -> Result<(), Error> {
    for entry in fs::read_dir(dir).map_err(file("list", dir))? {
        let entry = entry.map_err(file("list", dir))?;
        let (path, kind) = (entry.path(), entry.file_type().map_err(file("look at", dir))?);
        if kind.is_dir() {
            sync(&path)?;
        } else if kind.is_file() {
            File::open(&path).and_then(|open| open.sync_all()).map_err(file("sync", &path))?;
        }
    }
    File::open(dir).and_then(|open| open.sync_all()).map_err(file("sync", dir))
}

/// Removes what is left of an entry. Failing is no harm: nobody takes it for an entry, and the
/// next lab tries again.
fn remove(dir: &Path) {
    let _ = fs::remove_dir_all(dir);
}

/// Paths end up in makefiles, which have no quoting that holds everywhere.
fn check_path(root: &Path) -> Result<(), Error> {
    let fine = |c: char| !c.is_whitespace() && !c.is_control() && !"'\"\\$#:,%".contains(c);
    match root.to_str() {
        Some(text) if root.is_absolute() && text.chars().all(fine) => Ok(()),
        _ => Err(Error::CachePath { path: root.to_owned() }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A cache directory of its own for each test.
    fn scratch(name: &str) -> Scratch {
        let path = std::env::temp_dir().join(format!("lab-cache-{}-{name}", std::process::id()));
        remove(&path);
        Scratch(path)
    }

    #[test]
    fn a_failed_build_leaves_no_entry() {
        let root = scratch("failed");
        let cache = Cache::open(&root.0).expect("opens");
        let failed = cache.put("entry", |dir| {
            fs::write(dir.join("half"), "").expect("writes");
            Err(Error::Cancelled)
        });
        assert!(failed.is_err() && cache.get("entry").is_none());
        let made = cache.put("entry", |dir| {
            fs::write(dir.join("whole"), "").expect("writes");
            Ok(())
        });
        assert!(made.expect("built").join("whole").exists());
        assert!(cache.get("entry").is_some() && !root.0.join("entry/half").exists());
    }

    #[test]
    fn what_a_killed_lab_left_is_swept_and_never_taken_for_an_entry() {
        let root = scratch("killed");
        fs::create_dir_all(root.0.join("partial-1-kernel-9")).expect("creates");
        fs::create_dir_all(root.0.join("kernel-8")).expect("creates");
        let cache = Cache::open(&root.0).expect("opens");
        assert_eq!(cache.names("kernel-"), ["kernel-8"]);
        assert!(cache.names(PARTIAL).is_empty());
    }

    #[test]
    fn two_labs_do_not_share_a_cache() {
        let root = scratch("locked");
        let first = Cache::open(&root.0).expect("opens");
        assert!(matches!(Cache::open(&root.0), Err(Error::CacheBusy { .. })));
        drop(first);
        assert!(Cache::open(&root.0).is_ok());
    }

    #[test]
    fn paths_that_make_cannot_handle_are_refused() {
        for bad in ["relative/dir", "/tmp/with space", "/tmp/do$lar", "/tmp/a:b"] {
            assert!(matches!(Cache::open(Path::new(bad)), Err(Error::CachePath { .. })), "{bad}");
        }
    }
}
