// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! fwctl against a kernel that is played at libc's `ioctl`: what is in memory there is what a kernel
//! would find, by the offsets that the uAPI documents.
#![expect(unsafe_code, reason = "stands in for libc, and goes where addresses point to")]
#![expect(clippy::unwrap_used, reason = "a helper of a test fails as the test does")]

use std::cell::RefCell;
use std::ffi::{c_int, c_ulong, c_void};
use std::fs;
use std::path::{Path, PathBuf};

use nix::libc;
use vfio_fsm_core::Errno;
use vfio_fsm_mlx5::command::CommandError;
use vfio_fsm_mlx5::fwctl::{Fwctl, FwctlError, Seen, node_of};
use vfio_fsm_mlx5::layout::{CommandStatus, MigrationState, Opcode};

/// What a kernel does, and what it was asked.
#[derive(Clone, Default)]
struct Kernel {
    device_type: u32,
    info_errno: i32,
    rpc_errno: i32,
    /// Bytes of answer that the driver has, if not as many as there is room for.
    out_len: Option<u32>,
    answer: Vec<u8>,
    asked: Vec<Asked>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
struct Asked {
    scope: u32,
    input: Vec<u8>,
    room: u32,
}

thread_local! {
    static KERNEL: RefCell<Option<Kernel>> = const { RefCell::new(None) };
}

#[unsafe(no_mangle)]
extern "C" fn ioctl(fd: c_int, request: c_ulong, argument: *mut c_void) -> c_int {
    let played = KERNEL.with_borrow_mut(|kernel| {
        let kernel = kernel.as_mut()?;
        Some(match request {
            // SAFETY: whoever calls gives the structure of the ioctl.
            0x9a00 => unsafe { kernel.info(argument.cast()) },
            // SAFETY: the same.
            0x9a01 => unsafe { kernel.rpc(argument.cast()) },
            _ => libc::ENOTTY,
        })
    });
    match played {
        // SAFETY: passed on as it came.
        None => unsafe { libc::syscall(libc::SYS_ioctl, fd, request, argument) as c_int },
        Some(0) => 0,
        Some(errno) => {
            nix::errno::Errno::from_raw(errno).set();
            -1
        }
    }
}

/// The number at this offset of the structure.
unsafe fn get<T: Copy>(base: *const u8, offset: usize) -> T {
    // SAFETY: the caller's structure has it.
    unsafe { base.add(offset).cast::<T>().read_unaligned() }
}

unsafe fn put<T: Copy>(base: *mut u8, offset: usize, value: T) {
    // SAFETY: the caller's structure has it.
    unsafe { base.add(offset).cast::<T>().write_unaligned(value) }
}

impl Kernel {
    unsafe fn info(&self, info: *mut u8) -> i32 {
        // SAFETY: see `ioctl`.
        unsafe {
            if get::<u32>(info, 0) != 24 || get::<u32>(info, 4) != 0 {
                return libc::EINVAL;
            }
            let (len, data) = (get::<u32>(info, 12), get::<u64>(info, 16) as *mut u8);
            data.write_bytes(0, len as usize);
            if len >= 8 {
                put(data, 0, 7_u32);
                put(data, 4, 4_u32);
            }
            put(info, 8, self.device_type);
            put(info, 12, 8_u32);
        }
        self.info_errno
    }

