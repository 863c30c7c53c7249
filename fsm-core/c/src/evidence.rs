// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! How a reset that the VMM did not order shows itself, and what can be done about it.

use core::ffi::c_int;

use vfio_fsm_core::vmm::{Choices, Evidence, Recovery};
use vfio_fsm_core::{Errno, RawState};

use crate::code::{Answer, VFIO_FSM_ERRNO, VFIO_FSM_NO_DATA_FD, features, give, state};
use crate::route::route;

/// Nothing says that there was a reset. This is no proof that there was none.
pub const VFIO_FSM_NO_EVIDENCE: u32 = 0;
/// A call on the data_fd failed as it does when the session is over (O1).
pub const VFIO_FSM_DEAD_FD: u32 = 1;
/// A SET that goes on with a session returned a data_fd, so it began another: keep the new one,
/// what it reads is the device after the reset (O2).
pub const VFIO_FSM_UNEXPECTED_FD: u32 = 2;
/// The device is in RUNNING already, so that SET(RUNNING) would hide the reset (O3).
pub const VFIO_FSM_ALREADY_RUNNING: u32 = 3;
/// A SET succeeded and the device is in RUNNING: the reset was done inside it (O4).
pub const VFIO_FSM_DEFERRED_INTO_SET: u32 = 4;

/// Give the migration up. Always open.
pub const VFIO_FSM_ABORT: u32 = 1;
/// Let the receiver discard what it has, and begin this device's PRE_COPY anew.
pub const VFIO_FSM_RESTART: u32 = 2;
/// Let the receiver discard what it has, stop the vCPUs and send all in STOP_COPY.
pub const VFIO_FSM_STOP_COPY: u32 = 4;

fn number(evidence: Option<Evidence>) -> u32 {
    match evidence {
        // The last is a reset that the VMM ordered of a session, and there is none here.
        None | Some(Evidence::Ordered) => VFIO_FSM_NO_EVIDENCE,
        Some(Evidence::DeadFd { .. }) => VFIO_FSM_DEAD_FD,
        Some(Evidence::UnexpectedFd { .. }) => VFIO_FSM_UNEXPECTED_FD,
        Some(Evidence::AlreadyRunning { .. }) => VFIO_FSM_ALREADY_RUNNING,
        Some(Evidence::DeferredIntoSet { .. }) => VFIO_FSM_DEFERRED_INTO_SET,
    }
}

fn of_set(flags: u64, from: u32, to: u32, data_fd: i32) -> Answer<u32> {
    let route = route(flags, from, to)?;
    match (route.opens().is_some(), data_fd >= 0) {
        (false, true) => Ok(VFIO_FSM_UNEXPECTED_FD),
        (true, false) => Err(VFIO_FSM_NO_DATA_FD),
        (true, true) | (false, false) => Ok(VFIO_FSM_NO_EVIDENCE),
    }
}

fn of_call(err: c_int, state: u32) -> Answer<u32> {
    if err <= 0 {
        return Err(VFIO_FSM_ERRNO);
    }
    Ok(number(Evidence::of_call("call", Errno(err), RawState(state))))
}

fn choices(flags: u64, discards_left: u32, held: bool) -> Answer<u32> {
    let choices = Choices::new(discards_left > 0, features(flags)?.pre_copy() && !held);
    let bit = |recovery, bit| if choices.allow(recovery) { bit } else { 0 };
    Ok(bit(Recovery::Abort, VFIO_FSM_ABORT)
        | bit(Recovery::Restart, VFIO_FSM_RESTART)
        | bit(Recovery::StopCopy, VFIO_FSM_STOP_COPY))
}

/// Into `evidence`: what the data_fd says that came with SET(`to`), which succeeded, from `from`, the
/// state that the device was believed to be in. `data_fd` is that of struct
/// vfio_device_feature_mig_state, -1 if there is none.
///
/// When it says nothing, ask GET and vfio_fsm_evidence_behind_set().
///
/// # Safety
///
/// `evidence` is null or can be written.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn vfio_fsm_evidence_of_set(
    flags: u64,
    from: u32,
    to: u32,
    data_fd: i32,
    evidence: *mut u32,
) -> c_int {
    // SAFETY: the caller's promise.
    unsafe { give(evidence, of_set(flags, from, to, data_fd)) }
}

/// Into `evidence`: what the state `got` says that GET gives behind SET(`to`), which succeeded. `got`
/// may be any number: a later kernel may have states that are not known here.
///
/// # Safety
///
/// `evidence` is null or can be written.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn vfio_fsm_evidence_behind_set(
    to: u32,
    got: u32,
    evidence: *mut u32,
) -> c_int {
    let seen = state(to).map(|to| number(Evidence::behind_set(to, RawState(got))));
    // SAFETY: the caller's promise.
    unsafe { give(evidence, seen) }
}

/// Into `evidence`: what it says that a call on the data_fd (read, write,
/// VFIO_MIG_GET_PRECOPY_INFO) failed with the errno `err`, a positive number, and that GET says `got`
/// behind it. Where it says nothing, the device or its driver has failed.
///
/// ENOMSG in PRE_COPY is the end of what there is for now, and EAGAIN no failure: do not ask then.
///
/// # Safety
///
/// `evidence` is null or can be written.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn vfio_fsm_evidence_of_call(
    err: c_int,
    got: u32,
    evidence: *mut u32,
) -> c_int {
    // SAFETY: the caller's promise.
    unsafe { give(evidence, of_call(err, got)) }
}

/// Into `evidence`: what the state `got` says that GET gives before a device that is `believed` to be
/// in some state is sent back to RUNNING, or at the destination is started.
///
/// # Safety
///
/// `evidence` is null or can be written.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn vfio_fsm_evidence_of_state(
    believed: u32,
    got: u32,
    evidence: *mut u32,
) -> c_int {
    let seen = state(believed).map(|state| number(Evidence::of_state(state, RawState(got))));
    // SAFETY: the caller's promise.
    unsafe { give(evidence, seen) }
}

/// Into `choices`: what can be done about a reset, as a sum of VFIO_FSM_ABORT, VFIO_FSM_RESTART and
/// VFIO_FSM_STOP_COPY.
///
/// `discards_left` is how often the stream may still be discarded: a guest that resets its device
/// for ever must not migrate for ever. `held` is whether the guest is stopped and other devices
/// wait for this one, which cannot go on without them then.
///
/// # Safety
///
/// `choices` is null or can be written.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn vfio_fsm_choices(
    flags: u64,
    discards_left: u32,
    held: bool,
    choices: *mut u32,
) -> c_int {
    // SAFETY: the caller's promise.
    unsafe { give(choices, self::choices(flags, discards_left, held)) }
}
