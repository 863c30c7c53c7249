// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! The mlx5 backend on a firmware in software: every suite, races, whole migrations; and that what
//! is wrong with a device or its firmware shows.
#![expect(clippy::unwrap_used, reason = "helpers of tests fail as tests do")]

use std::time::Duration;

use vfio_conform::migrate::{self, Devices, Outcome, Seeds};
use vfio_conform::race::{Call, History, Order, Plan, Rules, order, race};
use vfio_conform::replay::{Options, Replayer, Verdict};
use vfio_conform::suite::Suite;
use vfio_conform::target::{Mlx5Options, Mlx5Target, SharedMlx5};
use vfio_conform::trace::Trace;
use vfio_fsm_core::device::Bug;
use vfio_fsm_core::{Errno, Fd, Features, Op, PrecopyInfo, Reply, State};

fn options(chunks: bool) -> Mlx5Options {
    Mlx5Options { chunks, ..Mlx5Options::default() }
}

/// What each trace comes to, the source and the destination with these options.
fn verdicts<'t>(
    options: Mlx5Options,
    traces: impl IntoIterator<Item = &'t Trace>,
) -> impl Iterator<Item = (&'t str, Verdict)> {
    let target = |seed| Mlx5Target::new(Mlx5Options { seed, ..options }).unwrap();
    let mut targets = [target(1), target(2)];
    traces.into_iter().map(move |trace| {
        let [source, destination] = &mut targets;
        let outcome = Replayer::new(vec![source, destination]).replay(trace, Options::default());
        (trace.header.name.as_str(), outcome.verdict)
    })
}

/// M141: every trace of every suite passes, none is left out, with whole images and with chunks; and
/// all along the firmware agrees with the device_state, and nothing is left of a session.
#[test]
fn mlx5_passes_everything() {
    for &suite in Suite::ALL {
        let traces = suite.generate_all();
        for chunks in [false, true] {
            for (name, verdict) in verdicts(options(chunks), &traces) {
                assert_eq!(verdict, Verdict::Pass, "{name}, chunks: {chunks}");
            }
        }
    }
}

/// What does not show on mlx5, and why.
const UNSEEN: &[(Bug, &str)] = &[
    (Bug::LoseDeferredReset, "it has a gate of its own, whose slips its exploration finds"),
    (Bug::CloseKeepsState, "the device is reset before it is closed, as its function is"),
    (Bug::CloseKeepsSession, "the reset before it is closed ends the session"),
    (Bug::LoadGarbles, "its image is the firmware's, which the bug does not know how to garble"),
    (
        Bug::FailedOpenFreesTwice,
        "what a session owns is mlx5's own, and is tried command by command",
    ),
    (Bug::FailedOpenFreesNothing, "the same"),
    (Bug::FailedOpenUsesFreed, "the same"),
];

/// M141: whatever bug the core has, a trace fails on mlx5, too.
#[test]
fn bugs_show_on_mlx5() {
    let suites = [Suite::Resets, Suite::Fds, Suite::Arcs, Suite::Streams];
    let traces: Vec<_> = suites.into_iter().flat_map(Suite::generate_all).collect();
    let passes = |bug: &Bug| {
        let options = Mlx5Options { bug: Some(*bug), ..Mlx5Options::default() };
        verdicts(options, &traces).all(|(_, verdict)| verdict == Verdict::Pass)
    };
    let unseen: Vec<_> = Bug::ALL.iter().copied().filter(passes).collect();
    let known: Vec<_> = UNSEEN.iter().map(|(known, _)| *known).collect();
    assert_eq!(unseen, known);
}

/// M142: threads that race at a device are answered as the core's device would answer them one after
/// the other, however long SAVEs take; a reader always returns; and the firmware agrees.
#[test]
fn races_at_mlx5_are_explained() {
    let rules = Rules::new(Features::ALL);
    for seed in 0..150 {
        let options = Mlx5Options { save_ticks: seed % 64, ..options(seed % 2 == 0) };
        let device = SharedMlx5::new(options).unwrap();
        let plan = Plan { calls: 8, seed, patience: Duration::from_secs(60) };
        let history = race((0..3).map(|_| device.port()).collect(), plan).unwrap();
        assert_ne!(order(&history, rules), Order::None, "seed {seed}:\n{history}");
        assert_eq!(device.disagreement(), None, "seed {seed}:\n{history}");
    }
}

fn call(thread: usize, op: Op<u32>, reply: Reply<usize>, [began, ended]: [u64; 2]) -> Call {
    Call { thread, op, reply: Some(reply), began, ended }
}

/// M143, C19: a call on a data_fd that is closed while it is under way has the file until it returns: it
/// may find the session dead. One that begins later may not.
#[test]
fn a_close_under_a_call_leaves_it_the_file() {
    let fd = Fd(1);
    let opens = call(0, Op::set(State::PreCopy), Reply::Fd(Some(fd)), [1, 2]);
    let dead = Reply::Errno(Errno::ENODEV);
    let history = |began| {
        History(vec![
            opens.clone(),
            call(1, Op::Read { fd, len: 1 }, dead, [began, 20]),
            call(0, Op::CloseFd { fd }, Reply::Ok, [4, 5]),
            call(0, Op::Reset, Reply::Ok, [6, 7]),
        ])
    };
    let rules = Rules::new(Features::ALL);
    assert_ne!(order(&history(3), rules), Order::None);
    assert_eq!(order(&history(8), rules), Order::None);
    // C19: PRECOPY_INFO looks at the state first, and the reset has led to RUNNING.
    let info = |errno, reset: bool| {
        let mut history = history(3);
        history.0[1].op = Op::PrecopyInfo { fd };
        history.0[1].reply = Some(Reply::Errno(errno));
        if !reset {
            history.0.pop();
        }
        order(&history, rules)
    };
    assert_ne!(info(Errno::EINVAL, true), Order::None);
    assert_eq!(info(Errno::EINVAL, false), Order::None, "the device is in PRE_COPY");
    let mut alive = history(3);
    alive.0[1].reply = Some(Reply::Info(PrecopyInfo::default()));
    assert_eq!(order(&alive, rules), Order::None, "a read is not answered so");
}

/// M144: wherever a reset falls in a migration between two firmwares, whatever the VMM chooses, the
/// destination equals the source, or the source runs and the destination is as it was.
#[test]
fn migrations_of_mlx5_end_as_they_must() {
    for chunks in [false, true] {
        let devices = Devices::Mlx5(options(chunks));
        let matrix = migrate::in_memory(Features::ALL, devices, 0, &mut |_| {}).unwrap();
        assert!(matrix.is_good(0), "{matrix}");
        let seeds = Seeds::run(0..400, devices).unwrap();
        assert!(seeds.is_good(), "{seeds}");
        assert!(seeds.outcomes.contains_key(&Outcome::Equal), "{seeds}");
    }
}

/// M144: a migration with a bug in the devices is found out.
#[test]
fn a_bug_shows_in_migrations_of_mlx5() {
    let options = Mlx5Options { bug: Some(Bug::ResetKeepsSession), ..Mlx5Options::default() };
    let devices = Devices::Mlx5(options);
    let matrix = migrate::in_memory(Features::ALL, devices, 0, &mut |_| {}).unwrap();
    assert!(!matrix.is_good(0), "{matrix}");
}
