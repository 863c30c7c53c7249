// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! A device that logs its writes, and the kernel in front of it.
//!
//! This binary defines `ioctl`, which is then called in place of libc's. An fd of a [`Played`] of
//! this thread is answered here, as `vfio_main.c` and a driver would; all others go on to the
//! kernel. The device is as unhelpful as the uAPI allows: it remembers one bit for each of its
//! pages and forgets it whenever a part of the page is reported, refuses what lies outside of the
//! ranges it was given, and leaves nothing to rely on after an error.
#![expect(unsafe_code, reason = "stands in for libc")]

use std::cell::RefCell;
use std::collections::BTreeSet;
use std::ffi::{c_int, c_ulong, c_void};
use std::fs::File;
use std::os::fd::{AsRawFd, RawFd};
use std::rc::Rc;
use std::slice;

use nix::libc;
use vfio_bindings::bindings::vfio::{
    VFIO_DEVICE_FEATURE_DMA_LOGGING_REPORT as REPORT,
    VFIO_DEVICE_FEATURE_DMA_LOGGING_START as START, VFIO_DEVICE_FEATURE_DMA_LOGGING_STOP as STOP,
    VFIO_DEVICE_FEATURE_GET as GET, VFIO_DEVICE_FEATURE_MASK, VFIO_DEVICE_FEATURE_PROBE as PROBE,
    VFIO_DEVICE_FEATURE_SET as SET, vfio_device_feature_dma_logging_control,
    vfio_device_feature_dma_logging_range, vfio_device_feature_dma_logging_report,
};
use vfio_fsm_kernel::dma_logging::IovaRange;

use crate::vfio_device;

/// Pages that a REPORT may be asked for: what bounds the memory of a user.
const MOST_PAGES: u64 = 1 << 19;

/// The beginning and the end of each.
type Ranges = Vec<(u64, u64)>;

#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Call {
    Probe(u32),
    Start { page_size: u64, ranges: usize },
    Stop,
    Report { iova: u64, length: u64, page_size: u64 },
}

struct Log {
    page_size: u64,
    ranges: Ranges,
    /// Where each page begins that was written.
    dirty: BTreeSet<u64>,
}

pub(crate) struct Device {
    /// `-ENOTTY`: the driver has no `log_ops`.
    pub(crate) no_logging: bool,
    /// `-EOPNOTSUPP`: the kernel has no iova_bitmap.
    pub(crate) no_bitmaps: bool,
    /// The device's page, at least; a power of two.
    pub(crate) least_page_size: u64,
    /// Chosen whatever was asked for.
    pub(crate) page_size: Option<u64>,
    /// It has so many ranges, and says this of more.
    pub(crate) ranges: (usize, i32),
    /// After so many calls more, one fails like this.
    pub(crate) fault: Option<(usize, i32)>,
    pub(crate) calls: Vec<Call>,
    log: Option<Log>,
    /// What the user did that no user should.
    pub(crate) complaints: Vec<String>,
}

impl Device {
    /// The device writes a byte.
    pub(crate) fn write(&mut self, iova: u64) {
        let Some(log) = &mut self.log else { return };
        if log.ranges.iter().any(|(start, end)| (*start..*end).contains(&iova)) {
            log.dirty.insert(iova - iova % log.page_size);
        }
    }

    pub(crate) fn is_logging(&self) -> bool {
        self.log.is_some()
    }

    /// How many calls of this kind there were.
    pub(crate) fn count(&self, kind: impl Fn(&Call) -> bool) -> usize {
        self.calls.iter().filter(|call| kind(call)).count()
    }

    /// As `vfio_ioctl_device_feature()`.
    ///
    /// # Safety
    ///
    /// `argument` is a `struct vfio_device_feature` of the size in its argsz.
    unsafe fn feature(&mut self, argument: *mut c_void) -> Result<(), i32> {
        // SAFETY: the caller's word.
        let [argsz, flags] = unsafe { *argument.cast::<[u32; 2]>() };
        // SAFETY: where the payload begins, if there is one.
        let payload = unsafe { argument.byte_add(8) };
        let (feature, call) = (flags & VFIO_DEVICE_FEATURE_MASK, flags & (GET | SET));
        let (allowed, size) = match feature {
            START => (SET, 24),
            STOP => (SET, 0),
            REPORT => (GET, 32),
            _ => return Err(libc::ENOTTY),
        };
        if self.no_logging {
            return Err(libc::ENOTTY);
        }
        if call & !allowed != 0 {
            return Err(libc::EINVAL);
        }
        if flags & PROBE != 0 {
            self.calls.push(Call::Probe(feature));
            return self.fails();
        }
        if call == 0 || argsz - 8 < size {
            return Err(libc::EINVAL);
        }
        match feature {
            // SAFETY: argsz was long enough; there are as many ranges as it says.
            START => unsafe { self.start(&mut *payload.cast()) },
            STOP => self.stop(),
            // SAFETY: argsz was long enough; the bitmap is as long as it must be.
            _ => unsafe { self.report(&*payload.cast()) },
        }
    }

