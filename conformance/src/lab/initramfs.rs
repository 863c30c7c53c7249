// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! What the guest boots into: a busybox, the modules, the replayer, its traces, and a script.
//!
//! The archive is not compressed: unpacking it would cost the emulated processor more time
//! than the firmware needs to copy a few megabytes.

use std::collections::BTreeSet;
use std::fs;
use std::io::{Cursor, Write};
use std::path::Path;

use cpio::NewcBuilder;

use super::Task;
use super::error::{Error, file};
use super::module::Kernel;
use super::vmm::{GUEST_DIR, Qemu};

/// The two devices (source and destination of a migration), as the kernel names them.
const DEVICES: [&str; 2] =
    ["5e1f7e57-0000-4000-8000-000000000001", "5e1f7e57-0000-4000-8000-000000000002"];

const DIRECTORY: u32 = 0o040_755;
const PROGRAM: u32 = 0o100_755;
const DATA: u32 = 0o100_644;

/// The parts that are the same for every boot of a run.
pub(super) struct Contents {
    modules: Vec<(String, Vec<u8>)>,
    busybox: Vec<u8>,
    replayer: Vec<u8>,
    job: Job,
    /// More files, by their names in the guest.
    files: Vec<(String, Vec<u8>)>,
}

/// What the replayer is to do.
enum Job {
    /// Replay these.
    Replay(Vec<u8>),
    Migrate {
        rounds: u32,
    },
    Race {
        rounds: u32,
    },
    Abuse,
    Learn,
    Lifetime,
    Watch,
}

impl Job {
    /// The replayer's arguments, but for those that are the same for every job.
    fn arguments(&self) -> String {
        match self {
            Self::Replay(_) => {
                "replay --traces /traces.jsonl --dangerous --deviations mtty --pace \
                 --touch 0:7"
                    .to_owned()
            }
            Self::Migrate { rounds } => format!("migrate --rounds {rounds} --touch 0:7"),
            // The ends are the deviation mtty-pre-copy-end-is-permanent.
            Self::Race { rounds } => format!("race --rounds {rounds} --ends-alike"),
            Self::Abuse => "abuse --deviations mtty".to_owned(),
            Self::Learn => "learn --dangerous --deviations mtty".to_owned(),
            Self::Lifetime => "lifetime --dangerous --deviations mtty".to_owned(),
            Self::Watch => format!(
                "drive-qemu --qemu /{GUEST_DIR}/qemu-system-x86_64 --firmware /{GUEST_DIR} \
                 --recorder /{GUEST_DIR}/recorder.so \
                 --announce-reset /{GUEST_DIR}/announce-reset.so"
            ),
        }
    }
}

impl Contents {
    /// Reads the parts into memory.
    pub(super) fn read(
        kernel: &Kernel,
        replayer: &Path,
        qemu: Option<&Qemu>,
        task: &Task<'_>,
    ) -> Result<Self, Error> {
        let read = |path: &Path| fs::read(path).map_err(file("read", path));
        let name = |path: &Path| path.file_name().unwrap_or_default().to_string_lossy().into();
        let modules = kernel.modules.iter().map(|path| Ok((name(path), read(path)?)));
        let qemu = qemu.filter(|_| matches!(task, Task::Watch { .. }));
        let files = qemu.into_iter().flat_map(|qemu| &qemu.files);
        let files = files.map(|(name, path)| Ok((name.clone(), read(path)?)));
        Ok(Self {
            files: files.collect::<Result<_, Error>>()?,
            modules: modules.collect::<Result<_, Error>>()?,
            busybox: read(&kernel.busybox)?,
            replayer: read(replayer)?,
            job: match *task {
                Task::Replay { traces, .. } => Job::Replay(read(traces)?),
                Task::Migrate { rounds } => Job::Migrate { rounds },
                Task::Race { rounds } => Job::Race { rounds },
                Task::Abuse { .. } => Job::Abuse,
                Task::Learn { .. } => Job::Learn,
                Task::Lifetime { .. } => Job::Lifetime,
                Task::Watch { .. } => Job::Watch,
            },
        })
    }

