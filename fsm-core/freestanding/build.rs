// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! Takes the host's C library and start-up code away from the program.
//!
//! Here and not in a cargo configuration file: which of those count depends on the directory that
//! cargo is called from, and RUSTFLAGS in the environment replaces theirs without a word.

fn main() {
    println!("cargo::rerun-if-changed=build.rs");
    // A bare target has neither, and its linker does not know these options.
    if std::env::var("CARGO_CFG_TARGET_OS").as_deref() != Ok("linux") {
        return;
    }
    let args = [
        "-nostartfiles",
        "-nostdlib",
        "-static",
        // At a fixed address: nobody is there to relocate the program when it starts.
        "-no-pie",
        // The unwind tables of the ready-made `core` name std's personality function. Nothing
        // here unwinds, so nothing calls it.
        "-Wl,--defsym=rust_eh_personality=0",
    ];
    for arg in args {
        println!("cargo::rustc-link-arg-bins={arg}");
    }
}
