// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! `vfio-conform check`: the model.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::net::SocketAddr;
use std::num::NonZeroUsize;
use std::path::PathBuf;

use clap::{Args, ValueEnum};
use indicatif::HumanCount;
use serde::{Serialize, Serializer};
use vfio_conform::suite::{Refuted, Suite};
use vfio_conform::tidy::write_whole;
use vfio_conform::trace;
use vfio_fsm_core::Features;
use vfio_fsm_model::{
    BENCH_CASES, CASES, CLAIMS, Case, Checked, Engine, Fault, How, LARGE_SYSTEM_CASES, LOCK_CASES,
    Property, SYSTEM_CASES, exhibit, properties,
};

use super::matrix::Matrix;
use super::output::{self, Output};
use super::watched::Watched;
use super::{Result, Verdict};

/// Options of [`Cases`], with which nothing is checked but these models.
const SELECTION: [&str; 2] = ["model", "features"];

#[derive(Debug, Args)]
pub(crate) struct Arguments {
    /// Also print each property with what it says.
    #[arg(long, conflicts_with_all = SELECTION)]
    properties: bool,
    /// Also print which property catches which bug, in how many steps.
    #[arg(long, conflicts_with_all = SELECTION)]
    mutants: bool,
    /// Also check the large models of two machines: minutes, and some gigabytes.
    #[arg(long, conflicts_with_all = SELECTION)]
    system: bool,
    /// Also print the shortest run by which each fault is caught.
    #[arg(long, conflicts_with_all = SELECTION)]
    runs: bool,
    /// Also write the counterexamples, as traces that a correct device passes, to this file.
    #[arg(long, value_name = "FILE", conflicts_with_all = SELECTION)]
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
    #[arg(long, value_name = "ADDRESS", conflicts_with_all = ["properties", "mutants", "runs", "system", "counterexamples", "time_limit"])]
    explore: Option<SocketAddr>,
}

/// Which models.
#[derive(Debug, Args)]
pub(crate) struct Cases {
    /// Only models of this name, such as "Saver", and no bugs, slips and wrong designs.
    #[arg(long, value_name = "NAME")]
    model: Option<String>,
    /// Only models of devices with these flags, and no bugs, slips and wrong designs.
    #[arg(long, value_name = "FLAGS", value_parser = super::features)]
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

impl Cases {
    /// Every model there is.
    fn all() -> impl Iterator<Item = &'static Case> {
        [CASES, LOCK_CASES, SYSTEM_CASES, LARGE_SYSTEM_CASES, BENCH_CASES].into_iter().flatten()
    }

    /// The largest model of each of these names.
    pub(crate) fn named(names: &[&str]) -> Vec<&'static Case> {
        let of_name = |name| Self::all().filter(move |case| case.name == name);
        names.iter().filter_map(|&name| of_name(name).max_by_key(|case| case.states)).collect()
    }

    pub(crate) const fn is_all(&self) -> bool {
        self.model.is_none() && self.features.is_none()
    }

    /// The models that are wanted, the large ones and those for measuring only by name; none at all
    /// is wrong use.
    pub(crate) fn chosen(&self) -> Result<Vec<&'static Case>> {
        let others = [LARGE_SYSTEM_CASES, BENCH_CASES].into_iter().flatten();
        let others = others.filter(|_| self.model.is_some());
        let all = [CASES, LOCK_CASES, SYSTEM_CASES].into_iter().flatten().chain(others);
        let named = |case: &&Case| self.model.as_ref().is_none_or(|name| name == case.name);
        let flagged = |case: &&Case| self.features.is_none_or(|set| set == case.features);
        let chosen: Vec<_> = all.filter(named).filter(flagged).collect();
        if chosen.is_empty() {
            let names: BTreeSet<_> = Self::all().map(|case| format!("{:?}", case.name)).collect();
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
    /// Level 3.
    system_spaces: Vec<Space>,
    properties: Vec<Said>,
    claims: Vec<Caught>,
    /// Why not all was done.
    not_finished: Option<String>,
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
    /// The same in short, for a line that fits a terminal.
    #[serde(skip)]
    flags: &'static str,
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
    pub(crate) fn find(how: How, large: bool, watched: &Watched) -> Self {
        let large = if large { LARGE_SYSTEM_CASES } else { &[] };
        let cases = [CASES, LOCK_CASES, SYSTEM_CASES, large];
        watched.expect(cases.map(<[_]>::len).iter().sum::<usize>() + CLAIMS.len());
        let [spaces, lock_spaces, system_spaces, large] =
            cases.map(|cases| spaces(cases, how, watched));
        let claims = Refuted::all().iter().take_while(|_| !watched.is_over());
        let claims = claims.map(Caught::from).inspect(|_| watched.bar().inc(1)).collect();
        watched.bar().finish_and_clear();
        let said = |&Property { id, text, covers, .. }: &Property| Said { id, text, covers };
        Self {
            spaces,
            lock_spaces,
            system_spaces: [system_spaces, large].into_iter().flatten().collect(),
            properties: properties().map(said).collect(),
            claims,
            not_finished: not_all_done(watched),
        }
    }

    /// Whether all holds that must, and all falls that must, as far as it was asked.
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
            flags: checked.case.features.slug(),
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

fn spaces(
    cases: impl IntoIterator<Item = &'static Case>,
    how: How,
    watched: &Watched,
) -> Vec<Space> {
    watched.check_all(cases, how).into_iter().map(Space::from).collect()
}

/// Why not all was done.
fn not_all_done(watched: &Watched) -> Option<String> {
    watched.cut().map(|cut| cut.to_string())
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
        let (model, flags) = (self.model, self.flags);
        let (states, steps) = (states.to_string(), steps.to_string());
        write!(f, "  {model:<20} {flags:<9} {verdict:<12} {states:>11} {steps:>11}")?;
        writeln!(f, "  {:.1} s", self.seconds)?;
        if f.alternate() {
            let (depth, judged) = (self.depth, self.judged.len());
            writeln!(f, "    depth {depth}; {judged} properties had something to judge")?;
        }
        self.failures.iter().try_for_each(|failure| writeln!(f, "  FAIL: {failure}"))
    }
}

