// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! A device node that speaks the alphabet.

use std::fmt;
use std::io;
#[cfg(feature = "abuse")]
use std::os::fd::BorrowedFd;
use std::os::fd::{AsRawFd, OwnedFd, RawFd};
use std::time::Duration;

use nix::sys::uio::pwrite;
use vfio_bindings::bindings::vfio::{VFIO_REGION_INFO_FLAG_WRITE, vfio_region_info};
use vfio_fsm_core::vmm::Port;
use vfio_fsm_core::{Errno, Fault, Fd, Features, Op, RawState, Reply, State};

use crate::anomaly::Anomaly;
use crate::calls::{self, Calls};
use crate::data_fds::{DataFds, Outcome, ReadCall};
use crate::error::{FreshError, TouchError, UringUnavailable};
use crate::limit::FdTableFull;
use crate::open::{Node, OpenError};
use crate::path::DevicePath;
use crate::sys::{self, errno};

const READ_LIMIT: Duration = Duration::from_secs(5);

/// An open device, and the data_fds it handed out.
///
/// Not all that can be asked of it is possible everywhere. What is not answers `EOPNOTSUPP`, and a
/// predicate tells beforehand: [`uring_available`](Self::uring_available),
/// [`touch_configured`](Self::touch_configured), [`can_fault`](Self::can_fault),
/// [`precopy_v2_available`](Self::precopy_v2_available).
pub struct KernelDevice {
    node: Node,
    features: Features,
    data_fds: DataFds,
    calls: Calls,
    /// Where in the device fd a touch goes.
    touch: Option<i64>,
    read_limit: Duration,
}

impl KernelDevice {
    /// Opens a device and reads its migration flags.
    ///
    /// A sysfs directory is opened by its group in a container of its own (type 1, version 2); a
    /// cdev is bound to an iommufd of its own. Neither maps memory for the device.
    ///
    /// # Errors
    ///
    /// When the device cannot be opened, or has no migration, or illegal flags.
    pub fn open(path: &DevicePath) -> Result<Self, OpenError> {
        Self::with_node(Node::open(path)?)
    }

    /// The device behind an fd that somebody else opened; group, container and iommufd are theirs.
    ///
    /// For a VMM that has a [`vfio_ioctls::VfioDevice`]: give a duplicate of its fd.
    ///
    /// # Errors
    ///
    /// When the device has no migration, or illegal flags.
    pub fn from_fd(device: OwnedFd) -> Result<Self, OpenError> {
        Self::with_node(Node::given(device))
    }

    fn with_node(node: Node) -> Result<Self, OpenError> {
        let device = node.fd().map_err(|errno| OpenError::Feature { errno })?;
        let flags = calls::migration_flags(device).map_err(|errno| match errno {
            Errno::ENOTTY | Errno::EINVAL => OpenError::NoMigration { errno },
            errno => OpenError::Feature { errno },
        })?;
        Ok(Self {
            features: Features::from_flags(flags)?,
            node,
            data_fds: DataFds::default(),
            calls: Calls::default(),
            touch: None,
            read_limit: READ_LIMIT,
        })
    }

    /// How to open a device of [`from_fd`](Self::from_fd) again after [`Op::Close`]. Without it,
    /// [`Op::Open`] answers `EOPNOTSUPP`. Without effect on a device opened by path.
    #[must_use]
    pub fn with_reopen(
        mut self,
        reopen: impl FnMut() -> io::Result<OwnedFd> + Send + 'static,
    ) -> Self {
        self.node.set_reopen(Box::new(reopen));
        self
    }

    /// Where [`Op::Touch`] writes its byte: a place that the device keeps and migrates.
    ///
    /// For the mtty sample that is region 0 (BAR 0), offset 7, the scratch register of its UART.
    ///
    /// # Errors
    ///
    /// When the device has no such region, or it is shorter or cannot be written.
    pub fn with_touch(mut self, region: u32, offset: u64) -> Result<Self, TouchError> {
        let no_region = |errno| TouchError::NoRegion { region, errno };
        let mut info = vfio_region_info { index: region, ..Default::default() };
        sys::region_info(self.node.fd().map_err(no_region)?, &mut info).map_err(no_region)?;
        if info.flags & VFIO_REGION_INFO_FLAG_WRITE == 0 {
            return Err(TouchError::ReadOnly { region });
        }
        let outside = TouchError::Outside { region, offset, size: info.size };
        let position = info.offset.checked_add(offset).filter(|_| offset < info.size);
        let position = position.and_then(|position| i64::try_from(position).ok());
        self.touch = Some(position.ok_or(outside)?);
        Ok(self)
    }

