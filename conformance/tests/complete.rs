// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! Complete suites: their machines and sizes, that they catch what they promise to, that tours are as
//! short as can be, and that what is learned is what there is.

#![expect(clippy::unwrap_used, reason = "helpers of tests may fail them")]

use std::collections::{BTreeSet, HashSet, VecDeque};

use expect_test::expect;
use proptest::prelude::*;
use vfio_conform::complete::learn::{LearnError, System, learn};
use vfio_conform::complete::power::{Table, Words, Wrong, wrongs};
use vfio_conform::complete::{Complete, Machine, Node, Output, Size, Symbol, tour};
use vfio_conform::replay::{Options, Replayer, Verdict};
use vfio_conform::suite::{Input, Kind, Specification, Subject};
use vfio_conform::target::Reference;
use vfio_fsm_core::Features;
use vfio_fsm_core::device::Bug;

fn specification(kind: Kind) -> Specification {
    Specification::new(kind, Features::ALL, true, true)
}

fn catches(suite: &Complete<'_>, specification: &Machine, wrong: &Machine) -> bool {
    Words::complete(suite, "suite").catches(specification, wrong)
}

/// S1: the machines are minimal, their suites as large as committed, and counted without being
/// written as they are when written.
#[test]
fn sizes() {
    let mut text = String::new();
    for kind in Kind::ALL {
        for features in Features::SETS {
            let specification = Specification::new(kind, features, true, true);
            let machine = &specification.machine;
            let (states, transitions) = (machine.states(), machine.transitions());
            text += &format!("{kind} {features}: {states} states, {transitions} transitions:");
            for extra in 0..=4 {
                text += &format!(" {}", Complete::new(machine, extra).unwrap().size().tests);
            }
            text.push('\n');
            let suite = Complete::new(machine, 1).unwrap();
            let mut written = Size::default();
            suite.for_each(|_, test| {
                written = written + Size { tests: 1, inputs: test.len() as u64 };
            });
            assert_eq!(written, suite.size(), "{kind} {features}");
        }
    }
    expect![[r#"
        control STOP_COPY: 5 states, 59 transitions: 55 648 7623 89564 1051223
        control STOP_COPY|P2P: 6 states, 71 transitions: 66 779 9175 107877 1266626
        control STOP_COPY|PRE_COPY: 6 states, 71 transitions: 66 779 9175 107877 1266626
        control STOP_COPY|P2P|PRE_COPY: 8 states, 95 transitions: 88 1041 12279 144503 1697432
        stream STOP_COPY: 15 states, 260 transitions: 539 9239 159947 2783960 48595014
        stream STOP_COPY|P2P: 18 states, 312 transitions: 636 10928 189313 3292398 57363826
        stream STOP_COPY|PRE_COPY: 17 states, 294 transitions: 601 10301 178233 3097894 53960388
        stream STOP_COPY|P2P|PRE_COPY: 22 states, 380 transitions: 760 13058 225897 3917388 67991394
        epochs STOP_COPY: 45 states, 960 transitions: 2937 62197 1325102 28337341 607396922
        epochs STOP_COPY|P2P: 54 states, 1152 transitions: 3483 73855 1574047 33644235 720290467
        epochs STOP_COPY|PRE_COPY: 51 states, 1086 transitions: 3291 69643 1482511 31665771 677663611
        epochs STOP_COPY|P2P|PRE_COPY: 66 states, 1404 transitions: 4191 88759 1888739 40280383 859918433
    "#]].assert_eq(&text);
}

/// S1: every machine that differs, of every kind and up to as many states more as promised, is
/// caught; and with a state more than promised some are not, so that the promise is no empty one.
#[test]
fn promises_are_kept() {
    let specification = specification(Kind::Control);
    let look = specification.symbol(Input::Get).unwrap();
    let table = Table::measure(&specification.machine, look, 2, 2000).unwrap();
    assert_eq!(table.broken().count(), 0, "{table}");
    for row in &table.rows {
        let beyond = table.machines.iter().zip(&row.caught).filter(|((wrong, all), caught)| {
            *caught < all && row.promises.is_none_or(|extra| wrong.extra() > extra)
        });
        assert_eq!(beyond.count() > 0, row.suite != "HSI(2)", "{}: {table}", row.suite);
    }
}

/// S1: the stream's machines keep the promise, too.
#[test]
fn promises_of_the_stream_are_kept() {
    let machine = specification(Kind::Stream).machine;
    for extra in 0..=1 {
        let suite = Complete::new(&machine, extra).unwrap();
        let words = Words::complete(&suite, "suite");
        for wrong in Wrong::ALL.into_iter().filter(|wrong| wrong.extra() <= extra) {
            let wrongs = wrongs(&machine, wrong, 300, 1);
            assert!(wrongs.len() > 200, "{wrong}");
            assert!(wrongs.iter().all(|it| words.catches(&machine, it)), "{wrong}, {extra} more");
        }
    }
}

/// A machine with so many states, every transition defined.
fn any_machine(states: usize, inputs: usize, outputs: Output) -> impl Strategy<Value = Machine> {
    let entry = (0..states as Node, 0..outputs).prop_map(Some);
    prop::collection::vec(entry, states * inputs).prop_map(move |table| Machine::new(inputs, table))
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 2000, failure_persistence: None, ..ProptestConfig::default() })]

    /// S1: of machines with no more states than promised, those that pass are those that are
    /// equivalent.
    #[test]
    fn who_passes_is_equivalent(
        specification in (1..=4_usize).prop_flat_map(|states| any_machine(states, 2, 2)),
        other in (1..=6_usize).prop_flat_map(|states| any_machine(states, 2, 2)),
        change in any::<prop::sample::Index>(),
    ) {
        let specification = specification.minimal();
        let states = specification.states();
        let extra = other.states().saturating_sub(states);
        let suite = Complete::new(&specification, extra).unwrap();
        let differs = specification.difference(&other).is_some();
        prop_assert_eq!(catches(&suite, &specification, &other), differs);
        // One that is nearly right.
        let (twin, copy) = specification.with_twin(change.index(states) as Node);
        let from = change.index(states) as Node;
        let (to, says) = specification.step(from, 1).unwrap();
        let entry = if change.index(2) == 0 { (copy, says) } else { (to, 1 - says) };
        let near = twin.with(from, 1, entry);
        let suite = Complete::new(&specification, 1).unwrap();
        let differs = specification.difference(&near).is_some();
        prop_assert_eq!(catches(&suite, &specification, &near), differs);
    }

    /// S2: a tour covers what it has to, and no word that does is shorter.
    #[test]
    fn tours_are_shortest(machine in (1..=3_usize).prop_flat_map(|n| any_machine(n, 2, 2))) {
        let machine = machine.minimal();
        prop_assume!(is_strongly_connected(&machine));
        let tour = tour::transitions(&machine);
        prop_assert_eq!(taken(&machine, &tour.word).len(), machine.transitions());
        prop_assert_eq!(tour.word.len(), shortest_cover(&machine, 1), "transitions");
        let pairs = tour::pairs(&machine);
        prop_assert_eq!(followed(&machine, &pairs.word).len(), pairs.items);
        prop_assert_eq!(pairs.word.len(), shortest_cover(&machine, 2), "pairs");
    }

    /// S3: what is learned is what there is, though something else was expected.
    #[test]
    fn learned_as_it_is(
        machine in (1..=5_usize).prop_flat_map(|n| any_machine(n, 2, 2)),
        expected in any_machine(3, 2, 2),
    ) {
        let (machine, expected) = (machine.minimal(), expected.minimal());
        let learned = learn(&mut Simulated(&machine), &expected, 4, 10).unwrap();
        prop_assert_eq!(machine.difference(&learned.machine), None);
        prop_assert_eq!(learned.machine.states(), machine.states());
    }
}

