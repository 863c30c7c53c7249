// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! What a QEMU in the guest did, by its recordings.

use std::collections::BTreeMap;
use std::fmt;
use std::fs::File;
use std::io::BufWriter;
use std::path::Path;

use serde::Serialize;
use serde_json::Value;
use vfio_conform::lab::Part;
use vfio_conform::observe::{self, Format, Recording, Report, Rule, Severity, Side};

use super::Result;

/// What a QEMU did to the devices, and they to it.
#[derive(Debug, Serialize)]
pub(super) struct Watched {
    /// The version of its package.
    qemu: String,
    /// How the migrations of each scenario ended, as QEMU says.
    migrations: BTreeMap<String, Vec<String>>,
    /// What each process did.
    vmms: Vec<Vmm>,
    #[serde(skip)]
    recordings: Vec<Recording>,
}

/// What one process did.
#[derive(Debug, Serialize)]
struct Vmm {
    name: String,
    /// Nothing if it did not use its device.
    report: Option<Report>,
    /// What it wrote on its standard error.
    said: String,
}

impl Watched {
    /// From the lines that came out of the guest.
    pub(super) fn collect(qemu: String, part: &Part) -> Result<Self> {
        let (migrations, vmms, recordings) = (BTreeMap::new(), Vec::new(), Vec::new());
        let mut watched = Self { qemu, migrations, vmms, recordings };
        for line in &part.lines {
            let text = |key: &str| line[key].as_str().unwrap_or_default().to_owned();
            match line["event"].as_str() {
                Some("migrated") => {
                    let ended: Vec<String> = serde_json::from_value(line["migrations"].clone())?;
                    watched.migrations.insert(text("trace"), ended);
                }
                Some("watched") => watched.take(text("name"), text("said"), &line["recording"])?,
                _ => {}
            }
        }
        Ok(watched)
    }

    fn take(&mut self, name: String, said: String, recording: &Value) -> Result<()> {
        let mut report = None;
        if let Some(recording) = recording.as_str() {
            let recordings = observe::read(recording.as_bytes(), Format::Recording)?;
            report = recordings.first().map(observe::observe);
            self.recordings.extend(recordings);
        }
        self.vmms.push(Vmm { name, report, said });
        Ok(())
    }

    /// Writes the recordings to a file.
    pub(super) fn keep(&self, path: &Path) -> Result<()> {
        let fail = |error: std::io::Error| format!("{}: {error}", path.display());
        let mut file = BufWriter::new(File::create(path).map_err(fail)?);
        observe::write(&self.recordings, &mut file).map_err(fail)?;
        Ok(())
    }

    /// What was found, each once: how bad, whose, which rule; where it was; and what is expected.
    fn findings(&self) -> BTreeMap<(Severity, &'static str, Rule), (Vec<&str>, &str)> {
        let mut all = BTreeMap::<_, (Vec<&str>, &str)>::new();
        for report in self.vmms.iter().filter_map(|vmm| vmm.report.as_ref()) {
            for finding in &report.findings {
                let side = if finding.side == Side::Device { "device" } else { "VMM" };
                let key = (finding.severity, side, finding.rule);
                let (places, _) = all.entry(key).or_insert((Vec::new(), &finding.expected));
                if places.last() != Some(&report.recording.as_str()) {
                    places.push(&report.recording);
                }
            }
        }
        all
    }
}

impl fmt::Display for Watched {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let reports = self.vmms.iter().filter_map(|vmm| vmm.report.as_ref());
        let calls: usize = reports.map(|report| report.steps).sum();
        let (qemu, count) = (&self.qemu, self.recordings.len());
        writeln!(f, "watch: QEMU {qemu}; {count} recordings, {calls} calls")?;
        for (scenario, ended) in &self.migrations {
            writeln!(f, "  {scenario}: {}", ended.join(", then "))?;
        }
        for ((severity, side, rule), (places, expected)) in self.findings().into_iter().rev() {
            writeln!(
                f,
                "  {severity}: {side}: {rule}, expected {expected}: {}",
                places.join(", ")
            )?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;
    use vfio_conform::lab::Ended;

    fn part(lines: Vec<Value>) -> Part {
        let (incidents, missing) = (Vec::new(), Vec::new());
        Part { lines, incidents, missing, boots: 1, ended: Ended::Complete }
    }

    /// W11: two processes that were told the same make one line, with both their names.
    #[test]
    fn recordings_are_observed_and_equal_findings_told_once() {
        let recording = |name: &str| {
            format!(
                r#"{{"vfio-fsm-recording":1,"name":"{name}"}}
{{"op":"get_features","reply":{{"features":7}}}}
{{"op":{{"set_state":{{"to":"PRE_COPY"}}}},"reply":{{"fd":1}}}}
{{"op":{{"read":{{"fd":1,"len":9}}}},"reply":{{"end_of_stream":"permanent"}}}}
"#
            )
        };
        let line = |name: &str, recording: Option<String>| json!({"event": "watched", "name": name, "said": "a warning", "recording": recording});
        let lines = vec![
            line("w/source", Some(recording("w/source"))),
            line("w/destination-1", Some(recording("w/destination-1"))),
            line("w/destination-2", None),
            json!({"event": "migrated", "trace": "w", "migrations": ["cancelled", "completed"]}),
            json!({"event": "verdict", "index": 0, "trace": "w", "verdict": "pass", "ops": 1}),
        ];
        let watched = Watched::collect("10".into(), &part(lines)).expect("reads");
        let shown = watched.to_string();
        assert!(shown.contains("watch: QEMU 10; 2 recordings, 6 calls"), "{shown}");
        assert!(shown.contains("  w: cancelled, then completed\n"), "{shown}");
        let end = "warning: device: device-end, expected ";
        assert_eq!(shown.matches(end).count(), 1, "{shown}");
        assert!(shown.contains(": w/source, w/destination-1\n"), "{shown}");
    }

    /// W11: nothing is passed over.
    #[test]
    fn a_recording_that_cannot_be_read_is_no_silence() {
        let line = json!({"event": "watched", "name": "w", "said": "", "recording": "{}"});
        assert!(Watched::collect("10".into(), &part(vec![line])).is_err());
    }
}
