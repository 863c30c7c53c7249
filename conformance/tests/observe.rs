// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! Recordings of VMMs: every rule has one that breaks it and nothing else, and the same one healed;
//! whatever the core's own sessions do on the core's own device breaks none.

#![expect(clippy::unwrap_used, clippy::panic, reason = "helpers of tests may fail them")]

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

use proptest::prelude::*;
use vfio_conform::observe::{
    DmaLogging, Finding, Format, Header, Recording, Report, Rule, Severity, Side, Step, observe,
    read, write,
};
use vfio_fsm_core::device::{Device, Memory};
use vfio_fsm_core::vmm::frame::Frame;
use vfio_fsm_core::vmm::{
    Event, LoadPlan, Loader, Plan, Recovery, Saver, Step as Next, Then, Wait,
};
use vfio_fsm_core::{
    EndOfStream, Errno, Fault, Fd, Features, Leaves, Op, PrecopyInfo, RawState, Reply, State,
};

fn report(steps: Vec<Step>) -> Report {
    observe(&Recording { header: Header::new("test"), steps })
}

fn done(op: Op<u64>, reply: Reply<u64>) -> Step {
    Step::new(0, op, reply)
}

fn features(flags: u64) -> Step {
    done(Op::GetFeatures, Reply::Features(flags))
}

fn get(state: State) -> Step {
    done(Op::GetState, Reply::State(state.into()))
}

fn set(to: State) -> Step {
    done(Op::set(to), Reply::Fd(None))
}

fn set_opens(to: State, fd: u32) -> Step {
    done(Op::set(to), Reply::Fd(Some(Fd(fd))))
}

fn set_fails(to: State, errno: Errno) -> Step {
    done(Op::set(to), Reply::Errno(errno))
}

fn bytes(fd: u32, len: u64) -> Step {
    done(Op::Read { fd: Fd(fd), len: 4096 }, Reply::Bytes(len))
}

fn end(fd: u32) -> Step {
    let end = Reply::EndOfStream(EndOfStream::Permanent);
    done(Op::Read { fd: Fd(fd), len: 4096 }, end)
}

fn nothing_now(fd: u32) -> Step {
    let end = Reply::EndOfStream(EndOfStream::Temporary);
    done(Op::Read { fd: Fd(fd), len: 4096 }, end)
}

fn read_fails(fd: u32, errno: Errno) -> Step {
    done(Op::Read { fd: Fd(fd), len: 4096 }, Reply::Errno(errno))
}

fn wrote(fd: u32, taken: u32) -> Step {
    done(Op::Write { fd: Fd(fd), bytes: 96 }, Reply::Written(taken))
}

fn info(fd: u32, initial: u64) -> Step {
    let info = PrecopyInfo { initial_bytes: initial, dirty_bytes: 0, reinit: false };
    done(Op::PrecopyInfo { fd: Fd(fd) }, Reply::Info(info))
}

fn info_fails(fd: u32, errno: Errno) -> Step {
    done(Op::PrecopyInfo { fd: Fd(fd) }, Reply::Errno(errno))
}

fn close_fd(fd: u32) -> Step {
    done(Op::CloseFd { fd: Fd(fd) }, Reply::Ok)
}

fn reset() -> Step {
    done(Op::Reset, Reply::Ok)
}

fn log(call: DmaLogging) -> Step {
    Step::log(0, call, Reply::Ok)
}

fn on(device: u32, step: Step) -> Step {
    Step { device, ..step }
}

/// A recording that breaks a rule, and one that differs as little as can be and does not.
struct Case {
    rule: Rule,
    severity: Severity,
    /// The step that is to blame, counted from 1; 0 is the end.
    step: usize,
    broken: Vec<Step>,
    healed: Vec<Step>,
}

fn case(rule: Rule, step: usize, broken: Vec<Step>, healed: Vec<Step>) -> Case {
    Case { rule, severity: rule.severity(), step, broken, healed }
}

