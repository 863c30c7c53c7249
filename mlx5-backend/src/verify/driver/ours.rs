// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! The same firmwares for our side: [`Commands`] that are carried out at once.

use std::sync::Arc;

use parking_lot::Mutex;
use vfio_fsm_core::Errno;

use super::{Firmware, Given};
use crate::command::{CommandError, Commands};
use crate::device::{Function, Mlx5Device};
use crate::dma::DmaSpace;
use crate::layout::{CommandStatus, DeliveryStatus, Opcode};

/// Our backend on a [`Firmware`].
pub type Ours<F> = Mlx5Device<Direct<F>, Direct<F>>;

/// A [`Firmware`] as [`Commands`] and as [`Function`], with a log of what it was given. A clone is
/// another handle to the same.
#[derive(Debug)]
pub struct Direct<F> {
    inner: Arc<Mutex<Inner<F>>>,
    dma: DmaSpace,
}

#[derive(Debug)]
struct Inner<F> {
    firmware: F,
    given: Vec<Given>,
}

impl<F> Direct<F> {
    /// Of this firmware, with buffers in this space.
    pub fn new(firmware: F, dma: DmaSpace) -> Self {
        Self { inner: Arc::new(Mutex::new(Inner { firmware, given: Vec::new() })), dma }
    }

    /// The commands since this was last asked.
    pub fn take_given(&self) -> Vec<Given> {
        std::mem::take(&mut self.inner.lock().given)
    }

    /// Changes the firmware.
    pub fn with<R>(&self, change: impl FnOnce(&mut F) -> R) -> R {
        change(&mut self.inner.lock().firmware)
    }
}

impl<F> Clone for Direct<F> {
    fn clone(&self) -> Self {
        Self { inner: self.inner.clone(), dma: self.dma.clone() }
    }
}

impl<F: Firmware + Send> Commands for Direct<F> {
    type Ticket = Result<(Opcode, Vec<u8>), CommandError>;

    fn start(&self, input: &[u8], output_len: usize) -> Result<Self::Ticket, CommandError> {
        let mut inner = self.inner.lock();
        let mut output = vec![0; output_len];
        let delivered = inner.firmware.command(input, &mut output);
        // What ours waits for shows in `finish`, and nobody who compares looks at it.
        let given = Given { input: input.to_owned(), output: output.clone(), asynchronous: false };
        let opcode = Opcode::from(given.opcode());
        inner.given.push(given);
        drop(inner);
        Ok(match delivered {
            Ok(()) => Ok((opcode, output)),
            Err(_) => Err(CommandError::Delivery { opcode, status: DeliveryStatus::FirmwareErr }),
        })
    }

    fn is_done(&self, _ticket: &Self::Ticket) -> bool {
        true
    }

    fn finish(&self, ticket: Self::Ticket, output: &mut [u8]) -> Result<(), CommandError> {
        let (opcode, answer) = ticket?;
        output.copy_from_slice(&answer);
        let status = CommandStatus::from(answer.first().copied().unwrap_or_default());
        if status == CommandStatus::Ok {
            return Ok(());
        }
        let syndrome = answer.get(4..8).and_then(|bytes| bytes.try_into().ok());
        let syndrome = syndrome.map_or(0, u32::from_be_bytes);
        Err(CommandError::Status { opcode, status, syndrome })
    }

    fn dma(&self) -> &DmaSpace {
        &self.dma
    }
}

impl<F: Firmware + Send> Function for Direct<F> {
    fn reset(&self) -> Result<(), Errno> {
        self.inner.lock().firmware.reset();
        Ok(())
    }

    fn touch(&self, value: u8) -> Result<(), Errno> {
        self.inner.lock().firmware.touch(value);
        Ok(())
    }
}
