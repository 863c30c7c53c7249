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
use vfio_fsm_core::device::Bug;
use vfio_fsm_model::{
    CASES, Checked, Counterexample, MUTANTS, Property, Refutation, SLIPS, Slip, check,
    check_mutant, check_slip, idle, properties, refute, refute_load,
};

use super::Result;
use super::output::{self, Output};

#[derive(Debug, Args)]
pub(crate) struct Arguments {
    /// Also print each property with what it says.
    #[arg(long)]
    properties: bool,
    /// Also print the run by which each planted bug and each slip is caught.
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
    /// Properties that never had anything to judge.
    idle: Vec<&'static str>,
    properties: Vec<Said>,
    /// Bugs planted in the device.
    mutants: Vec<Caught>,
    /// What a VMM around a session gets wrong.
    slips: Vec<Caught>,
    refutations: Vec<Caught>,
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

/// One model in one setting.
#[derive(Debug, Serialize)]
struct Space {
    model: &'static str,
    features: String,
    states: usize,
    transitions: usize,
    depth: usize,
    seconds: f64,
    failures: Vec<String>,
    /// How often each property had something to judge.
    judged: BTreeMap<&'static str, u64>,
}

/// One bug, slip or claim, and the length of the run that shows it; `None` if nothing does.
#[derive(Debug, Serialize)]
struct Caught {
    what: String,
    by: String,
    steps: Option<usize>,
    run: Option<String>,
}

impl Caught {
    fn new(what: &str, by: &str, found: Option<(usize, String)>) -> Self {
        let (steps, run) = found.unzip();
        Self { what: what.to_owned(), by: by.to_owned(), steps, run }
    }
}

impl Findings {
    /// Do it all.
    pub(crate) fn find() -> Self {
        let claims = CASES.len() + MUTANTS.len() + SLIPS.len();
        let bar = output::bar(claims as u64, "checking the model");
        let checks: Vec<_> = CASES.iter().map(check).inspect(|_| bar.inc(1)).collect();
        let idle = idle(&checks);
        let mut counterexamples = Vec::new();
        let mut caught = |what: &str, by: &str, found: Option<Counterexample>| {
            let shown = found.as_ref().map(|found| (found.steps.len(), found.to_string()));
            // More than one property may claim a bug, and traces have names of their own.
            let first = !counterexamples.iter().any(|(name, _)| name == what);
            let name = if first { what.to_owned() } else { format!("{what}-by-{by}") };
            counterexamples.extend(found.map(|found| (name, found)));
            bar.inc(1);
            Caught::new(what, by, shown)
        };
        let mutants = MUTANTS
            .iter()
            .map(|mutant| caught(mutant.bug.slug(), mutant.property, check_mutant(mutant)))
            .collect();
        let Refutation { claim, run } = refute();
        let mut refutations = vec![caught(claim.id, claim.text, run)];
        let Refutation { claim, run } = refute_load();
        let run = run.map(|run| (run.steps.len(), run.to_string()));
        refutations.push(Caught::new(claim.id, claim.text, run));
        let slips = SLIPS
            .iter()
            .inspect(|_| bar.inc(1))
            .map(|claim| {
                let run = check_slip(claim).map(|run| (run.steps.len(), run.to_string()));
                Caught::new(claim.slip.slug(), claim.property, run)
            })
            .collect();
        bar.finish_and_clear();
        let said = |&Property { id, text, covers, .. }: &Property| Said { id, text, covers };
        Self {
            spaces: checks.into_iter().map(Space::from).collect(),
            idle,
            properties: properties().map(said).collect(),
            mutants,
            slips,
            refutations,
            counterexamples,
        }
    }

    fn claims(&self) -> impl Iterator<Item = &Caught> {
        self.mutants.iter().chain(&self.slips).chain(&self.refutations)
    }

    /// Whether all holds that must, and all falls that must.
    pub(crate) fn is_good(&self) -> bool {
        self.idle.is_empty()
            && self.spaces.iter().all(|space| space.failures.is_empty())
            && self.claims().all(|claim| claim.steps.is_some())
    }
}

impl From<Checked> for Space {
    fn from(checked: Checked) -> Self {
        Self {
            model: checked.case.name,
            features: checked.case.features.to_string(),
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
            let (model, features) = (space.model, &space.features);
            writeln!(
                f,
                "  {model:<14} {features:<22} {verdict}: {states} states, {steps} steps, {:.1} s",
                space.seconds
            )?;
            space.failures.iter().try_for_each(|failure| writeln!(f, "  FAIL: {failure}"))?;
        }
        for property in &self.idle {
            writeln!(f, "  FAIL: {property} had nothing to judge")?;
        }
        let caught = |claims: &[Caught]| claims.iter().filter(|it| it.steps.is_some()).count();
        let (bugs, claims) = (Bug::ALL.len(), self.mutants.len());
        let of_device = caught(&self.mutants);
        writeln!(f, "  {bugs} planted bugs: {of_device} of {claims} claims to catch one hold")?;
        let (slips, claims) = (Slip::ALL.len(), self.slips.len());
        let of_vmm = caught(&self.slips);
        writeln!(f, "  {slips} slips of a VMM: {of_vmm} of {claims} claims to catch one hold")?;
        for claim in self.mutants.iter().chain(&self.slips).filter(|it| it.steps.is_none()) {
            writeln!(f, "  FAIL: {} survives {}", claim.what, claim.by)?;
        }
        self.refutations.iter().try_for_each(|claim| match claim.steps {
            Some(steps) => {
                writeln!(f, "  {} is refuted in {steps} steps, as it must be", claim.what)
            }
            None => writeln!(f, "  FAIL: {} was not refuted", claim.what),
        })
    }
}

pub(crate) fn run(arguments: &Arguments, output: &mut Output) -> Result {
    let findings = Findings::find();
    output.say("model", &findings)?;
    if arguments.properties {
        for property in properties() {
            output.line(format_args!(
                "{}: {} ({})",
                property.id,
                property.text,
                property.covers.join(", ")
            ))?;
        }
    }
    if arguments.mutants {
        for Caught { what, run, .. } in findings.claims() {
            output.line(format_args!("\n{what}: {}", run.as_deref().unwrap_or("not caught")))?;
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
