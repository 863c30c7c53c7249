// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! Which Debian packages are needed, and getting at what is in them without root.
//!
//! Versions are found at run time: old ones vanish from the mirrors within weeks. All four
//! parts of a kernel (image, headers, build tools, source) must be of one version, or the
//! module would be built from another driver than the one whose interfaces it meets.

use std::cmp::Ordering;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::atomic::AtomicBool;
use std::thread;
use std::time::Duration;

use super::error::{Error, file};
use super::host::{self, Said};

/// The first upstream version whose mtty sample can be migrated.
const FIRST_MIGRATABLE: (u32, u32) = (6, 7);

/// How often a step that depends on the network is tried.
const ATTEMPTS: u32 = 3;

/// How long the lab's own package lists are taken as fresh.
const LISTS_AGE: Duration = Duration::from_secs(24 * 60 * 60);

/// A package at a version.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Package {
    pub(crate) name: String,
    pub(crate) version: String,
}

impl Package {
    /// As apt's command line names it.
    pub(crate) fn exact(&self) -> String {
        format!("{}={}", self.name, self.version)
    }
}

/// What is looked for in the package lists.
pub(crate) trait Wanted {
    /// What was found.
    type Selection;

    /// Whether a package whose name begins with `linux-` has to be looked at.
    fn looks_at(&self, name: &str) -> bool;

    /// The names of the others.
    fn others(&self) -> &[&str];

    /// Chooses, by what the lists say of all of them.
    fn choose(&self, stanzas: &[Stanza]) -> Result<Self::Selection, Error>;

    /// The packages of a choice.
    fn packages(selection: &Self::Selection) -> Vec<&Package>;
}

/// A kernel with a sample driver that can be migrated, and a busybox to run on it.
pub(super) struct MigratableKernel<'p> {
    /// A version or release, if it is to be that one.
    pub(super) pin: Option<&'p str>,
}

impl Wanted for MigratableKernel<'_> {
    type Selection = Selection;

    fn looks_at(&self, name: &str) -> bool {
        let parts = ["linux-image-", "linux-headers-", "linux-kbuild-", "linux-source-"];
        parts.iter().any(|part| {
            name.strip_prefix(part).is_some_and(|v| v.starts_with(|c: char| c.is_ascii_digit()))
        })
    }

    fn others(&self) -> &[&str] {
        &["busybox-static"]
    }

    fn choose(&self, stanzas: &[Stanza]) -> Result<Selection, Error> {
        select(stanzas, self.pin)
    }

    fn packages(selection: &Selection) -> Vec<&Package> {
        selection.packages()
    }
}

/// The packages of one kernel, all of one version, and a busybox.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Selection {
    /// The release as `uname -r` has it.
    pub(super) release: String,
    /// The package version.
    pub(super) version: String,
    /// The compiler the headers ask for, such as `gcc-12`.
    pub(super) compiler: String,
    pub(super) image: Package,
    /// Flavour headers, common headers, build tools.
    pub(super) build: [Package; 3],
    pub(super) source: Package,
    pub(super) busybox: Package,
}

impl Selection {
    fn packages(&self) -> Vec<&Package> {
        [&self.image, &self.source, &self.busybox].into_iter().chain(&self.build).collect()
    }
}

/// One paragraph of `apt-cache show`, as far as we read it.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Stanza {
    pub(crate) package: String,
    pub(crate) version: String,
    depends: String,
}

/// Takes `apt-cache show` apart.
fn parse(show: &str) -> Vec<Stanza> {
    show.split("\n\n").map(stanza).filter(|stanza| !stanza.package.is_empty()).collect()
}

fn stanza(text: &str) -> Stanza {
    let mut found = Stanza::default();
    for (key, value) in text.lines().filter_map(|line| line.split_once(": ")) {
        match key {
            "Package" => value.clone_into(&mut found.package),
            "Version" => value.clone_into(&mut found.version),
            "Depends" => value.clone_into(&mut found.depends),
            _ => {}
        }
    }
    found
}

