// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! `vfio-conform check`: the model.

use std::collections::{BTreeMap, BTreeSet};
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
    CASES, Case, Checked, Counterexample, Design, LOCK_CASES, LOCK_MUTANTS, MUTANTS, Property,
    Refutation, Run, SLIPS, Slip, check, check_lock_mutant, check_mutant, check_slip, idle,
    properties, refute, refute_load, refute_reset,
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
    /// Level 1.
    spaces: Vec<Space>,
    /// Level 2.
    lock_spaces: Vec<Space>,
    /// Properties that never had anything to judge.
    idle: Vec<&'static str>,
    properties: Vec<Said>,
    /// Bugs planted in the device.
    mutants: Vec<Caught>,
    /// What a VMM around a session gets wrong.
    slips: Vec<Caught>,
    /// What a driver gets wrong with its locks.
    lock_mutants: Vec<Caught>,
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

    fn by_run(what: &str, by: &str, run: Option<Run>) -> Self {
        Self::new(what, by, run.map(|run| (run.steps.len(), run.to_string())))
    }
}

impl Findings {
    /// Do it all.
    pub(crate) fn find() -> Self {
        let cases = CASES.len() + LOCK_CASES.len();
        let claims = MUTANTS.len() + SLIPS.len() + LOCK_MUTANTS.len();
        let bar = output::bar((cases + claims) as u64, "checking the model");
        let check_all = |cases: &'static [Case]| -> Vec<Checked> {
            cases.iter().map(check).inspect(|_| bar.inc(1)).collect()
        };
        let (checks, lock_checks) = (check_all(CASES), check_all(LOCK_CASES));
        let idle = [idle(&checks), idle(&lock_checks)].concat();
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
        for Refutation { claim, run } in [refute_load(), refute_reset()] {
            refutations.push(Caught::by_run(claim.id, claim.text, run));
        }
        let slips = SLIPS
            .iter()
            .inspect(|_| bar.inc(1))
            .map(|claim| Caught::by_run(claim.slip.slug(), claim.property, check_slip(claim)))
            .collect();
        let lock_mutants = LOCK_MUTANTS
            .iter()
            .inspect(|_| bar.inc(1))
            .map(|claim| {
                Caught::by_run(claim.design.slug(), claim.property, check_lock_mutant(claim))
            })
            .collect();
        bar.finish_and_clear();
        let said = |&Property { id, text, covers, .. }: &Property| Said { id, text, covers };
        Self {
            spaces: checks.into_iter().map(Space::from).collect(),
            lock_spaces: lock_checks.into_iter().map(Space::from).collect(),
            idle,
            properties: properties().map(said).collect(),
            mutants,
            slips,
            lock_mutants,
            refutations,
            counterexamples,
        }
    }

    fn claims(&self) -> impl Iterator<Item = &Caught> {
        let of_level_1 = self.mutants.iter().chain(&self.slips);
        of_level_1.chain(&self.lock_mutants).chain(&self.refutations)
    }

    /// Whether all holds that must, and all falls that must.
    pub(crate) fn is_good(&self) -> bool {
        self.idle.is_empty()
            && self.spaces.iter().chain(&self.lock_spaces).all(|space| space.failures.is_empty())
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

/// How many properties there are to a level.
fn judging(spaces: &[Space]) -> usize {
    spaces.iter().flat_map(|space| space.judged.keys()).collect::<BTreeSet<_>>().len()
}

/// How many of the claims to catch something hold, and which do not.
fn claims(f: &mut fmt::Formatter<'_>, what: &str, count: usize, claims: &[Caught]) -> fmt::Result {
    let caught = claims.iter().filter(|claim| claim.steps.is_some()).count();
    let all = claims.len();
    writeln!(f, "  {count} {what}: {caught} of {all} claims to catch one hold")?;
    let mut survivors = claims.iter().filter(|claim| claim.steps.is_none());
    survivors.try_for_each(|claim| writeln!(f, "  FAIL: {} survives {}", claim.what, claim.by))
}

impl fmt::Display for Space {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (states, steps) = (HumanCount(self.states as u64), HumanCount(self.transitions as u64));
        let verdict = if self.failures.is_empty() { "hold" } else { "FAIL" };
        let (model, features) = (self.model, &self.features);
        writeln!(
            f,
            "  {model:<14} {features:<22} {verdict}: {states} states, {steps} steps, {:.1} s",
            self.seconds
        )?;
        self.failures.iter().try_for_each(|failure| writeln!(f, "  FAIL: {failure}"))
    }
}

impl fmt::Display for Findings {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "model, level 1: {} properties", judging(&self.spaces))?;
        self.spaces.iter().try_for_each(|space| space.fmt(f))?;
        claims(f, "planted bugs", Bug::ALL.len(), &self.mutants)?;
        claims(f, "slips of a VMM", Slip::ALL.len(), &self.slips)?;
        writeln!(f, "model, level 2, the locks: {} properties", judging(&self.lock_spaces))?;
        self.lock_spaces.iter().try_for_each(|space| space.fmt(f))?;
        claims(f, "wrong designs", Design::ALL.len() - 1, &self.lock_mutants)?;
        for property in &self.idle {
            writeln!(f, "  FAIL: {property} had nothing to judge")?;
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
