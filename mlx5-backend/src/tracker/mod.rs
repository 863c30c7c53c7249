// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! Which memory a virtual function writes: DMA logging by the firmware's page tracker.
//!
//! * [`Limits`]: what the firmware can track.
//! * [`PageTracker`]: a log that is being kept, from its start to its stop.
//! * [`mark_guest_memory`]: from there into the bitmaps of vm-memory.
//!
//! The tracker is a general object of the firmware's, PAGE_TRACK, that sends what was written to a
//! queue pair of the host's, as messages: so a completion queue, two queue pairs and the buffers of
//! the messages are made for each tracker, and taken back with it.
//!
//! ```no_run
//! use std::sync::Arc;
//! use vfio_fsm_mlx5::bar::Registers;
//! use vfio_fsm_mlx5::queue::Hca;
//! use vfio_fsm_mlx5::tracker::{IovaRange, Options, PageTracker, Target, mark_guest_memory};
//! use vm_memory::GuestMemoryMmap;
//!
//! # fn f<R: Registers>(hca: Arc<Hca<R>>, memory: &GuestMemoryMmap, vhca_id: u16)
//! # -> Result<(), Box<dyn std::error::Error>> {
//! let ram = [IovaRange { iova: 0, length: 3 << 30 }];
//! let event_queue = hca.event_queue().ok_or("the function is not up")?;
//! let target = Target { vhca_id, event_queue };
//! let mut tracker = PageTracker::start(hca, target, &ram, Options::default())?;
//! // In every pass over the memory, and once more when the device is in STOP:
//! tracker.report_all(|run| mark_guest_memory(memory, run))?;
//! tracker.stop()?;
//! # Ok(())
//! # }
//! ```
//!
//! # No page is lost
//!
//! The rules are those of the kernel's logging as [`vfio-fsm-kernel`'s dma_logging] keeps them: more
//! may be tracked than was asked for, but never less; a dirty page is dirty in all of the
//! tracker's page; and when a report fails, no matter how, everything is told as dirty before the
//! error is returned, and the log stays [`Corrupt`](ReportError::Corrupt) until it is
//! [restarted](PageTracker::restart) (R48).
//!
//! # A tracker that says nothing
//!
//! The firmware may put a tracker into its error state by itself, and a driver that waits for a
//! message then waits for ever (kernel commit f886473071d6). The event that tells of it,
//! OBJECT_CHANGE, is not relied on: whoever waits asks for the tracker's state again and again, and
//! gives up after [`Options::message_timeout`]. Events that the owner of the queue comes by may be
//! [told](PageTracker::notice), so that a tracker which nobody is reading is known to have failed.
//!
//! A reset of the function does not end a tracker.
//!
//! [`vfio-fsm-kernel`'s dma_logging]: https://docs.rs/vfio-fsm-kernel

mod error;
mod guest_memory;
mod limits;
mod ranges;
mod reports;
mod resources;

use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::command::{CommandError, Commands};
use crate::layout::{AffiliatedEventHeader, EventType, ObjectType, PageTrackState};
use crate::queue::{Backoff, Event};

pub use error::{ReportError, StartError, StopError};
pub use guest_memory::mark_guest_memory;
pub use limits::Limits;
pub use ranges::{IovaRange, MIN_PAGE_SIZE, RangesError};

use limits::Shape;
use reports::{Layout, Message, Reports};
use resources::Resources;

/// How often a tracker is asked for its state while a message does not come.
const ASK_EVERY: Duration = Duration::from_millis(10);
/// Bytes of an entry of a report.
const ENTRY: u64 = 8;

/// Whose writes are tracked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Target {
    /// The function: [`Vhca::vhca_id`](crate::vhca::Vhca::vhca_id).
    pub vhca_id: u16,
    /// The event queue that completions belong to; nothing is read from it here:
    /// [`Hca::event_queue`](crate::queue::Hca::event_queue).
    pub event_queue: u8,
}

/// How it is tracked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Options {
    /// How much memory one bit is to stand for, in bytes: a hint (R41), and a power of two of at
    /// least 4096 that all ranges are multiples of.
    pub page_size: u64,
    /// How long a message is to be, in bytes: a hint. `None`: as long as the firmware can, up to
    /// 1 MiB.
    pub message_bytes: Option<u64>,
    /// How long is waited for a message.
    pub message_timeout: Duration,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            page_size: MIN_PAGE_SIZE,
            message_bytes: None,
            message_timeout: Duration::from_secs(60),
        }
    }
}

