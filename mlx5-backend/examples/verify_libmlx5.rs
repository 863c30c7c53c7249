// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! Has a distribution's libmlx5 drive the firmware in software.
//!
//! ```sh
//! apt-get download ibverbs-providers libibverbs1 libibverbs-dev libnl-3-200 libnl-route-3-200
//! for deb in *.deb; do dpkg-deb -x $deb unpacked; done
//! cargo run -p vfio-fsm-mlx5 --features verify --example verify_libmlx5 -- unpacked
//! ```
//!
//! With `--slips`, then again and again with one bit wrong in between, which must be noticed. With
//! `--rate`, only the commands a second through libmlx5 and through our own queue (use `--release`,
//! on a machine with nothing else to do).
//!
//! Exit status: 0 all agree, 1 something does not, or a slip was not noticed, 2 wrong use, or
//! the packages or a compiler are missing.

use std::env;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use vfio_fsm_mlx5::verify::headers::VerifyError;
use vfio_fsm_mlx5::verify::libmlx5::{self, Programs, SLIPS};

const ROUNDS: usize = 101;
const COMMANDS: u32 = 1_000;

#[derive(PartialEq)]
enum What {
    Checks,
    Slips,
    Rate,
}

fn main() -> ExitCode {
    let arguments: Vec<_> = env::args().skip(1).collect();
    let arguments: Vec<_> = arguments.iter().map(String::as_str).collect();
    let (packages, what) = match arguments[..] {
        [packages] => (packages, What::Checks),
        [packages, "--slips"] => (packages, What::Slips),
        [packages, "--rate"] => (packages, What::Rate),
        _ => {
            eprintln!("say where the packages are unpacked, and then --slips or --rate or nothing");
            return ExitCode::from(2);
        }
    };
    let out = Scratch(env::temp_dir().join(format!("mlx5-libmlx5-{}", std::process::id())));
    match verify(Path::new(packages), &out.0, &what) {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::from(1),
        Err(error) => {
            eprintln!("{error}");
            ExitCode::from(2)
        }
    }
}

fn verify(packages: &Path, out: &Path, what: &What) -> Result<bool, VerifyError> {
    let cc = env::var("CC").unwrap_or_else(|_| "cc".into());
    let programs = Programs::compile(packages, &cc, out)?;
    if *what == What::Rate {
        println!("{}", libmlx5::rate(&programs, ROUNDS, COMMANDS)?);
        return Ok(true);
    }
    let report = programs.run(None)?;
    println!("{report}");
    let agrees = report.agrees();
    Ok(if *what == What::Slips { slips(&programs)? && agrees } else { agrees })
}

/// Whether each is noticed.
fn slips(programs: &Programs) -> Result<bool, VerifyError> {
    let reports = programs.run_slips()?;
    for (about, report) in &reports {
        let by = report.failed().next().map_or("NOTHING", |check| check.what.as_str());
        println!("{about}: noticed by {by}");
    }
    let noticed = reports.iter().filter(|(_, report)| !report.agrees()).count();
    println!("{noticed} of {} slips are noticed", SLIPS.len());
    Ok(noticed == SLIPS.len())
}

/// A directory that is gone with the value.
struct Scratch(PathBuf);

impl Drop for Scratch {
    fn drop(&mut self) {
        // What is left behind does no harm.
        let _ = std::fs::remove_dir_all(&self.0);
    }
}