fn cases_of_devices() -> Vec<Case> {
    use State::{PreCopy, PreCopyP2p, Resuming, Running, Stop, StopCopy};
    let touch = || done(Op::Touch(1), Reply::Ok);
    let size = |reply| done(Op::DataSize, reply);
    vec![
        case(Rule::DeviceFeatures, 1, vec![features(2)], vec![features(3)]),
        case(Rule::DeviceFeatures, 2, vec![features(1), features(7)], vec![features(1); 2]),
        // A SET that says STOP_COPY began no session, and one that says STOP did.
        case(
            Rule::DeviceSet,
            2,
            vec![features(7), set(StopCopy), reset()],
            vec![features(7), set_opens(StopCopy, 1), close_fd(1), reset()],
        ),
        case(
            Rule::DeviceSet,
            2,
            vec![features(7), set_opens(Stop, 1), close_fd(1)],
            vec![features(7), set(Stop)],
        ),
        // A SET of the state that the device is in cannot fail.
        case(
            Rule::DeviceSet,
            2,
            vec![features(7), set_fails(Running, Errno::EIO), get(Running)],
            vec![features(7), set_fails(Stop, Errno::EIO), get(Running)],
        ),
        // No reset leads to STOP.
        case(Rule::DeviceState, 2, vec![features(7), get(Stop)], vec![features(7), get(Running)]),
        // A failed SET leaves the device on its way, and PRE_COPY is not on the way to STOP.
        case(
            Rule::DeviceState,
            3,
            vec![features(7), set_fails(Stop, Errno::EIO), get(Resuming)],
            vec![features(7), set_fails(Stop, Errno::EIO), get(State::RunningP2p)],
        ),
        // More than was asked for.
        case(
            Rule::DeviceStream,
            3,
            vec![features(7), set_opens(PreCopy, 1), bytes(1, 4097), close_fd(1), set(Running)],
            vec![features(7), set_opens(PreCopy, 1), bytes(1, 4096), close_fd(1), set(Running)],
        ),
        case(
            Rule::DeviceEnd,
            3,
            vec![features(7), set_opens(StopCopy, 1), nothing_now(1), close_fd(1), reset()],
            vec![features(7), set_opens(PreCopy, 1), nothing_now(1), close_fd(1), reset()],
        ),
        Case {
            severity: Severity::Warning,
            ..case(
                Rule::DeviceEnd,
                3,
                vec![features(7), set_opens(PreCopy, 1), end(1), close_fd(1), reset()],
                vec![features(7), set_opens(PreCopy, 1), nothing_now(1), close_fd(1), reset()],
            )
        },
        case(
            Rule::DeviceInfo,
            3,
            vec![
                features(7),
                set_opens(PreCopy, 1),
                info_fails(1, Errno::ENOTTY),
                close_fd(1),
                reset(),
            ],
            vec![features(7), set_opens(PreCopy, 1), info(1, 24), close_fd(1), reset()],
        ),
        case(
            Rule::DeviceInitial,
            4,
            vec![
                features(7),
                set_opens(PreCopy, 1),
                info(1, 24),
                info(1, 25),
                close_fd(1),
                reset(),
            ],
            vec![
                features(7),
                set_opens(PreCopy, 1),
                info(1, 24),
                info(1, 24),
                close_fd(1),
                reset(),
            ],
        ),
        case(
            Rule::DeviceOther,
            2,
            vec![features(7), size(Reply::Errno(Errno::EBUSY))],
            vec![features(7), size(Reply::Size(0)), touch()],
        ),
        // The saving group is not left, and yet there is a new session.
        case(
            Rule::ResetInferred,
            3,
            vec![
                features(7),
                set_opens(PreCopy, 1),
                set_opens(PreCopyP2p, 2),
                close_fd(1),
                close_fd(2),
                set(Running),
            ],
            vec![features(7), set_opens(PreCopy, 1), set(PreCopyP2p), close_fd(1), set(Running)],
        ),
        case(
            Rule::ResetInferred,
            3,
            vec![features(7), set(Stop), get(Running)],
            vec![features(7), set(Stop), get(Stop)],
        ),
    ]
}

