// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! `vfio-conform check`: the model.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::fs;
use std::io::{self, BufWriter, Write};
use std::net::SocketAddr;
use std::num::NonZeroUsize;
use std::path::PathBuf;

use clap::{Args, ValueEnum};
use indicatif::HumanCount;
use serde::Serialize;
use vfio_conform::suite::counterexample;
use vfio_conform::trace;
use vfio_fsm_core::Features;
use vfio_fsm_core::device::Bug;
use vfio_fsm_model::{
    BENCH_CASES, CASES, Case, Checked, Counterexample, Design, Engine, How, LOCK_CASES,
    LOCK_MUTANTS, MUTANTS, Property, Refutation, Run, SLIPS, Slip, check_lock_mutant, check_mutant,
    check_slip, exhibit, idle, properties, refute, refute_load, refute_reset,
};

use super::output::Output;
use super::watched::Watched;
use super::{Result, Verdict};

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
    #[command(flatten)]
    cases: Cases,
    /// Who goes through the worlds.
    #[arg(long, value_enum, default_value_t = By::Stateright)]
    engine: By,
    /// How many threads do [default: one for each processor].
    #[arg(long, value_name = "N")]
    threads: Option<NonZeroUsize>,
    /// Let one world stand for those in which like devices have changed places.
    #[arg(long, requires = "engine")]
    symmetry: bool,
    /// Stop after so many seconds: what is not done by then makes the check unfinished (status 3).
    #[arg(long, value_name = "SECONDS")]
    time_limit: Option<u32>,
    /// Check nothing, and serve stateright's Explorer of one model at this address (127.0.0.1:3000).
    #[arg(long, value_name = "ADDRESS", conflicts_with_all = ["properties", "mutants", "counterexamples", "time_limit"])]
    explore: Option<SocketAddr>,
}

/// Which models.
#[derive(Debug, Args)]
pub(crate) struct Cases {
    /// Only models of this name, such as "Saver", and no bugs, slips and wrong designs.
    #[arg(long, value_name = "NAME")]
    model: Option<String>,
    /// Only models of devices with these flags, and no bugs, slips and wrong designs.
    #[arg(long, value_name = "FLAGS", value_parser = features)]
    features: Option<Features>,
}

/// Who goes through the worlds.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum By {
    /// stateright: knows a world again by 64 bits of its hash.
    Stateright,
    /// Our own explorer: knows a world again by all of it.
    Own,
}

fn features(name: &str) -> std::result::Result<Features, String> {
    let names = Features::SETS.map(|set| set.slug());
    let found = Features::SETS.into_iter().find(|set| set.slug() == name);
    found.ok_or_else(|| format!("there are no such flags; there are {}", names.join(", ")))
}

impl Cases {
    /// The largest model of each of these names.
    pub(crate) fn named(names: &[&str]) -> Vec<&'static Case> {
        let all = || CASES.iter().chain(LOCK_CASES).chain(BENCH_CASES);
        let largest = |name| all().filter(|case| case.name == name).max_by_key(|case| case.states);
        names.iter().filter_map(|&name| largest(name)).collect()
    }

    pub(crate) const fn is_all(&self) -> bool {
        self.model.is_none() && self.features.is_none()
    }

    /// The models that are wanted, those for measuring only by name; none at all is wrong use.
    pub(crate) fn chosen(&self) -> Result<Vec<&'static Case>> {
        let named = |case: &&Case| self.model.as_ref().is_none_or(|name| name == case.name);
        let flagged = |case: &&Case| self.features.is_none_or(|set| set == case.features);
        let bench = BENCH_CASES.iter().filter(|_| self.model.is_some());
        let all = CASES.iter().chain(LOCK_CASES).chain(bench);
        let chosen: Vec<_> = all.filter(named).filter(flagged).collect();
        if chosen.is_empty() {
            let all = CASES.iter().chain(LOCK_CASES).chain(BENCH_CASES);
            let names: BTreeSet<_> = all.map(|case| format!("{:?}", case.name)).collect();
            let names = Vec::from_iter(names).join(", ");
            return Err(format!("no model is selected; there are {names}").into());
        }
        Ok(chosen)
    }
}

impl Arguments {
    fn how(&self) -> Result<How> {
        let engine = match self.engine {
            By::Stateright => Engine::Stateright,
            By::Own => Engine::Own,
        };
        if self.symmetry && engine == Engine::Stateright {
            // Its breadth-first search would go on without, and not say so.
            return Err("stateright's search does not use symmetry; ask for --engine own".into());
        }
        let default = How::default();
        let threads = self.threads.unwrap_or(default.threads);
        Ok(How { engine, threads, symmetric: self.symmetry })
    }
}

