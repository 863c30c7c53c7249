// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! The VMM's side on the device in memory: what each kind of reset looks like, what each recovery
//! comes to, and whole migrations at random.

#![expect(clippy::unwrap_used, clippy::panic, reason = "helpers of tests may fail them")]

use core::time::Duration;

use proptest::prelude::*;
use vfio_fsm_core::device::{Device, Memory};
use vfio_fsm_core::vmm::frame::{Crc, Decoder, Encoder, Frame, Item, Limits};
use vfio_fsm_core::vmm::{
    Cause, Choices, Decision, Event, Evidence, Gate, Group, GroupRefused, Guest, Hook, LoadPlan,
    Loader, Plan, Progress, Recovery, ResetRefused, Saver, Status, Step, Then, Verdict, Wait,
};
use vfio_fsm_core::{Direction, Errno, Fault, Fd, Features, Leaves, Op, PrecopyInfo, Reply, State};

type Dev = Device<Memory<7>, 2>;

/// A source: the session, its device, and what a VMM knows.
struct Source {
    saver: Saver<Fd>,
    device: Dev,
    halted: bool,
    /// Frames that went out, each with its bytes.
    sent: Vec<(Frame, Vec<u8>)>,
    read: Vec<u8>,
    /// Goes wrong with the next SET.
    fault: Option<Fault>,
    /// A call fails like this.
    errno: Option<Errno>,
    /// Ops that were carried out.
    ops: Vec<Op<Vec<u8>>>,
}

impl Source {
    fn new(features: Features, plan: Plan) -> Self {
        let mut device = Dev::new(features, Memory::new());
        device.apply(Op::Touch(0x11), &mut []);
        if plan.paused {
            device.apply(Op::set(State::Stop), &mut []);
        }
        Self {
            saver: Saver::new(plan),
            device,
            halted: plan.paused,
            sent: Vec::new(),
            read: Vec::new(),
            fault: None,
            errno: None,
            ops: Vec::new(),
        }
    }

    /// Does what comes next; what it cannot do by itself it returns.
    fn step(&mut self) -> Option<Step<'static, (), Fd>> {
        match self.saver.step() {
            Step::Do(op) => {
                let op: Op<&[u8]> = op.map_fd(|fd| *fd).map(|never| match never {});
                let op = match (op, self.fault) {
                    (Op::SetState { to, .. }, fault @ Some(_)) => {
                        self.fault = None;
                        Op::SetState { to, fault }
                    }
                    (op, _) => op,
                };
                self.ops.push(op.map(<[u8]>::to_vec));
                let mut buf = [0; 64];
                let reply = match self.errno.take() {
                    Some(errno) => Reply::Errno(errno),
                    None => self.device.apply(op, &mut buf),
                };
                if let Reply::Bytes(bytes) = reply {
                    self.read = bytes.to_vec();
                }
                let reply = reply.map(|bytes| bytes.len() as u32);
                self.saver.reply(reply).unwrap();
            }
            Step::Send(frame) => {
                let bytes = matches!(frame, Frame::Data { .. }).then(|| self.read.clone());
                self.sent.push((frame, bytes.unwrap_or_default()));
                self.saver.sent().unwrap();
            }
            Step::Call(hook) => {
                match hook {
                    Hook::Freeze => self.halted = true,
                    Hook::Thaw => self.halted = false,
                    _ => {}
                }
                self.saver.called(true).unwrap();
            }
            Step::Decide(decision) => return Some(Step::Decide(decision)),
            Step::Wait(wait) => return Some(Step::Wait(wait)),
            Step::End(verdict) => return Some(Step::End(verdict)),
        }
        None
    }

    /// Until it waits, asks or ends.
    fn run(&mut self) -> Step<'static, (), Fd> {
        for _ in 0..1000 {
            if let Some(step) = self.step() {
                return step;
            }
        }
        panic!("does not come to rest: {:?}", self.saver);
    }

    /// Until the next op is this one; it is not carried out yet.
    fn run_to(&mut self, wanted: fn(&Op<(), Fd>) -> bool) {
        for _ in 0..1000 {
            let mut saver = self.saver;
            if let Step::Do(op) = saver.step() {
                if wanted(&op.map_fd(|fd| *fd).map(|never| match never {})) {
                    return;
                }
            }
            assert!(self.step().is_none(), "comes to rest before: {:?}", self.saver);
        }
        panic!("never comes to it: {:?}", self.saver);
    }

    fn event(&mut self, event: Event) {
        self.saver.event(event).unwrap();
    }

    fn reset(&mut self) {
        self.device.apply(Op::Reset, &mut []);
    }

    fn decision(&mut self) -> Decision {
        match self.run() {
            Step::Decide(decision) => decision,
            other => panic!("no decision but {other:?}"),
        }
    }

    fn decide(&mut self, choice: Recovery) {
        let _decision = self.decision();
        self.saver.decide(choice).unwrap();
    }

    fn verdict(&mut self) -> Verdict {
        match self.run() {
            Step::End(verdict) => verdict,
            other => panic!("no end but {other:?}"),
        }
    }

    /// What a receiver would have of the last epoch.
    fn image(&self) -> Vec<u8> {
        let discard =
            self.sent.iter().rposition(|(frame, _)| matches!(frame, Frame::Discard { .. }));
        let from = discard.map_or(0, |at| at + 1);
        self.sent[from..].iter().flat_map(|(_, bytes)| bytes.clone()).collect()
    }

    fn is_running_and_let_go(&self) -> bool {
        self.device.fsm().state() == State::Running
            && !self.halted
            && self.device.fds().open().next().is_none()
    }
}

