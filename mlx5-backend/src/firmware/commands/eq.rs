// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! Event and completion queues.

use std::collections::VecDeque;

use super::{Outcome, PageList};
use crate::firmware::events::EventQueue;
use crate::firmware::machine::Machine;
use crate::firmware::refusal::Syndrome;
use crate::layout::{
    Cqe64, CreateCqIn, CreateCqOut, CreateEqIn, CreateEqOut, DestroyCqIn, DestroyEqIn, Eqe,
};

/// log2 of the most entries of a queue.
const MOST_ENTRIES: u8 = 22;

/// A completion queue.
pub(crate) struct CompletionQueue {
    pub(super) pages: PageList,
    pub(super) log_size: u8,
    pub(super) eqn: u32,
    /// Where the driver writes how far it has got.
    pub(super) doorbell: u64,
    pub(super) producer: u32,
}

/// The memory of a queue of `2^log_size` entries, with page sizes relative to 4 KiB.
pub(super) fn queue_pages(
    list: &[u8],
    log_size: u8,
    entry: u64,
    log_page_size: u8,
    page_offset: u8,
) -> Result<PageList, Syndrome> {
    // A-PAGE-OFFSET: a queue begins where its first page does.
    if log_size > MOST_ENTRIES || page_offset != 0 {
        return Err(Syndrome::QueueContext);
    }
    let shift = u32::from(log_page_size) + 12;
    PageList::new(list, entry << log_size, shift).ok_or(Syndrome::QueueContext)
}

impl Machine {
    pub(super) fn create_eq(&mut self, input: &[u8], output: &mut [u8]) -> Outcome {
        let input = CreateEqIn::new(input)?;
        let context = input.eq_context_entry();
        if !self.objects.has_uar(context.uar_page()) {
            return Err(Syndrome::NoUar.into());
        }
        let pages = queue_pages(
            input.pas(),
            context.log_eq_size(),
            Eqe::BYTES as u64,
            context.log_page_size(),
            context.page_offset(),
        )?;
        let eq = EventQueue {
            pages,
            log_size: context.log_eq_size(),
            uar: context.uar_page(),
            vector: context.intr(),
            events: input.event_bitmask()[0],
            producer: 0,
            consumer: 0,
            armed: false,
            backlog: VecDeque::new(),
        };
        let number = self.eqs.insert(eq)?;
        CreateEqOut::new(output)?.set_eq_number(number as u8);
        Ok(())
    }

    pub(super) fn destroy_eq(&mut self, input: &[u8]) -> Outcome {
        let number = u32::from(DestroyEqIn::new(input)?.eq_number());
        if self.cqs.iter().any(|(_, cq)| cq.eqn == number) {
            return Err(Syndrome::InUse.into());
        }
        self.eqs.remove(number).ok_or(Syndrome::NoEq)?;
        Ok(())
    }

    pub(super) fn create_cq(&mut self, input: &[u8], output: &mut [u8]) -> Outcome {
        let input = CreateCqIn::new(input)?;
        let context = input.cq_context();
        let eqn = context.c_eqn_or_apu_element();
        self.eqs.get(eqn).ok_or(Syndrome::NoEq)?;
        if context.cqe_sz() != 0 || input.cq_umem_valid() {
            return Err(Syndrome::QueueContext.into());
        }
        let pages = queue_pages(
            input.pas(),
            context.log_cq_size(),
            Cqe64::BYTES as u64,
            context.log_page_size(),
            context.page_offset(),
        )?;
        let cq = CompletionQueue {
            pages,
            log_size: context.log_cq_size(),
            eqn,
            doorbell: context.dbr_addr(),
            producer: 0,
        };
        let number = self.cqs.insert(cq)?;
        CreateCqOut::new(output)?.set_cqn(number);
        Ok(())
    }

    pub(super) fn destroy_cq(&mut self, input: &[u8]) -> Outcome {
        let number = DestroyCqIn::new(input)?.cqn();
        if self.qps.iter().any(|(_, qp)| qp.completes_to(number)) {
            return Err(Syndrome::InUse.into());
        }
        self.cqs.remove(number).ok_or(Syndrome::NoCq)?;
        Ok(())
    }
}
