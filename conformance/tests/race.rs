// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! Races: what is right is explained, what is wrong is not, and what hangs is named.

#![expect(clippy::unwrap_used, reason = "helpers of tests may fail them")]

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Condvar, Mutex};
use std::time::Duration;

use vfio_conform::race::{Call, History, Order, Plan, Rules, order, race, shrink};
use vfio_fsm_core::EndOfStream::Permanent;
use vfio_fsm_core::device::{Device, Memory};
use vfio_fsm_core::vmm::Port;
use vfio_fsm_core::{Errno, Fd, Features, Op, Reply, State};

const RULES: Rules = Rules::new(Features::ALL);

type Inner = Device<Memory<4>, 32>;

/// How a device may be wrong with threads.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Flaw {
    None,
    /// GET answers from a copy that is brought up to date after the lock is let go.
    StaleGet,
    /// A reset is done later, by somebody else (the work queue of the first patches).
    LateReset,
    /// A reset that finds the lock held is forgotten.
    LostReset,
    /// A read at a temporary end waits for more, and nobody wakes it.
    NobodyWakes,
}

struct Shared {
    device: Mutex<Inner>,
    copy: Mutex<Reply<Vec<u8>>>,
    waits: (Mutex<bool>, Condvar),
    late: AtomicBool,
}

#[derive(Clone)]
struct Racing(Arc<Shared>, Flaw);

impl Racing {
    fn new(flaw: Flaw) -> Self {
        let device = Device::new(RULES.features, Memory::new());
        let shared = Shared {
            device: Mutex::new(device),
            copy: Mutex::new(Reply::State(State::Running.into())),
            waits: Default::default(),
            late: AtomicBool::new(false),
        };
        Self(Arc::new(shared), flaw)
    }

    /// Something for the others to get in between.
    fn dawdle() {
        for _ in 0..20 {
            std::thread::yield_now();
        }
    }
}

impl Port for Racing {
    type Fd = Fd;

    fn apply<'b>(&mut self, op: Op<&[u8], &Fd>, buf: &'b mut [u8]) -> Reply<&'b [u8]> {
        let Self(shared, flaw) = self;
        let op = op.map_fd(|fd| *fd);
        let own = |reply: Reply<&[u8]>| reply.map(<[u8]>::to_vec);
        match (op, *flaw) {
            (Op::GetState, Flaw::StaleGet) => {
                return shared.copy.lock().unwrap().clone().map(|_| [].as_slice());
            }
            (Op::Reset, Flaw::LateReset) => {
                shared.late.store(true, Ordering::SeqCst);
                return Reply::Ok;
            }
            (Op::Reset, Flaw::LostReset) if shared.device.try_lock().is_err() => return Reply::Ok,
            _ => {}
        }
        let mut device = shared.device.lock().unwrap();
        if *flaw == Flaw::LostReset {
            Self::dawdle();
        }
        let reply = device.apply(op, buf);
        let (kept, state) = (own(reply), device.apply(Op::GetState, &mut []).map(<[u8]>::to_vec));
        if let (Op::Read { .. }, Reply::EndOfStream(_), Flaw::NobodyWakes) = (op, &kept, *flaw) {
            drop(device);
            let (waits, woken) = &shared.waits;
            let _never = woken.wait_while(waits.lock().unwrap(), |woken| !*woken);
            return Reply::Ok;
        }
        drop(device);
        Self::dawdle();
        *shared.copy.lock().unwrap() = state;
        if shared.late.swap(false, Ordering::SeqCst) {
            let _ok = shared.device.lock().unwrap().apply(Op::Reset, &mut []);
        }
        match kept {
            Reply::Bytes(bytes) => {
                buf[..bytes.len()].copy_from_slice(&bytes);
                Reply::Bytes(&buf[..bytes.len()])
            }
            other => other.map(|_| [].as_slice()),
        }
    }
}

fn plan(seed: u64) -> Plan {
    Plan { calls: 8, seed, patience: Duration::from_secs(20) }
}

/// S5: a device whose calls exclude each other is explained, whatever the threads do.
#[test]
fn what_is_right_is_explained() {
    for seed in 0..500 {
        let racing = Racing::new(Flaw::None);
        let history = race(vec![racing.clone(), racing.clone(), racing], plan(seed)).unwrap();
        let order = order(&history, RULES);
        assert_ne!(order, Order::None, "seed {seed}:\n{history}");
    }
}

