// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! The arcs of [`vfio_fsm_core`] as the firmware commands of an mlx5 device.

pub mod bar;
pub mod command;
pub mod device;
pub mod dma;
pub mod layout;
pub mod stream;
mod sync;
#[cfg(feature = "verify")]
pub mod verify;
pub mod vhca;