fn is_strongly_connected(machine: &Machine) -> bool {
    let reaches_all = |from: Node| {
        let (mut seen, mut queue) = (HashSet::from([from]), vec![from]);
        while let Some(at) = queue.pop() {
            queue.extend(machine.from(at).map(|(_, to, _)| to).filter(|to| seen.insert(*to)));
        }
        seen.len() == machine.states()
    };
    machine.nodes().all(reaches_all)
}

/// The transitions that a word takes.
fn taken(machine: &Machine, word: &[Symbol]) -> HashSet<(Node, Symbol)> {
    let mut at = 0;
    let step = |&input: &Symbol| {
        let from = at;
        at = machine.step(at, input).unwrap().0;
        (from, input)
    };
    word.iter().map(step).collect()
}

/// The pairs of transitions that a word takes one after the other.
fn followed(machine: &Machine, word: &[Symbol]) -> HashSet<(Node, Symbol, Symbol)> {
    let mut at = 0;
    let step = |two: &[Symbol]| {
        let from = at;
        at = machine.step(at, two[0]).unwrap().0;
        (from, two[0], two[1])
    };
    word.windows(2).map(step).collect()
}

/// By trying: the length of a shortest word that takes every transition (1) or every pair (2).
fn shortest_cover(machine: &Machine, in_a_row: usize) -> usize {
    let inputs = machine.inputs();
    let all = machine.states() * inputs.pow(in_a_row as u32);
    let start = (0, None::<Symbol>, 0_u32);
    let (mut seen, mut queue) = (HashSet::from([start]), VecDeque::from([(start, 0)]));
    while let Some(((at, before, covered), len)) = queue.pop_front() {
        if covered.count_ones() as usize == all {
            return len;
        }
        for (input, to, _) in machine.from(at) {
            let item = match (in_a_row, before) {
                (1, _) => Some(usize::from(at) * inputs + usize::from(input)),
                (_, Some(before)) => Some(usize::from(before) * inputs + usize::from(input)),
                (_, None) => None,
            };
            let covered = covered | item.map_or(0, |item| 1 << item);
            let number = usize::from(at) * inputs + usize::from(input);
            let next = (to, (in_a_row == 2).then_some(number as Symbol), covered);
            if seen.insert(next) {
                queue.push_back((next, len + 1));
            }
        }
    }
    unreachable!("a tour exists")
}

