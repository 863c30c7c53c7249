// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! What a thread does next: locks, steps, and the stack of steps that are still to be done.

use std::fmt;

use vfio_fsm_core::State;

/// A lock, in the order in which locks may be waited for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Lock {
    /// The driver's mutex around device_state and session.
    State,
    /// The mutex of a data_fd's file: `migf->lock` in mlx5.
    File,
    /// The lock of the VMM's address space; a copy from or to the user that faults takes it.
    Mmap,
    /// vfio-pci's lock around the device's memory: a page fault on it, and `VFIO_DEVICE_RESET`.
    Memory,
    /// The PCI core's device lock.
    Pci,
    /// The driver's spin lock around the reset gate: `reset_lock` in mlx5.
    Gate,
    /// The spin lock of a data_fd's buffers: `list_lock` in mlx5.
    Buffers,
}

impl Lock {
    /// Every lock, in their order.
    pub const ALL: [Self; 7] =
        [Self::State, Self::File, Self::Mmap, Self::Memory, Self::Pci, Self::Gate, Self::Buffers];

    /// Its name in the kernel.
    pub const fn name(self) -> &'static str {
        match self {
            Self::State => "state_mutex",
            Self::File => "migf->lock",
            Self::Mmap => "mmap_lock",
            Self::Memory => "memory_lock",
            Self::Pci => "device_lock",
            Self::Gate => "reset_lock",
            Self::Buffers => "list_lock",
        }
    }

    /// Whether who holds it must not sleep.
    pub(crate) const fn is_spin(self) -> bool {
        matches!(self, Self::Gate | Self::Buffers)
    }
}

impl fmt::Display for Lock {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// One step: everything that it does happens at once, and anything may happen before the next.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Step {
    /// The call begins.
    Enter,
    /// And returns.
    Return,
    /// Take a lock, and wait for it if it is held.
    Lock(Lock),
    Unlock(Lock),
    /// The PCI core's lock, or `EAGAIN`.
    TryPci,
    /// Under the gate's spin lock: `ResetGate::arrive`.
    Arrive,
    /// Under the gate's spin lock: `ResetGate::unlock`.
    GateUnlock,
    /// `schedule_work`.
    Schedule,
    /// The next arc on the way, if there is one.
    Arcs(State),
    /// `DeviceFsm::set_state`, by one arc.
    Walk(State),
    /// `DeviceFsm::reset`.
    CarryOut,
    /// `DeviceFsm::close`.
    EndAll,
    /// Wake who sleeps until there is something to read, or nothing more to expect.
    Wake,
    /// Free the files and buffers of a session that is over; may sleep.
    Free,
    /// Read the word that `detached` is in, and perhaps the note of the gate.
    LoadFlags,
    /// Write it back with `detached` set.
    StoreFlags,
    /// `device_state`.
    Look,
    /// `DeviceFsm::precopy_info`.
    Info,
    /// Sleep until there is something to read, or nothing more to expect.
    AwaitData,
    /// What the next `read` would give.
    Peek,
    /// What `write` would answer.
    PeekRoom,
    /// The end of state_mutex itself.
    DestroyMutex,
    /// `DeviceFsm::read`.
    Take,
    /// `DeviceFsm::write`.
    Put,
    /// The firmware's SAVE has filled its buffer.
    Fill,
}

impl fmt::Display for Step {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Lock(lock) => write!(f, "takes {lock}"),
            Self::Unlock(lock) => write!(f, "releases {lock}"),
            Self::Walk(to) => write!(f, "moves the device to {to}"),
            Self::Arcs(to) => write!(f, "looks for the next arc to {to}"),
            step => f.write_str(match step {
                Self::Enter => "begins",
                Self::Return => "returns",
                Self::TryPci => "tries device_lock",
                Self::Arrive => "leaves a note and tries state_mutex",
                Self::GateUnlock => "looks for a note before releasing state_mutex",
                Self::Schedule => "schedules the work item",
                Self::CarryOut => "carries the reset out",
                Self::EndAll => "ends the session",
                Self::Wake => "wakes the readers",
                Self::Free => "frees files and buffers",
                Self::LoadFlags => "loads the flags",
                Self::StoreFlags => "stores the flags, detached set",
                Self::Look => "looks at the state",
                Self::Info => "looks at what is left",
                Self::AwaitData => "looks whether there is something to read",
                Self::Peek => "looks at the position",
                Self::PeekRoom => "looks whether there is room",
                Self::DestroyMutex => "destroys state_mutex",
                Self::Take => "takes a byte",
                Self::Put => "puts bytes",
                Self::Fill => "fills the buffer",
                _ => "",
            }),
        }
    }
}

/// The most steps that a thread ever has before it.
const MOST: usize = 20;

/// The steps before a thread: the future of it and nothing of its past, so that threads that will
/// do the same are the same.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) struct Todo {
    steps: [Option<Step>; MOST],
    len: u8,
}

impl Todo {
    pub(crate) const NOTHING: Self = Self { steps: [None; MOST], len: 0 };

    pub(crate) fn next(&self) -> Option<Step> {
        self.steps[..usize::from(self.len)].last().copied().flatten()
    }

    pub(crate) fn pop(&mut self) -> Option<Step> {
        let last = self.len.checked_sub(1)?;
        self.len = last;
        self.steps[usize::from(last)].take()
    }

    /// These, and then what was to be done before.
    pub(crate) fn first(&mut self, steps: &[Step]) {
        for &step in steps.iter().rev() {
            self.steps[usize::from(self.len)] = Some(step);
            self.len += 1;
        }
    }
}

impl fmt::Debug for Todo {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list().entries(self.steps.iter().rev().flatten()).finish()
    }
}
