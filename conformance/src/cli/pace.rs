// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! How fast a device node answers a replay, beside its ioctls alone.

use std::fmt;
use std::time::Instant;

use indicatif::HumanCount;
use serde::{Deserialize, Serialize};
use vfio_conform::replay::{Options, Replayer, Verdict};
use vfio_conform::suite;
use vfio_conform::target::KernelTarget;

use super::Result;

/// How fast ops are replayed, beside a loop of nothing but their ioctls, in the same process.
#[derive(Debug, Deserialize, Serialize)]
#[serde(tag = "event", rename = "pace")]
pub(crate) struct Pace {
    /// The ops of each.
    ops: u64,
    /// Seconds that the replay took.
    replay: f64,
    /// Seconds that the ioctls took.
    bare: f64,
}

impl Pace {
    /// A round is four ops.
    const ROUNDS: u32 = 5_000;

    pub(crate) fn measure(device: &str) -> Result<Self> {
        let mut target = KernelTarget::open(device, None)?;
        let trace = suite::pace(target.features(), Self::ROUNDS);
        let began = Instant::now();
        let outcome = Replayer::new(vec![&mut target]).replay(&trace, Options::default());
        let replay = began.elapsed().as_secs_f64();
        if outcome.verdict != Verdict::Pass {
            return Err(format!("{}: {:?}", trace.header.name, outcome.verdict).into());
        }
        let bare =
            target.bare_loop(Self::ROUNDS).map_err(|errno| format!("SET or GET: {errno}"))?;
        Ok(Self { ops: outcome.ops, replay, bare: bare.as_secs_f64() })
    }
}

impl fmt::Display for Pace {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { ops, replay, bare } = *self;
        let rate = |seconds: f64| HumanCount((ops as f64 / seconds.max(1e-9)) as u64);
        writeln!(
            f,
            "pace: {} ops a second replayed, {} as bare ioctls; a replay takes {:.2} times as long",
            rate(replay),
            rate(bare),
            replay / bare.max(1e-9)
        )
    }
}
