// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! Memory that the firmware has for itself: it asks for pages, and gives them back.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;

use parking_lot::Mutex;

use super::CommandQueue;
use crate::bar::Registers;
use crate::command::{CommandError, Commands};
use crate::dma::{DmaBuffer, DmaError, DmaSpace, PAGE_BYTES};
use crate::layout::{LayoutError, ManagePagesIn, ManagePagesOpMod, ManagePagesOut};

/// The most that one MANAGE_PAGES gives.
const GIVE_BATCH: u32 = 16 << 10;
/// The most that one takes.
const TAKE_BATCH: u32 = 512;
/// Pages that are allocated as one buffer, which is freed when all of them are back.
const GROUP: u32 = 64;
/// Requests that may wait. More of them stay in the event queue.
const WAITING: usize = 256;

/// Whose pages.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Function {
    /// 0 is the physical function itself, n + 1 its virtual function n.
    pub(super) id: u16,
    /// It belongs to an embedded CPU.
    pub(super) embedded: bool,
}

/// What the firmware asks for: pages, or if negative, that some be taken back.
#[derive(Clone, Copy, Debug)]
pub(super) struct Request {
    pub(super) function: Function,
    pub(super) pages: i32,
}

/// A page that the firmware has.
struct Page {
    function: Function,
    _memory: Arc<DmaBuffer>,
}

/// All pages that the firmware has, and what it asks for.
pub(super) struct Pages {
    limit: u64,
    given: Mutex<BTreeMap<u64, Page>>,
    wanted: Mutex<VecDeque<Request>>,
    /// Held by the one who serves requests, so that there is one.
    serving: Mutex<()>,
    failure: Mutex<Option<CommandError>>,
}

impl Pages {
    pub(super) fn new(limit: u64) -> Self {
        Self {
            limit,
            given: Mutex::default(),
            wanted: Mutex::default(),
            serving: Mutex::default(),
            failure: Mutex::default(),
        }
    }

    /// Notes a request; false if too many wait.
    pub(super) fn want(&self, request: Request) -> bool {
        let mut wanted = self.wanted.lock();
        let room = wanted.len() < WAITING;
        if room {
            wanted.push_back(request);
        }
        room
    }

    pub(super) fn given(&self) -> usize {
        self.given.lock().len()
    }

    /// The last request that could not be served, once.
    pub(super) fn take_failure(&self) -> Option<CommandError> {
        self.failure.lock().take()
    }

    /// The functions that have pages, and how many.
    fn owners(&self) -> BTreeMap<Function, u32> {
        let mut owners = BTreeMap::new();
        for page in self.given.lock().values() {
            *owners.entry(page.function).or_default() += 1;
        }
        owners
    }

    /// Makes so many pages, and notes that the function has them.
    fn make(&self, dma: &DmaSpace, function: Function, count: u32) -> Result<Vec<u64>, DmaError> {
        let asked = u64::from(count) * PAGE_BYTES;
        let used = self.given() as u64 * PAGE_BYTES;
        if asked > self.limit.saturating_sub(used) {
            return Err(DmaError::Limit { asked, used, limit: self.limit });
        }
        let mut made = Vec::with_capacity(count as usize);
        let mut left = count;
        while left > 0 {
            let group = left.min(GROUP);
            let memory = dma.allocate(group as usize * PAGE_BYTES as usize)?;
            let memory = Arc::new(memory);
            let addresses = (0..group).map(|page| memory.iova() + u64::from(page) * PAGE_BYTES);
            made.extend(addresses.map(|iova| (iova, memory.clone())));
            left -= group;
        }
        let addresses = made.iter().map(|(iova, _)| *iova).collect();
        let pages = made.into_iter().map(|(iova, _memory)| (iova, Page { function, _memory }));
        self.given.lock().extend(pages);
        Ok(addresses)
    }

    /// Frees pages that the firmware does not have. Says how many of these it had.
    fn free(&self, addresses: impl Iterator<Item = u64>) -> u32 {
        let mut given = self.given.lock();
        addresses.filter(|iova| given.remove(iova).is_some()).count() as u32
    }
}

