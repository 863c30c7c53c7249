// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! Reads a kernel's console: which lines say that the kernel is in trouble, and which trace was
//! under way.

use std::fmt;

/// What went wrong in the guest.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum IncidentKind {
    /// A `WARN()` of the kernel; it goes on.
    Warning,
    /// A bad memory access or another processor exception in the kernel.
    Oops,
    /// A `BUG()`, or another state the kernel knows to be impossible.
    Bug,
    /// A panic with none of the other kinds before it.
    Panic,
    /// A processor does not leave the kernel.
    SoftLockup,
    /// A processor does not even take interrupts.
    HardLockup,
    /// A task does not wake up from an uninterruptible sleep.
    HungTask,
    /// A processor or task holds up RCU.
    RcuStall,
    /// Use after free, out of bounds and the like (KASAN, KFENCE, the slab's own checks).
    Memory,
    /// A locking rule is broken (lockdep).
    Locking,
    /// The guest ran out of memory.
    OutOfMemory,
    /// No result for longer than the watchdog allows.
    Silence,
    /// The replayer ended in the middle of a trace.
    ReplayerEnded,
    /// The virtual machine ended in the middle of a trace and said nothing.
    GuestEnded,
}

impl IncidentKind {
    /// Whether results after it mean nothing, so that a fresh boot is needed.
    pub fn is_fatal(self) -> bool {
        self != Self::Warning
    }

    /// A short name, fit for reports that programs read.
    pub fn name(self) -> &'static str {
        match self {
            Self::Warning => "warning",
            Self::Oops => "oops",
            Self::Bug => "bug",
            Self::Panic => "panic",
            Self::SoftLockup => "soft-lockup",
            Self::HardLockup => "hard-lockup",
            Self::HungTask => "hung-task",
            Self::RcuStall => "rcu-stall",
            Self::Memory => "memory",
            Self::Locking => "locking",
            Self::OutOfMemory => "out-of-memory",
            Self::Silence => "silence",
            Self::ReplayerEnded => "replayer-ended",
            Self::GuestEnded => "guest-ended",
        }
    }
}

impl fmt::Display for IncidentKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// How the messages begin; the first that fits decides, so the special come before the general.
/// Only beginnings: in the middle of a message stands what others said, such as a trace's name.
const BEGINNINGS: &[(&str, IncidentKind)] = &[
    ("Kernel panic - not syncing", IncidentKind::Panic),
    ("watchdog: BUG: soft lockup", IncidentKind::SoftLockup),
    ("BUG: soft lockup", IncidentKind::SoftLockup),
    ("BUG: workqueue lockup", IncidentKind::SoftLockup),
    ("watchdog: Watchdog detected hard LOCKUP", IncidentKind::HardLockup),
    ("NMI watchdog: Watchdog detected hard LOCKUP", IncidentKind::HardLockup),
    ("Watchdog detected hard LOCKUP", IncidentKind::HardLockup),
    ("BUG: KASAN: ", IncidentKind::Memory),
    ("BUG: KFENCE: ", IncidentKind::Memory),
    ("BUG: KMSAN: ", IncidentKind::Memory),
    ("BUG: Bad page", IncidentKind::Memory),
    ("BUG: unable to handle", IncidentKind::Oops),
    ("BUG: kernel NULL pointer", IncidentKind::Oops),
    ("BUG: stack guard page", IncidentKind::Oops),
    ("BUG: TASK stack guard page", IncidentKind::Oops),
    ("Oops: ", IncidentKind::Oops),
    ("general protection fault", IncidentKind::Oops),
    ("invalid opcode: ", IncidentKind::Oops),
    ("divide error: ", IncidentKind::Oops),
    ("stack segment: ", IncidentKind::Oops),
    ("double fault: ", IncidentKind::Oops),
    ("kernel BUG at ", IncidentKind::Bug),
    ("BUG: ", IncidentKind::Bug),
    // The slab's checks, as in "BUG kmalloc-64 (Tainted: G): Poison overwritten".
    ("BUG ", IncidentKind::Memory),
    ("WARNING: possible ", IncidentKind::Locking),
    ("WARNING: inconsistent lock state", IncidentKind::Locking),
    ("WARNING: bad unlock balance", IncidentKind::Locking),
    ("WARNING: suspicious RCU usage", IncidentKind::Locking),
    ("WARNING: held lock freed", IncidentKind::Locking),
    ("WARNING: lock held when returning", IncidentKind::Locking),
    ("WARNING: Nested lock was not taken", IncidentKind::Locking),
    ("INFO: trying to register non-static key", IncidentKind::Locking),
    ("WARNING: ", IncidentKind::Warning),
    ("UBSAN: ", IncidentKind::Warning),
    ("rcu: INFO: ", IncidentKind::RcuStall),
    ("INFO: rcu_", IncidentKind::RcuStall),
    ("Out of memory", IncidentKind::OutOfMemory),
];

/// Says what kind of trouble a console line announces, if any.
pub(super) fn scan(line: &str) -> Option<IncidentKind> {
    let message = message(line)?;
    if message.starts_with("INFO: task ") && message.contains(" blocked for more than ") {
        return Some(IncidentKind::HungTask);
    }
    BEGINNINGS.iter().find(|(begin, _)| message.starts_with(begin)).map(|(_, kind)| *kind)
}

