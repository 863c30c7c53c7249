// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! Whatever a driver writes: no panic, and no more memory or time than the bytes can take.

use proptest::prelude::*;
use vfio_fsm_mlx5::bar::{self, Registers};
use vfio_fsm_mlx5::firmware::{Checks, Config, VhcaConfig};
use vfio_fsm_mlx5::layout::*;

use crate::driver::{Driver, VHCA};

fn lenient() -> Config {
    let checks = Checks::LENIENT;
    Config { checks, ..Config::of(VhcaConfig::default()).with_chunks() }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 400, failure_persistence: None, ..Default::default() })]

    /// M42: any 64 bytes in a slot, any bytes in a mailbox.
    #[test]
    fn any_entry(
        entry in proptest::collection::vec(any::<u8>(), 64),
        block in proptest::collection::vec(any::<u8>(), 576),
        keep_type: bool,
    ) {
        let driver = Driver::new(lenient());
        driver.queue.write(0, &entry).unwrap();
        let mailbox = driver.boxes[0].iova();
        if keep_type {
            driver.queue.write(0, &[7, 0, 0, 0]).unwrap();
            driver.queue.write(8, &mailbox.to_be_bytes()).unwrap();
            driver.queue.write(0x30, &mailbox.to_be_bytes()).unwrap();
            driver.queue.write(63, &[1]).unwrap();
        }
        driver.boxes[0].write(0, &block).unwrap();
        driver.firmware.write32(bar::COMMAND_DOORBELL, 1);
        driver.firmware.tick(10);
    }

    /// M42: any bytes behind each opcode that is known, for a function that is up.
    #[test]
    fn any_command(
        opcode in proptest::sample::select(Opcode::ALL),
        op_mod in prop_oneof![0_u16..4, Just(0x46), any::<u16>()],
        input in proptest::collection::vec(prop_oneof![Just(0), any::<u8>()], 16..700),
        vhca: bool,
    ) {
        let mut driver = Driver::new(lenient());
        driver.buffer(8192);
        let mut input = input;
        input[..2].copy_from_slice(&u16::from(opcode).to_be_bytes());
        input[6..8].copy_from_slice(&op_mod.to_be_bytes());
        if vhca {
            input[10..12].copy_from_slice(&VHCA.to_be_bytes());
        }
        // Whatever it says, it is an answer.
        let answer = driver.exec(&input, 4112);
        prop_assert_ne!(answer, Err(crate::driver::Failure::NoAnswer));
        driver.firmware.tick(10);
    }

    /// M42: any bytes as an image.
    #[test]
    fn any_image(image in proptest::collection::vec(any::<u8>(), 0..5000), at in 0_usize..9999) {
        let mut driver = Driver::new(lenient());
        driver.stop();
        let buffer = driver.buffer(0x4000);
        prop_assert!(image.is_empty() || driver.load(&image, &buffer).is_err());
        let mut spoilt = driver.full_image();
        let end = (at + image.len()).min(spoilt.len());
        spoilt[at..end].copy_from_slice(&image[..end - at]);
        let _ = driver.load(&spoilt, &buffer);
    }

    /// M42: any writes into BAR0.
    #[test]
    fn any_registers(writes in proptest::collection::vec((0_usize..1 << 21, any::<u32>()), 0..200)) {
        let driver = Driver::new(lenient());
        for (offset, value) in writes {
            driver.firmware.write32(offset & !3, value);
            driver.firmware.write32(offset % 0x20, value);
            driver.firmware.read32(offset);
        }
    }
}
