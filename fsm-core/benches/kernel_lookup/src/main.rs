// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! Our lookups and the kernel's, on the same pairs in the same order: run.sh counts them.
//!
//! `check` and `check-blocked` compare the answers; every other mode does one thing, a given
//! number of rounds, for a counter of instructions to watch.

use std::ffi::c_int;
use std::process::ExitCode;

use vfio_fsm_core::{Features, Refused, Route, State, next_hop};

/// `struct vfio_device` as shim.h has it.
#[repr(C)]
#[derive(Clone, Copy)]
struct Device {
    migration_flags: u64,
}

unsafe extern "C" {
    fn vfio_mig_get_next_state(device: *const Device, from: u32, to: u32, next: *mut u32) -> c_int;
    fn kernel_route(device: *const Device, from: u32, to: u32) -> c_int;
}

/// One pair of states on one device, in the terms of both sides: neither has to convert.
#[derive(Clone, Copy)]
struct Case {
    features: Features,
    from: State,
    to: State,
    device: Device,
    from_number: u32,
    to_number: u32,
}

/// Stands for any refusal; no state and no number of arcs.
const REFUSED: u64 = 99;

/// Every pair of states on every legal flag set.
fn pairs() -> impl Iterator<Item = Case> {
    let pairs = State::ALL.into_iter().flat_map(|from| State::ALL.map(|to| (from, to)));
    Features::SETS.into_iter().flat_map(move |features| {
        pairs.clone().map(move |(from, to)| Case {
            features,
            from,
            to,
            device: Device { migration_flags: features.flags() },
            from_number: from.number(),
            to_number: to.number(),
        })
    })
}

/// The kernel's next state, if it gives one.
#[inline]
fn kernel_next(device: &Device, from: u32, to: u32) -> Option<u32> {
    let mut next = 0;
    // SAFETY: the function reads the one field of `device` and writes `next`, and both are there.
    let errno = unsafe { vfio_mig_get_next_state(device, from, to, &mut next) };
    (errno == 0).then_some(next)
}

// Functions of their own under names of their own, so that the counter can find them.

#[unsafe(no_mangle)]
#[inline(never)]
fn our_next_hop(features: Features, from: State, to: State) -> Result<State, Refused> {
    next_hop(features, from, to)
}

/// With a number to ask for that may be no state, as the kernel's takes it.
#[unsafe(no_mangle)]
#[inline(never)]
fn our_next_hop_to_number(features: Features, from: State, to: u32) -> Option<State> {
    next_hop(features, from, State::from_number(to)?).ok()
}

#[unsafe(no_mangle)]
#[inline(never)]
fn our_route(features: Features, from: State, to: State) -> Result<Route, Refused> {
    Route::new(features, from, to)
}

fn hop_called(case: &Case) -> u64 {
    our_next_hop(case.features, case.from, case.to).map_or(REFUSED, |next| next as u64)
}

fn hop_to_number(case: &Case) -> u64 {
    let next = our_next_hop_to_number(case.features, case.from, case.to_number);
    next.map_or(REFUSED, |next| next as u64)
}

fn hop_inlined(case: &Case) -> u64 {
    next_hop(case.features, case.from, case.to).map_or(REFUSED, |next| next as u64)
}

fn hop_kernel(case: &Case) -> u64 {
    kernel_next(&case.device, case.from_number, case.to_number).map_or(REFUSED, u64::from)
}

fn route_called(case: &Case) -> u64 {
    our_route(case.features, case.from, case.to).map_or(REFUSED, |route| route.len() as u64)
}

fn route_kernel(case: &Case) -> u64 {
    // SAFETY: the function reads the one field of `device`, which is there.
    let arcs = unsafe { kernel_route(&case.device, case.from_number, case.to_number) };
    u64::try_from(arcs).unwrap_or(REFUSED)
}

