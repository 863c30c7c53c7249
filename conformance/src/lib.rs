// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! Conformance suites for VFIO migration v2, generated from the verified core.
//!
//! * [`suite`] generates [`trace`]s: ops, and what a device must answer.
//! * [`replay`] runs them on a [`replay::Target`] and gives verdicts; [`target`] has the core's own
//!   device, the mlx5 backend and real device nodes, and any type of yours can be one.
//! * [`vfio_user`] carries the ops over a socket: the messages, a client, and a server.
//! * [`deviation`] is what a driver is known to do differently.
//! * [`dirty`] is the log of DMA as an automaton, with an oracle.
//! * [`migrate`] runs whole migrations between two devices, with a reset at every step.
//! * [`lifetime`] closes, unbinds and removes devices under their users.
//! * [`observe`] holds recordings of real VMMs against the state machine, from both sides.
//! * [`qemu`] drives a real QEMU that migrates a device, and records it.
//! * [`results`] keeps what runs found, and `page` shows it.
//! * `verify` holds the mlx5 backend against a kernel's headers, the shipping driver and libmlx5.
//! * [`tidy`] is what keeps the tool from leaving anything behind when it is killed.
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
pub mod coverage;
pub mod deviation;
pub mod dirty;
#[cfg(feature = "junit")]
pub mod junit;
#[cfg(feature = "lab")]
pub mod lab;
pub mod lifetime;
mod lines;
pub mod migrate;
pub mod observe;
#[cfg(feature = "report")]
pub mod page;
pub mod qemu;
pub mod race;
pub mod replay;
pub mod report;
pub mod results;
pub mod suite;
pub mod target;
pub mod tidy;
pub mod trace;
#[cfg(all(feature = "mlx5", feature = "lab"))]
pub mod verify;
pub mod vfio_user;

/// The README's code is compiled and run.
#[cfg(doctest)]
#[doc = include_str!("../WORKSPACE.md")]
struct Readme;

/// And so is this crate's.
#[cfg(doctest)]
#[doc = include_str!("../README.md")]
struct CratesReadme;

/// So is the chapter's for who has a device to test.
#[cfg(doctest)]
#[doc = include_str!("../specs/writing-a-target.md")]
struct WritingATarget;

/// So is the chapter's for who has a VMM.
#[cfg(doctest)]
#[doc = include_str!("../specs/vmm.md")]
struct ForAVmm;