/// The newest kernel of which everything is there; `pin` asks for a version or release.
fn select(stanzas: &[Stanza], pin: Option<&str>) -> Result<Selection, Error> {
    let busybox = newest(stanzas, |name| name == "busybox-static");
    let kernels = stanzas.iter().filter_map(|image| kernel(image, stanzas, busybox?));
    kernels
        .filter(|found| pin.is_none_or(|pin| pin == found.version || pin == found.release))
        .max_by(|a, b| compare_versions(&a.version, &b.version))
        .ok_or_else(|| no_kernel(stanzas, pin, busybox.is_some()))
}

/// The newest package with such a name.
pub(crate) fn newest(stanzas: &[Stanza], is: impl Fn(&str) -> bool) -> Option<&Stanza> {
    let named = stanzas.iter().filter(|stanza| is(&stanza.package));
    named.max_by(|a, b| compare_versions(&a.version, &b.version))
}

/// The selection this image stands for, when the rest of it is there.
fn kernel(image: &Stanza, all: &[Stanza], busybox: &Stanza) -> Option<Selection> {
    let release = image.package.strip_prefix("linux-image-")?;
    let flavourless = release.strip_suffix("-amd64")?;
    // The cloud kernel lacks mdev, the realtime one is another kernel.
    let other = ["-cloud", "-rt"].iter().any(|flavour| flavourless.ends_with(flavour));
    if other || upstream(&image.version)? < FIRST_MIGRATABLE {
        return None;
    }
    let find = |wanted: &dyn Fn(&str) -> bool| {
        all.iter().find(|stanza| stanza.version == image.version && wanted(&stanza.package))
    };
    let headers_name = format!("linux-headers-{release}");
    let headers = find(&|name| name == headers_name)?;
    let needs: Vec<&str> = needs(&headers.depends).collect();
    let need = |wanted: &dyn Fn(&str) -> bool| needs.iter().copied().find(|name| wanted(name));
    let common = need(&|name| name.starts_with("linux-headers-") && name.ends_with("-common"))?;
    let kbuild = need(&|name| name.starts_with("linux-kbuild-"))?;
    let source = find(&|name| name.starts_with("linux-source-"))?;
    Some(Selection {
        release: release.to_owned(),
        version: image.version.clone(),
        compiler: compiler(&needs)?,
        image: exact(image),
        build: [exact(headers), exact(find(&|n| n == common)?), exact(find(&|n| n == kbuild)?)],
        source: exact(source),
        busybox: exact(busybox),
    })
}

pub(crate) fn exact(stanza: &Stanza) -> Package {
    Package { name: stanza.package.clone(), version: stanza.version.clone() }
}

/// The names in a Depends field; of alternatives the first.
fn needs(depends: &str) -> impl Iterator<Item = &str> {
    depends.split(',').filter_map(|term| term.split_whitespace().next())
}

/// `gcc-12` from a dependency on it or on `linux-compiler-gcc-12-x86`.
fn compiler(needs: &[&str]) -> Option<String> {
    needs.iter().find_map(|name| {
        let name = name.strip_prefix("linux-compiler-").unwrap_or(name);
        let number = name.strip_prefix("gcc-")?.split('-').next()?;
        (!number.is_empty() && number.bytes().all(|b| b.is_ascii_digit()))
            .then(|| format!("gcc-{number}"))
    })
}

/// Major and minor of a kernel package's version.
pub(crate) fn upstream(version: &str) -> Option<(u32, u32)> {
    let mut numbers = version.split(|c: char| !c.is_ascii_digit()).map(str::parse);
    Some((numbers.next()?.ok()?, numbers.next()?.ok()?))
}

