// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! What the settled claim stands on: the tables of `specs/settled-claim.md`, and what a run has to
//! say of each assumption that a model drops.

use maud::{Markup, html};

/// The page with the claim, as it was when this program was built.
const PAGE: &str = include_str!("../../specs/settled-claim.md");

/// The columns that the tables of assumptions have in common.
const COLUMNS: [&str; 3] = ["assumption", "with it", "without it"];

/// One assumption.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Assumption {
    pub(super) text: String,
    pub(super) with: String,
    pub(super) without: String,
}

/// Every row of every table of assumptions.
pub(super) fn assumptions() -> Vec<Assumption> {
    let mut rows = Vec::new();
    let mut is_inside = false;
    for line in PAGE.lines() {
        let cells: Vec<_> = line.trim().trim_matches('|').split('|').map(str::trim).collect();
        match cells.as_slice() {
            _ if !line.starts_with('|') => is_inside = false,
            [a, b, c, ..] if [*a, *b, *c] == COLUMNS => is_inside = true,
            [a, ..] if a.starts_with("---") => {}
            [text, with, without, ..] if is_inside => rows.push(Assumption {
                text: (*text).to_owned(),
                with: (*with).to_owned(),
                without: (*without).to_owned(),
            }),
            _ => {}
        }
    }
    rows
}

/// Text in which what stands between backquotes is code.
pub(super) fn prose(text: &str) -> Markup {
    html! {
        @for (index, part) in text.split('`').enumerate() {
            @if index % 2 == 1 { code { (part) } } @else { (part) }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// H7: every row of the tables of assumptions is found, and no other table's.
    #[test]
    fn the_tables_of_the_claim_are_found() {
        let all = assumptions();
        assert!(all.len() >= 20, "{}", all.len());
        assert!(all.iter().all(|row| !row.text.is_empty() && !row.with.is_empty()));
        assert!(
            all.iter()
                .any(|row| row.text.contains("held back") && row.without.contains("44 steps"))
        );
        assert!(all.iter().all(|row| !row.text.contains("STOP_COPY|")), "a table of sizes");
        assert_eq!(prose("a `<b>` c").0, "a <code>&lt;b&gt;</code> c");
    }
}
