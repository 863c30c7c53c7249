// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! Bringing the function up and down: HCA, ISSI, pages, registers, adapter.

use std::collections::{BTreeMap, BTreeSet};

use super::{Objects, Outcome};
use crate::firmware::config::Config;
use crate::firmware::machine::Machine;
use crate::firmware::refusal::Syndrome;
use crate::layout::{
    AccessRegIn, AccessRegOpMod, DisableHcaIn, EnableHcaIn, ManagePagesIn, ManagePagesOpMod,
    ManagePagesOut, QueryAdapterOut, QueryIssiOut, QueryPagesIn, QueryPagesOpMod, QueryPagesOut,
    RegisterId, SetIssiIn, TeardownHcaIn, TeardownProfile,
};

/// ISSI 0 and 1.
const SUPPORTED_ISSI: u32 = 0b11;
/// The most pages that one function is given.
const MAX_PAGES: usize = 1 << 20;
const PAGE: u64 = 4096;

/// How far the physical function has been brought up.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Phase {
    Disabled,
    Enabled,
    Initialised,
}

/// The physical function.
pub(crate) struct Function {
    pub(crate) phase: Phase,
    issi: u16,
    /// By function: 0 is the physical one.
    pages: BTreeMap<u16, BTreeSet<u64>>,
    /// Pages asked for by event, and not given.
    wanted: u32,
    host_endianness: [u8; 16],
}

impl Function {
    pub(crate) fn new(config: &Config) -> Self {
        Self {
            phase: if config.initialised { Phase::Initialised } else { Phase::Disabled },
            issi: u16::from(config.initialised),
            pages: BTreeMap::new(),
            wanted: 0,
            host_endianness: [0; 16],
        }
    }

    pub(crate) fn page_count(&self) -> usize {
        self.pages.values().map(BTreeSet::len).sum()
    }

    pub(crate) fn want_pages(&mut self, count: u32) {
        self.wanted = self.wanted.saturating_add(count);
    }

    fn owned(&self) -> usize {
        self.pages.get(&0).map_or(0, BTreeSet::len)
    }

    fn missing(&self, needed: u32) -> u32 {
        needed.saturating_sub(self.owned() as u32)
    }
}

impl Machine {
    pub(super) fn enable_hca(&mut self, input: &[u8]) -> Outcome {
        match EnableHcaIn::new(input)?.function_id() {
            0 if self.function.phase == Phase::Disabled => self.function.phase = Phase::Enabled,
            0 => return Err(Syndrome::HcaState.into()),
            vf => self.vf(vf)?.enabled = true,
        }
        Ok(())
    }

    pub(super) fn disable_hca(&mut self, input: &[u8]) -> Outcome {
        match DisableHcaIn::new(input)?.function_id() {
            0 if self.function.phase == Phase::Enabled => self.function.phase = Phase::Disabled,
            0 => return Err(Syndrome::HcaState.into()),
            vf => self.vf(vf)?.enabled = false,
        }
        Ok(())
    }

    /// Function 1 is the first virtual one.
    fn vf(&mut self, function: u16) -> Result<&mut crate::firmware::vhca::Vhca, Syndrome> {
        let place = usize::from(function).checked_sub(1).ok_or(Syndrome::NoFunction)?;
        self.vhcas.get_mut(place).ok_or(Syndrome::NoFunction)
    }

    /// A-INIT-PAGES: only with all the pages that were asked for.
    pub(super) fn init_hca(&mut self) -> Outcome {
        if self.function.phase != Phase::Enabled {
            return Err(Syndrome::HcaState.into());
        }
        if self.function.missing(self.config.boot_pages + self.config.init_pages) > 0 {
            return Err(Syndrome::PagesMissing.into());
        }
        self.function.phase = Phase::Initialised;
        Ok(())
    }

    /// A-TEARDOWN: whatever was not destroyed is gone then.
    pub(super) fn teardown_hca(&mut self, input: &[u8]) -> Outcome {
        let profile = TeardownHcaIn::new(input)?.profile();
        if self.function.phase != Phase::Initialised {
            return Err(Syndrome::HcaState.into());
        }
        match profile {
            TeardownProfile::GracefulClose
            | TeardownProfile::ForceClose
            | TeardownProfile::PrepareFastTeardown => {}
            TeardownProfile::Other(_) => return Err(Syndrome::OpMod.into()),
        }
        self.function.phase = Phase::Enabled;
        self.objects = Objects::default();
        self.mkeys.clear();
        self.eqs.clear();
        self.cqs.clear();
        self.qps.clear();
        self.trackers.clear();
        Ok(())
    }

    pub(super) fn query_issi(&self, output: &mut [u8]) -> Outcome {
        QueryIssiOut::new(output)?
            .set_current_issi(self.function.issi)
            .set_supported_issi_dw0(SUPPORTED_ISSI);
        Ok(())
    }

    pub(super) fn set_issi(&mut self, input: &[u8]) -> Outcome {
        let issi = SetIssiIn::new(input)?.current_issi();
        if issi > 31 || SUPPORTED_ISSI & 1 << issi == 0 {
            return Err(Syndrome::Issi.into());
        }
        self.function.issi = issi;
        Ok(())
    }

