// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! The arcs of [`vfio_fsm_core`] as the firmware commands of an mlx5 device.
//!
//! The commands go to the *physical* function. On a usual host the kernel owns that, and then user
//! space cannot send them: [`transport`] says which way is there, and is one device for all.

pub mod bar;
pub mod command;
pub mod device;
pub mod dma;
#[cfg(feature = "firmware")]
pub mod firmware;
#[cfg(feature = "fwctl")]
pub mod fwctl;
pub mod layout;
#[cfg(feature = "vfio")]
#[expect(
    unsafe_code,
    reason = "a mapping of registers has no safe wrapper that allows for devices"
)]
pub mod pf;
pub mod queue;
#[cfg(feature = "firmware")]
pub mod software;
pub mod stream;
mod sync;
pub mod tracker;
pub mod transport;
#[cfg(feature = "verify")]
pub mod verify;
pub mod vhca;
