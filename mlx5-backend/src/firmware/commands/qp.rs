// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! Queue pairs, as far as a page tracker's reports need them: one sends, the other receives.

use super::eq::queue_pages;
use super::mkey::{Access, Window};
use super::{Outcome, PageList};
use crate::firmware::machine::Machine;
use crate::firmware::refusal::{Refusal, Syndrome};
use crate::firmware::vhca::Sink;
use crate::layout::{
    Cqe64, CreateQpIn, CreateQpOut, DestroyQpIn, Init2RtrQpIn, QpServiceType, Qpc, Rst2InitQpIn,
    Rtr2RtsQpIn, WqeDataSeg,
};

/// Opcode of a received message with immediate data, in a completion entry.
const RESPONDER_SEND_IMM: u8 = 3;
/// rq_type of a queue pair that receives nothing.
const NO_RECEIVES: u8 = 3;

/// A queue pair.
pub(crate) struct Qp {
    pub(super) pd: u32,
    cqn: u32,
    state: QpState,
    peer: u32,
    receives: Option<Receives>,
}

impl Qp {
    /// Whether it needs this completion queue.
    pub(super) fn completes_to(&self, cqn: u32) -> bool {
        self.receives.is_some() && self.cqn == cqn
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum QpState {
    Reset,
    Init,
    ReadyToReceive,
    ReadyToSend,
}

/// A receive queue.
struct Receives {
    pages: PageList,
    log_size: u8,
    log_stride: u8,
    doorbell: u64,
    taken: u16,
}

/// Why a message did not arrive.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Undelivered {
    /// The driver has posted no buffer yet; later, perhaps.
    NotPosted,
    /// Never.
    Broken,
}

impl Machine {
    pub(super) fn create_qp(&mut self, input: &[u8], output: &mut [u8]) -> Outcome {
        let input = CreateQpIn::new(input)?;
        let context = input.qpc();
        if !self.objects.has_pd(context.pd()) {
            return Err(Syndrome::NoPd.into());
        }
        // A-QP-KIND: a reliable connection whose memory is a list of pages.
        if context.st() != QpServiceType::Rc || input.wq_umem_valid() {
            return Err(Syndrome::QueueContext.into());
        }
        // What completes nothing needs no completion queue: the kernel's driver names none.
        let receives = match context.rq_type() {
            NO_RECEIVES => None,
            _ => {
                self.cqs.get(context.cqn_rcv()).ok_or(Syndrome::NoCq)?;
                Some(receives(&context, input.pas())?)
            }
        };
        let (pd, cqn) = (context.pd(), context.cqn_rcv());
        let qp = Qp { pd, cqn, state: QpState::Reset, peer: 0, receives };
        let number = self.qps.insert(qp)?;
        CreateQpOut::new(output)?.set_qpn(number);
        Ok(())
    }

    pub(super) fn destroy_qp(&mut self, input: &[u8]) -> Outcome {
        let number = DestroyQpIn::new(input)?.qpn();
        if self.trackers.iter().any(|(_, tracker)| tracker.reports_to(number)) {
            return Err(Syndrome::InUse.into());
        }
        self.qps.remove(number).ok_or(Syndrome::NoQp)?;
        Ok(())
    }

    pub(super) fn rst2init_qp(&mut self, input: &[u8]) -> Outcome {
        let qpn = Rst2InitQpIn::new(input)?.qpn();
        self.move_qp(qpn, QpState::Reset, QpState::Init).map(|_| ())
    }

    pub(super) fn init2rtr_qp(&mut self, input: &[u8]) -> Outcome {
        let input = Init2RtrQpIn::new(input)?;
        let qp = self.move_qp(input.qpn(), QpState::Init, QpState::ReadyToReceive)?;
        qp.peer = input.qpc().remote_qpn();
        Ok(())
    }

    pub(super) fn rtr2rts_qp(&mut self, input: &[u8]) -> Outcome {
        let qpn = Rtr2RtsQpIn::new(input)?.qpn();
        self.move_qp(qpn, QpState::ReadyToReceive, QpState::ReadyToSend).map(|_| ())
    }

    fn move_qp(&mut self, qpn: u32, from: QpState, to: QpState) -> Result<&mut Qp, Refusal> {
        let qp = self.qps.get_mut(qpn).ok_or(Syndrome::NoQp)?;
        if qp.state != from {
            return Err(Syndrome::QpState.into());
        }
        qp.state = to;
        Ok(qp)
    }

