// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! The device for sessions of the VMM's side: data_fds by their numbers.

use std::sync::Arc;

use vfio_fsm_core::vmm::Port;
use vfio_fsm_core::{Fd, Op, Reply};

use crate::command::Commands;

use super::{Function, Mlx5Device, Wait};

/// A device whose data_fds are `O_NONBLOCK`, for event loops.
///
/// What would have to wait for the firmware is `EAGAIN`. In STOP_COPY poll says readable even so,
/// as the uAPI wants (R31).
pub struct NonBlocking<'a, C: Commands, F>(pub(super) &'a Mlx5Device<C, F>);

/// A handle of one's own to a device that others have handles to, too.
pub struct Shared<C: Commands, F>(pub Arc<Mlx5Device<C, F>>);

impl<C: Commands, F> Clone for Shared<C, F> {
    fn clone(&self) -> Self {
        Self(self.0.clone())
    }
}

impl<C: Commands, F: Function> NonBlocking<'_, C, F> {
    /// Do one thing to the device. `buf` is where a read puts its bytes.
    pub fn apply<'b>(&self, op: Op<&[u8]>, buf: &'b mut [u8]) -> Reply<&'b [u8]> {
        self.0.apply_waiting(op, buf, Wait::No)
    }
}

impl<C: Commands, F: Function> Port for NonBlocking<'_, C, F> {
    type Fd = Fd;

    fn apply<'b>(&mut self, op: Op<&[u8], &Fd>, buf: &'b mut [u8]) -> Reply<&'b [u8]> {
        NonBlocking::apply(self, op.map_fd(|fd| *fd), buf)
    }
}

impl<C: Commands, F: Function> Port for &Mlx5Device<C, F> {
    type Fd = Fd;

    fn apply<'b>(&mut self, op: Op<&[u8], &Fd>, buf: &'b mut [u8]) -> Reply<&'b [u8]> {
        Mlx5Device::apply(self, op.map_fd(|fd| *fd), buf)
    }
}

impl<C: Commands, F: Function> Port for Shared<C, F> {
    type Fd = Fd;

    fn apply<'b>(&mut self, op: Op<&[u8], &Fd>, buf: &'b mut [u8]) -> Reply<&'b [u8]> {
        self.0.apply(op.map_fd(|fd| *fd), buf)
    }
}
