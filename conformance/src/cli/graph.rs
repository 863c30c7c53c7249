// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! `vfio-conform graph`: the protocol as a graph, counted, judged and written out.

use std::fmt;
use std::fs;
use std::path::{Path, PathBuf};

use clap::Args;
use indicatif::HumanCount;
use serde::Serialize;
use vfio_conform::tidy::write_whole;
use vfio_fsm_core::Features;
use vfio_fsm_core::device::Bug;
use vfio_fsm_model::graph::{Graph, Label, Liveness, Seen, Trap, liveness, seen};

use super::Result;
use super::output::Output;

#[derive(Debug, Args)]
pub(crate) struct Arguments {
    /// Also write each graph to this directory: as a list of edges and for Graphviz.
    #[arg(long, value_name = "DIR")]
    out: Option<PathBuf>,
    /// Of a device with this bug, as `replay --target reference:BUG` knows them.
    #[arg(long, value_name = "BUG", value_parser = bug)]
    bug: Option<Bug>,
}

fn bug(name: &str) -> std::result::Result<Bug, String> {
    let found = Bug::ALL.iter().copied().find(|bug| bug.slug() == name);
    found.ok_or_else(|| {
        let all: Vec<_> = Bug::ALL.iter().map(|bug| bug.slug()).collect();
        format!("there is no such bug; there are {}", all.join(", "))
    })
}

/// The graph of one set of flags.
#[derive(Debug, Serialize)]
struct Counted {
    features: String,
    states: usize,
    transitions: usize,
    endings: Vec<Ending>,
}

/// What must happen in the end, and where it does not.
#[derive(Debug, Serialize)]
struct Ending {
    id: &'static str,
    text: &'static str,
    /// The way to where it is broken, and the place.
    trap: Option<(Vec<String>, String)>,
}

#[derive(Debug, Serialize)]
#[serde(transparent)]
struct Graphs(Vec<Counted>);

impl Counted {
    fn new(features: Features, graph: &Graph<Seen, Label>) -> Self {
        let ending = |Liveness { id, text, trap }| {
            let trap = trap.map(|Trap { path, at }| (path, at));
            Ending { id, text, trap }
        };
        Self {
            features: features.to_string(),
            states: graph.states(),
            transitions: graph.transitions(),
            endings: liveness(graph).into_iter().map(ending).collect(),
        }
    }
}

impl fmt::Display for Graphs {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for Counted { features, states, transitions, endings } in &self.0 {
            let count = |number: usize| HumanCount(number as u64);
            let (states, transitions) = (count(*states), count(*transitions));
            writeln!(f, "{features:<22} {states} states, {transitions} transitions")?;
            for Ending { id, trap, .. } in endings {
                match trap {
                    None => writeln!(f, "  {id}: holds")?,
                    Some((path, at)) => {
                        writeln!(f, "  FAIL: {id}: in {at}, after:")?;
                        path.iter().try_for_each(|step| writeln!(f, "    {step}"))?;
                    }
                }
            }
        }
        Ok(())
    }
}

pub(crate) fn run(arguments: &Arguments, output: &mut Output) -> Result {
    let mut graphs = Graphs(Vec::new());
    for features in Features::SETS {
        let graph = seen(features, arguments.bug);
        if let Some(directory) = &arguments.out {
            write(directory, features, &graph)?;
        }
        graphs.0.push(Counted::new(features, &graph));
    }
    output.say("graphs", &graphs)?;
    Ok(graphs.0.iter().flat_map(|graph| &graph.endings).all(|ending| ending.trap.is_none()))
}

fn write(directory: &Path, features: Features, graph: &Graph<Seen, Label>) -> Result<()> {
    let file = |extension| directory.join(format!("{}.{extension}", features.slug()));
    let edges: String = graph.edge_list().into_iter().map(|line| line + "\n").collect();
    let whole = |extension, text: String| {
        write_whole(&file(extension), |output| output.write_all(text.as_bytes()))
    };
    fs::create_dir_all(directory)
        .and_then(|()| whole("edges", edges))
        .and_then(|()| whole("dot", graph.dot().to_string()))
        .map_err(|error| format!("{}: {error}", directory.display()).into())
}
