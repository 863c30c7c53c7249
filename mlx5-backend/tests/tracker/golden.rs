// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! The commands of the object, against those of the kernel's own driver.

use vfio_fsm_mlx5::layout::{
    CreatePageTrackObjIn, CreateQpIn, Init2RtrQpIn, ModifyPageTrackObjIn, Opcode, QpServiceType,
    Rst2InitQpIn, Rtr2RtsQpIn,
};
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
    let log = rig.between.log.lock().unwrap().clone();
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

/// M160: The queue pairs are what the kernel's driver makes of them, where the software firmware does
/// not mind: they never leave the device, and the firmware's waits for a buffer for as long as it
/// takes.
#[test]
fn queue_pairs() {
    let rig = Rig::new();
    let _tracker = rig.tracker();
    let log = rig.between.log.lock().unwrap().clone();
    let sent = |opcode| log.iter().filter(move |input| opcode_of(input) == opcode);
    let made: Vec<_> =
        sent(Opcode::CreateQp).map(|input| CreateQpIn::new(&input[..]).unwrap()).collect();
    assert_eq!(made.iter().map(|qp| qp.qpc().rq_type()).collect::<Vec<_>>(), [0, 3]);
    for qp in &made {
        assert_eq!((qp.qpc().st(), qp.qpc().pm_state()), (QpServiceType::Rc, 3));
        assert!(qp.qpc().no_sq());
        assert_ne!(qp.qpc().uar_page(), 0);
    }
    for input in sent(Opcode::Rst2InitQp) {
        let init = Rst2InitQpIn::new(&input[..]).unwrap();
        assert!(init.qpc().rre() && init.qpc().rwe());
        assert_eq!(
            (init.qpc().pm_state(), init.qpc().primary_address_path().vhca_port_num()),
            (3, 1)
        );
    }
    for input in sent(Opcode::Init2RtrQp) {
        let rtr = Init2RtrQpIn::new(&input[..]).unwrap();
        let path = rtr.qpc();
        let path = path.primary_address_path();
        assert!(path.fl());
        assert_eq!((rtr.qpc().mtu(), rtr.qpc().min_rnr_nak(), path.vhca_port_num()), (5, 1, 1));
    }
    let rts: Vec<_> = sent(Opcode::Rtr2RtsQp).collect();
    let rts = Rtr2RtsQpIn::new(&rts[0][..]).unwrap();
    let times = (rts.qpc().retry_count(), rts.qpc().rnr_retry());
    assert_eq!((times, rts.qpc().primary_address_path().ack_timeout()), ((7, 7), 8));
}

/// M163: The firmware is asked for whole pages of its own, and for no more than it tracks.
#[test]
fn whole_pages_are_asked_for() {
    let rig = Rig::new();
    let options = Options { page_size: 1 << 14, ..Options::default() };
    let mut tracker = rig.start(&[range(1 << 20, 1 << 20)], options).unwrap();
    for (asked, sent) in [
        (range((1 << 20) + 5, 1), range(1 << 20, 1 << 14)),
        (range((1 << 20) + 0x3fff, 2), range(1 << 20, 1 << 15)),
        (range((2 << 20) - 1, 1), range((2 << 20) - (1 << 14), 1 << 14)),
    ] {
        tracker.report(asked, drop).unwrap();
        let log = rig.between.log.lock().unwrap().clone();
        let modify = ModifyPageTrackObjIn::new(&log.last().unwrap()[..]).unwrap();
        let object = modify.obj_context();
        assert_eq!(range(object.range_start_address(), object.length()), sent);
    }
}
