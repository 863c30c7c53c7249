// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! How commands end, and that they do not get into each other's way.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use vfio_fsm_core::Errno;
use vfio_fsm_mlx5::command::{CommandError, Commands};
use vfio_fsm_mlx5::layout::{CommandStatus, DeliveryStatus, Opcode};
use vfio_fsm_mlx5::queue::CommandQueue;

use crate::fake::{Answer, Fake, command, options};

fn queue(fake: &Fake) -> CommandQueue<Fake> {
    CommandQueue::new(fake.clone(), fake.dma.clone(), options()).unwrap()
}

/// M25: Every delivery status, known or not, comes out as one, with the kernel's errno, and nothing
/// of the output is believed.
#[test]
fn each_delivery_status() {
    let errnos = [
        (1, 53),
        (2, 53),
        (3, 14),
        (4, 14),
        (5, 14),
        (6, 5),
        (7, 42),
        (8, 42),
        (9, 42),
        (0x10, 42),
        (0x0a, 22),
        (0x7f, 22),
    ];
    let fake = Fake::new();
    let queue = queue(&fake);
    for (number, errno) in errnos {
        fake.handle(move |_| Answer::Delivery(number));
        let mut output = [0x77; 64];
        let error = queue.execute(&command(Opcode::LoadVhcaState, 32), &mut output).unwrap_err();
        let (opcode, status) = (Opcode::LoadVhcaState, DeliveryStatus::from(number));
        assert_eq!(error, CommandError::Delivery { opcode, status });
        assert_eq!(error.errno(), Errno(errno), "{error}");
        assert_eq!(output, [0x77; 64]);
    }
    assert_eq!(queue.in_flight(), 0);
}

/// M26: Every command status comes out as one, with the syndrome and the kernel's errno, and the
/// output is there to be read.
#[test]
fn each_command_status() {
    let errnos = [
        (1, 5),
        (2, 22),
        (3, 22),
        (4, 5),
        (5, 22),
        (6, 16),
        (7, 11),
        (8, 12),
        (9, 22),
        (0xa, 22),
        (0xf, 11),
        (0x10, 22),
        (0x30, 22),
        (0x40, 22),
        (0x50, 5),
        (0x51, 5),
        (0x0b, 5),
        (0xff, 5),
    ];
    let fake = Fake::new();
    let queue = queue(&fake);
    for (number, errno) in errnos {
        fake.handle(move |_| match Answer::status(number, 0x8badf00d) {
            Answer::Output(mut output) => {
                output.extend([9; 20]);
                Answer::Output(output)
            }
            other => other,
        });
        let mut output = [0x77; 32];
        let error = queue.execute(&command(Opcode::SaveVhcaState, 32), &mut output).unwrap_err();
        let status = CommandStatus::from(number);
        let opcode = Opcode::SaveVhcaState;
        assert_eq!(error, CommandError::Status { opcode, status, syndrome: 0x8badf00d });
        assert_eq!(error.errno(), Errno(errno), "{error}");
        assert_eq!((output[0], output[8], output[27], output[28]), (number, 9, 9, 0));
    }
}

/// M22: The last entry is for MANAGE_PAGES, and for nothing else: with all others taken it still
/// gets through, and a command that is no MANAGE_PAGES waits.
#[test]
fn the_last_entry_is_for_pages() {
    let fake = Fake::with_geometry(2, 6);
    fake.handle(|seen| match seen.opcode() {
        Opcode::ManagePages => Answer::ok(),
        _ => Answer::Hold,
    });
    let queue = queue(&fake);
    let tickets: Vec<_> =
        (0..3).map(|_| queue.start(&command(Opcode::SaveVhcaState, 32), 16).unwrap()).collect();
    queue.execute(&command(Opcode::ManagePages, 16), &mut [0; 16]).unwrap();
    let slots: Vec<_> = fake.seen().iter().map(|seen| seen.slot).collect();
    assert_eq!(slots, [0, 1, 2, 3]);

    std::thread::scope(|scope| {
        let waiting = scope.spawn(|| queue.execute(&command(Opcode::AllocPd, 16), &mut [0; 16]));
        // It cannot have got anywhere, whenever we look.
        queue.execute(&command(Opcode::ManagePages, 16), &mut [0; 16]).unwrap();
        assert!(!fake.opcodes().contains(&Opcode::AllocPd));
        fake.handle(|_| Answer::ok());
        fake.release(1, &[]);
        waiting.join().unwrap().unwrap();
    });
    assert_eq!(fake.seen().last().unwrap().slot, 1);
    for slot in [0, 2] {
        fake.release(slot, &[]);
    }
    for ticket in tickets {
        queue.finish(ticket, &mut [0; 16]).unwrap();
    }
}

