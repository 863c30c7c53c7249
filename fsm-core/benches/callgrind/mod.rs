// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! Instructions instead of time, so that what else the machine does is of no account. Benches of
//! other crates take this file in by its path.

use std::process::Command;

/// Instructions that valgrind counts in this program, doing one thing so many times.
pub(crate) fn instructions(what: &str, rounds: u64) -> Result<u64, String> {
    let own = std::env::current_exe().map_err(|error| error.to_string())?;
    let output = Command::new("valgrind")
        .args(["--tool=callgrind", "--callgrind-out-file=/dev/null"])
        .arg(own)
        .args([what, &rounds.to_string()])
        .output()
        .map_err(|error| format!("valgrind: {error}; install the Debian package valgrind"))?;
    let text = String::from_utf8_lossy(&output.stderr);
    let count = text.lines().find_map(|line| line.split("Collected :").nth(1));
    let count = count.and_then(|count| count.trim().parse().ok());
    count.filter(|_| output.status.success()).ok_or_else(|| format!("valgrind failed: {text}"))
}
