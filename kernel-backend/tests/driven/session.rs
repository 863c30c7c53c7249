// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! Whole sessions over devices that the kernel has, as far as this process can tell.

use std::fs::OpenOptions;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};

use nix::libc;
use vfio_bindings::bindings::vfio::vfio_device_bind_iommufd;
use vfio_fsm_core::vmm::frame::Limits;
use vfio_fsm_core::vmm::{
    Cause, Decision, Event, Evidence, Guest, Hook, LoadPlan, Plan, Port, Recovery, Status, Then,
    Verdict,
};
use vfio_fsm_core::{EndOfStream, Errno, Features, Op, RawState, Reply, State};
use vfio_fsm_kernel::session::{
    Interest, Loading, Observer, Outcome, Saving, Session, Standing, Vmm,
};
use vfio_fsm_kernel::{Anomaly, DevicePort, KernelDevice};

use crate::double::{begin_with, fd_table_is_mine, fd_table_stays_open, world};
use crate::open::Sysfs;

const COMPAT: &str = "one byte";
const LIMITS: Limits = Limits { max_data: 64 };

/// Small chunks, so that there are several.
const fn plan() -> Plan {
    Plan { chunk: 3, ..Plan::LIVE }
}

/// Does its part at once, and writes down what that was.
struct Script {
    hooks: Vec<Hook>,
    evidence: Vec<Evidence>,
    recovery: Recovery,
    waits: usize,
}

impl Script {
    fn new(recovery: Recovery) -> Self {
        Self { hooks: Vec::new(), evidence: Vec::new(), recovery, waits: 0 }
    }
}

impl Vmm for Script {
    fn hook(&mut self, hook: Hook) -> bool {
        self.hooks.push(hook);
        true
    }

    fn decide(&mut self, decision: &Decision) -> Recovery {
        self.evidence.push(decision.evidence);
        self.recovery
    }

    fn wait(&mut self, interest: &Interest, standing: &Standing) -> Option<Event> {
        self.waits += 1;
        assert!(self.waits < 1000, "comes to no end");
        match interest {
            Interest::Switchover => standing.left.ready.then_some(Event::Switchover),
            Interest::Run => Some(Event::Run),
            _ => None,
        }
    }
}

/// What may go wrong between two steps, or in one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Reset {
    Never,
    /// Before the n-th op.
    Before(usize),
    /// Inside the n-th op, which is a SET.
    Inside(usize),
}

/// Brings resets about, and sees to what a session must never do.
struct Watch {
    reset: Reset,
    ops: usize,
    happened: bool,
    /// The op that found the end of the image.
    read_all: usize,
}

impl Watch {
    const fn new(reset: Reset) -> Self {
        Self { reset, ops: 0, happened: false, read_all: 0 }
    }
}

impl Observer for Watch {
    fn before(&mut self, op: &Op<&[u8]>) {
        let before = self.reset == Reset::Before(self.ops);
        let inside = self.reset == Reset::Inside(self.ops) && matches!(op, Op::SetState { .. });
        if before {
            world(|world| world.guest_resets());
        }
        if inside {
            world(|world| world.quirks.reset_inside = true);
        }
        self.happened |= before || inside;
    }

    fn after(&mut self, op: &Op<&[u8]>, reply: &Reply<&[u8]>) {
        if *reply == Reply::EndOfStream(EndOfStream::Permanent) {
            self.read_all = self.ops;
        }
        self.ops += 1;
        let refused = [Reply::Errno(Errno::EINVAL), Reply::Errno(Errno::EBADF)];
        let info = matches!(op, Op::PrecopyInfo { .. }); // EINVAL is how it tells of a reset, too.
        assert!(info || !refused.contains(reply), "{op} is refused");
    }
}

fn save<P: Port<Fd: Clone>>(
    plan: Plan,
    port: P,
    vmm: &mut Script,
    reset: Reset,
) -> (Outcome, Vec<u8>, Watch) {
    let mut stream = Vec::new();
    let saving = Saving::new(plan, COMPAT, port, &mut stream).unwrap();
    let mut saving = saving.observed(Watch::new(reset));
    let outcome = saving.run(vmm);
    let watch = std::mem::replace(saving.observer(), Watch::new(Reset::Never));
    drop(saving);
    (outcome, stream, watch)
}

