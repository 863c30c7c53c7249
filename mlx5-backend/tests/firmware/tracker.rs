// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! The page tracker, from its queues to its reports.

use vfio_fsm_mlx5::dma::DmaBuffer;
use vfio_fsm_mlx5::firmware::{Config, Fault, Syndrome, Trigger, VhcaConfig};
use vfio_fsm_mlx5::layout::*;

use crate::driver::{Buffer, Driver, Failure, VHCA};

const PAGE_TRACK: u16 = 0x46;
const MESSAGE: u32 = 4096;

/// A tracker with all that it needs, as the kernel's driver makes it.
struct Tracking {
    driver: Driver,
    host_qp: u32,
    fw_qp: u32,
    cqn: u32,
    buffer: Buffer,
    eq: DmaBuffer,
    cq: DmaBuffer,
    rq: DmaBuffer,
    doorbells: DmaBuffer,
    posted: u32,
    seen: u32,
}

fn create_qp(driver: &mut Driver, pd: u32, cqn: u32, receives: Option<(&DmaBuffer, u64)>) -> u32 {
    let mut bytes = vec![0; CreateQpIn::BYTES + 8];
    let mut input = CreateQpIn::new(&mut bytes[..]).unwrap();
    input.set_opcode(Opcode::CreateQp);
    let mut context = input.qpc_mut();
    context.set_pd(pd).set_cqn_rcv(cqn).set_cqn_snd(cqn).set_no_sq(true);
    match receives {
        Some((_, doorbell)) => context.set_log_rq_size(3).set_dbr_addr(doorbell),
        None => context.set_rq_type(3),
    };
    if let Some((memory, _)) = receives {
        input.pas_mut().copy_from_slice(&memory.iova().to_be_bytes());
    }
    let out = driver.exec(&bytes, 16).unwrap();
    CreateQpOut::new(&out[..]).unwrap().qpn()
}

fn moved(driver: &mut Driver, opcode: Opcode, qpn: u32, peer: u32) -> Result<(), Failure> {
    let mut input = Init2RtrQpIn::command();
    input.set_opcode(opcode).set_qpn(qpn).qpc_mut().set_remote_qpn(peer);
    driver.plain(input.as_bytes())
}

fn create_command(qpn: u32, ranges: &[(u64, u64)]) -> Vec<u8> {
    let mut bytes = vec![0; CreatePageTrackObjIn::BYTES + ranges.len() * 16];
    let mut input = CreatePageTrackObjIn::new(&mut bytes[..]).unwrap();
    input
        .general_obj_in_cmd_hdr_mut()
        .set_opcode(Opcode::CreateGeneralObject)
        .set_obj_type(ObjectType::PageTrack);
    let mut object = input.obj_context_mut();
    object.set_vhca_id(VHCA).set_track_type(1).set_log_addr_space_size(33).set_log_page_size(12);
    object.set_log_msg_size(12).set_reporting_qpn(qpn).set_num_ranges(ranges.len() as u8);
    for (n, (start, length)) in ranges.iter().enumerate() {
        let at = CreatePageTrackObjIn::BYTES + n * 16;
        bytes[at..at + 8].copy_from_slice(&start.to_be_bytes());
        bytes[at + 8..at + 16].copy_from_slice(&length.to_be_bytes());
    }
    bytes
}

fn object_command(opcode: Opcode, id: u32) -> Vec<u8> {
    let mut input = GeneralObjInCmdHdr::zeroed();
    input.set_opcode(opcode).set_obj_type(ObjectType::PageTrack).set_obj_id(id);
    input.as_bytes().to_vec()
}

