// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! The kernel's part, played inside this process by the core's own device.
//!
//! A binary that defines `ioctl`, `read`, … has them called in place of libc's, by every crate
//! linked into it. The ones below look whether the fd is one that the [`World`] of this thread gave
//! out; all others go on to the kernel. What is given out are ends of pipes, so that numbers,
//! duplicates, `fcntl`, `lseek` and the moment of the last close are the kernel's own. The other
//! ends stay here and tell when the user has closed his.
#![expect(unsafe_code, reason = "stands in for libc")]

use std::cell::RefCell;
use std::ffi::{CStr, c_char, c_int, c_long, c_ulong, c_void};
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd, RawFd};
use std::ptr;
use std::sync::{PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard};

use nix::libc;
use vfio_bindings::bindings::vfio::{
    VFIO_DEVICE_FEATURE_GET as GET, VFIO_DEVICE_FEATURE_MASK, VFIO_DEVICE_FEATURE_PROBE as PROBE,
    VFIO_DEVICE_FEATURE_SET as SET, VFIO_DEVICE_FLAGS_PCI, VFIO_GROUP_FLAGS_VIABLE,
    VFIO_PRECOPY_INFO_REINIT, vfio_device_bind_iommufd, vfio_device_feature_dma_logging_control,
    vfio_device_feature_mig_state, vfio_device_info, vfio_group_status, vfio_precopy_info,
    vfio_region_info,
};
use vfio_fsm_core::device::{ArcActions, ArcFailure, Device, DeviceData};
use vfio_fsm_core::{
    Arc, EndOfStream, Errno, Fault, Fd, Features, Op, PrecopyInfo, RawState, Reply, SessionEffect,
    State,
};

/// Bytes that a pre-copy and a stop-copy stream of [`Memory`] have.
pub(crate) const PRE_COPY_LEN: u32 = 4;
pub(crate) const STOP_COPY_LEN: u32 = 6;
/// Where region 0 begins in the device fd, and its length.
const REGION_0: (u64, u64) = (1 << 40, 8);

/// A device with one byte of state, of which its streams consist.
#[derive(Clone, Debug, Default)]
pub(crate) struct Memory {
    value: u8,
    to_read: u32,
    written: u32,
}

impl ArcActions for Memory {
    fn arc(&mut self, arc: Arc) -> Result<(), ArcFailure> {
        if matches!(arc.session(), SessionEffect::Opens(_)) {
            (self.to_read, self.written) = (0, 0);
            if arc.to().is_pre_copy() {
                self.to_read = PRE_COPY_LEN;
            }
        }
        match (arc.from(), arc.to()) {
            (_, State::StopCopy) => self.to_read += STOP_COPY_LEN,
            (State::Resuming, _) if self.written < STOP_COPY_LEN => {
                return Err(Errno::EINVAL.into());
            }
            _ => {}
        }
        Ok(())
    }

    fn end_session(&mut self) {}

    fn reset(&mut self) {
        self.value = 0;
    }
}

impl DeviceData for Memory {
    fn read(&mut self, buf: &mut [u8]) -> Result<usize, Errno> {
        let len = buf.len().min(self.to_read as usize);
        buf[..len].fill(self.value);
        self.to_read -= len as u32;
        Ok(len)
    }

    fn write(&mut self, bytes: &[u8]) -> Result<usize, Errno> {
        // Four at a time, so that there are short writes.
        let len = bytes.len().min(4);
        if self.written + len as u32 > STOP_COPY_LEN + PRE_COPY_LEN {
            return Err(Errno::ENOSPC);
        }
        self.value = *bytes[..len].last().unwrap_or(&self.value);
        self.written += len as u32;
        Ok(len)
    }

    fn precopy_info(&mut self) -> Result<PrecopyInfo, Errno> {
        Ok(PrecopyInfo { initial_bytes: self.to_read.into(), dirty_bytes: 0, reinit: true })
    }

    fn data_size(&mut self) -> Result<u64, Errno> {
        Ok(STOP_COPY_LEN.into())
    }

    fn readable(&self) -> bool {
        self.to_read > 0
    }

    fn touch(&mut self, value: u8) {
        self.value = value;
    }
}

pub(crate) type Model = Device<Memory, 64>;

