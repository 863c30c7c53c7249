// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! The pages that people read, and the blocks of code in them: for the tests that hold them.

use std::fs;
use std::path::{Path, PathBuf};

use pulldown_cmark::{CodeBlockKind, Event, Options, Parser, Tag, TagEnd};

/// A page.
#[derive(Debug)]
pub(crate) struct Page {
    /// Where it is, from the root of the repository.
    pub(crate) path: String,
    /// All of it.
    pub(crate) text: String,
    /// Its blocks of code, in their order.
    pub(crate) blocks: Vec<Block>,
}

/// A block of code.
#[derive(Debug)]
pub(crate) struct Block {
    /// What its fence says; empty if it has none.
    pub(crate) language: String,
    /// What is in it.
    pub(crate) text: String,
    /// The heading that it stands under.
    pub(crate) section: String,
}

/// A call of a program, as a block has it.
#[derive(Clone, Debug)]
pub(crate) struct Call {
    /// Its words, without variables before them and without what the shell makes of it.
    pub(crate) words: Vec<String>,
    /// The line.
    pub(crate) line: String,
}

/// The root of the repository.
pub(crate) fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("a crate of a workspace").to_owned()
}

/// The extensions of Markdown that forges, mdBook and rustdoc share.
pub(crate) fn options() -> Options {
    Options::ENABLE_TABLES
}

/// Every page: those at the root, the book, and what stands beside each crate.
pub(crate) fn pages() -> Vec<Page> {
    let mut pages = Vec::new();
    below(&root(), &mut pages);
    pages.sort_by(|a, b| a.path.cmp(&b.path));
    pages
}

fn below(folder: &Path, pages: &mut Vec<Page>) {
    for path in fs::read_dir(folder).expect("a folder").map(|entry| entry.expect("a file").path()) {
        let name = path.file_name().expect("a name").to_string_lossy().into_owned();
        let made = ["target", "book", "out"].contains(&name.as_str()) || name.starts_with('.');
        // A link into a crate is there for its package.
        if path.is_symlink() {
            continue;
        } else if path.is_dir() && !made {
            below(&path, pages);
        } else if name.ends_with(".md") {
            let text = fs::read_to_string(&path).expect("a page is text");
            let path = path.strip_prefix(root()).expect("it is below").display().to_string();
            pages.push(Page { path, blocks: blocks(&text), text });
        }
    }
}

fn blocks(text: &str) -> Vec<Block> {
    let mut blocks: Vec<Block> = Vec::new();
    let (mut section, mut in_heading, mut in_block) = (String::new(), false, false);
    for event in Parser::new_ext(text, options()) {
        match event {
            Event::Start(Tag::Heading { .. }) => {
                in_heading = true;
                section.clear();
            }
            Event::End(TagEnd::Heading(_)) => in_heading = false,
            Event::Start(Tag::CodeBlock(kind)) => {
                in_block = true;
                let language = match kind {
                    CodeBlockKind::Fenced(language) => language.into_string(),
                    CodeBlockKind::Indented => String::new(),
                };
                let section = section.clone();
                blocks.push(Block { language, text: String::new(), section });
            }
            Event::End(TagEnd::CodeBlock) => in_block = false,
            Event::Text(text) | Event::Code(text) if in_heading => section.push_str(&text),
            Event::Text(text) if in_block => {
                blocks.last_mut().expect("it has begun").text.push_str(&text);
            }
            _ => {}
        }
    }
    blocks
}

impl Block {
    /// The calls of a block in `sh`.
    pub(crate) fn calls(&self) -> Vec<Call> {
        let lines = self.text.replace("\\\n", " ").replace("|\n", "| ");
        lines.lines().flat_map(calls_of).collect()
    }
}

fn calls_of(line: &str) -> Vec<Call> {
    let words = shlex::split(line).unwrap_or_else(|| panic!("quotes that do not close: {line}"));
    let ends = |word: &String| ["|", "&&", ";"].contains(&word.as_str());
    let calls = words.split(ends).map(|words| {
        let words = words.iter().skip_while(|word| is_assignment(word));
        let words = words.take_while(|word| *word != ">").cloned().collect();
        Call { words, line: line.trim().to_owned() }
    });
    calls.filter(|call| !call.words.is_empty()).collect()
}

fn is_assignment(word: &str) -> bool {
    let name = word.split_once('=').map(|(name, _)| name);
    name.is_some_and(|name| {
        name.chars().all(|c| c.is_ascii_uppercase() || c == '_' || c.is_ascii_digit())
    })
}

impl Call {
    /// What our own program is called with, if that is what is called.
    pub(crate) fn of_ours(&self) -> Option<&[String]> {
        let (program, rest) = self.words.split_first().expect("a call has a program");
        if program == "vfio-conform" {
            return Some(rest);
        }
        let ours = ["cargo", "run", "--release"];
        let is_ours = self.words.starts_with(&ours.map(str::to_owned));
        let rest = is_ours.then(|| &self.words[ours.len()..])?;
        match rest.split_first() {
            None => Some(&[]),
            Some((dashes, rest)) if dashes == "--" => Some(rest),
            Some(_) => None,
        }
    }
}
