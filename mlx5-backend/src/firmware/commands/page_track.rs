// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! General objects: the page tracker, and its reports.

use std::collections::{BTreeSet, VecDeque};

use super::caps::{TRACK_ADDR_SPACE, TRACK_MESSAGE, TRACK_PAGE, TRACK_RANGES};
use super::qp::Undelivered;
use super::{Outcome, Refusal};
use crate::firmware::machine::Machine;
use crate::firmware::refusal::Syndrome;
use crate::layout::{
    GeneralObjInCmdHdr, GeneralObjOutCmdHdr, ModifyPageTrackObjIn, ObjectType, PageTrack,
    PageTrackRange, PageTrackReportEntry, PageTrackState, QueryPageTrackObjOut,
};

/// MODIFY sets both of these: the range, and the state.
const RANGE_AND_STATE: u64 = 0b11;
/// track_type of a tracker of all writes.
const ALL_WRITES: u8 = 1;
/// Dirty pages beyond these are not told one from another any more.
const MOST_DIRTY: usize = 1 << 22;
/// Bytes of a report's entry.
const ENTRY: usize = PageTrackReportEntry::BYTES;

/// A page tracker.
pub(crate) struct Tracker {
    vhca_id: u16,
    qpn: u32,
    log_page_size: u8,
    log_msg_size: u8,
    log_addr_space: u8,
    ranges: Vec<(u64, u64)>,
    state: PageTrackState,
    /// Numbers of pages.
    dirty: BTreeSet<u64>,
    /// Messages on their way, each with its immediate data.
    reports: VecDeque<(Vec<u8>, u32)>,
}

impl Tracker {
    pub(super) fn reports_to(&self, qpn: u32) -> bool {
        self.qpn == qpn
    }

    fn track(&mut self, start: u64, len: u64) {
        let end = start.saturating_add(len);
        for (base, length) in &self.ranges {
            let from = start.max(*base);
            let to = end.min(base.saturating_add(*length));
            if from < to {
                let shift = self.log_page_size;
                self.dirty.extend((from >> shift)..=(to - 1) >> shift);
            }
        }
    }

    /// Takes the dirty pages of a range into messages. The last one says that it is the last
    /// (A-TRACK-REPORT): its immediate data has TRACKING in its upper four bits.
    fn report(&mut self, start: u64, length: u64) {
        let shift = self.log_page_size;
        let last = start.saturating_add(length.saturating_sub(1));
        let pages: Vec<_> = self.dirty.range(start >> shift..=last >> shift).copied().collect();
        let at_once = (1_usize << self.log_msg_size) / ENTRY;
        let reporting = u32::from(u8::from(PageTrackState::Reporting)) << 28;
        for pages in pages.chunks(at_once) {
            let mut message = Vec::with_capacity(pages.len() * ENTRY);
            for page in pages {
                self.dirty.remove(page);
                message.extend_from_slice(&(page << shift).to_be_bytes());
            }
            self.reports.push_back((message, reporting));
        }
        let tracking = u32::from(u8::from(PageTrackState::Tracking)) << 28;
        match self.reports.back_mut() {
            Some(report) => report.1 = tracking,
            None => self.reports.push_back((Vec::new(), tracking)),
        }
        self.state = PageTrackState::Reporting;
    }
}

impl Machine {
    pub(super) fn create_object(
        &mut self,
        object: u16,
        input: &[u8],
        output: &mut [u8],
    ) -> Outcome {
        page_track_only(object)?;
        // With the ranges, which a view inside the command would not have.
        let context = input.get(GeneralObjInCmdHdr::BYTES..).unwrap_or_default();
        let tracker = self.tracker_of(&PageTrack::new(context)?)?;
        let id = self.trackers.insert(tracker)?;
        GeneralObjOutCmdHdr::new(output)?.set_obj_id(id);
        Ok(())
    }

    fn tracker_of(&self, context: &PageTrack<&[u8]>) -> Result<Tracker, Refusal> {
        if !self.config.page_tracking {
            return Err(Syndrome::ObjectType.into());
        }
        if !self.vhcas.iter().any(|vhca| vhca.config.vhca_id == context.vhca_id()) {
            return Err(Syndrome::NoVhca.into());
        }
        self.qps.get(context.reporting_qpn()).ok_or(Syndrome::NoQp)?;
        let sizes = TRACK_PAGE.contains(&context.log_page_size())
            && TRACK_MESSAGE.contains(&context.log_msg_size())
            && context.track_type() == ALL_WRITES;
        if !sizes {
            return Err(Syndrome::TrackPage.into());
        }
        let ranges = ranges_of(context).ok_or(Syndrome::TrackRange)?;
        Ok(Tracker {
            vhca_id: context.vhca_id(),
            qpn: context.reporting_qpn(),
            log_page_size: context.log_page_size(),
            log_msg_size: context.log_msg_size(),
            log_addr_space: context.log_addr_space_size(),
            ranges,
            state: PageTrackState::Tracking,
            dirty: BTreeSet::new(),
            reports: VecDeque::new(),
        })
    }

