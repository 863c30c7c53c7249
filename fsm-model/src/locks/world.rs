// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! The driver, the locks and the threads at one moment, and what one step makes of them.

use vfio_fsm_core::device::{
    Arrival, Device, DeviceFsm, Epoch, Memory, ResetGate, SetError, Unlock,
};
use vfio_fsm_core::{EndOfStream, Errno, Fd, Features, Op, Reply, Route, State};

use crate::locks::call::Call;
use crate::locks::design::Design;
use crate::locks::step::{Lock, Step, Todo};
use crate::search::Halves;

/// Threads that make calls. One more is the kernel's worker.
pub(crate) const CALLERS: usize = 3;
/// The most calls that one thread makes, one after the other.
pub(crate) const CALLS: usize = 2;
/// The kernel's worker.
pub(crate) const WORKER: usize = CALLERS;

/// What a thread is to do.
pub(crate) type Program = [Option<Call>; CALLS];

/// Everything there is at one moment.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) struct World {
    /// What state_mutex protects.
    pub(crate) fsm: DeviceFsm,
    memory: Memory<1>,
    /// The firmware has not yet filled the buffer that a reader waits for.
    saving: bool,
    gate: ResetGate,
    /// The flag beside the gate's note.
    detached: bool,
    /// A work item is scheduled.
    scheduled: bool,
    /// state_mutex has been destroyed.
    pub(crate) destroyed: bool,
    owners: [Option<u8>; Lock::ALL.len()],
    threads: [Thread; CALLERS + 1],
    /// The session that was open when all began, and so the one that every read and write uses
    /// unless its own thread has opened another.
    first: Option<Epoch>,
    /// Ghosts: the resets whose handler the device has called, and those carried out.
    arrived: Calls,
    carried_out: Calls,
    returned: Calls,
}

/// A set of calls.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct Calls(u8);

impl Calls {
    /// The n-th call of a thread.
    pub(crate) const fn one(thread: usize, nth: usize) -> Self {
        Self(1 << (thread * CALLS + nth))
    }

    pub(crate) const fn and(self, other: Self) -> Self {
        Self(self.0 | other.0)
    }

    pub(crate) const fn but(self, other: Self) -> Self {
        Self(self.0 & !other.0)
    }

    pub(crate) const fn has(self, other: Self) -> bool {
        self.0 & other.0 != 0
    }

    pub(crate) const fn is_empty(self) -> bool {
        self.0 == 0
    }

    pub(crate) const fn len(self) -> u32 {
        self.0.count_ones()
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Thread {
    program: Program,
    /// Which of its calls it makes, or will make next.
    nth: u8,
    todo: Todo,
    made: [Made; CALLS],
    asleep: bool,
    /// What the call under way will return.
    reply: Option<Reply<u8>>,
    /// The session that its latest SET has opened.
    opened: Option<Epoch>,
    /// The flags, loaded and not yet stored.
    flags: Option<ResetGate>,
}

/// What the history keeps of a call.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub(crate) struct Made {
    /// What had returned when it began.
    pub(crate) after: Calls,
    /// The same without the resets that were still to be carried out.
    pub(crate) after_settled: Calls,
    pub(crate) reply: Option<Reply<u8>>,
}

impl Thread {
    const IDLE: Self = Self {
        program: [None; CALLS],
        nth: 0,
        todo: Todo::NOTHING,
        made: [Made { after: Calls(0), after_settled: Calls(0), reply: None }; CALLS],
        asleep: false,
        reply: None,
        opened: None,
        flags: None,
    };

    fn call(&self) -> Option<Call> {
        self.program.get(usize::from(self.nth)).copied().flatten()
    }
}

/// A data_fd in a reply; the model has no numbers for them.
pub(crate) const SOME_FD: Fd = Fd(0);

/// What a `write` writes: a whole stream.
pub(crate) const STREAM: &[u8] = b"F9";

/// The core's device as the threads find it: register at 7, one session in its state.
pub(crate) fn device_in(state: State) -> Device<Memory<1>, 4> {
    let mut device = Device::new(Features::ALL, Memory::new());
    let _ok = device.apply(Op::Touch(7), &mut []);
    let _fd = device.apply(Op::set(state), &mut []);
    device
}

/// Two of the threads, and the others with what they share.
impl Halves for World {
    type Left = [Thread; 2];
    type Right = Self;

    fn halves(&self) -> (Self::Left, Self::Right) {
        let mut rest = *self;
        let [first, second, ..] = &mut rest.threads;
        let threads = [first, second].map(|thread| std::mem::replace(thread, Thread::IDLE));
        (threads, rest)
    }

