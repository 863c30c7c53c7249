// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! `vfio-conform abuse`: what no VMM should do to a device node and any process can.

use vfio_fsm_kernel::abuse::CASES;
use vfio_fsm_kernel::{DevicePath, KernelDevice};

use super::Result;
use super::cases::Arguments;
use super::output::Output;

pub(crate) fn run(arguments: &Arguments, output: &mut Output) -> Result {
    let node = arguments.node("the reference has no memory to be abused with")?;
    let mut device = KernelDevice::open(&node.parse::<DevicePath>()?)?;
    let names = CASES.iter().map(|case| case.name);
    arguments.run("abuse", node, names, true, output, |index| Ok(CASES[index].run(&mut device)?))
}