/// From when to when a thread did what, and what it was answered.
fn call(thread: usize, (began, ended): (u64, u64), op: Op<u32>, reply: Reply<usize>) -> Call {
    Call { thread, op, reply: Some(reply), began, ended }
}

/// S5: a data_fd is closed when the last call on it is over, and no sooner: what such a call is
/// answered must be what its session says, which a close does not end.
#[test]
fn a_close_under_a_call_excuses_nothing() {
    let fd = Fd(1);
    let set = |to| Op::set(to).map_fd(|never: std::convert::Infallible| match never {});
    let dead = Reply::Errno(Errno::ENODEV);
    let closed = Reply::Errno(Errno::EBADF);
    let (under, behind) = ((3, 8), (6, 9));
    // What is done behind the close, when the read is, its answer, and whether that is explained.
    let cases = [
        (Op::GetState, Reply::State(State::PreCopy.into()), under, dead, false),
        (Op::GetState, Reply::State(State::PreCopy.into()), under, Reply::Bytes(1), true),
        (Op::GetState, Reply::State(State::PreCopy.into()), under, closed, true),
        (Op::GetState, Reply::State(State::PreCopy.into()), behind, Reply::Bytes(1), false),
        (Op::GetState, Reply::State(State::PreCopy.into()), behind, closed, true),
        (Op::Reset, Reply::Ok, under, dead, true),
        (Op::Reset, Reply::Ok, behind, dead, false),
        (set(State::StopCopy), Reply::Fd(None), under, Reply::EndOfStream(Permanent), true),
        (set(State::PreCopyP2p), Reply::Fd(None), under, Reply::EndOfStream(Permanent), false),
    ];
    for (op, answer, when, reply, right) in cases {
        let history = History(vec![
            call(0, (1, 2), set(State::PreCopy), Reply::Fd(Some(fd))),
            call(1, when, Op::Read { fd, len: 1 }, reply),
            call(0, (4, 5), Op::CloseFd { fd }, Reply::Ok),
            call(0, (6, 7), op, answer),
        ]);
        assert_eq!(order(&history, RULES) != Order::None, right, "\n{history}");
    }
    // Whoever comes behind the close has no file, also while another call still has.
    for (reply, right) in [(closed, true), (Reply::Bytes(1), false)] {
        let read = |thread, when, reply| call(thread, when, Op::Read { fd, len: 1 }, reply);
        let history = History(vec![
            call(0, (1, 2), set(State::PreCopy), Reply::Fd(Some(fd))),
            read(1, (3, 8), Reply::Bytes(1)),
            call(0, (4, 5), Op::CloseFd { fd }, Reply::Ok),
            read(2, (6, 7), reply),
        ]);
        assert_eq!(order(&history, RULES) != Order::None, right, "\n{history}");
    }
}

/// S5: every flaw is found by some seed, and shown in a history that is no larger.
#[test]
fn what_is_wrong_is_not() {
    for flaw in [Flaw::StaleGet, Flaw::LateReset, Flaw::LostReset] {
        let found = (0..5000).find_map(|seed| {
            let racing = Racing::new(flaw);
            let history = race(vec![racing.clone(), racing.clone(), racing], plan(seed)).unwrap();
            let wrong = order(&history, RULES) == Order::None;
            wrong.then_some(history)
        });
        let history = found.unwrap_or_else(|| panic!("{flaw:?} is not found"));
        let small = shrink(&history, RULES);
        println!("{flaw:?}: {} calls of {}:\n{small}", small.0.len(), history.0.len());
        assert!(small.0.len() <= history.0.len());
        assert_eq!(order(&small, RULES), Order::None);
    }
}

/// S5: a call that hangs is named.
#[test]
fn what_hangs_is_named() {
    let stuck = (0..200).find_map(|seed| {
        let racing = Racing::new(Flaw::NobodyWakes);
        let patience = Duration::from_millis(500);
        race(vec![racing.clone(), racing], Plan { patience, ..plan(seed) }).err()
    });
    let stuck = stuck.unwrap();
    assert!(stuck.to_string().contains("read fd#"), "{stuck}");
}
