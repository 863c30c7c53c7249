// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! The mlx5 backend against what others wrote.
//!
//! Three checks, each of another layer and each against code that does not know of ours: golden rows
//! made anew from a kernel's headers, the commands of every arc against the shipping driver's own
//! code, and the transport by the distribution's libmlx5. What is not ours comes from Debian
//! packages, is kept in a cache, and is compiled anew each time. No root, no KVM, no device.

use std::fmt;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::atomic::AtomicBool;
use std::time::Instant;

use serde::Serialize;
use vfio_fsm_mlx5::verify::driver::{self, Build, CHECKS, DriverError};
use vfio_fsm_mlx5::verify::golden::{self, ParseError};
use vfio_fsm_mlx5::verify::headers::{self, Comparison, VerifyError};
use vfio_fsm_mlx5::verify::libmlx5::{self, Programs};

use crate::lab::cache::{Cache, entry_name};
use crate::lab::error::file;
use crate::lab::packages::{self, Apt, Package, Stanza, Wanted};
use crate::lab::{self, host};

/// The kernel that golden rows and transcripts are of, and that has all that is compared.
const SERIES: (u32, u32) = (6, 12);

/// One of the checks.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, clap::ValueEnum)]
#[serde(rename_all = "snake_case")]
pub enum Part {
    /// The layouts of structures, against a kernel's headers.
    Headers,
    /// The commands of every arc and the streams, against the shipping driver's code.
    Driver,
    /// Registers, queue, events and memory keys, by the distribution's libmlx5.
    Libmlx5,
}

impl Part {
    /// All of them, the quick ones first.
    pub const ALL: [Self; 3] = [Self::Headers, Self::Libmlx5, Self::Driver];

    /// How the names of its cache entries begin; the number changes with what an entry holds.
    const fn entry(self) -> &'static str {
        match self {
            Self::Headers => "mlx5-headers-1-",
            Self::Driver => "mlx5-driver-1-",
            Self::Libmlx5 => "mlx5-libmlx5-1-",
        }
    }

    const fn name(self) -> &'static str {
        match self {
            Self::Headers => "headers",
            Self::Driver => "driver",
            Self::Libmlx5 => "libmlx5",
        }
    }
}

impl fmt::Display for Part {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.name())
    }
}

/// How to verify.
#[derive(Clone, Debug)]
pub struct Options {
    /// Where what is downloaded is kept; see [`lab::default_cache`].
    pub cache: PathBuf,
    /// Which checks.
    pub parts: Vec<Part>,
    /// A C compiler.
    pub compiler: String,
}