fn no_kernel(stanzas: &[Stanza], pin: Option<&str>, busybox: bool) -> Error {
    let mut seen: Vec<String> = stanzas
        .iter()
        .filter(|stanza| stanza.package.starts_with("linux-source-"))
        .map(|stanza| format!("{} {}", stanza.package, stanza.version))
        .collect();
    seen.sort_unstable();
    seen.dedup();
    let sources = if seen.is_empty() { "no linux-source-*".to_owned() } else { seen.join(", ") };
    let (major, minor) = FIRST_MIGRATABLE;
    Error::NoKernel {
        asked: match pin {
            Some(pin) => format!("kernel {pin} (image, headers, kbuild and source of one version)"),
            None => format!(
                "an amd64 kernel from {major}.{minor} on (image, headers, kbuild and source of \
                 one version) and busybox-static"
            ),
        },
        seen: format!("{sources}; {} busybox-static", if busybox { "a" } else { "no" }),
    }
}

/// Orders versions as dpkg does (deb-version(7)).
pub(crate) fn compare_versions(a: &str, b: &str) -> Ordering {
    let (epoch_a, rest_a) = epoch(a);
    let (epoch_b, rest_b) = epoch(b);
    let (upstream_a, revision_a) = rest_a.rsplit_once('-').unwrap_or((rest_a, ""));
    let (upstream_b, revision_b) = rest_b.rsplit_once('-').unwrap_or((rest_b, ""));
    epoch_a
        .cmp(&epoch_b)
        .then_with(|| compare_part(upstream_a, upstream_b))
        .then_with(|| compare_part(revision_a, revision_b))
}

fn epoch(version: &str) -> (u64, &str) {
    match version.split_once(':') {
        Some((epoch, rest)) => (epoch.parse().unwrap_or(0), rest),
        None => (0, version),
    }
}

/// Alternates between a run of non-digits and a number, as dpkg does.
fn compare_part(mut a: &str, mut b: &str) -> Ordering {
    while !(a.is_empty() && b.is_empty()) {
        let (text_a, rest_a) = a.split_at(a.find(|c: char| c.is_ascii_digit()).unwrap_or(a.len()));
        let (text_b, rest_b) = b.split_at(b.find(|c: char| c.is_ascii_digit()).unwrap_or(b.len()));
        let (number_a, next_a) = leading_number(rest_a);
        let (number_b, next_b) = leading_number(rest_b);
        let order = compare_text(text_a, text_b).then_with(|| number_a.cmp(&number_b));
        if order.is_ne() {
            return order;
        }
        (a, b) = (next_a, next_b);
    }
    Ordering::Equal
}

fn leading_number(text: &str) -> (u64, &str) {
    let end = text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len());
    let (digits, rest) = text.split_at(end);
    (digits.parse().unwrap_or(0), rest)
}

/// `~` before the end, the end before letters, letters before the rest.
fn compare_text(a: &str, b: &str) -> Ordering {
    let weight = |c: Option<u8>| match c {
        Some(b'~') => -1,
        None => 0,
        Some(c) if c.is_ascii_alphabetic() => i32::from(c),
        Some(c) => i32::from(c) + 256,
    };
    (0..a.len().max(b.len()))
        .map(|i| weight(a.as_bytes().get(i).copied()).cmp(&weight(b.as_bytes().get(i).copied())))
        .find(|order| order.is_ne())
        .unwrap_or(Ordering::Equal)
}

/// The host's apt, with its lists or with lists of our own.
pub(crate) struct Apt<'a> {
    /// Where our own lists are.
    state: PathBuf,
    own_lists: bool,
    /// Whether packages are of a suite that the host may not have, and so of no use to the host.
    foreign: bool,
    cancel: &'a AtomicBool,
}

impl<'a> Apt<'a> {
    /// `state` is where lists of our own may be kept.
    pub(crate) fn new(state: PathBuf, cancel: &'a AtomicBool) -> Self {
        Self { state, own_lists: false, foreign: false, cancel }
    }

    /// Packages of this suite of Debian, whatever the host is; `state` is where its lists are kept.
    pub(crate) fn of_suite(
        state: PathBuf,
        suite: &str,
        cancel: &'a AtomicBool,
    ) -> Result<Self, Error> {
        fs::create_dir_all(&state).map_err(file("create", &state))?;
        // Nothing is installed as far as this apt knows, so that it names every dependency.
        for (name, text) in [(SOURCES, source_of(suite)), (NOTHING_INSTALLED, String::new())] {
            let path = state.join(name);
            fs::write(&path, text).map_err(file("write", &path))?;
        }
        Ok(Self { state, own_lists: false, foreign: true, cancel })
    }

