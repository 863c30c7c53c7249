// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! One virtual machine: starts it, reads its two serial ports, and sees to it that it ends.

use std::io::{self, PipeReader, Read};
use std::os::fd::AsFd;
use std::path::Path;
use std::time::Duration;

use rustix::event::{PollFd, PollFlags, Timespec, poll};

use super::error::Error;
use super::host;
use crate::tidy::Family;

/// What a machine is made of.
#[derive(Debug, Clone, Copy)]
pub(super) struct Hardware {
    pub(super) cpus: u32,
    pub(super) memory_mib: u32,
    pub(super) kvm: bool,
    /// How long the caller waits for a result; the kernel's own watchdogs are set to bark
    /// earlier, because they can say what hangs and where.
    pub(super) silence: Duration,
}

/// A line from the guest.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Line {
    /// From the kernel's console.
    Console(String),
    /// From the results port.
    Result(String),
}

/// A running machine; dropping it pulls the plug.
pub(super) struct Vm {
    /// Held, for its end is the machine's.
    _qemu: Family,
    console: Port,
    results: Port,
}

impl Vm {
    /// Starts a machine with this kernel and initramfs.
    pub(super) fn start(
        hardware: &Hardware,
        image: &Path,
        initramfs: &Path,
    ) -> Result<Self, Error> {
        let pipe = |_| io::pipe().map_err(start_error);
        let [(console, console_end), (results, results_end)] = [pipe(0)?, pipe(1)?];
        let mut qemu = host::command("qemu-system-x86_64");
        qemu.args(arguments(hardware)).arg("-kernel").arg(image).arg("-initrd").arg(initramfs);
        // Both ports are pipes, so one thread can wait for both and sees bytes in the order
        // they were written in. The machine has no use for a standard input; its place is
        // lent to the results.
        qemu.stdin(results_end);
        qemu.stderr(console_end.try_clone().map_err(start_error)?).stdout(console_end);
        let family = Family::start(&mut qemu).map_err(start_error)?;
        // `qemu` holds our copies of the writing ends; dropped here, or the pipes never end.
        drop(qemu);
        Ok(Self { _qemu: family, console: Port::new(console), results: Port::new(results) })
    }

    /// Waits up to `timeout` for lines; nothing once the machine is off.
    pub(super) fn lines(&mut self, timeout: Duration) -> io::Result<Option<Vec<Line>>> {
        if self.console.ended && self.results.ended {
            return Ok(None);
        }
        let (console, results) = wait(&self.console, &self.results, timeout)?;
        let mut lines = Vec::new();
        // The console first: what it says happened before the verdict that follows.
        if console {
            lines.extend(self.console.read()?.into_iter().map(Line::Console));
        }
        if results {
            lines.extend(self.results.read()?.into_iter().map(Line::Result));
        }
        Ok(Some(lines))
    }
}

fn start_error(source: io::Error) -> Error {
    Error::Start { program: "qemu-system-x86_64".into(), source }
}

/// Waits for either port; says which has something (an end counts).
fn wait(console: &Port, results: &Port, timeout: Duration) -> io::Result<(bool, bool)> {
    let ports = [console, results];
    let mut waiting: Vec<PollFd<'_>> = ports
        .iter()
        .filter(|port| !port.ended)
        .map(|port| PollFd::from_borrowed_fd(port.pipe.as_fd(), PollFlags::IN))
        .collect();
    let timeout = Timespec::try_from(timeout).map_err(io::Error::other)?;
    match poll(&mut waiting, Some(&timeout)) {
        Ok(_) | Err(rustix::io::Errno::INTR) => {}
        Err(errno) => return Err(errno.into()),
    }
    let mut ready = waiting.iter().map(|fd| !fd.revents().is_empty());
    let mut take = |port: &Port| !port.ended && ready.next().unwrap_or(false);
    Ok((take(console), take(results)))
}

/// The reading end of a serial port.
struct Port {
    pipe: PipeReader,
    /// The line that is not finished yet.
    partial: Vec<u8>,
    ended: bool,
}

impl Port {
    fn new(pipe: PipeReader) -> Self {
        Self { pipe, partial: Vec::new(), ended: false }
    }