/// Why a check could not be made. None of these is a verdict.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// Packages or programs of the host are missing.
    #[error(transparent)]
    Lab(#[from] lab::Error),
    /// Headers or libmlx5 are not as they should be, or the compiler fails.
    #[error(transparent)]
    Verify(#[from] VerifyError),
    /// The driver is not as it should be, or the compiler fails.
    #[error(transparent)]
    Driver(#[from] DriverError),
    /// The committed rows cannot be read.
    #[error(transparent)]
    Rows(#[from] ParseError),
}

/// What one check came to.
#[derive(Clone, Debug, Serialize)]
pub struct Verified {
    /// Which.
    pub part: Part,
    /// What it checks, in a word.
    pub check: &'static str,
    /// What it was held against: the package and its version.
    pub against: String,
    /// What was done, if all is as it must be.
    pub passed: Option<String>,
    /// What is not, if something is not.
    pub failed: Option<String>,
    /// Seconds it took.
    pub seconds: f64,
}

/// What all of them came to.
#[derive(Clone, Debug, Serialize)]
#[serde(transparent)]
pub struct Report(pub Vec<Verified>);

impl Report {
    /// Whether everything passed, and something was checked.
    pub fn is_good(&self) -> bool {
        !self.0.is_empty() && self.0.iter().all(|verified| verified.failed.is_none())
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut last = None;
        for Verified { part, check, against, passed, failed, seconds } in &self.0 {
            if last.replace(part) != Some(part) {
                writeln!(f, "{part}, against {against}")?;
            }
            match (passed, failed) {
                (_, Some(failed)) => writeln!(f, "  FAIL: {check}: {failed}")?,
                (passed, None) => {
                    let done = passed.as_deref().unwrap_or_default();
                    writeln!(f, "  {check:<9} ok {seconds:>6.1} s  {done}")?;
                }
            }
        }
        if self.0.is_empty() { writeln!(f, "  FAIL: nothing was checked") } else { Ok(()) }
    }
}

/// Verify.
///
/// # Errors
///
/// [`Error`]: a check could not be made. What does not agree is no error but in the [`Report`].
pub fn run(
    options: &Options,
    cancel: &AtomicBool,
    on: &mut dyn FnMut(String),
) -> Result<Report, Error> {
    let compiler = (options.compiler.as_str(), "gcc");
    host::check(host::FETCHING.into_iter().chain([compiler]))?;
    let cache = Cache::open(&options.cache)?;
    let fetcher = Fetcher { cache: &cache, cancel };
    let mut report = Report(Vec::new());
    for &part in &options.parts {
        on(format!("{part}: finding the packages"));
        let entry = fetcher.entry(part, on)?;
        on(format!("{part}: checking"));
        let scratch = cache.scratch("verify")?;
        let checking = Checking { part, entry: &entry, out: scratch.path() };
        report.0.extend(checking.run(&options.compiler)?);
    }
    Ok(report)
}

/// Commands a second of the queue beside those of the libmlx5 in the cache, as
/// [`libmlx5::rate`] measures them; nothing if there is none in the cache.
///
/// # Errors
///
/// [`Error`]: it could not be measured.
pub fn rate(
    cache: &Path,
    compiler: &str,
    rounds: usize,
    commands: u32,
) -> Result<Option<libmlx5::Rate>, Error> {
    let cache = Cache::open(cache)?;
    let Some(entry) = cache.newest(Part::Libmlx5.entry()) else { return Ok(None) };
    let scratch = cache.scratch("rate")?;
    let programs = Programs::compile(&entry.join(TREE), compiler, scratch.path())?;
    Ok(Some(libmlx5::rate(&programs, rounds, commands)?))
}

/// What a check needs of the distribution.
pub(crate) struct Packages {
    /// The version that names the cache's entry.
    version: String,
    packages: Vec<Package>,
}

impl Wanted for Part {
    type Selection = Packages;

    fn looks_at(&self, name: &str) -> bool {
        match self {
            Self::Headers => is_headers(name),
            Self::Driver => is_source(name),
            Self::Libmlx5 => false,
        }
    }

    fn others(&self) -> &[&str] {
        match self {
            Self::Libmlx5 => &libmlx5::PACKAGES,
            // Without a name apt-cache shows nothing, and with one more nothing goes wrong.
            Self::Headers | Self::Driver => &["linux-libc-dev"],
        }
    }

    fn choose(&self, stanzas: &[Stanza]) -> Result<Packages, lab::Error> {
        let packages = match self {
            Self::Headers => vec![self.newest(stanzas, is_headers, "linux-headers-*-common")?],
            Self::Driver => vec![self.newest(stanzas, is_source, "linux-source-*")?],
            Self::Libmlx5 => {
                let newest = |&name: &&str| self.newest(stanzas, |other| other == name, name);
                libmlx5::PACKAGES.iter().map(newest).collect::<Result<_, _>>()?
            }
        };
        let version = packages.first().map(|first| first.version.clone()).unwrap_or_default();
        Ok(Packages { version, packages })
    }

    fn packages(selection: &Packages) -> Vec<&Package> {
        selection.packages.iter().collect()
    }
}

fn is_headers(name: &str) -> bool {
    name.starts_with("linux-headers-") && name.ends_with("-common")
}

fn is_source(name: &str) -> bool {
    let series = name.strip_prefix("linux-source-");
    series.is_some_and(|series| series.bytes().all(|b| b.is_ascii_digit() || b == b'.'))
}

impl Part {
    fn newest(
        self,
        stanzas: &[Stanza],
        is: impl Fn(&str) -> bool,
        asked: &str,
    ) -> Result<Package, lab::Error> {
        let right = |stanza: &&Stanza| {
            is(&stanza.package)
                && (self == Self::Libmlx5 || packages::upstream(&stanza.version) == Some(SERIES))
        };
        let right: Vec<_> = stanzas.iter().filter(right).cloned().collect();
        let newest = packages::newest(&right, |_| true).map(packages::exact);
        newest.ok_or_else(|| {
            let (major, minor) = SERIES;
            let of =
                if self == Self::Libmlx5 { String::new() } else { format!(" of {major}.{minor}") };
            let mut seen: Vec<_> = stanzas.iter().map(|stanza| stanza.package.as_str()).collect();
            seen.dedup();
            let seen = if seen.is_empty() { "nothing".to_owned() } else { seen.join(", ") };
            lab::Error::NoPackage { asked: format!("{asked}{of}"), seen }
        })
    }
}

/// Gets what is not ours.
struct Fetcher<'a> {
    cache: &'a Cache,
    cancel: &'a AtomicBool,
}

impl Fetcher<'_> {
    /// The cache's entry with what a check needs: that of the newest packages, or without a network
    /// the newest that is there.
    fn entry(&self, part: Part, on: &mut dyn FnMut(String)) -> Result<PathBuf, Error> {
        let mut apt = Apt::new(self.cache.dir("apt"), self.cancel);
        let mut selection = match (apt.select(&part), self.cache.newest(part.entry())) {
            (Ok(selection), _) => selection,
            (Err(lab::Error::NoPackage { .. } | lab::Error::Lists { .. }), Some(entry)) => {
                return Ok(entry);
            }
            (Err(error), _) => return Err(error.into()),
        };
        if let Some(entry) = self.cache.get(&entry_name(part.entry(), &selection.version)) {
            return Ok(entry);
        }
        let names: Vec<_> = selection.packages.iter().map(Package::exact).collect();
        on(format!("{part}: downloading {}", names.join(" ")));
        let downloads = self.cache.dir("downloads");
        let debs = apt.download(&mut selection, &part, &downloads)?;
        let name = entry_name(part.entry(), &selection.version);
        // Had the lists been out of date, what they should have said may be here already.
        let entry = match self.cache.get(&name) {
            Some(entry) => entry,
            None => self.cache.put(&name, |entry| self.unpack(part, &selection, &debs, entry))?,
        };
        for deb in &debs {
            // What is left behind is found again by the next download.
            let _ = fs::remove_file(deb);
        }
        Ok(entry)
    }

    fn unpack(
        &self,
        part: Part,
        selection: &Packages,
        debs: &[PathBuf],
        entry: &Path,
    ) -> Result<(), lab::Error> {
        let against = entry.join(AGAINST);
        let names: Vec<_> = selection.packages.iter().map(Package::exact).collect();
        let text = if part == Part::Libmlx5 { &names[..1] } else { &names[..] }.join(" ");
        fs::write(&against, text).map_err(file("write", &against))?;
        if part != Part::Driver {
            return debs
                .iter()
                .try_for_each(|deb| packages::unpack(deb, &entry.join(TREE), self.cancel));
        }
        let scratch = self.cache.scratch("source")?;
        for deb in debs {
            packages::unpack(deb, scratch.path(), self.cancel)?;
        }
        let needed: Vec<_> = driver::needed().collect();
        let top =
            packages::source_files(scratch.path(), &selection.packages[0], &needed, self.cancel)?;
        fs::rename(&top, entry.join(TREE)).map_err(file("move", &top))
    }
}

/// In an entry: what is in it, and the tree itself.
const AGAINST: &str = "against";
const TREE: &str = "tree";

/// One check, with all that it needs.
struct Checking<'a> {
    part: Part,
    entry: &'a Path,
    /// Where it may work.
    out: &'a Path,
}

