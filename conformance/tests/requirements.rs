// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! Holds specs/requirements.toml against what there is: every requirement is covered, or says why
//! nothing here can show it; every cover exists and names the requirement; nothing names one that is
//! none.
//!
//! The `covers` in the file are derived: `UPDATE_EXPECT=1 cargo test --test requirements` writes
//! them anew from the tests' doc comments, the model's properties and the suites' traces.

#![expect(clippy::expect_used, clippy::unwrap_used, reason = "helpers of tests may fail them")]

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};

use regex::Regex;
use serde::Deserialize;
use vfio_conform::suite::Suite;
use vfio_fsm_model::properties;

#[derive(Deserialize)]
struct File {
    requirement: Vec<Requirement>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Requirement {
    id: String,
    level: Level,
    source: String,
    text: String,
    covers: BTreeSet<String>,
    uncovered: Option<String>,
    #[expect(dead_code, reason = "for people")]
    note: Option<String>,
}

#[derive(Deserialize, PartialEq)]
#[serde(rename_all = "snake_case")]
enum Level {
    Must,
    Should,
    May,
    Undefined,
}

type Covers = BTreeMap<String, BTreeSet<String>>;

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap().to_owned()
}

fn requirements_path() -> PathBuf {
    root().join("specs/requirements.toml")
}

fn requirements() -> Vec<Requirement> {
    let text = fs::read_to_string(requirements_path()).expect("the file is there");
    toml::from_str::<File>(&text).expect("the file parses").requirement
}

/// What there is: id to what covers it.
fn covers() -> Covers {
    let mut covers = Covers::new();
    for property in properties() {
        for id in property.covers {
            covers.entry((*id).to_owned()).or_default().insert(format!("property:{}", property.id));
        }
    }
    for &suite in Suite::ALL {
        for trace in suite.generate_all() {
            for id in &trace.header.covers {
                covers.entry(id.to_string()).or_default().insert(format!("suite:{suite}"));
            }
        }
    }
    for package in ["fsm-core", "fsm-model", "kernel-backend", "mlx5-backend", "conformance"] {
        for folder in ["src", "tests"] {
            tests_below(&root().join(package).join(folder), &mut covers);
        }
    }
    covers
}

/// The tests whose doc comments name requirements.
fn tests_below(folder: &Path, covers: &mut Covers) {
    let Ok(entries) = fs::read_dir(folder) else { return };
    for path in entries.map(|entry| entry.unwrap().path()) {
        if path.is_dir() {
            tests_below(&path, covers);
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            tests_in(&path, covers);
        }
    }
}

fn tests_in(path: &Path, covers: &mut Covers) {
    // Only what a doc comment begins with: "R2, R17, T1: the numbers …".
    let list = Regex::new(r"^ ((?:[A-Z][0-9]+(?:, )?)+):").unwrap();
    let function = Regex::new(r"^\s*fn (\w+)").unwrap();
    let file = path.strip_prefix(root()).unwrap().display().to_string();
    let (mut named, mut is_test) = (BTreeSet::new(), false);
    for line in fs::read_to_string(path).unwrap().lines() {
        let text = line.trim_start();
        if let Some(comment) = text.strip_prefix("///") {
            let ids = list.captures(comment).map(|found| found[1].to_owned());
            named.extend(ids.iter().flat_map(|ids| ids.split(", ")).map(str::to_owned));
        } else if text.starts_with("#[test]") {
            is_test = true;
        } else if let Some(found) = function.captures(line) {
            if is_test {
                for id in &named {
                    let cover = format!("test:{file}::{}", &found[1]);
                    covers.entry(id.clone()).or_default().insert(cover);
                }
            }
            (named, is_test) = (BTreeSet::new(), false);
        } else if !text.starts_with('#') {
            (named, is_test) = (BTreeSet::new(), false);
        }
    }
}

/// The file with its `covers` written anew.
fn rewritten(text: &str, covers: &Covers) -> String {
    let block = Regex::new(r#"(?s)(id = "(\w+)".*?\ncovers = )\[.*?\]"#).unwrap();
    let replaced = block.replace_all(text, |found: &regex::Captures<'_>| {
        let list = covers.get(&found[2]).into_iter().flatten();
        let list: String = list.map(|cover| format!("    \"{cover}\",\n")).collect();
        let list = if list.is_empty() { "[]".to_owned() } else { format!("[\n{list}]") };
        format!("{}{list}", &found[1])
    });
    replaced.into_owned()
}

/// The list is whole and well formed: R1 to R50, no id twice, every field said.
#[test]
fn the_list_is_well_formed() {
    let requirements = requirements();
    let ids: BTreeSet<_> = requirements.iter().map(|r| r.id.as_str()).collect();
    assert_eq!(ids.len(), requirements.len(), "an id stands twice");
    for number in 1..=50 {
        assert!(ids.contains(format!("R{number}").as_str()), "R{number} is missing");
    }
    for requirement in &requirements {
        let Requirement { id, text, source, .. } = requirement;
        assert!(text.ends_with('.') && text.len() > 20, "{id}: {text:?}");
        assert!(!source.is_empty(), "{id} has no source");
    }
}

/// Every cover that the file names exists, and every one that exists stands in the file.
#[test]
fn the_covers_are_those_that_there_are() {
    let path = requirements_path();
    let text = fs::read_to_string(&path).unwrap();
    let now = rewritten(&text, &covers());
    if std::env::var_os("UPDATE_EXPECT").is_some() {
        fs::write(&path, &now).unwrap();
    } else if now != text {
        let stale: Vec<_> = text.lines().filter(|line| !now.contains(line)).collect();
        let new: Vec<_> = now.lines().filter(|line| !text.contains(line)).collect();
        panic!("run with UPDATE_EXPECT=1 and review; gone: {stale:#?}; new: {new:#?}");
    }
}

/// Every requirement is covered, or says why nothing here can show it; none does both.
#[test]
fn every_requirement_is_covered() {
    for requirement in requirements() {
        let Requirement { id, level, covers, uncovered, .. } = requirement;
        // What is not defined cannot be broken; it stands in the list so that nobody relies on it.
        let excused = uncovered.is_some() || level == Level::Undefined;
        assert!(!covers.is_empty() || excused, "{id} is not covered, and nothing says why");
        assert!(
            covers.is_empty() || uncovered.is_none(),
            "{id} is covered, and something says why not"
        );
    }
}

/// No test, property or trace names a requirement that is none.
#[test]
fn nothing_names_a_requirement_that_is_none() {
    let ids: BTreeSet<_> = requirements().into_iter().map(|requirement| requirement.id).collect();
    let unknown: Vec<_> = covers().into_keys().filter(|id| !ids.contains(id)).collect();
    assert!(unknown.is_empty(), "{unknown:?} are named and not in specs/requirements.toml");
}
