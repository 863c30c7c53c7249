// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! The calls that threads make, and what each is made of under each design.
//!
//! The lists of steps are to be read beside the driver: mlx5's `main.c`, unless they say otherwise.

use std::fmt;

use vfio_fsm_core::{Arc, Errno, Reply, SessionEffect, State};

use crate::locks::design::{Design, HandOff};
use crate::locks::step::Lock::{Buffers, File, Gate, Memory, Mmap, Pci, State as StateMutex};
use crate::locks::step::Step::{self, Lock, Unlock};

/// What a thread asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Call {
    Set(State),
    Get,
    Read,
    Write,
    Info,
    /// `VFIO_DEVICE_RESET`.
    Reset,
    /// By the host: `echo 1 > /sys/bus/pci/devices/…/reset`.
    HostReset,
    /// The device's last file is closed: no ioctl of it is under way or can begin.
    Close,
    /// The PF driver takes its VFs away (`MLX5_PF_NOTIFY_DISABLE_VF`).
    Detach,
    /// A page fault on the device's memory, or pinning it for DMA.
    Fault,
    /// The firmware has done a SAVE.
    Filled,
}

impl Call {
    pub(crate) const fn is_reset(self) -> bool {
        matches!(self, Self::Reset | Self::HostReset)
    }

    /// Whether it needs the device's file, which is gone when the device is closed.
    pub(crate) const fn is_on_device(self) -> bool {
        matches!(self, Self::Set(_) | Self::Get | Self::Reset)
    }

    /// Whether it is made by one thread at a time.
    pub(crate) const fn is_alone(self) -> bool {
        matches!(self, Self::Close | Self::Detach | Self::Filled)
    }

    /// Whether the device, as level 1 knows it, is asked at all.
    pub(crate) const fn is_of_device(self) -> bool {
        !matches!(self, Self::Fault | Self::Filled)
    }
}

impl fmt::Display for Call {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Set(to) => write!(f, "SET({to})"),
            call => f.write_str(match call {
                Self::Get => "GET",
                Self::Read => "read",
                Self::Write => "write",
                Self::Info => "PRECOPY_INFO",
                Self::Reset => "VFIO_DEVICE_RESET",
                Self::HostReset => "sysfs reset",
                Self::Close => "close",
                Self::Detach => "PF detach",
                Self::Fault => "page fault",
                _ => "SAVE done",
            }),
        }
    }
}

/// mmap_lock is held around a page fault, and the device's fault handler takes memory_lock.
const FAULT: [Step; 4] = [Lock(Mmap), Lock(Memory), Unlock(Memory), Unlock(Mmap)];

/// What has been copied becomes the device's.
const PUT: [Step; 3] = [Lock(Buffers), Step::Put, Unlock(Buffers)];

/// What a call is made of. What it does besides taking locks is in `World::run`.
impl Design {
    pub(crate) fn steps_of(self, call: Call) -> Vec<Step> {
        let (enter, exit) = (Lock(StateMutex), self.exit());
        let (file, file_end) = (Lock(File), Unlock(File));
        let steps: &[&[Step]] = match call {
            Call::Set(to) => &[&[enter, Step::Arcs(to)], &exit],
            Call::Get if self == Self::GetSkipsGate => &[&[enter, Step::Look, Unlock(StateMutex)]],
            Call::Get => &[&[enter, Step::Look], &exit],
            Call::Read => &[self.position(), &[file, Lock(Buffers), Step::Take]],
            // mlx5vf_resume_write() holds both mutexes, as it may load what is complete; hisi and
            // qat load on the arc, and hold that of the file alone.
            Call::Write if self.hand_off() == HandOff::Wait => {
                &[&[file], &FAULT, &PUT, &[file_end]]
            }
            Call::Write => &[self.room(), &[enter, file], &FAULT, &PUT, &[file_end], &exit],
            Call::Info if self == Self::PlainMutexCopies => {
                &[&[enter, file, Step::Info, file_end], &FAULT, &exit]
            }
            Call::Info => &[&[enter, file, Step::Info, file_end], &exit],
            // vfio_pci_ioctl_reset() and, unless that lock is taken, pci_try_reset_function()
            Call::Reset => &[&[Lock(Memory), Step::TryPci, Unlock(Memory)]],
            // pci_reset_function()
            Call::HostReset if self == Self::ResetsOverlap => &[&self.reset_done()],
            Call::HostReset => &[&[Lock(Pci)], &self.reset_done(), &[Unlock(Pci)]],
            Call::Close if self == Self::CloseUnlocked => &[&END, &self.farewell()],
            Call::Close if self == Self::MutexOfOpenFile => {
                &[&[enter], &END, &self.farewell(), &exit, &[Step::DestroyMutex]]
            }
            Call::Close => &[&[enter], &END, &self.farewell(), &exit],
            Call::Detach => &[&[enter], &END, &self.farewell(), &FLAGS, &exit],
            // vfio_pci_mmap_fault()
            Call::Fault => &[&FAULT],
            Call::Filled => &[&[Lock(Buffers), Step::Fill, Unlock(Buffers), Step::Wake]],
        };
        steps.concat()
    }

