// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! What a software firmware is like.

use std::collections::BTreeMap;

use super::vhca::IMAGE_HEADER;
use crate::layout::Opcode;

/// A physical function and its virtual ones.
///
/// Time is virtual and counted in ticks. Driven by its registers, a firmware lets one tick pass
/// with every register that is read, and as many as [`Firmware::tick`](super::Firmware::tick) is
/// told; driven by a thread, one a microsecond.
#[derive(Clone, Debug)]
pub struct Config {
    /// The virtual functions; the first is function 1.
    pub vhcas: Vec<VhcaConfig>,
    /// What is checked of what the driver sends.
    pub checks: Checks,
    /// Somebody else has brought the physical function up already: up to INIT_HCA, and with pages.
    pub initialised: bool,
    /// So many ticks after the start, the firmware is ready for commands.
    pub initializing_ticks: u64,
    /// Pages it wants before it answers anything but what brings it up, as QUERY_PAGES says.
    pub boot_pages: u32,
    /// Pages it wants before INIT_HCA.
    pub init_pages: u32,
    /// The logarithm of the number of slots, at most 5.
    pub log_slots: u8,
    /// Capability migration_in_chunks.
    pub chunks: bool,
    /// Capability migration_state, of firmware since 2026.
    pub migration_state: bool,
    /// Capability adv_virtualization: page tracking.
    pub page_tracking: bool,
    /// How many ticks a command takes; 0 for one that is not here.
    pub latency: BTreeMap<u16, u64>,
    /// So many commands are kept in the log; older ones are forgotten.
    pub log_entries: usize,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            vhcas: vec![VhcaConfig::default()],
            checks: Checks::STRICT,
            initialised: false,
            initializing_ticks: 0,
            boot_pages: 16,
            init_pages: 64,
            log_slots: 5,
            chunks: false,
            migration_state: true,
            page_tracking: true,
            latency: BTreeMap::new(),
            log_entries: 4096,
        }
    }
}

impl Config {
    /// One virtual function of this kind, behind a physical function that is up.
    pub fn of(vhca: VhcaConfig) -> Self {
        Self { vhcas: vec![vhca], initialised: true, ..Self::default() }
    }

    /// With chunk mode.
    #[must_use]
    pub fn with_chunks(mut self) -> Self {
        self.chunks = true;
        self
    }

    /// With a command that takes so many ticks.
    #[must_use]
    pub fn with_latency(mut self, opcode: Opcode, ticks: u64) -> Self {
        self.latency.insert(opcode.into(), ticks);
        self
    }

    pub(super) fn check(&self) -> Result<(), ConfigError> {
        if self.log_slots > 5 {
            return Err(ConfigError::Slots { log_slots: self.log_slots });
        }
        for (n, vhca) in self.vhcas.iter().enumerate() {
            if vhca.image_bytes < IMAGE_HEADER as u64 {
                return Err(ConfigError::ImageBytes {
                    vhca_id: vhca.vhca_id,
                    bytes: vhca.image_bytes,
                });
            }
            let twice = self.vhcas[..n].iter().any(|other| other.vhca_id == vhca.vhca_id);
            if twice || vhca.vhca_id == PF_VHCA_ID {
                return Err(ConfigError::VhcaId { vhca_id: vhca.vhca_id });
            }
        }
        Ok(())
    }
}

/// The physical function's own vhca_id.
pub const PF_VHCA_ID: u16 = 0;

/// A virtual function.
#[derive(Clone, Debug)]
pub struct VhcaConfig {
    /// What migration commands call it. Not 0.
    pub vhca_id: u16,
    /// Bytes of a full image, of which [`IMAGE_HEADER`] are not state. Source and destination must
    /// have the same.
    pub image_bytes: u64,
    /// What the state is computed from: two fresh VHCAs of different seeds differ in every block.
    pub seed: u64,
    /// Bytes that it dirties in one tick while it is running.
    pub dirty_rate: u64,
    /// How many ticks it takes to move 1 MiB of image.
    pub ticks_per_mib: u64,
    /// It was enabled when the virtual functions were made.
    pub enabled: bool,
    /// It is migratable without the PF having set it so.
    pub migratable: bool,
    /// LOAD notices when an image's contents have changed on the way.
    pub checks_images: bool,
}

impl Default for VhcaConfig {
    fn default() -> Self {
        Self {
            vhca_id: 0x1234,
            image_bytes: 9_999,
            seed: 1,
            dirty_rate: 0,
            ticks_per_mib: 0,
            enabled: true,
            migratable: true,
            checks_images: true,
        }
    }
}

impl VhcaConfig {
    pub(super) fn state_bytes(&self) -> u64 {
        self.image_bytes.saturating_sub(IMAGE_HEADER as u64)
    }
}

/// What is checked of what the driver sends. What the two drivers in use do differently, and so
/// cannot be required of each, is off in [`LENIENT`](Self::LENIENT).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Checks {
    /// The queue entry is signed.
    pub entry_signature: bool,
    /// Each mailbox block is signed, twice.
    pub block_signatures: bool,
    /// Reserved fields of queue entries and commands are zero.
    pub reserved: bool,
    /// An input is exactly as long as its structure.
    pub lengths: bool,
}

impl Checks {
    /// Everything.
    pub const STRICT: Self =
        Self { entry_signature: true, block_signatures: true, reserved: true, lengths: true };
    /// What rdma-core's driver passes, too: it signs nothing, and knows older structures.
    pub const LENIENT: Self =
        Self { entry_signature: false, block_signatures: false, reserved: false, lengths: false };
}

/// A configuration that cannot be.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ConfigError {
    /// An image has a header.
    #[error(
        "VHCA {vhca_id:#06x} is to have an image of {bytes} bytes; the header alone has \
         {IMAGE_HEADER}"
    )]
    ImageBytes {
        /// Of which VHCA.
        vhca_id: u16,
        /// What was asked for.
        bytes: u64,
    },
    /// Commands could not tell them apart.
    #[error("vhca_id {vhca_id:#06x} is given twice, or is the physical function's; choose another")]
    VhcaId {
        /// Which one.
        vhca_id: u16,
    },
    /// The doorbell has 32 bits.
    #[error("a queue of 2^{log_slots} slots; there are at most 2^5")]
    Slots {
        /// What was asked for.
        log_slots: u8,
    },
    /// The system gives no memory for BAR0.
    #[error("no memory for BAR0: {errno}")]
    Bar {
        /// What it said.
        errno: vfio_fsm_core::Errno,
    },
}