/// What is in a device that loads this.
fn loaded(image: &[u8]) -> [u8; 7] {
    let mut device = Dev::new(Features::STOP_COPY, Memory::new());
    let Reply::Fd(Some(fd)) = device.apply(Op::set(State::Resuming), &mut []) else { panic!() };
    assert_eq!(
        device.apply(Op::Write { fd, bytes: image }, &mut []),
        Reply::Written(image.len() as u32)
    );
    assert_eq!(device.apply(Op::set(State::Running), &mut []), Reply::Fd(None), "a whole image");
    *device.actions().registers()
}

fn live(features: Features) -> Source {
    Source::new(features, Plan { chunk: 5, ..Plan::LIVE })
}

/// V6: with nobody in the way the image is the device, in all flag sets, and the device stays in
/// STOP, frozen.
#[test]
fn an_undisturbed_migration_sends_the_device() {
    for features in Features::SETS {
        let mut source = live(features);
        assert_eq!(source.run(), Step::Wait(Wait::Switchover));
        assert!(source.saver.status().ready);
        source.event(Event::Switchover);
        assert_eq!(source.verdict(), Verdict::Complete { guest: Guest::Intact });
        assert_eq!(loaded(&source.image()), [0x11; 7]);
        assert_eq!(source.device.fsm().state(), State::Stop);
        assert!(source.halted && source.saver.is_frozen());
        let (last, _) = source.sent.last().unwrap();
        assert_eq!(*last, Frame::End { epoch: 1 });
    }
}

/// R37: pre-copy data does not replace what STOP_COPY has: the device is read again at the end.
#[test]
fn what_changed_in_pre_copy_is_sent() {
    let mut source = live(Features::ALL);
    source.run();
    source.device.apply(Op::Touch(0x22), &mut []);
    source.event(Event::Tick);
    assert_eq!(source.run(), Step::Wait(Wait::Switchover));
    source.device.apply(Op::Touch(0x33), &mut []);
    source.event(Event::Switchover);
    assert!(source.verdict().is_complete());
    assert_eq!(loaded(&source.image()), [0x33; 7]);
}

/// V5, O1: a reset shows as a call on the data_fd that fails.
#[test]
fn a_reset_shows_on_the_data_fd() {
    for (wanted, op, errno) in [
        ((|op| matches!(op, Op::Read { .. })) as fn(&Op<(), Fd>) -> bool, "read", Errno::ENODEV),
        (|op| matches!(op, Op::PrecopyInfo { .. }), "precopy_info", Errno::EINVAL),
    ] {
        let mut source = live(Features::ALL);
        source.run_to(wanted);
        source.reset();
        let decision = source.decision();
        assert_eq!(decision.evidence, Evidence::DeadFd { op, errno });
        assert_eq!(decision.choices, Choices { restart: true, stop_copy: true });
    }
}

/// V5, O2: a reset shows as a data_fd where none was due, and that one is kept.
#[test]
fn a_reset_shows_as_an_unexpected_fd() {
    let mut source = live(Features::ALL);
    source.run();
    source.reset();
    source.event(Event::Switchover);
    let decision = source.decision();
    assert_eq!(decision.evidence, Evidence::UnexpectedFd { to: State::StopCopy });
    assert_eq!(source.saver.data_fd(), Some(&Fd(2)), "the new one");
    source.decide(Recovery::StopCopy);
    let ops = source.ops.len();
    assert_eq!(source.verdict(), Verdict::Complete { guest: Guest::ResetByItself });
    let sets = source.ops[ops..].iter().filter(|op| matches!(op, Op::SetState { .. })).count();
    assert_eq!(sets, 1, "only to STOP: what it was for is there already");
    assert_eq!(loaded(&source.image()), [0; 7], "the device after the reset");
}

/// V5, O3: a reset shows as a cancel that has nothing to do.
#[test]
fn a_reset_shows_as_a_cancel_without_effect() {
    let mut source = live(Features::ALL);
    source.run();
    source.reset();
    source.event(Event::Cancel);
    let guest = Guest::ResetByItself;
    assert_eq!(source.verdict(), Verdict::Aborted { cause: Cause::Cancelled, guest });
    let believed = State::PreCopy;
    assert_eq!(source.saver.evidence(), Some(Evidence::AlreadyRunning { believed }));
    assert!(source.is_running_and_let_go());
}

