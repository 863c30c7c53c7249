// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! A distribution's libmlx5 on the firmware in software.
//!
//! These tests need a C compiler and the packages of [`PACKAGES`], unpacked into one directory, so
//! they are ignored unless asked for:
//!
//! ```text
//! LIBMLX5=…/unpacked cargo test -p vfio-fsm-mlx5 --features verify --test libmlx5 -- --ignored
//! ```
//!
//! [`PACKAGES`]: vfio_fsm_mlx5::verify::libmlx5::PACKAGES
#![expect(clippy::unwrap_used, clippy::expect_used, reason = "these are tests")]

use std::path::{Path, PathBuf};

use vfio_fsm_mlx5::command::{CommandError, Commands};
use vfio_fsm_mlx5::dma::DmaSpace;
use vfio_fsm_mlx5::firmware::{Checks, Config, Firmware};
use vfio_fsm_mlx5::layout::{
    AllocPdIn, AllocPdOut, CreateMkeyIn, CreateMkeyOut, MkeyAccessMode, SaveVhcaStateIn,
    SaveVhcaStateOut, SuspendOpMod, SuspendVhcaIn, SuspendVhcaOut,
};
use vfio_fsm_mlx5::queue::{Hca, Options};
use vfio_fsm_mlx5::verify::libmlx5::{Programs, Slip, rate};

/// Programs, and the directory that they are in, which is gone with the value.
struct Compiled(PathBuf, Programs);

impl Compiled {
    fn new(test: &str) -> Self {
        let packages = std::env::var_os("LIBMLX5").expect("LIBMLX5: where the packages are");
        let out = std::env::temp_dir().join(format!("libmlx5-{test}-{}", std::process::id()));
        let programs = Programs::compile(Path::new(&packages), "cc", &out).unwrap();
        Self(out, programs)
    }
}

impl Drop for Compiled {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

/// M123, M124, M125, M126, M127, M128: libmlx5, as it is, brings a function up and down on the
/// firmware, with pages, events and memory regions, and migrates a VHCA by the five commands.
#[test]
#[ignore = "needs the packages of libmlx5"]
fn libmlx5_drives_the_firmware() {
    let report = Compiled::new("checks").1.run(None).unwrap();
    assert!(report.agrees(), "{report}");
    assert!(report.commands > 1500 && report.checks.len() > 100, "{report}");
}

/// M129: one bit wrong in between is noticed, whichever it is.
#[test]
#[ignore = "needs the packages of libmlx5"]
fn each_slip_is_noticed() {
    let compiled = Compiled::new("slips");
    for (about, report) in compiled.1.run_slips().unwrap() {
        assert!(!report.agrees(), "{about} is not noticed");
    }
    // One that changes nothing is not: no answer has so many bytes.
    let nothing = Slip::Output(vfio_fsm_mlx5::layout::Opcode::AllocPd, 1 << 20);
    assert!(compiled.1.run(Some(nothing)).unwrap().agrees());
}

/// M130: the rate is measured in rounds that come in turn.
#[test]
#[ignore = "needs the packages of libmlx5"]
fn rounds_come_in_turn() {
    let rate = rate(&Compiled::new("rate").1, 2, 200).unwrap();
    assert_eq!((rate.rounds.len(), rate.commands), (2, 200));
    assert!(rate.ratio() > 0.0);
}

/// M131: a memory key begins at the same place in its page as its address does, as with libmlx5,
/// whose regions are larger pages with something before them.
#[test]
fn a_memory_key_begins_inside_of_its_page() {
    let dma = DmaSpace::new(64 << 20);
    let checks = Checks { block_signatures: false, ..Checks::STRICT };
    let firmware = Firmware::new(Config { checks, ..Config::default() }, dma.clone()).unwrap();
    let hca = Hca::bring_up(firmware, dma.clone(), Options::default()).unwrap();
    for side in [SuspendOpMod::Initiator, SuspendOpMod::Responder] {
        let mut suspend = SuspendVhcaIn::command();
        suspend.set_op_mod(side).set_vhca_id(0x1234);
        hca.execute(suspend.as_bytes(), SuspendVhcaOut::zeroed().as_bytes_mut()).unwrap();
    }
    let mut pd = AllocPdOut::zeroed();
    hca.execute(AllocPdIn::command().as_bytes(), pd.as_bytes_mut()).unwrap();

    // Four pages of 4096 for three pages' worth of bytes that begin at 256 in the first.
    let (lead, bytes) = (256, 3 * 4096_u32);
    let memory = dma.allocate(4 * 4096).unwrap();
    let start = 0x7000_0000 + lead as u64;
    let mut create = CreateMkeyIn::command().as_bytes().to_vec();
    for page in 0..4 {
        create.extend((memory.iova() + page * 4096).to_be_bytes());
    }
    let mut view = CreateMkeyIn::new(&mut create[..]).unwrap();
    view.set_translations_octword_actual_size(2);
    view.memory_key_mkey_entry_mut()
        .set_access_mode(MkeyAccessMode::Mtt)
        .set_lw(true)
        .set_pd(pd.pd())
        .set_start_addr(start)
        .set_len(bytes.into())
        .set_log_page_size(12);
    let mut key = CreateMkeyOut::zeroed();
    hca.execute(&create, key.as_bytes_mut()).unwrap();

    let save = |va| {
        let mut save = SaveVhcaStateIn::command();
        save.set_vhca_id(0x1234).set_va(va).set_size(bytes).set_mkey(key.mkey_index() << 8);
        let mut saved = SaveVhcaStateOut::zeroed();
        hca.execute(save.as_bytes(), saved.as_bytes_mut())?;
        Ok(saved.actual_image_size() as usize)
    };
    let refused: Result<usize, CommandError> = save(start - 1);
    assert!(matches!(refused, Err(CommandError::Status { .. })), "{refused:?}");
    let image = save(start).unwrap();
    let mut seen = vec![0; 4 * 4096];
    memory.read(0, &mut seen).unwrap();
    assert!(seen[..lead].iter().all(|byte| *byte == 0), "something is before the beginning");
    assert!(seen[lead..lead + 64].iter().any(|byte| *byte != 0), "nothing is at the beginning");
    assert!(seen[lead + image..].iter().all(|byte| *byte == 0), "something is after the end");
    assert_eq!(image, 9_999);
}
