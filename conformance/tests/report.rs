// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! Results that are kept, read again, and shown: what is no result is refused by its name, what is
//! shown is what was found, and nothing that comes from a file becomes a part of the page.
#![expect(clippy::expect_used, reason = "helpers of tests fail as tests do")]

use std::ffi::OsStr;
use std::fs;
use std::path::{Path, PathBuf};

use regex::Regex;
use serde_json::{Map, Value, json};
use tempfile::TempDir;
use vfio_conform::coverage::Came;
use vfio_conform::migrate::{self, Devices};
use vfio_conform::page::{Heat, Machine, Page, Sequence};
use vfio_conform::replay::{Judged, Options, Replayer, Verdict};
use vfio_conform::report::Report;
use vfio_conform::results::{self, Directory, DirectoryError, Head, Keeper, Part, Why};
use vfio_conform::suite::Suite;
use vfio_conform::target::Reference;
use vfio_conform::trace::Trace;
use vfio_fsm_core::Features;
use vfio_fsm_core::device::Bug;

/// A name that would be a program, a tag, an attribute, and the end of a comment, if it were let.
const EVIL: &str = r#"arcs/<script>alert(1)</script>"><img src=x onerror='x'>--&amp;]]>"#;

/// All that a page and its pictures are made of.
const TAGS: &[&str] = &[
    "DOCTYPE", "html", "head", "meta", "title", "link", "style", "body", "header", "main",
    "footer", "nav", "section", "article", "div", "span", "p", "a", "b", "br", "code", "pre",
    "strong", "ul", "li", "h1", "h2", "h3", "table", "thead", "tbody", "tr", "th", "td", "details",
    "summary", "figure", "time", "svg", "desc", "g", "rect", "line", "polygon", "text", "xml",
];

fn directory() -> TempDir {
    tempfile::tempdir().expect("a temporary directory")
}

fn replayed(bug: Option<Bug>, traces: &[Trace]) -> Report {
    let new = || bug.map_or_else(Reference::new, Reference::with_bug);
    let (mut source, mut destination) = (new(), new());
    let mut replayer = Replayer::new(vec![&mut source, &mut destination]);
    let mut report = Report::new("a device");
    for trace in traces {
        report.record_trace(trace, replayer.replay(trace, Options::default()));
    }
    report
}

fn object(report: &Report) -> Map<String, Value> {
    let value = serde_json::to_value(report).expect("a report is JSON");
    Map::from_iter([("replay".to_owned(), value)])
}

/// Keep a run, and say where.
fn keep(directory: &Path, found: &Map<String, Value>, verdict: results::Verdict) -> PathBuf {
    let mut head = Head::begin("replay", ["replay".to_owned()]);
    let keeper = Keeper::new(directory, &head).expect("it can be written to");
    head.verdict = verdict;
    keeper.keep(&head, found).expect("it can be written")
}

fn page(directory: &Path) -> String {
    Page::new(&Directory::read(directory).expect("results")).html()
}

/// How often a text occurs.
fn times(page: &str, text: &str) -> usize {
    page.matches(text).count()
}

// ---------------------------------------------------------------------------------------------
// Results

/// H2: what was found is what is read again, under a name that says when and what, and the same
/// second twice is two files.
#[test]
fn what_is_kept_is_read_again() {
    let at = directory();
    let report = replayed(Some(Bug::ResetKeepsState), &Suite::Resets.generate(Features::ALL));
    let path = keep(at.path(), &object(&report), results::Verdict::Failed);
    let name = path.file_name().and_then(OsStr::to_str).expect("a name");
    assert!(
        name.ends_with("Z-replay.json") && name.len() == "20260214T093005Z-replay.json".len(),
        "{name}"
    );
    let again = keep(at.path(), &object(&report), results::Verdict::Failed);
    assert_ne!(path, again);
    let read = Directory::read(at.path()).expect("results");
    assert!(read.refused.is_empty() && read.runs.len() == 2, "{read:?}");
    let run = &read.runs[0];
    assert_eq!((run.head.command.as_str(), run.head.verdict), ("replay", results::Verdict::Failed));
    let [Part::Replay(known)] = run.parts.as_slice() else { panic!("{:?}", run.parts) };
    assert_eq!(known.counts, report.counts);
    assert_eq!(known.coverage, report.coverage);
    assert_eq!(known.failures().collect::<Vec<_>>(), report.failures().collect::<Vec<_>>());
}

