// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! `vfio-conform lifetime`: a device that is closed, unbound and removed under its users.

use clap::Args;
use vfio_conform::lifetime::CASES;
use vfio_fsm_kernel::abuse::Outcome;

use super::output::Output;
use super::{Result, cases};

#[derive(Debug, Args)]
pub(crate) struct Arguments {
    #[command(flatten)]
    cases: cases::Arguments,
    /// Also what is known to hang or crash some kernels.
    #[arg(long)]
    dangerous: bool,
}

pub(crate) fn run(arguments: &Arguments, output: &mut Output) -> Result {
    let Arguments { cases, dangerous } = arguments;
    let device = cases.node("the reference cannot be removed")?;
    let names = CASES.iter().map(|case| case.name);
    cases.run("lifetime", device, names, *dangerous, output, |index| {
        let case = &CASES[index];
        if case.dangerous && !dangerous {
            let inapplicable = Some("it can bring a kernel down: --dangerous");
            return Ok(Outcome { inapplicable, ..Outcome::default() });
        }
        Ok(case.run(device)?)
    })
}