/// V5, O4: a reset deferred into the tail of a SET shows behind it, by GET alone.
#[test]
fn a_reset_shows_behind_a_set_that_succeeded() {
    let mut source = live(Features::ALL);
    source.run();
    source.event(Event::Switchover);
    source.run_to(|op| matches!(op, Op::SetState { .. }));
    source.fault = Some(Fault::ResetInside);
    let decision = source.decision();
    assert_eq!(decision.evidence, Evidence::DeferredIntoSet { to: State::StopCopy });

    // And once more at the very end, where everything has been read: nothing else would show it.
    let mut source = live(Features::ALL);
    source.run();
    source.event(Event::Switchover);
    source.run_to(|op| *op == Op::set(State::Stop));
    source.fault = Some(Fault::ResetInside);
    let decision = source.decision();
    assert_eq!(decision.evidence, Evidence::DeferredIntoSet { to: State::Stop });
    assert!(source.sent.iter().all(|(frame, _)| !matches!(frame, Frame::End { .. })), "V6");
}

/// V7: each recovery from a reset in PRE_COPY comes to its end, with the right word on the guest.
#[test]
fn every_recovery_comes_to_its_end() {
    for choice in [Recovery::Abort, Recovery::Restart, Recovery::StopCopy] {
        let mut source = live(Features::ALL);
        source.run();
        source.reset();
        source.device.apply(Op::Touch(0x44), &mut []);
        source.event(Event::Tick);
        source.decide(choice);
        if choice == Recovery::Restart {
            assert_eq!(source.run(), Step::Wait(Wait::Switchover), "in PRE_COPY again");
            assert_eq!(source.device.fsm().state(), State::PreCopy);
            source.event(Event::Switchover);
        }
        let verdict = source.verdict();
        assert_eq!(verdict.guest(), Guest::ResetByItself);
        if choice == Recovery::Abort {
            assert!(matches!(verdict, Verdict::Aborted { cause: Cause::Reset(_), .. }));
            assert!(source.is_running_and_let_go());
        } else {
            assert!(verdict.is_complete());
            assert_eq!(source.saver.epoch(), 2);
            assert_eq!(loaded(&source.image()), [0x44; 7]);
        }
    }
}

/// V7: after as many discards as the plan allows, only abort is left.
#[test]
fn restarts_come_to_an_end() {
    let mut source = Source::new(Features::ALL, Plan { restarts: 2, ..Plan::LIVE });
    for _ in 0..2 {
        source.run();
        source.reset();
        source.event(Event::Tick);
        source.decide(Recovery::Restart);
    }
    source.run();
    source.reset();
    source.event(Event::Tick);
    let decision = source.decision();
    assert_eq!(decision.choices, Choices { restart: false, stop_copy: false });
    source.saver.decide(Recovery::Restart).unwrap();
    assert!(matches!(source.verdict(), Verdict::Aborted { .. }), "what is not offered is abort");
}

/// V7, V3, C41: the last resort is a reset, and then the guest's device is lost by us; if that fails,
/// the device is stuck, and the fds are closed all the same.
#[test]
fn the_last_resort_says_what_it_cost() {
    let fails = Fault::ArcFails { hop: 0, errno: Errno::EIO, leaves: Leaves::Error };
    let mut source = live(Features::ALL);
    source.run();
    source.event(Event::Switchover);
    source.run_to(|op| *op == Op::set(State::StopCopy));
    source.fault = Some(fails);
    let cause = Cause::Set { to: State::StopCopy, errno: Errno::EIO };
    assert_eq!(source.verdict(), Verdict::Aborted { cause, guest: Guest::LostByUs });
    assert!(source.is_running_and_let_go());

    let mut source = live(Features::ALL);
    source.run();
    source.event(Event::Switchover);
    source.run_to(|op| *op == Op::set(State::StopCopy));
    source.fault = Some(fails);
    source.run_to(|op| *op == Op::Reset);
    source.errno = Some(Errno::EAGAIN);
    let (at, errno) = (Some(State::Error.into()), Some(Errno::EAGAIN));
    assert_eq!(source.verdict(), Verdict::Stuck { cause, at, errno, guest: Guest::LostByUs });
    assert!(source.halted, "it stays frozen");
    assert_eq!(source.device.fds().open().count(), 0, "R10");
}

/// V4, R22, C43: a reset by the VMM is carried out while the guest runs, and refused while it is frozen.
#[test]
fn a_reset_is_held_back_in_the_freeze() {
    let mut source = live(Features::ALL);
    source.run();
    source.event(Event::Reset);
    assert_eq!(source.decision().evidence, Evidence::Ordered);
    source.decide(Recovery::StopCopy);
    source.run_to(|op| matches!(op, Op::Read { .. }));
    let refused = source.saver.event(Event::Reset).unwrap_err();
    assert_eq!(refused, ResetRefused::Frozen { at: Some(State::StopCopy) });
    assert!(refused.to_string().contains("in STOP_COPY"), "{refused}");
    assert!(source.verdict().is_complete());
    assert!(source.saver.event(Event::Reset).is_err(), "in STOP it is frozen still");

    let mut source = live(Features::ALL);
    source.event(Event::Cancel);
    source.verdict();
    assert_eq!(source.saver.event(Event::Reset), Err(ResetRefused::Over));
}