    /// The newest version of a package, by lists that are fresh enough.
    pub(crate) fn newest(&mut self, name: &str) -> Result<Package, Error> {
        self.use_own_lists(LISTS_AGE)?;
        let mut show = self.command("apt-cache");
        show.args(["show", name]);
        let stanzas = parse(&host::run(show, self.cancel)?.stdout);
        newest(&stanzas, |found| found == name).map(exact).ok_or_else(|| Error::NoPackage {
            asked: name.to_owned(),
            seen: format!("{} others", stanzas.len()),
        })
    }

    /// Downloads a package and all that it depends on, by what this apt takes for installed.
    pub(crate) fn fetch_with_dependencies(
        &self,
        package: &Package,
        into: &Path,
    ) -> Result<Vec<PathBuf>, Error> {
        let partial = into.join("partial");
        fs::create_dir_all(&partial).map_err(file("create", &partial))?;
        let said = self.patiently(|| {
            let mut apt = self.command("apt-get");
            apt.arg("-o").arg(format!("Dir::Cache::archives={}", into.display()));
            apt.args(["--yes", "--download-only", "--no-install-recommends", "install"]);
            apt.arg(package.exact());
            apt
        })?;
        said.map_err(|(attempts, said)| Error::Download {
            packages: package.exact(),
            attempts,
            said: said.tail(),
        })?;
        let all = fs::read_dir(into).map_err(file("list", into))?;
        let paths = all.flatten().map(|entry| entry.path());
        Ok(paths.filter(|path| path.extension().is_some_and(|end| end == "deb")).collect())
    }

    /// Chooses: by the host's lists, and where they have too little by fresh ones.
    pub(crate) fn select<W: Wanted>(&mut self, wanted: &W) -> Result<W::Selection, Error> {
        match wanted.choose(&self.stanzas(wanted)?) {
            Err(error) if error.is_about_lists() && !self.own_lists => {
                self.use_own_lists(LISTS_AGE)?;
                wanted.choose(&self.stanzas(wanted)?)
            }
            other => other,
        }
    }

    /// Downloads the packages of a selection. If the lists named packages that are gone, makes
    /// a new selection by fresh lists.
    pub(crate) fn download<W: Wanted>(
        &mut self,
        selection: &mut W::Selection,
        wanted: &W,
        into: &Path,
    ) -> Result<Vec<PathBuf>, Error> {
        match self.fetch(&W::packages(selection), into) {
            Err(Error::Download { .. }) if !self.own_lists => {
                // The host's lists may be older than the mirror, which drops old versions.
                self.use_own_lists(Duration::ZERO)?;
                *selection = self.select(wanted)?;
                self.fetch(&W::packages(selection), into)
            }
            other => other,
        }
    }

    /// Downloads exactly these.
    pub(crate) fn fetch(&self, packages: &[&Package], into: &Path) -> Result<Vec<PathBuf>, Error> {
        fs::create_dir_all(into).map_err(file("create", into))?;
        let names: Vec<String> = packages.iter().map(|package| package.exact()).collect();
        let said = self.patiently(|| {
            let mut apt = self.command("apt-get");
            apt.current_dir(into).arg("download").args(&names);
            apt
        })?;
        said.map_err(|(attempts, said)| Error::Download {
            packages: names.join(" "),
            attempts,
            said: said.tail(),
        })?;
        packages.iter().map(|package| downloaded(package, into)).collect()
    }

