// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! The house is kept: every file says its licence, and no page points to one that is not there.

#![expect(clippy::unwrap_used, reason = "helpers of tests may fail them")]

use std::fs;
use std::path::{Path, PathBuf};

use regex::Regex;

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap().to_owned()
}

/// The text files of the repository, builds and snapshots left out.
fn files() -> Vec<PathBuf> {
    let mut folders = vec![root()];
    let mut files = Vec::new();
    while let Some(folder) = folders.pop() {
        for path in fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()) {
            let name = path.file_name().unwrap().to_string_lossy().into_owned();
            if path.is_dir() {
                let skipped =
                    ["target", ".git", "book", "out", "snapshots"].contains(&name.as_str());
                folders.extend((!skipped).then_some(path));
            } else if ["rs", "toml", "md", "sh", "c", "h"].iter().any(|end| name.ends_with(end)) {
                files.push(path);
            }
        }
    }
    files
}

/// Every source file and page begins with its licence.
#[test]
fn every_file_says_its_licence() {
    let without: Vec<_> = files()
        .into_iter()
        .filter(|path| {
            let text = fs::read_to_string(path).unwrap();
            !text.lines().take(2).any(|line| line.contains("SPDX-License-Identifier:"))
        })
        .collect();
    assert!(without.is_empty(), "{without:?}");
}

/// A path below specs/ that a page or a comment names is there.
#[test]
fn every_named_page_is_there() {
    let named = Regex::new(r"\bspecs/[\w/.-]*\w").unwrap();
    for path in files() {
        let text = fs::read_to_string(&path).unwrap();
        for name in named.find_iter(&text).map(|found| found.as_str()) {
            assert!(root().join(name).exists(), "{} names {name}", path.display());
        }
    }
}