/// V10: a cancel is heeded wherever it comes, also when all has been sent.
#[test]
fn a_cancel_is_heeded_everywhere() {
    for after in 0.. {
        let mut source = live(Features::ALL);
        source.event(Event::Switchover);
        let ended = (0..after).any(|_| matches!(source.step(), Some(Step::End(_))));
        let last = ended.then(|| source.verdict());
        source.event(Event::Cancel);
        let guest = Guest::Intact;
        assert_eq!(source.verdict(), Verdict::Aborted { cause: Cause::Cancelled, guest });
        assert!(source.is_running_and_let_go(), "after {after} steps");
        if let Some(verdict) = last {
            assert!(verdict.is_complete());
            return;
        }
    }
}

/// V1: a device that is somewhere else is left alone.
#[test]
fn a_session_begins_where_it_is_said_to() {
    let mut source = live(Features::ALL);
    source.device.apply(Op::set(State::Stop), &mut []);
    let (state, expected) = (State::Stop.into(), State::Running);
    let cause = Cause::Elsewhere { state, expected };
    assert_eq!(source.verdict(), Verdict::Aborted { cause, guest: Guest::Intact });
    assert!(source.ops.iter().all(|op| !matches!(op, Op::SetState { .. })));
}

/// A snapshot comes back to where it was: RUNNING, or STOP if the VMM had it there.
#[test]
fn a_snapshot_goes_back() {
    for paused in [false, true] {
        let mut source = Source::new(Features::ALL, Plan { paused, ..Plan::SNAPSHOT });
        source.event(Event::Switchover);
        assert_eq!(source.verdict(), Verdict::Complete { guest: Guest::Intact });
        assert_eq!(loaded(&source.image()), [0x11; 7]);
        let home = if paused { State::Stop } else { State::Running };
        assert_eq!((source.device.fsm().state(), source.halted), (home, paused));
        assert_eq!(source.device.fds().open().count(), 0);
    }
}

/// R35: the destination's word is waited for if the plan says so.
#[test]
fn ready_needs_the_acknowledgement() {
    let mut source = Source::new(Features::ALL, Plan { ack: true, ..Plan::LIVE });
    source.event(Event::Ack);
    source.run();
    assert!(!source.saver.status().ready, "nothing was sent that could have been acknowledged");
    source.event(Event::Ack);
    assert!(source.saver.status().ready);
}

/// C44, C47: behind a REINIT the source is not ready until the new initial bytes are sent; the flag
/// counts only if the kernel has agreed to report it.
#[test]
fn a_reinit_is_judged_anew() {
    for agreed in [true, false] {
        let mut source = live(Features::ALL);
        source.run_to(|op| *op == Op::OptInPrecopyV2);
        source.errno = (!agreed).then_some(Errno::ENOTTY);
        source.run();
        assert!(source.saver.status().ready);
        source.event(Event::Tick);
        let Step::Do(Op::PrecopyInfo { .. }) = source.saver.step() else { panic!() };
        let info = PrecopyInfo { initial_bytes: 8, dirty_bytes: 0, reinit: true };
        source.saver.reply(Reply::Info(info)).unwrap();
        assert_eq!(source.saver.status().ready, !agreed);
        let initial = |source: &Source| {
            let sent = source.sent.iter();
            sent.filter(|(frame, _)| matches!(frame, Frame::InitialBytesSent { .. })).count()
        };
        assert_eq!(initial(&source), 1);
        source.run();
        assert!(source.saver.status().ready);
        assert_eq!(initial(&source), if agreed { 2 } else { 1 });
    }
}

/// What a session did not ask for is refused, and changes nothing.
#[test]
fn answers_out_of_turn_are_refused() {
    let mut saver = Saver::<Fd>::new(Plan::LIVE);
    let before = saver;
    let error = saver.reply(Reply::Ok).unwrap_err();
    assert_eq!((error.got, error.asked), ("a reply", "step() to be called"));
    assert_eq!(saver, before);
    assert_eq!(saver.step(), Step::Do(Op::GetFeatures));
    let before = saver;
    let error = saver.called(true).unwrap_err();
    assert_eq!((error.got, error.asked), ("a called hook", "a reply"));
    assert!(saver.sent().is_err() && saver.decide(Recovery::Abort).is_err());
    assert_eq!(saver, before);

    let mut loader = Loader::<Fd>::new(LoadPlan::default());
    loader.step();
    let error = loader.frame(Frame::End { epoch: 1 }).unwrap_err();
    assert_eq!((error.got, error.asked), ("a frame", "a reply"));
}

/// A driver that answers nonsense is given up on, not obeyed.
#[test]
fn nonsense_ends_the_session() {
    let mut saver = Saver::<Fd>::new(Plan::LIVE);
    saver.step();
    saver.reply(Reply::Size(7)).unwrap();
    let Step::End(Verdict::Aborted { cause, .. }) = saver.step() else { panic!() };
    assert_eq!(cause, Cause::Nonsense { op: "get_features" });
    assert_eq!(
        Decision {
            evidence: Evidence::Ordered,
            choices: Choices { restart: true, stop_copy: false }
        }
        .to_string(),
        "the VMM ordered it; abort, restart"
    );
}

