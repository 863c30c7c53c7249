// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! SUSPEND, RESUME, QUERY, SAVE and LOAD of a VHCA.

use vfio_fsm_mlx5::firmware::{Config, Syndrome, VhcaConfig};
use vfio_fsm_mlx5::layout::*;

use crate::driver::{Buffer, Driver, Failure, save_command};

fn of(image_bytes: u64) -> Driver {
    Driver::new(Config::of(VhcaConfig { image_bytes, ..VhcaConfig::default() }))
}

/// A destination, stopped, with another state.
pub(crate) fn destination(image_bytes: u64) -> (Driver, Buffer) {
    let vhca = VhcaConfig { image_bytes, seed: 99, ..VhcaConfig::default() };
    let mut driver = Driver::new(Config::of(vhca));
    driver.stop();
    let buffer = driver.buffer(16 << 20);
    (driver, buffer)
}

/// M53: each side once, initiator first, and back in the other order.
#[test]
fn suspend_and_resume() {
    let mut driver = of(9999);
    let out_of_turn = Err(Syndrome::SuspendState.into());
    let not_suspended = Err(Syndrome::ResumeState.into());
    assert_eq!(driver.resume(ResumeOpMod::Initiator), not_suspended);
    assert_eq!(driver.suspend(SuspendOpMod::Responder), out_of_turn);
    driver.suspend(SuspendOpMod::Initiator).unwrap();
    assert_eq!(driver.suspend(SuspendOpMod::Initiator), out_of_turn);
    driver.suspend(SuspendOpMod::Responder).unwrap();
    assert_eq!(driver.suspend(SuspendOpMod::Responder), out_of_turn);
    assert_eq!(driver.resume(ResumeOpMod::Initiator), not_suspended);
    driver.resume(ResumeOpMod::Responder).unwrap();
    assert_eq!(driver.resume(ResumeOpMod::Responder), not_suspended);
    driver.resume(ResumeOpMod::Initiator).unwrap();
    let status = driver.vhca().status();
    assert!(!status.initiator_suspended && !status.responder_suspended);
    assert_eq!(driver.suspend(SuspendOpMod::Other(2)), Err(Syndrome::OpMod.into()));
    assert_eq!(driver.resume(ResumeOpMod::Other(2)), Err(Syndrome::OpMod.into()));
}

/// M53: no command reaches a VHCA that is not there.
#[test]
fn unknown_vhca() {
    let mut driver = of(9999);
    for input in [
        SuspendVhcaIn::command().set_vhca_id(9).as_bytes(),
        ResumeVhcaIn::command().set_vhca_id(9).as_bytes(),
        QueryVhcaMigrationStateIn::command().set_vhca_id(9).as_bytes(),
        SaveVhcaStateIn::command().set_vhca_id(9).as_bytes(),
        LoadVhcaStateIn::command().set_vhca_id(9).as_bytes(),
    ] {
        assert_eq!(driver.exec(input, 64), Err(Syndrome::NoVhca.into()));
    }
}

/// M54: what was saved and loaded is equal, byte by byte, whatever the image's size.
#[test]
fn round_trip() {
    for image_bytes in [64, 65, 71, 72, 64 + 4096, 64 + 4096 + 3, 9999, 3 << 20] {
        let mut source = of(image_bytes);
        source.vhca().touch(0x5a);
        source.vhca().dirty(5000);
        source.stop();
        let image = source.full_image();
        assert_eq!(image.len() as u64, image_bytes);
        let (mut target, buffer) = destination(image_bytes);
        target.load(&image, &buffer).unwrap();
        assert_eq!(target.vhca().digest(), source.vhca().digest(), "{image_bytes}");
        assert_eq!(target.vhca().touched(), 0x5a);
        let mut state = [vec![0; image_bytes as usize], vec![0; image_bytes as usize]];
        let len = source.vhca().read_state(0, &mut state[0]);
        assert_eq!(target.vhca().read_state(0, &mut state[1]), len);
        assert_eq!(len as u64, image_bytes - 64);
        assert_eq!(state[0], state[1]);
        assert_eq!(image[64..], state[0][..len]);
        target.run().unwrap();
    }
}