    pub(super) fn modify_object(&mut self, object: u16, input: &[u8]) -> Outcome {
        page_track_only(object)?;
        let input = ModifyPageTrackObjIn::new(input)?;
        let id = input.general_obj_in_cmd_hdr().obj_id();
        let context = input.obj_context();
        let tracker = self.trackers.get_mut(id).ok_or(Syndrome::NoObject)?;
        if context.modify_field_select() != RANGE_AND_STATE
            || context.state() != PageTrackState::Reporting
        {
            return Err(Syndrome::OpMod.into());
        }
        // A-TRACK-STATE: one report at a time, and none from a tracker that has failed.
        if tracker.state != PageTrackState::Tracking {
            return Err(Syndrome::TrackState.into());
        }
        if context.length() == 0 {
            return Err(Syndrome::TrackRange.into());
        }
        tracker.report(context.range_start_address(), context.length());
        self.send_reports();
        Ok(())
    }

    pub(super) fn query_object(&self, object: u16, input: &[u8], output: &mut [u8]) -> Outcome {
        page_track_only(object)?;
        let id = GeneralObjInCmdHdr::new(input)?.obj_id();
        let tracker = self.trackers.get(id).ok_or(Syndrome::NoObject)?;
        let mut out = QueryPageTrackObjOut::new(output)?;
        out.general_obj_out_cmd_hdr_mut().set_obj_id(id);
        out.obj_context_mut()
            .set_vhca_id(tracker.vhca_id)
            .set_state(tracker.state)
            .set_track_type(ALL_WRITES)
            .set_log_addr_space_size(tracker.log_addr_space)
            .set_log_page_size(tracker.log_page_size)
            .set_log_msg_size(tracker.log_msg_size)
            .set_reporting_qpn(tracker.qpn)
            .set_num_ranges(tracker.ranges.len() as u8);
        Ok(())
    }

    pub(super) fn destroy_object(&mut self, object: u16, input: &[u8]) -> Outcome {
        page_track_only(object)?;
        let id = GeneralObjInCmdHdr::new(input)?.obj_id();
        self.trackers.remove(id).ok_or(Syndrome::NoObject)?;
        Ok(())
    }

    /// The function has written so many bytes of the host's memory.
    pub(crate) fn dma_written(&mut self, vhca_id: u16, start: u64, len: u64) {
        let mut full = Vec::new();
        for (id, tracker) in self.trackers.iter_mut() {
            if tracker.vhca_id == vhca_id && tracker.state != PageTrackState::Error {
                tracker.track(start, len);
                if tracker.dirty.len() > MOST_DIRTY {
                    full.push(id);
                }
            }
        }
        for id in full {
            self.fail_tracker(id, true);
        }
    }

    /// Sends what there are buffers for; what there are none for stays on its way (A-TRACK-RNR).
    pub(crate) fn send_reports(&mut self) {
        let reporting: Vec<_> = self
            .trackers
            .iter()
            .filter(|(_, tracker)| !tracker.reports.is_empty())
            .map(|(id, _)| id)
            .collect();
        for id in reporting {
            self.send_reports_of(id);
        }
    }

    fn send_reports_of(&mut self, id: u32) {
        while let Some(tracker) = self.trackers.get_mut(id) {
            let Some((message, immediate)) = tracker.reports.pop_front() else { return };
            let qpn = tracker.qpn;
            match self.send(qpn, &message, immediate) {
                Ok(()) => {
                    if let Some(tracker) = self.trackers.get_mut(id)
                        && tracker.reports.is_empty()
                    {
                        tracker.state = PageTrackState::Tracking;
                    }
                }
                Err(Undelivered::NotPosted) => {
                    if let Some(tracker) = self.trackers.get_mut(id) {
                        tracker.reports.push_front((message, immediate));
                    }
                    return;
                }
                // A-TRACK-BROKEN
                Err(Undelivered::Broken) => return self.fail_tracker(id, true),
            }
        }
    }

    pub(crate) fn fail_trackers(&mut self, event: bool) {
        let all: Vec<_> = self.trackers.iter().map(|(id, _)| id).collect();
        for id in all {
            self.fail_tracker(id, event);
        }
    }

    /// The tracker goes into its error state, in which it knows nothing any more.
    fn fail_tracker(&mut self, id: u32, event: bool) {
        let Some(tracker) = self.trackers.get_mut(id) else { return };
        tracker.state = PageTrackState::Error;
        tracker.dirty.clear();
        tracker.reports.clear();
        if event {
            self.raise_object_change(ObjectType::PageTrack, id);
        }
    }
}

fn page_track_only(object: u16) -> Outcome {
    match ObjectType::from(object) {
        ObjectType::PageTrack => Ok(()),
        ObjectType::Other(_) => Err(Syndrome::ObjectType.into()),
    }
}

/// A-TRACK-RANGES: not more than the capability says, none empty, and in all not more than the
/// size of the address space that the command says.
fn ranges_of(context: &PageTrack<&[u8]>) -> Option<Vec<(u64, u64)>> {
    let count = context.num_ranges();
    let log_space = context.log_addr_space_size();
    if !(1..=TRACK_RANGES).contains(&count) || !TRACK_ADDR_SPACE.contains(&log_space) {
        return None;
    }
    let mut ranges = Vec::new();
    let mut total = 0_u64;
    for bytes in context.track_range().chunks(PageTrackRange::BYTES).take(usize::from(count)) {
        let range = PageTrackRange::new(bytes).ok()?;
        let (start, length) = (range.start_address(), range.length());
        start.checked_add(length).filter(|_| length > 0)?;
        total = total.checked_add(length)?;
        ranges.push((start, length));
    }
    (ranges.len() == usize::from(count) && total <= 1 << log_space).then_some(ranges)
}
