// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! Lists of deviations: what they excuse, what they do not, and that they cannot rot.

use std::collections::BTreeSet;
use std::time::Duration;

use vfio_conform::deviation::Deviations;
use vfio_conform::replay::{Options, Replayer, Verdict};
use vfio_conform::report::Report;
use vfio_conform::suite::Suite;
use vfio_conform::target::Reference;
use vfio_fsm_core::device::Bug;

const LIST: &str = r#"
driver = "a test"
seen_with = "nothing"

[[deviation]]
id = "ends-for-good"
breaks = ["R32"]
reason = "It is planted."
traces = ["*"]
ops = ["read", "uring_read"]
expected = { end_of_stream = "temporary" }
seen = { end_of_stream = "permanent" }
"#;

/// Every suite on a device with this bug, held against a list.
fn replay(bug: Bug, list: &Deviations) -> Report {
    let (mut source, mut destination) = (Reference::with_bug(bug), Reference::with_bug(bug));
    let mut replayer = Replayer::new(vec![&mut source, &mut destination]);
    let mut report = Report::new("a test");
    let options = Options { deviations: Some(list), ..Options::default() };
    for trace in Suite::ALL.iter().copied().flat_map(Suite::generate_all) {
        let outcome = replayer.replay(&trace, options);
        report.record(&trace.header.name, outcome);
    }
    report.finish(Duration::from_secs(1), Some(list), true);
    report
}

/// A bug that the list describes is a known deviation wherever it shows, and fails nothing.
#[test]
fn what_is_listed_is_excused() {
    let list = Deviations::parse("test", LIST).expect("a good list");
    let report = replay(Bug::PreCopyEndsForGood, &list);
    assert!(report.is_good(), "{report}");
    assert!(report.counts.deviation > 20 && report.counts.pass > 1000, "{report}");
    let ids = report.traces.iter().filter_map(|trace| match &trace.verdict {
        Verdict::Deviation { ids, .. } => Some(ids.clone()),
        _ => None,
    });
    assert!(ids.into_iter().all(|ids| ids == ["ends-for-good"]));
}

/// Another bug is not excused by it, and the entry that described nothing is a failure of its own.
#[test]
fn what_is_not_listed_fails() {
    let list = Deviations::parse("test", LIST).expect("a good list");
    let report = replay(Bug::SameStateRestarts, &list);
    assert!(report.counts.fail > 0 && report.counts.deviation == 0, "{report}");
    assert_eq!(report.unused_deviations, ["ends-for-good"]);
}

/// An entry is as narrow as it says: other traces, ops, expectations or replies are not excused.
#[test]
fn an_entry_is_as_narrow_as_it_says() {
    let narrower = [
        ("traces = [\"*\"]", "traces = [\"arcs/*\"]"),
        ("ops = [\"read\", \"uring_read\"]", "ops = [\"uring_read\"]"),
        ("expected = { end_of_stream = \"temporary\" }", "expected = \"ok\""),
        ("seen = { end_of_stream = \"permanent\" }", "seen = { errno = \"EIO\" }"),
        ("seen = ", "console = \"BUG\"\nseen = "),
        ("seen = ", "bytes = true\nseen = "),
    ];
    for (wide, narrow) in narrower {
        let text = LIST.replace(wide, narrow);
        assert_ne!(text, LIST);
        let list = Deviations::parse("test", &text).expect("a good list");
        assert!(replay(Bug::PreCopyEndsForGood, &list).counts.fail > 0, "{narrow}");
    }
}

/// A report in which nothing was tested is not a good one.
#[test]
fn nothing_tested_is_not_good() {
    let report = Report::new("nothing");
    assert!(!report.is_good());
    assert!(report.to_string().contains("FAIL: nothing was tested"));
}