/// What the kernel of a test does that no kernel should, or that another one does.
#[derive(Debug, Default)]
pub(crate) struct Quirks {
    /// Flags instead of the device's own.
    pub(crate) flags: Option<u64>,
    /// `VFIO_DEVICE_FEATURE` fails like this.
    pub(crate) feature: Option<i32>,
    /// `VFIO_DEVICE_RESET` fails like this.
    pub(crate) reset: Option<i32>,
    /// `VFIO_DEVICE_RESET` succeeds without doing anything.
    pub(crate) reset_does_nothing: bool,
    /// The data_fd that GET answers.
    pub(crate) data_fd_of_get: Option<i32>,
    /// The structure that a SET answers which the driver fails.
    pub(crate) failed_set: Option<(RawState, i32)>,
    /// The data_fd that SET answers, done or not.
    pub(crate) data_fd_of_set: Option<i32>,
    /// Succeed without an answer.
    pub(crate) nothing_written: bool,
    /// A read fails like this.
    pub(crate) read: Option<i32>,
    /// A write fails like this.
    pub(crate) write: Option<i32>,
    /// The next `SET` finds a reset done to the device before it returns (O4).
    pub(crate) reset_inside: bool,
    /// A read or write reports so many more bytes than there are.
    pub(crate) more: usize,
    /// Reads, writes and polls go to the pipe itself.
    pub(crate) real_io: bool,
    /// Opening this node fails like this.
    pub(crate) node: Option<(&'static str, i32)>,
    /// `VFIO_GROUP_GET_STATUS` answers this.
    pub(crate) group_flags: Option<u32>,
    /// `VFIO_GROUP_GET_DEVICE_FD` fails like this.
    pub(crate) group_device: Option<i32>,
    /// What it does not look at, or gets wrong, when it is abused.
    pub(crate) wrong: Option<Wrong>,
}

/// How a kernel can be wrong in what no op shows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Wrong {
    /// `VFIO_DEVICE_FEATURE` does not look at its argsz.
    FeatureArgsz,
    /// Nor at flags that it does not know.
    UnknownFlags,
    /// Nor at whether a feature can be SET or only GET.
    OtherWay,
    /// A PROBE is done, too.
    ProbeActs,
    /// A feature that nobody has is EINVAL.
    UnknownFeature,
    /// An answer that cannot be written is success.
    AnswerLost,
    /// DMA logging goes on when the answer cannot be written.
    LogStays,
    /// A data_fd stays behind when the answer cannot be written.
    FdStays,
    /// PRECOPY_INFO does not look at its argsz.
    InfoArgsz,
    /// PRECOPY_INFO writes flags that do not exist.
    InfoFlags,
    /// PRECOPY_INFO of bad memory is the count of bytes that were not copied (mlx5, B31).
    InfoCount,
    /// Any ioctl of a data_fd succeeds.
    AnyIoctl,
    /// Bytes that cannot be copied out are gone.
    ReadLoses,
    /// A write says that it has taken all, however long (hisi_acc, qat: B19, B20).
    WriteOverflows,
    /// A data_fd can be written at a position.
    HasPosition,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum What {
    Container,
    Group,
    Iommufd,
    /// A cdev that is not bound yet.
    Cdev,
    Device,
    Data(Fd),
}

/// A file that was given out: `ours` is the other end of the user's pipe.
#[derive(Debug)]
struct Held {
    what: What,
    inode: u64,
    ours: OwnedFd,
}

/// Everything that the kernel of one test knows.
#[derive(Debug)]
pub(crate) struct World {
    device: Model,
    /// Whether DMA logging was started.
    logs: bool,
    held: Vec<Held>,
    pub(crate) quirks: Quirks,
    /// How often `/dev/vfio/7` was opened.
    pub(crate) group_opened: u32,
    pub(crate) resets: u32,
}

thread_local! {
    static WORLD: RefCell<Option<World>> = const { RefCell::new(None) };
}

static FD_TABLE: RwLock<()> = RwLock::new(());

/// Held by every test: nobody fills the process' fd table meanwhile.
pub(crate) fn fd_table_stays_open() -> RwLockReadGuard<'static, ()> {
    FD_TABLE.read().unwrap_or_else(PoisonError::into_inner)
}

/// Held by the tests that do fill it.
pub(crate) fn fd_table_is_mine() -> RwLockWriteGuard<'static, ()> {
    FD_TABLE.write().unwrap_or_else(PoisonError::into_inner)
}

/// A world for this thread, with a device that nobody has opened.
pub(crate) fn begin(features: Features) {
    begin_with(features, 0);
}

