// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! Everything that is checked with the shipping driver, by name.

use super::{
    Bench, Built, Completion, DIFFERENCES, DriverError, FINDINGS, Manner, Options, Parting,
    Scripted, Side, Way, exchange, part, sweep, transcript,
};
use crate::firmware::{Config, VhcaConfig};

/// What the driver of Linux 6.12 says on every arc, from elsewhere.
const GOLDEN: &str = include_str!("../../../tests/golden/mlx5_arc_commands_6.12.txt");
/// And in chunk mode, from [`transcript`] itself: so that a change of it is seen.
const GOLDEN_CHUNKED: &str =
    include_str!("../../../tests/golden/mlx5_arc_commands_6.12_chunked.txt");

/// As many SETs, of every state, one after the other.
const LENGTH: u32 = 3;
/// In chunk mode, chunks of five pages, so that three of them are soon read.
const TOTAL: u64 = 20_000;
/// Bytes of an image which with a tenth more has ten pages, and with a ninth more has eleven.
const TENTH: u64 = 37_200;
const PAGES: u64 = 1 << 12;

/// One check.
#[derive(Clone, Copy, Debug)]
pub struct Check {
    /// A word for it.
    pub name: &'static str,
    /// What holds when it passes.
    pub what: &'static str,
    run: fn(&Built) -> Result<String, DriverError>,
}

impl Check {
    /// Runs it. What it has done, in a few words.
    pub fn run(&self, built: &Built) -> Result<String, DriverError> {
        (self.run)(built)
    }
}

/// All of them, the quick ones first.
pub const CHECKS: &[Check] = &[
    Check {
        name: "golden",
        what: "the driver says on every arc what the golden file has, byte for byte",
        run: golden,
    },
    Check {
        name: "findings",
        what: "the driver does what specs/findings says of it",
        run: findings,
    },
    Check {
        name: "streams",
        what: "the driver and our backend save the same stream, and either loads the other's",
        run: streams,
    },
    Check {
        name: "paths",
        what: "on every path of three SETs our backend gives the driver's commands",
        run: paths,
    },
    Check {
        name: "failures",
        what: "whatever fails, the driver is sound, except where specs/findings says so",
        run: failures,
    },
];

fn golden(built: &Built) -> Result<String, DriverError> {
    let mut lines = 0;
    for completion in [Completion::Within, Completion::Behind] {
        for (chunk_mode, golden) in [(false, GOLDEN), (true, GOLDEN_CHUNKED)] {
            let text = transcript(built, chunk_mode, completion)?;
            let pairs = (1..).zip(text.lines().zip(golden.lines()));
            for (number, (seen, golden)) in pairs {
                lines += 1;
                if seen != golden {
                    return Err(DriverError::Found(format!(
                        "line {number} (chunks {chunk_mode}) is {seen:?} and not {golden:?}"
                    )));
                }
            }
            if text != golden {
                return Err(DriverError::Found(format!(
                    "{} lines and not {}",
                    text.lines().count(),
                    golden.lines().count()
                )));
            }
        }
    }
    Ok(format!("{lines} lines"))
}

fn findings(built: &Built) -> Result<String, DriverError> {
    for finding in FINDINGS {
        finding.show(built).map_err(|error| {
            DriverError::Found(format!("{} ({}): {error}", finding.what, finding.page))
        })?;
    }
    Ok(format!("{} findings", FINDINGS.len()))
}

fn streams(built: &Built) -> Result<String, DriverError> {
    let mut migrations = 0;
    for chunk_mode in [false, true] {
        for way in [Way::Stopped, Way::Running] {
            let mut first: Option<Vec<u8>> = None;
            for from in [Side::Linux, Side::Ours] {
                for to in [Side::Linux, Side::Ours] {
                    let told = |what: &dyn std::fmt::Display| {
                        DriverError::Found(format!(
                            "{from:?} to {to:?}, {way:?}, chunks {chunk_mode}: {what}"
                        ))
                    };
                    let stream = exchange(built, [from, to], way, chunk_mode)
                        .map_err(|error| told(&error))?;
                    if *first.get_or_insert_with(|| stream.clone()) != stream {
                        return Err(told(&"the stream is another"));
                    }
                    migrations += 1;
                }
            }
        }
    }
    Ok(format!("{migrations} migrations"))
}

/// Where our backend and this driver part, on either firmware, in both modes and all manners.
pub fn partings(built: &Built) -> Result<Vec<Parting>, DriverError> {
    let mut partings = Vec::new();
    for chunk_mode in [false, true] {
        let scripted = || Bench::scripted(Scripted::new(chunk_mode).with_total(TOTAL), PAGES);
        let vhca = VhcaConfig { image_bytes: TENTH, ..VhcaConfig::default() };
        let config = Config { chunks: chunk_mode, ..Config::of(vhca) };
        let software = || Bench::software(config.clone(), PAGES);
        for manner in [Manner::Idle, Manner::Touched, Manner::Busy] {
            partings.extend(part(built, LENGTH, chunk_mode, manner, scripted)?);
            partings.extend(part(built, LENGTH, chunk_mode, manner, software)?);
        }
    }
    Ok(partings)
}

fn paths(built: &Built) -> Result<String, DriverError> {
    let partings = partings(built)?;
    if let Some(parting) = partings.iter().find(|parting| parting.meant().is_none()) {
        return Err(DriverError::Found(format!("nobody meant this: {parting:#?}")));
    }
    let meant = |difference: &&(&str, &str)| {
        partings.iter().any(|parting| parting.meant() == Some(difference.0))
    };
    let met = DIFFERENCES.iter().filter(meant).count();
    Ok(format!("{} partings, all of them meant, of {met} kinds", partings.len()))
}

fn failures(built: &Built) -> Result<String, DriverError> {
    let orders = [
        (false, Completion::Behind, false),
        (false, Completion::Awaited, true),
        (true, Completion::Within, true),
    ];
    let (mut runs, mut pages) = (0, Vec::new());
    for (chunk_mode, completion, workers_first) in orders {
        let options = Options { completion, workers_first, ..Options::default() };
        for outcome in sweep(built, chunk_mode, options)? {
            runs += 1;
            let page = outcome.page();
            if page.is_none() && outcome.found.is_some() {
                return Err(DriverError::Found(outcome.to_string()));
            }
            pages.extend(page);
        }
    }
    pages.sort_unstable();
    pages.dedup();
    Ok(format!("{runs} runs; found: {}", pages.join(", ")))
}
