// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! Follows one boot from its lines alone: what was proven, what went wrong, and during which
//! trace. Knows no processes and no clock but the one it is told, so it is tested without a VM.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use serde_json::Value;

use super::console::{self, IncidentKind};

/// How much of the console an incident keeps.
const EXCERPT_LINES: usize = 120;
/// How many lines before the one that gave the alarm belong to it.
const LINES_BEFORE: usize = 4;
/// How the kernel ends what it says about a warning.
const END_OF_WARNING: &str = "---[ end trace";
/// How many warnings one trace may report; a driver can warn in a loop.
const WARNINGS_PER_TRACE: usize = 3;
/// How long a kernel in trouble may go on talking before the plug is pulled.
const LAST_WORDS: Duration = Duration::from_secs(3);
/// How long a guest that has finished may take to power off.
const POWER_OFF: Duration = Duration::from_secs(5);

/// Something that went wrong in the guest: a failure of the trace that was under way.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Incident {
    /// Which trace of the file was under way; none if it happened before the first.
    pub index: Option<usize>,
    /// Its name.
    pub trace: Option<String>,
    /// What happened.
    pub kind: IncidentKind,
    /// What the guest's console said about it.
    pub excerpt: String,
    /// In which boot, counted from 1.
    pub boot: u32,
}

/// How a boot ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum End {
    /// The replayer has replayed all there was.
    Finished,
    /// A trace brought the guest down; the next boot begins behind it.
    Broke {
        /// The first trace that was not tried.
        next: usize,
    },
    /// The guest did not get as far as a trace.
    NotStarted {
        /// Why, in words.
        reason: String,
    },
    /// The replayer ended before its first trace.
    ReplayerDied {
        /// Its exit code.
        code: i64,
    },
}

#[derive(Debug, Clone, PartialEq, Eq)]
struct Trace {
    index: usize,
    name: String,
}

/// An incident whose lines are still coming in.
#[derive(Debug)]
struct Alarm {
    kind: IncidentKind,
    trace: Option<Trace>,
    lines: Vec<String>,
    since: Instant,
}

/// The limits a boot is held to.
#[derive(Debug, Clone, Copy)]
pub(super) struct Limits {
    /// From power-on to the replayer's start.
    pub(super) boot: Duration,
    /// From one result line to the next.
    pub(super) silence: Duration,
}

/// The state of one boot.
#[derive(Debug)]
pub(super) struct Watch {
    limits: Limits,
    boot: u32,
    /// When the boot, or the last result, was.
    last: Instant,
    ready: bool,
    done: bool,
    exit: Option<i64>,
    failed: Option<String>,
    /// The trace under way by the results, and by the kernel log.
    begun: Option<Trace>,
    marked: Option<Trace>,
    judged: Option<usize>,
    alarm: Option<Alarm>,
    /// The trace that warned last, and how often.
    warned: (Option<usize>, usize),
    incidents: Vec<Incident>,
    console: VecDeque<String>,
    said: VecDeque<String>,
}

impl Watch {
    pub(super) fn new(boot: u32, limits: Limits, now: Instant) -> Self {
        Self {
            limits,
            boot,
            last: now,
            ready: false,
            done: false,
            exit: None,
            failed: None,
            begun: None,
            marked: None,
            judged: None,
            alarm: None,
            warned: (None, 0),
            incidents: Vec::new(),
            console: VecDeque::new(),
            said: VecDeque::new(),
        }
    }

    /// Takes a line of the console.
    pub(super) fn console_line(&mut self, line: &str, now: Instant) {
        if let Some((index, name)) = console::marker(line) {
            self.close_warning();
            self.marked = Some(Trace { index, name: name.to_owned() });
        }
        keep(&mut self.console, line);
        match (console::scan(line), &mut self.alarm) {
            // A panic that follows an oops is the same story.
            (_, Some(alarm)) if alarm.kind.is_fatal() => push(&mut alarm.lines, line),
            (Some(kind), _) => {
                self.close_warning();
                let lines = self.story(LINES_BEFORE + 1);
                self.alarm = Some(Alarm { kind, trace: self.under_way(), lines, since: now });
            }
            (None, Some(alarm)) => {
                push(&mut alarm.lines, line);
                if line.contains(END_OF_WARNING) {
                    self.close_warning();
                }
            }
            (None, None) => {}
        }
    }

