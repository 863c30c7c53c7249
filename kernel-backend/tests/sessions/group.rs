// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! The devices of one VM: the order of what is done to them, whoever fails and wherever.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use vfio_fsm_core::vmm::{
    Cause, Decision, Event, Evidence, Group, GroupRefused, Guest, Hook, LoadPlan, Plan, Port,
    Recovery, Then, Verdict,
};
use vfio_fsm_core::{Direction, Errno, Fd, Features, Op, Reply, State};
use vfio_fsm_kernel::session::{
    GroupError, Interest, Loading, Outcome, Saving, Standing, Vmm, group_of, run_group,
};

use crate::memory::{COMPAT, COMPLETE, LIMITS, Registers, plan, registers};

/// What was done, to which device, in which order.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Did {
    Set(usize, State),
    All(Hook),
}

type Log = Arc<Mutex<Vec<Did>>>;

/// What happens at the n-th op on a device.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Trouble {
    None,
    /// It fails.
    Fails(usize),
    /// Before it, the device is reset.
    Reset(usize),
    /// The first read in STOP_COPY fails, when all others are in STOP.
    FailsLast,
}

/// A device of a group, whose SETs are logged when they have succeeded.
struct Peer {
    index: usize,
    device: Registers,
    log: Log,
    trouble: Trouble,
    ops: usize,
}

impl Port for Peer {
    type Fd = Fd;

    fn apply<'b>(&mut self, op: Op<&[u8], &Fd>, buf: &'b mut [u8]) -> Reply<&'b [u8]> {
        let op = op.map_fd(|fd| *fd);
        self.ops += 1;
        if self.trouble == Trouble::Fails(self.ops) && !matches!(op, Op::CloseFd { .. }) {
            return Reply::Errno(Errno::EIO);
        }
        if self.trouble == Trouble::Reset(self.ops) {
            assert_eq!(self.device.apply(Op::Reset, &mut []), Reply::Ok);
        }
        let reads = matches!(op, Op::Read { .. });
        if self.trouble == Trouble::FailsLast
            && reads
            && self.device.fsm().state() == State::StopCopy
        {
            let stopped = |log: &Log| {
                log.lock().iter().filter(|did| matches!(did, Did::Set(_, State::Stop))).count()
            };
            while stopped(&self.log) < 2 {
                std::thread::yield_now();
            }
            return Reply::Errno(Errno::EIO);
        }
        // Held meanwhile, so that what is logged first was first.
        let mut log = self.log.lock();
        let reply = self.device.apply(op, buf);
        if let (Op::SetState { to, .. }, Reply::Fd(_)) = (op, &reply) {
            log.push(Did::Set(self.index, to.known().unwrap()));
        }
        reply
    }
}

fn peers(features: &[Features], value: u8, troubles: &[Trouble]) -> (Vec<Peer>, Log) {
    let log = Log::default();
    let peer = |(index, &features)| {
        let trouble = troubles.get(index).copied().unwrap_or(Trouble::None);
        let device = registers(features, value);
        Peer { index, device, log: log.clone(), trouble, ops: 0 }
    };
    (features.iter().enumerate().map(peer).collect(), log)
}

/// The VMM's side of one device.
#[derive(Default)]
struct Side {
    recovery: Option<Recovery>,
    evidence: Vec<Evidence>,
    panics: bool,
    /// Never calls for the switchover.
    holds_out: bool,
    waits: usize,
}

impl Vmm for Side {
    fn hook(&mut self, hook: Hook) -> bool {
        let own = [Hook::InitialBytesLoaded, Hook::RestoreConfig, Hook::RestoreInterrupts];
        assert!(own.contains(&hook), "{hook} is for all");
        true
    }

    fn decide(&mut self, decision: &Decision) -> Recovery {
        self.evidence.push(decision.evidence);
        self.recovery.unwrap_or(Recovery::Abort)
    }

    fn wait(&mut self, interest: &Interest, standing: &Standing) -> Option<Event> {
        assert!(!self.panics, "as it should");
        self.waits += 1;
        assert!(self.waits < 10_000, "comes to no end");
        match interest {
            Interest::Switchover if self.holds_out => {
                std::thread::sleep(Duration::from_millis(1));
                None
            }
            Interest::Switchover => standing.left.ready.then_some(Event::Switchover),
            Interest::Run => Some(Event::Run),
            _ => None,
        }
    }
}

type Saver = Saving<Peer, Vec<u8>>;

struct Run {
    group: Group,
    members: Vec<(Saver, Side)>,
    log: Log,
}

