// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! The mlx5 command queue beside the distribution's libmlx5, on firmwares that are alike.

use vfio_conform::lab;
use vfio_conform::verify;

use super::super::Result;
use super::{Bench, Findings, ROUNDS, Table};

const WHAT: &str = "mlx5 queue: microseconds a command";
const COMMANDS: u32 = 5_000;

pub(super) fn measure(bench: &Bench) -> Result<Findings> {
    let Some(cache) = lab::default_cache() else {
        let why = "the environment names no home, so there is no cache with libmlx5".to_owned();
        return Ok(Findings::table(Table::missing(WHAT, why)));
    };
    bench.now("mlx5: libmlx5 and ours");
    let rate = match verify::rate(&cache, "cc", ROUNDS, COMMANDS) {
        Ok(Some(rate)) => rate,
        Ok(None) => {
            let why = format!(
                "there is no libmlx5 in {}: `vfio-conform mlx5 verify --only libmlx5` fetches it",
                cache.display()
            );
            return Ok(Findings::table(Table::missing(WHAT, why)));
        }
        Err(error) => return Ok(Findings::table(Table::missing(WHAT, error.to_string()))),
    };
    let (theirs, ours) = rate.least();
    let each =
        |round: std::time::Duration| Some(round.as_secs_f64() / f64::from(rate.commands) * 1e6);
    let mut table = Table::new(WHAT, ["ours", "libmlx5", "ratio"]);
    table.row(
        "one command at a time, the least",
        [each(ours), each(theirs), Some(rate.ratio().recip())],
    );
    table.row("the median of all rounds", [None, None, Some(rate.median().recip())]);
    Ok(Findings::table(table))
}
