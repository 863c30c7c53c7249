// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! What is published: every crate is a package that says what it is and has in it what it needs, and
//! the recipe for CI does what it says.

#![expect(clippy::expect_used, clippy::unwrap_used, reason = "helpers of tests may fail them")]

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Component, Path, PathBuf};
use std::process::Command;

use regex::Regex;
use toml::{Table, Value};
use yaml_rust2::{Yaml, YamlLoader};

const CRATES: [&str; 5] =
    ["fsm-core", "fsm-model", "kernel-backend", "mlx5-backend", "conformance"];

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap().to_owned()
}

fn manifest(folder: &str) -> Table {
    let text = fs::read_to_string(root().join(folder).join("Cargo.toml")).unwrap();
    text.parse().expect("a manifest is TOML")
}

fn strings(value: Option<&Value>) -> Vec<String> {
    let list = value.and_then(Value::as_array).into_iter().flatten();
    list.map(|text| text.as_str().expect("a string").to_owned()).collect()
}

/// The Rust files below a folder, by their paths from there; links to folders are not followed.
fn sources(folder: &Path) -> Vec<PathBuf> {
    let mut folders = vec![folder.to_owned()];
    let mut files = Vec::new();
    while let Some(at) = folders.pop() {
        for path in fs::read_dir(at).unwrap().map(|entry| entry.unwrap().path()) {
            if path.is_symlink() || path.ends_with("target") {
                continue;
            } else if path.is_dir() {
                folders.push(path);
            } else if path.extension().is_some_and(|extension| extension == "rs") {
                files.push(path.strip_prefix(folder).unwrap().to_owned());
            }
        }
    }
    files
}

/// Whether a path, taken from a folder in a crate, goes out of the crate on its way.
fn leaves(folder: &Path, path: &str) -> bool {
    let mut depth = folder.components().count() as i32;
    Path::new(path).components().any(|component| {
        depth += match component {
            Component::Normal(_) => 1,
            Component::ParentDir => -1,
            _ => 0,
        };
        depth < 0
    })
}

/// P5: what a file in a package includes is in the package, too.
#[test]
fn nothing_is_included_from_outside_a_crate() {
    let includes = Regex::new(
        r#"(?:include(?:_str|_bytes)?!\(\s*|#\[path = |#\[doc = include_str!\()"([^"]+)""#,
    );
    let includes = includes.expect("a good expression");
    let mut seen = 0;
    for folder in CRATES {
        let excluded = strings(manifest(folder)["package"].get("exclude"));
        for file in sources(&root().join(folder)) {
            let within = format!("/{}", file.display());
            if excluded.iter().any(|path| within.starts_with(path.as_str())) {
                continue;
            }
            let text = fs::read_to_string(root().join(folder).join(&file)).unwrap();
            for found in includes.captures_iter(&text) {
                seen += 1;
                let here = file.parent().unwrap();
                assert!(
                    !leaves(here, &found[1]),
                    "{folder}{within} includes {}: a package ends at its own folder; link to the \
                     file from a folder of the crate, as {folder}/specs does",
                    &found[1]
                );
            }
        }
    }
    assert!(seen > 10, "there are such files, and only {seen} were seen");
}

/// P6: a package says what it is, where its pages are, and what docs.rs has to build, and comes with
/// its licences.
#[test]
fn every_package_is_described() {
    for folder in CRATES {
        let manifest = manifest(folder);
        let package = manifest["package"].as_table().expect("a table");
        let text = |key: &str| {
            let value = package.get(key).and_then(Value::as_str);
            value.unwrap_or_else(|| panic!("{folder} says no {key}")).to_owned()
        };
        let name = text("name");
        assert!((20..=200).contains(&text("description").len()), "{folder}");
        assert_eq!(text("documentation"), format!("https://docs.rs/{name}"));
        let keywords = strings(package.get("keywords"));
        assert!((3..=5).contains(&keywords.len()), "{folder}: crates.io takes five keywords");
        assert!(keywords.iter().all(|word| word.len() <= 20), "{folder}: {keywords:?}");
        assert!((1..=5).contains(&strings(package.get("categories")).len()), "{folder}");
        for file in [text("readme").as_str(), "LICENSE-APACHE", "LICENSE-BSD-3-Clause"] {
            let there = fs::read_to_string(root().join(folder).join(file)).unwrap_or_default();
            assert!(!there.is_empty(), "{folder}/{file} is missing");
        }
        let docs = &package["metadata"]["docs"]["rs"];
        assert_eq!(docs["all-features"].as_bool(), Some(true), "{folder}");
        assert!(!strings(docs.get("targets")).is_empty(), "{folder}");
        // Else a forgotten key hides a crate that others need.
        assert!(package.get("publish").is_none(), "{folder}");
    }
}

