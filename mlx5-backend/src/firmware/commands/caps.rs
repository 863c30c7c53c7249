// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! QUERY_HCA_CAP and SET_HCA_CAP.

use std::collections::BTreeMap;

use super::Outcome;
use crate::firmware::config::{Config, PF_VHCA_ID};
use crate::firmware::machine::Machine;
use crate::firmware::refusal::Syndrome;
use crate::layout::{
    AdvVirtualizationCap, CmdHcaCap, CmdHcaCap2, HcaCapUnion, QueryHcaCapIn, QueryHcaCapOut,
    SetHcaCapIn,
};

const GENERAL: u16 = 0;
const GENERAL_2: u16 = 0x20;
const ADV_VIRTUALIZATION: u16 = 0x26;
/// Types are numbered up to here; one without contents here is all zero (A-CAP-TYPES).
const END_TYPE: u16 = 0x40;

const BYTES: usize = HcaCapUnion::BYTES;

/// Limits of the page tracker: log2 of the most trackers, ranges of one, and sizes as log2.
pub(super) const TRACK_RANGES: u8 = 8;
pub(super) const TRACK_ADDR_SPACE: std::ops::RangeInclusive<u8> = 12..=52;
pub(super) const TRACK_MESSAGE: std::ops::RangeInclusive<u8> = 12..=20;
pub(super) const TRACK_PAGE: std::ops::RangeInclusive<u8> = 12..=21;

/// What the functions can do, by function and type: the most, and what is on.
pub(crate) struct Caps {
    max: BTreeMap<(u16, u16), Vec<u8>>,
    current: BTreeMap<(u16, u16), Vec<u8>>,
}

impl Caps {
    pub(crate) fn new(config: &Config) -> Self {
        let mut max = BTreeMap::new();
        max.insert((0, GENERAL), general(config, PF_VHCA_ID));
        max.insert((0, GENERAL_2), general_2(config, false));
        if config.page_tracking {
            max.insert((0, ADV_VIRTUALIZATION), adv_virtualization());
        }
        for (function, vhca) in (1..).zip(&config.vhcas) {
            max.insert((function, GENERAL), general(config, vhca.vhca_id));
            max.insert((function, GENERAL_2), general_2(config, vhca.migratable));
        }
        Self { current: max.clone(), max }
    }

    fn get(&self, function: u16, kind: u16, current: bool) -> Option<&[u8]> {
        let table = if current { &self.current } else { &self.max };
        table.get(&(function, kind)).map(Vec::as_slice)
    }

    fn set(&mut self, function: u16, kind: u16, bytes: &[u8]) {
        self.current.insert((function, kind), bytes.to_vec());
        // A-CAP-OTHER: what the PF sets for another function is also the most it then has.
        if function != 0 {
            self.max.insert((function, kind), bytes.to_vec());
        }
    }
}

impl Machine {
    pub(super) fn query_hca_cap(&self, op_mod: u16, input: &[u8], output: &mut [u8]) -> Outcome {
        let input = QueryHcaCapIn::new(input)?;
        let function = self.cap_function(input.other_function(), input.function_id())?;
        let kind = cap_type(op_mod)?;
        if let Some(bytes) = self.caps.get(function, kind, op_mod & 1 != 0) {
            let mut out = QueryHcaCapOut::new(output)?;
            out.capability_mut().as_bytes_mut().copy_from_slice(bytes);
        }
        Ok(())
    }

    /// A-CAP-SET: taken as it comes, whatever the most is.
    pub(super) fn set_hca_cap(&mut self, op_mod: u16, input: &[u8]) -> Outcome {
        let input = SetHcaCapIn::new(input)?;
        let function = self.cap_function(input.other_function(), input.function_id())?;
        let kind = cap_type(op_mod)?;
        let bytes = input.capability().into_inner();
        self.caps.set(function, kind, bytes);
        if kind == GENERAL_2
            && let Some(place) = usize::from(function).checked_sub(1)
        {
            self.vhcas[place].migratable = CmdHcaCap2::new(bytes)?.migratable();
        }
        Ok(())
    }

    /// 0 is the physical function itself.
    fn cap_function(&self, other: bool, function: u16) -> Result<u16, Syndrome> {
        match function {
            _ if !other => Ok(0),
            0 => Ok(0),
            vf if usize::from(vf) <= self.vhcas.len() => Ok(vf),
            _ => Err(Syndrome::NoFunction),
        }
    }
}

fn cap_type(op_mod: u16) -> Result<u16, Syndrome> {
    let kind = op_mod >> 1;
    if kind < END_TYPE { Ok(kind) } else { Err(Syndrome::Capability) }
}

fn general(config: &Config, vhca_id: u16) -> Vec<u8> {
    let mut bytes = vec![0; BYTES];
    if let Ok(mut caps) = CmdHcaCap::new(&mut bytes[..]) {
        caps.set_vhca_id(vhca_id)
            .set_vhca_resource_manager(vhca_id == PF_VHCA_ID)
            .set_hca_cap_2(true)
            .set_log_max_qp(16)
            .set_log_max_cq(16)
            .set_log_max_mkey(24)
            .set_log_max_eq(8)
            .set_log_max_pd(24)
            .set_log_max_msg(30)
            .set_fast_teardown(true)
            .set_port_type(1)
            .set_num_ports(1)
            .set_cmdif_checksum(3)
            .set_umem_uid_0(true)
            .set_adv_virtualization(config.page_tracking)
            .set_migration(true);
    }
    bytes
}

fn general_2(config: &Config, migratable: bool) -> Vec<u8> {
    let mut bytes = vec![0; BYTES];
    if let Ok(mut caps) = CmdHcaCap2::new(&mut bytes[..]) {
        caps.set_migratable(migratable)
            .set_migration_multi_load(true)
            .set_migration_tracking_state(true)
            .set_migration_in_chunks(config.chunks)
            .set_migration_state(config.migration_state);
    }
    bytes
}

fn adv_virtualization() -> Vec<u8> {
    let mut bytes = vec![0; BYTES];
    if let Ok(mut caps) = AdvVirtualizationCap::new(&mut bytes[..]) {
        caps.set_pg_track_log_max_num(8)
            .set_pg_track_max_num_range(TRACK_RANGES)
            .set_pg_track_log_min_addr_space(*TRACK_ADDR_SPACE.start())
            .set_pg_track_log_max_addr_space(*TRACK_ADDR_SPACE.end())
            .set_pg_track_log_min_msg_size(*TRACK_MESSAGE.start())
            .set_pg_track_log_max_msg_size(*TRACK_MESSAGE.end())
            .set_pg_track_log_min_page_size(*TRACK_PAGE.start())
            .set_pg_track_log_max_page_size(*TRACK_PAGE.end());
    }
    bytes
}
