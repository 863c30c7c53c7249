// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! BAR0 as memory, which another process or an unmodified library may map.

use std::fs::File;
use std::io;
use std::sync::atomic::Ordering;

use nix::sys::memfd::{MFdFlags, memfd_create};
use vfio_fsm_core::Errno;
use vm_memory::{Bytes, FileOffset, MmapRegion, VolatileMemory};

use super::config::ConfigError;

/// Bytes of BAR0: the init segment, then one page for each UAR.
pub const BAR_BYTES: usize = 1 << 20;

/// The registers as they lie in memory, big endian.
pub(super) struct Bar {
    memory: MmapRegion,
    file: File,
}

impl Bar {
    pub(super) fn new() -> Result<Self, ConfigError> {
        let no_bar = |errno: Errno| ConfigError::Bar { errno };
        let fd = memfd_create("mlx5-bar0", MFdFlags::MFD_CLOEXEC)
            .map_err(|errno| no_bar(Errno(errno as i32)))?;
        let file = File::from(fd);
        let io = |error: io::Error| no_bar(error.raw_os_error().map_or(Errno::EIO, Errno));
        file.set_len(BAR_BYTES as u64).map_err(io)?;
        let mapped = file.try_clone().map_err(io)?;
        let memory = MmapRegion::from_file(FileOffset::new(mapped, 0), BAR_BYTES)
            .map_err(|_| no_bar(Errno::ENOMEM))?;
        Ok(Self { memory, file })
    }

    /// The memory behind it.
    pub(super) fn file(&self) -> &File {
        &self.file
    }

    /// All ones where there is none.
    pub(super) fn load(&self, offset: usize) -> u32 {
        let load = self.memory.as_volatile_slice().load::<u32>(offset, Ordering::Acquire);
        load.map_or(u32::MAX, u32::from_be)
    }

    /// Nothing where there is none.
    pub(super) fn store(&self, offset: usize, value: u32) {
        // Out of range is no error on a bus either.
        let _ = self.memory.as_volatile_slice().store(value.to_be(), offset, Ordering::Release);
    }

    /// Reads a dword that is written as a message, and clears it.
    pub(super) fn take(&self, offset: usize) -> u32 {
        let slice = self.memory.as_volatile_slice();
        match slice.get_atomic_ref::<std::sync::atomic::AtomicU32>(offset) {
            Ok(dword) => u32::from_be(dword.swap(0, Ordering::AcqRel)),
            Err(_) => 0,
        }
    }
}
