// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! Every order of the calls against each other, by loom.
//!
//! What is run is the device as it ships, with loom's mutex in place of parking_lot's
//! ([`crate::sync`]), and a firmware whose SAVE ends when a thread ends it, or a reset. loom gives
//! up on an order in which nobody can go on: so a reader that is never woken is found as well.

mod fake;

use std::panic::catch_unwind;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use loom::thread;
use vfio_fsm_core::{EndOfStream, Errno, Fd, Features, Op, Reply, State};

use crate::stream::STOP_COPY_SIZE_BYTES;
use crate::vhca::{Migration, Vhca};

use super::Mlx5Device;
use super::slip::Slip;
use fake::{Fake, Save};

type Device = Mlx5Device<Fake, Arc<Fake>>;

/// How often a thread is preempted in an order, beside where it has to wait anyway, by the number of
/// threads. Each of the planted slips needs one.
const PREEMPTIONS: [usize; 4] = [0, 0, 3, 2];

/// What one thread does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Call {
    Set(State),
    /// From the data_fd that the device had at the start.
    Read,
    Info,
    Reset,
    Close,
    Detach,
    /// The firmware ends its SAVE.
    EndSave,
    /// GET, and then the firmware ends its SAVE.
    GetThenEndSave,
}

/// From where the threads begin, and what each does. In the states with a session the first SAVE is
/// still on its way.
#[derive(Clone, Copy)]
struct Scene {
    start: State,
    calls: &'static [Call],
}

const SCENES: &[Scene] = &[
    Scene { start: State::Running, calls: &[Call::Set(State::Stop), Call::Reset] },
    Scene { start: State::Stop, calls: &[Call::Set(State::Running), Call::Reset] },
    Scene { start: State::Running, calls: &[Call::Set(State::PreCopy), Call::Reset] },
    Scene { start: State::Running, calls: &[Call::Set(State::Stop), Call::Close] },
    Scene { start: State::Running, calls: &[Call::Reset, Call::Reset, Call::Set(State::Stop)] },
    Scene { start: State::PreCopy, calls: &[Call::Read, Call::Reset] },
    Scene { start: State::PreCopy, calls: &[Call::Read, Call::Read, Call::EndSave] },
    Scene { start: State::PreCopy, calls: &[Call::Read, Call::GetThenEndSave] },
    Scene { start: State::PreCopy, calls: &[Call::Info, Call::Reset] },
    Scene { start: State::PreCopy, calls: &[Call::Set(State::PreCopyP2p), Call::Reset] },
    Scene {
        start: State::PreCopy,
        calls: &[Call::Set(State::PreCopyP2p), Call::Read, Call::EndSave],
    },
    Scene { start: State::PreCopy, calls: &[Call::Read, Call::Info, Call::Reset] },
    Scene { start: State::PreCopy, calls: &[Call::Info, Call::Detach, Call::EndSave] },
    Scene { start: State::StopCopy, calls: &[Call::Read, Call::Reset] },
    Scene { start: State::StopCopy, calls: &[Call::Read, Call::Close, Call::EndSave] },
    Scene {
        start: State::StopCopy,
        calls: &[Call::Set(State::Running), Call::Read, Call::EndSave],
    },
    Scene { start: State::StopCopy, calls: &[Call::Set(State::Stop), Call::Reset] },
];

impl Scene {
    /// Tries every order; returns how many there were.
    fn explore(self, slip: Option<Slip>) -> usize {
        let orders = Arc::new(AtomicUsize::new(0));
        let counted = orders.clone();
        let mut builder = loom::model::Builder::new();
        builder.preemption_bound = Some(PREEMPTIONS[self.calls.len()]);
        builder.max_branches = 10_000;
        builder.location = true;
        builder.check(move || {
            counted.fetch_add(1, Ordering::Relaxed);
            self.play(slip);
        });
        orders.load(Ordering::Relaxed)
    }

    fn play(self, slip: Option<Slip>) {
        let fake = Fake::new();
        let vhca =
            Vhca::new(fake.clone(), Migration { chunks: false, page_track: false }, 1).unwrap();
        let mut device = Mlx5Device::new(Features::ALL, vhca, fake.clone());
        device.slip = slip;
        let opened = device.apply(Op::set(self.start), &mut []);
        let Reply::Fd(fd) = opened else { panic!("{opened:?}") };
        if let Some(fd) = fd {
            // The record that is there from the start: what comes next has to be waited for.
            let mut buf = [0; STOP_COPY_SIZE_BYTES];
            let read = device.apply(Op::Read { fd, len: buf.len() as u32 }, &mut buf);
            assert!(matches!(read, Reply::Bytes(bytes) if bytes.len() == STOP_COPY_SIZE_BYTES));
        }
        let device = Arc::new(device);
        let threads: Vec<_> = self.calls[1..]
            .iter()
            .map(|&call| {
                let (device, fake) = (device.clone(), fake.clone());
                thread::spawn(move || do_call(call, &device, &fake, fd))
            })
            .collect();
        do_call(self.calls[0], &device, &fake, fd);
        for thread in threads {
            thread.join().unwrap();
        }
        self.check(&device, &fake, fd);
        fake.end_save();
    }