/// M54: an image that is not this VHCA's, not whole, or not what was saved is refused.
#[test]
fn bad_images() {
    let mut source = of(9999);
    source.stop();
    let image = source.full_image();
    let (mut target, buffer) = destination(9999);
    let mut refused = |image: &[u8], wanted: Syndrome| {
        assert_eq!(target.load(image, &buffer), Err(wanted.into()));
    };
    refused(&image[..63], Syndrome::BadImage);
    refused(&image[..9998], Syndrome::BadImage);
    refused(&image[..64], Syndrome::BadImage);
    for byte in 0..64 {
        let mut flipped = image.clone();
        flipped[byte] ^= 0x10;
        refused(&flipped, Syndrome::BadImage);
    }
    for byte in [64, 72, 5000, 9998] {
        let mut flipped = image.clone();
        flipped[byte] ^= 1;
        refused(&flipped, Syndrome::CorruptImage);
    }
    refused(&[&image[..], b"more"].concat(), Syndrome::BadImage);
    let (mut other, buffer) = destination(10_000);
    assert_eq!(other.load(&image, &buffer), Err(Syndrome::BadImage.into()));
}

/// M54: after a LOAD that failed the VHCA does not run before it is reset or loaded whole.
#[test]
fn half_loaded() {
    let mut source = of(9999);
    source.stop();
    let image = source.full_image();
    let mut corrupt = image.clone();
    corrupt[6000] ^= 1;
    let (mut target, buffer) = destination(9999);
    target.load(&corrupt, &buffer).unwrap_err();
    assert_eq!(target.run(), Err(Syndrome::StateMissing.into()));
    let saved = target.save(false, false, &buffer);
    assert_eq!(saved, Err(Syndrome::StateMissing.into()));
    target.load(&image, &buffer).unwrap();
    target.run().unwrap();
    assert_eq!(target.vhca().digest(), source.vhca().digest());

    let (mut target, buffer) = destination(9999);
    target.load(&corrupt, &buffer).unwrap_err();
    target.vhca().flr();
    target.stop();
    target.run().unwrap();
}

/// M54: where images are not checked, a flipped bit loads and can be seen.
#[test]
fn unchecked_images() {
    let mut source = of(9999);
    source.stop();
    let mut image = source.full_image();
    image[6000] ^= 1;
    let vhca = VhcaConfig { checks_images: false, ..VhcaConfig::default() };
    let mut target = Driver::new(Config::of(vhca));
    target.stop();
    let buffer = target.buffer(0x3000);
    target.load(&image, &buffer).unwrap();
    assert_ne!(target.vhca().digest(), source.vhca().digest());
    let mut byte = [0; 1];
    target.vhca().read_state(6000 - 64, &mut byte);
    assert_eq!(byte[0], image[6000]);
    // And it is what the next image has.
    assert_eq!(target.full_image(), image);
}

/// M55: in which states SAVE and LOAD are refused.
#[test]
fn preconditions() {
    let mut driver = of(9999);
    let buffer = driver.buffer(0x4000);
    assert_eq!(driver.save(false, false, &buffer), Err(Syndrome::NotSuspended.into()));
    assert_eq!(driver.save(true, true, &buffer), Err(Syndrome::NotTracked.into()));
    assert_eq!(driver.query(true, false), Err(Syndrome::NotTracked.into()));
    assert_eq!(driver.query(false, true), Err(Syndrome::OpMod.into()), "no chunk mode");
    assert_eq!(driver.load(&[0; 64], &buffer), Err(Syndrome::NotSuspended.into()));
    driver.stop();
    assert_eq!(driver.save(false, true, &buffer), Err(Syndrome::TrackSuspended.into()));
    assert_eq!(driver.query(false, false), Ok((0x3000, 0)));
    driver.save(false, false, &buffer).unwrap();
    assert_eq!(driver.query(true, false), Err(Syndrome::NotTracked.into()));
}

