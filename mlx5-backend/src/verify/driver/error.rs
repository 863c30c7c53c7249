// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! Why a check could not be made, or what it found.

use std::io;
use std::path::{Path, PathBuf};

/// A check that could not be made.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum DriverError {
    /// A file could not be read or written.
    #[error("cannot {what} {path}: {error}", path = path.display())]
    File {
        /// What was to be done with it.
        what: &'static str,
        /// Which one.
        path: PathBuf,
        /// What the system said.
        #[source]
        error: io::Error,
    },
    /// The sources do not have what is taken from them.
    #[error(
        "{path} has no line that begins with {pattern:?}: another version of the kernel, for \
         which the cut in src/verify/driver/build.rs has to be made anew",
        path = path.display()
    )]
    Pattern {
        /// The file.
        path: PathBuf,
        /// How the line was to begin.
        pattern: &'static str,
    },
    /// The compiler refused.
    #[error("{compiler} does not build the driver; its last words:\n{said}")]
    Compiler {
        /// Which compiler.
        compiler: String,
        /// What it said.
        said: String,
    },
    /// The driver's process could not be started, or spoken to.
    #[error("the driver's process: {0}")]
    Process(#[source] io::Error),
    /// It did what the kernel would not have survived.
    #[error("the driver broke a rule of the kernel: {0}")]
    Fatal(String),
    /// It ended by itself, or hung: a sanitizer's finding, or a crash.
    #[error("the driver's process ended in the middle ({status}); it said:\n{said}")]
    Ended {
        /// How it ended.
        status: String,
        /// The beginning of what it wrote to its standard error.
        said: String,
    },
    /// It answered what has no place there.
    #[error("the driver's process sent a frame of kind {kind} where {due} is due")]
    Frame {
        /// What came.
        kind: u32,
        /// What was due.
        due: &'static str,
    },
    /// A check found what it looks for.
    #[error("{0}")]
    Found(String),
}

impl DriverError {
    pub(crate) fn file(what: &'static str, path: &Path) -> impl FnOnce(io::Error) -> Self {
        let path = path.to_owned();
        move |error| Self::File { what, path, error }
    }
}
