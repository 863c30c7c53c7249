// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! The software firmware's command queue and command decoder: no bytes of a driver make it panic, a
//! command that is delivered is answered, and one that answers a bad status has changed nothing, but
//! for what a failed SAVE or LOAD is said to leave (A-SAVE-FAILED, A-RESUME-INCOMPLETE).

use vfio_fsm_mlx5::bar::{self, Registers};
use vfio_fsm_mlx5::command::{CommandError, Commands};
use vfio_fsm_mlx5::dma::{DmaBuffer, DmaSpace};
use vfio_fsm_mlx5::firmware::{Checks, Config, Counts, VhcaConfig, VhcaStatus};
use vfio_fsm_mlx5::layout::*;
use vfio_fsm_mlx5::software::Software;

use super::Choices;

const VHCA: u16 = 0x1234;
/// Memory that commands may be about. It is the first there is, so that its address is always the
/// same.
const ARENA: usize = 64 << 10;
/// A script longer than this only takes longer.
const MOST_STEPS: usize = 64;
const MOST_OUTPUT: u16 = 4200;

/// A firmware that is up, and memory beside it.
struct Bench {
    software: Software,
    space: DmaSpace,
    arena: DmaBuffer,
}

/// What a command must not change unless it succeeds.
#[derive(Debug, PartialEq)]
struct Seen {
    counts: Counts,
    status: VhcaStatus,
    digest: u64,
}

/// The first byte says how the firmware is, the rest is a script: commands, and what happens beside
/// them.
pub fn check(input: &[u8]) {
    let mut script = Choices(input);
    let mut bench = Bench::new(script.byte());
    for _ in 0..MOST_STEPS {
        if script.is_empty() {
            break;
        }
        match script.byte() % 8 {
            0..=3 => bench.command(&mut script),
            4 => bench.write(&mut script),
            5 => bench.act(&mut script),
            _ => bench.raw(&mut script),
        }
    }
}

impl Bench {
    fn new(how: u8) -> Self {
        let space = DmaSpace::new(64 << 20);
        let arena = space.allocate(ARENA).expect("there is memory");
        let checks = if how & 1 == 0 { Checks::STRICT } else { Checks::LENIENT };
        let vhca = VhcaConfig { image_bytes: 9_999, ..VhcaConfig::default() };
        let config = Config { checks, chunks: how & 2 != 0, log_entries: 0, ..Config::of(vhca) };
        let software = Software::new(config, space.clone()).expect("a firmware");
        Self { software, space, arena }
    }

    fn see(&self) -> Seen {
        let vhca = self.software.vhca();
        let counts = self.software.firmware().counts();
        Seen { counts, status: vhca.status(), digest: vhca.digest() }
    }

    /// A command as the driver's queue gives it.
    fn command(&mut self, script: &mut Choices<'_>) {
        let (len, room) = (script.short() % 1024, 8 + script.short() % MOST_OUTPUT);
        let mut input = script.bytes(len.into()).to_vec();
        input.resize(input.len().max(8), 0);
        let before = self.see();
        let opcode = CommandIn::new(&input[..]).map(|header| header.opcode());
        let result = self.software.commands().execute(&input, &mut vec![0; room.into()]);
        match result {
            Ok(()) => {}
            Err(CommandError::Status { .. }) => {
                let mut after = self.see();
                if super::PLANTED && after.counts.cqs == 1 {
                    // A firmware that loses a queue when it refuses something.
                    after.counts.cqs = 0;
                }
                spare(opcode, &before, &mut after);
                assert_eq!(before, after, "{opcode:?} was refused ({result:?}), and changed this");
            }
            Err(other) => panic!("{opcode:?} has no answer: {other}"),
        }
    }

    /// Bytes in the arena.
    fn write(&mut self, script: &mut Choices<'_>) {
        let (at, len) = (usize::from(script.short()), usize::from(script.byte()));
        let bytes = script.bytes(len.min(ARENA - at));
        self.arena.write(at, bytes).expect("it is inside");
    }

    /// What happens beside the driver.
    fn act(&mut self, script: &mut Choices<'_>) {
        let (what, with) = (script.byte(), script.short());
        let (vhca, with) = (self.software.vhca(), u64::from(with));
        match what % 6 {
            0 => vhca.touch(with as u8),
            1 => vhca.flr(),
            2 => vhca.dma_written(with << 12, with & 0xff_fff),
            3 => vhca.dirty(with),
            4 => self.software.firmware().tick(with),
            _ => self.software.firmware().fail_trackers(with & 1 == 0),
        }
    }

