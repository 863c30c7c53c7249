// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! The commands of every arc, for a firmware that always says the same.

use vfio_fsm_mlx5::verify::driver::{Completion, transcript};

use crate::program::SHIPPING;

const GOLDEN: &str = include_str!("../golden/mlx5_arc_commands_6.12.txt");

/// M100: what the shipping driver says is what the golden file has, byte for byte.
#[test]
#[ignore = "needs the kernel's sources"]
fn the_commands_are_those_of_the_golden_file() {
    for completion in [Completion::Within, Completion::Behind] {
        let text = transcript(&SHIPPING, false, completion).unwrap_or_else(|error| panic!("{error}"));
        for (line, (seen, golden)) in text.lines().zip(GOLDEN.lines()).enumerate() {
            assert_eq!(seen, golden, "line {} of the transcript, {completion:?}", line + 1);
        }
        assert_eq!(text, GOLDEN);
    }
}
