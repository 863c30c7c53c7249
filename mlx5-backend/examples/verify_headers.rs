// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! Makes the golden rows anew from a kernel's headers and compares them with the committed ones.
//!
//! ```sh
//! apt-get download linux-headers-6.12.117+deb12-common
//! dpkg-deb -x linux-headers-*.deb unpacked
//! cargo run -p vfio-fsm-mlx5 --features verify --example verify_headers -- unpacked
//! ```
//!
//! Exit status: 0 all agree, 1 a row differs, 2 wrong use, or the headers or a compiler are missing.

use std::env;
use std::error::Error;
use std::path::Path;
use std::process::ExitCode;

use vfio_fsm_mlx5::verify::golden::Outcome;
use vfio_fsm_mlx5::verify::headers::{self, Comparison};

fn main() -> ExitCode {
    let Some(unpacked) = env::args_os().nth(1) else {
        eprintln!("say where a linux-headers-*-common package is unpacked");
        return ExitCode::from(2);
    };
    match verify(Path::new(&unpacked)) {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::from(1),
        Err(error) => {
            eprintln!("{error}");
            ExitCode::from(2)
        }
    }
}

fn verify(unpacked: &Path) -> Result<bool, Box<dyn Error>> {
    let out = env::temp_dir().join(format!("mlx5-rows-{}", std::process::id()));
    let cc = env::var("CC").unwrap_or_else(|_| "cc".into());
    let rebuilt = headers::rebuild(unpacked, &cc, &out);
    // What is left behind does no harm.
    let _ = std::fs::remove_dir_all(&out);
    let rebuilt = rebuilt?;
    let rows = Comparison::of(&headers::committed()?, &rebuilt);
    for (what, rows) in [("committed only", &rows.missing), ("rebuilt only", &rows.extra)] {
        for row in rows {
            println!("{what}: {row}");
        }
    }
    let mut layout = 0;
    for row in &rebuilt {
        if let Outcome::Differs(how) = row.check() {
            println!("layout: {how}");
            layout += 1;
        }
    }
    let (missing, extra) = (rows.missing.len(), rows.extra.len());
    println!(
        "{} rows agree, {missing} only committed, {extra} only rebuilt; the layout differs in {layout}",
        rows.same
    );
    Ok(rows.agrees() && layout == 0)
}
