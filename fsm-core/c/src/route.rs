// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! What `SET` walks.

use core::ffi::{CStr, c_char, c_int};

use vfio_fsm_core::{Direction, Route, State, next_hop};

use crate::code::{Answer, features, give, refused, state};

/// The session of a data_fd that is read: PRE_COPY, PRE_COPY_P2P, STOP_COPY.
pub const VFIO_FSM_SAVING: u32 = 1;
/// The session of a data_fd that is written: RESUMING.
pub const VFIO_FSM_RESUMING: u32 = 2;

/// The states that one SET walks through.
#[repr(C)]
pub struct vfio_fsm_route {
    /// The states behind `from`, in order; the last is the one asked for. Beyond `len`: 0.
    pub hops: [u32; 4],
    /// How many: 0, when there is nothing to do, to 4.
    pub len: u32,
    /// VFIO_FSM_SAVING or VFIO_FSM_RESUMING if the SET begins such a session and returns its
    /// data_fd; otherwise 0, and data_fd is -1.
    pub opens: u32,
}

fn first_hop(flags: u64, from: u32, to: u32) -> Answer<u32> {
    let (features, from, to) = (features(flags)?, state(from)?, state(to)?);
    next_hop(features, from, to).map(State::number).map_err(refused)
}

pub(crate) fn route(flags: u64, from: u32, to: u32) -> Answer<Route> {
    let (features, from, to) = (features(flags)?, state(from)?, state(to)?);
    Route::new(features, from, to).map_err(refused)
}

fn session(direction: Option<Direction>) -> u32 {
    match direction {
        None => 0,
        Some(Direction::Saving) => VFIO_FSM_SAVING,
        Some(Direction::Resuming) => VFIO_FSM_RESUMING,
    }
}

fn laid_out(route: Route) -> vfio_fsm_route {
    let mut hops = [0; 4];
    for (hop, arc) in hops.iter_mut().zip(route.arcs()) {
        *hop = arc.to().number();
    }
    vfio_fsm_route { hops, len: route.len() as u32, opens: session(route.opens()) }
}

/// Into `hop`: the state that a device in `from` goes to first on SET(`to`), which is `from` itself
/// when nothing is to be done.
///
/// # Safety
///
/// `hop` is null or can be written.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn vfio_fsm_next_hop(flags: u64, from: u32, to: u32, hop: *mut u32) -> c_int {
    // SAFETY: the caller's promise.
    unsafe { give(hop, first_hop(flags, from, to)) }
}

/// Into `route`: every state that SET(`to`) walks through from `from`, and whether it returns a
/// data_fd.
///
/// # Safety
///
/// `route` is null or can be written.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn vfio_fsm_route(
    flags: u64,
    from: u32,
    to: u32,
    route: *mut vfio_fsm_route,
) -> c_int {
    // SAFETY: the caller's promise.
    unsafe { give(route, self::route(flags, from, to).map(laid_out)) }
}

/// Whether SET(`to`) may be sent to a device in `from`. Not of the pair that keeps an unpatched
/// kernel spinning, nor of any number that is no state.
#[unsafe(no_mangle)]
pub extern "C" fn vfio_fsm_is_legal(flags: u64, from: u32, to: u32) -> bool {
    first_hop(flags, from, to).is_ok()
}

/// Whether `flags` are one of the four legal sets, and so the device can be migrated.
#[unsafe(no_mangle)]
pub extern "C" fn vfio_fsm_is_migratable(flags: u64) -> bool {
    features(flags).is_ok()
}

/// The name of a device_state, without the VFIO_DEVICE_STATE_ in front. Never NULL.
#[unsafe(no_mangle)]
pub extern "C" fn vfio_fsm_state_name(state: u32) -> *const c_char {
    let name: &'static CStr = match State::from_number(state) {
        Some(State::Error) => c"ERROR",
        Some(State::Stop) => c"STOP",
        Some(State::Running) => c"RUNNING",
        Some(State::StopCopy) => c"STOP_COPY",
        Some(State::Resuming) => c"RESUMING",
        Some(State::RunningP2p) => c"RUNNING_P2P",
        Some(State::PreCopy) => c"PRE_COPY",
        Some(State::PreCopyP2p) => c"PRE_COPY_P2P",
        None => c"no device_state",
    };
    name.as_ptr()
}
