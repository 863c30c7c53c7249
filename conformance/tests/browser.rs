// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! The page in a browser. Run it where there is one:
//!
//! ```sh
//! cargo test -p vfio-conform --test browser -- --ignored
//! ```
//!
//! with `CHROMIUM` in the environment if it is not called `chromium`. Without one the tests fail.
#![expect(clippy::expect_used, clippy::panic, reason = "helpers of tests fail as tests do")]

mod program;

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use program::program;
use regex::Regex;
use tempfile::TempDir;

/// What is asked of the page when it is laid out: a copy of it, with its policy taken away so that it
/// may be asked, says it in an element of its own.
const QUESTIONS: &str = r#"
<pre id="asked"></pre><script>
const all = selector => Array.from(document.querySelectorAll(selector));
all("details").forEach(details => details.open = true);
const said = [];
const page = document.documentElement;
if (page.scrollWidth > page.clientWidth) {
  const wide = all("body *").find(it => it.getBoundingClientRect().right > page.clientWidth && !it.closest("figure"));
  said.push(`page: ${page.scrollWidth} over ${page.clientWidth}: ${wide?.tagName} ${wide?.textContent.slice(0, 80)}`);
}
for (const svg of all("svg")) {
  const view = svg.viewBox.baseVal;
  for (const text of svg.querySelectorAll("text")) {
    if (text.hasAttribute("transform")) continue;
    const box = text.getBBox();
    if (box.x < 0 || box.y < 0 || box.x + box.width > view.width || box.y + box.height > view.height)
      said.push(`outside: ${svg.querySelector("title").textContent}: ${text.textContent}`);
  }
}
for (const svg of all("svg.machine")) {
  const boxes = Array.from(svg.querySelectorAll(".node rect"), rect => rect.getBBox());
  for (const text of svg.querySelectorAll(".arc text")) {
    const a = text.getBBox();
    if (boxes.some(b => a.x < b.x + b.width && b.x < a.x + a.width && a.y < b.y + b.height && b.y < a.y + a.height))
      said.push(`over a state: ${text.textContent}`);
  }
}
const luminance = colour => {
  const [r, g, b] = colour.match(/[\d.]+/g).map(v => v / 255).map(v => v <= .03928 ? v / 12.92 : ((v + .055) / 1.055) ** 2.4);
  return .2126 * r + .7152 * g + .0722 * b;
};
const contrast = (a, b) => {
  const [hi, lo] = [luminance(a), luminance(b)].sort((x, y) => y - x);
  return (hi + .05) / (lo + .05);
};
const behind = element => {
  for (let at = element; at; at = at.parentElement) {
    const colour = getComputedStyle(at).backgroundColor;
    if (colour !== "rgba(0, 0, 0, 0)" && colour !== "transparent") return colour;
  }
  return "rgb(255, 255, 255)";
};
let pairs = 0;
for (const element of all("body *")) {
  const own = Array.from(element.childNodes).some(node => node.nodeType === 3 && node.textContent.trim());
  if (!own || element.closest("title, desc, style, script")) continue;
  const picture = element instanceof SVGElement;
  const box = picture && element.closest(".node, .cell, .party")?.querySelector("rect");
  const fill = box && getComputedStyle(box).fill;
  const ground = fill && fill !== "none" ? fill : behind(element);
  const ink = picture ? getComputedStyle(element).fill : getComputedStyle(element).color;
  pairs++;
  if (contrast(ink, ground) < 4.5) said.push(`pale: ${element.textContent.slice(0, 40)}: ${ink} on ${ground}`);
}
document.getElementById("asked").textContent =
  `scheme ${matchMedia("(prefers-color-scheme: dark)").matches ? "dark" : "light"}; ${pairs > 500 ? "many" : pairs} texts\n`
  + Array.from(new Set(said)).join("\n");
</script>"#;

/// Results with something in every part of the page.
fn results() -> TempDir {
    let at = tempfile::tempdir().expect("a temporary directory");
    let mtty = at.path().join("list.toml");
    let list = "driver = 'a test'\nseen_with = 'a test'\n[[deviation]]\nid = 'ends-for-good'\n\
                breaks = ['R32']\nreason = 'It is planted.'\nops = ['read', 'uring_read']\n\
                expected = { end_of_stream = 'temporary' }\n";
    fs::write(&mtty, list).expect("it can be written");
    let list = mtty.to_string_lossy().into_owned();
    for (arguments, code) in [
        ("replay --suite arcs --suite resets --suite fds --suite streams", 0),
        ("replay --target reference:reset-keeps-state", 1),
        (&*format!("replay --target reference:pre-copy-ends-for-good --deviations {list}"), 0),
        ("migrate --seeds 1", 0),
        ("migrate --seeds 1 --target reference:reset-keeps-state", 1),
        ("race --rounds 20", 0),
        ("bugs reset-keeps-state", 0),
        ("check --model Loader", 0),
    ] {
        let mut command = Command::new(program());
        command.args(arguments.split(' ')).arg("--results").arg(at.path());
        let output = command.output().expect("it runs");
        assert_eq!(output.status.code(), Some(code), "{arguments}: {output:?}");
    }
    fs::write(at.path().join("cut.json"), "{").expect("it can be written");
    let mut command = Command::new(program());
    command.args(["report", "--html"]).arg(at.path());
    assert!(command.output().expect("it runs").status.success());
    at
}

/// What the browser says when it has this page before it.
struct Shown {
    out: String,
    console: Vec<String>,
}

