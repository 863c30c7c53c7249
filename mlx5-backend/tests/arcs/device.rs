// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! The device that threads share: who waits, and what wakes him.

use std::sync::Arc;
use std::thread;

use vfio_fsm_core::{Errno, Fault, Fd, Features, Leaves, Op, Reply, State};
use vfio_fsm_mlx5::device::{Function, Mlx5Device};
use vfio_fsm_mlx5::stream::{self, STOP_COPY_SIZE_BYTES};

use crate::double::Double;

type Device = Mlx5Device<Double, Reset>;

/// What a function level reset does, and the guest's touches. It can be made to fail.
struct Reset(Arc<Double>);

impl Function for Reset {
    fn reset(&self) -> Result<(), Errno> {
        let mut state = self.0.state();
        if std::mem::take(&mut state.reset_fails) {
            return Err(Errno::EIO);
        }
        (state.initiator, state.responder, state.tracked) = (false, false, false);
        state.resets += 1;
        drop(state);
        self.0.let_go();
        Ok(())
    }

    fn touch(&self, value: u8) -> Result<(), Errno> {
        self.0.state().value = value;
        Ok(())
    }
}

fn device() -> (Arc<Double>, Arc<Device>) {
    let double = Double::new(false);
    let device = Mlx5Device::new(Features::ALL, double.vhca(), Reset(double.clone()));
    (double, Arc::new(device))
}

fn apply(device: &Device, op: Op<&[u8]>) -> Reply<Vec<u8>> {
    device.apply(op, &mut vec![0; 1 << 16]).map(<[u8]>::to_vec)
}

/// In this state, with its first SAVE on its way and nothing else to read.
fn waiting(to: State) -> (Arc<Double>, Arc<Device>, Fd) {
    let (double, device) = device();
    double.state().hold = true;
    let Reply::Fd(Some(fd)) = apply(&device, Op::set(to)) else { panic!() };
    let len = STOP_COPY_SIZE_BYTES as u32;
    assert!(matches!(apply(&device, Op::Read { fd, len }), Reply::Bytes(_)));
    (double, device, fd)
}

fn state(device: &Device) -> State {
    let Reply::State(state) = apply(device, Op::GetState) else { panic!() };
    state.known().unwrap()
}

/// Whether the double and the device agree on what is suspended.
fn agree(double: &Double, device: &Device) -> bool {
    let halted = match state(device) {
        State::Running | State::PreCopy => (false, false),
        State::RunningP2p | State::PreCopyP2p => (true, false),
        _ => (true, true),
    };
    let state = double.state();
    (state.initiator, state.responder) == halted
}

/// M71: a read waits for the SAVE that it needs, without keeping others from the device; a read that
/// may not wait is EAGAIN.
#[test]
fn a_read_waits_for_its_save() {
    let (double, device, fd) = waiting(State::PreCopy);
    let read = Op::Read { fd, len: 64 };
    let at_once = device.non_blocking().apply(read, &mut [0; 64]).map(<[u8]>::to_vec);
    assert_eq!(at_once, Reply::Errno(Errno::EAGAIN));
    let poll = apply(&device, Op::Poll { fd });
    assert!(matches!(poll, Reply::Ready(ready) if !ready.readable && !ready.hangup));
    let reader = thread::spawn({
        let device = device.clone();
        move || apply(&device, read)
    });
    // Whether the reader waits by now or not: this does not wait for him.
    assert_eq!(state(&device), State::PreCopy);
    double.let_go();
    assert!(matches!(reader.join().unwrap(), Reply::Bytes(bytes) if bytes.len() == 64));
    let poll = apply(&device, Op::Poll { fd });
    assert!(matches!(poll, Reply::Ready(ready) if ready.readable));
}

/// M71, R31, C27: poll in STOP_COPY says readable even while a read would wait, as the uAPI wants, and
/// a read that may not wait is EAGAIN even so.
#[test]
fn stop_copy_is_always_readable() {
    let (double, device, fd) = waiting(State::StopCopy);
    let poll = apply(&device, Op::Poll { fd });
    assert!(matches!(poll, Reply::Ready(ready) if ready.readable));
    let at_once =
        device.non_blocking().apply(Op::Read { fd, len: 64 }, &mut [0; 64]).map(<[u8]>::to_vec);
    assert_eq!(at_once, Reply::Errno(Errno::EAGAIN));
    double.let_go();
}

