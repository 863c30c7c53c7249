// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! Memory that the firmware may write to, and how it is taken back.
//!
//! The rule is that memory outlives its key: as long as a key exists, the firmware may write
//! through it. What cannot be given back is kept, and given back later (M67).

use crate::command::{CommandError, Commands};
use crate::dma::DmaBuffer;
use crate::layout::CommandStatus::{BadIndex, BadParam, BadRes};

use super::error::VhcaError;
use super::hca::{Hca, Mkey};

/// Memory with a key to it.
#[derive(Debug)]
pub(super) struct Buffer {
    pub(super) memory: DmaBuffer,
    pub(super) mkey: Mkey,
}

/// What the firmware did not take back.
#[derive(Debug)]
enum Leftover {
    Buffer(Buffer),
    Pd(u32),
}

/// What is still with the firmware from sessions that are over.
#[derive(Debug, Default)]
pub(super) struct Leftovers(Vec<Leftover>);

impl Leftovers {
    pub(super) fn discard<C: Commands>(&mut self, hca: &Hca<C>, buffer: Buffer) {
        if !is_given_back(hca.destroy_mkey(buffer.mkey)) {
            self.0.push(Leftover::Buffer(buffer));
        }
    }

    pub(super) fn release<C: Commands>(&mut self, hca: &Hca<C>, pd: u32) {
        if !is_given_back(hca.dealloc_pd(pd)) {
            self.0.push(Leftover::Pd(pd));
        }
    }

    /// Tries again. As long as something is left no new session may begin, so that a firmware which
    /// takes nothing back does not get all the memory there is.
    pub(super) fn clear<C: Commands>(&mut self, hca: &Hca<C>) -> Result<(), VhcaError> {
        // In their order: a domain is only taken back behind its keys.
        for leftover in std::mem::take(&mut self.0) {
            match leftover {
                Leftover::Buffer(buffer) => self.discard(hca, buffer),
                Leftover::Pd(pd) => self.release(hca, pd),
            }
        }
        match self.0.len() {
            0 => Ok(()),
            left => Err(VhcaError::Leftovers { left }),
        }
    }
}

/// Whether it is no longer there, be it that it never was, or went with the function itself.
fn is_given_back(destroyed: Result<(), CommandError>) -> bool {
    match destroyed {
        Ok(()) | Err(CommandError::Gone) => true,
        Err(CommandError::Status { status, .. }) => {
            matches!(status, BadIndex | BadParam | BadRes)
        }
        Err(_) => false,
    }
}

impl Drop for Leftovers {
    fn drop(&mut self) {
        // The firmware may write there for as long as it runs, so nobody else may get the memory.
        for leftover in self.0.drain(..) {
            std::mem::forget(leftover);
        }
    }
}

impl<C: Commands> Hca<C> {
    /// Memory of at least `bytes`, with a key to it.
    pub(super) fn buffer(&self, pd: u32, bytes: usize) -> Result<Buffer, VhcaError> {
        let memory = self.commands.dma().allocate(bytes)?;
        // A key of which only the firmware knows is no way to the memory: nobody can name it.
        let mkey = self.create_mkey(pd, &memory)?;
        Ok(Buffer { memory, mkey })
    }
}