/// The same, with this value in the device.
pub(crate) fn begin_with(features: Features, value: u8) {
    let mut device = Model::new(features, Memory { value, ..Memory::default() });
    assert_eq!(device.apply(Op::Close, &mut []), Reply::Ok);
    let world = World {
        device,
        logs: false,
        held: Vec::new(),
        quirks: Quirks::default(),
        group_opened: 0,
        resets: 0,
    };
    WORLD.with(|cell| *cell.borrow_mut() = Some(world));
}

/// The world of this thread.
pub(crate) fn world<T>(look: impl FnOnce(&mut World) -> T) -> T {
    reach(look).expect("the test began a world")
}

/// `None` in a thread without a world, and in the middle of the world's own work.
fn reach<T>(look: impl FnOnce(&mut World) -> T) -> Option<T> {
    WORLD.try_with(|cell| cell.try_borrow_mut().ok()?.as_mut().map(look)).ok().flatten()
}

impl World {
    /// An fd of the device, as if it had been opened in some way.
    pub(crate) fn open_device(&mut self) -> OwnedFd {
        let number = self.give_device().expect("there is room in the fd table");
        // SAFETY: just made, and nobody else has it.
        unsafe { OwnedFd::from_raw_fd(number) }
    }

    /// The state of the device, whoever has it open.
    pub(crate) fn state(&mut self) -> State {
        self.reap();
        self.device.fsm().state()
    }

    /// What the device's one byte is.
    pub(crate) fn value(&self) -> u8 {
        self.device.actions().value
    }

    /// The guest resets the device.
    pub(crate) fn guest_resets(&mut self) {
        assert_eq!(self.device.apply(Op::Reset, &mut []), Reply::Ok);
    }

    /// Whether anybody has the device open.
    pub(crate) fn is_open(&mut self) -> bool {
        self.reap();
        self.held.iter().any(|held| held.what == What::Device)
    }

    /// The number of data_fds that the user has not closed.
    pub(crate) fn open_data_fds(&mut self) -> usize {
        self.reap();
        self.held.iter().filter(|held| matches!(held.what, What::Data(_))).count()
    }

    /// Whether this number was given out here, and is not one of our own ends.
    pub(crate) fn is_the_users(&mut self, fd: RawFd) -> bool {
        self.what(fd).is_some() && self.held.iter().all(|held| held.ours.as_raw_fd() != fd)
    }

    /// How many of the files that were given out are set to `O_NONBLOCK`.
    pub(crate) fn non_blocking(&mut self) -> usize {
        let theirs: Vec<RawFd> = (0..256).filter(|fd| self.is_the_users(*fd)).collect();
        // SAFETY: F_GETFL takes no argument and only looks.
        let flags = |fd: RawFd| unsafe { libc::fcntl(fd, libc::F_GETFL) };
        theirs.into_iter().filter(|fd| flags(*fd) & libc::O_NONBLOCK != 0).count()
    }

    /// Puts bytes into the pipe behind the latest data_fd.
    pub(crate) fn feed(&mut self, bytes: &[u8]) {
        let latest = self.held.iter().rev().find(|held| matches!(held.what, What::Data(_)));
        let ours = latest.expect("a data_fd is open").ours.as_raw_fd();
        assert_eq!(write_for_real(ours, bytes.as_ptr().cast(), bytes.len()), bytes.len() as isize);
    }

    fn give(&mut self, what: What, user_reads: bool) -> Result<RawFd, i32> {
        let mut ends = [0; 2];
        // SAFETY: two numbers are asked for and there is room for two.
        if unsafe { libc::pipe2(ends.as_mut_ptr(), libc::O_CLOEXEC) } != 0 {
            return Err(last_errno());
        }
        let [read, write] = ends;
        let (theirs, ours) = if user_reads { (read, write) } else { (write, read) };
        let inode = inode(theirs).ok_or(libc::EIO)?;
        // SAFETY: just made, and `theirs` is not touched any more.
        let ours = unsafe { OwnedFd::from_raw_fd(ours) };
        self.held.push(Held { what, inode, ours });
        Ok(theirs)
    }

    fn give_device(&mut self) -> Result<RawFd, i32> {
        self.reap();
        let number = self.give(What::Device, false)?;
        assert_eq!(self.device.apply(Op::Open, &mut []), Reply::Ok, "one at a time");
        Ok(number)
    }

