// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! The commands of every arc, for a firmware that always says the same.

use expect_test::expect_file;
use vfio_fsm_mlx5::verify::driver::{Completion, transcript};

use crate::program::SHIPPING;

const GOLDEN: &str = include_str!("../golden/mlx5_arc_commands_6.12.txt");

fn said(chunk_mode: bool, completion: Completion) -> String {
    transcript(&SHIPPING, chunk_mode, completion).unwrap_or_else(|error| panic!("{error}"))
}

/// M100: what the shipping driver says is what the golden file has, byte for byte.
#[test]
#[ignore = "needs the kernel's sources"]
fn the_commands_are_those_of_the_golden_file() {
    for completion in [Completion::Within, Completion::Behind] {
        let text = said(false, completion);
        for (line, (seen, golden)) in (1..).zip(text.lines().zip(GOLDEN.lines())) {
            assert_eq!(seen, golden, "line {line} of the transcript, {completion:?}");
        }
        assert_eq!(text, GOLDEN);
    }
}

/// M100: in chunk mode, too, it says what it has said before.
#[test]
#[ignore = "needs the kernel's sources"]
fn the_commands_in_chunk_mode_are_those_of_the_golden_file() {
    let golden = expect_file!["../golden/mlx5_arc_commands_6.12_chunked.txt"];
    golden.assert_eq(&said(true, Completion::Behind));
    golden.assert_eq(&said(true, Completion::Within));
}
