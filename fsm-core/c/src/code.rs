// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! What functions return, and how an answer gets into the caller's memory.

use core::ffi::{CStr, c_char, c_int};

use vfio_fsm_core::{Features, Refused, State, Why};

/// Done, and the answer is written.
pub const VFIO_FSM_OK: c_int = 0;
/// The pointer for the answer is null.
pub const VFIO_FSM_NULL: c_int = -1;
/// The flags are not one of the four legal sets: treat the device as not migratable (R3).
pub const VFIO_FSM_FLAGS: c_int = -2;
/// A number is no device_state.
pub const VFIO_FSM_UNKNOWN: c_int = -3;
/// The device does not advertise the flag that brings the state asked for (R4).
pub const VFIO_FSM_UNSUPPORTED: c_int = -4;
/// ERROR cannot be asked for (R13).
pub const VFIO_FSM_ERROR_ASKED: c_int = -5;
/// Only VFIO_DEVICE_RESET leaves ERROR (R14).
pub const VFIO_FSM_IN_ERROR: c_int = -6;
/// The device does not have the state that it is said to be in.
pub const VFIO_FSM_IMPOSSIBLE: c_int = -7;
/// STOP_COPY to PRE_COPY or PRE_COPY_P2P: an unpatched kernel never returns from it; go through STOP
/// (R16).
pub const VFIO_FSM_BLOCKED: c_int = -8;
/// No SET leads there, for a reason that this header has no name for.
pub const VFIO_FSM_REFUSED: c_int = -9;
/// A data_fd was due and none came: the driver is at fault.
pub const VFIO_FSM_NO_DATA_FD: c_int = -10;
/// An errno is a positive number, as in <errno.h>.
pub const VFIO_FSM_ERRNO: c_int = -11;

pub(crate) type Answer<T> = Result<T, c_int>;

/// Writes the answer where the caller wants it, or returns the code.
///
/// # Safety
///
/// `out` is null, or a `T` can be written there.
pub(crate) unsafe fn give<T>(out: *mut T, answer: Answer<T>) -> c_int {
    if out.is_null() {
        return VFIO_FSM_NULL;
    }
    match answer {
        Ok(value) => {
            // SAFETY: not null, and so the caller vouches for it.
            unsafe { out.write(value) };
            VFIO_FSM_OK
        }
        Err(code) => code,
    }
}

pub(crate) fn features(flags: u64) -> Answer<Features> {
    Features::from_flags(flags).map_err(|_illegal| VFIO_FSM_FLAGS)
}

pub(crate) fn state(number: u32) -> Answer<State> {
    State::from_number(number).ok_or(VFIO_FSM_UNKNOWN)
}

pub(crate) fn refused(refused: Refused) -> c_int {
    match refused.why() {
        Why::Unknown => VFIO_FSM_UNKNOWN,
        Why::Unsupported => VFIO_FSM_UNSUPPORTED,
        Why::ErrorAsked => VFIO_FSM_ERROR_ASKED,
        Why::InError => VFIO_FSM_IN_ERROR,
        Why::Impossible => VFIO_FSM_IMPOSSIBLE,
        Why::Blocked => VFIO_FSM_BLOCKED,
        _ => VFIO_FSM_REFUSED,
    }
}

/// What a code means, in a sentence that lives as long as the program. Never NULL.
#[unsafe(no_mangle)]
pub extern "C" fn vfio_fsm_strerror(code: c_int) -> *const c_char {
    let text: &'static CStr = match code {
        VFIO_FSM_OK => c"done",
        VFIO_FSM_NULL => c"the pointer for the answer is null",
        VFIO_FSM_FLAGS => {
            c"the migration flags are not a legal set; treat the device as not migratable"
        }
        VFIO_FSM_UNKNOWN => c"there is no such device_state",
        VFIO_FSM_UNSUPPORTED => c"the device lacks the flag for this state",
        VFIO_FSM_ERROR_ASKED => c"ERROR cannot be asked for",
        VFIO_FSM_IN_ERROR => c"only VFIO_DEVICE_RESET leaves ERROR",
        VFIO_FSM_IMPOSSIBLE => c"the device is in a state that its flags do not have",
        VFIO_FSM_BLOCKED => {
            c"this pair is blocked, and an unpatched kernel never returns from it; go through STOP"
        }
        VFIO_FSM_REFUSED => c"no SET leads there",
        VFIO_FSM_NO_DATA_FD => c"a data_fd was due and none came; the driver is at fault",
        VFIO_FSM_ERRNO => c"an errno is a positive number",
        _ => c"no code of vfio_fsm",
    };
    text.as_ptr()
}
