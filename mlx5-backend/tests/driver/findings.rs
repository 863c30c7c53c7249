// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! What the shipping driver does that it should not, and all that it may do when something fails.

use vfio_fsm_mlx5::verify::driver::{Completion, FINDINGS, Options, sweep};

use crate::program::SHIPPING;

/// M104: what the pages on the driver's weaknesses say is what it does.
#[test]
#[ignore = "needs the kernel's sources"]
fn each_finding_shows_itself() {
    for finding in FINDINGS {
        if let Err(error) = finding.show(&SHIPPING) {
            panic!("{}: {error}", finding.what);
        }
    }
}

/// M103: whatever fails, once, at any command, and whenever a reset comes or the PF goes: the driver
/// uses nothing that it has given back, gives everything back, once, and breaks no rule about locks,
/// except where a page says so.
#[test]
#[ignore = "needs the kernel's sources, and two minutes"]
fn nothing_is_found_but_what_has_a_page() {
    let orders = [
        (false, Completion::Behind, false),
        (false, Completion::Awaited, true),
        (true, Completion::Within, true),
    ];
    let mut pages = Vec::new();
    for (chunk_mode, completion, workers_first) in orders {
        let options = Options { completion, workers_first, ..Options::default() };
        for outcome in sweep(&SHIPPING, chunk_mode, options).unwrap() {
            let page = outcome.page();
            assert!(page.is_some() || outcome.found.is_none(), "{outcome}");
            pages.extend(page);
        }
    }
    pages.sort_unstable();
    pages.dedup();
    assert_eq!(pages, ["mlx5-clean-up-fails", "mlx5-pf-reload"]);
}