/// The lists that ship are well formed, and what they say is broken are requirements.
#[test]
fn the_lists_that_ship_are_sound() {
    let requirements = include_str!("../specs/requirements.toml");
    let list = Deviations::named("mtty").expect("it ships");
    let ids: BTreeSet<_> = list.list.iter().map(|entry| &entry.id).collect();
    assert_eq!(ids.len(), list.list.len(), "an id stands twice");
    for entry in &list.list {
        assert!(entry.reason.len() > 40, "{} has no reason", entry.id);
        for id in &entry.breaks {
            assert!(requirements.contains(&format!("id = \"{id}\"")), "{}: {id}", entry.id);
        }
    }
}

/// A list that is none says what is wrong with it.
#[test]
fn a_bad_list_is_refused() {
    for (good, bad, says) in [
        ("reason", "raeson", "raeson"),
        ("\"*\"", "\"[\"", "["),
        ("\"temporary\"", "\"for a while\"", "for a while"),
        ("driver = \"a test\"", "", "driver"),
    ] {
        let error = Deviations::parse("test", &LIST.replace(good, bad)).expect_err(bad).to_string();
        assert!(error.starts_with("test: ") && error.contains(says), "{error}");
        assert!(error.contains("specs/deviations/README.md"), "{error}");
    }
    let error = Deviations::named("no/such/list").expect_err("no file").to_string();
    assert!(error.contains("mtty"), "the known drivers are named: {error}");
}

/// An entry about calls that are no ops takes those that it describes, and no reply of a trace.
#[test]
fn calls_have_entries_of_their_own() {
    let calls = "calls = [\"PRECOPY_INFO argsz *, saw 0\"]\ntraces = [\"abuse/precopy-*\"]";
    let text = LIST.replace("traces = [\"*\"]", calls);
    assert_ne!(text, LIST);
    let parse = || Deviations::parse("test", &text).expect("a good list");
    assert!(replay(Bug::PreCopyEndsForGood, &parse()).counts.fail > 0, "it excuses no reply");
    assert_eq!(parse().of_traces().list.len(), 0);
    let list = parse().of_calls("abuse/");
    let slip = "PRECOPY_INFO argsz 8: expected EINVAL, saw 0";
    assert_eq!(list.find_call("abuse/feature-argsz", slip), None);
    assert_eq!(list.find_call("abuse/precopy-argsz", "PRECOPY_INFO argsz 8: saw EIO"), None);
    assert_eq!(list.unused().count(), 1);
    assert_eq!(list.find_call("abuse/precopy-argsz", slip), Some("ends-for-good"));
    assert_eq!(list.unused().count(), 0);
    let error = Deviations::parse("test", &text.replace("*, saw 0", "[")).expect_err("no glob");
    assert!(error.to_string().contains("["), "{error}");
}

/// An entry about findings takes those in its scenarios, and neither calls nor replies.
#[test]
fn findings_have_entries_of_their_own() {
    let found = "found = [\"VMM stale-fd: *\"]\ntraces = [\"watch/reset-*\"]";
    let text = LIST.replace("traces = [\"*\"]", found);
    assert_ne!(text, LIST);
    let parse = || Deviations::parse("test", &text).expect("a good list");
    assert_eq!(parse().of_traces().list.len(), 0);
    assert_eq!(parse().of_calls("watch/").list.len(), 0);
    assert_eq!(parse().of_findings("learn/").list.len(), 0);
    let list = parse().of_findings("watch/");
    let text = "VMM stale-fd: read fd#1 96: expected no use, saw ENODEV";
    assert_eq!(list.find_finding("watch/plain", text), None);
    assert_eq!(list.find_finding("watch/reset-x", "device device-set: SET STOP"), None);
    assert_eq!(list.find_finding("watch/reset-x", text), Some("ends-for-good"));
    let both = list.and(Deviations::parse("other", &text_of_another()).expect("a good list"));
    assert_eq!(both.unused().count(), 1, "the other list's");
}

fn text_of_another() -> String {
    LIST.replace("ends-for-good", "another")
}
