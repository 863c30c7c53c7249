// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! Each command of the way up and down fails in its turn, and nothing is left behind.

use std::time::Duration;

use vfio_fsm_mlx5::command::{CommandError, Commands};
use vfio_fsm_mlx5::dma::DmaError;
use vfio_fsm_mlx5::firmware::{Config, Fault, Trigger};
use vfio_fsm_mlx5::layout::{CommandStatus, DeliveryStatus, Opcode};
use vfio_fsm_mlx5::tracker::{Options, StartError};

use crate::rig::{MIB, Rig, opcode_of, quick, range, told};

const BUSY: Fault = Fault::Status(CommandStatus::ResBusy);
/// What start and stop send.
const UP: usize = 14;
const DOWN: [Opcode; 7] = [
    Opcode::DestroyGeneralObject,
    Opcode::DestroyQp,
    Opcode::DestroyMkey,
    Opcode::DestroyQp,
    Opcode::DestroyCq,
    Opcode::DeallocPd,
    Opcode::DeallocUar,
];

fn slow_to_give_up() -> Rig {
    Rig::with(Config::default(), Some(Duration::from_millis(20)))
}

/// M167: A start that fails at any command, and however, leaves nothing in the firmware, and the
/// next start succeeds.
#[test]
fn start_with_a_failure() {
    let rig = Rig::new();
    let before = rig.held();
    for fault in [BUSY, Fault::Delivery(DeliveryStatus::FirmwareErr)] {
        for command in 0..UP {
            rig.firmware.inject(Trigger::After(command as u64), fault);
            let refused = rig.start(&[range(0, MIB)], quick());
            assert!(matches!(refused, Err(StartError::Command(_))), "at command {command}");
            assert_eq!(rig.held(), before, "at command {command}");
        }
    }
    rig.firmware.inject(Trigger::After(UP as u64), BUSY);
    let mut tracker = rig.start(&[range(0, MIB)], quick()).unwrap();
    assert!(rig.firmware.clear_faults(), "a start has more than {UP} commands");
    assert_eq!(told(&mut tracker), (vec![], Ok(())));
}

/// M167: Where it is not known whether something was made, the memory that the firmware may write
/// is not given to anybody else; of what is known to be made, all is given back.
#[test]
fn start_without_an_answer() {
    for command in 0..UP {
        let rig = slow_to_give_up();
        let before = rig.held();
        rig.firmware.inject(Trigger::After(command as u64), Fault::NoCompletion);
        let refused = rig.start(&[range(0, MIB)], quick()).err().unwrap();
        let timeout = matches!(refused, StartError::Command(CommandError::Timeout { .. }));
        assert!(timeout, "{refused}");
        // Capabilities, and the five by which queue pairs are moved: they make nothing.
        let makes = !(0..2).contains(&command) && !(8..13).contains(&command);
        assert_eq!(rig.held().1 >= before.1 + 2 * MIB, makes, "command {command}");
        assert!(makes || rig.held().0 == before.0, "command {command}");
    }
}

/// M167: A function that goes away, at any command, ends the start.
#[test]
fn start_and_gone() {
    for command in 0..UP {
        let rig = Rig::new();
        let before = rig.held().1;
        rig.firmware.inject(Trigger::After(command as u64), Fault::PfDetach);
        let gone = rig.start(&[range(0, MIB)], quick()).err();
        assert_eq!(gone, Some(StartError::Command(CommandError::Gone)), "command {command}");
        // The queue's own mailboxes stay its own.
        assert!(rig.held().1 < before + MIB);
    }
}

/// M167: Without memory nothing is begun.
#[test]
fn start_without_memory() {
    let rig = Rig::new();
    let before = rig.held();
    let rest = 64 * MIB - before.1;
    let taken = rig.between.dma().allocate(rest as usize).unwrap();
    let refused = rig.start(&[range(0, MIB)], Options::default()).err();
    assert!(matches!(refused, Some(StartError::Dma(DmaError::Limit { .. }))), "{refused:?}");
    drop(taken);
    assert_eq!(rig.held(), before);
}

/// M168: Everything is given back, last things first; what is refused once is asked for again.
#[test]
fn stop_with_a_refusal() {
    let rig = Rig::new();
    let before = rig.held();
    for refused in 0..=DOWN.len() {
        let tracker = rig.tracker();
        rig.between.log.lock().unwrap().clear();
        rig.firmware.inject(Trigger::After(refused as u64), BUSY);
        tracker.stop().unwrap();
        rig.firmware.clear_faults();
        assert_eq!(rig.held(), before, "at command {refused}");
        let mut sent: Vec<_> =
            rig.between.log.lock().unwrap().iter().map(|input| opcode_of(input)).collect();
        if let Some(twice) = DOWN.get(refused) {
            assert_eq!(sent.remove(refused), *twice);
        }
        assert_eq!(sent, DOWN);
    }
}

/// M168: What the firmware keeps is said, and the memory behind it is kept, too.
#[test]
fn stop_in_vain() {
    let rig = Rig::new();
    let before = rig.held();
    let tracker = rig.tracker();
    for _ in 0..2 {
        rig.firmware.inject(Trigger::Next, BUSY);
    }
    rig.firmware.inject(Trigger::AfterOf(Opcode::DestroyGeneralObject, 1), BUSY);
    let error = tracker.stop().unwrap_err();
    // The object, the queue pair that it reports by, and the domain that one is in.
    assert_eq!(error.left, 3, "{error}");
    assert_eq!(rig.firmware.counts().trackers, before.0.trackers + 1);
    assert!(rig.held().1 > before.1);
}
