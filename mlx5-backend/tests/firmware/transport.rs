// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! The command queue: what is delivered, and what is not.

use std::sync::Arc;

use parking_lot::Mutex;
use vfio_fsm_mlx5::bar::{self, Registers};
use vfio_fsm_mlx5::firmware::{Checks, Config, ConfigError, Syndrome, VhcaConfig};
use vfio_fsm_mlx5::layout::*;

use crate::driver::{Driver, Failure, Raw, VHCA};

fn config() -> Config {
    Config::of(VhcaConfig::default())
}

fn cap_query() -> Vec<u8> {
    let mut input = QueryHcaCapIn::command();
    input.set_op_mod(1);
    input.as_bytes().to_vec()
}

/// What becomes of a command of many mailboxes that is spoilt before the doorbell.
fn spoilt(config: Config, spoil: impl FnOnce(&mut Raw)) -> Result<(), Failure> {
    let mut driver = Driver::new(config);
    let mut input = SetHcaCapIn::command();
    input.set_other_function(true).set_function_id(1).set_op_mod(0x40);
    let mut raw = driver.raw(input.as_bytes(), 4112);
    spoil(&mut raw);
    driver.post(&raw);
    driver.answer(4112).map(|_| ())
}

/// M40: what a driver reads before it can give a command is all there.
#[test]
fn init_segment() {
    let config = Config { initializing_ticks: 5, ..config() };
    let mut driver = Driver::new(config);
    let read = |offset| driver.firmware.read32(offset);
    assert_eq!(read(bar::INITIALIZING) >> 31, 1);
    assert_eq!(read(bar::CMDIF_REV) >> 16, 5);
    assert_eq!(read(bar::CMDQ_ADDRESS_LOW) & 0xff, 0x56);
    let before = read(bar::HEALTH_COUNTER) & 0xff_ffff;
    assert!(read(bar::HEALTH_COUNTER) & 0xff_ffff > before);
    assert_eq!(read(bar::INITIALIZING) >> 31, 0);
    assert_eq!(read(1 << 30), u32::MAX);
    assert!(driver.exec(&cap_query(), 4112).is_ok());
}

/// M40: a doorbell before the firmware is ready is not heard.
#[test]
fn not_while_initializing() {
    let mut driver = Driver::new(Config { initializing_ticks: 100, ..config() });
    assert_eq!(driver.exec(&cap_query(), 4112), Err(Failure::NoAnswer));
    driver.firmware.tick(100);
    assert!(driver.exec(&cap_query(), 4112).is_ok());
}

/// M41: each thing that is wrong with an entry or mailbox has its own delivery status.
#[test]
fn delivery() {
    use DeliveryStatus as D;
    let check = |what: &str, wanted: D, sign: bool, spoil: &dyn Fn(&mut Raw)| {
        let seen = spoilt(config(), |raw| {
            spoil(raw);
            if sign {
                raw.sign();
            }
        });
        assert_eq!(seen, Err(Failure::Delivery(wanted)), "{what}");
    };
    assert_eq!(spoilt(config(), |_| {}), Ok(()));
    check("type", D::DescriptorType, true, &|raw| {
        raw.entry.set_type(6);
    });
    check("entry signature", D::Signature, false, &|raw| {
        raw.entry.set_signature(!raw.entry.signature());
    });
    check("block signature", D::Signature, false, &|raw| raw.input[1].mailbox_data_mut()[0] ^= 1);
    check("control signature", D::Signature, false, &|raw| {
        let both = raw.input[0].ctrl_signature() ^ 1;
        let all = raw.input[0].signature() ^ 1;
        raw.input[0].set_ctrl_signature(both).set_signature(all);
    });
    check("input token", D::Token, true, &|raw| {
        raw.input[2].set_token(0x77);
    });
    check("output token", D::Token, true, &|raw| {
        raw.output[2].set_token(0x77);
    });
    check("block number", D::BadBlockNumber, true, &|raw| {
        raw.input[3].set_block_number(2);
    });
    check("loop", D::BadBlockNumber, true, &|raw| {
        let first = raw.entry.input_mailbox_pointer_31_9() >> 1;
        raw.input[1].set_next_pointer_31_10(first);
    });
    check("input pointer", D::BadInputPointer, true, &|raw| raw.entry.as_bytes_mut()[15] = 1);
    check("output pointer", D::BadOutputPointer, true, &|raw| raw.entry.as_bytes_mut()[0x36] |= 1);
    check("unmapped", D::FirmwareErr, true, &|raw| {
        raw.input[1].set_next_pointer_63_32(0x7777);
    });
    check("no input", D::InputLength, true, &|raw| {
        raw.entry.set_input_length(7);
    });
    check("long input", D::InputLength, true, &|raw| {
        raw.entry.set_input_length(u32::MAX);
    });
    check("no output", D::OutputLength, true, &|raw| {
        raw.entry.set_output_length(4);
    });
    check("long output", D::OutputLength, true, &|raw| {
        raw.entry.set_output_length(u32::MAX);
    });
    check("reserved", D::ReservedNotClear, true, &|raw| raw.entry.as_bytes_mut()[0x3e] = 1);
}

