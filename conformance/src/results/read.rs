// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! Results, as they are read again: what is no result is refused by its name, and not passed over.

use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::fmt;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use serde::Deserialize;
use serde::de::DeserializeOwned;
use serde_json::{Map, Value};

use super::{HEAD, Head, PARTIAL, VERSION};
use crate::migrate::Matrix;
use crate::report::Report;

/// A file larger than this is refused before it is read.
const LARGEST: u64 = 512 << 20;

/// What a directory of results holds.
#[derive(Debug, Default)]
pub struct Directory {
    /// The runs, the latest first.
    pub runs: Vec<Run>,
    /// What looks like results and is none.
    pub refused: Vec<Refused>,
}

/// One run.
#[derive(Debug)]
pub struct Run {
    /// The name of its file.
    pub name: String,
    /// What it was.
    pub head: Head,
    /// What it found.
    pub parts: Vec<Part>,
    /// Keys of what it found that have no place in a report.
    pub others: Vec<String>,
}

/// Something that was found.
#[derive(Debug)]
#[non_exhaustive]
pub enum Part {
    /// What the model check came to.
    Model(Model),
    /// A replay, or races and abuse in a lab: traces with their verdicts.
    Replay(Report),
    /// Migrations with a reset at every step.
    Migrate(Matrix),
    /// Races of threads.
    Race(Races),
    /// For each planted bug the first trace that fails.
    Planted(BTreeMap<String, Option<String>>),
    /// For each planted bug and suite the first trace that fails.
    Yardstick(Yardstick),
    /// The virtual machine itself.
    Lab(Lab),
}

/// What a model check came to.
#[derive(Clone, Debug, Deserialize)]
pub struct Model {
    /// Level 1, or the models that were asked for alone.
    pub spaces: Vec<Space>,
    /// Level 2.
    #[serde(default)]
    pub lock_spaces: Vec<Space>,
    /// Level 3.
    #[serde(default)]
    pub system_spaces: Vec<Space>,
    /// What was judged.
    #[serde(default)]
    pub properties: Vec<Property>,
    /// What had to fall.
    #[serde(default)]
    pub claims: Vec<Claim>,
    /// Why not all was done.
    pub not_finished: Option<String>,
}

/// One model in one setting.
#[derive(Clone, Debug, Deserialize)]
pub struct Space {
    /// Its name.
    pub model: String,
    /// The flags of its devices.
    pub features: String,
    /// Distinct worlds.
    pub states: u64,
    /// Steps between them.
    pub transitions: u64,
    /// The longest of the shortest ways.
    pub depth: u64,
    /// How long it took.
    pub seconds: f64,
    /// Why it does not count as passed.
    pub failures: Vec<String>,
    /// Why not all was done.
    #[serde(default)]
    pub not_finished: Option<String>,
    /// How often each property had something to judge.
    #[serde(default)]
    pub judged: BTreeMap<String, u64>,
}

/// One property.
#[derive(Clone, Debug, Deserialize)]
pub struct Property {
    /// Its id.
    pub id: String,
    /// What it says.
    pub text: String,
    /// The requirements that it is evidence for.
    pub covers: Vec<String>,
}

/// A fault that a property must catch.
#[derive(Clone, Debug, Deserialize)]
pub struct Claim {
    /// What is wrong: `device:reset-keeps-state`, `assumption:host-keeps-still`.
    pub fault: String,
    /// The property.
    pub property: String,
    /// In which model.
    pub model: String,
    /// The flags of its devices.
    pub features: String,
    /// The length of the shortest run in which it is caught; `None` if it never was.
    pub steps: Option<u64>,
    /// The run.
    #[serde(default)]
    pub run: Option<String>,
}

/// Migrations: the matrix alone, as a lab has it, or with what was run at random.
#[derive(Debug, Deserialize)]
#[serde(untagged)]
pub enum Migrated {
    /// With more.
    With {
        /// The matrix.
        matrix: Matrix,
    },
    /// Alone.
    Alone(Matrix),
}

