// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! Suites, generated from the core's FSM: no reply in them is written by hand but where the uAPI
//! leaves a device more than one.

mod arcs;
mod complete;
mod evidence;
mod faults;
mod fds;
#[cfg(feature = "check")]
mod model;
mod resets;
mod script;
mod streams;
mod tester;
mod ways;

use std::fmt;

use serde::Serialize;
use vfio_fsm_core::{Features, State};

use crate::trace::Trace;

pub use complete::{Specification, Subject};
#[cfg(feature = "check")]
pub use model::Refuted;
pub use tester::{Input, Kind, Live, Which};

/// A suite.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, clap::ValueEnum)]
#[serde(rename_all = "snake_case")]
pub enum Suite {
    /// From every state, however reached, a SET of every state and of numbers that are none.
    Arcs,
    /// A reset in every state, its session untouched, begun or drained, and what remains of it.
    Resets,
    /// Lifetimes, flags and misuse of the data_fd.
    Fds,
    /// What goes through the data_fd: pieces, ends, round trips, damage.
    Streams,
    /// What goes wrong around a device: arcs that fail in every way, no room for a data_fd, the
    /// device closed under its sessions, streams damaged at every byte and bit.
    Faults,
    /// From every state every input, and what identifies the state after it: complete for devices
    /// with no more states than the specification.
    Complete,
    /// The shortest runs, found by the model checker, that break a property where something is wrong.
    #[cfg(feature = "check")]
    Model,
}

impl Suite {
    /// Every suite.
    pub const ALL: &[Self] = &[
        Self::Arcs,
        Self::Resets,
        Self::Fds,
        Self::Streams,
        Self::Faults,
        Self::Complete,
        #[cfg(feature = "check")]
        Self::Model,
    ];

    /// Its traces, for one set of flags.
    pub fn generate(self, features: Features) -> Vec<Trace> {
        match self {
            Self::Arcs => arcs::generate(features),
            Self::Resets => resets::generate(features),
            Self::Fds => fds::generate(features),
            Self::Streams => streams::generate(features),
            Self::Faults => faults::generate(features),
            Self::Complete => complete::generate(features),
            #[cfg(feature = "check")]
            Self::Model => model::generate(features),
        }
    }

    /// The one of them that is named so, if there is one, for who wants no other: of the model only
    /// that one is looked for.
    pub fn named(self, features: Features, name: &str) -> Option<Trace> {
        match self {
            #[cfg(feature = "check")]
            Self::Model => model::named(features, name),
            _ => self.generate(features).into_iter().find(|trace| trace.header.name == name),
        }
    }

    /// Its traces, for every set of flags.
    pub fn generate_all(self) -> Vec<Trace> {
        Features::SETS.into_iter().flat_map(|features| self.generate(features)).collect()
    }

    /// The name, as traces begin with it.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Arcs => "arcs",
            Self::Resets => "resets",
            Self::Fds => "fds",
            Self::Streams => "streams",
            Self::Faults => "faults",
            Self::Complete => "complete",
            #[cfg(feature = "check")]
            Self::Model => "model",
        }
    }
}

/// What is replayed to measure how fast it is done: away from RUNNING and back with a look at the
/// state each time, so often.
pub fn pace(features: Features, rounds: u32) -> Trace {
    let away = away(features);
    let mut script = script::Script::new("pace", features, "away-and-back", &[]);
    for _ in 0..rounds {
        script.set(away).get().set(State::Running).get();
    }
    script.finish()
}

/// The nearest state to RUNNING.
pub const fn away(features: Features) -> State {
    if features.p2p() { State::RunningP2p } else { State::Stop }
}

impl fmt::Display for Suite {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.name())
    }
}
