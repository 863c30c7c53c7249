// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! What a kernel did that no reply has a word for.

use std::time::Duration;

use vfio_fsm_core::{Fd, RawState};

/// Something the uAPI does not allow, seen beside the reply.
///
/// The reply says what a VMM would see; these are what a VMM would not look at. They are kept in
/// [`KernelDevice::anomalies`](crate::KernelDevice::anomalies) until they are taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Anomaly {
    /// GET of the device_state must answer `data_fd == -1` (R12). The number is not touched.
    #[error("GET state answered data_fd {data_fd} instead of -1")]
    FdFromGet {
        /// The number in the field.
        data_fd: i32,
    },
    /// `SET` answered a data_fd that is neither -1 nor a fd that was not there before. The op
    /// answers `EBADF`, and the number is not touched.
    #[error("SET answered data_fd {data_fd}, which is neither -1 nor a new fd")]
    NotANewFd {
        /// The number in the field.
        data_fd: i32,
    },
    /// A SET that the driver failed must answer the state that was asked for and `data_fd == -1`
    /// (C1). The number is not touched.
    #[error("a failed SET({asked}) answered device_state {device_state} and data_fd {data_fd}")]
    FailedSet {
        /// The state asked for.
        asked: RawState,
        /// What is in the field.
        device_state: RawState,
        /// The number in the field.
        data_fd: i32,
    },
    /// A call succeeded and left a field of its answer as it found it. The reply carries the
    /// pattern that was there.
    #[error("success, but {field} was not written")]
    Unwritten {
        /// Structure and field, as in `<linux/vfio.h>`.
        field: &'static str,
    },
    /// A read or write reported more bytes than it was given. The reply is cut to what was asked.
    #[error("{asked} bytes asked for, {got} reported")]
    MoreThanAsked {
        /// Bytes.
        asked: usize,
        /// Bytes.
        got: usize,
    },
    /// A read would have blocked for longer than the limit. The op answers `EAGAIN`.
    #[error("a read from {fd} was given up after {} ms", .after.as_millis())]
    Stalled {
        /// Which data_fd.
        fd: Fd,
        /// The limit, see [`KernelDevice::with_read_limit`](crate::KernelDevice::with_read_limit).
        after: Duration,
    },
}
