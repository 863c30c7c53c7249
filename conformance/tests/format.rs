// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! Keeps `specs/trace-format.md` honest: what it shows is read, what it claims is so, and every name
//! of the format stands in it.
#![expect(clippy::expect_used, clippy::panic, reason = "helpers of tests fail as tests do")]

use std::collections::BTreeSet;

use serde::de::DeserializeOwned;
use vfio_conform::replay::{Options, Replayer, Verdict};
use vfio_conform::suite::Suite;
use vfio_conform::target::Reference;
use vfio_conform::trace::{self, Amount, Data, Expect, Header, Problem, Step, Trace};
use vfio_fsm_core::{EndOfStream, Errno, Fault, FdFlags, Leaves, Op, State};

const PAGE: &str = include_str!("../specs/trace-format.md");

/// The one op that no suite has yet; the page says so.
const IN_NO_SUITE: &str = "opt_in_precopy_v2";

/// The ```json blocks of the page.
fn blocks() -> Vec<&'static str> {
    let parts = PAGE.split("```json\n").skip(1);
    parts.map(|part| part.split_once("```").expect("a block ends").0).collect()
}

/// The code spans of the page, its blocks left out.
fn spans() -> impl Iterator<Item = &'static str> {
    let prose = PAGE.split("```").step_by(2);
    prose.flat_map(|text| text.split('`').skip(1).step_by(2))
}

/// The example lines in its tables and sentences.
fn lines() -> Vec<&'static str> {
    spans().filter(|span| span.starts_with('{')).collect()
}

/// What a type can be read from: serde lists it when it meets something else.
fn names<T: DeserializeOwned>(unknown: &str) -> Vec<String> {
    let Err(error) = serde_json::from_str::<T>(unknown) else { panic!("{unknown} is known") };
    let text = error.to_string();
    let (_, expected) = text.split_once("expected ").expect("serde says what it expected");
    let names: Vec<_> = expected.split('`').skip(1).step_by(2).map(str::to_owned).collect();
    assert!(!names.is_empty(), "{text}");
    names
}

fn verdict(trace: &Trace) -> Verdict {
    let (mut source, mut destination) = (Reference::new(), Reference::new());
    let mut replayer = Replayer::new(vec![&mut source, &mut destination]);
    replayer.replay(trace, Options::default()).verdict
}

/// Every block is a file, and every trace in it passes on the core's device.
#[test]
fn blocks_are_files() {
    let blocks = blocks();
    assert!(blocks.len() >= 2, "the page shows a file and a round trip");
    for block in blocks {
        let traces = trace::read(block.as_bytes()).unwrap_or_else(|error| {
            panic!("{error} of this block:\n{block}");
        });
        for trace in &traces {
            assert_eq!(verdict(trace), Verdict::Pass, "{}", trace.header.name);
        }
    }
}

/// Every example line is a step that a suite has, letter by letter.
#[test]
fn lines_are_steps_of_suites() {
    let traces: Vec<_> = Suite::ALL.iter().flat_map(|suite| suite.generate_all()).collect();
    let mut file = Vec::new();
    trace::write(&traces, &mut file).expect("memory takes everything");
    let file = String::from_utf8(file).expect("JSON is text");
    let generated: BTreeSet<_> = file.lines().collect();
    let lines = lines();
    assert!(lines.len() >= 35, "an example for each op, fault, data and expectation");
    for line in lines {
        let step: Step = serde_json::from_str(line).unwrap_or_else(|error| {
            panic!("{error}: {line}");
        });
        if step.op.name() != IN_NO_SUITE {
            assert!(generated.contains(line), "no suite has this step: {line}");
        }
    }
}

/// Every op has a line of its own in which it is used, and so has every expectation.
#[test]
fn every_op_and_expectation_has_an_example() {
    let steps: Vec<Step> =
        lines().into_iter().map(|line| serde_json::from_str(line).expect("see above")).collect();
    let ops: BTreeSet<_> = steps.iter().map(|step| step.op.name().to_owned()).collect();
    for name in names::<Op<Data>>("\"?\"") {
        assert!(ops.contains(&name), "no example of the op {name}");
        assert!(PAGE.contains(&format!("\n| `{name}` | `{{\"op\"")), "no row for the op {name}");
    }
    let expected = |expect: &Expect| match serde_json::to_value(expect).expect("is JSON") {
        serde_json::Value::String(name) => name,
        serde_json::Value::Object(map) => map.keys().next().expect("one key").clone(),
        other => panic!("{other}"),
    };
    let expectations: BTreeSet<_> = steps.iter().map(|step| expected(&step.expect)).collect();
    for name in names::<Expect>("\"?\"") {
        assert!(expectations.contains(&name), "no example of the expectation {name}");
    }
}