/// V11, R21: a group of devices of which one cannot be quiet is refused, with the reason.
#[test]
fn a_group_needs_p2p_of_all() {
    let devices = [Features::ALL, Features::PRE_COPY];
    let refused = Group::new(Direction::Saving, &devices, true).unwrap_err();
    let expected = GroupRefused::NoP2p { index: 1, devices: 2, features: Features::PRE_COPY };
    assert_eq!(refused, expected);
    assert!(refused.to_string().contains("device 1 of 2 has STOP_COPY|PRE_COPY and no P2P"));
    // Alone, or without a way to each other, it may.
    assert!(!Group::new(Direction::Saving, &devices[1..], true).unwrap().in_two_phases());
    assert!(!Group::new(Direction::Saving, &devices, false).unwrap().in_two_phases());
    assert!(Group::new(Direction::Saving, &[Features::P2P; 64], true).unwrap().in_two_phases());
    let refused = Group::new(Direction::Saving, &[Features::P2P; 65], true);
    assert_eq!(refused, Err(GroupRefused::TooMany { devices: 65 }));
}

/// V11: a gate opens when the last has arrived and the VMM has done its part, and a member that
/// turns back shuts those that lead on.
#[test]
fn a_gate_opens_for_all() {
    let mut group = Group::new(Direction::Saving, &[Features::P2P; 2], true).unwrap();
    group.arrive(0, Hook::Freeze, false).unwrap();
    assert_eq!((group.due(), group.gate(0)), (None, Gate::Wait));
    group.arrive(1, Hook::Freeze, false).unwrap();
    assert_eq!((group.due(), group.due()), (Some(Hook::Freeze), None));
    assert_eq!(group.gate(0), Gate::Wait, "the VMM is at it");
    group.done(Hook::Freeze, true);
    assert_eq!((group.gate(0), group.gate(1)), (Gate::Open, Gate::Open));

    group.arrive(0, Hook::Quiesced, false).unwrap();
    group.arrive(1, Hook::Thaw, true).unwrap();
    assert!(group.is_broken());
    assert_eq!((group.due(), group.gate(0), group.gate(1)), (None, Gate::Broken, Gate::Wait));
    group.arrive(0, Hook::Startable, true).unwrap();
    assert_eq!(group.due(), Some(Hook::Startable));
    group.done(Hook::Startable, true);
    group.arrive(0, Hook::Thaw, true).unwrap();
    assert_eq!(group.due(), Some(Hook::Thaw));

    assert!(group.arrive(0, Hook::Freeze, false).is_err(), "there is no way back to it");
    assert!(group.arrive(2, Hook::Thaw, false).is_err(), "there is no such member");
    assert!(group.arrive(0, Hook::RestoreConfig, false).is_err(), "no gate of a group");
}

/// The rate is measured over time and not over a chunk, and no rate gives no downtime.
#[test]
fn progress_needs_time() {
    let mut progress = Progress::default();
    progress.moved(1 << 20, Duration::from_millis(1));
    let left = Status { stop_copy_length: Some(1 << 20), ..Status::NONE };
    assert_eq!((progress.bytes_per_second(), progress.downtime(&left)), (None, None));
    progress.moved(1 << 20, Duration::from_millis(1000));
    assert_eq!(progress.bytes(), 2 << 20);
    assert_eq!(progress.bytes_per_second(), Some(2 << 20));
    assert_eq!(progress.downtime(&left), Some(Duration::from_millis(500)));
    assert_eq!(progress.downtime(&Status::NONE), None, "the device gives no estimate");
    progress.moved(0, Duration::from_millis(2000));
    progress.moved(u64::MAX, Duration::from_millis(2000));
    assert!(progress.bytes_per_second().is_some());
}

/// A destination that does what it should with everything, until it waits for a frame or ends.
fn load_on(loader: &mut Loader<Fd>, device: &mut Dev, payload: &[u8]) -> Step<'static, (), Fd> {
    for _ in 0..100 {
        match loader.step() {
            Step::Do(op) => {
                let op = op.map_fd(|fd| *fd).map(|piece| piece.of(payload));
                let reply = device.apply(op, &mut []).map(|bytes| bytes.len() as u32);
                loader.reply(reply).unwrap();
            }
            Step::Call(_) => loader.called(true).unwrap(),
            Step::Wait(Wait::Run) => loader.event(Event::Run).unwrap(),
            Step::Wait(wait) => return Step::Wait(wait),
            Step::End(verdict) => return Step::End(verdict),
            Step::Send(_) | Step::Decide(_) => panic!("not of a destination"),
        }
    }
    panic!("does not come to rest: {loader:?}");
}

/// V6, V8: what was sent before a discard is gone, and what comes behind it is loaded.
#[test]
fn a_discard_begins_anew() {
    let mut device = Dev::new(Features::ALL, Memory::new());
    let mut loader = Loader::new(LoadPlan::default());
    let data = |epoch, bytes: &[u8]| Frame::Data { epoch, len: bytes.len() as u32 };
    let (half, whole) = (b"P\x09\x09", b"F\x07\x07\x07\x07\x07\x07\x07");
    let frames: [(Frame, &[u8]); 4] = [
        (data(1, half), half),
        (Frame::Discard { epoch: 1 }, b""),
        (data(2, whole), whole),
        (Frame::End { epoch: 2 }, b""),
    ];
    for (frame, payload) in frames {
        assert_eq!(load_on(&mut loader, &mut device, b""), Step::Wait(Wait::Frame));
        loader.frame(frame).unwrap();
        load_on(&mut loader, &mut device, payload);
    }
    let guest = Guest::Intact;
    assert_eq!(load_on(&mut loader, &mut device, b""), Step::End(Verdict::Complete { guest }));
    assert_eq!(device.actions().registers(), &[7; 7]);
    assert_eq!(device.fds().open().count(), 0);
}