/// M71, C30: a reset wakes a reader, whose data_fd is dead.
#[test]
fn a_reset_wakes_the_reader() {
    let (_double, device, fd) = waiting(State::PreCopy);
    let reader = thread::spawn({
        let device = device.clone();
        move || apply(&device, Op::Read { fd, len: 64 })
    });
    assert_eq!(apply(&device, Op::Reset), Reply::Ok);
    assert_eq!(reader.join().unwrap(), Reply::Errno(Errno::ENODEV));
    assert_eq!(state(&device), State::Running);
    let poll = apply(&device, Op::Poll { fd });
    assert!(matches!(poll, Reply::Ready(ready) if ready.readable && ready.hangup));
}

/// M72, C32: a reset inside a SET comes behind its commands: the SET succeeds, and its device runs,
/// whatever the commands suspended behind the reset of the function.
#[test]
fn a_reset_inside_a_set_leaves_nothing_suspended() {
    let targets =
        [State::Stop, State::RunningP2p, State::PreCopy, State::StopCopy, State::Resuming];
    for to in targets {
        let (double, device) = device();
        let fault = Some(Fault::ResetInside);
        let reply = apply(&device, Op::SetState { to: to.into(), fault });
        assert!(matches!(reply, Reply::Fd(_)), "{to}: {reply:?}");
        assert_eq!(state(&device), State::Running, "{to}");
        assert!(agree(&double, &device), "{to}");
        if let Reply::Fd(Some(fd)) = reply {
            let dead = if to == State::Resuming {
                apply(&device, Op::Write { fd, bytes: b"x" })
            } else {
                apply(&device, Op::Read { fd, len: 1 })
            };
            assert_eq!(dead, Reply::Errno(Errno::ENODEV), "{to}");
        }
        assert_eq!(double.dma_used(), 0);
    }
}

/// M72, M140: a reset that comes before any command of a SET, from another call: the SET succeeds, and
/// device and VHCA agree.
#[test]
fn a_reset_before_any_command_of_a_set_leaves_nothing_suspended() {
    for to in [State::Stop, State::StopCopy, State::PreCopyP2p, State::Resuming] {
        for nth in 0..5 {
            let (double, device) = device();
            let resetting = device.clone();
            double.before(nth, move || {
                assert_eq!(resetting.apply(Op::Reset, &mut []), Reply::Ok);
            });
            let reply = apply(&device, Op::set(to));
            assert!(matches!(reply, Reply::Fd(_)), "{to}, before command {nth}: {reply:?}");
            if double.state().resets > 0 {
                assert_eq!(state(&device), State::Running, "{to}, before command {nth}");
                assert!(double.state().resets > 1, "once more for what it overtook");
                assert!(agree(&double, &device), "{to}, before command {nth}");
            }
            double.forget_before();
        }
    }
}

/// M75, C26: a close resets the function, so that the next user finds it running; if that failed,
/// it is done before anything else is.
#[test]
fn a_closed_device_is_running_when_it_is_opened_again() {
    let (double, device) = device();
    assert_eq!(apply(&device, Op::set(State::Stop)), Reply::Fd(None));
    double.state().reset_fails = true;
    assert_eq!(apply(&device, Op::Close), Reply::Ok);
    for op in [Op::GetState, Op::Reset, Op::Touch(1)] {
        assert_eq!(apply(&device, op), Reply::Errno(Errno::EBADF), "{op}");
    }
    double.state().reset_fails = true;
    assert_eq!(apply(&device, Op::Open), Reply::Errno(Errno::EIO));
    assert_eq!(apply(&device, Op::Open), Reply::Ok);
    assert_eq!(apply(&device, Op::Open), Reply::Errno(Errno::EBUSY));
    assert_eq!(state(&device), State::Running);
    assert!(agree(&double, &device));
    // And nobody believes that it is still suspended as it was.
    assert_eq!(apply(&device, Op::set(State::Stop)), Reply::Fd(None));
    assert!(agree(&double, &device));
}

/// M75: a reset of the function that fails is an error, and changes nothing.
#[test]
fn a_reset_that_fails_is_no_reset() {
    let (double, device) = device();
    let Reply::Fd(Some(fd)) = apply(&device, Op::set(State::PreCopy)) else { panic!() };
    double.state().reset_fails = true;
    assert_eq!(apply(&device, Op::Reset), Reply::Errno(Errno::EIO));
    assert_eq!(state(&device), State::PreCopy);
    assert!(matches!(apply(&device, Op::Read { fd, len: 1 }), Reply::Bytes(_)));
}