    fn whole([first, second]: Self::Left, mut rest: Self::Right) -> Self {
        [rest.threads[0], rest.threads[1]] = [first, second];
        rest
    }
}

impl World {
    /// Nobody has done anything.
    pub(crate) fn new(start: State) -> Self {
        let device = device_in(start);
        Self {
            fsm: *device.fsm(),
            memory: *device.actions(),
            saving: start == State::StopCopy,
            gate: ResetGate::new(),
            detached: false,
            scheduled: false,
            destroyed: false,
            owners: [None; Lock::ALL.len()],
            threads: [Thread::IDLE; CALLERS + 1],
            first: device.fsm().session(),
            arrived: Calls::default(),
            carried_out: Calls::default(),
            returned: Calls::default(),
        }
    }

    /// Give the threads their programs.
    pub(crate) fn cast(&mut self, programs: &[Program]) {
        for (thread, &program) in self.threads.iter_mut().zip(programs) {
            thread.program = program;
            if thread.call().is_some() {
                thread.todo.first(&[Step::Enter]);
            }
        }
    }

    pub(crate) fn is_cast(&self) -> bool {
        self.threads.iter().any(|thread| thread.program[0].is_some())
    }

    pub(crate) fn next(&self, who: usize) -> Option<Step> {
        self.threads[who].todo.next()
    }

    /// Whether a thread can go on. The worker begins when there is work.
    pub(crate) fn can_go(&self, who: usize) -> bool {
        let thread = &self.threads[who];
        match thread.todo.next() {
            Some(Step::Lock(lock)) => self.owner(lock).is_none(),
            Some(_) => !thread.asleep,
            None => who == WORKER && self.scheduled,
        }
    }

    /// Whether nobody can go on.
    pub(crate) fn is_still(&self) -> bool {
        !(0..=WORKER).any(|who| self.can_go(who))
    }

    /// The threads that want a lock which somebody holds.
    pub(crate) fn waiting(&self) -> impl Iterator<Item = (usize, Lock, usize)> {
        (0..=WORKER).filter_map(|who| match self.next(who) {
            Some(Step::Lock(lock)) => Some((who, lock, self.owner(lock)?)),
            _ => None,
        })
    }

    pub(crate) fn owner(&self, lock: Lock) -> Option<usize> {
        self.owners[lock as usize].map(usize::from)
    }

    pub(crate) fn held(&self, who: usize) -> impl Iterator<Item = Lock> {
        Lock::ALL.into_iter().filter(move |&lock| self.owner(lock) == Some(who))
    }

    pub(crate) fn call(&self, who: usize) -> Option<Call> {
        self.threads[who].call()
    }

    pub(crate) fn made(&self, who: usize) -> impl Iterator<Item = (usize, Call, &Made)> {
        let thread = &self.threads[who];
        let made = thread.program.iter().zip(&thread.made).enumerate();
        made.filter_map(|(nth, (call, made))| Some((nth, (*call)?, made)))
    }

    /// The resets that arrived and are still to be carried out.
    pub(crate) const fn owed(&self) -> Calls {
        self.arrived.but(self.carried_out)
    }

    pub(crate) fn sleepers(&self) -> impl Iterator<Item = usize> {
        (0..CALLERS).filter(|&who| self.threads[who].asleep)
    }

    /// The threads that are in a reset.
    pub(crate) fn resets(&self) -> impl Iterator<Item = usize> {
        (0..CALLERS).filter(|&who| {
            let thread = &self.threads[who];
            thread.todo.next().is_some() && thread.call().is_some_and(Call::is_reset)
        })
    }

    /// Whether a reader has nothing to read, and may yet have.
    pub(crate) fn must_wait(&self, who: usize) -> bool {
        let alive = self.fsm.session().is_some() && self.fsm.session() == self.fd(who);
        self.saving && alive && !self.fsm.state().is_pre_copy()
    }

    fn fd(&self, who: usize) -> Option<Epoch> {
        self.threads[who].opened.or(self.first)
    }

    /// A thread, to read: by its number, and the call that it makes or has made.
    pub(crate) fn name(&self, who: usize) -> String {
        let last = self.threads[who].program.into_iter().flatten().last();
        match self.call(who).or(last) {
            Some(call) => format!("{}: {call}", who + 1),
            None => "the worker".to_owned(),
        }
    }