/// The same loop around each: a sum in which no answer can be left out or put elsewhere.
#[inline(always)]
fn rounds(cases: &[Case], count: u64, answer: impl Fn(&Case) -> u64) -> u64 {
    let mut sum = 0_u64;
    for _ in 0..count {
        for case in cases {
            sum = sum.rotate_left(5) ^ answer(case);
        }
    }
    sum
}

/// What `SET(to)` in `from` means to the kernel, asked as a driver asks; `None` is refused.
fn walk_kernel(case: &Case) -> Option<Vec<u32>> {
    let mut arcs = Vec::new();
    let mut at = case.from_number;
    loop {
        let next = kernel_next(&case.device, at, case.to_number)?;
        // Eight states: whoever takes more steps goes round in circles.
        if next == at || arcs.len() == State::ALL.len() {
            return Some(arcs);
        }
        arcs.push(next);
        at = next;
    }
}

fn walk_ours(case: &Case) -> Option<Vec<u32>> {
    let route = Route::new(case.features, case.from, case.to).ok()?;
    Some(route.arcs().map(|arc| arc.to().number()).collect())
}

/// Both sides' answers to everything; the blocked pairs apart, as some kernels hang in them.
fn check(blocked: bool) -> Result<(), String> {
    let mut compared = 0;
    for case in pairs() {
        let is_blocked =
            next_hop(case.features, case.from, case.to).is_err_and(|refused| refused.is_blocked());
        if is_blocked != blocked {
            continue;
        }
        let (ours, kernel) = (walk_ours(&case), walk_kernel(&case));
        // The walks first: a kernel that goes round in circles does not come back from a route.
        if ours != kernel
            || hop_called(&case) != hop_kernel(&case)
            || hop_to_number(&case) != hop_kernel(&case)
            || hop_inlined(&case) != hop_kernel(&case)
            // Drivers never ask the kernel about the state that they are in.
            || case.from != case.to && route_called(&case) != route_kernel(&case)
        {
            return Err(format!(
                "{} to {} with {}: ours {ours:?}, the kernel's {kernel:?}",
                case.from, case.to, case.features
            ));
        }
        compared += 1;
    }
    if !blocked {
        compared += check_unknown()?;
    }
    println!("{compared}");
    Ok(())
}

/// Numbers that are no state.
fn check_unknown() -> Result<u32, String> {
    let mut compared = 0;
    for case in pairs() {
        for to in [8, 9, 0x100, u32::MAX] {
            let ours = our_next_hop_to_number(case.features, case.from, to);
            let kernel = kernel_next(&case.device, case.from_number, to);
            if ours.is_some() || kernel.is_some() {
                return Err(format!("{to:#x}: ours {ours:?}, the kernel's {kernel:?}"));
            }
            compared += 1;
        }
    }
    Ok(compared)
}

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let mode = arguments.first().map_or("", String::as_str);
    let count = arguments.get(1).and_then(|count| count.parse().ok()).unwrap_or(1);
    let legal: Vec<Case> = pairs().filter(|case| hop_inlined(case) != REFUSED).collect();
    let sum = match mode {
        "check" | "check-blocked" => {
            return match check(mode == "check-blocked") {
                Ok(()) => ExitCode::SUCCESS,
                Err(difference) => {
                    eprintln!("{difference}");
                    ExitCode::FAILURE
                }
            };
        }
        "legal" => {
            println!("{}", legal.len());
            return ExitCode::SUCCESS;
        }
        "hop-called" => rounds(&legal, count, hop_called),
        "hop-to-number" => rounds(&legal, count, hop_to_number),
        "hop-inlined" => rounds(&legal, count, hop_inlined),
        "hop-kernel" => rounds(&legal, count, hop_kernel),
        "route-called" => rounds(&legal, count, route_called),
        "route-kernel" => rounds(&legal, count, route_kernel),
        _ => {
            eprintln!("no such mode: {mode:?}; start this with run.sh");
            return ExitCode::from(2);
        }
    };
    // Keeps the answers from being left out, and run.sh holds ours against the kernel's.
    println!("{sum}");
    ExitCode::SUCCESS
}