impl Tracking {
    fn new() -> Self {
        let mut driver = Driver::new(Config::of(VhcaConfig::default()));
        let [eq, cq, rq, doorbells] = [(); 4].map(|()| driver.space.allocate(4096).unwrap());
        let uar = driver.alloc_uar();
        let events = 1 | 1 << 0x27;
        let eqn = crate::bring_up::create_eq(&mut driver, uar, &eq, 5, events);
        let mut bytes = vec![0; CreateCqIn::BYTES + 8];
        let mut input = CreateCqIn::new(&mut bytes[..]).unwrap();
        input.set_opcode(Opcode::CreateCq);
        let mut context = input.cq_context_mut();
        context
            .set_log_cq_size(3)
            .set_c_eqn_or_apu_element(eqn)
            .set_dbr_addr(doorbells.iova() + 64);
        input.pas_mut().copy_from_slice(&cq.iova().to_be_bytes());
        let out = driver.exec(&bytes, 16).unwrap();
        let cqn = CreateCqOut::new(&out[..]).unwrap().cqn();
        let buffer = driver.buffer(8 * MESSAGE as usize);
        let host_qp = create_qp(&mut driver, buffer.pd, cqn, Some((&rq, doorbells.iova())));
        let fw_qp = create_qp(&mut driver, buffer.pd, cqn, None);
        for (qp, peer) in [(host_qp, fw_qp), (fw_qp, host_qp)] {
            moved(&mut driver, Opcode::Rst2InitQp, qp, 0).unwrap();
            moved(&mut driver, Opcode::Init2RtrQp, qp, peer).unwrap();
        }
        moved(&mut driver, Opcode::Rtr2RtsQp, fw_qp, 0).unwrap();
        let (posted, seen) = (0, 0);
        Self { driver, host_qp, fw_qp, cqn, buffer, eq, cq, rq, doorbells, posted, seen }
    }

    fn create(&mut self, ranges: &[(u64, u64)]) -> Result<u32, Failure> {
        let out = self.driver.exec(&create_command(self.fw_qp, ranges), 16)?;
        Ok(GeneralObjOutCmdHdr::new(&out[..]).unwrap().obj_id())
    }

    fn post_buffers(&mut self, count: u32) {
        for _ in 0..count {
            let slot = self.posted % 8;
            let mut wqe = WqeDataSeg::zeroed();
            wqe.set_byte_count(MESSAGE)
                .set_lkey(self.buffer.key())
                .set_addr(u64::from(slot * MESSAGE));
            self.rq.write(slot as usize * 16, wqe.as_bytes()).unwrap();
            self.posted += 1;
        }
        self.doorbells.write(0, &self.posted.to_be_bytes()).unwrap();
        self.driver.firmware.tick(1);
    }

    fn modify(&mut self, id: u32, start: u64, length: u64) -> Result<(), Failure> {
        let mut input = ModifyPageTrackObjIn::zeroed();
        input
            .general_obj_in_cmd_hdr_mut()
            .set_opcode(Opcode::ModifyGeneralObject)
            .set_obj_type(ObjectType::PageTrack)
            .set_obj_id(id);
        let mut object = input.obj_context_mut();
        object.set_modify_field_select(3).set_state(PageTrackState::Reporting);
        object.set_range_start_address(start).set_length(length);
        self.driver.plain(input.as_bytes())
    }

    fn state(&mut self, id: u32) -> PageTrackState {
        let command = object_command(Opcode::QueryGeneralObject, id);
        let out = self.driver.exec(&command, 64).unwrap();
        QueryPageTrackObjOut::new(&out[..]).unwrap().obj_context().state()
    }

    /// The next message: its pages, and its immediate data's status.
    fn receive(&mut self) -> Option<(Vec<u64>, u32)> {
        let mut cqe = Cqe64::zeroed();
        self.cq.read(self.seen as usize % 8 * 64, cqe.as_bytes_mut()).unwrap();
        if cqe.op_own() >> 4 != 3 || u32::from(cqe.op_own() & 1) != self.seen / 8 % 2 {
            return None;
        }
        assert_eq!(cqe.sop_drop_qpn(), self.host_qp);
        assert_eq!(u32::from(cqe.wqe_counter()), self.seen);
        self.seen += 1;
        self.doorbells.write(64, &self.seen.to_be_bytes()).unwrap();
        let mut message = vec![0; cqe.byte_cnt() as usize];
        let at = u32::from(cqe.wqe_counter()) % 8 * MESSAGE;
        self.buffer.memory.read(at as usize, &mut message).unwrap();
        let pages = message.as_chunks::<8>().0.iter().map(|page| u64::from_be_bytes(*page));
        Some((pages.collect(), cqe.immediate() >> 28))
    }

