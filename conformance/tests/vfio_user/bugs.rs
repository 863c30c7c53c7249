// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! Planted bugs, seen through the messages.

use std::collections::BTreeMap;

use vfio_conform::replay::{Options, Replayer, Verdict};
use vfio_conform::suite::Suite;
use vfio_conform::trace::Trace;
use vfio_fsm_core::Features;
use vfio_fsm_core::device::Bug;

use crate::Served;

/// Bugs that nobody can see through the messages, and why.
const UNSEEN: &[(Bug, &str)] = &[];

/// U9: Every planted bug that shows in a message fails a trace over the socket, and those that do not
/// have a reason, and stay unseen.
#[test]
fn every_bug_that_shows_in_a_message_is_caught() {
    let unseen: BTreeMap<Bug, &str> = UNSEEN.iter().copied().collect();
    let suites =
        [Suite::Arcs, Suite::Resets, Suite::Streams, Suite::Fds, Suite::Faults, Suite::Complete];
    let features = Features::ALL;
    let traces: Vec<_> = suites.into_iter().flat_map(|suite| suite.generate(features)).collect();
    let mut wrong = Vec::new();
    for &bug in Bug::ALL {
        let found = first_failure(bug, &traces, features);
        println!("{}: {found:?}", bug.slug());
        if found.is_some() == unseen.contains_key(&bug) {
            wrong.push((bug.slug(), found));
        }
    }
    assert!(wrong.is_empty(), "{wrong:?}");
}

fn first_failure(bug: Bug, traces: &[Trace], features: Features) -> Option<String> {
    let served = [bug, bug].map(|bug| Served::reference(features, Some(bug)));
    let [mut source, mut destination] = served.each_ref().map(Served::target);
    let mut replayer = Replayer::new(vec![&mut source, &mut destination]);
    let found = traces.iter().find_map(|trace| {
        match replayer.replay(trace, Options::default()).verdict {
            Verdict::Fail(mismatch) => Some(format!("{}: {mismatch}", trace.header.name)),
            _ => None,
        }
    });
    drop((source, destination));
    served.into_iter().for_each(Served::join);
    found
}