impl<R: Registers> CommandQueue<R> {
    /// Does what the firmware asked for. Whoever comes while somebody does leaves it to them; they
    /// look again after they said that they stopped, so that nothing is left.
    pub(super) fn serve_pages(&self) {
        while !self.pages.wanted.lock().is_empty() {
            let Some(_serving) = self.pages.serving.try_lock() else { return };
            while let Some(request) = self.next_request() {
                let served = match u32::try_from(request.pages) {
                    Ok(count) => self.give_pages(request.function, count),
                    Err(_) => {
                        self.take_pages(request.function, request.pages.unsigned_abs()).map(|_| ())
                    }
                };
                if let Err(error) = served {
                    *self.pages.failure.lock() = Some(error);
                }
            }
        }
    }

    fn next_request(&self) -> Option<Request> {
        self.pages.wanted.lock().pop_front()
    }

    /// Gives the firmware so many pages, or says that there are none.
    pub(super) fn give_pages(&self, function: Function, count: u32) -> Result<(), CommandError> {
        let mut left = count;
        while left > 0 {
            let batch = left.min(GIVE_BATCH);
            match self.pages.make(&self.dma, function, batch) {
                Ok(pages) => self.hand_over(function, &pages)?,
                Err(error) => {
                    self.refuse_pages(function)?;
                    return Err(error.into());
                }
            }
            left -= batch;
        }
        Ok(())
    }

    fn hand_over(&self, function: Function, pages: &[u64]) -> Result<(), CommandError> {
        let give = ManagePagesOpMod::AllocationSuccess;
        let mut input = manage_pages(function, give, pages.len() as u32, pages.len())?;
        for (place, page) in input.pas_mut().chunks_exact_mut(8).zip(pages) {
            place.copy_from_slice(&page.to_be_bytes());
        }
        let mut output = ManagePagesOut::zeroed();
        let given = self.execute(input.as_bytes(), output.as_bytes_mut());
        if given.is_err_and(|error| !error.leaves_open()) {
            self.pages.free(pages.iter().copied());
        }
        given
    }

    /// Lets the firmware go on, or fail, without.
    fn refuse_pages(&self, function: Function) -> Result<(), CommandError> {
        let input = manage_pages(function, ManagePagesOpMod::AllocationFail, 0, 0)?;
        self.execute(input.as_bytes(), ManagePagesOut::zeroed().as_bytes_mut())
    }

    /// Takes pages back, as many of so many as the firmware lets go. Says how many.
    pub(super) fn take_pages(&self, function: Function, count: u32) -> Result<u32, CommandError> {
        let mut taken = 0;
        while taken < count {
            let batch = (count - taken).min(TAKE_BATCH);
            let input = manage_pages(function, ManagePagesOpMod::HcaReturnPages, batch, 0)?;
            let mut output = vec![0; ManagePagesOut::BYTES + 8 * batch as usize];
            self.execute(input.as_bytes(), &mut output)?;
            let output = ManagePagesOut::new(output)?;
            let returned = output.output_num_entries().min(batch);
            let pages = output.pas().chunks_exact(8).take(returned as usize);
            let pages = pages.filter_map(|page| page.try_into().ok()).map(u64::from_be_bytes);
            let freed = self.pages.free(pages);
            taken += freed;
            // The firmware has no more to give, or gives what it does not have.
            if freed < batch {
                break;
            }
        }
        Ok(taken)
    }

    /// Takes everything back that the firmware lets go. Says how many pages it keeps.
    pub(super) fn take_all_pages(&self) -> Result<usize, CommandError> {
        for (function, given) in self.pages.owners() {
            self.take_pages(function, given)?;
        }
        Ok(self.pages.given())
    }
}

fn manage_pages(
    function: Function,
    op_mod: ManagePagesOpMod,
    entries: u32,
    addresses: usize,
) -> Result<ManagePagesIn<Vec<u8>>, LayoutError> {
    let mut bytes = ManagePagesIn::command().into_inner().to_vec();
    bytes.resize(ManagePagesIn::BYTES + 8 * addresses, 0);
    let mut input = ManagePagesIn::new(bytes)?;
    input
        .set_op_mod(op_mod)
        .set_embedded_cpu_function(function.embedded)
        .set_function_id(function.id)
        .set_input_num_entries(entries);
    Ok(input)
}
