// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! Migrations in memory with everything going wrong at random: resets, arcs that fail, a full fd
//! table, short reads and writes, cancels, a stream that breaks. One number makes one run.

use std::collections::BTreeMap;
use std::fmt;
use std::ops::Range;

use fastrand::Rng;
use indicatif::HumanCount;
use serde::Serialize;
use vfio_fsm_core::vmm::{Decision, Event, Plan, Recovery};
use vfio_fsm_core::{Errno, Fault, Features, Leaves, Op};
use vfio_fsm_kernel::session::Interest;

use super::Error;
use super::judge::{Outcome, Run, judge};
use super::matrix::{Bench, Failure, Seen};
use super::memory::{Devices, InMemory};
use super::probe::{Orders, Schedule};
use super::record::Record;
use super::vmm::Decisions;

/// A person is shown so many failures with their stories; JSON has them all.
const SHOWN_FAILURES: usize = 2;

/// So many failures are kept: a device with a bug has thousands.
const KEPT_FAILURES: usize = 100;

/// How often what happens, in a thousand; drawn anew for each run.
#[derive(Clone, Copy, Debug)]
struct Odds {
    resets: u32,
    /// Whether resets come with the guest frozen, too: then they are the host's.
    host: bool,
    faults: u32,
    refusals: u32,
    shortness: u32,
    cancels: u32,
}

impl Odds {
    fn draw(rng: &mut Rng) -> Self {
        let mut one_of = |odds: &[u32]| odds[rng.usize(..odds.len())];
        let resets = one_of(&[0, 20, 60, 200]);
        let faults = one_of(&[0, 0, 20, 100]);
        let refusals = one_of(&[0, 0, 0, 10, 100]);
        let shortness = one_of(&[0, 300]);
        let cancels = one_of(&[0, 0, 3, 20]);
        Self { resets, host: rng.bool(), faults, refusals, shortness, cancels }
    }
}

fn happens(rng: &mut Rng, of_a_thousand: u32) -> bool {
    rng.u32(..1000) < of_a_thousand
}

/// What the devices do.
struct Misfortune {
    rng: Rng,
    odds: Odds,
    /// A destination is reset only while it is written to: behind the last look there is no telling
    /// a device that was loaded from one that is blank (V9).
    destination: bool,
}

impl Misfortune {
    fn reset<B, F>(&mut self, op: &Op<B, F>, frozen: bool) -> bool {
        let may = match self.destination {
            true => matches!(op, Op::Write { .. }),
            false => self.odds.host || !frozen,
        };
        may && happens(&mut self.rng, self.odds.resets)
    }

    fn fault(&mut self) -> Fault {
        let rng = &mut self.rng;
        if rng.u32(..4) == 0 {
            return Fault::FdTableFull;
        }
        let leaves = if rng.bool() { Leaves::Source } else { Leaves::Error };
        Fault::ArcFails { hop: rng.u8(..3), errno: Errno::EIO, leaves }
    }
}

impl Schedule for Misfortune {
    fn orders<B, F>(&mut self, _step: usize, op: &Op<B, F>, frozen: bool) -> Orders {
        let mut orders = Orders { before: self.reset(op, frozen), ..Orders::default() };
        let shortness = self.odds.shortness;
        match op {
            Op::SetState { .. } if happens(&mut self.rng, self.odds.faults) => {
                orders.fault = Some(self.fault());
            }
            Op::SetState { .. } if !self.destination => orders.within = self.reset(op, frozen),
            Op::Read { .. } | Op::Write { .. } if happens(&mut self.rng, shortness) => {
                match self.rng.u32(..4) {
                    0 => orders.refuse = Some(Errno::EAGAIN),
                    _ => orders.most = Some(self.rng.u32(1..8)),
                }
            }
            // Features and the opt-in are asked for once, and what fails there is no migration.
            Op::CloseFd { .. } | Op::GetFeatures | Op::OptInPrecopyV2 => {}
            _ if happens(&mut self.rng, self.odds.refusals) => orders.refuse = Some(Errno::EIO),
            _ => {}
        }
        orders.after = !self.destination && self.reset(op, frozen);
        orders
    }
}

