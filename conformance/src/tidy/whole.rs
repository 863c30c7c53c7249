// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! Files that are there in full, or not at all.

use std::ffi::OsString;
use std::fs::{self, File};
use std::io::{self, BufWriter, Write};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use rustix::fs::{FlockOperation, OFlags, flock};

/// Writes a file, under another name first: whatever stands under its own name is whole, even if
/// this process is killed or the machine loses power. Until then what was there before stays.
///
/// What a killed process has left under the other name (the file's with `.partial` behind it) is
/// used anew by the next one, so it does not pile up. What is no regular file, such as a pipe, is
/// written to as it is.
///
/// # Errors
///
/// Those of the file system and of `fill`; [`io::ErrorKind::ResourceBusy`] when another process is
/// writing this very file.
pub fn write_whole(
    path: &Path,
    fill: impl FnOnce(&mut dyn Write) -> io::Result<()>,
) -> io::Result<()> {
    match fs::metadata(path) {
        Ok(meta) if !meta.is_file() => {
            fill_and_flush(File::options().write(true).open(path)?, fill)
        }
        // A link stays one, and its file is replaced.
        Ok(_) => replace(&path.canonicalize()?, fill),
        Err(_) => replace(path, fill),
    }
}

fn replace(path: &Path, fill: impl FnOnce(&mut dyn Write) -> io::Result<()>) -> io::Result<()> {
    let mut partial = OsString::from(path);
    partial.push(".partial");
    let partial = PathBuf::from(partial);
    let file = claim(&partial)?;
    let written = file
        .set_len(0)
        .and_then(|()| fill_and_flush(file.try_clone()?, fill))
        .and_then(|()| file.sync_all())
        .and_then(|()| fs::rename(&partial, path));
    if written.is_err() {
        // Of use to nobody, and the disk may be full.
        let _ = fs::remove_file(&partial);
    }
    written
}

fn fill_and_flush(
    file: File,
    fill: impl FnOnce(&mut dyn Write) -> io::Result<()>,
) -> io::Result<()> {
    let mut output = BufWriter::new(file);
    fill(&mut output)?;
    output.flush()
}

/// Opens the file under its other name, for us alone. The lock goes with the process.
fn claim(partial: &Path) -> io::Result<File> {
    loop {
        let flags = OFlags::NOFOLLOW.bits() as i32;
        let mut options = File::options();
        let options = options.write(true).create(true).truncate(false).custom_flags(flags);
        let file = options.open(partial)?;
        flock(&file, FlockOperation::NonBlockingLockExclusive).map_err(|errno| match errno {
            rustix::io::Errno::WOULDBLOCK => io::Error::new(
                io::ErrorKind::ResourceBusy,
                "another process is writing it: wait for that to end",
            ),
            errno => errno.into(),
        })?;
        // Between the two, another process may have finished with it: then it has its name now.
        let same = fs::symlink_metadata(partial)
            .and_then(|there| Ok((there.dev(), there.ino(), file.metadata()?)))
            .is_ok_and(|(dev, ino, ours)| (dev, ino) == (ours.dev(), ours.ino()));
        if same {
            return Ok(file);
        }
    }
}
