// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! An mlx5 virtual function, whoever sends its commands.

use vfio_fsm_core::{Features, Op, Reply};
use vfio_fsm_mlx5::transport::{Choice, FrontError, Mlx5, Transport};

use crate::replay::{Target, TargetError};
use crate::trace::Need;

/// A virtual function, by the transport that is there or that was chosen.
#[derive(Debug)]
pub struct Mlx5Function {
    address: Option<String>,
    choice: Choice,
    /// `None` while it is opened again.
    front: Option<Mlx5>,
    features: u64,
}

impl Mlx5Function {
    /// Open it, by its PCI address; the one in software has none.
    ///
    /// # Errors
    ///
    /// As [`Mlx5::open`].
    pub fn open(address: Option<&str>, choice: Choice) -> Result<Self, FrontError> {
        let mut front = Mlx5::open(address, choice)?;
        let features = match front.apply(Op::GetFeatures, &mut []) {
            Reply::Features(flags) => flags,
            _ => 0,
        };
        let address = address.map(str::to_owned);
        Ok(Self { address, choice, front: Some(front), features })
    }

    /// Which way its commands go.
    pub fn transport(&self) -> Option<Transport> {
        self.front.as_ref().map(Mlx5::transport)
    }
}

impl Target for Mlx5Function {
    fn offers(&self, features: Features) -> bool {
        self.features == features.flags()
    }

    fn can(&self, need: Need) -> bool {
        // The software's own device does all of it; of the others nothing can be asked.
        let software = self.transport() == Some(Transport::Software) && need != Need::Touch;
        software || need == Need::Reopen
    }

    fn is_kernel(&self) -> bool {
        self.transport() == Some(Transport::Kernel)
    }

    fn fresh(&mut self, _features: Features) -> Result<(), TargetError> {
        // Closed before it is opened again: it has one user at a time.
        self.front = None;
        let front = Mlx5::open(self.address.as_deref(), self.choice);
        self.front = Some(front.map_err(|error| TargetError(Box::new(error)))?);
        Ok(())
    }

    fn apply<'b>(&mut self, op: Op<&[u8]>, buf: &'b mut [u8]) -> Reply<&'b [u8]> {
        match &mut self.front {
            Some(front) => front.apply(op, buf),
            None => Reply::Errno(vfio_fsm_core::Errno::ENODEV),
        }
    }
}