/// A log of the memory that a function writes. Dropping it stops it, too.
pub struct PageTracker<C: Commands> {
    commands: Arc<C>,
    target: Target,
    options: Options,
    ranges: Vec<IovaRange>,
    tracking: Option<Tracking<C>>,
    /// Said by an event.
    failed: Option<ReportError>,
    corrupt: bool,
}

/// What a start came to.
struct Tracking<C: Commands> {
    resources: Resources<C>,
    reports: Reports,
    shape: Shape,
    logged: Vec<IovaRange>,
    object: u32,
    cqn: u32,
    qps: [u32; 2],
}

impl<C: Commands> PageTracker<C> {
    /// Begins to track what the function writes into `ranges`: RAM, as the device addresses it, in
    /// any order.
    ///
    /// Neighbours are given to the firmware as one range. If there are more than it takes, those
    /// with the smallest gaps between them are, too, and the gaps are tracked in vain;
    /// [`logged`](Self::logged) says what it came to.
    ///
    /// # Errors
    ///
    /// When the ranges cannot be tracked, or a command fails; nothing is left then that could be
    /// given back.
    pub fn start(
        commands: Arc<C>,
        target: Target,
        ranges: &[IovaRange],
        options: Options,
    ) -> Result<Self, StartError> {
        let ranges = ranges::joined(ranges, options.page_size)?;
        let tracking = Some(Tracking::start(&commands, target, &ranges, options)?);
        Ok(Self { commands, target, options, ranges, tracking, failed: None, corrupt: false })
    }

    /// How much memory one report stands for, in bytes; 0 after a restart that failed.
    pub fn page_size(&self) -> u64 {
        self.tracking.as_ref().map_or(0, |tracking| tracking.shape.page_size())
    }

    /// How long a message may be, in bytes; 0 after a restart that failed.
    pub fn message_bytes(&self) -> usize {
        self.tracking.as_ref().map_or(0, |tracking| tracking.shape.message_bytes())
    }

    /// What was asked to be tracked, in order, neighbours as one.
    pub fn ranges(&self) -> &[IovaRange] {
        &self.ranges
    }

    /// What the firmware was given: as many ranges as it takes, with all of
    /// [`ranges`](Self::ranges).
    pub fn logged(&self) -> &[IovaRange] {
        self.tracking.as_ref().map_or(&[], |tracking| &tracking.logged)
    }

    /// Calls `dirty` with all that was written in `range` since it was last reported, or since the
    /// start, in runs; the log of the range is cleared (R45).
    ///
    /// `dirty` may be told of memory next to `range`, where a page of the tracker's reaches out of
    /// it, but of none outside of [`ranges`](Self::ranges).
    ///
    /// # Errors
    ///
    /// When `range` is not in one of [`ranges`](Self::ranges), before the firmware is asked. When
    /// anything fails now or did before, after `dirty` was called with all of
    /// [`ranges`](Self::ranges) (R48).
    pub fn report(
        &mut self,
        range: IovaRange,
        dirty: impl FnMut(IovaRange),
    ) -> Result<(), ReportError> {
        if !self.ranges.iter().any(|whole| whole.contains(range)) {
            return Err(ReportError::NotTracked { range });
        }
        self.report_or_all(&[range], dirty)
    }

    /// The same for all [`ranges`](Self::ranges).
    ///
    /// # Errors
    ///
    /// When anything fails now or did before, after `dirty` was called with all of
    /// [`ranges`](Self::ranges) (R48).
    pub fn report_all(&mut self, dirty: impl FnMut(IovaRange)) -> Result<(), ReportError> {
        let ranges = self.ranges.clone();
        self.report_or_all(&ranges, dirty)
    }

    fn report_or_all(
        &mut self,
        ranges: &[IovaRange],
        mut dirty: impl FnMut(IovaRange),
    ) -> Result<(), ReportError> {
        let result = self.read_and_clear(ranges, &mut dirty);
        if result.is_err() {
            self.corrupt = true;
            self.ranges.iter().copied().for_each(dirty);
        }
        result
    }