impl Run {
    fn new(features: &[Features], plan: Plan, troubles: &[Trouble]) -> Self {
        // Asked without trouble, so that the trouble counts the session's ops.
        let (mut peers, log) = peers(features, 7, &[]);
        let group = group_of(Direction::Saving, &mut peers, true).unwrap();
        let plan = Plan { group: group.in_two_phases(), ..plan };
        let member = |(index, mut peer): (usize, Peer)| {
            (peer.ops, peer.trouble) = (0, troubles.get(index).copied().unwrap_or(Trouble::None));
            (Saving::new(plan, COMPAT, peer, Vec::new()).unwrap(), Side::default())
        };
        Self { group, members: peers.into_iter().enumerate().map(member).collect(), log }
    }

    fn run(&mut self) -> Vec<Verdict> {
        let log = self.log.clone();
        let all = |hook| {
            log.lock().push(Did::All(hook));
            true
        };
        let outcomes = run_group(&mut self.group, &mut self.members, all);
        outcomes.into_iter().map(|Outcome { verdict, .. }| verdict).collect()
    }

    fn states(&mut self) -> Vec<State> {
        self.members.iter_mut().map(|(saving, _)| saving.port().device.fsm().state()).collect()
    }

    fn log(&self) -> Vec<Did> {
        self.log.lock().clone()
    }
}

fn at(log: &[Did], hook: Hook) -> Option<usize> {
    let count = log.iter().filter(|did| **did == Did::All(hook)).count();
    assert!(count <= 1, "{hook} {count} times in {log:?}");
    log.iter().position(|did| *did == Did::All(hook))
}

/// V11: what must hold of the order of every group in two phases.
fn check_order(log: &[Did]) {
    use State::{PreCopyP2p, Running, RunningP2p, Stop, StopCopy};
    let (frozen, quiet) = (at(log, Hook::Freeze), at(log, Hook::Quiesced));
    let (startable, thawed) = (at(log, Hook::Startable), at(log, Hook::Thaw));
    for (position, did) in log.iter().enumerate() {
        let is_behind = |hook: Option<usize>| hook.is_some_and(|hook| hook < position);
        match did {
            Did::Set(_, PreCopyP2p | RunningP2p) => assert!(is_behind(frozen), "{log:?}"),
            Did::Set(_, StopCopy | Stop) => assert!(is_behind(quiet), "{log:?}"),
            // A device that has not stopped with the others goes back alone.
            Did::Set(_, Running) => assert!(is_behind(startable) || frozen.is_none(), "{log:?}"),
            _ => {}
        }
    }
    if let Some(thawed) = thawed {
        assert_eq!(thawed, log.len() - 1, "{log:?}");
        assert!(frozen.is_some());
    }
}

const THREE: [Features; 3] = [Features::ALL, Features::P2P, Features::ALL];

/// V4, V6, V11, R21, R22: all are frozen at once, quiet before any stops, and none leaves STOP.
#[test]
fn all_stop_in_order() {
    for _ in 0..50 {
        let mut run = Run::new(&THREE, plan(), &[]);
        assert_eq!(run.run(), [COMPLETE; 3]);
        assert_eq!(run.states(), [State::Stop; 3]);
        let log = run.log();
        check_order(&log);
        assert_eq!((at(&log, Hook::Startable), at(&log, Hook::Thaw)), (None, None));
        for index in 0..3 {
            let quiet = [State::RunningP2p, State::PreCopyP2p].map(|to| Did::Set(index, to));
            let quiet = log.iter().position(|did| quiet.contains(did));
            assert!(quiet.unwrap() < at(&log, Hook::Quiesced).unwrap());
        }
    }
}

/// V11: a snapshot of all goes the whole way and back.
#[test]
fn a_snapshot_of_all() {
    let mut run = Run::new(&THREE, Plan { then: Then::Back, ..plan() }, &[]);
    assert_eq!(run.run(), [COMPLETE; 3]);
    assert_eq!(run.states(), [State::Running; 3]);
    check_order(&run.log());
    assert!(at(&run.log(), Hook::Thaw).is_some());
}

/// V4, V7, V11: wherever one of them fails, no migration is left over from the others, those that
/// were complete go back, and the guest is let go once, behind the last.
#[test]
fn one_that_fails_takes_the_others_back() {
    let mut failed = 0;
    for member in [0, 1] {
        for at_op in 1..40 {
            let mut troubles = [Trouble::None; 3];
            troubles[member] = Trouble::Fails(at_op);
            let mut run = Run::new(&THREE, plan(), &troubles);
            let verdicts = run.run();
            let log = run.log();
            check_order(&log);
            let completes = verdicts.iter().filter(|verdict| verdict.is_complete()).count();
            assert!([0, 3].contains(&completes), "{verdicts:?}");
            let state = if completes == 3 { State::Stop } else { State::Running };
            assert_eq!(run.states(), [state; 3], "{verdicts:?}");
            assert_eq!(run.group.is_broken(), completes == 0);
            assert_eq!(
                at(&log, Hook::Thaw).is_some(),
                completes == 0 && at(&log, Hook::Freeze).is_some()
            );
            failed += usize::from(completes == 0);
        }
    }
    assert!(failed > 20, "{failed}");
}