    /// Tells the device what the user has closed since.
    fn reap(&mut self) {
        let (open, closed) =
            std::mem::take(&mut self.held).into_iter().partition(|held| !other_end_closed(held));
        self.held = open;
        let closed: Vec<Held> = closed;
        for held in closed {
            match held.what {
                What::Data(fd) => drop(self.device.apply(Op::CloseFd { fd }, &mut [])),
                What::Device => drop(self.device.apply(Op::Close, &mut [])),
                _ => {}
            }
        }
    }

    fn what(&mut self, fd: RawFd) -> Option<What> {
        let inode = inode(fd)?;
        self.reap();
        self.held.iter().find(|held| held.inode == inode).map(|held| held.what)
    }

    /// The data_fd behind this number, if it is played here.
    fn played(&mut self, fd: RawFd) -> Option<Fd> {
        match self.what(fd)? {
            What::Data(fd) if !self.quirks.real_io => Some(fd),
            _ => None,
        }
    }

    fn open(&mut self, node: &str) -> Result<RawFd, i32> {
        if let Some((_, errno)) = self.quirks.node.filter(|(name, _)| *name == node) {
            return Err(errno);
        }
        match node {
            "/dev/vfio/vfio" => self.give(What::Container, false),
            "/dev/vfio/7" => {
                self.group_opened += 1;
                self.give(What::Group, false)
            }
            "/dev/vfio/devices/vfio3" => self.give(What::Cdev, false),
            "/dev/iommu" => self.give(What::Iommufd, false),
            _ => Err(libc::ENOENT),
        }
    }

    /// # Safety
    ///
    /// `argument` is what the real ioctl of that number takes.
    unsafe fn ioctl(&mut self, fd: RawFd, n: u32, argument: *mut c_void) -> Result<c_int, i32> {
        let what = self.what(fd).ok_or(libc::EBADF)?;
        match (what, n) {
            (What::Container, 0 | 2) => Ok(0),
            (What::Container, 1) => Ok(1),
            (What::Group, 3) => {
                let flags = self.quirks.group_flags.unwrap_or(VFIO_GROUP_FLAGS_VIABLE);
                // SAFETY: the caller's word.
                unsafe { (*argument.cast::<vfio_group_status>()).flags = flags };
                Ok(0)
            }
            (What::Group, 4) => Ok(0),
            (What::Group, 5) if self.is_open() => Err(libc::EBUSY),
            (What::Group, 5) => Ok(0),
            (What::Group, 6) => match self.quirks.group_device {
                Some(errno) => Err(errno),
                None => self.give_device(),
            },
            // SAFETY: the caller's word.
            (What::Cdev, 18) => unsafe { self.bind(fd, &*argument.cast()) },
            // SAFETY: the caller's word.
            (What::Device, 7) => Ok(unsafe { device_info(&mut *argument.cast()) }),
            // SAFETY: the caller's word.
            (What::Device, 8) => unsafe { region_info(&mut *argument.cast()) },
            // As mtty, for all but two of its interrupts.
            (What::Device, 9) => Err(libc::EINVAL),
            (What::Device, 11) => self.reset(),
            (What::Device, 17) => self.feature(argument),
            (What::Data(fd), 21) => self.precopy_info(fd, argument.cast()),
            (What::Data(_), _) if self.is(Wrong::AnyIoctl) => Ok(0),
            _ => Err(libc::ENOTTY),
        }
    }

    fn bind(&mut self, fd: RawFd, bind: &vfio_device_bind_iommufd) -> Result<c_int, i32> {
        if bind.flags != 0 || self.what(bind.iommufd) != Some(What::Iommufd) {
            return Err(libc::EINVAL);
        }
        let inode = inode(fd);
        let cdev = self.held.iter_mut().find(|held| Some(held.inode) == inode);
        cdev.ok_or(libc::EBADF)?.what = What::Device;
        assert_eq!(self.device.apply(Op::Open, &mut []), Reply::Ok);
        Ok(0)
    }

    fn reset(&mut self) -> Result<c_int, i32> {
        self.resets += 1;
        match self.quirks.reset {
            Some(errno) => Err(errno),
            None if self.quirks.reset_does_nothing => Ok(0),
            None => self.ask(Op::Reset).map(|_| 0),
        }
    }

    fn is(&self, wrong: Wrong) -> bool {
        self.quirks.wrong == Some(wrong)
    }

