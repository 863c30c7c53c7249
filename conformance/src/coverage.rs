// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! Which arcs of the machine a replay walked, and what came of it: worked out from the steps that
//! were carried out, by the core's own routes.

use serde::{Deserialize, Serialize};
use vfio_fsm_core::{Arc, Fault, Features, Op, Reply, Route, State};

use crate::replay::{Options, Replayer, Target, TargetError, Verdict};
use crate::target::Reference;
use crate::trace::{Need, Trace};

/// What a step does to the machine, as the specification has it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Move {
    /// An arc was walked, or was begun and failed on demand.
    Arc(Arc),
    /// A reset brought the device to RUNNING.
    Reset {
        /// From here.
        from: State,
    },
}

/// The core's device, looked at around every op that can move it: what it does, the device under
/// test should.
#[derive(Debug)]
struct Shadow {
    device: Reference,
    features: Features,
    moves: Vec<Vec<Move>>,
}

const fn can_move<B>(op: &Op<B>) -> bool {
    matches!(op, Op::SetState { .. } | Op::Reset)
}

impl Shadow {
    fn new() -> Self {
        Self { device: Reference::new(), features: Features::ALL, moves: Vec::new() }
    }

    /// `None` if nobody has it open.
    fn state(&mut self) -> Option<State> {
        match self.device.apply(Op::GetState, &mut []) {
            Reply::State(state) => state.known(),
            _ => None,
        }
    }
}

impl Target for Shadow {
    fn offers(&self, features: Features) -> bool {
        self.device.offers(features)
    }

    fn can(&self, need: Need) -> bool {
        self.device.can(need)
    }

    fn fresh(&mut self, features: Features) -> Result<(), TargetError> {
        self.features = features;
        self.device.fresh(features)
    }

    fn apply<'b>(&mut self, op: Op<&[u8]>, buf: &'b mut [u8]) -> Reply<&'b [u8]> {
        if !can_move(&op) {
            return self.device.apply(op, buf);
        }
        let before = self.state();
        let reply = self.device.apply(op, buf).map(<[u8]>::len);
        let moves = before.zip(self.state());
        let moves = moves.map(|(before, after)| moved(self.features, &op, before, after));
        self.moves.push(moves.unwrap_or_default());
        reply.map(|len| &buf[..len])
    }
}

/// What an op has moved that found and left a device so.
fn moved<B>(features: Features, op: &Op<B>, before: State, after: State) -> Vec<Move> {
    let Op::SetState { to, fault } = op else { return vec![Move::Reset { from: before }] };
    let route = to.known().and_then(|to| Route::new(features, before, to).ok());
    let mut moves = Vec::new();
    let mut at = before;
    for arc in route.iter().flat_map(Route::arcs) {
        moves.push(Move::Arc(arc));
        // This one failed, and was undone. One that fails into ERROR is the last as well.
        let stays = *fault != Some(Fault::ResetInside) && after == at;
        let fails = matches!(fault, Some(Fault::ArcFails { hop, .. })
            if after == State::Error && usize::from(*hop) + 1 == moves.len());
        if stays || fails {
            break;
        }
        at = arc.to();
    }
    if *fault == Some(Fault::ResetInside) {
        moves.push(Move::Reset { from: at });
    }
    moves
}

/// The moves of each step that has any, in the order of the steps.
fn walk(trace: &Trace) -> Vec<(At, Vec<Move>)> {
    let mut shadows = [Shadow::new(), Shadow::new()];
    let [source, destination] = &mut shadows;
    // Whatever the verdict: it is not the core's device that is on trial.
    let _ = Replayer::new(vec![source, destination]).replay(trace, Options::default());
    let mut moves = shadows.map(|shadow| shadow.moves.into_iter());
    let steps = (1..).zip(&trace.steps).filter(|(_, step)| can_move(&step.op));
    let done = steps.filter_map(|(number, step)| {
        let moves = moves.get_mut(usize::from(step.device))?.next()?;
        Some(((number, step.device), moves))
    });
    done.filter(|(_, moves)| !moves.is_empty()).collect()
}

/// How many traces did something, and how many of them were answered wrongly there: at that step
/// or behind it, before the next move of the same device.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Tally {
    /// Traces.
    pub traces: u64,
    /// Of these, those that failed there.
    pub fail: u64,
    /// Of these, those that differed there in a way that is known.
    pub deviation: u64,
}

/// One arc.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Walked {
    /// Where it begins.
    pub from: State,
    /// Where it ends.
    pub to: State,
    /// How often.
    #[serde(flatten)]
    pub tally: Tally,
}

/// Resets of a device in one state.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Reset {
    /// Where it was.
    pub from: State,
    /// How often.
    #[serde(flatten)]
    pub tally: Tally,
}

