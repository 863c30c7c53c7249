// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! Migration over a vfio-user socket: the messages, a client, and a server of ours.
//!
//! vfio-user (QEMU's `docs/interop/vfio-user.rst`) carries the calls of VFIO as messages over a unix
//! socket. Its migration is that of the kernel, with four differences:
//!
//! * There is no data_fd. `MIG_DATA_READ` and `MIG_DATA_WRITE` reach the session that is open now. A
//!   stale data_fd cannot be named; what is left of its death is that without a session both are
//!   refused.
//! * There is no PRECOPY_INFO, and none of the features around it: no `MIG_DATA_SIZE`, no
//!   `PRECOPY_INFOv2`.
//! * Both ends of a stream are a reply with less than was asked for. Which one it is follows from the
//!   device_state.
//! * A disconnect is not a close: it leaves the device as it is.
//!
//! How each [`Op`](vfio_fsm_core::Op) is said stands at [`VfioUserTarget`](crate::target::VfioUserTarget).

mod client;
mod framed;
pub mod protocol;
mod server;

pub use client::{Client, ClientError, Step};
pub use server::{ServeError, Server};