    /// 64 bytes in a slot of the queue, which no driver would write, and the doorbell.
    fn raw(&mut self, script: &mut Choices<'_>) {
        let slot = script.byte() % 32;
        let mut entry = [0; CmdQueueEntry::BYTES];
        let bytes = script.bytes(entry.len());
        entry[..bytes.len()].copy_from_slice(bytes);
        // The queue is what was allocated next.
        let at = self.arena.iova() + ARENA as u64 + u64::from(slot) * entry.len() as u64;
        self.space.write(at, &entry).expect("the queue is there");
        self.software.firmware().write32(bar::COMMAND_DOORBELL, 1 << slot);
        let heard = entry[63] & 1 == 1;
        self.space.read(at, &mut entry).expect("the queue is there");
        if heard {
            assert_eq!(entry[63] & 1, 0, "a command in slot {slot} has no answer");
            assert_eq!(entry.iter().fold(0, |sum, byte| sum ^ byte), 0xff, "not signed");
        }
        self.space.write(at, &[0; CmdQueueEntry::BYTES]).expect("the queue is there");
    }
}

/// What a refused command may change all the same.
fn spare(opcode: Result<Opcode, LayoutError>, before: &Seen, after: &mut Seen) {
    let (saves, loads) = (opcode == Ok(Opcode::SaveVhcaState), opcode == Ok(Opcode::LoadVhcaState));
    if saves || loads {
        (after.status.tracked, after.status.unsaved_bytes) =
            (before.status.tracked, before.status.unsaved_bytes);
    }
    if loads {
        after.digest = before.digest;
    }
}

/// Scripts to begin with: a migration, and a page tracker's life.
pub fn seeds() -> Vec<(&'static str, Vec<u8>)> {
    let mut seeds = Vec::new();
    for (how, migration, tracker) in [
        (0, "migration", "tracker"),
        (1, "migration-lenient", "tracker-lenient"),
        (2, "migration-chunks", "tracker-chunks"),
    ] {
        seeds.push((migration, script(how, &self::migration())));
        seeds.push((tracker, script(how, &self::tracker())));
    }
    let act = [[0, 0, 5, 0, 9, 0], [0, 0, 5, 3, 0, 16], [0, 0, 5, 2, 1, 0]].concat();
    seeds.push(("raw", [&[0, 6, 1, 7], &[0; 59][..], &[1], &act].concat()));
    seeds
}

fn script(how: u8, commands: &[Vec<u8>]) -> Vec<u8> {
    let mut bytes = vec![how];
    for command in commands {
        bytes.push(0);
        bytes.extend((command.len() as u16).to_le_bytes());
        bytes.extend((64_u16 - 8).to_le_bytes());
        bytes.extend(command);
    }
    bytes
}

/// Where the arena always is.
fn arena() -> u64 {
    DmaSpace::new(1 << 20).allocate(1).expect("there is memory").iova()
}

/// A key, number 1, over the arena.
fn create_mkey() -> Vec<u8> {
    let pages = ARENA / 4096;
    let mut bytes = vec![0; CreateMkeyIn::BYTES + pages * 8];
    let mut input = CreateMkeyIn::new(&mut bytes[..]).expect("as long as it is");
    let octwords = pages.div_ceil(2) as u32;
    input.set_opcode(Opcode::CreateMkey).set_translations_octword_actual_size(octwords);
    let mut context = input.memory_key_mkey_entry_mut();
    context.set_access_mode(MkeyAccessMode::Mtt).set_lr(true).set_lw(true).set_qpn(0xff_ffff);
    context.set_pd(1).set_len(ARENA as u64).set_log_page_size(12);
    context.set_translations_octword_size(octwords);
    for (n, page) in input.klm_pas_mtt_mut().as_chunks_mut::<8>().0.iter_mut().enumerate() {
        *page = (arena() + n as u64 * 4096).to_be_bytes();
    }
    bytes
}

