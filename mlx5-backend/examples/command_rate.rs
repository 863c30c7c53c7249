// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! How many commands a second go through the queue.
//!
//!     cargo run --release -p vfio-fsm-mlx5 --features firmware --example command_rate
//!
//! On a firmware in software, once as a thread that polls BAR0, as a driver in another library would
//! have it, and once as one that answers in the doorbell. It says what the queue costs, and nothing
//! about hardware. `rate` takes any registers.

use std::error::Error;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Instant;

use vfio_fsm_mlx5::bar::Registers;
use vfio_fsm_mlx5::command::{CommandError, Commands};
use vfio_fsm_mlx5::dma::DmaSpace;
use vfio_fsm_mlx5::firmware::{BAR_BYTES, Checks, Config, Firmware};
use vfio_fsm_mlx5::layout::{CapMode, CapType, QueryHcaCapIn, QueryHcaCapOut, QueryIssiIn};
use vfio_fsm_mlx5::queue::{Hca, Options};
use vm_memory::{FileOffset, MmapRegion, VolatileMemory};

const COMMANDS: u32 = 20_000;

/// Commands a second of one thread. The same command again and again: one that is in the entry but
/// for its answer, or with `large`, one whose answer has nine mailbox blocks.
fn rate<R: Registers>(hca: &Hca<R>, commands: u32, large: bool) -> Result<f64, CommandError> {
    let mut query = QueryHcaCapIn::command();
    query.ask(CapType::General, CapMode::Current);
    let small = QueryIssiIn::command();
    let mut output = [0; QueryHcaCapOut::BYTES];
    let since = Instant::now();
    for _ in 0..commands {
        if large {
            hca.execute(query.as_bytes(), &mut output)?;
        } else {
            hca.execute(small.as_bytes(), &mut output[..112])?;
        }
    }
    Ok(f64::from(commands) / since.elapsed().as_secs_f64())
}

/// BAR0 of a firmware that a thread drives.
struct Bar(MmapRegion);

impl Registers for Bar {
    fn read32(&self, offset: usize) -> u32 {
        let dword = self.0.get_atomic_ref::<AtomicU32>(offset);
        dword.map_or(u32::MAX, |dword| u32::from_be(dword.load(Ordering::Relaxed)))
    }

    fn write32(&self, offset: usize, value: u32) {
        if let Ok(dword) = self.0.get_atomic_ref::<AtomicU32>(offset) {
            dword.store(value.to_be(), Ordering::SeqCst);
        }
    }
}

fn report<R: Registers>(how: &str, bar: R, dma: DmaSpace) -> Result<(), Box<dyn Error>> {
    let hca = Hca::bring_up(bar, dma, Options::default())?;
    for (what, large) in [("of 16 bytes, answered by 112", false), ("answered by 4112", true)] {
        let rate = rate(&hca, COMMANDS, large)?;
        println!("{how}: {rate:>9.0} commands a second {what}");
    }
    Ok(hca.teardown()?)
}

/// A firmware that checks no more than drivers do.
fn config() -> Config {
    Config { checks: Checks::LENIENT, ..Config::default() }
}

fn main() -> Result<(), Box<dyn Error>> {
    let dma = DmaSpace::new(64 << 20);
    let firmware = Firmware::new(config(), dma.clone())?;
    report("in the doorbell", firmware, dma)?;

    let dma = DmaSpace::new(64 << 20);
    let firmware = Firmware::new(config(), dma.clone())?;
    let file = FileOffset::new(firmware.bar_file().try_clone()?, 0);
    let bar = Bar(MmapRegion::from_file(file, BAR_BYTES)?);
    let running = firmware.spawn()?;
    report("by a thread", bar, dma)?;
    drop(running);
    Ok(())
}
