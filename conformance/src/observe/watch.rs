// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! Runs a VMM with a recorder loaded into it. The recorder is C, since it stands in for functions of
//! libc; it is compiled when it is needed, for the machine that it is needed on.

use std::ffi::{OsStr, OsString};
use std::fs::{self, File};
use std::io::{self, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Command, ExitStatus};

use crate::tidy::{Scratch, tie};

use super::recording::{self, Header, Recording, RecordingError};

/// What is loaded into the VMM.
const RECORDER: &str = include_str!("recorder.c");

/// What is loaded into VMMs: compiled C, since it stands in for functions of libc.
#[derive(Debug)]
pub struct Recorder(PathBuf);

impl Recorder {
    /// Compile it, with the C compiler of this machine, into this file.
    pub fn compile(library: &Path) -> Result<Self, WatchError> {
        compile(RECORDER, library)?;
        Ok(Self::compiled(library))
    }

    /// One that was compiled before, here or on another machine.
    #[must_use]
    pub fn compiled(library: &Path) -> Self {
        Self(library.to_owned())
    }

    /// Begin a recording of this name in this file, and have the command write its calls there. It
    /// writes `loaded` when the recorder is in it.
    ///
    /// What stands in front of libc already, by this process's environment or by `before`, stays: the
    /// recorder comes first, and so sees what the command is told in the end.
    pub fn record(
        &self,
        command: &mut Command,
        name: &str,
        file: &Path,
        loaded: &Path,
        before: Option<&Path>,
    ) -> Result<(), WatchError> {
        begin(file, name)?;
        // The recorder opens it where the VMM is, which may have gone to another folder.
        let file = file.canonicalize().map_err(at(file))?;
        let mut preload = self.0.clone().into_os_string();
        let others = std::env::var_os("LD_PRELOAD").filter(|others| !others.is_empty());
        for other in before.map(|path| path.as_os_str().to_owned()).into_iter().chain(others) {
            preload.push(" ");
            preload.push(other);
        }
        command.env("LD_PRELOAD", preload);
        command.env("VFIO_CONFORM_RECORDING", &file).env("VFIO_CONFORM_LOADED", loaded);
        Ok(())
    }
}

/// A VMM that ran, and what it did.
#[derive(Debug)]
pub struct Watched {
    /// How the VMM ended.
    pub status: ExitStatus,
    /// What it did with its devices.
    pub recording: Recording,
}

/// Why there is no recording.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum WatchError {
    /// A file could not be made or read.
    #[error("{path}: {error}")]
    File {
        /// Which.
        path: PathBuf,
        /// What happened.
        #[source]
        error: io::Error,
    },
    /// There is no C compiler.
    #[error(
        "{compiler:?} cannot be started ({error}): the recorder is compiled when it is needed; \
             install a C compiler, or name one in the environment variable CC"
    )]
    NoCompiler {
        /// What was tried.
        compiler: OsString,
        /// What happened.
        #[source]
        error: io::Error,
    },
    /// The C compiler failed.
    #[error("{compiler:?} cannot compile the recorder; it says: {said}")]
    Compiler {
        /// Which.
        compiler: OsString,
        /// Its messages.
        said: String,
    },
    /// The command cannot be started.
    #[error("{command:?} cannot be started: {error}")]
    Start {
        /// Which.
        command: OsString,
        /// What happened.
        #[source]
        error: io::Error,
    },
    /// The command ran without the recorder.
    #[error(
        "{command:?} ran ({status}), but the recorder was not loaded into it: it is linked statically, \
         runs with more rights than its user (setuid), or is of another architecture; run a \
         dynamically linked one"
    )]
    NotLoaded {
        /// Which.
        command: OsString,
        /// How it ended.
        status: ExitStatus,
    },
    /// The command did nothing of interest.
    #[error(
        "{command:?} ran ({status}) and used no VFIO device that migrates; was it given one, and did a \
         process that it started itself use it by other means than libc?"
    )]
    NoDevice {
        /// Which.
        command: OsString,
        /// How it ended.
        status: ExitStatus,
    },
    /// What the recorder wrote cannot be read.
    #[error("the recorder wrote what cannot be read, {0}")]
    Recording(#[from] RecordingError),
}

/// Run a command under the recorder until it ends. The recording is written to `keep` as well, if
/// that is given, so that it is there also when this process is killed.
pub fn watch(
    command: &OsStr,
    arguments: &[OsString],
    keep: Option<&Path>,
) -> Result<Watched, WatchError> {
    let folder = Scratch::new().map_err(at(&std::env::temp_dir()))?;
    let place = |name| folder.path().join(name);
    let loaded = place("loaded");
    let file = keep.map_or_else(|| place("recording.jsonl"), Path::to_owned);
    let recorder = Recorder::compile(&place("recorder.so"))?;
    let name = Path::new(command).file_name().unwrap_or(command).to_string_lossy();
    let mut vmm = Command::new(command);
    vmm.args(arguments);
    recorder.record(&mut vmm, &name, &file, &loaded, None)?;
    let command = command.to_owned();
    // In our process group: the terminal is the VMM's.
    let status = match tie(&mut vmm).status() {
        Ok(status) => status,
        Err(error) => return Err(WatchError::Start { command, error }),
    };
    if !loaded.exists() {
        return Err(WatchError::NotLoaded { command, status });
    }
    let recorded = recording::read(BufReader::new(File::open(&file).map_err(at(&file))?));
    match recorded
        .map_err(|error| (matches!(error.problem, recording::Problem::Stepless(_)), error))
    {
        Ok(mut recordings) => Ok(Watched { status, recording: recordings.remove(0) }),
        Err((true, _)) => Err(WatchError::NoDevice { command, status }),
        Err((false, error)) => Err(error.into()),
    }
}

/// Compile C that is to stand in front of libc into this library.
pub(crate) fn compile(text: &str, library: &Path) -> Result<(), WatchError> {
    let source = library.with_extension("c");
    fs::write(&source, text).map_err(at(&source))?;
    let compiler = std::env::var_os("CC").filter(|named| !named.is_empty());
    let compiler = compiler.unwrap_or_else(|| "cc".into());
    let mut cc = Command::new(&compiler);
    // No fortification: it would turn the recorder's own definitions into calls of others.
    cc.args(["-std=gnu11", "-O2", "-U_FORTIFY_SOURCE", "-fPIC", "-shared", "-pthread", "-o"]);
    let ran = tie(cc.arg(library).arg(source).arg("-ldl")).output();
    match ran {
        Ok(output) if output.status.success() => Ok(()),
        Ok(output) => {
            let said = String::from_utf8_lossy(&output.stderr).trim().to_owned();
            Err(WatchError::Compiler { compiler, said })
        }
        Err(error) => Err(WatchError::NoCompiler { compiler, error }),
    }
}

/// A recording with nothing in it yet.
fn begin(file: &Path, name: &str) -> Result<(), WatchError> {
    let header = Recording { header: Header::new(name), steps: Vec::new() };
    let mut output = File::create(file).map_err(at(file))?;
    recording::write([&header], &mut output).map_err(at(file))
}

fn at(path: &Path) -> impl FnOnce(io::Error) -> WatchError {
    let path = path.to_owned();
    |error| WatchError::File { path, error }
}
