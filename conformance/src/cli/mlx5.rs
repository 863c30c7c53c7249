// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! `vfio-conform mlx5`: the mlx5 backend against what others wrote.

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use clap::{Args, Subcommand};
use vfio_conform::lab;
use vfio_conform::verify::{self, Options, Part};

use super::Result;
use super::output::{self, Output};

#[derive(Debug, Args)]
pub(crate) struct Arguments {
    #[command(subcommand)]
    what: What,
}

#[derive(Debug, Subcommand)]
enum What {
    /// Check layouts, commands and transport against a kernel's headers, the shipping driver's code
    /// and the distribution's libmlx5. They come from Debian packages; no root and no device.
    Verify {
        /// Only these checks; all if none is named.
        #[arg(long, value_enum)]
        only: Vec<Part>,
        /// Where downloads are kept [default: vfio-fsm/lab in the user's cache directory].
        #[arg(long, value_name = "DIR")]
        cache: Option<PathBuf>,
        /// A C compiler.
        #[arg(long, value_name = "PROGRAM", default_value = "cc")]
        compiler: String,
    },
}

pub(crate) fn run(arguments: &Arguments, output: &mut Output) -> Result {
    let What::Verify { only, cache, compiler } = &arguments.what;
    let cache = cache.clone().or_else(lab::default_cache);
    let cache =
        cache.ok_or("no directory for the cache: the environment names no home; --cache")?;
    let parts = if only.is_empty() { Part::ALL.to_vec() } else { only.clone() };
    let options = Options { cache, parts, compiler: compiler.clone() };
    let cancel = Arc::new(AtomicBool::new(false));
    let asked = Arc::clone(&cancel);
    ctrlc::set_handler(move || asked.store(true, Ordering::Relaxed))?;
    let bar = output::bar(options.parts.len() as u64, "mlx5");
    let report = verify::run(&options, &cancel, &mut |stage| bar.println(stage))?;
    bar.finish_and_clear();
    output.say("mlx5", &report)?;
    Ok(report.is_good())
}
