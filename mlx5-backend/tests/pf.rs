// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! What of a physical function can be had without one: its registers over plain memory, and what is
//! refused.

use std::fs::{self, File};
use std::os::unix::fs::FileExt;

use nix::sys::memfd::{MFdFlags, memfd_create};
use vfio_fsm_mlx5::bar::Registers;
use vfio_fsm_mlx5::pf::{Mapping, PfError, PhysicalFunction};

/// M39: Registers are big-endian dwords, at their offsets; what is outside, or across two, reads as
/// ones, and is written nowhere.
#[test]
fn registers_are_big_endian_and_bounded() {
    let file = File::from(memfd_create(c"bar0", MFdFlags::empty()).unwrap());
    file.set_len(3 * 4096).unwrap();
    file.write_all_at(&[0x12, 0x34, 0x56, 0x78], 4096 + 0x1fc).unwrap();
    let bar = Mapping::new(&file, 4096, 4096).unwrap();
    assert_eq!(bar.read32(0x1fc), 0x1234_5678);

    bar.write32(0x18, 0x8000_0001);
    let mut bytes = [0; 4];
    file.read_exact_at(&mut bytes, 4096 + 0x18).unwrap();
    assert_eq!(bytes, [0x80, 0, 0, 1]);

    for offset in [4096, 4093, 4094, 1, 2, 3, usize::MAX, usize::MAX - 3] {
        bar.write32(offset, 0x5555_5555);
        assert_eq!(bar.read32(offset), u32::MAX, "{offset:#x}");
    }
    bar.write32(4092, 7);
    assert_eq!(bar.read32(4092), 7);
    let mut all = vec![0; 3 * 4096];
    file.read_exact_at(&mut all, 0).unwrap();
    let written: Vec<_> = (0..all.len()).filter(|at| all[*at] != 0).collect();
    let expected = [0x18, 0x1b, 0x1fc, 0x1fd, 0x1fe, 0x1ff, 4095].map(|at| 4096 + at);
    assert_eq!(written, expected);
}

/// M39: What cannot be mapped is an error of the system.
#[test]
fn no_mapping() {
    let file = File::from(memfd_create(c"bar0", MFdFlags::empty()).unwrap());
    assert!(Mapping::new(&file, 0, 0).is_err());
    assert!(Mapping::new(&file, 1, 4096).is_err());
    assert!(Mapping::new(&file, u64::MAX, 4096).is_err());
}

/// M39: Only a function of the right vendor is opened, and whatever is in the way is said.
#[test]
fn what_is_refused() {
    let directory = std::env::temp_dir().join(format!("vfio-fsm-mlx5-pf-{}", std::process::id()));
    fs::create_dir_all(&directory).unwrap();
    let open = || PhysicalFunction::open(&directory, 1 << 20).map(drop).unwrap_err();
    assert!(matches!(open(), PfError::NoSuchDevice { .. }));
    for vendor in ["0x8086\n", "0x15b\n", "15b3\n", "", "0x15b30\n"] {
        fs::write(directory.join("vendor"), vendor).unwrap();
        let error = open();
        let PfError::NotMlx5 { vendor: seen, .. } = &error else { panic!("{error}") };
        assert_eq!(seen, vendor.trim());
        assert!(error.to_string().contains("0x15b3"), "{error}");
    }
    fs::write(directory.join("vendor"), "0x15b3\n").unwrap();
    // Nothing is bound to VFIO there, whether or not this machine has VFIO.
    let error = open();
    assert!(matches!(error, PfError::Vfio { .. }), "{error}");
    assert!(error.to_string().contains("vfio-pci"), "{error}");
    fs::remove_dir_all(&directory).unwrap();
}
