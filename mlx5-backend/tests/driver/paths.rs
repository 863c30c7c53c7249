// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! Our backend and the shipping driver, side by side.

use vfio_fsm_mlx5::firmware::{Config, VhcaConfig};
use vfio_fsm_mlx5::verify::driver::{
    Bench, Build, Built, DIFFERENCES, Manner, Parting, Scripted, part,
};

use crate::program::{QUICK, place, source};

/// As many SETs, of every state, one after the other.
const LENGTH: u32 = 3;

/// In chunk mode, chunks of five pages, so that three of them are soon read.
const TOTAL: u64 = 20_000;
const PAGES: u64 = 1 << 12;

/// On either firmware, in both modes and all manners.
fn partings(built: &Built) -> Vec<Parting> {
    let mut partings = Vec::new();
    for chunk_mode in [false, true] {
        let scripted = || Bench::scripted(Scripted::new(chunk_mode).with_total(TOTAL), PAGES);
        let config = Config { chunks: chunk_mode, ..Config::of(VhcaConfig::default()) };
        let software = || Bench::software(config.clone(), PAGES);
        for manner in [Manner::Idle, Manner::Touched, Manner::Busy] {
            for found in [
                part(built, LENGTH, chunk_mode, manner, scripted),
                part(built, LENGTH, chunk_mode, manner, software),
            ] {
                partings.extend(found.unwrap_or_else(|error| panic!("{error}")));
            }
        }
    }
    partings
}

/// M101: on every way of up to three SETs from RUNNING, with and without chunks, whether the data_fd
/// is used or not, our backend gives the shipping driver's commands, in its order and byte for byte,
/// reads the same bytes and has its replies, except where a reason is listed: on a scripted firmware
/// and on the software firmware.
#[test]
#[ignore = "needs the kernel's sources"]
fn the_commands_are_the_drivers_on_every_path() {
    let partings = partings(&QUICK);
    let meant: Vec<_> = partings.iter().map(Parting::meant).collect();
    for (parting, meant) in partings.iter().zip(&meant) {
        assert!(meant.is_some(), "{parting:#?}");
    }
    // The others are no partings: they are where the two may differ without one.
    let listed = |difference: &(&str, &str)| meant.contains(&Some(difference.0));
    assert_eq!(DIFFERENCES.iter().filter(|difference| listed(difference)).count(), 2);
    assert!(DIFFERENCES.iter().all(|(_, reason)| !reason.is_empty()));
}

/// M101: a driver that tracks nothing, or resumes the halves in the other order, is not ours.
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
        let partings = partings(&other);
        assert!(partings.iter().any(|parting| parting.meant().is_none()), "{name}");
    }
}
