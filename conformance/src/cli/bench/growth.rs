// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! How the model grows with devices and with flags.

use std::num::NonZeroUsize;

use vfio_fsm_core::Features;
use vfio_fsm_model::{BENCH_CASES, CASES, Case, Engine, How, Watch, check_watched};

use super::super::Result;
use super::{Bench, Curve, Findings, Line, Table};

/// The models of one device that are there for every set of flags.
const OF_FLAGS: [&str; 3] = ["any VMM", "Saver", "Loader"];

/// One thread, so that the figures of two machines can be compared.
const HOW: How = How { engine: Engine::Own, threads: NonZeroUsize::MIN, symmetric: false };

pub(super) fn measure(bench: &Bench) -> Result<Findings> {
    let mut table = Table::new("model", ["states", "states/s", "times more"]);
    let devices = series(bench, BENCH_CASES, &mut table);
    let of_flags = OF_FLAGS.map(|name| {
        let case =
            |features| CASES.iter().find(|case| case.name == name && case.features == features);
        let cases = Features::SETS.into_iter().filter_map(case);
        Line { name: name.to_owned(), points: series(bench, cases, &mut table) }
    });
    let curve = |name, title, x, lines| Curve { name, title, x, y: "states", lines };
    let devices = vec![Line { name: "any calls, at any time".to_owned(), points: devices }];
    let curves = vec![
        curve("model-over-devices", "The model over devices", "devices", devices),
        curve(
            "model-over-features",
            "The model over flags",
            "1 STOP_COPY, 2 with P2P, 3 with PRE_COPY, 4 with both",
            of_flags.into(),
        ),
    ];
    Ok(Findings { tables: vec![table], curves })
}

/// One after the other: number and states.
fn series(
    bench: &Bench,
    cases: impl IntoIterator<Item = &'static Case>,
    table: &mut Table,
) -> Vec<(f64, f64)> {
    let mut points: Vec<(f64, f64)> = Vec::new();
    for case in cases {
        if bench.is_over() {
            break;
        }
        bench.now(&format!("{}, {}", case.name, case.features));
        let checked = check_watched(case, HOW, &Watch::new(None));
        let states = checked.states as f64;
        let growth = points.last().map(|(_, before)| states / before);
        let rate = states / checked.time.as_secs_f64();
        let name = format!("{}, {}", case.name, case.features.slug());
        table.row(name, [Some(states), Some(rate), growth]);
        points.push(((points.len() + 1) as f64, states));
    }
    points
}