    /// What there is to be said of the step that a thread has just made.
    pub(crate) fn came_of(&self, before: &Self, who: usize) -> Option<String> {
        let (thread, then) = (&self.threads[who], &before.threads[who]);
        if thread.nth != then.nth {
            let reply = thread.made[usize::from(then.nth)].reply?;
            return Some(format!(" {}", reply.map(|byte| vec![byte])));
        }
        if thread.asleep {
            return Some(", and sleeps".to_owned());
        }
        let took = self.owner(Lock::State) == Some(who) && before.owner(Lock::State).is_none();
        let released = before.owner(Lock::State) == Some(who) && self.owner(Lock::State).is_none();
        match then.todo.next()? {
            Step::Arrive if took => Some(": it is free".to_owned()),
            Step::Arrive => Some(": it is taken".to_owned()),
            Step::GateUnlock if released => Some(": there is none".to_owned()),
            Step::GateUnlock => Some(": there is one".to_owned()),
            Step::TryPci if thread.reply == Some(Reply::Ok) => Some(": it is free".to_owned()),
            Step::TryPci => Some(": it is taken".to_owned()),
            _ => None,
        }
    }

    /// One step of one thread.
    pub(crate) fn run(&mut self, design: Design, who: usize) {
        let Some(step) = self.threads[who].todo.pop() else {
            // The worker takes up what is scheduled.
            self.scheduled = false;
            return self.then(who, &design.reset_by_waiting());
        };
        match step {
            Step::Enter => self.enter(design, who),
            Step::Return => self.leave(who),
            Step::Lock(lock) => self.owners[lock as usize] = Some(who as u8),
            Step::Unlock(lock) => self.owners[lock as usize] = None,
            Step::TryPci => self.try_pci(design, who),
            Step::Arrive => self.arrive(design, who),
            Step::GateUnlock => self.gate_unlock(design, who),
            Step::Schedule => {
                self.scheduled = true;
                self.arrived = self.arrived.and(self.this_call(who));
            }
            Step::Arcs(to) => self.arcs(design, who, to),
            Step::Walk(to) => self.walk(who, to),
            Step::CarryOut => {
                if self.call(who).is_some_and(Call::is_reset) {
                    self.arrived = self.arrived.and(self.this_call(who));
                }
                self.carried_out = self.carried_out.and(self.arrived);
                self.fsm.reset(&mut self.memory);
            }
            Step::EndAll => {
                self.fsm.close(&mut self.memory);
                self.reply(who, Reply::Ok);
            }
            Step::Wake => self.threads.iter_mut().for_each(|thread| thread.asleep = false),
            // What is freed is not in the model; when, is.
            Step::Free => {}
            Step::LoadFlags => self.threads[who].flags = Some(self.gate),
            Step::StoreFlags => {
                let loaded = self.threads[who].flags.take();
                self.detached = true;
                if design == Design::SharedBits {
                    self.gate = loaded.unwrap_or_default();
                }
            }
            Step::Look => self.reply(who, Reply::State(self.fsm.state().into())),
            Step::Info => {
                let info = self.with_fd(who, |fsm, epoch, memory| fsm.precopy_info(epoch, memory));
                self.reply(who, info.map_or_else(Reply::Errno, Reply::Info));
            }
            Step::AwaitData => {
                if self.must_wait(who) {
                    self.threads[who].asleep = true;
                    self.then(who, &[Step::AwaitData]);
                }
            }
            Step::Peek => {
                let mut then = *self;
                let byte = then.read(who);
                self.reply(who, byte);
            }
            Step::Take => {
                let read = self.read(who);
                let reply = self.threads[who].reply.unwrap_or(read);
                self.reply(who, reply);
                self.then(who, &design.read_on(reply));
            }
            Step::PeekRoom => {
                let mut then = *self;
                let written = then.put(who);
                self.reply(who, written);
            }
            Step::DestroyMutex => self.destroyed = true,
            Step::Put => {
                let written = self.put(who);
                let reply = self.threads[who].reply.unwrap_or(written);
                self.reply(who, reply);
            }
            Step::Fill => self.saving = false,
        }
    }

    fn then(&mut self, who: usize, steps: &[Step]) {
        self.threads[who].todo.first(steps);
    }

    fn reply(&mut self, who: usize, reply: Reply<u8>) {
        self.threads[who].reply = Some(reply);
    }

    fn this_call(&self, who: usize) -> Calls {
        Calls::one(who, self.threads[who].nth.into())
    }

