// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! The driver's page tracker, queues and all, on the software firmware.

use vfio_fsm_mlx5::firmware::{Config, VhcaConfig};
use vfio_fsm_mlx5::verify::driver::{Bench, Options};

use crate::program::SHIPPING;

const PAGE: u64 = 0x1000;

/// M106: what the software firmware says that the VF has written is what the driver reports, page by
/// page and once.
#[test]
#[ignore = "needs the kernel's sources"]
fn the_driver_reports_what_was_written() {
    let bench = Bench::software(Config::of(VhcaConfig::default()), 1 << 13).unwrap();
    let mut driver = bench.driver(&SHIPPING, Options::default()).unwrap();
    let start = 1 << 32;
    assert_eq!(driver.log_start(PAGE, &[(start, 1 << 24)]).unwrap(), 0);
    for (page, bytes) in [(0, 1), (7, PAGE + 1), (4095, 1)] {
        driver.firmware().vhca().dma_written(start + page * PAGE, bytes);
    }
    let mut report = || {
        let bitmap = driver.log_report(start, 1 << 24, PAGE).unwrap();
        let bitmap = bitmap.unwrap_or_else(|errno| panic!("{errno}"));
        let set = |page: &usize| bitmap[page / 8] >> (page % 8) & 1 == 1;
        (0..4096).filter(set).collect::<Vec<_>>()
    };
    assert_eq!(report(), [0, 7, 8, 4095]);
    assert!(report().is_empty(), "a report clears");
    assert_eq!(driver.log_stop().unwrap(), 0);
    assert_eq!(driver.log_report(start, 1 << 24, PAGE).unwrap(), Err(-22), "nothing is logged");
    assert_eq!(driver.firmware().firmware().counts().trackers, 0);
    driver.finish(0).unwrap();
}
