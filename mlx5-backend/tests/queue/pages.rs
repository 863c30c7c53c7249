// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! The firmware asks for pages, and says other things, while there is something else to do.

use std::collections::HashSet;

use vfio_fsm_mlx5::command::{CommandError, Commands};
use vfio_fsm_mlx5::dma::DmaError;
use vfio_fsm_mlx5::layout::{EventType, Opcode};
use vfio_fsm_mlx5::queue::{Hca, Options};

use crate::fake::{Answer, Fake, command, options};

fn up(options: Options) -> (Fake, Hca<Fake>) {
    let fake = Fake::new().up();
    let hca = Hca::bring_up(fake.clone(), fake.dma.clone(), options).unwrap();
    (fake, hca)
}

/// M23: A command that asks for pages before it ends gets them, with every other entry of the queue
/// taken, from the thread that waits for it: nothing else is needed, and nothing waits for ever.
#[test]
fn a_command_that_needs_pages() {
    let (fake, hca) = up(options());
    let usual = fake.clone();
    fake.handle(move |seen| {
        match (seen.opcode(), seen.op_mod()) {
            (Opcode::LoadVhcaState, _) => {
                usual.request_pages(0, 500);
                return Answer::Hold;
            }
            (Opcode::SaveVhcaState, _) => return Answer::Hold,
            (Opcode::ManagePages, 1) => {
                let held = usual.held();
                assert_eq!(held.len(), 31);
                held.into_iter().for_each(|slot| usual.release(slot, &[]));
            }
            _ => {}
        }
        usual.usual(seen)
    });
    let saves: Vec<_> =
        (0..30).map(|_| hca.start(&command(Opcode::SaveVhcaState, 32), 16).unwrap()).collect();
    hca.execute(&command(Opcode::LoadVhcaState, 32), &mut [0; 16]).unwrap();
    assert_eq!((hca.pages_given(), fake.state.lock().pages.len()), (573, 573));
    for save in saves {
        hca.finish(save, &mut [0; 16]).unwrap();
    }
    fake.clone().up();
    hca.teardown().unwrap();
}

/// M23: So does whoever only looks whether a command is done, or only handles interrupts.
#[test]
fn pages_without_a_wait() {
    let (fake, hca) = up(options());
    let usual = fake.clone();
    fake.handle(move |seen| match seen.opcode() {
        Opcode::SaveVhcaState => Answer::Hold,
        _ => usual.usual(seen),
    });
    let save = hca.start(&command(Opcode::SaveVhcaState, 32), 16).unwrap();
    fake.request_pages(0, 1);
    assert!(!hca.is_done(&save));
    assert_eq!(hca.pages_given(), 74);
    fake.request_pages(4, 2);
    hca.queue().service();
    assert_eq!(hca.pages_given(), 76);
    assert_eq!(fake.seen().last().unwrap().word(8), 4, "for the function that asked");
    fake.release(0, &[]);
    hca.finish(save, &mut [0; 16]).unwrap();
}

/// M36: However many requests come at once, from however many threads they are noticed, each is
/// served once; no page is given twice.
#[test]
fn a_storm() {
    let (fake, hca) = up(options());
    let armed = fake.state.lock().armed.len();
    let before = fake.state.lock().pages.len();
    std::thread::scope(|scope| {
        for _ in 0..3 {
            let hca = &hca;
            scope.spawn(move || {
                for _ in 0..300 {
                    hca.execute(&command(Opcode::AllocPd, 16), &mut [0; 16]).unwrap();
                    hca.queue().service();
                }
            });
        }
        let (fake, hca) = (fake.clone(), &hca);
        scope.spawn(move || {
            for round in 1..=50 {
                // As many as the queue has room for, less than what may wait on our side.
                for request in 0..200 {
                    fake.request_pages(request % 3, 1);
                }
                // Until all of them are read and served: nobody else may be there any more to do it.
                let served = || fake.state.lock().pages.len() == before + 200 * round;
                while !(served() && fake.is_read(0x12)) {
                    hca.queue().service();
                    std::thread::yield_now();
                }
            }
        });
    });
    hca.queue().service();
    assert_eq!(hca.event_counts().pages, 10_000);
    assert_eq!(hca.take_page_failure(), None);
    let pages = fake.state.lock().pages.clone();
    assert_eq!(pages.len(), 10_073);
    assert_eq!(pages.iter().collect::<HashSet<_>>().len(), pages.len());
    let armed = fake.state.lock().armed[armed..].to_vec();
    let last = armed.iter().filter(|armed| *armed >> 24 == 0x12).max().unwrap();
    assert_eq!(last & 0xff_ffff, 10_000, "the firmware knows that they were read");
    hca.teardown().unwrap();
    assert_eq!(fake.dma.used(), 0);
}

/// M36: More requests than may wait stay in the firmware's queue, and are served all the same.
#[test]
fn more_than_may_wait() {
    let (fake, hca) = up(options());
    let (usual, mut first) = (fake.clone(), true);
    fake.handle(move |seen| {
        // By now all of the first are on our side, and only one is served.
        if std::mem::take(&mut first) {
            (0..200).for_each(|_| usual.request_pages(0, 1));
        }
        usual.usual(seen)
    });
    (0..256).for_each(|_| fake.request_pages(0, 1));
    hca.queue().service();
    hca.queue().service();
    assert_eq!(hca.pages_given(), 73 + 456);
}