/// A program that says what it was called with, and exits as it is told.
fn stub(folder: &Path, name: &str, exit: i32) -> PathBuf {
    let path = folder.join(name);
    fs::write(&path, format!("#!/bin/sh\necho \"{name} $*\"\nexit {exit}\n")).unwrap();
    fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).unwrap();
    path
}

/// The recipe with a tool and a test that end so; what it printed, and how it ended.
fn recipe(tool: i32, test: Option<i32>, target: Option<&str>) -> (String, Option<i32>) {
    let folder = tempfile::tempdir().unwrap();
    let mut script = Command::new(root().join("conformance/ci/check.sh"));
    script.current_dir(&folder).env("VFIO_CONFORM", stub(folder.path(), "tool", tool));
    if let Some(exit) = test {
        script.env("VFIO_TEST", stub(folder.path(), "own", exit));
    }
    if let Some(target) = target {
        script.env("VFIO_TARGET", target);
    }
    let output = script.output().expect("it can be started");
    let printed = String::from_utf8(output.stdout).expect("text");
    let called = printed.lines().filter(|line| line.starts_with("tool") || line.starts_with("own"));
    (called.map(str::trim_end).collect::<Vec<_>>().join(", "), output.status.code())
}

/// P7: the recipe checks the model, runs the suites on each device that there is, and fails with the
/// first of them that does; without a device it does not pass.
#[test]
fn the_recipe_fails_as_what_it_runs() {
    let both = "tool check, tool replay --target kernel:X, own";
    for (tool, test, target, called, exit) in [
        (0, Some(0), None, "tool check, own", 0),
        (0, None, Some("kernel:X"), "tool check, tool replay --target kernel:X", 0),
        (0, Some(0), Some("kernel:X"), both, 0),
        (0, Some(101), Some("kernel:X"), both, 1),
        (1, Some(0), None, "tool check", 1),
        (3, Some(0), None, "tool check", 3),
        (0, None, None, "", 2),
    ] {
        let ran = recipe(tool, test, target);
        assert_eq!(ran, (called.to_owned(), Some(exit)), "{tool} {test:?} {target:?}");
    }
}

/// P8: the action runs the script and nothing else, and hands it each of its settings.
#[test]
fn the_action_is_the_script() {
    let folder = root().join("conformance/ci");
    let action = fs::read_to_string(folder.join("action.yml")).unwrap();
    let action = YamlLoader::load_from_str(&action).expect("YAML");
    let [action] = action.as_slice() else { panic!("one document") };
    assert_eq!(action["runs"]["using"].as_str(), Some("composite"));
    let [step] = action["runs"]["steps"].as_vec().expect("a list").as_slice() else {
        panic!("one step, so that the script is all of it")
    };
    assert_eq!(step["run"].as_str(), Some(r#""$GITHUB_ACTION_PATH/check.sh""#));
    assert_eq!(step["shell"].as_str(), Some("bash"), "without one, the action is refused");

    let entries = |yaml: &Yaml| -> BTreeMap<String, Yaml> {
        let entries = yaml.as_hash().expect("a table").iter();
        entries.map(|(key, value)| (key.as_str().unwrap().to_owned(), value.clone())).collect()
    };
    let (inputs, settings) = (entries(&action["inputs"]), entries(&step["env"]));
    let handed: BTreeSet<_> = settings.values().map(|value| value.as_str().unwrap()).collect();
    let offered: BTreeSet<_> =
        inputs.keys().map(|name| format!("${{{{ inputs.{name} }}}}")).collect();
    assert_eq!(handed, offered.iter().map(String::as_str).collect());
    let script = fs::read_to_string(folder.join("check.sh")).unwrap();
    let read = Regex::new(r"\$\{(VFIO_\w+)").expect("a good expression");
    let read: BTreeSet<_> = read.captures_iter(&script).map(|found| found[1].to_owned()).collect();
    assert_eq!(settings.keys().cloned().collect::<BTreeSet<_>>(), read);
    for (name, input) in inputs {
        assert!(input["description"].as_str().is_some_and(|text| text.len() > 10), "{name}");
        assert!(input["default"].as_str().is_some(), "{name}");
    }
}
