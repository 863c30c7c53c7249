// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! The log of a device node.

use vfio_fsm_core::{Errno, Op, Reply, State};
use vfio_fsm_kernel::dma_logging::{raw, supported};
use vfio_fsm_kernel::{DevicePath, KernelDevice};

use super::{Dirty, DirtyError, IovaRange, Refused};

/// A device node, by the three calls as they are.
///
/// What a device writes nobody here can say, so only the automaton is judged. No memory is mapped for
/// the device: an IOMMU keeps it from all that is logged.
pub struct KernelLog(KernelDevice);

impl KernelLog {
    /// The device, which must know DMA logging.
    ///
    /// # Errors
    ///
    /// It cannot be opened, or has no log.
    pub fn open(path: &DevicePath) -> Result<Self, DirtyError> {
        let device = KernelDevice::open(path).map_err(|error| DirtyError(error.into()))?;
        let known = raw::on(&device, |fd| supported(fd).map_err(|error| error.errno));
        match known {
            Ok(true) => Ok(Self(device)),
            Ok(false) => Err(DirtyError("the device or its driver has no DMA logging".into())),
            Err(errno) => Err(DirtyError(format!("asked for DMA logging, it says {errno}").into())),
        }
    }

    fn apply(&mut self, op: Op<&[u8]>) -> Result<Option<State>, Refused> {
        match self.0.apply(op, &mut []) {
            Reply::Errno(errno) => Err(Refused { errno: Some(errno) }),
            Reply::State(state) => Ok(state.known()),
            _ => Ok(None),
        }
    }
}

const fn refused(errno: Errno) -> Refused {
    Refused { errno: Some(errno) }
}

impl Dirty for KernelLog {
    fn fresh(&mut self) -> Result<(), DirtyError> {
        self.0.fresh().map_err(|error| DirtyError(error.into()))?;
        for op in [Op::Close, Op::Open] {
            let name = op.name();
            self.apply(op).map_err(|refused| {
                let errno = refused.errno.unwrap_or(Errno::EIO);
                DirtyError(format!("{name} gives {errno}").into())
            })?;
        }
        Ok(())
    }

    fn start(&mut self, page_size: u64, ranges: &[IovaRange]) -> Result<u64, Refused> {
        raw::on(&self.0, |fd| raw::start(fd, page_size, ranges)).map_err(refused)
    }

    fn stop(&mut self) -> Result<(), Refused> {
        raw::on(&self.0, |fd| raw::stop(fd)).map_err(refused)
    }

    fn report(
        &mut self,
        range: IovaRange,
        page_size: u64,
        bitmap: &mut [u64],
    ) -> Result<(), Refused> {
        raw::on(&self.0, |fd| raw::report(fd, range, page_size, bitmap)).map_err(refused)
    }

    fn set(&mut self, to: State) -> Result<(), Refused> {
        self.apply(Op::set(to)).map(drop)
    }

    fn get(&mut self) -> Result<State, Refused> {
        self.apply(Op::GetState)?.ok_or(Refused { errno: None })
    }

    fn reset(&mut self) -> Result<(), Refused> {
        self.apply(Op::Reset).map(drop)
    }

    fn can_write(&self) -> bool {
        false
    }

    fn write(&mut self, _iova: u64, _bytes: u64) {}
}
