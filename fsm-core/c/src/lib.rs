// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! `vfio-fsm-core` for VMMs in C: routes, legality and the signs of a reset.
//!
//! Every function is pure: no allocation, no locks, no state, and no panic in the release build,
//! whose archive has nothing that one could need. States are the numbers of `enum
//! vfio_device_mig_state`, flags the `VFIO_MIGRATION_*` of `struct vfio_device_feature_migration`.
//! Any number is taken: one that is no state, flags that are no legal set and a null pointer are
//! answered by one of the codes below, and then nothing is written.
#![no_std]

pub mod code;
pub mod evidence;
pub mod route;

/// Never reached, and so not in the archive of the release build.
#[panic_handler]
fn panic(_info: &core::panic::PanicInfo<'_>) -> ! {
    loop {}
}
