// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! A report as JUnit's XML, which CI systems read: a suite of tests for each suite of traces, a test
//! for each trace.

use std::collections::BTreeMap;
use std::io::{self, Write};

use quick_junit::{NonSuccessKind, Report as Xml, TestCase, TestCaseStatus, TestSuite};

use crate::replay::Verdict;
use crate::report::{Report, TraceReport};

/// Writes a report.
///
/// A known deviation is a success, with its ids as output; what is not applicable is skipped, with the
/// reason; and an entry of a list of deviations that did not show is a failure of its own.
///
/// # Errors
///
/// The output takes no more.
pub fn write(report: &Report, output: impl Write) -> io::Result<()> {
    let mut suites: BTreeMap<&str, TestSuite> = BTreeMap::new();
    for trace in &report.traces {
        let suite = trace.trace.split_once('/').map_or("traces", |(suite, _)| suite);
        let suite = suites.entry(suite).or_insert_with(|| TestSuite::new(suite));
        suite.add_test_case(case(trace, &report.target));
    }
    let mut xml = Xml::new(format!("vfio-conform replay on {}", report.target));
    xml.add_test_suites(suites.into_values());
    if !report.unused_deviations.is_empty() {
        let mut suite = TestSuite::new("deviations");
        suite.add_test_cases(report.unused_deviations.iter().map(|id| {
            TestCase::new(id.as_str(), failed("the known deviation did not show: drop it"))
        }));
        xml.add_test_suite(suite);
    }
    xml.serialize(output).map_err(io::Error::other)
}

fn case(report: &TraceReport, target: &str) -> TestCase {
    let status = match &report.verdict {
        Verdict::Pass | Verdict::Deviation { .. } => TestCaseStatus::success(),
        Verdict::Fail(mismatch) => failed(mismatch.to_string()),
        Verdict::NotApplicable { reason } => {
            let mut skipped = TestCaseStatus::skipped();
            skipped.set_message(reason.as_str());
            skipped
        }
    };
    let mut case = TestCase::new(report.trace.as_str(), status);
    case.set_classname(target);
    if let Verdict::Deviation { ids, .. } = &report.verdict {
        case.set_system_out(format!("known deviation: {}", ids.join(", ")));
    }
    case
}

fn failed(message: impl Into<String>) -> TestCaseStatus {
    let mut status = TestCaseStatus::non_success(NonSuccessKind::Failure);
    status.set_message(message.into());
    status
}
