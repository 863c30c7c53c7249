// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! Event queues and what is in them.

use super::macros::structure;
use super::{CommandStatus, EventType, ObjectType, Opcode};

structure! {
    /// An event queue.
    pub struct Eqc = "eqc", 64 {
        /// 0: it works.
        status: field(0, 4, u8);
        /// Several entries may be made one.
        ec: field(13, 1, bool);
        /// Entries that were not read may be overwritten.
        oi: field(14, 1, bool);
        /// 9: armed, 10: fired.
        st: field(20, 4, u8);
        /// Where in the first page it begins, in units of 64 bytes.
        page_offset: field(84, 6, u8);
        /// How many entries of 64 bytes, as a logarithm.
        log_eq_size: field(99, 5, u8);
        /// The page of doorbells that arms it.
        uar_page: field(104, 24, u32);
        /// Which interrupt.
        intr: field(180, 12, u16);
        /// The logarithm of the page size, less 12: relative, unlike in a memory key.
        log_page_size: field(195, 5, u8);
        /// How far it was read.
        consumer_counter: field(328, 24, u32);
        /// How far it was written.
        producer_counter: field(360, 24, u32);
    }

    /// Makes an event queue.
    pub struct CreateEqIn = "create_eq_in", 272, opcode CreateEq {
        /// [`Opcode::CreateEq`].
        opcode: field(0, 16, Opcode);
        /// Who issues the command.
        uid: field(16, 16, u16);
        /// 0.
        op_mod: field(48, 16, u16);
        /// The queue.
        eq_context_entry: view(128, Eqc);
        /// One bit for each [`EventType`] that is to go there; bit 0 is the lowest of the first
        /// number.
        event_bitmask: array(704, 64, 4, u64);
        /// The addresses of its pages.
        pas: tail(64);
    }

    /// The answer to `CREATE_EQ`.
    pub struct CreateEqOut = "create_eq_out", 16 {
        /// Whether it was carried out.
        status: field(0, 8, CommandStatus);
        /// If it was not, why.
        syndrome: field(32, 32, u32);
        /// The new queue's number.
        eq_number: field(88, 8, u8);
    }

    /// Destroys an event queue.
    pub struct DestroyEqIn = "destroy_eq_in", 16, opcode DestroyEq {
        /// [`Opcode::DestroyEq`].
        opcode: field(0, 16, Opcode);
        /// 0.
        op_mod: field(48, 16, u16);
        /// Its number.
        eq_number: field(88, 8, u8);
    }

    /// The answer to `DESTROY_EQ`.
    pub struct DestroyEqOut = "destroy_eq_out", 16 {
        /// Whether it was carried out.
        status: field(0, 8, CommandStatus);
        /// If it was not, why.
        syndrome: field(32, 32, u32);
    }

    /// Commands are done: the data of [`EventType::Cmd`].
    pub struct CmdInterCompEvent = "cmd_inter_comp_event", 28 {
        /// One bit for each entry of the command queue that is done.
        command_completion_vector: field(0, 32, u32);
    }

    /// The firmware wants pages, or has some to give: the data of [`EventType::PageRequest`].
    pub struct PagesReqEvent = "pages_req_event", 28 {
        /// Bit 15: the function is that of an embedded CPU.
        ec_function: field(0, 16, u16);
        /// For which function.
        function_id: field(16, 16, u16);
        /// How many pages of 4 KiB it wants; below zero: how many it has too many.
        num_pages: field(32, 32, i32);
    }

    /// A general object has changed: the data of [`EventType::ObjectChange`].
    pub struct AffiliatedEventHeader = "affiliated_event_header", 8 {
        /// Of which type it is.
        obj_type: field(16, 16, ObjectType);
        /// Its number.
        obj_id: field(32, 32, u32);
    }

    /// An entry of an event queue.
    pub struct Eqe = "eqe", 64 {
        /// What has happened.
        event_type: field(8, 8, EventType);
        /// What of it.
        event_sub_type: field(24, 8, u8);
        /// Details, for each type in a structure of its own.
        event_data: bytes(256, 28);
        /// Of the entry.
        signature: field(496, 8, u8);
        /// Turns with each round of the queue: an entry is new when this is the bit of the
        /// consumer's count that says whether the round is even.
        owner: field(511, 1, bool);
    }
}

/// The types of [`Eqe::event_data`].
macro_rules! data {
    ($( $member:ident $member_mut:ident $View:ident $kind:literal; )*) => {
        impl<B: AsRef<[u8]>> Eqe<B> { $(
            #[doc = concat!("The details of an [`EventType::", $kind, "`].")]
            pub fn $member(&self) -> $View<&[u8]> {
                $View(self.event_data())
            }
        )* }

        impl<B: AsMut<[u8]>> Eqe<B> { $(
            #[doc = concat!("[`", stringify!($member), "`](Self::", stringify!($member), "), to write.")]
            pub fn $member_mut(&mut self) -> $View<&mut [u8]> {
                $View(self.event_data_mut())
            }
        )* }
    };
}

data! {
    command_completion command_completion_mut CmdInterCompEvent "Cmd";
    page_request page_request_mut PagesReqEvent "PageRequest";
    object_change object_change_mut AffiliatedEventHeader "ObjectChange";
}
