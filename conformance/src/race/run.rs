// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! Several threads at one device.

use std::convert::Infallible;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Barrier, Mutex, PoisonError, RwLock, mpsc};
use std::thread;
use std::time::Duration;

use vfio_fsm_core::vmm::Port;
use vfio_fsm_core::{Errno, Fd, Op, Reply, State};

use super::history::{Call, History};

/// What the threads do.
#[derive(Clone, Copy, Debug)]
pub struct Plan {
    /// Calls of each thread.
    pub calls: usize,
    /// What is drawn depends on this and on nothing else.
    pub seed: u64,
    /// A call that takes longer is one that hangs.
    pub patience: Duration,
}

/// Calls that did not return.
#[derive(Clone, Debug, thiserror::Error)]
#[error("{calls} did not return in {after:?}")]
pub struct Stuck {
    /// Which, and whose.
    pub calls: String,
    /// How long they were waited for.
    pub after: Duration,
    /// What happened before.
    pub history: History,
}

/// What the threads share.
struct Shared<F> {
    clock: AtomicU64,
    /// By number; number 0 is none.
    data_fds: RwLock<Vec<Option<Arc<F>>>>,
    calls: Mutex<Vec<Call>>,
}

impl<F> Shared<F> {
    fn tick(&self) -> u64 {
        self.clock.fetch_add(1, Ordering::SeqCst)
    }

    fn adopt(&self, fd: F) -> Fd {
        let mut all = self.data_fds.write().unwrap_or_else(PoisonError::into_inner);
        all.push(Some(Arc::new(fd)));
        Fd(all.len() as u32 - 1)
    }

    fn data_fd(&self, name: Fd) -> Option<Arc<F>> {
        let all = self.data_fds.read().unwrap_or_else(PoisonError::into_inner);
        all.get(name.0 as usize)?.clone()
    }

    fn close(&self, name: Fd) -> Option<Arc<F>> {
        let mut all = self.data_fds.write().unwrap_or_else(PoisonError::into_inner);
        all.get_mut(name.0 as usize)?.take()
    }

    fn latest(&self) -> u32 {
        let all = self.data_fds.read().unwrap_or_else(PoisonError::into_inner);
        all.len() as u32 - 1
    }

    fn begin(&self, thread: usize, op: Op<u32>) -> usize {
        let mut calls = self.calls.lock().unwrap_or_else(PoisonError::into_inner);
        let began = self.tick();
        calls.push(Call { thread, op, reply: None, began, ended: u64::MAX });
        calls.len() - 1
    }

    fn end(&self, place: usize, reply: Reply<usize>) {
        let mut calls = self.calls.lock().unwrap_or_else(PoisonError::into_inner);
        let ended = self.tick();
        let call = &mut calls[place];
        (call.reply, call.ended) = (Some(reply), ended);
    }

    fn history(&self) -> History {
        let calls = self.calls.lock().unwrap_or_else(PoisonError::into_inner);
        History(calls.clone())
    }
}

/// Let each of these do its calls at the same time: ports to one device, which is in RUNNING and has
/// no session.
///
/// The device must not be closed before all ports are dropped. If a call hangs, its thread is left
/// behind.
pub fn race<P>(ports: Vec<P>, plan: Plan) -> Result<History, Stuck>
where
    P: Port + Send + 'static,
    P::Fd: Send + Sync + 'static,
{
    let shared = Arc::new(Shared {
        clock: AtomicU64::new(1),
        data_fds: RwLock::new(vec![None]),
        calls: Mutex::default(),
    });
    let start = Arc::new(Barrier::new(ports.len()));
    let (done, finished) = mpsc::channel();
    let threads = ports.len();
    for (thread, port) in ports.into_iter().enumerate() {
        let (shared, start, done) = (Arc::clone(&shared), Arc::clone(&start), done.clone());
        let random = fastrand::Rng::with_seed(plan.seed.wrapping_mul(97) + thread as u64);
        let mut racer = Racer { thread, port, shared, random, buffer: vec![0; 4096] };
        thread::spawn(move || {
            start.wait();
            (0..plan.calls).for_each(|_| racer.call());
            // Nobody waits any longer if a call of another hangs.
            let _ = done.send(());
        });
    }
    for _ in 0..threads {
        if finished.recv_timeout(plan.patience).is_err() {
            let history = shared.history();
            let pending = history.0.iter().filter(|call| call.reply.is_none());
            let calls: Vec<_> =
                pending.map(|call| format!("{} of thread {}", call.op, call.thread)).collect();
            return Err(Stuck { calls: calls.join(" and "), after: plan.patience, history });
        }
    }
    Ok(shared.history())
}

struct Racer<P: Port> {
    thread: usize,
    port: P,
    shared: Arc<Shared<P::Fd>>,
    random: fastrand::Rng,
    buffer: Vec<u8>,
}

/// What is to be done: to the device, or to a data_fd.
enum Drawn {
    Device(Op<u32, Infallible>),
    DataFd(Fd, Op<u32, ()>),
}

impl<P: Port> Racer<P> {
    fn call(&mut self) {
        let drawn = self.draw();
        let op = match &drawn {
            Drawn::Device(op) => op.map_fd(|never| match never {}),
            Drawn::DataFd(name, op) => op.map_fd(|()| *name),
        };
        let place = self.shared.begin(self.thread, op);
        let reply = self.carry_out(drawn);
        self.shared.end(place, reply);
    }

    /// Mostly what moves the device, and what looks at the newest data_fds.
    fn draw(&mut self) -> Drawn {
        let random = &mut self.random;
        let latest = self.shared.latest();
        let name = Fd(latest.saturating_sub(random.u32(0..2)).max(1));
        let on_fd = |op| Drawn::DataFd(name, op);
        match random.u8(0..12) {
            0..=3 => Drawn::Device(Op::set(STATES[random.usize(0..STATES.len())])),
            4 | 5 => Drawn::Device(Op::Reset),
            6 => Drawn::Device(Op::GetState),
            _ if latest == 0 => Drawn::Device(Op::GetState),
            7 | 8 => on_fd(Op::Read { fd: (), len: 4096 }),
            9 => on_fd(Op::Write { fd: (), bytes: 1 }),
            10 => on_fd(Op::PrecopyInfo { fd: () }),
            _ if random.u8(0..4) == 0 => on_fd(Op::CloseFd { fd: () }),
            _ => on_fd(Op::Read { fd: (), len: 1 }),
        }
    }

    fn carry_out(&mut self, drawn: Drawn) -> Reply<usize> {
        let Self { port, shared, buffer, .. } = self;
        let bytes = |_: u32| [b'F'].as_slice();
        let reply = match drawn {
            Drawn::Device(op) => port.apply(op.map(bytes).map_fd(|never| match never {}), buffer),
            // It is closed when the last call on it is over.
            Drawn::DataFd(name, Op::CloseFd { .. }) => match shared.close(name) {
                Some(_) => Reply::Ok,
                None => Reply::Errno(Errno::EBADF),
            },
            Drawn::DataFd(name, op) => match shared.data_fd(name) {
                Some(fd) => port.apply(op.map(bytes).map_fd(|()| &*fd), buffer),
                None => Reply::Errno(Errno::EBADF),
            },
        };
        reply.map(<[u8]>::len).map_fd(|fd| shared.adopt(fd))
    }
}

/// Where the device is sent.
const STATES: [State; 7] = [
    State::Running,
    State::Stop,
    State::StopCopy,
    State::Resuming,
    State::PreCopy,
    State::PreCopyP2p,
    State::RunningP2p,
];