    fn fails(&mut self) -> Result<(), i32> {
        match &mut self.fault {
            Some((0, errno)) => {
                let errno = *errno;
                self.fault = None;
                Err(errno)
            }
            Some((left, _)) => {
                *left -= 1;
                Ok(())
            }
            None => Ok(()),
        }
    }

    /// # Safety
    ///
    /// There are `num_ranges` at `ranges`.
    unsafe fn start(
        &mut self,
        control: &mut vfio_device_feature_dma_logging_control,
    ) -> Result<(), i32> {
        let count = control.num_ranges as usize;
        self.calls.push(Call::Start { page_size: control.page_size, ranges: count });
        self.fails()?;
        if count == 0 || control.__reserved != 0 {
            return Err(libc::EINVAL);
        }
        if count > 4096 / 16 {
            return Err(libc::E2BIG);
        }
        // SAFETY: the caller's word.
        let given = unsafe {
            slice::from_raw_parts(
                control.ranges as *const vfio_device_feature_dma_logging_range,
                count,
            )
        };
        let mut ranges = Ranges::new();
        for range in given {
            if (range.iova | range.length) & (control.page_size - 1) != 0 {
                return Err(libc::EINVAL);
            }
            let end = range.iova.checked_add(range.length).ok_or(libc::EOVERFLOW)?;
            if ranges.iter().any(|(start, before)| range.iova < *before && *start < end) {
                return Err(libc::EINVAL);
            }
            ranges.push((range.iova, end));
        }
        if self.log.is_some() {
            self.complaints.push("START without a STOP since the last".to_owned());
            return Err(libc::EINVAL);
        }
        if count > self.ranges.0 {
            return Err(self.ranges.1);
        }
        control.page_size = self.page_size.unwrap_or(control.page_size.max(self.least_page_size));
        self.log = Some(Log { page_size: control.page_size, ranges, dirty: BTreeSet::new() });
        Ok(())
    }

    fn stop(&mut self) -> Result<(), i32> {
        self.calls.push(Call::Stop);
        self.fails()?;
        if self.log.take().is_none() {
            self.complaints.push("STOP without a START".to_owned());
        }
        Ok(())
    }

    /// # Safety
    ///
    /// There is room for as many bits as are asked for at `bitmap`.
    unsafe fn report(&mut self, asked: &vfio_device_feature_dma_logging_report) -> Result<(), i32> {
        let (iova, length, page_size) = (asked.iova, asked.length, asked.page_size);
        self.calls.push(Call::Report { iova, length, page_size });
        if page_size < 4096 || !page_size.is_power_of_two() {
            return Err(libc::EINVAL);
        }
        let end = iova.checked_add(length).ok_or(libc::EOVERFLOW)?;
        if self.no_bitmaps {
            return Err(libc::EOPNOTSUPP);
        }
        let pages = length.div_ceil(page_size);
        let words = pages.div_ceil(64) as usize;
        // SAFETY: the caller's word.
        let bitmap = unsafe { slice::from_raw_parts_mut(asked.bitmap as *mut u64, words) };
        self.complain_about(asked, bitmap);
        if let Err(errno) = self.fails() {
            // Something of it was read, and all of it is gone.
            bitmap.iter_mut().step_by(2).for_each(|word| *word = 0x5555);
            self.log.iter_mut().for_each(|log| log.dirty.clear());
            return Err(errno);
        }
        let log = self.log.as_mut().ok_or(libc::EINVAL)?;
        if !log.ranges.iter().any(|(start, last)| *start <= iova && end <= *last) {
            return Err(libc::EINVAL);
        }
        let touched: Vec<u64> =
            log.dirty.range(iova - iova % log.page_size..end).copied().collect();
        for page in touched {
            log.dirty.remove(&page);
            let (first, last) = (page.max(iova), (page + log.page_size).min(end) - 1);
            for bit in (first - iova) / page_size..=(last - iova) / page_size {
                bitmap[(bit / 64) as usize] |= 1 << (bit % 64);
            }
        }
        Ok(())
    }

