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
const UNSEEN: &[(Bug, &str)] = &[
    (Bug::StaleFdReads, NO_DATA_FD),
    (Bug::StaleFdWrites, NO_DATA_FD),
    (Bug::EpochReused, NO_DATA_FD),
    (Bug::FreshFdInSavingGroup, NO_DATA_FD),
    (Bug::SameStateRestarts, NO_DATA_FD),
    (Bug::CloseFdCancels, "nobody closes a data_fd whose session is open"),
    (Bug::DeadPollHangs, "there is no data_fd to be polled"),
    (Bug::StaleFdHasInfo, NO_INFO),
    (Bug::InfoInAnyState, NO_INFO),
    (Bug::PreCopyP2pForgotten, NO_INFO),
    (Bug::PreCopyEndsForGood, ONE_END),
    (Bug::StopCopyEndsForNow, ONE_END),
    (Bug::CloseKeepsState, NO_CLOSE),
    (Bug::CloseKeepsSession, NO_CLOSE),
    (Bug::OpensInStop, "a test begins with a reset, not with an open"),
    (Bug::LoseDeferredReset, "no reset can be placed inside a SET: commands are taken in turn"),
    (Bug::NoRoomNoMove, "no fd is handed out, so there is always room for it"),
    (Bug::ErrorKeepsSession, NO_FAULT),
    (Bug::ResetStaysInError, NO_FAULT),
    (Bug::ErrorLeftBySet, NO_FAULT),
    (Bug::FailedOpenLeaks, NO_FAULT),
    (Bug::FailedOpenFreesTwice, NO_FAULT),
    (Bug::FailedOpenFreesNothing, NO_FAULT),
    (Bug::FailedOpenUsesFreed, NO_FAULT),
];

const NO_DATA_FD: &str = "what differs is which data_fd is alive, and there is none to be named";
const NO_INFO: &str = "there is no PRECOPY_INFO";
const ONE_END: &str = "both ends of a stream are the same reply";
const NO_CLOSE: &str = "a disconnect is not a close, and keeps the state by right";
const NO_FAULT: &str = "no arc can be made to fail from outside, so ERROR is not reached";

/// U9: Every planted bug that shows in a message fails a trace over the socket, and those that do not
/// have a reason, and stay unseen.
#[test]
fn every_bug_that_shows_in_a_message_is_caught() {
    let unseen: BTreeMap<Bug, &str> = UNSEEN.iter().copied().collect();
    let suites = [Suite::Arcs, Suite::Resets, Suite::Streams, Suite::Fds, Suite::Faults];
    // All states, and a device from which some are missing.
    let sets = [Features::ALL, Features::STOP_COPY];
    let sets = sets.map(|features| {
        let traces = suites.iter().flat_map(|suite| suite.generate(features));
        (features, traces.collect::<Vec<_>>())
    });
    let mut wrong = Vec::new();
    for &bug in Bug::ALL {
        let mut found = sets.iter().filter_map(|(set, traces)| first_failure(bug, traces, *set));
        let found = found.next();
        println!("{}: {found:?}", bug.slug());
        if found.is_some() == unseen.contains_key(&bug) {
            wrong.push((bug.slug(), found));
        }
    }
    assert!(wrong.is_empty(), "{wrong:?}");
    assert_eq!(unseen.len(), 24, "each is listed once");
}

fn first_failure(bug: Bug, traces: &[Trace], features: Features) -> Option<String> {
    let served = [bug, bug].map(|bug| Served::reference(features, Some(bug)));
    let [mut source, mut destination] = served.each_ref().map(Served::target);
    let mut replayer = Replayer::new(vec![&mut source, &mut destination]);
    let found =
        traces.iter().find_map(|trace| match replayer.replay(trace, Options::default()).verdict {
            Verdict::Fail(mismatch) => Some(format!("{}: {mismatch}", trace.header.name)),
            _ => None,
        });
    drop((source, destination));
    served.into_iter().for_each(Served::join);
    found
}
