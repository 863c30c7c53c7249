// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! The bugs that others had, and what catches each.

use std::collections::BTreeMap;

use maud::{Markup, html};

use super::Page;
use crate::catalogue::{Entry, entries};
use crate::results::{Claim, Part};

impl Page<'_> {
    pub(super) fn bugs(&self) -> Markup {
        let entries = entries().unwrap_or_default();
        let claims =
            self.latest.model.map(|(_, model)| model.claims.as_slice()).unwrap_or_default();
        let traces = self.first_traces();
        html! {
            section id="bugs" {
                h2 { "Bugs that others had" }
                p.lead { (entries.len()) " bugs of drivers, the kernel and VMMs, and what catches each here." }
                table.bugs {
                    thead { tr { th { "bug" } th { "whose" } th { "what" } th { "caught by" } } }
                    tbody { @for entry in &entries { (bug(entry, claims, &traces)) } }
                }
            }
        }
    }

    /// For each planted bug, where the suites find it.
    fn first_traces(&self) -> BTreeMap<&str, &str> {
        let mut traces = BTreeMap::new();
        for (_, part) in self.directory.parts() {
            match part {
                Part::Planted(planted) => {
                    for (bug, trace) in planted {
                        if let Some(trace) = trace {
                            traces.entry(bug.as_str()).or_insert(trace.as_str());
                        }
                    }
                }
                Part::Yardstick(yardstick) => {
                    for planted in &yardstick.planted {
                        if let Some(found) =
                            planted.found.values().flatten().min_by_key(|it| it.step)
                        {
                            traces.entry(planted.fault.as_str()).or_insert(found.trace.as_str());
                        }
                    }
                }
                _ => {}
            }
        }
        traces
    }
}

fn bug(entry: &Entry, claims: &[Claim], traces: &BTreeMap<&str, &str>) -> Markup {
    html! {
        tr id=(entry.id) {
            td { code { (entry.id) } }
            td { (entry.subsystem) }
            td { (entry.what) br; span.sub { (entry.source) } }
            td {
                @for fault in &entry.faults {
                    div {
                        code { (fault) }
                        @for claim in claims.iter().filter(|claim| claim.fault == *fault) {
                            div.sub { @match claim.steps {
                                Some(steps) => { "✓ " (claim.property) ", " (steps) " steps" }
                                None => { span."tag failed" { "✗ survives " (claim.property) } }
                            } }
                        }
                        @if let Some(trace) = fault.strip_prefix("device:").and_then(|slug| traces.get(slug)) {
                            div.sub { "✓ trace " (trace) }
                        }
                    }
                }
                @if let Some(reason) = &entry.not_here {
                    span.sub { "Not in the model: " (reason) " " @if let Some(tested) = &entry.tested { "Tested: " (tested) } }
                }
            }
        }
    }
}
