// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! A distribution's libmlx5, as it is, on the firmware in software.
//!
//! libmlx5 has a driver for a physical function that user space owns through VFIO. Here it gets a
//! VFIO device that is not there: a shim, preloaded into its process, answers `open`, `stat`,
//! `readlink` and `ioctl` for it. BAR0 is memory that the firmware maps, too, and whatever libmlx5
//! maps for DMA is made memory of a file whose offsets are the IOVAs. So nothing stands between
//! the two but what would also be there with hardware: registers, memory, and interrupts, which are
//! eventfds. No root, no KVM, no device.
//!
//! [`run`] has a client bring a function up, with more than a thousand pages, and then migrate one
//! VHCA to another by the five commands, encoded by hand in C, through libmlx5's general command
//! call: STOP_COPY, PRE_COPY and in chunks, with what is to be refused. A [`Slip`] is one bit wrong
//! in between; [`SLIPS`] are some that must be noticed. [`rate`] is about speed.

mod host;
mod programs;
mod rate;
mod slip;
#[cfg(test)]
mod tests;

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{self, BufRead, BufReader};
use std::os::fd::OwnedFd;
use std::os::unix::fs::FileExt;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, OnceLock};
use std::{fmt, fs, thread};

use nix::sys::memfd::{MFdFlags, memfd_create};

pub use self::programs::{PACKAGES, Programs};
pub use self::rate::{Rate, rate};
pub use self::slip::Slip;

use self::host::{ARENA_BYTES, Host, Vectors};
use self::slip::Memory;
use super::headers::VerifyError;
use crate::dma::DmaSpace;
use crate::firmware::{BAR_BYTES, Checks, Config, Firmware, LogEntry, VhcaConfig};
use crate::layout::{CommandStatus, DeliveryStatus, Opcode};

/// The VHCA that is migrated, and the one that it is migrated to.
const SOURCE: u16 = 0x1234;
const DESTINATION: u16 = 0x2345;
/// Not whole pages, and not more than a memory region of the client's.
const IMAGE_BYTES: u64 = (3 << 20) + 1234;
/// Pages that are asked for at first, and then in one list, which needs 16 mailboxes.
const BOOT_PAGES: u32 = 77;
const INIT_PAGES: u32 = 1000;
/// The longest that a client lives, in seconds: with and without something to notice. Far more than
/// it needs.
const LONGEST: u32 = 120;
const LONGEST_WITH_SLIP: u32 = 10;
const SLIPS_AT_A_TIME: usize = 6;

/// One thing that was checked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Check {
    /// Whether it is as it must be.
    pub ok: bool,
    /// What was checked, and what there was.
    pub what: String,
}

/// What came of a run.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Report {
    /// What was checked, in order.
    pub checks: Vec<Check>,
    /// Commands that the firmware got.
    pub commands: usize,
    /// The libmlx5 that gave them.
    pub library: PathBuf,
    /// What was written to standard error, by libmlx5's assertions above all.
    pub said: String,
}

impl Report {
    /// Whether everything is as it must be.
    pub fn agrees(&self) -> bool {
        self.failed().next().is_none()
    }

    /// What is not as it must be.
    pub fn failed(&self) -> impl Iterator<Item = &Check> {
        self.checks.iter().filter(|check| !check.ok)
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for failed in self.failed() {
            writeln!(f, "no: {}", failed.what)?;
        }
        if !self.agrees() && !self.said.is_empty() {
            writeln!(f, "on standard error: {}", self.said.trim_end())?;
        }
        let (all, failed) = (self.checks.len(), self.failed().count());
        let name = self.library.file_name().unwrap_or_default().display();
        write!(f, "{name}: {} commands, {all} checks, {failed} failed", self.commands)
    }
}

/// Compiles shim and client, and runs them once.
///
/// `packages` is a directory into which [`PACKAGES`] are unpacked, `cc` a C compiler, `out` a
/// directory for the two programs.
///
/// # Errors
///
/// [`VerifyError`]: something is missing. What does not agree is no error; see [`Report`].
pub fn run(packages: &Path, cc: &str, out: &Path) -> Result<Report, VerifyError> {
    Programs::compile(packages, cc, out)?.run(None)
}

