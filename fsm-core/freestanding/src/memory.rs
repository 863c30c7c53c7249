// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! The functions of the C library that compiled code may call without having asked for them.
//!
//! These are all: `core` promises to need no others. Byte by byte, because nothing depends on how
//! fast they are.

use core::ffi::c_int;

/// # Safety
///
/// As in C: `len` bytes can be read from `from` and written to `to`.
#[unsafe(no_mangle)]
unsafe extern "C" fn memmove(to: *mut u8, from: *const u8, len: usize) -> *mut u8 {
    // Where they overlap, the end that would be overwritten first is copied first.
    let backwards = to.cast_const() > from;
    for step in 0..len {
        let at = if backwards { len - 1 - step } else { step };
        // SAFETY: `at` is below `len`, and the caller vouches for that many bytes on both sides.
        unsafe { *to.add(at) = *from.add(at) };
    }
    to
}

/// # Safety
///
/// As in C: like [`memmove`], and the two do not overlap.
#[unsafe(no_mangle)]
unsafe extern "C" fn memcpy(to: *mut u8, from: *const u8, len: usize) -> *mut u8 {
    // SAFETY: the caller promises more than is needed here.
    unsafe { memmove(to, from, len) }
}

/// # Safety
///
/// As in C: `len` bytes can be written to `to`.
#[unsafe(no_mangle)]
unsafe extern "C" fn memset(to: *mut u8, byte: c_int, len: usize) -> *mut u8 {
    for at in 0..len {
        // SAFETY: `at` is below `len`, and the caller vouches for that many bytes.
        unsafe { *to.add(at) = byte as u8 };
    }
    to
}

/// # Safety
///
/// As in C: `len` bytes can be read from `a` and from `b`.
#[unsafe(no_mangle)]
unsafe extern "C" fn memcmp(a: *const u8, b: *const u8, len: usize) -> c_int {
    for at in 0..len {
        // SAFETY: `at` is below `len`, and the caller vouches for that many bytes on both sides.
        let (a, b) = unsafe { (*a.add(at), *b.add(at)) };
        if a != b {
            return c_int::from(a) - c_int::from(b);
        }
    }
    0
}

/// # Safety
///
/// Like [`memcmp`].
#[unsafe(no_mangle)]
unsafe extern "C" fn bcmp(a: *const u8, b: *const u8, len: usize) -> c_int {
    // SAFETY: the same promise.
    unsafe { memcmp(a, b, len) }
}
