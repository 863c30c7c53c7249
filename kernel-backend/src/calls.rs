// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! The calls of a migration, with what the kernel writes told from what it leaves.
//!
//! Every output field is poisoned before its call. What the uAPI does not allow becomes an
//! [`Anomaly`] beside the answer, and no errno is changed.

use std::os::fd::{BorrowedFd, RawFd};

use vfio_bindings::bindings::vfio::{
    VFIO_DEVICE_FEATURE_GET, VFIO_DEVICE_FEATURE_MIG_DATA_SIZE,
    VFIO_DEVICE_FEATURE_MIG_DEVICE_STATE, VFIO_DEVICE_FEATURE_MIG_PRECOPY_INFOv2,
    VFIO_DEVICE_FEATURE_MIGRATION, VFIO_DEVICE_FEATURE_PROBE, VFIO_DEVICE_FEATURE_SET,
    VFIO_PRECOPY_INFO_REINIT, vfio_device_feature_mig_data_size, vfio_device_feature_mig_state,
    vfio_device_feature_migration, vfio_precopy_info,
};
use vfio_fsm_core::{EndOfStream, Errno, PrecopyInfo, RawState, Reply};

use crate::anomaly::Anomaly;
use crate::sys;

/// Stands in every output field before a call: no length, and no state that is defined.
const POISON: u64 = 0xa5a5_a5a5_a5a5_a5a5;
const POISON_STATE: u32 = 0xa5a5_a5a5;
/// The same for a data_fd, which may be -1 or a number.
const POISON_FD: i32 = i32::MIN;

/// What has to be remembered from call to call.
#[derive(Debug, Default)]
pub(crate) struct Calls {
    /// Opted in since the device was opened.
    pub(crate) precopy_v2: bool,
    pub(crate) anomalies: Vec<Anomaly>,
}

/// GET of `VFIO_DEVICE_FEATURE_MIGRATION`.
pub(crate) fn migration_flags(device: BorrowedFd<'_>) -> Result<u64, Errno> {
    let flags = VFIO_DEVICE_FEATURE_GET | VFIO_DEVICE_FEATURE_MIGRATION;
    // Left as it is, this is no legal set.
    let mut migration = vfio_device_feature_migration { flags: POISON };
    sys::device_feature(device, flags, &mut migration)?;
    Ok(migration.flags)
}

/// Whether the kernel knows `VFIO_DEVICE_FEATURE_MIG_PRECOPY_INFOv2`.
pub(crate) fn knows_precopy_v2(device: BorrowedFd<'_>) -> bool {
    let probe = VFIO_DEVICE_FEATURE_PROBE | VFIO_DEVICE_FEATURE_SET;
    let flags = probe | VFIO_DEVICE_FEATURE_MIG_PRECOPY_INFOv2;
    sys::device_feature(device, flags, &mut ()).is_ok()
}

const fn poisoned_state() -> vfio_device_feature_mig_state {
    vfio_device_feature_mig_state { device_state: POISON_STATE, data_fd: POISON_FD }
}

impl Calls {
    /// GET of the device_state.
    pub(crate) fn state(&mut self, device: BorrowedFd<'_>) -> Result<RawState, Errno> {
        let flags = VFIO_DEVICE_FEATURE_GET | VFIO_DEVICE_FEATURE_MIG_DEVICE_STATE;
        let mut state = poisoned_state();
        sys::device_feature(device, flags, &mut state)?;
        let data_fd = state.data_fd;
        if data_fd == POISON_FD {
            self.unwritten("vfio_device_feature_mig_state.data_fd");
        } else if data_fd != -1 {
            self.anomalies.push(Anomaly::FdFromGet { data_fd });
        }
        if state.device_state == POISON_STATE {
            self.unwritten("vfio_device_feature_mig_state.device_state");
        }
        Ok(RawState(state.device_state))
    }

    /// SET of the device_state, and the number in data_fd, if it is one. The caller adopts it.
    pub(crate) fn set_state(
        &mut self,
        device: BorrowedFd<'_>,
        to: RawState,
    ) -> Result<Option<RawFd>, Errno> {
        let flags = VFIO_DEVICE_FEATURE_SET | VFIO_DEVICE_FEATURE_MIG_DEVICE_STATE;
        let mut state = vfio_device_feature_mig_state { device_state: to.0, ..poisoned_state() };
        sys::device_feature(device, flags, &mut state)
            .inspect_err(|_errno| self.check_failed_set(to, &state))?;
        match state.data_fd {
            -1 => Ok(None),
            POISON_FD => {
                self.unwritten("vfio_device_feature_mig_state.data_fd");
                Err(Errno::EBADF)
            }
            data_fd => Ok(Some(data_fd)),
        }
    }