    fn complain_about(&mut self, asked: &vfio_device_feature_dma_logging_report, bitmap: &[u64]) {
        if asked.length == 0 || asked.length.div_ceil(asked.page_size) > MOST_PAGES {
            self.complaints.push(format!("REPORT of {:#x} bytes", asked.length));
        }
        if bitmap.iter().any(|word| *word != 0) {
            self.complaints.push("REPORT into bits of an earlier one".to_owned());
        }
        if !asked.bitmap.is_multiple_of(4096) {
            self.complaints.push("REPORT into the middle of a page".to_owned());
        }
    }
}

/// A [`Device`] and an fd of it.
pub(crate) struct Played {
    number: RawFd,
    /// Unless somebody else has it.
    file: Option<File>,
    device: Rc<RefCell<Device>>,
}

thread_local! {
    static PLAYED: RefCell<Vec<(RawFd, Rc<RefCell<Device>>)>> = const { RefCell::new(Vec::new()) };
}

impl Played {
    /// A device that logs as finely as it is asked to.
    pub(crate) fn new() -> Self {
        let file = File::open("/dev/null").unwrap();
        let mut played = Self::of(&file);
        played.file = Some(file);
        played
    }

    /// The same, behind an fd that is open for as long as this lives.
    pub(crate) fn of(fd: &impl AsRawFd) -> Self {
        let device = Rc::new(RefCell::new(Device {
            no_logging: false,
            no_bitmaps: false,
            least_page_size: 4096,
            page_size: None,
            ranges: (256, libc::E2BIG),
            fault: None,
            calls: Vec::new(),
            log: None,
            complaints: Vec::new(),
        }));
        let number = fd.as_raw_fd();
        PLAYED.with_borrow_mut(|played| played.push((number, Rc::clone(&device))));
        Self { number, file: None, device }
    }

    /// Whatever this thread has to do with the device, it has not it borrowed meanwhile.
    pub(crate) fn device<T>(&self, look: impl FnOnce(&mut Device) -> T) -> T {
        look(&mut self.device.borrow_mut())
    }

    pub(crate) fn write(&self, iova: u64) {
        self.device(|device| device.write(iova));
    }
}

impl AsRawFd for Played {
    fn as_raw_fd(&self) -> RawFd {
        self.number
    }
}

impl Drop for Played {
    fn drop(&mut self) {
        PLAYED.with_borrow_mut(|played| played.retain(|(fd, _)| *fd != self.number));
        let complaints = self.device(|device| std::mem::take(&mut device.complaints));
        if !std::thread::panicking() {
            assert_eq!(complaints, [""; 0]);
        }
    }
}

pub(crate) const fn range(iova: u64, length: u64) -> IovaRange {
    IovaRange { iova, length }
}

/// What a report tells of: the result, and the runs.
pub(crate) fn told<T>(report: impl FnOnce(&mut dyn FnMut(IovaRange)) -> T) -> (T, Vec<IovaRange>) {
    let mut runs = Vec::new();
    let result = report(&mut |run| runs.push(run));
    (result, runs)
}

#[unsafe(no_mangle)]
extern "C" fn ioctl(fd: c_int, request: c_ulong, argument: *mut c_void) -> c_int {
    const DEVICE_FEATURE: c_ulong = 0x3b75;
    let find = |played: &Vec<(RawFd, Rc<RefCell<Device>>)>| {
        played.iter().find(|(number, _)| *number == fd).map(|(_, device)| Rc::clone(device))
    };
    let device = PLAYED.try_with(|played| find(&played.borrow())).ok().flatten();
    let played = match device.filter(|_| request == DEVICE_FEATURE) {
        // SAFETY: the caller of the ioctl gives it what it takes.
        Some(device) => Some(unsafe { device.borrow_mut().feature(argument) }.map(|()| 0)),
        // SAFETY: as before.
        None => unsafe { vfio_device::ioctl(request, argument) },
    };
    let Some(result) = played else {
        // SAFETY: as before.
        return unsafe { libc::syscall(libc::SYS_ioctl, fd, request, argument) as c_int };
    };
    match result {
        Ok(number) => number,
        Err(errno) => {
            nix::errno::Errno::set_raw(errno);
            -1
        }
    }
}
