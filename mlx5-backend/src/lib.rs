// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! The arcs of [`vfio_fsm_core`] as the firmware commands of an mlx5 device.

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