impl Programs {
    /// Runs them, with one bit wrong or none.
    ///
    /// # Errors
    ///
    /// [`VerifyError`]: the system gives no process or no memory.
    pub fn run(&self, slip: Option<Slip>) -> Result<Report, VerifyError> {
        let stage = Stage::new(config(), slip).map_err(VerifyError::System)?;
        let pages = BOOT_PAGES + INIT_PAGES;
        let numbers = [pages.into(), IMAGE_BYTES, SOURCE.into(), DESTINATION.into()];
        let longest = if slip.is_some() { LONGEST_WITH_SLIP } else { LONGEST };
        let mut arguments = vec![longest.to_string(), "check".to_owned()];
        arguments.extend(numbers.map(|number: u64| number.to_string()));
        let played = stage.play(self, &arguments, &mut |_| false)?;
        let mut checks = played.checks;
        checks.push(Check {
            ok: played.status.success(),
            what: format!("the client's end: {}", played.status),
        });
        checks.push(Check {
            ok: played.uses.as_deref().is_some_and(|path| self.is_library(path)),
            what: format!("the client uses {}", played.uses.as_deref().unwrap_or("nothing")),
        });
        checks.extend(stage.checks(&played.mapped));
        let commands = stage.firmware.log().len();
        Ok(Report { checks, commands, library: self.library.clone(), said: played.said })
    }

    /// Runs them again with each of [`SLIPS`], some at a time. What came of each, in that order.
    ///
    /// # Errors
    ///
    /// [`VerifyError`]: the system gives no process or no memory.
    pub fn run_slips(&self) -> Result<Vec<(&'static str, Report)>, VerifyError> {
        // Most of the time is spent waiting for clients that wait for what does not come.
        let next = AtomicUsize::new(0);
        let reports: Vec<_> = SLIPS.iter().map(|_| OnceLock::new()).collect();
        let take = || {
            while let Some(n) =
                Some(next.fetch_add(1, Ordering::Relaxed)).filter(|n| *n < SLIPS.len())
            {
                let _ = reports[n].set(self.run(Some(SLIPS[n].1)));
            }
        };
        thread::scope(|scope| {
            for _ in 0..SLIPS_AT_A_TIME {
                scope.spawn(take);
            }
        });
        let reports = SLIPS.iter().zip(reports);
        reports
            .filter_map(|((about, _), report)| Some(report.into_inner()?.map(|r| (*about, r))))
            .collect()
    }

    fn is_library(&self, path: &str) -> bool {
        fs::canonicalize(path).is_ok_and(|path| path == self.library)
    }
}

/// A firmware that wants many pages, as strict as libmlx5 allows.
fn config() -> Config {
    let vhca = |vhca_id, seed| VhcaConfig {
        vhca_id,
        seed,
        image_bytes: IMAGE_BYTES,
        ..VhcaConfig::default()
    };
    Config {
        vhcas: vec![vhca(SOURCE, 1), vhca(DESTINATION, 2)],
        checks: Checks { reserved: true, ..Checks::LENIENT },
        boot_pages: BOOT_PAGES,
        init_pages: INIT_PAGES,
        log_entries: 1 << 16,
        ..Config::default()
    }
    .with_chunks()
}

/// A firmware and the memory that it has in common with a client.
struct Stage {
    firmware: Firmware,
    space: DmaSpace,
    arena: Arc<File>,
    vectors: Arc<Vectors>,
}

/// What a client left.
struct Played {
    checks: Vec<Check>,
    uses: Option<String>,
    status: ExitStatus,
    said: String,
    mapped: BTreeMap<u64, u64>,
}

impl Stage {
    fn new(config: Config, slip: Option<Slip>) -> io::Result<Self> {
        let arena = File::from(memfd_create("mlx5-dma", MFdFlags::MFD_CLOEXEC)?);
        arena.set_len(ARENA_BYTES)?;
        let space = DmaSpace::new(0);
        let firmware = Firmware::new(config, Memory::new(space.clone(), slip));
        let firmware = firmware.map_err(io::Error::other)?;
        if let Some(slip) = slip {
            slip.spoil_bar(firmware.bar_file())?;
        }
        let vectors = Arc::new(Vectors::default());
        if slip != Some(Slip::Silence) {
            let vectors = vectors.clone();
            firmware.on_interrupt(move |vector| vectors.signal(vector));
        }
        Ok(Self { firmware, space, arena: Arc::new(arena), vectors })
    }