/// How much of the machine of one set of flags was walked.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Coverage {
    /// The flags.
    pub features: Features,
    /// Every arc of the machine, walked or not.
    pub arcs: Vec<Walked>,
    /// Every state of the machine.
    pub resets: Vec<Reset>,
}

/// Somewhere in the steps of a trace: which step, counted from 1, and of which device.
type At = (usize, u8);

impl Coverage {
    /// Nothing was walked yet.
    pub fn new(features: Features) -> Self {
        let arc = |arc: Arc| Walked { from: arc.from(), to: arc.to(), tally: Tally::default() };
        let states = State::ALL.into_iter().filter(|&state| features.has(state));
        Self {
            features,
            arcs: vfio_fsm_core::arcs(features).map(arc).collect(),
            resets: states.map(|from| Reset { from, tally: Tally::default() }).collect(),
        }
    }

    /// Add a trace as far as it was carried out, and its verdict.
    pub fn add(&mut self, trace: &Trace, verdict: &Verdict) {
        let whole = trace.steps.len();
        let (done, fail, known): (usize, Option<usize>, &[usize]) = match verdict {
            Verdict::Pass => (whole, None, &[]),
            Verdict::Fail(mismatch) => (mismatch.step, Some(mismatch.step), &[]),
            Verdict::Deviation { steps, .. } => (whole, None, steps),
            Verdict::NotApplicable { .. } => return,
        };
        let mut moves = walk(trace);
        moves.retain(|((number, _), _)| *number <= done);
        let at = |number: usize| {
            let step = number.checked_sub(1).and_then(|index| trace.steps.get(index));
            step.map(|step| (number, step.device))
        };
        let fail = fail.and_then(at);
        let known: Vec<At> = known.iter().filter_map(|&number| at(number)).collect();
        let tallies = self.arcs.iter_mut().map(|arc| {
            let is_it = |done: &Move| matches!(done, Move::Arc(it) if (it.from(), it.to()) == (arc.from, arc.to));
            (moves_of(&moves, is_it), &mut arc.tally)
        });
        tallies.for_each(|(marks, tally)| tally.add(&marks, &moves, fail, &known));
        for Reset { from, tally } in &mut self.resets {
            let is_it = |done: &Move| matches!(done, Move::Reset { from: it } if it == from);
            tally.add(&moves_of(&moves, is_it), &moves, fail, &known);
        }
    }
}

/// The steps in which a move is done.
fn moves_of(moves: &[(At, Vec<Move>)], is_it: impl Fn(&Move) -> bool) -> Vec<At> {
    moves.iter().filter(|(_, moves)| moves.iter().any(&is_it)).map(|(at, _)| *at).collect()
}

impl Tally {
    fn add(&mut self, marks: &[At], moves: &[(At, Vec<Move>)], fail: Option<At>, known: &[At]) {
        // The move that an answer says something of is the latest of that device.
        let latest = |at: At| {
            let before = moves.iter().map(|(it, _)| *it).filter(|it| it.1 == at.1 && it.0 <= at.0);
            before.max_by_key(|it| it.0)
        };
        let is_here = |at: At| latest(at).is_some_and(|it| marks.contains(&it));
        self.traces += u64::from(!marks.is_empty());
        self.fail += u64::from(fail.is_some_and(is_here));
        self.deviation += u64::from(known.iter().copied().any(is_here));
    }

    /// The worst that came of it.
    pub const fn verdict(&self) -> Came {
        if self.fail > 0 {
            Came::Failed
        } else if self.deviation > 0 {
            Came::Deviated
        } else if self.traces > 0 {
            Came::Passed
        } else {
            Came::Untried
        }
    }
}

