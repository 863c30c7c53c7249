// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! An mlx5 virtual function that speaks the alphabet, from as many threads as want to.
//!
//! [`Mlx5Device`] is the core's [`Device`] over a [`Vhca`], under locks. What an op means, the core
//! decides; here is what threads add: who waits for what, and what a reset does to those who wait.
//!
//! # The locks
//!
//! | lock | what is done under it |
//! |---|---|
//! | state | every op but a reset: state, session, data_fds, and the commands to the firmware |
//! | gate | one method of [`ResetGate`], which may try the state lock or release it; how many resets are under way |
//! | SAVE | waiting for the one SAVE that is on its way, see [`PendingSave`] |
//!
//! A lock is only waited for by who holds none below it in this list, gate and SAVE being last:
//! under the gate nothing is waited for, and under SAVE only the firmware is. So no circle of
//! waiting can close.
//!
//! * **A reset waits for no lock of these** (C30). It resets the function, which ends a SAVE that is
//!   on its way; then it leaves its note at the gate. Whoever holds the state lock carries it out
//!   before letting go, and there is one way out. If nobody does, it takes the lock and is that
//!   holder itself.
//! * **A read waits without the state lock** (M71). It looks, under the lock, which SAVE it needs,
//!   lets go, waits for that SAVE, and looks again. A reset, a close or an arc that ends the session
//!   waits for the same SAVE, as its memory is not free before, so a reader is never left behind.
//!   SET and PRECOPY_INFO wait for a SAVE with the state lock held, as in the kernel's driver.
//! * **What outlasts a reset is reset again** (M72). A command that a SET sends while the function
//!   is being reset may reach the firmware behind that, and the VHCA of a device in RUNNING would
//!   stay suspended. So who carries a reset out resets the function once more if the VHCA has been
//!   changed while the reset was under way, be it by himself or by a holder before him. To the user
//!   that reset comes when the SET is done (C32), or, if it made the SET fail, before it (M140). The
//!   kernel's driver does not, and leaves such a function suspended.
//! * **Nobody sees a failure that only the reset explains** (M140). A command of a SET, a read or a
//!   PRECOPY_INFO that meets a VHCA which has just been reset fails. So an op whose command
//!   has failed looks whether a reset has come meanwhile, carries it out, and is done once more: as
//!   if it had come behind the reset. It waits at the gate for a reset of the function that is under
//!   way, which waits for nobody. The kernel's driver returns the errno.
//!
//! [`ResetGate`]: vfio_fsm_core::device::ResetGate
//!
//! The unit tests of this module have loom try every order of the calls against each other.

#[cfg(test)]
mod explore;
mod function;
mod lock;
mod port;
mod slip;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use vfio_fsm_core::device::{Device, Planted};
use vfio_fsm_core::{Direction, Errno, Fault, Fd, Features, Op, RawState, Reply};

use crate::command::Commands;
use crate::sync::{Condvar, Mutex};
use crate::vhca::{PendingSave, Vhca, VhcaError};

use lock::Gate;
use slip::Slip;

pub use function::Function;
pub use port::{NonBlocking, Shared};

/// How many data_fds a process can have open at a time.
const FDS: usize = 64;

/// An mlx5 virtual function as a device that migrates.
pub struct Mlx5Device<C: Commands, F> {
    function: F,
    /// Beside the state lock, because a reset must not wait to know.
    open: AtomicBool,
    gate: Mutex<Gate>,
    /// With the gate: a reset of the function has come to its end.
    reset_ended: Condvar,
    state: Mutex<Guarded<C>>,
    #[cfg(test)]
    slip: Option<Slip>,
}

/// What the state lock guards.
struct Guarded<C: Commands> {
    device: Device<Vhca<C>, FDS>,
    /// The VHCA has been changed by commands that a reset may have overtaken.
    in_doubt: bool,
    /// The function should have been reset, and that failed.
    owes_reset: bool,
}

/// Whether a read may wait for the firmware.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Wait {
    Yes,
    /// `O_NONBLOCK`.
    No,
}

impl<C: Commands, F: Function> Mlx5Device<C, F> {
    /// A device in RUNNING, open. mlx5 has all migration flags, [`Features::ALL`] (kernel:
    /// `mlx5vf_cmd_set_migratable()`); fewer are for a VMM that knows fewer.
    pub fn new(features: Features, vhca: Vhca<C>, function: F) -> Self {
        Self::with_bug(features, vhca, function, Planted::NONE)
    }

    /// The same with a bug of the core's in it: to show that a check can fail.
    pub fn with_bug(features: Features, vhca: Vhca<C>, function: F, planted: Planted) -> Self {
        let device = Device::with_bug(features, vhca, planted);
        Self {
            function,
            open: AtomicBool::new(true),
            gate: Mutex::new(Gate::default()),
            reset_ended: Condvar::default(),
            state: Mutex::new(Guarded { device, in_doubt: false, owes_reset: false }),
            #[cfg(test)]
            slip: None,
        }
    }

    /// What resets the function and is its guest's side.
    pub const fn function(&self) -> &F {
        &self.function
    }

    /// What went wrong with the VHCA last, in more words than an errno has.
    pub fn last_error(&self) -> Option<VhcaError> {
        self.with(|guarded| guarded.device.actions().last_error().copied())
    }