    /// How long a read may block, 5 s unless set; then it is `EAGAIN` and
    /// [`Anomaly::Stalled`]. [`Op::Read`] keeps to it only where the driver's data_fd can be
    /// polled: without, the kernel calls every fd ready, and a read that blocks cannot be foreseen.
    #[must_use]
    pub const fn with_read_limit(mut self, limit: Duration) -> Self {
        self.read_limit = limit;
        self
    }

    /// Another fd of the device, for another process or for a [`DevicePort`](crate::DevicePort).
    ///
    /// # Errors
    ///
    /// When the device is closed, or no fd is left.
    pub fn duplicate(&self) -> io::Result<OwnedFd> {
        let device = self.node.fd().map_err(|errno| io::Error::from_raw_os_error(errno.0))?;
        device.try_clone_to_owned()
    }

    /// The flags the device had when it was opened first.
    pub const fn features(&self) -> Features {
        self.features
    }

    /// Whether [`Op::UringRead`] can be done here.
    pub fn uring_available(&self) -> bool {
        self.uring().is_ok()
    }

    /// Why [`Op::UringRead`] cannot be done here, if so. Sets a ring up to find out.
    ///
    /// # Errors
    ///
    /// When this crate was built without io_uring, or the kernel refuses one.
    pub fn uring(&self) -> Result<(), UringUnavailable> {
        #[cfg(feature = "io-uring")]
        return sys::uring::Ring::new()
            .map(drop)
            .map_err(|errno| UringUnavailable::Refused { errno });
        #[cfg(not(feature = "io-uring"))]
        Err(UringUnavailable::NotBuilt)
    }

    /// Whether [`Op::Touch`] has a place to write to.
    pub const fn touch_configured(&self) -> bool {
        self.touch.is_some()
    }

    /// Whether this fault can be brought about: a full fd table can; a driver cannot be made to
    /// fail, nor a reset be placed inside a `SET`.
    pub const fn can_fault(&self, fault: Fault) -> bool {
        matches!(fault, Fault::FdTableFull)
    }

    /// Whether the kernel knows `VFIO_DEVICE_FEATURE_MIG_PRECOPY_INFOv2` (since Linux 7.1).
    pub fn precopy_v2_available(&self) -> bool {
        self.node.fd().is_ok_and(calls::knows_precopy_v2)
    }

    /// What the uAPI does not allow and no reply shows, in the order seen.
    pub fn anomalies(&self) -> &[Anomaly] {
        &self.calls.anomalies
    }

    /// The same, and forgets them: for the end of each trace.
    pub fn take_anomalies(&mut self) -> Vec<Anomaly> {
        std::mem::take(&mut self.calls.anomalies)
    }

    /// A device as after [`open`](Self::open): for the start of each trace.
    ///
    /// Closes every data_fd, so that the next is number 1; opens the device if it is closed; resets
    /// it, and asks whether it is in RUNNING. A device that was opted in to precopy info v2 is
    /// opened afresh, since that lasts until it is closed. Anomalies stay.
    ///
    /// # Errors
    ///
    /// When one of these steps fails. The device is then of no use before a `fresh` that succeeds.
    pub fn fresh(&mut self) -> Result<(), FreshError> {
        self.data_fds.clear();
        if self.calls.precopy_v2 {
            self.node.can_reopen()?;
            self.close();
        }
        if !self.node.is_open() {
            self.node.reopen()?;
        }
        let failed = |call| move |errno| FreshError::Failed { call, errno };
        let device = self.node.fd().map_err(failed("open"))?;
        sys::device_reset(device).map_err(failed("VFIO_DEVICE_RESET"))?;
        let state = self.calls.state(device).map_err(failed("GET of the device_state"))?;
        match state.known() {
            Some(State::Running) => Ok(()),
            _ => Err(FreshError::NotRunning { state }),
        }
    }

