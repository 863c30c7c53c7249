// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! Our own explorer and stateright, beside each other on the same models.

use std::num::NonZeroUsize;
use vfio_fsm_model::*;

#[test]
fn tmp() {
    let case = BENCH_CASES.last().unwrap();
    let how = How { engine: Engine::Stateright, threads: NonZeroUsize::new(1).unwrap(), symmetric: false };
    let checked = check_watched(case, how, &Watch::new(None));
    println!("{} {} : {} {} {} {:?} {}", case.name, case.features, checked.states, checked.transitions, checked.depth, checked.time, checked.failures.len());
}
