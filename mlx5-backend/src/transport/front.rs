// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! One device, whichever way its commands go.

use std::fmt;

use vfio_fsm_core::vmm::Port;
use vfio_fsm_core::{Fd, Op, Reply};

use super::sysfs::{DetectError, Found, Sysfs};
use super::{Choice, Transport};

#[cfg(feature = "vfio")]
use super::owned::{Owned, OwnedError};
#[cfg(feature = "firmware")]
use crate::software::{SoftDevice, Software, SoftwareError};
#[cfg(feature = "kernel")]
use vfio_fsm_kernel::{DevicePath, KernelDevice};

/// The most memory for commands and images of a physical function that user space owns, or of one
/// in software, in bytes. Mapped when it is used.
#[cfg(any(feature = "vfio", feature = "firmware"))]
const DMA_LIMIT: u64 = 8 << 30;

/// A device that did not open.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum FrontError {
    /// There is none to open.
    #[error(transparent)]
    Detect(#[from] DetectError),
    /// No device was named.
    #[error("no device was named; give a PCI address, or take `--transport software`")]
    NoDevice,
    /// A device that needs none was given one.
    #[error("{given:?} is not opened with `--transport software`, which has a device of its own")]
    NotNeeded {
        /// What was given.
        given: String,
    },
    /// This crate was built without.
    #[error("built without --transport {transport}; build with the feature `{feature}`")]
    NotBuilt {
        /// What was chosen.
        transport: Transport,
        /// What it needs.
        feature: &'static str,
    },
    /// The kernel's driver has it, and does not migrate it: the kernel asked the firmware.
    #[cfg(feature = "kernel")]
    #[error(
        "{source}. If its driver is mlx5_vfio_pci, the function is not migratable, or the firmware \
         does not migrate: unbind it, then `devlink port function set pci/{pf}/PORT migratable \
         enable` for function {function} (PORT as `devlink port show` has it), and see \
         `mlxconfig -d {pf} query | grep VF_MIGRATION_MODE`"
    )]
    NotMigratable {
        /// The physical function's address.
        pf: String,
        /// The virtual function's number, counted from 1.
        function: u16,
        /// What the kernel backend said.
        source: vfio_fsm_kernel::OpenError,
    },
    /// The kernel's driver does not open.
    #[cfg(feature = "kernel")]
    #[error(transparent)]
    Kernel(vfio_fsm_kernel::OpenError),
    /// The physical function does not come up, or the virtual one cannot be migrated.
    #[cfg(feature = "vfio")]
    #[error(transparent)]
    Firmware(#[from] OwnedError),
    /// The device in software does not come up.
    #[cfg(feature = "firmware")]
    #[error(transparent)]
    Software(#[from] SoftwareError),
}

/// An mlx5 virtual function as a device that migrates, over any [`Transport`].
///
/// It is the core's [`Port`], so sessions and suites run on it and need not know which it is.
pub struct Mlx5 {
    way: Way,
}

enum Way {
    #[cfg(feature = "vfio")]
    Firmware(Box<Owned>),
    #[cfg(feature = "kernel")]
    Kernel(Box<KernelDevice>),
    #[cfg(feature = "firmware")]
    Software { device: Box<SoftDevice>, _software: Software },
}

impl Mlx5 {
    /// Opens a virtual function by its PCI address, in the way that was chosen or that is there.
    ///
    /// # Errors
    ///
    /// [`FrontError`], as its variants say.
    pub fn open(address: Option<&str>, choice: Choice) -> Result<Self, FrontError> {
        Self::open_in(&Sysfs::default(), address, choice)
    }

    /// The same with another tree than `/sys`.
    ///
    /// # Errors
    ///
    /// As [`open`](Self::open).
    pub fn open_in(
        sysfs: &Sysfs,
        address: Option<&str>,
        choice: Choice,
    ) -> Result<Self, FrontError> {
        if choice == Choice::Forced(Transport::Software) {
            return match address {
                Some(given) => Err(FrontError::NotNeeded { given: given.into() }),
                None => software(),
            };
        }
        let found = sysfs.find(address.ok_or(FrontError::NoDevice)?, choice.transport())?;
        match found.transport {
            Transport::Kernel => kernel(&found),
            _ => owned(&found),
        }
    }

    /// A device of one's own making in software.
    #[cfg(feature = "firmware")]
    pub fn of_software(software: Software) -> Result<Self, FrontError> {
        let device = Box::new(software.device(vfio_fsm_core::Features::ALL)?);
        Ok(Self { way: Way::Software { device, _software: software } })
    }

    /// An open device of the kernel backend's, for one that was opened by other means.
    #[cfg(feature = "kernel")]
    pub fn of_kernel(device: KernelDevice) -> Self {
        Self { way: Way::Kernel(Box::new(device)) }
    }

    /// Which way its commands go.
    pub const fn transport(&self) -> Transport {
        match self.way {
            #[cfg(feature = "vfio")]
            Way::Firmware(_) => Transport::Firmware,
            #[cfg(feature = "kernel")]
            Way::Kernel(_) => Transport::Kernel,
            #[cfg(feature = "firmware")]
            Way::Software { .. } => Transport::Software,
        }
    }

    /// Do one thing to the device. `buf` is where a read puts its bytes. Waits as a blocking file
    /// would.
    pub fn apply<'b>(&mut self, op: Op<&[u8]>, buf: &'b mut [u8]) -> Reply<&'b [u8]> {
        match &mut self.way {
            #[cfg(feature = "vfio")]
            Way::Firmware(owned) => owned.device().apply(op, buf),
            #[cfg(feature = "kernel")]
            Way::Kernel(device) => device.apply(op, buf),
            #[cfg(feature = "firmware")]
            Way::Software { device, .. } => device.apply(op, buf),
            #[cfg(not(any(feature = "vfio", feature = "kernel", feature = "firmware")))]
            _ => {
                let _ = (op, buf);
                Reply::Errno(vfio_fsm_core::Errno::EOPNOTSUPP)
            }
        }
    }
}