    fn enter(&mut self, design: Design, who: usize) {
        let Some(call) = self.call(who) else { return };
        let (after, after_settled) = (self.returned, self.returned.but(self.owed()));
        let thread = &mut self.threads[who];
        match call {
            Call::Set(_) => thread.opened = None,
            Call::HostReset => thread.reply = Some(Reply::Ok),
            _ => {}
        }
        if call.is_of_device() {
            thread.made[usize::from(thread.nth)] = Made { after, after_settled, reply: None };
        }
        thread.todo.first(&[Step::Return]);
        thread.todo.first(&design.steps_of(call));
    }

    fn leave(&mut self, who: usize) {
        let call = self.this_call(who);
        let thread = &mut self.threads[who];
        let made = &mut thread.made[usize::from(thread.nth)];
        made.reply = thread.reply.take();
        if made.reply.is_some() {
            self.returned = self.returned.and(call);
        }
        thread.nth += 1;
        if thread.call().is_some() {
            thread.todo.first(&[Step::Enter]);
        } else {
            thread.opened = None;
        }
    }

    fn try_pci(&mut self, design: Design, who: usize) {
        if self.owner(Lock::Pci).is_some() {
            return self.reply(who, Reply::Errno(Errno::EAGAIN));
        }
        self.owners[Lock::Pci as usize] = Some(who as u8);
        self.then(who, &[Step::Unlock(Lock::Pci)]);
        self.then(who, &design.reset_done());
        self.reply(who, Reply::Ok);
    }

    fn arrive(&mut self, design: Design, who: usize) {
        self.arrived = self.arrived.and(self.this_call(who));
        let mutex = &mut self.owners[Lock::State as usize];
        let arrival = self.gate.arrive(|| {
            let free = mutex.is_none();
            *mutex = mutex.or(Some(who as u8));
            free
        });
        match arrival {
            Arrival::Locked => self.then(who, &design.exit()),
            Arrival::Deferred => {}
        }
        self.then(who, &[Step::Unlock(Lock::Gate)]);
    }

    fn gate_unlock(&mut self, design: Design, who: usize) {
        let mutex = &mut self.owners[Lock::State as usize];
        match self.gate.unlock(|| *mutex = None) {
            Unlock::ResetFirst => self.then(who, &design.reset_first()),
            Unlock::Released => self.then(who, &[Step::Unlock(Lock::Gate)]),
        }
    }

    fn arcs(&mut self, design: Design, who: usize, to: State) {
        if self.threads[who].reply.is_some() {
            return; // an arc has failed
        }
        let Ok(route) = Route::new(self.fsm.features(), self.fsm.state(), to) else {
            return self.reply(who, Reply::Errno(Errno::EINVAL));
        };
        let Some(arc) = route.arcs().next() else {
            let opened = self.threads[who].opened.map(|_epoch| SOME_FD);
            return self.reply(who, Reply::Fd(opened));
        };
        self.then(who, &[Step::Arcs(to)]);
        self.then(who, &design.walk(arc));
    }

    fn walk(&mut self, who: usize, to: State) {
        match self.fsm.set_state(to.into(), &mut self.memory).map_err(SetError::errno) {
            Ok(Some(_direction)) => self.threads[who].opened = self.fsm.session(),
            Ok(None) => {}
            Err(errno) => self.reply(who, Reply::Errno(errno)),
        }
    }

    fn read(&mut self, who: usize) -> Reply<u8> {
        let mut buf = [0];
        match self.with_fd(who, |fsm, epoch, memory| fsm.read(epoch, &mut buf, memory)) {
            Ok(0) if self.fsm.at_permanent_end() => Reply::EndOfStream(EndOfStream::Permanent),
            Ok(0) => Reply::EndOfStream(EndOfStream::Temporary),
            Ok(_one) => Reply::Bytes(buf[0]),
            Err(errno) => Reply::Errno(errno),
        }
    }

    fn put(&mut self, who: usize) -> Reply<u8> {
        let put = |fsm: &mut DeviceFsm, epoch, memory: &mut _| fsm.write(epoch, STREAM, memory);
        self.with_fd(who, put).map_or_else(Reply::Errno, Reply::Written)
    }

    fn with_fd<R>(
        &mut self,
        who: usize,
        on: impl FnOnce(&mut DeviceFsm, Epoch, &mut Memory<1>) -> Result<R, Errno>,
    ) -> Result<R, Errno> {
        let epoch = self.fd(who).ok_or(Errno::EBADF)?;
        on(&mut self.fsm, epoch, &mut self.memory)
    }
}