    fn last_event(&self) -> Eqe {
        let mut last = Eqe::zeroed();
        for n in 0..32 {
            let mut eqe = Eqe::zeroed();
            self.eq.read(n * 64, eqe.as_bytes_mut()).unwrap();
            if eqe.event_type() != EventType::Other(0xff) {
                last = eqe;
            }
        }
        last
    }
}

/// M59: what was written in the ranges is reported once, in messages that fit, the last one marked.
#[test]
fn reports() {
    let mut tracking = Tracking::new();
    let id = tracking.create(&[(0x10_0000, 0x100_0000), (0x8000_0000, 0x1000)]).unwrap();
    let vhca = tracking.driver.vhca();
    vhca.dma_written(0x10_0fff, 2); // two pages
    vhca.dma_written(0x7fff_f000, 0x3000); // one of them tracked
    vhca.dma_written(0, 0x1000); // none
    tracking.post_buffers(2);
    tracking.modify(id, 0x10_0000, 0x100_0000).unwrap();
    assert_eq!(tracking.receive(), Some((vec![0x10_0000, 0x10_1000], 0)));
    let event = tracking.last_event();
    assert_eq!(event.event_type(), EventType::Comp);
    assert_eq!(event.event_data()[24..], tracking.cqn.to_be_bytes());
    assert_eq!(tracking.receive(), None);
    tracking.modify(id, 0x8000_0000, 0x1000).unwrap();
    assert_eq!(tracking.receive(), Some((vec![0x8000_0000], 0)));

    // Nothing is left, and that is told, too; then more than one message takes.
    tracking.post_buffers(1);
    tracking.modify(id, 0, u64::MAX).unwrap();
    assert_eq!(tracking.receive(), Some((vec![], 0)));
    vhca.dma_written(0x10_0000, 1000 * 4096);
    tracking.modify(id, 0, u64::MAX).unwrap();
    assert_eq!(tracking.receive(), None, "no buffer");
    assert_eq!(tracking.state(id), PageTrackState::Reporting);
    assert_eq!(tracking.modify(id, 0, 4096), Err(Syndrome::TrackState.into()));
    tracking.post_buffers(2);
    let (first, status) = tracking.receive().unwrap();
    assert_eq!((first.len(), status), (512, 1));
    let (second, status) = tracking.receive().unwrap();
    assert_eq!((second.len(), status), (488, 0));
    assert_eq!(second.last(), Some(&(0x10_0000 + 999 * 4096)));
    assert_eq!(tracking.state(id), PageTrackState::Tracking);
}

/// M59: a tracker goes into its error state, with its event or without, and knows nothing then.
#[test]
fn errors() {
    for event in [true, false] {
        let mut tracking = Tracking::new();
        let id = tracking.create(&[(0, 1 << 32)]).unwrap();
        tracking.post_buffers(4);
        tracking.driver.firmware.inject(Trigger::Next, Fault::TrackerError { event });
        assert_eq!(tracking.state(id), PageTrackState::Error);
        let last = tracking.last_event();
        assert_eq!(last.event_type() == EventType::ObjectChange, event);
        if event {
            assert_eq!(last.object_change().obj_type(), ObjectType::PageTrack);
            assert_eq!(last.object_change().obj_id(), id);
        }
        assert_eq!(tracking.modify(id, 0, 4096), Err(Syndrome::TrackState.into()));
        assert_eq!(tracking.receive(), None);
    }
}

