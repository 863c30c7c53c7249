// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! Races: several threads at one device, and whether what they were answered can be explained by the
//! core's device doing one call after another.

mod history;
mod linear;
mod run;

pub use history::{Call, History};
pub(crate) use linear::{Dictated, Way};
pub use linear::{MOST_CALLS, Order, Rules, order};
pub use run::{Plan, Stuck, race};

/// The smallest part of a history that cannot be explained either: cut at the end, and without the
/// calls that only looked and are not needed.
///
/// A call that may have changed something stays. What was never done would have to be made up.
#[must_use]
pub fn shrink(history: &History, rules: Rules) -> History {
    let is_wrong = |history: &History| order(history, rules) == Order::None;
    let mut ends: Vec<_> = history.0.iter().map(|call| call.ended).collect();
    ends.sort_unstable();
    let cut = ends.into_iter().map(|end| history.until(end)).find(is_wrong);
    let mut smallest = cut.unwrap_or_else(|| history.clone());
    for index in (0..smallest.0.len()).rev() {
        let less = smallest.without(index);
        if smallest.0[index].only_looks() && is_wrong(&less) {
            smallest = less;
        }
    }
    smallest
}