fn migration() -> Vec<Vec<u8>> {
    let query = |incremental| {
        let mut input = QueryVhcaMigrationStateIn::command();
        input.set_incremental(incremental).set_vhca_id(VHCA);
        input.as_bytes().to_vec()
    };
    let save = |incremental, track| {
        let mut input = SaveVhcaStateIn::command();
        input.set_incremental(incremental).set_set_track(track).set_vhca_id(VHCA);
        input.set_mkey(1 << 8).set_size(12288);
        input.as_bytes().to_vec()
    };
    let suspend = |side| {
        let mut input = SuspendVhcaIn::command();
        input.set_op_mod(side).set_vhca_id(VHCA);
        input.as_bytes().to_vec()
    };
    let resume = |side| {
        let mut input = ResumeVhcaIn::command();
        input.set_op_mod(side).set_vhca_id(VHCA);
        input.as_bytes().to_vec()
    };
    let mut load = LoadVhcaStateIn::command();
    load.set_vhca_id(VHCA).set_mkey(1 << 8).set_size(9_999);
    vec![
        AllocPdIn::command().as_bytes().to_vec(),
        create_mkey(),
        query(false),
        save(false, true),
        query(true),
        save(true, true),
        suspend(SuspendOpMod::Initiator),
        suspend(SuspendOpMod::Responder),
        save(false, false),
        load.as_bytes().to_vec(),
        resume(ResumeOpMod::Responder),
        resume(ResumeOpMod::Initiator),
        DestroyMkeyIn::command().set_mkey_index(1).as_bytes().to_vec(),
        DeallocPdIn::command().set_pd(1).as_bytes().to_vec(),
    ]
}

fn tracker() -> Vec<Vec<u8>> {
    // Numbers are handed out from the first on: the UAR's is 8, all others are 1 or 2.
    let with_page =
        |bytes: &[u8], page: u64| [bytes, &(arena() + page * 4096).to_be_bytes()].concat();
    let mut eq = CreateEqIn::command();
    eq.eq_context_entry_mut().set_log_eq_size(5).set_uar_page(8);
    let mut cq = CreateCqIn::command();
    cq.cq_context_mut()
        .set_log_cq_size(3)
        .set_c_eqn_or_apu_element(1)
        .set_dbr_addr(arena() + 0x5040);
    let mut qp = CreateQpIn::command();
    let mut context = qp.qpc_mut();
    context.set_pd(1).set_cqn_rcv(1).set_no_sq(true).set_log_rq_size(3);
    context.set_dbr_addr(arena() + 0x5000);
    let mut sends = CreateQpIn::command();
    sends.qpc_mut().set_pd(1).set_cqn_rcv(1).set_no_sq(true).set_rq_type(3);
    let moved = |opcode, qpn, peer| {
        let mut input = Init2RtrQpIn::command();
        input.set_opcode(opcode).set_qpn(qpn).qpc_mut().set_remote_qpn(peer);
        input.as_bytes().to_vec()
    };
    let object = |opcode| {
        let mut input = GeneralObjInCmdHdr::zeroed();
        input.set_opcode(opcode).set_obj_type(ObjectType::PageTrack).set_obj_id(1);
        input.as_bytes().to_vec()
    };
    let mut modify = ModifyPageTrackObjIn::zeroed();
    modify
        .general_obj_in_cmd_hdr_mut()
        .set_opcode(Opcode::ModifyGeneralObject)
        .set_obj_type(ObjectType::PageTrack)
        .set_obj_id(1);
    modify
        .obj_context_mut()
        .set_modify_field_select(3)
        .set_state(PageTrackState::Reporting)
        .set_length(1 << 20);
    vec![
        AllocPdIn::command().as_bytes().to_vec(),
        AllocUarIn::command().as_bytes().to_vec(),
        create_mkey(),
        with_page(eq.as_bytes(), 0),
        with_page(cq.as_bytes(), 1),
        with_page(qp.as_bytes(), 2),
        sends.as_bytes().to_vec(),
        moved(Opcode::Rst2InitQp, 1, 0),
        moved(Opcode::Init2RtrQp, 1, 2),
        moved(Opcode::Rst2InitQp, 2, 0),
        moved(Opcode::Init2RtrQp, 2, 1),
        moved(Opcode::Rtr2RtsQp, 2, 0),
        create_tracker(),
        modify.as_bytes().to_vec(),
        object(Opcode::QueryGeneralObject),
        object(Opcode::DestroyGeneralObject),
    ]
}

/// Of the first MiB, by the queue pair number 2.
fn create_tracker() -> Vec<u8> {
    let mut input = CreatePageTrackObjIn::zeroed();
    input
        .general_obj_in_cmd_hdr_mut()
        .set_opcode(Opcode::CreateGeneralObject)
        .set_obj_type(ObjectType::PageTrack);
    let mut object = input.obj_context_mut();
    object.set_vhca_id(VHCA).set_track_type(1).set_log_addr_space_size(33).set_log_page_size(12);
    object.set_log_msg_size(12).set_reporting_qpn(2).set_num_ranges(1);
    [input.as_bytes(), &0_u64.to_be_bytes(), &(1_u64 << 20).to_be_bytes()].concat()
}