    /// As `vfio_ioctl_device_feature()` and `vfio_check_feature()` do.
    fn feature(&mut self, argument: *mut c_void) -> Result<c_int, i32> {
        let [argsz, flags] = copy_in::<[u32; 2]>(argument.cast())?;
        let payload: *mut c_void = argument.wrapping_byte_add(8);
        let (feature, call) = (flags & VFIO_DEVICE_FEATURE_MASK, flags & (GET | SET));
        let unknown = flags & !(VFIO_DEVICE_FEATURE_MASK | GET | SET | PROBE);
        let unknown = if self.is(Wrong::UnknownFlags) { 0 } else { unknown };
        let argsz = if self.is(Wrong::FeatureArgsz) { u32::MAX } else { argsz };
        if let Some(errno) = self.quirks.feature {
            return Err(errno);
        }
        if argsz < 8 || unknown != 0 || call == GET | SET && flags & PROBE == 0 {
            return Err(libc::EINVAL);
        }
        let (allowed, size) = match feature {
            1 | 9 => (GET, 8),
            2 => (GET | SET, 8),
            6 => (SET, 24),
            7 => (SET, 0),
            12 if self.device.fsm().features().pre_copy() => (SET, 0),
            _ if self.is(Wrong::UnknownFeature) => return Err(libc::EINVAL),
            _ => return Err(libc::ENOTTY),
        };
        if call & !allowed != 0 && !self.is(Wrong::OtherWay) {
            return Err(libc::EINVAL);
        }
        if flags & PROBE != 0 && !self.is(Wrong::ProbeActs) {
            return Ok(0);
        }
        if call == 0 || argsz - 8 < size {
            return Err(libc::EINVAL);
        }
        if self.quirks.nothing_written {
            return Ok(0);
        }
        match (feature, call) {
            (6, _) => self.start_logging(payload.cast()),
            (7, _) => {
                self.logs = false;
                Ok(0)
            }
            (12, _) => self.ask(Op::OptInPrecopyV2).map(|_| 0),
            (2, SET) => self.set_in(payload.cast()),
            (2, _) => {
                let state = self.get()?;
                self.answer(payload.cast(), state)
            }
            _ => {
                let number = self.number(feature)?;
                self.answer(payload.cast(), number)
            }
        }
    }

    fn answer<T>(&self, to: *mut T, value: T) -> Result<c_int, i32> {
        match copy_out(to, value) {
            Err(_) if self.is(Wrong::AnswerLost) => Ok(0),
            written => written.map(|()| 0),
        }
    }

    /// As `vfio_ioctl_device_feature_logging_start()` does, of a device that looks at no range.
    fn start_logging(
        &mut self,
        payload: *mut vfio_device_feature_dma_logging_control,
    ) -> Result<c_int, i32> {
        let control = copy_in(payload)?;
        if std::mem::replace(&mut self.logs, true) {
            return Err(libc::EBUSY);
        }
        let written = self.answer(payload, control);
        self.logs = written.is_ok() || self.is(Wrong::LogStays);
        written
    }

    /// The fd is there only when the user could be told of it.
    fn set_in(&mut self, payload: *mut vfio_device_feature_mig_state) -> Result<c_int, i32> {
        let mut state = copy_in(payload)?;
        let done = self.set(&mut state);
        let fd = state.data_fd;
        let written = self.answer(payload, state);
        if written.is_err() && done.is_ok() && fd >= 0 && !self.is(Wrong::FdStays) {
            // SAFETY: given out above, and the user does not know its number.
            drop(unsafe { OwnedFd::from_raw_fd(fd) });
        }
        written.and(done)
    }

    fn number(&mut self, feature: u32) -> Result<u64, i32> {
        let op = if feature == 1 { Op::GetFeatures } else { Op::DataSize };
        match self.ask(op)? {
            Reply::Features(flags) => Ok(self.quirks.flags.unwrap_or(flags)),
            Reply::Size(size) => Ok(size),
            other => panic!("{other:?}"),
        }
    }

    fn get(&mut self) -> Result<vfio_device_feature_mig_state, i32> {
        let Reply::State(RawState(device_state)) = self.ask(Op::GetState)? else { panic!() };
        let data_fd = self.quirks.data_fd_of_get.unwrap_or(-1);
        Ok(vfio_device_feature_mig_state { device_state, data_fd })
    }

