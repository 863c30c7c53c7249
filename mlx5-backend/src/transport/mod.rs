// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! Which way a virtual function's commands get to the firmware.
//!
//! The migration commands go to the command queue of the *physical* function. Who owns that decides:
//!
//! | the host has | transport | what drives the VF | needs | dirty memory |
//! |---|---|---|---|---|
//! | PF bound to mlx5_core, VF to mlx5_vfio_pci: any usual host | [`Kernel`](Transport::Kernel) | the kernel's driver, by the VFIO uAPI: `vfio-fsm-kernel` | feature `kernel` | its `dma_logging` |
//! | PF bound to vfio-pci: a host whose PF user space owns | [`Firmware`](Transport::Firmware) | the command queue of this crate: `pf`, [`queue`](crate::queue), [`device`](crate::device) | feature `vfio` | [`tracker`](crate::tracker) |
//! | neither | [`Software`](Transport::Software), if asked for | the same queue and device on a firmware in software | feature `firmware` | [`tracker`](crate::tracker) |
//!
//! Where the kernel owns the PF, user space cannot send SUSPEND, RESUME, SAVE and LOAD at all: DEVX
//! and fwctl let none of them through. So there this crate sends nothing, and [`Mlx5`] is the
//! kernel's device under the same name. The one thing that can be asked beside it is
//! QUERY_VHCA_MIGRATION_STATE, see the module `fwctl`.
//!
//! [`Sysfs::find`] looks at `physfn`, at the drivers, at vendor, device and IOMMU group, and says
//! which it is; [`Choice`] is what `--transport` is parsed to. Nothing falls back by itself: a device
//! that cannot be driven is an error that says what to do, and software is only taken when asked for.
//!
//! ```no_run
//! use vfio_fsm_core::{Op, State};
//! use vfio_fsm_mlx5::transport::{Choice, Mlx5};
//!
//! let choice: Choice = "auto".parse()?;
//! let mut device = Mlx5::open(Some("0000:3b:00.2"), choice)?;
//! println!("by way of the {}", device.transport());
//! device.apply(Op::set(State::StopCopy), &mut []);
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
//!
//! # What is not known
//!
//! None of this was run on hardware. With [`Firmware`](Transport::Firmware) the VF is enabled and
//! made migratable by this crate, since no kernel driver did it, and reset by its `reset` in sysfs;
//! that this is all a VF needs is an assumption.

mod front;
#[cfg(feature = "vfio")]
mod owned;
mod sysfs;

use std::fmt;
use std::str::FromStr;

pub use front::{FrontError, Mlx5};
#[cfg(feature = "vfio")]
pub use owned::OwnedError;
pub use sysfs::{DetectError, Found, Sysfs};

/// Who sends the commands.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Transport {
    /// This crate, to a physical function that user space owns.
    Firmware,
    /// The kernel's driver of the virtual function.
    Kernel,
    /// This crate, to a firmware in software.
    Software,
}

impl Transport {
    /// All there are.
    pub const ALL: [Self; 3] = [Self::Firmware, Self::Kernel, Self::Software];

    /// As it is written on a command line.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Firmware => "firmware",
            Self::Kernel => "kernel",
            Self::Software => "software",
        }
    }
}

impl fmt::Display for Transport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.name())
    }
}

/// What `--transport` says: `auto`, or the name of a [`Transport`].
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Choice {
    /// What is found; never [`Transport::Software`].
    #[default]
    Auto,
    /// This one, or none.
    Forced(Transport),
}

impl Choice {
    /// What is forced, if something is.
    pub const fn transport(self) -> Option<Transport> {
        match self {
            Self::Auto => None,
            Self::Forced(transport) => Some(transport),
        }
    }
}

impl fmt::Display for Choice {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.transport().map_or("auto", Transport::name))
    }
}

/// Not the name of a transport.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("no transport is named {given:?}; there are auto, firmware, kernel and software")]
pub struct ParseChoiceError {
    /// What was given.
    pub given: String,
}

impl FromStr for Choice {
    type Err = ParseChoiceError;

    fn from_str(given: &str) -> Result<Self, ParseChoiceError> {
        if given == "auto" {
            return Ok(Self::Auto);
        }
        let found = Transport::ALL.into_iter().find(|transport| transport.name() == given);
        found.map(Self::Forced).ok_or_else(|| ParseChoiceError { given: given.into() })
    }
}
