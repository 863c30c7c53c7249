// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! The layouts against rows made with the kernel header's own macros.
#![expect(clippy::expect_used, reason = "a golden file that is none fails the test")]

use std::collections::BTreeSet;

use vfio_fsm_mlx5::layout::{
    AllocPdOut, CapMode, CapType, CommandIn, CommandOut, CommandStatus, CreateMkeyIn,
    DeliveryStatus, Eqe, EventType, InitialSeg, LayoutError, LoadVhcaStateIn, MigrationState, Mkc,
    MkeyAccessMode, Opcode, PageTrack, QueryHcaCapIn, QueryHcaCapOut, QueryPagesOut,
    QueryVhcaMigrationStateIn, QueryVhcaMigrationStateOut, ResumeOpMod, ResumeVhcaIn,
    SaveVhcaStateIn, Structure, SuspendOpMod, SuspendVhcaIn,
};
use vfio_fsm_mlx5::verify::golden::{self, Outcome, Row, UNNAMED};
use vfio_fsm_mlx5::verify::headers::{self, NOT_IN_HEADER};

/// Structures with golden rows that the layout does not have, each with the reason. There are none.
const NOT_DEFINED: &[(&str, &str)] = &[];

/// Fields that only kernels later than 6.12 have.
const NEWER: &[(&str, &str)] =
    &[("cmd_hca_cap_2", "migration_state"), ("query_vhca_migration_state_out", "migration_state")];

