// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! Every command of every arc fails, and the arc has then not happened.

use std::sync::Arc;

use vfio_fsm_core::device::Device;
use vfio_fsm_core::{Errno, Fd, Features, Op, Reply, State, arcs};
use vfio_fsm_mlx5::layout::{CommandStatus, Opcode};
use vfio_fsm_mlx5::stream;
use vfio_fsm_mlx5::vhca::Vhca;

use crate::double::{Double, Fault};

const REFUSED: Fault = Fault::Status(CommandStatus::InternalErr);
const FAULTS: [Fault; 5] = [REFUSED, Fault::Delivery, Fault::Start, Fault::Gone, Fault::Timeout];

struct Scene {
    double: Arc<Double>,
    device: Device<Vhca<Double>, 8>,
}

/// What must be as it was: state, suspended halves, tracking, domains and keys.
type Books = (State, bool, bool, bool, Vec<u32>, Vec<u32>);

impl Scene {
    fn at(state: State, chunks: bool) -> Self {
        let double = Double::new(chunks);
        if chunks {
            double.state().chunk = 4096;
        }
        let device = Device::new(Features::ALL, double.vhca());
        let mut scene = Self { double, device };
        match scene.set(state) {
            Reply::Fd(Some(fd)) if state == State::Resuming => scene.write(fd),
            Reply::Fd(_) => {}
            other => panic!("{other:?}"),
        }
        if state.is_pre_copy() {
            // The first image is there, so that what fails is the arc's own command.
            scene.info();
        }
        scene
    }

    fn set(&mut self, to: State) -> Reply<Vec<u8>> {
        self.device.apply(Op::set(to), &mut []).map(<[u8]>::to_vec)
    }

    fn info(&mut self) {
        let fd = self.device.fds().last().unwrap();
        let info = self.device.apply(Op::PrecopyInfo { fd }, &mut []);
        assert!(matches!(info, Reply::Info(_)), "{info:?}");
    }

    fn write(&mut self, fd: Fd) {
        let mut bytes = stream::fw_data(3).to_vec();
        bytes.extend(b"abc");
        let written = self.device.apply(Op::Write { fd, bytes: &bytes }, &mut []);
        assert_eq!(written, Reply::Written(bytes.len() as u32));
    }

    fn books(&self) -> Books {
        let state = self.double.state();
        let (pds, mkeys) = (state.pds.iter(), state.mkeys.keys());
        (
            self.device.fsm().state(),
            state.initiator,
            state.responder,
            state.tracked,
            pds.copied().collect(),
            mkeys.copied().collect(),
        )
    }
}

fn errno(fault: Fault) -> Errno {
    match fault {
        Fault::Status(_) | Fault::Start => Errno::EIO,
        Fault::Delivery => Errno(53),
        Fault::Gone => Errno::ENOTCONN,
        Fault::Timeout => Errno(110),
    }
}

/// M61, M62, R6, R8: whichever command of whichever arc fails, in whichever way: the arc has not
/// happened, halves that it suspended run again, domains and keys that it made are gone, and the
/// same arc succeeds at the next attempt. If the firmware does not answer, nobody knows, so ERROR.
#[test]
fn a_failed_command_undoes_its_arc() {
    let mut failed = 0;
    for chunks in [false, true] {
        for arc in arcs(Features::ALL) {
            for fault in FAULTS {
                failed += fail_each_command(arc.from(), arc.to(), fault, chunks);
            }
        }
    }
    assert_eq!(failed, 450, "so many commands were made to fail");
}

