// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! The life of a device under its users: closed, unbound from its driver or removed at any moment of a
//! session, and opened again; data_fds that are still there afterwards.
//!
//! What must hold each time: nobody hangs but the one who removes, and he only until the last user has
//! gone; every call is answered; and the device that comes back is as good as new, whatever state the
//! old one was left in. A driver that slips here takes the host with it, so all of this belongs into a
//! virtual machine.
//!
//! Only mediated devices are removed, since they can be created again at the same place.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::mpsc::{self, Receiver};
use std::thread;
use std::time::Duration;

use vfio_fsm_core::{Errno, Fd, Op, Reply, State};
use vfio_fsm_kernel::abuse::{Outcome, Slip};
use vfio_fsm_kernel::{DevicePath, FreshError, KernelDevice, OpenError, ParsePathError};

/// One thing that can happen to a device.
#[derive(Clone, Copy, Debug)]
pub struct Case {
    /// Its name in reports.
    pub name: &'static str,
    /// The requirements that a run without a slip is evidence for.
    pub covers: &'static [&'static str],
    /// Whether drivers are known that go down with it.
    pub dangerous: bool,
    run: fn(&mut Life) -> Result<(), LifetimeError>,
}

/// A case that could not be brought to its end.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum LifetimeError {
    /// The name is none.
    #[error(transparent)]
    Path(#[from] ParsePathError),
    /// The device cannot be opened.
    #[error(transparent)]
    Open(#[from] OpenError),
    /// The device is not to be had fresh.
    #[error(transparent)]
    Fresh(#[from] FreshError),
    /// A file in /sys.
    #[error("{}: {error}; run as root, on a device of the bus mdev", path.display())]
    Sysfs {
        /// Which.
        path: PathBuf,
        /// What happened.
        #[source]
        error: io::Error,
    },
}

/// Every case. Those that can bring a kernel down come last.
pub const CASES: &[Case] = &[
    Case { name: "closed", covers: &["C25", "C26"], dangerous: false, run: closed },
    Case {
        name: "reset-while-closed",
        covers: &["C36"],
        dangerous: false,
        run: reset_while_closed,
    },
    Case { name: "unbound", covers: &["G10"], dangerous: false, run: unbound },
    Case { name: "removed", covers: &["G10"], dangerous: false, run: removed },
    Case { name: "unbound-in-use", covers: &["G10"], dangerous: false, run: unbound_in_use },
    Case { name: "removed-in-use", covers: &["G10"], dangerous: false, run: removed_in_use },
    Case { name: "data-fd-outlives-device", covers: &["G11"], dangerous: false, run: outlives },
    Case {
        name: "precopy-info-outlives-device",
        covers: &["G11"],
        dangerous: true,
        run: info_outlives,
    },
];

impl Case {
    /// Let it happen to the device of this directory in /sys.
    ///
    /// # Errors
    ///
    /// When the device cannot be opened, or cannot be brought back.
    pub fn run(&self, device: &str) -> Result<Outcome, LifetimeError> {
        let mut life = Life::new(device)?;
        if self.covers.iter().any(|id| id.starts_with('G')) && !life.is_mediated() {
            life.outcome.inapplicable =
                Some("it is no mediated device, which could be created again");
            return Ok(life.outcome);
        }
        (self.run)(&mut life)?;
        Ok(life.outcome)
    }
}

/// How long someone may take who has to wait for nobody.
const PATIENCE: Duration = Duration::from_secs(10);

/// How long is waited for someone who has to wait for us.
const GLANCE: Duration = Duration::from_millis(300);

/// Every state that a SET leads to.
const STATES: [State; 7] = [
    State::Running,
    State::Stop,
    State::StopCopy,
    State::Resuming,
    State::RunningP2p,
    State::PreCopy,
    State::PreCopyP2p,
];

/// A device, and what it has been through.
struct Life {
    name: String,
    dir: PathBuf,
    outcome: Outcome,
}

impl Life {
    fn new(device: &str) -> Result<Self, LifetimeError> {
        let path: DevicePath = device.parse()?;
        let dir = PathBuf::from(path.to_string());
        Ok(Self { name: device.to_owned(), dir, outcome: Outcome::default() })
    }

    fn is_mediated(&self) -> bool {
        self.dir.join("mdev_type/create").exists() && self.dir.join("remove").exists()
    }

    fn open(&self) -> Result<KernelDevice, LifetimeError> {
        Ok(KernelDevice::open(&self.name.parse()?)?)
    }

    fn check(&mut self, right: bool, call: &str, expected: &str, seen: impl FnOnce() -> String) {
        self.outcome.calls += 1;
        if !right {
            let (call, expected) = (call.to_owned(), expected.to_owned());
            self.outcome.slips.push(Slip { call, expected, seen: seen() });
        }
    }

    /// Bring a device into this state, if it has it.
    fn go(device: &mut KernelDevice, to: State) -> Option<Reply<usize>> {
        let has = device.features().has(to);
        has.then(|| device.apply(Op::set(to), &mut []).map(<[u8]>::len))
    }

    /// Leave the device in this state, and nobody has it open; false if it has no such state.
    fn leave(&self, state: State) -> Result<bool, LifetimeError> {
        let mut device = self.open()?;
        device.fresh()?;
        Ok(Self::go(&mut device, state).is_some())
    }

    /// A device that has just come, or come back: in RUNNING, and it can be saved.
    fn is_as_new(&mut self, device: &mut KernelDevice, after: &str) {
        let state = device.apply(Op::GetState, &mut []).map(<[u8]>::len);
        let right = matches!(state, Reply::State(state) if state == State::Running.into());
        self.check(right, &format!("GET {after}"), "RUNNING", || state.to_string());
        if !right {
            // What comes next would be about the old state.
            return;
        }
        let saved = device.apply(Op::set(State::StopCopy), &mut []).map(<[u8]>::len);
        let right = matches!(saved, Reply::Fd(Some(_)));
        self.check(right, &format!("SET STOP_COPY {after}"), "a data_fd", || saved.to_string());
        device.apply(Op::set(State::Running), &mut []);
    }

    /// Open it, and see that it is as good as new.
    fn comes_back(&mut self, after: &str) -> Result<(), LifetimeError> {
        let mut device = self.open()?;
        self.is_as_new(&mut device, after);
        // Not to be held against the next.
        device.fresh()?;
        Ok(())
    }

    /// Write to a file of the device in a thread of its own, which may have to wait.
    fn write(&self, file: PathBuf, text: String) -> Receiver<Result<(), LifetimeError>> {
        let (done, finished) = mpsc::channel();
        thread::spawn(move || {
            // Nobody listens any more if it took too long.
            let _ = done.send(write(&file, &text));
        });
        finished
    }

    fn remove(&self) -> Receiver<Result<(), LifetimeError>> {
        self.write(self.dir.join("remove"), "1".to_owned())
    }

    /// Where the device is made, and under which name.
    fn maker(&self) -> Result<(PathBuf, String), LifetimeError> {
        let kind = self.dir.join("mdev_type");
        let kind = fs::canonicalize(&kind).map_err(at(&kind))?;
        let uuid = self.dir.file_name().unwrap_or_default().to_string_lossy().into_owned();
        Ok((kind.join("create"), uuid))
    }

    /// The driver's file that takes the device away, and the name that it is given by. The bus has no
    /// way to give it back: who wants it again removes the device and creates it.
    fn unbind(&self) -> Result<(PathBuf, String), LifetimeError> {
        let driver = self.dir.join("driver");
        let driver = fs::canonicalize(&driver).map_err(at(&driver))?;
        let name = self.dir.file_name().unwrap_or_default().to_string_lossy().into_owned();
        Ok((driver.join("unbind"), name))
    }

    /// Whoever removes the device is done by now.
    fn is_over(&mut self, removal: &Receiver<Result<(), LifetimeError>>, what: &str) -> bool {
        let ended = removal.recv_timeout(PATIENCE);
        let seen = match &ended {
            Ok(Ok(())) => "success".to_owned(),
            Ok(Err(error)) => error.to_string(),
            Err(_) => format!("no return in {PATIENCE:?}"),
        };
        self.check(matches!(ended, Ok(Ok(()))), what, "success", || seen);
        ended.is_ok()
    }
}

fn write(file: &Path, text: &str) -> Result<(), LifetimeError> {
    fs::write(file, text).map_err(at(file))
}

fn at(path: &Path) -> impl FnOnce(io::Error) -> LifetimeError {
    let path = path.to_owned();
    |error| LifetimeError::Sysfs { path, error }
}

/// Closed in every state and opened again, without a reset in between.
fn closed(life: &mut Life) -> Result<(), LifetimeError> {
    for state in STATES {
        if life.leave(state)? {
            life.comes_back(&format!("after a close in {state}"))?;
        }
    }
    Ok(())
}

/// Left in every state, closed, and reset through /sys before anybody opens it again: the driver takes
/// its locks while nobody has the device open.
fn reset_while_closed(life: &mut Life) -> Result<(), LifetimeError> {
    let file = life.dir.join("reset");
    if !file.exists() {
        life.outcome.inapplicable = Some("the device has no `reset` in /sys");
        return Ok(());
    }
    for state in STATES {
        if !life.leave(state)? {
            continue;
        }
        let reset = life.write(file.clone(), "1".to_owned());
        if !life.is_over(&reset, &format!("reset while closed, after {state}")) {
            return Ok(());
        }
        life.comes_back(&format!("after a reset while closed in {state}"))?;
    }
    Ok(())
}

/// Left in every state, taken from its driver, removed and created again.
fn unbound(life: &mut Life) -> Result<(), LifetimeError> {
    gone_in_each_state(life, true)
}

/// Left in every state, removed and created again.
fn removed(life: &mut Life) -> Result<(), LifetimeError> {
    gone_in_each_state(life, false)
}

fn gone_in_each_state(life: &mut Life, unbind: bool) -> Result<(), LifetimeError> {
    for state in STATES {
        if !life.leave(state)? {
            continue;
        }
        let (create, uuid) = life.maker()?;
        if unbind {
            let (file, name) = life.unbind()?;
            write(&file, &name)?;
        }
        let removal = life.remove();
        if !life.is_over(&removal, &format!("remove after {state}")) {
            return Ok(());
        }
        write(&create, &uuid)?;
        life.comes_back(&format!("after it went in {state}"))?;
    }
    Ok(())
}

/// Taken from its driver while someone saves it.
fn unbound_in_use(life: &mut Life) -> Result<(), LifetimeError> {
    let (create, uuid) = life.maker()?;
    let (unbind, name) = life.unbind()?;
    if leave_in_use(life, "unbind", |life| life.write(unbind, name))? {
        let removal = life.remove();
        if life.is_over(&removal, "remove after unbind") {
            write(&create, &uuid)?;
            life.comes_back("after it was unbound in use")?;
        }
    }
    Ok(())
}

/// Removed while someone saves it.
fn removed_in_use(life: &mut Life) -> Result<(), LifetimeError> {
    let (create, uuid) = life.maker()?;
    if leave_in_use(life, "remove", |life| life.remove())? {
        write(&create, &uuid)?;
        life.comes_back("after it was removed in use")?;
    }
    Ok(())
}

/// A session is under way when the device is taken away. Its user notices nothing, or that the device
/// has gone, and is not kept waiting; when he has left, the device goes. Says whether it has.
fn leave_in_use(
    life: &mut Life,
    what: &str,
    take: impl FnOnce(&Life) -> Receiver<Result<(), LifetimeError>>,
) -> Result<bool, LifetimeError> {
    let mut device = life.open()?;
    device.fresh()?;
    let opened = Life::go(&mut device, State::StopCopy);
    let taken = take(life);
    thread::sleep(GLANCE);
    let mut ops = vec![Op::GetState, Op::Reset, Op::set(State::StopCopy)];
    if let Some(Reply::Fd(Some(fd))) = opened {
        ops.insert(1, Op::Read { fd, len: 64 });
    }
    for op in ops {
        let call = format!("{} during {what}", op.name());
        let answer = device.apply(op, &mut [0; 64]).map(<[u8]>::len);
        let right = !matches!(answer, Reply::Errno(errno) if errno != Errno::ENODEV);
        life.check(right, &call, "an answer, or ENODEV", || answer.to_string());
    }
    drop(device);
    Ok(life.is_over(&taken, &format!("{what} behind the last user")))
}

/// A data_fd of every kind of session is kept over the removal of its device.
fn outlives(life: &mut Life) -> Result<(), LifetimeError> {
    for state in [State::StopCopy, State::Resuming, State::PreCopy] {
        let Some(mut left) = Left::behind(life, state)? else { continue };
        let fd = left.fd;
        let op = match state {
            State::Resuming => Op::Write { fd, bytes: [0; 8].as_slice() },
            _ => Op::Read { fd, len: 64 },
        };
        left.is_dead(life, op, &[Errno::ENODEV]);
        left.device_comes_back(life)?;
    }
    Ok(())
}

/// And is asked what a driver has to look up in its device.
fn info_outlives(life: &mut Life) -> Result<(), LifetimeError> {
    match Left::behind(life, State::PreCopy)? {
        Some(mut left) => {
            // Whether the session or the state is looked at first is up to the driver.
            let op = Op::PrecopyInfo { fd: left.fd };
            left.is_dead(life, op, &[Errno::ENODEV, Errno::EINVAL]);
            left.device_comes_back(life)?;
        }
        None => life.outcome.inapplicable = Some("the device has no PRE_COPY"),
    }
    Ok(())
}

/// A data_fd whose device was closed and removed.
struct Left {
    holder: KernelDevice,
    fd: Fd,
    after: String,
    /// Where the device can be made again, and under which name.
    maker: (PathBuf, String),
}

impl Left {
    /// That of a session which began with a SET of this state, if the device has it.
    fn behind(life: &mut Life, state: State) -> Result<Option<Self>, LifetimeError> {
        let mut holder = life.open()?;
        holder.fresh()?;
        let Some(Reply::Fd(Some(fd))) = Life::go(&mut holder, state) else { return Ok(None) };
        holder.apply(Op::Close, &mut []);
        let maker = life.maker()?;
        let removal = life.remove();
        if !life.is_over(&removal, &format!("remove with a data_fd of {state}")) {
            return Ok(None);
        }
        let after = format!("after the device of {state} has gone");
        Ok(Some(Self { holder, fd, after, maker }))
    }

    /// A call on it is refused.
    fn is_dead(&mut self, life: &mut Life, op: Op<&[u8]>, with: &[Errno]) {
        let call = format!("{} {}", op.name(), self.after);
        let answer = self.holder.apply(op, &mut [0; 64]).map(<[u8]>::len);
        let right = matches!(answer, Reply::Errno(errno) if with.contains(&errno));
        let expected: Vec<_> = with.iter().map(Errno::to_string).collect();
        life.check(right, &call, &expected.join(" or "), || answer.to_string());
    }

    /// The device is created again, and then its data_fd closed.
    fn device_comes_back(mut self, life: &mut Life) -> Result<(), LifetimeError> {
        let (create, uuid) = &self.maker;
        write(create, uuid)?;
        let closed = self.holder.apply(Op::CloseFd { fd: self.fd }, &mut []).map(<[u8]>::len);
        let right = matches!(closed, Reply::Ok);
        life.check(right, &format!("close {}", self.after), "success", || closed.to_string());
        life.comes_back(&self.after)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn life(dir: &Path) -> Life {
        Life { name: String::new(), dir: dir.to_owned(), outcome: Outcome::default() }
    }

    /// G10, G11: whoever removes a device and fails, or never returns, is a slip.
    #[test]
    fn a_removal_that_fails_or_hangs_is_a_slip() {
        let folder = tempfile::tempdir().expect("a folder");
        let mut life = life(folder.path());
        fs::write(folder.path().join("remove"), "").expect("writes");
        let removal = life.remove();
        assert!(life.is_over(&removal, "remove") && life.outcome.slips.is_empty());
        assert_eq!(fs::read_to_string(folder.path().join("remove")).expect("reads"), "1");

        let refused = life.write(folder.path().join("none/unbind"), "x".to_owned());
        assert!(life.is_over(&refused, "unbind"), "it has returned");
        assert!(life.outcome.slips[0].seen.contains("none/unbind"), "{:?}", life.outcome.slips);

        let (_, hanging) = mpsc::channel();
        assert!(!life.is_over(&hanging, "remove"));
        assert_eq!(life.outcome.slips[1].call, "remove");
    }

    /// G10: only what can be created again is removed.
    #[test]
    fn what_cannot_come_back_is_left_alone() {
        let folder = tempfile::tempdir().expect("a folder");
        assert!(!life(folder.path()).is_mediated());
        fs::create_dir(folder.path().join("mdev_type")).expect("creates");
        fs::write(folder.path().join("mdev_type/create"), "").expect("writes");
        assert!(!life(folder.path()).is_mediated(), "it cannot be removed");
        fs::write(folder.path().join("remove"), "").expect("writes");
        assert!(life(folder.path()).is_mediated());
    }

    /// A device that cannot be reset while it is closed says so, and is not taken for a good one.
    #[test]
    fn what_cannot_be_reset_while_closed_says_so() {
        let folder = tempfile::tempdir().expect("a folder");
        let mut life = life(folder.path());
        reset_while_closed(&mut life).expect("nothing is opened");
        assert_eq!(life.outcome.inapplicable, Some("the device has no `reset` in /sys"));
        fs::write(folder.path().join("reset"), "").expect("writes");
        assert!(reset_while_closed(&mut life).is_err(), "there is no device behind it");
    }

    /// G11: nothing is missed where a kernel goes down.
    #[test]
    fn what_is_dangerous_comes_last() {
        let first = CASES.iter().position(|case| case.dangerous).expect("one is");
        assert!(CASES[first..].iter().all(|case| case.dangerous));
    }
}
