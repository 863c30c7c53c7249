// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! What the model check said, and what that stands on.

use std::collections::BTreeSet;

use maud::{Markup, html};

use super::claim::{assumptions, prose};
use super::machine::count;
use super::{Page, mark, when};
use crate::results::{Claim, Model, Space};

impl Page<'_> {
    pub(super) fn model(&self) -> Markup {
        let Some((run, model)) = self.latest.model else {
            return html! { section id="model" {
                h2 { "Model" }
                p.none { "No model check is among the results: " code { "vfio-conform check --results DIR" } " does one." }
            } };
        };
        let levels = [
            ("Level 1: any VMM, and the sessions that ship", &model.spaces),
            ("Level 2: the locks of a driver", &model.lock_spaces),
            ("Level 3: two machines", &model.system_spaces),
        ];
        html! {
            section id="model" {
                h2 { "Model" }
                p.lead { "Of " (when(&run.head.began)) ". Every property is true in every world that was reached, unless it says so." }
                @if let Some(why) = &model.not_finished { p.warning { "Not finished: " (why) } }
                @for (title, spaces) in levels.iter().filter(|(_, spaces)| !spaces.is_empty()) {
                    h3 { (title) }
                    (spaces_table(spaces))
                }
                @if !model.properties.is_empty() { (properties(model)) }
            }
        }
    }

    pub(super) fn claim(&self) -> Markup {
        let claims =
            self.latest.model.map(|(_, model)| model.claims.as_slice()).unwrap_or_default();
        let dropped: Vec<_> =
            claims.iter().filter(|claim| claim.fault.starts_with("assumption:")).collect();
        html! {
            section id="claim" {
                h2 { "What it stands on" }
                p.lead { "The assumptions of the settled claim, from " code { "specs/settled-claim.md" } "." }
                table {
                    thead { tr { th { "assumption" } th { "with it" } th { "without it" } } }
                    tbody { @for row in assumptions() { tr {
                        td { (prose(&row.text)) } td { (prose(&row.with)) } td { (prose(&row.without)) }
                    } } }
                }
                h3 { "Dropped assumptions" }
                @if dropped.is_empty() { p.none { "No model check with its claims is among the results." } }
                @else {
                    p { "A model without the assumption must break the property: in so many steps it does." }
                    (claims_table(&dropped))
                }
            }
        }
    }
}

fn spaces_table(spaces: &[Space]) -> Markup {
    html! {
        table {
            thead { tr {
                th { "model" } th { "flags" } th { "verdict" } th.number { "worlds" } th.number { "steps" }
                th.number { "depth" } th.number { "seconds" } th.number { "properties" }
            } }
            tbody { @for space in spaces {
                @let (class, verdict) = match (space.failures.is_empty(), &space.not_finished) {
                    (false, _) => ("failed", "broken"),
                    (true, Some(_)) => ("unfinished", "not finished"),
                    (true, None) => ("good", "hold"),
                };
                tr {
                    td { (space.model) } td.flags { (space.features) }
                    td { span.(format!("tag {class}")) { (mark(class)) " " (verdict) }
                        @for failure in &space.failures { pre { (failure) } } }
                    td.number { (count(space.states)) } td.number { (count(space.transitions)) }
                    td.number { (space.depth) } td.number { (format!("{:.1}", space.seconds)) }
                    td.number { (space.judged.len()) }
                }
            } }
        }
    }
}

fn properties(model: &Model) -> Markup {
    let spaces = || model.spaces.iter().chain(&model.lock_spaces).chain(&model.system_spaces);
    let judged = |id: &str| spaces().filter_map(|space| space.judged.get(id)).sum::<u64>();
    let catches = |id: &str| {
        let claims =
            model.claims.iter().filter(|claim| claim.property == id && claim.steps.is_some());
        claims.map(|claim| claim.fault.as_str()).collect::<BTreeSet<_>>().len()
    };
    html! {
        details {
            summary { (model.properties.len()) " properties" span.sub { " what each says, how often it judged, and how many faults it catches" } }
            table {
                thead { tr { th { "property" } th { "what it says" } th.number { "judged" } th.number { "catches" } } }
                tbody { @for property in &model.properties { tr {
                    td { code { (property.id) } }
                    td { (property.text) " " span.sub { (property.covers.join(", ")) } }
                    td.number { (count(judged(&property.id))) } td.number { (catches(&property.id)) }
                } } }
            }
        }
    }
}

fn claims_table(claims: &[&Claim]) -> Markup {
    html! {
        table {
            thead { tr { th { "dropped" } th { "breaks" } th { "in the model" } th.number { "steps" } } }
            tbody { @for claim in claims { tr {
                td { code { (claim.fault.trim_start_matches("assumption:")) } }
                td { code { (claim.property) } }
                td { (claim.model) ", " span.flags { (claim.features) }
                    @if let Some(run) = &claim.run { details { summary { "the run" } pre { (run) } } } }
                td.number { @match claim.steps {
                    Some(steps) => { (steps) }
                    None => { span."tag failed" { "✗ not broken" } }
                } }
            } } }
        }
    }
}
