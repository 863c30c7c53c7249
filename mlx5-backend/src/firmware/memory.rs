// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! The host's memory as the firmware reaches it.

use crate::dma::{DmaError, DmaSpace};

/// Memory behind IOVAs. What is not mapped is an error, as an IOMMU would make it.
///
/// [`DmaSpace`] is one. Where the driver is an unmodified library, it is whatever holds the
/// library's mappings.
pub trait DeviceMemory: Send + Sync {
    /// Fills `bytes` with what is at `iova`.
    ///
    /// # Errors
    ///
    /// Some of it is not mapped. What was read before is in `bytes`.
    fn read(&self, iova: u64, bytes: &mut [u8]) -> Result<(), DmaError>;

    /// Puts `bytes` to `iova`.
    ///
    /// # Errors
    ///
    /// Some of it is not mapped. What was written before stays.
    fn write(&self, iova: u64, bytes: &[u8]) -> Result<(), DmaError>;
}

impl DeviceMemory for DmaSpace {
    fn read(&self, iova: u64, bytes: &mut [u8]) -> Result<(), DmaError> {
        Self::read(self, iova, bytes)
    }

    fn write(&self, iova: u64, bytes: &[u8]) -> Result<(), DmaError> {
        Self::write(self, iova, bytes)
    }
}