    unsafe fn rpc(&mut self, rpc: *mut u8) -> i32 {
        // SAFETY: see `ioctl`.
        unsafe {
            if get::<u32>(rpc, 0) != 32 {
                return libc::EINVAL;
            }
            let (scope, in_len, room) = (get(rpc, 4), get::<u32>(rpc, 8), get::<u32>(rpc, 12));
            let (from, to) = (get::<u64>(rpc, 16) as *const u8, get::<u64>(rpc, 24) as *mut u8);
            let input = std::slice::from_raw_parts(from, in_len as usize).to_vec();
            self.asked.push(Asked { scope, input, room });
            let out_len = self.out_len.unwrap_or(room);
            let written = room.min(out_len) as usize;
            self.answer.resize(self.answer.len().max(written), 0);
            to.copy_from_nonoverlapping(self.answer.as_ptr(), written);
            put(rpc, 12, out_len);
        }
        self.rpc_errno
    }
}

/// Opens a file in the place of a node, and asks it.
fn ask(kernel: Kernel) -> (Result<Seen, FwctlError>, Vec<Asked>) {
    KERNEL.set(Some(kernel));
    let asked = Fwctl::open(Path::new("/dev/null")).and_then(|fwctl| {
        assert_eq!(fwctl.uid(), 7);
        fwctl.migration_state(0x1234, true)
    });
    let kernel = KERNEL.take().unwrap();
    (asked, kernel.asked)
}

fn mlx5() -> Kernel {
    Kernel { device_type: 1, ..Kernel::default() }
}

/// M176: The command goes to the kernel as the firmware wants it, with the scope of a reader, and the
/// answer is read where the firmware writes it.
#[test]
fn the_command_and_its_answer() {
    let mut answer = vec![0; 64];
    answer[0x0c] = 0x30;
    answer[0x10..0x14].copy_from_slice(&0x3000_u32.to_be_bytes());
    answer[0x18..0x20].copy_from_slice(&0x1_2345_6789_u64.to_be_bytes());
    let (seen, asked) = ask(Kernel { answer, ..mlx5() });
    let expected =
        Seen { state: MigrationState::Dirty, required: 0x3000, remaining: 0x1_2345_6789 };
    assert_eq!(seen.unwrap(), expected);
    let input = vec![1, 0x17, 0, 0, 0, 0, 0, 0, 0x40, 0, 0x12, 0x34, 0, 0, 0, 0];
    assert_eq!(asked, [Asked { scope: 1, input, room: 64 }]);
}

/// M177: Who refused is told apart: the firmware with status and syndrome, also with a short answer,
/// and the kernel with what its errno means here.
#[test]
fn refusals() {
    let mut answer = vec![0; 16];
    answer[0] = 9;
    answer[4..8].copy_from_slice(&0x51_u32.to_be_bytes());
    for out_len in [None, Some(16)] {
        let (seen, _) = ask(Kernel { answer: answer.clone(), out_len, ..mlx5() });
        let (opcode, status) = (Opcode::QueryVhcaMigrationState, CommandStatus::BadResState);
        let expected = CommandError::Status { opcode, status, syndrome: 0x51 };
        assert!(matches!(seen, Err(FwctlError::Command(error)) if error == expected));
    }
    for (errno, word) in
        [(libc::EBADMSG, "let the command through"), (libc::ENODEV, "gone"), (libc::EIO, "dmesg")]
    {
        let (seen, _) = ask(Kernel { rpc_errno: errno, ..mlx5() });
        let error = seen.unwrap_err();
        let kernel = matches!(
            error,
            FwctlError::Kernel { call: "FWCTL_RPC", errno: Errno(seen) } if seen == errno
        );
        assert!(kernel && error.to_string().contains(word), "{error}");
    }
}

/// M177: An answer that is cut is none.
#[test]
fn short_answers() {
    for len in [0, 7, 8, 63] {
        let (seen, _) = ask(Kernel { out_len: Some(len), ..mlx5() });
        let short = matches!(seen, Err(FwctlError::Short { len: seen }) if seen == len);
        assert!(short, "{seen:?}");
    }
}

/// M177: A node of somebody else's is asked nothing but what it is.
#[test]
fn nodes_of_others() {
    for device_type in [0, 2, 4] {
        let (seen, asked) = ask(Kernel { device_type, ..Kernel::default() });
        let other = matches!(seen, Err(FwctlError::NotMlx5 { seen, .. }) if seen == device_type);
        assert!(other && asked.is_empty(), "{seen:?}");
    }
    let (seen, _) = ask(Kernel { info_errno: libc::ENOTTY, ..mlx5() });
    let error = seen.unwrap_err();
    assert!(matches!(error, FwctlError::Kernel { call: "FWCTL_INFO", .. }), "{error}");
    // No world, and so the kernel itself.
    let error = Fwctl::open(Path::new("/dev/null")).unwrap_err();
    let enotty = matches!(error, FwctlError::Kernel { errno: Errno::ENOTTY, .. });
    assert!(enotty, "{error}");
    let missing = Fwctl::open(Path::new("/dev/fwctl/none")).unwrap_err();
    assert!(matches!(missing, FwctlError::Open { .. }), "{missing}");
}

/// M177: The node is the one that sysfs has below the physical function.
#[test]
fn which_node() {
    let pf = tempfile::TempDir::new().unwrap();
    let error = node_of(pf.path()).unwrap_err();
    assert!(error.to_string().contains("modprobe mlx5_fwctl"), "{error}");
    fs::create_dir_all(pf.path().join("fwctl/fwctl3")).unwrap();
    assert_eq!(node_of(pf.path()).unwrap(), PathBuf::from("/dev/fwctl/fwctl3"));
}