/// What it came to: what was done, or what is not as it must be.
type Verdict = Result<String, String>;

impl Checking<'_> {
    fn run(&self, compiler: &str) -> Result<Vec<Verified>, Error> {
        let against = self.entry.join(AGAINST);
        let against = fs::read_to_string(&against).map_err(file("read", &against))?;
        let tree = self.entry.join(TREE);
        let mut verified = Vec::new();
        let mut timed = |check, run: &mut dyn FnMut() -> Result<Verdict, Error>| {
            let started = Instant::now();
            let verdict = run()?;
            let (passed, failed) = (verdict.as_ref().ok().cloned(), verdict.err());
            let (part, against) = (self.part, against.clone());
            let seconds = started.elapsed().as_secs_f64();
            verified.push(Verified { part, check, against, passed, failed, seconds });
            Ok::<(), Error>(())
        };
        match self.part {
            Part::Headers => timed("rows", &mut || rows(&tree, compiler, self.out))?,
            Part::Libmlx5 => timed("transport", &mut || {
                let report = Programs::compile(&tree, compiler, self.out)?.run(None)?;
                Ok(if report.agrees() { Ok(report.to_string()) } else { Err(report.to_string()) })
            })?,
            Part::Driver => {
                let build = Build::new(&tree).compiler(compiler).sanitized();
                let built = build.build(self.out)?;
                for check in CHECKS {
                    timed(check.name, &mut || {
                        Ok(check.run(&built).map_err(|why| why.to_string()))
                    })?;
                }
            }
        }
        Ok(verified)
    }
}

/// Golden rows made anew, against those that are committed, and against the layouts.
fn rows(tree: &Path, compiler: &str, out: &Path) -> Result<Verdict, Error> {
    let rebuilt = headers::rebuild(tree, compiler, out)?;
    let compared = Comparison::of(&headers::committed()?, &rebuilt);
    let differs = rebuilt.iter().filter_map(|row| match row.check() {
        golden::Outcome::Differs(how) => Some(how),
        _ => None,
    });
    let mut wrong: Vec<_> = differs.map(|how| format!("the layout: {how}")).collect();
    wrong.extend(compared.missing.iter().map(|row| format!("only committed: {row}")));
    wrong.extend(compared.extra.iter().map(|row| format!("only in the headers: {row}")));
    Ok(match wrong.split_first() {
        None => Ok(format!("{} rows, and our layouts have each", compared.same)),
        Some((first, rest)) => Err(format!("{first}; {} more", rest.len())),
    })
}