/// Returns how many commands there were.
fn fail_each_command(from: State, to: State, fault: Fault, chunks: bool) -> usize {
    let mut nth = 0;
    loop {
        let mut scene = Scene::at(from, chunks);
        let before = scene.books();
        scene.double.state().log.clear();
        scene.double.fail(nth, fault);
        let reply = scene.set(to);
        if scene.double.take_unused_fault() {
            assert!(matches!(reply, Reply::Fd(_)), "{from} -> {to}: {reply:?}");
            return nth;
        }
        nth += 1;
        let name = format!("{from} -> {to}, command {nth} {fault:?}, {:?}", scene.double.names());
        let opcode = {
            let state = scene.double.state();
            assert_eq!(state.violations, [""; 0], "{name}");
            state.log.iter().find(|sent| sent.error.is_some()).unwrap().opcode
        };
        let asynchronous = opcode == Opcode::SaveVhcaState
            && fault != Fault::Start
            && (!before.3 || to == State::StopCopy);
        if asynchronous || matches!(opcode, Opcode::DestroyMkey | Opcode::DeallocPd) {
            // The arc does not wait for the one, and cannot be undone when it comes to the other.
            assert!(matches!(reply, Reply::Fd(_)), "{name}: {reply:?}");
            continue;
        }
        assert_eq!(reply, Reply::Errno(errno(fault)), "{name}");
        if fault == Fault::Timeout {
            assert_eq!(scene.device.fsm().state(), State::Error, "{name}");
            assert!(scene.device.fsm().session().is_none(), "{name}");
            continue;
        }
        let (after, mut wanted) = (scene.books(), before.clone());
        if from.is_pre_copy() {
            // The buffer of a SAVE that failed may stay with the session, to be used again.
            wanted.5.clone_from(&after.5);
            assert!(after.5.len() <= before.5.len() + 1, "{name}");
        }
        assert_eq!(after, wanted, "{name}");
        let again = scene.set(to);
        assert!(matches!(again, Reply::Fd(_)), "{name}, again: {again:?}");
        assert_eq!(scene.double.state().violations, [""; 0], "{name}");
        go_home(&mut scene, &name);
    }
}

/// Back to RUNNING, with nothing left at the firmware.
fn go_home(scene: &mut Scene, name: &str) {
    if scene.device.fsm().state() == State::Resuming {
        let fd = scene.device.fds().last().unwrap();
        scene.write(fd);
    }
    let home = scene.set(State::Running);
    assert!(matches!(home, Reply::Fd(None)), "{name}, home: {home:?}");
    let none = Vec::new();
    assert_eq!(scene.books(), (State::Running, false, false, false, none.clone(), none), "{name}");
}

/// M62: an undo that fails as well leaves ERROR, and a reset takes everything back.
#[test]
fn an_undo_that_fails_is_an_error() {
    let mut scene = Scene::at(State::PreCopyP2p, false);
    scene.double.fail(1, REFUSED); // QUERY, behind SUSPEND(responder)
    scene.double.fail(2, REFUSED); // RESUME(responder)
    assert_eq!(scene.set(State::StopCopy), Reply::Errno(Errno::EIO));
    assert_eq!(scene.device.fsm().state(), State::Error);
    let books = scene.books();
    assert!(books.4.is_empty() && books.5.is_empty(), "{books:?}");
    assert_eq!(scene.device.apply(Op::Reset, &mut []), Reply::Ok);
    assert_eq!(scene.device.fsm().state(), State::Running);
}

/// M67: a key that the firmware does not take back keeps its memory, no session begins before it is
/// taken back, and the next one that begins finds nothing left.
#[test]
fn what_is_not_taken_back_is_kept_and_given_back_later() {
    for nth in 0..2 {
        let mut scene = Scene::at(State::StopCopy, false);
        let used = scene.double.dma_used();
        scene.double.fail(nth, REFUSED);
        assert_eq!(scene.set(State::Stop), Reply::Fd(None));
        let left = scene.books();
        assert_eq!(left.4.len() + left.5.len(), 2 - nth, "{nth}");
        assert_eq!(scene.double.dma_used() > 0, nth == 0, "of {used} bytes");

        let again = if nth == 0 { 2 } else { 1 };
        scene.double.fail(0, REFUSED);
        assert_eq!(scene.set(State::StopCopy), Reply::Errno(Errno::EBUSY), "{again} left");
        assert_eq!(scene.device.fsm().state(), State::Stop);

        assert!(matches!(scene.set(State::StopCopy), Reply::Fd(Some(_))));
        go_home(&mut scene, "after leftovers");
        assert_eq!(scene.double.dma_used(), 0);
        assert_eq!(scene.double.state().violations, [""; 0]);
    }
}
