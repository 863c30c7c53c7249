// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! Golden rows made anew from a kernel's own header.
//!
//! A package such as Debian's `linux-headers-6.12.*-common`, unpacked, is all that is needed besides
//! a C compiler. Which fields there are is read from `mlx5_ifc.h`; where they are, and what bytes
//! they make, is said by a C program that is compiled over that header with the kernel's macros,
//! which are taken from `device.h` as they stand. Nothing of the kernel stays behind but in the
//! scratch directory.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::{fs, io};

use super::golden::{self, ParseError, Row};
use crate::layout::{Structure, codes};

/// Why rows could not be made. None of it says anything about the layout.
#[derive(Debug, thiserror::Error)]
pub enum VerifyError {
    /// The directory is not that of kernel headers.
    #[error(
        "no include/linux/mlx5/mlx5_ifc.h in {} nor in usr/src/* below it: unpack a \
         linux-headers-*-common package (6.12 or later) there", .0.display()
    )]
    NoHeaders(PathBuf),
    /// The directory does not have the packages of libmlx5.
    #[error(
        "no {missing} in {}: unpack the Debian packages {packages} there (apt-get download, \
         dpkg-deb -x)", .place.display()
    )]
    NoPackages {
        /// The directory.
        place: PathBuf,
        /// What is not there.
        missing: String,
        /// All packages that are needed.
        packages: String,
    },
    /// A file cannot be read or written.
    #[error("{}: {source}", .path.display())]
    File {
        /// Which.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// The headers do not say what a structure or a number is.
    #[error("the headers have no {0} that can be read: use the headers of Linux 6.12 or later")]
    NoStructure(String),
    /// A program cannot be started.
    #[error("cannot run {program}: {source}; name a C compiler that is installed")]
    Start {
        /// Which.
        program: String,
        /// Why.
        source: io::Error,
    },
    /// A program has failed.
    #[error("{program} failed ({status}):\n{said}")]
    Failed {
        /// Which.
        program: String,
        /// How.
        status: std::process::ExitStatus,
        /// The end of what it wrote to its standard error.
        said: String,
    },
    /// The system gives no memory, no thread or no socket, or one of them failed.
    #[error("no memory, thread or socket for a firmware: {0}")]
    System(#[source] io::Error),
    /// What the program said is not rows.
    #[error(transparent)]
    Rows(#[from] ParseError),
}

/// The rows that come with this crate.
///
/// # Errors
///
/// [`ParseError`]: never, as the tests show.
pub fn committed() -> Result<Vec<Row>, ParseError> {
    let mut rows = golden::parse(include_str!("../../tests/golden/mlx5_ifc_6.12.jsonl"))?;
    rows.extend(golden::parse(include_str!("../../tests/golden/mlx5_ifc_6.12_more.jsonl"))?);
    Ok(rows)
}

/// Structures of the layout that `mlx5_ifc.h` does not have, each with the reason.
pub const NOT_IN_HEADER: &[(&str, &str)] = &[
    ("cqe64", "a struct of device.h"),
    ("host_endianness", "a struct of the driver's main.c"),
    ("mbox_in", "what the inputs of all commands have in common"),
    ("mbox_out", "what the outputs of all commands have in common"),
    ("wqe_data_seg", "a struct of qp.h"),
];

/// Makes the rows of every structure that has some in [`committed`] or is in the layout.
///
/// `headers` is an unpacked package or an unpacked header directory, `cc` a C compiler, `out` a
/// directory for the program. The values of random vectors are those of the committed rows.
///
/// # Errors
///
/// [`VerifyError`]: the headers are not there or are others, or the compiler is not.
pub fn rebuild(headers: &Path, cc: &str, out: &Path) -> Result<Vec<Row>, VerifyError> {
    let include = find(headers)?;
    let header = read(&include.join("mlx5_ifc.h"))?;
    let device = read(&include.join("device.h"))?;
    let others = [read(&include.join("driver.h"))?, read(&include.join("qp.h"))?];
    let numbers = numbers(&header, &[&device, &others[0], &others[1]])?;
    let program = program(&header, &format!("{}{numbers}", macros(&device)), &committed()?)?;
    fs::create_dir_all(out).map_err(|source| VerifyError::File { path: out.into(), source })?;
    let (source, binary) = (out.join("rows.c"), out.join("rows"));
    fs::write(&source, program)
        .map_err(|error| VerifyError::File { path: source.clone(), source: error })?;
    let mut compile = Command::new(cc);
    compile.args(["-w", "-O0", "-I"]).arg(&include).arg("-o").arg(&binary).arg(&source);
    run(compile)?;
    Ok(golden::parse(&run(Command::new(binary))?)?)
}

/// How two sets of rows differ.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct Comparison {
    /// How many rows are in both.
    pub same: usize,
    /// Rows that are committed and were not made.
    pub missing: Vec<Row>,
    /// Rows that were made and are not committed.
    pub extra: Vec<Row>,
}

impl Comparison {
    /// Compares rows as sets.
    pub fn of(committed: &[Row], rebuilt: &[Row]) -> Self {
        let committed: BTreeSet<_> = committed.iter().collect();
        let rebuilt: BTreeSet<_> = rebuilt.iter().collect();
        let only =
            |a: &BTreeSet<&Row>, b: &BTreeSet<&Row>| a.difference(b).copied().cloned().collect();
        Self {
            same: committed.intersection(&rebuilt).count(),
            missing: only(&committed, &rebuilt),
            extra: only(&rebuilt, &committed),
        }
    }

    /// Whether there is no difference, and something to compare.
    pub fn agrees(&self) -> bool {
        self.same > 0 && self.missing.is_empty() && self.extra.is_empty()
    }
}

fn read(path: &Path) -> Result<String, VerifyError> {
    fs::read_to_string(path).map_err(|source| VerifyError::File { path: path.into(), source })
}

/// The directory of mlx5's headers.
fn find(headers: &Path) -> Result<PathBuf, VerifyError> {
    let mut places = vec![headers.to_owned()];
    if let Ok(entries) = fs::read_dir(headers.join("usr/src")) {
        places.extend(entries.flatten().map(|entry| entry.path()));
    }
    places
        .into_iter()
        .map(|place| place.join("include/linux/mlx5"))
        .find(|place| place.join("mlx5_ifc.h").is_file())
        .ok_or_else(|| VerifyError::NoHeaders(headers.into()))
}

/// Runs a program to its end and returns what it wrote.
pub(super) fn run(mut command: Command) -> Result<String, VerifyError> {
    let program = command.get_program().to_string_lossy().into_owned();
    let output = command
        .output()
        .map_err(|source| VerifyError::Start { program: program.clone(), source })?;
    if !output.status.success() {
        let said = String::from_utf8_lossy(&output.stderr);
        let said: String = said.lines().take(20).flat_map(|line| [line, "\n"]).collect();
        return Err(VerifyError::Failed { program, status: output.status, said });
    }
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}

/// Which of `device.h`'s macros encode a field, by how their names begin.
const MACROS: [&str; 4] = ["__mlx5_", "MLX5_SET(", "MLX5_SET64(", "__MLX5_SET64("];

/// The definitions of [`MACROS`], with the lines that continue them.
fn macros(device: &str) -> String {
    let mut found = String::new();
    let mut inside = false;
    for line in device.lines() {
        let name = line.strip_prefix("#define ");
        let begins = name.is_some_and(|name| MACROS.iter().any(|m| name.starts_with(m)));
        if inside || begins {
            found.push_str(line);
            found.push('\n');
            inside = line.ends_with('\\');
        }
    }
    found
}

/// The names in the headers of the layout's numbers, in two parts.
pub fn named_numbers() -> impl Iterator<Item = (&'static str, &'static str)> {
    let all = codes::NUMBERS.iter().filter(|(prefix, _)| !prefix.is_empty());
    all.flat_map(|(prefix, numbers)| numbers.iter().map(move |(name, _)| (*prefix, *name)))
}

/// Those enums of the other headers that have a number which `mlx5_ifc.h` does not have.
fn numbers(ifc: &str, others: &[&str]) -> Result<String, VerifyError> {
    let mut enums = BTreeSet::new();
    for (prefix, name) in named_numbers() {
        let enumerator = format!("{prefix}{name}");
        if declares(ifc, &enumerator).is_none() {
            let found =
                others.iter().find_map(|text| enclosing(text, declares(text, &enumerator)?));
            enums.insert(found.ok_or(VerifyError::NoStructure(enumerator))?);
        }
    }
    Ok(enums.into_iter().collect())
}

/// Where a header declares an enumerator, which begins a line.
fn declares(header: &str, enumerator: &str) -> Option<usize> {
    let line = format!("\n\t{enumerator}");
    let ends = |at: &usize| {
        let behind = header.get(at + line.len()..).and_then(|rest| rest.chars().next());
        behind.is_some_and(|c| !c.is_ascii_alphanumeric() && c != '_')
    };
    header.match_indices(&line).map(|(at, _)| at).find(ends)
}

/// The enum around a place.
fn enclosing(header: &str, at: usize) -> Option<&str> {
    let begin = header.get(..at)?.rfind("\nenum")?;
    let end = at + header.get(at..)?.find("\n};")? + "\n};\n".len();
    header.get(begin..end)
}

/// A member of a structure, as the header declares it.
#[derive(Debug, PartialEq)]
enum Member<'a> {
    Field { name: &'a str, bits: u64 },
    Array { name: &'a str },
    Inner { name: &'a str, of: &'a str },
    Tail { name: &'a str },
}

/// The members of a structure or union in `mlx5_ifc.h`, without those that are declared in place.
fn members<'a>(header: &'a str, name: &str) -> Option<Vec<Member<'a>>> {
    let begin = ["struct", "union"].iter().find_map(|kind| {
        let opening = format!("\n{kind} mlx5_ifc_{name}_bits {{\n");
        header.find(&opening).map(|at| at + opening.len())
    })?;
    let body = header.get(begin..)?;
    let body = body.get(..body.find("\n};").map(|end| end + 1)?)?;
    let mut members = Vec::new();
    let mut depth = 0;
    for line in body.lines().map(str::trim) {
        if line.ends_with('{') {
            depth += 1;
        } else if line.starts_with('}') {
            depth -= 1;
        } else if depth == 0 && line.ends_with(';') {
            members.push(member(line.trim_end_matches(';'))?);
        }
    }
    Some(members)
}

/// One declaration: a type, a name, and up to two dimensions, the last of which is the width.
fn member(line: &str) -> Option<Member<'_>> {
    let mut words = line.split_whitespace();
    let kind = words.next()?;
    let of = if kind == "u8" { None } else { Some(words.next()?) };
    let (name, dimensions) = match words.next()? {
        word if word.contains('[') => word.split_once('[')?,
        word => (word, ""),
    };
    if words.next().is_some() {
        return None;
    }
    Some(match (of, dimensions.split_once("][")) {
        (Some(of), _) => {
            let of = of.strip_prefix("mlx5_ifc_")?.strip_suffix("_bits")?;
            Member::Inner { name, of }
        }
        (None, Some(("", _))) => Member::Tail { name },
        (None, Some(_)) => Member::Array { name },
        (None, None) => Member::Field { name, bits: number(dimensions.strip_suffix(']')?)? },
    })
}