    /// Takes a line of the results; hands back one that is the caller's business.
    pub(super) fn result_line(&mut self, line: &str, now: Instant) -> Option<Value> {
        let Ok(Value::Object(fields)) = serde_json::from_str(line) else {
            // Whatever the replayer or a tool in the guest has to say besides.
            keep(&mut self.said, line);
            return None;
        };
        self.last = now;
        let text = |key: &str| fields.get(key).and_then(Value::as_str).unwrap_or_default();
        let index = fields.get("index").and_then(Value::as_u64);
        let index = index.and_then(|index| usize::try_from(index).ok());
        match (text("lab"), text("event"), index) {
            ("ready", ..) => self.ready = true,
            ("failed", ..) => self.failed = Some(format!("`{}` failed", text("step"))),
            ("exit", ..) => {
                self.exit = Some(fields.get("code").and_then(Value::as_i64).unwrap_or(-1));
            }
            (_, "done", _) => self.done = true,
            (_, "begin", Some(index)) => {
                self.begun = Some(Trace { index, name: text("trace").to_owned() });
            }
            // What a kernel in trouble says about a later trace is not evidence: that trace
            // gets its turn in the next boot.
            (.., Some(index)) if self.broken_before(index) => {}
            (_, event, index) => {
                if event == "verdict" {
                    self.judged = index.or(self.judged);
                }
                return Some(Value::Object(fields));
            }
        }
        None
    }

    /// Says how the boot has ended, if by now it has.
    pub(super) fn tick(&mut self, now: Instant) -> Option<End> {
        if let Some(alarm) = &self.alarm
            && now.duration_since(alarm.since) > LAST_WORDS
        {
            if alarm.kind.is_fatal() {
                return Some(self.closed());
            }
            self.close_warning();
        }
        let quiet = now.duration_since(self.last);
        if self.failed.is_some() || ((self.exit.is_some() || self.done) && quiet > POWER_OFF) {
            return Some(self.closed());
        }
        let limit = if self.ready { self.limits.silence } else { self.limits.boot };
        let fatal = self.alarm.as_ref().is_some_and(|alarm| alarm.kind.is_fatal());
        (quiet > limit && !fatal).then(|| self.silent())
    }

    /// Says how the boot has ended, now that the machine is off or about to be.
    pub(super) fn closed(&mut self) -> End {
        self.close_warning();
        if let Some(alarm) = self.alarm.take() {
            return self.broke(alarm.kind, alarm.trace, alarm.lines);
        }
        if let Some(step) = self.failed.take() {
            return End::NotStarted { reason: format!("{step} in the guest") };
        }
        if self.done {
            return End::Finished;
        }
        match (self.exit, self.under_way()) {
            (Some(code), None) => End::ReplayerDied { code },
            (Some(code), trace) => {
                let mut lines = self.said();
                lines.push(format!("(the replayer ended with code {code})"));
                self.broke(IncidentKind::ReplayerEnded, trace, lines)
            }
            (None, None) => End::NotStarted { reason: "the machine ended by itself".into() },
            (None, trace) => {
                let mut lines = self.story(EXCERPT_LINES);
                lines.push("(the machine ended by itself)".into());
                self.broke(IncidentKind::GuestEnded, trace, lines)
            }
        }
    }

    /// Incidents found since the last call.
    pub(super) fn take_incidents(&mut self) -> Vec<Incident> {
        std::mem::take(&mut self.incidents)
    }

    /// Whether the replayer was started.
    pub(super) fn is_ready(&self) -> bool {
        self.ready
    }

    /// The end of the console.
    pub(super) fn recent(&self) -> Vec<String> {
        self.console.iter().rev().take(30).rev().cloned().collect()
    }

    /// The end of what the replayer said that was no event.
    pub(super) fn said(&self) -> Vec<String> {
        self.said.iter().rev().take(30).rev().cloned().collect()
    }

