// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! VFIO migration v2 on a real device node.
//!
//! For a VMM:
//!
//! * [`session`]: the core's sessions, driven: from a device to a stream, and back.
//! * [`DevicePort`]: what they need of a device, over one that the VMM has open.
//! * [`guide`]: how they take the place of what a VMM has now.
//!
//! For a checker, the core's [`Op`]s, each carried out as the one system call it stands for, and
//! the kernel's answer as a [`Reply`]: nothing retried, nothing guessed, no errno lost.
//!
//! * [`DevicePath`]: which device, as a person names it.
//! * [`KernelDevice`]: the open device and its data_fds, numbered as the core numbers them.
//! * [`Anomaly`]: what a kernel did that no [`Reply`] has a word for.
//! * [`abuse`]: what no [`Op`] can say: bad sizes, flags, pointers and lengths.
//!
//! ```no_run
//! use vfio_fsm_core::{Op, Reply, State};
//! use vfio_fsm_kernel::{DevicePath, KernelDevice};
//!
//! let path: DevicePath = "83b8f4f2-509f-382f-3c1e-e6bfe0fa1001".parse()?;
//! let mut device = KernelDevice::open(&path)?;
//! println!("{path} has {}", device.features());
//!
//! let mut buf = [0; 4096];
//! let reply = device.apply(Op::set(State::StopCopy), &mut buf);
//! if let Reply::Fd(Some(fd)) = reply {
//!     println!("{}", device.apply(Op::Read { fd, len: 4096 }, &mut buf));
//! }
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
//!
//! # What of vfio-ioctls is used
//!
//! [`vfio_ioctls::VfioContainer`] and [`vfio_ioctls::VfioDevice`] open container, group and device.
//! From there on the ioctls are our own, on the same device fd: `set_migration_state` keeps the
//! returned data_fd to itself, replaces one it still has, and drops it on any error; `reset`
//! returns nothing and does nothing without `VFIO_DEVICE_FLAGS_RESET`; `mig_get_precopy_info`
//! leaves the flags out. A VMM that has a `VfioDevice` of its own gives a session a [`DevicePort`]
//! to it.
//!
//! # Features
//!
//! * `io-uring`: [`Op::UringRead`]. Without it, that op answers `EOPNOTSUPP`.
//! * `tracing`: an observer that makes events of the crate tracing of what a session does.
//! * `dma-logging`: the module `dma_logging`, which memory the device writes. Needs vm-memory.
//! * `abuse`: the module `abuse`, calls with sizes, flags and pointers that no VMM should use; with
//!   `dma-logging` its three calls as they are, `dma_logging::raw`;
//!   `KernelDevice::bare_loop`, to measure others against.
//!
//! [`Op`]: vfio_fsm_core::Op
//! [`Op::UringRead`]: vfio_fsm_core::Op::UringRead
//! [`Reply`]: vfio_fsm_core::Reply
#![cfg_attr(docsrs, feature(doc_cfg))]
#![deny(unsafe_op_in_unsafe_fn)]

#[cfg(feature = "abuse")]
pub mod abuse;
mod anomaly;
#[cfg(feature = "abuse")]
mod bare;
mod calls;
mod data_fds;
mod device;
#[cfg(feature = "dma-logging")]
pub mod dma_logging;
mod error;
pub mod guide;
mod limit;
mod open;
mod path;
mod port;
pub mod session;
#[expect(unsafe_code, reason = "ioctl, poll and io_uring have no safe wrapper that does for VFIO")]
mod sys;

pub use anomaly::Anomaly;
pub use device::KernelDevice;
pub use error::{FreshError, TouchError, UringUnavailable};
pub use open::OpenError;
pub use path::{DevicePath, ParsePathError};
pub use port::DevicePort;

/// The README's code is compiled and run.
#[cfg(doctest)]
#[doc = include_str!("../README.md")]
struct Readme;
