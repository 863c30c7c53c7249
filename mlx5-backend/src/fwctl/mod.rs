// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! What a kernel lets user space ask the firmware of a physical function that it owns.
//!
//! Of the migration commands that is one, QUERY_VHCA_MIGRATION_STATE, by way of
//! `/dev/fwctl/fwctlN` of Linux 6.15 and later (module mlx5_fwctl). It goes with the scope
//! DEBUG_READ_ONLY, the least there is that the kernel's driver lets it through with
//! (`mlx5ctl_validate_rpc()` in drivers/fwctl/mlx5/main.c): nothing that this module sends changes a
//! device. SUSPEND, RESUME, SAVE and LOAD are let through with none.
//!
//! It is a look beside the kernel's driver: how large the state of a VF is, and what it is in, while
//! mlx5_vfio_pci migrates it or before.
//!
//! ```no_run
//! use std::path::Path;
//! use vfio_fsm_mlx5::fwctl::{self, Fwctl};
//!
//! let pf = Path::new("/sys/bus/pci/devices/0000:3b:00.0");
//! let fwctl = Fwctl::open(&fwctl::node_of(pf)?)?;
//! let seen = fwctl.migration_state(0x1234, false)?;
//! println!("{}: {} bytes", seen.state, seen.required);
//! # Ok::<(), vfio_fsm_mlx5::fwctl::FwctlError>(())
//! ```
//!
//! # What is not known
//!
//! This was not run on hardware. The structures are those of the kernel's uAPI as it is documented
//! (include/uapi/fwctl/fwctl.h and mlx5.h); the tests hold them against a double at libc's `ioctl`.
//! Whether a firmware answers the command to a user context, is for the firmware to say.

#[expect(unsafe_code, reason = "ioctl has no safe wrapper for fwctl")]
mod sys;

use std::fs::{self, File, OpenOptions};
use std::io;
use std::path::{Path, PathBuf};

use vfio_fsm_core::Errno;

use crate::command::CommandError;
use crate::layout::{
    CommandStatus, MigrationState, Opcode, QueryVhcaMigrationStateIn, QueryVhcaMigrationStateOut,
};

/// `FWCTL_DEVICE_TYPE_MLX5`.
const MLX5: u32 = 1;

/// Nothing could be asked, or nothing was answered.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum FwctlError {
    /// The function has no fwctl device.
    #[error(
        "{} has no fwctl: `modprobe mlx5_fwctl`, on Linux 6.15 or later with \
         CONFIG_FWCTL_MLX5", .pf.display()
    )]
    None {
        /// The physical function's directory in sysfs.
        pf: PathBuf,
    },
    /// The node does not open.
    #[error("cannot open {}: {source}; run as root, or see `ls /dev/fwctl`", .node.display())]
    Open {
        /// Which.
        node: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// The node is another vendor's.
    #[error("{} is of fwctl type {seen}, and mlx5 is {MLX5}; take another", .node.display())]
    NotMlx5 {
        /// Which.
        node: PathBuf,
        /// `out_device_type`.
        seen: u32,
    },
    /// The kernel did not do what was asked.
    #[error("{call} failed with {errno}; {}", advice(*errno))]
    Kernel {
        /// `FWCTL_INFO` or `FWCTL_RPC`.
        call: &'static str,
        /// What the ioctl said.
        errno: Errno,
    },
    /// There is less of an answer than the command has.
    #[error("the kernel answers {len} bytes of {}", QueryVhcaMigrationStateOut::BYTES)]
    Short {
        /// How many.
        len: u32,
    },
    /// The firmware refused the command.
    #[error(transparent)]
    Command(#[from] CommandError),
}

const fn advice(errno: Errno) -> &'static str {
    match errno.0 {
        libc::ENOTTY => "is the node one of fwctl's?",
        libc::EBADMSG => "this kernel's driver does not let the command through",
        libc::ENODEV => "the function is gone: open it anew",
        libc::EPERM => "the scope needs more rights: run as root",
        _ => "see dmesg",
    }
}

/// The node of a physical function, by its directory in sysfs.
///
/// # Errors
///
/// [`FwctlError::None`].
pub fn node_of(pf: &Path) -> Result<PathBuf, FwctlError> {
    let entries = fs::read_dir(pf.join("fwctl")).into_iter().flatten().flatten();
    let mut names = entries.map(|entry| entry.file_name());
    let name = names.find(|name| name.to_str().is_some_and(|name| name.starts_with("fwctl")));
    let name = name.ok_or_else(|| FwctlError::None { pf: pf.into() })?;
    Ok(Path::new("/dev/fwctl").join(name))
}

/// What the firmware says of a VHCA.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Seen {
    /// What it is in, if the firmware has the capability `migration_state`; else uninitialised.
    pub state: MigrationState,
    /// What the next SAVE needs, in bytes.
    pub required: u32,
    /// In chunk mode, what there is in all, in bytes.
    pub remaining: u64,
}

/// An open fwctl device of a physical function of mlx5.
#[derive(Debug)]
pub struct Fwctl {
    node: File,
    uid: u32,
}

impl Fwctl {
    /// Opens a node, and looks whether it is mlx5's.
    ///
    /// # Errors
    ///
    /// [`FwctlError`], as its variants say.
    pub fn open(path: &Path) -> Result<Self, FwctlError> {
        let opened = OpenOptions::new().read(true).write(true).open(path);
        let node = opened.map_err(|source| FwctlError::Open { node: path.into(), source })?;
        let info =
            sys::info(&node).map_err(|errno| FwctlError::Kernel { call: "FWCTL_INFO", errno })?;
        if info.device_type != MLX5 {
            return Err(FwctlError::NotMlx5 { node: path.into(), seen: info.device_type });
        }
        Ok(Self { node, uid: info.uid })
    }

    /// The firmware's number for whoever has this open: the kernel puts it into each command.
    pub const fn uid(&self) -> u32 {
        self.uid
    }

    /// How large the state of a VHCA is, in full; `chunked` as the capability
    /// `migration_in_chunks` has it.
    ///
    /// # Errors
    ///
    /// [`FwctlError::Kernel`] or [`FwctlError::Command`], by who refused.
    pub fn migration_state(&self, vhca_id: u16, chunked: bool) -> Result<Seen, FwctlError> {
        let mut input = QueryVhcaMigrationStateIn::command();
        input.set_chunk(chunked).set_vhca_id(vhca_id);
        let mut output = QueryVhcaMigrationStateOut::zeroed();
        let len = sys::read_only_rpc(&self.node, input.as_bytes(), output.as_bytes_mut())
            .map_err(|errno| FwctlError::Kernel { call: "FWCTL_RPC", errno })?;
        // First, because a refusal is as long as the firmware likes.
        if output.status() != CommandStatus::Ok {
            let (opcode, status) = (Opcode::QueryVhcaMigrationState, output.status());
            return Err(CommandError::Status { opcode, status, syndrome: output.syndrome() }.into());
        }
        if (len as usize) < QueryVhcaMigrationStateOut::BYTES {
            return Err(FwctlError::Short { len });
        }
        Ok(Seen {
            state: output.migration_state(),
            required: output.required_umem_size(),
            remaining: output.remaining_total_size(),
        })
    }
}