fn load<P: Port<Fd: Clone>>(
    port: P,
    stream: &[u8],
    vmm: &mut Script,
    reset: Reset,
) -> (Outcome, usize) {
    let accepts = |compat: &str| compat == COMPAT;
    let loading = Loading::new(LoadPlan::default(), LIMITS, accepts, port, stream);
    let mut loading = loading.observed(Watch::new(reset));
    (loading.run(vmm), loading.observer().ops)
}

const COMPLETE: Verdict = Verdict::Complete { guest: Guest::Intact };

/// R10: the device is there, and no data_fd is open.
fn ends(state: State) {
    assert_eq!(world(|world| (world.state(), world.open_data_fds())), (state, 0));
}

/// From now on there is this device in this world, and here is its fd.
fn device(features: Features, value: u8) -> OwnedFd {
    begin_with(features, value);
    world(|world| world.open_device())
}

/// V6, R10: an unmodified VfioDevice is saved and loaded, and stays its owner's.
#[test]
fn a_vmms_own_vfio_device_moves() {
    let _guard = fd_table_stays_open();
    let sysfs = Sysfs::new();
    for features in Features::SETS {
        begin_with(features, 0x5a);
        let theirs = sysfs.vfio_device();
        let mut vmm = Script::new(Recovery::Abort);
        let port = DevicePort::of(&theirs).unwrap();
        let (outcome, stream, _) = save(plan(), port, &mut vmm, Reset::Never);
        assert_eq!(outcome.verdict, COMPLETE, "{features}");
        assert_eq!(vmm.hooks, [Hook::Freeze]);
        ends(State::Stop);
        assert_eq!(theirs.get_migration_state().unwrap(), State::Stop.number());
        drop(theirs);

        begin_with(features, 0);
        let theirs = sysfs.vfio_device();
        let mut vmm = Script::new(Recovery::Abort);
        let (outcome, _) = load(DevicePort::of(&theirs).unwrap(), &stream, &mut vmm, Reset::Never);
        assert_eq!(outcome.verdict, COMPLETE, "{features}");
        let rest = [Hook::Freeze, Hook::RestoreConfig, Hook::RestoreInterrupts, Hook::Thaw];
        let initial = [Hook::Freeze, Hook::InitialBytesLoaded];
        let hooks =
            if features.pre_copy() { [&initial[..], &rest[1..]].concat() } else { rest.into() };
        assert_eq!(vmm.hooks, hooks);
        ends(State::Running);
        assert_eq!(world(|world| world.value()), 0x5a);
        assert_eq!(outcome.standing.progress.bytes() as usize, payload(&stream));
    }
}

/// The bytes of a device in a stream of one epoch.
fn payload(stream: &[u8]) -> usize {
    let end = stream.len() - 8;
    u64::from_le_bytes(stream[end..].try_into().unwrap()) as usize
}

/// R10: one that is a cdev moves just as well, and so does a `KernelDevice`.
#[test]
fn a_cdev_and_a_kernel_device_move() {
    let _guard = fd_table_stays_open();
    begin_with(Features::ALL, 0x77);
    let cdev = bound_cdev();
    let mut vmm = Script::new(Recovery::Abort);
    let (outcome, stream, _) = save(plan(), DevicePort::new(cdev.as_fd()), &mut vmm, Reset::Never);
    assert_eq!(outcome.verdict, COMPLETE);
    ends(State::Stop);
    drop(cdev);

    begin_with(Features::ALL, 0);
    let port = KernelDevice::open(&"/dev/vfio/devices/vfio3".parse().unwrap()).unwrap();
    let (outcome, _) = load(port, &stream, &mut Script::new(Recovery::Abort), Reset::Never);
    assert_eq!(outcome.verdict, COMPLETE);
    assert_eq!(world(|world| (world.value(), world.open_data_fds())), (0x77, 0));
}

