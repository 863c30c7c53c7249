// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! tmp
fn main() { let m = vfio_conform::migrate::in_memory(vfio_fsm_core::Features::ALL, None, &mut |_| {}); print!("{m}"); println!("{}", m.is_good()); }