    /// What must be so when everybody is done.
    fn check(self, device: &Device, fake: &Fake, fd: Option<Fd>) {
        assert!(!device.gate.lock().note.is_waiting(), "a reset was lost");
        let state = {
            let guarded = device.state.try_lock().expect("the state lock was let go");
            let session = guarded.device.fsm().session();
            let state = guarded.device.fsm().state();
            assert_eq!(session.is_some(), state.session().is_some());
            let ended = self
                .calls
                .iter()
                .any(|call| matches!(call, Call::Reset | Call::Close | Call::Detach));
            let alive = fd.is_some_and(|fd| guarded.device.is_live(fd));
            assert!(!(ended && alive), "a reset was lost");
            state
        };
        let books = fake.books.lock().unwrap();
        assert_eq!(books.violation, None);
        let halted = match state {
            State::Running | State::PreCopy => (false, false),
            State::RunningP2p | State::PreCopyP2p => (true, false),
            _ => (true, true),
        };
        let detached = self.calls.contains(&Call::Detach);
        assert!(
            detached || (books.initiator, books.responder) == halted,
            "a reset was lost: the device is in {state}, its VHCA is not"
        );
        if state.session().is_none() {
            assert_eq!((books.pds, books.mkeys, books.save), (0, 0, Save::None), "not given back");
        }
    }
}

fn do_call(call: Call, device: &Device, fake: &Fake, fd: Option<Fd>) {
    match call {
        Call::Set(to) => {
            let reply = device.apply(Op::set(to), &mut []);
            let gone = matches!(reply, Reply::Errno(Errno::EBADF | Errno::ENOTCONN));
            assert!(gone || matches!(reply, Reply::Fd(_)), "a reset shows: {reply:?}");
        }
        Call::Read => {
            let mut buf = [0; 64];
            match device.apply(Op::Read { fd: fd.unwrap(), len: 64 }, &mut buf) {
                Reply::Bytes(bytes) => assert!(!bytes.is_empty()),
                Reply::Errno(errno) => {
                    assert_eq!(errno, Errno::ENODEV, "a reset shows");
                }
                // The other reader has it.
                Reply::EndOfStream(EndOfStream::Temporary) => {}
                other => panic!("{other:?}"),
            }
        }
        Call::Info => {
            let reply = device.apply(Op::PrecopyInfo { fd: fd.unwrap() }, &mut []);
            let dead = matches!(reply, Reply::Errno(Errno::ENODEV | Errno::EINVAL));
            assert!(dead || matches!(reply, Reply::Info(_)), "{reply:?}");
        }
        Call::Reset => {
            let reply = device.apply(Op::Reset, &mut []);
            assert_eq!(reply, Reply::Ok);
        }
        Call::Close => {
            assert_eq!(device.apply(Op::Close, &mut []), Reply::Ok);
        }
        Call::Detach => device.detach(),
        Call::EndSave => fake.end_save(),
        Call::GetThenEndSave => {
            assert!(matches!(device.apply(Op::GetState, &mut []), Reply::State(_)));
            fake.end_save();
        }
    }
}

/// M70, M71, M72, M140, C30, L1, L2: in whatever order SET, read, PRECOPY_INFO, resets, close and the PF's
/// leaving get at the locks: nobody waits for ever, no reset is lost, device and VHCA agree on what
/// is suspended, no command overlaps a SAVE that must not, and no memory goes before its SAVE.
#[test]
fn every_order_of_calls_is_fine() {
    for scene in SCENES {
        println!("from {} {:?}", scene.start, scene.calls);
        let orders = scene.explore(None);
        println!("{orders} orders");
        assert!(orders > 1);
    }
}

/// M70, M71, M72, M140: each way to get the locks wrong is found, and found as what it is.
#[test]
fn slips_are_found() {
    let set_and_reset =
        Scene { start: State::Running, calls: &[Call::Set(State::Stop), Call::Reset] };
    let wait_and_reset =
        Scene { start: State::PreCopy, calls: &[Call::Set(State::PreCopyP2p), Call::Reset] };
    let read_and_get = Scene { start: State::PreCopy, calls: &[Call::Read, Call::GetThenEndSave] };
    find(Slip::ReadsUnderLock, read_and_get, "deadlock");
    find(Slip::LosesReset, set_and_reset, "a reset was lost");
    find(Slip::LooksThenLetsGo, set_and_reset, "a reset was lost");
    find(Slip::ResetWaits, wait_and_reset, "deadlock");
    find(Slip::ResetsOnce, set_and_reset, "its VHCA is not");
    let back_and_reset =
        Scene { start: State::Stop, calls: &[Call::Set(State::Running), Call::Reset] };
    let read_and_reset = Scene { start: State::StopCopy, calls: &[Call::Read, Call::Reset] };
    find(Slip::ShowsResets, back_and_reset, "a reset shows");
    find(Slip::ShowsResets, read_and_reset, "a reset shows");
}

fn find(slip: Slip, scene: Scene, text: &str) {
    let explored = catch_unwind(move || scene.explore(Some(slip)));
    let Err(found) = explored else { panic!("{slip:?} is not found") };
    let found = found.downcast::<String>().map_or_else(
        |found| found.downcast_ref::<&str>().map(ToString::to_string).unwrap_or_default(),
        |found| *found,
    );
    assert!(found.contains(text), "{slip:?} is found as {found:?}");
}
