// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! Our own explorer and stateright, beside each other on the same models.

use std::num::NonZeroUsize;
use vfio_fsm_model::*;

#[test]
fn tmp() {
    for case in CASES.iter().chain(LOCK_CASES).chain(BENCH_CASES) {
        for engine in [Engine::Stateright, Engine::Own] {
            for threads in [1, 2] {
            let how = How { engine, threads: NonZeroUsize::new(threads).unwrap(), symmetric: false };
            let hwm = || std::fs::read_to_string("/proc/self/status").unwrap().lines().find(|l| l.starts_with("VmHWM")).unwrap().to_owned();
            std::fs::write("/proc/self/clear_refs", "5").ok();
            let checked = check_watched(case, how, &Watch::new(None));
            println!("{} {} {engine:?} {threads}: {} {} {} {:?} {} {}", case.name, case.features, checked.states, checked.transitions, checked.depth, checked.time, checked.failures.len(), hwm());
            }
        }
    }
}