/// M76: when the physical function leaves, the session ends, and what needs the firmware is ENOTCONN
/// until it is back.
#[test]
fn a_detached_device_is_not_connected() {
    let (double, device, fd) = waiting(State::PreCopy);
    double.let_go();
    device.detach();
    assert_eq!(double.dma_used(), 0, "given back while the firmware was there");
    double.state().log.clear();
    assert_eq!(apply(&device, Op::Read { fd, len: 1 }), Reply::Errno(Errno::ENODEV));
    assert_eq!(apply(&device, Op::set(State::Stop)), Reply::Errno(Errno::ENOTCONN));
    assert_eq!(apply(&device, Op::DataSize), Reply::Errno(Errno::ENOTCONN));
    assert_eq!(state(&device), State::Running);
    assert!(double.state().log.is_empty(), "no command is sent");
    device.attach();
    assert_eq!(apply(&device, Op::set(State::Stop)), Reply::Fd(None));
}

/// C2, R13: the faults that a test can ask for do what they say.
#[test]
fn faults_do_what_they_say() {
    let (double, device) = device();
    let set = |to: State, fault| apply(&device, Op::SetState { to: to.into(), fault: Some(fault) });
    assert_eq!(set(State::PreCopy, Fault::FdTableFull), Reply::Errno(Errno::EMFILE));
    assert_eq!(state(&device), State::PreCopy);
    assert_eq!(apply(&device, Op::set(State::Running)), Reply::Fd(None));
    let fails = |leaves| Fault::ArcFails { hop: 1, errno: Errno::EIO, leaves };
    assert_eq!(set(State::Stop, fails(Leaves::Source)), Reply::Errno(Errno::EIO));
    assert_eq!(state(&device), State::RunningP2p);
    assert!(agree(&double, &device));
    assert_eq!(set(State::StopCopy, fails(Leaves::Error)), Reply::Errno(Errno::EIO));
    assert_eq!(state(&device), State::Error);
    assert_eq!(apply(&device, Op::Reset), Reply::Ok);
    assert!(agree(&double, &device));
    assert_eq!(apply(&device, Op::Touch(7)), Reply::Ok);
    assert_eq!(double.state().value, 7);
}

/// M70: eight threads do what they like to one device; everybody comes back, and in the end device,
/// VHCA and books agree.
#[test]
fn a_crowd_leaves_the_device_in_order() {
    let (double, device) = device();
    thread::scope(|scope| {
        for who in 0..8_u32 {
            let device = &device;
            scope.spawn(move || {
                let mut random = who * 7919 + 1;
                for _ in 0..500 {
                    random = random.wrapping_mul(1_103_515_245).wrapping_add(12_345);
                    let fd = Fd(random >> 20 & 0x1f);
                    let to = State::ALL[(random >> 16) as usize % 8];
                    let op: Op<&[u8]> = match random >> 28 {
                        0..=5 => Op::set(to),
                        6..=8 => Op::Read { fd, len: 5_000 },
                        9 => Op::Write { fd, bytes: b"junk" },
                        10 => Op::PrecopyInfo { fd },
                        11 => Op::CloseFd { fd },
                        12 => Op::DataSize,
                        13 => Op::GetState,
                        _ => Op::Reset,
                    };
                    apply(device, op);
                }
            });
        }
    });
    assert!(agree(&double, &device));
    apply(&device, Op::Reset);
    assert_eq!(state(&device), State::Running);
    assert!(agree(&double, &device));
    let books = double.state();
    assert_eq!((books.pds.len(), books.mkeys.len(), books.saving), (0, 0, false));
    // A call goes on when a reset has overtaken it, on a VHCA that is no longer what it was.
    let overtaken =
        ["RESUME of what runs", "incremental QUERY, untracked", "SAVE of 9999 into 8192"];
    let serious = |violation: &&String| !overtaken.contains(&violation.as_str());
    let serious: Vec<_> = books.violations.iter().filter(serious).collect();
    assert!(serious.is_empty(), "{serious:?}");
}

/// M65, R29: images of nothing are no device, in whatever number; beside one that is, they are no harm.
#[test]
fn images_of_nothing_are_no_device() {
    let (_double, device) = device();
    let empty = stream::fw_data(0).repeat(4);
    let Reply::Fd(Some(fd)) = apply(&device, Op::set(State::Resuming)) else { panic!() };
    assert_eq!(apply(&device, Op::Write { fd, bytes: &empty }), Reply::Written(64));
    assert_eq!(apply(&device, Op::set(State::Stop)), Reply::Errno(Errno::EINVAL));
    assert_eq!(state(&device), State::Resuming);
    let image = [&stream::fw_data(3)[..], b"abc", &empty].concat();
    assert!(matches!(apply(&device, Op::Write { fd, bytes: &image }), Reply::Written(_)));
    assert_eq!(apply(&device, Op::set(State::Stop)), Reply::Fd(None));
}
