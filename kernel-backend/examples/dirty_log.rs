// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! Watches which memory a device writes, five times a second apart.
//!
//! ```sh
//! cargo run -p vfio-fsm-kernel --features dma-logging --example dirty_log -- \
//!     /sys/bus/pci/devices/0000:01:00.2
//! ```
//!
//! The device is bound to its VFIO driver and nobody else has it open. Nobody drives it here, so it
//! has nothing to write: in a VMM, the guest's driver does.

use std::error::Error;
use std::path::PathBuf;
use std::sync::Arc;
use std::thread::sleep;
use std::time::Duration;

use vfio_fsm_kernel::dma_logging::{DmaLog, IovaRange, mark_guest_memory, supported};
use vfio_ioctls::{VfioContainer, VfioDevice};
use vm_memory::bitmap::AtomicBitmap;
use vm_memory::{GuestAddress, GuestMemoryBackend, GuestMemoryMmap, GuestMemoryRegion, MmapRegion};

fn main() -> Result<(), Box<dyn Error>> {
    let sysfs: PathBuf = std::env::args_os().nth(1).ok_or("give a device below /sys")?.into();
    let container = Arc::new(VfioContainer::new(None)?);
    let device = VfioDevice::new(&sysfs, container, false)?;
    if !supported(&device)? {
        return Err("the device has no DMA logging".into());
    }

    let ram = [(GuestAddress(0), 512 << 20), (GuestAddress(4 << 30), 512 << 20)];
    let memory = GuestMemoryMmap::<AtomicBitmap>::from_ranges(&ram)?;
    let ram = ram.map(|(start, length)| IovaRange { iova: start.0, length: length as u64 });

    let mut log = DmaLog::start(&device, &ram, 4096)?;
    println!("logging {} ranges, {:#x} bytes a bit", log.logged().len(), log.page_size());
    for _pass in 0..5 {
        sleep(Duration::from_secs(1));
        log.report_all(|run| mark_guest_memory(&memory, GuestAddress(run.iova), run.length))?;
        for region in memory.iter() {
            let pages = MmapRegion::bitmap(region).get_and_reset();
            let dirty: u32 = pages.iter().map(|word| word.count_ones()).sum();
            println!("{:#x}: {dirty} pages", region.start_addr().0);
        }
    }
    Ok(log.stop()?)
}