    /// Runs the client to its end.
    fn play(
        &self,
        programs: &Programs,
        arguments: &[String],
        round: &mut (dyn FnMut(u64) -> bool + Send),
    ) -> Result<Played, VerifyError> {
        let running = self.firmware.spawn().map_err(VerifyError::System)?;
        let (socket, theirs) = UnixStream::pair().map_err(VerifyError::System)?;
        let mut client = Client::start(programs, arguments, theirs)?;
        let mut host = Host {
            firmware: &self.firmware,
            space: self.space.clone(),
            arena: self.arena.clone(),
            vectors: self.vectors.clone(),
            round,
            mapped: BTreeMap::new(),
        };
        let (lines, said, served) = thread::scope(|scope| {
            let serving = scope.spawn(|| host.serve(&socket));
            let (stdout, stderr) = (client.0.stdout.take(), client.0.stderr.take());
            let saying = scope.spawn(move || stderr.map(io::read_to_string).transpose());
            let lines: Vec<_> =
                stdout.into_iter().flat_map(|stdout| BufReader::new(stdout).lines()).collect();
            (lines, saying.join(), serving.join())
        });
        let status = client.0.wait().map_err(VerifyError::System)?;
        running.stop();
        // Neither thread panics; and if one did, it has said so.
        let said = said.ok().and_then(Result::ok).flatten().unwrap_or_default();
        if let Ok(served) = served {
            served.map_err(VerifyError::System)?;
        }
        let mut played =
            Played { checks: Vec::new(), uses: None, status, said, mapped: host.mapped };
        for line in lines.into_iter().map_while(Result::ok) {
            played.take(&line);
        }
        Ok(played)
    }

    /// What only this side can see.
    fn checks(&self, mapped: &BTreeMap<u64, u64>) -> Vec<Check> {
        let log = self.firmware.log();
        let opcodes: Vec<_> = log.iter().map(|entry| entry.opcode).collect();
        let undelivered = log.iter().filter(|entry| entry.delivery != DeliveryStatus::Ok).count();
        let ends = log.iter().take(BRING_UP.len()).chain(log.iter().rev().take(TAKE_DOWN.len()));
        let refused = ends.filter(|entry| entry.status != CommandStatus::Ok).count();
        let mut command = [0; 2];
        let read = self.firmware.bar_file().read_exact_at(&mut command, PCI_COMMAND);
        let command = u16::from_le_bytes(command);
        let given = log.iter().map(pages_given).max().unwrap_or(0);
        vec![
            Check {
                ok: opcodes.starts_with(&BRING_UP),
                what: format!("bringing up is {}", names(opcodes.iter().take(BRING_UP.len()))),
            },
            Check {
                ok: opcodes.ends_with(&TAKE_DOWN),
                what: format!(
                    "taking down is {}",
                    names(opcodes.iter().skip(opcodes.len().saturating_sub(TAKE_DOWN.len())))
                ),
            },
            Check { ok: refused == 0, what: format!("{refused} of those are refused") },
            Check {
                ok: MIGRATION.iter().all(|opcode| opcodes.contains(opcode)),
                what: "each of the five commands was given".to_owned(),
            },
            Check {
                ok: undelivered == 0,
                what: format!("{undelivered} of {} commands were not delivered", log.len()),
            },
            Check {
                ok: given == INIT_PAGES as usize,
                what: format!("at most {given} pages ({INIT_PAGES}) came in one list"),
            },
            Check {
                ok: read.is_ok() && command & 0b110 == 0b110,
                what: format!("memory and bus mastering are on: PCI command {command:#06x}"),
            },
            Check {
                ok: mapped.is_empty(),
                what: format!("{} mappings for DMA are left", mapped.len()),
            },
        ]
    }
}

/// Where the shim has the command register of PCI: configuration space comes after BAR0.
const PCI_COMMAND: u64 = BAR_BYTES as u64 + 4;

/// What libmlx5 sends to bring the function up.
const BRING_UP: [Opcode; 15] = [
    Opcode::EnableHca,
    Opcode::QueryIssi,
    Opcode::SetIssi,
    Opcode::QueryPages,
    Opcode::ManagePages,
    Opcode::AccessReg,
    Opcode::QueryHcaCap,
    Opcode::QueryHcaCap,
    Opcode::SetHcaCap,
    Opcode::QueryPages,
    Opcode::ManagePages,
    Opcode::InitHca,
    Opcode::ModifyNicVportContext,
    Opcode::AllocUar,
    Opcode::CreateEq,
];

const TAKE_DOWN: [Opcode; 3] = [Opcode::DestroyEq, Opcode::DeallocUar, Opcode::TeardownHca];