    /// `mlx5vf_save_read()` before it has its mutex.
    const fn position(self) -> &'static [Step] {
        match self {
            Self::PositionUnlocked => &[Step::AwaitData, Step::Peek],
            _ => &[Step::AwaitData],
        }
    }

    /// `qat_vf_resume_write()` before it has its mutex.
    const fn room(self) -> &'static [Step] {
        match self {
            Self::WritesUnchecked => &[Step::PeekRoom],
            _ => &[],
        }
    }

    /// And when it has seen whether there is something to copy.
    pub(crate) fn read_on(self, seen: Reply<u8>) -> Vec<Step> {
        let spin = if self == Self::WrongUnlock { Gate } else { Buffers };
        let copy: &[Step] = if matches!(seen, Reply::Bytes(_)) { &FAULT } else { &[] };
        let dead = seen == Reply::Errno(Errno::ENODEV);
        let file: &[Step] = match self {
            Self::DeadReadKeepsLock if dead => &[],
            _ => &[Unlock(File)],
        };
        [&[Unlock(spin)], copy, file].concat()
    }

    /// One arc; the session's file is locked if its reads may see the change.
    pub(crate) fn walk(self, arc: Arc) -> Vec<Step> {
        let walk = Step::Walk(arc.to());
        let locked = [Lock(File), Lock(Buffers), walk, Unlock(Buffers), Unlock(File)];
        match arc.session() {
            SessionEffect::None | SessionEffect::Opens(_) => vec![walk],
            SessionEffect::Keeps => locked.to_vec(),
            SessionEffect::Ends => [&locked[..], &self.farewell()].concat(),
        }
    }

    /// Behind the end of a session.
    fn farewell(self) -> Vec<Step> {
        if self == Self::NoWake { vec![Step::Free] } else { vec![Step::Wake, Step::Free] }
    }

    /// The reset handler: `mlx5vf_pci_aer_reset_done()`.
    pub(crate) fn reset_done(self) -> Vec<Step> {
        match self.hand_off() {
            HandOff::Gate => vec![Lock(Gate), Step::Arrive],
            HandOff::Wait => self.reset_by_waiting(),
            HandOff::Work => vec![Step::Schedule],
        }
    }

    /// Who takes state_mutex for a reset, as a handler or as a work item.
    pub(crate) fn reset_by_waiting(self) -> Vec<Step> {
        [&[Lock(StateMutex)], &self.carry_out()[..], &[Unlock(StateMutex)]].concat()
    }

    /// The reset itself, with state_mutex held.
    fn carry_out(self) -> Vec<Step> {
        let reset: &[Step] = match self {
            Self::ResetLocksFile | Self::PlainMutexLocksFile => {
                &[Lock(File), Step::CarryOut, Unlock(File)]
            }
            Self::ResetLocksNothing => &[Step::CarryOut],
            _ => &[Lock(Buffers), Step::CarryOut, Unlock(Buffers)],
        };
        [reset, &self.farewell()].concat()
    }

    /// How state_mutex is released: `mlx5vf_state_mutex_unlock()`.
    pub(crate) fn exit(self) -> Vec<Step> {
        match self.hand_off() {
            HandOff::Gate => vec![Lock(Gate), Step::GateUnlock],
            HandOff::Wait | HandOff::Work => vec![Unlock(StateMutex)],
        }
    }

    /// And when it found a note there.
    pub(crate) fn reset_first(self) -> Vec<Step> {
        let (reset, open) = (self.carry_out(), [Unlock(Gate)]);
        match self {
            Self::FreesUnderSpinLock => [&reset[..], &open, &self.exit()].concat(),
            Self::LooksOnce => [&open, &reset[..], &[Unlock(StateMutex)]].concat(),
            _ => [&open, &reset[..], &self.exit()].concat(),
        }
    }
}

/// The detached flag, as the compiler writes a bit.
const FLAGS: [Step; 2] = [Step::LoadFlags, Step::StoreFlags];

/// `mlx5vf_disable_fds()`
const END: [Step; 5] = [Lock(File), Lock(Buffers), Step::EndAll, Unlock(Buffers), Unlock(File)];
