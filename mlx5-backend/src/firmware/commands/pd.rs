// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! Protection domains and UAR pages.

use std::collections::BTreeSet;

use super::{Outcome, Table};
use crate::firmware::machine::{END_UAR, FIRST_UAR, Machine};
use crate::firmware::refusal::Syndrome;
use crate::layout::{AllocPdOut, AllocUarOut, DeallocPdIn, DeallocUarIn};

/// What has nothing to it but its number.
pub(crate) struct Objects {
    pds: Table<()>,
    uars: Table<()>,
}

impl Default for Objects {
    fn default() -> Self {
        Self { pds: Table::new(1..1 << 24), uars: Table::new(FIRST_UAR..END_UAR) }
    }
}

impl Objects {
    pub(super) fn has_pd(&self, pd: u32) -> bool {
        self.pds.get(pd).is_some()
    }

    pub(super) fn has_uar(&self, uar: u32) -> bool {
        self.uars.get(uar).is_some()
    }

    pub(crate) fn pd_count(&self) -> usize {
        self.pds.len()
    }
}

impl Machine {
    pub(super) fn alloc_pd(&mut self, output: &mut [u8]) -> Outcome {
        let pd = self.objects.pds.insert(())?;
        AllocPdOut::new(output)?.set_pd(pd);
        Ok(())
    }

    /// A-IN-USE: not while a memory key or queue pair is in it.
    pub(super) fn dealloc_pd(&mut self, input: &[u8]) -> Outcome {
        let pd = DeallocPdIn::new(input)?.pd();
        if self.mkeys.iter().any(|(_, mkey)| mkey.pd == pd)
            || self.qps.iter().any(|(_, qp)| qp.pd == pd)
        {
            return Err(Syndrome::InUse.into());
        }
        self.objects.pds.remove(pd).ok_or(Syndrome::NoPd)?;
        Ok(())
    }

    pub(super) fn alloc_uar(&mut self, output: &mut [u8]) -> Outcome {
        let uar = self.objects.uars.insert(())?;
        AllocUarOut::new(output)?.set_uar(uar);
        Ok(())
    }

    pub(super) fn dealloc_uar(&mut self, input: &[u8]) -> Outcome {
        let uar = DeallocUarIn::new(input)?.uar();
        if self.uars_of_eqs().contains(&uar) {
            return Err(Syndrome::InUse.into());
        }
        self.objects.uars.remove(uar).ok_or(Syndrome::NoUar)?;
        Ok(())
    }

    /// The UAR pages on which event queues are rung.
    pub(crate) fn uars_of_eqs(&self) -> BTreeSet<u32> {
        self.eqs.iter().map(|(_, eq)| eq.uar).collect()
    }
}