/// V7, V11: one that fails while the others are still far from stopping takes them back at once.
#[test]
fn one_that_fails_early() {
    let mut run = Run::new(&THREE, plan(), &[Trouble::Fails(5)]);
    run.members[1].1.holds_out = true;
    run.members[2].1.holds_out = true;
    let verdicts = run.run();
    assert!(matches!(
        verdicts[0],
        Verdict::Aborted { cause: Cause::Set { .. } | Cause::Io { .. }, .. }
    ));
    let cancelled = Verdict::Aborted { cause: Cause::Cancelled, guest: Guest::Intact };
    assert_eq!(verdicts[1..], [cancelled; 2]);
    assert_eq!(run.states(), [State::Running; 3]);
    assert!(run.log().iter().all(|did| matches!(did, Did::Set(..))), "{:?}", run.log());
}

/// V7, V11: those that are complete, and wait in STOP for the last, go back when it fails.
#[test]
fn the_last_one_fails() {
    let mut run = Run::new(&THREE, plan(), &[Trouble::FailsLast]);
    let (read, guest) = (Cause::Io { op: "read", errno: Errno::EIO }, Guest::Intact);
    let verdict = |cause| Verdict::Aborted { cause, guest };
    let cancelled = verdict(Cause::Cancelled);
    assert_eq!(run.run(), [verdict(read), cancelled, cancelled]);
    assert_eq!(run.states(), [State::Running; 3]);
    check_order(&run.log());
    assert!(at(&run.log(), Hook::Thaw).is_some());
}

/// V5, V7, V11: a device that is reset while the others have stopped cannot begin anew with a guest
/// that runs, only send all again; and one whose VMM gives up takes the others back.
#[test]
fn a_reset_of_one() {
    let mut sent_again = 0;
    for recovery in [Recovery::Abort, Recovery::Restart, Recovery::StopCopy] {
        for at_op in 1..40 {
            let mut run = Run::new(&THREE, plan(), &[Trouble::Reset(at_op)]);
            run.members[0].1.recovery = Some(recovery);
            let verdicts = run.run();
            check_order(&run.log());
            let completes = verdicts.iter().filter(|verdict| verdict.is_complete()).count();
            assert!([0, 3].contains(&completes), "{recovery} {at_op}: {verdicts:?}");
            let seen = !run.members[0].1.evidence.is_empty();
            assert!(recovery != Recovery::Abort || completes == usize::from(!seen) * 3);
            assert!(recovery != Recovery::StopCopy || completes == 3);
            sent_again += usize::from(seen && completes == 3);
        }
    }
    assert!(sent_again > 10, "{sent_again}");
}

/// V11: when the destination has failed, all go back.
#[test]
fn all_are_taken_back() {
    let mut run = Run::new(&THREE, plan(), &[]);
    assert_eq!(run.run(), [COMPLETE; 3]);
    run.group.fail();
    let cancelled = Verdict::Aborted { cause: Cause::Cancelled, guest: Guest::Intact };
    assert_eq!(run.run(), [cancelled; 3]);
    assert_eq!(run.states(), [State::Running; 3]);
    check_order(&run.log());
    assert_eq!(at(&run.log(), Hook::Thaw), Some(run.log().len() - 1));
}

/// A hook that the VMM cannot do for all ends it for all.
#[test]
fn a_hook_that_fails() {
    for fails in [Hook::Freeze, Hook::Quiesced] {
        let mut run = Run::new(&THREE, plan(), &[]);
        let outcomes = run_group(&mut run.group, &mut run.members, |hook| hook != fails);
        assert!(outcomes.iter().all(|outcome| !outcome.verdict.is_complete()));
        assert_eq!(run.states(), [State::Running; 3]);
    }
}

/// A VMM's side that panics does not leave the others waiting, and its panic is passed on.
#[test]
fn a_side_that_panics() {
    let mut run = Run::new(&THREE, plan(), &[]);
    run.members[1].1.panics = true;
    assert!(catch_unwind(AssertUnwindSafe(|| run.run())).is_err());
    assert_eq!(run.states(), [State::Running; 3]);
}

