// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! A function comes up in the kernel's order, and goes down again whatever happened.

use std::time::Duration;

use vfio_fsm_mlx5::command::{CommandError, Commands};
use vfio_fsm_mlx5::layout::{CommandStatus, Opcode};
use vfio_fsm_mlx5::queue::{GoneCause, Hca, HcaError, Options};

use crate::fake::{Answer, CAP_BYTE, Fake, Seen, command, options};

const UP: [Opcode; 18] = [
    Opcode::EnableHca,
    Opcode::QueryIssi,
    Opcode::SetIssi,
    Opcode::QueryPages,
    Opcode::ManagePages,
    Opcode::AccessReg,
    Opcode::QueryHcaCap,
    Opcode::QueryHcaCap,
    Opcode::SetHcaCap,
    Opcode::QueryPages,
    Opcode::ManagePages,
    Opcode::InitHca,
    Opcode::QueryHcaCap,
    Opcode::AllocUar,
    Opcode::CreateEq,
    Opcode::CreateEq,
    Opcode::CreateEq,
    Opcode::AllocPd,
];

const DOWN: [Opcode; 7] = [
    Opcode::DestroyEq,
    Opcode::DestroyEq,
    Opcode::DestroyEq,
    Opcode::DeallocUar,
    Opcode::TeardownHca,
    Opcode::ManagePages,
    Opcode::DisableHca,
];

fn up(fake: &Fake) -> Result<Hca<Fake>, HcaError> {
    Hca::bring_up(fake.clone(), fake.dma.clone(), options())
}

/// M32: The commands are those of the kernel's driver, in its order, with the pages that were asked
/// for, ISSI 1, and capabilities that differ from those in use by what the driver needs.
#[test]
fn the_order_of_bring_up() {
    let fake = Fake::new().up();
    let hca = up(&fake).unwrap();
    hca.execute(&command(Opcode::AllocPd, 16), &mut [0; 16]).unwrap();
    assert_eq!(fake.opcodes(), UP);
    assert_eq!(hca.pages_given(), 73);

    let seen = fake.seen();
    assert_eq!((seen[3].op_mod(), seen[9].op_mod()), (1, 2), "boot pages, then init pages");
    assert_eq!((seen[4].word(12), seen[10].word(12)), (3, 70));
    assert_eq!(seen[2].word(8), 1, "ISSI 1");
    assert_eq!((seen[5].word(8), seen[5].op_mod(), seen[5].input.len()), (0x7004, 0, 32));
    assert_eq!((seen[6].op_mod(), seen[7].op_mod(), seen[12].op_mod()), (0, 1, 1));
    let mut set = vec![CAP_BYTE; 4096];
    set[0x42] &= 0x3f;
    set[0x92..0x94].fill(0);
    assert_eq!(seen[8].input[16..], set, "cmdif_checksum and log_uar_page_sz are 0");
    assert_eq!(hca.capabilities().cmd_hca_cap().vhca_id(), 0x5a5a);

    let masks: Vec<u64> = seen[14..17]
        .iter()
        .map(|seen| u64::from(seen.word(0x58)) << 32 | u64::from(seen.word(0x5c)))
        .collect();
    assert_eq!(masks[0], 1 << 0x0a);
    assert_eq!(masks[2], 1 << 0x0b);
    assert_eq!(masks.iter().sum::<u64>(), masks.iter().fold(0, |all, mask| all | mask));
    for create in &seen[14..17] {
        assert_eq!(create.word(0x1c) & 0xff_ffff, 9, "the doorbell page");
        assert_eq!(create.input.len(), 0x110 + 8 * 4);
    }
    let mut armed = fake.state.lock().armed.clone();
    armed.retain(|armed| armed & 0xff_ffff == 0);
    assert_eq!(armed, [0x1000_0000, 0x1100_0000, 0x1200_0000]);
}

/// M34: A function goes down in the kernel's order, and then nothing is left: no pages, no event
/// queues, no memory. What it is asked to do afterwards fails.
#[test]
fn the_order_of_teardown() {
    for dropped in [false, true] {
        let fake = Fake::new().up();
        let hca = up(&fake).unwrap();
        let before = fake.seen().len();
        let numbers: Vec<u8> = fake.state.lock().event_queues.keys().copied().collect();
        if dropped {
            drop(hca);
        } else {
            hca.teardown().unwrap();
        }
        assert_eq!(fake.opcodes()[before..], DOWN);
        let down = &fake.seen()[before..];
        let mut destroyed: Vec<u8> = down[..3].iter().map(|seen| seen.input[11]).collect();
        destroyed.reverse();
        assert_eq!(destroyed, numbers);
        assert_eq!(down[3].word(8), 9, "the doorbell page");
        assert_eq!((down[5].op_mod(), down[5].word(12)), (2, 73));
        assert_eq!(fake.dma.used(), 0);
        assert!(fake.state.lock().pages.is_empty());
    }
}