/// M55: nothing else happens to a VHCA while a SAVE of it is in flight.
#[test]
fn save_in_flight() {
    let vhca = VhcaConfig { ticks_per_mib: 1 << 20, ..VhcaConfig::default() };
    let mut driver = Driver::new(Config::of(vhca));
    let buffer = driver.buffer(0x4000);
    let raw = driver.raw(&save_command(false, true, buffer.key(), 0x4000), 16);
    driver.post_at(&raw, 9);
    assert!(driver.vhca().status().saving);
    let busy = Err(Syndrome::SaveRunning.into());
    assert_eq!(driver.suspend(SuspendOpMod::Initiator), busy);
    assert_eq!(driver.query(true, false).map(|_| ()), busy);
    assert_eq!(driver.save(false, true, &buffer).map(|_| ()), Err(Failure::NoAnswer));
    driver.firmware.tick(9998);
    assert!(!driver.is_done(9));
    driver.firmware.tick(1);
    assert!(driver.is_done(9) && driver.vhca().status().tracked);
}

/// M56: PRE_COPY converges when the device dirties more slowly than it is read.
#[test]
fn convergence() {
    let image_bytes = 64 + (1 << 20);
    let slow = pre_copy_rounds(image_bytes, 100);
    assert!(slow.windows(2).all(|pair| pair[1] < pair[0] || pair[1] <= 8192), "{slow:?}");
    assert!(slow.len() > 2 && slow.last().is_some_and(|last| *last < 20_000), "{slow:?}");
    let fast = pre_copy_rounds(image_bytes, 4000);
    assert!(fast.iter().all(|bytes| *bytes > 1 << 19), "{fast:?}");
}

/// Bytes of each image, and then of the last one, which with all others makes an equal state.
fn pre_copy_rounds(image_bytes: u64, dirty_rate: u64) -> Vec<usize> {
    let ticks_per_mib = 1000;
    let vhca = VhcaConfig { image_bytes, dirty_rate, ticks_per_mib, ..VhcaConfig::default() };
    let mut source = Driver::new(Config::of(vhca));
    let buffer = source.buffer(2 << 20);
    let (mut target, input) = destination(image_bytes);
    let mut rounds = Vec::new();
    for round in 0..6 {
        let incremental = round > 0;
        if round == 5 {
            source.stop();
        }
        let input_bytes =
            save_command(incremental, round < 5, buffer.key(), buffer.memory.len() as u32);
        let raw = source.raw(&input_bytes, 16);
        source.post(&raw);
        source.firmware.complete_all();
        let out = source.answer(16).unwrap();
        let mut image =
            vec![0; SaveVhcaStateOut::new(&out[..]).unwrap().actual_image_size() as usize];
        buffer.memory.read(0, &mut image).unwrap();
        rounds.push(image.len());
        target.load(&image, &input).unwrap();
        // The time it takes to read and load it.
        source.firmware.tick((image.len() as u64 * ticks_per_mib) >> 20);
    }
    assert_eq!(target.vhca().digest(), source.vhca().digest());
    rounds
}

/// M56: what is touched while tracked is in a later image, and nothing is needed for nothing.
#[test]
fn incremental() {
    let mut source = of(9999);
    let buffer = source.buffer(0x4000);
    let (mut target, input) = destination(9999);
    let (image, next) = source.save(false, true, &buffer).unwrap();
    assert_eq!((image.len(), next), (9999, 0));
    target.load(&image, &input).unwrap();
    assert_eq!(source.query(true, false), Ok((0, 0)));
    assert_eq!(source.migration_state(), MigrationState::Ready);
    source.vhca().touch(3);
    assert_eq!(source.query(true, false), Ok((4096, 0)), "a header, in whole pages");
    assert_eq!(source.migration_state(), MigrationState::Dirty);
    let (image, _) = source.save(true, true, &buffer).unwrap();
    assert_eq!(image.len(), 64);
    target.load(&image, &input).unwrap();
    assert_eq!(target.vhca().digest(), source.vhca().digest());
    source.vhca().dirty(1);
    source.stop();
    let (image, _) = source.save(true, false, &buffer).unwrap();
    assert_eq!(image.len(), 64 + 8 + 4096);
    target.load(&image, &input).unwrap();
    assert_eq!(target.vhca().digest(), source.vhca().digest());
    // Tracking is over.
    assert_eq!(source.query(true, false), Err(Syndrome::NotTracked.into()));
    assert_eq!(source.migration_state(), MigrationState::Idle);
}