impl Port for Mlx5 {
    type Fd = Fd;

    fn apply<'b>(&mut self, op: Op<&[u8], &Fd>, buf: &'b mut [u8]) -> Reply<&'b [u8]> {
        Self::apply(self, op.map_fd(|fd| *fd), buf)
    }
}

impl fmt::Debug for Mlx5 {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Mlx5").field("transport", &self.transport()).finish_non_exhaustive()
    }
}

#[cfg(feature = "firmware")]
fn software() -> Result<Mlx5, FrontError> {
    use crate::dma::DmaSpace;
    use crate::firmware::{Config, VhcaConfig};

    let config = Config::of(VhcaConfig::default());
    Mlx5::of_software(Software::new(config, DmaSpace::new(DMA_LIMIT))?)
}

#[cfg(not(feature = "firmware"))]
fn software() -> Result<Mlx5, FrontError> {
    Err(FrontError::NotBuilt { transport: Transport::Software, feature: "firmware" })
}

#[cfg(feature = "kernel")]
fn kernel(found: &Found) -> Result<Mlx5, FrontError> {
    use vfio_fsm_kernel::OpenError;

    let opened = KernelDevice::open(&DevicePath::Sysfs(found.vf.clone()));
    opened.map(Mlx5::of_kernel).map_err(|source| match source {
        OpenError::NoMigration { .. } => {
            let pf = found.pf.file_name().unwrap_or_default().to_string_lossy().into_owned();
            FrontError::NotMigratable { pf, function: found.function, source }
        }
        source => FrontError::Kernel(source),
    })
}

#[cfg(not(feature = "kernel"))]
fn kernel(found: &Found) -> Result<Mlx5, FrontError> {
    Err(FrontError::NotBuilt { transport: found.transport, feature: "kernel" })
}

#[cfg(feature = "vfio")]
fn owned(found: &Found) -> Result<Mlx5, FrontError> {
    Ok(Mlx5 { way: Way::Firmware(Box::new(Owned::open(found, DMA_LIMIT)?)) })
}

#[cfg(not(feature = "vfio"))]
fn owned(found: &Found) -> Result<Mlx5, FrontError> {
    Err(FrontError::NotBuilt { transport: found.transport, feature: "vfio" })
}