const MIGRATION: [Opcode; 5] = [
    Opcode::SuspendVhca,
    Opcode::ResumeVhca,
    Opcode::QueryVhcaMigrationState,
    Opcode::SaveVhcaState,
    Opcode::LoadVhcaState,
];

/// How many pages are in a list that the firmware was given.
fn pages_given(entry: &LogEntry) -> usize {
    match entry.opcode {
        Opcode::ManagePages => entry.input_len.saturating_sub(16) / 8,
        _ => 0,
    }
}

fn names<'a>(opcodes: impl Iterator<Item = &'a Opcode>) -> String {
    let names: Vec<_> = opcodes.map(|opcode| opcode.name().unwrap_or("?")).collect();
    names.join(" ")
}

impl Played {
    fn take(&mut self, line: &str) {
        match line.split_once(' ') {
            Some((ok @ ("ok" | "no"), what)) => {
                self.checks.push(Check { ok: ok == "ok", what: what.to_owned() });
            }
            Some(("uses", path)) => self.uses = Some(path.to_owned()),
            _ => self.checks.push(Check { ok: false, what: format!("unknown line: {line}") }),
        }
    }
}

/// A client's process, which does not outlive this value.
struct Client(Child);

impl Client {
    fn start(
        programs: &Programs,
        arguments: &[String],
        socket: UnixStream,
    ) -> Result<Self, VerifyError> {
        let mut command = Command::new(&programs.client);
        command
            .args(arguments)
            .env("LD_PRELOAD", &programs.shim)
            .env("LD_LIBRARY_PATH", &programs.library_path)
            .stdin(Stdio::from(OwnedFd::from(socket)))
            .stdout(Stdio::piped())
            .stderr(Stdio::piped());
        let program = programs.client.display().to_string();
        let child = command.spawn().map_err(|source| VerifyError::Start { program, source })?;
        Ok(Self(child))
    }
}

