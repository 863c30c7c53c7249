// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! Memory keys, and reading and writing through one.

use super::{Outcome, PageList, Table};
use crate::dma::DmaError;
use crate::firmware::machine::Machine;
use crate::firmware::memory::DeviceMemory;
use crate::firmware::refusal::{Refusal, Syndrome};
use crate::firmware::vhca::{Sink, Source};
use crate::layout::{CreateMkeyIn, CreateMkeyOut, DestroyMkeyIn, MkeyAccessMode};

/// A memory key.
pub(crate) struct Mkey {
    pub(super) pd: u32,
    low_byte: u8,
    start: u64,
    len: u64,
    /// `None`: addresses are the bus's own.
    pages: Option<PageList>,
    /// Bytes of the first page before `start`: an address is at the same place in its page on both
    /// sides.
    lead: u64,
    local_read: bool,
    local_write: bool,
}

/// What the firmware does through a memory key (A-MKEY-ACCESS).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Access {
    Read,
    Write,
}

impl Mkey {
    /// As [`PageList::at`].
    fn at(&self, va: u64, wanted: u64) -> Option<(u64, u64)> {
        let offset = va.checked_sub(self.start)?;
        let left = self.len.checked_sub(offset)?;
        match &self.pages {
            None => Some((va, left)),
            Some(pages) => {
                let (iova, bytes) = pages.at(self.lead.checked_add(offset)?, wanted)?;
                Some((iova, bytes.min(left)))
            }
        }
    }

    fn allows(&self, access: Access) -> bool {
        match access {
            Access::Read => self.local_read,
            Access::Write => self.local_write,
        }
    }
}

impl Machine {
    pub(super) fn create_mkey(&mut self, input: &[u8], output: &mut [u8]) -> Outcome {
        let mkey = self.mkey_of(&CreateMkeyIn::new(input)?)?;
        let index = self.mkeys.insert(mkey)?;
        CreateMkeyOut::new(output)?.set_mkey_index(index);
        Ok(())
    }

    fn mkey_of(&self, input: &CreateMkeyIn<&[u8]>) -> Result<Mkey, Refusal> {
        let context = input.memory_key_mkey_entry();
        if !self.objects.has_pd(context.pd()) {
            return Err(Syndrome::NoPd.into());
        }
        let list = input.klm_pas_mtt();
        let len = if context.length64() { u64::MAX } else { context.len() };
        let shift = u32::from(context.log_page_size());
        let in_page = 1_u64.checked_shl(shift).unwrap_or(0).wrapping_sub(1);
        let lead = context.start_addr() & in_page;
        let pages = match context.access_mode() {
            _ if context.free() || input.mkey_umem_valid() => Err(Syndrome::MkeyContext),
            MkeyAccessMode::Pa => Ok(None),
            MkeyAccessMode::Mtt => {
                // Two addresses an octword.
                let given = u64::from(input.translations_octword_actual_size()) * 16;
                let list = usize::try_from(given).ok().and_then(|given| list.get(..given));
                let list = list.ok_or(Syndrome::InputLength)?;
                // A-MTT-ACCESS: the lowest bits of each may be its rights, and are not checked.
                let plain = if input.pg_access() { without_rights(list) } else { list.to_vec() };
                let pages = PageList::new(&plain, len.saturating_add(lead), shift);
                pages.map(Some).ok_or(Syndrome::MkeyContext)
            }
            _ => Err(Syndrome::MkeyContext),
        }?;
        Ok(Mkey {
            pd: context.pd(),
            low_byte: context.mkey_7_0(),
            start: context.start_addr(),
            len,
            pages,
            lead,
            local_read: context.lr(),
            local_write: context.lw(),
        })
    }

    pub(super) fn destroy_mkey(&mut self, input: &[u8]) -> Outcome {
        let index = DestroyMkeyIn::new(input)?.mkey_index();
        self.mkeys.remove(index).ok_or(Syndrome::NoMkey)?;
        Ok(())
    }
}

fn without_rights(list: &[u8]) -> Vec<u8> {
    let mut list = list.to_vec();
    for address in list.as_chunks_mut::<8>().0 {
        address[7] &= !0b111;
    }
    list
}

/// A piece of memory behind a memory key, gone through from its beginning.
pub(crate) struct Window<'a> {
    mkey: &'a Mkey,
    memory: &'a dyn DeviceMemory,
    va: u64,
    left: u64,
}

impl<'a> Window<'a> {
    /// A-MKEY-CHECKS: the whole key is right, it allows the access, and it is long enough.
    pub(crate) fn new(
        mkeys: &'a Table<Mkey>,
        memory: &'a dyn DeviceMemory,
        key: u32,
        range: (u64, u64),
        access: Access,
    ) -> Result<Self, Syndrome> {
        let mkey = mkeys.get(key >> 8).filter(|mkey| mkey.low_byte == key as u8);
        let mkey = mkey.ok_or(Syndrome::NoMkey)?;
        if !mkey.allows(access) {
            return Err(Syndrome::MkeyAccess);
        }
        let (va, left) = range;
        let inside = va.checked_sub(mkey.start).and_then(|offset| mkey.len.checked_sub(offset));
        if inside.is_none_or(|inside| inside < left) {
            return Err(Syndrome::MkeyRange);
        }
        Ok(Self { mkey, memory, va, left })
    }

    /// Goes on by so many bytes, in pieces: each gets its address and its place in the whole.
    fn step(
        &mut self,
        bytes: usize,
        mut piece: impl FnMut(&dyn DeviceMemory, u64, std::ops::Range<usize>) -> Result<(), DmaError>,
    ) -> Result<(), Syndrome> {
        if bytes as u64 > self.left {
            return Err(Syndrome::MkeyRange);
        }
        let mut done = 0;
        while done < bytes {
            let (iova, together) =
                self.mkey.at(self.va, (bytes - done) as u64).ok_or(Syndrome::MkeyRange)?;
            let count = (bytes - done).min(usize::try_from(together).unwrap_or(usize::MAX));
            piece(self.memory, iova, done..done + count).map_err(|_| Syndrome::Unmapped)?;
            done += count;
            self.va = self.va.wrapping_add(count as u64);
            self.left -= count as u64;
        }
        Ok(())
    }
}

impl Sink for Window<'_> {
    fn put(&mut self, bytes: &[u8]) -> Result<(), Refusal> {
        self.step(bytes.len(), |memory, iova, range| memory.write(iova, &bytes[range]))?;
        Ok(())
    }
}

impl Source for Window<'_> {
    fn get(&mut self, bytes: &mut [u8]) -> Result<(), Refusal> {
        self.step(bytes.len(), |memory, iova, range| memory.read(iova, &mut bytes[range]))?;
        Ok(())
    }

    fn left(&self) -> u64 {
        self.left
    }
}
