// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! tmp
fn main() { let m = vfio_conform::migrate::in_memory(vfio_fsm_core::Features::ALL, None, &mut |_| {}).unwrap(); print!("{m}"); println!("{}", m.is_good()); 
let n = std::env::args().nth(1).map_or(1000, |n| n.parse().unwrap());
let t = std::time::Instant::now();
let s = vfio_conform::migrate::Seeds::run(0..n, None).unwrap(); print!("{s}"); println!("{:?}", t.elapsed()); }