/// V7, V8: a reset that succeeds and does not lead to RUNNING leaves a device stuck, at both ends.
#[test]
fn a_reset_that_leads_nowhere_is_no_way_back() {
    let lost = Reply::State(State::Error.into());

    let mut device = Dev::new(Features::ALL, Memory::new());
    let mut loader = Loader::new(LoadPlan::default());
    load_on(&mut loader, &mut device, b"");
    loader.event(Event::Cancel).unwrap();
    assert_eq!(loader.step(), Step::Do(Op::Reset));
    loader.reply(Reply::Ok).unwrap();
    assert_eq!(loader.step(), Step::Do(Op::GetState));
    loader.reply(lost).unwrap();
    let (at, errno, cause) = (Some(State::Error.into()), None, Cause::Cancelled);
    let stuck = Verdict::Stuck { cause, at, errno, guest: Guest::Intact };
    assert_eq!(load_on(&mut loader, &mut device, b""), Step::End(stuck));
    assert!(loader.is_frozen());

    let mut source = live(Features::ALL);
    source.run();
    source.event(Event::Cancel);
    source.run_to(|op| *op == Op::GetState);
    source.saver.step();
    source.saver.reply(lost).unwrap();
    assert_eq!(source.saver.step(), Step::Do(Op::Reset));
    source.saver.reply(Reply::Ok).unwrap();
    source.saver.step();
    source.saver.reply(lost).unwrap();
    let stuck = Verdict::Stuck { cause, at, errno, guest: Guest::LostByUs };
    assert_eq!(source.verdict(), stuck);
}

/// V10: a driver that ends a session and stays in its state leaves nothing to read, and a session
/// that can still be told to give up.
#[test]
fn a_state_without_its_session_is_given_up() {
    let mut source = live(Features::ALL);
    source.run();
    source.event(Event::Switchover);
    source.run_to(|op| matches!(op, Op::Read { .. }));
    // As if the reset had ended the session and nothing else (B48).
    let stays = Reply::State(State::StopCopy.into());
    source.errno = Some(Errno::ENODEV);
    source.step();
    source.saver.step();
    source.saver.reply(stays).unwrap();
    source.decide(Recovery::StopCopy);
    source.run_to(|op| *op == Op::set(State::StopCopy));
    source.saver.step();
    source.saver.reply(Reply::Fd(None)).unwrap();
    source.saver.step();
    source.saver.reply(stays).unwrap();
    let (cause, guest) = (Cause::NoDataFd { to: State::StopCopy }, Guest::ResetByItself);
    assert_eq!(source.verdict(), Verdict::Aborted { cause, guest });
    assert!(source.is_running_and_let_go());
}

/// R36: a guest that is faster than the stream does not keep the VMM from seeing that.
#[test]
fn sizes_are_looked_at_between_reads() {
    let mut source = live(Features::ALL);
    for _ in 0..60 {
        source.device.apply(Op::Touch(9), &mut []);
        assert_eq!(source.step(), None, "there is always more to read");
    }
    let looks = source.ops.iter().filter(|op| matches!(op, Op::PrecopyInfo { .. })).count();
    assert!(looks > 5, "{looks} looks");
    source.event(Event::Switchover);
    assert!(source.verdict().is_complete());
    assert_eq!(loaded(&source.image()), [9; 7]);
}

/// Whether a copy converges is seen against the least that was left, and anew behind a restart.
#[test]
fn convergence_is_seen() {
    let mut progress = Progress::default();
    let mut look = |left: u64| {
        progress.looked(&Status { initial_bytes: left / 2, dirty_bytes: left / 2, ..Status::NONE });
        progress.stalled_looks()
    };
    assert_eq!([100, 60, 80, 60, 40, 40].map(&mut look), [0, 0, 1, 2, 0, 1]);
    progress.restarted();
    progress.looked(&Status { dirty_bytes: 1000, ..Status::NONE });
    assert_eq!(progress.stalled_looks(), 0);
}

#[derive(Clone)]
struct Castagnoli(u32);

impl Crc for Castagnoli {
    fn new() -> Self {
        Self(0)
    }

    fn update(&mut self, bytes: &[u8]) {
        self.0 = crc32c::crc32c_append(self.0, bytes);
    }

    fn value(&self) -> u32 {
        self.0
    }
}

/// A sequence of small decisions; when it is used up, nothing goes wrong any more.
struct Dice<'a>(std::slice::Iter<'a, u8>);

