// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! The bugs that others had, as `specs/bugs.toml` lists them.

use serde::Deserialize;

/// A bug, and the faults that stand for it in the model, or why none does.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Entry {
    /// As comments in the code name it: `B01`.
    pub id: String,
    /// Whose it was.
    pub subsystem: String,
    /// What was wrong.
    pub what: String,
    /// Where that is known from: a change, or a message.
    pub source: String,
    /// What kind of thing was wrong.
    pub class: Class,
    /// The faults of the model, as they are printed: `device:reset-keeps-state`.
    #[serde(default)]
    pub faults: Vec<String>,
    /// Why there is none.
    pub not_here: Option<String>,
    /// Where it is tested instead: a file, and what there is to be said of it.
    pub tested: Option<String>,
}

/// What kind of thing was wrong.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Class {
    /// A device_state, or what a device is like in it.
    State,
    /// Which session is alive, and whose data_fd.
    Session,
    /// How locks are taken.
    Lock,
    /// What comes before what.
    Order,
    /// What is got, given back, and used when.
    Lifetime,
    /// Somebody waits for ever.
    Liveness,
    /// The dirty log.
    Log,
    /// Which bytes stand where.
    Layout,
    /// How much fits.
    Bounds,
    /// Which error is returned.
    Errno,
}

/// Every entry.
///
/// # Errors
///
/// If the file is no catalogue; as it is a part of this program, a test finds that out first.
pub fn entries() -> Result<Vec<Entry>, toml::de::Error> {
    #[derive(Deserialize)]
    #[serde(deny_unknown_fields)]
    struct File {
        bug: Vec<Entry>,
    }
    toml::from_str(include_str!("../specs/bugs.toml")).map(|File { bug }| bug)
}
