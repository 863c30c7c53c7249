// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! Streams from the shipping driver to our backend, and back.

use vfio_fsm_mlx5::verify::driver::{Build, Side, Way, exchange};

use crate::program::{QUICK, check, place, source};

/// M102: a state that either has saved, the other loads; and for the same firmware the stream is the
/// same to the byte, with and without chunks, begun in PRE_COPY or not.
#[test]
#[ignore = "needs the kernel's sources"]
fn either_loads_what_the_other_saved() {
    assert_eq!(check("streams", &QUICK), "16 migrations");
}

/// M102: a driver that reads out the first page of an image again and again is found out.
#[test]
#[ignore = "needs the kernel's sources"]
fn a_wrong_page_is_found_out() {
    let build = Build::new(&source());
    let build = build.with_change("main.c", "*pos - vhca_buf->start_pos;", "0;");
    let forgetful = build.build(&place("forgetful")).unwrap_or_else(|error| panic!("{error}"));
    let saves = exchange(&forgetful, [Side::Linux, Side::Ours], Way::Stopped, false);
    assert!(saves.is_err(), "it saves");
    let loads = exchange(&forgetful, [Side::Ours, Side::Linux], Way::Stopped, false);
    assert!(loads.is_ok(), "it only loads: {loads:?}");
}