fn cases_of_vmms() -> Vec<Case> {
    use State::{Error, PreCopy, Resuming, Running, RunningP2p, Stop, StopCopy};
    let note = |case| Case { severity: Severity::Note, ..case };
    let warning = |case| Case { severity: Severity::Warning, ..case };
    vec![
        case(Rule::FeaturesFirst, 1, vec![set(Stop)], vec![features(7), set(Stop)]),
        case(
            Rule::NoRoute,
            2,
            vec![features(1), set_fails(RunningP2p, Errno::EINVAL)],
            vec![features(3), set(RunningP2p)],
        ),
        case(
            Rule::NoRoute,
            2,
            vec![features(7), set_fails(Error, Errno::EINVAL)],
            vec![features(7), set(Stop)],
        ),
        case(
            Rule::NoRoute,
            4,
            vec![
                features(7),
                set_fails(Stop, Errno::EIO),
                get(Error),
                set_fails(Running, Errno::EINVAL),
            ],
            vec![features(7), set_fails(Stop, Errno::EIO), get(Error), reset(), set(Running)],
        ),
        case(
            Rule::BlockedArc,
            3,
            vec![
                features(7),
                set_opens(StopCopy, 1),
                set_fails(PreCopy, Errno::EINVAL),
                close_fd(1),
                reset(),
            ],
            vec![
                features(7),
                set_opens(StopCopy, 1),
                close_fd(1),
                reset(),
                set_opens(PreCopy, 2),
                close_fd(2),
            ],
        ),
        case(
            Rule::StaleFd,
            4,
            vec![
                features(7),
                set_opens(StopCopy, 1),
                reset(),
                read_fails(1, Errno::ENODEV),
                close_fd(1),
            ],
            vec![features(7), set_opens(StopCopy, 1), bytes(1, 9), reset(), close_fd(1)],
        ),
        case(
            Rule::StaleFd,
            4,
            vec![
                features(7),
                set_opens(StopCopy, 1),
                close_fd(1),
                read_fails(1, Errno::EBADF),
                reset(),
            ],
            vec![features(7), set_opens(StopCopy, 1), bytes(1, 9), close_fd(1), reset()],
        ),
        case(
            Rule::StaleFd,
            4,
            vec![
                features(7),
                set_opens(StopCopy, 1),
                close_fd(1),
                done(Op::CloseFd { fd: Fd(1) }, Reply::Errno(Errno::EBADF)),
                reset(),
            ],
            vec![features(7), set_opens(StopCopy, 1), close_fd(1), reset()],
        ),
        case(
            Rule::ErrorIgnored,
            4,
            vec![
                features(7),
                set_opens(PreCopy, 1),
                read_fails(1, Errno::EIO),
                bytes(1, 9),
                close_fd(1),
                reset(),
            ],
            vec![
                features(7),
                set_opens(PreCopy, 1),
                read_fails(1, Errno::EAGAIN),
                bytes(1, 9),
                close_fd(1),
                reset(),
            ],
        ),
        case(
            Rule::FailureIgnored,
            4,
            vec![
                features(7),
                set_opens(PreCopy, 1),
                set_fails(StopCopy, Errno::EIO),
                bytes(1, 9),
                close_fd(1),
                reset(),
            ],
            vec![
                features(7),
                set_opens(PreCopy, 1),
                set_fails(StopCopy, Errno::EIO),
                get(PreCopy),
                bytes(1, 9),
                close_fd(1),
                reset(),
            ],
        ),
        warning(case(
            Rule::FailureIgnored,
            0,
            vec![features(7), set_fails(Stop, Errno::EIO)],
            vec![features(7), set_fails(Stop, Errno::EIO), get(Running)],
        )),
        note(case(
            Rule::FailureIgnored,
            3,
            vec![features(7), set_fails(Stop, Errno::EIO), set(Running)],
            vec![features(7), set_fails(Stop, Errno::EIO), get(Running), set(Running)],
        )),
        // What was refused runs all the same.
        case(
            Rule::FailureIgnored,
            7,
            vec![
                features(1),
                set_opens(Resuming, 1),
                wrote(1, 96),
                set_fails(Stop, Errno::EINVAL),
                close_fd(1),
                get(Resuming),
                set(Running),
            ],
            vec![
                features(1),
                set_opens(Resuming, 1),
                wrote(1, 96),
                set_fails(Stop, Errno::EINVAL),
                close_fd(1),
                reset(),
                set(Running),
            ],
        ),
        case(
            Rule::UncheckedLoad,
            5,
            vec![features(1), set_opens(Resuming, 1), wrote(1, 90), close_fd(1), set(Running)],
            vec![
                features(1),
                set_opens(Resuming, 1),
                wrote(1, 90),
                wrote(1, 96),
                close_fd(1),
                set(Running),
            ],
        ),
        warning(case(
            Rule::UncheckedLoad,
            4,
            vec![features(1), set_opens(Resuming, 1), close_fd(1), set(Running)],
            vec![features(1), set_opens(Resuming, 1), close_fd(1), reset()],
        )),
        case(
            Rule::NotDrained,
            5,
            vec![
                features(1),
                set_opens(StopCopy, 1),
                bytes(1, 9),
                close_fd(1),
                set(Stop),
                get(Stop),
            ],
            vec![
                features(1),
                set_opens(StopCopy, 1),
                bytes(1, 9),
                end(1),
                close_fd(1),
                set(Stop),
                get(Stop),
            ],
        ),
        note(case(
            Rule::NotDrained,
            4,
            vec![features(1), set_opens(StopCopy, 1), close_fd(1), set(Running)],
            vec![features(1), set_opens(StopCopy, 1), close_fd(1), reset()],
        )),
        case(
            Rule::InitialLeft,
            5,
            vec![
                features(7),
                set_opens(PreCopy, 1),
                info(1, 24),
                bytes(1, 23),
                set(StopCopy),
                close_fd(1),
                reset(),
            ],
            vec![
                features(7),
                set_opens(PreCopy, 1),
                info(1, 24),
                bytes(1, 24),
                set(StopCopy),
                close_fd(1),
                reset(),
            ],
        ),
        case(
            Rule::InfoOutside,
            3,
            vec![
                features(7),
                set_opens(StopCopy, 1),
                info_fails(1, Errno::EINVAL),
                close_fd(1),
                reset(),
            ],
            vec![features(7), set_opens(PreCopy, 1), info(1, 24), close_fd(1), reset()],
        ),
        case(
            Rule::LeftOpen,
            3,
            vec![features(7), set_opens(PreCopy, 1), set(Running), close_fd(1)],
            vec![features(7), set_opens(PreCopy, 1), close_fd(1), set(Running)],
        ),
        case(
            Rule::ClosedFirst,
            3,
            vec![features(7), set_opens(PreCopy, 1), done(Op::Close, Reply::Ok), close_fd(1)],
            vec![features(7), set_opens(PreCopy, 1), close_fd(1), done(Op::Close, Reply::Ok)],
        ),
        case(
            Rule::NeverClosed,
            0,
            vec![features(7), set_opens(PreCopy, 1), reset()],
            vec![features(7), set_opens(PreCopy, 1), reset(), close_fd(1)],
        ),
        case(
            Rule::NeverLooked,
            0,
            vec![features(1), set_opens(StopCopy, 1), end(1), close_fd(1), set(Stop)],
            vec![features(1), set_opens(StopCopy, 1), end(1), close_fd(1), set(Stop), get(Stop)],
        ),
        case(
            Rule::PeerRunning,
            3,
            vec![features(3), on(1, features(3)), set(Stop)],
            vec![
                features(3),
                on(1, features(3)),
                set(RunningP2p),
                on(1, set(RunningP2p)),
                set(Stop),
                on(1, set(Stop)),
            ],
        ),
        case(
            Rule::LogOrder,
            2,
            vec![features(7), log(DmaLogging::Report)],
            vec![
                features(7),
                log(DmaLogging::Start),
                log(DmaLogging::Report),
                log(DmaLogging::Stop),
            ],
        ),
        case(
            Rule::LogOrder,
            2,
            vec![log(DmaLogging::Start), log(DmaLogging::Start)],
            vec![log(DmaLogging::Start), log(DmaLogging::Stop), log(DmaLogging::Start)],
        ),
        case(
            Rule::LogCorrupt,
            2,
            vec![
                log(DmaLogging::Start),
                Step::log(0, DmaLogging::Report, Reply::Errno(Errno::EIO)),
            ],
            vec![log(DmaLogging::Start), log(DmaLogging::Report)],
        ),
    ]
}

