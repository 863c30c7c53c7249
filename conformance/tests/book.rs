// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! The pages as a book: every page is a chapter, every block of code is held by something, every
//! link leads somewhere, and what is made from a list is what the list says.
//!
//! `UPDATE_EXPECT=1 cargo test -p vfio-conform --test book` writes the generated chapters anew.

#![expect(clippy::expect_used, clippy::panic, reason = "helpers of tests fail as tests do")]

mod pages;

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use pages::{Block, Call, Page, options, pages, root};
use pulldown_cmark::{Event, Parser, Tag, TagEnd};
use regex::Regex;
use serde::Deserialize;
use vfio_conform::catalogue::{self, Entry};
use vfio_conform::observe::{self, Format};
use vfio_conform::replay::{Options, Replayer, Verdict};
use vfio_conform::target::Reference;
use vfio_conform::trace;
use vfio_fsm_core::{Direction, Features, SessionEffect, arcs};
use yaml_rust2::YamlLoader;

fn read(path: &str) -> String {
    fs::read_to_string(root().join(path)).unwrap_or_else(|error| panic!("{path}: {error}"))
}

// ---------------------------------------------------------------------------------------------
// Blocks of code

/// What holds the blocks of text that are neither printed by the command before them nor a trace:
/// the page, a part of the block, and the file that fails if it is not so.
const HELD: &[(&str, &str, &str)] = &[
    ("README.md", "model, level 1", "conformance/tests/readme.rs"),
    ("CONTRIBUTING.md", "SPDX-License-Identifier", "conformance/tests/house.rs"),
    ("specs/primer.md", "it goes on", "conformance/tests/book.rs"),
    ("specs/primer.md", "RUNNING to STOP_COPY", "fsm-core/tests/snapshots/routes.txt"),
    ("specs/reset-race.md", "seen by", "conformance/tests/snapshots/migrate.txt"),
    // A picture of what the trace behind it does.
    ("specs/reset-race.md", "unlock; there is a note", "conformance/tests/book.rs"),
    // Formulas: the properties that are named behind them.
    ("specs/settled-claim.md", "SET(STOP_COPY) returns a data_fd", "fsm-model/src/property.rs"),
    ("specs/settled-claim.md", "END is sent", "fsm-model/src/property.rs"),
    ("specs/settled-claim.md", "the destination starts", "fsm-model/src/property.rs"),
    ("specs/stream-format.md", "stream = header frame*", "fsm-core/tests/frames.rs"),
    ("specs/recording-format.md", "=== the source", "conformance/tests/observe.rs"),
];

/// Programs on pages that are not ours, and the file in which they are called as they are there. A
/// file that is a page is where nothing calls them but people.
const PROGRAMS: &[(&str, &str)] = &[
    ("apt-get", ".ci/run"),
    ("specs/check-twice.sh", ".ci/run"),
    ("spin", "specs/check-twice.sh"),
    ("gcc", "specs/check-twice.sh"),
    ("./pan", "specs/check-twice.sh"),
    ("rumur", "specs/check-twice.sh"),
    ("./model", "specs/check-twice.sh"),
    ("java", "specs/checked-twice.md"),
    ("sed", "specs/checked-twice.md"),
    ("tr", "specs/checked-twice.md"),
    ("grep", "specs/checked-twice.md"),
    ("sort", "specs/checked-twice.md"),
    (".ci/run", "CONTRIBUTING.md"),
    ("cc", "conformance/tests/c_library.rs"),
    (".ci/packages", ".ci/run"),
    (".ci/features", ".ci/run"),
    (".ci/public-api/check", ".ci/run"),
    (".ci/advisories", ".ci/run"),
    (".ci/coverage", ".ci/run"),
    ("mdbook", "CONTRIBUTING.md"),
    ("pip", "CONTRIBUTING.md"),
];