#[expect(unsafe_code, reason = "what a VMM does by way of vfio-ioctls' vfio_cdev, which needs KVM")]
fn bound_cdev() -> OwnedFd {
    let open = |path| OpenOptions::new().read(true).write(true).open(path).unwrap();
    let (cdev, iommufd) = (open("/dev/vfio/devices/vfio3"), open("/dev/iommu"));
    let argsz = size_of::<vfio_device_bind_iommufd>() as u32;
    let iommufd = iommufd.as_raw_fd();
    let mut bind = vfio_device_bind_iommufd { argsz, iommufd, ..Default::default() };
    // SAFETY: the structure is what this number takes.
    assert_eq!(unsafe { libc::ioctl(cdev.as_raw_fd(), 0x3b76, &raw mut bind) }, 0);
    cdev.into()
}

/// V1, V2, V3, V5, V6, V7, R10: a reset before any op and in any SET, whatever the VMM chooses
/// then: an image that is complete is that of the device as it was left, and one that was given up
/// leaves the device running.
#[test]
fn a_reset_anywhere_at_the_source() {
    let _guard = fd_table_stays_open();
    let (mut seen, mut completed) = (Vec::new(), 0);
    for features in Features::SETS {
        for recovery in [Recovery::Abort, Recovery::Restart, Recovery::StopCopy] {
            for group in [false, true] {
                let plan = Plan { group, ..plan() };
                let port = DevicePort::new(device(features, 0));
                let mut vmm = Script::new(recovery);
                let (_, _, Watch { ops, .. }) = save(plan, port, &mut vmm, Reset::Never);
                for at in 0..ops {
                    for reset in [Reset::Before(at), Reset::Inside(at)] {
                        let what = format!("{features}, {recovery}, {reset:?}");
                        let device = device(features, 0x5a);
                        let mut vmm = Script::new(recovery);
                        let port = DevicePort::new(device.as_fd());
                        let (outcome, stream, watch) = save(plan, port, &mut vmm, reset);
                        seen.extend(vmm.evidence);
                        completed += usize::from(outcome.verdict.is_complete());
                        // Behind the last byte, a reset is one of the device that was saved.
                        let before = watch.happened && at <= watch.read_all;
                        let saved = outcome.verdict.is_complete() && !before;
                        let value = if saved { 0x5a } else { 0 };
                        // Between the last look and the closing of the data_fd.
                        let unseen = watch.happened && at + 1 == watch.ops;
                        let complete = outcome.verdict.is_complete() && !unseen;
                        ends(if complete { State::Stop } else { State::Running });
                        check(&outcome, &stream, features, value, &what);
                    }
                }
            }
        }
    }
    assert!(seen.iter().any(|e| matches!(e, Evidence::DeadFd { .. })));
    assert!(seen.iter().any(|e| matches!(e, Evidence::UnexpectedFd { .. })));
    assert!(seen.iter().any(|e| matches!(e, Evidence::DeferredIntoSet { .. })));
    assert!(completed > 100, "{completed}");
}

/// What must hold at the end of any session at the source, and of one that loads its stream.
fn check(outcome: &Outcome, stream: &[u8], features: Features, value: u8, what: &str) {
    assert!(outcome.error.is_none(), "{what}: {outcome:?}");
    assert!(!matches!(outcome.verdict, Verdict::Stuck { .. }), "{what}: {outcome:?}");
    assert!(!outcome.standing.aborting || !outcome.verdict.is_complete(), "{what}");
    let blank = device(features, 0);
    let port = DevicePort::new(blank.as_fd());
    let mut written = Written(Vec::new());
    let accepts = |compat: &str| compat == COMPAT;
    let loading = Loading::new(LoadPlan::default(), LIMITS, accepts, port, stream);
    let loaded = loading.observed(&mut written).run(&mut Script::new(Recovery::Abort));
    assert_eq!(loaded.verdict.is_complete(), outcome.verdict.is_complete(), "{what}: {loaded:?}");
    ends(State::Running);
    assert_eq!(world(|world| world.value()), value, "{what}");
    if loaded.verdict.is_complete() {
        assert!(written.0.iter().all(|&byte| byte == value), "{what}: mixed in {:?}", written.0);
    }
}

/// What went to a device since it was last blank.
struct Written(Vec<u8>);

impl Observer for Written {
    fn after(&mut self, op: &Op<&[u8]>, reply: &Reply<&[u8]>) {
        match (op, reply) {
            (Op::Reset, _) => self.0.clear(),
            (Op::Write { bytes, .. }, Reply::Written(taken)) => {
                self.0.extend_from_slice(&bytes[..*taken as usize]);
            }
            _ => {}
        }
    }
}

