// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! The results of runs, kept in a directory: one file a run, written at once or not at all.
//!
//! A file is the JSON object that `--json` prints: a [`Head`] under `vfio-conform`, and what was
//! found under the keys that the command has. It is named by when the run began and by its command,
//! `20260214T093005Z-replay.json`. While a run lasts there is a `.partial` file in its place, which
//! becomes the file when everything is in it; one that is left over is a run that was killed.

#[cfg(feature = "report")]
mod read;

use std::fs;
use std::io::{self, BufWriter, Write};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};
use tempfile::NamedTempFile;

#[cfg(feature = "report")]
pub use read::{
    Claim, Directory, DirectoryError, Found, Lab, Migrated, Model, Part, Planted, Property, Race,
    Races, Refused, Run, Space, Unexplained, Why, Yardstick,
};

/// The key of the [`Head`].
pub const HEAD: &str = "vfio-conform";

/// The version of the format that this crate writes, and reads.
pub const VERSION: u32 = 1;

/// How the name of a file ends whose run has not.
const PARTIAL: &str = ".partial";

/// What a run was.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Head {
    /// The version of the format.
    pub version: u32,
    /// The version of the program.
    pub program: String,
    /// The command: `run`, `lab`, …
    pub command: String,
    /// The command line.
    pub arguments: Vec<String>,
    /// When it began: UTC, as RFC 3339 has it, to the second.
    pub began: String,
    /// How it ended.
    pub verdict: Verdict,
}

/// How a run ended: what its exit status says, too.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Verdict {
    /// 0: all good.
    Good,
    /// 1: a verdict failed.
    Failed,
    /// 3: nothing failed, but not all was done.
    NotFinished,
}

impl Head {
    /// A run that begins now, and of which nothing is known yet.
    pub fn begin(command: &str, arguments: impl IntoIterator<Item = String>) -> Self {
        Self {
            version: VERSION,
            program: env!("CARGO_PKG_VERSION").to_owned(),
            command: command.to_owned(),
            arguments: arguments.into_iter().collect(),
            began: humantime::format_rfc3339_seconds(SystemTime::now()).to_string(),
            verdict: Verdict::NotFinished,
        }
    }

    /// When it began and what it was, as the name of a file.
    fn stem(&self) -> String {
        let began: String = self.began.chars().filter(|c| !"-:".contains(*c)).collect();
        format!("{began}-{}", self.command)
    }

    /// The whole object of a run that found this.
    ///
    /// # Errors
    ///
    /// Of the serializer, which has none for these types.
    pub fn object(&self, found: &Map<String, Value>) -> serde_json::Result<Map<String, Value>> {
        let mut object = Map::new();
        object.insert(HEAD.to_owned(), serde_json::to_value(self)?);
        object.extend(found.iter().map(|(key, value)| (key.clone(), value.clone())));
        Ok(object)
    }
}

/// Results that cannot be kept.
#[derive(Debug, thiserror::Error)]
#[error("{}: results cannot be kept here: {source}; give a directory that can be written to", path.display())]
pub struct KeepError {
    path: PathBuf,
    source: io::Error,
}

/// A file of results that is being written: nothing, until it is all there.
#[derive(Debug)]
pub struct Keeper {
    directory: PathBuf,
    partial: NamedTempFile,
}

impl Keeper {
    /// A file in this directory, which is made if it is not there. That it can be written to is
    /// found out now, and not when hours of work are to be kept.
    ///
    /// # Errors
    ///
    /// If it cannot.
    pub fn new(directory: &Path, head: &Head) -> Result<Self, KeepError> {
        let fail = |source| KeepError { path: directory.to_owned(), source };
        fs::create_dir_all(directory).map_err(fail)?;
        let name = format!("{}-", head.stem());
        // For whoever may read what others wrote here: as the umask has it.
        let rights = fs::Permissions::from_mode(0o666);
        let mut builder = tempfile::Builder::new();
        let partial =
            builder.prefix(&name).suffix(PARTIAL).permissions(rights).tempfile_in(directory);
        Ok(Self { directory: directory.to_owned(), partial: partial.map_err(fail)? })
    }

    /// Write all of it, and give it its name.
    ///
    /// # Errors
    ///
    /// If it cannot be written; then there is no file.
    pub fn keep(self, head: &Head, found: &Map<String, Value>) -> Result<PathBuf, KeepError> {
        let Self { directory, mut partial } = self;
        let fail = |source| KeepError { path: directory.clone(), source };
        write(&mut partial, head, found).map_err(fail)?;
        for number in 1.. {
            let again = if number == 1 { String::new() } else { format!("-{number}") };
            let path = directory.join(format!("{}{again}.json", head.stem()));
            match partial.persist_noclobber(&path) {
                Ok(_) => return Ok(path),
                Err(error) if error.error.kind() == io::ErrorKind::AlreadyExists => {
                    partial = error.file;
                }
                Err(error) => return Err(fail(error.error)),
            }
        }
        Err(fail(io::ErrorKind::AlreadyExists.into()))
    }
}

/// With all of it on the disk before it has its name.
fn write(file: &mut NamedTempFile, head: &Head, found: &Map<String, Value>) -> io::Result<()> {
    let mut writer = BufWriter::new(file.as_file_mut());
    serde_json::to_writer(&mut writer, &head.object(found)?)?;
    writer.write_all(b"\n")?;
    writer.flush()?;
    drop(writer);
    file.as_file().sync_all()
}