/// M27: Commands of many threads all arrive and each gets its own answer, while a SAVE is on its
/// way all the time.
#[test]
fn many_threads() {
    let fake = Fake::with_geometry(3, 6);
    let save_done = Arc::new(AtomicUsize::new(0));
    fake.handle(|seen| match seen.opcode() {
        Opcode::SaveVhcaState => Answer::Hold,
        _ => {
            let mut output = seen.input.clone();
            output[..8].fill(0);
            Answer::Output(output)
        }
    });
    let queue = queue(&fake);
    let save = queue.start(&command(Opcode::SaveVhcaState, 32), 16).unwrap();
    std::thread::scope(|scope| {
        for thread in 0..8u8 {
            let queue = &queue;
            let done = save_done.clone();
            scope.spawn(move || {
                for round in 0..200u8 {
                    let len = 16 + usize::from(round) * 7;
                    let mut input = command(Opcode::QueryVhcaMigrationState, len);
                    (input[8], input[9], input[len - 1]) = (thread, round, thread ^ round);
                    let mut output = vec![0; len];
                    queue.execute(&input, &mut output).unwrap();
                    assert_eq!(output[8..], input[8..]);
                    done.fetch_add(1, Ordering::Relaxed);
                }
            });
        }
    });
    assert_eq!(save_done.load(Ordering::Relaxed), 1600);
    assert!(!queue.is_done(&save));
    fake.release(0, &[]);
    assert!(queue.is_done(&save) && queue.is_done(&save));
    queue.finish(save, &mut [0; 16]).unwrap();
    assert_eq!(queue.in_flight(), 0);
}

/// M28: A command whose ticket was dropped keeps its entry and its memory until the firmware is
/// done, and not longer.
#[test]
fn a_dropped_ticket() {
    let fake = Fake::with_geometry(1, 6);
    fake.handle(|_| Answer::Hold);
    let queue = queue(&fake);
    drop(queue.start(&command(Opcode::SaveVhcaState, 32), 16).unwrap());
    assert_eq!(queue.in_flight(), 1);
    fake.handle(|_| Answer::ok());
    fake.release(0, &[]);
    assert_eq!(queue.in_flight(), 0);
    for _ in 0..100 {
        queue.execute(&command(Opcode::SaveVhcaState, 32), &mut [0; 16]).unwrap();
    }
    let used = fake.dma.used();
    assert!(used <= 4096 + 64 * 1024, "{used} bytes for one command at a time");
}

/// M31: The device has to have a queue that can be used, of the interface that is known.
#[test]
fn not_a_queue() {
    use vfio_fsm_mlx5::bar;
    use vfio_fsm_mlx5::queue::{GoneCause, Options, QueueError};
    let new = |fake: &Fake, options| {
        CommandQueue::new(fake.clone(), fake.dma.clone(), options).map(drop).unwrap_err()
    };
    for (log_entries, log_stride) in [(0, 6), (6, 6), (5, 8), (5, 5), (15, 15)] {
        let fake = Fake::with_geometry(log_entries, log_stride);
        let error = new(&fake, options());
        assert!(matches!(error, QueueError::Geometry { .. }), "{error}");
        assert_eq!(fake.dma.used(), 0);
    }
    let fake = Fake::new();
    fake.set(bar::CMDIF_REV, 4 << 16 | 5);
    assert_eq!(new(&fake, options()), QueueError::Revision { seen: 4 });

    let fake = Fake::new();
    fake.set(bar::INITIALIZING, 1 << 31);
    let after = std::time::Duration::from_millis(3);
    let impatient = Options { init_timeout: after, ..options() };
    assert_eq!(new(&fake, impatient), QueueError::NotReady { after });
    fake.state.lock().unplugged = true;
    assert_eq!(new(&fake, impatient), QueueError::Gone(GoneCause::Unplugged));
}

/// M24: The time a command may take is the user's, or else the firmware's, or else 60 s.
#[test]
fn whose_timeout() {
    use std::time::Duration;
    use vfio_fsm_mlx5::bar;
    let cases = [
        (0, 60_000),
        (0x0000_1388, 5_000),
        (0x2000_0007, 7_000),
        (0x4000_0002, 120_000),
        (0x6000_0001, 3_600_000),
        (0x2000_0000, 60_000),
        (0x0010_0001, 1),
    ];
    for (register, millis) in cases {
        let fake = Fake::new();
        fake.set(bar::COMMAND_TIMEOUT, register);
        let default = vfio_fsm_mlx5::queue::Options::default();
        let queue = CommandQueue::new(fake.clone(), fake.dma.clone(), default).unwrap();
        assert_eq!(queue.command_timeout(), Duration::from_millis(millis), "{register:#x}");
        let fake = Fake::new();
        fake.set(bar::COMMAND_TIMEOUT, register);
        let queue = CommandQueue::new(fake.clone(), fake.dma.clone(), options()).unwrap();
        assert_eq!(Some(queue.command_timeout()), options().command_timeout);
    }
}
