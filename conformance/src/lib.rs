// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! Conformance suites for VFIO migration v2, generated from the verified core.
//!
//! * [`suite`] generates [`trace`]s: ops, and what a device must answer.
//! * [`replay`] runs them on a [`replay::Target`] and gives verdicts; [`target`] has the core's own
//!   device, the mlx5 backend and real device nodes, and any type of yours can be one.
//! * [`deviation`] is what a driver is known to do differently.
//! * [`migrate`] runs whole migrations between two devices, with a reset at every step.
//! * [`observe`] holds recordings of real VMMs against the state machine, from both sides.
//! * `verify` holds the mlx5 backend against a kernel's headers, the shipping driver and libmlx5.
//! * `lab` boots a distribution's kernel in a virtual machine and replays on its sample driver.
//!
//! ```
//! use vfio_conform::replay::{Options, Replayer, Verdict};
//! use vfio_conform::suite::Suite;
//! use vfio_conform::target::Reference;
//!
//! let (mut source, mut destination) = (Reference::new(), Reference::new());
//! let mut replayer = Replayer::new(vec![&mut source, &mut destination]);
//! for trace in Suite::Streams.generate_all() {
//!     let outcome = replayer.replay(&trace, Options::default());
//!     assert_eq!(outcome.verdict, Verdict::Pass, "{}", trace.header.name);
//! }
//! ```
#![cfg_attr(docsrs, feature(doc_cfg))]

#[cfg(feature = "check")]
pub mod catalogue;
pub mod complete;
pub mod deviation;
#[cfg(feature = "lab")]
pub mod lab;
pub mod migrate;
pub mod observe;
pub mod race;
pub mod replay;
pub mod report;
pub mod suite;
pub mod target;
pub mod trace;
#[cfg(all(feature = "mlx5", feature = "lab"))]
pub mod verify;

/// The README's code is compiled and run.
#[cfg(doctest)]
#[doc = include_str!("../WORKSPACE.md")]
struct Readme;

/// So is the page's for those who have a driver or a device to test.
#[cfg(doctest)]
#[doc = include_str!("../specs/test-your-driver.md")]
struct TestYourDriver;
