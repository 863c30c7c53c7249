// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! The parser of recordings, and the judge behind it: what it takes, be it lines of JSON or a
//! tracer's columns, is written and read again as itself; it is judged without a panic, and the
//! findings name steps that there are.

use vfio_conform::observe::{Format, observe, read, write};

/// Whatever bytes a file has. How many recordings were read.
pub fn check(file: &[u8]) -> usize {
    let Ok(recordings) = read(file, Format::detect(file)) else { return 0 };
    let mut again = Vec::new();
    write(&recordings, &mut again).expect("memory takes everything");
    let reread = read(again.as_slice(), Format::Recording).expect("it was read before");
    assert_eq!(reread, recordings);
    for recording in &recordings {
        let report = observe(recording);
        let last = recording.steps.len() - usize::from(super::PLANTED && recording.steps.len() > 7);
        for finding in &report.findings {
            assert!(finding.step.is_none_or(|step| (1..=last).contains(&step)), "{finding:?}");
        }
        assert_eq!(report, observe(recording), "judged twice, and not alike");
    }
    recordings.len()
}