fn browse(page: &Path, arguments: &[&str]) -> Shown {
    let browser = std::env::var("CHROMIUM").unwrap_or_else(|_| "chromium".to_owned());
    let profile = tempfile::tempdir().expect("a temporary directory");
    let mut command = Command::new(&browser);
    command
        .args(["--headless", "--no-sandbox", "--disable-gpu", "--no-first-run"])
        .args(["--disable-background-networking", "--hide-scrollbars", "--enable-logging=stderr"])
        .arg(format!("--user-data-dir={}", profile.path().display()))
        .args(arguments)
        .arg(format!("file://{}", page.display()));
    let output = command.output().unwrap_or_else(|error| {
        panic!("{browser}: {error}; apt-get install chromium, or say in CHROMIUM how it is called")
    });
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    assert!(output.status.success(), "{browser}: {}", text(&output.stderr));
    let console = text(&output.stderr);
    let console = console.lines().filter(|line| line.contains(":CONSOLE")).map(str::to_owned);
    Shown { out: text(&output.stdout), console: console.collect() }
}

/// A copy of a page that is asked about its layout.
fn asking(page: &Path) -> PathBuf {
    let text = fs::read_to_string(page).expect("it is there");
    let policy =
        Regex::new("<meta http-equiv=\"Content-Security-Policy\"[^>]*>").expect("a good one");
    let text = policy.replace(&text, "").replace("</body>", &format!("{QUESTIONS}</body>"));
    let copy = page.with_file_name("asking.html");
    fs::write(&copy, text).expect("it can be written");
    copy
}

fn asked(page: &Path, arguments: &[&str]) -> String {
    let shown = browse(page, &[&["--dump-dom"], arguments].concat());
    assert!(shown.console.is_empty(), "{:?}", shown.console);
    let (_, asked) = shown.out.split_once("<pre id=\"asked\">").expect("it was asked");
    asked.split("</pre>").next().unwrap_or_default().trim().to_owned()
}

/// Width and height, from the header of a PNG.
fn size(picture: &Path) -> (u32, u32) {
    let bytes = fs::read(picture).expect("it was drawn");
    assert_eq!(&bytes[1..4], b"PNG");
    let number = |at: usize| u32::from_be_bytes(bytes[at..at + 4].try_into().expect("four bytes"));
    (number(16), number(20))
}

const DARK: &str = "--blink-settings=preferredColorScheme=0";
const LIGHT: &str = "--blink-settings=preferredColorScheme=1";

/// H14: the parts are there, nothing is said on the console, no text is cut off, lies over another
/// thing or is too pale in either scheme, and nothing is wider than a desktop or a telephone; it can
/// be printed.
#[test]
#[ignore = "needs a browser: apt-get install chromium"]
fn the_page_is_good_in_a_browser() {
    let at = results();
    let page = at.path().join("report.html");
    let shown = browse(&page, &["--dump-dom"]);
    assert!(shown.console.is_empty(), "{:?}", shown.console);
    for part in [
        "section id=\"summary\"",
        "arc passed",
        "arc failed",
        "arc deviated",
        "cell equal",
        "cell fail",
        "diagram sequence",
        "ends-for-good",
        "id=\"B01\"",
        "cut.json",
        "✓ hold",
    ] {
        assert!(shown.out.contains(part), "{part:?} is not in the page");
    }
    let copy = asking(&page);
    for (scheme, flag) in [("dark", DARK), ("light", LIGHT)] {
        for width in ["--window-size=1280,900", "--window-size=500,900"] {
            let said = asked(&copy, &[flag, width]);
            assert_eq!(said, format!("scheme {scheme}; many texts"), "{width}");
        }
        let picture = at.path().join(format!("{scheme}.png"));
        let to = format!("--screenshot={}", picture.display());
        browse(&page, &[flag, "--window-size=1280,3000", &to]);
        assert_eq!(size(&picture), (1280, 3000));
    }
    let paper = at.path().join("report.pdf");
    browse(&page, &[&format!("--print-to-pdf={}", paper.display())]);
    let paper = fs::read(paper).expect("it was printed");
    assert!(paper.starts_with(b"%PDF") && paper.len() > 50_000, "{} bytes", paper.len());
}

/// H14: the questions find what they ask for, and the console is heard.
#[test]
#[ignore = "needs a browser: apt-get install chromium"]
fn what_is_bad_in_a_browser_is_seen() {
    let at = tempfile::tempdir().expect("a temporary directory");
    let page = at.path().join("page.html");
    let bad = "<!DOCTYPE html><html><body style='background: #fff'><p style='color: #ddd'>pale</p>\
               <div style='width: 3000px'>wide</div>\
               <svg class=machine viewBox='0 0 90 40' width=90><title>a</title><g class=node>\
               <rect width=50 height=30></rect></g><g class=arc><text x=20 y=20 fill=black>over</text>\
               </g><text x=80 y=20 fill=black>cut off</text></svg></body></html>";
    fs::write(&page, bad).expect("it can be written");
    let said = asked(&asking(&page), &[LIGHT, "--window-size=800,600"]);
    for what in ["page: ", "pale: pale", "outside: a: cut off", "over a state: over"] {
        assert!(said.contains(what), "{what:?} is not in: {said}");
    }
    fs::write(&page, "<script>console.error('heard')</script>").expect("it can be written");
    assert!(!browse(&page, &["--dump-dom"]).console.is_empty());
    // The page's policy lets no script run that got into it.
    let policy = "<meta http-equiv=Content-Security-Policy content=\"default-src 'none'\">";
    let script =
        format!("{policy}<p id=p>was</p><script>document.getElementById('p').id='ran'</script>");
    fs::write(&page, script).expect("it can be written");
    assert!(browse(&page, &["--dump-dom"]).out.contains("id=\"p\""));
}