fn number(text: &str) -> Option<u64> {
    match text.strip_prefix("0x") {
        Some(digits) => u64::from_str_radix(digits, 16).ok(),
        None => text.parse().ok(),
    }
}

/// What stands before everything else in the program: what the header and the macros need.
const PROLOGUE: &str = r#"
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>
typedef uint8_t u8;
typedef uint16_t u16;
typedef uint32_t u32;
typedef uint64_t u64;
typedef uint32_t __be32;
typedef uint64_t __be64;
#define DECLARE_FLEX_ARRAY(type, name) type name[0]
#define BIT(n) (1u << (n))
#define BIT_ULL(n) (1ull << (n))
#define BUILD_BUG_ON(condition) ((void)0)
#if __BYTE_ORDER__ == __ORDER_LITTLE_ENDIAN__
#define cpu_to_be32(x) __builtin_bswap32(x)
#define cpu_to_be64(x) __builtin_bswap64(x)
#else
#define cpu_to_be32(x) (x)
#define cpu_to_be64(x) (x)
#endif
#define be32_to_cpu(x) cpu_to_be32(x)
#define be64_to_cpu(x) cpu_to_be64(x)
#include "mlx5_ifc.h"
static unsigned char bytes[1 << 16] __attribute__((aligned(8)));
static void hex(size_t n)
{
    for (size_t i = 0; i < n; i++)
        printf("%02x", bytes[i]);
    printf("\"}\n");
}
"#;