    fn set(&mut self, state: &mut vfio_device_feature_mig_state) -> Result<c_int, i32> {
        state.data_fd = -1;
        if let Some(data_fd) = self.quirks.data_fd_of_set {
            state.data_fd = data_fd;
            return Ok(0);
        }
        let reset = std::mem::take(&mut self.quirks.reset_inside);
        let fault = reset.then_some(Fault::ResetInside);
        let set = Op::SetState { to: RawState(state.device_state), fault };
        let reply = self.ask(set).inspect_err(|_failed| {
            if let Some((RawState(device_state), data_fd)) = self.quirks.failed_set {
                *state = vfio_device_feature_mig_state { device_state, data_fd };
            }
        })?;
        if let Reply::Fd(Some(fd)) = reply {
            let reads = state.device_state != State::Resuming.number();
            // The driver has moved; whether there is room for the fd is seen only now.
            state.data_fd = self.give(What::Data(fd), reads).inspect_err(|_full| {
                let _ = self.device.apply(Op::CloseFd { fd }, &mut []);
            })?;
        }
        Ok(0)
    }

    fn precopy_info(&mut self, fd: Fd, argument: *mut vfio_precopy_info) -> Result<c_int, i32> {
        let copied = match copy_in(argument) {
            Err(_) if self.is(Wrong::InfoCount) => return Ok(24),
            copied => copied,
        };
        let mut info = copied?;
        if info.argsz < 24 && !self.is(Wrong::InfoArgsz) {
            return Err(libc::EINVAL);
        }
        let Reply::Info(left) = self.ask(Op::PrecopyInfo { fd })? else { panic!() };
        if self.quirks.nothing_written {
            return Ok(0);
        }
        if self.device.fsm().precopy_v2() {
            info.flags = if left.reinit { VFIO_PRECOPY_INFO_REINIT } else { 0 };
        }
        if self.is(Wrong::InfoFlags) {
            info.flags = 7;
        }
        (info.initial_bytes, info.dirty_bytes) = (left.initial_bytes, left.dirty_bytes);
        self.answer(argument, info)
    }

    fn ask(&mut self, op: Op<&[u8]>) -> Result<Reply<()>, i32> {
        match self.device.apply(op, &mut []) {
            Reply::Errno(errno) => Err(errno.0),
            reply => Ok(reply.map(|_| ())),
        }
    }

    /// What `read(2)` does around the driver: lengths, and whether there is memory.
    fn read_out(&mut self, fd: Fd, buf: *mut u8, len: usize) -> Result<usize, i32> {
        let mut bytes = vec![0; in_bounds(len)?];
        if let (1.., Some(errno)) = (len, copy_in(buf).and_then(|old| copy_out(buf, old)).err()) {
            if self.is(Wrong::ReadLoses) {
                self.read(fd, &mut bytes)?;
            }
            return Err(errno);
        }
        let got = self.read(fd, &mut bytes)?;
        for (at, &byte) in bytes[..got.min(len)].iter().enumerate() {
            copy_out(buf.wrapping_add(at), byte)?;
        }
        Ok(got)
    }

    /// The same around `write(2)`. As many bytes are offered as can be read.
    fn write_in(&mut self, fd: Fd, from: *const u8, len: usize) -> Result<usize, i32> {
        if self.is(Wrong::WriteOverflows) {
            return Ok(len & isize::MAX as usize);
        }
        let there = (0..in_bounds(len)?).map_while(|at| copy_in(from.wrapping_add(at)).ok());
        let bytes: Vec<u8> = there.collect();
        if bytes.is_empty() && len > 0 { Err(libc::EFAULT) } else { self.write(fd, &bytes) }
    }

    fn read(&mut self, fd: Fd, buf: &mut [u8]) -> Result<usize, i32> {
        if let Some(errno) = self.quirks.read {
            return Err(errno);
        }
        let len = buf.len() as u32;
        match self.device.apply(Op::Read { fd, len }, buf) {
            Reply::Bytes(bytes) => Ok(bytes.len() + self.quirks.more),
            Reply::EndOfStream(EndOfStream::Permanent) => Ok(0),
            Reply::EndOfStream(EndOfStream::Temporary) => Err(libc::ENOMSG),
            Reply::Errno(errno) => Err(errno.0),
            other => panic!("{other:?}"),
        }
    }

    fn write(&mut self, fd: Fd, bytes: &[u8]) -> Result<usize, i32> {
        if let Some(errno) = self.quirks.write {
            return Err(errno);
        }
        match self.device.apply(Op::Write { fd, bytes }, &mut []) {
            Reply::Written(taken) => Ok(taken as usize + self.quirks.more),
            Reply::Errno(errno) => Err(errno.0),
            other => panic!("{other:?}"),
        }
    }