impl Drop for Client {
    fn drop(&mut self) {
        // It has ended already but after an error, and then this does nothing.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// Slips that must be noticed, each with what it is about.
pub const SLIPS: &[(&str, Slip)] = &[
    ("command interface revision", Slip::Register(4, 15)),
    ("no interrupts", Slip::Silence),
    ("event: owner", Slip::Event(511)),
    ("event: type", Slip::Event(15)),
    ("event: slot", Slip::Event(0x20 * 8 + 31)),
    ("QUERY_ISSI: supported", Slip::Output(Opcode::QueryIssi, 0x6c * 8 + 30)),
    ("QUERY_PAGES: variant", Slip::Input(Opcode::QueryPages, 62)),
    ("QUERY_PAGES: number", Slip::Output(Opcode::QueryPages, 127)),
    ("QUERY_PAGES: function", Slip::Output(Opcode::QueryPages, 95)),
    ("MANAGE_PAGES: variant", Slip::Input(Opcode::ManagePages, 63)),
    ("MANAGE_PAGES: number", Slip::Input(Opcode::ManagePages, 127)),
    ("MANAGE_PAGES: first address", Slip::Input(Opcode::ManagePages, 128 + 33)),
    ("QUERY_HCA_CAP: type", Slip::Input(Opcode::QueryHcaCap, 57)),
    ("QUERY_HCA_CAP: function", Slip::Input(Opcode::QueryHcaCap, 95)),
    ("QUERY_HCA_CAP: other function", Slip::Input(Opcode::QueryHcaCap, 64)),
    ("QUERY_HCA_CAP: vhca_id", Slip::Output(Opcode::QueryHcaCap, 128 + 0x30 + 15)),
    ("QUERY_HCA_CAP: migratable", Slip::Output(Opcode::QueryHcaCap, 128 + 0x80)),
    ("QUERY_HCA_CAP: umem_uid_0", Slip::Output(Opcode::QueryHcaCap, 128 + 0x252)),
    ("QUERY_HCA_CAP: migration", Slip::Output(Opcode::QueryHcaCap, 128 + 0x68d)),
    ("ALLOC_UAR: page", Slip::Output(Opcode::AllocUar, 95)),
    ("CREATE_EQ: number", Slip::Output(Opcode::CreateEq, 95)),
    ("CREATE_EQ: size", Slip::Input(Opcode::CreateEq, 128 + 0x60 + 7)),
    ("CREATE_EQ: vector", Slip::Input(Opcode::CreateEq, 128 + 0xa0 + 31)),
    ("ALLOC_PD: number", Slip::Output(Opcode::AllocPd, 95)),
    ("CREATE_MKEY: PD", Slip::Input(Opcode::CreateMkey, 128 + 0x60 + 31)),
    ("CREATE_MKEY: low byte", Slip::Input(Opcode::CreateMkey, 128 + 0x20 + 31)),
    ("CREATE_MKEY: local write", Slip::Input(Opcode::CreateMkey, 128 + 20)),
    ("CREATE_MKEY: local read", Slip::Input(Opcode::CreateMkey, 128 + 21)),
    ("CREATE_MKEY: page size", Slip::Input(Opcode::CreateMkey, 128 + 0x1c0 + 30)),
    ("CREATE_MKEY: start", Slip::Input(Opcode::CreateMkey, 128 + 0x80 + 50)),
    ("CREATE_MKEY: number", Slip::Output(Opcode::CreateMkey, 95)),
    ("DESTROY_MKEY: number", Slip::Input(Opcode::DestroyMkey, 95)),
    ("SUSPEND_VHCA: variant", Slip::Input(Opcode::SuspendVhca, 63)),
    ("SUSPEND_VHCA: vhca_id", Slip::Input(Opcode::SuspendVhca, 90)),
    ("RESUME_VHCA: variant", Slip::Input(Opcode::ResumeVhca, 63)),
    ("RESUME_VHCA: vhca_id", Slip::Input(Opcode::ResumeVhca, 90)),
    ("QUERY_VHCA_MIGRATION_STATE: vhca_id", Slip::Input(Opcode::QueryVhcaMigrationState, 90)),
    ("QUERY_VHCA_MIGRATION_STATE: incremental", Slip::Input(Opcode::QueryVhcaMigrationState, 64)),
    ("QUERY_VHCA_MIGRATION_STATE: chunk", Slip::Input(Opcode::QueryVhcaMigrationState, 65)),
    ("QUERY_VHCA_MIGRATION_STATE: state", Slip::Output(Opcode::QueryVhcaMigrationState, 99)),
    ("QUERY_VHCA_MIGRATION_STATE: size", Slip::Output(Opcode::QueryVhcaMigrationState, 128 + 19)),
    ("QUERY_VHCA_MIGRATION_STATE: total", Slip::Output(Opcode::QueryVhcaMigrationState, 128 + 127)),
    ("QUERY_VHCA_MIGRATION_STATE: syndrome", Slip::Output(Opcode::QueryVhcaMigrationState, 63)),
    ("SAVE_VHCA_STATE: vhca_id", Slip::Input(Opcode::SaveVhcaState, 90)),
    ("SAVE_VHCA_STATE: incremental", Slip::Input(Opcode::SaveVhcaState, 64)),
    ("SAVE_VHCA_STATE: set_track", Slip::Input(Opcode::SaveVhcaState, 65)),
    ("SAVE_VHCA_STATE: address", Slip::Input(Opcode::SaveVhcaState, 128 + 51)),
    ("SAVE_VHCA_STATE: key", Slip::Input(Opcode::SaveVhcaState, 128 + 64 + 23)),
    ("SAVE_VHCA_STATE: size", Slip::Input(Opcode::SaveVhcaState, 128 + 96 + 9)),
    ("SAVE_VHCA_STATE: image size", Slip::Output(Opcode::SaveVhcaState, 95)),
    ("SAVE_VHCA_STATE: next size", Slip::Output(Opcode::SaveVhcaState, 127)),
    ("LOAD_VHCA_STATE: vhca_id", Slip::Input(Opcode::LoadVhcaState, 90)),
    ("LOAD_VHCA_STATE: address", Slip::Input(Opcode::LoadVhcaState, 128 + 51)),
    ("LOAD_VHCA_STATE: key", Slip::Input(Opcode::LoadVhcaState, 128 + 64 + 23)),
    ("LOAD_VHCA_STATE: size", Slip::Input(Opcode::LoadVhcaState, 128 + 127)),
    ("LOAD_VHCA_STATE: command", Slip::Input(Opcode::LoadVhcaState, 15)),
    ("DEALLOC_PD: number", Slip::Input(Opcode::DeallocPd, 95)),
    ("DESTROY_EQ: number", Slip::Input(Opcode::DestroyEq, 95)),
    ("TEARDOWN_HCA: variant", Slip::Input(Opcode::TeardownHca, 80)),
];