/// Calls of cargo that .ci/run does not make letter by letter, and what it does instead, or the file
/// that it compiles.
const CARGO: &[(&str, &str)] = &[
    ("cargo fmt --all", "cargo fmt --all --check"),
    ("cargo build --release --no-default-features", "conformance/src/lab/replayer.rs"),
    (
        "cargo build --release --manifest-path fsm-core/c/Cargo.toml",
        "conformance/tests/c_library.rs",
    ),
    ("cargo install tla-checker@0.24.11", "--bin tla tla-checker@0.24.11"),
    ("cargo test -p vfio-conform --test vfio_user", "cargo test --locked --workspace"),
    ("cargo run --example own_device", "conformance/examples/own_device.rs"),
    (
        "cargo run --release -p vfio-fsm-kernel --example",
        "-p vfio-fsm-kernel --example \"$example\"",
    ),
    (
        "cargo run --release -p vfio-fsm-mlx5 --features firmware --example migrate_vhca",
        "--release -p vfio-fsm-mlx5 --features firmware --example migrate_vhca",
    ),
    (
        "cargo run --release -p vfio-fsm-mlx5 --features verify --example verify_driver",
        "mlx5-backend/examples/verify_driver.rs",
    ),
];

/// Every block, with its page.
fn blocks(pages: &[Page]) -> impl Iterator<Item = (&Page, &Block)> {
    pages.iter().flat_map(|page| page.blocks.iter().map(move |block| (page, block)))
}

/// H21: a block is in a language that something here holds; nothing stands on a page that no test
/// would miss.
#[test]
fn every_block_is_held() {
    let pages = pages();
    let mut used = BTreeSet::new();
    for (page, block) in blocks(&pages) {
        let Page { path, .. } = page;
        let Block { language, text, section } = block;
        match language.as_str() {
            // `rust_is_compiled`, `calls_are_made`, `json_is_read`.
            "rust" | "sh" | "json" => {}
            "hex" => assert_eq!(path, "specs/stream-format.md", "fsm-core/tests/frames.rs has it"),
            "toml" => the_dependencies_are_ours(path, text),
            "yaml" => {
                let parsed = YamlLoader::load_from_str(text);
                assert!(parsed.is_ok(), "{path}: {:?}", parsed.err());
            }
            "mermaid" => the_picture_has_all_crates(path, text),
            "text" if is_printed(page, block) => {}
            "text" => {
                let is_it = |it: &&(&str, &str, &str)| it.0 == path && text.contains(it.1);
                let held = HELD.iter().find(is_it);
                let held = held.unwrap_or_else(|| panic!("{path}, {section}: what holds\n{text}"));
                assert!(root().join(held.2).exists(), "{} is not there", held.2);
                used.insert(held);
            }
            other => panic!("{path}, {section}: nothing holds a block in {other:?}:\n{text}"),
        }
    }
    let idle: Vec<_> = HELD.iter().filter(|held| !used.contains(held)).collect();
    assert!(idle.is_empty(), "no page has {idle:?}");
}

/// What a manifest asks of this project is there, by its version and its features.
#[track_caller]
fn the_dependencies_are_ours(path: &str, text: &str) {
    let asked: toml::Table = text.parse().unwrap_or_else(|error| panic!("{path}: {error}"));
    let workspace: toml::Table = read("Cargo.toml").parse().expect("a manifest");
    let version = workspace["workspace"]["package"]["version"].as_str().expect("a version");
    for (name, dependency) in asked.values().flat_map(|it| it.as_table().into_iter().flatten()) {
        let ours = &workspace["workspace"]["dependencies"];
        let folder =
            ours.get(name).map_or("conformance", |it| it["path"].as_str().expect("a path"));
        let manifest: toml::Table =
            read(&format!("{folder}/Cargo.toml")).parse().expect("a manifest");
        assert_eq!(manifest["package"]["name"].as_str(), Some(name.as_str()), "{path}");
        let wanted = dependency.as_str().or_else(|| dependency.get("version")?.as_str());
        let wanted = wanted.expect("a version");
        assert!(version.starts_with(wanted), "{path}: {wanted} of {name}, which is {version}");
        for feature in dependency.get("features").and_then(|it| it.as_array()).into_iter().flatten()
        {
            let feature = feature.as_str().expect("a feature");
            assert!(manifest["features"].get(feature).is_some(), "{path}: no {feature} in {name}");
        }
    }
}