#[track_caller]
fn holds(case: &Case) {
    let found = report(case.broken.clone());
    let [Finding { rule, severity, step, .. }] = found.findings.as_slice() else {
        panic!("not {} alone: {found}", case.rule);
    };
    let wanted = (case.rule, case.severity, (case.step > 0).then_some(case.step));
    assert_eq!((*rule, *severity, *step), wanted, "{found}");
    let healed = report(case.healed.clone());
    assert!(healed.findings.is_empty(), "{}, healed: {healed}", case.rule);
}

/// W1: a device that answers as it must not is found, at the call where it does and nowhere else.
#[test]
fn every_rule_for_devices_is_broken_by_its_recording_alone() {
    cases_of_devices().iter().for_each(holds);
}

/// W2: a VMM that does what it may not is found, at the call where it does and nowhere else.
#[test]
fn every_rule_for_vmms_is_broken_by_its_recording_alone() {
    cases_of_vmms().iter().for_each(holds);
}

/// W2: no rule is without a recording; the one for a new data_fd never comes alone, since a new data_fd
/// is evidence of a reset.
#[test]
fn every_rule_has_its_recording() {
    let cases = cases_of_devices().into_iter().chain(cases_of_vmms());
    let mut covered: BTreeSet<_> = cases.map(|case| case.rule).collect();
    covered.insert(Rule::FreshFdIgnored);
    assert_eq!(covered, Rule::ALL.iter().copied().collect());
    let ids: BTreeSet<_> = Rule::ALL.iter().map(|rule| rule.id()).collect();
    assert_eq!(ids.len(), Rule::ALL.len());
}

/// W3: a reset that nobody recorded is inferred where an answer has no other explanation, and said; the
/// VMM is held to what it could see of it.
#[test]
fn a_reset_behind_the_vmms_back_is_inferred() {
    let begin = || vec![features(7), set_opens(State::PreCopy, 1), bytes(1, 9)];
    let rules = |steps: Vec<Step>| -> Vec<_> {
        report(steps).findings.iter().map(|finding| (finding.rule, finding.step)).collect()
    };
    // It sees the dead data_fd, closes it and begins anew.
    let mut looks = begin();
    looks.extend([read_fails(1, Errno::ENODEV), close_fd(1), get(State::Running)]);
    assert_eq!(rules(looks), [(Rule::ResetInferred, Some(4))]);
    // It reads on.
    let mut reads_on = begin();
    reads_on.extend([
        read_fails(1, Errno::ENODEV),
        read_fails(1, Errno::ENODEV),
        close_fd(1),
        reset(),
    ]);
    let both = [(Rule::ResetInferred, Some(4)), (Rule::ErrorIgnored, Some(5))];
    assert_eq!(rules(reads_on), both);
    // It gets a new data_fd and goes on with the old one.
    let mut old = begin();
    old.extend([
        set_opens(State::StopCopy, 2),
        read_fails(1, Errno::ENODEV),
        close_fd(1),
        close_fd(2),
        reset(),
    ]);
    let both = [(Rule::ResetInferred, Some(4)), (Rule::FreshFdIgnored, Some(5))];
    assert_eq!(rules(old), both);
    // And with the new one.
    let mut new = begin();
    new.extend([set_opens(State::StopCopy, 2), bytes(2, 9), close_fd(1), close_fd(2), reset()]);
    assert_eq!(rules(new), [(Rule::ResetInferred, Some(4))]);
}

