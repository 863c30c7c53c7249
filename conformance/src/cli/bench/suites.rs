// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! How long suites are beside the least there can be, how they grow, and how fast they are made.

use std::time::Instant;

use vfio_conform::complete::{Complete, tour};
use vfio_conform::suite::{Kind, Specification, Suite};
use vfio_fsm_core::Features;

use super::super::Result;
use super::{Bench, Curve, Findings, Line, Table};

/// Complete suites are sized for so many states more than the machine has, and fewer.
const MOST_EXTRA: usize = 4;

pub(super) fn measure(bench: &Bench) -> Result<Findings> {
    let mut sizes = Table::new("suite, full flags", ["inputs", "least", "ratio"]);
    let mut lines = Vec::new();
    for features in Features::SETS {
        if bench.is_over() {
            break;
        }
        let specification = Specification::new(Kind::Control, features, true, true);
        let machine = &specification.machine;
        let least = tour::transitions(machine);
        let mut points = Vec::new();
        for extra in 0..=MOST_EXTRA {
            let size = Complete::new(machine, extra)?.size();
            points.push(((machine.states() + extra) as f64, size.inputs as f64));
            if features == Features::ALL {
                // Whatever tests each transition has it as an input once, at the least.
                let figures = (size.inputs as f64, least.items as f64);
                let name = format!("complete for {extra} more states");
                sizes.row(name, [Some(figures.0), Some(figures.1), Some(figures.0 / figures.1)]);
            }
        }
        if features == Features::ALL {
            for (name, tour) in [("transitions", &least), ("pairs", &tour::pairs(machine))] {
                let (inputs, items) = (tour.word.len() as f64, tour.items as f64);
                let name = format!("tour of all {name}");
                sizes.row(name, [Some(inputs), Some(items), Some(inputs / items)]);
            }
        }
        lines.push(Line { name: features.to_string(), points });
    }
    let curve = Curve {
        name: "suite-over-k",
        title: "Complete suites of the control machine",
        x: "states that an implementation may have (n + k)",
        y: "inputs",
        lines,
    };
    Ok(Findings { tables: vec![sizes, generated(bench)], curves: vec![curve] })
}

fn generated(bench: &Bench) -> Table {
    let mut table = Table::new("suite, as generated", ["traces", "steps", "steps/s"]);
    for suite in Suite::ALL {
        if bench.is_over() {
            break;
        }
        let began = Instant::now();
        let traces = suite.generate_all();
        let took = began.elapsed().as_secs_f64();
        let steps = traces.iter().map(|trace| trace.steps.len()).sum::<usize>() as f64;
        table.row(suite.name(), [Some(traces.len() as f64), Some(steps), Some(steps / took)]);
    }
    table
}
