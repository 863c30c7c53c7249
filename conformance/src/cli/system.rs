// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! `vfio-conform check`: level 3 of the model, two machines.

use std::collections::BTreeMap;
use std::fmt;

use serde::Serialize;
use vfio_fsm_model::{
    Failure, SYSTEM_CASES, SYSTEM_CLAIMS, SYSTEM_REFUTATIONS, SystemCase, SystemChecked,
    check_system, check_system_claim, check_system_runs, refute_system,
};

use super::check::{Caught, Space, claims, judging};

/// What the check of two machines came to.
#[derive(Debug, Serialize)]
pub(super) struct Systems {
    system_spaces: Vec<Space>,
    /// What two VMMs get wrong between them, and slips around a session at both ends.
    system_claims: Vec<Caught>,
    /// What is false without an assumption.
    system_refutations: Vec<Caught>,
}

impl Systems {
    /// The small cases, how their runs end, and every claim.
    pub(super) fn find() -> Self {
        let check = |case| {
            let mut checked = check_system(case);
            let trap = check_system_runs(case).trap;
            checked.failures.extend(trap.map(Failure::Broken));
            Space::from(checked)
        };
        let system_claims = SYSTEM_CLAIMS.iter().map(|claim| {
            Caught::by_run(claim.wrong.slug(), claim.property, check_system_claim(claim))
        });
        let system_refutations = SYSTEM_REFUTATIONS.iter().map(|refutation| {
            Caught::by_run(refutation.name, refutation.without, refute_system(refutation))
        });
        Self {
            system_spaces: cases(true).map(check).collect(),
            system_claims: system_claims.collect(),
            system_refutations: system_refutations.collect(),
        }
    }

    pub(super) fn claims(&self) -> impl Iterator<Item = &Caught> {
        self.system_claims.iter().chain(&self.system_refutations)
    }

    pub(super) fn is_good(&self) -> bool {
        let idle = idle(&self.system_spaces);
        self.system_spaces.iter().all(Space::is_good)
            && idle.is_empty()
            && self.claims().all(Caught::is_caught)
    }
}

/// The large cases, without how their runs end.
#[derive(Debug, Serialize)]
#[serde(transparent)]
pub(super) struct LargeSystems(Vec<Space>);

impl LargeSystems {
    pub(super) fn find() -> Self {
        Self(cases(false).map(|case| Space::from(check_system(case))).collect())
    }

    pub(super) fn is_good(&self) -> bool {
        self.0.iter().all(Space::is_good)
    }
}

fn cases(small: bool) -> impl Iterator<Item = &'static SystemCase> {
    SYSTEM_CASES.iter().filter(move |case| case.small == small)
}

/// Properties that never had anything to judge.
fn idle(spaces: &[Space]) -> Vec<&'static str> {
    let mut judged = BTreeMap::new();
    for (id, count) in spaces.iter().flat_map(Space::judged) {
        *judged.entry(id).or_insert(0) += count;
    }
    judged.into_iter().filter(|&(_, count)| count == 0).map(|(id, _)| id).collect()
}

impl From<SystemChecked> for Space {
    fn from(checked: SystemChecked) -> Self {
        Self::new(
            checked.case.name,
            checked.case.features(),
            (checked.states, checked.transitions, checked.depth),
            checked.time,
            checked.failures.iter().map(ToString::to_string).collect(),
            checked.judged,
        )
    }
}

impl fmt::Display for Systems {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let properties = judging(&self.system_spaces) + 1;
        writeln!(f, "model, level 3, two machines: {properties} properties")?;
        self.system_spaces.iter().try_for_each(|space| space.fmt(f))?;
        let mut slips: Vec<_> = SYSTEM_CLAIMS.iter().map(|claim| claim.wrong.slug()).collect();
        slips.sort_unstable();
        slips.dedup();
        claims(f, "slips between two VMMs", slips.len(), &self.system_claims)?;
        for property in idle(&self.system_spaces) {
            writeln!(f, "  FAIL: {property} had nothing to judge")?;
        }
        self.system_refutations.iter().try_for_each(|claim| claim.refuted(f))
    }
}

impl fmt::Display for LargeSystems {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "model, level 3, more of it")?;
        self.0.iter().try_for_each(|space| space.fmt(f))
    }
}