    /// The initramfs of a job from its trace `from` on.
    pub(super) fn archive(&self, from: usize) -> std::io::Result<Vec<u8>> {
        let mut archive = Archive::default();
        for directory in ["bin", "dev", "proc", "sys", "modules", "tmp"] {
            archive.add(directory, DIRECTORY, &[])?;
        }
        let names: Vec<&str> = self.modules.iter().map(|(name, _)| name.as_str()).collect();
        archive.add("init", PROGRAM, init(&names, &self.job, from).as_bytes())?;
        archive.add("bin/busybox", PROGRAM, &self.busybox)?;
        archive.add("vfio-conform", PROGRAM, &self.replayer)?;
        if let Job::Replay(traces) = &self.job {
            archive.add("traces.jsonl", DATA, traces)?;
        }
        for (name, bytes) in &self.modules {
            archive.add(&format!("modules/{name}"), DATA, bytes)?;
        }
        let mut made = BTreeSet::new();
        for (name, bytes) in &self.files {
            for dir in Path::new(name).ancestors().skip(1).collect::<Vec<_>>().into_iter().rev() {
                let dir = dir.to_string_lossy();
                if !dir.is_empty() && made.insert(dir.clone().into_owned()) {
                    archive.add(&dir, DIRECTORY, &[])?;
                }
            }
            archive.add(name, PROGRAM, bytes)?;
        }
        archive.finish()
    }
}

/// An archive under construction.
#[derive(Default)]
struct Archive {
    bytes: Cursor<Vec<u8>>,
    entries: u32,
}

impl Archive {
    fn add(&mut self, name: &str, mode: u32, data: &[u8]) -> std::io::Result<()> {
        self.entries += 1;
        let size = u32::try_from(data.len()).map_err(|_| {
            std::io::Error::other(format!("{name} is larger than an archive holds"))
        })?;
        let entry = NewcBuilder::new(name).ino(self.entries).mode(mode).nlink(1);
        let mut writer = entry.write(&mut self.bytes, size);
        writer.write_all(data)?;
        writer.finish()?;
        Ok(())
    }

    fn finish(self) -> std::io::Result<Vec<u8>> {
        cpio::newc::trailer(self.bytes).map(Cursor::into_inner)
    }
}