/// H3: until a run has ended there is no result of it, and what a killed run leaves is none.
#[test]
fn a_run_that_has_not_ended_is_no_result() {
    let at = directory();
    let keeper = Keeper::new(at.path(), &Head::begin("lab", [])).expect("it can be written to");
    let Err(DirectoryError::Nothing { refused, .. }) = Directory::read(at.path()) else {
        panic!("half a run was taken for one");
    };
    assert!(matches!(refused[0].why, Why::Partial), "{refused:?}");
    assert!(refused[0].name.contains("Z-lab-"), "{refused:?}");
    drop(keeper);
    assert_eq!(fs::read_dir(at.path()).expect("it is there").count(), 0, "a run without results");
}

/// H3: everything that is no result is refused, each with its reason, beside results that are read.
#[test]
fn what_is_no_result_is_refused() {
    let at = directory();
    let good = replayed(None, &Suite::Arcs.generate(Features::STOP_COPY)[..20]);
    let path = keep(at.path(), &object(&good), results::Verdict::Good);
    let text = fs::read_to_string(&path).expect("it is there");
    let mut other: Value = serde_json::from_str(&text).expect("it is JSON");
    other["vfio-conform"]["version"] = json!(7);
    let mut odd: Value = serde_json::from_str(&text).expect("it is JSON");
    odd["replay"]["counts"] = json!("many");
    let mut verdict: Value = serde_json::from_str(&text).expect("it is JSON");
    verdict["vfio-conform"]["verdict"] = json!("splendid");
    for (name, content) in [
        ("cut.json", text[..text.len() / 2].to_owned()),
        ("empty.json", String::new()),
        ("foreign.json", r#"{"name": "package", "version": "1.0.0"}"#.to_owned()),
        ("list.json", "[1, 2]".to_owned()),
        ("malformed.json", "{\"a\": nonsense}".to_owned()),
        ("odd.json", odd.to_string()),
        ("other.json", other.to_string()),
        ("verdict.json", verdict.to_string()),
        ("x.partial", "{}".to_owned()),
        ("notes.txt", "nothing to do with it".to_owned()),
    ] {
        fs::write(at.path().join(name), content).expect("it can be written");
    }
    fs::create_dir(at.path().join("folder.json")).expect("it can be made");
    let read = Directory::read(at.path()).expect("one result is there");
    assert_eq!(read.runs.len(), 1);
    let is = |name: &str, expected: fn(&Why) -> bool, says: &str| {
        let found = read.refused.iter().find(|refused| refused.name == name);
        let found = found.unwrap_or_else(|| panic!("{name} was not refused"));
        assert!(expected(&found.why), "{found}");
        assert!(found.to_string().contains(says), "{says:?} is not in: {found}");
    };
    is("cut.json", |why| matches!(why, Why::Cut(_)), "cut off at line 1");
    is("empty.json", |why| matches!(why, Why::Cut(_)), "cut off");
    is("foreign.json", |why| matches!(why, Why::Foreign), "not of this program");
    is("list.json", |why| matches!(why, Why::Json(_)), "not one JSON object");
    is("malformed.json", |why| matches!(why, Why::Json(_)), "not one JSON object");
    is("odd.json", |why| matches!(why, Why::Part { .. }), "\"replay\"");
    is("other.json", |why| matches!(why, Why::Version(7)), "version 7");
    is("verdict.json", |why| matches!(why, Why::Part { .. }), "splendid");
    is("folder.json", |why| matches!(why, Why::NoFile), "not a file");
    is("x.partial", |why| matches!(why, Why::Partial), "killed");
    assert_eq!(read.refused.len(), 10, "{:?}", read.refused);
    let page = page(at.path());
    for refused in &read.refused {
        assert!(page.contains(&refused.name), "{} is not on the page", refused.name);
    }

    fs::remove_file(path).expect("it is there");
    let nothing = Directory::read(at.path()).expect_err("no result is left");
    assert!(nothing.to_string().contains("refused cut.json: cut off"), "{nothing}");
}

/// H3: a directory that is empty, or none, says what would fill it.
#[test]
fn without_results_there_is_no_report() {
    let at = directory();
    for path in [at.path().to_owned(), at.path().join("none")] {
        let error = Directory::read(&path).expect_err("nothing is there").to_string();
        assert!(error.contains("--results DIR"), "{error}");
    }
}

// ---------------------------------------------------------------------------------------------
// The page

/// H4: nothing that comes from a file is more than text: not in the page, not in a picture.
#[test]
fn what_comes_from_files_stays_text() {
    let mut traces = Suite::Resets.generate(Features::ALL);
    for trace in &mut traces {
        trace.header.name = format!("{EVIL}{}", trace.header.name);
    }
    let mut report = replayed(Some(Bug::ResetKeepsState), &traces);
    report.target = EVIL.to_owned();
    for trace in &mut report.traces {
        if let Verdict::Fail(mismatch) = &mut trace.verdict {
            mismatch.seen = EVIL.to_owned();
            mismatch.story.iter_mut().for_each(|exchange| EVIL.clone_into(&mut exchange.seen));
        }
    }
    let at = directory();
    let mut found = object(&report);
    let model = json!({
        "spaces": [{"model": EVIL, "features": EVIL, "states": 1, "transitions": 1, "depth": 1,
            "seconds": 1.0, "failures": [EVIL], "judged": {EVIL: 3}}],
        "properties": [{"id": EVIL, "text": EVIL, "covers": [EVIL]}],
        "claims": [{"fault": format!("assumption:{EVIL}"), "property": EVIL, "model": EVIL,
            "features": EVIL, "steps": 3, "run": EVIL}],
        "not_finished": EVIL,
    });
    found.insert("model".to_owned(), model);
    found.insert("planted_bugs".to_owned(), json!({"reset-keeps-state": EVIL}));
    found
        .insert("lab".to_owned(), json!({"kernel": EVIL, "boots": 1, "ended": EVIL, "missing": 0}));
    found.insert(
        "races".to_owned(),
        json!({"rounds": 1, "calls": 1, "failures": [{"round": EVIL, "history": EVIL}]}),
    );
    found.insert(EVIL.to_owned(), json!(1));
    keep(at.path(), &found, results::Verdict::Failed);
    fs::write(at.path().join("<img src=x>.json"), "{}").expect("it can be written");
    let page = page(at.path());
    assert!(times(&page, "&lt;script&gt;alert(1)") > 20, "the name is not shown");
    let story = report.failures().find(|(_, mismatch)| !mismatch.story.is_empty());
    let (name, mismatch) = story.expect("a failure is told");
    let sequence = Sequence::new(name, &mismatch.story);
    let tag = Regex::new("<[/!?]?([^ >/]*)").expect("a good expression");
    for text in [page, sequence.svg()] {
        for tag in tag.captures_iter(&text).map(|found| found[1].to_owned()) {
            assert!(TAGS.contains(&tag.as_str()), "<{tag}");
        }
        assert_eq!(times(&text, "onerror=\""), 0);
    }
    let mermaid = sequence.mermaid();
    assert!(!mermaid.contains('<') && !mermaid.contains('"'), "{mermaid}");
    assert!(!mermaid.contains(';') || mermaid.contains("#60;"), "{mermaid}");
}

/// H5: a page stands for itself: no script, nothing from anywhere else, and it forbids itself both.
#[test]
fn a_page_needs_nothing_beside_it() {
    let at = directory();
    let report = replayed(None, &Suite::Arcs.generate(Features::ALL));
    keep(at.path(), &object(&report), results::Verdict::Good);
    let page = page(at.path());
    assert!(page.contains("default-src 'none'"));
    for text in ["<script", "<link rel=\"stylesheet\"", "@import", "url(", "<iframe", "<img"] {
        assert_eq!(times(&page, text), 0, "{text}");
    }
    let addresses = page.matches("http").count();
    let known = times(&page, "http-equiv") + times(&page, "xmlns=\"http://www.w3.org/2000/svg\"");
    // What else there is, is text: where a bug of the catalogue is known from.
    let said = times(&page, "href=\"http") + times(&page, "src=\"");
    assert_eq!(said, 0, "{addresses} addresses, {known} of them names");
    for section in [
        "summary",
        "machine",
        "failures",
        "resets",
        "deviations",
        "model",
        "claim",
        "bugs",
        "history",
    ] {
        assert_eq!(times(&page, &format!("<section id=\"{section}\"")), 1, "{section}");
        assert_eq!(times(&page, &format!("href=\"#{section}\"")), 1, "{section}");
    }
    assert!(page.contains("prefers-color-scheme: dark") && page.contains("@media print"));
}

/// H6: the colour, the dash and the words of each arc are those of its tally, which a failure makes
/// red, and of a suite that does not walk it nothing is made up.
#[test]
fn arcs_are_drawn_as_they_were_walked() {
    let report = replayed(Some(Bug::FreshFdInSavingGroup), &Suite::Arcs.generate(Features::ALL));
    let [coverage] = report.coverage.as_slice() else { panic!("one machine was walked") };
    let machine = Machine::walked(coverage);
    let (svg, dot, mermaid) = (machine.svg(), machine.dot(), machine.mermaid());
    let mut seen = std::collections::BTreeSet::new();
    for arc in &coverage.arcs {
        let class = match arc.tally.verdict() {
            Came::Untried => "untried",
            Came::Passed => "passed",
            Came::Deviated => "deviated",
            Came::Failed => "failed",
        };
        seen.insert(class);
        let drawn = format!("<g class=\"arc {class}\" data-arc=\"{}-{}\">", arc.from, arc.to);
        assert_eq!(times(&svg, &drawn), 1, "{drawn}");
        let traces = indicatif::HumanCount(arc.tally.traces).to_string();
        let line = dot.lines().find(|line| line.contains(&format!("{} -> {} [", arc.from, arc.to)));
        assert!(line.is_some_and(|line| line.contains(&traces)), "{line:?}");
        let line =
            mermaid.lines().find(|line| line.contains(&format!("{} --> {}:", arc.from, arc.to)));
        assert!(line.is_some_and(|line| line.contains(&traces)), "{line:?}");
    }
    assert!(seen.contains("failed") && seen.contains("passed"), "{seen:?}");
    for (features, arcs) in Features::SETS.into_iter().zip([6, 8, 9, 15]) {
        let bare = Machine::bare(features).svg();
        assert_eq!(times(&bare, "data-arc="), arcs, "{features}");
        assert_eq!(times(&bare, "class=\"arc plain\""), arcs, "{features}");
        let untried = vfio_conform::coverage::Coverage::new(features);
        let untried = Machine::walked(&untried).svg();
        assert_eq!(times(&untried, "– not walked"), arcs, "{features}");
    }
}

/// H8: of each kind of failure one trace is told to its wrong answer, which stands beside the right
/// one, with how many failed alike.
#[test]
fn a_failing_trace_is_told() {
    let traces = Suite::Resets.generate(Features::ALL);
    let report = replayed(Some(Bug::ResetKeepsState), &traces);
    let told: Vec<_> = report.failures().filter(|(_, it)| !it.story.is_empty()).collect();
    assert!(!told.is_empty() && told.len() <= 64, "{}", told.len());
    let mut kinds = std::collections::HashSet::new();
    for (name, mismatch) in &told {
        assert!(kinds.insert((&mismatch.op, &mismatch.expected, &mismatch.seen)), "{name}: twice");
        assert_eq!(mismatch.story.len(), mismatch.step, "{name}");
        let trace =
            traces.iter().find(|trace| trace.header.name == *name).expect("it was replayed");
        let last = mismatch.story.last().expect("a step");
        assert_eq!((last.judged, &last.seen), (Judged::Wrong, &mismatch.seen));
        for (exchange, step) in mismatch.story.iter().zip(&trace.steps) {
            assert!(exchange.op.starts_with(&step.op.to_string()), "{exchange:?}");
            assert!(exchange.expected.starts_with(&step.expect.to_string()), "{exchange:?}");
        }
        let svg = Sequence::new(name, &mismatch.story).svg();
        assert_eq!(times(&svg, "data-step="), mismatch.step, "{name}");
        assert_eq!(times(&svg, "expected: "), 1, "{name}");
        let mermaid = Sequence::new(name, &mismatch.story).mermaid();
        assert_eq!(times(&mermaid, "Note over"), 1, "{mermaid}");
        assert_eq!(times(&mermaid, "    V->>"), mismatch.step, "{mermaid}");
    }
    let at = directory();
    keep(at.path(), &object(&report), results::Verdict::Failed);
    let page = page(at.path());
    assert_eq!(times(&page, "<svg class=\"diagram sequence\""), told.len());
    assert!(page.contains("something failed"));
}

/// H9: the heat map has a cell for every reset at every step under every recovery, and each is what
/// its case came to.
#[test]
fn every_reset_has_its_cell() {
    let devices = Devices::Reference(None);
    let matrix = migrate::in_memory(Features::ALL, devices, 0, &mut |_| {}).expect("in memory");
    let svg = Heat::new(&matrix).svg();
    let resets = matrix.cases.iter().filter(|report| report.case.reset().is_some());
    let class = |class: &str| times(&svg, &format!("class=\"cell {class}\" data-cell"));
    let outcomes = ["equal", "whole", "aborted", "mixed", "stuck", "fail"];
    assert_eq!(outcomes.map(class).iter().sum::<usize>(), resets.count());
    assert!(class("equal") > 20 && class("aborted") > 5 && class("whole") > 1, "{svg}");
    assert_eq!(class("fail"), 0);

    let devices = Devices::Reference(Some(Bug::ResetKeepsState));
    let broken = migrate::in_memory(Features::ALL, devices, 0, &mut |_| {}).expect("in memory");
    let svg = Heat::new(&broken).svg();
    let failing =
        broken.cases.iter().filter(|it| it.case.reset().is_some() && !it.failures.is_empty());
    assert_eq!(times(&svg, "class=\"cell fail\" data-cell"), failing.count());
    assert!(svg.contains("class=\"cell fail\" data-cell"));
}

/// H5: the pictures are files of their own, and well-formed.
#[test]
fn pictures_stand_for_themselves() {
    let report = replayed(Some(Bug::ResetKeepsState), &Suite::Resets.generate(Features::ALL));
    let (name, mismatch) =
        report.failures().find(|(_, it)| !it.story.is_empty()).expect("a failure is told");
    let pictures = [
        Machine::bare(Features::P2P).svg(),
        Machine::walked(&report.coverage[0]).svg(),
        Sequence::new(name, &mismatch.story).svg(),
    ];
    let mut odd = mismatch.story.clone();
    odd[0].seen = "\u{1}\u{1b}[31m".to_owned();
    assert!(!Sequence::new(name, &odd).svg().contains(['\u{1}', '\u{1b}']));
    for svg in pictures {
        assert!(svg.starts_with("<?xml") && svg.contains("<style>") && svg.contains("<title>"));
        for tag in ["svg", "g", "text", "title", "line", "polygon", "rect", "style"] {
            let open = times(&svg, &format!("<{tag} ")) + times(&svg, &format!("<{tag}>"));
            assert_eq!(open, times(&svg, &format!("</{tag}>")), "{tag}");
        }
    }
}

/// H7: the model's worlds, the assumptions and what drops them, the bugs and what catches each, the
/// deviations with their reasons and every run are on the page.
#[test]
fn everything_that_was_found_is_shown() {
    let at = directory();
    let mut report = replayed(None, &Suite::Arcs.generate(Features::ALL)[..50]);
    report.unused_deviations.push("never-seen".to_owned());
    let mut found = object(&report);
    let space = |failures: &[&str]| {
        json!({"model": "any VMM", "features": "STOP_COPY", "states": 3908, "transitions": 230_900,
            "depth": 11, "seconds": 0.1, "failures": failures, "judged": {"reset-runs": 77}})
    };
    let model = json!({
        "spaces": [space(&[])], "lock_spaces": [space(&["4 states where 5 are committed"])],
        "properties": [{"id": "reset-runs", "text": "a reset leads to RUNNING", "covers": ["R14"]}],
        "claims": [
            {"fault": "assumption:host-keeps-still", "property": "V9-without-assumption",
             "model": "Loader", "features": "full", "steps": 17, "run": "the run itself"},
            {"fault": "device:reset-keeps-state", "property": "reset-runs", "model": "any VMM",
             "features": "full", "steps": 3, "run": null},
            {"fault": "device:reset-keeps-session", "property": "reset-runs", "model": "any VMM",
             "features": "full", "steps": null, "run": null},
        ],
        "not_finished": null,
    });
    found.insert("model".to_owned(), model);
    found.insert("planted_bugs".to_owned(), json!({"reset-keeps-state": "resets/full/first"}));
    keep(at.path(), &found, results::Verdict::Failed);
    keep(at.path(), &object(&report), results::Verdict::NotFinished);
    let page = page(at.path());
    for text in [
        "3,908",
        "230,900",
        "✗ broken",
        "4 states where 5 are committed",
        "V9-without-assumption",
        "the run itself",
        "B01",
        "✓ reset-runs, 3 steps",
        "✗ survives reset-runs",
        "resets/full/first",
        "never-seen",
        "did not show",
        "a reset leads to RUNNING",
        "not finished",
        "of a device that tears",
    ] {
        assert!(page.contains(text), "{text:?} is not on the page");
    }
    assert_eq!(times(&page, "<time datetime="), 2);
}
