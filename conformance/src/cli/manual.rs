// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! `vfio-conform completions` and `vfio-conform man`: what a shell and `man` want to know.

use std::path::PathBuf;

use clap::{Args, CommandFactory};
use clap_complete::Shell;

use super::output::Output;
use super::{Cli, Result};

#[derive(Debug, Args)]
pub(crate) struct CompletionsArguments {
    /// For which shell.
    shell: Shell,
}

#[derive(Debug, Args)]
pub(crate) struct ManArguments {
    /// Write a page for each command to this directory; without, the first page to standard output.
    #[arg(value_name = "DIR")]
    directory: Option<PathBuf>,
}

const NAME: &str = "vfio-conform";

pub(crate) fn completions(arguments: &CompletionsArguments, output: &mut Output) -> Result {
    let mut script = Vec::new();
    clap_complete::generate(arguments.shell, &mut Cli::command(), NAME, &mut script);
    output.raw(&String::from_utf8(script)?)?;
    Ok(true)
}

pub(crate) fn man(arguments: &ManArguments, output: &mut Output) -> Result {
    let command = Cli::command().name(NAME);
    match &arguments.directory {
        None => {
            let mut page = Vec::new();
            clap_mangen::Man::new(command).render(&mut page)?;
            output.raw(&String::from_utf8(page)?)?;
        }
        Some(directory) => {
            let fail = |error: std::io::Error| format!("{}: {error}", directory.display());
            std::fs::create_dir_all(directory).map_err(fail)?;
            clap_mangen::generate_to(command, directory).map_err(fail)?;
        }
    }
    Ok(true)
}
