// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! Other programs, none of which outlives this process.
//!
//! `Drop` does not run in a process that gets SIGKILL, so the kernel has to see to it, in two ways.
//! A parent-death signal is sure and reaches one process, and is asked for by [`tie`]. What that
//! process has started itself is reached by a shell that leads their process group and waits for
//! the end of a pipe that only this process can write to.

use std::io;
use std::os::unix::process::CommandExt;
use std::process::{Child, Command, Stdio};

use rustix::process::{
    Pid, Signal, getpid, getppid, kill_process_group, set_parent_process_death_signal,
};

/// Has the kernel kill a program as soon as the thread that starts it ends, however it ends.
///
/// The program stays in the caller's process group, so that it can have the terminal. What it starts
/// itself is not reached, and neither is a program that runs with more rights than its user.
pub fn tie(command: &mut Command) -> &mut Command {
    let parent = getpid();
    let ask = move || {
        set_parent_process_death_signal(Some(Signal::KILL))?;
        // We may have ended before it asked.
        if getppid() == Some(parent) { Ok(()) } else { Err(io::ErrorKind::NotFound.into()) }
    };
    #[expect(unsafe_code, reason = "only between fork and exec can a program be tied to us")]
    // SAFETY: between fork and exec the closure makes two system calls and nothing else: it takes
    // no lock and allocates nothing, also when it fails.
    unsafe {
        command.pre_exec(ask)
    }
}

/// What the leader of a group does: nothing, until we are gone. Then it kills its group, itself
/// included.
const LEADER: &str = "read -r end || kill -s KILL 0";

/// A program and all that it has started, killed together when this value is dropped or when this
/// process ends. They are a process group, so that Ctrl-C at the terminal is ours to heed.
#[derive(Debug)]
pub struct Family {
    leader: Child,
    child: Child,
}

impl Family {
    /// Starts a program.
    ///
    /// # Errors
    ///
    /// It, or a shell, cannot be started.
    pub fn start(command: &mut Command) -> io::Result<Self> {
        let mut leader = Command::new("sh");
        leader.args(["-c", LEADER]).process_group(0);
        leader.stdin(Stdio::piped()).stdout(Stdio::null()).stderr(Stdio::null());
        let mut leader = leader.spawn()?;
        // It joins the group before it becomes the program, so there is no moment without a guard.
        let group = Pid::from_child(&leader).as_raw_nonzero().get();
        match tie(command).process_group(group).spawn() {
            Ok(child) => Ok(Self { leader, child }),
            Err(error) => {
                end(&mut leader);
                Err(error)
            }
        }
    }

    /// The program itself.
    pub const fn child(&mut self) -> &mut Child {
        &mut self.child
    }

    /// Kills the program and all that it has started, as far as they are still there.
    pub fn kill(&mut self) {
        end(&mut self.leader);
        // Killed just now, or it had ended before.
        let _ = self.child.wait();
    }
}

impl Drop for Family {
    fn drop(&mut self) {
        self.kill();
    }
}

/// Kills a group by its leader, whose number is nobody else's as long as we have not waited for it.
fn end(leader: &mut Child) {
    if let Ok(None) = leader.try_wait() {
        let _ = kill_process_group(Pid::from_child(leader), Signal::KILL);
        let _ = leader.wait();
    }
}
