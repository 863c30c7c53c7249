// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! What a tracker has in the firmware, and how all of it is given back.
//!
//! Source for what is made, in which order, and what is set: the kernel's
//! `mlx5vf_start_page_tracker()` and what it calls (drivers/vfio/pci/mlx5/cmd.c).

use std::sync::Arc;

use crate::command::{CommandError, Commands};
use crate::dma::{DmaBuffer, PAGE_BYTES};
use crate::layout::{
    AllocPdIn, AllocPdOut, AllocUarIn, AllocUarOut, CommandStatus, CreateCqIn, CreateCqOut,
    CreateMkeyOut, CreatePageTrackObjIn, CreateQpIn, CreateQpOut, DeallocPdIn, DeallocUarIn,
    DestroyCqIn, DestroyMkeyIn, DestroyQpIn, GeneralObjInCmdHdr, GeneralObjOutCmdHdr, Init2RtrQpIn,
    LayoutError, ModifyPageTrackObjIn, ObjectType, Opcode, PageTrackRange, PageTrackState,
    QpServiceType, QueryPageTrackObjOut, Rst2InitQpIn, Rtr2RtsQpIn,
};
use crate::vhca::hca::create_mkey;

use super::error::StopError;
use super::limits::{Limits, Shape};
use super::ranges::IovaRange;
use super::reports::Layout;

/// Bytes of an answer that says nothing but whether.
const PLAIN: usize = 16;
/// rq_type of a queue pair that receives nothing.
const NO_RECEIVES: u8 = 3;
/// pm_state without alternative paths.
const MIGRATED: u8 = 3;
/// The code of 4096 bytes.
const MTU_4096: u8 = 5;
/// Waits for a receive for as long as it takes.
const RNR_FOR_EVER: u8 = 7;
/// track_type of a tracker of all writes.
const ALL_WRITES: u8 = 1;
/// MODIFY sets both of these: the range, and the state.
const RANGE_AND_STATE: u64 = 0b11;
const ANY_USER_INDEX: u32 = 0xff_ffff;

/// Something that the firmware has made.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Thing {
    Uar(u32),
    Pd(u32),
    Cq(u32),
    Qp(u32),
    Mkey(u32),
    Object(u32),
}

/// All that the firmware has made for one tracker, in that order. Dropping it gives it back.
pub(super) struct Resources<C: Commands> {
    commands: Arc<C>,
    things: Vec<Thing>,
    /// What the firmware may write through them.
    memory: Vec<Arc<DmaBuffer>>,
    /// Something may have been made that nobody knows the number of.
    in_doubt: bool,
}

impl<C: Commands> Resources<C> {
    pub(super) const fn new(commands: Arc<C>) -> Self {
        Self { commands, things: Vec::new(), memory: Vec::new(), in_doubt: false }
    }

    /// Memory that is kept for as long as the firmware may write there.
    pub(super) fn keep(&mut self, memory: DmaBuffer) -> Arc<DmaBuffer> {
        let memory = Arc::new(memory);
        self.memory.push(memory.clone());
        memory
    }

    /// A command that makes something, which `output` then has the number of.
    fn make(&mut self, input: &[u8], output: &mut [u8]) -> Result<(), CommandError> {
        let made = self.commands.execute(input, output);
        self.in_doubt |= matches!(made, Err(CommandError::Timeout { .. }));
        made
    }

    fn plain(&self, input: &[u8]) -> Result<(), CommandError> {
        self.commands.execute(input, &mut [0; PLAIN])
    }

    pub(super) fn uar(&mut self) -> Result<u32, CommandError> {
        let mut output = AllocUarOut::zeroed();
        self.make(AllocUarIn::command().as_bytes(), output.as_bytes_mut())?;
        self.things.push(Thing::Uar(output.uar()));
        Ok(output.uar())
    }

    pub(super) fn pd(&mut self) -> Result<u32, CommandError> {
        let mut output = AllocPdOut::zeroed();
        self.make(AllocPdIn::command().as_bytes(), output.as_bytes_mut())?;
        self.things.push(Thing::Pd(output.pd()));
        Ok(output.pd())
    }

    /// A key for all of the memory, addressed from 0. Its whole number.
    pub(super) fn mkey(&mut self, pd: u32, memory: &DmaBuffer) -> Result<u32, CommandError> {
        let mut output = CreateMkeyOut::zeroed();
        let input = create_mkey(pd, memory.iova(), memory.len());
        self.make(&input, output.as_bytes_mut())?;
        self.things.push(Thing::Mkey(output.mkey_index()));
        Ok(output.mkey_index() << 8)
    }