/// Over the lines of models.
fn head(f: &mut fmt::Formatter<'_>) -> fmt::Result {
    let [flags, verdict, states, steps] = ["flags", "verdict", "states", "steps"];
    writeln!(f, "  {:<20} {flags:<9} {verdict:<12} {states:>11} {steps:>11}  time", "")
}

impl fmt::Display for Findings {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "model, level 1: {} properties", judging(&self.spaces))?;
        head(f)?;
        self.spaces.iter().try_for_each(|space| space.fmt(f))?;
        self.claims(f, "planted bugs", |fault| matches!(fault, Fault::Device(_)))?;
        self.claims(f, "slips of a VMM", |fault| matches!(fault, Fault::Vmm(_)))?;
        writeln!(f, "model, level 2, the locks: {} properties", judging(&self.lock_spaces))?;
        head(f)?;
        self.lock_spaces.iter().try_for_each(|space| space.fmt(f))?;
        self.claims(f, "wrong designs", |fault| matches!(fault, Fault::Locks(_)))?;
        let properties = judging(&self.system_spaces);
        writeln!(f, "model, level 3, two machines: {properties} properties")?;
        head(f)?;
        self.system_spaces.iter().try_for_each(|space| space.fmt(f))?;
        self.claims(f, "slips between two VMMs", |fault| matches!(fault, Fault::System(_)))?;
        self.claims(f, "dropped assumptions", |fault| matches!(fault, Fault::Assumption(_)))?;
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
        head(f)?;
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
        let spaces = spaces(cases, how, &watched);
        watched.bar().finish_and_clear();
        let good = spaces.iter().all(|space| space.failures.is_empty());
        output.say("model", &Spaces { spaces, not_finished: not_all_done(&watched) })?;
        Ok(verdict(good, &watched))
    }
}

/// The first of the models that are wanted.
fn explore(cases: &Cases, address: SocketAddr) -> Result<Verdict> {
    let chosen = cases.chosen()?;
    let case = chosen.first().ok_or("no model is selected")?;
    output::note(format_args!("{}, {}: http://{address}/, until Ctrl-C", case.name, case.features));
    exhibit(case, address).map_err(|error| format!("--explore {address}: {error}"))?;
    Ok(Verdict::Good)
}

fn check_everything(
    arguments: &Arguments,
    how: How,
    watched: &Watched,
    output: &mut Output,
) -> Result<Verdict> {
    let findings = Findings::find(how, arguments.system, watched);
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
    // What is left to be found out is not, when it is over.
    let asked = |asked: bool| asked && watched.cut().is_none();
    let matrix = asked(arguments.mutants).then(Matrix::find).transpose()?;
    if let Some(matrix) = &matrix {
        output.say("mutants", matrix)?;
    }
    if arguments.runs {
        for Caught { fault, run, .. } in &findings.claims {
            output.line(format_args!("\n{fault}: {}", run.as_deref().unwrap_or("not caught")))?;
        }
    }
    if let Some(path) = arguments.counterexamples.as_ref().filter(|_| asked(true)) {
        let traces = Suite::Model.generate_all();
        write_whole(path, |output| trace::write(&traces, output))
            .map_err(|error| format!("{}: {error}", path.display()))?;
    }
    let good = findings.is_good() && matrix.is_none_or(|matrix| matrix.is_good());
    Ok(verdict(good, watched))
}
