// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! A physical function that user space owns, by way of VFIO.
//!
//! The migration commands go to the *physical* function, whose driver is the kernel's mlx5_core on
//! any usual host: there they cannot be given from user space, and the VF is migrated through the
//! kernel's mlx5-vfio-pci. This is for a host on which the physical function itself is bound to
//! vfio-pci.
//!
//! ```no_run
//! use std::path::Path;
//! use vfio_fsm_mlx5::pf::PhysicalFunction;
//! use vfio_fsm_mlx5::queue::{Hca, Options};
//!
//! let pf = PhysicalFunction::open(Path::new("/sys/bus/pci/devices/0000:3b:00.0"), 1 << 30)?;
//! let hca = Hca::bring_up(pf.registers(), pf.dma().clone(), Options::default())?;
//! std::thread::scope(|scope| {
//!     scope.spawn(|| {
//!         while hca.queue().gone().is_none() && pf.wait_for_interrupt().is_ok() {
//!             hca.queue().service();
//!         }
//!     });
//!     // ... commands ...
//! #   pf.wake().ok();
//! });
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
//!
//! # What is not known
//!
//! This was not run on hardware. What of it can be tested without, is: the mapping, the byte order,
//! and what is refused. Between what is written to memory and the doorbell there is a fence of the
//! processor; on x86-64 that orders the two for the device as well, on other processors it may take
//! a stronger one.

use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::mem::ManuallyDrop;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd};
use std::path::{Path, PathBuf};
use std::ptr::NonNull;
use std::sync::Arc;

use parking_lot::Mutex;
use vfio_bindings::bindings::vfio::{
    VFIO_PCI_BAR0_REGION_INDEX, VFIO_PCI_CONFIG_REGION_INDEX, VFIO_PCI_MSIX_IRQ_INDEX,
    VFIO_REGION_INFO_FLAG_MMAP,
};
use vfio_ioctls::{VfioContainer, VfioDevice, VfioError};
use vm_memory::MmapRegion;
use vmm_sys_util::eventfd::EventFd;

use crate::bar::Registers;
use crate::dma::{DmaSpace, MapDma};
use crate::layout::InitialSeg;

/// NVIDIA's networking devices, formerly Mellanox.
const VENDOR: u16 = 0x15b3;
/// The command register of a PCI device: memory accesses, and its being a bus master.
const PCI_COMMAND: u64 = 4;
const MEMORY_AND_BUS_MASTER: u16 = 0x6;

/// A physical function that cannot be used.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum PfError {
    /// There is no such device.
    #[error("no PCI device at {}: {source}; see `ls /sys/bus/pci/devices`", .path.display())]
    NoSuchDevice {
        /// The device's directory in sysfs.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// It is somebody else's.
    #[error(
        "{} is of vendor {vendor:?}, not 0x15b3 (NVIDIA networking); take a ConnectX function",
        .path.display()
    )]
    NotMlx5 {
        /// The device's directory in sysfs.
        path: PathBuf,
        /// What sysfs says.
        vendor: String,
    },
    /// VFIO does not open it.
    #[error("VFIO does not open {}: {source}; is the function bound to vfio-pci?", .path.display())]
    Vfio {
        /// The device's directory in sysfs.
        path: PathBuf,
        /// What vfio-ioctls said.
        source: VfioError,
    },
    /// BAR0 has no registers that can be mapped.
    #[error(
        "BAR0 has {size:#x} bytes and flags {flags:#x}; at least {least:#x}, mappable, are needed"
    )]
    Bar {
        /// Its size in bytes.
        size: u64,
        /// `VFIO_REGION_INFO_FLAG_*`.
        flags: u32,
        /// The least there must be.
        least: usize,
    },
    /// BAR0 could not be mapped.
    #[error("BAR0 cannot be mapped: {0}; see dmesg")]
    Map(io::Error),
    /// The device does not become a bus master.
    #[error("the PCI command register reads {seen:#06x} after bits 0x6 were set; see dmesg")]
    BusMaster {
        /// What it reads.
        seen: u16,
    },
    /// There is no interrupt.
    #[error("no MSI-X interrupt: {0}; see dmesg for \"No interrupt remapping\"")]
    Interrupt(VfioError),
    /// No eventfd for the interrupt.
    #[error("no eventfd: {0}; raise the limit on open files")]
    EventFd(io::Error),
}

/// A physical function, open, with its memory and its interrupt.
pub struct PhysicalFunction {
    registers: Arc<Bar0>,
    dma: DmaSpace,
    interrupt: EventFd,
}