    pub(super) fn cq(
        &mut self,
        uar: u32,
        event_queue: u8,
        layout: &Layout,
    ) -> Result<u32, CommandError> {
        let mut input = CreateCqIn::command();
        input
            .cq_context_mut()
            .set_log_cq_size(layout.shape.log_messages)
            .set_uar_page(uar)
            .set_c_eqn_or_apu_element(event_queue.into())
            .set_dbr_addr(layout.completion_doorbell());
        let input = with_pages(input.as_bytes(), layout.completions(), layout.completion_bytes());
        let mut output = CreateCqOut::zeroed();
        self.make(&input, output.as_bytes_mut())?;
        self.things.push(Thing::Cq(output.cqn()));
        Ok(output.cqn())
    }

    /// A queue pair that only receives, or with no layout given, the firmware's that only sends.
    pub(super) fn qp(
        &mut self,
        (uar, pd, cqn): (u32, u32, u32),
        limits: &Limits,
        receives: Option<&Layout>,
    ) -> Result<u32, CommandError> {
        let mut input = CreateQpIn::command();
        let mut context = input.qpc_mut();
        context
            .set_st(QpServiceType::Rc)
            .set_pm_state(MIGRATED)
            .set_pd(pd)
            .set_uar_page(uar)
            .set_no_sq(true)
            .set_cqn_rcv(cqn);
        if limits.user_index {
            context.set_user_index(ANY_USER_INDEX);
        }
        let input = match receives {
            None => {
                context.set_rq_type(NO_RECEIVES);
                input.as_bytes().to_vec()
            }
            Some(layout) => {
                context
                    .set_log_rq_size(layout.shape.log_messages)
                    .set_dbr_addr(layout.receive_doorbell());
                with_pages(input.as_bytes(), layout.receives(), layout.receive_bytes())
            }
        };
        let mut output = CreateQpOut::zeroed();
        self.make(&input, output.as_bytes_mut())?;
        self.things.push(Thing::Qp(output.qpn()));
        Ok(output.qpn())
    }

    /// Has a queue pair receive from another.
    pub(super) fn connect(&self, qpn: u32, peer: u32, limits: &Limits) -> Result<(), CommandError> {
        let mut init = Rst2InitQpIn::command();
        let mut context = init.set_qpn(qpn).qpc_mut();
        context.set_pm_state(MIGRATED).set_rre(true).set_rwe(true);
        context.primary_address_path_mut().set_vhca_port_num(1);
        self.plain(init.as_bytes())?;
        let mut rtr = Init2RtrQpIn::command();
        let mut context = rtr.set_qpn(qpn).qpc_mut();
        context
            .set_mtu(MTU_4096)
            .set_log_msg_max(limits.log_max_msg)
            .set_remote_qpn(peer)
            .set_min_rnr_nak(1);
        // Never leaves the device.
        context.primary_address_path_mut().set_fl(true).set_vhca_port_num(1);
        self.plain(rtr.as_bytes())
    }

    /// Has a queue pair send to the one it is connected with.
    pub(super) fn send(&self, qpn: u32) -> Result<(), CommandError> {
        let mut rts = Rtr2RtsQpIn::command();
        let mut context = rts.set_qpn(qpn).qpc_mut();
        context.set_retry_count(7).set_rnr_retry(RNR_FOR_EVER);
        // About a millisecond.
        context.primary_address_path_mut().set_ack_timeout(8);
        self.plain(rts.as_bytes())
    }

    pub(super) fn object(
        &mut self,
        vhca_id: u16,
        fw_qp: u32,
        shape: Shape,
        ranges: &[IovaRange],
    ) -> Result<u32, CommandError> {
        let input = create_object(vhca_id, fw_qp, shape, ranges)?;
        let mut output = GeneralObjOutCmdHdr::zeroed();
        self.make(&input, output.as_bytes_mut())?;
        self.things.push(Thing::Object(output.obj_id()));
        Ok(output.obj_id())
    }

    /// Has the tracker report a range, and forget it.
    pub(super) fn modify(&self, object: u32, range: IovaRange) -> Result<(), CommandError> {
        let mut input = ModifyPageTrackObjIn::zeroed();
        header(&mut input.general_obj_in_cmd_hdr_mut(), Opcode::ModifyGeneralObject, object);
        input
            .obj_context_mut()
            .set_modify_field_select(RANGE_AND_STATE)
            .set_state(PageTrackState::Reporting)
            .set_range_start_address(range.iova)
            .set_length(range.length);
        self.plain(input.as_bytes())
    }

