// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! `vfio-conform check --mutants`: which property catches which bug, in how many steps.

use std::collections::BTreeSet;
use std::fmt;

use serde::Serialize;
use vfio_conform::catalogue::{self, Entry};
use vfio_conform::suite::Refuted;

use super::Result;

/// Which property catches which bug.
#[derive(Debug, Serialize)]
pub(crate) struct Matrix {
    /// Of the catalogue, one row for each fault and property.
    bugs: Vec<Row>,
    /// Faults that no bug of the catalogue is behind.
    others: Vec<Row>,
    /// Bugs that the model has no fault for.
    not_here: Vec<NotHere>,
}

#[derive(Debug, Serialize)]
struct Row {
    #[serde(skip_serializing_if = "Option::is_none")]
    bug: Option<String>,
    fault: String,
    /// `None` if nothing claims the fault.
    property: Option<&'static str>,
    /// In which model it does.
    model: Option<&'static str>,
    /// The length of the shortest run; `None` if the fault survives.
    steps: Option<usize>,
}

#[derive(Debug, Serialize)]
struct NotHere {
    bug: String,
    reason: String,
    tested: Option<String>,
}

impl Matrix {
    pub(crate) fn find() -> Result<Self> {
        let entries = catalogue::entries()?;
        let named: BTreeSet<&String> = entries.iter().flat_map(|entry| &entry.faults).collect();
        let others = Refuted::all().iter().map(|refuted| refuted.claim.fault.to_string());
        let others: BTreeSet<String> = others.filter(|fault| !named.contains(fault)).collect();
        let bugs = entries.iter().flat_map(|entry| {
            entry.faults.iter().flat_map(|fault| Row::of(Some(&entry.id), fault))
        });
        Ok(Self {
            bugs: bugs.collect(),
            others: others.iter().flat_map(|fault| Row::of(None, fault)).collect(),
            not_here: entries.iter().filter_map(NotHere::of).collect(),
        })
    }

    /// Whether nothing survives.
    pub(crate) fn is_good(&self) -> bool {
        self.bugs.iter().chain(&self.others).all(|row| row.steps.is_some())
    }
}

impl Row {
    /// One for each property that claims the fault; one that says so if none does.
    fn of(bug: Option<&String>, fault: &str) -> Vec<Self> {
        let claims = Refuted::all().iter().filter(|it| it.claim.fault.to_string() == fault);
        let row = |property, model, steps| Self {
            bug: bug.cloned(),
            fault: fault.to_owned(),
            property,
            model,
            steps,
        };
        let claimed = |it: &Refuted| {
            let steps = it.run().map(|run| run.steps.len());
            row(Some(it.claim.property), Some(it.claim.model()), steps)
        };
        let rows: Vec<_> = claims.map(claimed).collect();
        if rows.is_empty() { vec![row(None, None, None)] } else { rows }
    }
}

impl NotHere {
    fn of(entry: &Entry) -> Option<Self> {
        let reason = entry.not_here.clone()?;
        Some(Self { bug: entry.id.clone(), reason, tested: entry.tested.clone() })
    }
}

impl fmt::Display for Row {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (bug, fault) = (self.bug.as_deref().unwrap_or("-"), &self.fault);
        let property = self.property.unwrap_or("nothing");
        write!(f, "{bug:<4} {fault:<33} {property:<33} ")?;
        match self.steps {
            Some(steps) => writeln!(f, "{steps:>5}"),
            None => writeln!(f, " FAIL"),
        }
    }
}

impl fmt::Display for NotHere {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let tested = self.tested.as_ref().map_or("nowhere", String::as_str);
        let text = format!("{} Tested: {tested}.", self.reason);
        (0..).zip(lines(&text, WIDTH - 5)).try_for_each(|(number, line)| {
            let bug = if number == 0 { self.bug.as_str() } else { "" };
            writeln!(f, "{bug:<4} {line}")
        })
    }
}

/// What is printed fits a terminal of this width.
pub(super) const WIDTH: usize = 80;

/// A text, broken between words.
pub(super) fn lines(text: &str, width: usize) -> Vec<String> {
    let mut lines = vec![String::new()];
    for word in text.split_whitespace() {
        match lines.last_mut() {
            Some(line) if line.is_empty() => line.push_str(word),
            Some(line) if line.len() + 1 + word.len() <= width => {
                line.push(' ');
                line.push_str(word);
            }
            _ => lines.push(word.to_owned()),
        }
    }
    lines
}

impl fmt::Display for Matrix {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "{:<4} {:<33} {:<33} steps", "bug", "fault", "caught by")?;
        self.bugs.iter().chain(&self.others).try_for_each(|row| row.fmt(f))?;
        writeln!(f, "not in the model")?;
        self.not_here.iter().try_for_each(|bug| bug.fmt(f))
    }
}