    /// As mlx5: a session that is over is `POLLIN | POLLRDHUP`.
    fn poll(&mut self, fd: Fd) -> Result<i16, i32> {
        let Reply::Ready(ready) = self.ask(Op::Poll { fd })? else { panic!() };
        let set = |on, bit| if on { bit } else { 0 };
        Ok(set(ready.readable, libc::POLLIN)
            | set(ready.writable, libc::POLLOUT)
            | set(ready.hangup, libc::POLLRDHUP))
    }

    fn pwrite(&mut self, bytes: &[u8], position: u64) -> Result<usize, i32> {
        match (bytes, position.checked_sub(REGION_0.0)) {
            ([value], Some(offset)) if offset < REGION_0.1 => {
                self.ask(Op::Touch(*value)).map(|_| 1)
            }
            _ => Err(libc::EINVAL),
        }
    }
}

/// As mtty: a PCI device that does not say it can be reset.
fn device_info(info: &mut vfio_device_info) -> c_int {
    info.flags = VFIO_DEVICE_FLAGS_PCI;
    (info.num_regions, info.num_irqs) = (9, 5);
    0
}

fn region_info(info: &mut vfio_region_info) -> Result<c_int, i32> {
    const READ: u32 = 1;
    const WRITE: u32 = 2;
    let region = u64::from(info.index);
    info.flags = match info.index {
        0 => READ | WRITE,
        1 => READ,
        2 => READ | WRITE,
        _ => return Err(libc::EINVAL),
    };
    info.size = if info.index == 2 { u64::MAX } else { REGION_0.1 };
    info.offset = (region + 1) << 40;
    Ok(0)
}

fn other_end_closed(held: &Held) -> bool {
    let mut entry = libc::pollfd { fd: held.ours.as_raw_fd(), events: 0, revents: 0 };
    let at_once = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    // SAFETY: one entry is given and one is said to be there.
    unsafe { libc::ppoll(&raw mut entry, 1, &at_once, ptr::null()) > 0 }
}

fn inode(fd: RawFd) -> Option<u64> {
    // SAFETY: all zeroes are a `stat`, which is then filled in.
    let mut stat = unsafe { std::mem::zeroed::<libc::stat>() };
    // SAFETY: room for one `stat`.
    let done = unsafe { libc::fstat(fd, &raw mut stat) };
    let pipe = stat.st_mode & libc::S_IFMT == libc::S_IFIFO;
    (done == 0 && pipe).then_some(stat.st_ino)
}

/// A length as the kernel takes it, and no more than any test has.
fn in_bounds(len: usize) -> Result<usize, i32> {
    match isize::try_from(len) {
        Err(_) => Err(libc::EINVAL),
        // Longer than a process is: what `access_ok()` looks at.
        Ok(0x8000_0000_0000..) => Err(libc::EFAULT),
        Ok(_) => Ok(len.min(4096)),
    }
}

/// As `copy_from_user()`: memory that is not there is EFAULT, and no fault of this process.
fn copy_in<T: Copy>(from: *const T) -> Result<T, i32> {
    let mut value = std::mem::MaybeUninit::<T>::uninit();
    let local = libc::iovec { iov_base: value.as_mut_ptr().cast(), iov_len: size_of::<T>() };
    let remote = libc::iovec { iov_base: from.cast_mut().cast(), iov_len: size_of::<T>() };
    // SAFETY: `local` has room; `remote` is looked at by the kernel.
    let copied = unsafe { libc::process_vm_readv(libc::getpid(), &local, 1, &remote, 1, 0) };
    match usize::try_from(copied) {
        // SAFETY: all of it was filled, and what is copied here consists of integers.
        Ok(len) if len == size_of::<T>() => Ok(unsafe { value.assume_init() }),
        _ => Err(libc::EFAULT),
    }
}

/// As `copy_to_user()`.
fn copy_out<T>(to: *mut T, value: T) -> Result<(), i32> {
    let local =
        libc::iovec { iov_base: (&raw const value).cast_mut().cast(), iov_len: size_of::<T>() };
    let remote = libc::iovec { iov_base: to.cast(), iov_len: size_of::<T>() };
    // SAFETY: `local` is only read; `remote` is looked at by the kernel.
    let copied = unsafe { libc::process_vm_writev(libc::getpid(), &local, 1, &remote, 1, 0) };
    if usize::try_from(copied) == Ok(size_of::<T>()) { Ok(()) } else { Err(libc::EFAULT) }
}

fn last_errno() -> i32 {
    std::io::Error::last_os_error().raw_os_error().unwrap_or(libc::EIO)
}