/// The README's picture, which forges show and mdBook does not.
#[track_caller]
fn the_picture_has_all_crates(path: &str, text: &str) {
    assert_eq!(path, "README.md", "in the book a picture is text");
    for name in ["fsm-core", "fsm-model", "kernel-backend", "mlx5-backend", "conformance"] {
        assert!(text.contains(name), "{name} is not in the picture");
    }
}

/// Whether the block before, under the same heading, is commands.
fn is_printed(page: &Page, block: &Block) -> bool {
    let at = page.blocks.iter().position(|other| std::ptr::eq(other, block));
    let before = at.and_then(|at| at.checked_sub(1)).map(|at| &page.blocks[at]);
    let output = before.filter(|before| before.language == "sh" && before.section == block.section);
    output.is_some_and(|before| before.calls().iter().all(must_run))
}

/// H21: a page with Rust on it is one that rustdoc compiles and runs, all of it.
#[test]
fn rust_is_compiled() {
    let crates = ["fsm-core", "fsm-model", "kernel-backend", "mlx5-backend", "conformance"];
    let included = Regex::new(r#"#\[cfg\(doctest\)\]\n#\[doc = include_str!\("([^"]+)"\)\]"#);
    let included = included.expect("a good expression");
    let mut compiled = BTreeSet::new();
    for folder in crates {
        for found in included.captures_iter(&read(&format!("{folder}/src/lib.rs"))) {
            let path = root().join(folder).join("src").join(&found[1]);
            compiled
                .insert(path.canonicalize().unwrap_or_else(|error| panic!("{path:?}: {error}")));
        }
    }
    for page in pages() {
        let has_rust = page.blocks.iter().any(|block| block.language == "rust");
        let path = root().join(&page.path).canonicalize().expect("a page is there");
        assert_eq!(compiled.contains(&path), has_rust, "{}: rust, and compiled", page.path);
    }
}

/// H21: what stands in JSON is read, and as a trace it passes. Blocks under one heading are one
/// file: one that begins without a header goes on with what the one before began.
#[test]
fn json_is_read() {
    let pages = pages();
    for page in &pages {
        let mut files: Vec<(&str, String)> = Vec::new();
        for block in page.blocks.iter().filter(|block| block.language == "json") {
            match files.last_mut() {
                Some((section, file)) if *section == block.section => file.push_str(&block.text),
                _ => files.push((&block.section, block.text.clone())),
            }
        }
        for (section, file) in files {
            json_holds(&format!("{}, {section}", page.path), file.as_bytes());
        }
    }
}

fn json_holds(place: &str, file: &[u8]) {
    if file.starts_with(b"{\"vfio-fsm-recording\"") {
        let recordings = observe::read(file, Format::detect(file));
        assert!(recordings.is_ok(), "{place}: {:?}", recordings.err());
        return;
    }
    let traces = trace::read(file).unwrap_or_else(|error| panic!("{place}: {error}"));
    for trace in traces {
        let (mut source, mut destination) = (Reference::new(), Reference::new());
        let mut replayer = Replayer::new(vec![&mut source, &mut destination]);
        let verdict = replayer.replay(&trace, Options::default()).verdict;
        assert_eq!(verdict, Verdict::Pass, "{place}: {}", trace.header.name);
    }
}

/// Whether a call needs nothing but this program and little time. What a device, packages, a place
/// that is for the reader to fill in, or minutes are needed for is only parsed, in src/cli/pages.rs;
/// and what the gate runs, it runs.
fn must_run(call: &Call) -> bool {
    let Some(arguments) = call.of_ours() else { return false };
    let needs = |word: &String| {
        let placeholder = word.len() > 2 && word.chars().all(|c| c.is_ascii_uppercase());
        let elsewhere = word.contains("kernel:") || word.contains("vfio-user:");
        // Or what the call before it has left.
        let elsewhere = elsewhere || word.starts_with("out/");
        elsewhere || placeholder || word == "--explore" || word == "--function"
    };
    let slow = [
        "lab", "mlx5", "watch", "abuse", "bench", "power", "learn", "race", "check", "bugs",
        "serve",
    ];
    !arguments.is_empty()
        && !arguments.iter().any(needs)
        && !arguments.iter().any(|word| slow.contains(&word.as_str()))
}

/// H21: the calls that a page shows are made, and what it says they print is printed. The others are
/// in the gate, or in a list here that says where.
#[test]
fn calls_are_made() {
    let gate = read(".ci/run");
    let pages = pages();
    let mut printed: BTreeMap<String, String> = BTreeMap::new();
    let (mut used, mut wrong) = (BTreeSet::new(), Vec::new());
    for (page, block) in blocks(&pages).filter(|(_, block)| block.language == "sh") {
        let syntax = Command::new("bash").args(["-n", "-c", &block.text]).status();
        assert!(syntax.is_ok_and(|status| status.success()), "{}: {}", page.path, block.text);
        for call in block.calls() {
            if must_run(&call) {
                let line = call.line.clone();
                printed.entry(line).or_insert_with(|| run(page, &call));
            } else if call.of_ours().is_none() {
                match is_called_elsewhere(&call, &gate) {
                    Ok(known) => used.extend(known),
                    Err(why) => wrong.push(format!("{}: {why}", page.path)),
                }
            }
        }
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
    assert!(printed.len() > 5, "{:?}", printed.keys());
    let listed = PROGRAMS.iter().chain(CARGO).map(|(begins, _)| *begins);
    let idle: Vec<_> = listed.filter(|begins| !used.contains(begins)).collect();
    assert!(idle.is_empty(), "no page calls {idle:?}");
    for (page, block) in blocks(&pages).filter(|(_, block)| block.language == "text") {
        if is_printed(page, block) {
            let calls = calls_before(page, block);
            let output: String = calls.iter().map(|call| printed[&call.line].as_str()).collect();
            let output = without_times(&output);
            for line in block.text.lines().filter(|line| line.trim() != "...") {
                let line = without_times(line);
                let is_there = output.lines().any(|printed| printed == line);
                assert!(is_there, "{}: {line:?} is not in\n{output}", page.path);
            }
        }
    }
}

fn without_times(text: &str) -> String {
    let time = Regex::new(r"\d+\.\d+ s|[\d,]+ a second").expect("a good expression");
    time.replace_all(text, "N s").into_owned()
}

fn calls_before(page: &Page, block: &Block) -> Vec<Call> {
    let at = page.blocks.iter().position(|other| std::ptr::eq(other, block));
    page.blocks[at.expect("it is on the page") - 1].calls()
}

/// Run our program, in a folder of its own; it says that all is good.
fn run(page: &Page, call: &Call) -> String {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let specs = folder.path().join("specs");
    std::os::unix::fs::symlink(root().join("specs"), specs).expect("a link can be made");
    let mut command = Command::new(env!("CARGO_BIN_EXE_vfio-conform"));
    let arguments = call.of_ours().expect("it is ours");
    let output = command.args(arguments).current_dir(&folder).output().expect("it can be run");
    // A device with a planted bug is shown for how it fails.
    let fails = arguments.iter().any(|word| word.starts_with("reference:"));
    let expected = Some(i32::from(fails));
    assert_eq!(output.status.code(), expected, "{}: {}: {output:?}", page.path, call.line);
    String::from_utf8(output.stdout).expect("it prints text")
}

/// A call of another program stands in the gate, or where the lists above say: which entry that is.
fn is_called_elsewhere(call: &Call, gate: &str) -> Result<Option<&'static str>, String> {
    // Neither changes what is run and what must come of it.
    let plain = |line: &str| line.trim().replace(" --locked", "").replace(" --no-fail-fast", "");
    let line = plain(&call.words.join(" "));
    if call.words[0] == "cargo" {
        if gate.lines().any(|made| plain(made) == line) {
            return Ok(None);
        }
        let known = CARGO.iter().find(|(begins, _)| line.starts_with(begins));
        let (begins, place) = known.ok_or_else(|| format!("the gate does not run {line}"))?;
        let is_there = gate.contains(place) || root().join(place).exists();
        return if is_there { Ok(Some(begins)) } else { Err(format!("there is no {place}")) };
    }
    let known = PROGRAMS.iter().find(|(program, _)| *program == call.words[0]);
    let (program, file) = known.ok_or_else(|| format!("nothing holds {line}"))?;
    let is_there = read(file).contains(program.trim_start_matches("./"));
    if is_there { Ok(Some(program)) } else { Err(format!("{file} does not call {program}")) }
}

/// T1, R24, R25, R26: the primer's arcs are the core's, with what happens to the data_fd on each.
#[test]
fn the_primer_has_the_arcs() {
    let mut expected = String::new();
    for arc in arcs(Features::ALL) {
        let effect = match arc.session() {
            SessionEffect::None => "",
            SessionEffect::Opens(Direction::Saving) => "a data_fd to read",
            SessionEffect::Opens(Direction::Resuming) => "a data_fd to write",
            SessionEffect::Keeps => "it goes on",
            SessionEffect::Ends => "it ends",
        };
        let line = format!("{:34}{effect}", arc.to_string());
        writeln!(expected, "{}", line.trim_end()).expect("memory takes it");
    }
    let pages = pages();
    let primer = pages.iter().find(|page| page.path == "specs/primer.md").expect("it is there");
    let is_it = |block: &&Block| block.text.contains("it goes on");
    assert_eq!(primer.blocks.iter().find(is_it).expect("the arcs are there").text, expected);
    assert_eq!(arcs(Features::ALL).count(), 15);
    assert_eq!(arcs(Features::STOP_COPY).count(), 6);
}

/// H21: what is shown of a snapshot is in the snapshot, line by line.
#[test]
fn what_is_held_by_a_snapshot_is_in_it() {
    let pages = pages();
    let one_space = Regex::new(" +").expect("a good expression");
    let plain = |line: &str| one_space.replace_all(line.trim(), " ").replace(" :", ":");
    let mut seen = 0;
    for (page, block) in blocks(&pages).filter(|(_, block)| block.language == "text") {
        let is_it = |it: &&(&str, &str, &str)| it.0 == page.path && block.text.contains(it.1);
        let held = HELD.iter().find(is_it).filter(|held| held.2.contains("/snapshots/"));
        let Some((_, _, file)) = held else { continue };
        // The last section, which has the device with all flags, if there are any.
        let file_text = read(file);
        let all_flags = file_text.rsplit("\n# ").next().unwrap_or_default();
        let snapshot: BTreeSet<_> = all_flags.lines().map(plain).collect();
        for line in block.text.lines() {
            assert!(snapshot.contains(&plain(line)), "{}: {line:?} is not in {file}", page.path);
        }
        seen += 1;
    }
    assert!(seen >= 2, "the primer's routes and the table of the migrations");
}

// ---------------------------------------------------------------------------------------------
// Chapters and links

/// Where a page links to, and where one can link to on it.
struct Linked {
    links: Vec<String>,
    anchors: BTreeSet<String>,
}

fn linked(text: &str) -> Linked {
    let id = Regex::new(r#"<a id="([^"]+)">"#).expect("a good expression");
    let (mut links, mut anchors) = (Vec::new(), BTreeSet::new());
    let mut heading: Option<String> = None;
    for event in Parser::new_ext(text, options()) {
        match event {
            Event::Start(Tag::Link { dest_url, .. } | Tag::Image { dest_url, .. }) => {
                links.push(dest_url.into_string());
            }
            Event::Start(Tag::Heading { .. }) => heading = Some(String::new()),
            Event::End(TagEnd::Heading(_)) => {
                let text = heading.take().expect("it has begun");
                let anchor = anchor(&text);
                let again = (1..).map(|n| format!("{anchor}-{n}"));
                let mut names = std::iter::once(anchor.clone()).chain(again);
                anchors.insert(names.find(|name| !anchors.contains(name)).expect("without end"));
            }
            Event::Text(text) | Event::Code(text) => {
                if let Some(heading) = &mut heading {
                    heading.push_str(&text);
                }
            }
            Event::InlineHtml(html) | Event::Html(html) => {
                anchors.extend(id.captures_iter(&html).map(|found| found[1].to_owned()));
            }
            _ => {}
        }
    }
    Linked { links, anchors }
}

/// The anchor of a heading, as forges and mdBook make it.
fn anchor(heading: &str) -> String {
    let kept = heading.chars().filter(|c| c.is_alphanumeric() || " -_".contains(*c));
    kept.map(|c| if c == ' ' { '-' } else { c.to_ascii_lowercase() }).collect()
}

/// H23: every link to a page, a file or a heading leads there, on a forge and in the book.
#[test]
fn every_link_leads_somewhere() {
    let mut seen = 0;
    for page in pages() {
        let folder = root().join(&page.path).parent().expect("a folder").to_owned();
        for link in linked(&page.text).links {
            if link.contains("://") {
                continue;
            }
            seen += 1;
            let (file, anchor) = link.split_once('#').unwrap_or((&link, ""));
            let file = if file.is_empty() { root().join(&page.path) } else { folder.join(file) };
            let in_book = page.path.starts_with("specs/");
            assert!(file.exists(), "{}: {link} leads nowhere", page.path);
            assert!(file.is_file() || !in_book, "{}: {link} is a folder", page.path);
            if !anchor.is_empty() {
                let text = fs::read_to_string(&file).expect("a page is text");
                assert!(linked(&text).anchors.contains(anchor), "{}: no {link}", page.path);
            }
        }
    }
    assert!(seen > 100, "{seen} links");
}

/// Every page of the book, from specs/.
fn chapters() -> BTreeSet<PathBuf> {
    let pages =
        pages().into_iter().filter_map(|page| Some(page.path.strip_prefix("specs/")?.into()));
    pages.filter(|path: &PathBuf| path != Path::new("SUMMARY.md")).collect()
}

/// H20: the book has every page of specs/, once, and mdBook is told so.
#[test]
fn every_page_is_a_chapter() {
    let summary = read("specs/SUMMARY.md");
    let links = linked(&summary).links;
    let listed: BTreeSet<_> = links.iter().map(PathBuf::from).collect();
    assert_eq!(listed.len(), links.len(), "a chapter is listed twice, or is still a draft");
    assert_eq!(listed, chapters(), "left: specs/SUMMARY.md, right: what there is");
    let book: toml::Table = toml::from_str(&read("specs/book.toml")).expect("it parses");
    assert_eq!(book["book"]["src"].as_str(), Some("."));
    // A level below the root as specs/ is, so that links to what is beside specs/ hold in it.
    assert_eq!(book["build"]["build-dir"].as_str(), Some("../book"));
    assert_eq!(book["build"]["create-missing"].as_bool(), Some(false));
}

/// H20: every chapter begins with one heading of the first order.
#[test]
fn every_chapter_has_a_title() {
    for path in chapters() {
        let text = read(&format!("specs/{}", path.display()));
        let titles = text.lines().filter(|line| line.starts_with("# "));
        // A comment in a block of code begins like a title.
        let in_blocks = text.split("```").skip(1).step_by(2).flat_map(str::lines);
        let comments = in_blocks.filter(|line| line.starts_with("# ")).count();
        assert_eq!(titles.count() - comments, 1, "{}", path.display());
        assert!(text.lines().nth(1).is_some_and(|line| line.starts_with("# ")), "{path:?}");
    }
}

// ---------------------------------------------------------------------------------------------
// Chapters that are made

#[derive(Deserialize)]
struct Requirements {
    requirement: Vec<Requirement>,
}

#[derive(Deserialize)]
struct Requirement {
    id: String,
    level: String,
    source: String,
    text: String,
    covers: Vec<String>,
    uncovered: Option<String>,
    note: Option<String>,
}

/// That the page is what would be written now; or writes it.
#[track_caller]
fn is_committed(path: &str, now: &str) {
    let path = root().join(path);
    if std::env::var_os("UPDATE_EXPECT").is_some() {
        fs::write(&path, now).expect("the page can be written");
    }
    let committed = fs::read_to_string(&path).unwrap_or_default();
    assert!(committed == now, "{}: run with UPDATE_EXPECT=1 and review", path.display());
}

/// Text for a cell of a table.
fn cell(text: &str) -> String {
    text.replace('|', r"\|").replace('*', r"\*").replace('<', "&lt;")
}

fn covered_by(covers: &[String]) -> String {
    let of = |kind: &'static str| covers.iter().filter_map(move |it| it.strip_prefix(kind));
    let mut parts = Vec::new();
    let suites: Vec<_> = of("suite:").collect();
    if !suites.is_empty() {
        parts.push(format!("suites {}", suites.join(", ")));
    }
    let properties: Vec<_> = of("property:").map(|name| format!("`{name}`")).collect();
    if !properties.is_empty() {
        parts.push(format!("properties {}", properties.join(", ")));
    }
    let tests: Vec<_> = of("test:")
        .map(|test| {
            let (file, name) = test.split_once("::").expect("a file and a test");
            format!("[`{name}`](../{file})")
        })
        .collect();
    match tests.len() {
        0 => {}
        1..=3 => parts.push(format!("tests {}", tests.join(", "))),
        n => parts
            .push(format!("<details><summary>{n} tests</summary>{}</details>", tests.join(", "))),
    }
    parts.join("; ")
}

/// H24: the chapter of requirements is made from their list, under the list's own headings.
#[test]
fn the_requirements_are_a_chapter() {
    let file = read("specs/requirements.toml");
    let list: Requirements = toml::from_str(&file).expect("the list parses");
    let mut by_id: BTreeMap<_, _> =
        list.requirement.iter().map(|it| (it.id.as_str(), it)).collect();
    let mut page = String::from(COVERAGE);
    let mut lines = file.lines().peekable();
    let mut title = None;
    while let Some(line) = lines.next() {
        let id = line.strip_prefix("id = \"").and_then(|rest| rest.strip_suffix('"'));
        if line.starts_with("# ---") {
            title = lines.peek().and_then(|line| line.strip_prefix("# "));
        } else if let Some(it) = id.and_then(|id| by_id.remove(id)) {
            if let Some(title) = title.take() {
                write!(page, "\n## {title}\n\n{HEAD}").expect("memory takes it");
            }
            page.push_str(&row(it));
        }
    }
    assert!(by_id.is_empty(), "left over: {:?}", by_id.keys());
    is_committed("specs/coverage.md", &page);
}

fn row(it: &Requirement) -> String {
    let Requirement { id, level, source, text, covers, uncovered, note } = it;
    let note = note.as_ref().map(|note| format!(" *{}*", cell(note))).unwrap_or_default();
    let covers = match uncovered {
        Some(why) => format!("nothing: {}", cell(why)),
        None => covered_by(covers),
    };
    let (text, source) = (cell(text), cell(source));
    format!("| <a id=\"{id}\"></a>{id} | {level} | {text}{note} ({source}) | {covers} |\n")
}

const HEAD: &str = "| id | | what must hold | covered by |\n|---|---|---|---|\n";

const COVERAGE: &str = "\
<!-- SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause -->
# Requirements, and what covers each

Made from [requirements.toml](requirements.toml) by `conformance/tests/book.rs`: change that file and not
this page. *must*, *should*, *may* and *undefined* are explained at its head, and so are the letters. A
suite is one of `vfio-conform generate`, a property one of `vfio-conform check --properties`, a test one
of `cargo test`. Behind each sentence stands its source.
";

/// H24: the chapter of known bugs is made from the catalogue.
#[test]
fn the_bugs_are_a_chapter() {
    let entries = catalogue::entries().expect("it is a catalogue");
    let mut page = String::from(BUGS);
    for entry in &entries {
        let Entry { id, subsystem, what, source, class, faults, not_here, tested } = entry;
        let class = format!("{class:?}").to_lowercase();
        let mut caught: Vec<_> = faults.iter().map(|fault| format!("`{fault}`")).collect();
        caught.extend(not_here.as_deref().map(cell));
        caught.extend(tested.as_deref().map(|tested| format!("Tested: {}", cell(tested))));
        let (what, source) = (cell(what), cell(source));
        let caught = caught.join(" ");
        writeln!(
            page,
            "| <a id=\"{id}\"></a>{id} | {subsystem} | {class} | {what} ({source}) | {caught} |"
        )
        .expect("memory takes it");
    }
    is_committed("specs/bugs.md", &page);
}

const BUGS: &str = "\
<!-- SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause -->
# Bugs that others had

Made from [bugs.toml](bugs.toml) by `conformance/tests/book.rs`: change that file and not this page. In the
last column stands the fault that is planted for it in the model, or why there is none. `vfio-conform
check --mutants` prints which property catches which fault and in how many steps, `vfio-conform bugs` which
suite does.

| id | whose | class | what was wrong | the fault that stands for it |
|---|---|---|---|---|
";

#[derive(Deserialize)]
struct Deviations {
    driver: String,
    seen_with: String,
    deviation: Vec<Deviation>,
}

#[derive(Deserialize)]
struct Deviation {
    id: String,
    breaks: Vec<String>,
    reason: String,
    #[serde(default)]
    traces: Vec<String>,
    #[serde(default)]
    ops: Vec<String>,
}

/// H24: each list of deviations has a chapter that is made from it.
#[test]
fn the_deviations_are_a_chapter() {
    let folder = root().join("specs/deviations");
    let files = fs::read_dir(folder).expect("the folder is there");
    let names = files.map(|file| file.expect("a file").file_name().to_string_lossy().into_owned());
    let stems: Vec<_> =
        names.filter_map(|name| Some(name.strip_suffix(".toml")?.to_owned())).collect();
    assert!(!stems.is_empty(), "there is a list");
    for stem in stems {
        let list = read(&format!("specs/deviations/{stem}.toml"));
        let Deviations { driver, seen_with, deviation } = toml::from_str(&list).expect("a list");
        let mut page = format!(
            "<!-- SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause -->\n\
             # What {driver} does differently\n\n\
             Made from [{stem}.toml]({stem}.toml) by `conformance/tests/book.rs`: change that file and \
             not this page.\n[Lists of deviations](README.md) says what the columns mean.\n\n\
             Seen with: {seen_with}.\n\n\
             | id | breaks | why | where |\n|---|---|---|---|\n"
        );
        for Deviation { id, breaks, reason, traces, ops } in deviation {
            let broken = breaks.iter().map(|id| format!("[{id}](../coverage.md#{id})"));
            let broken = broken.collect::<Vec<_>>().join(", ");
            let at = traces.iter().chain(&ops).map(|it| format!("`{it}`"));
            let (reason, at) =
                (cell(&reason.replace('\n', " ")), at.collect::<Vec<_>>().join(", "));
            writeln!(page, "| `{id}` | {broken} | {} | {at} |", reason.trim())
                .expect("memory takes it");
        }
        is_committed(&format!("specs/deviations/{stem}.md"), &page);
    }
}

/// H24: an id that a page cites is one of the lists'.
#[test]
fn every_id_cited_is_in_a_list() {
    let list: Requirements = toml::from_str(&read("specs/requirements.toml")).expect("it parses");
    let mut ids: BTreeSet<_> = list.requirement.into_iter().map(|it| it.id).collect();
    ids.extend(catalogue::entries().expect("it is a catalogue").into_iter().map(|it| it.id));
    let cited = Regex::new(r"[(,] ?([A-Z][0-9]{1,3})(?:[,)]| to )").expect("a good expression");
    let mut seen = 0;
    for page in pages() {
        let mut text = page.text.as_str();
        while let Some(found) = cited.captures(text) {
            let id = found.get(1).expect("it has the id");
            assert!(ids.contains(id.as_str()), "{} cites {}", page.path, id.as_str());
            seen += 1;
            text = &text[id.end()..];
        }
    }
    assert!(seen > 100, "{seen} ids");
}