struct Simulated<'m>(&'m Machine);

impl System for Simulated<'_> {
    type Error = std::convert::Infallible;

    fn ask(&mut self, word: &[Symbol]) -> Result<Vec<Output>, Self::Error> {
        let mut at = 0;
        let answer = |&input: &Symbol| {
            let (to, says) = self.0.step(at, input).unwrap();
            at = to;
            says
        };
        Ok(word.iter().map(answer).collect())
    }
}

/// S3: a device that is right is learned as the specification, of every kind.
#[test]
fn the_reference_is_learned() {
    for kind in [Kind::Control, Kind::Stream] {
        let mut specification = specification(kind);
        let should = specification.machine.clone();
        let mut reference = Reference::new();
        let mut subject = Subject::new(&mut specification, &mut reference).unwrap();
        let learned = learn(&mut subject, &should, 0, 100).unwrap();
        assert_eq!(should.difference(&learned.machine), None);
        assert_eq!(learned.machine.states(), should.states());
    }
}

/// S3: a guess that contradicts what was already answered is not taken for a machine: of this one it
/// had two states that are alike, which have no suite.
#[test]
fn a_guess_agrees_with_what_was_answered() {
    let rows = [(0, 1), (3, 1), (0, 0), (0, 1), (3, 0), (4, 0), (2, 0), (2, 1), (4, 1), (1, 1)];
    let machine = Machine::new(2, rows.map(Some).to_vec());
    let expected = Machine::new(2, vec![Some((0, 0)); 2]);
    let learned = learn(&mut Simulated(&machine), &expected, 4, 10).unwrap();
    assert_eq!(machine.difference(&learned.machine), None);
}