    /// What the lists know of all that has to be looked at.
    fn stanzas(&self, wanted: &impl Wanted) -> Result<Vec<Stanza>, Error> {
        let mut names = self.command("apt-cache");
        names.args(["pkgnames", "linux-"]);
        let names = host::run(names, self.cancel)?.stdout;
        let mut show = self.command("apt-cache");
        show.arg("show").args(wanted.others());
        show.args(names.lines().filter(|name| wanted.looks_at(name)));
        // It fails when one name has no candidate, and still shows the others.
        Ok(parse(&host::run(show, self.cancel)?.stdout))
    }

    /// Turns to lists of our own, updating them when they are older than `age`.
    fn use_own_lists(&mut self, age: Duration) -> Result<(), Error> {
        self.own_lists = true;
        for part in ["state/lists/partial", "cache/archives/partial"] {
            let dir = self.state.join(part);
            fs::create_dir_all(&dir).map_err(file("create", &dir))?;
        }
        let stamp = self.state.join("updated");
        let updated = stamp.metadata().and_then(|meta| meta.modified());
        if updated.is_ok_and(|time| time.elapsed().is_ok_and(|elapsed| elapsed < age)) {
            return Ok(());
        }
        self.patiently(|| {
            let mut apt = self.command("apt-get");
            // Without this a failed source is only a warning, and old lists pass for new.
            apt.args(["-o", "APT::Update::Error-Mode=any", "update"]);
            apt
        })?
        .map_err(|(attempts, said)| Error::Lists { attempts, said: said.tail() })?;
        fs::write(&stamp, "").map_err(file("write", &stamp))
    }

    /// Tries a step that may fail for reasons of the network; the last failure is handed back, with
    /// the number of attempts.
    fn patiently(&self, step: impl Fn() -> Command) -> Result<Result<(), (u32, Said)>, Error> {
        let mut attempt = 1;
        loop {
            let said = host::run(step(), self.cancel)?;
            if said.status.success() {
                return Ok(Ok(()));
            }
            // A mirror that says nothing has had its time, for each of the files.
            if attempt == ATTEMPTS || said.tail().contains("timed out") {
                return Ok(Err((attempt, said)));
            }
            thread::sleep(Duration::from_secs(u64::from(attempt)));
            attempt += 1;
        }
    }

    fn command(&self, program: &str) -> Command {
        let mut command = host::command(program);
        command.env("LC_ALL", "C").args(["-q", "-o", "Acquire::Languages=none"]);
        // What is tried again is tried by us.
        for option in
            ["Acquire::Retries=0", "Acquire::http::Timeout=15", "Acquire::https::Timeout=15"]
        {
            command.args(["-o", option]);
        }
        // As root apt would turn into a user who may not write into our directories.
        command.args(["-o", "APT::Sandbox::User=root"]);
        if self.own_lists {
            for (option, part) in [("Dir::State", "state"), ("Dir::Cache", "cache")] {
                command.arg("-o").arg(format!("{option}={}", self.state.join(part).display()));
            }
            let status = match self.foreign {
                true => self.state.join(NOTHING_INSTALLED),
                false => PathBuf::from("/var/lib/dpkg/status"),
            };
            command.arg("-o").arg(format!("Dir::State::status={}", status.display()));
        }
        if self.foreign {
            let sources = self.state.join(SOURCES);
            command.arg("-o").arg(format!("Dir::Etc::sourcelist={}", sources.display()));
            command.args(["-o", "Dir::Etc::sourceparts=/dev/null"]);
        }
        command
    }
}

/// Files that an apt of a suite of its own has beside its lists.
const SOURCES: &str = "sources.list";
const NOTHING_INSTALLED: &str = "status";

/// The line of a sources.list for a suite. Debian's keys of today sign its suites of tomorrow, so the
/// host's keyring knows newer ones too.
fn source_of(suite: &str) -> String {
    format!(
        "deb [signed-by=/usr/share/keyrings/debian-archive-keyring.gpg] \
         http://deb.debian.org/debian {suite} main\n"
    )
}