impl PhysicalFunction {
    /// Opens the function whose directory in sysfs this is, and lets it reach at most so many bytes
    /// of memory. Nothing is opened that is not of vendor 0x15b3.
    pub fn open(path: &Path, dma_limit: u64) -> Result<Self, PfError> {
        check_vendor(path)?;
        let failed = |source| PfError::Vfio { path: path.into(), source };
        let container = Arc::new(VfioContainer::new(None).map_err(failed)?);
        let device = VfioDevice::new(path, container.clone(), false).map_err(failed)?;
        let device = Device { path: path.into(), device: ManuallyDrop::new(device) };
        let registers = Arc::new(Bar0 { mapping: map_bar0(&device.device)?, _device: device });
        let device = &registers._device.device;
        let interrupt = EventFd::new(0).map_err(PfError::EventFd)?;
        become_bus_master(device)?;
        device.enable_irq(VFIO_PCI_MSIX_IRQ_INDEX, vec![&interrupt]).map_err(PfError::Interrupt)?;
        let iommu = ContainerDma { container, mapped: Mutex::default() };
        let dma = DmaSpace::with_iommu(dma_limit, Box::new(iommu));
        Ok(Self { registers, dma, interrupt })
    }

    /// BAR0. It keeps the function open.
    pub fn registers(&self) -> Arc<Bar0> {
        self.registers.clone()
    }

    /// Memory that the function reaches.
    pub fn dma(&self) -> &DmaSpace {
        &self.dma
    }

    /// Waits for the next interrupt, or for [`wake`](Self::wake).
    pub fn wait_for_interrupt(&self) -> io::Result<()> {
        self.interrupt.read().map(drop)
    }

    /// Ends a [`wait_for_interrupt`](Self::wait_for_interrupt).
    pub fn wake(&self) -> io::Result<()> {
        self.interrupt.write(1)
    }
}

impl AsFd for PhysicalFunction {
    /// Readable when there was an interrupt, for an event loop.
    fn as_fd(&self) -> BorrowedFd<'_> {
        // SAFETY: the fd is open for as long as `self` is borrowed.
        unsafe { BorrowedFd::borrow_raw(self.interrupt.as_raw_fd()) }
    }
}

fn check_vendor(path: &Path) -> Result<(), PfError> {
    let vendor = fs::read_to_string(path.join("vendor"))
        .map_err(|source| PfError::NoSuchDevice { path: path.into(), source })?;
    let vendor = vendor.trim();
    let number = vendor.strip_prefix("0x").and_then(|hex| u16::from_str_radix(hex, 16).ok());
    if number == Some(VENDOR) {
        return Ok(());
    }
    Err(PfError::NotMlx5 { path: path.into(), vendor: vendor.into() })
}

fn map_bar0(device: &VfioDevice) -> Result<Mapping, PfError> {
    let flags = device.get_region_flags(VFIO_PCI_BAR0_REGION_INDEX);
    let size = device.get_region_size(VFIO_PCI_BAR0_REGION_INDEX);
    let least = InitialSeg::BYTES;
    let refused = PfError::Bar { size, flags, least };
    let Ok(len) = usize::try_from(size) else { return Err(refused) };
    if len < least || flags & VFIO_REGION_INFO_FLAG_MMAP == 0 {
        return Err(refused);
    }
    let offset = device.get_region_offset(VFIO_PCI_BAR0_REGION_INDEX);
    // SAFETY: the fd is open for as long as `device` is borrowed.
    let fd = unsafe { BorrowedFd::borrow_raw(device.as_raw_fd()) };
    Mapping::new(fd, offset, len).map_err(PfError::Map)
}

fn become_bus_master(device: &VfioDevice) -> Result<(), PfError> {
    let mut command = [0; 2];
    device.region_read(VFIO_PCI_CONFIG_REGION_INDEX, &mut command, PCI_COMMAND);
    let wanted = u16::from_le_bytes(command) | MEMORY_AND_BUS_MASTER;
    device.region_write(VFIO_PCI_CONFIG_REGION_INDEX, &wanted.to_le_bytes(), PCI_COMMAND);
    // The two say nothing of errors, so look.
    let mut command = [0; 2];
    device.region_read(VFIO_PCI_CONFIG_REGION_INDEX, &mut command, PCI_COMMAND);
    let seen = u16::from_le_bytes(command);
    if seen & MEMORY_AND_BUS_MASTER == MEMORY_AND_BUS_MASTER {
        Ok(())
    } else {
        Err(PfError::BusMaster { seen })
    }
}

/// A device that is closed if that can be done.
struct Device {
    path: PathBuf,
    device: ManuallyDrop<VfioDevice>,
}

