// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! `vfio-conform check`: the model.

use std::collections::BTreeMap;
use std::fmt;
use std::fs;
use std::io::{self, BufWriter, Write};
use std::path::PathBuf;

use clap::Args;
use indicatif::HumanCount;
use serde::Serialize;
use vfio_conform::suite::counterexample;
use vfio_conform::trace;
use vfio_fsm_core::Features;
use vfio_fsm_core::device::Bug;
use vfio_fsm_model::{
    Checked, Counterexample, MUTANTS, PROPERTIES, Property, check, check_mutant, refute,
};

use super::Result;
use super::output::{self, Output};

#[derive(Debug, Args)]
pub(crate) struct Arguments {
    /// Also print each property with what it says.
    #[arg(long)]
    properties: bool,
    /// Also print the run by which each planted bug is caught.
    #[arg(long)]
    mutants: bool,
    /// Also write the counterexamples, as traces that a correct device passes, to this file.
    #[arg(long, value_name = "FILE")]
    counterexamples: Option<PathBuf>,
}

/// What the check came to.
#[derive(Debug, Serialize)]
pub(crate) struct Findings {
    spaces: Vec<Space>,
    properties: Vec<Said>,
    mutants: Vec<Caught>,
    refutation: Caught,
    #[serde(skip)]
    counterexamples: Vec<(String, Counterexample)>,
}

/// One property.
#[derive(Debug, Serialize)]
struct Said {
    id: &'static str,
    text: &'static str,
    covers: &'static [&'static str],
}

/// One flag set.
#[derive(Debug, Serialize)]
struct Space {
    features: String,
    states: usize,
    transitions: usize,
    depth: usize,
    seconds: f64,
    failures: Vec<String>,
    /// How often each property had something to judge.
    judged: BTreeMap<&'static str, u64>,
}

/// One bug or claim, and the length of the run that shows it; `None` if nothing does.
#[derive(Debug, Serialize)]
struct Caught {
    what: String,
    by: String,
    steps: Option<usize>,
    run: Option<String>,
}

impl Findings {
    /// Do it all.
    pub(crate) fn find() -> Self {
        let spinner = output::spinner("checking the model");
        let spaces = Features::SETS.into_iter().map(|features| Space::from(check(features)));
        let spaces = spaces.collect();
        let mut counterexamples = Vec::new();
        let mut caught = |what: &str, by: &str, found: Option<Counterexample>| {
            let steps = found.as_ref().map(|found| found.steps.len());
            let run = found.as_ref().map(ToString::to_string);
            // More than one property may claim a bug, and traces have names of their own.
            let first = !counterexamples.iter().any(|(name, _)| name == what);
            let name = if first { what.to_owned() } else { format!("{what}-by-{by}") };
            counterexamples.extend(found.map(|found| (name, found)));
            Caught { what: what.to_owned(), by: by.to_owned(), steps, run }
        };
        let mutants = MUTANTS
            .iter()
            .map(|mutant| caught(mutant.bug.slug(), mutant.property, check_mutant(mutant)))
            .collect();
        let refuted = refute();
        let refutation = caught(refuted.claim.id, refuted.claim.text, refuted.counterexample);
        spinner.finish_and_clear();
        let properties =
            PROPERTIES.iter().map(|&Property { id, text, covers, .. }| Said { id, text, covers });
        Self { spaces, properties: properties.collect(), mutants, refutation, counterexamples }
    }

    /// Whether all holds that must, and all falls that must.
    pub(crate) fn is_good(&self) -> bool {
        self.spaces.iter().all(|space| space.failures.is_empty())
            && self.mutants.iter().all(|mutant| mutant.steps.is_some())
            && self.refutation.steps.is_some()
    }
}

impl From<Checked> for Space {
    fn from(checked: Checked) -> Self {
        Self {
            features: checked.features.to_string(),
            states: checked.states,
            transitions: checked.transitions,
            depth: checked.depth,
            seconds: checked.time.as_secs_f64(),
            failures: checked.failures.iter().map(ToString::to_string).collect(),
            judged: checked.judged.into_iter().collect(),
        }
    }
}

impl fmt::Display for Findings {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "model, level 1: {} properties", self.properties.len())?;
        for space in &self.spaces {
            let (states, steps) =
                (HumanCount(space.states as u64), HumanCount(space.transitions as u64));
            let verdict = if space.failures.is_empty() { "hold" } else { "FAIL" };
            writeln!(
                f,
                "  {:<22} {verdict}: {states} states, {steps} steps, depth {}, {:.2} s",
                space.features, space.depth, space.seconds
            )?;
            space.failures.iter().try_for_each(|failure| writeln!(f, "  FAIL: {failure}"))?;
        }
        let (bugs, claims) = (Bug::ALL.len(), self.mutants.len());
        let caught = self.mutants.iter().filter(|mutant| mutant.steps.is_some()).count();
        writeln!(f, "  {bugs} planted bugs: {caught} of {claims} claims to catch one hold")?;
        for mutant in self.mutants.iter().filter(|mutant| mutant.steps.is_none()) {
            writeln!(f, "  FAIL: {} survives {}", mutant.what, mutant.by)?;
        }
        match self.refutation.steps {
            Some(steps) => writeln!(
                f,
                "  {} is refuted in {steps} steps, as it must be (O4)",
                self.refutation.what
            ),
            None => writeln!(f, "  FAIL: {} was not refuted", self.refutation.what),
        }
    }
}

pub(crate) fn run(arguments: &Arguments, output: &mut Output) -> Result {
    let findings = Findings::find();
    output.say("model", &findings)?;
    if arguments.properties {
        for property in PROPERTIES {
            output.line(format_args!(
                "{}: {} ({})",
                property.id,
                property.text,
                property.covers.join(", ")
            ))?;
        }
    }
    if arguments.mutants {
        for (what, counterexample) in &findings.counterexamples {
            output.line(format_args!("\n{what}: {counterexample}"))?;
        }
    }
    if let Some(path) = &arguments.counterexamples {
        let traces: Vec<_> = findings
            .counterexamples
            .iter()
            .map(|(name, found)| counterexample(found, name))
            .collect();
        let fail = |error: io::Error| format!("{}: {error}", path.display());
        let mut file = BufWriter::new(fs::File::create(path).map_err(fail)?);
        trace::write(&traces, &mut file).and_then(|()| file.flush()).map_err(fail)?;
    }
    Ok(findings.is_good())
}