/// The file apt made of a package: name, version with `:` quoted, architecture.
fn downloaded(package: &Package, dir: &Path) -> Result<PathBuf, Error> {
    let stem = format!("{}_{}_", package.name, package.version.replace(':', "%3a"));
    // A download that did not have the bytes it should is put aside with one more ending.
    let is_it = |name: &str| name.starts_with(&stem) && name.ends_with(".deb");
    let entries = fs::read_dir(dir).map_err(file("list", dir))?;
    entries
        .flatten()
        .find(|entry| is_it(&entry.file_name().to_string_lossy()))
        .map(|entry| entry.path())
        .ok_or_else(|| Error::NotInPackage {
            package: format!("the download of {}", package.exact()),
            file: format!("{stem}*.deb"),
        })
}

/// Unpacks a package below `into`, as files of the calling user.
pub(crate) fn unpack(deb: &Path, into: &Path, cancel: &AtomicBool) -> Result<(), Error> {
    let mut dpkg = host::command("dpkg-deb");
    dpkg.arg("-x").arg(deb).arg(into);
    succeed(host::run(dpkg, cancel)?, deb)
}

/// Takes files out of the source package, unpacked below `root`, and returns the top of the tree
/// in which they are.
pub(crate) fn source_files(
    root: &Path,
    source: &Package,
    names: &[&str],
    cancel: &AtomicBool,
) -> Result<PathBuf, Error> {
    let missing = |file: &str| Error::NotInPackage { package: source.exact(), file: file.into() };
    let tarball = root.join(format!("usr/src/{}.tar.xz", source.name));
    if !tarball.exists() {
        return Err(missing(&format!("usr/src/{}.tar.xz", source.name)));
    }
    let top = root.join(&source.name);
    let mut tar = host::command("tar");
    // Stops at the last file instead of decompressing the gigabyte behind it.
    tar.args(["--occurrence=1", "-xJf"]).arg(&tarball).arg("-C").arg(root);
    tar.args(names.iter().map(|name| format!("{}/{name}", source.name)));
    let said = host::run(tar, cancel)?;
    let absent = names.iter().find(|name| !top.join(name).exists());
    if let Some(absent) = absent.filter(|_| said.tail().contains("Not found")) {
        return Err(missing(&format!("{}/{absent}", source.name)));
    }
    succeed(said, &tarball)?;
    Ok(top)
}