    /// The last `most` lines of the console that belong together: since the trace began, and
    /// since the warning before this one.
    fn story(&self, most: usize) -> Vec<String> {
        let newest = self.console.back().cloned();
        let earlier = self.console.iter().rev().skip(1);
        let earlier = earlier
            .take_while(|line| console::marker(line).is_none() && !line.contains(END_OF_WARNING))
            .take(most.saturating_sub(1));
        let mut lines: Vec<String> = newest.into_iter().chain(earlier.cloned()).collect();
        lines.reverse();
        lines
    }

    /// The kernel log knows best which trace was under way, where the replayer wrote there.
    fn under_way(&self) -> Option<Trace> {
        self.marked.clone().or_else(|| self.begun.clone())
    }

    fn broken_before(&self, index: usize) -> bool {
        let fatal = self.alarm.as_ref().filter(|alarm| alarm.kind.is_fatal());
        fatal.and_then(|alarm| alarm.trace.as_ref()).is_some_and(|trace| trace.index < index)
    }

    fn silent(&mut self) -> End {
        if !self.ready {
            let limit = self.limits.boot.as_secs();
            return End::NotStarted { reason: format!("no user space within {limit} s") };
        }
        let limit = self.limits.silence.as_secs();
        match self.under_way() {
            None => End::NotStarted { reason: format!("the replayer said nothing for {limit} s") },
            trace => {
                self.close_warning();
                let mut lines = self.story(EXCERPT_LINES);
                lines.push(format!("(no result for {limit} s)"));
                self.broke(IncidentKind::Silence, trace, lines)
            }
        }
    }

    /// Records what brought the guest down.
    fn broke(&mut self, kind: IncidentKind, trace: Option<Trace>, lines: Vec<String>) -> End {
        let Some(trace) = trace else {
            return End::NotStarted { reason: format!("the kernel reported: {kind}") };
        };
        let next = trace.index.max(self.judged.unwrap_or(0)) + 1;
        self.record(kind, Some(trace), &lines);
        End::Broke { next }
    }

    fn close_warning(&mut self) {
        let Some(alarm) = self.alarm.take_if(|alarm| !alarm.kind.is_fatal()) else { return };
        let index = alarm.trace.as_ref().map(|trace| trace.index);
        if self.warned.0 != index {
            self.warned = (index, 0);
        }
        self.warned.1 += 1;
        if self.warned.1 <= WARNINGS_PER_TRACE {
            self.record(alarm.kind, alarm.trace, &alarm.lines);
        }
    }

    fn record(&mut self, kind: IncidentKind, trace: Option<Trace>, lines: &[String]) {
        self.incidents.push(Incident {
            index: trace.as_ref().map(|trace| trace.index),
            trace: trace.map(|trace| trace.name),
            kind,
            excerpt: lines.join("\n"),
            boot: self.boot,
        });
    }
}

fn keep(lines: &mut VecDeque<String>, line: &str) {
    if lines.len() == EXCERPT_LINES {
        lines.pop_front();
    }
    lines.push_back(line.trim_end().to_owned());
}