/// V11: devices with DMA between them that cannot be quiet are refused, before anything is done;
/// and so is one that does not say what it can do.
#[test]
fn devices_that_do_not_go_together() {
    let two = [Features::P2P, Features::STOP_COPY];
    let (mut refused, log) = peers(&two, 0, &[]);
    let error = group_of(Direction::Saving, &mut refused, true).unwrap_err();
    assert!(matches!(error, GroupError::Refused(GroupRefused::NoP2p { index: 1, .. })), "{error}");
    assert!(!group_of(Direction::Saving, &mut refused, false).unwrap().in_two_phases());
    let (mut silent, _) = peers(&two, 0, &[Trouble::None, Trouble::Fails(1)]);
    let error = group_of(Direction::Saving, &mut silent, false).unwrap_err();
    assert_eq!(error, GroupError::Features { index: 1, errno: Errno::EIO });
    assert_eq!(log.lock()[..], []);
}

/// V7: without DMA between them they need no P2P, and still go together; and one that is reset when
/// the others have stopped does not let the guest run to begin anew.
#[test]
fn without_peer_dma() {
    let troubles = (1..30).flat_map(|at_op| [Trouble::Fails(at_op), Trouble::Reset(at_op)]);
    for trouble in troubles.chain([Trouble::None]) {
        for features in [Features::STOP_COPY, Features::PRE_COPY] {
            let (mut peers, log) = peers(&[features; 2], 7, &[]);
            let mut group = group_of(Direction::Saving, &mut peers, false).unwrap();
            (peers[0].trouble, peers[0].ops) = (trouble, 0);
            let side = || Side { recovery: Some(Recovery::Restart), ..Side::default() };
            let mut members: Vec<_> = peers
                .into_iter()
                .map(|peer| (Saving::new(plan(), COMPAT, peer, Vec::new()).unwrap(), side()))
                .collect();
            let outcomes = run_group(&mut group, &mut members, |hook| {
                log.lock().push(Did::All(hook));
                true
            });
            let completes = outcomes.iter().filter(|outcome| outcome.verdict.is_complete()).count();
            assert!([0, 2].contains(&completes), "{trouble:?} {outcomes:?}");
            let log = log.lock().clone();
            let thawed = completes == 0 && at(&log, Hook::Freeze).is_some();
            assert_eq!(at(&log, Hook::Thaw).is_some(), thawed, "{trouble:?}");
        }
    }
}

/// V8, V11: at the destination none starts before all are loaded, and one that cannot be leaves all
/// of them blank.
#[test]
fn all_are_loaded_or_none() {
    let mut run = Run::new(&THREE, plan(), &[]);
    assert_eq!(run.run(), [COMPLETE; 3]);
    let streams: Vec<_> = run.members.iter().map(|(saving, _)| saving.sink().clone()).collect();
    let mut failures = 0;
    for trouble in (1..20).map(Trouble::Fails).chain([Trouble::None]) {
        let (mut peers, log) = peers(&THREE, 0, &[]);
        let mut group = group_of(Direction::Resuming, &mut peers, true).unwrap();
        (peers[1].trouble, peers[1].ops) = (trouble, 0);
        let load_plan = LoadPlan { group: group.in_two_phases() };
        let accepts = |compat: &str| compat == COMPAT;
        let mut members: Vec<_> = peers
            .into_iter()
            .zip(&streams)
            .map(|(peer, stream)| Loading::new(load_plan, LIMITS, accepts, peer, &stream[..]))
            .map(|loading| (loading, Side::default()))
            .collect();
        let outcomes = run_group(&mut group, &mut members, |hook| {
            log.lock().push(Did::All(hook));
            true
        });
        let log = log.lock().clone();
        let completes = outcomes.iter().filter(|outcome| outcome.verdict.is_complete()).count();
        let value = |port: &Peer| port.device.actions().registers()[0];
        let values: Vec<_> = members.iter_mut().map(|(loading, _)| value(loading.port())).collect();
        for (outcome, value) in outcomes.iter().zip(&values) {
            assert_eq!(*value, if outcome.verdict.is_complete() { 7 } else { 0 }, "{trouble:?}");
        }
        assert!([0, 3].contains(&completes), "{trouble:?}: {outcomes:?}");
        assert!(completes == 3 || trouble != Trouble::None);
        failures += usize::from(completes == 0);
        let startable = at(&log, Hook::Startable);
        for (position, did) in log.iter().enumerate() {
            let starts = matches!(did, Did::Set(_, State::Running));
            assert!(!starts || startable.is_some_and(|all| all < position), "{log:?}");
        }
        let thawed = at(&log, Hook::Freeze).is_some().then(|| log.len() - 1);
        assert_eq!(at(&log, Hook::Thaw), thawed);
    }
    assert!(failures > 5, "{failures}");
}