fn rows() -> Vec<Row> {
    headers::committed().expect("golden rows")
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// M1: Every golden row of a structure that is defined holds, and each that is not is listed.
#[test]
fn every_golden_row_holds() {
    let mut not_defined = BTreeSet::new();
    let mut differs = Vec::new();
    let rows = rows();
    for row in &rows {
        match row.check() {
            Outcome::Agrees => {}
            Outcome::NotDefined => drop(not_defined.insert(row.structure())),
            Outcome::Differs(how) => differs.push(how),
        }
    }
    assert!(differs.is_empty(), "{} rows differ:\n{}", differs.len(), differs.join("\n"));
    let listed: BTreeSet<&str> = NOT_DEFINED.iter().map(|(name, _)| *name).collect();
    assert_eq!(not_defined, listed, "the list of structures not defined has drifted");
    assert_eq!(rows.len(), 2638, "the golden files have other rows than they had");
}

/// M1: Every structure and every field of the layout has golden rows, or is listed with the reason.
#[test]
fn everything_defined_has_golden_rows() {
    let rows = rows();
    let described: BTreeSet<_> = rows.iter().map(|row| (row.structure(), row.field())).collect();
    let mut without_rows = BTreeSet::new();
    let mut unnamed = BTreeSet::new();
    let mut newer = BTreeSet::new();
    for structure in Structure::all() {
        if !described.contains(&(structure.name, None)) {
            without_rows.insert(structure.name);
            continue;
        }
        for field in structure.fields {
            let name = (structure.name, field.name);
            if field.newer {
                newer.insert(name);
            } else if !described.contains(&(structure.name, Some(field.name))) {
                unnamed.insert(name);
            }
        }
    }
    for (prefix, name) in headers::named_numbers() {
        assert!(described.contains(&(prefix, Some(name))), "{prefix}{name}");
    }
    assert_eq!(without_rows, NOT_IN_HEADER.iter().map(|(name, _)| *name).collect());
    assert_eq!(unnamed, UNNAMED.iter().map(|(s, f, _)| (*s, *f)).collect());
    assert_eq!(newer, NEWER.iter().copied().collect());
    let names: BTreeSet<_> = Structure::all().map(|structure| structure.name).collect();
    assert_eq!(names.len(), Structure::all().count(), "a structure is defined twice");
}

/// M1: A row that does not hold is said not to.
#[test]
fn a_wrong_row_is_seen() {
    let wrong = [
        r#"{"k":"size","s":"mkc","bytes":60}"#,
        r#"{"k":"fld","s":"mkc","f":"pd","off":104,"w":23}"#,
        r#"{"k":"fld","s":"mkc","f":"pd","off":105,"w":24}"#,
        r#"{"k":"fld","s":"mkc","f":"no_such_field","off":0,"w":1}"#,
        r#"{"k":"fld","s":"mkc","f":"reserved_at_0","off":0,"w":2}"#,
        r#"{"k":"arr","s":"create_eq_in","f":"event_bitmask","off":704,"w":64,"n":5}"#,
        r#"{"k":"sub","s":"create_eq_in","f":"eq_context_entry","t":"cqc","off":128}"#,
        r#"{"k":"sub","s":"page_track","f":"track_range","t":"mkc","off":384}"#,
        r#"{"k":"num","s":"MLX5_CMD_OP_","f":"SAVE_VHCA_STATE","n":281}"#,
        r#"{"k":"var","s":"create_eq_in","f":"pas","off":2112}"#,
        r#"{"k":"ones","s":"alloc_pd_out","f":"pd","hex":"000000000000000000ffffff00000001"}"#,
        r#"{"k":"ones","s":"alloc_pd_out","f":"pd","hex":"00000000000000000000ffff00000000"}"#,
        r#"{"k":"vec","s":"alloc_pd_in","v":{"uid":"0x1"},"hex":"00000002000000000000000000000000"}"#,
    ];
    for line in wrong {
        let row = &golden::parse(line).expect("a row")[0];
        assert!(matches!(row.check(), Outcome::Differs(_)), "{line}");
    }
    let other = golden::parse(r#"{"k":"size","s":"no_such","bytes":4}"#).expect("a row");
    assert_eq!(other[0].check(), Outcome::NotDefined);
    assert_eq!(golden::parse("{}\n").expect_err("no row").line, 1);
}

/// M2: The five migration commands are what Linux's driver sends, byte for byte.
#[test]
fn the_migration_commands_are_those_of_linux() {
    for (op_mod, golden) in [
        (SuspendOpMod::Initiator, "01150000000000000000123400000000"),
        (SuspendOpMod::Responder, "01150000000000010000123400000000"),
    ] {
        let mut command = SuspendVhcaIn::command();
        command.set_op_mod(op_mod).set_vhca_id(0x1234);
        assert_eq!(hex(command.as_bytes()), golden);
        assert_eq!(command.op_mod(), op_mod);
    }
    for (op_mod, golden) in [
        (ResumeOpMod::Responder, "01160000000000000000123400000000"),
        (ResumeOpMod::Initiator, "01160000000000010000123400000000"),
    ] {
        let mut command = ResumeVhcaIn::command();
        command.set_op_mod(op_mod).set_vhca_id(0x1234);
        assert_eq!(hex(command.as_bytes()), golden);
    }
    for (incremental, chunk, golden) in [
        (false, false, "01170000000000000000123400000000"),
        (false, true, "01170000000000004000123400000000"),
        (true, false, "01170000000000008000123400000000"),
        (true, true, "0117000000000000c000123400000000"),
    ] {
        let mut command = QueryVhcaMigrationStateIn::command();
        command.set_incremental(incremental).set_chunk(chunk).set_vhca_id(0x1234);
        assert_eq!(hex(command.as_bytes()), golden);
    }
    let mut save = SaveVhcaStateIn::command();
    save.set_incremental(true).set_set_track(true).set_vhca_id(0x1234);
    save.set_mkey(0x200).set_size(0x3000);
    let golden = "0118000000000000c00012340000000000000000000000000000020000003000";
    assert_eq!(hex(save.as_bytes()), golden);
    let mut load = LoadVhcaStateIn::command();
    load.set_vhca_id(0x1234).set_mkey(0x400).set_size(0x270f);
    let golden = "011900000000000000001234000000000000000000000000000004000000270f";
    assert_eq!(hex(load.as_bytes()), golden);
}

/// M2: Capabilities are asked for, and a memory key is made, as Linux's driver does it.
#[test]
fn capabilities_and_keys_are_those_of_linux() {
    let mut ask = QueryHcaCapIn::command();
    ask.set_other_function(true).set_function_id(1).ask(CapType::General2, CapMode::Max);
    assert_eq!(hex(ask.as_bytes()), "01000000000000408000000100000000");
    ask.ask(CapType::General, CapMode::Current);
    assert_eq!(hex(ask.as_bytes()), "01000000000000018000000100000000");
    assert_eq!(ask.asked(), (CapType::General, CapMode::Current));

    let mut key = CreateMkeyIn::command();
    let mut context = key.memory_key_mkey_entry_mut();
    context.set_access_mode(MkeyAccessMode::Mtt);
    context.set_lr(true).set_lw(true).set_rr(true).set_rw(true).set_qpn(0xff_ffff);
    context.set_log_page_size(12);
    assert_eq!(hex(&key.as_bytes()[16..24]), "00003d00ffffff00");
    assert_eq!(key.memory_key_mkey_entry().access_mode(), MkeyAccessMode::Mtt);
    let modes = MkeyAccessMode::ALL.iter().copied().chain([MkeyAccessMode::Other(0x15)]);
    for mode in modes {
        assert_eq!(Mkc::zeroed().set_access_mode(mode).access_mode(), mode);
    }
}

/// M2: What is set wider than its field leaves the fields beside it alone.
#[test]
fn a_value_too_wide_is_cut() {
    let mut key = Mkc::new([0xff; 64]).expect("long enough");
    key.set_pd(0xab00_0000).set_qpn(0x1234_5678).set_log_page_size(0xff);
    assert_eq!((key.pd(), key.qpn(), key.mkey_7_0()), (0, 0x34_5678, 0xff));
    assert_eq!((key.log_page_size(), key.relaxed_ordering_read()), (0x3f, true));
    assert_eq!(hex(&key.as_bytes()[12..16]), "ff000000");
    key.set_log_page_size(0);
    assert!(key.relaxed_ordering_read());
}

/// M3: Too few bytes are no structure, and the error says of which, how many, and how many not.
#[test]
fn too_few_bytes_are_refused() {
    let error = PageTrack::new([0; 47]).expect_err("one byte is missing");
    let expected = LayoutError::TooShort { name: "page_track", wanted: 48, got: 47 };
    assert_eq!(error, expected);
    assert_eq!(
        error.to_string(),
        "page_track has 48 bytes, but there are only 47: give the whole structure"
    );
    assert_eq!(PageTrack::new(vec![0; 64]).expect("with a range").track_range().len(), 16);
}

/// M3: Numbers without a name are kept as they are, and those with one survive both ways.
#[test]
fn codes_keep_what_they_do_not_know() {
    for number in 0..=u8::MAX {
        assert_eq!(u8::from(CommandStatus::from(number)), number);
        assert_eq!(u8::from(DeliveryStatus::from(number)), number);
    }
    for number in 0..=u16::MAX {
        assert_eq!(u16::from(Opcode::from(number)), number);
    }
    assert_eq!(CommandStatus::ALL.len(), 17);
    assert_eq!(Opcode::from(0xfff), Opcode::Other(0xfff));
    assert_eq!(Opcode::Other(0xfff).to_string(), "0xfff");
    assert_eq!(Opcode::SaveVhcaState.to_string(), "SAVE_VHCA_STATE");
    for opcode in Opcode::ALL {
        let mut bytes = [0; 8];
        CommandIn::new(&mut bytes).expect("long enough").set_opcode(*opcode);
        assert_eq!(CommandIn::new(bytes).expect("long enough").opcode(), *opcode);
    }
    let bytes = [0x09, 0, 0, 0, 0, 0xab, 0xcd, 0xef];
    let answer = CommandOut::new(&bytes).expect("long enough");
    assert_eq!((answer.status(), answer.syndrome()), (CommandStatus::BadResState, 0xab_cdef));
}

/// M3: The members of unions and the fields the header has no name for are where they should be.
#[test]
fn unions_and_unnamed_fields_are_in_their_places() {
    let mut caps = QueryHcaCapOut::zeroed();
    caps.capability_mut().cmd_hca_cap_mut().set_vhca_id(0xbeef);
    assert_eq!(caps.as_bytes()[16 + 6..16 + 8], [0xbe, 0xef]);
    caps.capability_mut().cmd_hca_cap_2_mut().set_migration_state(true);
    assert_eq!(caps.as_bytes()[16 + 0x1b], 0x40);
    caps.capability_mut().adv_virtualization_cap_mut().set_pg_track_log_max_page_size(0x1f);
    assert_eq!(caps.capability().adv_virtualization_cap().pg_track_log_max_page_size(), 0x1f);

    let mut answer = [0; 64];
    answer[0x0c] = 0x3f;
    let answer = QueryVhcaMigrationStateOut::new(answer).expect("long enough");
    assert_eq!(answer.migration_state(), MigrationState::Dirty);

    let mut event = Eqe::zeroed();
    event.set_event_type(EventType::PageRequest);
    event.page_request_mut().set_ec_function(0x8000).set_function_id(3).set_num_pages(-2);
    assert_eq!(hex(&event.as_bytes()[0x20..0x28]), "80000003fffffffe");
    assert_eq!(event.page_request().num_pages(), -2);
    assert_eq!(event.command_completion().command_completion_vector(), 0x8000_0003);
    assert_eq!(event.object_change().obj_id(), 0xffff_fffe);
    assert_eq!(QueryPagesOut::zeroed().set_num_pages(i32::MIN).num_pages(), i32::MIN);

    let mut segment = vec![0; InitialSeg::BYTES];
    segment[0x16] = 0x07;
    segment[0xff8..0x1008].copy_from_slice(&[0, 0, 0, 1, 0, 0, 0, 2, 0, 0, 0, 3, 0, 0, 0, 4]);
    let mut segment = InitialSeg::new(segment).expect("long enough");
    assert_eq!((segment.nic_interface_mode(), segment.nic_interface()), (7, 3));
    assert_eq!((segment.cmd_exec_to(), segment.cmd_q_init_to()), (1, 2));
    assert_eq!((segment.internal_timer_h(), segment.internal_timer_l()), (3, 4));
    segment.health_buffer_mut().set_assert_var([1, 2, 3, 4, 5, 6]);
    assert_eq!(segment.as_bytes()[0x200 + 20..0x200 + 24], [0, 0, 0, 6]);
}

/// M3: A structure shows what is set in it, by name.
#[test]
fn what_is_set_is_shown() {
    let mut answer = AllocPdOut::zeroed();
    answer.set_status(CommandStatus::Limits).set_pd(0x123);
    assert_eq!(format!("{answer:?}"), "AllocPdOut { status: 0x8, pd: 0x123, .. }");
}