/// The program that prints the rows.
fn program(header: &str, macros: &str, committed: &[Row]) -> Result<String, VerifyError> {
    let of_structures = committed.iter().filter(|row| !matches!(row, Row::Num { .. }));
    let mut names: BTreeSet<&str> = of_structures.map(Row::structure).collect();
    let elsewhere: BTreeSet<&str> = NOT_IN_HEADER.iter().map(|(name, _)| *name).collect();
    names.extend(
        Structure::all().map(|structure| structure.name).filter(|n| !elsewhere.contains(n)),
    );
    let mut text = format!("{PROLOGUE}{macros}");
    for name in &names {
        let members = members(header, name)
            .ok_or_else(|| VerifyError::NoStructure(format!("mlx5_ifc_{name}_bits")))?;
        let vectors = committed.iter().filter_map(|row| match row {
            Row::Vec { s, v, .. } if s == name => Some(v),
            _ => None,
        });
        let known: Vec<_> = vectors.cloned().collect();
        let vectors = if known.is_empty() { vec![random(name, &members)] } else { known };
        function(&mut text, header, name, &members, &vectors);
    }
    text.push_str("int main(void)\n{\n");
    for (prefix, name) in named_numbers() {
        let row = format!(r#""k":"num","s":"{prefix}","f":"{name}","n":%llu"#);
        print(&mut text, &row, &format!("(unsigned long long){prefix}{name}"));
    }
    for name in names {
        push(&mut text, format_args!("    rows_{name}();\n"));
    }
    text.push_str("    return 0;\n}\n");
    Ok(text)
}

fn push(text: &mut String, what: std::fmt::Arguments<'_>) {
    // Writing to a string cannot fail.
    let _ = text.write_fmt(what);
}

/// Fields that have a meaning and that the macros can set.
fn settable<'a>(members: &'a [Member<'a>]) -> impl Iterator<Item = (&'a str, u64)> {
    members.iter().filter_map(|member| match *member {
        Member::Field { name, bits } => {
            (!golden::reserved(name) && (bits <= 32 || bits == 64)).then_some((name, bits))
        }
        _ => None,
    })
}

/// Values for a structure that has no vector yet: the same each time.
fn random(structure: &str, members: &[Member<'_>]) -> BTreeMap<String, String> {
    let mut state = structure.bytes().fold(0x9e37_79b9_7f4a_7c15, |state: u64, byte| {
        (state ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3)
    });
    let mut next = |bits: u64| {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state.wrapping_mul(0x2545_f491_4f6c_dd1d) >> (64 - bits)
    };
    settable(members).map(|(name, bits)| (name.to_owned(), format!("{:#x}", next(bits)))).collect()
}

/// The function that prints one structure's rows.
fn function(
    text: &mut String,
    header: &str,
    name: &str,
    members: &[Member<'_>],
    vectors: &[BTreeMap<String, String>],
) {
    let union = header.contains(&format!("\nunion mlx5_ifc_{name}_bits {{"));
    let kind = if union { "union" } else { "struct" };
    push(text, format_args!("#define T {kind} mlx5_ifc_{name}_bits\n"));
    push(text, format_args!("static void rows_{name}(void)\n{{\n"));
    print(text, &format!(r#""k":"size","s":"{name}","bytes":%zu"#), "sizeof(T) / 8");
    // The members of a union are all at its beginning, and those we have have rows of their own.
    let members = if union { &[] } else { members };
    for member in members {
        describe(text, name, member);
    }
    for (field, bits) in settable(members) {
        let row = format!(r#"{{"k":"ones","s":"{name}","f":"{field}","hex":""#);
        encode(text, name, &row, &[(field, bits, "0xffffffffffffffff")]);
    }
    let widths: BTreeMap<&str, u64> = settable(members).collect();
    for vector in vectors {
        let known = |(f, v): (&'_ String, &'_ String)| {
            Some((*widths.get_key_value(f.as_str())?.0, *widths.get(f.as_str())?, v.clone()))
        };
        let values: Vec<_> = vector.iter().filter_map(known).collect();
        if values.is_empty() {
            continue;
        }
        let listed: Vec<_> = values.iter().map(|(f, _, v)| format!(r#""{f}":"{v}""#)).collect();
        let row = format!(r#"{{"k":"vec","s":"{name}","v":{{{}}},"hex":""#, listed.join(","));
        let values: Vec<_> = values.iter().map(|(f, bits, v)| (*f, *bits, v.as_str())).collect();
        encode(text, name, &row, &values);
    }
    text.push_str("}\n#undef T\n");
}

/// Prints a row of numbers.
fn print(text: &mut String, row: &str, values: &str) {
    let row = row.replace('"', "\\\"");
    push(text, format_args!("    printf(\"{{{row}}}\\n\", {values});\n"));
}

/// Prints what the compiler makes of a member.
fn describe(text: &mut String, structure: &str, member: &Member<'_>) {
    let row = |kind: &str, name: &str, rest: &str| {
        format!(r#""k":"{kind}","s":"{structure}","f":"{name}","off":%zu{rest}"#)
    };
    match *member {
        Member::Field { name, .. } => print(
            text,
            &row("fld", name, r#","w":%zu"#),
            &format!("offsetof(T, {name}), sizeof(((T *)0)->{name})"),
        ),
        Member::Array { name } => print(
            text,
            &row("arr", name, r#","w":%zu,"n":%zu"#),
            &format!(
                "offsetof(T, {name}), sizeof(((T *)0)->{name}[0]), \
                 sizeof(((T *)0)->{name}) / sizeof(((T *)0)->{name}[0])"
            ),
        ),
        Member::Inner { name, of } => print(
            text,
            &row("sub", name, &format!(r#","t":"{of}""#)),
            &format!("offsetof(T, {name})"),
        ),
        Member::Tail { name } => {
            print(text, &row("var", name, ""), &format!("offsetof(T, {name})"));
        }
    }
}

/// Prints the bytes that the kernel's macros make of some values.
fn encode(text: &mut String, structure: &str, row: &str, values: &[(&str, u64, &str)]) {
    text.push_str("    memset(bytes, 0, sizeof bytes);\n");
    for (field, bits, value) in values {
        let set = if *bits == 64 { "MLX5_SET64" } else { "MLX5_SET" };
        push(text, format_args!("    {set}({structure}, bytes, {field}, {value}ull);\n"));
    }
    let row = row.replace('"', "\\\"");
    push(text, format_args!("    printf(\"{row}\");\n    hex(sizeof(T) / 8);\n"));
}