fn succeed(said: Said, package: &Path) -> Result<(), Error> {
    if said.status.success() {
        return Ok(());
    }
    Err(Error::Unpack { package: package.to_owned(), said: said.tail() })
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A kernel's paragraphs as `apt-cache show` prints them, shortened.
    fn shown(release: &str, version: &str) -> String {
        let abi = release.strip_suffix("-amd64").expect("a release");
        let series: Vec<&str> = version.split('.').take(2).collect();
        let series = series.join(".");
        format!(
            "Package: linux-image-{release}\nSource: linux-signed-amd64 (1)\nVersion: {version}\n\
             Depends: kmod, initramfs-tools (>= 0.120+deb8u2) | linux-initramfs-tool\n\n\
             Package: linux-headers-{release}\nVersion: {version}\nDepends: linux-base (>= 4.12~), \
             linux-headers-{abi}-common (= {version}), linux-image-{release} (= {version}) | \
             linux-image-{release}-unsigned (= {version}), linux-kbuild-{abi}, gcc-12\n\n\
             Package: linux-headers-{abi}-common\nVersion: {version}\n\n\
             Package: linux-kbuild-{abi}\nVersion: {version}\nDepends: libc6 (>= 2.34), pahole\n\n\
             Package: linux-source-{series}\nVersion: {version}\nDepends: binutils, xz-utils\n\n"
        )
    }

    const BUSYBOX: &str = "Package: busybox-static\nVersion: 1:1.35.0-4+b1\n\n";

    #[test]
    fn the_newest_complete_kernel_is_chosen() {
        let newest_has_no_source = shown("6.12.117+deb12-amd64", "6.12.117-1~deb12u1")
            .replace("Package: linux-source-6.12\n", "Package: linux-doc-6.12\n");
        let text = [
            shown("6.12.9+deb12-amd64", "6.12.9-1~deb12u1"),
            newest_has_no_source,
            shown("6.12.115+deb12-amd64", "6.12.115-2~deb12u1"),
            BUSYBOX.to_owned(),
        ]
        .concat();
        let chosen = select(&parse(&text), None).expect("a complete one is there");
        assert_eq!(chosen.release, "6.12.115+deb12-amd64");
        assert_eq!(chosen.compiler, "gcc-12");
        let names: Vec<String> = chosen.packages().into_iter().map(Package::exact).collect();
        assert_eq!(
            names,
            [
                "linux-image-6.12.115+deb12-amd64=6.12.115-2~deb12u1",
                "linux-source-6.12=6.12.115-2~deb12u1",
                "busybox-static=1:1.35.0-4+b1",
                "linux-headers-6.12.115+deb12-amd64=6.12.115-2~deb12u1",
                "linux-headers-6.12.115+deb12-common=6.12.115-2~deb12u1",
                "linux-kbuild-6.12.115+deb12=6.12.115-2~deb12u1",
            ]
        );
    }

    #[test]
    fn parts_of_different_versions_do_not_make_a_kernel() {
        let text = shown("6.12.9-amd64", "6.12.9-1").replace(
            "Package: linux-source-6.12\nVersion: 6.12.9-1\n",
            "Package: linux-source-6.12\nVersion: 6.12.8-1\n",
        ) + BUSYBOX;
        let error = select(&parse(&text), None).expect_err("the source is another").to_string();
        assert!(error.contains("linux-source-6.12 6.12.8-1; a busybox-static"), "{error}");
    }

    #[test]
    fn other_flavours_and_kernels_without_the_migratable_driver_are_not_taken() {
        for release in ["6.12.9-cloud-amd64", "6.12.9-rt-amd64"] {
            let text = shown(release, "6.12.9-1") + BUSYBOX;
            assert!(
                matches!(select(&parse(&text), None), Err(Error::NoKernel { .. })),
                "{release}"
            );
        }
        let old = shown("6.1.0-50-amd64", "6.1.187-1") + BUSYBOX;
        assert!(matches!(select(&parse(&old), None), Err(Error::NoKernel { .. })));
        let unsigned = shown("6.12.9-amd64", "6.12.9-1")
            .replace("Package: linux-image-6.12.9-amd64\n", "Package: linux-image-6.12.9-amd64-un")
            + BUSYBOX;
        assert!(matches!(select(&parse(&unsigned), None), Err(Error::NoKernel { .. })));
    }

    #[test]
    fn a_pin_takes_an_older_one_and_an_unknown_pin_none() {
        let text = [
            shown("6.12.9-amd64", "6.12.9-1"),
            shown("6.12.10-amd64", "6.12.10-1"),
            BUSYBOX.to_owned(),
        ]
        .concat();
        for pin in ["6.12.9-1", "6.12.9-amd64"] {
            assert_eq!(select(&parse(&text), Some(pin)).expect("there").version, "6.12.9-1");
        }
        assert!(matches!(select(&parse(&text), Some("6.12.11-1")), Err(Error::NoKernel { .. })));
    }

    #[test]
    fn without_busybox_the_error_says_so() {
        let error =
            select(&parse(&shown("6.12.9-amd64", "6.12.9-1")), None).expect_err("no busybox");
        assert!(error.to_string().contains("no busybox-static"), "{error}");
    }

    #[test]
    fn versions_are_ordered_as_dpkg_orders_them() {
        let ascending = [
            "6.9.7-1",
            "6.12.9-1~bpo12+1",
            "6.12.9-1",
            "6.12.9-1+b1",
            "6.12.10-1~deb12u1",
            "6.12.10-1~deb12u2",
            "6.12.10-1",
            "7.0~rc3-1",
            "7.0-1",
            "1:1.0-1",
        ];
        for (i, a) in ascending.iter().enumerate() {
            for (j, b) in ascending.iter().enumerate() {
                assert_eq!(compare_versions(a, b), i.cmp(&j), "{a} against {b}");
            }
        }
    }
}