/// V1, V2, V5, V8, R10: at the destination a reset is seen, too, and the way back ends in a blank
/// device; but for the moment of the SET that starts it, which leaves nothing to see.
#[test]
fn a_reset_anywhere_at_the_destination() {
    let _guard = fd_table_stays_open();
    let port = DevicePort::new(device(Features::ALL, 0x5a));
    let (_, stream, _) = save(plan(), port, &mut Script::new(Recovery::Abort), Reset::Never);
    let port = DevicePort::new(device(Features::ALL, 0));
    let (_, ops) = load(port, &stream, &mut Script::new(Recovery::Abort), Reset::Never);
    // The SET, the GET behind it, and the closing of the data_fd.
    let start = ops - 3;
    let mut evidence = Vec::new();
    for at in 0..ops {
        for reset in [Reset::Before(at), Reset::Inside(at)] {
            let blank = device(Features::ALL, 0);
            let port = DevicePort::new(blank.as_fd());
            let (outcome, _) = load(port, &stream, &mut Script::new(Recovery::Abort), reset);
            ends(State::Running);
            evidence.extend(outcome.standing.evidence);
            let value = world(|world| world.value());
            match outcome.verdict {
                Verdict::Complete { .. } => assert!(value == 0x5a || at >= start, "{reset:?}"),
                Verdict::Aborted { cause, guest: Guest::Intact } => {
                    assert!(matches!(cause, Cause::Reset(_)), "{reset:?}: {cause}");
                    assert_eq!(value, 0);
                }
                other => panic!("{reset:?}: {other}"),
            }
        }
    }
    assert!(evidence.iter().any(|e| matches!(e, Evidence::DeadFd { op: "write", .. })));
    assert!(evidence.iter().any(|e| matches!(e, Evidence::AlreadyRunning { .. })));
}

/// The reset that the VMM orders goes through the session, and is refused where it would spoil the
/// image (V4).
#[test]
fn the_vmms_own_reset() {
    struct Orders {
        script: Script,
        refused: usize,
    }
    impl Vmm for Orders {
        fn hook(&mut self, hook: Hook) -> bool {
            self.script.hook(hook)
        }
        fn decide(&mut self, decision: &Decision) -> Recovery {
            self.script.decide(decision)
        }
        fn event(&mut self, standing: &Standing) -> Option<Event> {
            let once = self.script.evidence.is_empty() || standing.frozen;
            (once && standing.at.is_some_and(|at| at.is_saving())).then_some(Event::Reset)
        }
        fn wait(&mut self, interest: &Interest, standing: &Standing) -> Option<Event> {
            self.script.wait(interest, standing)
        }
        fn reset_refused(&mut self, refused: vfio_fsm_core::vmm::ResetRefused) {
            assert!(refused.to_string().contains("frozen"), "{refused}");
            self.refused += 1;
        }
    }
    let _guard = fd_table_stays_open();
    let device = device(Features::ALL, 0);
    let port = DevicePort::new(device.as_fd());
    let mut vmm = Orders { script: Script::new(Recovery::Restart), refused: 0 };
    let outcome = Saving::new(plan(), COMPAT, port, Vec::new()).unwrap().run(&mut vmm);
    assert_eq!(outcome.verdict, Verdict::Complete { guest: Guest::ResetByItself });
    assert_eq!(vmm.script.evidence, [Evidence::Ordered]);
    assert_eq!(world(|world| world.resets), 1);
    assert!(vmm.refused > 2, "{}", vmm.refused);
    ends(State::Stop);
}

/// One that is complete can be taken back, when the destination has failed.
#[test]
fn a_complete_session_is_taken_back() {
    let _guard = fd_table_stays_open();
    let mut vmm = Script::new(Recovery::Abort);
    let device = device(Features::ALL, 0);
    let port = DevicePort::new(device.as_fd());
    let mut saving = Saving::new(plan(), COMPAT, port, Vec::new()).unwrap();
    assert_eq!(saving.run(&mut vmm).verdict, COMPLETE);
    ends(State::Stop);
    saving.event(Event::Cancel).unwrap();
    let verdict = saving.run(&mut vmm).verdict;
    assert_eq!(verdict, Verdict::Aborted { cause: Cause::Cancelled, guest: Guest::Intact });
    assert_eq!(vmm.hooks, [Hook::Freeze, Hook::Thaw]);
    ends(State::Running);
}

