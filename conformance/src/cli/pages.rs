// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! The command lines that pages show are those that the program takes.

use clap::Parser;

use super::Cli;

#[path = "../../tests/pages/mod.rs"]
#[expect(clippy::expect_used, clippy::panic, reason = "helpers of tests fail as tests do")]
mod shown;

/// H22: every call of the program that a page shows, also of what no test can run, is one that it
/// understands.
#[test]
fn every_call_is_understood() {
    let pages = shown::pages();
    let blocks = pages.iter().flat_map(|page| page.blocks.iter().map(move |block| (page, block)));
    let mut seen = 0;
    for (page, block) in blocks.filter(|(_, block)| block.language == "sh") {
        for call in block.calls() {
            let Some(arguments) = call.of_ours() else { continue };
            let words = std::iter::once("vfio-conform").chain(arguments.iter().map(String::as_str));
            let parsed = Cli::try_parse_from(words);
            assert!(parsed.is_ok(), "{}: {}: {:?}", page.path, call.line, parsed.err());
            seen += 1;
        }
    }
    assert!(seen > 20 && shown::root().exists(), "the pages show {seen} calls");
}