/// The worst that came of an arc.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Came {
    /// No trace has walked it.
    Untried,
    /// Every answer was right.
    Passed,
    /// Some were not, in ways that are known.
    Deviated,
    /// Some were wrong.
    Failed,
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use vfio_fsm_core::device::Bug;

    use super::*;
    use crate::deviation::Deviations;
    use crate::report::Report;
    use crate::suite::Suite;
    use crate::trace::Expect;

    /// H1: the moves of a trace join: each begins where the one before it ended, or where an arc
    /// that failed has left the device, and what the trace itself expects of GET is where they end.
    #[test]
    fn moves_join_and_end_where_get_says() {
        let (mut joined, mut asked) = (0, 0);
        for trace in Suite::ALL.iter().copied().flat_map(Suite::generate_all) {
            let name = &trace.header.name;
            let walked = walk(&trace);
            for device in [0, 1] {
                let mut at = vec![State::Running];
                let mut walked = walked.iter().filter(|((_, of), _)| *of == device).peekable();
                for (number, step) in (1..).zip(&trace.steps) {
                    if step.device != device {
                        continue;
                    }
                    if let Some((_, moves)) = walked.next_if(|((it, _), _)| *it == number) {
                        for done in moves {
                            let from = match done {
                                Move::Arc(arc) => arc.from(),
                                Move::Reset { from } => *from,
                            };
                            assert!(at.contains(&from), "{name}, {number}: {done:?} from {at:?}");
                            at = match done {
                                Move::Arc(arc) => vec![arc.to(), arc.from(), State::Error],
                                Move::Reset { .. } => vec![State::Running],
                            };
                            joined += 1;
                        }
                    }
                    match (&step.op, &step.expect) {
                        (Op::Close, _) => at = vec![State::Running],
                        (Op::GetState, Expect::State(states)) => {
                            let states: Vec<_> =
                                states.iter().filter_map(|it| it.known()).collect();
                            at.retain(|state| states.contains(state));
                            assert!(!at.is_empty(), "{name}, {number}: not in {states:?}");
                            asked += 1;
                        }
                        (Op::SetState { .. }, Expect::Fd(_) | Expect::NoFd) => at.truncate(1),
                        _ => {}
                    }
                }
            }
        }
        assert!(joined > 100_000 && asked > 40_000, "{joined} moves, {asked} GETs");
    }

    /// A report on the reference, with a bug if so.
    fn replayed(bug: Option<Bug>, deviations: Option<&Deviations>, suite: Suite) -> Report {
        let new = || bug.map_or_else(Reference::new, Reference::with_bug);
        let (mut source, mut destination) = (new(), new());
        let mut replayer = Replayer::new(vec![&mut source, &mut destination]);
        let options = Options { deviations, ..Options::default() };
        let mut report = Report::new("a test");
        for trace in suite.generate_all() {
            report.record_trace(&trace, replayer.replay(&trace, options));
        }
        report.finish(Duration::from_secs(1), deviations, false);
        report
    }

    /// H1: a replay of the arcs walks every arc of every machine and resets nothing; a suite that
    /// walks none says so.
    #[test]
    fn what_was_walked_is_counted() {
        let report = replayed(None, None, Suite::Arcs);
        assert_eq!(report.coverage.iter().map(|it| it.arcs.len()).sum::<usize>(), 6 + 8 + 9 + 15);
        for coverage in &report.coverage {
            for arc in &coverage.arcs {
                assert_eq!(arc.tally.verdict(), Came::Passed, "{arc:?}");
            }
        }
        let untried = Coverage::new(Features::ALL);
        assert!(untried.arcs.iter().all(|arc| arc.tally.verdict() == Came::Untried));
    }

    /// H1: a wrong answer is put down to the arc, or the reset, that was the latest to move the
    /// device, and to no other.
    #[test]
    fn blame_is_put_where_it_belongs() {
        let report = replayed(Some(Bug::ResetKeepsState), None, Suite::Resets);
        let full = report.coverage.iter().find(|it| it.features == Features::ALL).expect("walked");
        assert!(full.resets.iter().any(|reset| reset.tally.fail > 0), "{full:?}");
        let report = replayed(Some(Bug::FreshFdInSavingGroup), None, Suite::Arcs);
        let full = report.coverage.iter().find(|it| it.features == Features::ALL).expect("walked");
        for Walked { from, to, tally } in &full.arcs {
            let of_the_group = from.is_saving() && to.is_saving();
            assert!(of_the_group || tally.fail == 0, "{from} -> {to}: {tally:?}");
        }
        assert!(full.arcs.iter().any(|arc| arc.tally.fail > 0), "{full:?}");
        assert!(full.resets.iter().all(|reset| reset.tally.fail == 0), "{full:?}");
    }

    /// H1: a known deviation is one on the arc, too, and no failure.
    #[test]
    fn deviations_show_on_their_arcs() {
        let list = Deviations::parse(
            "test",
            r#"
            driver = "test"
            seen_with = "a test"
            [[deviation]]
            id = "fresh-fd"
            breaks = ["R25"]
            reason = "It is planted."
            traces = ["*"]
            "#,
        );
        let list = list.expect("a good list");
        let report = replayed(Some(Bug::FreshFdInSavingGroup), Some(&list), Suite::Arcs);
        let full = report.coverage.iter().find(|it| it.features == Features::ALL).expect("walked");
        let arcs = || full.arcs.iter();
        assert!(arcs().any(|arc| arc.tally.verdict() == Came::Deviated), "{full:?}");
        assert!(arcs().all(|arc| arc.tally.fail == 0), "{full:?}");
    }
}
