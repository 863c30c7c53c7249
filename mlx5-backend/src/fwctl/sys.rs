// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! The two ioctls of fwctl.

use std::fs::File;
use std::io;
use std::os::fd::AsRawFd;

use vfio_fsm_core::Errno;

/// `_IO(FWCTL_TYPE, 0)` and `_IO(FWCTL_TYPE, 1)`, the type being 0x9a: no size, no direction.
const FWCTL_INFO: u32 = 0x9a00;
const FWCTL_RPC: u32 = 0x9a01;
/// `FWCTL_RPC_DEBUG_READ_ONLY`.
const DEBUG_READ_ONLY: u32 = 1;

/// `struct fwctl_info`.
#[repr(C)]
struct FwctlInfo {
    size: u32,
    flags: u32,
    out_device_type: u32,
    device_data_len: u32,
    out_device_data: u64,
}

/// `struct fwctl_info_mlx5`.
#[repr(C)]
#[derive(Default)]
struct FwctlInfoMlx5 {
    uid: u32,
    uctx_caps: u32,
}

/// `struct fwctl_rpc`.
#[repr(C)]
struct FwctlRpc {
    size: u32,
    scope: u32,
    in_len: u32,
    out_len: u32,
    input: u64,
    output: u64,
}

/// What a node is.
pub(super) struct Info {
    pub(super) device_type: u32,
    /// 0 of one that is not mlx5's.
    pub(super) uid: u32,
}

pub(super) fn info(node: &File) -> Result<Info, Errno> {
    let mut data = FwctlInfoMlx5::default();
    let mut info = FwctlInfo {
        size: size_of::<FwctlInfo>() as u32,
        flags: 0,
        out_device_type: 0,
        device_data_len: size_of::<FwctlInfoMlx5>() as u32,
        out_device_data: (&raw mut data).expose_provenance() as u64,
    };
    // SAFETY: the structure is the one that this ioctl takes, with its size in it; it leads to
    // `data`, of which the kernel writes as many bytes as it says, and which is numbers only.
    check(unsafe { libc::ioctl(node.as_raw_fd(), FWCTL_INFO as _, &raw mut info) })?;
    Ok(Info { device_type: info.out_device_type, uid: data.uid })
}

/// A command that changes nothing. How many bytes of answer the driver had; no more than fit were
/// written.
pub(super) fn read_only_rpc(node: &File, input: &[u8], output: &mut [u8]) -> Result<u32, Errno> {
    let len = |bytes: usize| u32::try_from(bytes).map_err(|_too_long| Errno::EINVAL);
    let mut rpc = FwctlRpc {
        size: size_of::<FwctlRpc>() as u32,
        scope: DEBUG_READ_ONLY,
        in_len: len(input.len())?,
        out_len: len(output.len())?,
        input: input.as_ptr().expose_provenance() as u64,
        output: output.as_mut_ptr().expose_provenance() as u64,
    };
    // SAFETY: the structure is the one that this ioctl takes, with its size in it; the kernel reads
    // `in_len` bytes of `input` and writes at most `out_len` of `output`, both of which outlive it.
    check(unsafe { libc::ioctl(node.as_raw_fd(), FWCTL_RPC as _, &raw mut rpc) })?;
    Ok(rpc.out_len)
}

fn check(result: libc::c_int) -> Result<(), Errno> {
    match result {
        -1 => Err(io::Error::last_os_error().raw_os_error().map_or(Errno::EIO, Errno)),
        _ => Ok(()),
    }
}
