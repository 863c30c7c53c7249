// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! Holds the public interface of each published library against `public-api.txt` in its folder.
//!
//! `public-api` compares, `public-api --update` writes. Called in the workspace's folder. Exit: 0 the
//! interfaces are the committed ones; 1 one is another; 2 it cannot be told.

use std::collections::BTreeSet;
use std::error::Error;
use std::path::Path;
use std::process::{Command, ExitCode};
use std::{env, fs};

/// Each published library: its folder and its package.
const LIBRARIES: [(&str, &str); 5] = [
    ("fsm-core", "vfio-fsm-core"),
    ("fsm-model", "vfio-fsm-model"),
    ("kernel-backend", "vfio-fsm-kernel"),
    ("mlx5-backend", "vfio-fsm-mlx5"),
    ("conformance", "vfio-conform"),
];

fn main() -> ExitCode {
    let update = match env::args().skip(1).collect::<Vec<_>>().as_slice() {
        [] => false,
        [flag] if flag == "--update" => true,
        _ => {
            eprintln!("usage: public-api [--update]");
            return ExitCode::from(2);
        }
    };
    let mut same = true;
    for (folder, package) in LIBRARIES {
        match check(folder, package, update) {
            Ok(unchanged) => same &= unchanged,
            Err(error) => {
                eprintln!("public-api: {package}: {error}");
                return ExitCode::from(2);
            }
        }
    }
    if !same {
        println!("a line that is gone, or another, may break who uses it: see CONTRIBUTING.md");
        println!("run with --update, and review the difference");
    }
    ExitCode::from(u8::from(!same))
}

/// Whether the interface of a library is the committed one; if asked to, it becomes that.
fn check(folder: &str, package: &str, update: bool) -> Result<bool, Box<dyn Error>> {
    let path = Path::new(folder).join("public-api.txt");
    let now = interface(package)?;
    if update {
        fs::write(&path, &now)?;
    }
    let committed =
        fs::read_to_string(&path).map_err(|error| format!("{}: {error}", path.display()))?;
    let (before, after): (BTreeSet<_>, BTreeSet<_>) =
        (committed.lines().collect(), now.lines().collect());
    for gone in before.difference(&after) {
        println!("{package}: - {gone}");
    }
    for new in after.difference(&before) {
        println!("{package}: + {new}");
    }
    println!("{package}: {} items", after.len());
    Ok(committed == now)
}

/// Every public item of a library with all of its features, one a line.
fn interface(package: &str) -> Result<String, Box<dyn Error>> {
    let target = env::var("CARGO_TARGET_DIR").unwrap_or_else(|_| "target".to_owned());
    let cargo = env::var("CARGO").unwrap_or_else(|_| "cargo".to_owned());
    let mut rustdoc = Command::new(cargo);
    rustdoc.args([
        "rustdoc",
        "--quiet",
        "--locked",
        "--lib",
        "--all-features",
        "--package",
        package,
    ]);
    rustdoc.args(["--target-dir", &target, "--"]);
    rustdoc.args(["-Z", "unstable-options", "--output-format", "json", "--cap-lints", "allow"]);
    // The JSON is not a stable output of the stable rustdoc.
    if !rustdoc.env("RUSTC_BOOTSTRAP", "1").status()?.success() {
        return Err("rustdoc has failed".into());
    }
    let json =
        Path::new(&target).join("doc").join(package.replace('-', "_")).with_extension("json");
    let api = public_api::Builder::from_rustdoc_json(json)
        .omit_blanket_impls(true)
        .omit_auto_trait_impls(true)
        .omit_auto_derived_impls(true)
        .build()?;
    Ok(api.items().map(|item| format!("{item}\n")).collect())
}
