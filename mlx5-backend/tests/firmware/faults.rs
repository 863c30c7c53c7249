// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! Everything that can be made to go wrong, as a driver sees it.

use vfio_fsm_mlx5::bar::{self, Registers};
use vfio_fsm_mlx5::firmware::{Config, Fault, Syndrome, Trigger, VhcaConfig};
use vfio_fsm_mlx5::layout::*;

use crate::driver::{Driver, Failure, VHCA};

fn driver() -> Driver {
    Driver::new(Config::of(VhcaConfig::default()))
}

fn alloc(driver: &mut Driver) -> Result<(), Failure> {
    driver.plain(AllocPdIn::command().as_bytes())
}

/// M45: any command status and any delivery status, and the command is then not carried out.
#[test]
fn any_status() {
    let mut driver = driver();
    for status in &CommandStatus::ALL[1..] {
        driver.firmware.inject(Trigger::Next, Fault::Status(*status));
        assert_eq!(alloc(&mut driver), Err(Failure::Status(*status, 0)));
    }
    for status in &DeliveryStatus::ALL[1..] {
        driver.firmware.inject(Trigger::Next, Fault::Delivery(*status));
        assert_eq!(alloc(&mut driver), Err(Failure::Delivery(*status)));
    }
    assert_eq!(driver.firmware.counts().pds, 0);
    assert_eq!(alloc(&mut driver), Ok(()));
}

/// M45: a fault happens at the command it was planted for, once.
#[test]
fn triggers() {
    let mut driver = driver();
    let fault = Fault::Status(CommandStatus::ResBusy);
    let busy = Err(Failure::Status(CommandStatus::ResBusy, 0));
    driver.firmware.inject(Trigger::After(2), fault);
    let seen: Vec<_> = (0..4).map(|_| alloc(&mut driver)).collect();
    assert_eq!(seen, [Ok(()), Ok(()), busy, Ok(())]);
    driver.firmware.inject(Trigger::AfterOf(Opcode::SuspendVhca, 1), fault);
    assert_eq!(alloc(&mut driver), Ok(()));
    assert_eq!(driver.suspend(SuspendOpMod::Initiator), Ok(()));
    assert_eq!(alloc(&mut driver), Ok(()));
    assert_eq!(driver.suspend(SuspendOpMod::Responder), busy);
    assert_eq!(driver.firmware.log().iter().filter(|entry| entry.faults == [fault]).count(), 2);
    assert!(!driver.firmware.clear_faults());
    driver.firmware.inject(Trigger::After(9), fault);
    assert!(driver.firmware.clear_faults());
}

/// M45: a command that never completes was carried out; its slot stays lost, the others do not.
#[test]
fn no_completion() {
    let mut driver = driver();
    driver.firmware.inject(Trigger::Next, Fault::NoCompletion);
    assert_eq!(alloc(&mut driver), Err(Failure::NoAnswer));
    driver.firmware.tick(1 << 40);
    driver.firmware.write32(bar::COMMAND_DOORBELL, u32::MAX);
    assert_eq!(driver.answer(16), Err(Failure::NoAnswer));
    assert_eq!(driver.firmware.counts().pds, 1);
    let raw = driver.raw(AllocPdIn::command().as_bytes(), 16);
    driver.post_at(&raw, 8);
    assert!(driver.is_done(8));
}

/// M45: an answer with another token, in the entry and in the mailboxes.
#[test]
fn wrong_token() {
    let mut driver = driver();
    driver.firmware.inject(Trigger::Next, Fault::WrongToken);
    assert_eq!(alloc(&mut driver), Err(Failure::Answer));
    driver.firmware.inject(Trigger::Next, Fault::WrongToken);
    let input = QueryHcaCapIn::command();
    assert_eq!(driver.exec(input.as_bytes(), 4112), Err(Failure::Answer));
}