/// M59: a report that has nowhere to go breaks the tracker aloud.
#[test]
fn full_completion_queue() {
    let mut tracking = Tracking::new();
    let id = tracking.create(&[(0, 1 << 32)]).unwrap();
    tracking.post_buffers(8);
    for _ in 0..8 {
        tracking.modify(id, 0, 4096).unwrap();
    }
    tracking.post_buffers(1);
    tracking.modify(id, 0, 4096).unwrap();
    assert_eq!(tracking.state(id), PageTrackState::Error);
    assert_eq!(tracking.last_event().event_type(), EventType::ObjectChange);
}

/// M59: what a tracker cannot be is refused, and so is what is still in use.
#[test]
fn refused() {
    let mut tracking = Tracking::new();
    let range = Err(Syndrome::TrackRange.into());
    assert_eq!(tracking.create(&[]), range);
    assert_eq!(tracking.create(&[(0, 0)]), range);
    assert_eq!(tracking.create(&[(0, 4096); 9]), range);
    assert_eq!(tracking.create(&[(0, (1 << 33) + 1)]), range);
    assert_eq!(tracking.create(&[(u64::MAX, 4096)]), range);
    let mut spoilt = |spoil: &dyn Fn(&mut CreatePageTrackObjIn<&mut [u8]>)| {
        let mut bytes = create_command(tracking.fw_qp, &[(0, 4096)]);
        spoil(&mut CreatePageTrackObjIn::new(&mut bytes[..]).unwrap());
        tracking.driver.exec(&bytes, 16).map(|_| ())
    };
    let page = Err(Syndrome::TrackPage.into());
    assert_eq!(
        spoilt(&|input| {
            input.obj_context_mut().set_log_page_size(11);
        }),
        page
    );
    assert_eq!(
        spoilt(&|input| {
            input.obj_context_mut().set_log_msg_size(21);
        }),
        page
    );
    assert_eq!(
        spoilt(&|input| {
            input.obj_context_mut().set_track_type(0);
        }),
        page
    );
    let no_qp = Err(Syndrome::NoQp.into());
    assert_eq!(
        spoilt(&|input| {
            input.obj_context_mut().set_reporting_qpn(99);
        }),
        no_qp
    );
    let no_vhca = Err(Syndrome::NoVhca.into());
    assert_eq!(
        spoilt(&|input| {
            input.obj_context_mut().set_vhca_id(9);
        }),
        no_vhca
    );
    let object = Err(Syndrome::ObjectType.into());
    let header = |input: &mut CreatePageTrackObjIn<&mut [u8]>| {
        input.general_obj_in_cmd_hdr_mut().set_obj_type(ObjectType::Other(PAGE_TRACK + 1));
    };
    assert_eq!(spoilt(&header), object);

    let id = tracking.create(&[(0, 4096)]).unwrap();
    let (fw_qp, cqn) = (tracking.fw_qp, tracking.cqn);
    let in_use = Err(Syndrome::InUse.into());
    let driver = &mut tracking.driver;
    let destroy_qp = DestroyQpIn::command().set_qpn(fw_qp).as_bytes().to_vec();
    assert_eq!(driver.plain(&destroy_qp), in_use);
    assert_eq!(driver.plain(DestroyCqIn::command().set_cqn(cqn).as_bytes()), in_use);
    let destroy = object_command(Opcode::DestroyGeneralObject, id);
    driver.plain(&destroy).unwrap();
    assert_eq!(driver.plain(&destroy), Err(Syndrome::NoObject.into()));
    driver.plain(&destroy_qp).unwrap();
    let state = moved(driver, Opcode::Rtr2RtsQp, tracking.host_qp, 0);
    assert_eq!(state, Ok(()));
    let again = moved(driver, Opcode::Rst2InitQp, tracking.host_qp, 0);
    assert_eq!(again, Err(Syndrome::QpState.into()));
}