/// M41: what rdma-core's driver does not do, is not asked for when told so.
#[test]
fn lenient() {
    let lenient = Config { checks: Checks::LENIENT, ..config() };
    let unsigned = |raw: &mut Raw| {
        raw.entry.set_signature(0);
        raw.input[0].set_signature(0);
    };
    assert_eq!(spoilt(lenient.clone(), unsigned), Ok(()));
    let bad_token = |raw: &mut Raw| {
        raw.input[1].set_token(9);
    };
    assert_eq!(spoilt(lenient.clone(), bad_token), Err(Failure::Delivery(DeliveryStatus::Token)));
    // No tokens, and an older, shorter structure.
    let mut driver = Driver::new(lenient).without_tokens();
    assert!(driver.exec(&cap_query(), 4112).is_ok());
    let short = SuspendVhcaIn::command().set_vhca_id(VHCA).as_bytes()[..12].to_vec();
    assert_eq!(driver.plain(&short), Ok(()));
}

/// M42: lengths and reserved fields of the command itself.
#[test]
fn shape() {
    let mut driver = Driver::new(config());
    let input = SuspendVhcaIn::command().set_vhca_id(VHCA).as_bytes().to_vec();
    assert_eq!(driver.plain(&input[..12]), Err(Syndrome::InputLength.into()));
    assert_eq!(driver.plain(&[&input[..], &[0; 4]].concat()), Err(Syndrome::InputLength.into()));
    assert_eq!(driver.exec(&cap_query(), 64), Err(Syndrome::OutputLength.into()));
    let mut reserved = input.clone();
    reserved[15] = 1;
    assert_eq!(driver.plain(&reserved), Err(Syndrome::Reserved.into()));
    let mut unknown = input;
    unknown[1] = 0xff;
    assert_eq!(driver.plain(&unknown), Err(Syndrome::UnknownCommand.into()));
}

/// M43: a command that takes time is not complete before, and the other slots go on.
#[test]
fn latency() {
    let config = config().with_latency(Opcode::SuspendVhca, 50);
    let mut driver = Driver::new(config);
    let input = SuspendVhcaIn::command().set_vhca_id(VHCA).as_bytes().to_vec();
    let raw = driver.raw(&input, 16);
    driver.post(&raw);
    driver.firmware.tick(49);
    assert_eq!(driver.answer(16), Err(Failure::NoAnswer));
    let other = driver.raw(AllocPdIn::command().as_bytes(), 16);
    driver.post_at(&other, 4);
    assert!(driver.is_done(4) && !driver.is_done(3));
    driver.firmware.read32(bar::HEALTH_COUNTER);
    assert!(driver.is_done(3));
    assert!(driver.vhca().status().initiator_suspended);
}

/// M43: a doorbell of a slot that is in flight, or that the driver owns, changes nothing.
#[test]
fn doorbell_twice() {
    let mut driver = Driver::new(config().with_latency(Opcode::AllocPd, 10));
    let raw = driver.raw(AllocPdIn::command().as_bytes(), 16);
    driver.post(&raw);
    driver.firmware.write32(bar::COMMAND_DOORBELL, u32::MAX);
    driver.firmware.complete_all();
    driver.firmware.write32(bar::COMMAND_DOORBELL, u32::MAX);
    driver.firmware.complete_all();
    assert_eq!(driver.firmware.counts().pds, 1);
    assert_eq!(driver.firmware.log().len(), 1);
}

