// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! A real device as a session and its guest have it.

use std::io;
use std::os::fd::OwnedFd;
use std::sync::Arc;

use vfio_fsm_core::vmm::Port;
use vfio_fsm_core::{Features, Op, Reply};
use vfio_fsm_kernel::{DevicePath, DevicePort, KernelDevice};

use super::Error;
use super::probe::Subject;

/// An open device: for the session by a port of its own, as in a VMM, and for its guest.
pub(super) struct Node {
    device: KernelDevice,
    port: DevicePort<OwnedFd>,
}

impl Node {
    /// Open a device; a guest could write its byte at `touch`, region and offset.
    pub(super) fn open(name: &str, touch: (u32, u64)) -> Result<Self, Error> {
        let path: DevicePath = name.parse()?;
        let device = KernelDevice::open(&path)?.with_touch(touch.0, touch.1)?;
        let port = DevicePort::new(device.duplicate()?);
        Ok(Self { device, port })
    }

    pub(super) const fn features(&self) -> Features {
        self.device.features()
    }

    /// Another fd of the device, for another process.
    pub(super) fn duplicate(&self) -> io::Result<OwnedFd> {
        self.device.duplicate()
    }

    /// A device in RUNNING whose guest has written this.
    pub(super) fn fresh(&mut self, touched: u8) -> Result<(), Error> {
        self.device.fresh()?;
        match self.device.apply(Op::Touch(touched), &mut []) {
            Reply::Errno(errno) => Err(Error::Touch { errno }),
            _ => Ok(()),
        }
    }
}

impl Port for Node {
    type Fd = Arc<OwnedFd>;

    fn apply<'b>(
        &mut self,
        op: Op<&[u8], &Self::Fd>,
        buf: &'b mut [u8],
    ) -> Reply<&'b [u8], Self::Fd> {
        match op {
            Op::Touch(value) => match self.device.apply(Op::Touch(value), &mut []) {
                Reply::Errno(errno) => Reply::Errno(errno),
                _ => Reply::Ok,
            },
            op => self.port.apply(op, buf),
        }
    }
}

impl Subject for Node {
    fn reset(&mut self) {
        let _reply = self.port.apply(Op::Reset, &mut []);
    }

    /// With nobody else there, nothing happens meanwhile.
    fn race<'b>(
        &mut self,
        op: Op<&[u8], &Self::Fd>,
        buf: &'b mut [u8],
    ) -> Reply<&'b [u8], Self::Fd> {
        self.apply(op, buf)
    }

    fn take_anomaly(&mut self) -> Option<String> {
        self.port.take_anomalies().first().map(ToString::to_string)
    }
}
