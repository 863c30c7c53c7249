// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! What happens when there is no answer.

use std::time::Duration;

use vfio_fsm_core::Errno;
use vfio_fsm_mlx5::bar;
use vfio_fsm_mlx5::command::{CommandError, Commands};
use vfio_fsm_mlx5::layout::Opcode;
use vfio_fsm_mlx5::queue::{CommandQueue, GoneCause, Options};

use crate::fake::{Answer, Fake, command, options};

const SHORT: Duration = Duration::from_millis(4);

fn silent(options: Options, entries: u32) -> (Fake, CommandQueue<Fake>) {
    let fake = Fake::with_geometry(entries, 6);
    fake.handle(|_| Answer::Hold);
    let queue = CommandQueue::new(fake.clone(), fake.dma.clone(), options).unwrap();
    (fake, queue)
}

fn timeout(opcode: Opcode) -> CommandError {
    CommandError::Timeout { opcode, after: SHORT }
}

/// M24: A command without an answer ends, and its entry and its mailboxes are the firmware's until
/// the firmware gives them back: no later command gets them, and what comes late harms nobody.
#[test]
fn a_late_answer() {
    let (fake, queue) = silent(Options { command_timeout: Some(SHORT), ..options() }, 2);
    let late = queue.execute(&command(Opcode::SaveVhcaState, 600), &mut [0; 600]).unwrap_err();
    assert_eq!(late, timeout(Opcode::SaveVhcaState));
    assert_eq!(late.errno(), Errno(110));
    assert_eq!(queue.in_flight(), 1);

    // What the firmware may still read and write.
    let base = u64::from(fake.register(0x10)) << 32 | u64::from(fake.register(0x14));
    let owned = |fake: &Fake| {
        let (mut entry, mut bytes) = ([0; 64], Vec::new());
        fake.dma.read(base, &mut entry).unwrap();
        for pointer in [8, 0x30] {
            let mut next = u64::from_be_bytes(entry[pointer..pointer + 8].try_into().unwrap());
            while next != 0 {
                let mut block = [0; 576];
                fake.dma.read(next, &mut block).unwrap();
                bytes.extend(block);
                next = u64::from_be_bytes(block[0x230..0x238].try_into().unwrap());
            }
        }
        (entry, bytes)
    };
    let before = owned(&fake);
    fake.handle(|seen| Answer::Output(vec![0; seen.output_len]));
    for _ in 0..100 {
        queue.execute(&command(Opcode::QueryHcaCap, 900), &mut [0; 900]).unwrap();
        queue.execute(&command(Opcode::ManagePages, 900), &mut [0; 900]).unwrap();
    }
    assert!(fake.seen()[1..].iter().all(|seen| seen.slot != 0));
    assert_eq!(owned(&fake), before);

    fake.release(0, &[0; 600]);
    assert_eq!(queue.in_flight(), 0);
    queue.execute(&command(Opcode::AllocPd, 16), &mut [0; 16]).unwrap();
    assert_eq!(fake.seen().last().unwrap().slot, 0);
}

/// M24: With nothing but such commands in the queue, the next one ends in the same way, and not
/// later; once the firmware gives one back there is a place again.
#[test]
fn a_queue_full_of_late_answers() {
    let (fake, queue) = silent(Options { command_timeout: Some(SHORT), ..options() }, 1);
    for _ in 0..3 {
        let late = queue.execute(&command(Opcode::AllocPd, 16), &mut [0; 16]).unwrap_err();
        assert_eq!(late, timeout(Opcode::AllocPd));
    }
    assert_eq!(fake.seen().len(), 1, "the others did not get a place");
    fake.handle(|_| Answer::ok());
    fake.release(0, &[]);
    queue.execute(&command(Opcode::AllocPd, 16), &mut [0; 16]).unwrap();
}

/// M24: A ticket is done once it is late, and stays so.
#[test]
fn a_late_ticket_is_done() {
    let (fake, queue) = silent(Options { command_timeout: Some(SHORT), ..options() }, 5);
    let ticket = queue.start(&command(Opcode::SaveVhcaState, 32), 16).unwrap();
    while !queue.is_done(&ticket) {
        std::thread::yield_now();
    }
    assert!(queue.is_done(&ticket));
    assert_eq!(queue.finish(ticket, &mut [0; 16]), Err(timeout(Opcode::SaveVhcaState)));
    assert_eq!(fake.held(), [0]);
}

