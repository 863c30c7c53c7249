// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! `vfio-conform check`: the model.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::fs;
use std::io::{self, BufWriter, Write};
use std::path::PathBuf;

use clap::Args;
use indicatif::HumanCount;
use serde::{Serialize, Serializer};
use vfio_conform::suite::{Refuted, Suite};
use vfio_conform::trace;
use vfio_fsm_model::{
    CASES, CLAIMS, Case, Checked, Fault, LARGE_SYSTEM_CASES, LOCK_CASES, Property, SYSTEM_CASES,
    check, properties,
};

use super::Result;
use super::matrix::Matrix;
use super::output::{self, Output};

#[derive(Debug, Args)]
pub(crate) struct Arguments {
    /// Also print each property with what it says.
    #[arg(long)]
    properties: bool,
    /// Also print which property catches which bug, in how many steps.
    #[arg(long)]
    mutants: bool,
    /// Also check the large models of two machines: minutes, and some gigabytes.
    #[arg(long)]
    system: bool,
    /// Also print the shortest run by which each fault is caught.
    #[arg(long)]
    runs: bool,
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
    /// Level 3.
    system_spaces: Vec<Space>,
    properties: Vec<Said>,
    claims: Vec<Caught>,
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

/// A fault that a property must catch, and the shortest run in which it does; `None` if none was
/// found.
#[derive(Debug, Serialize)]
struct Caught {
    #[serde(serialize_with = "in_words")]
    fault: Fault,
    property: &'static str,
    model: &'static str,
    features: String,
    steps: Option<usize>,
    run: Option<String>,
}

fn in_words<S: Serializer>(fault: &Fault, serializer: S) -> std::result::Result<S::Ok, S::Error> {
    serializer.collect_str(fault)
}

impl From<&Refuted> for Caught {
    fn from(refuted: &Refuted) -> Self {
        let (claim, run) = (refuted.claim, refuted.run());
        Self {
            fault: claim.fault,
            property: claim.property,
            model: claim.model(),
            features: claim.features().to_string(),
            steps: run.map(|run| run.steps.len()),
            run: run.map(ToString::to_string),
        }
    }
}

impl Findings {
    /// Do it all.
    pub(crate) fn find() -> Self {
        let cases = CASES.len() + LOCK_CASES.len() + SYSTEM_CASES.len();
        let bar = output::bar((cases + CLAIMS.len()) as u64, "checking the model");
        let check_all = |cases: &'static [Case]| -> Vec<Space> {
            cases.iter().map(|case| check(case).into()).inspect(|_| bar.inc(1)).collect()
        };
        let spaces = check_all(CASES);
        let (lock_spaces, system_spaces) = (check_all(LOCK_CASES), check_all(SYSTEM_CASES));
        let claims = Refuted::all().iter().inspect(|_| bar.inc(1)).map(Caught::from).collect();
        bar.finish_and_clear();
        let said = |&Property { id, text, covers, .. }: &Property| Said { id, text, covers };
        let properties = properties().map(said).collect();
        Self { spaces, lock_spaces, system_spaces, properties, claims }
    }

    /// Whether all holds that must, and all falls that must.
    pub(crate) fn is_good(&self) -> bool {
        let spaces = self.spaces.iter().chain(&self.lock_spaces).chain(&self.system_spaces);
        spaces.into_iter().all(|space| space.failures.is_empty())
            && self.claims.iter().all(|claim| claim.steps.is_some())
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

impl Findings {
    /// How many of the claims to catch a fault of a kind hold, and which do not.
    fn claims(
        &self,
        f: &mut fmt::Formatter<'_>,
        what: &str,
        kind: impl Fn(Fault) -> bool,
    ) -> fmt::Result {
        let claims = || self.claims.iter().filter(|claim| kind(claim.fault));
        let faults: BTreeSet<_> = claims().map(|claim| claim.fault).collect();
        let (caught, all) =
            (claims().filter(|claim| claim.steps.is_some()).count(), claims().count());
        let count = faults.len();
        writeln!(f, "  {count} {what}: {caught} of {all} claims to catch one hold")?;
        let mut survivors = claims().filter(|claim| claim.steps.is_none());
        survivors.try_for_each(|claim| {
            writeln!(f, "  FAIL: {} survives {} of {}", claim.fault, claim.property, claim.model)
        })
    }
}

impl fmt::Display for Space {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (states, steps) = (HumanCount(self.states as u64), HumanCount(self.transitions as u64));
        let verdict = if self.failures.is_empty() { "hold" } else { "FAIL" };
        let (model, features) = (self.model, &self.features);
        writeln!(
            f,
            "  {model:<20} {features:<22} {verdict}: {states} states, {steps} steps, {:.1} s",
            self.seconds
        )?;
        self.failures.iter().try_for_each(|failure| writeln!(f, "  FAIL: {failure}"))
    }
}

impl fmt::Display for Findings {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "model, level 1: {} properties", judging(&self.spaces))?;
        self.spaces.iter().try_for_each(|space| space.fmt(f))?;
        self.claims(f, "planted bugs", |fault| matches!(fault, Fault::Device(_)))?;
        self.claims(f, "slips of a VMM", |fault| matches!(fault, Fault::Vmm(_)))?;
        writeln!(f, "model, level 2, the locks: {} properties", judging(&self.lock_spaces))?;
        self.lock_spaces.iter().try_for_each(|space| space.fmt(f))?;
        self.claims(f, "wrong designs", |fault| matches!(fault, Fault::Locks(_)))?;
        let properties = judging(&self.system_spaces);
        writeln!(f, "model, level 3, two machines: {properties} properties")?;
        self.system_spaces.iter().try_for_each(|space| space.fmt(f))?;
        self.claims(f, "slips between two VMMs", |fault| matches!(fault, Fault::System(_)))?;
        self.claims(f, "dropped assumptions", |fault| matches!(fault, Fault::Assumption(_)))
    }
}

/// More of level 3.
#[derive(Debug, Serialize)]
#[serde(transparent)]
struct Large(Vec<Space>);

impl fmt::Display for Large {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "model, level 3, more of it")?;
        self.0.iter().try_for_each(|space| space.fmt(f))
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
    let matrix = arguments.mutants.then(Matrix::find).transpose()?;
    if let Some(matrix) = &matrix {
        output.say("mutants", matrix)?;
    }
    if arguments.runs {
        for Caught { fault, run, .. } in &findings.claims {
            output.line(format_args!("\n{fault}: {}", run.as_deref().unwrap_or("not caught")))?;
        }
    }
    if let Some(path) = &arguments.counterexamples {
        let fail = |error: io::Error| format!("{}: {error}", path.display());
        let mut file = BufWriter::new(fs::File::create(path).map_err(fail)?);
        let traces = Suite::Model.generate_all();
        trace::write(&traces, &mut file).and_then(|()| file.flush()).map_err(fail)?;
    }
    let mut good = findings.is_good() && matrix.is_none_or(|matrix| matrix.is_good());
    if arguments.system {
        let large = Large(LARGE_SYSTEM_CASES.iter().map(|case| check(case).into()).collect());
        output.say("system", &large)?;
        good &= large.0.iter().all(|space| space.failures.is_empty());
    }
    Ok(good)
}