/// M44: with an event queue, each completion is an event with the slot's bit, told once an arming.
#[test]
fn events() {
    let mut driver = Driver::new(config());
    let told = Arc::new(Mutex::new(Vec::new()));
    let (seen, firmware) = (told.clone(), driver.firmware.clone());
    driver.firmware.on_interrupt(move |vector| {
        // It may use the registers.
        firmware.read32(bar::HEALTH_COUNTER);
        seen.lock().push(vector);
    });
    let uar = driver.alloc_uar();
    let memory = driver.space.allocate(4096).unwrap();
    let eq = crate::bring_up::create_eq(&mut driver, uar, &memory, 2, 1 << 0xa);
    // The command that made the queue has no event.
    let arm = |driver: &Driver, ci: u32| {
        let offset = uar as usize * 4096 + 0x40;
        driver.firmware.write32(offset, eq << 24 | ci);
    };
    let eqe = |at: usize| {
        let mut eqe = Eqe::zeroed();
        memory.read(at * 64, eqe.as_bytes_mut()).unwrap();
        eqe
    };
    assert_eq!(eqe(0).event_type(), EventType::Other(0xff));
    driver.alloc_pd();
    assert!(told.lock().is_empty(), "not armed");
    arm(&driver, 0);
    assert_eq!(told.lock().len(), 1, "armed with an event waiting");
    for _ in 0..5 {
        driver.alloc_pd();
    }
    assert_eq!(told.lock()[..], [7], "told once");
    // Four fit; two wait for room, and come with the other owner.
    for n in 0..4 {
        assert_eq!(eqe(n).event_type(), EventType::Cmd);
        assert_eq!(eqe(n).command_completion().command_completion_vector(), 1 << 3);
        assert!(!eqe(n).owner());
    }
    arm(&driver, 4);
    assert!(eqe(0).owner() && eqe(1).owner() && !eqe(2).owner());
    assert_eq!(told.lock().len(), 2);
    arm(&driver, 6);
    assert_eq!(told.lock().len(), 2, "nothing waits");
}

/// M45: the log has what was asked and answered, and no more than it is to.
#[test]
fn log() {
    let mut driver = Driver::new(Config { log_entries: 2, ..config() });
    driver.alloc_pd();
    driver.alloc_pd();
    let missing = DeallocPdIn::command().set_pd(77).as_bytes().to_vec();
    assert_eq!(driver.plain(&missing), Err(Syndrome::NoPd.into()));
    let log = driver.firmware.drain_log();
    assert_eq!(log.len(), 2);
    let last = &log[1];
    assert_eq!((last.opcode, &last.input[..]), (Opcode::DeallocPd, &missing[..]));
    assert_eq!((last.status, last.syndrome), (CommandStatus::BadRes, Syndrome::NoPd.number()));
    assert!(driver.firmware.log().is_empty());
}

/// M46: a configuration that cannot be is refused.
#[test]
fn configurations() {
    let refused = |config: Config| {
        vfio_fsm_mlx5::firmware::Firmware::new(config, vfio_fsm_mlx5::dma::DmaSpace::new(0)).err()
    };
    let of = |vhca_id, image_bytes| VhcaConfig { vhca_id, image_bytes, ..VhcaConfig::default() };
    assert_eq!(refused(Config::of(of(1, 64))), None);
    let short = ConfigError::ImageBytes { vhca_id: 1, bytes: 63 };
    assert_eq!(refused(Config::of(of(1, 63))), Some(short));
    let twice = Config { vhcas: vec![of(1, 64), of(1, 64)], ..Config::default() };
    assert_eq!(refused(twice), Some(ConfigError::VhcaId { vhca_id: 1 }));
    assert_eq!(refused(Config::of(of(0, 64))), Some(ConfigError::VhcaId { vhca_id: 0 }));
    let slots = Config { log_slots: 6, ..Config::default() };
    assert_eq!(refused(slots), Some(ConfigError::Slots { log_slots: 6 }));
}
