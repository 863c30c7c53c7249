// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! A device's state into a file, and back.
//!
//! `cargo run --example save_load [-- DEVICE]`: the directory of a device in sysfs, which is opened as
//! any VMM on vfio-ioctls does; without one, a device in memory. Nobody else may use the device
//! meanwhile.

use std::error::Error;
use std::fs::File;
use std::io::{BufReader, BufWriter};
use std::path::Path;
use std::sync::Arc;

use vfio_fsm_core::device::{Device, Memory};
use vfio_fsm_core::vmm::frame::Limits;
use vfio_fsm_core::vmm::{Hook, LoadPlan, Plan, Port};
use vfio_fsm_core::{Features, Op};
use vfio_fsm_kernel::DevicePort;
use vfio_fsm_kernel::session::{Loading, Saving, Session, Vmm};
use vfio_ioctls::{VfioContainer, VfioDevice};

/// A VMM halts and lets go its vCPUs here, and puts back configuration space and interrupts.
struct NoGuest;

impl Vmm for NoGuest {
    fn hook(&mut self, hook: Hook) -> bool {
        println!("  {hook}");
        true
    }
}

fn save(port: impl Port<Fd: Clone>, file: &str, compat: &str) -> Result<(), Box<dyn Error>> {
    let sink = BufWriter::new(File::create(file)?);
    let outcome = Saving::new(Plan::SNAPSHOT, compat, port, sink)?.run(&mut NoGuest);
    println!("{}, {} bytes", outcome.verdict, outcome.standing.progress.bytes());
    outcome.error.map_or(Ok(()), |error| Err(error.into()))
}

fn load(port: impl Port<Fd: Clone>, file: &str, compat: &str) -> Result<(), Box<dyn Error>> {
    let source = BufReader::new(File::open(file)?);
    let limits = Limits { max_data: Plan::SNAPSHOT.chunk };
    let accepts = |found: &str| found == compat;
    let outcome =
        Loading::new(LoadPlan::default(), limits, accepts, port, source).run(&mut NoGuest);
    println!("{}", outcome.verdict);
    outcome.error.map_or(Ok(()), |error| Err(error.into()))
}

fn main() -> Result<(), Box<dyn Error>> {
    let file = std::env::temp_dir().join(format!("save_load.{}", std::process::id()));
    let file = file.to_str().ok_or("the path of the temporary directory is no text")?;
    match std::env::args().nth(1) {
        Some(path) => {
            let container = Arc::new(VfioContainer::new(None)?);
            let device = VfioDevice::new(Path::new(&path), container, false)?;
            save(DevicePort::of(&device)?, file, "the same device")?;
            load(DevicePort::of(&device)?, file, "the same device")?;
        }
        None => {
            let mut device = Device::<Memory<16>, 2>::new(Features::ALL, Memory::new());
            device.apply(Op::Touch(42), &mut []);
            save(device, file, "16 registers")?;
            let blank = Device::<Memory<16>, 2>::new(Features::ALL, Memory::new());
            load(blank, file, "16 registers")?;
        }
    }
    Ok(std::fs::remove_file(file)?)
}
