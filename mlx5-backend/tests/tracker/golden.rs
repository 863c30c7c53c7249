// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! The commands of the object, against those of the kernel's own driver.

use vfio_fsm_mlx5::layout::{CreatePageTrackObjIn, Opcode};
use vfio_fsm_mlx5::tracker::{IovaRange, Options};

use crate::rig::{Rig, opcode_of, range, told};

const GOLDEN: &str = include_str!("../golden/mlx5_arc_commands_6.12.txt");

/// The bytes that the file has of one command of the tracker, which may be its beginning only.
fn golden(command: &str) -> Vec<u8> {
    let tracker = GOLDEN.lines().skip_while(|line| *line != "TRACKER object");
    let line = tracker.skip_while(|line| !line.trim().starts_with(command)).nth(1);
    let hex = line.and_then(|line| line.split_whitespace().nth(2)).expect("the file has it");
    let digits = hex.trim_end_matches('.').as_bytes();
    digits
        .chunks_exact(2)
        .map(|two| u8::from_str_radix(str::from_utf8(two).unwrap(), 16).unwrap())
        .collect()
}

/// M160: What the object is made, asked and destroyed with is byte for byte what the kernel's driver
/// sends; numbers of queue pair and object are the firmware's.
#[test]
fn commands_of_the_object() {
    let rig = Rig::new();
    let ranges = [RANGES[0], RANGES[1]];
    let options = Options { message_bytes: Some(1 << 18), ..Options::default() };
    let mut tracker = rig.start(&ranges, options).unwrap();
    assert_eq!(told(&mut tracker).1, Ok(()));
    tracker.stop().unwrap();
    let log = rig.between.log.lock().unwrap();
    let sent = |opcode| log.iter().find(|input| opcode_of(input) == opcode).unwrap().clone();

    let expected = golden("CREATE_GENERAL_OBJECT");
    let mut create = sent(Opcode::CreateGeneralObject);
    assert_eq!(create.len(), 96);
    CreatePageTrackObjIn::new(&mut create[..])
        .unwrap()
        .obj_context_mut()
        .set_reporting_qpn(0xab_cdef);
    assert_eq!(create[..expected.len()], expected);

    let mut expected = golden("MODIFY_GENERAL_OBJECT");
    let modify = sent(Opcode::ModifyGeneralObject);
    assert_eq!(modify.len(), 64);
    expected[8..12].copy_from_slice(&modify[8..12]);
    // The range that is asked for, of which the file has another.
    let len = expected.len();
    expected[0x30..].copy_from_slice(&modify[0x30..len]);
    assert_eq!(modify[..expected.len()], expected);
    assert_eq!(
        modify[0x30..0x40],
        [RANGES[0].iova.to_be_bytes(), RANGES[0].length.to_be_bytes()].concat()
    );

    let mut expected = golden("DESTROY_GENERAL_OBJECT");
    let destroy = sent(Opcode::DestroyGeneralObject);
    expected[8..12].copy_from_slice(&destroy[8..12]);
    assert_eq!(destroy, expected);
}

const RANGES: [IovaRange; 2] = [range(0, 1 << 31), range(1 << 32, 1 << 32)];
