// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! States that are saved in chunks.

use vfio_fsm_mlx5::firmware::{Config, Syndrome, VhcaConfig};
use vfio_fsm_mlx5::layout::*;

use crate::driver::{Driver, save_command};
use crate::migration::destination;

const CHUNK: u32 = 8 << 20;

/// M58: chunks of at most 8 MiB, each sized by the answer before, and none may be missing.
#[test]
fn chunks() {
    let image_bytes: u64 = (20 << 20) + 100;
    let vhca = VhcaConfig { image_bytes, ..VhcaConfig::default() };
    let mut source = Driver::new(Config::of(vhca).with_chunks());
    source.vhca().dirty(1 << 20);
    source.vhca().touch(1);
    source.stop();
    let buffer = source.buffer(CHUNK as usize);
    let (mut next, total) = source.query(false, true).unwrap();
    assert_eq!((next, total), (CHUNK, image_bytes));
    let (mut target, input) = destination(image_bytes);
    let mut images = Vec::new();
    while next > 0 {
        let command = save_command(!images.is_empty(), false, buffer.key(), next);
        let out = source.exec(&command, 16).unwrap();
        let out = SaveVhcaStateOut::new(&out[..]).unwrap();
        assert!(out.actual_image_size() <= next);
        let mut image = vec![0; out.actual_image_size() as usize];
        buffer.memory.read(0, &mut image).unwrap();
        images.push(image);
        next = out.next_required_umem_size();
        assert_eq!(next > 0, source.query(true, true).is_ok());
    }
    assert_eq!(images.len(), 3);
    assert_eq!(target.load(&images[1], &input), Err(Syndrome::ImageOrder.into()));
    target.load(&images[0], &input).unwrap();
    assert_eq!(target.run(), Err(Syndrome::StateMissing.into()));
    assert_eq!(target.load(&images[2], &input), Err(Syndrome::ImageOrder.into()));
    // Two in one LOAD.
    target.load(&images[1..].concat(), &input).unwrap();
    assert_eq!(target.vhca().digest(), source.vhca().digest());
    target.run().unwrap();
}

/// M58: in PRE_COPY each chunk is a SAVE of its own, and what changes behind it comes again.
#[test]
fn chunks_while_tracked() {
    let image_bytes: u64 = 12 << 20;
    let vhca = VhcaConfig { image_bytes, ..VhcaConfig::default() };
    let mut source = Driver::new(Config::of(vhca).with_chunks());
    let buffer = source.buffer(CHUNK as usize);
    let (mut target, input) = destination(image_bytes);
    source.query(false, true).unwrap();
    let (image, next) = source.save(false, true, &buffer).unwrap();
    assert!(next > 0);
    target.load(&image, &input).unwrap();
    source.vhca().dirty(3 * 4096);
    while source.query(true, true).unwrap().0 > 0 {
        let (image, _) = source.save(true, true, &buffer).unwrap();
        target.load(&image, &input).unwrap();
    }
    source.vhca().dirty(9 << 20);
    source.vhca().touch(8);
    source.stop();
    let mut next = 1;
    while next > 0 {
        let (image, after) = source.save(true, false, &buffer).unwrap();
        target.load(&image, &input).unwrap();
        next = after;
    }
    assert_eq!(target.vhca().digest(), source.vhca().digest());
}

/// M58: more than 32 bits can say goes in chunks only, and QUERY says so.
#[test]
fn many_gib() {
    let vhca = VhcaConfig { image_bytes: 100 << 30, ..VhcaConfig::default() };
    let mut driver = Driver::new(Config::of(vhca).with_chunks());
    assert_eq!(driver.query(false, false), Ok((u32::MAX, 0)));
    assert_eq!(driver.query(false, true), Ok((CHUNK, 100 << 30)));
    driver.stop();
    let buffer = driver.buffer(CHUNK as usize);
    driver.query(false, false).unwrap();
    assert_eq!(driver.save(false, false, &buffer), Err(Syndrome::ShortBuffer.into()));
    driver.query(false, true).unwrap();
    let (image, next) = driver.save(false, false, &buffer).unwrap();
    assert_eq!((image.len() as u32 > CHUNK - 4096, next), (true, CHUNK));
}