/// Races: of `race`, or of a lab.
#[derive(Debug, Deserialize)]
#[serde(untagged)]
pub enum Race {
    /// Here.
    Here(Races),
    /// In a lab.
    Lab(Report),
}

/// What threads that race at a device came to.
#[derive(Clone, Debug, Deserialize)]
pub struct Races {
    /// How often they raced.
    pub rounds: u64,
    /// How many calls they made.
    pub calls: u64,
    /// What no order of the calls explains.
    pub failures: Vec<Unexplained>,
}

/// Answers that no order of the calls explains.
#[derive(Clone, Debug, Deserialize)]
pub struct Unexplained {
    /// In which round.
    pub round: String,
    /// The calls.
    pub history: String,
}

/// Which suite finds which planted bug.
#[derive(Clone, Debug, Deserialize)]
pub struct Yardstick {
    /// Each of them.
    pub planted: Vec<Planted>,
}

/// A planted bug.
#[derive(Clone, Debug, Deserialize)]
pub struct Planted {
    /// What is planted.
    pub fault: String,
    /// By suite, where it shows first.
    pub found: BTreeMap<String, Option<Found>>,
}

/// Where a planted bug shows first.
#[derive(Clone, Debug, Deserialize)]
pub struct Found {
    /// In which trace.
    pub trace: String,
    /// At which step.
    pub step: u64,
}

/// What a lab says of itself.
#[derive(Clone, Debug, Deserialize)]
pub struct Lab {
    /// The release of the kernel.
    pub kernel: String,
    /// How often it was booted.
    pub boots: u64,
    /// How it ended.
    pub ended: String,
    /// How many traces have no verdict.
    pub missing: u64,
}

/// A file that was refused.
#[derive(Debug)]
pub struct Refused {
    /// The name of the file.
    pub name: String,
    /// Why.
    pub why: Why,
}

/// As `report` lists it.
impl fmt::Display for Refused {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.name, self.why)
    }
}

/// Why a file is no result.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Why {
    /// It cannot be read.
    #[error("cannot be read: {0}")]
    Io(#[from] io::Error),
    /// It is a directory, a pipe or the like.
    #[error("not a file")]
    NoFile,
    /// It is left over from a run that was killed, or the run goes on.
    #[error("its run has not ended: it was killed, or goes on; remove the file if it was killed")]
    Partial,
    /// It is too large.
    #[error("{0} bytes; more than {LARGEST} are no results")]
    TooLarge(u64),
    /// It ends before its object does.
    #[error("cut off at line {line}, column {column}: copy it again", line = .0.line(), column = .0.column())]
    Cut(serde_json::Error),
    /// It is no JSON object.
    #[error("not one JSON object: {0}")]
    Json(serde_json::Error),
    /// It is JSON of something else.
    #[error(
        "JSON, but not of this program: it has no key {HEAD:?}; `--results DIR` writes such files"
    )]
    Foreign,
    /// It is of another version of this format.
    #[error(
        "format version {0}, but this program reads version {VERSION}; use the one that wrote it"
    )]
    Version(u64),
    /// Something in it is not what its key says.
    #[error("{key:?} is not what this version writes there: {problem}")]
    Part {
        /// Which key.
        key: String,
        /// What is wrong.
        problem: serde_json::Error,
    },
}

/// A directory that no report can be made of.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum DirectoryError {
    /// It cannot be read.
    #[error("{}: {source}; `--results DIR` of run, replay, lab and all others makes one", path.display())]
    Unreadable {
        /// The directory.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// It has no usable file.
    #[error("{}: no results to report on{}", path.display(), why_none(refused))]
    Nothing {
        /// The directory.
        path: PathBuf,
        /// What was refused.
        refused: Vec<Refused>,
    },
}

fn why_none(refused: &[Refused]) -> String {
    if refused.is_empty() {
        return "; `--results DIR` of run, replay, lab and all others writes them".to_owned();
    }
    refused.iter().map(|refused| format!("\n  refused {refused}")).collect()
}