/// Every name that can be in a file stands on the page, as code.
#[test]
fn every_name_is_explained() {
    let explained: BTreeSet<_> = spans().collect();
    let mut expected: Vec<String> = [
        names::<Header>(r#"{"?":0}"#),
        names::<Step>(r#"{"?":0}"#),
        names::<Op<Data>>("\"?\""),
        names::<Op<Data>>(r#"{"set_state":{"?":0}}"#),
        names::<Op<Data>>(r#"{"read":{"?":0}}"#),
        names::<Op<Data>>(r#"{"write":{"?":0}}"#),
        names::<Fault>("\"?\""),
        names::<Fault>(r#"{"arc_fails":{"?":0}}"#),
        names::<Leaves>("\"?\""),
        names::<Data>("\"?\""),
        names::<Data>(r#"{"fill":{"?":0}}"#),
        names::<Data>(r#"{"slot":{"?":0}}"#),
        names::<Data>(r#"{"flipped":{"?":0}}"#),
        names::<Expect>("\"?\""),
        names::<Expect>(r#"{"bytes":{"?":0}}"#),
        names::<Expect>(r#"{"info":{"?":0}}"#),
        names::<Expect>(r#"{"ready":{"?":0}}"#),
        names::<EndOfStream>("\"?\""),
        names::<Amount>("\"?\""),
    ]
    .concat();
    // These are read leniently where replies are recorded, so serde does not list their fields.
    let flags = FdFlags { read: true, write: true, cloexec: true };
    let flags = serde_json::to_value(flags).expect("is JSON");
    expected.extend(flags.as_object().expect("is an object").keys().cloned());
    expected.extend(State::ALL.map(|state| state.to_string()));
    expected.extend((1..4096).filter_map(|errno| Errno(errno).name()).map(str::to_owned));
    assert!(expected.len() > 90, "the names are found: {}", expected.len());
    for name in expected {
        assert!(explained.contains(name.as_str()), "the page does not explain `{name}`");
    }
}

const HEADER: &str = r#"{"vfio-fsm-trace":1,"name":"limits","features":7}"#;

fn read(steps: &[String]) -> Result<Vec<Trace>, String> {
    let text = format!("{HEADER}\n{}\n", steps.join("\n"));
    trace::read(text.as_bytes()).map_err(|error| error.to_string())
}

/// The limits are where the page says they are.
#[test]
fn limits_are_as_written() {
    for limit in ["16777216 bytes", "67108864 bytes", "numbers 0 to 7", "1048576 bytes"] {
        assert!(PAGE.contains(limit), "the page names the limit {limit}");
    }
    let line = |len: usize| {
        let text = format!("{HEADER}\n{{\"op\":\"reset\",{}\"expect\":\"ok\"}}\n", " ".repeat(len));
        (text.lines().nth(1).expect("two lines").len() + 1, trace::read(text.as_bytes()))
    };
    let (least, _) = line(0);
    let (len, longest) = line(16_777_216 - least);
    assert_eq!(len, 16_777_216);
    assert!(longest.is_ok(), "{longest:?}");
    let (_, too_long) = line(16_777_216 - least + 1);
    assert!(matches!(too_long.expect_err("over the limit").problem, Problem::TooLong));

    let fill = |len: u32| {
        format!(
            r#"{{"op":{{"write":{{"fd":1,"bytes":{{"fill":{{"byte":0,"len":{len}}}}}}}}},"expect":"ok"}}"#
        )
    };
    assert!(read(&[fill(67_108_864)]).is_ok());
    assert!(read(&[fill(67_108_865)]).is_err());

    let into = |slot: u8| {
        format!(r#"{{"op":{{"read":{{"fd":1,"len":1}}}},"into":{slot},"expect":"failure"}}"#)
    };
    assert!(read(&[into(7)]).is_ok());
    assert!(read(&[into(8)]).is_err());

    let device = |device: u8| format!(r#"{{"device":{device},"op":"reset","expect":"ok"}}"#);
    assert!(read(&[device(1)]).is_ok());
    assert!(read(&[device(2)]).is_err());
}

/// One step for each that the page says is refused, and beside it the nearest that is not.
#[test]
fn what_means_nothing_is_refused() {
    let read_into = r#"{"op":{"read":{"fd":1,"len":1}},"into":3,"expect":"failure"}"#;
    let write = |rest: &str| {
        format!(
            r#"{{"op":{{"write":{{"fd":1,"bytes":{{"slot":{{{rest}}}}}}}}},"expect":"failure"}}"#
        )
    };
    let cases = [
        // What is refused, and what is not.
        (r#"{"op":"reset","until_end":true,"expect":"ok"}"#, r#"{"op":"reset","expect":"ok"}"#),
        (r#"{"op":"reset","into":0,"expect":"ok"}"#, read_into),
        (
            r#"{"op":{"pread":{"fd":1,"len":1}},"into":0,"expect":"ok"}"#,
            r#"{"op":{"uring_read":{"fd":1,"len":1}},"into":0,"expect":"ok"}"#,
        ),
        (
            r#"{"op":{"read":{"fd":1,"len":1}},"same_as":0,"expect":"ok"}"#,
            r#"{"op":{"read":{"fd":1,"len":1}},"same_as":3,"expect":"ok"}"#,
        ),
        (
            r#"{"op":{"write":{"fd":1,"bytes":{"hex":"00"}}},"chunk":0,"expect":"ok"}"#,
            r#"{"op":{"write":{"fd":1,"bytes":{"hex":"00"}}},"chunk":1,"expect":"ok"}"#,
        ),
        (
            r#"{"op":{"read":{"fd":1,"len":1}},"chunk":1,"expect":"ok"}"#,
            r#"{"op":{"read":{"fd":1,"len":1}},"expect":"ok"}"#,
        ),
        (&write(r#""slot":0"#), &write(r#""slot":3"#)),
        (&write(r#""slot":8"#), &write(r#""slot":3,"drop":9"#)),
        (&write(r#""slot":3,"part":2,"of":2"#), &write(r#""slot":3,"part":1,"of":2"#)),
        (&write(r#""slot":3,"part":0,"of":0"#), &write(r#""slot":3,"part":0,"of":1"#)),
    ];
    for (refused, taken) in cases {
        let after = |step: &str| read(&[read_into.to_owned(), step.to_owned()]);
        let error = after(refused).expect_err(refused);
        assert!(error.starts_with("line 3: "), "{error}");
        after(taken).unwrap_or_else(|error| panic!("{error}: {taken}"));
    }
}

/// A slot belongs to one trace: the next begins without.
#[test]
fn slots_end_with_their_trace() {
    let text = [
        HEADER,
        r#"{"op":{"read":{"fd":1,"len":1}},"into":0,"expect":"failure"}"#,
        &HEADER.replace("limits", "second"),
        r#"{"op":{"read":{"fd":1,"len":1}},"same_as":0,"expect":"failure"}"#,
    ]
    .join("\n");
    let error = trace::read(text.as_bytes()).expect_err("slot 0 is empty again");
    assert!(error.to_string().starts_with("line 4: same_as"), "{error}");
}

/// What is written is read back the same, and absent keys mean what the page says they mean.
#[test]
fn what_is_written_is_read() {
    for suite in Suite::ALL {
        let traces = suite.generate_all();
        let mut file = Vec::new();
        trace::write(&traces, &mut file).expect("memory takes everything");
        assert_eq!(trace::read(file.as_slice()).expect("is a file"), traces, "{suite}");
    }
    let short: Data = serde_json::from_str(r#"{"slot":{"slot":4}}"#).expect("a slot");
    assert_eq!(short, Data::Slot { slot: 4, part: 0, of: 1, drop: 0, add: 0 });
}

/// The pages under `specs/findings` name traces and requirements that exist.
#[test]
fn findings_name_what_exists() {
    let specs = concat!(env!("CARGO_MANIFEST_DIR"), "/specs");
    let requirements =
        std::fs::read_to_string(format!("{specs}/requirements.toml")).expect("is there");
    let traces: Vec<_> = Suite::ALL.iter().flat_map(|suite| suite.generate_all()).collect();
    let names: BTreeSet<_> = traces.iter().map(|trace| trace.header.name.as_str()).collect();
    let pages = std::fs::read_dir(format!("{specs}/findings")).expect("is there");
    let mut seen = 0;
    for page in pages {
        let path = page.expect("an entry").path();
        let text = std::fs::read_to_string(&path).expect("is text");
        let path = path.display();
        let commands: Vec<_> =
            text.lines().filter_map(|line| line.split_once(" --only ")).collect();
        // These have no names of their own: all their cases are run.
        let lab = ["migrate", "watch", "lifetime"]
            .map(|task| format!("vfio-conform --json lab --{task}"));
        let unnamed =
            [&lab[..], &["--example verify_driver -- ", "--test vfio_user "].map(str::to_owned)]
                .concat();
        let unnamed = unnamed.iter().any(|command| text.contains(command.as_str()));
        assert!(unnamed || !commands.is_empty(), "{path} says how to see it");
        for (_, name) in commands {
            assert!(names.contains(name.trim_matches('\'')), "{path}: no trace is named {name}");
        }
        let (_, breaks) = text.split_once("**Breaks.**").expect("says what it breaks");
        let ids = breaks.split([':', '.']).next().expect("ids").split(" and ").map(str::trim);
        for id in ids {
            assert!(
                requirements.contains(&format!("id = \"{id}\"")),
                "{path}: no requirement {id}"
            );
        }
        seen += 1;
    }
    assert!(seen >= 3, "{seen} findings");
}