    /// Do one thing to the device. `buf` is where a read puts its bytes; no more than it holds are
    /// asked for.
    pub fn apply<'b>(&mut self, op: Op<&[u8]>, buf: &'b mut [u8]) -> Reply<&'b [u8]> {
        match op {
            Op::Read { fd, len } => self.read(ReadCall::Read, fd, len, buf),
            Op::Pread { fd, len } => self.read(ReadCall::Pread, fd, len, buf),
            Op::UringRead { fd, len } => self.read(ReadCall::Uring, fd, len, buf),
            op => self.answer(op).unwrap_or_else(Reply::Errno),
        }
    }

    /// Everything but the reads.
    fn answer<'b>(&mut self, op: Op<&[u8]>) -> Result<Reply<&'b [u8]>, Errno> {
        let done = |()| Reply::Ok;
        match op {
            Op::Open => self.reopen().map(done),
            Op::Close => {
                self.node.fd()?;
                self.close();
                Ok(Reply::Ok)
            }
            Op::GetFeatures => calls::migration_flags(self.node.fd()?).map(Reply::Features),
            Op::GetState => self.calls.state(self.node.fd()?).map(Reply::State),
            Op::SetState { to, fault } => self.set_state(to, fault).map(Reply::Fd),
            Op::Reset => sys::device_reset(self.node.fd()?).map(done),
            Op::DataSize => self.calls.data_size(self.node.fd()?).map(Reply::Size),
            Op::OptInPrecopyV2 => self.calls.opt_in_precopy_v2(self.node.fd()?).map(done),
            Op::Write { fd, bytes } => self.write(fd, bytes).map(Reply::Written),
            Op::Seek { fd } => self.data_fds.seek(fd).map(done),
            Op::Poll { fd } => self.data_fds.poll(fd).map(Reply::Ready),
            Op::PrecopyInfo { fd } => {
                self.calls.precopy_info(self.data_fds.get(fd)?).map(Reply::Info)
            }
            Op::FdFlags { fd } => self.data_fds.flags(fd).map(Reply::FdFlags),
            Op::CloseFd { fd } => self.data_fds.close(fd).map(done),
            Op::Touch(value) => self.touch(value).map(done),
            // In `apply`, for they alone need the buffer.
            Op::Read { .. } | Op::Pread { .. } | Op::UringRead { .. } => Err(Errno::EOPNOTSUPP),
        }
    }

    /// The device fd, for calls that are no ops.
    #[cfg(feature = "abuse")]
    pub(crate) fn device_fd(&self) -> Result<BorrowedFd<'_>, Errno> {
        self.node.fd()
    }

    /// The same of a data_fd.
    #[cfg(feature = "abuse")]
    pub(crate) fn data_fd(&self, fd: Fd) -> Result<BorrowedFd<'_>, Errno> {
        self.data_fds.get(fd)
    }

    fn reopen(&mut self) -> Result<(), Errno> {
        if self.node.is_open() {
            return Err(Errno::EBUSY);
        }
        self.node.reopen().map_err(|error| error.errno())
    }

    fn close(&mut self) {
        self.node.close();
        self.calls.precopy_v2 = false;
    }

    fn set_state(&mut self, to: RawState, fault: Option<Fault>) -> Result<Option<Fd>, Errno> {
        let device = self.node.fd()?;
        let full = match fault {
            None => None,
            Some(Fault::FdTableFull) => Some(FdTableFull::begin()?),
            Some(_) => return Err(Errno::EOPNOTSUPP),
        };
        let set = self.calls.set_state(device, to);
        drop(full);
        set?.map(|data_fd| self.install(data_fd)).transpose()
    }

    fn install(&mut self, data_fd: RawFd) -> Result<Fd, Errno> {
        // A number that is ours already would be closed twice.
        let device = self.node.fd()?.as_raw_fd();
        let ours = data_fd == device || self.data_fds.owns(data_fd);
        let fresh = if ours { None } else { sys::adopt(data_fd) };
        self.data_fds.install(fresh.ok_or_else(|| self.calls.not_a_new_fd(data_fd))?)
    }

    fn read<'b>(&mut self, call: ReadCall, fd: Fd, len: u32, buf: &'b mut [u8]) -> Reply<&'b [u8]> {
        let asked = buf.len().min(len as usize);
        let buf = &mut buf[..asked];
        let got = match self.data_fds.read(call, fd, buf, self.read_limit) {
            Ok(Outcome::Got(got)) => Ok(got),
            Ok(Outcome::Stalled) => {
                self.calls.anomalies.push(Anomaly::Stalled { fd, after: self.read_limit });
                Err(Errno::EAGAIN)
            }
            Err(errno) => Err(errno),
        };
        self.calls.have_read(got, buf)
    }

    fn write(&mut self, fd: Fd, bytes: &[u8]) -> Result<u32, Errno> {
        let taken = self.data_fds.write(fd, bytes)?;
        self.calls.have_written(bytes.len(), taken)
    }

    fn touch(&mut self, value: u8) -> Result<(), Errno> {
        let device = self.node.fd()?;
        let position = self.touch.ok_or(Errno::EOPNOTSUPP)?;
        match pwrite(device, &[value], position).map_err(errno)? {
            0 => Err(Errno::EIO),
            _ => Ok(()),
        }
    }
}

/// For sessions of the VMM's side: data_fds by their numbers.
impl Port for KernelDevice {
    type Fd = Fd;

    fn apply<'b>(&mut self, op: Op<&[u8], &Fd>, buf: &'b mut [u8]) -> Reply<&'b [u8]> {
        Self::apply(self, op.map_fd(|fd| *fd), buf)
    }
}

impl fmt::Debug for KernelDevice {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("KernelDevice")
            .field("open", &self.node.is_open())
            .field("features", &self.features)
            .field("data_fds", &self.data_fds)
            .field("anomalies", &self.calls.anomalies)
            .finish_non_exhaustive()
    }
}
