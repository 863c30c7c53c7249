// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! The `no_std` proof: `vfio-fsm-core` in a program that has nothing beneath it.
//!
//! No std, no allocator, no C library, no start-up code. A crate that brings in std or alloc
//! cannot be built into it, and a function that nobody provides cannot be linked into it. The core
//! is used all through, so that what is generic is instantiated and everything is linked. On
//! x86_64 Linux the program can be run too: it exits with 0, with the number of the first check
//! that went wrong, or with 101 after a panic.
#![no_std]
#![no_main]
// The memory functions below must not be recognised as such, and compiled into calls of themselves.
#![no_builtins]

mod checks;
mod entry;
mod memory;