/// R10: a session that is dropped halfway holds no data_fd either.
#[test]
fn one_that_is_dropped_closes_its_data_fd() {
    let _guard = fd_table_stays_open();
    let device = device(Features::ALL, 0);
    let port = DevicePort::new(device.as_fd());
    let mut saving = Saving::new(plan(), COMPAT, port, Vec::new()).unwrap();
    while saving.data_fd().is_none() {
        assert_eq!(saving.step(), Interest::Now);
    }
    assert_eq!(world(|world| world.open_data_fds()), 1);
    drop(saving);
    ends(State::PreCopy);
}

/// What blocks is waited for, what a signal interrupts is done again, and in both cases the VMM is
/// asked in between.
#[test]
fn a_data_fd_that_is_not_ready() {
    struct Busy(i32, bool);
    impl Observer for Busy {
        fn before(&mut self, op: &Op<&[u8]>) {
            self.1 = !self.1 && matches!(op, Op::Read { .. } | Op::Write { .. });
            let errno = self.1.then_some(self.0);
            world(|world| (world.quirks.read, world.quirks.write) = (errno, errno));
        }
    }
    struct Counts(Script, usize);
    impl Vmm for Counts {
        fn hook(&mut self, hook: Hook) -> bool {
            self.0.hook(hook)
        }
        fn wait(&mut self, interest: &Interest, standing: &Standing) -> Option<Event> {
            self.1 += usize::from(*interest == Interest::DataFd);
            self.0.wait(interest, standing)
        }
    }
    let _guard = fd_table_stays_open();
    for errno in [libc::EAGAIN, libc::EINTR] {
        let port = DevicePort::new(device(Features::ALL, 0x42));
        let mut stream = Vec::new();
        let saving = Saving::new(plan(), COMPAT, port, &mut stream).unwrap();
        let mut vmm = Counts(Script::new(Recovery::Abort), 0);
        let outcome = saving.observed(Busy(errno, false)).run(&mut vmm);
        assert_eq!(outcome.verdict, COMPLETE);
        assert!(vmm.1 >= 4, "{}", vmm.1);

        let blank = device(Features::ALL, 0);
        let port = DevicePort::new(blank.as_fd());
        let accepts = |compat: &str| compat == COMPAT;
        let loading = Loading::new(LoadPlan::default(), LIMITS, accepts, port, &stream[..]);
        let mut vmm = Counts(Script::new(Recovery::Abort), 0);
        let outcome = loading.observed(Busy(errno, false)).run(&mut vmm);
        assert_eq!(outcome.verdict, COMPLETE);
        assert!(vmm.1 >= 4, "{}", vmm.1);
        ends(State::Running);
        assert_eq!(world(|world| world.value()), 0x42);
    }
}

/// An errno of the driver reaches the verdict with its number.
#[test]
fn no_errno_is_lost() {
    struct Fails;
    impl Observer for Fails {
        fn before(&mut self, op: &Op<&[u8]>) {
            let errno = matches!(op, Op::Read { .. }).then_some(524);
            world(|world| world.quirks.read = errno);
        }
    }
    let _guard = fd_table_stays_open();
    let device = device(Features::ALL, 0);
    let port = DevicePort::new(device.as_fd());
    let saving = Saving::new(plan(), COMPAT, port, Vec::new()).unwrap();
    let verdict = saving.observed(Fails).run(&mut Script::new(Recovery::Abort)).verdict;
    let cause = Cause::Io { op: "read", errno: Errno(524) };
    assert_eq!(verdict, Verdict::Aborted { cause, guest: Guest::Intact });
    ends(State::Running);
}

/// Without a data_fd that is ready an event loop watches it, so it must not block.
#[test]
fn non_blocking_data_fds() {
    let _guard = fd_table_stays_open();
    for non_blocking in [false, true] {
        let mut port = DevicePort::new(device(Features::ALL, 0));
        if non_blocking {
            port = port.non_blocking();
        }
        let reply = port.apply(Op::set(State::PreCopy), &mut []);
        assert!(matches!(reply, Reply::Fd(Some(_))));
        assert_eq!(world(|world| world.non_blocking()), usize::from(non_blocking));
    }
}