impl Directory {
    /// Read every result of a directory.
    ///
    /// # Errors
    ///
    /// If it cannot be read, or has no usable file.
    pub fn read(path: &Path) -> Result<Self, DirectoryError> {
        let fail = |source| DirectoryError::Unreadable { path: path.to_owned(), source };
        let mut directory = Self::default();
        for entry in fs::read_dir(path).map_err(fail)? {
            let file = entry.map_err(fail)?.path();
            let name =
                file.file_name().map(OsStr::to_string_lossy).unwrap_or_default().into_owned();
            if name.ends_with(PARTIAL) {
                directory.refused.push(Refused { name, why: Why::Partial });
            } else if name.ends_with(".json") {
                directory.add(name, read(&file));
            }
        }
        directory.order();
        if directory.runs.is_empty() {
            return Err(DirectoryError::Nothing {
                path: path.to_owned(),
                refused: directory.refused,
            });
        }
        Ok(directory)
    }

    /// One run alone, of which no file was kept.
    ///
    /// # Errors
    ///
    /// If what was found is not what this version writes.
    pub fn of_one(object: Map<String, Value>) -> Result<Self, Why> {
        let run = parse(object).map(|run| run("this run".to_owned()))?;
        Ok(Self { runs: vec![run], refused: Vec::new() })
    }

    fn add(&mut self, name: String, read: Result<Map<String, Value>, Why>) {
        match read.and_then(parse) {
            Ok(run) => self.runs.push(run(name)),
            Err(why) => self.refused.push(Refused { name, why }),
        }
    }

    fn order(&mut self) {
        self.runs.sort_by(|a, b| (&b.head.began, &b.name).cmp(&(&a.head.began, &a.name)));
        self.refused.sort_by(|a, b| a.name.cmp(&b.name));
    }

    /// What was found, the latest first.
    pub fn parts(&self) -> impl Iterator<Item = (&Run, &Part)> {
        self.runs.iter().flat_map(|run| run.parts.iter().map(move |part| (run, part)))
    }
}

fn read(path: &Path) -> Result<Map<String, Value>, Why> {
    let about = fs::metadata(path)?;
    if !about.is_file() {
        return Err(Why::NoFile);
    }
    let size = about.len();
    if size > LARGEST {
        return Err(Why::TooLarge(size));
    }
    let text = fs::read(path)?;
    serde_json::from_slice(&text).map_err(|error| match error.is_eof() {
        true => Why::Cut(error),
        false => Why::Json(error),
    })
}

/// A run, as soon as it has a name.
fn parse(mut object: Map<String, Value>) -> Result<impl FnOnce(String) -> Run, Why> {
    let head = object.remove(HEAD).ok_or(Why::Foreign)?;
    match head.get("version").and_then(Value::as_u64) {
        Some(version) if version == u64::from(VERSION) => {}
        Some(version) => return Err(Why::Version(version)),
        None => return Err(Why::Foreign),
    }
    let head: Head = take(HEAD, head)?;
    let (mut parts, mut others) = (Vec::new(), Vec::new());
    for (key, value) in object {
        match part(&key, value)? {
            Some(part) => parts.push(part),
            None => others.push(key),
        }
    }
    Ok(move |name| Run { name, head, parts, others })
}

fn part(key: &str, value: Value) -> Result<Option<Part>, Why> {
    Ok(Some(match key {
        "model" => Part::Model(take(key, value)?),
        "migrate" => match take(key, value)? {
            Migrated::With { matrix } | Migrated::Alone(matrix) => Part::Migrate(matrix),
        },
        "races" => match take(key, value)? {
            Race::Here(races) => Part::Race(races),
            Race::Lab(report) => Part::Replay(report),
        },
        "planted_bugs" => Part::Planted(take(key, value)?),
        "bugs" => Part::Yardstick(take(key, value)?),
        "lab" => Part::Lab(take(key, value)?),
        "abuse" => Part::Replay(take(key, value)?),
        key if key.starts_with("replay") => Part::Replay(take(key, value)?),
        _ => return Ok(None),
    }))
}

fn take<T: DeserializeOwned>(key: &str, value: Value) -> Result<T, Why> {
    T::deserialize(value).map_err(|problem| Why::Part { key: key.to_owned(), problem })
}