    fn read_and_clear(
        &mut self,
        ranges: &[IovaRange],
        mut dirty: impl FnMut(IovaRange),
    ) -> Result<(), ReportError> {
        if let Some(failed) = self.failed.take() {
            return Err(failed);
        }
        let tracking = self.tracking.as_mut().filter(|_| !self.corrupt);
        let tracking = tracking.ok_or(ReportError::Corrupt)?;
        let page_size = tracking.shape.page_size();
        for range in ranges {
            let range = range.whole_pages(page_size);
            let logged = tracking.logged.clone();
            for piece in logged.iter().filter_map(|logged| logged.intersection(range)) {
                tracking.report(piece, self.options.message_timeout, |run| {
                    // A page that reaches out of what was asked for is told where it is wanted.
                    self.ranges
                        .iter()
                        .filter_map(|range| range.intersection(run))
                        .for_each(&mut dirty);
                })?;
            }
        }
        Ok(())
    }

    /// Tells the log of an event. Whether it is about this tracker: then it has failed, and the
    /// next report says so.
    pub fn notice(&mut self, event: &Event) -> bool {
        let failed = self.tracking.as_ref().and_then(|tracking| tracking.failure(event));
        self.failed = failed.or(self.failed);
        failed.is_some()
    }

    /// Gives the tracker up and begins another, for a log that is corrupt. Nothing was tracked
    /// between, so `dirty` is called with all of [`ranges`](Self::ranges), when the log is on
    /// again.
    ///
    /// # Errors
    ///
    /// When it does not end or does not begin. `dirty` was called, and the log stays corrupt.
    pub fn restart(&mut self, dirty: impl FnMut(IovaRange)) -> Result<(), StartError> {
        self.corrupt = true;
        let started = self.start_again();
        self.ranges.iter().copied().for_each(dirty);
        self.tracking = Some(started?);
        (self.corrupt, self.failed) = (false, None);
        Ok(())
    }

    fn start_again(&mut self) -> Result<Tracking<C>, StartError> {
        if let Some(mut tracking) = self.tracking.take() {
            tracking.resources.give_back()?;
        }
        Tracking::start(&self.commands, self.target, &self.ranges, self.options)
    }

    /// Ends it. What was not reported is lost, so the last report comes before.
    ///
    /// # Errors
    ///
    /// When the firmware does not take everything back.
    pub fn stop(mut self) -> Result<(), StopError> {
        self.tracking.take().map_or(Ok(()), |mut tracking| tracking.resources.give_back())
    }
}

impl<C: Commands> Tracking<C> {
    /// In the order of the kernel's driver. What was made is given back when anything fails.
    fn start(
        commands: &Arc<C>,
        target: Target,
        ranges: &[IovaRange],
        options: Options,
    ) -> Result<Self, StartError> {
        let limits = Limits::of(&**commands)?;
        let logged = ranges::merged(ranges, limits.ranges.into());
        let shape = limits.choose(&logged, options.page_size, options.message_bytes)?;
        let mut resources = Resources::new(commands.clone());
        let bytes = Layout::new(shape, 0).bytes();
        let queues = resources.keep(commands.dma().allocate(bytes)?);
        let messages = shape.message_bytes() << shape.log_messages;
        let messages = resources.keep(commands.dma().allocate(messages)?);
        let layout = Layout::new(shape, queues.iova());

        let uar = resources.uar()?;
        let pd = resources.pd()?;
        let mut reports = Reports::new(queues, messages.clone(), layout)?;
        let cqn = resources.cq(uar, target.event_queue, &layout)?;
        let host_qp = resources.qp((uar, pd, cqn), &limits, Some(&layout))?;
        let key = resources.mkey(pd, &messages)?;
        let fw_qp = resources.qp((uar, pd, cqn), &limits, None)?;
        reports.post_all(key)?;
        resources.connect(host_qp, fw_qp, &limits)?;
        resources.connect(fw_qp, host_qp, &limits)?;
        resources.send(fw_qp)?;
        let object = resources.object(target.vhca_id, fw_qp, shape, &logged)?;
        let qps = [host_qp, fw_qp];
        Ok(Self { resources, reports, shape, logged, object, cqn, qps })
    }

