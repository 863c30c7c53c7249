// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! Every suite on a device of your own. Copy this file to tests/vfio_conformance.rs, put your device
//! in the place of `Mine`'s, and keep the rest.

use std::collections::BTreeMap;

use vfio_conform::replay::{Options, Replayer, Target, TargetError, Verdict};
use vfio_conform::suite::Suite;
use vfio_conform::trace::Need;
use vfio_fsm_core::device::{Device, Memory};
use vfio_fsm_core::{Features, Op, Reply};

/// The flags that the device has.
const FEATURES: Features = Features::ALL;

/// The device. Here it is the core's, which answers each op by itself; yours is told what to do.
struct Mine(Device<Memory<23>, 64>);

impl Mine {
    fn new() -> Self {
        Self(Device::new(FEATURES, Memory::new()))
    }
}

impl Target for Mine {
    fn offers(&self, features: Features) -> bool {
        features == FEATURES
    }

    /// What it can beside plain ops. Where it cannot, traces are not applicable, and counted.
    fn can(&self, _need: Need) -> bool {
        true
    }

    /// As just opened: RUNNING, no session, no data_fd.
    fn fresh(&mut self, _features: Features) -> Result<(), TargetError> {
        *self = Self::new();
        Ok(())
    }

    fn apply<'b>(&mut self, op: Op<&[u8]>, buf: &'b mut [u8]) -> Reply<&'b [u8]> {
        self.0.apply(op, buf)
    }
}

#[test]
fn every_suite_passes() {
    let (mut source, mut destination) = (Mine::new(), Mine::new());
    let mut replayer = Replayer::new(vec![&mut source, &mut destination]);
    let (mut passed, mut failed) = (0, Vec::new());
    let mut not_applicable = BTreeMap::<String, usize>::new();
    for trace in Suite::ALL.iter().flat_map(|suite| suite.generate(FEATURES)) {
        match replayer.replay(&trace, Options::default()).verdict {
            Verdict::Pass => passed += 1,
            Verdict::NotApplicable { reason } => *not_applicable.entry(reason).or_default() += 1,
            Verdict::Fail(mismatch) => failed.push(format!("{}: {mismatch}", trace.header.name)),
            Verdict::Deviation { ids, .. } => {
                failed.push(format!("{}: {ids:?}", trace.header.name));
            }
        }
    }
    println!("{passed} traces pass, {} fail", failed.len());
    for (reason, count) in not_applicable {
        println!("{count} traces are not applicable: {reason}");
    }
    let first: Vec<_> = failed.iter().take(20).collect();
    assert!(failed.is_empty(), "{} traces fail, among them {first:#?}", failed.len());
    assert!(passed > 0, "nothing was tested");
}