    /// Sends a message from a queue pair to the one it is connected with.
    pub(super) fn send(
        &mut self,
        from: u32,
        message: &[u8],
        immediate: u32,
    ) -> Result<(), Undelivered> {
        let sender = self.qps.get(from).filter(|qp| qp.state == QpState::ReadyToSend);
        let peer = sender.ok_or(Undelivered::Broken)?.peer;
        let (index, buffer) = self.next_receive(peer)?;
        let key = (buffer.lkey(), buffer.addr(), u64::from(buffer.byte_count()));
        let mut window =
            Window::new(&self.mkeys, &*self.memory, key.0, (key.1, key.2), Access::Write)
                .map_err(|_| Undelivered::Broken)?;
        window.put(message).map_err(|_| Undelivered::Broken)?;
        let mut cqe = Cqe64::zeroed();
        cqe.set_immediate(immediate)
            .set_byte_cnt(message.len() as u32)
            .set_sop_drop_qpn(peer)
            .set_wqe_counter(index);
        self.complete(peer, cqe)
    }

    /// The next buffer that the driver has posted, which is then taken.
    fn next_receive(
        &mut self,
        qpn: u32,
    ) -> Result<(u16, WqeDataSeg<[u8; WqeDataSeg::BYTES]>), Undelivered> {
        let Self { qps, memory, .. } = self;
        let qp = qps.get_mut(qpn).filter(|qp| qp.state >= QpState::ReadyToReceive);
        let queue = qp.and_then(|qp| qp.receives.as_mut()).ok_or(Undelivered::Broken)?;
        let mut posted = [0; 4];
        memory.read(queue.doorbell, &mut posted).map_err(|_| Undelivered::Broken)?;
        if u32::from_be_bytes(posted) as u16 == queue.taken {
            return Err(Undelivered::NotPosted);
        }
        let index = u64::from(queue.taken) & ((1 << queue.log_size) - 1);
        let at = queue.pages.at(index << (queue.log_stride + 4), 16).ok_or(Undelivered::Broken)?;
        let mut wqe = [0; WqeDataSeg::BYTES];
        memory.read(at.0, &mut wqe).map_err(|_| Undelivered::Broken)?;
        let taken = queue.taken;
        queue.taken = taken.wrapping_add(1);
        WqeDataSeg::new(wqe).map(|wqe| (taken, wqe)).map_err(|_| Undelivered::Broken)
    }

    /// A-CQ-FULL: a completion queue that the driver does not empty breaks what completes on it.
    fn complete(&mut self, qpn: u32, mut cqe: Cqe64) -> Result<(), Undelivered> {
        let Self { qps, cqs, memory, .. } = self;
        let cqn = qps.get(qpn).map(|qp| qp.cqn).ok_or(Undelivered::Broken)?;
        let cq = cqs.get_mut(cqn).ok_or(Undelivered::Broken)?;
        let mut consumer = [0; 4];
        memory.read(cq.doorbell, &mut consumer).map_err(|_| Undelivered::Broken)?;
        let waiting = cq.producer.wrapping_sub(u32::from_be_bytes(consumer)) & 0xff_ffff;
        if waiting >= 1 << cq.log_size {
            return Err(Undelivered::Broken);
        }
        let owner = (cq.producer >> cq.log_size & 1) as u8;
        let index = u64::from(cq.producer & ((1 << cq.log_size) - 1));
        let at = cq
            .pages
            .at(index * Cqe64::BYTES as u64, Cqe64::BYTES as u64)
            .ok_or(Undelivered::Broken)?;
        cqe.set_op_own(RESPONDER_SEND_IMM << 4 | owner);
        let (body, last) = cqe.as_bytes().split_at(Cqe64::BYTES - 1);
        memory.write(at.0, body).map_err(|_| Undelivered::Broken)?;
        std::sync::atomic::fence(std::sync::atomic::Ordering::Release);
        memory.write(at.0 + body.len() as u64, last).map_err(|_| Undelivered::Broken)?;
        cq.producer = cq.producer.wrapping_add(1);
        let eqn = cq.eqn;
        self.raise_completion(eqn, cqn);
        Ok(())
    }
}

/// A queue pair's receive queue: entries of `16 << log_stride` bytes, at the beginning of its pages.
fn receives(context: &Qpc<&[u8]>, pas: &[u8]) -> Result<Receives, Refusal> {
    let (log_size, log_stride) = (context.log_rq_size(), context.log_rq_stride());
    let entry = 16 << log_stride;
    let (log_page, offset) = (context.log_page_size(), context.page_offset());
    let pages = queue_pages(pas, log_size, entry, log_page, offset)?;
    Ok(Receives { pages, log_size, log_stride, doorbell: context.dbr_addr(), taken: 0 })
}