/// W3: a SET may also have failed behind a reset, and a later answer tells.
#[test]
fn a_reset_before_a_set_that_failed_is_inferred() {
    let found = report(vec![
        features(7),
        set_opens(State::StopCopy, 1),
        set_fails(State::PreCopy, Errno::EMFILE),
        info_fails(1, Errno::ENODEV),
    ]);
    let devices = found.findings.iter().filter(|found| found.rule.side() == Side::Device);
    let devices: Vec<_> = devices.map(|finding| (finding.rule, finding.step)).collect();
    assert_eq!(devices, [(Rule::ResetInferred, Some(4))], "{found}");
}

/// W4: where calls overlap, their order is not known, and what would be an error is a warning.
#[test]
fn calls_that_overlap_are_not_called_errors() {
    let at = |at, took, tid, step| Step { at, took, tid, ..step };
    let steps = |took| {
        vec![
            at(0, 1, 1, features(7)),
            at(10, 20, 1, get(State::Stop)),
            at(20, took, 2, set(State::Stop)),
        ]
    };
    let severity = |took| report(steps(took)).findings[0].severity;
    assert_eq!(severity(20), Severity::Warning);
    // A reader that was waiting when the session was ended uses no stale data_fd.
    let reader = |began, took| {
        vec![
            at(0, 1, 1, features(7)),
            at(10, 1, 1, set_opens(State::PreCopy, 1)),
            at(30, 10, 1, set(State::Running)),
            at(began, took, 2, read_fails(1, Errno::ENODEV)),
            at(90, 1, 2, close_fd(1)),
        ]
    };
    let stale = |began, took| {
        let found = report(reader(began, took)).findings;
        found.into_iter().find(|finding| finding.rule == Rule::StaleFd).unwrap().severity
    };
    assert_eq!((stale(20, 30), stale(50, 1)), (Severity::Warning, Severity::Error));
    let apart = vec![features(7), at(10, 5, 1, get(State::Stop)), at(20, 5, 2, set(State::Stop))];
    assert_eq!(report(apart).findings[0].severity, Severity::Error);
}

fn data(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data").join(name)
}

/// W5: what QEMU 10.0.2 did with an mtty device: nothing that it may not; the driver's end of PRE_COPY
/// is the one that the lab knows of it.
#[test]
fn qemu_is_observed() {
    let text = fs::read(data("qemu-10.0.2-mtty.calls")).unwrap();
    assert_eq!(Format::detect(&text), Format::Calls);
    let recordings = read(text.as_slice(), Format::Calls).unwrap();
    let found: Vec<_> = recordings.iter().map(observe).collect();
    let rules = |report: &Report| -> Vec<_> {
        report.findings.iter().map(|finding| (finding.rule, finding.times)).collect()
    };
    let (end, open, looked) = (Rule::DeviceEnd, Rule::LeftOpen, Rule::NeverLooked);
    assert_eq!(rules(&found[0]), [(end, 4), (open, 1), (looked, 1)]);
    assert_eq!(rules(&found[1]), [(open, 1)]);
    assert_eq!(rules(&found[2]), [(Rule::InitialLeft, 1), (open, 1), (looked, 1)]);
    assert!(found.iter().all(Report::is_good));
    let steps: Vec<_> = found.iter().map(|report| report.steps).collect();
    assert_eq!(steps, [19, 9, 14], "the container's own ioctls and the probes are passed over");

    // As a recording it is the same.
    let mut written = Vec::new();
    write(&recordings, &mut written).unwrap();
    assert_eq!(Format::detect(&written), Format::Recording);
    assert_eq!(read(written.as_slice(), Format::Recording).unwrap(), recordings);
}

/// W5: every example of the page is a recording or a list of calls, and nothing is wrong with it.
#[test]
fn the_page_is_right() {
    let page = Path::new(env!("CARGO_MANIFEST_DIR")).join("specs/recording-format.md");
    let page = fs::read_to_string(page).unwrap();
    let mut seen = 0;
    for (fence, format) in [("```json\n", Format::Recording), ("```text\n", Format::Calls)] {
        for block in page.split(fence).skip(1) {
            let block = block.split("```").next().unwrap();
            let recordings = read(block.as_bytes(), format).unwrap();
            let found: Vec<_> = recordings.iter().map(observe).collect();
            let bad = |finding: &Finding| finding.severity > Severity::Note;
            assert!(!found.iter().any(|report| report.findings.iter().any(bad)), "{found:?}");
            seen += 1;
        }
    }
    assert_eq!(seen, 3);
}