/// What the VMM at the source does.
struct Whims {
    rng: Rng,
    odds: Odds,
    /// At rest once more so often, before the switchover.
    rests: u32,
}

impl Decisions for Whims {
    fn event(&mut self, record: &Record, interest: Option<&Interest>) -> Option<Event> {
        if happens(&mut self.rng, self.odds.cancels) {
            return Some(if self.rng.bool() { Event::Cancel } else { Event::TimedOut });
        }
        match interest? {
            Interest::Switchover if self.rests == 0 => Some(Event::Switchover),
            Interest::Switchover => {
                self.rests -= 1;
                match self.rng.u32(..8) {
                    0 => return Some(Event::Ack),
                    1 => return Some(Event::Reset),
                    2..5 => record.wants_to_touch(),
                    _ => {}
                }
                None
            }
            _ => None,
        }
    }

    fn choose(&mut self, _decision: &Decision) -> Recovery {
        self.rests = self.rng.u32(..4);
        [Recovery::Abort, Recovery::Restart, Recovery::StopCopy][self.rng.usize(..3)]
    }
}

/// What becomes of a stream on its way: as a rule nothing, or it is cut off, or a bit is flipped.
fn damaged(rng: &mut Rng, stream: &[u8]) -> Vec<u8> {
    let mut stream = stream.to_vec();
    match rng.u32(..20) {
        0 => stream.truncate(rng.usize(..=stream.len())),
        1 => {
            if let Some(byte) = rng.choice(&mut stream) {
                *byte ^= 1 << rng.u32(..8);
            }
        }
        _ => {}
    }
    stream
}

/// The run of one seed.
struct Seed {
    seed: u64,
    features: Features,
    run: Run,
}

impl Seed {
    fn run(benches: &[InMemory], seed: u64) -> Result<Self, Error> {
        let mut rng = Rng::with_seed(seed);
        let bench = &benches[rng.usize(..benches.len())];
        let odds = Odds::draw(&mut rng);
        let plan = Plan {
            pre_copy: rng.u32(..5) > 0,
            reinit: rng.bool(),
            ack: rng.bool(),
            restarts: rng.u16(..4),
            chunk: rng.u32(1..64),
            ..Plan::LIVE
        };
        let whims = Whims { rng: rng.fork(), odds, rests: rng.u32(..4) };
        let source = Misfortune { rng: rng.fork(), odds, destination: false };
        // What goes wrong at one side should not, as a rule, hide what goes wrong at the other.
        let (resets, faults, refusals) = (odds.resets / 8, odds.faults / 8, odds.refusals / 4);
        let calm = Odds { resets, faults, refusals, ..odds };
        let destination = Misfortune { rng: rng.fork(), odds: calm, destination: true };
        let start = rng.u32(..10) > 0;
        let way = |stream: &[u8]| damaged(&mut rng, stream);
        let run = bench.migrate(plan, whims, [source, destination], way, start)?;
        Ok(Self { seed, features: bench.features(), run })
    }

    fn story(&self) -> Vec<String> {
        let mut story = vec![format!("devices with {}", self.features)];
        story.extend(self.run.story());
        story
    }
}

/// One run at random, told from its beginning to its end.
#[derive(Clone, Debug, Serialize)]
pub struct Told {
    /// The seed.
    pub seed: u64,
    /// How it ended, if it ended well.
    pub outcome: Option<Outcome>,
    /// What is wrong, if it did not.
    pub wrong: Option<String>,
    /// What was done and answered, line by line.
    pub story: Vec<String>,
}

impl Told {
    /// Run this seed on these devices.
    ///
    /// # Errors
    ///
    /// None that depends on the seed.
    pub fn run(seed: u64, devices: impl Into<Devices>) -> Result<Self, Error> {
        let benches = benches(devices.into())?;
        let run = Seed::run(&benches, seed)?;
        let verdict = judge(&run.run, benches[0].images());
        let story = run.story();
        let (outcome, wrong) = (verdict.as_ref().ok().copied(), verdict.err());
        Ok(Self { seed, outcome, wrong, story })
    }
}