/// Index and name of the trace that a replayer's line in the kernel log says it begins.
///
/// Through the log the replayer's word and the kernel's come in the order they were spoken in,
/// which two serial ports cannot promise.
pub(super) fn marker(line: &str) -> Option<(usize, &str)> {
    let begin = message(line)?.strip_prefix("vfio-conform: begin ")?;
    let (index, name) = begin.split_once(' ')?;
    Some((index.parse().ok()?, name))
}

/// What stands behind the kernel's time stamp; a line without one is not the kernel's.
pub(super) fn message(line: &str) -> Option<&str> {
    let (stamp, mut rest) = line.trim_start_matches('\r').strip_prefix('[')?.split_once(']')?;
    stamp.trim_start().parse::<f64>().ok()?;
    rest = rest.trim_start();
    // Some kernels are configured to name the caller too: "[T17]" or "[C0]".
    if let Some((caller, message)) = rest.strip_prefix('[').and_then(|r| r.split_once(']'))
        && caller.trim_start().starts_with(['T', 'C'])
    {
        rest = message.trim_start();
    }
    Some(rest.trim_end())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_kind_of_trouble_is_seen() {
        let lines = [
            ("WARNING: CPU: 1 PID: 77 at drivers/vfio/vfio_main.c:838 f+0x1/0x2", "warning"),
            ("WARNING: drivers/vfio/vfio_main.c:838 at f+0x1/0x2, CPU#0: x/77", "warning"),
            ("UBSAN: array-index-out-of-bounds in a.c:1:2", "warning"),
            ("BUG: kernel NULL pointer dereference, address: 0000000000000008", "oops"),
            ("BUG: unable to handle page fault for address: ffff888", "oops"),
            ("Oops: 0002 [#1] PREEMPT SMP PTI", "oops"),
            ("Oops: general protection fault, probably for x: 0000 [#1]", "oops"),
            ("general protection fault, probably for non-canonical address", "oops"),
            ("kernel BUG at mm/slub.c:1234!", "bug"),
            ("BUG: sleeping function called from invalid context at a.c:1", "bug"),
            ("BUG: scheduling while atomic: x/77/0x00000002", "bug"),
            ("Kernel panic - not syncing: sysrq triggered crash", "panic"),
            ("watchdog: BUG: soft lockup - CPU#1 stuck for 9s! [x:77]", "soft-lockup"),
            ("watchdog: Watchdog detected hard LOCKUP on cpu 0", "hard-lockup"),
            ("INFO: task vfio-conform:77 blocked for more than 8 seconds.", "hung-task"),
            ("rcu: INFO: rcu_preempt detected stalls on CPUs/tasks:", "rcu-stall"),
            ("rcu: INFO: rcu_preempt self-detected stall on CPU", "rcu-stall"),
            ("BUG: KASAN: slab-use-after-free in mtty_x+0x1/0x2", "memory"),
            ("BUG: KFENCE: use-after-free read in mtty_x+0x1/0x2", "memory"),
            ("BUG kmalloc-64 (Tainted: G           OE): Poison overwritten", "memory"),
            ("WARNING: possible circular locking dependency detected", "locking"),
            ("WARNING: suspicious RCU usage", "locking"),
            ("Out of memory: Killed process 77 (vfio-conform)", "out-of-memory"),
        ];
        for (message, kind) in lines {
            for line in
                [format!("[    3.308833] {message}"), format!("[12345.678901][   T17] {message}\r")]
            {
                assert_eq!(scan(&line).map(IncidentKind::name), Some(kind), "{line}");
            }
        }
    }

    #[test]
    fn ordinary_lines_are_not_trouble() {
        let lines = [
            // Real ones of a good boot that contain the words.
            "[    0.056530] ** If you see this message and you are not debugging    **",
            "[    0.988588] PCI: Using host bridge windows from ACPI; if necessary, \
             use \"pci=nocrs\" and report a bug",
            "[    0.000000] Command line: console=ttyS0 oops=panic softlockup_panic=1",
            "[    3.229115] mtty: loading out-of-tree module taints kernel.",
            "[    3.229374] mtty: module verification failed: signature and/or required key \
             missing - tainting kernel",
            "[    0.100000] Spectre V2 : WARNING: Unprivileged eBPF is enabled",
            "[    0.200000] rcu: Hierarchical RCU implementation.",
            "[    0.300000] INFO: lockdep is turned off.",
            "[    0.400000] x86/mm: Checked W+X mappings: passed, no W+X pages found.",
            "[    3.318000] ---[ end Kernel panic - not syncing: sysrq triggered crash ]---",
            // Not the kernel's words.
            "Kernel panic - not syncing: said by a program",
            "BUG: said by a program",
            "[no stamp] BUG: said by a program",
            "",
        ];
        for line in lines {
            assert_eq!(scan(line), None, "{line}");
        }
    }

    #[test]
    fn a_trace_named_after_trouble_is_not_trouble() {
        let line = "[    4.000000] vfio-conform: begin 12 BUG: soft lockup";
        assert_eq!(marker(line), Some((12, "BUG: soft lockup")));
        assert_eq!(scan(line), None);
        assert_eq!(marker("[    4.000000] vfio-conform: begin x y"), None);
        assert_eq!(marker("vfio-conform: begin 12 not in the kernel log"), None);
    }
}