impl Dice<'_> {
    /// True in `n` of 256 cases, and never when all is used up.
    fn hit(&mut self, n: u8) -> bool {
        self.0.next().is_some_and(|&die| die < n)
    }

    fn below(&mut self, n: usize) -> usize {
        self.0.next().map_or(0, |&die| usize::from(die) % n)
    }
}

/// A destination: the session, its device, and the bytes on the way to it.
struct Target {
    loader: Loader<Fd>,
    device: Dev,
    decoder: Decoder<Castagnoli>,
    wire: Vec<u8>,
    payload: Vec<u8>,
    frame: Option<Frame>,
    /// What became of the source, once it is over.
    saved: Option<Verdict>,
    verdict: Option<Verdict>,
}

impl Target {
    fn new(features: Features) -> Self {
        Self {
            loader: Loader::new(LoadPlan { group: features.p2p() }),
            device: Dev::new(features, Memory::new()),
            decoder: Decoder::new(Limits { max_data: 64 }),
            wire: Vec::new(),
            payload: Vec::new(),
            frame: None,
            saved: None,
            verdict: None,
        }
    }

    /// Takes bytes off the wire until there is a frame, or no more bytes.
    fn receive(&mut self) {
        while self.frame.is_none() && self.decoder.needs() > 0 {
            let needs = self.decoder.needs();
            if self.wire.len() < needs {
                return;
            }
            let bytes: Vec<u8> = self.wire.drain(..needs).collect();
            match self.decoder.give(&bytes).unwrap() {
                Some(Item::Frame(frame)) => {
                    self.payload = bytes;
                    self.frame = Some(frame);
                }
                Some(Item::Header(header)) => assert_eq!(header.compat, "memory"),
                None => {}
            }
        }
    }

    fn step(&mut self, dice: &mut Dice<'_>) {
        // The bytes of a frame stay until it is dealt with.
        if self.loader.step() == Step::Wait(Wait::Frame) {
            self.receive();
        }
        match self.loader.step() {
            Step::Do(op) => {
                let payload = self.payload.clone();
                let op = op.map_fd(|fd| *fd).map(|piece| piece.of(&payload));
                let op = match op {
                    Op::Write { fd, bytes } if dice.hit(64) => {
                        Op::Write { fd, bytes: &bytes[..bytes.len().div_ceil(2)] }
                    }
                    Op::SetState { to, .. } if dice.hit(8) => {
                        let leaves = [Leaves::Source, Leaves::Error][dice.below(2)];
                        let fault = Fault::ArcFails { hop: 0, errno: Errno::EIO, leaves };
                        Op::SetState { to, fault: Some(fault) }
                    }
                    op => op,
                };
                let blocks = matches!(op, Op::Write { .. }) && dice.hit(16);
                let reply = match blocks {
                    true => Reply::Errno(Errno::EAGAIN),
                    false => self.device.apply(op, &mut []).map(|bytes| bytes.len() as u32),
                };
                self.loader.reply(reply).unwrap();
            }
            Step::Call(_) => self.loader.called(!dice.hit(4)).unwrap(),
            Step::Wait(Wait::Frame) => match self.frame.take() {
                Some(frame) => self.loader.frame(frame).unwrap(),
                None if self.saved.is_some() => self.loader.event(Event::PeerLost).unwrap(),
                None => {}
            },
            // Only one of the two may run the guest.
            Step::Wait(Wait::Run) => match self.saved {
                Some(saved) if saved.is_complete() => self.loader.event(Event::Run).unwrap(),
                Some(_) => self.loader.event(Event::PeerLost).unwrap(),
                None => {}
            },
            Step::Wait(_) => self.loader.event(Event::Tick).unwrap(),
            Step::End(verdict) => self.verdict = Some(verdict),
            Step::Send(_) | Step::Decide(_) => panic!("not of a destination"),
        }
        if dice.hit(2) {
            self.loader.event(Event::Cancel).unwrap();
        }
        // The host, but only while a reset can still be seen (V9).
        if self.loader.at() != Some(State::Running) && self.frame.is_some() && dice.hit(2) {
            self.device.apply(Op::Reset, &mut []);
        }
    }
}

/// What really happened at the source.
#[derive(Default)]
struct Truth {
    reset: bool,
    own_reset: bool,
    /// The registers when the device last went to STOP_COPY.
    stopped_with: Option<[u8; 7]>,
}

struct Run<'a> {
    source: Source,
    target: Target,
    encoder: Encoder<Castagnoli>,
    shipped: usize,
    truth: Truth,
    dice: Dice<'a>,
}

impl<'a> Run<'a> {
    fn new(features: Features, plan: Plan, dice: &'a [u8]) -> Self {
        let mut target = Target::new(features);
        let (encoder, header) = Encoder::new(64, "memory").unwrap();
        target.wire.extend_from_slice(&header);
        let dice = Dice(dice.iter());
        let source = Source::new(features, plan);
        Self { source, target, encoder, shipped: 0, truth: Truth::default(), dice }
    }