    /// Has the firmware report a part of what is tracked, and takes the messages until the last.
    fn report(
        &mut self,
        range: IovaRange,
        timeout: Duration,
        mut dirty: impl FnMut(IovaRange),
    ) -> Result<(), ReportError> {
        if let Err(error) = self.resources.modify(self.object, range) {
            return Err(self.why(error));
        }
        // No page can be told twice, so this ends, whatever the firmware sends.
        let mut left = range.whole_pages(self.shape.page_size()).length >> self.shape.log_page;
        loop {
            let message = self.wait(range, timeout)?;
            left = self.check(&message, range, left)?;
            let pages = self.reports.pages(&message)?;
            self.reports.done(&message)?;
            self.tell(range, pages, &mut dirty)?;
            if message.state == PageTrackState::Tracking {
                return Ok(());
            }
        }
    }

    /// Why a tracker does not report: what it is in matters more than what the command said.
    fn why(&self, error: CommandError) -> ReportError {
        match self.resources.state(self.object) {
            Ok(PageTrackState::Error) => ReportError::ErrorState,
            _ => ReportError::Command(error),
        }
    }

    fn wait(&mut self, range: IovaRange, after: Duration) -> Result<Message, ReportError> {
        let begun = Instant::now();
        let mut asked = begun;
        let mut backoff = Backoff::new();
        loop {
            // Before the look: so there is one more when the time is over.
            let late = begun.elapsed() >= after;
            if let Some(message) = self.reports.next()? {
                return Ok(message);
            }
            if late {
                return Err(ReportError::Timeout { range, after });
            }
            if let Some(pause) = backoff.pause() {
                std::thread::sleep(pause);
            }
            if asked.elapsed() >= ASK_EVERY {
                asked = Instant::now();
                if self.resources.state(self.object)? == PageTrackState::Error {
                    return Err(ReportError::ErrorState);
                }
            }
        }
    }

    /// Whether a message can be. How many pages may still be told behind it.
    fn check(&self, message: &Message, range: IovaRange, left: u64) -> Result<u64, ReportError> {
        let (bytes, state) = (u64::from(message.bytes), message.state);
        let most = (self.shape.message_bytes() as u64).min(left.saturating_mul(ENTRY));
        let possible = match state {
            PageTrackState::Tracking => true,
            // There is more, and yet nothing of it.
            PageTrackState::Reporting => bytes > 0,
            PageTrackState::Error => return Err(ReportError::ErrorState),
            PageTrackState::Other(_) => false,
        };
        if !possible || bytes > most || !bytes.is_multiple_of(ENTRY) {
            let (bytes, state) = (message.bytes, state.into());
            return Err(ReportError::Message { range, bytes, most, state });
        }
        Ok(left - bytes / ENTRY)
    }

    /// Tells of pages in runs.
    fn tell(
        &self,
        range: IovaRange,
        mut pages: Vec<u64>,
        dirty: &mut impl FnMut(IovaRange),
    ) -> Result<(), ReportError> {
        let page_size = self.shape.page_size();
        let whole = range.whole_pages(page_size);
        let strange = |page: &u64| {
            !page.is_multiple_of(page_size) || !(whole.iova..whole.end()).contains(page)
        };
        if let Some(address) = pages.iter().copied().find(strange) {
            return Err(ReportError::Address { range, address });
        }
        pages.sort_unstable();
        for run in pages.chunk_by(|page, next| next - page <= page_size) {
            if let [first, .., last] | [first @ last] = run {
                dirty(IovaRange::between(*first, last.saturating_add(page_size)));
            }
        }
        Ok(())
    }

    /// What an event says of this tracker, if it is about it.
    fn failure(&self, event: &Event) -> Option<ReportError> {
        let number = |at: usize| {
            let bytes = event.data.get(at..at + 4)?.try_into().ok()?;
            Some(u32::from_be_bytes(bytes) & 0xff_ffff)
        };
        match event.event_type {
            EventType::ObjectChange => {
                let header = AffiliatedEventHeader::new(&event.data[..]).ok()?;
                let ours =
                    header.obj_type() == ObjectType::PageTrack && header.obj_id() == self.object;
                ours.then_some(ReportError::ErrorState)
            }
            // `mlx5_eqe_cq_err` and `mlx5_eqe_qp_srq` in `linux/mlx5/device.h`.
            EventType::CqError => (number(0)? == self.cqn).then_some(ReportError::Queues),
            EventType::WqCatasError | EventType::WqInvalReqError | EventType::WqAccessError => {
                self.qps.contains(&number(24)?).then_some(ReportError::Queues)
            }
            _ => None,
        }
    }
}
