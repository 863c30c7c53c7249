// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! Runs the shipping mlx5-vfio-pci in user space, and everything that is checked with it.
//!
//! ```sh
//! apt-get download linux-source-6.12
//! dpkg-deb -x linux-source-6.12_*.deb unpacked
//! tar -xJf unpacked/usr/src/linux-source-6.12.tar.xz linux-source-6.12/drivers/vfio \
//!     linux-source-6.12/include/linux linux-source-6.12/include/uapi/linux
//! cargo run --release -p vfio-fsm-mlx5 --features verify --example verify_driver -- \
//!     linux-source-6.12
//! ```
//!
//! The second argument is the name of the one check that is to be run. Exit status: 0 all pass, 1
//! one does not, 2 wrong use, or the sources or a compiler are missing.

use std::env;
use std::path::Path;
use std::process::ExitCode;

use vfio_fsm_mlx5::verify::driver::{Build, Built, CHECKS};

fn main() -> ExitCode {
    let mut arguments = env::args_os().skip(1);
    let Some(source) = arguments.next() else {
        eprintln!("say where the kernel's sources are unpacked");
        return ExitCode::from(2);
    };
    let only = arguments.next();
    let out = env::temp_dir().join(format!("mlx5-driver-{}", std::process::id()));
    let cc = env::var("CC").unwrap_or_else(|_| "cc".into());
    let built = Build::new(Path::new(&source)).compiler(&cc).sanitized().build(&out);
    let passes = built.map(|built| run(&built, only.as_deref().and_then(|name| name.to_str())));
    // What is left behind does no harm.
    let _ = std::fs::remove_dir_all(&out);
    match passes {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::from(1),
        Err(error) => {
            eprintln!("{error}");
            ExitCode::from(2)
        }
    }
}

fn run(built: &Built, only: Option<&str>) -> bool {
    let mut passes = true;
    for check in CHECKS.iter().filter(|check| only.is_none_or(|name| name == check.name)) {
        match check.run(built) {
            Ok(done) => println!("{}: {}: {done}", check.name, check.what),
            Err(error) => {
                println!("{} FAILS: {error}", check.name);
                passes = false;
            }
        }
    }
    passes
}