    /// Do one thing to the device. `buf` is where a read puts its bytes.
    ///
    /// Waits as a blocking file would.
    pub fn apply<'b>(&self, op: Op<&[u8]>, buf: &'b mut [u8]) -> Reply<&'b [u8]> {
        self.apply_waiting(op, buf, Wait::Yes)
    }

    /// The same device with data_fds that are `O_NONBLOCK`: `EAGAIN` where they would wait.
    pub const fn non_blocking(&self) -> NonBlocking<'_, C, F> {
        NonBlocking(self)
    }

    /// The physical function leaves its virtual functions, as when the host disables SR-IOV: the
    /// session ends, and until [`attach`](Self::attach) what needs the firmware is `ENOTCONN`.
    ///
    /// Source: the kernel's `mlx5fv_vf_event()`. That leaves the device_state as it is; here it
    /// becomes RUNNING, since no other state is without its session.
    pub fn detach(&self) {
        self.with(|guarded| {
            guarded.device.apply(Op::Reset, &mut []);
            guarded.device.actions().set_detached(true);
        });
    }

    /// The physical function is back.
    pub fn attach(&self) {
        self.with(|guarded| guarded.device.actions().set_detached(false));
    }

    fn apply_waiting<'b>(&self, op: Op<&[u8]>, buf: &'b mut [u8], wait: Wait) -> Reply<&'b [u8]> {
        let done = match op {
            Op::Read { fd, len } | Op::UringRead { fd, len } => {
                let room = buf.len().min(len as usize);
                return self.read(fd, &mut buf[..room], wait);
            }
            Op::SetState { to, fault } => return self.set_state(to, fault),
            Op::Reset => self.reset(),
            Op::Open => self.open(),
            Op::Close => self.close(),
            Op::Touch(value) => self.touch(value),
            op => {
                let act =
                    |guarded: &mut Guarded<C>| guarded.device.apply(op, &mut []).map(|_| &[][..]);
                return self.behind_resets(act);
            }
        };
        done.map_or_else(Reply::Errno, |()| Reply::Ok)
    }

    fn read<'b>(&self, fd: Fd, buf: &'b mut [u8], wait: Wait) -> Reply<&'b [u8]> {
        loop {
            let len = buf.len() as u32;
            let act = |guarded: &mut Guarded<C>| match guarded.awaited(fd) {
                Some(save) if len > 0 => {
                    if self.slips(Slip::ReadsUnderLock) {
                        save.wait();
                    }
                    Err(save)
                }
                _ => Ok(guarded.device.apply(Op::Read { fd, len }, buf).map(<[u8]>::len)),
            };
            let read = self.behind_resets(act);
            match read {
                Ok(reply) => return reply.map(|len| &buf[..len]),
                Err(_) if wait == Wait::No => return Reply::Errno(Errno::EAGAIN),
                Err(save) => save.wait(),
            }
        }
    }

    fn set_state<'b>(&self, to: RawState, fault: Option<Fault>) -> Reply<&'b [u8]> {
        let mut reset_inside = fault == Some(Fault::ResetInside);
        let fault = fault.filter(|_| !reset_inside);
        let act = |guarded: &mut Guarded<C>| {
            if let Err(errno) = self.pay_reset(guarded) {
                return Reply::Errno(errno);
            }
            let reply = guarded.device.apply(Op::SetState { to, fault }, &mut []).map(|_| &[][..]);
            if std::mem::take(&mut reset_inside)
                && let Err(errno) = self.reset_and_note()
            {
                return Reply::Errno(errno);
            }
            reply
        };
        self.behind_resets(act)
    }

    /// `VFIO_DEVICE_RESET`: never waits for the state lock (C30).
    fn reset(&self) -> Result<(), Errno> {
        if !self.open.load(Ordering::Acquire) {
            return Err(Errno::EBADF);
        }
        if self.slips(Slip::ResetWaits) {
            self.with(|_| ());
        }
        self.reset_and_tell()
    }

    fn open(&self) -> Result<(), Errno> {
        self.with(|guarded| {
            self.pay_reset(guarded)?;
            errno_of(guarded.device.apply(Op::Open, &mut []))?;
            self.open.store(true, Ordering::Release);
            Ok(())
        })
    }

    /// The session ends, and the function is reset for its next user: only so is it in RUNNING.
    fn close(&self) -> Result<(), Errno> {
        self.with(|guarded| {
            // The VHCA has to know, too, that it will not be suspended any more.
            errno_of(guarded.device.apply(Op::Reset, &mut []))?;
            errno_of(guarded.device.apply(Op::Close, &mut []))?;
            self.open.store(false, Ordering::Release);
            guarded.owes_reset = self.function.reset().is_err();
            Ok(())
        })
    }

    fn touch(&self, value: u8) -> Result<(), Errno> {
        if self.open.load(Ordering::Acquire) {
            self.function.touch(value)
        } else {
            Err(Errno::EBADF)
        }
    }

    fn pay_reset(&self, guarded: &mut Guarded<C>) -> Result<(), Errno> {
        if guarded.owes_reset {
            self.function.reset()?;
            guarded.owes_reset = false;
        }
        Ok(())
    }
}

impl<C: Commands> Guarded<C> {
    /// The SAVE that a read from this data_fd has to wait for.
    fn awaited(&self, fd: Fd) -> Option<Arc<PendingSave<C>>> {
        let saving = self.device.fds().get(fd)?.direction == Direction::Saving;
        if saving && self.device.is_live(fd) { self.device.actions().awaited() } else { None }
    }
}

fn errno_of(reply: Reply<&[u8]>) -> Result<(), Errno> {
    if let Reply::Errno(errno) = reply { Err(errno) } else { Ok(()) }
}
