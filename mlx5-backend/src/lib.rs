// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! The arcs of [`vfio_fsm_core`] as the firmware commands of an mlx5 device.
//!
//! Nothing is here yet but the place for it. What will be: the command layouts, the command queue,
//! `SUSPEND_VHCA`, `RESUME_VHCA`, `QUERY_VHCA_MIGRATION_STATE`, `SAVE_VHCA_STATE` and
//! `LOAD_VHCA_STATE` behind [`ArcActions`], and a software firmware to run them on.
//!
//! [`ArcActions`]: vfio_fsm_core::device::ArcActions

pub mod layout;
pub mod stream;
#[cfg(feature = "verify")]
pub mod verify;