/// M56: an image that goes on from one that was not loaded is refused.
#[test]
fn incremental_without_base() {
    let mut source = of(9999);
    let buffer = source.buffer(0x4000);
    source.save(false, true, &buffer).unwrap();
    source.vhca().dirty(1);
    let (image, _) = source.save(true, true, &buffer).unwrap();
    let (mut target, input) = destination(9999);
    assert_eq!(target.load(&image, &input), Err(Syndrome::ImageOrder.into()));
}

/// M57: a running VHCA's tracking ends by a SAVE that a buffer of QUERY's incremental size takes.
#[test]
fn clean_up() {
    let mut driver = of(1 << 20);
    let large = driver.buffer(1 << 20);
    driver.save(false, true, &large).unwrap();
    driver.vhca().dirty(4096);
    let (size, _) = driver.query(true, false).unwrap();
    let small = driver.buffer(size as usize);
    assert!(small.memory.len() < 1 << 20);
    driver.save(false, false, &small).unwrap();
    assert!(!driver.vhca().status().tracked);
    assert_eq!(driver.save(true, true, &large), Err(Syndrome::NotTracked.into()));
    driver.save(false, true, &large).unwrap();
    // With nothing dirty, too.
    let (image, _) = driver.save(false, false, &small).unwrap();
    assert_eq!(image.len(), 64);
}

/// M57: a SAVE whose buffer is too small ends tracking; then only a full image is left.
#[test]
fn failed_save() {
    let mut driver = of(9999);
    let large = driver.buffer(0x4000);
    let small = driver.buffer(0x1000);
    driver.save(false, true, &large).unwrap();
    driver.vhca().dirty(4096);
    assert_eq!(driver.save(true, true, &small), Err(Syndrome::ShortBuffer.into()));
    assert_eq!(driver.query(true, false), Err(Syndrome::NotTracked.into()));
    driver.stop();
    let (image, _) = driver.save(false, false, &large).unwrap();
    let (mut target, input) = destination(9999);
    target.load(&image, &input).unwrap();
    assert_eq!(target.vhca().digest(), driver.vhca().digest());
}

type Step = dyn Fn(&mut Driver, &Buffer);

/// M59: a reset in every state of a migration leaves a fresh VHCA, which migrates again.
#[test]
fn flr_everywhere() {
    let steps: [&Step; 7] = [
        &|_, _| {},
        &|driver, _| driver.vhca().touch(1),
        &|driver, _| driver.suspend(SuspendOpMod::Initiator).unwrap(),
        &|driver, buffer| drop(driver.save(false, true, buffer).unwrap()),
        &|driver, _| driver.suspend(SuspendOpMod::Responder).unwrap(),
        &|driver, buffer| drop(driver.save(true, false, buffer).unwrap()),
        &|driver, buffer| {
            let image = driver.full_image();
            driver.load(&image, buffer).unwrap();
        },
    ];
    for count in 0..=steps.len() {
        let mut driver = of(9999);
        let buffer = driver.buffer(0x4000);
        let fresh = driver.vhca().digest();
        for step in &steps[..count] {
            step(&mut driver, &buffer);
        }
        driver.vhca().flr();
        let status = driver.vhca().status();
        assert!(!status.initiator_suspended && !status.responder_suspended && !status.tracked);
        assert_eq!(driver.vhca().digest(), fresh);
        assert_eq!(driver.query(true, false), Err(Syndrome::NotTracked.into()));
        driver.stop();
        driver.full_image();
        driver.run().unwrap();
    }
}

/// M59: a SAVE that was in flight at a reset fails, and writes nothing.
#[test]
fn flr_in_flight() {
    let vhca = VhcaConfig { ticks_per_mib: 1 << 20, ..VhcaConfig::default() };
    let mut driver = Driver::new(Config::of(vhca));
    let buffer = driver.buffer(0x4000);
    let raw = driver.raw(&save_command(false, true, buffer.key(), 0x4000), 16);
    driver.post(&raw);
    driver.vhca().flr();
    driver.firmware.complete_all();
    assert_eq!(driver.answer(16), Err(Syndrome::WasReset.into()));
    let mut written = [0xff; 8];
    buffer.memory.read(0, &mut written).unwrap();
    assert_eq!(written, [0; 8]);
    assert!(!driver.vhca().status().saving && !driver.vhca().status().tracked);
    driver.suspend(SuspendOpMod::Initiator).unwrap();
}