/// M35: What passes the limit is refused to the firmware, which may then go on without, and it is
/// said; whatever else it asks for is still served.
#[test]
fn a_hungry_firmware() {
    let (fake, hca) = up(Options { page_limit: 100 * 4096, ..options() });
    fake.request_pages(0, 28);
    fake.request_pages(0, i32::MAX);
    fake.request_pages(0, 27);
    fake.request_pages(0, 1);
    hca.queue().service();
    assert_eq!(hca.pages_given(), 100);
    let asked: Vec<_> = fake.seen()[17..].iter().map(|s| (s.op_mod(), s.word(12))).collect();
    assert_eq!(asked, [(0, 0), (0, 0), (1, 27), (0, 0)]);
    let (used, limit) = (100 * 4096, 100 * 4096);
    let refused = CommandError::Dma(DmaError::Limit { asked: 4096, used, limit });
    assert_eq!(hca.take_page_failure(), Some(refused));
    assert_eq!(hca.take_page_failure(), None);
}

/// M35: Pages that the firmware does not take are free again, and those that it may have taken are
/// kept until it is disabled.
#[test]
fn pages_not_taken() {
    let (fake, hca) = up(options());
    let used = fake.dma.used();
    fake.handle(|_| Answer::status(3, 5));
    fake.request_pages(0, 40);
    hca.queue().service();
    assert_eq!((hca.pages_given(), fake.dma.used()), (73, used));
    assert!(matches!(hca.take_page_failure(), Some(CommandError::Status { .. })));
    fake.clone().up();
    hca.teardown().unwrap();

    let (fake, hca) =
        up(Options { command_timeout: Some(std::time::Duration::from_millis(3)), ..options() });
    fake.handle(|_| Answer::Hold);
    fake.request_pages(0, 40);
    hca.queue().service();
    assert!(matches!(hca.take_page_failure(), Some(CommandError::Timeout { .. })));
    assert_eq!(hca.pages_given(), 113);
}

/// M37: Pages come back when the firmware says so: those that are ours, once each, however many it
/// says.
#[test]
fn pages_come_back() {
    let (fake, hca) = up(options());
    fake.request_pages(0, 1000);
    hca.queue().service();
    fake.request_pages(0, -600);
    hca.queue().service();
    assert_eq!(hca.pages_given(), 473);
    assert_eq!(fake.state.lock().pages.len(), 473);

    // What it never had, what it gave back, and more than it was asked for.
    let mine = fake.state.lock().pages[0];
    fake.handle(move |_| {
        let mut output = vec![0; 16];
        output[8..12].fill(0xff);
        output.extend([mine, mine, 0xdead_0000].map(u64::to_be_bytes).concat());
        Answer::Output(output)
    });
    fake.request_pages(0, i32::MIN);
    hca.queue().service();
    assert_eq!(hca.pages_given(), 472);
}

/// M23: Answers are announced in the queue for commands, each once.
#[test]
fn answers_are_announced() {
    let (_fake, hca) = up(options());
    hca.queue().service();
    let before = hca.event_counts().commands;
    for _ in 0..700 {
        hca.execute(&command(Opcode::AllocPd, 16), &mut [0; 16]).unwrap();
    }
    hca.queue().service();
    assert_eq!(hca.event_counts().commands - before, 700);
}

/// M23: Other events are there for whoever asks, in order; too many are left out, and counted.
#[test]
fn other_events() {
    let (fake, hca) = up(options());
    for port in 0..3u8 {
        fake.post(0x09, &[port]);
        fake.post(0x27, &[0, 0, 0, 0x46, 0, 0, 0, port]);
    }
    hca.queue().service();
    for port in 0..3u8 {
        let change = hca.next_event().unwrap();
        assert_eq!((change.event_type, change.data[0]), (EventType::PortChange, port));
        let change = hca.next_event().unwrap();
        assert_eq!(change.event_type, EventType::ObjectChange);
        assert_eq!((change.data[3], change.data[7], change.data[27]), (0x46, port, 0));
    }
    assert_eq!(hca.next_event(), None);
    for _ in 0..20 {
        (0..200).for_each(|_| fake.post(0x09, &[7]));
        hca.queue().service();
    }
    let counts = hca.event_counts();
    assert_eq!((counts.others, counts.lost), (4006, 4000 - 1024));
    assert_eq!(std::iter::from_fn(|| hca.next_event()).count(), 1024);
}

/// M23: A doorbell of an event queue is a register of the page that ALLOC_UAR gave.
#[test]
fn where_doorbells_are() {
    use vfio_fsm_mlx5::bar::Registers;
    struct At(Fake, parking_lot::Mutex<Vec<usize>>);
    impl Registers for At {
        fn read32(&self, offset: usize) -> u32 {
            self.0.read32(offset)
        }
        fn write32(&self, offset: usize, value: u32) {
            self.1.lock().push(offset);
            self.0.write32(offset, value);
        }
    }
    let fake = Fake::new().up();
    let at = At(fake.clone(), parking_lot::Mutex::default());
    let hca = Hca::bring_up(at, fake.dma.clone(), options()).unwrap();
    let registers = hca.queue().registers();
    registers.1.lock().retain(|offset| *offset >= 0x1000);
    let rung = registers.1.lock().clone();
    assert!(rung.len() >= 3 && rung.iter().all(|offset| *offset == 9 * 4096 + 0x40));
}