/// W6: a file that is not what it should be is refused, with its line.
#[test]
fn what_is_malformed_is_refused() {
    const HEADER: &str = r#"{"vfio-fsm-recording":1,"name":"a"}"#;
    const STEP: &str = r#"{"op":"reset","reply":"ok"}"#;
    let cases: &[(&[&str], usize, &str)] = &[
        (&[], 1, "no recording"),
        (&[HEADER], 1, "no step"),
        (&[STEP], 1, "before the first header"),
        (&[r#"{"vfio-fsm-recording":2,"new":true}"#], 1, "version 2"),
        (&[HEADER, STEP, HEADER], 3, "a second recording"),
        (
            &[HEADER, "{"],
            2,
            "not a header or step of a recording: EOF while parsing an object, at column 1;",
        ),
        (&[HEADER, r#"{"op":"reset","reply":"ok","colour":1}"#], 2, "colour"),
        (&[HEADER, r#"{"op":"explode","reply":"ok"}"#], 2, "explode"),
        (&[HEADER, r#"{"reply":"ok"}"#], 2, "either op or dma_logging"),
        (&[HEADER, r#"{"op":"reset","dma_logging":"stop","reply":"ok"}"#], 2, "either"),
        (&[HEADER, r#"{"op":"reset","reply":{"size":1}}"#], 2, "of a kind"),
        (&[HEADER, r#"{"dma_logging":"stop","reply":{"size":1}}"#], 2, "an errno"),
        (&[HEADER, r#"{"op":{"close_fd":{"fd":1}},"reply":"ok"}"#], 2, "not handed out"),
        (&[HEADER, r#"{"op":{"set_state":{"to":"STOP_COPY"}},"reply":{"fd":2}}"#], 2, "numbered"),
        (
            &[
                HEADER,
                r#"{"op":{"set_state":{"to":"STOP","fault":"reset_inside"}},"reply":{"fd":null}}"#,
            ],
            2,
            "fault",
        ),
    ];
    for (lines, line, says) in cases {
        let error = read(lines.join("\n").as_bytes(), Format::Recording).unwrap_err();
        assert_eq!(error.line, *line, "{error}");
        assert!(error.to_string().contains(says), "{says:?} is not in: {error}");
    }
    let long = format!("{HEADER}\n{}", "x".repeat(70_000));
    let error = read(long.as_bytes(), Format::Recording).unwrap_err();
    assert!(error.line == 2 && error.to_string().contains("longer"), "{error}");

    for (text, says) in [
        ("soon\t1\tRESET\tfd=1\trc=0", "no time"),
        ("1.0\tone\tRESET\tfd=1\trc=0", "no process"),
        ("1.0\t1\tEXPLODE\tfd=1\trc=0", "EXPLODE"),
        ("1.0\t1\tREAD\tfd=1\tlen=1\tret=1 0", "returned by no SET"),
        ("1.0\t1\tREAD", "fd= is missing"),
        ("1.0\t1\tFEATURE\tfd=1\tGET\tMIGRATION\tflags=0x10001\targsz=16\trc=-1", "no errno"),
    ] {
        let error = read(text.as_bytes(), Format::Calls).unwrap_err();
        assert!(error.line == 1 && error.to_string().contains(says), "{says:?} is not in: {error}");
    }
}

/// The core's device with everything that is done to it written down, but for what the guest does.
struct Recorder {
    device: Device<Memory<7>, 4>,
    steps: Vec<Step>,
}

impl Recorder {
    fn new(features: Features) -> Self {
        Self { device: Device::new(features, Memory::new()), steps: Vec::new() }
    }

    fn apply<'b>(&mut self, op: Op<&[u8]>, buf: &'b mut [u8]) -> Reply<&'b [u8]> {
        let reply = self.device.apply(op, buf);
        let op = match op.map(|bytes| bytes.len() as u64) {
            // What went wrong inside a SET, a VMM does not see.
            Op::SetState { to, .. } => Op::SetState { to, fault: None },
            op => op,
        };
        self.steps.push(Step::new(0, op, reply.map(|bytes| bytes.len() as u64)));
        reply
    }
}

/// What happens behind a session's back.
#[derive(Clone, Copy, Debug)]
enum Blow {
    Nothing,
    Reset,
    Touch,
    Fault(Fault),
    Cancel,
}

fn blows() -> impl Strategy<Value = Vec<Blow>> {
    let arc = |leaves| Fault::ArcFails { hop: 0, errno: Errno::EIO, leaves };
    let blow = prop_oneof![
        12 => Just(Blow::Nothing),
        2 => Just(Blow::Reset),
        2 => Just(Blow::Touch),
        1 => Just(Blow::Fault(Fault::ResetInside)),
        1 => Just(Blow::Fault(arc(Leaves::Source))),
        1 => Just(Blow::Fault(arc(Leaves::Error))),
        1 => Just(Blow::Fault(Fault::FdTableFull)),
        1 => Just(Blow::Cancel),
    ];
    prop::collection::vec(blow, 0..40)
}

fn with_fault(op: Op<&[u8]>, fault: Option<Fault>) -> Op<&[u8]> {
    match op {
        Op::SetState { to, .. } => Op::SetState { to, fault },
        op => op,
    }
}

/// A whole save, and the frames that went out, each with its payload.
fn save(features: Features, plan: Plan, blows: &[Blow]) -> (Vec<Step>, Vec<(Frame, Vec<u8>)>) {
    let mut device = Recorder::new(features);
    let mut saver = Saver::<Fd>::new(plan);
    let (mut frames, mut last) = (Vec::new(), Vec::new());
    let mut blows = blows.iter().copied();
    for turn in 0..2000 {
        let blow = blows.next().unwrap_or(Blow::Nothing);
        let mut fault = None;
        match blow {
            Blow::Reset => drop(device.device.apply(Op::Reset, &mut [])),
            Blow::Touch => drop(device.device.apply(Op::Touch(turn as u8), &mut [])),
            Blow::Fault(planned) => fault = Some(planned),
            Blow::Cancel => saver.event(Event::Cancel).unwrap(),
            Blow::Nothing => {}
        }
        match saver.step() {
            Next::Do(op) => {
                let op = op.map_fd(|fd| *fd).map(|never| match never {});
                let mut buf = [0; 64];
                let reply = device.apply(with_fault(op, fault), &mut buf);
                if let Reply::Bytes(bytes) = reply {
                    last = bytes.to_vec();
                }
                saver.reply(reply.map(|bytes| bytes.len() as u32)).unwrap();
            }
            Next::Send(frame) => {
                frames.push((frame, last.clone()));
                saver.sent().unwrap();
            }
            Next::Call(_) => saver.called(true).unwrap(),
            Next::Decide(decision) => {
                let all = [Recovery::StopCopy, Recovery::Restart, Recovery::Abort];
                let open = all.into_iter().cycle().skip(turn % 3);
                let choice = open.take(3).find(|choice| decision.choices.allow(*choice));
                saver.decide(choice.unwrap()).unwrap();
            }
            Next::Wait(Wait::Switchover) if turn > 20 => saver.event(Event::Switchover).unwrap(),
            Next::Wait(_) => saver.event(Event::Tick).unwrap(),
            Next::End(_) => return (device.steps, frames),
        }
    }
    panic!("the session does not end: {saver:?}");
}

/// A load of these frames.
fn load(features: Features, frames: &[(Frame, Vec<u8>)], blows: &[Blow]) -> Vec<Step> {
    let mut device = Recorder::new(features);
    let mut loader = Loader::<Fd>::new(LoadPlan::default());
    let (mut frames, mut payload) = (frames.iter(), Vec::new());
    let mut blows = blows.iter().copied();
    for _ in 0..2000 {
        let mut fault = None;
        match blows.next().unwrap_or(Blow::Nothing) {
            Blow::Reset => drop(device.device.apply(Op::Reset, &mut [])),
            Blow::Fault(planned) => fault = Some(planned),
            Blow::Cancel => loader.event(Event::Cancel).unwrap(),
            Blow::Touch | Blow::Nothing => {}
        }
        match loader.step() {
            Next::Do(op) => {
                let op = op.map_fd(|fd| *fd).map(|piece| piece.of(&payload));
                let reply = device.apply(with_fault(op, fault), &mut []);
                loader.reply(reply.map(|bytes| bytes.len() as u32)).unwrap();
            }
            Next::Call(_) => loader.called(true).unwrap(),
            Next::Wait(Wait::Frame) => match frames.next() {
                Some((frame, bytes)) => {
                    payload.clone_from(bytes);
                    loader.frame(*frame).unwrap();
                }
                None => loader.event(Event::PeerLost).unwrap(),
            },
            Next::Wait(Wait::Run) => loader.event(Event::Run).unwrap(),
            Next::Wait(_) => loader.event(Event::Tick).unwrap(),
            Next::End(_) => return device.steps,
            other => panic!("not of a destination: {other}"),
        }
    }
    panic!("the session does not end: {loader:?}");
}

fn plans() -> impl Strategy<Value = (Features, Plan)> {
    let features = prop::sample::select(Features::SETS.to_vec());
    (features, any::<[bool; 3]>()).prop_map(|(features, [pre_copy, back, reinit])| {
        let then = if back { Then::Back } else { Then::Stop };
        (features, Plan { pre_copy, reinit, chunk: 5, then, ..Plan::LIVE })
    })
}

fn states() -> impl Strategy<Value = RawState> {
    (0_u32..10).prop_map(RawState)
}

/// Anything at all done to a device: what a wild VMM would.
fn ops() -> impl Strategy<Value = Op<Vec<u8>>> {
    let fd = || (1_u32..4).prop_map(Fd);
    let fault = prop::option::weighted(0.2, Just(Fault::ResetInside));
    prop_oneof![
        6 => (states(), fault).prop_map(|(to, fault)| Op::SetState { to, fault }),
        2 => Just(Op::GetState),
        1 => Just(Op::GetFeatures),
        1 => Just(Op::Reset),
        1 => Just(Op::DataSize),
        1 => Just(Op::Close),
        1 => Just(Op::Open),
        3 => (fd(), 1_u32..20).prop_map(|(fd, len)| Op::Read { fd, len }),
        3 => fd().prop_map(|fd| Op::Write { fd, bytes: b"F\0\0\0\0\0\0\0".to_vec() }),
        2 => fd().prop_map(|fd| Op::PrecopyInfo { fd }),
        1 => fd().prop_map(|fd| Op::Poll { fd }),
        1 => fd().prop_map(|fd| Op::Seek { fd }),
        1 => fd().prop_map(|fd| Op::FdFlags { fd }),
        1 => fd().prop_map(|fd| Op::CloseFd { fd }),
    ]
}

fn errors(steps: &[Step]) -> Vec<Finding> {
    let found = report(steps.to_vec()).findings;
    found.into_iter().filter(|finding| finding.severity == Severity::Error).collect()
}

fn is_readable(steps: &[Step]) -> bool {
    if steps.is_empty() {
        // A session that was cancelled at once has done nothing, and that is no recording.
        return true;
    }
    let mut text = Vec::new();
    let recording = Recording { header: Header::new("test"), steps: steps.to_vec() };
    write([&recording], &mut text).unwrap();
    read(text.as_slice(), Format::Recording).is_ok_and(|read| read == [recording])
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    /// W7: whatever happens behind the back of the core's sessions, on the core's device they break no
    /// rule, and what they did can be written down and read.
    #[test]
    fn the_cores_sessions_break_no_rule(
        (features, plan) in plans(), at_source in blows(), at_destination in blows(),
    ) {
        let (saved, frames) = save(features, plan, &at_source);
        prop_assert_eq!(errors(&saved), []);
        prop_assert!(is_readable(&saved));
        let loaded = load(features, &frames, &at_destination);
        prop_assert_eq!(errors(&loaded), []);
        prop_assert!(is_readable(&loaded));
    }

    /// W7: however wild the VMM, the core's device is never at fault, and no reset is inferred that
    /// was not.
    #[test]
    fn the_cores_device_is_never_at_fault(
        features in prop::sample::select(Features::SETS.to_vec()),
        ops in prop::collection::vec(ops(), 0..60),
    ) {
        let mut device = Recorder::new(features);
        let mut handed_out = 0;
        let mut resets = 0;
        device.apply(Op::GetFeatures, &mut []);
        for op in &ops {
            let op = op.clone();
            if let Op::Read { fd, .. } | Op::Write { fd, .. } | Op::PrecopyInfo { fd } | Op::Poll { fd }
                | Op::Seek { fd } | Op::FdFlags { fd } | Op::CloseFd { fd } = op
                && fd.0 > handed_out
            {
                continue;
            }
            resets += usize::from(matches!(op, Op::SetState { fault: Some(_), .. }));
            let op = match &op {
                Op::Write { fd, bytes } => Op::Write { fd: *fd, bytes: bytes.as_slice() },
                other => other.clone().map(|_| [].as_slice()),
            };
            if let Reply::Fd(Some(fd)) = device.apply(op, &mut [0; 32]) {
                handed_out = fd.0;
            }
        }
        let found = report(device.steps.clone()).findings;
        let at_fault = |finding: &&Finding| {
            let device = finding.rule.side() == Side::Device;
            device && finding.rule != Rule::ResetInferred
        };
        prop_assert_eq!(found.iter().find(at_fault), None);
        let inferred = found.iter().filter(|finding| finding.rule == Rule::ResetInferred);
        prop_assert!(inferred.map(|finding| finding.times).sum::<usize>() <= resets);
        prop_assert!(is_readable(&device.steps));
    }

    /// W8: whatever is done to a recording, it is observed or refused, and nothing panics.
    #[test]
    fn mutations_never_panic(
        (features, plan) in plans(),
        blows in blows(),
        cuts in prop::collection::vec((any::<prop::sample::Index>(), any::<prop::sample::Index>(), 0..4), 1..8),
        bytes in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 0..4),
    ) {
        let (mut steps, _) = save(features, plan, &blows);
        prop_assume!(!steps.is_empty());
        for (at, with, how) in cuts {
            let (at, with) = (at.index(steps.len()), with.index(steps.len()));
            match how {
                0 => steps.swap(at, with),
                1 => steps[at].reply = steps[with].reply,
                2 => steps[at].device = 1,
                _ => steps.insert(at, steps[with].clone()),
            }
        }
        let _ = report(steps.clone());
        let mut text = Vec::new();
        let recording = Recording { header: Header::new("test"), steps };
        write([&recording], &mut text).unwrap();
        for (at, byte) in bytes {
            let at = at.index(text.len());
            text[at] = byte;
        }
        for format in [Format::Recording, Format::Calls] {
            if let Ok(recordings) = read(text.as_slice(), format) {
                recordings.iter().for_each(|recording| drop(observe(recording)));
            }
        }
    }
}
