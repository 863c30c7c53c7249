// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! A device in memory that can be looked at while a session has it, and a VMM without a guest.

use std::cell::RefCell;
use std::rc::Rc;

use vfio_fsm_core::device::{Device, Memory};
use vfio_fsm_core::vmm::frame::Limits;
use vfio_fsm_core::vmm::{Event, Guest, Hook, Plan, Port, Verdict};
use vfio_fsm_core::{Fd, Features, Op, Reply, State};
use vfio_fsm_kernel::session::{Interest, Standing, Vmm};

pub(crate) const COMPAT: &str = "registers";
pub(crate) const LIMITS: Limits = Limits { max_data: 4 };
pub(crate) const COMPLETE: Verdict = Verdict::Complete { guest: Guest::Intact };

/// Chunks of four bytes, so that a record takes several.
pub(crate) const fn plan() -> Plan {
    Plan { chunk: 4, ..Plan::LIVE }
}

pub(crate) type Registers = Device<Memory<9>, 4>;

pub(crate) fn registers(features: Features, value: u8) -> Registers {
    let mut device = Registers::new(features, Memory::new());
    assert_eq!(device.apply(Op::Touch(value), &mut []), Reply::Ok);
    device
}

/// A device that a session and its test have in common.
#[derive(Clone)]
pub(crate) struct Shared(Rc<RefCell<Registers>>);

impl Shared {
    pub(crate) fn new(features: Features, value: u8) -> Self {
        Self(Rc::new(RefCell::new(registers(features, value))))
    }

    /// R10: it is there, and no data_fd is open.
    pub(crate) fn ends(&self, state: State) {
        let device = self.0.borrow();
        assert_eq!((device.fsm().state(), device.fds().open().count()), (state, 0));
    }

    pub(crate) fn value(&self) -> u8 {
        self.0.borrow().actions().registers()[8]
    }
}

impl Port for Shared {
    type Fd = Fd;

    fn apply<'b>(&mut self, op: Op<&[u8], &Fd>, buf: &'b mut [u8]) -> Reply<&'b [u8]> {
        self.0.borrow_mut().apply(op.map_fd(|fd| *fd), buf)
    }
}

/// Does nothing, at once.
pub(crate) struct NoGuest;

impl Vmm for NoGuest {
    fn hook(&mut self, _hook: Hook) -> bool {
        true
    }

    fn wait(&mut self, interest: &Interest, standing: &Standing) -> Option<Event> {
        match interest {
            Interest::Switchover => standing.left.ready.then_some(Event::Switchover),
            Interest::Run => Some(Event::Run),
            _ => None,
        }
    }
}
