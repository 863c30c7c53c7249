// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! `vfio-conform`: check the model, generate the suites, replay them.

mod cli;

use std::process::ExitCode;

fn main() -> ExitCode {
    cli::main()
}