impl Drop for Device {
    fn drop(&mut self) {
        // vfio-ioctls 0.10 panics when it closes a device whose `iommu_group` is gone, as it is once
        // the device is being removed. Then it stays open, until the process ends.
        if self.path.join("iommu_group").exists() {
            // SAFETY: this is the only place that drops it, and nothing uses it afterwards.
            unsafe { ManuallyDrop::drop(&mut self.device) };
        }
    }
}

/// BAR0 of a function, mapped.
pub struct Bar0 {
    // Before the device, so that it is unmapped before that is closed.
    mapping: Mapping,
    _device: Device,
}

impl Registers for Bar0 {
    fn read32(&self, offset: usize) -> u32 {
        self.mapping.read32(offset)
    }

    fn write32(&self, offset: usize, value: u32) {
        self.mapping.write32(offset, value);
    }
}

/// A mapping of registers, or of a file that stands for some: big-endian dwords, each access one
/// of the processor's.
pub struct Mapping {
    start: NonNull<u8>,
    len: usize,
}

// SAFETY: it owns its pages, which may be reached from any thread.
unsafe impl Send for Mapping {}
// SAFETY: all accesses are volatile, of one aligned dword, and make no reference; a device, or
// another process, changes the memory at any time anyhow.
unsafe impl Sync for Mapping {}

impl Mapping {
    /// Maps so many bytes at this offset, which is a multiple of the page size.
    pub fn new(fd: impl AsFd, offset: u64, len: usize) -> io::Result<Self> {
        let offset = libc::off_t::try_from(offset)
            .map_err(|_| io::Error::from_raw_os_error(libc::EOVERFLOW))?;
        let protection = libc::PROT_READ | libc::PROT_WRITE;
        let fd = fd.as_fd().as_raw_fd();
        // SAFETY: with no address given, this replaces no mapping of ours.
        let start = unsafe {
            libc::mmap(std::ptr::null_mut(), len, protection, libc::MAP_SHARED, fd, offset)
        };
        if start == libc::MAP_FAILED {
            return Err(io::Error::last_os_error());
        }
        let start = NonNull::new(start.cast()).ok_or_else(io::Error::last_os_error)?;
        Ok(Self { start, len })
    }

    /// The dword at this offset, if there is one.
    fn dword(&self, offset: usize) -> Option<*mut u32> {
        let inside = offset.is_multiple_of(4) && offset.checked_add(4)? <= self.len;
        // SAFETY: the offset is inside of the mapping.
        inside.then(|| unsafe { self.start.as_ptr().add(offset).cast() })
    }
}

impl Registers for Mapping {
    fn read32(&self, offset: usize) -> u32 {
        // SAFETY: the dword is mapped for as long as `self` is there, and aligned.
        self.dword(offset).map_or(u32::MAX, |dword| u32::from_be(unsafe { dword.read_volatile() }))
    }

    fn write32(&self, offset: usize, value: u32) {
        if let Some(dword) = self.dword(offset) {
            // SAFETY: as above.
            unsafe { dword.write_volatile(value.to_be()) };
        }
    }
}

impl Drop for Mapping {
    fn drop(&mut self) {
        // SAFETY: this is what was mapped, and nothing refers to it any more.
        unsafe { libc::munmap(self.start.as_ptr().cast(), self.len) };
    }
}

/// The IOMMU behind a VFIO container. Holds what is mapped, so that it is memory for as long.
struct ContainerDma {
    container: Arc<VfioContainer>,
    mapped: Mutex<BTreeMap<u64, Arc<MmapRegion>>>,
}

impl MapDma for ContainerDma {
    fn map(&self, iova: u64, memory: &Arc<MmapRegion>) -> io::Result<()> {
        let mut mapped = self.mapped.lock();
        // SAFETY: the memory is kept in `mapped` until it is unmapped, and vm-memory reaches it with
        // volatile accesses only.
        unsafe { self.container.vfio_dma_map(iova, memory.size(), memory.as_ptr()) }
            .map_err(system_error)?;
        mapped.insert(iova, memory.clone());
        Ok(())
    }

    fn unmap(&self, iova: u64, len: u64) -> io::Result<()> {
        let len = usize::try_from(len).map_err(io::Error::other)?;
        let mut mapped = self.mapped.lock();
        self.container.vfio_dma_unmap(iova, len).map_err(system_error)?;
        mapped.remove(&iova);
        Ok(())
    }
}

fn system_error(error: VfioError) -> io::Error {
    match error {
        VfioError::IommuDmaMap(error) | VfioError::IommuDmaUnmap(error) => {
            io::Error::from_raw_os_error(error.errno())
        }
        error => io::Error::other(error),
    }
}
