// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! The machine as a picture, drawn from the table.

use core::fmt;

use crate::arc::arcs;
use crate::state::{Features, State};

/// The machine of a flag set in Graphviz' DOT language.
#[derive(Clone, Copy, Debug)]
pub struct Dot(pub Features);

/// The machine of a flag set as a Mermaid state diagram.
#[derive(Clone, Copy, Debug)]
pub struct Mermaid(pub Features);

impl fmt::Display for Dot {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "digraph \"{}\" {{", self.0)?;
        writeln!(f, "    node [shape=box, style=rounded];")?;
        for state in State::ALL.into_iter().filter(|&state| self.0.has(state)) {
            let extra = match state.session() {
                Some(_) => " [style=\"rounded,bold\"]",
                None if state == State::Error => " [style=\"rounded,dashed\"]",
                None => "",
            };
            writeln!(f, "    {state}{extra};")?;
        }
        for arc in arcs(self.0) {
            writeln!(f, "    {arc} [label=\"{}\"];", arc.session().label())?;
        }
        writeln!(f, "    ERROR -> RUNNING [label=\"reset\", style=dashed];")?;
        writeln!(f, "}}")
    }
}

impl fmt::Display for Mermaid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "stateDiagram-v2")?;
        writeln!(f, "    [*] --> RUNNING: open, or reset from anywhere")?;
        for arc in arcs(self.0) {
            let label = arc.session().label();
            let colon = if label.is_empty() { "" } else { ": " };
            writeln!(f, "    {} --> {}{colon}{label}", arc.from(), arc.to())?;
        }
        writeln!(f, "    ERROR --> RUNNING: reset")
    }
}
