// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! The commands of every arc, for a firmware that always says the same.

use expect_test::expect_file;
use vfio_fsm_mlx5::verify::driver::{Completion, transcript};

use crate::program::{QUICK, SHIPPING, check, place, source};

/// M100: what the shipping driver says on every arc is what the golden file has, byte for byte.
#[test]
#[ignore = "needs the kernel's sources"]
fn the_commands_are_those_of_the_golden_file() {
    check("golden", &SHIPPING);
}

/// M100: the golden file for chunk mode is the transcript of this driver.
#[test]
#[ignore = "needs the kernel's sources"]
fn the_golden_file_for_chunk_mode_is_up_to_date() {
    let text = transcript(&QUICK, true, Completion::Behind);
    let text = text.unwrap_or_else(|error| panic!("{error}"));
    expect_file!["../golden/mlx5_arc_commands_6.12_chunked.txt"].assert_eq(&text);
}

/// M100: a kernel whose state machine has moved is refused, and so is a directory without one.
#[test]
#[ignore = "needs the kernel's sources"]
fn other_sources_are_refused() {
    use vfio_fsm_mlx5::verify::driver::{Build, DriverError, needed};

    let empty = place("empty");
    let error = Build::new(&empty).build(&place("nothing")).expect_err("there are no sources");
    assert!(matches!(error, DriverError::File { .. }), "{error}");

    let moved = place("moved-source");
    for path in needed() {
        let to = moved.join(path);
        std::fs::create_dir_all(to.parent().unwrap()).unwrap();
        std::fs::copy(source().join(path), &to).unwrap();
    }
    let main = moved.join("drivers/vfio/vfio_main.c");
    let text = std::fs::read_to_string(&main).unwrap();
    std::fs::write(&main, text.replace("vfio_mig_get_next_state", "vfio_next_state")).unwrap();
    let error = Build::new(&moved).build(&place("moved")).expect_err("the pattern is gone");
    assert!(error.to_string().contains("vfio_mig_get_next_state"), "{error}");
}