/// The guest's first program. It speaks the lab's part of the results line protocol: `ready`,
/// or `failed` with the step, and at the end `exit` with the replayer's code.
///
/// The replayer's stderr goes to the results port too: on the console a message of its own
/// could be taken for one of the kernel's, on the results port it is simply no JSON.
fn init(modules: &[&str], job: &Job, from: usize) -> String {
    let targets: Vec<String> =
        DEVICES.iter().map(|uuid| format!("/sys/bus/mdev/devices/{uuid}")).collect();
    format!(
        r#"#!/bin/busybox sh
say() {{ echo "{{\"lab\":$1}}"; }}
must() {{
    "$@" && return
    say "\"failed\",\"step\":\"$*\""
    busybox reboot -f
}}
export PATH=/bin
/bin/busybox mount -t proc proc /proc
/bin/busybox --install -s /bin
mount -t devtmpfs devtmpfs /dev
stty -F /dev/ttyS1 raw -echo
exec </dev/null >/dev/ttyS1 2>&1
must mount -t sysfs sysfs /sys
mount -t debugfs debugfs /sys/kernel/debug
for module in {modules}; do must insmod "/modules/$module"; done
types=/sys/devices/virtual/mtty/mtty/mdev_supported_types
for uuid in {devices}; do
    echo "$uuid" >"$types/mtty-2/create"
    must test -e "/sys/bus/mdev/devices/$uuid/iommu_group"
done
say "\"ready\",\"release\":\"$(uname -r)\",\"uptime\":\"$(cut -d' ' -f1 /proc/uptime)\""
/vfio-conform {arguments} --target kernel:{targets} --from {from} --events
say "\"exit\",\"code\":$?"
reboot -f
"#,
        arguments = job.arguments(),
        modules = modules.join(" "),
        devices = DEVICES.join(" "),
        targets = targets.join(","),
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Read;

    fn contents() -> Contents {
        Contents {
            modules: vec![("vfio.ko".into(), vec![1; 5]), ("mtty.ko".into(), vec![2; 6])],
            busybox: vec![3; 7],
            replayer: vec![4; 1001],
            job: Job::Replay(b"{}\n{}\n".to_vec()),
            files: vec![("lib/a/libc.so.6".into(), vec![5; 3]), ("lib/b".into(), vec![6])],
        }
    }

    #[test]
    fn what_goes_into_the_archive_comes_out_of_it() {
        let archive = contents().archive(7).expect("archives");
        let mut rest = archive.as_slice();
        let mut found = Vec::new();
        loop {
            let mut entry = cpio::NewcReader::new(rest).expect("an entry");
            if entry.entry().is_trailer() {
                break;
            }
            let (name, mode) = (entry.entry().name().to_owned(), entry.entry().mode());
            let mut data = Vec::new();
            entry.read_to_end(&mut data).expect("its data");
            found.push((name, mode, data));
            rest = entry.finish().expect("the next entry");
        }
        let get = |name: &str| found.iter().find(|(found, ..)| found == name).expect(name);
        assert_eq!(get("vfio-conform").2, vec![4; 1001]);
        assert_eq!(get("vfio-conform").1, PROGRAM);
        assert_eq!(get("modules/mtty.ko").2, vec![2; 6]);
        assert_eq!(get("traces.jsonl").2, b"{}\n{}\n");
        assert_eq!(get("dev").1, DIRECTORY);
        assert_eq!(get("lib/a/libc.so.6").2, vec![5; 3]);
        assert_eq!(found.iter().filter(|(name, ..)| name == "lib").count(), 1);
        assert_eq!(get("init").2, init(&["vfio.ko", "mtty.ko"], &contents().job, 7).into_bytes());
        // A directory comes before what is in it, or the kernel drops the latter.
        let place = |name: &str| found.iter().position(|(found, ..)| found == name);
        assert!(place("modules") < place("modules/vfio.ko") && place("bin") < place("bin/busybox"));
        assert!(place("lib") < place("lib/a") && place("lib/a") < place("lib/a/libc.so.6"));
    }

    #[test]
    fn the_script_loads_in_order_and_starts_where_it_should() {
        let script = init(&["vfio.ko", "mtty.ko"], &contents().job, 42);
        assert!(script.contains("for module in vfio.ko mtty.ko; do"));
        assert!(script.contains(" --from 42 --events\n"));
        assert!(script.starts_with("#!/bin/busybox sh\n"));
        let targets = DEVICES.map(|uuid| format!("/sys/bus/mdev/devices/{uuid}")).join(",");
        assert!(script.contains(&format!("--target kernel:{targets} ")));
        assert!(script.contains("/vfio-conform replay --traces /traces.jsonl "));
        let script = init(&["vfio.ko", "mtty.ko"], &Job::Migrate { rounds: 9 }, 42);
        assert!(script.contains("/vfio-conform migrate --rounds 9 --touch 0:7 --target "));
        let script = init(&["vfio.ko", "mtty.ko"], &Job::Race { rounds: 9 }, 42);
        assert!(script.contains("/vfio-conform race --rounds 9 --ends-alike --target "));
        let script = init(&["vfio.ko", "mtty.ko"], &Job::Abuse, 3);
        assert!(script.contains("/vfio-conform abuse --deviations mtty --target kernel:"));
        let script = init(&["vfio.ko", "mtty.ko"], &Job::Watch, 3);
        assert!(script.contains("/vfio-conform drive-qemu --qemu /vmm/qemu-system-x86_64 "));
    }
}
