// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! What the shipping driver does that it should not, and all that it may do when something fails.

use crate::program::{SHIPPING, check};

/// M104: what the pages on the driver's weaknesses say is what it does.
#[test]
#[ignore = "needs the kernel's sources"]
fn each_finding_shows_itself() {
    check("findings", &SHIPPING);
}

/// M103: whatever fails, once, at any command, and whenever a reset comes or the PF goes: the driver
/// uses nothing that it has given back, gives everything back, once, and breaks no rule about locks,
/// except where a page says so.
#[test]
#[ignore = "needs the kernel's sources, and two minutes"]
fn nothing_is_found_but_what_has_a_page() {
    let done = check("failures", &SHIPPING);
    assert!(done.ends_with("found: mlx5-clean-up-fails, mlx5-pf-reload"), "{done}");
}