/// M45: a bit of the image is another one, and LOAD notices.
#[test]
fn corrupt_image() {
    let mut source = driver();
    source.stop();
    let image = source.full_image();
    for bit in [0, 8 * 100 + 3, 8 * 9998 + 7, 8 * 9999 + 1] {
        source
            .firmware
            .inject(Trigger::AfterOf(Opcode::SaveVhcaState, 0), Fault::CorruptImage { bit });
        let bad = source.full_image();
        let place = (bit / 8 % 9999) as usize;
        assert_eq!(bad[place] ^ image[place], 1 << (bit % 8));
        let mut target = driver();
        target.stop();
        let buffer = target.buffer(0x3000);
        assert!(target.load(&bad, &buffer).is_err());
        target.load(&image, &buffer).unwrap();
    }
}

/// M45: a VHCA is reset between any two commands of a migration, and the next one notices.
#[test]
fn reset_between() {
    for count in 0..6 {
        let mut driver = driver();
        let buffer = driver.buffer(0x4000);
        driver.vhca().touch(1);
        driver.firmware.inject(Trigger::After(count), Fault::Reset { vhca_id: VHCA });
        let mut seen = vec![driver.save(false, true, &buffer).map(|_| ())];
        seen.push(driver.suspend(SuspendOpMod::Initiator));
        seen.push(driver.suspend(SuspendOpMod::Responder));
        seen.push(driver.query(true, false).map(|_| ()));
        seen.push(driver.save(true, false, &buffer).map(|_| ()));
        let failed = seen.iter().position(Result::is_err);
        // Before the first command and before the SUSPEND of the initiator there is nothing to
        // lose but the tracking; behind the last one nobody looks.
        let expected = [None, Some(3), Some(2), Some(3), Some(4), None];
        assert_eq!(failed, expected[count as usize], "{count}: {seen:?}");
    }
}

/// M45: when the physical function goes away, nothing is answered and every register is all ones.
#[test]
fn detach() {
    let mut driver = driver();
    let latency = Config::of(VhcaConfig::default()).with_latency(Opcode::AllocPd, 5);
    driver.firmware.inject(Trigger::After(1), Fault::PfDetach);
    alloc(&mut driver).unwrap();
    assert_eq!(alloc(&mut driver), Err(Failure::NoAnswer));
    for offset in [bar::FW_REV, bar::HEALTH_COUNTER, bar::INITIALIZING] {
        assert_eq!(driver.firmware.read32(offset), u32::MAX);
    }
    let mut driver = Driver::new(latency);
    let raw = driver.raw(AllocPdIn::command().as_bytes(), 16);
    driver.post(&raw);
    driver.firmware.detach();
    driver.firmware.complete_all();
    assert_eq!(driver.answer(16), Err(Failure::NoAnswer), "what was in flight is lost");
}

/// M45: a storm of page requests comes as that many events before the command's own.
#[test]
fn page_request_storm() {
    let mut driver = driver();
    let uar = driver.alloc_uar();
    let memory = driver.space.allocate(4096).unwrap();
    crate::bring_up::create_eq(&mut driver, uar, &memory, 6, 1 << 0xb | 1 << 0xa);
    driver.firmware.inject(Trigger::Next, Fault::PageRequests(20));
    alloc(&mut driver).unwrap();
    let kinds: Vec<_> = (0..22)
        .map(|n| {
            let mut eqe = Eqe::zeroed();
            memory.read(n * 64, eqe.as_bytes_mut()).unwrap();
            eqe.event_type()
        })
        .collect();
    assert!(kinds[..20].iter().all(|kind| *kind == EventType::PageRequest));
    assert_eq!(kinds[20..], [EventType::Cmd, EventType::Other(0xff)]);
}

/// M45: the fallback that a driver needs: a SAVE in PRE_COPY fails, and a full image still works.
#[test]
fn pre_copy_save_fails() {
    let mut driver = driver();
    let buffer = driver.buffer(0x4000);
    let fault = Fault::Status(CommandStatus::BadResState);
    driver.firmware.inject(Trigger::AfterOf(Opcode::SaveVhcaState, 0), fault);
    assert!(driver.save(false, true, &buffer).is_err());
    driver.stop();
    assert_eq!(driver.query(true, false), Err(Syndrome::NotTracked.into()));
    assert_eq!(driver.full_image().len(), 9999);
}