impl fmt::Display for Told {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.story.iter().try_for_each(|line| writeln!(f, "{line}"))?;
        match (&self.outcome, &self.wrong) {
            (Some(outcome), _) => writeln!(f, "seed {}: {outcome}", self.seed),
            (_, wrong) => writeln!(
                f,
                "FAIL: seed {}: {}",
                self.seed,
                wrong.as_deref().unwrap_or("no verdict")
            ),
        }
    }
}

fn benches(devices: Devices) -> Result<Vec<InMemory>, Error> {
    Features::SETS.into_iter().map(|features| InMemory::new(features, devices)).collect()
}

/// What runs at random came to.
#[derive(Clone, Debug, Serialize)]
pub struct Seeds {
    /// How many runs there were.
    pub runs: u64,
    /// How they ended that ended well.
    pub outcomes: BTreeMap<Outcome, u64>,
    /// How the latest reset was seen, where there was one.
    pub seen: BTreeMap<Seen, u64>,
    /// Resets behind the session's back.
    pub resets: u64,
    /// Of these, by the host.
    pub by_host: u64,
    /// Ops of the source.
    pub ops: u64,
    /// How many runs did not end as they must.
    pub failed: u64,
    /// The first of these, by their seeds.
    pub failures: BTreeMap<u64, Failure>,
}

impl Seeds {
    /// Run these seeds on these devices, over the four sets of flags.
    ///
    /// # Errors
    ///
    /// None that depends on a seed.
    pub fn run(seeds: Range<u64>, devices: impl Into<Devices>) -> Result<Self, Error> {
        let benches = benches(devices.into())?;
        let mut all = Self {
            runs: 0,
            outcomes: BTreeMap::new(),
            seen: BTreeMap::new(),
            resets: 0,
            by_host: 0,
            ops: 0,
            failed: 0,
            failures: BTreeMap::new(),
        };
        for seed in seeds {
            let seed = Seed::run(&benches, seed)?;
            let verdict = judge(&seed.run, benches[0].images());
            all.record(&seed, verdict);
        }
        Ok(all)
    }

    fn record(&mut self, seed: &Seed, verdict: Result<Outcome, String>) {
        let run = &seed.run;
        self.runs += 1;
        self.resets += u64::from(run.facts.resets);
        self.by_host += u64::from(run.facts.by_host);
        self.ops += run.facts.ops.len() as u64;
        if run.facts.resets > 0 {
            *self.seen.entry(run.evidence.into()).or_default() += 1;
        }
        match verdict {
            Ok(outcome) => *self.outcomes.entry(outcome).or_default() += 1,
            Err(what) => {
                self.failed += 1;
                if self.failures.len() < KEPT_FAILURES {
                    self.failures.insert(seed.seed, Failure { what, story: seed.story() });
                }
            }
        }
    }

    /// Whether every run ended as it must, and there was one.
    pub fn is_good(&self) -> bool {
        self.runs > 0 && self.failed == 0
    }
}

impl fmt::Display for Seeds {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let count = |count: u64| HumanCount(count).to_string();
        writeln!(
            f,
            "at random: {} migrations, {} ops, {} resets ({} by the host)",
            count(self.runs),
            count(self.ops),
            count(self.resets),
            count(self.by_host)
        )?;
        let outcomes = self.outcomes.iter();
        let outcomes: Vec<_> =
            outcomes.map(|(outcome, &n)| format!("{} {outcome}", count(n))).collect();
        writeln!(f, "  {}, {} failed", outcomes.join(", "), count(self.failed))?;
        let seen = self.seen.iter().map(|(seen, &n)| match seen {
            Seen::Not => format!("unseen {}", count(n)),
            seen => format!("{seen} {}", count(n)),
        });
        writeln!(f, "  the latest reset: {}", seen.collect::<Vec<_>>().join(", "))?;
        for (seed, Failure { what, story }) in self.failures.iter().take(SHOWN_FAILURES) {
            writeln!(f, "  FAIL: seed {seed}: {what}; repeat it with --seed {seed}")?;
            story.iter().try_for_each(|line| writeln!(f, "    {line}"))?;
        }
        let more = self.failed.saturating_sub(SHOWN_FAILURES as u64);
        if more > 0 {
            writeln!(f, "  … and {} failures more; --json has the first", count(more))?;
        }
        Ok(())
    }
}