    /// Reads once, which does not block after a poll, and returns the lines now complete.
    fn read(&mut self) -> io::Result<Vec<String>> {
        let mut buffer = [0; 16 * 1024];
        let count = self.pipe.read(&mut buffer)?;
        self.ended = count == 0;
        self.partial.extend_from_slice(&buffer[..count]);
        let mut lines = Vec::new();
        while let Some(end) = self.partial.iter().position(|byte| *byte == b'\n') {
            let line: Vec<u8> = self.partial.drain(..=end).collect();
            lines.push(text(&line));
        }
        if self.ended && !self.partial.is_empty() {
            lines.push(text(&std::mem::take(&mut self.partial)));
        }
        Ok(lines)
    }
}

fn text(line: &[u8]) -> String {
    String::from_utf8_lossy(line).trim_end_matches(['\n', '\r']).to_owned()
}

fn arguments(hardware: &Hardware) -> Vec<String> {
    // A fixed processor model: results must not depend on the host's. SMEP and SMAP make a
    // driver that touches user memory by mistake fault, RDRAND saves waiting for entropy.
    let (accelerator, cpu) = match hardware.kvm {
        true => ("kvm", "host"),
        false => ("tcg,thread=multi", "qemu64,+smep,+smap,+rdrand"),
    };
    let fixed = "-nodefaults -no-user-config -no-reboot -display none -nic none -machine pc \
                 -chardev file,id=console,path=/proc/self/fd/1 -serial chardev:console \
                 -chardev file,id=results,path=/proc/self/fd/0 -serial chardev:results";
    let mut arguments: Vec<String> = fixed.split_whitespace().map(str::to_owned).collect();
    let options = [
        ("-accel", accelerator.to_owned()),
        ("-cpu", cpu.to_owned()),
        ("-smp", hardware.cpus.to_string()),
        ("-m", hardware.memory_mib.to_string()),
        ("-append", command_line(hardware.silence)),
    ];
    for (option, value) in options {
        arguments.extend([option.to_owned(), value]);
    }
    arguments
}

/// The kernel's command line: every wedge becomes a message and then a panic, and a panic ends
/// the machine.
fn command_line(silence: Duration) -> String {
    // The soft lockup detector barks after twice its threshold.
    let threshold = (silence.as_secs() / 5).max(2);
    let hung = (silence.as_secs() * 2 / 5).max(3);
    let stall = (silence.as_secs() * 3 / 5).max(4);
    format!(
        "console=ttyS0 loglevel=7 printk.time=1 printk.devkmsg=on mitigations=off \
         panic=-1 oops=panic watchdog_thresh={threshold} softlockup_panic=1 hung_task_panic=1 \
         sysctl.kernel.hung_task_timeout_secs={hung} \
         sysctl.kernel.hung_task_check_interval_secs=1 \
         rcupdate.rcu_cpu_stall_timeout={stall} sysctl.kernel.panic_on_rcu_stall=1 \
         slub_debug=FZP,kmalloc-* kfence.sample_interval=50"
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_kernel_barks_before_the_watchdog_does() {
        for seconds in [10, 20, 60] {
            let line = command_line(Duration::from_secs(seconds));
            let value = |key: &str| -> u64 {
                let word = line.split_whitespace().find_map(|word| word.strip_prefix(key));
                word.expect(key).parse().expect("a number")
            };
            assert!(2 * value("watchdog_thresh=") < seconds);
            assert!(value("sysctl.kernel.hung_task_timeout_secs=") + 2 < seconds);
            assert!(value("rcupdate.rcu_cpu_stall_timeout=") < seconds);
        }
    }

    #[test]
    fn kvm_is_used_only_when_asked_for() {
        let hardware =
            |kvm| Hardware { cpus: 2, memory_mib: 256, kvm, silence: Duration::from_secs(20) };
        assert!(!arguments(&hardware(false)).join(" ").contains("kvm"));
        assert!(arguments(&hardware(true)).join(" ").contains("-accel kvm -cpu host"));
    }

    #[test]
    fn ports_give_whole_lines_in_time_and_the_rest_at_the_end() {
        use std::io::Write;
        let (reader, mut writer) = io::pipe().expect("a pipe");
        let mut port = Port::new(reader);
        writer.write_all(b"one\r\ntw").expect("writes");
        assert_eq!(port.read().expect("reads"), ["one"]);
        writer.write_all(b"o\nthr").expect("writes");
        assert_eq!(port.read().expect("reads"), ["two"]);
        drop(writer);
        assert_eq!(port.read().expect("reads"), ["thr"]);
        assert!(port.ended);
    }
}