fn write_for_real(fd: RawFd, bytes: *const c_void, len: usize) -> isize {
    // SAFETY: as the caller of `write` says.
    unsafe { libc::syscall(libc::SYS_write, fd, bytes, len) as isize }
}

fn returned(result: Result<impl TryInto<c_long>, i32>) -> c_long {
    result.map_or_else(
        |errno| {
            nix::errno::Errno::set_raw(errno);
            -1
        },
        |value| value.try_into().ok().expect("a length or an fd"),
    )
}

#[unsafe(no_mangle)]
extern "C" fn ioctl(fd: c_int, request: c_ulong, argument: *mut c_void) -> c_int {
    let n = (request as u32).wrapping_sub(0x3b64);
    // SAFETY: the caller of an ioctl gives it what it takes.
    let played = reach(|world| unsafe { world.ioctl(fd, n, argument) });
    match played {
        Some(result) if n < 64 => returned(result) as c_int,
        // SAFETY: as the caller says.
        _ => unsafe { libc::syscall(libc::SYS_ioctl, fd, request, argument) as c_int },
    }
}

#[unsafe(no_mangle)]
extern "C" fn read(fd: c_int, buf: *mut c_void, len: usize) -> isize {
    let played = reach(|world| world.played(fd).map(|fd| world.read_out(fd, buf.cast(), len)));
    match played.flatten() {
        Some(result) => returned(result) as isize,
        // SAFETY: as the caller says.
        None => unsafe { libc::syscall(libc::SYS_read, fd, buf, len) as isize },
    }
}

#[unsafe(no_mangle)]
extern "C" fn write(fd: c_int, bytes: *const c_void, len: usize) -> isize {
    let played = reach(|world| world.played(fd).map(|fd| world.write_in(fd, bytes.cast(), len)));
    match played.flatten() {
        Some(result) => returned(result) as isize,
        None => write_for_real(fd, bytes, len),
    }
}

#[unsafe(no_mangle)]
extern "C" fn pwrite(fd: c_int, bytes: *const c_void, len: usize, position: i64) -> isize {
    let played = reach(|world| {
        if matches!(world.what(fd)?, What::Data(_)) && world.is(Wrong::HasPosition) {
            return Some(Ok(len));
        }
        (world.what(fd)? == What::Device).then(|| {
            // SAFETY: the caller of `pwrite` has so many bytes, and here always some.
            let bytes = unsafe { std::slice::from_raw_parts(bytes.cast::<u8>(), len) };
            world.pwrite(bytes, position as u64)
        })
    });
    match played.flatten() {
        Some(result) => returned(result) as isize,
        // SAFETY: as the caller says.
        None => unsafe { libc::syscall(libc::SYS_pwrite64, fd, bytes, len, position) as isize },
    }
}

#[unsafe(no_mangle)]
extern "C" fn poll(entries: *mut libc::pollfd, count: libc::nfds_t, timeout: c_int) -> c_int {
    let played = reach(|world| {
        if count != 1 {
            return None;
        }
        // SAFETY: one entry is there.
        let entry = unsafe { &mut *entries };
        let fd = world.played(entry.fd)?;
        Some(world.poll(fd).map(|ready| {
            entry.revents = ready & entry.events;
            c_int::from(entry.revents != 0)
        }))
    });
    if let Some(result) = played.flatten() {
        return returned(result) as c_int;
    }
    let wait = libc::timespec {
        tv_sec: (timeout / 1000).into(),
        tv_nsec: (timeout % 1000 * 1_000_000).into(),
    };
    let wait = if timeout < 0 { ptr::null() } else { &raw const wait };
    // SAFETY: as the caller says.
    unsafe { libc::ppoll(entries, count, wait, ptr::null()) }
}

#[unsafe(no_mangle)]
extern "C" fn open64(path: *const c_char, flags: c_int, mode: libc::mode_t) -> c_int {
    // SAFETY: the caller of `open` gives a string.
    let name = unsafe { CStr::from_ptr(path) }.to_str().unwrap_or_default();
    let ours = name.starts_with("/dev/vfio") || name == "/dev/iommu";
    match ours.then(|| reach(|world| world.open(name))).flatten() {
        Some(result) => returned(result) as c_int,
        // SAFETY: as the caller says.
        None => unsafe {
            libc::syscall(libc::SYS_openat, libc::AT_FDCWD, path, flags, mode) as c_int
        },
    }
}
