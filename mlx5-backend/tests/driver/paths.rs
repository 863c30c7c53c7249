// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! Our backend and the shipping driver, side by side.

use vfio_fsm_mlx5::verify::driver::{Build, DIFFERENCES, partings};

use crate::program::{QUICK, check, place, source};

/// M101: on every way of up to three SETs from RUNNING, with and without chunks, whether the guest
/// touches the VF, the data_fd is used, or neither, our backend gives the shipping driver's commands,
/// in its order and byte for byte, reads the same bytes and has its replies, except where a reason is
/// listed: on a scripted firmware and on the software firmware.
#[test]
#[ignore = "needs the kernel's sources"]
fn the_commands_are_the_drivers_on_every_path() {
    let done = check("paths", &QUICK);
    // The other two are no partings: they are where the two may differ without one.
    assert!(done.ends_with("of 2 kinds"), "{done}");
    assert_eq!(DIFFERENCES.len(), 4);
    assert!(DIFFERENCES.iter().all(|(_, reason)| !reason.is_empty()));
}

/// M101: a driver that tracks nothing, resumes the halves in the other order, or keeps another
/// reserve, is not ours.
#[test]
#[ignore = "needs the kernel's sources"]
fn another_driver_is_found_out() {
    let changes = [
        ("blind", "cmd.c", "set_track, track", "set_track, 0"),
        ("reversed", "main.c", "IN_OP_MOD_RESUME_RESPONDER", "IN_OP_MOD_RESUME_INITIATOR"),
        ("short", "main.c", "state_size / 10", "state_size / 3"),
    ];
    for (name, file, from, to) in changes {
        let build = Build::new(&source()).with_change(file, from, to);
        let other = build.build(&place(name)).unwrap_or_else(|error| panic!("{error}"));
        let partings = partings(&other).unwrap_or_else(|error| panic!("{name}: {error}"));
        assert!(partings.iter().any(|parting| parting.meant().is_none()), "{name}");
    }
}