/// What the check came to.
#[derive(Debug, Default, Serialize)]
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
    /// Why not all was done.
    not_finished: Option<String>,
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
    /// Why not all was done.
    #[serde(skip_serializing_if = "Option::is_none")]
    not_finished: Option<String>,
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
    pub(crate) fn find(how: How, watched: &Watched) -> Self {
        let cases = CASES.len() + LOCK_CASES.len();
        let claims = MUTANTS.len() + SLIPS.len() + LOCK_MUTANTS.len();
        watched.expect(cases + claims);
        let check_all = |cases| watched.check_all(cases, how);
        let (checks, lock_checks) = (check_all(CASES), check_all(LOCK_CASES));
        let goes_on = || !watched.is_over();
        let idle =
            if goes_on() { [idle(&checks), idle(&lock_checks)].concat() } else { Vec::new() };
        let bar = watched.bar();
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
            .take_while(|_| goes_on())
            .map(|mutant| caught(mutant.bug.slug(), mutant.property, check_mutant(mutant)))
            .collect();
        let mut refutations = Vec::new();
        if goes_on() {
            let Refutation { claim, run } = refute();
            refutations.push(caught(claim.id, claim.text, run));
            for Refutation { claim, run } in [refute_load(), refute_reset()] {
                refutations.push(Caught::by_run(claim.id, claim.text, run));
            }
        }
        let slips = SLIPS
            .iter()
            .take_while(|_| goes_on())
            .inspect(|_| bar.inc(1))
            .map(|claim| Caught::by_run(claim.slip.slug(), claim.property, check_slip(claim)))
            .collect();
        let lock_mutants = LOCK_MUTANTS
            .iter()
            .take_while(|_| goes_on())
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
            not_finished: watched.cut().map(|cut| cut.to_string()),
            counterexamples,
        }
    }

    fn claims(&self) -> impl Iterator<Item = &Caught> {
        let of_level_1 = self.mutants.iter().chain(&self.slips);
        of_level_1.chain(&self.lock_mutants).chain(&self.refutations)
    }

    /// Whether all holds that must, and all falls that must, as far as it was asked.
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
            not_finished: checked.cut.map(|cut| cut.to_string()),
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

/// What does not count as passed, and why.
fn not_finished(f: &mut fmt::Formatter<'_>, why: Option<&str>) -> fmt::Result {
    why.map_or(Ok(()), |why| writeln!(f, "NOT FINISHED: {why}; what is left out has no verdict"))
}

impl fmt::Display for Space {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (states, steps) = (HumanCount(self.states as u64), HumanCount(self.transitions as u64));
        let verdict = match (self.failures.is_empty(), &self.not_finished) {
            (false, _) => "FAIL",
            (true, Some(_)) => "not finished",
            (true, None) => "hold",
        };
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
        })?;
        not_finished(f, self.not_finished.as_deref())
    }
}

/// Some models alone.
#[derive(Debug, Serialize)]
struct Spaces {
    spaces: Vec<Space>,
    /// Why not all was done.
    not_finished: Option<String>,
}

impl fmt::Display for Spaces {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.spaces.iter().try_for_each(|space| space.fmt(f))?;
        not_finished(f, self.not_finished.as_deref())
    }
}

/// What is cut short is no pass, and a failure found before that is a failure.
fn verdict(good: bool, watched: &Watched) -> Verdict {
    if good && watched.cut().is_some() { Verdict::NotFinished } else { Verdict::from(good) }
}

pub(crate) fn run(arguments: &Arguments, output: &mut Output) -> Result<Verdict> {
    let how = arguments.how()?;
    if let Some(address) = arguments.explore {
        return explore(&arguments.cases, address);
    }
    let watched = Watched::begin(arguments.time_limit);
    watched.heed_interrupts()?;
    if arguments.cases.is_all() {
        check_everything(arguments, how, &watched, output)
    } else {
        let cases = arguments.cases.chosen()?;
        watched.expect(cases.len());
        let spaces: Vec<_> = watched.check_all(cases, how).into_iter().map(Space::from).collect();
        watched.bar().finish_and_clear();
        let good = spaces.iter().all(|space| space.failures.is_empty());
        let not_finished = watched.cut().map(|cut| cut.to_string());
        output.say("model", &Spaces { spaces, not_finished })?;
        Ok(verdict(good, &watched))
    }
}

/// The first of the models that are wanted.
fn explore(cases: &Cases, address: SocketAddr) -> Result<Verdict> {
    let chosen = cases.chosen()?;
    let case = chosen.first().ok_or("no model is selected")?;
    eprintln!("{}, {}: http://{address}/, until Ctrl-C", case.name, case.features);
    exhibit(case, address).map_err(|error| format!("--explore {address}: {error}"))?;
    Ok(Verdict::Good)
}

fn check_everything(
    arguments: &Arguments,
    how: How,
    watched: &Watched,
    output: &mut Output,
) -> Result<Verdict> {
    let findings = Findings::find(how, watched);
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
    Ok(verdict(findings.is_good(), watched))
}
