// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! `vfio-conform check`: the model.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::fs;
use std::io::{self, BufWriter, Write};
use std::path::PathBuf;
use std::time::Duration;

use clap::Args;
use indicatif::HumanCount;
use serde::Serialize;
use vfio_conform::suite::counterexample;
use vfio_conform::trace;
use vfio_fsm_core::Features;
use vfio_fsm_core::device::Bug;
use vfio_fsm_model::{
    CASES, Case, Checked, Counterexample, Design, LOCK_CASES, LOCK_MUTANTS, MUTANTS, Property,
    Refutation, Run, SLIPS, Slip, check, check_lock_mutant, check_mutant, check_slip, idle,
    properties, refute, refute_load, refute_reset,
};

use super::Result;
use super::output::{self, Output};
use super::system::{LargeSystems, Systems};

#[derive(Debug, Args)]
pub(crate) struct Arguments {
    /// Also print each property with what it says.
    #[arg(long)]
    properties: bool,
    /// Also print the run by which each planted bug and each slip is caught.
    #[arg(long)]
    mutants: bool,
    /// Also check the large models of two machines: minutes, and some gigabytes.
    #[arg(long)]
    system: bool,
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
    /// Level 3.
    #[serde(flatten)]
    system: Systems,
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
pub(super) struct Space {
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
pub(super) struct Caught {
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

    pub(super) fn by_run(what: &str, by: &str, run: Option<Run>) -> Self {
        Self::new(what, by, run.map(|run| (run.steps.len(), run.to_string())))
    }

    pub(super) const fn is_caught(&self) -> bool {
        self.steps.is_some()
    }

    /// Of a claim that must fall: whether it did.
    pub(super) fn refuted(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.steps {
            Some(steps) => {
                writeln!(f, "  {} is refuted in {steps} steps, as it must be", self.what)
            }
            None => writeln!(f, "  FAIL: {} was not refuted", self.what),
        }
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
        let system = Systems::find();
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
            system,
            counterexamples,
        }
    }

    fn claims(&self) -> impl Iterator<Item = &Caught> {
        let of_level_1 = self.mutants.iter().chain(&self.slips);
        let others = self.lock_mutants.iter().chain(&self.refutations);
        of_level_1.chain(others).chain(self.system.claims())
    }

    /// Whether all holds that must, and all falls that must.
    pub(crate) fn is_good(&self) -> bool {
        self.idle.is_empty()
            && self.spaces.iter().chain(&self.lock_spaces).all(Space::is_good)
            && self.system.is_good()
            && self.claims().all(Caught::is_caught)
    }
}

impl Space {
    pub(super) fn new(
        model: &'static str,
        features: Features,
        (states, transitions, depth): (usize, usize, usize),
        time: Duration,
        failures: Vec<String>,
        judged: Vec<(&'static str, u64)>,
    ) -> Self {
        Self {
            model,
            features: features.to_string(),
            states,
            transitions,
            depth,
            seconds: time.as_secs_f64(),
            failures,
            judged: judged.into_iter().collect(),
        }
    }

    pub(super) const fn is_good(&self) -> bool {
        self.failures.is_empty()
    }

    pub(super) fn judged(&self) -> impl Iterator<Item = (&'static str, u64)> {
        self.judged.iter().map(|(&id, &count)| (id, count))
    }
}

impl From<Checked> for Space {
    fn from(checked: Checked) -> Self {
        Self::new(
            checked.case.name,
            checked.case.features,
            (checked.states, checked.transitions, checked.depth),
            checked.time,
            checked.failures.iter().map(ToString::to_string).collect(),
            checked.judged,
        )
    }
}

/// How many properties there are to a level.
pub(super) fn judging(spaces: &[Space]) -> usize {
    spaces.iter().flat_map(|space| space.judged.keys()).collect::<BTreeSet<_>>().len()
}

/// How many of the claims to catch something hold, and which do not.
pub(super) fn claims(
    f: &mut fmt::Formatter<'_>,
    what: &str,
    count: usize,
    claims: &[Caught],
) -> fmt::Result {
    let caught = claims.iter().filter(|claim| claim.steps.is_some()).count();
    let all = claims.len();
    writeln!(f, "  {count} {what}: {caught} of {all} claims to catch one hold")?;
    let mut survivors = claims.iter().filter(|claim| claim.steps.is_none());
    survivors.try_for_each(|claim| writeln!(f, "  FAIL: {} survives {}", claim.what, claim.by))
}

impl fmt::Display for Space {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (states, steps) = (HumanCount(self.states as u64), HumanCount(self.transitions as u64));
        let verdict = if self.is_good() { "hold" } else { "FAIL" };
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
        self.refutations.iter().try_for_each(|claim| claim.refuted(f))?;
        self.system.fmt(f)
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
    let mut good = findings.is_good();
    if arguments.system {
        let large = LargeSystems::find();
        output.say("system", &large)?;
        good &= large.is_good();
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
    Ok(good)
}
