// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! The state machine of Linux' VFIO migration v2, in one place and checked.
//!
//! * [`State`] and [`Features`]: the eight states and the four legal flag sets.
//! * [`next_hop`], [`Route`], [`Arc`]: what `SET` walks, as `const fn` over one table.
//! * [`Op`] and [`Reply`]: the alphabet between a VMM and a device. Suites, models, recordings and
//!   backends all speak it.
//! * [`vmm`]: the VMM's side. Sessions that carry a device over, whatever resets it meanwhile.
//! * [`device`]: the driver's side. Which arc comes next, what happens to the data_fd, what an
//!   error leaves behind, and how a reset that arrives in the middle of it all is handed over.
//!
//! ```
//! use vfio_fsm_core::{Features, Route, State};
//!
//! let route = Route::new(Features::ALL, State::PreCopy, State::StopCopy)?;
//! assert_eq!(route.to_string(), "PRE_COPY -> PRE_COPY_P2P -> STOP_COPY");
//! assert_eq!(route.opens(), None, "the session of PRE_COPY goes on, so no fd is returned");
//!
//! // The request that keeps an unpatched kernel spinning with its mutex held never leaves the VMM.
//! let refused = Route::new(Features::ALL, State::StopCopy, State::PreCopy).unwrap_err();
//! assert!(refused.is_blocked());
//! # Ok::<(), vfio_fsm_core::Refused>(())
//! ```
//!
//! The names `R…`, `C…`, `O…` and `T…` in these pages are the ids of `specs/requirements.toml`.
//!
//! # Semver
//!
//! Before 1.0 a minor version may break, and the changelog says where. From then on a change is a
//! breaking one if code no longer compiles against it, and also if a route, a reply of [`device`], an
//! op of a session or a byte of the stream is another than before: `tests/snapshots` and
//! `specs/stream-format.md` show such a change as a difference. Enums that may grow are
//! `#[non_exhaustive]`; the alphabet, [`vmm::Hook`] and [`vmm::Event`] are not, since whoever carries
//! them out has to know all of them. The oldest Rust that will do is 1.85; a newer one is a minor
//! version.
//!
//! # Features
//!
//! * `serde`: `Serialize` and `Deserialize` for the alphabet, under the uAPI's own names.
//! * `mutants`: for checkers only; see [`device::Bug`].
#![cfg_attr(docsrs, feature(doc_cfg))]
#![no_std]
#![forbid(unsafe_code)]

mod arc;
pub mod device;
mod diagram;
mod op;
mod state;
pub mod vmm;

pub use arc::{Arc, Refused, Route, SessionEffect, Why, allowed, arcs, next_hop};
pub use diagram::{Dot, Mermaid};
pub use op::{EndOfStream, Errno, Fault, Fd, FdFlags, Leaves, Op, PrecopyInfo, Readiness, Reply};
pub use state::{Direction, Features, IllegalFeatures, RawState, State, StateSet};

/// The README's code is compiled and run.
#[cfg(doctest)]
#[doc = include_str!("../README.md")]
struct Readme;