    /// One step of the source, with what may go wrong around it.
    fn save(&mut self) -> Option<Verdict> {
        let (source, dice) = (&mut self.source, &mut self.dice);
        let frozen = source.halted;
        if !frozen && dice.hit(24) {
            source.device.apply(Op::Touch(dice.below(250) as u8 + 1), &mut []);
        }
        // The guest while it runs; the host, rarely, whatever the VMM holds back.
        if dice.hit(if frozen { 2 } else { 12 }) {
            source.reset();
            self.truth.reset = true;
        }
        if dice.hit(3) {
            source.event(Event::Cancel);
        }
        let next_is_set = {
            let mut saver = source.saver;
            matches!(saver.step(), Step::Do(Op::SetState { .. }))
        };
        if next_is_set && dice.hit(12) {
            let leaves = [Leaves::Source, Leaves::Error][dice.below(2)];
            let arc = Fault::ArcFails { hop: dice.below(3) as u8, errno: Errno::EIO, leaves };
            let fault = [arc, Fault::ResetInside, Fault::FdTableFull][dice.below(3)];
            self.truth.reset |= fault == Fault::ResetInside;
            source.fault = Some(fault);
        }
        let ops = source.ops.len();
        let rests = source.step();
        if let Some(Op::Reset) = source.ops.get(ops) {
            self.truth.own_reset = true;
        }
        if source.ops.get(ops) == Some(&Op::set(State::StopCopy))
            || matches!(source.ops.get(ops), Some(Op::SetState { to, .. }) if *to == State::StopCopy.into())
        {
            self.truth.stopped_with = Some(*source.device.actions().registers());
        }
        match rests {
            Some(Step::End(verdict)) => return Some(verdict),
            Some(Step::Decide(_)) => {
                let all = [Recovery::Restart, Recovery::StopCopy, Recovery::Abort];
                source.saver.decide(all[dice.below(3)]).unwrap();
            }
            Some(Step::Wait(_)) => {
                let event = if dice.hit(128) { Event::Tick } else { Event::Switchover };
                source.event(event);
            }
            _ => {}
        }
        None
    }

    /// Puts new frames on the wire.
    fn ship(&mut self) {
        for (frame, bytes) in &self.source.sent[self.shipped..] {
            self.target.wire.extend_from_slice(&self.encoder.frame(*frame, bytes).unwrap());
            self.target.wire.extend_from_slice(bytes);
        }
        self.shipped = self.source.sent.len();
    }

    /// Until both ends are over.
    fn to_the_end(&mut self) -> Result<(Verdict, Verdict), TestCaseError> {
        for _ in 0..20_000 {
            if self.target.saved.is_none() {
                self.target.saved = self.save();
            }
            self.ship();
            if self.target.verdict.is_none() {
                self.target.step(&mut self.dice);
            }
            if let (Some(saved), Some(loaded)) = (self.target.saved, self.target.verdict) {
                return Ok((saved, loaded));
            }
        }
        Err(TestCaseError::fail(format!("no end: {:?}", self.source.saver)))
    }
}

fn plans() -> impl Strategy<Value = Plan> {
    (any::<bool>(), 0_u16..4, 1_u32..20, any::<bool>()).prop_map(
        |(pre_copy, restarts, chunk, back)| {
            let then = if back { Then::Back } else { Then::Stop };
            Plan { pre_copy, restarts, chunk, then, ..Plan::LIVE }
        },
    )
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 4096, failure_persistence: None, ..ProptestConfig::default() })]

    /// V2, V6, V7, V8, V10, R11: whatever goes wrong, both ends come to an end; a destination that
    /// runs has what the source had when it stopped; a source that gave up runs with its own device;
    /// and the word on the guest is true.
    #[test]
    fn migrations_end_well_or_loudly(
        set in 0_usize..4,
        plan in plans(),
        dice in prop::collection::vec(any::<u8>(), 0..400),
    ) {
        let features = Features::SETS[set];
        let mut run = Run::new(features, plan, &dice);
        let (saved, loaded) = run.to_the_end()?;
        let Run { source, target, truth, .. } = run;

        let ended = source.sent.iter().any(|(frame, _)| matches!(frame, Frame::End { .. }));
        if loaded.is_complete() {
            prop_assert!(saved.is_complete(), "both run");
            prop_assert_eq!(Some(*target.device.actions().registers()), truth.stopped_with);
            prop_assert_eq!(target.device.fsm().state(), State::Running);
        } else if let Verdict::Aborted { .. } = loaded {
            prop_assert_eq!(target.device.fsm().state(), State::Running);
            prop_assert!(target.device.fsm().session().is_none());
        }
        prop_assert!(!saved.is_complete() || ended);
        match saved {
            Verdict::Aborted { .. } => prop_assert!(source.is_running_and_let_go()),
            Verdict::Complete { .. } => {
                prop_assert_eq!(source.halted, plan.then == Then::Stop);
            }
            Verdict::Stuck { .. } => prop_assert!(false, "no reset was refused: {saved}"),
        }
        match saved.guest() {
            Guest::Intact => prop_assert!(!truth.own_reset),
            Guest::ResetByItself => prop_assert!(truth.reset && !truth.own_reset),
            Guest::LostByUs => prop_assert!(truth.own_reset),
        }
        prop_assert_eq!(source.device.fds().open().count(), 0);
        prop_assert_eq!(target.device.fds().open().count(), 0);
    }
}