    pub(super) fn query_pages(&self, input: &[u8], output: &mut [u8]) -> Outcome {
        let input = QueryPagesIn::new(input)?;
        let (boot, init) = (self.config.boot_pages, self.config.init_pages);
        let pages = match input.op_mod() {
            QueryPagesOpMod::Boot => self.function.missing(boot),
            QueryPagesOpMod::Init => self.function.missing(boot + init),
            QueryPagesOpMod::Regular => self.function.wanted,
            QueryPagesOpMod::Other(_) => return Err(Syndrome::OpMod.into()),
        };
        let pages = i32::try_from(pages).unwrap_or(i32::MAX);
        QueryPagesOut::new(output)?.set_function_id(input.function_id()).set_num_pages(pages);
        Ok(())
    }

    pub(super) fn manage_pages(&mut self, input: &[u8], output: &mut [u8]) -> Outcome {
        let input = ManagePagesIn::new(input)?;
        let function = input.function_id();
        if usize::from(function) > self.vhcas.len() {
            return Err(Syndrome::NoFunction.into());
        }
        let count = input.input_num_entries() as usize;
        match input.op_mod() {
            // A-PAGES-REFUSED: the firmware asks for no more.
            ManagePagesOpMod::AllocationFail => self.function.wanted = 0,
            ManagePagesOpMod::AllocationSuccess => self.take_pages(function, count, input.pas())?,
            ManagePagesOpMod::HcaReturnPages => self.return_pages(function, count, output)?,
            ManagePagesOpMod::Other(_) => return Err(Syndrome::OpMod.into()),
        }
        Ok(())
    }

    /// A-PAGES-CHECK: all of them, or none if one of them will not do.
    fn take_pages(&mut self, function: u16, count: usize, list: &[u8]) -> Outcome {
        let list = list.as_chunks::<8>().0.get(..count).ok_or(Syndrome::InputLength)?;
        let held: usize = self.function.page_count();
        if held + count > MAX_PAGES {
            return Err(Syndrome::NoRoom.into());
        }
        let mut fresh = BTreeSet::new();
        for address in list {
            let page = u64::from_be_bytes(*address);
            let known = self.function.pages.values().any(|pages| pages.contains(&page));
            let mapped = self.memory.read(page, &mut [0]).is_ok();
            if !page.is_multiple_of(PAGE) || known || !mapped || !fresh.insert(page) {
                return Err(Syndrome::PageAddress.into());
            }
        }
        self.function.pages.entry(function).or_default().append(&mut fresh);
        self.function.wanted = self.function.wanted.saturating_sub(count as u32);
        Ok(())
    }

    /// A-PAGES-BACK: as many as are asked for, but for what an initialised function needs.
    fn return_pages(&mut self, function: u16, count: usize, output: &mut [u8]) -> Outcome {
        let needed = match self.function.phase {
            Phase::Initialised if function == 0 => {
                (self.config.boot_pages + self.config.init_pages) as usize
            }
            _ => 0,
        };
        let room = output.len().saturating_sub(ManagePagesOut::BYTES) / 8;
        let pages = self.function.pages.entry(function).or_default();
        let count = count.min(pages.len().saturating_sub(needed)).min(room);
        let mut out = ManagePagesOut::new(output)?;
        out.set_output_num_entries(count as u32);
        for place in out.pas_mut().as_chunks_mut::<8>().0.iter_mut().take(count) {
            *place = pages.pop_last().unwrap_or(0).to_be_bytes();
        }
        Ok(())
    }

    pub(super) fn access_reg(&mut self, input: &[u8], output: &mut [u8]) -> Outcome {
        let input = AccessRegIn::new(input)?;
        let data = input.register_data();
        match (input.register_id(), input.op_mod()) {
            (RegisterId::HostEndianness, AccessRegOpMod::Write) => {
                let register = &mut self.function.host_endianness;
                let count = data.len().min(register.len());
                register[..count].copy_from_slice(&data[..count]);
            }
            (RegisterId::HostEndianness, AccessRegOpMod::Read) => {
                let mut out = crate::layout::AccessRegOut::new(output)?;
                for (place, byte) in
                    out.register_data_mut().iter_mut().zip(self.function.host_endianness)
                {
                    *place = byte;
                }
            }
            // A-DTOR: no timeout of its own, so all zero.
            (RegisterId::Dtor, AccessRegOpMod::Read) => {}
            _ => return Err(Syndrome::Register.into()),
        }
        Ok(())
    }

    pub(super) fn query_adapter(output: &mut [u8]) -> Outcome {
        let mut out = QueryAdapterOut::new(output)?;
        let mut block = out.query_adapter_struct_mut();
        // Mellanox's OUI, and a PSID of our own.
        block.set_ieee_vendor_id(0x2c9).set_vsd_vendor_id(0x15b3);
        block.vsd_contd_psid_mut().copy_from_slice(b"VFM0000000001\0\0\0");
        Ok(())
    }
}