    pub(super) fn state(&self, object: u32) -> Result<PageTrackState, CommandError> {
        let mut input = GeneralObjInCmdHdr::zeroed();
        header(&mut input, Opcode::QueryGeneralObject, object);
        let mut output = QueryPageTrackObjOut::zeroed();
        self.commands.execute(input.as_bytes(), output.as_bytes_mut())?;
        Ok(output.obj_context().state())
    }

    /// Gives everything back, what was made last first. What the firmware refuses once, it is asked
    /// for a second time.
    pub(super) fn give_back(&mut self) -> Result<(), StopError> {
        let mut left = 0;
        let mut first = None;
        for thing in std::mem::take(&mut self.things).into_iter().rev() {
            if let Err(error) = self.destroy(thing).or_else(|_refused| self.destroy(thing)) {
                left += 1;
                first.get_or_insert(error);
            }
        }
        let memory = std::mem::take(&mut self.memory);
        if left > 0 || self.in_doubt {
            // The firmware may write there for as long as it runs, so nobody else may get it.
            std::mem::forget(memory);
        }
        first.map_or(Ok(()), |error| Err(StopError { left, error }))
    }

    fn destroy(&self, thing: Thing) -> Result<(), CommandError> {
        let destroyed = match thing {
            Thing::Uar(uar) => self.plain(DeallocUarIn::command().set_uar(uar).as_bytes()),
            Thing::Pd(pd) => self.plain(DeallocPdIn::command().set_pd(pd).as_bytes()),
            Thing::Cq(cqn) => self.plain(DestroyCqIn::command().set_cqn(cqn).as_bytes()),
            Thing::Qp(qpn) => self.plain(DestroyQpIn::command().set_qpn(qpn).as_bytes()),
            Thing::Mkey(index) => {
                self.plain(DestroyMkeyIn::command().set_mkey_index(index).as_bytes())
            }
            Thing::Object(object) => {
                let mut input = GeneralObjInCmdHdr::zeroed();
                header(&mut input, Opcode::DestroyGeneralObject, object);
                self.plain(input.as_bytes())
            }
        };
        if is_given_back(destroyed) { Ok(()) } else { destroyed }
    }
}

impl<C: Commands> Drop for Resources<C> {
    fn drop(&mut self) {
        // `PageTracker::stop` is for who wants to know.
        let _ = self.give_back();
    }
}

/// Whether it is no longer there, be it that it never was, or went with the function itself.
const fn is_given_back(destroyed: Result<(), CommandError>) -> bool {
    use CommandStatus::{BadIndex, BadParam, BadRes};
    match destroyed {
        Ok(()) | Err(CommandError::Gone) => true,
        Err(CommandError::Status { status, .. }) => {
            matches!(status, BadIndex | BadParam | BadRes)
        }
        Err(_) => false,
    }
}

fn header<B: AsMut<[u8]>>(header: &mut GeneralObjInCmdHdr<B>, opcode: Opcode, object: u32) {
    header.set_opcode(opcode).set_obj_type(ObjectType::PageTrack).set_obj_id(object);
}

fn create_object(
    vhca_id: u16,
    fw_qp: u32,
    shape: Shape,
    ranges: &[IovaRange],
) -> Result<Vec<u8>, LayoutError> {
    let mut input = CreatePageTrackObjIn::zeroed();
    header(&mut input.general_obj_in_cmd_hdr_mut(), Opcode::CreateGeneralObject, 0);
    input
        .obj_context_mut()
        .set_vhca_id(vhca_id)
        .set_track_type(ALL_WRITES)
        .set_log_addr_space_size(shape.log_address_space)
        .set_log_page_size(shape.log_page)
        .set_log_msg_size(shape.log_message)
        .set_reporting_qpn(fw_qp)
        .set_num_ranges(ranges.len() as u8);
    let mut bytes = input.as_bytes().to_vec();
    bytes.resize(CreatePageTrackObjIn::BYTES + ranges.len() * PageTrackRange::BYTES, 0);
    let places = bytes[CreatePageTrackObjIn::BYTES..].chunks_mut(PageTrackRange::BYTES);
    for (place, range) in places.zip(ranges) {
        PageTrackRange::new(place)?.set_start_address(range.iova).set_length(range.length);
    }
    Ok(bytes)
}

/// A command, and the addresses of a queue's pages.
fn with_pages(command: &[u8], iova: u64, bytes: usize) -> Vec<u8> {
    let pages = (bytes as u64).div_ceil(PAGE_BYTES);
    let addresses = (0..pages).map(|page| iova + page * PAGE_BYTES);
    command.iter().copied().chain(addresses.flat_map(u64::to_be_bytes)).collect()
}