    /// A failure before or after the driver's part leaves the structure as it was.
    fn check_failed_set(&mut self, asked: RawState, state: &vfio_device_feature_mig_state) {
        let device_state = RawState(state.device_state);
        if device_state != asked || ![-1, POISON_FD].contains(&state.data_fd) {
            let data_fd = state.data_fd;
            self.anomalies.push(Anomaly::FailedSet { asked, device_state, data_fd });
        }
    }

    /// The answer to a SET that returned the number of no new fd.
    pub(crate) fn not_a_new_fd(&mut self, data_fd: RawFd) -> Errno {
        self.anomalies.push(Anomaly::NotANewFd { data_fd });
        Errno::EBADF
    }

    /// GET of `VFIO_DEVICE_FEATURE_MIG_DATA_SIZE`.
    pub(crate) fn data_size(&mut self, device: BorrowedFd<'_>) -> Result<u64, Errno> {
        let flags = VFIO_DEVICE_FEATURE_GET | VFIO_DEVICE_FEATURE_MIG_DATA_SIZE;
        let mut size = vfio_device_feature_mig_data_size { stop_copy_length: POISON };
        sys::device_feature(device, flags, &mut size)?;
        if size.stop_copy_length == POISON {
            self.unwritten("vfio_device_feature_mig_data_size.stop_copy_length");
        }
        Ok(size.stop_copy_length)
    }

    /// SET of `VFIO_DEVICE_FEATURE_MIG_PRECOPY_INFOv2`.
    pub(crate) fn opt_in_precopy_v2(&mut self, device: BorrowedFd<'_>) -> Result<(), Errno> {
        let flags = VFIO_DEVICE_FEATURE_SET | VFIO_DEVICE_FEATURE_MIG_PRECOPY_INFOv2;
        sys::device_feature(device, flags, &mut ())?;
        self.precopy_v2 = true;
        Ok(())
    }

    /// `VFIO_MIG_GET_PRECOPY_INFO`.
    pub(crate) fn precopy_info(&mut self, data_fd: BorrowedFd<'_>) -> Result<PrecopyInfo, Errno> {
        // Before the opt-in the flags are whatever the user put there, on every kernel; and no
        // driver is promised that it may ignore what it does not know.
        let flags = if self.precopy_v2 { POISON_STATE } else { 0 };
        let mut info = vfio_precopy_info {
            flags,
            initial_bytes: POISON,
            dirty_bytes: POISON,
            ..Default::default()
        };
        sys::precopy_info(data_fd, &mut info)?;
        if info.initial_bytes == POISON {
            self.unwritten("vfio_precopy_info.initial_bytes");
        }
        if info.dirty_bytes == POISON {
            self.unwritten("vfio_precopy_info.dirty_bytes");
        }
        if info.flags == POISON_STATE {
            self.unwritten("vfio_precopy_info.flags");
        }
        Ok(PrecopyInfo {
            initial_bytes: info.initial_bytes,
            dirty_bytes: info.dirty_bytes,
            // A driver that sets it unasked shows: what went in was 0.
            reinit: info.flags & VFIO_PRECOPY_INFO_REINIT != 0,
        })
    }

    /// What a read into all of `buf` came to.
    pub(crate) fn have_read<'b, F>(
        &mut self,
        got: Result<usize, Errno>,
        buf: &'b [u8],
    ) -> Reply<&'b [u8], F> {
        match got {
            Ok(0) if !buf.is_empty() => Reply::EndOfStream(EndOfStream::Permanent),
            Ok(got) => Reply::Bytes(&buf[..self.at_most(buf.len(), got)]),
            Err(Errno::ENOMSG) => Reply::EndOfStream(EndOfStream::Temporary),
            Err(errno) => Reply::Errno(errno),
        }
    }

    /// What a write of `asked` bytes came to.
    pub(crate) fn have_written(&mut self, asked: usize, taken: usize) -> Result<u32, Errno> {
        let taken = self.at_most(asked, taken);
        // write(2) never takes more than MAX_RW_COUNT, which is below 2 GiB.
        u32::try_from(taken).map_err(|_too_many| Errno::EOVERFLOW)
    }

    fn at_most(&mut self, asked: usize, got: usize) -> usize {
        if got > asked {
            self.anomalies.push(Anomaly::MoreThanAsked { asked, got });
        }
        got.min(asked)
    }

    fn unwritten(&mut self, field: &'static str) {
        self.anomalies.push(Anomaly::Unwritten { field });
    }
}