fn push(lines: &mut Vec<String>, line: &str) {
    if lines.len() < EXCERPT_LINES {
        lines.push(line.trim_end().to_owned());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LIMITS: Limits =
        Limits { boot: Duration::from_secs(60), silence: Duration::from_secs(20) };

    /// A boot under observation, with a clock of its own.
    struct Boot {
        watch: Watch,
        now: Instant,
    }

    impl Boot {
        /// A guest that has not said anything.
        fn dark() -> Self {
            let now = Instant::now();
            Self { watch: Watch::new(1, LIMITS, now), now }
        }

        /// A guest whose replayer was started.
        fn ready() -> Self {
            let mut boot = Self::dark();
            boot.results(r#"{"lab":"ready"}"#);
            boot
        }

        fn console(&mut self, message: &str) {
            self.watch.console_line(&format!("[    1.000000] {message}"), self.now);
        }

        fn results(&mut self, line: &str) -> Option<Value> {
            self.watch.result_line(line, self.now)
        }

        fn begin(&mut self, index: usize) {
            let line = format!(r#"{{"event":"begin","index":{index},"trace":"t{index}"}}"#);
            assert_eq!(self.results(&line), None);
        }

        fn verdict(&mut self, index: usize) -> Option<Value> {
            self.results(&format!(r#"{{"event":"verdict","index":{index},"verdict":"pass"}}"#))
        }

        fn after(&mut self, seconds: u64) -> Option<End> {
            self.now += Duration::from_secs(seconds);
            self.watch.tick(self.now)
        }

        /// The incidents so far: index and kind.
        fn incidents(&mut self) -> Vec<(Option<usize>, IncidentKind)> {
            let found = self.watch.take_incidents();
            found.into_iter().map(|incident| (incident.index, incident.kind)).collect()
        }
    }

    #[test]
    fn a_good_boot_has_no_incident_and_hands_verdicts_on_untouched() {
        let mut boot = Boot::ready();
        boot.begin(0);
        let line = boot.results(r#"{"event":"verdict","index":0,"verdict":"pass","more":[1]}"#);
        assert_eq!(line.expect("handed on")["more"][0], 1);
        assert_eq!(boot.results(r#"{"event":"done"}"#), None);
        assert_eq!(boot.results(r#"{"lab":"exit","code":1}"#), None);
        assert_eq!((boot.after(1), boot.watch.closed()), (None, End::Finished));
        assert!(boot.incidents().is_empty());
    }

    #[test]
    fn an_oops_fails_the_trace_under_way_and_the_next_boot_begins_behind_it() {
        let mut boot = Boot::ready();
        boot.begin(0);
        boot.verdict(0);
        boot.begin(1);
        boot.console("BUG: kernel NULL pointer dereference, address: 8");
        boot.console("Oops: 0002 [#1] PREEMPT SMP");
        boot.console("Kernel panic - not syncing: Fatal exception");
        assert_eq!(boot.after(1), None, "its last words are waited for");
        assert_eq!(boot.watch.closed(), End::Broke { next: 2 });
        let incidents = boot.watch.take_incidents();
        assert_eq!(incidents.len(), 1, "one story is one incident");
        assert_eq!(incidents[0].kind, IncidentKind::Oops);
        assert_eq!(incidents[0].trace.as_deref(), Some("t1"));
        assert!(incidents[0].excerpt.ends_with("Fatal exception"));
    }

    #[test]
    fn what_a_broken_kernel_says_of_later_traces_does_not_count() {
        let mut boot = Boot::ready();
        boot.begin(3);
        boot.console("BUG kmalloc-64 (Tainted: G): Poison overwritten");
        assert!(boot.verdict(3).is_some(), "its own verdict does");
        boot.begin(4);
        assert!(boot.verdict(4).is_none());
        assert_eq!(boot.after(4), Some(End::Broke { next: 4 }));
    }

    #[test]
    fn a_verdict_once_given_is_never_asked_for_again() {
        let mut boot = Boot::ready();
        boot.console("vfio-conform: begin 3 t3");
        boot.begin(3);
        assert!(boot.verdict(3).is_some());
        boot.begin(4);
        assert!(boot.verdict(4).is_some());
        boot.console("BUG: late");
        assert_eq!(boot.watch.closed(), End::Broke { next: 5 });
        assert_eq!(boot.incidents(), [(Some(3), IncidentKind::Bug)]);
    }

    #[test]
    fn the_kernel_log_decides_whose_warning_it_is() {
        let mut boot = Boot::ready();
        boot.console("vfio-conform: begin 0 t0");
        boot.begin(0);
        boot.console("vfio-conform: begin 1 t1");
        boot.console("------------[ cut here ]------------");
        boot.console("WARNING: CPU: 0 PID: 1 at a.c:1");
        boot.console("---[ end trace 0 ]---");
        let incidents = boot.watch.take_incidents();
        assert_eq!(incidents[0].index, Some(1), "the results port is late");
        let lines: Vec<&str> = incidents[0].excerpt.lines().collect();
        assert_eq!(lines.len(), 3, "neither the marker nor what was before: {lines:?}");
    }

    #[test]
    fn a_warning_is_recorded_and_the_boot_goes_on() {
        let mut boot = Boot::ready();
        boot.begin(0);
        boot.console("WARNING: CPU: 0 PID: 1 at a.c:1");
        assert_eq!(boot.after(4), None);
        assert_eq!(boot.incidents(), [(Some(0), IncidentKind::Warning)]);
        assert!(boot.verdict(0).is_some());
        boot.results(r#"{"event":"done"}"#);
        assert_eq!(boot.watch.closed(), End::Finished);
    }

    #[test]
    fn a_driver_that_warns_in_a_loop_does_not_drown_the_report() {
        let mut boot = Boot::ready();
        let mut found = Vec::new();
        for index in [0, 1] {
            boot.begin(index);
            for _ in 0..50 {
                boot.console("WARNING: CPU: 0 PID: 1 at a.c:1");
                boot.console("---[ end trace 0 ]---");
                found.extend(boot.incidents());
            }
        }
        assert_eq!(found.len(), 2 * WARNINGS_PER_TRACE);
    }

    #[test]
    fn silence_is_measured_from_the_last_result() {
        let mut boot = Boot::ready();
        boot.begin(0);
        assert_eq!(boot.after(15), None);
        boot.verdict(0);
        boot.begin(1);
        assert_eq!(boot.after(15), None);
        boot.console("some chatter is no result");
        assert_eq!(boot.after(6), Some(End::Broke { next: 2 }));
        assert_eq!(boot.incidents(), [(Some(1), IncidentKind::Silence)]);
    }

    #[test]
    fn a_boot_that_fails_is_nobodys_verdict() {
        let mut boot = Boot::dark();
        assert_eq!(boot.after(59), None);
        assert!(matches!(boot.after(2), Some(End::NotStarted { .. })));
        let mut boot = Boot::dark();
        boot.console("Kernel panic - not syncing: VFS");
        assert!(matches!(boot.watch.closed(), End::NotStarted { .. }));
        let mut boot = Boot::dark();
        boot.results(r#"{"lab":"failed","step":"insmod mtty.ko"}"#);
        let Some(End::NotStarted { reason }) = boot.after(0) else { panic!("did not end") };
        assert!(reason.contains("insmod mtty.ko"));
        let mut boot = Boot::ready();
        assert!(matches!(boot.after(21), Some(End::NotStarted { .. })));
        assert!(boot.incidents().is_empty());
    }

    #[test]
    fn a_replayer_that_ends_early_fails_its_trace_or_the_lab() {
        let mut boot = Boot::ready();
        boot.begin(5);
        boot.results("thread 'main' panicked");
        boot.results(r#"{"lab":"exit","code":101}"#);
        assert_eq!(boot.watch.closed(), End::Broke { next: 6 });
        let incidents = boot.watch.take_incidents();
        assert_eq!(incidents[0].kind, IncidentKind::ReplayerEnded);
        assert!(incidents[0].excerpt.contains("panicked") && incidents[0].excerpt.contains("101"));
        let mut boot = Boot::ready();
        boot.results(r#"{"lab":"exit","code":2}"#);
        assert_eq!(boot.watch.closed(), End::ReplayerDied { code: 2 });
    }

    #[test]
    fn a_machine_that_goes_out_without_a_word_fails_its_trace() {
        let mut boot = Boot::ready();
        boot.begin(5);
        assert_eq!(boot.watch.closed(), End::Broke { next: 6 });
        assert_eq!(boot.incidents(), [(Some(5), IncidentKind::GuestEnded)]);
    }

    #[test]
    fn trouble_while_powering_off_belongs_to_the_last_trace() {
        let mut boot = Boot::ready();
        boot.begin(0);
        boot.verdict(0);
        boot.results(r#"{"event":"done"}"#);
        boot.console("BUG: kernel NULL pointer dereference, address: 8");
        assert_eq!(boot.watch.closed(), End::Broke { next: 1 });
        assert_eq!(boot.incidents(), [(Some(0), IncidentKind::Oops)]);
    }

    #[test]
    fn a_guest_that_cannot_power_off_is_finished_all_the_same() {
        let mut boot = Boot::ready();
        boot.begin(0);
        boot.verdict(0);
        boot.results(r#"{"event":"done"}"#);
        assert_eq!((boot.after(4), boot.after(2)), (None, Some(End::Finished)));
    }
}
