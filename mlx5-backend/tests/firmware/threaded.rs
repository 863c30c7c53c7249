// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! The firmware as a thread over shared memory, for a driver that knows only the memory.

use std::os::unix::fs::FileExt;
use std::thread;
use std::time::{Duration, Instant};

use vfio_fsm_mlx5::bar::{self, Registers};
use vfio_fsm_mlx5::dma::DmaSpace;
use vfio_fsm_mlx5::firmware::{Config, Firmware, VhcaConfig};
use vfio_fsm_mlx5::layout::*;

use crate::driver::Driver;

/// Registers through the file alone.
struct Shared(std::fs::File);

impl Registers for Shared {
    fn read32(&self, offset: usize) -> u32 {
        let mut bytes = [0; 4];
        self.0.read_exact_at(&mut bytes, offset as u64).unwrap();
        u32::from_be_bytes(bytes)
    }

    fn write32(&self, offset: usize, value: u32) {
        self.0.write_all_at(&value.to_be_bytes(), offset as u64).unwrap();
    }
}

fn wait_for(what: &str, mut done: impl FnMut() -> bool) {
    let end = Instant::now() + Duration::from_secs(60);
    while !done() {
        assert!(Instant::now() < end, "{what}");
        thread::sleep(Duration::from_micros(50));
    }
}

/// M44: the queue's address, doorbells and event queue of a driver that maps BAR0.
#[test]
fn over_shared_memory() {
    let space = DmaSpace::new(64 << 20);
    let config = Config::of(VhcaConfig::default()).with_latency(Opcode::AllocUar, 1000);
    let firmware = Firmware::new(config, space.clone()).unwrap();
    let bar = Shared(firmware.bar_file().try_clone().unwrap());
    // Only to put commands together; its own queue is not the one below.
    let mut driver = Driver::on(firmware.clone(), space.clone());
    let queue = space.allocate(4096).unwrap();
    let running = firmware.spawn().unwrap();

    let counter = bar.read32(bar::HEALTH_COUNTER);
    wait_for("the health counter moves", || bar.read32(bar::HEALTH_COUNTER) != counter);
    bar.write32(bar::CMDQ_ADDRESS_HIGH, (queue.iova() >> 32) as u32);
    bar.write32(bar::CMDQ_ADDRESS_LOW, queue.iova() as u32);
    wait_for("the shape is there again", || bar.read32(bar::CMDQ_ADDRESS_LOW) == 0x56);

    // Two doorbells that may well become one.
    let slots = [
        (0, AllocPdIn::command().as_bytes().to_vec()),
        (31, AllocUarIn::command().as_bytes().to_vec()),
    ];
    for (slot, input) in &slots {
        let raw = driver.raw(input, 16);
        queue.write(slot * 64, raw.entry.as_bytes()).unwrap();
    }
    for (slot, _) in &slots {
        bar.write32(bar::COMMAND_DOORBELL, 1 << slot);
    }
    for (slot, _) in &slots {
        wait_for("completion", || queue.load(slot * 64 + 63).unwrap() & 1 == 0);
    }
    assert_eq!(firmware.counts().pds, 1);

    // After a while of nothing it still listens.
    thread::sleep(Duration::from_millis(20));
    let raw = driver.raw(AllocPdIn::command().as_bytes(), 16);
    queue.write(0, raw.entry.as_bytes()).unwrap();
    bar.write32(bar::COMMAND_DOORBELL, 1);
    wait_for("completion after a rest", || queue.load(63).unwrap() & 1 == 0);

    running.stop();
    let raw = driver.raw(AllocPdIn::command().as_bytes(), 16);
    queue.write(0, raw.entry.as_bytes()).unwrap();
    bar.write32(bar::COMMAND_DOORBELL, 1);
    thread::sleep(Duration::from_millis(5));
    assert_eq!(queue.load(63).unwrap() & 1, 1, "nobody is there any more");
    firmware.detach();
    assert_eq!(bar.read32(bar::FW_REV), u32::MAX, "also for who maps the memory");
}