/// M33: Whichever command of bring-up fails, the firmware is left as it was found: what was given is
/// taken back, what was enabled is disabled, and no memory is left.
#[test]
fn a_bring_up_that_fails() {
    for failing in 0..UP.len() - 1 {
        let fake = Fake::new().up();
        let usual = fake.clone();
        let mut count = 0;
        fake.handle(move |seen| {
            count += 1;
            if count == failing + 1 { Answer::status(3, 77) } else { usual.usual(seen) }
        });
        let error = up(&fake).map(drop).unwrap_err();
        let opcode = UP[failing];
        let status = CommandStatus::BadParam;
        let expected = CommandError::Status { opcode, status, syndrome: 77 };
        assert_eq!(error, HcaError::Command(expected));

        let seen = fake.seen();
        let undone: Vec<Opcode> = seen[failing + 1..].iter().map(Seen::opcode).collect();
        let (pages, initialised) = (failing > 4, failing > 11);
        let queues = failing.saturating_sub(14).min(3);
        let expected: Vec<Opcode> = DOWN
            .into_iter()
            .skip(3 - queues)
            .filter(|down| match down {
                Opcode::DeallocUar => failing > 13,
                Opcode::TeardownHca => initialised,
                Opcode::ManagePages => pages,
                Opcode::DisableHca => failing > 0,
                _ => true,
            })
            .collect();
        assert_eq!(undone, expected, "after {opcode} failed");
        assert!(fake.state.lock().pages.is_empty(), "after {opcode} failed");
        assert_eq!(fake.dma.used(), 0);
    }
}

/// M32: A firmware from before there were interface versions comes up, too.
#[test]
fn no_issi() {
    let fake = Fake::new().up();
    let usual = fake.clone();
    fake.handle(move |seen| match seen.opcode() {
        Opcode::QueryIssi => Answer::status(2, 0),
        _ => usual.usual(seen),
    });
    up(&fake).unwrap().teardown().unwrap();
    assert!(!fake.opcodes().contains(&Opcode::SetIssi));
}

/// M34: A firmware that keeps pages is disabled all the same, and it is said.
#[test]
fn pages_that_are_kept() {
    let fake = Fake::new().up();
    let hca = up(&fake).unwrap();
    fake.state.lock().pages.truncate(60);
    assert_eq!(hca.teardown(), Err(HcaError::PagesLeft { left: 13 }));
    assert_eq!(fake.opcodes().last(), Some(&Opcode::DisableHca));
    assert_eq!(fake.dma.used(), 0);
}

/// M34: The way down goes on after a refusal, and says the first one; with no answers, or without
/// the function, it ends there.
#[test]
fn a_teardown_that_fails() {
    for (refused, error) in [(Opcode::DestroyEq, 0), (Opcode::TeardownHca, 4)] {
        let fake = Fake::new().up();
        let hca = up(&fake).unwrap();
        let before = fake.seen().len();
        let usual = fake.clone();
        fake.handle(move |seen| match seen.opcode() {
            opcode if opcode == refused => Answer::status(6, 1),
            _ => usual.usual(seen),
        });
        let status = CommandStatus::ResBusy;
        let expected = CommandError::Status { opcode: DOWN[error], status, syndrome: 1 };
        assert_eq!(hca.teardown(), Err(HcaError::Command(expected)));
        assert_eq!(fake.opcodes()[before..], DOWN);
        assert_eq!(fake.dma.used(), 0);
    }

    let fake = Fake::new().up();
    let after = Duration::from_millis(5);
    let hurried = Options { command_timeout: Some(after), ..options() };
    let hca = Hca::bring_up(fake.clone(), fake.dma.clone(), hurried).unwrap();
    let before = fake.seen().len();
    fake.handle(|_| Answer::Hold);
    let expected = CommandError::Timeout { opcode: Opcode::DestroyEq, after };
    assert_eq!(hca.teardown(), Err(HcaError::Command(expected)));
    assert_eq!(fake.seen().len(), before + 1);

    let fake = Fake::new().up();
    let hca = up(&fake).unwrap();
    let before = fake.seen().len();
    fake.state.lock().unplugged = true;
    let ticket = hca.start(&command(Opcode::AllocPd, 16), 16).unwrap();
    fake.handle(|_| Answer::Hold);
    let _ = hca.finish(ticket, &mut [0; 16]);
    while hca.queue().gone().is_none() {
        let ticket = hca.start(&command(Opcode::AllocPd, 16), 16).unwrap();
        assert_eq!(hca.finish(ticket, &mut [0; 16]), Err(CommandError::Gone));
    }
    assert_eq!(hca.queue().gone(), Some(GoneCause::Unplugged));
    assert_eq!(hca.teardown(), Err(HcaError::Command(CommandError::Gone)));
    assert!(!fake.opcodes()[before..].contains(&Opcode::DestroyEq));
    assert_eq!(fake.dma.used(), 0);
}

/// M34: The way down begins when the last command is done.
#[test]
fn a_teardown_waits() {
    let fake = Fake::new().up();
    let hca = up(&fake).unwrap();
    let before = fake.seen().len();
    let usual = fake.clone();
    fake.handle(move |seen| match seen.opcode() {
        Opcode::SaveVhcaState => Answer::Hold,
        _ => usual.usual(seen),
    });
    drop(hca.start(&command(Opcode::SaveVhcaState, 32), 16).unwrap());
    std::thread::scope(|scope| {
        let down = scope.spawn(move || hca.teardown());
        std::thread::sleep(Duration::from_millis(5));
        assert_eq!(fake.opcodes()[before..], [Opcode::SaveVhcaState]);
        fake.release(0, &[]);
        down.join().unwrap().unwrap();
    });
    assert_eq!(fake.opcodes()[before + 1..], DOWN);
}

/// M30: With signatures asked for, the firmware is told so, before it is given signed mailboxes to
/// look at.
#[test]
fn signed_bring_up() {
    let fake = Fake::new().up();
    fake.state.lock().signs = true;
    let signed = Options { signatures: true, ..options() };
    let hca = Hca::bring_up(fake.clone(), fake.dma.clone(), signed).unwrap();
    assert_eq!(fake.seen()[8].input[16 + 0x42] >> 6, 3);
    hca.teardown().unwrap();
}
