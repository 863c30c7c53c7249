// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! What an open device could not be made to do, apart from the ops.

use vfio_fsm_core::{Errno, RawState};

use crate::open::OpenError;

/// No place for [`Op::Touch`](vfio_fsm_core::Op::Touch).
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum TouchError {
    /// `VFIO_DEVICE_GET_REGION_INFO` failed.
    #[error("the device has no region {region} ({errno}); for the mtty sample, take region 0")]
    NoRegion {
        /// The region's index.
        region: u32,
        /// What the ioctl said.
        errno: Errno,
    },
    /// The region is shorter.
    #[error("region {region} has {size:#x} bytes, so there is none at {offset:#x}")]
    Outside {
        /// The region's index.
        region: u32,
        /// Where the byte was to go.
        offset: u64,
        /// How long the region is, in bytes.
        size: u64,
    },
    /// The region cannot be written.
    #[error("region {region} cannot be written; take another one")]
    ReadOnly {
        /// The region's index.
        region: u32,
    },
}

/// No [`Op::UringRead`](vfio_fsm_core::Op::UringRead) here.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum UringUnavailable {
    /// This crate was built without its feature `io-uring`.
    #[error("built without io_uring; build with the feature `io-uring`")]
    NotBuilt,
    /// The kernel sets up no ring.
    #[error(
        "io_uring_setup failed with {errno}; see `sysctl kernel.io_uring_disabled`, the seccomp \
         profile of the container, and the limit on locked memory"
    )]
    Refused {
        /// What the system call said.
        errno: Errno,
    },
}

/// The device could not be brought back to its beginning.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum FreshError {
    /// It was closed, and did not open again.
    #[error("the device does not open again: {0}")]
    Reopen(#[from] OpenError),
    /// It answers no more.
    #[error("{call} failed with {errno}; close the device, reload its driver, and see dmesg")]
    Failed {
        /// Which call.
        call: &'static str,
        /// What it said.
        errno: Errno,
    },
    /// It is not in RUNNING after a reset, as R14 says it must.
    #[error(
        "after VFIO_DEVICE_RESET the device is in {state}, not RUNNING: its driver is at fault"
    )]
    NotRunning {
        /// Where it is.
        state: RawState,
    },
}