/// S3: who answers in two ways is told so, who does not answer, and who has too many states.
#[test]
fn not_everything_can_be_learned() {
    struct Fickle(Output);
    impl System for Fickle {
        type Error = std::convert::Infallible;

        fn ask(&mut self, word: &[Symbol]) -> Result<Vec<Output>, Self::Error> {
            self.0 += 1;
            Ok(vec![self.0; word.len()])
        }
    }
    struct Silent;
    impl System for Silent {
        type Error = std::convert::Infallible;

        fn ask(&mut self, _: &[Symbol]) -> Result<Vec<Output>, Self::Error> {
            Ok(Vec::new())
        }
    }
    let machine = specification(Kind::Control).machine;
    let silent = learn(&mut Silent, &machine, 0, 100).unwrap_err();
    assert!(matches!(silent, LearnError::Answers { answers: 0, .. }), "{silent}");
    let fickle = learn(&mut Fickle(0), &machine, 0, 100).unwrap_err();
    assert!(matches!(fickle, LearnError::TwoAnswers { .. }), "{fickle}");
    let many = learn(&mut Simulated(&machine), &machine, 0, 5).unwrap_err();
    assert!(matches!(many, LearnError::TooMany(5)), "{many}");
}

/// S4: the complete suites that everybody runs catch each planted bug that shows in their inputs;
/// which do not is known.
#[test]
fn planted_bugs_are_caught() {
    let mut missed = BTreeSet::new();
    for &bug in Bug::ALL {
        let machines = Kind::ALL
            .into_iter()
            .flat_map(|kind| [Features::STOP_COPY, Features::ALL].map(|features| (kind, features)));
        let caught = machines.into_iter().any(|(kind, features)| {
            let specification = Specification::new(kind, features, true, true);
            let traces = specification.traces(0, false).unwrap();
            let (mut source, mut destination) = (Reference::with_bug(bug), Reference::new());
            let mut replayer = Replayer::new(vec![&mut source, &mut destination]);
            traces.iter().any(|trace| {
                let outcome = replayer.replay(trace, Options::default());
                matches!(outcome.verdict, Verdict::Fail(_))
            })
        });
        if !caught {
            missed.insert(bug.slug());
        }
    }
    // What these spoil is no input or output of the machines: poll, an arc that fails and is undone, a
    // load that fails, a reset inside SET, a full fd table, and what is in the bytes.
    let known = BTreeSet::from([
        "close-keeps-session",
        "dead-poll-hangs",
        "failed-arc-moves",
        "failed-open-frees-nothing",
        "failed-open-frees-twice",
        "failed-open-leaks",
        "failed-open-uses-freed",
        "load-garbles",
        "lose-deferred-reset",
        "no-room-no-move",
        "reset-keeps-data",
    ]);
    assert_eq!(missed, known);
}

/// S4: a pass of the learner's machine is no accident: of a device with a bug in its control the
/// differences are told.
#[test]
fn a_bug_is_learned() {
    let mut specification = specification(Kind::Control);
    let should = specification.machine.clone();
    let mut reference = Reference::with_bug(Bug::ResetStaysInError);
    let mut subject = Subject::new(&mut specification, &mut reference).unwrap();
    let learned = learn(&mut subject, &should, 0, 100).unwrap();
    let differences = should.differences(&learned.machine);
    let (word, says, seen) = differences.first().unwrap();
    let word: Vec<_> = word.iter().map(|&symbol| specification.input(symbol)).collect();
    assert_eq!(word, ["fault", "reset", "set-STOP"]);
    assert_eq!(specification.output(*says), "ok, data_fd -1");
    assert_eq!(specification.output(*seen), "EINVAL");
}