/// V2: numbers that the kernel makes up are told from new data_fds, and are left alone.
#[test]
fn a_number_that_is_no_new_data_fd() {
    let _guard = fd_table_is_mine(); // Numbers of closed fds are to come again.
    let mut port = DevicePort::new(device(Features::ALL, 0));
    let Reply::Fd(Some(first)) = port.apply(Op::set(State::PreCopy), &mut []) else { panic!() };
    let device = world(|world| (0..256).find(|fd| world.is_the_users(*fd)).unwrap());
    for number in [first.as_raw_fd(), device, -7, 9999] {
        world(|world| world.quirks.data_fd_of_set = Some(number));
        let reply = port.apply(Op::set(State::StopCopy), &mut []);
        assert!(matches!(reply, Reply::Errno(Errno::EBADF)), "{number}");
        assert_eq!(port.take_anomalies(), [Anomaly::NotANewFd { data_fd: number }]);
    }
    world(|world| world.quirks.data_fd_of_set = None);
    // Once it is closed, its number may come again.
    let number = first.as_raw_fd();
    drop(first);
    assert!(matches!(port.apply(Op::set(State::Running), &mut []), Reply::Fd(None)));
    let Reply::Fd(Some(second)) = port.apply(Op::set(State::PreCopy), &mut []) else { panic!() };
    assert_eq!(second.as_raw_fd(), number);
    assert_eq!(port.anomalies(), []);
}

/// What a kernel must not do shows at a port as it does at a `KernelDevice`.
#[test]
fn anomalies_show() {
    let _guard = fd_table_stays_open();
    let mut port = DevicePort::new(device(Features::ALL, 0));
    world(|world| world.quirks.failed_set = Some((RawState(4), 7)));
    let refused = port.apply(Op::set(RawState(8)), &mut []);
    assert!(matches!(refused, Reply::Errno(Errno::EINVAL)));
    let (asked, device_state) = (RawState(8), RawState(4));
    let failed = Anomaly::FailedSet { asked, device_state, data_fd: 7 };
    assert_eq!(port.take_anomalies(), [failed]);
    assert!(matches!(port.apply(Op::Touch(1), &mut []), Reply::Errno(Errno::EOPNOTSUPP)));
}

/// A snapshot goes back to where the device was, and says what was in it.
#[test]
fn a_snapshot() {
    let _guard = fd_table_stays_open();
    let device = device(Features::P2P, 9);
    let port = DevicePort::new(device.as_fd());
    let plan = Plan { chunk: 4, ..Plan::SNAPSHOT };
    assert_eq!(plan.then, Then::Back);
    let mut vmm = Script::new(Recovery::Abort);
    let (outcome, stream, _) = save(plan, port, &mut vmm, Reset::Never);
    assert_eq!(outcome.verdict, COMPLETE);
    assert_eq!(vmm.hooks, [Hook::Freeze, Hook::Thaw]);
    assert_eq!(
        outcome.standing.left,
        Status { ready: true, stop_copy_length: Some(6), ..Status::NONE }
    );
    assert_eq!(payload(&stream), 6);
    ends(State::Running);
}

/// A VMM that has stopped the device and the guest itself gets both back like that.
#[test]
fn a_device_that_the_vmm_has_stopped() {
    let _guard = fd_table_stays_open();
    for (then, state) in [(Then::Stop, State::Stop), (Then::Back, State::Stop)] {
        let device = device(Features::ALL, 9);
        let mut port = DevicePort::new(device.as_fd());
        assert!(matches!(port.apply(Op::set(State::Stop), &mut []), Reply::Fd(None)));
        let mut vmm = Script::new(Recovery::Abort);
        let plan = Plan { paused: true, then, ..plan() };
        let (outcome, stream, _) = save(plan, port, &mut vmm, Reset::Never);
        assert_eq!(outcome.verdict, COMPLETE);
        assert_eq!(vmm.hooks, []);
        assert_eq!(payload(&stream), 6);
        ends(state);
    }
}
