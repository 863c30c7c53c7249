// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! Where the program begins and ends.

use core::panic::PanicInfo;

use crate::checks;

/// The exit status of a panic, as std has it.
const PANICKED: u8 = 101;

// The stack is aligned to 16 bytes here, and a function expects it so before the call that enters
// it: hence a call, and no function in Rust at this address.
#[cfg(all(target_os = "linux", target_arch = "x86_64"))]
core::arch::global_asm!(
    ".globl _start",
    "_start:",
    "xor ebp, ebp",
    "call {main}",
    "ud2",
    main = sym main,
);

/// There is no system to ask for an end: a bare target, or one that this program cannot speak to.
#[cfg(not(all(target_os = "linux", target_arch = "x86_64")))]
#[unsafe(no_mangle)]
extern "C" fn _start() -> ! {
    main()
}

extern "C" fn main() -> ! {
    exit(checks::first_failure().unwrap_or(0))
}

#[panic_handler]
fn panicked(_: &PanicInfo<'_>) -> ! {
    exit(PANICKED)
}

#[cfg(all(target_os = "linux", target_arch = "x86_64"))]
fn exit(status: u8) -> ! {
    const EXIT: u64 = 60;
    // SAFETY: exit(2) takes one number, touches no memory of ours and does not return.
    unsafe {
        core::arch::asm!("syscall", in("rax") EXIT, in("rdi") u64::from(status), options(noreturn));
    }
}

#[cfg(not(all(target_os = "linux", target_arch = "x86_64")))]
fn exit(_status: u8) -> ! {
    loop {
        core::hint::spin_loop();
    }
}
