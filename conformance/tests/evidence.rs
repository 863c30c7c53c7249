// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! The runs that are kept as files: what specs/settled-claim.md rests on, as traces in
//! specs/claim/, and every run of threads, as turns in specs/schedules.jsonl.

#![expect(clippy::expect_used, clippy::panic, reason = "helpers of tests may fail them")]

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

use vfio_conform::replay::{Options, Replayer, Verdict};
use vfio_conform::suite::Refuted;
use vfio_conform::target::Reference;
use vfio_conform::trace::{self, Need};
use vfio_fsm_model::{Design, Fault, Replay, Schedule, ScheduleError};

fn specs() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("specs")
}

/// That the file is what would be written now; or writes it.
#[track_caller]
fn is_committed(path: &Path, now: &[u8]) {
    if std::env::var_os("UPDATE_EXPECT").is_some() {
        fs::write(path, now).expect("the file can be written");
    }
    let committed = fs::read(path).unwrap_or_default();
    assert!(committed == now, "{}: run with UPDATE_EXPECT=1 and review", path.display());
}

/// The faults that the page names as what breaks the claim, with the property that they break.
fn of_the_claim() -> Vec<&'static Refuted> {
    let page = fs::read_to_string(specs().join("settled-claim.md")).expect("the page is there");
    let table = page.split("\n## ").find(|section| section.starts_with("The assumptions"));
    let rows = table.expect("the section is there").lines();
    let rows = rows.filter(|row| row.contains("specs/claim/"));
    let mut found = Vec::new();
    for row in rows {
        let file = row.split("specs/claim/").nth(1).and_then(|rest| rest.split(".jsonl").next());
        let slug = file.expect("a file");
        let of_file = |it: &&Refuted| it.claim.fault.slug() == slug && it.claim.level() == 1;
        let claims: Vec<_> = Refuted::all().iter().filter(of_file).collect();
        let quoted = |it: &&Refuted| row.contains(&format!("`{}`", it.claim.property));
        let claim = claims.iter().copied().find(quoted);
        found.push(claim.unwrap_or_else(|| panic!("nothing is named {slug} in {row}")));
    }
    found
}

/// O2, V5, V6: the runs that show that the claim needs its assumptions are there as files, the
/// files are all, and a correct device passes them.
#[test]
fn the_claim_has_its_traces() {
    let claims = of_the_claim();
    assert!(claims.len() >= 8, "{} files", claims.len());
    let mut files = BTreeSet::new();
    for refuted in claims {
        let trace = refuted.trace().expect("a device sees it");
        let mut text = Vec::new();
        trace::write(&[trace], &mut text).expect("memory takes it");
        let path = specs().join("claim").join(refuted.claim.fault.slug()).with_extension("jsonl");
        is_committed(&path, &text);
        let (mut source, mut destination) = (Reference::new(), Reference::new());
        let mut replayer = Replayer::new(vec![&mut source, &mut destination]);
        for trace in trace::read(text.as_slice()).expect("it reads its own") {
            let outcome = replayer.replay(&trace, Options::default());
            assert_eq!(outcome.verdict, Verdict::Pass, "{}", path.display());
        }
        files.insert(path);
    }
    for entry in fs::read_dir(specs().join("claim")).expect("the folder is there") {
        let path = entry.expect("it can be read").path();
        assert!(files.contains(&path), "{} stands in no row of the page", path.display());
    }
}

/// The page says rightly which of them a real driver can be made to show.
#[test]
fn the_lab_can_run_what_the_page_says() {
    let page = fs::read_to_string(specs().join("settled-claim.md")).expect("the page is there");
    for refuted in of_the_claim() {
        let trace = refuted.trace().expect("a device sees it");
        let slug = refuted.claim.fault.slug();
        let row = page.lines().find(|row| row.contains(&format!("specs/claim/{slug}.jsonl")));
        let says = row.expect("its row").contains("in the lab");
        let fails_or_races = |need: &Need| matches!(need, Need::ArcFails | Need::ResetInside);
        assert_eq!(says, !trace.needs().any(|need| fails_or_races(&need)), "{slug}");
    }
}

fn schedules() -> Vec<(&'static Refuted, Schedule)> {
    let of_level_2 = Refuted::all().iter().filter(|refuted| refuted.claim.level() == 2);
    of_level_2
        .map(|refuted| match &refuted.run().expect("it is caught").replay {
            Some(Replay::Schedule(schedule)) => (refuted, schedule.clone()),
            _ => panic!("threads take turns"),
        })
        .collect()
}

/// L1 to L7: the turns that break each property are there as a file.
#[test]
fn the_schedules_are_committed() {
    let lines = schedules()
        .into_iter()
        .map(|(_, schedule)| serde_json::to_string(&schedule).expect("a schedule is JSON") + "\n");
    let text: String = lines.collect();
    is_committed(&specs().join("schedules.jsonl"), text.as_bytes());
}

/// C35, T6: taken again, the turns of the file break the property with the last of them under the
/// design that they were found against, and not at all under the right one.
#[test]
fn the_schedules_break_what_they_say() {
    let text = fs::read_to_string(specs().join("schedules.jsonl")).expect("the file is there");
    let lines: Vec<Schedule> =
        text.lines().map(|line| serde_json::from_str(line).expect("a schedule")).collect();
    assert_eq!(lines.len(), schedules().len());
    for schedule in lines {
        let design = Design::ALL.iter().copied().find(|it| it.slug() == schedule.design);
        let design = design.expect("there is such a design");
        let name = format!("{} against {}", schedule.design, schedule.property);
        assert_eq!(schedule.replay(design), Ok(Some(schedule.turns.len())), "{name}");
        // The licence of L6 is the one claim that is false of the right design.
        if design != Design::Deferred {
            assert_eq!(schedule.replay(Design::Deferred), Ok(None), "{name}, done right");
        }
    }
}

/// What there is not is not taken.
#[test]
fn a_schedule_of_what_is_not_there_is_refused() {
    let (_, good) = schedules().remove(0);
    let with = |change: fn(&mut Schedule)| {
        let mut bad = good.clone();
        change(&mut bad);
        bad.replay(Design::Deferred).expect_err("it is refused")
    };
    assert!(matches!(with(|it| it.property.push('x')), ScheduleError::Property(_)));
    assert!(matches!(with(|it| it.start.push('x')), ScheduleError::Start(_)));
    assert!(matches!(with(|it| it.calls.clear()), ScheduleError::Calls(_)));
    let zero = with(|it| it.turns.push(0));
    assert_eq!(zero, ScheduleError::Thread { turn: good.turns.len() + 1, thread: 0 });
    assert!(matches!(with(|it| it.turns[0] = 5), ScheduleError::Thread { turn: 1, thread: 5 }));
}

/// A trace of a slip is of what the VMM does, so it is no fault of the device: the slips alone have
/// none that fails.
#[test]
fn traces_of_slips_are_of_correct_devices() {
    for refuted in Refuted::all() {
        let Some(run) = refuted.run() else { continue };
        if let (Fault::Vmm(_), Some(Replay::Trace(trace))) = (refuted.claim.fault, &run.replay) {
            assert!(trace.steps.iter().all(|step| step.seen == step.correct));
        }
    }
}