/// M29: Whoever waits is told when the function is gone, long before the command's time is over;
/// all that follow are told at once, and no doorbell rings any more.
#[test]
fn gone() {
    let unplugged = |fake: &Fake| fake.state.lock().unplugged = true;
    let disabled = |fake: &Fake| fake.set(bar::CMDQ_ADDRESS_LOW, 1 << 8);
    let reset = |fake: &Fake| fake.set(bar::CMDQ_ADDRESS_LOW, 7 << 8);
    let fatal = |fake: &Fake| {
        fake.set(bar::HEALTH_BUFFER + 0x38, 1 << 31);
        fake.set(bar::HEALTH_SYNDROME, 0x0008_0001);
    };
    let stuck = |fake: &Fake| fake.state.lock().alive_for = 0;
    type Happens<'a> = &'a dyn Fn(&Fake);
    let cases: [(Happens<'_>, GoneCause); 5] = [
        (&unplugged, GoneCause::Unplugged),
        (&disabled, GoneCause::Interface { state: 1 }),
        (&reset, GoneCause::Interface { state: 7 }),
        (&fatal, GoneCause::Fatal { syndrome: 0x0008_0001 }),
        (&stuck, GoneCause::Stuck { counter: 0, period: SHORT }),
    ];
    for (happens, cause) in cases {
        let hour = Some(Duration::from_secs(3600));
        let (fake, queue) =
            silent(Options { command_timeout: hour, health_period: SHORT, ..options() }, 2);
        // One cannot even get a place.
        let tickets: Vec<_> =
            (0..3).map(|_| queue.start(&command(Opcode::SaveVhcaState, 32), 16).unwrap()).collect();
        std::thread::scope(|scope| {
            let placeless = scope.spawn(|| queue.start(&command(Opcode::AllocPd, 16), 16));
            let waiting = scope.spawn(|| {
                let ticket = tickets.into_iter().next().unwrap();
                queue.finish(ticket, &mut [0; 16])
            });
            happens(&fake);
            assert_eq!(placeless.join().unwrap().map(drop), Err(CommandError::Gone));
            assert_eq!(waiting.join().unwrap(), Err(CommandError::Gone));
        });
        let seen = queue.gone().unwrap();
        match (seen, cause) {
            (GoneCause::Stuck { .. }, GoneCause::Stuck { .. }) => {}
            _ => assert_eq!(seen, cause),
        }
        let rung = fake.seen().len();
        let error = queue.execute(&command(Opcode::AllocPd, 16), &mut [0; 16]).unwrap_err();
        assert_eq!(error, CommandError::Gone);
        assert_eq!(error.errno(), Errno::ENOTCONN);
        assert_eq!(fake.seen().len(), rung);
    }
}

/// M29: A ticket that nobody waits for is done when the function is gone.
#[test]
fn a_ticket_of_a_gone_function() {
    let (fake, queue) = silent(options(), 5);
    let ticket = queue.start(&command(Opcode::SaveVhcaState, 32), 16).unwrap();
    assert!(!queue.is_done(&ticket));
    fake.state.lock().unplugged = true;
    assert!(queue.is_done(&ticket));
    assert_eq!(queue.finish(ticket, &mut [0; 16]), Err(CommandError::Gone));
}

/// M29: A firmware that works on something long is not taken for a dead one: its counter moves.
/// Neither is one that says something of its health, but asks for no reset.
#[test]
fn slow_is_not_gone() {
    let (fake, queue) = silent(Options { health_period: Duration::ZERO, ..options() }, 5);
    fake.set(bar::HEALTH_SYNDROME, 0x0008_0000);
    let ticket = queue.start(&command(Opcode::SaveVhcaState, 32), 16).unwrap();
    for _ in 0..2000 {
        assert!(!queue.is_done(&ticket));
    }
    fake.release(0, &[]);
    queue.finish(ticket, &mut [0; 16]).unwrap();
    assert_eq!(queue.gone(), None);
}
