// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! The command lines that pages show are those that the program takes.

use clap::Parser;
use clap::error::ErrorKind;

use super::Cli;

#[path = "../../tests/pages/mod.rs"]
#[expect(clippy::expect_used, clippy::panic, reason = "helpers of tests fail as tests do")]
mod shown;

/// H22: every call of the program that a page shows in a block, also of what no test can run, is one
/// that it understands.
#[test]
fn every_call_is_understood() {
    let mut seen = 0;
    for page in shown::pages() {
        for block in page.blocks.iter().filter(|block| block.language == "sh") {
            for call in block.calls() {
                let Some(arguments) = call.of_ours() else { continue };
                let place = (&page.path, &block.section, &call.line);
                let words = std::iter::once("vfio-conform");
                let words = words.chain(arguments.iter().map(String::as_str));
                let parsed = Cli::try_parse_from(words);
                assert!(parsed.is_ok(), "{place:?}: {:?}", parsed.err());
                seen += 1;
            }
        }
    }
    assert!(seen > 40, "the pages show {seen} calls");
}

/// H22: so is every call that a sentence names, but that it may leave out what a command needs.
#[test]
fn every_call_named_is_understood() {
    let mut whole = 0;
    for page in shown::pages() {
        let prose = page.text.split("```").step_by(2);
        let spans = prose.flat_map(|prose| prose.split('`').skip(1).step_by(2));
        for span in spans.filter(|span| span.starts_with("vfio-conform ") && !span.contains('…'))
        {
            let words = shlex::split(span).expect("its quotes close");
            let unfinished = [
                ErrorKind::MissingRequiredArgument,
                ErrorKind::DisplayHelpOnMissingArgumentOrSubcommand,
                ErrorKind::MissingSubcommand,
            ];
            match Cli::try_parse_from(words) {
                Ok(_) => whole += 1,
                Err(error) if unfinished.contains(&error.kind()) => {}
                Err(error) => panic!("{}: {span}: {error}", page.path),
            }
        }
    }
    assert!(whole > 10, "sentences name {whole} calls");
}
