// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! Instructions of the core's lookup, beside those of the kernel's function. The script that counts
//! them stands in the source tree; it fetches the kernel's source and runs valgrind.

use std::path::Path;
use std::process::{Command, Stdio};
use std::thread;
use std::time::Duration;

use vfio_conform::tidy::Family;

use super::super::Result;
use super::{Bench, Findings, Table};

const WHAT: &str = "lookup: instructions a call";
const SCRIPT: &str = "fsm-core/benches/kernel_lookup/run.sh";

pub(super) fn measure(bench: &Bench) -> Result<Findings> {
    let member = Path::new(env!("CARGO_MANIFEST_DIR"));
    let script = member.parent().unwrap_or(member).join(SCRIPT);
    if !script.is_file() {
        let why = format!("{} is not there: run it in the source tree", script.display());
        return Ok(Findings::table(Table::missing(WHAT, why)));
    }
    let (code, out, err) = run(bench, Command::new(&script))?;
    let rows = rows(&out);
    let mut table = Table::new(WHAT, ["core", "kernel", "ratio"]);
    if rows.is_empty() {
        // It says what is missing in its last line.
        let why = err.lines().last().unwrap_or("the script said nothing");
        return Ok(Findings::table(Table::missing(WHAT, format!("{why} (exit status {code:?})"))));
    }
    rows.into_iter().for_each(|(what, figures)| table.row(what, figures.map(Some)));
    Ok(Findings::table(table))
}

/// Its status and what it says; ended by Ctrl-C.
fn run(bench: &Bench, mut command: Command) -> Result<(Option<i32>, String, String)> {
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut family = Family::start(&mut command)?;
    let status = loop {
        if let Some(status) = family.child().try_wait()? {
            break status.code();
        }
        if bench.is_over() {
            return Ok((None, String::new(), "cut short".to_owned()));
        }
        // What is said in all fits a pipe.
        thread::sleep(Duration::from_millis(50));
    };
    let (out, err) = (family.child().stdout.take(), family.child().stderr.take());
    family.kill();
    let text = |pipe: Option<_>| pipe.map_or(Ok(String::new()), std::io::read_to_string);
    let out = text(out)?;
    let err = err.map_or(Ok(String::new()), std::io::read_to_string)?;
    Ok((status, out, err))
}

/// The lines of its table: a name, and three numbers.
fn rows(out: &str) -> Vec<(String, [f64; 3])> {
    out.lines().filter_map(row).collect()
}

fn row(line: &str) -> Option<(String, [f64; 3])> {
    let words: Vec<&str> = line.trim_end_matches("MORE").split_whitespace().collect();
    let (name, figures) = words.split_at_checked(words.len().checked_sub(3)?)?;
    let figures: Vec<f64> = figures.iter().map_while(|word| word.parse().ok()).collect();
    // What it is counted in need not be said in each.
    let name = name.join(" ").replace("inside the function", "inside");
    let name = name.split(" (").next().unwrap_or_default().to_owned();
    (!name.is_empty()).then_some(())?;
    Some((name, figures.try_into().ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// B3: What the script prints is understood, and nothing else is taken for a row.
    #[test]
    fn the_script_is_understood() {
        let out = "answers: 600 compared, all equal\n\
                   instructions per call, mean over 150 legal pairs (4 flag sets), x 100 rounds\n\
                   what                                    ours   kernel  ratio\n\
                   next hop, inside the function           11.00    29.74   0.37\n\
                   next hop, inlined in a loop (the kernel's: called)  9.00 33.11 0.27  MORE\n";
        let rows = rows(out);
        assert_eq!(rows.len(), 2, "{rows:?}");
        assert_eq!(rows[0], ("next hop, inside".to_owned(), [11.0, 29.74, 0.37]));
        assert_eq!(rows[1], ("next hop, inlined in a loop".to_owned(), [9.0, 33.11, 0.27]));
    }
}
